//! Tests of files in a session that are not its own or cannot be attributed: they are named, and a release never
//! removes them silently.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::sandbox::{Outcome, Sandbox};

/// Two plain sessions; `build` is ignored.
fn applied(sandbox: Sandbox) -> Sandbox {
    sandbox.manifest("[session.coder]\ncount = 2\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    sandbox
}

fn ignoring_build() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", "*.log\n.env\nbuild/\n");
    sandbox.commit("ignore build");
    sandbox
}

fn close(directory: &Path) {
    fs::set_permissions(directory, Permissions::from_mode(0o000)).unwrap();
}

/// Expects that a destroy is refused for a reason with every policy for unsaved work, and that `status` and a dry run
/// report the same.
#[track_caller]
fn check_obstacle(sandbox: &Sandbox, directory: &Path, says: &[&str]) {
    let names =
        || fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<PathBuf>>();
    let before = names();
    for flags in [&[][..], &["--rescue"], &["--discard"]] {
        let args = [&["destroy", "--dry-run"][..], flags].concat();
        let dry = sandbox.seedbed(&args).expect(69);
        let real = sandbox.seedbed(&[&["destroy"][..], flags].concat()).expect(69);
        for said in says {
            assert!(dry.stdout.contains(said), "{said}: {}", dry.stdout);
            assert!(real.stderr.contains(said), "{said}: {}", real.stderr);
        }
    }
    assert!(sandbox.ok(&["status"]).stdout.contains(says[0]));
    assert_eq!(names(), before, "nothing was moved");
}

#[test]
fn directory_that_cannot_be_listed_is_never_clean() {
    let sandbox = applied(ignoring_build().without_root());
    let directory = sandbox.directory("coder-1");
    for name in ["work", "build/inner", "app"] {
        let closed = directory.join(name);
        sandbox.program("mkdir", &directory).args(["-p", name]).status().unwrap();
        close(&closed);
        let refused = sandbox.seedbed(&["destroy"]).expect(69);
        refused.says(&["coder-1: ", &format!("cannot be listed ({name})"), "chmod u+rwx"]);
        sandbox.seedbed(&["destroy", "--rescue"]).expect(69);
        assert!(sandbox.ok(&["status"]).stdout.contains("cannot be listed"));
        // Listed, but nothing in it can be looked at.
        fs::set_permissions(&closed, Permissions::from_mode(0o444)).unwrap();
        sandbox.seedbed(&["destroy"]).expect(69).says(&["cannot be listed"]);
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    }
    sandbox.ok(&["destroy", "--dry-run"]);
    close(&directory.join("work"));
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!directory.exists());
}

#[test]
fn changed_file_that_cannot_be_read_is_beyond_rescue() {
    let sandbox = applied(Sandbox::new().without_root());
    let directory = sandbox.directory("coder-1");
    fs::write(directory.join("new"), "work").unwrap();
    close(&directory.join("new"));
    let refused = sandbox.seedbed(&["destroy", "--rescue"]).expect(69);
    refused.says(&["changed files that cannot be read (new)"]);
    fs::set_permissions(directory.join("new"), Permissions::from_mode(0o644)).unwrap();
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn directory_of_another_user_is_named_before_anything_is_released() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED, only root can make directories of another user");
        return;
    }
    let sandbox = applied(ignoring_build().without_root());
    let directory = sandbox.directory("coder-1");
    for (name, mode) in [("database", 0o700), ("build/readable", 0o755), ("build/shared", 0o1777)] {
        let foreign = directory.join(name);
        fs::create_dir_all(&foreign).unwrap();
        fs::write(foreign.join("data"), "data").unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(mode)).unwrap();
        check_obstacle(&sandbox, &directory, &["directories of other users", name, "chown"]);
        fs::remove_dir_all(&foreign).unwrap();
    }
    // An empty one, and one that everybody can write to, are no obstacle.
    for (name, mode) in [("build/empty", 0o755), ("build/open", 0o777)] {
        fs::create_dir_all(directory.join(name)).unwrap();
        fs::set_permissions(directory.join(name), Permissions::from_mode(mode)).unwrap();
    }
    fs::write(directory.join("build/open/data"), "data").unwrap();
    chown(directory.join("build"), Some(65534), Some(65534)).unwrap();
    sandbox.ok(&["destroy"]);
    assert!(!directory.exists());
}

/// Bind-mounts `from` on `to`; prints a notice and returns `false` if mounting is not possible.
fn bind(from: &Path, to: &Path) -> bool {
    let mounted = rustix::mount::mount_bind(from, to);
    if let Err(error) = &mounted {
        eprintln!("NOT TESTED, nothing can be mounted here: {error}");
    }
    mounted.is_ok()
}

