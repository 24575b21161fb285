//! Tests of the recipe for CI in `examples/ci`: the script runs unchanged, and the workflow step by step as far as it
//! needs no GitHub.

use std::fs;
use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode as _, YamlOwned};

use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox};

const SWARM: &str =
    "[session.job]\nresources = [\"git-worktree\", { kind = \"port-range\", names = [\"app\"] }]\n";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("test.sh", "#!/bin/sh\necho \"$AGENT_SESSION_ID in $(pwd -P), port $AGENT_PORT_APP\"\n");
    Outcome::of(sandbox.program("chmod", &sandbox.repository).args(["+x", "test.sh"]).output().unwrap())
        .expect(0);
    sandbox.commit("a test");
    sandbox.manifest(SWARM);
    sandbox
}

/// Returns a command of a program with `seedbed` in its `PATH`.
fn program(sandbox: &Sandbox, name: &str) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap();
    let mut command = sandbox.program(name, &sandbox.repository);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

fn script(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = program(sandbox, repository("examples/ci/check.sh").to_str().unwrap());
    command.arg(sandbox.top.join("plan.md")).args(args);
    command
}

fn plan(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.top.join("plan.md")).unwrap_or_default()
}

#[test]
fn the_script_validates_plans_and_runs_and_leaves_nothing() {
    let sandbox = sandbox();
    let run = |args: &[&str]| sandbox.unchanged(|| Outcome::of(script(&sandbox, args).output().unwrap()));
    let outcome = run(&["./test.sh"]).expect(0);
    assert!(
        outcome.stdout.contains("\nshop-run-")
            && outcome.stdout.contains("/job in ")
            && outcome.stdout.contains(".ai_ops/worktrees/shop-run-"),
        "{}",
        outcome.stdout
    );
    assert!(plan(&sandbox).starts_with("### Plan of `shop`: 1 to create\n"), "{}", plan(&sandbox));
    run(&["sh", "-c", "exit 7"]).expect(7);
    run(&["no-such-program"]).expect(127);
    let outcome = Outcome::of(
        program(&sandbox, repository("examples/ci/check.sh").to_str().unwrap()).output().unwrap(),
    );
    outcome.expect(64).says(&["usage: check.sh"]);
}

#[test]
fn the_script_takes_another_manifest_and_session() {
    let sandbox = sandbox();
    let other = sandbox.manifest_text("[session.a]\n[session.b]\nenv = { NAME = \"b\" }\n");
    sandbox.write("with a blank.toml", &other);
    let mut command = script(&sandbox, &["sh", "-c", "echo ran in $NAME"]);
    command.env("SEEDBED_MANIFEST", "with a blank.toml").env("SEEDBED_SESSION", "b");
    let outcome = Outcome::of(command.output().unwrap()).expect(0);
    assert!(outcome.stdout.contains("ran in b\n"), "{}", outcome.stdout);
    assert!(plan(&sandbox).contains("2 to create"), "{}", plan(&sandbox));
}

#[test]
fn script_stops_at_a_diagnostic_and_shows_its_line() {
    let sandbox = sandbox();
    sandbox.manifest(&SWARM.replace("resources", "resource"));
    let run = |github: &str| {
        let mut command = script(&sandbox, &["touch", "executed"]);
        command.env("GITHUB_ACTIONS", github);
        sandbox.unchanged(|| Outcome::of(command.output().unwrap()).expect(65))
    };
    let outcome = run("true");
    let annotations: Vec<_> = outcome.stdout.lines().filter(|line| line.starts_with("::error ")).collect();
    assert!(
        annotations[0].contains("file=seedbed.toml") && annotations[0].contains("line=8"),
        "{}",
        outcome.stdout
    );
    run("").says(&["seedbed.toml:8:1", "resources"]);
    assert_eq!(plan(&sandbox), "", "nothing is planned");
}

