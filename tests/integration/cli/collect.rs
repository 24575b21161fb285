//! Tests of `seedbed collect`: what sessions have committed, which of it has landed, what conflicts; read-only.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const THREE: &str = "[defaults.git-worktree]\nbranch = \"agents/{{ session.name }}\"\n\
                     [session.a]\nresources = [\"git-worktree\"]\n[session.b]\nresources = [\"git-worktree\"]\n\
                     [session.c]\nresources = [\"git-worktree\"]\n[session.plain]\nresources = []\n";

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(THREE);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Commits one file in a session's worktree, or in the repository if the session is empty.
fn commit(sandbox: &Sandbox, session: &str, path: &str, content: &str) {
    let directory = if session.is_empty() { sandbox.repository.clone() } else { sandbox.directory(session) };
    let file = directory.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
    sandbox.git_in(&directory, &["add", path]);
    sandbox.git_in(&directory, &["commit", "--quiet", "--message", &format!("{session} writes {path}")]);
}

fn collected(sandbox: &Sandbox, args: &[&str]) -> Value {
    sandbox.ok(&[&["collect", "--json"], args].concat()).json()
}

fn of<'d>(document: &'d Value, session: &str) -> &'d Value {
    let mut worktrees = document["worktrees"].as_array().unwrap().iter();
    worktrees.find(|one| one["session"] == session).unwrap_or_else(|| panic!("no {session}: {document:#}"))
}

