//! Checks which files a worktree gets from the repository's own work tree, and which files Git writes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::super::Worktree;
use sha1::{Digest as _, Sha1};

use super::super::copy::Destinations;
use super::super::donor::{CheckoutSource, Recipient};
use super::super::{paths::WorktreePaths, register};
use super::Lab;
use crate::host::git::Git;

impl Lab {
    /// Registers a worktree and copies the usable files of the work tree, before Git writes anything. Returns the
    /// amount that is left to Git: `all`, `a part` or `nothing`.
    fn given(&self, name: &str) -> (Worktree, &'static str) {
        let worktree = self.worktree(name);
        let task = self.task();
        register::register(&task, &worktree).unwrap();
        let paths = WorktreePaths::new(&task, &worktree).unwrap();
        let (admin, top) = (paths.admin_directory_path(), paths.directory().unwrap().unwrap());
        let git = Git::open(&self.host, &admin, Some(&paths.worktree));
        let index = admin.join("index");
        let recipient = Recipient {
            git: &git,
            commit: &worktree.commit,
            top: &top,
            index: &index,
            cancel: &self.host.cancel,
        };
        let source = CheckoutSource::find(&recipient, &worktree, &paths, true).unwrap();
        let places = Destinations::none();
        let left = match source.give(&recipient, &places).unwrap() {
            None => "all",
            Some(given) if given.is_complete() => "nothing",
            Some(_) => "a part",
        };
        (worktree, left)
    }

    /// Returns those of the files that a worktree has been given.
    fn given_of<'f>(&self, files: &[&'f str]) -> Vec<&'f str> {
        let (worktree, _) = self.given("w");
        let top = self.path(&worktree);
        let given: Vec<_> =
            files.iter().copied().filter(|file| top.join(file).symlink_metadata().is_ok()).collect();
        self.release(&worktree);
        given
    }
}

/// Writes other bytes into a file, and restores the file's stat data.
fn forge(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), bytes.len() as u64);
    fs::write(path, bytes).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

