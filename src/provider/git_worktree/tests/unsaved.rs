use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::unsaved::unsaved_work;
use super::Lab;
use crate::provider::git_worktree::Worktree;
use crate::provider::{SharedResults, Task, UnsavedWork};

/// Returns the unsaved work after `act` was done in a worktree, without the worktree's path.
fn at_stake(lab: &Lab, worktree: &Worktree, act: impl FnOnce(&Lab, &Worktree, &Path)) -> UnsavedWork {
    lab.make(worktree);
    let path = lab.path(worktree);
    act(lab, worktree, &path);
    let before = lab.inventory();
    let unsaved_work = unsaved_work(&lab.task(), worktree).unwrap();
    assert_eq!(lab.inventory(), before, "looking changes nothing");
    let shown = |lines: Vec<String>| {
        lines.into_iter().map(|line| line.replace(path.to_str().unwrap(), "W")).collect()
    };
    UnsavedWork {
        work: shown(unsaved_work.work),
        beyond_rescue: shown(unsaved_work.beyond_rescue),
        unknown: Vec::new(),
        ignored: shown(unsaved_work.ignored),
        blockers: shown(unsaved_work.blockers),
    }
}

/// Returns the unsaved work if a rescue can save all of it, and fails otherwise.
fn after(act: impl FnOnce(&Lab, &Worktree, &Path)) -> Vec<String> {
    let lab = Lab::new();
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), act);
    assert_eq!(unsaved_work, UnsavedWork { work: unsaved_work.work.clone(), ..UnsavedWork::default() });
    unsaved_work.work
}

fn commit(lab: &Lab, path: &Path) {
    lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", "more"]);
}

#[test]
fn clean_worktree_has_no_unsaved_work() {
    assert_eq!(after(|_, _, _| {}), Vec::<String>::new());
    assert_eq!(after(|_, _, path| fs::remove_dir_all(path).unwrap()), Vec::<String>::new());
    // The commit is reached by a branch, and the file is ignored.
    assert_eq!(
        after(|lab, _, path| {
            fs::create_dir(path.join(".agent-context")).unwrap();
            fs::write(path.join(".agent-context/.gitignore"), "*\n").unwrap();
            commit(lab, path);
            lab.git_in(path, &["branch", "deep/er/kept"]);
        }),
        Vec::<String>::new()
    );
}

#[test]
fn uncommitted_changes_are_unsaved_work() {
    let lost = after(|lab, _, path| {
        fs::write(path.join("a.txt"), "changed").unwrap();
        fs::remove_file(path.join("other/x")).unwrap();
        fs::write(path.join("staged"), "").unwrap();
        lab.git_in(path, &["add", "staged"]);
        fs::create_dir(path.join("new")).unwrap();
        for name in ["new/1", "new/2", "new/ü \n3"] {
            fs::write(path.join(name), "").unwrap();
        }
    });
    assert_eq!(lost, ["W has uncommitted changes: 2 modified, 1 staged, 3 untracked"]);
}

/// Makes the index newer than every file, so that no time is equal.
fn settle(lab: &Lab, worktree: &Worktree) {
    let index = fs::File::options().append(true).open(lab.admin_directory(worktree).join("index")).unwrap();
    index.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
}

/// Returns the unsaved work after `act`, found without Git, only by files; an error if Git is needed. Results that hold
/// for all worktrees of the commit are found in advance, with another worktree.
fn told_without_git(worktree: impl Fn(&Lab) -> Worktree, act: impl FnOnce(&Lab, &Path)) -> UnsavedWork {
    let mut lab = Lab::new();
    let (first, worktree) = (lab.worktree("first"), worktree(&lab));
    for worktree in [&first, &worktree] {
        lab.make(worktree);
        settle(&lab, worktree);
    }
    let shared_results = SharedResults::default();
    let of_first =
        unsaved_work(&Task { shared_results: Some(&shared_results), ..lab.task() }, &first).unwrap();
    assert_eq!(of_first, UnsavedWork::default());
    act(&lab, &lab.path(&worktree));
    lab.host.environment = vec![("PATH".into(), lab.repo.clone().into())];
    unsaved_work(&Task { shared_results: Some(&shared_results), ..lab.task() }, &worktree).unwrap()
}

