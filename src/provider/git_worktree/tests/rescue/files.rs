//! Rescues files and the index.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use super::super::{Lab, SESSION};
use super::{bring_back, round_trip, set_executable, walk};
use crate::provider::git_worktree::Worktree;
use crate::provider::git_worktree::rescue::rescue;

#[test]
fn files_of_every_kind() {
    let lab = Lab::with_files(&[
        ("kept", "kept\n"),
        ("modified", "one\n"),
        ("staged", "one\n"),
        ("both", "one\n"),
        ("deleted", "one\n"),
        ("removed", "one\n"),
        ("mode", "one\n"),
        ("becomes-link", "one\n"),
        ("becomes-directory", "one\n"),
        ("moved/away", "one\n"),
        (".gitignore", "*.log\n"),
    ]);
    let (rescued, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        fs::write(path.join("modified"), "two\n").unwrap();
        fs::write(path.join("staged"), "two\n").unwrap();
        fs::write(path.join("both"), "two\n").unwrap();
        lab.git_in(path, &["add", "staged", "both"]);
        fs::write(path.join("both"), "three\n").unwrap();
        fs::remove_file(path.join("deleted")).unwrap();
        lab.git_in(path, &["rm", "--quiet", "removed"]);
        lab.git_in(path, &["mv", "moved", "to"]);
        set_executable(&path.join("mode"), true);
        fs::remove_file(path.join("becomes-link")).unwrap();
        symlink("kept", path.join("becomes-link")).unwrap();
        fs::remove_file(path.join("becomes-directory")).unwrap();
        fs::create_dir(path.join("becomes-directory")).unwrap();
        fs::write(path.join("becomes-directory/in"), "in\n").unwrap();
        // Untracked files: empty, executable, dangling, large, with unusual names.
        fs::write(path.join("empty"), "").unwrap();
        fs::write(path.join("script"), "#!/bin/sh\n").unwrap();
        set_executable(&path.join("script"), true);
        symlink("/no/such", path.join("dangling")).unwrap();
        fs::write(path.join("large"), vec![b'x'; 3 << 20]).unwrap();
        for name in
            ["-dash", " space ", "line\nbreak", "tab\t", "quote'\"", "ü", ":(top)x", "*", "a,b", "\u{1}"]
        {
            fs::create_dir_all(path.join("odd")).unwrap();
            fs::write(path.join("odd").join(name), name).unwrap();
            fs::write(path.join(name), name).unwrap();
        }
        // A file that exists only in the index: staged, then removed from the tree.
        fs::write(path.join("index-only"), "index\n").unwrap();
        lab.git_in(path, &["add", "index-only"]);
        fs::remove_file(path.join("index-only")).unwrap();
        fs::write(path.join("intended"), "to add\n").unwrap();
        lab.git_in(path, &["add", "--intent-to-add", "intended"]);
    });
    assert_eq!(rescued.missing, Vec::<String>::new());
    assert!(
        rescued.reference.starts_with(&format!("refs/seedbed/rescue/{SESSION}/@")),
        "{}",
        rescued.reference
    );
    // The ref suffices: it has the parents, and its message has the command.
    let show =
        |what: &str| lab.git(&["rev-parse", &format!("{}{what}", rescued.reference)]).trim().to_owned();
    assert_eq!(show("^1"), lab.commit);
    assert_eq!(show("^2^1"), lab.commit);
    assert_eq!(lab.git(&["show", &format!("{}:odd/line\nbreak", rescued.reference)]), "line\nbreak");
    assert_eq!(lab.git(&["show", &format!("{}^2:both", rescued.reference)]), "two\n");
    assert!(lab.git(&["log", "-1", "--format=%B", &rescued.reference]).contains(&rescued.command));
    assert!(!place.join("noise.log").exists());
}

