//! Tests of Git's garbage collection after a kill, while worktrees are aside: no object of theirs is lost.

use std::fs;
use std::path::PathBuf;

use crate::sandbox::{Outcome, Sandbox};

const TWO: &str = "[session.detached]\nresources = [{ kind = \"git-worktree\" }]\n\
                   [session.branched]\nresources = [{ kind = \"git-worktree\", branch = \"agents/branched\" }]\n";

/// Sandbox with work in two sessions, and the objects that are nowhere else.
struct Lab {
    sandbox: Sandbox,
    directories: [PathBuf; 2],
    objects: Vec<String>,
}

impl Lab {
    /// Applies two sessions. Both have a staged file. One has a commit on a detached `HEAD`; the branch of the other is
    /// the last ref that reaches the commit from which it began. Returns `None` if Git has no such format of refs.
    fn new(ref_format: &str) -> Option<Self> {
        let sandbox = Sandbox::new();
        if ref_format != "files" {
            // Git 2.47 migrates no logs, and older ones migrate nothing.
            fs::remove_dir_all(sandbox.repository.join(".git/logs")).unwrap();
            let mut migrate = sandbox.program("git", &sandbox.repository);
            migrate.args(["refs", "migrate", "--ref-format", ref_format]);
            if !migrate.output().unwrap().status.success() {
                return None;
            }
        }
        sandbox.manifest(TWO);
        sandbox.git(&["commit", "--quiet", "--allow-empty", "--message", "base"]);
        sandbox.ok(&["apply"]);
        let mut objects = vec![sandbox.git(&["rev-parse", "HEAD"])];
        sandbox.git(&["commit", "--quiet", "--allow-empty", "--amend", "--message", "amended"]);
        let directories = ["detached", "branched"].map(|session| sandbox.directory(session));
        sandbox.git_in(&directories[0], &["commit", "--quiet", "--allow-empty", "--message", "work"]);
        objects.push(sandbox.git_in(&directories[0], &["rev-parse", "HEAD"]));
        let expire = |reference| ["reflog", "expire", "--expire=now", "--expire-unreachable=now", reference];
        for directory in &directories {
            fs::write(directory.join("staged.txt"), directory.to_str().unwrap()).unwrap();
            sandbox.git_in(directory, &["add", "staged.txt"]);
            objects.push(sandbox.git_in(directory, &["rev-parse", ":staged.txt"]));
            sandbox.git_in(directory, &expire("HEAD"));
        }
        sandbox.git(&expire("HEAD"));
        sandbox.git(&expire("main"));
        Some(Self { sandbox, directories, objects })
    }

    /// Kills a run at a failpoint, and then collects all garbage.
    #[track_caller]
    fn kill(&self, args: &[&str], point: &str) {
        let mut command = self.sandbox.command(args);
        command.env("SEEDBED_FAILPOINT", format!("{point}=crash"));
        Outcome::of(command.output().unwrap()).expect(137);
        self.sandbox.git(&["worktree", "repair"]);
        self.sandbox.git(&["worktree", "prune", "--expire=now"]);
        self.sandbox.git(&["gc", "--quiet", "--prune=now"]);
    }

    #[track_caller]
    fn has_all(&self) {
        for object in &self.objects {
            self.sandbox.git(&["cat-file", "-e", object.trim()]);
        }
        self.sandbox.git(&["fsck"]);
    }
}

#[test]
fn killed_destroy_rescues_work_after_garbage_collection() {
    let lab = Lab::new("files").unwrap();
    lab.kill(&["destroy", "--rescue"], "run.set-aside");
    lab.sandbox
        .ok(&["recover"])
        .says(&["refs/seedbed/rescue/shop/detached/", "refs/seedbed/rescue/shop/branched/"]);
    assert!(!lab.sandbox.repository.join(".git/worktrees").exists());
    assert!(!lab.sandbox.repository.join(".git/seedbed").exists());
    lab.sandbox.git(&["gc", "--quiet", "--prune=now"]);
    lab.has_all();
}

/// Kills an apply that replaces both sessions, and expects that recovery brings them back as they were.
fn check_replacement(ref_format: &str) {
    let Some(lab) = Lab::new(ref_format) else { return };
    let state = || {
        lab.directories.each_ref().map(|directory| {
            let git = |args: &[&str]| lab.sandbox.git_in(directory, args);
            git(&["status", "--porcelain=v2", "--branch"]) + &git(&["ls-files", "--stage"])
        })
    };
    let before = state();
    lab.sandbox.manifest(&TWO.replace("\"git-worktree\"", "\"git-worktree\", target-path = \"app\""));
    lab.kill(&["apply", "--yes", "--discard"], "apply.told");
    lab.sandbox.ok(&["recover"]);
    assert_eq!(state(), before);
    lab.has_all();
    let listed = lab.sandbox.git(&["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 3, "{listed}");
}

#[test]
fn killed_apply_brings_back_sessions_after_garbage_collection() {
    check_replacement("files");
}

#[test]
#[ignore = "`every_case` runs it"]
fn killed_apply_brings_back_sessions_after_garbage_collection_of_reftables_in_every_case() {
    check_replacement("reftable");
}