#[test]
fn unchanged_worktree_needs_no_git() {
    let plain = |lab: &Lab| lab.worktree("w");
    assert_eq!(told_without_git(plain, |_, _| {}), UnsavedWork::default());
    let sparse = |lab: &Lab| Worktree { target_path: Some("other".into()), ..lab.worktree("w") };
    assert_eq!(told_without_git(sparse, |_, _| {}), UnsavedWork::default());
    // These are the files that seedbed itself writes.
    let told = told_without_git(plain, |_, path| {
        fs::create_dir(path.join(".agent-context")).unwrap();
        fs::write(path.join(".agent-context/.gitignore"), "*\n").unwrap();
        fs::write(path.join(".agent-context/resources.json"), "{}\n").unwrap();
    });
    assert_eq!(told, UnsavedWork::default());
}

#[test]
fn git_decides_on_any_change() {
    let check = |what: &str, act: &dyn Fn(&Lab, &Path)| {
        let told = told_without_git(|lab| lab.worktree("w"), act);
        assert_ne!(told, UnsavedWork::default(), "{what}");
    };
    let git = |lab: &Lab, path: &Path, args: &[&str]| drop(lab.git_in(path, args));
    check("another size", &|_, path| fs::write(path.join("a.txt"), "longer than it was\n").unwrap());
    check("the same size and time", &|_, path| {
        let file = path.join("a.txt");
        let (content, time) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
        fs::write(&file, vec![b'x'; content.len()]).unwrap();
        fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    });
    check("written when the index was", &|lab, path| {
        let file = fs::metadata(path.join("a.txt")).unwrap().modified().unwrap();
        let index = lab.admin_directory(&lab.worktree("w")).join("index");
        fs::File::options().append(true).open(index).unwrap().set_modified(file).unwrap();
    });
    check("gone", &|_, path| fs::remove_file(path.join("a.txt")).unwrap());
    check("a directory gone", &|_, path| fs::remove_dir_all(path.join("other")).unwrap());
    check("a link to what was there", &|_, path| {
        fs::rename(path.join("other"), path.with_file_name("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", path.join("other")).unwrap();
    });
    check("untracked", &|_, path| fs::write(path.join("other/new"), "").unwrap());
    check("a repository", &|lab, path| git(lab, path, &["init", "-q", "own"]));
    check("beside the discovery file", &|_, path| {
        fs::create_dir(path.join(".agent-context")).unwrap();
        fs::write(path.join(".agent-context/notes"), "").unwrap();
    });
    check("staged, and put back in the tree alone", &|lab, path| {
        fs::write(path.join("new"), "").unwrap();
        git(lab, path, &["add", "new"]);
        fs::remove_file(path.join("new")).unwrap();
    });
    check("removed, in the index too", &|lab, path| {
        git(lab, path, &["rm", "-q", "a.txt"]);
        settle(lab, &lab.worktree("w"));
    });
    check("the same, with the tree of what is left", &|lab, path| {
        git(lab, path, &["rm", "-q", "a.txt"]);
        git(lab, path, &["write-tree"]);
        settle(lab, &lab.worktree("w"));
    });
    check("told not to look", &|lab, path| {
        git(lab, path, &["update-index", "--skip-worktree", "a.txt"]);
        fs::write(path.join("a.txt"), "changed\n").unwrap();
    });
    check("a commit", &|lab, path| commit(lab, path));
    check("a commit, taken back", &|lab, path| {
        commit(lab, path);
        git(lab, path, &["reset", "-q", "--soft", "HEAD~1"]);
    });
    check("a commit of the same tree, left by a checkout", &|lab, path| {
        let other = lab.git_in(path, &["commit-tree", "-m", "x", "HEAD^{tree}"]);
        git(lab, path, &["checkout", "-q", "--detach", other.trim()]);
        git(lab, path, &["checkout", "-q", "--detach", &lab.commit]);
        settle(lab, &lab.worktree("w"));
    });
    check("a branch", &|lab, path| git(lab, path, &["checkout", "-q", "-b", "side"]));
    check("a ref of its own", &|lab, path| {
        let tree = lab.git_in(path, &["commit-tree", "-m", "x", "HEAD^{tree}"]);
        git(lab, path, &["update-ref", "refs/worktree/x", tree.trim()]);
    });
    check("an index that is no file", &|lab, _| {
        let index = lab.admin_directory(&lab.worktree("w")).join("index");
        fs::remove_file(&index).unwrap();
        let made = std::process::Command::new("mkfifo").arg(index).status().unwrap();
        assert!(made.success());
    });
    check("a bisection", &|lab, path| git(lab, path, &["bisect", "start"]));
}

#[test]
fn a_commit_that_no_ref_reaches_any_more_is_lost_with_a_worktree_as_it_was_made() {
    let lab = Lab::new();
    lab.git(&["checkout", "-q", "--detach"]);
    lab.git(&["commit", "-q", "--allow-empty", "-m", "lost"]);
    let head = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let worktree = Worktree { commit: head, ..lab.worktree("w") };
    lab.make(&worktree);
    settle(&lab, &worktree);
    lab.git(&["checkout", "-q", "main"]);
    let shared_results = SharedResults::default();
    let unsaved_work =
        unsaved_work(&Task { shared_results: Some(&shared_results), ..lab.task() }, &worktree).unwrap();
    assert!(unsaved_work.work[0].ends_with("has 1 commit that no ref reaches"), "{unsaved_work:?}");
}

#[test]
fn a_sparse_worktree_misses_nothing() {
    let lab = Lab::new();
    let worktree = Worktree { target_path: Some("other".into()), ..lab.worktree("w") };
    lab.make(&worktree);
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default());
    fs::write(lab.path(&worktree).join("other/x"), "changed").unwrap();
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap().work.len(), 1);
}

