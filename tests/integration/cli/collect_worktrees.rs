//! Tests of `collect`, `start` and `destroy --where landed` for sessions with several worktrees, of two repositories.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const SESSIONS: &str = r#"
[repository.web]
root = "../web"
[defaults.git-worktree]
branch = "agents/{{ session.name }}-{{ resource.name }}"
[session.lead]
resources = [
    { kind = "git-worktree", name = "api", base-ref = "main" },
    { kind = "git-worktree", name = "old", base-ref = "old" },
    { kind = "git-worktree", name = "web", base-ref = "main", repository = "web" },
]
command = "cd api && git commit -q --allow-empty -m one && cd ../web && git commit -q --allow-empty -m two"
[session.other]
resources = [{ kind = "git-worktree", base-ref = "main", repository = "web" }]
"#;

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "old"]);
    sandbox.other_repository("web");
    sandbox.manifest(SESSIONS);
    sandbox.ok(&["apply"]);
    sandbox
}

fn commit(sandbox: &Sandbox, directory: &Path, path: &str, content: &str) {
    fs::write(directory.join(path), content).unwrap();
    sandbox.git_in(directory, &["add", path]);
    sandbox.git_in(directory, &["commit", "--quiet", "--message", &format!("write {path}")]);
}

/// Returns a field of each worktree: those of `lead`, then that of `other`.
fn each(document: &Value, field: &str) -> Vec<Value> {
    let worktrees = document["worktrees"].as_array().unwrap().iter();
    worktrees.map(|one| one.pointer(field).cloned().unwrap_or_default()).collect()
}

fn worktree(session: &str, resource: &str) -> Value {
    json!({ "session": session, "resource": resource })
}

/// Returns the reasons why `destroy --where` keeps `lead`; empty if it releases `lead`.
fn kept(sandbox: &Sandbox, conditions: &str) -> Vec<Value> {
    let document = sandbox.ok(&["destroy", "--dry-run", "--json", "--where", conditions]).json();
    let unmatched = document["unmatched"].as_array().cloned().unwrap_or_default();
    let reasons: Vec<_> = unmatched
        .into_iter()
        .filter(|one| one["session"] == "lead")
        .map(|one| one["description"].clone())
        .collect();
    assert_eq!(reasons.is_empty(), document["sessions"].as_array().unwrap().contains(&json!("lead")));
    reasons
}

