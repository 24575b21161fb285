//! Tests in which every step of `recover --moved`, `recover --copied` and `destroy --gone` fails in turn, and is
//! repeated.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::faults::errors::{With, cases, fail, succeeded};
use crate::faults::{PAIR, assert_put_back, check_all, sandbox as faulty, traced, with_overlays};
use crate::sandbox::Sandbox;

/// Arguments of a run that is killed, and the point; `None` if no run is killed.
type Killed = Option<(&'static [&'static str], &'static str)>;

/// Change of the workspace of an applied swarm, and the command for it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Moved,
    Copied,
    Deleted,
}

impl Fate {
    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Moved => &["recover", "--moved", "--jobs", "1"],
            Self::Copied => &["recover", "--copied", "--jobs", "1"],
            Self::Deleted => &["destroy", "shop", "--gone", "--discard", "--jobs", "1"],
        }
    }

    /// Applies the swarm in another directory, starts `run` there and kills it at a point. Then moves, copies or
    /// deletes the workspace. The sandbox's repository is the result of the move or copy, or another repository.
    fn meet(self, sandbox: &Sandbox, killed: Killed) {
        let before = sandbox.top.join("before");
        match self {
            Self::Moved => fs::rename(&sandbox.repository, &before).unwrap(),
            Self::Copied | Self::Deleted => copy(&sandbox.repository, &before),
        }
        sandbox.seedbed_in(&before, &["apply"]).expect(0);
        if let Some((args, point)) = killed {
            let mut run = sandbox.command(args);
            run.current_dir(&before).env("SEEDBED_FAILPOINT", format!("{point}=crash"));
            assert!(!run.output().unwrap().status.success(), "{point} was not reached");
        }
        match self {
            Self::Moved => fs::rename(&before, &sandbox.repository).unwrap(),
            Self::Copied => {
                fs::remove_dir_all(&sandbox.repository).unwrap();
                copy(&before, &sandbox.repository);
            }
            Self::Deleted => {
                sandbox.unmount_all();
                fs::remove_dir_all(before).unwrap();
            }
        }
    }

    /// Removes the swarm. After a copy, the original takes the copy's place and has to be unchanged.
    fn end(self, sandbox: &Sandbox) {
        if matches!(self, Self::Moved | Self::Copied) {
            sandbox.ok(&["destroy", "--discard"]);
        }
        if matches!(self, Self::Copied) {
            for left in [".git/worktrees", ".git/seedbed"] {
                assert!(!sandbox.repository.join(left).exists(), "{left} is left in the copy");
            }
            let before = sandbox.top.join("before");
            sandbox.seedbed_in(&before, &["destroy", "--discard"]).expect(0);
            fs::remove_dir_all(&sandbox.repository).unwrap();
            fs::rename(before, &sandbox.repository).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Fails every `nth` of the steps.
fn check(fate: Fate, killed: Killed, with: With, nth: usize) {
    let manifest = with_overlays(PAIR);
    let lab = faulty(&manifest);
    fate.meet(&lab, killed);
    let counts = succeeded(&traced(&lab, fate.command(), None));
    let cases: Vec<String> = cases(&counts, with).into_iter().step_by(nth).collect();
    check_all(&manifest, &cases, |sandbox, case| {
        let before = sandbox.inventory();
        fate.meet(sandbox, killed);
        let code = fail(sandbox, fate.command(), case).code;
        assert!(matches!(code, 0 | 1 | 64 | 69 | 73), "{fate:?} {killed:?}: exit code {code}");
        let again = sandbox.seedbed(fate.command());
        assert!(matches!(again.code, 0 | 64), "{fate:?} {killed:?}: {again:?}");
        fate.end(sandbox);
        assert_put_back(&before, sandbox);
    });
}

/// Points at which an interrupted run has moved resources aside.
const ASIDE: [(&[&str], &str); 2] =
    [(&["destroy", "--discard"], "aside.directory-moved#2"), (&["destroy", "--discard"], "run.given-way#1")];

const FATES: [Fate; 3] = [Fate::Moved, Fate::Copied, Fate::Deleted];

#[test]
#[ignore = "`every_case` runs it"]
fn recovery_of_what_was_moved_copied_or_deleted_is_done_again_when_a_step_fails_in_every_case() {
    for fate in FATES {
        check(fate, Some(ASIDE[1]), With::One, 96);
    }
}

#[test]
#[ignore = "soak: every step with every error takes minutes"]
fn recovery_of_a_moved_workspace_can_be_repeated_after_any_failure() {
    for fate in FATES {
        for killed in [None, Some(ASIDE[0]), Some(ASIDE[1])] {
            check(fate, killed, With::All, 1);
        }
    }
}
