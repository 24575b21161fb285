//! The formats of `plan`.

use crate::sandbox::{Outcome, Sandbox};

#[test]
fn json_is_a_format_and_excludes_the_others() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let json = sandbox.ok(&["plan", "--json"]).stdout;
    assert_eq!(sandbox.ok(&["plan", "--format", "json"]).stdout, json);
    assert_eq!(sandbox.ok(&["plan", "--format", "json", "--json"]).stdout, json);
    let both = sandbox.seedbed(&["plan", "--format", "text", "--json"]).expect(64);
    assert!(both.json()["message"].as_str().unwrap().contains("either --json or --format"), "{both:?}");
}

#[test]
fn colours_are_for_terminals_and_whoever_forces_them() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\n");
    let plan = |variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&["plan"]);
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(variables.iter().copied());
        Outcome::of(command.output().unwrap()).expect(0).stdout
    };
    let coloured = |variables| plan(variables).contains("\u{1b}[32m+ a");
    assert!(!coloured(&[]), "stdout is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn what_is_no_terminal_is_not_cut() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let whole = sandbox.ok(&["plan"]).stdout;
    let mut command = sandbox.command(&["plan"]);
    assert_eq!(Outcome::of(command.env("COLUMNS", "30").output().unwrap()).expect(0).stdout, whole);
}
