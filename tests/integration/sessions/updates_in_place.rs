//! Tests of options that change in place: the session keeps its worktree, and everything in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::faults::crash;
use crate::sandbox::Sandbox;

/// Creates a sandbox with files that Git ignores: `.env`, `conf/local` and `cache/large.bin`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env*\nconf\n/cache\n*.log\n");
    sandbox.commit("ignores");
    sandbox.write(".env", "A=1\n");
    sandbox.write("conf/local", "B=1\n");
    sandbox.write("cache/large.bin", "large\n");
    sandbox
}

/// Writes a manifest of one session with these options of its worktree, and more tables.
fn manifest(sandbox: &Sandbox, options: &str, more: &str) {
    sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"git-worktree\"{options} }}]\n{more}"));
}

/// Commits a file in the worktree of `a`, and leaves another one; returns its directory.
fn at_work(sandbox: &Sandbox) -> PathBuf {
    let directory = sandbox.directory("a");
    fs::write(directory.join("done"), "done\n").unwrap();
    sandbox.git_in(&directory, &["add", "done"]);
    sandbox.git_in(&directory, &["commit", "-qm", "done"]);
    fs::write(directory.join("draft"), "draft\n").unwrap();
    directory
}

#[track_caller]
fn assert_still_at_work(directory: &Path) {
    assert_eq!(fs::read_to_string(directory.join("done")).unwrap(), "done\n");
    assert_eq!(fs::read_to_string(directory.join("draft")).unwrap(), "draft\n");
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

#[test]
fn added_copies_and_links_come_into_an_active_worktree() {
    let sandbox = sandbox();
    manifest(&sandbox, ", branch = \"agents/a\"", "");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    manifest(&sandbox, ", branch = \"agents/a\", copy = [\".env\", \"conf\"], link = [\"cache\"]", "");
    let plan = sandbox.ok(&["plan"]).stdout;
    for part in [
        "1 to update",
        "git-worktree copy: not set -> [\".env\",\"conf\"]",
        "copied into worktrees: `.env` (1 file",
    ] {
        assert!(plan.contains(part), "{plan}");
    }
    let change = &sandbox.plan()["changes"][0];
    assert_eq!(change["update"], json!(["git-worktree"]));
    assert_eq!((&change["release"], &change["provision"]), (&json!([]), &json!([])));
    // No consent is needed, and no setup would run.
    sandbox.ok(&["apply"]).says(&["1 updated"]);
    assert_still_at_work(&directory);
    assert_eq!([text(&directory.join(".env")), text(&directory.join("conf/local"))], ["A=1\n", "B=1\n"]);
    assert_eq!(fs::read_link(directory.join("cache")).unwrap(), sandbox.repository.join("cache"));
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    // They are copies as any other: refreshed, and no work.
    sandbox.write(".env", "A=22\n");
    sandbox.ok(&["apply", "--refresh"]).says(&["1 updated"]);
    assert_eq!(text(&directory.join(".env")), "A=22\n");
    fs::remove_file(directory.join("draft")).unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn files_of_the_session_are_named_and_stay_when_copies_are_added() {
    let sandbox = sandbox();
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    fs::write(directory.join(".env"), "MINE=1\n").unwrap();
    fs::create_dir(directory.join("conf")).unwrap();
    fs::write(directory.join("conf/local"), "B=1\n").unwrap();
    fs::create_dir(directory.join("cache")).unwrap();
    fs::write(directory.join("cache/large.bin"), "mine\n").unwrap();
    manifest(&sandbox, ", copy = [\".env\", \"conf\"], link = [\"cache\"]", "");
    let plan = sandbox.ok(&["plan"]).stdout;
    let env = "a: `.env` exists in the session and stays as it is";
    let cache = "a: `cache/large.bin` exists in the session and stays as it is";
    assert!(plan.contains(env) && plan.contains(cache), "{plan}");
    // One with the same content is what was asked for.
    assert!(!plan.contains("`conf/local` exists"), "{plan}");
    sandbox.ok(&["apply"]).says(&[env, cache, "1 updated"]);
    assert_eq!(
        [text(&directory.join(".env")), text(&directory.join("cache/large.bin"))],
        ["MINE=1\n", "mine\n"]
    );
    assert_still_at_work(&directory);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn tracked_files_that_a_session_lacks_are_not_brought() {
    let sandbox = sandbox();
    manifest(&sandbox, ", copy = [\"conf\"]", "");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    let git = |args: &[&str]| drop(sandbox.git_in(&directory, args));
    fs::create_dir(directory.join("cache")).unwrap();
    for name in [".env", "cache/large.bin", "conf/more"] {
        fs::write(directory.join(name), "mine\n").unwrap();
        git(&["add", "--force", name]);
    }
    git(&["commit", "-qm", "mine"]);
    for name in [".env", "cache/large.bin", "conf/more"] {
        fs::remove_file(directory.join(name)).unwrap();
    }
    fs::remove_dir(directory.join("cache")).unwrap();
    let status = sandbox.git_in(&directory, &["status", "--short"]);
    manifest(&sandbox, ", copy = [\"conf\", \".env\"], link = [\"cache\"]", "");
    let lacks = |name: &str| format!("a: `{name}` is tracked in the session, which does not have it now");
    let (env, cache) = (lacks(".env"), lacks("cache/large.bin"));
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains(&env) && plan.contains(&cache), "{plan}");
    sandbox.ok(&["apply"]).says(&[&env, &cache, "1 updated"]);
    // Nor does a refresh bring them.
    sandbox.write("conf/more", "B=1\n");
    sandbox.ok(&["apply", "--refresh"]).says(&["nothing to do"]);
    sandbox.write("conf/local", "B=22\n");
    sandbox.ok(&["apply", "--refresh"]).says(&["1 updated"]);
    assert_eq!(sandbox.git_in(&directory, &["status", "--short"]), status);
    // A committed link is the session's, also after its glob has left the manifest.
    sandbox.ok(&["destroy", "--discard"]);
    manifest(&sandbox, ", link = [\"cache\"]", "");
    sandbox.ok(&["apply"]);
    git(&["add", "--force", "cache"]);
    git(&["commit", "-qm", "link"]);
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]).says(&["a: `cache` exists in the session and stays as it is"]);
    assert_eq!(sandbox.git_in(&directory, &["status", "--short"]), "");
}