#[test]
fn ignored_files_are_not_rescued() {
    let lab = Lab::with_files(&[(".gitignore", "*.log\n/build/\n"), ("a", "a\n")]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::create_dir(path.join("build")).unwrap();
    for name in ["noise.log", "build/object", "work"] {
        fs::write(path.join(name), name).unwrap();
    }
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let listed = lab.git(&["ls-tree", "-r", "--name-only", &rescued.reference]);
    assert_eq!(listed, ".gitignore\na\nwork\n");
}

#[test]
fn line_ends_and_filters() {
    let lab = Lab::with_files(&[
        (
            ".gitattributes",
            "*.txt text=auto\n*.dos text eol=crlf\n*.unix text eol=lf\n*.up filter=up\n*.id ident\n",
        ),
        ("old.txt", "one\n"),
        ("old.dos", "one\n"),
    ]);
    // A filter that does not restore the file: `clean` drops what `smudge` cannot know.
    lab.git(&["config", "filter.up.clean", "tr a-z A-Z"]);
    lab.git(&["config", "filter.up.smudge", "cat"]);
    let (rescued, _) = round_trip(&lab, &lab.worktree("w"), |path| {
        for extension in ["txt", "dos", "unix", "up", "bin"] {
            let name = |kind: &str| path.join(format!("{kind}.{extension}"));
            fs::write(name("crlf"), "one\r\ntwo\r\n").unwrap();
            fs::write(name("lf"), "one\ntwo\n").unwrap();
            fs::write(name("cr"), "one\rtwo\r").unwrap();
        }
        fs::write(path.join("mixed.txt"), "one\r\ntwo\n").unwrap();
        fs::write(path.join("old.txt"), "one\r\ntwo\r\n").unwrap();
        fs::write(path.join("old.dos"), "one\r\ntwo\r\n").unwrap();
        fs::write(path.join("x.id"), "$Id: somebody else's $\n").unwrap();
    });
    assert_eq!(rescued.missing, Vec::<String>::new());
    // A checkout always converts this file, so it is written byte by byte.
    assert!(
        rescued.command.contains(&format!("cat-file blob {}:lf.dos > ", rescued.reference)),
        "{rescued:?}"
    );
    assert_eq!(rescued.command.matches("cat-file").count(), 1);
}

#[test]
fn many_converted_files_are_counted() {
    let lab = Lab::with_files(&[(".gitattributes", "*.dos text eol=crlf\n")]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    for number in 0..25 {
        fs::write(lab.path(&worktree).join(format!("{number}.dos")), "one\ntwo\n").unwrap();
    }
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(rescued.missing.len(), 1);
    assert!(rescued.missing[0].starts_with("25 files come back"), "{rescued:?}");
    assert_eq!(lab.git(&["cat-file", "blob", &format!("{}:24.dos", rescued.reference)]), "one\ntwo\n");
}

#[test]
fn sparse_worktree_is_created() {
    let lab = Lab::new();
    let worktree = Worktree { target_path: Some("packages/app".into()), ..lab.worktree("w") };
    let (_, place) = round_trip(&lab, &worktree, |path| {
        fs::write(path.join("packages/app/main.rs"), "changed\n").unwrap();
        fs::write(path.join("packages/app/new"), "").unwrap();
        // Outside of the sparse checkout: a new file, and one of the commit's files that exists again and is changed.
        fs::create_dir(path.join("elsewhere")).unwrap();
        fs::write(path.join("elsewhere/new"), "new\n").unwrap();
        fs::create_dir(path.join("other")).unwrap();
        fs::write(path.join("other/x"), "changed\n").unwrap();
        lab.git_in(path, &["status"]);
    });
    assert!(!place.join("packages/side.txt").exists() || place.join("a.txt").exists());
    assert_eq!(lab.git_in(&place, &["config", "core.sparseCheckout"]), "true\n");
}

#[test]
fn work_that_the_index_hides_is_rescued() {
    let lab = Lab::new();
    round_trip(&lab, &lab.worktree("w"), |path| {
        lab.git_in(path, &["update-index", "--assume-unchanged", "a.txt"]);
        lab.git_in(path, &["update-index", "--skip-worktree", "other/x", "packages/side.txt"]);
        fs::write(path.join("a.txt"), "hidden").unwrap();
        fs::write(path.join("other/x"), "hidden too").unwrap();
    });
}

/// Git reports these files as unchanged, or knows one of them by another name.
#[test]
fn edits_that_git_does_not_see_are_saved() {
    let lab =
        Lab::with_files(&[("a.txt", "one\n"), ("n.up", "ONE\n"), (".gitattributes", "*.up filter=up\n")]);
    for (key, value) in [
        ("core.ignoreCase", "true"),
        ("core.trustctime", "false"),
        ("core.checkStat", "minimal"),
        ("filter.up.clean", "tr a-z A-Z"),
        ("filter.up.smudge", "cat"),
    ] {
        lab.git(&["config", key, value]);
    }
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::write(path.join("A.TXT"), "work").unwrap();
    fs::write(path.join("n.up"), "oNe\n").unwrap();
    let file = path.join("a.txt");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "two\n").unwrap();
    fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    assert_eq!(lab.git_in(&path, &["--no-optional-locks", "status", "--porcelain"]), "");
    let mut files = BTreeMap::new();
    walk(&path, &path, &mut files);

    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let place = bring_back(&lab, &worktree, &rescued);
    let mut restored = BTreeMap::new();
    walk(&place, &place, &mut restored);
    assert_eq!(restored, files);
}

#[test]
fn settings_of_the_repository_do_not_decide_what_is_saved() {
    let lab = Lab::with_files(&[(".gitattributes", "*.txt text\n"), ("a.txt", "one\n"), ("b", "one\n")]);
    for (key, value) in [
        ("core.fileMode", "false"),
        ("core.symlinks", "false"),
        ("core.safecrlf", "true"),
        ("core.splitIndex", "true"),
        ("core.untrackedCache", "true"),
        ("core.ignoreStat", "true"),
        ("index.version", "4"),
    ] {
        lab.git(&["config", key, value]);
    }
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::write(path.join("a.txt"), "one\r\ntwo\n").unwrap();
    fs::write(path.join("b"), "two\n").unwrap();
    lab.git_in(&path, &["update-index", "--split-index", "b"]);
    fs::write(path.join("script"), "#!/bin/sh\n").unwrap();
    set_executable(&path.join("script"), true);
    symlink("b", path.join("link")).unwrap();
    let index = lab.git_in(&path, &["ls-files", "--stage"]);
    let mut files = BTreeMap::new();
    walk(&path, &path, &mut files);

    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let place = bring_back(&lab, &worktree, &rescued);
    let mut restored = BTreeMap::new();
    walk(&place, &place, &mut restored);
    assert_eq!(restored, files);
    assert_eq!(lab.git_in(&place, &["ls-files", "--stage"]), index);
}