#[test]
fn commits_files_conflicts_and_an_order_of_merges_are_reported_and_nothing_is_changed() {
    let sandbox = applied();
    commit(&sandbox, "a", "README.md", "a\n");
    commit(&sandbox, "a", "own/of a.txt", "1\n2\n");
    commit(&sandbox, "b", "README.md", "b\n");
    commit(&sandbox, "c", "app/main.txt", "c\n");
    fs::write(sandbox.directory("c").join("app/main.txt"), "unsaved\n").unwrap();

    let document = sandbox.unchanged(|| collected(&sandbox, &[]));
    let names: Vec<_> = document["worktrees"].as_array().unwrap().iter().map(|one| &one["session"]).collect();
    assert_eq!(names, ["a", "b", "c"], "a session without a worktree has no results");
    let work = &of(&document, "a")["work"];
    let subjects: Vec<_> = work["commits"].as_array().unwrap().iter().map(|one| &one["subject"]).collect();
    assert_eq!(subjects, ["a writes own/of a.txt", "a writes README.md"]);
    assert_eq!(
        work["files"],
        json!([
            { "path": "README.md", "change": "modified", "added": 1, "deleted": 1 },
            { "path": "own/of a.txt", "change": "added", "added": 2, "deleted": 0 },
        ])
    );
    assert_eq!(work["mergeBase"], sandbox.git(&["rev-parse", "main"]).trim());
    assert_eq!(work["landed"], Value::Null);
    let worktrees = ["a", "b"].map(|session| json!({ "session": session, "resource": "git-worktree" }));
    assert_eq!(
        document["overlaps"],
        json!([{ "repository": null, "path": "README.md", "worktrees": worktrees }])
    );
    assert_eq!(
        document["conflicts"],
        json!([{ "repository": null, "worktrees": worktrees, "paths": ["README.md"] }])
    );
    assert_eq!(of(&document, "a")["unsaved"], json!([]));
    assert_eq!(of(&document, "c")["unsaved"].as_array().unwrap().len(), 1);

    let text = sandbox.ok(&["collect"]).stdout;
    for part in ["LANDED", "a writes README.md", "unsaved: "] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // The commands do what the report says: all but the last merge without conflict.
    let commands: Vec<&str> =
        document["mergeCommands"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(
        commands,
        ["git merge --no-ff agents/c", "git merge --no-ff agents/a", "git merge --no-ff agents/b"]
    );
    let merges = |command: &str| {
        let status =
            sandbox.program("sh", &sandbox.repository).args(["-c", command]).output().unwrap().status;
        status.success()
    };
    assert_eq!([true, true, false], [0, 1, 2].map(|at| merges(&format!("{} --no-edit", commands[at]))));
}

#[test]
fn landed_commits_are_listed_by_how_they_landed() {
    let sandbox = applied();
    let landed =
        |session: &str| of(&collected(&sandbox, &["--into", "main"]), session)["work"]["landed"].clone();
    assert_eq!(landed("a"), Value::Null, "it has made no commit");

    // A fast-forward, then a merge of the same branch.
    commit(&sandbox, "a", "a", "1\n");
    sandbox.git(&["merge", "--quiet", "--ff-only", "agents/a"]);
    assert_eq!(landed("a"), "ancestor");
    commit(&sandbox, "a", "a", "2\n");
    assert_eq!(landed("a"), Value::Null);
    sandbox.git(&["merge", "--quiet", "--no-ff", "--no-edit", "agents/a"]);
    assert_eq!(landed("a"), "ancestor");

    // The same patches on another base.
    commit(&sandbox, "b", "b1", "1\n");
    commit(&sandbox, "b", "b2", "2\n");
    sandbox.git(&["cherry-pick", "agents/b~1"]);
    assert_eq!(landed("b"), Value::Null, "one of two commits has not landed");
    sandbox.git(&["cherry-pick", "agents/b"]);
    assert_eq!(landed("b"), "patches");

    // A squash, and later commits to the same file, so that a merge would conflict.
    commit(&sandbox, "c", "README.md", "c1\n");
    commit(&sandbox, "c", "README.md", "c2\n");
    commit(&sandbox, "", "main", "\n");
    sandbox.git(&["merge", "--quiet", "--squash", "agents/c"]);
    sandbox.git(&["commit", "--quiet", "--message", "squash of c"]);
    assert_eq!(landed("c"), "squash");
    commit(&sandbox, "", "README.md", "later\n");
    assert_eq!(landed("c"), "squash");
    let document = collected(&sandbox, &["--into", "main"]);
    assert_eq!(document["mergeCommands"], json!([]), "everything has landed");

    // The same content in two other commits.
    commit(&sandbox, "c", "x/one", "1\n");
    commit(&sandbox, "c", "x/two", "2\n");
    commit(&sandbox, "c", "README.md", "later\n");
    for (path, content) in [("x/two", "0\n"), ("x/one", "0\n"), ("x/two", "2\n"), ("x/one", "1\n")] {
        commit(&sandbox, "", path, content);
    }
    assert_eq!(landed("c"), "tree");
}

#[test]
fn bundles_patches_and_artifacts_hold_the_work() {
    let sandbox = applied();
    commit(&sandbox, "a", "README.md", "a\n");
    commit(&sandbox, "a", "binary", "\0\u{1}\n");
    let b = sandbox.directory("b");
    commit(&sandbox, "b", "b", "1\n");
    sandbox.git_in(&b, &["checkout", "--quiet", "-b", "side", "HEAD~1"]);
    commit(&sandbox, "b", "side", "1\n");
    sandbox.git_in(&b, &["checkout", "--quiet", "agents/b"]);
    sandbox.git_in(&b, &["merge", "--quiet", "--no-edit", "side"]);
    sandbox.git_in(&sandbox.directory("c"), &["checkout", "--quiet", "--detach"]);
    commit(&sandbox, "c", "c", "1\n");
    let a = sandbox.directory("a");
    fs::create_dir_all(a.join("logs/deep")).unwrap();
    fs::write(a.join("logs/deep/run.log"), "log\n").unwrap();
    fs::write(a.join("logs/deep/other"), "other\n").unwrap();
    fs::write(a.join(".agent-context/notes.json"), "{}\n").unwrap();
    fs::write(sandbox.top.join("secret"), "secret\n").unwrap();
    symlink(sandbox.top.join("secret"), a.join("logs/link.log")).unwrap();

    let document = sandbox
        .unchanged(|| collected(&sandbox, &["-o", "../out", "--artifacts", "{logs/**/*.log,**/*.json}"]));
    let out = sandbox.top.join("out");
    let exported = &of(&document, "a")["exported"];
    assert_eq!(exported["bundle"], out.join("a/commits.bundle").to_str().unwrap());
    assert_eq!(
        exported["artifacts"],
        json!([
            out.join("a/artifacts/.agent-context/notes.json"),
            out.join("a/artifacts/logs/deep/run.log"),
            out.join("a/artifacts/logs/link.log")
        ]),
        "a discovery file is no artifact"
    );
    assert_eq!(fs::read(out.join("a/artifacts/logs/deep/run.log")).unwrap(), b"log\n");
    assert!(fs::symlink_metadata(out.join("a/artifacts/logs/link.log")).unwrap().is_symlink());

    let clone = sandbox.clone_to("clone");
    let tree = |at: &Path, name: &str| sandbox.git_in(at, &["rev-parse", &format!("{name}^{{tree}}")]);
    for (session, applies) in [("a", "am"), ("b", "apply"), ("c", "am")] {
        let name = |file: &str| out.join(session).join(file).to_str().unwrap().to_owned();
        sandbox.git_in(&clone, &["fetch", "--quiet", &name("commits.bundle"), "HEAD"]);
        let wanted = tree(&sandbox.directory(session), "HEAD");
        assert_eq!(tree(&clone, "FETCH_HEAD"), wanted, "{session}");
        sandbox.git_in(&clone, &["checkout", "--quiet", "--detach", "origin/main"]);
        sandbox.git_in(&clone, &[applies, &name("commits.patch")]);
        sandbox.git_in(&clone, &["add", "--all"]);
        let applied = sandbox.git_in(&clone, &["write-tree"]);
        assert_eq!(applied, wanted, "{session}");
        sandbox.git_in(&clone, &["reset", "--quiet", "--hard"]);
    }

    sandbox.unchanged(|| {
        let again = sandbox.seedbed(&["collect", "-o", "../out"]).expect(64);
        again.says(&["out is not empty", "[directory-not-empty]"]);
    });
    sandbox.seedbed(&["collect", "-o", "../more", "--artifacts", "a["]).expect(64).says(&["[glob-invalid]"]);
    sandbox.seedbed(&["collect", "--into", "nothing"]).expect(64).says(&["`nothing` names no commit"]);
}

#[test]
fn merges_run_no_program_of_the_repository() {
    let sandbox = applied();
    commit(&sandbox, "a", "README.md", "a\n");
    commit(&sandbox, "b", "README.md", "b\n");
    let ran = sandbox.top.join("ran");
    let driver = format!("touch {}", ran.display());
    sandbox.git(&["config", "merge.odd.name=.driver", &driver]);
    sandbox.git(&["config", "diff.odd.command", &driver]);
    sandbox.git(&["config", "diff.odd.textconv", &driver]);
    sandbox.git(&["config", "diff.external", &driver]);
    fs::write(sandbox.repository.join(".git/info/attributes"), "* merge=odd.name= diff=odd\n").unwrap();
    let document = sandbox.unchanged(|| collected(&sandbox, &["-o", "../out"]));
    assert_eq!(document["conflicts"][0]["paths"], json!(["README.md"]));
    assert!(!ran.exists());
}

#[test]
fn sessions_that_touch_different_paths_can_conflict() {
    let sandbox = applied();
    // A file where the other has a directory.
    commit(&sandbox, "a", "new", "file\n");
    commit(&sandbox, "b", "new/file", "file\n");
    // A directory that one renames, and to which the other adds a file.
    let c = sandbox.directory("c");
    sandbox.git_in(&c, &["mv", "app", "application"]);
    assert!(c.join("application/lib/deep.txt").exists(), "a directory below is renamed too");
    sandbox.git_in(&c, &["commit", "--quiet", "--message", "rename"]);
    commit(&sandbox, "b", "app/added", "file\n");
    let document = collected(&sandbox, &[]);
    let sessions = |one: &Value| [0, 1].map(|at| one["worktrees"][at]["session"].clone());
    let pairs: Vec<_> = document["conflicts"].as_array().unwrap().iter().map(sessions).collect();
    assert_eq!(pairs, [["a", "b"], ["b", "c"]]);
    assert_eq!(document["overlaps"], json!([]));
}

#[test]
fn a_patch_that_looks_alike_has_not_landed() {
    let sandbox = applied();
    let stanza = |on: usize| {
        let stanza = "[job]\nx = 1\ny = 2\nz = 3\non = 0\na = 1\nb = 2\nc = 3\n";
        let mut stanzas = [stanza, stanza, stanza].map(str::to_owned);
        if let Some(stanza) = stanzas.get_mut(on) {
            *stanza = stanza.replace("on = 0", "on = 1");
        }
        stanzas.concat()
    };
    commit(&sandbox, "", "jobs", &stanza(9));
    for (session, on) in [("a", 0), ("b", 2)] {
        sandbox.git_in(&sandbox.directory(session), &["reset", "--quiet", "--hard", "main"]);
        commit(&sandbox, session, "jobs", &stanza(on));
    }
    commit(&sandbox, "", "jobs", &stanza(1));
    sandbox.git_in(&sandbox.directory("c"), &["reset", "--quiet", "--hard", "main~1"]);
    commit(&sandbox, "c", "script.py", "def f():\n    g()\n");
    commit(&sandbox, "", "script.py", "def f():\n  g()\n");
    let document = collected(&sandbox, &["--into", "main"]);
    for session in ["a", "b", "c"] {
        assert_eq!(of(&document, session)["work"]["landed"], Value::Null, "{session}");
    }
}

#[test]
fn conflicts_with_the_target_are_listed_and_such_sessions_are_merged_last() {
    let sandbox = applied();
    commit(&sandbox, "a", "README.md", "a\n");
    commit(&sandbox, "b", "b", "1\n");
    commit(&sandbox, "", "README.md", "main\n");
    let document = collected(&sandbox, &[]);
    assert_eq!(of(&document, "a")["work"]["conflicts"], json!(["README.md"]));
    assert_eq!(of(&document, "b")["work"]["conflicts"], json!([]));
    let commands = ["git switch main", "git merge --no-ff agents/b", "git merge --no-ff agents/a"];
    assert_eq!(collected(&sandbox, &["--into", "main"])["mergeCommands"], json!(commands));
    for (format, part) in [
        ("text", "a conflicts with HEAD in README.md"),
        ("markdown", "- a conflicts with HEAD in README.md"),
        ("html", "<li>a and HEAD: README.md</li>"),
    ] {
        let page = sandbox.ok(&["collect", "--format", format]).stdout;
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn base_that_is_gone_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.git(&["branch", "base"]);
    sandbox.manifest(
        "[defaults.git-worktree]\nbase-ref = \"base\"\n[session.a]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    sandbox.git(&["branch", "--delete", "base"]);
    commit(&sandbox, "a", "a", "1\n");
    let text = sandbox.ok(&["collect"]).stdout;
    assert!(
        text.contains("base is gone: compared with the commit that the worktree was made from"),
        "{text}"
    );
    let document = collected(&sandbox, &[]);
    let a = of(&document, "a");
    assert_eq!((&a["isBaseGone"], a["work"]["commits"].as_array().unwrap().len()), (&json!(true), 1));
}

#[test]
fn merge_commands_name_what_git_merges() {
    let sandbox = applied();
    commit(&sandbox, "a", "a", "1\n");
    sandbox.git(&["tag", "agents/a", "main"]);
    let document = collected(&sandbox, &["--into", "refs/heads/main"]);
    assert_eq!(document["mergeCommands"], json!(["git switch main", "git merge --no-ff heads/agents/a"]));
}

#[test]
fn work_of_a_child_is_merged_into_its_parent_and_with_it_into_main() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[defaults.git-worktree]\nbranch = \"agents/{{ session.name }}\"\nbase-ref = \"main\"\n\
         [session.lead]\nresources = [\"git-worktree\"]\n[session.other]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    sandbox.ok(&["spawn", "kid", "--parent", "lead"]);
    commit(&sandbox, "lead/kid", "kid", "1\n");
    commit(&sandbox, "other", "other", "1\n");
    let commands = &collected(&sandbox, &[])["mergeCommands"];
    let lead = format!("git -C {} merge --no-ff agents/kid", sandbox.directory("lead").display());
    let main = ["git switch main", "git merge --no-ff agents/other", "git merge --no-ff agents/lead"];
    assert_eq!(*commands, json!([&[lead.as_str()][..], &main].concat()));

    for command in commands.as_array().unwrap() {
        let words: Vec<&str> = command.as_str().unwrap().split(' ').skip(1).collect();
        sandbox.git(&words);
    }
    for path in ["kid", "other"] {
        assert!(sandbox.repository.join(path).is_file(), "{path} is not in main");
    }
    let landed = collected(&sandbox, &["--into", "main"]);
    for session in ["lead", "lead/kid", "other"] {
        assert_ne!(of(&landed, session)["work"]["landed"], Value::Null, "{session}: {landed:#}");
    }
}

#[test]
fn pages_escape_what_they_show() {
    let sandbox = applied();
    commit(&sandbox, "a", "a|<b>`", "1\n");
    commit(&sandbox, "b", "a|<b>`", "2\n");
    let markdown = sandbox.ok(&["collect", "--format", "markdown"]).stdout;
    let html = sandbox.ok(&["collect", "--format", "html"]).stdout;
    for page in [&markdown, &html] {
        for part in ["agents/a", "a&#124;&#60;b&#62;&#96;", "git merge --no-ff agents/a"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("a|<b>"), "{page}");
    }
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert!(markdown.contains("| a | agents/a | 1 | 1 | +1 -0 | no | no |\n| b |"), "{markdown}");
}

#[test]
fn session_without_its_worktree_is_an_error_beside_the_other_results() {
    let sandbox = applied();
    commit(&sandbox, "a", "a", "1\n");
    let entry = sandbox.git_in(&sandbox.directory("b"), &["rev-parse", "--absolute-git-dir"]);
    fs::remove_dir_all(entry.trim()).unwrap();
    let document = collected(&sandbox, &[]);
    assert_eq!(of(&document, "b")["work"], Value::Null);
    assert!(of(&document, "b")["error"].is_string());
    assert_eq!(of(&document, "a")["work"]["commits"].as_array().unwrap().len(), 1);
    let text = sandbox.ok(&["collect", "b"]).stdout;
    assert!(text.contains("unknown") && text.contains("commits: "), "{text}");
    let exported = collected(&sandbox, &["-o", "../out"]);
    assert_eq!(of(&exported, "b")["exported"]["bundle"], Value::Null);
    assert!(of(&exported, "a")["exported"]["bundle"].is_string());
}
