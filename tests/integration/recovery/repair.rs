//! Tests that manual damage to an applied swarm is repaired, and that no work is lost.

use std::fs;

use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, assert_same};

const PAIR: &str = "[session.lead]\nresources = [{ kind = \"git-worktree\", layout = \"nested\" }, \"port-range\"]\n\
                    [session.lead.child.coder]\n";

#[test]
fn an_unlocked_worktree_is_locked_again_and_nothing_else_is_touched() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let (lead, coder) = (sandbox.directory("lead"), sandbox.directory("lead/coder"));
    fs::write(lead.join("work"), "unsaved").unwrap();
    fs::write(coder.join("work"), "unsaved").unwrap();
    sandbox.git(&["worktree", "unlock", lead.to_str().unwrap()]);
    sandbox.ok(&["apply"]).says(&["1 repair"]);
    assert_eq!(fs::read_to_string(lead.join("work")).unwrap(), "unsaved");
    assert_eq!(fs::read_to_string(coder.join("work")).unwrap(), "unsaved");
    assert_eq!(sandbox.git(&["worktree", "list", "--porcelain"]).matches("\nlocked seedbed").count(), 2);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
}

#[test]
fn repairing_a_parent_asks_for_the_work_of_the_children_inside_it() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let (lead, coder) = (sandbox.directory("lead"), sandbox.directory("lead/coder"));
    fs::write(coder.join("work"), "unsaved").unwrap();
    fs::write(sandbox.repository.join(".git/worktrees").join(lead.file_name().unwrap()).join("HEAD"), "")
        .unwrap();
    let refused = sandbox.seedbed(&["apply", "--yes"]).expect(69);
    assert!(refused.stderr.contains("lead/coder: "), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(coder.join("work")).unwrap(), "unsaved");
    fs::remove_file(coder.join("work")).unwrap();
    // A broken worktree cannot be called saved either.
    sandbox.ok(&["apply", "--yes", "--discard"]);
    sandbox.assert_clean(&lead);
    sandbox.assert_clean(&coder);
}

#[test]
fn lost_lock_files_are_written_again_while_the_ports_are_in_use() {
    let sandbox = Sandbox::new();
    sandbox.manifest(PAIR);
    sandbox.ok(&["apply"]);
    let plan = sandbox.plan();
    let port = crate::sandbox::ports(crate::sandbox::sessions(&plan).next().unwrap()).0;
    let _server = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    fs::remove_dir_all(sandbox.repository.join(".ai_ops/locks")).unwrap();
    sandbox.ok(&["apply"]);
    assert!(sandbox.repository.join(".ai_ops/locks/ports").is_dir());
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    let again = sandbox.plan();
    assert_eq!(again["sessions"], plan["sessions"]);
}