#[test]
fn tracked_files_outside_of_the_sparse_path_are_not_brought() {
    let sandbox = sandbox();
    sandbox.write("app/main", "main\n");
    sandbox.git(&["add", "--force", "app", "conf/local"]);
    sandbox.git(&["commit", "-qm", "more"]);
    sandbox.git(&["branch", "old"]);
    sandbox.git(&["rm", "-q", "--cached", "conf/local"]);
    sandbox.git(&["commit", "-qm", "less"]);
    let options = ", target-path = \"app\", base-ref = \"old\"";
    let brings = format!("{options}, copy = [\"conf\"], link = [\"cache\"]");
    for first in [options, &brings] {
        manifest(&sandbox, first, "");
        sandbox.ok(&["apply"]);
        manifest(&sandbox, &brings, "");
        sandbox.ok(&["apply", "--refresh"]);
        let top = sandbox.directory("a").parent().unwrap().to_owned();
        assert_eq!(
            [top.join("cache").is_symlink(), top.join("conf").exists()],
            [true, false],
            "{first}: {top:?}"
        );
        sandbox.ok(&["destroy"]);
    }
}

#[test]
fn link_in_the_place_of_a_directory_stops_no_refresh() {
    let sandbox = sandbox();
    manifest(&sandbox, ", copy = [\"conf\"], link = [\"cache\"]", "");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::rename(directory.join("conf"), sandbox.top.join("outside")).unwrap();
    symlink(sandbox.top.join("outside"), directory.join("conf")).unwrap();
    sandbox.write("conf/local", "B=22\n");
    sandbox.write("conf/new", "N=1\n");
    let note = "a: not refreshed: `conf/local` was changed or removed in the session";
    sandbox.ok(&["apply", "--refresh"]).says(&[note]);
    assert_eq!(text(&sandbox.top.join("outside/local")), "B=1\n");
    assert!(!sandbox.top.join("outside/new").exists());
    sandbox.ok(&["apply", "--refresh"]).says(&[note, "nothing to do"]);
}

