//! Runs the examples of the library as tests.

#[path = "../../../examples/library.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example library`")]
mod example;

#[path = "../../../examples/embedded.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example embedded`")]
mod embedded;

#[test]
fn a_program_provisions_a_session_and_a_child_and_cancels_a_run() {
    let sandbox = crate::library_sandbox::Sandbox::new();
    let before = sandbox.trace();
    embedded::run(&sandbox.repo, &sandbox.host.state).expect("the example runs");
    assert_eq!(sandbox.trace(), before);
}

#[path = "../../../examples/provider.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example provider`")]
mod provider_example;

#[test]
fn the_example_of_a_kind_creates_a_directory_and_removes_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let scratch = provider_example::tour(directory.path()).expect("the example runs");
    assert!(scratch.starts_with(directory.path().canonicalize().unwrap()), "{scratch:?}");
    let left = std::fs::read_dir(scratch.parent().unwrap()).unwrap().count();
    assert_eq!(left, 0, "the workspace is as it was");
}

#[test]
fn the_example_of_a_kind_has_at_most_60_lines_beside_its_imports() {
    let text = std::fs::read_to_string(crate::fixtures::repository("examples/provider.rs")).unwrap();
    let kind =
        text.split("struct ScratchDir;").nth(1).unwrap().split("// The kind ends here").next().unwrap();
    let lines = kind.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 60, "{lines}");
}

#[test]
fn external_example_prints_its_documented_output() {
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