#[test]
fn commits_that_no_ref_reaches() {
    let lost = after(|lab, _, path| commit(lab, path));
    assert_eq!(lost, ["HEAD of W has 1 commit that no ref reaches"]);
    let lost = after(|lab, _, path| {
        commit(lab, path);
        fs::remove_dir_all(path).unwrap();
    });
    assert_eq!(lost, ["HEAD of W has 1 commit that no ref reaches"]);
    // HEAD of another worktree is no ref: it moves on.
    let lost = after(|lab, _, path| {
        commit(lab, path);
        commit(lab, path);
        let head = lab.git_in(path, &["rev-parse", "HEAD"]);
        lab.git(&["worktree", "add", "-q", "--detach", "../second", head.trim()]);
    });
    assert_eq!(lost, ["HEAD of W has 2 commits that no ref reaches"]);
}

#[test]
fn an_operation_in_progress() {
    let lost = after(|lab, _, path| {
        lab.git_in(path, &["checkout", "-q", "-b", "side"]);
        fs::write(path.join("a.txt"), "side\n").unwrap();
        lab.git_in(path, &["commit", "-q", "-am", "side"]);
        lab.git_in(path, &["checkout", "-q", "-b", "second", "main"]);
        fs::write(path.join("a.txt"), "second\n").unwrap();
        lab.git_in(path, &["commit", "-q", "-am", "second"]);
        assert!(!lab.try_git(path, &["merge", "side"]).status.success());
    });
    assert_eq!(lost, ["W has uncommitted changes: 1 unmerged", "W is in the middle of a merge"]);
    let lost = after(|lab, _, path| {
        lab.git_in(path, &["bisect", "start"]);
    });
    assert_eq!(lost, ["W is in the middle of a bisection"]);
}

#[test]
fn unreadable_file_counts_as_unsaved_work() {
    let lost = after(|_, worktree, path| {
        let admin = path.join("../../../.git/worktrees").join(&worktree.admin_directory);
        fs::write(admin.join("HEAD"), "").unwrap();
    });
    assert!(lost.iter().any(|line| line.starts_with("HEAD of W cannot be read")), "{lost:?}");
    assert!(lost.iter().any(|line| line.starts_with("the changes in W cannot be counted")), "{lost:?}");
    let lost = after(|_, worktree, path| {
        fs::remove_dir_all(path.join("../../../.git/worktrees").join(&worktree.admin_directory)).unwrap();
    });
    assert_eq!(lost, ["W has 3 files or directories, and its admin directory does not exist"]);
}

