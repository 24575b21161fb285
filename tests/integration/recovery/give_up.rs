//! Tests of an interrupted run that can be neither rolled back nor finished: it is abandoned, resources that can be
//! released or brought back are, and the rest is named.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::faults::one_in;
use crate::sandbox::{Outcome, Sandbox, assert_same};

const PROGRAM: &str = r#"#!/bin/sh
case $(cat) in
*'"operation":"plan"'*) echo '{"protocol": 2, "allocations": {"shop/a": {"allocation": {"name": "thing of a"}}}}' ;;
*'"operation":"inspect"'*) echo '{"protocol": 2, "condition": "healthy"}' ;;
*) echo '{"protocol": 2}' ;;
esac
"#;

const WITH_THING: &str = "[provider.thing]\ncommand = [\"./tools/thing\"]\n[session.a]\nresources = [{ kind = \
                          \"git-worktree\", branch = \"agents/a\" }, \"port-range\", \"thing\"]\n";

fn sandbox(manifest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    write_program(&sandbox);
    sandbox.commit("the program");
    sandbox.manifest(manifest);
    sandbox
}

fn write_program(sandbox: &Sandbox) {
    sandbox.write("tools/thing", PROGRAM);
    let path = sandbox.repository.join("tools/thing");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn remove_program(sandbox: &Sandbox) {
    fs::remove_file(sandbox.repository.join("tools/thing")).unwrap();
}

#[track_caller]
fn kill(sandbox: &Sandbox, args: &[&str], point: &str) {
    let mut command = sandbox.command(args);
    command.env("SEEDBED_FAILPOINT", format!("{point}=crash"));
    Outcome::of(command.output().unwrap()).expect(137);
}

fn worktree(sandbox: &Sandbox) -> PathBuf {
    let worktrees = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
    worktrees.map(|entry| entry.unwrap().path()).find(|path| path.join(".git").exists()).unwrap()
}

/// Returns the only record of an abandoned run.
fn record(sandbox: &Sandbox) -> PathBuf {
    let records = fs::read_dir(sandbox.state().join("given-up")).unwrap();
    let mut records: Vec<PathBuf> = records.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

/// Expects that `doctor` names all of `parts`.
#[track_caller]
fn finds(sandbox: &Sandbox, parts: &[&str]) {
    let found = sandbox.seedbed(&["doctor"]).stdout;
    assert!(parts.iter().all(|part| found.contains(part)), "{parts:?}: {found}");
}

/// Removes the record of an abandoned run, as `doctor` recommends.
fn forget(sandbox: &Sandbox) {
    fs::remove_file(record(sandbox)).unwrap();
    fs::remove_dir(sandbox.state().join("given-up")).unwrap();
}

#[test]
fn resource_without_its_program_remains_and_the_rest_is_released() {
    for (point, code) in [("apply.told", 69), ("apply.step#3", 73)] {
        let sandbox = sandbox(WITH_THING);
        let before = sandbox.inventory();
        kill(&sandbox, &["apply"], point);
        remove_program(&sandbox);
        sandbox.seedbed(&["recover"]).expect(code);
        sandbox.ok(&["recover", "--give-up"]).says(&[
            "a: thing remains: ",
            "thing {\"name\":\"thing of a\"}, created by `./tools/thing`",
            "a: port-range remains: resources that were created after it remain",
            "gave up a run",
        ]);
        sandbox.seedbed(&["status"]).says(&["is not applied"]);
        write_program(&sandbox);
        finds(&sandbox, &["given-up", "thing of a", "leaked-lease"]);
        sandbox.ok(&["apply"]);
        sandbox.ok(&["destroy"]);
        sandbox.seedbed(&["doctor", "--reap"]).says(&["reaped"]);
        forget(&sandbox);
        assert_same(&before, &sandbox.inventory());
    }
}

#[test]
fn a_run_that_can_be_recovered_is_not_given_up() {
    let sandbox = sandbox(WITH_THING);
    let before = sandbox.inventory();
    kill(&sandbox, &["apply"], "apply.told");
    sandbox.ok(&["recover", "--give-up"]).says(&["rolled back"]);
    sandbox.ok(&["recover", "--give-up"]).says(&["nothing to recover"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn a_give_up_asks_what_becomes_of_work_that_can_be_rescued() {
    let sandbox = sandbox(WITH_THING);
    kill(&sandbox, &["apply"], "apply.told");
    remove_program(&sandbox);
    let worktree = worktree(&sandbox);
    fs::write(worktree.join("new.txt"), "new\n").unwrap();
    sandbox.seedbed(&["recover", "--give-up"]).expect(69).says(&["1 untracked", "--rescue"]);
    assert!(worktree.join("new.txt").exists());
    sandbox.ok(&["recover", "--give-up", "--rescue"]).says(&["refs/seedbed/rescue/shop/a/", "thing remains"]);
    assert!(!worktree.exists());
}

#[test]
fn a_give_up_never_removes_work() {
    let sandbox = sandbox(WITH_THING).without_root();
    kill(&sandbox, &["apply"], "apply.told");
    let worktree = worktree(&sandbox);
    let edited = worktree.join("README.md");
    fs::write(&edited, "edited\n").unwrap();
    fs::set_permissions(&edited, fs::Permissions::from_mode(0o000)).unwrap();
    sandbox.seedbed(&["recover", "--rescue"]).expect(69);
    for rescue in [&[][..], &["--rescue"]] {
        let given_up = sandbox.ok(&[&["recover", "--give-up"], rescue].concat());
        let shown = format!("worktree {}", worktree.display());
        if rescue.is_empty() {
            given_up.says(&["a: git-worktree remains: ", &shown, "branch agents/a"]);
        }
        assert!(edited.exists());
    }
    fs::set_permissions(&edited, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(fs::read_to_string(edited).unwrap(), "edited\n");
    finds(&sandbox, &["unknown-worktree", "given-up"]);
}

#[test]
fn a_give_up_killed_anywhere_is_done_again_and_brings_back_what_was_replaced() {
    for point in one_in(2, ["give-up.recorded", "give-up.brought-back", "give-up.abandoned"]) {
        let sandbox = sandbox(WITH_THING);
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let worktree = worktree(&sandbox);
        fs::write(worktree.join("kept.log"), "ignored\n").unwrap();
        let replacing = WITH_THING.replace("\"thing\"]", "{ kind = \"thing\", size = 3 }]");
        sandbox.manifest(&replacing.replace("branch =", "target-path = \"app\", branch ="));
        kill(&sandbox, &["apply", "--yes"], "apply.told");
        remove_program(&sandbox);
        kill(&sandbox, &["recover", "--give-up"], point);
        sandbox.ok(&["recover", "--give-up"]);
        write_program(&sandbox);
        sandbox.manifest(WITH_THING);
        assert_eq!(fs::read_to_string(worktree.join("kept.log")).unwrap(), "ignored\n", "{point}");
        sandbox.ok(&["apply"]).says(&["nothing to do"]);
        finds(&sandbox, &["given-up", "thing of a"]);
        sandbox.ok(&["destroy"]);
        forget(&sandbox);
        assert_same(&before, &sandbox.inventory());
    }
}

#[test]
fn a_worktree_that_cannot_be_brought_back_remains_aside() {
    let sandbox = sandbox("[session.a]\nresources = [\"git-worktree\"]\n");
    sandbox.git(&["tag", "old"]);
    sandbox.git(&["commit", "--allow-empty", "-qm", "next"]);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let home = worktree(&sandbox);
    fs::write(home.join("kept.log"), "ignored\n").unwrap();
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"old\" }]\n");
    kill(&sandbox, &["apply", "--yes"], "apply.told");
    // The new worktree is another's now.
    let entry = sandbox.repository.join(".git/worktrees").join(home.file_name().unwrap());
    fs::write(entry.join("seedbed"), format!("seedbed another/a {}\n", "f".repeat(32))).unwrap();
    sandbox.seedbed(&["recover"]).expect(73);
    let text = sandbox.ok(&["recover", "--give-up"]).stderr;
    assert!(home.join("README.md").exists());
    finds(&sandbox, &["given-up", ".aside-", "which belongs at"]);
    // A new release would run into it.
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains("left worktree ") && status.contains(".aside-"), "{status}");
    sandbox.unchanged(|| {
        let refused = sandbox.seedbed(&["destroy", "--yes", "--discard"]).expect(69);
        refused.says(&["an abandoned run left worktree ", ".aside-", "left admin directory "]);
    });
    // By hand, as the message recommends: the new one is removed, and the old one is moved to its path.
    sandbox.git(&["worktree", "remove", "--force", "--force", home.to_str().unwrap()]);
    let mut moved = 0;
    for line in text.lines() {
        let Some((from, to)) = line.split_once(", which belongs at ") else { continue };
        fs::create_dir_all(Path::new(to).parent().unwrap()).unwrap();
        fs::rename(from.rsplit_once(' ').unwrap().1, to).unwrap();
        moved += 1;
    }
    assert_eq!(moved, 2, "{text}");
    assert_eq!(fs::read_to_string(home.join("kept.log")).unwrap(), "ignored\n");
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    forget(&sandbox);
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn a_release_that_cannot_be_finished_is_given_up() {
    let sandbox = sandbox(WITH_THING);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    kill(&sandbox, &["destroy"], "run.committed");
    remove_program(&sandbox);
    sandbox.seedbed(&["recover"]).expect(73).says(&["seedbed recover --give-up"]);
    let outcome = sandbox.ok(&["recover", "--give-up", "--json"]);
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["recovered"], "givenUp");
    assert!(lines.iter().any(|line| line["event"] == "givenUp" && line["resource"] == "thing"), "{lines:?}");
    let schema = fs::read(crate::fixtures::repository("schemas/events.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    assert!(lines.iter().all(|line| schema.is_valid(line)), "{lines:?}");
    write_program(&sandbox);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    sandbox.seedbed(&["doctor", "--reap"]);
    forget(&sandbox);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn a_repository_that_was_replaced_is_given_up() {
    let sandbox = sandbox("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    kill(&sandbox, &["apply"], "apply.told");
    let dot_git = sandbox.repository.join(".git");
    let saved = sandbox.top.join("saved");
    fs::rename(&dot_git, &saved).unwrap();
    fs::create_dir(&dot_git).unwrap();
    let worktree = worktree(&sandbox);
    let outcome = sandbox.ok(&["recover", "--give-up"]);
    outcome.says(&["a: git-worktree remains: ", "worktree ", "a: port-range remains"]);
    assert!(worktree.join("README.md").exists());
    fs::remove_dir(&dot_git).unwrap();
    fs::rename(saved, dot_git).unwrap();
    sandbox.seedbed(&["status"]).says(&["is not applied"]);
}

/// Returns the paths with this name in the state directory.
fn in_state(sandbox: &Sandbox, name: &str) -> Vec<PathBuf> {
    let found = sandbox.program("find", &sandbox.state()).args([".", "-name", name]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(|path| sandbox.state().join(path)).collect()
}

/// Applies or destroys a swarm with an overlay, which is killed at `point`. Then an agent writes a file in the worktree,
/// the host is rebooted, and the shared checkout is lost, and cannot be made again.
fn unmountable(command: &str, point: &str) -> Option<Sandbox> {
    let sandbox = sandbox("[session.a]\nresources = [{ kind = \"git-worktree\", checkout = \"overlay\" }]\n");
    if !sandbox.can_mount() {
        return None;
    }
    if command == "destroy" {
        sandbox.ok(&["apply"]);
    }
    kill(&sandbox, &[command], point);
    fs::write(worktree(&sandbox).join("work of the agent.txt"), "work\n").unwrap();
    sandbox.unmount_all();
    let base = base(&sandbox);
    fs::rename(base.join("tree"), sandbox.top.join("tree")).unwrap();
    fs::rename(base.join("index"), sandbox.top.join("index")).unwrap();
    fs::create_dir(base.join("index")).unwrap();
    Some(sandbox)
}

/// Returns the directory of the shared checkout.
fn base(sandbox: &Sandbox) -> PathBuf {
    let [bases] = &in_state(sandbox, "bases")[..] else { panic!("one swarm") };
    fs::read_dir(bases).unwrap().next().unwrap().unwrap().path()
}

/// Returns the content of the agent's file, which is in the layers of the overlay.
fn layered(sandbox: &Sandbox) -> String {
    let [file] = &in_state(sandbox, "work of the agent.txt")[..] else { panic!("one file") };
    fs::read_to_string(file).unwrap()
}

#[test]
fn overlay_that_cannot_be_mounted_remains_with_its_work() {
    let Some(sandbox) = unmountable("apply", "apply.told") else { return };
    for options in [&["recover"][..], &["recover", "--rescue"]] {
        sandbox.seedbed(options).expect(69).says(&[
            "is not mounted, and what was written in it is unknown",
            "its git-worktree cannot be repaired: ",
        ]);
    }
    sandbox.ok(&["recover", "--give-up"]).says(&[
        "a: git-worktree remains: ",
        "what was written in it is unknown",
        "layers of the overlay",
        "gave up a run",
    ]);
    assert_eq!(layered(&sandbox), "work\n");
    finds(&sandbox, &["given-up", "layers of the overlay"]);
    sandbox.ok(&["recover"]).says(&["nothing to recover"]);
    // The remains are in the way of a new worktree, and are not overwritten.
    sandbox.seedbed(&["apply"]).expect(65);
    assert_eq!(layered(&sandbox), "work\n");
}

#[test]
fn overlay_that_cannot_be_mounted_is_brought_back_from_a_killed_destroy() {
    let Some(sandbox) = unmountable("destroy", "run.intended") else { return };
    sandbox.seedbed(&["recover"]).expect(69).says(&["what was written in it is unknown"]);
    assert_eq!(layered(&sandbox), "work\n");
    // The session is active as before, and everything that releases it is refused.
    sandbox.ok(&["recover", "--give-up"]).says(&["nothing to recover"]);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["what was written in it is unknown"]);
    assert_eq!(layered(&sandbox), "work\n");
    // With its shared checkout the overlay is mounted again.
    let base = base(&sandbox);
    fs::remove_dir(base.join("index")).unwrap();
    fs::rename(sandbox.top.join("tree"), base.join("tree")).unwrap();
    fs::rename(sandbox.top.join("index"), base.join("index")).unwrap();
    sandbox.ok(&["apply"]);
    assert_eq!(fs::read_to_string(worktree(&sandbox).join("work of the agent.txt")).unwrap(), "work\n");
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn what_a_given_up_run_has_left_is_recovered_once_its_repository_is_back() {
    let runs: [(&[&str], &str); 3] =
        [(&["apply"], "apply.told"), (&["destroy"], "run.given-way"), (&["destroy"], "run.committed")];
    for (args, point) in runs {
        let sandbox = Sandbox::in_memory();
        let (web, away) = (sandbox.other_repository("web"), sandbox.top.join("away"));
        sandbox.manifest(
            "[repository.web]\nroot = \"../web\"\n[session.a]\nresources = [{ kind = \"git-worktree\", name = \"api\" }, \
             { kind = \"git-worktree\", name = \"web\", repository = \"web\", branch = \"agents/a\" }, \"port-range\"]\n",
        );
        let before = sandbox.inventory();
        if args == ["destroy"] {
            sandbox.ok(&["apply"]);
        }
        kill(&sandbox, args, point);
        fs::rename(&web, &away).unwrap();
        sandbox.seedbed(&["recover"]).expect(69).says(&["--give-up"]);
        sandbox.ok(&["recover", "--give-up"]).says(&["a: web remains: "]);
        sandbox.ok(&["recover"]).says(&["a: web remains: ", "../web) cannot be used"]);
        fs::rename(&away, &web).unwrap();
        finds(&sandbox, &["given-up", "seedbed recover, in"]);
        if args == ["apply"] {
            sandbox.seedbed(&["plan"]).expect(65).says(&["given up", "`seedbed recover`"]);
            let worktrees = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
            let session = worktrees.map(|entry| entry.unwrap().path()).find(|path| path.join("web").exists());
            fs::write(session.unwrap().join("web/new.txt"), "work\n").unwrap();
            sandbox.seedbed(&["recover"]).expect(69).says(&["1 untracked", "--rescue"]);
            sandbox.ok(&["recover", "--discard"]).says(&["released or brought back"]);
        } else {
            sandbox.ok(&["recover"]).says(&["released or brought back"]);
        }
        sandbox.ok(&["recover"]).says(&["nothing to recover"]);
        if point == "run.given-way" {
            let status = sandbox.ok(&["status"]).stdout;
            assert!(status.contains(" healthy "), "{status}");
            sandbox.ok(&["destroy"]);
        }
        assert_same(&before, &sandbox.inventory());
    }
}
