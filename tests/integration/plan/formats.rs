//! Tests of the formats of `plan`.

use crate::sandbox::{Outcome, Sandbox};

#[test]
fn json_is_a_format_and_excludes_the_others() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let json = sandbox.ok(&["plan", "--json"]).stdout;
    assert_eq!(sandbox.ok(&["plan", "--format", "json"]).stdout, json);
    assert_eq!(sandbox.ok(&["plan", "--format", "json", "--json"]).stdout, json);
    let both = sandbox.seedbed(&["plan", "--format", "text", "--json"]).expect(64);
    assert!(both.json()["message"].as_str().unwrap().contains("exclude each other"), "{both:?}");
}

/// Variables of the environment and their values.
type Variables = &'static [(&'static str, &'static str)];

#[test]
fn colours_are_decided_alike_for_plans_diagnostics_and_help() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\n");
    let broken = Sandbox::new();
    broken.manifest("[session.a]\nwrong = 1\n");
    let commands: [(&Sandbox, &[&str]); 4] =
        [(&sandbox, &["plan"]), (&broken, &["validate"]), (&sandbox, &["--help"]), (&sandbox, &["unknown"])];
    let cases: [(&[&str], Variables, bool); 10] = [
        (&[], &[], false),
        (&[], &[("CLICOLOR_FORCE", "1")], true),
        (&[], &[("FORCE_COLOR", "1")], true),
        (&[], &[("CLICOLOR_FORCE", "0")], false),
        (&[], &[("FORCE_COLOR", "0")], false),
        (&[], &[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false),
        (&[], &[("FORCE_COLOR", "1"), ("NO_COLOR", "")], true),
        (&["--color", "always"], &[("NO_COLOR", "1")], true),
        (&["--color=never"], &[("FORCE_COLOR", "1")], false),
        (&["--color", "auto"], &[], false),
    ];
    for (options, variables, expected) in cases {
        for (sandbox, args) in commands {
            let mut command = sandbox.command(&[options, args].concat());
            command.env_remove("NO_COLOR").env("TERM", "xterm").envs(variables.iter().copied());
            let Outcome { stdout, stderr, .. } = Outcome::of(command.output().unwrap());
            let is_colored = (stdout + &stderr).contains("\u{1b}[");
            assert_eq!(is_colored, expected, "{options:?} {variables:?} {args:?}");
        }
    }
}

#[test]
fn output_that_is_no_terminal_is_not_cut() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let whole = sandbox.ok(&["plan"]).stdout;
    let mut command = sandbox.command(&["plan"]);
    assert_eq!(Outcome::of(command.env("COLUMNS", "30").output().unwrap()).expect(0).stdout, whole);
}