#[test]
fn a_stash_outlasts_its_worktree_but_is_no_place_for_commits() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    let unsaved_work = at_stake(&lab, &worktree, |lab, _, path| {
        for text in ["first", "second"] {
            fs::write(path.join("a.txt"), text).unwrap();
            lab.git_in(path, &["stash"]);
        }
    });
    assert_eq!(unsaved_work, UnsavedWork::default());
    lab.release(&worktree);
    lab.git(&["gc", "--quiet", "--prune=now"]);
    assert_eq!(lab.git(&["stash", "list"]).lines().count(), 2);
    assert_eq!(lab.git(&["show", "stash@{1}:a.txt"]), "first");

    // A commit below a stash is lost with the next pop.
    let lost = after(|lab, _, path| {
        commit(lab, path);
        fs::write(path.join("a.txt"), "third").unwrap();
        lab.git_in(path, &["stash"]);
    });
    assert_eq!(lost, ["HEAD of W has 1 commit that no ref reaches"]);
}

#[test]
fn changes_that_the_index_hides() {
    let lab = Lab::new();
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), |lab, _, path| {
        for (bit, name) in [
            ("--assume-unchanged", "a.txt"),
            ("--skip-worktree", "other/x"),
            ("--assume-unchanged", "packages/side.txt"),
            ("--skip-worktree", "packages/app/main.rs"),
        ] {
            lab.git_in(path, &["update-index", bit, name]);
        }
        // Two files are changed, one keeps its content, and one is deleted, which loses nothing.
        fs::write(path.join("a.txt"), "hidden").unwrap();
        fs::remove_file(path.join("other/x")).unwrap();
        std::os::unix::fs::symlink("y", path.join("other/x")).unwrap();
        fs::remove_file(path.join("packages/app/main.rs")).unwrap();
        assert_eq!(lab.git_in(path, &["status", "--porcelain"]), "");
    });
    let hidden = "2 hidden from `git status` by assume-unchanged or skip-worktree";
    assert_eq!(unsaved_work.work, [format!("W has uncommitted changes: {hidden}")]);
}

#[test]
fn hidden_files_of_any_name_are_compared() {
    let names = ["a b", "line\nfeed", "\"quoted\"", "\u{e4}", "link"];
    let lab = Lab::with_files(&names[..4].iter().map(|name| (*name, "x\n")).collect::<Vec<_>>());
    std::os::unix::fs::symlink("a b", lab.repo.join("link")).unwrap();
    lab.git(&["add", "-A"]);
    lab.git(&["commit", "-q", "-m", "two"]);
    let commit = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let worktree = Worktree { commit, ..lab.worktree("w") };
    lab.make(&worktree);
    let path = lab.path(&worktree);
    for name in names {
        lab.git_in(&path, &["update-index", "--assume-unchanged", "--", name]);
    }
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default());
    for (changed, name) in names.into_iter().enumerate() {
        let file = path.join(name);
        if name == "link" {
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink("elsewhere", &file).unwrap();
        } else {
            fs::write(file, "y\n").unwrap();
        }
        let hidden = format!("{} hidden from `git status` by assume-unchanged", changed + 1);
        assert!(unsaved_work(&lab.task(), &worktree).unwrap().work[0].contains(&hidden), "{name:?}");
    }
}

