//! Tests of existing branches: a session continues at its branch's commit, or the plan explains why it cannot. A branch
//! is never reset and never lost.

use std::fs;

use crate::sandbox::{Outcome, Sandbox, sessions};

const PAIR: &str = "[defaults.git-worktree]\nbase-ref = \"BASE\"\n[session.coder]\ncount = 2\nresources = [{ kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }, \"port-range\"]\n";

/// Creates two commits on `main`, the branch `old` at the first, and two coders.
fn mini() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "old"]);
    sandbox.commit("second");
    based_on(&sandbox, "main");
    sandbox
}

fn based_on(sandbox: &Sandbox, base: &str) {
    sandbox.manifest(&PAIR.replace("BASE", base));
}

/// Commits a file in a session's worktree, and returns the commit.
fn work(sandbox: &Sandbox, session: &str, file: &str) -> String {
    let directory = sandbox.directory(session);
    fs::write(directory.join(file), file).unwrap();
    sandbox.git_in(&directory, &["add", "--all"]);
    sandbox.git_in(&directory, &["commit", "--quiet", "--message", file]);
    sandbox.git_in(&directory, &["rev-parse", "HEAD"])
}

/// Expects all of this text in stderr, regardless of line breaks.
#[track_caller]
fn says(outcome: &Outcome, parts: &[&str]) {
    let joined = |text: &str| text.replace('│', "").split_whitespace().collect::<String>();
    for part in parts {
        assert!(joined(&outcome.stderr).contains(&joined(part)), "not said: {part}\n{}", outcome.stderr);
    }
}

fn tip(sandbox: &Sandbox, branch: &str) -> String {
    sandbox.git(&["rev-parse", &format!("refs/heads/{branch}")])
}

fn head(sandbox: &Sandbox, session: &str) -> (String, String) {
    let directory = sandbox.directory(session);
    let branch = sandbox.git_in(&directory, &["symbolic-ref", "--short", "HEAD"]);
    (branch, sandbox.git_in(&directory, &["rev-parse", "HEAD"]))
}

#[test]
fn destroy_and_apply_go_on_where_the_sessions_were() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "one");
    let commit = work(&sandbox, "coder-0", "two");
    sandbox.ok(&["destroy"]);
    assert_eq!(sandbox.git(&["branch", "--list", "agents/*", "--format=%(refname:short)"]), "agents/coder-0");

    let text = sandbox.ok(&["plan"]).stdout;
    assert!(text.contains("agents/coder-0 (exists, 2 ahead, 0 behind main)"), "{text}");
    assert!(text.contains("agents/coder-1 (new) from main"), "{text}");
    let plan = sandbox.plan();
    let worktree = |name: &str| {
        let session = sessions(&plan).find(|session| session["path"] == name).unwrap();
        session["allocations"][0]["allocation"].clone()
    };
    let main = sandbox.git(&["rev-parse", "main"]);
    assert_eq!(worktree("coder-0")["commit"], commit.as_str());
    assert_eq!(worktree("coder-0")["existing"], serde_json::json!({ "base": main, "ahead": 2 }));
    assert_eq!(worktree("coder-1")["commit"], main.as_str());
    assert!(worktree("coder-1").get("existing").is_none());

    let log = fs::read(sandbox.repository.join(".git/logs/refs/heads/agents/coder-0")).unwrap();
    sandbox.ok(&["apply"]);
    assert_eq!(head(&sandbox, "coder-0"), ("agents/coder-0".to_owned(), commit.clone()));
    sandbox.assert_clean(&sandbox.directory("coder-0"));
    assert!(sandbox.directory("coder-0").join("two").exists());
    assert_eq!(fs::read(sandbox.repository.join(".git/logs/refs/heads/agents/coder-0")).unwrap(), log);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    // It was there before, and is there afterwards.
    sandbox.ok(&["destroy"]);
    assert_eq!(tip(&sandbox, "agents/coder-0"), commit);
}