#[test]
fn worktrees_of_a_session_have_results_of_their_own() {
    let sandbox = applied();
    let started = sandbox.ok(&["start"]);
    let row = started.stderr.lines().find(|line| line.starts_with("lead ")).unwrap();
    assert_eq!(row.split_whitespace().rev().nth(1), Some("2"), "commits in both worktrees: {row}");

    let (lead, other, web) = (sandbox.directory("lead"), sandbox.directory("other"), sandbox.top.join("web"));
    for (directory, content) in [(lead.join("old"), "old\n"), (lead.join("web"), "a\n"), (other, "b\n")] {
        commit(&sandbox, &directory, "README.md", content);
    }
    fs::write(lead.join("web/unsaved"), "work\n").unwrap();
    fs::write(lead.join("notes"), "work\n").unwrap();

    let document = sandbox.unchanged(|| sandbox.ok(&["collect", "--json", "-o", "../out"]).json());
    assert_eq!(each(&document, "/resource"), ["api", "old", "web", "git-worktree"]);
    assert_eq!(each(&document, "/repository"), [json!(null), json!(null), json!("web"), json!("web")]);
    let number = |field: &str, at: usize| each(&document, field)[at].as_array().unwrap().len();
    assert_eq!([0, 1, 2, 3].map(|at| number("/work/commits", at)), [1, 1, 2, 1]);
    assert_eq!([0, 1, 2, 3].map(|at| number("/unsaved", at)), [1, 0, 1, 0], "{document:#}");
    // `lead old` changed a file of this name in another repository.
    let both = [worktree("lead", "web"), worktree("other", "git-worktree")];
    let paths = ["README.md"];
    assert_eq!(
        document["overlaps"],
        json!([{ "repository": "web", "path": "README.md", "worktrees": both }])
    );
    assert_eq!(document["conflicts"], json!([{ "repository": "web", "worktrees": both, "paths": paths }]));
    let out = sandbox.top.join("out");
    let bundles = ["lead/api", "lead/old", "lead/web", "other"].map(|name| out.join(name));
    assert_eq!(each(&document, "/exported/bundle"), bundles.map(|name| json!(name.join("commits.bundle"))));
    sandbox.git_in(&web, &["bundle", "verify", out.join("lead/web/commits.bundle").to_str().unwrap()]);

    let text = sandbox.ok(&["collect"]).stdout;
    let head = ["SESSION", "WORKTREE", "REPOSITORY", "BRANCH"];
    assert_eq!(text.lines().next().unwrap().split_whitespace().take(4).collect::<Vec<_>>(), head);
    assert!(text.contains("lead web and other conflict in README.md"), "{text}");
    for (format, parts) in [
        ("markdown", ["| lead | web | web | agents/lead-web | 2 |", "- lead web and other conflict in"]),
        ("html", ["<td>agents/lead-web</td>", "<li>lead web and other: README.md</li>"]),
    ] {
        let page = sandbox.ok(&["collect", "--format", format]).stdout;
        assert!(parts.iter().all(|part| page.contains(part)), "{page}");
    }

    // The printed commands merge each worktree in its own repository, and only the last one conflicts.
    let commands = document["mergeCommands"].as_array().unwrap();
    let run = |command: &Value| {
        let command = command.as_str().unwrap();
        let status =
            sandbox.program("sh", &sandbox.repository).args(["-c", command]).output().unwrap().status;
        (command.ends_with("agents/other-git-worktree"), status.success())
    };
    let results: Vec<_> = commands.iter().map(run).collect();
    assert!(results.iter().all(|(is_last, succeeds)| is_last != succeeds), "{commands:#?} {results:?}");
    let tip = |branch: &str| sandbox.git(&["log", "-1", "--format=%s", branch]);
    assert!(tip("old").contains("agents/lead-old") && tip("main").contains("agents/lead-api"));
}

#[test]
fn session_has_landed_when_the_commits_of_all_its_worktrees_have() {
    let sandbox = applied();
    let (lead, web) = (sandbox.directory("lead"), sandbox.top.join("web"));
    assert_eq!(kept(&sandbox, "landed").len(), 3, "it has made no commit");
    commit(&sandbox, &lead.join("web"), "new", "1\n");
    commit(&sandbox, &lead.join("old"), "new", "1\n");
    sandbox.git_in(&web, &["merge", "--quiet", "agents/lead-web"]);
    assert_eq!(kept(&sandbox, "landed"), ["old: 1 commit has not landed in old"]);
    let into = "landed=release";
    sandbox.seedbed(&["destroy", "--dry-run", "--where", into]).expect(64).says(&["names no commit"]);
    sandbox.git_in(&web, &["branch", "release"]);
    let reasons = kept(&sandbox, into);
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let own = sandbox.repository.display();
    assert_eq!(reasons[1], format!("old: it is unknown what has landed: `release` names no commit in {own}"));
    let collected = sandbox.ok(&["collect", "--into", "release"]).stdout;
    assert!(collected.contains("`release` names no commit in"), "{collected}");
    let moved = sandbox.top.join("moved");
    fs::rename(&web, &moved).unwrap();
    let collected = sandbox.ok(&["collect", "--json"]).json();
    let errors = each(&collected, "/error");
    assert_eq!([0, 1, 2, 3].map(|at| errors[at].is_null()), [true, true, false, false], "{errors:?}");
    fs::rename(&moved, &web).unwrap();
    sandbox.git(&["branch", "--force", "old", "agents/lead-old"]);
    // No commit was made in the third worktree.
    assert_eq!(kept(&sandbox, "landed"), Vec::<Value>::new());
    sandbox.ok(&["destroy", "--where", "landed,clean", "--yes"]);
    assert!(!lead.exists());
}