/// Writes a file of the same length over another, and sets its time back.
fn edit_unseen(file: &Path) {
    let (content, time) = (fs::read(file).unwrap(), fs::metadata(file).unwrap().modified().unwrap());
    fs::write(file, vec![b'x'; content.len()]).unwrap();
    fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

/// Each setting hides an edit from `git status`, and hides none from `unsaved_work`.
#[test]
fn edit_is_found_under_any_setting_of_the_repository() {
    let check = |settings: &[(&str, &str)], prepare: &[&[&str]], edit: &dyn Fn(&Path)| {
        let lab = Lab::with_files(&[
            ("a.txt", "one\n"),
            ("other/x", "x\n"),
            ("n.up", "ONE\n"),
            (".gitattributes", "*.up filter=up\n"),
        ]);
        let worktree = lab.worktree("w");
        for (key, value) in settings {
            let value = value.replace("HERE", lab.repo.join("..").to_str().unwrap());
            lab.git(&["config", key, &value]);
        }
        fs::write(lab.repo.join("../monitor"), "#!/bin/sh\nprintf 'token\\0'\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(lab.repo.join("../monitor"), executable).unwrap();
        lab.make(&worktree);
        let path = lab.path(&worktree);
        settle(&lab, &worktree);
        for args in prepare {
            lab.git_in(&path, args);
        }
        assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default(), "{settings:?}");
        // Longer than a tick of the clock that sets the times of files.
        std::thread::sleep(Duration::from_millis(20));
        edit(&path);
        // When Git inspects a filtered file, it may update the file's stat data in the index.
        let seen = lab.git_in(&path, &["--no-optional-locks", "status", "--porcelain"]);
        assert!(seen.is_empty() || settings[0].0 == "core.untrackedCache", "{settings:?}: Git sees {seen}");
        assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap().work.len(), 1, "{settings:?}");
    };
    let a = |path: &Path| fs::write(path.join("a.txt"), "two\n").unwrap();
    let without_stat_data = |path: &Path| edit_unseen(&path.join("a.txt"));
    check(&[("core.ignoreCase", "true")], &[], &|path| fs::write(path.join("A.TXT"), "work").unwrap());
    check(&[("core.trustctime", "false")], &[], &without_stat_data);
    check(&[("core.checkStat", "minimal")], &[], &without_stat_data);
    check(&[("core.fileMode", "false")], &[], &|path| {
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path.join("a.txt"), executable).unwrap();
    });
    check(
        &[("core.ignoreStat", "true")],
        &[
            &["checkout", "-q", "-f", "HEAD", "--", "."],
            &["rm", "-q", "--cached", "a.txt"],
            &["add", "a.txt"],
        ],
        &a,
    );
    check(&[("status.showUntrackedFiles", "no")], &[], &|path| fs::write(path.join("new"), "").unwrap());
    check(
        &[("core.fsmonitor", "HERE/monitor"), ("core.fsmonitorHookVersion", "2")],
        &[&["update-index", "--fsmonitor"], &["status"], &["status"]],
        &a,
    );
    check(
        &[("core.untrackedCache", "true"), ("core.trustctime", "false"), ("core.checkStat", "minimal")],
        &[&["update-index", "--force-untracked-cache"], &["status"], &["status"]],
        &|path| {
            let directory = fs::File::open(path.join("other")).unwrap();
            let time = directory.metadata().unwrap().modified().unwrap();
            fs::write(path.join("other/new"), "").unwrap();
            directory.set_modified(time).unwrap();
        },
    );
    check(
        &[("sparse.expectFilesOutsideOfPatterns", "true"), ("core.sparseCheckout", "true")],
        &[&["update-index", "--skip-worktree", "a.txt"]],
        &a,
    );
    // If the length differs, Git reports the edit.
    let up = [("filter.up.clean", "tr a-z A-Z"), ("filter.up.smudge", "cat")];
    check(&up, &[], &|path| fs::write(path.join("n.up"), "oNe\n").unwrap());
}

/// A checkout would write the same bytes again.
#[test]
fn touched_file_is_no_work_under_any_conversion() {
    let lab = Lab::with_files(&[
        ("a.txt", "one\n"),
        ("a.dos", "one\ntwo\n"),
        ("a.up", "ONE\n"),
        (".gitattributes", "*.dos text eol=crlf\n*.up filter=up\n"),
    ]);
    lab.git(&["config", "filter.up.clean", "tr a-z A-Z"]);
    lab.git(&["config", "filter.up.smudge", "tr A-Z a-z"]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    assert_eq!(fs::read_to_string(path.join("a.up")).unwrap(), "one\n");
    for name in ["a.txt", "a.dos", "a.up"] {
        let content = fs::read(path.join(name)).unwrap();
        fs::remove_file(path.join(name)).unwrap();
        fs::write(path.join(name), content).unwrap();
    }
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default());
}

#[test]
fn change_that_only_the_index_has_is_unsaved_work() {
    let lost = after(|lab, _, path| {
        fs::write(path.join("a.txt"), "staged").unwrap();
        lab.git_in(path, &["add", "a.txt"]);
        fs::write(path.join("a.txt"), "one\n").unwrap();
        fs::write(path.join("intended"), "").unwrap();
        lab.git_in(path, &["add", "--intent-to-add", "intended"]);
    });
    assert_eq!(lost, ["W has uncommitted changes: 2 modified, 1 staged"]);
}