#[test]
fn destroy_names_the_branches_that_it_keeps() {
    let sandbox = mini();
    let stays = |outcome: &Outcome, commit: &str| {
        let line =
            format!("coder-0: branch agents/coder-0 is kept, with 2 commits of its own, at {commit:.10}");
        says(outcome, &[&line]);
        assert!(!outcome.stderr.contains("nothing is left"), "{outcome:?}");
        assert!(!outcome.stderr.contains("coder-1: branch"), "{outcome:?}");
    };
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "one");
    let commit = work(&sandbox, "coder-0", "two");
    let named = serde_json::json!({ "session": "coder-0", "branch": "agents/coder-0", "commit": commit, "commits": 2 });
    sandbox.unchanged(|| {
        let dry = sandbox.ok(&["destroy", "--dry-run"]);
        let line = "branch agents/coder-0 is kept, with 2 commits of its own";
        assert!(dry.stdout.contains(line), "{dry:?}");
        let dry = sandbox.ok(&["destroy", "--dry-run", "--json"]).json();
        assert_eq!(dry["branches"], serde_json::json!([named]));
    });
    stays(&sandbox.ok(&["destroy"]), &commit);
    sandbox.ok(&["apply"]);
    stays(&sandbox.ok(&["destroy", "--discard"]), &commit);
    sandbox.ok(&["apply"]);
    let events = sandbox.ok(&["destroy", "--json"]).stdout;
    let mut event = named.clone();
    event["event"] = "branchKept".into();
    event["schemaVersion"] = 1.into();
    let found = events.lines().map(|line| serde_json::from_str(line).unwrap());
    assert_eq!(
        found.filter(|line: &serde_json::Value| line["event"] == "branchKept").collect::<Vec<_>>(),
        [event]
    );
    // A branch of a session that an apply destroys is named as well; the branch of a continued session is not.
    sandbox.ok(&["apply"]);
    sandbox.manifest(&PAIR.replace("BASE", "main").replace("coder", "other"));
    stays(&sandbox.ok(&["apply", "--yes"]), &commit);
    sandbox.git(&["branch", "-D", "agents/coder-0"]);
    sandbox.ok(&["destroy"]).says(&["2 sessions released; nothing is left"]);
    // After a merge, the base ref has the commits, and the printed command deletes the branch.
    based_on(&sandbox, "main");
    sandbox.ok(&["apply"]);
    let commit = work(&sandbox, "coder-0", "three");
    sandbox.git(&["merge", "--quiet", "--no-ff", "--no-edit", "agents/coder-0"]);
    let line = format!(
        "branch agents/coder-0 is kept at {commit:.10}: main has all its commits, and `git branch -d agents/coder-0` deletes it"
    );
    assert!(sandbox.ok(&["destroy", "--dry-run"]).stdout.contains(&line));
    says(&sandbox.ok(&["destroy"]), &[&line]);
    sandbox.git(&["branch", "-d", "agents/coder-0"]);
}

#[test]
fn branch_with_rescued_commits_stays() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory("coder-0").join("new"), "new").unwrap();
    let outcome = sandbox.ok(&["destroy", "--rescue"]);
    assert!(!outcome.stderr.contains("nothing is left"), "{outcome:?}");
}

#[test]
fn a_run_that_fails_leaves_a_branch_that_it_went_on_with() {
    let sandbox = mini();
    let commit = sandbox.git(&["rev-parse", "main"]);
    sandbox.git(&["branch", "agents/coder-0"]);
    let manifest = PAIR.replace("BASE", "main") + "setup = [[\"false\"]]\n";
    sandbox.manifest(&manifest);
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    assert_eq!(tip(&sandbox, "agents/coder-0"), commit);
}