#[test]
fn files_below_a_mount_are_never_removed() {
    let sandbox = applied(ignoring_build());
    let elsewhere = sandbox.top.join("else where");
    fs::create_dir_all(elsewhere.join("deep")).unwrap();
    fs::write(elsewhere.join("deep/precious"), "x").unwrap();
    let directory = sandbox.directory("coder-1");
    // In a directory that is ignored, over one that is tracked, over one that is not, and over the worktree itself.
    for name in ["build", "app", "new dir", "."] {
        let place = directory.join(name);
        let place = if name == "." { directory.clone() } else { place };
        let _ = fs::create_dir(&place);
        if !bind(&elsewhere, &place) {
            return;
        }
        let listed = if name == "." { sandbox.top.clone() } else { directory.clone() };
        let umount = format!("`umount {}`", seedbed::host::text::shell_quoted(place.to_str().unwrap()));
        if name == "." {
            // The directory there is not the worktree at all.
            for flags in [&[][..], &["--discard"]] {
                sandbox.seedbed(&[&["destroy"][..], flags].concat()).expect(69).says(&[&umount]);
            }
        } else {
            check_obstacle(&sandbox, &listed, &["is a mount", &umount]);
        }
        assert!(elsewhere.join("deep/precious").is_file());
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).unwrap();
        if name == "new dir" {
            fs::remove_dir(&place).unwrap();
        }
    }
    sandbox.ok(&["destroy"]);
    assert!(!directory.exists());
}

#[test]
fn linked_worktree_inside_is_named_and_stays() {
    let sandbox = applied(ignoring_build());
    let directory = sandbox.directory("coder-1");
    for (name, path) in [("ignored", "build/wt"), ("tracked", "app/wt")] {
        sandbox.git_in(&directory, &["worktree", "add", "--quiet", "-b", name, path]);
        let place = directory.join(path);
        fs::write(place.join("work"), "work").unwrap();
        check_obstacle(&sandbox, &directory, &[&format!("git worktree remove {}", place.display())]);
        assert!(place.join("work").is_file());
        sandbox.git_in(&directory, &["worktree", "remove", "--force", path]);
    }
    // A linked worktree that is registered but missing is no obstacle.
    sandbox.git_in(&directory, &["worktree", "add", "--quiet", "--detach", "build/gone"]);
    fs::remove_dir_all(directory.join("build/gone")).unwrap();
    sandbox.ok(&["destroy"]);
}

#[test]
fn linked_worktree_inside_stays_when_an_interrupted_run_discards() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\nresources = [\"git-worktree\"]\n");
    let check = |killed: &[&str], point: &str, commands: &[&[&str]]| {
        let mut kill = sandbox.command(killed);
        Outcome::of(kill.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap()).expect(137);
        let worktrees = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
        let worktree = worktrees.last().unwrap().unwrap().path();
        sandbox.git_in(&worktree, &["worktree", "add", "--quiet", "--detach", "linked"]);
        fs::write(worktree.join("linked/work"), "work").unwrap();
        for command in commands {
            sandbox.seedbed(command).expect(69).says(&["git worktree remove"]);
            assert!(worktree.join("linked/work").is_file(), "{killed:?}, then {command:?}");
        }
        sandbox.git_in(&worktree, &["worktree", "remove", "--force", "linked"]);
        sandbox.ok(&["destroy"]);
    };
    check(&["apply"], "apply.report", &[&["recover", "--discard"], &["destroy", "--discard"]]);
    let run: &[&str] = &["run", "--in-place", "--", "true"];
    check(run, "apply.report", &[&["recover"], &["recover", "--discard"], &["destroy"], run]);
    sandbox.ok(&["apply"]);
    check(&["destroy", "--discard"], "run.intended", &[&["recover", "--discard"], &["destroy", "--discard"]]);
    sandbox.ok(&["apply"]);
    check(&["destroy", "--discard"], "run.intended", &[&["recover"], &["destroy", "--discard"]]);
}

#[test]
fn linked_worktree_that_teardown_adds_stays_when_work_is_discarded() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.coder]\nresources = [\"git-worktree\"]\nteardown = [\"git worktree add --quiet --detach linked\"]\n",
    );
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder");
    sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&["git worktree remove"]);
    assert!(directory.join("linked/.git").is_file());
    sandbox.git_in(&directory, &["worktree", "lock", "linked"]);
}

