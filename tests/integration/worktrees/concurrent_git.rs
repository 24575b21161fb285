//! Tests of many sessions at once beside other users' Git commands: neither side fails because of the other.
//!
//! A Git command that has listed the worktrees may fail at one that another process has removed since, by any means.
//! Therefore Git commands of others may fail if a destroy ran at the same time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::sandbox::{Outcome, Sandbox, sessions};

/// Git commands that others run at the same time, the commands of one row one after another. Two `gc` commands stop one
/// another, and `fsck` reports the packs that a simultaneous `gc` is writing.
const FOREIGN: [&[&[&str]]; 3] = [
    &[&["worktree", "list", "--porcelain"]],
    &[&["worktree", "prune"]],
    &[&["gc", "--auto", "--quiet"], &["gc", "--quiet"], &["fsck", "--no-progress"], &["rev-list", "--all"]],
];

#[test]
#[ignore = "`every_case` runs it"]
fn sixty_four_sessions_at_once_succeed_beside_other_gits_in_every_case() {
    rounds(3);
}

#[test]
#[ignore = "soak: 20 rounds of 64 sessions take minutes"]
fn sixty_four_sessions_at_once_succeed_twenty_times() {
    rounds(20);
}

fn rounds(rounds: usize) {
    let sandbox = Sandbox::in_memory();
    sandbox.manifest("[session.coder]\ncount = 64\nresources = [\"git-worktree\", \"port-range\"]\n");
    let stop = AtomicBool::new(false);
    let ran = AtomicUsize::new(0);
    // Odd while a destroy runs.
    let phase = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for row in FOREIGN {
            scope.spawn(|| {
                for args in row.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let began_in = phase.load(Ordering::SeqCst);
                    let output = sandbox.program("git", &sandbox.repository).args(*args).output().unwrap();
                    let outcome = Outcome::of(output);
                    let beside_destroy = began_in % 2 == 1 || phase.load(Ordering::SeqCst) != began_in;
                    ran.fetch_add(usize::from(!beside_destroy), Ordering::Relaxed);
                    if outcome.code != 0 && !beside_destroy {
                        failures.lock().unwrap().push(format!("git {args:?}: {}", outcome.stderr));
                    }
                }
            });
        }
        // The other commands have to be stopped after any failure here.
        let ours = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..rounds).for_each(|_| round(&sandbox, &phase));
        }));
        stop.store(true, Ordering::Relaxed);
        ours.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
    assert!(ran.into_inner() > rounds);
    assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
}

fn round(sandbox: &Sandbox, phase: &AtomicUsize) {
    let plan = sandbox.plan();
    sandbox.ok(&["apply", "--jobs", "64"]);
    assert_eq!(sessions(&plan).count(), 64);
    for session in sessions(&plan) {
        let directory = sandbox.repository.join(session["workingDirectory"].as_str().unwrap());
        sandbox.assert_clean(&directory);
    }
    phase.fetch_add(1, Ordering::SeqCst);
    sandbox.ok(&["destroy", "--jobs", "64"]);
    phase.fetch_add(1, Ordering::SeqCst);
    let left = sandbox.git(&["worktree", "list", "--porcelain"]);
    assert_eq!(left.matches("worktree ").count(), 1, "{left}");
}

/// A run ends with any number of jobs.
#[test]
fn thousands_of_jobs_end() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\ncount = 3\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply", "--jobs", "4000"]);
    sandbox.ok(&["destroy", "--jobs", "4000"]);
}