#[test]
fn a_work_tree_that_has_all_leaves_nothing_to_git() {
    let mut lab = Lab::new();
    lab.write("run", "#!/bin/sh\n");
    fs::set_permissions(lab.repo.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../nowhere", lab.repo.join("other/link")).unwrap();
    lab.write("large", &"x".repeat(100_000));
    lab.write("empty", "");
    lab.commit();
    // The content of the work tree's own index does not matter, nor that only its owner may open a file.
    fs::remove_file(lab.repo.join(".git/index")).unwrap();
    fs::set_permissions(lab.repo.join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    let (worktree, left) = lab.given("w");
    assert_eq!(left, "nothing");
    lab.check(std::slice::from_ref(&worktree));
    lab.check_index(&worktree);
}

#[test]
fn only_files_of_the_commit_are_copied() {
    let mut lab = Lab::new();
    for file in
        ["deep/gone", "deep/linked", "deep/directory", "deep/pipe", "deep/changed", "below/x", "closed"]
    {
        lab.write(file, "content\n");
    }
    symlink("here", lab.repo.join("link")).unwrap();
    symlink("here", lab.repo.join("was-link")).unwrap();
    lab.commit();
    let at = |name: &str| lab.repo.join(name);
    fs::remove_file(at("deep/gone")).unwrap();
    fs::remove_file(at("deep/linked")).unwrap();
    fs::write(lab.repo.with_file_name("same"), "content\n").unwrap();
    symlink(lab.repo.with_file_name("same"), at("deep/linked")).unwrap();
    fs::remove_file(at("deep/directory")).unwrap();
    fs::create_dir(at("deep/directory")).unwrap();
    fs::remove_file(at("deep/pipe")).unwrap();
    assert!(Command::new("mkfifo").arg(at("deep/pipe")).status().unwrap().success());
    forge(&at("deep/changed"), b"CONTENT\n");
    fs::rename(at("below"), lab.repo.with_file_name("below")).unwrap();
    symlink(lab.repo.with_file_name("below"), at("below")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    fs::remove_file(at("was-link")).unwrap();
    fs::write(at("was-link"), "here").unwrap();
    lab.write("untracked", "mine\n");
    let files = [
        "a.txt",
        "deep/gone",
        "deep/linked",
        "deep/directory",
        "deep/pipe",
        "deep/changed",
        "below/x",
        "link",
        "was-link",
        "untracked",
    ];
    assert_eq!(lab.given_of(&files), ["a.txt"]);
    // Git writes the rest.
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    lab.check(std::slice::from_ref(&worktree));
    lab.check_index(&worktree);
}

#[test]
fn another_commit_shares_what_has_not_changed() {
    let mut lab = Lab::new();
    let before = lab.commit.clone();
    lab.write("a.txt", "two\n");
    lab.write("new", "new\n");
    lab.commit();
    lab.commit = before;
    assert_eq!(lab.given_of(&["a.txt", "new", "other/x"]), ["other/x"]);
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    lab.check(&[worktree]);
}

#[test]
fn converted_files_are_left_to_git() {
    let mut lab = Lab::with_files(&[(
        ".gitattributes",
        "*.crlf eol=crlf\n*.lf text eol=lf\n*.auto text=auto\n*.id ident\n*.up filter=up\n*.wide working-tree-encoding=UTF-16LE\n\
         *.wide.not -working-tree-encoding -filter -ident\n[attr]legacy filter=up\n*.macro legacy\n",
    )]);
    lab.config(&[("filter.up.clean", "tr A-Z a-z"), ("filter.up.smudge", "tr a-z A-Z")]);
    let files = [
        "a.crlf",
        "a.lf",
        "a.auto",
        "a.id",
        "a.up",
        "a.wide",
        "a.wide.not",
        "a.macro",
        "below/a.elsewhere",
        "a.info",
    ];
    for file in files {
        lab.write(file, "");
    }
    lab.write("below/.gitattributes", "*.elsewhere ident\n");
    lab.commit();
    fs::create_dir_all(lab.repo.join(".git/info")).unwrap();
    fs::write(lab.repo.join(".git/info/attributes"), "*.info ident\n").unwrap();
    // The attributes are those of the commit, not those of the work tree now.
    fs::write(lab.repo.join(".gitattributes"), "").unwrap();
    assert_eq!(lab.given_of(&files), ["a.lf", "a.auto", "a.wide.not"]);
}

/// If few files are left, Git writes them by name. Even then the attributes of the commit apply.
#[test]
fn git_converts_files_by_the_attributes_of_the_commit() {
    let attributes = "*.crlf eol=crlf\n*.id ident\n*.wide working-tree-encoding=UTF-16LE\n";
    let mut lab =
        Lab::with_files(&[(".gitattributes", attributes), ("below/.gitattributes", "*.own eol=crlf\n")]);
    let files = ["a.crlf", "a.id", "!.crlf", "below/!.own", "below/a.own", "below/a.crlf"];
    for file in files {
        lab.write(file, "one $Id$\ntwo\n");
    }
    lab.commit();
    for gone in [true, false] {
        for attributes in [".gitattributes", "below/.gitattributes"] {
            let _ = fs::remove_file(lab.repo.join(attributes));
            if !gone {
                lab.write(attributes, "*.crlf -text\n*.own ident\n");
            }
        }
        assert_eq!(lab.given_of(&files), Vec::<&str>::new());
        let worktrees = lab.copies(2);
        assert_eq!(
            fs::read_to_string(lab.path(&worktrees[2]).join("below/!.own")).unwrap(),
            "one $Id$\r\ntwo\r\n"
        );
        lab.check(&worktrees);
        for worktree in &worktrees {
            lab.check_index(worktree);
        }
        worktrees.iter().chain([&lab.worktree("by-git")]).for_each(|worktree| lab.release(worktree));
    }
}

/// The names are too long together for the arguments of one program.
#[test]
fn many_files_that_are_left_to_git() {
    let mut lab = Lab::with_files(&[(".gitattributes", "*.crlf eol=crlf\n")]);
    for at in 0..200 {
        lab.write(&format!("{at}-{}.crlf", "x".repeat(200)), "one\n");
    }
    lab.commit();
    let worktrees = lab.copies(1);
    lab.check(&worktrees);
    for worktree in &worktrees {
        lab.check_index(worktree);
    }
}

/// The index may be stale, unusual or wrong.
#[test]
fn the_index_of_the_work_tree_is_a_list_of_names_at_most() {
    type Trick = fn(&Lab);
    let tricks: [(&str, Trick); 10] = [
        ("nothing", |_| {}),
        ("assumed unchanged", |lab| {
            lab.git(&["update-index", "--assume-unchanged", "a.txt"]);
            lab.write("a.txt", "two\n");
        }),
        ("skipped", |lab| drop(lab.git(&["update-index", "--skip-worktree", "a.txt"]))),
        ("intended", |lab| {
            lab.write("intended", "");
            lab.git(&["add", "--intent-to-add", "intended"]);
        }),
        ("staged", |lab| {
            lab.write("a.txt", "two\n");
            lab.write("staged", "staged\n");
            lab.git(&["rm", "-q", "other/x"]);
            lab.git(&["add", "-A"]);
        }),
        ("of version 4", |lab| drop(lab.git(&["update-index", "--index-version", "4"]))),
        ("with a cache of what is untracked", |lab| drop(lab.git(&["update-index", "--untracked-cache"]))),
        ("split", |lab| drop(lab.git(&["update-index", "--split-index"]))),
        ("torn", |lab| {
            let index = lab.repo.join(".git/index");
            let bytes = fs::read(&index).unwrap();
            fs::write(index, &bytes[..bytes.len() - 30]).unwrap();
        }),
        ("with a lie about its trees", |lab| {
            let index = lab.repo.join(".git/index");
            let mut bytes = fs::read(&index).unwrap();
            bytes.truncate(bytes.len() - 20);
            let trees = bytes.windows(4).position(|four| four == b"TREE").unwrap();
            let id = trees + bytes[trees..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
            bytes[id] ^= 1;
            let checksum = Sha1::digest(&bytes);
            fs::write(index, [&bytes[..], &checksum].concat()).unwrap();
        }),
    ];
    for (what, trick) in tricks {
        let lab = Lab::new();
        trick(&lab);
        let worktrees = lab.copies(1);
        for worktree in &worktrees {
            let top = lab.path(worktree);
            let listed = lab.git_in(&top, &["ls-files", "-v"]);
            assert!(listed.lines().all(|line| line.starts_with("H ")), "{what}: {listed}");
            let tree = lab.git(&["rev-parse", &format!("{}^{{tree}}", lab.commit)]);
            assert_eq!(lab.git_in(&top, &["write-tree"]), tree, "{what}");
        }
        // Otherwise Git itself rejects the index.
        fs::remove_file(lab.repo.join(".git/index")).unwrap();
        lab.check(&worktrees);
        for worktree in &worktrees {
            lab.check_index(worktree);
        }
    }
}

/// The work tree may have been checked out by an older Git, or with the check disabled.
#[test]
fn path_that_git_refuses_is_refused() {
    for name in ["git~1", ".git /x"] {
        let mut lab = Lab::new();
        lab.write(name, "content\n");
        lab.config(&[("core.protectNTFS", "false")]);
        lab.commit();
        lab.git(&["config", "--unset", "core.protectNTFS"]);
        let failed = lab.populate(&[lab.worktree("w")]);
        assert!(format!("{failed:?}").contains("invalid path"), "{failed:?}");
    }
}

#[test]
fn git_writes_every_file_if_objects_are_replaced() {
    type Trick = fn(&Lab);
    let tricks: [Trick; 2] = [
        |lab| drop(lab.git(&["replace", "HEAD:a.txt", "HEAD:other/x"])),
        // A tree is replaced, and the ref is stored among the packed refs.
        |lab| {
            lab.git(&["replace", "HEAD:other", "HEAD:packages"]);
            lab.git(&["pack-refs", "--all"]);
            assert_eq!(fs::read_dir(lab.repo.join(".git/refs/replace")).unwrap().count(), 0);
        },
    ];
    for trick in tricks {
        let lab = Lab::new();
        trick(&lab);
        let worktrees = lab.copies(2);
        lab.check(&worktrees);
        // Objects that are no longer replaced can be taken again.
        let replaced = lab.git(&["replace", "--list"]);
        lab.git(&["replace", "--delete", replaced.trim()]);
        assert_eq!(lab.given("again").1, "nothing");
    }
}

/// Another Git process reads the indexes of all worktrees, and a half-written index is invalid for it.
#[test]
fn an_index_is_never_written_in_place() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    register::register(&lab.task(), &worktree).unwrap();
    let (index, other_name) = (lab.admin_directory(&worktree).join("index"), lab.repo.join("../other-name"));
    fs::write(&index, "before").unwrap();
    fs::hard_link(&index, &other_name).unwrap();
    super::super::populate::populate_one(&lab.task(), &worktree).unwrap();
    lab.check(&[worktree]);
    assert_eq!(fs::read_to_string(other_name).unwrap(), "before");
}

/// In a shared repository Git gives its own files other permissions.
#[test]
fn the_index_has_the_permissions_that_git_gives_it() {
    let lab = Lab::new();
    lab.config(&[("core.sharedRepository", "0660")]);
    let worktrees = lab.copies(1);
    for worktree in &worktrees {
        let mode = fs::metadata(lab.admin_directory(worktree).join("index")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }
}

#[test]
fn settings_that_change_what_a_checkout_is_leave_all_to_git() {
    let lab = Lab::new();
    for (key, value, left) in [
        ("core.autocrlf", "true", "all"),
        ("core.autocrlf", "input", "nothing"),
        ("core.eol", "crlf", "all"),
        ("core.eol", "native", "nothing"),
        ("core.symlinks", "false", "all"),
        ("core.ignoreStat", "true", "all"),
        ("core.sparseCheckout", "true", "all"),
        ("core.splitIndex", "true", "all"),
        ("attr.tree", "HEAD", "all"),
        ("index.version", "4", "nothing"),
    ] {
        lab.config(&[(key, value)]);
        let (worktree, found) = lab.given("w");
        assert_eq!(found, left, "{key} = {value}");
        lab.release(&worktree);
        lab.git(&["config", "--unset", key]);
    }
}

#[test]
fn an_interruption_ends_it() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    register::register(&lab.task(), &worktree).unwrap();
    lab.host.cancel.request();
    super::super::populate::populate_one(&lab.task(), &worktree).unwrap_err();
    assert!(!lab.path(&worktree).join("a.txt").exists());
}
