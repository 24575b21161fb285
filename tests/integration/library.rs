//! The examples of the library, run as tests.

#[path = "../../examples/library.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example library`")]
mod example;

#[path = "../../examples/embedded.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example embedded`")]
mod embedded;

#[test]
fn a_program_provisions_a_session_and_a_child_and_cancels_a_run() {
    let sandbox = crate::in_process::Sandbox::new();
    let before = sandbox.trace();
    embedded::run(&sandbox.repo, &sandbox.host.state).expect("the example runs");
    assert_eq!(sandbox.trace(), before);
}

#[test]
fn the_example_does_what_it_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let said = example::tour(directory.path()).expect("the example runs");
    let [lead, coder] = said.as_slice() else { panic!("two prompts: {said:?}") };
    for (prompt, task) in [(lead, "Plan the release."), (coder, "Write the tests.")] {
        assert!(prompt.starts_with("Runtime resource constraints are already enforced"), "{prompt}");
        assert!(prompt.contains("- Assigned deterministic port range: "), "{prompt}");
        assert!(prompt.ends_with(&format!("\n\n{task}")), "{prompt}");
    }
    assert!(coder.contains("child-worktrees"), "{coder}");
}