#[test]
fn ignored_files_are_counted_and_named() {
    let lab = Lab::with_files(&[(".gitignore", "*.log\n/target/\n"), ("a", "")]);
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), |_, _, path| {
        // Files that seedbed writes are no work. An earlier version also hid the session's files beside them.
        for name in [".agent-context", "target", "target/debug"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        fs::write(path.join(".agent-context/.gitignore"), "*\n").unwrap();
        for name in [
            ".agent-context/resources.json",
            ".agent-context/notes.md",
            "target/debug/a",
            "target/b",
            "1.log",
            "2.log",
        ] {
            fs::write(path.join(name), "").unwrap();
        }
    });
    let named = "W has 4 ignored files or directories: .agent-context/notes.md, 1.log, 2.log and 1 more";
    assert_eq!(unsaved_work, UnsavedWork { ignored: vec![named.to_owned()], ..UnsavedWork::default() });
}

#[test]
fn commits_that_only_the_entry_names() {
    // The commits were left by a checkout: Git warned only at that moment.
    let lost = after(|lab, _, path| {
        commit(lab, path);
        commit(lab, path);
        lab.git_in(path, &["checkout", "-q", "--detach", "main"]);
    });
    assert_eq!(lost, ["2 commits that no ref reaches: a checkout left them in W"]);
    // Only refs of this worktree name the commit.
    let lost = after(|lab, _, path| {
        commit(lab, path);
        lab.git_in(path, &["update-ref", "refs/worktree/kept", "HEAD"]);
        lab.git_in(path, &["reset", "-q", "--hard", "main"]);
    });
    assert_eq!(lost, ["refs/worktree/kept of W has 1 commit that no other ref reaches"]);
    // Commits that were rewritten or reset away on purpose are reported, and are no reason to refuse.
    let lab = Lab::new();
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), |lab, _, path| {
        lab.git_in(path, &["checkout", "-q", "-b", "kept"]);
        commit(lab, path);
        lab.git_in(path, &["commit", "-q", "--allow-empty", "--amend", "-m", "better"]);
        commit(lab, path);
        lab.git_in(path, &["reset", "-q", "--hard", "HEAD~"]);
    });
    let passing = "only the reflog of W has 2 commits, rewritten or reset away";
    assert_eq!(unsaved_work, UnsavedWork { ignored: vec![passing.to_owned()], ..UnsavedWork::default() });
}

#[test]
fn a_base_that_only_the_sessions_own_branch_still_has() {
    let lab = Lab::new();
    lab.git(&["checkout", "-q", "-b", "base"]);
    let base = {
        lab.git(&["commit", "-q", "--allow-empty", "-m", "base"]);
        lab.git(&["rev-parse", "HEAD"]).trim().to_owned()
    };
    lab.git(&["checkout", "-q", "main"]);
    let worktree = Worktree { branch: Some("agents/one".into()), commit: base, ..lab.worktree("w") };
    let unsaved_work = at_stake(&lab, &worktree, |lab, _, _| {
        lab.git(&["branch", "-q", "-D", "base"]);
    });
    // The branch is deleted with the worktree, as it has no new commit.
    assert_eq!(unsaved_work.work, ["HEAD of W has 1 commit that no ref reaches"]);
}

#[test]
fn repositories_inside_are_beyond_a_rescue() {
    let lab = Lab::new();
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), |lab, _, path| {
        fs::create_dir(path.join("nested")).unwrap();
        lab.git_in(&path.join("nested"), &["init", "-q"]);
        fs::write(path.join("nested/work"), "").unwrap();
    });
    assert_eq!(unsaved_work.work, Vec::<String>::new());
    assert_eq!(unsaved_work.beyond_rescue.len(), 1);
    assert!(unsaved_work.beyond_rescue[0].contains("(nested/)"), "{unsaved_work:?}");

    let lab = Lab::new();
    let unsaved_work = at_stake(&lab, &lab.worktree("w"), |lab, _, path| {
        let module = path.join("module");
        fs::create_dir(&module).unwrap();
        lab.git_in(&module, &["init", "-q", "-b", "main"]);
        lab.git_in(
            &module,
            &["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "m"],
        );
        lab.git_in(path, &["-c", "advice.addEmbeddedRepo=false", "add", "module"]);
        lab.git_in(path, &["commit", "-q", "-m", "a submodule"]);
        lab.git_in(path, &["branch", "kept"]);
        assert_eq!(lab.git_in(path, &["status", "--porcelain"]), "");
    });
    assert_eq!(unsaved_work.work, Vec::<String>::new());
    assert_eq!(unsaved_work.beyond_rescue.len(), 1);
    assert!(unsaved_work.beyond_rescue[0].contains("submodules checked out (module)"), "{unsaved_work:?}");
}
