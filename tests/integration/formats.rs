//! The formats of `plan`.

use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox};
use crate::support::repository;

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
fn what_is_no_terminal_is_not_cut() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let whole = sandbox.ok(&["plan"]).stdout;
    let mut command = sandbox.command(&["plan"]);
    assert_eq!(Outcome::of(command.env("COLUMNS", "30").output().unwrap()).expect(0).stdout, whole);
}

/// Expects that the documents of a line each fit what `seedbed schema WHAT` prints, which is what is committed.
#[track_caller]
fn check_schema(sandbox: &Sandbox, what: &str, printed: &[&str]) {
    let derived: Value = sandbox.ok(&["schema", what]).json();
    let committed: Value =
        serde_json::from_slice(&std::fs::read(repository(&format!("schemas/{what}.schema.json"))).unwrap())
            .unwrap();
    assert_eq!(committed, derived, "renew it: cargo run -- schema {what} > schemas/{what}.schema.json");
    assert!(derived["$id"].as_str().unwrap().starts_with(&format!("urn:seedbed:{what}:")), "{what}");
    let validator = jsonschema::validator_for(&derived).unwrap();
    for document in printed {
        let document: Value =
            serde_json::from_str(document).unwrap_or_else(|error| panic!("{what}: {error}: {document:?}"));
        let faults: Vec<_> = validator.iter_errors(&document).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{what}: {faults:?}\n{document:#}");
        assert!(document["schemaVersion"].is_u64(), "{what}");
    }
}

#[test]
fn documents_of_every_command_fit_their_schemas() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\nprompt = [\"Hello.\"]\n");
    let print = |args: &[&str]| sandbox.seedbed(args).stdout;
    let planned =
        [print(&["plan", "--json"]), print(&["explain", "a", "--json"]), print(&["doctor", "--json"])];
    sandbox.ok(&["apply"]);
    let path = sandbox.directory("a");
    let path = path.to_str().unwrap();
    check_schema(&sandbox, "plan", &[&planned[0], &print(&["plan", "--json"])]);
    check_schema(&sandbox, "doctor", &[&planned[2], &print(&["doctor", "--reap", "--json"])]);
    let explained = [
        print(&["explain", "a", "--json"]),
        print(&["explain", path, "--json"]),
        print(&["explain", "9", "--json"]),
    ];
    check_schema(&sandbox, "explain", &[&planned[1], &explained[0], &explained[1], &explained[2]]);
    check_schema(&sandbox, "list", &[&print(&["list", "--json"])]);
    check_schema(
        &sandbox,
        "status",
        &[&print(&["status", "--json"]), &print(&["status", "--repair", "--json"])],
    );
    check_schema(&sandbox, "env", &[&print(&["env", "a", "--json"])]);
    check_schema(&sandbox, "prompt", &[&print(&["prompt", "a", "Do it.", "--json"])]);
    let whoami = sandbox.seedbed_in(path.as_ref(), &["whoami", "--json"]).expect(0).stdout;
    check_schema(&sandbox, "discovery", &[&whoami]);
    check_schema(&sandbox, "faults", &[&print(&["validate", "--json"])]);
    check_schema(&sandbox, "events", &[&print(&["destroy", "--dry-run", "--json"])]);
    check_schema(&sandbox, "provider", &[]);
}