#[test]
fn a_replacement_that_fails_leaves_the_session_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    std::fs::write(directory.join("ignored.log"), "kept\n").unwrap();
    sandbox.manifest(
        "[session.a]\nresources = [{ kind = \"git-worktree\", target-path = \"app\" }, \"port-range\"]\n\
         setup = [\"exit 3\"]\n",
    );
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(1));
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply", "--yes"]);
    sandbox.assert_clean(&directory);
    sandbox.ok(&["destroy"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn a_base_that_only_the_session_still_has_is_not_lost() {
    let sandbox = Sandbox::new();
    sandbox.git(&["checkout", "--quiet", "-b", "feature"]);
    sandbox.commit("only here");
    sandbox.git(&["checkout", "--quiet", "-"]);
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"feature\" }]\n");
    sandbox.ok(&["apply"]);
    sandbox.git(&["branch", "-D", "feature"]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    assert!(refused.stderr.contains("no ref"), "{}", refused.stderr);
    sandbox.ok(&["destroy", "--discard"]);
}

/// Creates one session, and returns the directory that a repair has to restore byte for byte.
fn applied() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    (sandbox, directory)
}

/// Damages a session with `harm`. Expects that the status reports `said`, and that the repair restores the session
/// completely and changes nothing else.
#[track_caller]
fn check_repaired(harm: impl FnOnce(&Sandbox, &Path), said: &str) {
    let (sandbox, directory) = applied();
    let hidden = directory.join(".agent-context");
    let files = || ["resources.json", ".gitignore"].map(|name| fs::read(hidden.join(name)).ok());
    let before = files();
    harm(&sandbox, &directory);
    assert_ne!(files(), before, "harm was done");
    let told = sandbox.unchanged(|| sandbox.ok(&["status"]).stdout);
    assert!(told.contains(said), "{told}");

    let untouched = || {
        let mut inventory = sandbox.inventory();
        inventory.retain(|path, _| !path.contains("/.agent-context") && !path.ends_with("/index"));
        inventory
    };
    let elsewhere = untouched();
    let outcome = sandbox.ok(&["status", "--repair"]).says(&["a: repaired: discovery: ", said]);
    assert!(outcome.stdout.contains("healthy"), "{}", outcome.stdout);
    assert_eq!(files(), before);
    assert_same(&elsewhere, &untouched());
    let again = sandbox.unchanged(|| sandbox.ok(&["status", "--repair", "--json"])).json();
    assert_eq!(again["repair"]["repaired"], serde_json::json!([]));
    assert_eq!(again["sessions"][0]["unsaved"], serde_json::json!([]), "what is put back is nobody's work");
}

#[test]
fn discovery_file_of_a_cleaned_worktree_is_restored() {
    check_repaired(
        |sandbox, directory| drop(sandbox.git_in(directory, &["clean", "-fdxq"])),
        "resources.json does not exist",
    );
}

#[test]
fn a_sparse_checkout_that_removes_the_discovery_file_is_repaired() {
    check_repaired(
        |sandbox, directory| {
            // git removes a directory outside of the cone with the ignored files in it, where it tracks anything there.
            fs::write(directory.join(".agent-context/notes"), "").unwrap();
            sandbox.git_in(directory, &["add", "--force", ".agent-context/notes"]);
            sandbox.git_in(directory, &["commit", "--quiet", "--message", "notes"]);
            sandbox.git_in(directory, &["branch", "kept"]);
            sandbox.git_in(directory, &["sparse-checkout", "set", "app"]);
            sandbox.git_in(directory, &["sparse-checkout", "reapply"]);
        },
        "resources.json does not exist",
    );
}

#[test]
fn a_branch_that_tracks_the_discovery_file_does_not_speak_for_the_session() {
    check_repaired(
        |sandbox, directory| {
            sandbox.git(&["checkout", "--quiet", "-b", "tracks"]);
            sandbox.write(".agent-context/resources.json", "{}\n");
            sandbox.git(&["add", "--force", ".agent-context/resources.json"]);
            sandbox.git(&["commit", "--quiet", "--message", "tracks it"]);
            sandbox.git(&["checkout", "--quiet", "main"]);
            // Git overwrites ignored files.
            sandbox.git_in(directory, &["checkout", "--quiet", "--detach", "tracks"]);
        },
        "resources.json is not what was written",
    );
}

#[test]
fn a_discovery_file_of_an_older_format_is_not_broken() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    let file = sandbox.directory("a").join(".agent-context/resources.json");
    let written = fs::read_to_string(&file).unwrap();
    fs::write(&file, written.replacen("\n  \"schemaVersion\": 1,", "", 1)).unwrap();
    let said = "discovery: resources.json has an older format; `seedbed apply` rewrites it";
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains(said) && status.contains("healthy") && !status.contains("broken"), "{status}");
    // It does not hide other damage.
    let ignore = file.with_file_name(".gitignore");
    let hides = fs::read(&ignore).unwrap();
    fs::remove_file(&ignore).unwrap();
    let status = sandbox.ok(&["status"]).stdout;
    assert!(
        status.contains("broken") && status.contains(".gitignore beside resources.json does not exist"),
        "{status}"
    );
    sandbox.ok(&["apply"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    assert_eq!(fs::read(&ignore).unwrap(), hides);
    // With another content it is another matter.
    fs::write(&file, "{}\n").unwrap();
    let status = sandbox.ok(&["status"]).stdout;
    assert!(
        status.contains("broken") && status.contains("resources.json is not what was written"),
        "{status}"
    );
}

#[test]
fn ignore_rule_of_the_discovery_file_is_restored() {
    check_repaired(
        |_, directory| fs::remove_file(directory.join(".agent-context/.gitignore")).unwrap(),
        ".gitignore beside resources.json does not exist",
    );
    check_repaired(
        |_, directory| fs::write(directory.join(".agent-context/.gitignore"), "!*\n").unwrap(),
        ".gitignore beside resources.json is not what was written",
    );
}

#[test]
fn lost_canonical_copy_is_restored_from_the_applied_plan() {
    let (sandbox, directory) = applied();
    let file = directory.join(".agent-context/resources.json");
    let before = fs::read(&file).unwrap();
    let state = sandbox.state().join("swarms");
    let swarm =
        fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    fs::remove_dir_all(swarm.join("sessions")).unwrap();
    fs::remove_file(&file).unwrap();
    sandbox.ok(&["status", "--repair"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    let copies: Vec<_> =
        fs::read_dir(swarm.join("sessions")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(fs::read(copies[0].join("resources.json")).unwrap(), before);
}

#[test]
fn locks_and_leases_are_restored_without_planning() {
    let (sandbox, directory) = applied();
    fs::write(directory.join("work"), "unsaved").unwrap();
    let before = sandbox.inventory();
    sandbox.git(&["worktree", "unlock", directory.to_str().unwrap()]);
    fs::remove_dir_all(sandbox.repository.join(".ai_ops/locks")).unwrap();
    // A manifest that asks for something else now, and one that cannot be planned, are nothing to a repair.
    sandbox.manifest("[session.other]\nresources = [{ kind = \"git-worktree\", base-ref = \"nowhere\" }]\n");
    sandbox.ok(&["status", "--repair"]).says(&[
        "a: repaired: git-worktree: ",
        "is not locked any more",
        "a: repaired: port-range: ",
    ]);
    let kept = |mut inventory: crate::sandbox::Inventory| {
        inventory.retain(|path, _| !path.contains("/locks/") && !path.ends_with("seedbed.toml"));
        inventory
    };
    assert_same(&kept(before), &kept(sandbox.inventory()));
}

#[test]
fn damage_that_needs_provisioning_is_left_to_apply() {
    let (sandbox, directory) = applied();
    fs::remove_dir_all(&directory).unwrap();
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["status", "--repair"]).expect(1));
    outcome.says(&[
        "a: only `seedbed apply` repairs: git-worktree: ",
        "a: only `seedbed apply` repairs: discovery: ",
    ]);
    assert!(!directory.exists(), "no directory that looks like a worktree");
    sandbox.ok(&["apply", "--yes"]);
    sandbox.ok(&["status", "--repair"]);
}

#[test]
fn a_link_in_the_place_of_the_discovery_directory_is_not_written_through() {
    let (sandbox, directory) = applied();
    let (hidden, outside) = (directory.join(".agent-context"), sandbox.top.join("outside"));
    fs::remove_dir_all(&hidden).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, &hidden).unwrap();
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["status", "--repair"]).expect(1));
    outcome.says(&["a: could not repair: discovery file: ", "is a symbolic link"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn half_a_swarm_is_not_repaired() {
    let (sandbox, _) = applied();
    let state = sandbox.state().join("swarms");
    let swarm =
        fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    fs::copy(swarm.join("applied.json"), swarm.join("intent.json")).unwrap();
    sandbox.unchanged(|| sandbox.seedbed(&["status", "--repair"]).expect(75).says(&["seedbed recover"]));
}
