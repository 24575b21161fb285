//! Tests that a destroy never loses work: work that is saved nowhere else is a reason to refuse, and nothing is changed
//! then.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::sandbox::{Outcome, Sandbox};

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\ncount = 3\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    sandbox
}

/// Runs `work` in one session, and expects that a destroy is refused for the reason `said`, until the work is
/// discarded.
#[track_caller]
fn check_refused(work: impl FnOnce(&Sandbox, &Path), said: &str) {
    let sandbox = applied();
    let directories = sandbox.directories();
    work(&sandbox, &directories[1]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    refused.says(&["coder-1: ", said, "--discard"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "coder-1"]).expect(69));
    sandbox.ok(&["destroy", "coder-0"]);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(directories.iter().all(|directory| !directory.exists()));
}

fn commit(sandbox: &Sandbox, directory: &Path) {
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    sandbox.git_in(directory, &["add", "new.txt"]);
    sandbox.git_in(directory, &["commit", "--quiet", "--message", "work"]);
}

#[test]
fn a_modified_file_is_not_lost() {
    check_refused(
        |_, directory| fs::write(directory.join("README.md"), "changed\n").unwrap(),
        "uncommitted changes: 1 modified",
    );
}

#[test]
fn an_untracked_file_is_not_lost() {
    check_refused(
        |_, directory| fs::write(directory.join("new.txt"), "new\n").unwrap(),
        "uncommitted changes: 1 untracked",
    );
}

#[test]
fn a_staged_file_is_not_lost() {
    check_refused(
        |sandbox, directory| {
            fs::write(directory.join("new.txt"), "new\n").unwrap();
            sandbox.git_in(directory, &["add", "new.txt"]);
        },
        "uncommitted changes: 1 staged",
    );
}

#[test]
fn a_commit_that_no_ref_reaches_is_not_lost() {
    check_refused(commit, "1 commit that no ref reaches");
}

#[test]
fn an_unfinished_merge_is_not_lost() {
    check_refused(
        |sandbox, directory| {
            sandbox.git(&["branch", "other"]);
            fs::write(directory.join("new.txt"), "ours\n").unwrap();
            sandbox.git_in(directory, &["add", "new.txt"]);
            sandbox.git_in(directory, &["commit", "--quiet", "--message", "ours"]);
            sandbox.git_in(directory, &["branch", "ours"]);
            sandbox.git_in(directory, &["checkout", "--quiet", "--detach", "other"]);
            sandbox.git_in(directory, &["merge", "--no-ff", "--no-commit", "ours"]);
        },
        "in the middle of a merge",
    );
}

#[test]
fn files_that_git_cannot_see_any_more_are_not_lost() {
    check_refused(
        |sandbox, directory| {
            fs::write(directory.join("new.txt"), "new\n").unwrap();
            let dot_git = fs::read_to_string(directory.join(".git")).unwrap();
            let entry = dot_git.trim_end().strip_prefix("gitdir: ").unwrap();
            assert!(Path::new(entry).starts_with(&sandbox.repository));
            fs::write(Path::new(entry).join("index"), "torn").unwrap();
        },
        "cannot be counted",
    );
}