#[test]
fn replaced_session_continues_with_its_commits_if_they_contain_the_new_base() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    let commit = work(&sandbox, "coder-0", "one");
    based_on(&sandbox, "old");
    let text = sandbox.ok(&["plan"]).stdout;
    assert!(text.contains("agents/coder-0 (exists, 2 ahead, 0 behind old)"), "{text}");
    assert!(text.contains("agents/coder-1 (new) from old"), "{text}");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(head(&sandbox, "coder-0"), ("agents/coder-0".to_owned(), commit.clone()));
    assert_eq!(head(&sandbox, "coder-1").1, sandbox.git(&["rev-parse", "old"]));
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    // A branch without commits is deleted with its session, even if it was created a second time.
    sandbox.ok(&["destroy"]);
    assert_eq!(sandbox.git(&["branch", "--list", "agents/*", "--format=%(refname:short)"]), "agents/coder-0");
    assert_eq!(tip(&sandbox, "agents/coder-0"), commit);
}

#[test]
fn a_branch_that_does_not_contain_the_new_base_is_a_diagnostic_that_names_both() {
    let sandbox = mini();
    based_on(&sandbox, "old");
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "one");
    based_on(&sandbox, "main");
    for command in ["plan", "apply"] {
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&[command, "--yes"]).expect(65));
        says(
            &outcome,
            &[
                "branch `agents/coder-0` of `shop/coder-0` exists with 1 commit of its own and does not contain `main`",
                "its release keeps it",
                "git branch -m agents/coder-0 NEW",
                "seedbed.toml:",
            ],
        );
    }
    sandbox.git_in(&sandbox.directory_of("coder-0"), &["rebase", "--quiet", "main"]);
    sandbox.ok(&["apply", "--yes"]);
    assert!(sandbox.directory("coder-0").join("one").exists());
}

#[test]
fn repaired_session_continues_with_its_commits() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    let commit = work(&sandbox, "coder-1", "one");
    let main = sandbox.git(&["rev-parse", "main"]);
    for session in ["coder-0", "coder-1"] {
        fs::remove_dir_all(sandbox.directory(session)).unwrap();
    }
    // The base of what is made again is where it began.
    sandbox.commit("third");
    let text = sandbox.ok(&["plan"]).stdout;
    assert!(text.contains("2 to repair"), "{text}");
    assert!(text.contains("agents/coder-1 (exists, 1 ahead, 0 behind main)"), "{text}");
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(head(&sandbox, "coder-1"), ("agents/coder-1".to_owned(), commit));
    assert_eq!(head(&sandbox, "coder-0").1, main);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_branch_that_was_deleted_is_made_again_with_its_worktree() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    fs::remove_dir_all(sandbox.directory("coder-1")).unwrap();
    sandbox.git(&["update-ref", "-d", "refs/heads/agents/coder-1"]);
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(head(&sandbox, "coder-1").1, sandbox.git(&["rev-parse", "main"]));
}