#[test]
fn swarm_inside_is_named_and_stays() {
    let sandbox = applied(ignoring_build());
    let directory = sandbox.directory("coder-1");
    let inner = |resources: &str| {
        fs::create_dir_all(directory.join("build")).unwrap();
        let text = sandbox.manifest_text(&format!("[session.inner]\nresources = [\"{resources}\"]\n"));
        fs::write(directory.join("build/inner.toml"), text.replace("shop", "inner")).unwrap();
    };
    for kind in ["git-worktree", "port-range"] {
        inner(kind);
        sandbox.seedbed_in(&directory, &["apply", "-f", "build/inner.toml"]).expect(0);
        check_obstacle(&sandbox, &directory, &["it contains swarm inner", "`seedbed destroy`"]);
        sandbox.seedbed_in(&directory, &["destroy", "-f", "build/inner.toml"]).expect(0);
    }
    sandbox.ok(&["destroy"]);
}

#[test]
fn nested_sessions_are_released_together() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[defaults.git-worktree]\nlayout = \"nested\"\n[session.a]\nresources = [\"git-worktree\"]\n\
         [session.a.child.b]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    let status = sandbox.ok(&["status"]).stdout;
    assert_eq!(status.matches("clean").count(), 2, "{status}");
    sandbox.ok(&["destroy"]);
}

#[test]
fn repository_in_an_ignored_or_tracked_directory_is_kept_if_it_has_work() {
    let sandbox = applied(ignoring_build());
    let directory = sandbox.directory("coder-1");
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let origin = sandbox.repository.to_str().unwrap().to_owned();
    sandbox.git(&["tag", "v1"]);
    let check = |path: &str, clone: &[&str], acts: &[&[&str]], has_work: bool| {
        let top = directory.join(path);
        fs::create_dir_all(top.parent().unwrap()).unwrap();
        sandbox.git_in(&directory, &[clone, &[path]].concat());
        for act in acts {
            sandbox.git_in(&top, &[&identity[..], act].concat());
        }
        let outcome = sandbox.seedbed(&["destroy", "--rescue", "--dry-run"]);
        let said = if has_work { "nowhere else (" } else { "without work of their own: " };
        assert!(outcome.stdout.contains(&format!("{said}{path}")), "{clone:?} {acts:?}: {}", outcome.stdout);
        assert_eq!(outcome.code, if has_work { 69 } else { 0 }, "{clone:?} {acts:?}");
        fs::remove_dir_all(top).unwrap();
    };
    let clone = ["clone", "--quiet", &origin];
    let url = format!("file://{origin}");
    let shallow = ["clone", "--quiet", "--depth=1", "--branch=v1", &url];
    let commit: &[&str] = &["commit", "--quiet", "--allow-empty", "-m", "x"];
    check("build/dep", &clone, &[], false);
    check("build/dep", &shallow, &[], false);
    check("build/dep", &clone, &[&["checkout", "--quiet", "v1"]], false);
    check("build/dep", &clone, &[&["rm", "--quiet", "README.md"]], true);
    check("build/dep", &clone, &[commit], true);
    check("build/dep", &clone, &[&["checkout", "--quiet", "--detach"], commit], true);
    check("build/dep", &clone, &[commit, &["tag", "mine"]], true);
    check("build/dep", &shallow, &[commit, &["tag", "mine"]], true);
    check(
        "build/dep",
        &clone,
        &[&["checkout", "--quiet", "-b", "side"], commit, &["checkout", "--quiet", "main"]],
        true,
    );
    // Git sees nothing of a repository in a directory that it tracks.
    sandbox.git_in(&directory, &["init", "--quiet", "app"]);
    assert_eq!(sandbox.git_in(&directory, &["status", "--porcelain"]), "");
    sandbox.seedbed(&["destroy"]).expect(69).says(&["nowhere else (app)"]);
    fs::remove_dir_all(directory.join("app/.git")).unwrap();
    // Nor of anything else that is called like one. Packages bring such files, which lead nowhere.
    fs::create_dir_all(directory.join("build/package")).unwrap();
    fs::write(directory.join("build/package/.git"), "gitdir: ../../nowhere\n").unwrap();
    sandbox.ok(&["destroy", "--dry-run"]);
    fs::create_dir(directory.join("app/.git")).unwrap();
    fs::write(directory.join("app/.git/notes"), "work").unwrap();
    sandbox.seedbed(&["destroy"]).expect(69).says(&["has a `.git` that is no repository", "(app)"]);
    fs::remove_dir_all(directory.join("app/.git")).unwrap();
    sandbox.ok(&["destroy"]);
}