#[test]
fn removed_copies_stay_and_removed_links_go() {
    let sandbox = sandbox();
    manifest(&sandbox, ", copy = [\".env*\", \"conf\"], link = [\"cache\"]", "");
    sandbox.write(".env.edited", "E=1\n");
    sandbox.write(".env.deleted", "D=1\n");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    fs::write(directory.join(".env.edited"), "E=mine\n").unwrap();
    fs::remove_file(directory.join(".env.deleted")).unwrap();
    manifest(&sandbox, ", copy = [\"conf\"]", "");
    let plan = sandbox.ok(&["plan"]).stdout;
    let stays = |name: &str| format!("a: `{name}` stays in the session; remove it there if it is not needed");
    assert!(plan.contains(&stays(".env")) && plan.contains(&stays(".env.edited")), "{plan}");
    assert!(!plan.contains(".env.deleted"), "{plan}");
    sandbox.ok(&["apply"]).says(&[&stays(".env"), "1 updated"]);
    let left = [".env", ".env.edited", "conf/local"].map(|name| text(&directory.join(name)));
    assert_eq!(left, ["A=1\n", "E=mine\n", "B=1\n"]);
    assert!(!directory.join("cache").is_symlink());
    assert_still_at_work(&directory);
    // What stays is not refreshed, and nothing offers that.
    sandbox.write(".env", "A=22\n");
    assert!(!sandbox.ok(&["plan"]).stdout.contains("--refresh"));
    sandbox.ok(&["apply", "--refresh"]).says(&["nothing to do"]);
    // Requested again: what the session has changed stays, what it has deleted comes.
    manifest(&sandbox, ", copy = [\".env*\", \"conf\"]", "");
    sandbox.ok(&["apply"]).says(&["a: `.env` exists", "a: `.env.edited` exists"]);
    let found = [".env", ".env.edited", ".env.deleted"].map(|name| text(&directory.join(name)));
    assert_eq!(found, ["A=1\n", "E=mine\n", "D=1\n"]);
}

#[test]
fn copy_that_stays_is_no_work_until_it_is_edited() {
    let sandbox = Sandbox::new();
    sandbox.write(".git/info/exclude", "/seedbed.toml\n");
    sandbox.write("notes", "one\n");
    manifest(&sandbox, ", copy = [\"notes\"]", "");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]);
    fs::remove_file(sandbox.repository.join("notes")).unwrap();
    assert!(sandbox.ok(&["status"]).stdout.contains("clean"));
    fs::write(directory.join("notes"), "two\n").unwrap();
    sandbox.seedbed(&["destroy"]).expect(69).says(&["1 untracked"]);
    fs::write(directory.join("notes"), "one\n").unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn link_becomes_a_copy_in_place() {
    let sandbox = sandbox();
    manifest(&sandbox, ", link = [\"cache\", \".env\"]", "");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    manifest(&sandbox, ", copy = [\"cache\", \".env\"]", "");
    sandbox.ok(&["apply"]).says(&["1 updated"]);
    assert!(!directory.join(".env").is_symlink() && !directory.join("cache").is_symlink());
    fs::write(directory.join("cache/large.bin"), "mine\n").unwrap();
    assert_eq!(text(&sandbox.repository.join("cache/large.bin")), "large\n");
    assert_still_at_work(&directory);
}

#[test]
fn copies_below_a_removed_link_are_brought_instead() {
    let sandbox = sandbox();
    for options in ["link = [\"cache\"]", "link = [\"cache\"], copy = [\"cache/large.bin\"]"] {
        manifest(&sandbox, &format!(", {options}"), "");
        sandbox.ok(&["apply"]);
    }
    let directory = at_work(&sandbox);
    assert!(directory.join("cache").is_symlink());
    manifest(&sandbox, ", copy = [\"cache/large.bin\"]", "");
    sandbox.ok(&["apply"]).says(&["1 updated"]);
    assert!(!directory.join("cache").is_symlink());
    assert_eq!(text(&directory.join("cache/large.bin")), "large\n");
    assert_still_at_work(&directory);
}

#[test]
fn recovery_leaves_a_file_in_the_place_of_a_brought_directory() {
    let sandbox = sandbox();
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    manifest(&sandbox, ", copy = [\"conf\"]", "");
    crash(&sandbox, &["apply"], "update.recorded#1");
    fs::remove_dir_all(directory.join("conf")).unwrap();
    fs::write(directory.join("conf"), "mine\n").unwrap();
    sandbox.ok(&["status"]).says(&["1 session (a)"]);
    sandbox.ok(&["recover"]);
    assert_eq!(text(&directory.join("conf")), "mine\n");
    fs::remove_file(directory.join("conf")).unwrap();
    // A file that the session has written since is named.
    crash(&sandbox, &["apply"], "update.recorded#1");
    fs::write(directory.join("conf/local"), "mine\n").unwrap();
    sandbox.ok(&["recover"]).says(&["a: `conf/local` was written in the session and stays as it is"]);
    assert_eq!(text(&directory.join("conf/local")), "mine\n");
    assert_still_at_work(&directory);
}