#[test]
fn a_commit_that_a_branch_reaches_is_no_loss() {
    let sandbox = applied();
    let directory = sandbox.directory("coder-1");
    commit(&sandbox, &directory);
    sandbox.git_in(&directory, &["branch", "kept"]);
    let commit = sandbox.git_in(&directory, &["rev-parse", "HEAD"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(sandbox.git(&["rev-parse", "kept"]), commit);
}

#[test]
fn ignored_files_are_no_loss_and_are_named() {
    let sandbox = applied();
    for name in ["build.log", "other.log"] {
        fs::write(sandbox.directory("coder-1").join(name), "noise\n").unwrap();
    }
    let said = "2 ignored files or directories: build.log, other.log";
    let status = sandbox.ok(&["status", "--json"]).json();
    let passing = status["sessions"][1]["alsoRemoved"][0].as_str().unwrap().to_owned();
    assert!(passing.ends_with(said), "{passing}");
    assert_eq!(status["sessions"][1]["unsaved"], serde_json::json!([]));
    assert_eq!(status["sessions"][0]["alsoRemoved"], serde_json::json!([]));
    assert!(sandbox.ok(&["status"]).stdout.contains("clean, 2 ignored"));
    assert!(sandbox.ok(&["status", "-v"]).stdout.contains(said));
    assert!(sandbox.unchanged(|| sandbox.ok(&["destroy", "--dry-run"])).stdout.contains(said));
    sandbox.ok(&["destroy"]).says(&["coder-1: ", said]);
}

#[test]
fn notes_beside_the_discovery_file_are_work() {
    let sandbox = applied();
    let directory = sandbox.directory("coder-1");
    let notes = directory.join(".agent-context/notes.md");
    let own = || {
        ["resources.json", ".gitignore"]
            .map(|name| fs::read(directory.join(".agent-context").join(name)).unwrap())
    };
    let before = own();
    sandbox.assert_clean(&directory);
    fs::write(&notes, "notes\n").unwrap();
    sandbox.seedbed(&["destroy"]).expect(69).says(&["1 untracked"]);
    // Git takes the notes away, and nothing else.
    for command in [&["clean", "-fdq"][..], &["stash", "--include-untracked", "--quiet"]] {
        fs::write(&notes, "notes\n").unwrap();
        sandbox.git_in(&directory, command);
        assert!(!notes.exists());
        assert_eq!(own(), before);
    }
    sandbox.git_in(&directory, &["add", "--all"]);
    sandbox.assert_clean(&directory);
    // A directory that an earlier version hid is repaired.
    fs::write(directory.join(".agent-context/.gitignore"), "*\n").unwrap();
    assert!(
        sandbox.ok(&["status"]).stdout.contains(".gitignore beside resources.json is not what was written")
    );
    sandbox.ok(&["status", "--repair"]);
    assert_eq!(own(), before);
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_stash_outlasts_the_session_that_made_it() {
    let sandbox = applied();
    let directory = sandbox.directory("coder-1");
    fs::write(directory.join("README.md"), "stashed\n").unwrap();
    sandbox.git_in(&directory, &["stash"]);
    sandbox.ok(&["destroy"]);
    sandbox.git(&["gc", "--quiet", "--prune=now"]);
    assert_eq!(sandbox.git(&["show", "stash@{0}:README.md"]), "stashed");
}

#[test]
fn a_dry_run_and_the_real_one_decide_alike() {
    let sandbox = applied();
    let directory = sandbox.directory("coder-1");
    let dry = |args: &[&str]| {
        let args = [&["destroy", "--dry-run"][..], args].concat();
        sandbox.unchanged(|| sandbox.seedbed(&args))
    };
    let outcome = dry(&[]).expect(0);
    assert_eq!(outcome.stdout, "would release coder-0, coder-1, coder-2\n");
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    fs::create_dir(directory.join("nested")).unwrap();
    sandbox.git_in(&directory.join("nested"), &["init", "--quiet"]);

    // A dry run reports the reasons for which the real run refuses, with the same exit code.
    for (args, said) in [
        (&[][..], &["refused: ", "1 untracked", "repositories of their own (nested/)"][..]),
        (&["coder-1"], &["refused: ", "1 untracked"]),
        (&["--rescue"], &["would be rescued: ", "1 untracked", "refused: ", "(nested/)"]),
    ] {
        let outcome = dry(args).expect(69);
        for said in said {
            assert!(outcome.stdout.contains(said), "{args:?}: {}", outcome.stdout);
        }
        let refused = sandbox.unchanged(|| sandbox.seedbed(&[&["destroy"][..], args].concat()).expect(69));
        let json = sandbox.unchanged(|| {
            let args = [&["destroy", "--dry-run", "--json"][..], args].concat();
            sandbox.seedbed(&args).expect(69).json()
        });
        assert_eq!(json["refused"], true);
        for loss in json["unsavedWork"].as_array().unwrap() {
            let what = loss["description"].as_str().unwrap();
            let is_rescued = json["rescued"].as_array().unwrap().contains(loss);
            assert_eq!(refused.stderr.contains(what), !is_rescued, "{what}: {}", refused.stderr);
        }
    }
    assert!(dry(&["--discard"]).expect(0).stdout.contains("would be discarded: "));
    assert_eq!(dry(&["coder-0"]).expect(0).stdout, "would release coder-0\n");
    fs::remove_dir_all(directory.join("nested")).unwrap();
    assert!(dry(&["--rescue"]).expect(0).stdout.contains("would be rescued: "));
    sandbox.ok(&["destroy", "--rescue"]);
    let nothing = sandbox.unchanged(|| sandbox.ok(&["destroy", "--dry-run"]));
    nothing.says(&["nothing is applied"]);
}

#[test]
fn destroy_on_a_terminal_lists_ignored_files_before_it_asks() {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", "*.log\n");
    sandbox.commit("ignores logs");
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    fs::write(directory.join("build.log"), "ignored\n").unwrap();
    let destroy = |answer: &str| {
        let mut script = sandbox.program("script", &sandbox.repository);
        let command = format!("{} destroy", env!("CARGO_BIN_EXE_seedbed"));
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("SHELL", "/bin/sh");
        let mut terminal = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        terminal.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        Outcome::of(terminal.wait_with_output().unwrap())
    };
    let refused = sandbox.unchanged(|| destroy("n\n").expect(69));
    let (listed, question) = refused.stdout.split_once("Destroy a?").expect("a question");
    assert!(listed.contains("a: would be deleted: ") && listed.contains("build.log"), "{listed}");
    assert!(question.contains("nothing was changed"), "{question}");
    destroy("y\n").expect(0);
    assert!(!directory.exists());
}

/// During another session's teardown, an agent continues in a session that was already checked.
#[test]
fn work_that_is_done_while_another_session_is_torn_down_is_not_lost() {
    let manifest = "[session.a]\nresources = [\"git-worktree\"]\n\
                    [session.b]\nresources = [\"git-worktree\"]\nsetup = ['echo up >> ups.log']\nteardown = ['TEARDOWN']\n";
    let stand = |teardown: &str| {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository.display();
        let worktrees = format!("{repository}/.ai_ops/worktrees");
        sandbox.manifest(&manifest.replace("TEARDOWN", &teardown.replace("WORKTREES", &worktrees)));
        sandbox.ok(&["apply"]);
        sandbox
    };
    let writes = "echo work > WORKTREES/shop-a-8585119b/late";
    let commits = "cd WORKTREES/shop-a-8585119b && echo work > late && git add late && git commit -qm late";
    for teardown in [writes, commits] {
        let sandbox = stand(teardown);
        sandbox.seedbed(&["destroy"]).expect(69).says(&["shop-a-8585119b", "b: restored, and set up again"]);
        let (a, b) = (sandbox.directory("a"), sandbox.directory("b"));
        assert_eq!(fs::read_to_string(a.join("late")).unwrap(), "work\n");
        assert_eq!(
            fs::read_to_string(b.join("ups.log")).unwrap(),
            "up\nup\n",
            "what was torn down is set up again"
        );
        sandbox.ok(&["status"]);
        let sandbox = stand(teardown);
        sandbox.ok(&["destroy", "--rescue"]);
        let refs = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue/shop/a"]);
        assert_eq!(sandbox.git(&["show", &format!("{refs}:late")]), "work");
    }
}

#[test]
fn staged_work_is_kept_although_the_directory_of_its_worktree_is_gone() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\"]\n[session.b]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    let (staged, merging) = (sandbox.directory("a"), sandbox.directory("b"));
    fs::write(staged.join("precious"), "staged\n").unwrap();
    sandbox.git_in(&staged, &["add", "precious"]);
    sandbox.git_in(&merging, &["commit", "-qm", "side", "--allow-empty"]);
    sandbox.git_in(&merging, &["branch", "side"]);
    sandbox.git_in(&merging, &["reset", "-q", "--hard", "HEAD~"]);
    sandbox.git_in(&merging, &["merge", "-q", "--no-commit", "--no-ff", "side"]);
    for directory in [&staged, &merging] {
        fs::remove_dir_all(directory).unwrap();
    }
    sandbox.unchanged(|| {
        for command in ["apply", "destroy"] {
            let refused = sandbox.seedbed(&[command]).expect(69);
            refused.says(&["has 1 staged", "is in the middle of a merge"]);
        }
    });
    sandbox.ok(&["destroy", "--rescue"]);
    let rescues = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    let rescue = rescues.lines().find(|name| name.contains("/a/")).expect("a rescue of a");
    assert_eq!(sandbox.git(&["show", &format!("{rescue}:precious")]), "staged");
}