#[test]
fn branch_that_the_manifest_forbids_to_reuse_is_refused() {
    let sandbox = mini();
    sandbox.git(&["branch", "agents/coder-1"]);
    let refuse = PAIR.replace("BASE", "main").replace("branch =", "branch-exists = \"refuse\", branch =");
    sandbox.manifest(&refuse);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
    says(
        &outcome,
        &[
            "branch `agents/coder-1` of `shop/coder-1` exists",
            "branch-exists = \"reuse\"",
            "`git branch -D agents/coder-1`",
        ],
    );
    based_on(&sandbox, "main");
    sandbox.ok(&["apply"]);
    // It says how a worktree is made, and is no reason to make one anew.
    sandbox.manifest(&refuse);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_branch_that_is_checked_out_is_refused_with_its_worktree() {
    let sandbox = mini();
    sandbox.git(&["worktree", "add", "--quiet", "-b", "agents/coder-0", "../elsewhere"]);
    let elsewhere = sandbox.top.join("elsewhere");
    let refused = || {
        let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
        says(
            &outcome,
            &["branch `agents/coder-0` of `shop/coder-0` is checked out at", elsewhere.to_str().unwrap()],
        );
    };
    refused();
    // While it is rebased, HEAD is detached.
    fs::write(elsewhere.join("x"), "x").unwrap();
    sandbox.git_in(&elsewhere, &["add", "--all"]);
    sandbox.git_in(&elsewhere, &["commit", "--quiet", "--message=x"]);
    sandbox
        .git_in(&elsewhere, &["-c", "sequence.editor=sed -i 1ibreak", "rebase", "--quiet", "-i", "HEAD~1"]);
    refused();
    sandbox.git_in(&elsewhere, &["rebase", "--quit"]);
    sandbox.git_in(&elsewhere, &["switch", "--quiet", "--detach"]);
    sandbox.ok(&["apply"]);
}

#[test]
fn conflicting_path_of_a_reused_branch_is_reported() {
    let sandbox = mini();
    sandbox.git(&["switch", "--quiet", "-c", "agents/coder-0"]);
    sandbox.write(".agent-context/notes", "x");
    sandbox.git(&["add", "--all", "--force", ".agent-context"]);
    sandbox.git(&["commit", "--quiet", "--message=notes"]);
    sandbox.git(&["switch", "--quiet", "main"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
    says(&outcome, &["`refs/heads/agents/coder-0` tracks `.agent-context`"]);
}

#[test]
fn a_saved_plan_is_stale_once_the_branch_has_moved() {
    let sandbox = mini();
    sandbox.git(&["branch", "agents/coder-0"]);
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.git(&["update-ref", "refs/heads/agents/coder-0", "old"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    says(&outcome, &["branch `agents/coder-0` has moved from"]);
    sandbox.git(&["branch", "--quiet", "-D", "agents/coder-0"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    says(&outcome, &["branch `agents/coder-0` does not exist any more"]);

    // The same of what a plan replaces.
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "one");
    based_on(&sandbox, "old");
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    work(&sandbox, "coder-0", "two");
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes", "../plan.json"]).expect(69));
    says(&outcome, &["branch `agents/coder-0` has moved from"]);
    work(&sandbox, "coder-1", "one");
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.ok(&["apply", "--yes", "../plan.json"]);
}

#[test]
fn branch_reset_to_its_first_commit_is_removed_with_its_session() {
    let sandbox = mini();
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "one");
    based_on(&sandbox, "old");
    sandbox.ok(&["apply", "--yes"]);
    sandbox.git_in(&sandbox.directory("coder-0"), &["reset", "--quiet", "--hard", "main"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(sandbox.git(&["branch", "--list", "agents/*"]), "");
}

#[test]
fn copies_and_overlays_begin_at_the_tip() {
    let sandbox = mini();
    for checkout in ["auto", "git", "overlay"] {
        let manifest = PAIR.replace("BASE", "main");
        let manifest = manifest.replace("branch =", &format!("checkout = \"{checkout}\", branch ="));
        sandbox.manifest(&manifest);
        if !sandbox.can_mount() {
            continue;
        }
        sandbox.ok(&["apply", "--yes"]);
        let commit = work(&sandbox, "coder-0", checkout);
        work(&sandbox, "coder-1", checkout);
        sandbox.ok(&["destroy"]);
        sandbox.git(&["update-ref", "refs/heads/agents/coder-1", &commit]);
        sandbox.ok(&["apply", "--yes"]);
        for session in ["coder-0", "coder-1"] {
            let directory = sandbox.directory(session);
            sandbox.assert_clean(&directory);
            assert!(directory.join(checkout).exists(), "{checkout}");
        }
        sandbox.ok(&["destroy"]);
    }
}

/// A kind whose program moves the branch while the run is making the session.
#[test]
fn branch_that_moves_after_planning_is_refused() {
    let sandbox = mini();
    sandbox.git(&["branch", "agents/coder-0"]);
    let program = r#"
answer='"protocol": 2'
case $(cat) in
    *'"plan"'*) answer="$answer, \"allocations\": {\"shop/coder-0\": {\"allocation\": {}}}" ;;
    *'"provision"'*) git update-ref refs/heads/agents/coder-0 old ;;
    *'"inspect"'*) answer="$answer, \"condition\": \"healthy\"" ;;
esac
echo "{$answer}"
"#;
    sandbox.write("mover.sh", program);
    sandbox.manifest("[provider.mover]\ncommand = [\"sh\", \"mover.sh\"]\n[session.coder]\ncount = 1\nresources = [\"mover\", { kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }]\n");
    // The branch's new commit does not contain the base, so the session cannot be planned again.
    let outcome = sandbox.seedbed(&["apply"]).expect(1);
    says(&outcome, &["branch `agents/coder-0` has moved from"]);
    assert_eq!(tip(&sandbox, "agents/coder-0"), sandbox.git(&["rev-parse", "old"]));
    assert_eq!(sandbox.git(&["worktree", "list"]).lines().count(), 1);
}

/// Lets both sessions commit, merges the work of the first into `main`, and destroys the swarm. Returns the commit of the
/// first.
fn landed(sandbox: &Sandbox) -> String {
    sandbox.ok(&["apply"]);
    work(sandbox, "coder-0", "one");
    let commit = work(sandbox, "coder-0", "two");
    work(sandbox, "coder-1", "one");
    sandbox.git(&["merge", "--quiet", "--no-ff", "--message=merged", "agents/coder-0"]);
    sandbox.ok(&["destroy"]);
    sandbox.git(&["branch", "-D", "agents/coder-1"]);
    sandbox.commit("next day");
    commit
}

#[test]
fn landed_branch_is_moved_forward_when_applied_again() {
    let sandbox = mini();
    let commit = landed(&sandbox);
    let main = sandbox.git(&["rev-parse", "main"]);
    let moved = format!("agents/coder-0 (landed at {commit:.10}, moved forward to main)");
    assert!(sandbox.ok(&["plan"]).stdout.contains(&moved));
    let plan = sandbox.plan();
    let first = sessions(&plan).find(|session| session["path"] == "coder-0").unwrap();
    let existing = &first["allocations"][0]["allocation"]["existing"];
    assert_eq!(*existing, serde_json::json!({ "base": main, "ahead": 0, "movedFrom": commit }));

    // A failed run moves the branch back, with its reflog.
    let manifest = PAIR.replace("BASE", "main");
    sandbox.manifest(&format!("{manifest}setup = [[\"false\"]]\n"));
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    // Commits that it gets meanwhile stay.
    let commits = "git -c user.name=a -c user.email=a@b commit --quiet --allow-empty -m x && false";
    sandbox.manifest(&format!("{manifest}setup = [\"{commits}\"]\n"));
    sandbox.seedbed(&["apply", "--jobs", "1"]).expect(1);
    assert_eq!(sandbox.git(&["rev-parse", "agents/coder-0~1"]), main);
    sandbox.git(&["update-ref", "refs/heads/agents/coder-0", &commit]);

    sandbox.manifest(&manifest);
    sandbox.ok(&["apply"]);
    assert_eq!(head(&sandbox, "coder-0"), ("agents/coder-0".to_owned(), main.clone()));
    sandbox.assert_clean(&sandbox.directory("coder-0"));
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    // A session that is replaced on the third day goes on in the same way.
    work(&sandbox, "coder-0", "three");
    sandbox.git(&["merge", "--quiet", "--no-ff", "--message=merged", "agents/coder-0"]);
    sandbox.manifest(&manifest.replace("branch =", "target-path = \"app\", branch ="));
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(head(&sandbox, "coder-0").1, sandbox.git(&["rev-parse", "main"]));
    sandbox.ok(&["destroy"]);
    assert_eq!(tip(&sandbox, "agents/coder-0"), sandbox.git(&["rev-parse", "main"]));
}

#[test]
fn last_branch_that_reaches_a_commit_is_kept() {
    let sandbox = mini();
    let reaches = |commit: &str| {
        assert_eq!(
            sandbox.git(&["rev-list", "--max-count=1", commit, "--not", "--all"]),
            "",
            "{commit} is lost"
        );
    };
    let feature = || {
        sandbox.git(&["switch", "--quiet", "--create", "feature", "main"]);
        let commit = sandbox.commit("of the feature");
        sandbox.git(&["switch", "--quiet", "main"]);
        based_on(&sandbox, "feature");
        commit
    };
    // Two branches with the same commit do not vouch for each other.
    let commit = feature();
    sandbox.ok(&["apply"]);
    sandbox.git(&["branch", "--quiet", "-D", "feature"]);
    let outcome = sandbox.ok(&["destroy"]);
    says(&outcome, &["is kept, "]);
    reaches(&commit);
    assert_eq!(sandbox.git(&["branch", "--list", "agents/*"]).lines().count(), 1);
    for branch in sandbox.git(&["branch", "--list", "agents/*", "--format=%(refname:short)"]).lines() {
        sandbox.git(&["branch", "--quiet", "-D", branch]);
    }

    // The same while sessions are replaced, and after a failed run.
    let commit = feature();
    sandbox.ok(&["apply"]);
    sandbox.git(&["branch", "--quiet", "-D", "feature"]);
    sandbox.manifest(&PAIR.replace("BASE", "main").replace("agents/", "others/"));
    sandbox.ok(&["apply", "--yes"]);
    reaches(&commit);
    sandbox.ok(&["destroy"]);
    for branch in sandbox.git(&["branch", "--list", "agents/*", "--format=%(refname:short)"]).lines() {
        sandbox.git(&["branch", "--quiet", "-D", branch]);
    }
    let commit = feature();
    let failing = "setup = [\"git branch -D feature >&2 || true; exit 1\"]\n";
    sandbox.manifest(&(PAIR.replace("BASE", "feature") + failing));
    assert_ne!(sandbox.seedbed(&["apply"]).code, 0);
    reaches(&commit);
}

#[test]
fn landed_branch_is_not_moved_if_another_process_has_a_claim_to_it() {
    let sandbox = mini();
    let commit = landed(&sandbox);
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    sandbox.git(&["update-ref", "refs/heads/agents/coder-0", "old"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply", "../plan.json"]).expect(69));
    says(&outcome, &["branch `agents/coder-0` has moved from"]);
    sandbox.git(&["update-ref", "refs/heads/agents/coder-0", &commit]);
    sandbox.git(&["worktree", "add", "--quiet", "../elsewhere", "agents/coder-0"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
    says(&outcome, &["branch `agents/coder-0` of `shop/coder-0` is checked out at"]);
    sandbox.git(&["worktree", "remove", "../elsewhere"]);
    // A user's branch is never moved.
    sandbox.git(&["branch", "--quiet", "-D", "agents/coder-0"]);
    sandbox.git(&["branch", "agents/coder-0", &commit]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
    says(&outcome, &["exists with no commit of its own and does not contain `main`"]);
    // Work that was squashed cannot be told from work that would be lost.
    sandbox.git(&["branch", "--quiet", "-D", "agents/coder-0"]);
    sandbox.ok(&["apply"]);
    work(&sandbox, "coder-0", "squashed");
    sandbox.git(&["merge", "--quiet", "--squash", "agents/coder-0"]);
    sandbox.git(&["commit", "--quiet", "--message=squash of one commit"]);
    sandbox.ok(&["destroy"]);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(65));
    says(&outcome, &["exists with 1 commit of its own", "as after a squash", "git branch -D agents/coder-0"]);
}