#[test]
fn update_writes_through_no_link_of_the_session() {
    let sandbox = sandbox();
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    let outside = sandbox.top.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, directory.join("conf")).unwrap();
    manifest(&sandbox, ", copy = [\"conf\"]", "");
    sandbox.ok(&["apply"]).says(&["a: `conf/local` exists in the session"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn failed_run_takes_back_what_it_brought() {
    let sandbox = sandbox();
    manifest(&sandbox, ", link = [\"cache\"]", "");
    sandbox.ok(&["apply"]);
    at_work(&sandbox);
    let failing = "[session.b]\nresources = [\"git-worktree\"]\nsetup = [\"false\"]\n";
    manifest(&sandbox, ", copy = [\".env\", \"conf\"]", failing);
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["b: setup"]));
    // A file that the session has written meanwhile stays.
    let directory = sandbox.directory("a");
    let edits = format!("setup = [\"echo MINE >> {}; false\"]\n", directory.join(".env").display());
    manifest(&sandbox, ", copy = [\".env\", \"conf\"]", &failing.replace("setup = [\"false\"]\n", &edits));
    sandbox.seedbed(&["apply"]).expect(1);
    assert_eq!(text(&directory.join(".env")), "A=1\nMINE\n");
    assert!(!directory.join("conf").exists() && directory.join("cache").is_symlink());
    assert_still_at_work(&directory);
}

#[test]
fn overlay_gets_new_copies_in_its_mount() {
    let sandbox = sandbox();
    let overlay = ", checkout = \"overlay\"";
    manifest(&sandbox, overlay, "");
    if !sandbox.can_mount() {
        return;
    }
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    manifest(&sandbox, &format!("{overlay}, copy = [\".env\"], link = [\"cache\"]"), "");
    // It is mounted again first.
    sandbox.unmount_all();
    sandbox.ok(&["apply"]).says(&["1 repaired"]);
    assert_eq!(text(&directory.join(".env")), "A=1\n");
    assert_still_at_work(&directory);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn missing_file_is_a_diagnostic_of_the_added_glob_alone() {
    let sandbox = sandbox();
    manifest(&sandbox, ", copy = [\".env\"]", "");
    sandbox.ok(&["apply"]);
    fs::remove_file(sandbox.repository.join(".env")).unwrap();
    manifest(&sandbox, ", copy = [\".env\", \"conf\"]", "");
    sandbox.ok(&["apply"]);
    manifest(&sandbox, ", copy = [\".env\", \"conf\", \"none\"]", "");
    sandbox.seedbed(&["plan"]).expect(65).says(&["no file `none`"]);
    // A saved plan is stale when its file is gone.
    sandbox.write("none.log", "");
    manifest(&sandbox, ", copy = [\".env\", \"conf\", \"none.log\"]", "");
    sandbox.write(".env", "A=1\n");
    sandbox.ok(&["plan", "-o", "../saved"]);
    fs::remove_file(sandbox.repository.join("none.log")).unwrap();
    sandbox.seedbed(&["apply", "../saved"]).expect(69).says(&["no file `none.log` any more"]);
}

#[test]
fn added_kind_updates_a_session_and_releases_nothing() {
    let sandbox = sandbox();
    manifest(&sandbox, "", "");
    sandbox.ok(&["apply"]);
    let directory = at_work(&sandbox);
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\", \"directory\"]\n");
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("1 to update") && plan.contains("port-range is requested in addition"), "{plan}");
    sandbox.ok(&["apply"]).says(&["1 updated"]);
    assert_still_at_work(&directory);
}

#[test]
fn refresh_without_work_runs_nothing() {
    let sandbox = sandbox();
    manifest(
        &sandbox,
        ", copy = [\".env*\"], link = [\"cache\"]",
        "[session.b]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    sandbox.unchanged(|| {
        sandbox.ok(&["apply", "--refresh"]).says(&["nothing to do"]);
        sandbox.ok(&["plan", "--refresh", "--detailed-exitcode"]);
    });
    // A file that only the session has changed is named.
    fs::write(sandbox.directory("a").join(".env"), "MINE\n").unwrap();
    sandbox.write(".env", "A=22\n");
    let note = "a: not refreshed: `.env` was changed or removed in the session";
    assert!(sandbox.ok(&["plan", "--refresh"]).stdout.contains(note));
    sandbox.ok(&["apply", "--refresh"]).says(&[note, "nothing to do"]);
    // New files of a glob, and links that are gone.
    sandbox.write(".env.new", "N=1\n");
    sandbox.ok(&["apply", "--refresh"]).says(&[note, "1 updated, 1 kept"]);
    fs::remove_file(sandbox.directory("a").join("cache")).unwrap();
    sandbox.ok(&["apply", "--refresh"]).says(&["1 updated, 1 kept"]);
    sandbox.ok(&["apply", "--refresh"]).says(&["nothing to do"]);
}
