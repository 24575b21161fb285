//! Tests of `--set`: values of the manifest that are changed for one run.

use crate::sandbox::Sandbox;

const SET: &str = "--set=session.coder.count=2";

#[test]
fn set_changes_the_plan_of_one_run_and_is_part_of_the_plan() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\ncount = 1\nresources = [\"port-range\"]\n");
    let line = "set for this plan: session.coder.count=2";
    for format in ["text", "markdown", "html"] {
        let shown = sandbox.ok(&["plan", SET, "--format", format]).stdout;
        assert!(shown.contains(line) && shown.contains("coder-1"), "{shown}");
    }
    let digest = |args: &[&str]| sandbox.ok(args).json()["digest"].as_str().unwrap().to_owned();
    let set = digest(&["plan", "--json", SET]);
    assert_ne!(set, digest(&["plan", "--json", "--set=session.coder.count= 2"]));
    sandbox.ok(&["plan", SET, "-o", "../plan.json"]);
    assert!(sandbox.ok(&["show", "../plan.json"]).stdout.contains(line));
    sandbox.seedbed(&["apply", "../plan.json", SET]).expect(64).says(&["is part of a saved plan"]);
    sandbox.ok(&["apply", "../plan.json"]);
    sandbox.ok(&["plan", SET, "--detailed-exitcode"]);
    sandbox.ok(&["apply", SET, "--expect", &set]);
    // Without it, the swarm shrinks, and the plan says why.
    let plan = sandbox.seedbed(&["plan", "--detailed-exitcode"]).expect(2).stdout;
    assert!(
        plan.contains("- coder-1") && plan.contains("was applied with --set session.coder.count=2"),
        "{plan}"
    );
    sandbox.ok(&["destroy"]);
}

#[test]
fn diagnostic_of_a_set_value_shows_the_argument() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\ncount = 1\nresources = [\"port-range\"]\n");
    let wrong = ["validate", "--set", "session.coder.cuont=2"];
    for command in ["validate", "plan", "apply"] {
        let outcome = sandbox.seedbed(&[command, wrong[1], wrong[2]]).expect(65);
        outcome.says(&["--set:1:15", "session.coder.cuont=2", "did you mean `count`?"]);
    }
    let report = sandbox.seedbed(&[&wrong[..], &["--format", "json"]].concat()).expect(65).json();
    assert_eq!(report["diagnostics"][0]["argument"], "session.coder.cuont=2");
    let github = sandbox.seedbed(&[&wrong[..], &["--format", "github"]].concat()).expect(65).stdout;
    assert!(
        github.starts_with("::error title=seedbed%3A unknown-key::--set session.coder.cuont=2: "),
        "{github}"
    );
    let sarif = sandbox.seedbed(&[&wrong[..], &["--format", "sarif"]].concat()).expect(65).json();
    assert!(sarif["runs"][0]["results"][0].get("locations").is_none(), "{sarif}");
    sandbox.seedbed(&["plan", "--set", "count"]).expect(64).says(&["write `PATH=VALUE`"]);
}
