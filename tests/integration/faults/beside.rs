//! Tests that runs of sessions with several worktrees and directories are all or nothing, for a kill and for an error
//! at any point.

use std::fs;

use super::errors::{With, cases, fail, succeeded};
use super::{assert_put_back, check_all, crash, sandbox, some_of, traced, twice};
use crate::sandbox::{Sandbox, assert_same};

/// A session that gets a second worktree, one that keeps only one, and one whose second worktree is replaced.
const BEFORE: &str = r#"
[session.more]
resources = [{ kind = "git-worktree", name = "api", branch = "agents/more" }]
[session.fewer]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", branch = "agents/fewer" }, "directory", { kind = "directory", name = "data" }]
setup = ["echo made > made.txt"]
[session.both]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", target-path = "app", copy = [".env"] }]
[session.both.child.coder]
resources = [{ kind = "git-worktree", name = "web" }]
"#;

/// Returns the manifest after [`BEFORE`].
fn after() -> String {
    let web = "{ kind = \"git-worktree\", name = \"web\" }";
    BEFORE
        .replace("branch = \"agents/more\" }", &format!("branch = \"agents/more\" }}, {web}"))
        .replace(
            "{ kind = \"git-worktree\", name = \"web\", branch = \"agents/fewer\" }, \"directory\", ",
            "",
        )
        .replace("target-path = \"app\", copy = [\".env\"]", "branch = \"agents/both-{{ session.name }}\"")
}

/// Arguments of the run that is killed or fails.
const REPLACE: [&str; 5] = ["apply", "--yes", "--discard", "--jobs", "1"];

/// Applies [`BEFORE`] and leaves work in every worktree and directory.
fn stand(sandbox: &Sandbox) {
    sandbox.manifest(BEFORE);
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        for below in ["", "api", "web"].map(|below| directory.join(below)) {
            if below.is_dir() {
                fs::write(below.join("untracked"), "untracked\n").unwrap();
            }
        }
    }
    sandbox.manifest(&after());
}

fn is_left(sandbox: &Sandbox) -> bool {
    sandbox.repository.join(".ai_ops").exists() || sandbox.repository.join(".git/seedbed").exists()
}

#[test]
#[ignore = "`every_case` runs it"]
fn replacement_beside_other_worktrees_killed_anywhere_is_all_or_nothing() {
    let lab = sandbox(BEFORE);
    stand(&lab);
    let run = traced(&lab, &REPLACE, None);
    check_all(BEFORE, &some_of(twice(&succeeded(&run))), |sandbox, point| {
        let _ = fs::remove_dir_all(sandbox.state());
        stand(sandbox);
        let stood = sandbox.inventory();
        crash(sandbox, &REPLACE, point);
        sandbox.ok(&["recover"]);
        if sandbox.seedbed(&["plan", "--detailed-exitcode"]).code != 0 {
            assert_same(&stood, &sandbox.inventory());
        }
        sandbox.ok(&["destroy", "--discard"]);
        assert!(!is_left(sandbox));
    });
}

#[test]
#[ignore = "`every_case` runs it"]
fn replacement_beside_other_worktrees_that_fails_anywhere_is_rolled_back() {
    let lab = sandbox(BEFORE);
    stand(&lab);
    let cases = cases(&succeeded(&traced(&lab, &REPLACE, None)), With::One);
    check_all(BEFORE, &some_of(cases), |sandbox, case| {
        let _ = fs::remove_dir_all(sandbox.state());
        stand(sandbox);
        let stood = sandbox.inventory();
        match fail(sandbox, &REPLACE, case).code {
            0 => {}
            // Committed, and something of the old is left.
            73 => drop(sandbox.ok(&["recover"])),
            1 | 65 | 69 => assert_same(&stood, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        sandbox.ok(&["destroy", "--discard"]);
        assert!(!is_left(sandbox));
    });
}

#[test]
#[ignore = "`every_case` runs it"]
fn destroy_of_several_worktrees_killed_anywhere_is_finished() {
    let applied = sandbox(BEFORE);
    applied.ok(&["apply"]);
    let run = traced(&applied, &["destroy", "--discard"], None);
    check_all(BEFORE, &some_of(twice(&run.counts())), |sandbox, point| {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        crash(sandbox, &["destroy", "--discard"], point);
        sandbox.ok(&["recover"]);
        // Before its intent is written down nothing has begun.
        sandbox.ok(&["destroy", "--discard"]);
        assert_put_back(&before, sandbox);
    });
}