fn workflow() -> YamlOwned {
    let text = fs::read_to_string(repository("examples/ci/seedbed.yml")).unwrap();
    let mut documents = YamlOwned::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// Returns the script of a step of the workflow.
fn step(workflow: &YamlOwned, job: &str, name: &str) -> String {
    let steps = workflow["jobs"][job]["steps"].as_sequence().unwrap().iter();
    let called = |step: &&YamlOwned| step.as_mapping_get("name").and_then(YamlOwned::as_str) == Some(name);
    let found = steps.filter(called).map(|step| step["run"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{name}");
    found[0].clone()
}

/// Runs a step as a runner of GitHub does.
fn run_step(sandbox: &Sandbox, run: &str, variables: &[(&str, &str)]) -> Outcome {
    let mut bash = program(sandbox, "bash");
    bash.env("PATH", format!("{}:{}", sandbox.top.display(), path_of(&bash)));
    bash.env("RUNNER_TEMP", &sandbox.top).env("GITHUB_STEP_SUMMARY", sandbox.top.join("summary.md"));
    bash.env("GITHUB_ACTIONS", "true").envs(variables.iter().copied());
    Outcome::of(bash.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", run]).output().unwrap())
}

fn path_of(command: &Command) -> String {
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_steps_of_the_workflow_do_the_same() {
    let (sandbox, workflow) = (sandbox(), workflow());
    run_step(&sandbox, &step(&workflow, "plan", "Validate the manifest"), &[]).expect(0);
    run_step(&sandbox, &step(&workflow, "plan", "Plan"), &[]).expect(0);
    assert!(plan(&sandbox).starts_with("### Plan of `shop`: 1 to create\n"));
    assert_eq!(fs::read_to_string(sandbox.top.join("summary.md")).unwrap(), plan(&sandbox));
    let tests = step(&workflow, "test", "Run the tests in a session");
    let outcome = sandbox.unchanged(|| run_step(&sandbox, &tests, &[]).expect(0));
    assert!(outcome.stdout.contains("/job in "), "{}", outcome.stdout);
    sandbox.manifest(&SWARM.replace("resources", "resource"));
    let outcome = run_step(&sandbox, &step(&workflow, "plan", "Validate the manifest"), &[]).expect(65);
    assert!(outcome.stdout.contains("::error file=seedbed.toml,line=8"), "{}", outcome.stdout);
}

/// Stub of GitHub's `gh` program: records its requests, and answers with one comment if there should be one.
const GH: &str = r#"#!/bin/sh
echo "$@" >>"$RUNNER_TEMP/asked"
for argument; do
    case $argument in body=@*) cp "${argument#body=@}" "$RUNNER_TEMP/posted.md" ;; esac
done
case "$*" in *--jq*) test -z "$COMMENT" || echo "$COMMENT" ;; esac
"#;

#[test]
fn the_comment_is_made_once_and_then_kept_up_to_date() {
    let (sandbox, workflow) = (sandbox(), workflow());
    fs::write(sandbox.top.join("gh"), GH).unwrap();
    Outcome::of(sandbox.program("chmod", &sandbox.top).args(["+x", "gh"]).output().unwrap()).expect(0);
    run_step(&sandbox, &step(&workflow, "plan", "Plan"), &[]).expect(0);
    let show = step(&workflow, "plan", "Show the plan on the pull request");
    let asked = |comment: &str| {
        let _ = fs::remove_file(sandbox.top.join("asked"));
        let variables =
            [("COMMENT", comment), ("COMMENTS", "repos/o/r/issues/7/comments"), ("REPOSITORY", "repos/o/r")];
        run_step(&sandbox, &show, &variables).expect(0);
        let posted = fs::read_to_string(sandbox.top.join("posted.md")).unwrap();
        assert_eq!(posted, format!("<!-- the plan of seedbed -->\n{}", plan(&sandbox)));
        let asked = fs::read_to_string(sandbox.top.join("asked")).unwrap();
        asked.lines().last().unwrap().to_owned()
    };
    assert!(asked("").starts_with("api --method POST repos/o/r/issues/7/comments --field body=@"));
    assert!(asked("42").starts_with("api --method PATCH repos/o/r/issues/comments/42 --field body=@"));
}

/// A change may contain any text in the manifest and in its branch's name. None of the text may become a part of a
/// script, and only the job that comments may write.
#[test]
fn the_workflow_hands_nothing_of_the_change_to_a_shell() {
    let workflow = workflow();
    let permission = |of: &YamlOwned, what: &str| {
        of["permissions"].as_mapping_get(what).and_then(|right| right.as_str().map(str::to_owned))
    };
    assert_eq!(permission(&workflow, "contents").as_deref(), Some("read"));
    let jobs = workflow["jobs"].as_mapping().unwrap();
    assert_eq!(jobs.len(), 2);
    for (name, job) in jobs {
        for step in job["steps"].as_sequence().unwrap() {
            if let Some(run) = step.as_mapping_get("run").and_then(YamlOwned::as_str) {
                assert!(!run.contains("${{"), "{run}");
            } else {
                assert_eq!(step["with"]["persist-credentials"].as_bool(), Some(false));
            }
        }
        assert!(job["timeout-minutes"].as_integer().is_some(), "{name:?}");
    }
    assert!(workflow["jobs"]["test"].as_mapping_get("permissions").is_none());
    assert!(
        workflow.as_mapping_get("on").is_some_and(|on| on.as_mapping_get("pull_request_target").is_none())
    );
}
