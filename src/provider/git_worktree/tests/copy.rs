//! Compares copied worktrees with those that Git makes.

mod generated;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::super::copy::{Destinations, Failed, Source};
use super::super::{Checkout, Worktree, populate, register};
use super::{Lab, OWNER};
use crate::provider::{Allocation, Error, OnPopulated, Task};

impl Lab {
    /// Registers worktrees and populates them in one call, the first by Git.
    pub(super) fn populate(&self, worktrees: &[Worktree]) -> Vec<(usize, Error)> {
        let allocations: Vec<_> = worktrees
            .iter()
            .map(|worktree| {
                let Ok(Value::Object(fields)) = serde_json::to_value(worktree) else { unreachable!() };
                Allocation { allocation: fields, ..self.allocation.clone() }
            })
            .collect();
        let told: Vec<_> = worktrees.iter().map(|_| AtomicBool::new(false)).collect();
        let hears: Vec<_> = told.iter().map(|told| move || told.store(true, Ordering::Relaxed)).collect();
        let tasks: Vec<_> = allocations
            .iter()
            .zip(&hears)
            .map(|(allocation, hears)| Task {
                is_forgotten: false,
                is_discarded: false,
                allocation,
                on_populated: OnPopulated::new(hears),
                ..self.task()
            })
            .collect();
        for (task, worktree) in tasks.iter().zip(worktrees) {
            register::register(task, worktree).unwrap();
        }
        let failed = populate::populate(&tasks);
        let all_told = told.iter().all(|told| told.load(Ordering::Relaxed));
        assert!(all_told || !failed.is_empty(), "who watches hears of each");
        failed
    }

    /// Copies one worktree to another, which is registered.
    fn copy(&self, source: &Source, worktree: &Worktree) -> Result<(), Failed> {
        let task = self.task();
        let tasks = [(&task, worktree.clone())];
        let places = Destinations::open(&tasks)?;
        source.copy(&places)
    }

    /// Makes a worktree that Git populates, and copies of it.
    pub(super) fn copies(&self, count: usize) -> Vec<Worktree> {
        let worktrees: Vec<_> = (0..=count).map(|at| self.worktree(&format!("w{at}"))).collect();
        assert!(self.populate(&worktrees).is_empty());
        worktrees
    }

    pub(super) fn commit(&mut self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "more"]);
        self.commit = self.git(&["rev-parse", "HEAD"]).trim().to_owned();
    }

    pub(super) fn config(&self, settings: &[(&str, &str)]) {
        for (key, value) in settings {
            self.git(&["config", key, value]);
        }
    }

    /// Returns whether files of a worktree were copied: Git does not set times.
    fn is_copied(&self, worktree: &Worktree) -> bool {
        self.tracked(worktree).iter().any(|path| self.is_set_back(worktree, path))
    }

    /// Returns whether Git has written none of a worktree's files.
    fn is_copied_whole(&self, worktree: &Worktree) -> bool {
        self.tracked(worktree).iter().all(|path| self.is_set_back(worktree, path))
    }

    fn is_set_back(&self, worktree: &Worktree, path: &Path) -> bool {
        fs::symlink_metadata(self.path(worktree).join(path)).unwrap().mtime_nsec() == 0
    }

    /// Returns the files and links that Git has put into a worktree.
    fn tracked(&self, worktree: &Worktree) -> Vec<PathBuf> {
        let listed = self.try_git(&self.path(worktree), &["ls-files", "-z", "-t", "-s"]).stdout;
        listed
            .split(|byte| *byte == 0)
            .filter(|line| line.starts_with(b"H ") && !line.starts_with(b"H 160000"))
            .map(|line| {
                let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
                PathBuf::from(OsStr::from_bytes(&line[tab + 1..]))
            })
            .collect()
    }

    /// Returns Git's description of each entry in two parts: without and with the fields that depend on the file
    /// system.
    fn debug(&self, worktree: &Worktree) -> (Vec<u8>, Vec<u8>) {
        let said = self.try_git(&self.path(worktree), &["ls-files", "-s", "-t", "--debug"]).stdout;
        let (mut own, mut stat) = (Vec::new(), Vec::new());
        for line in said.split_inclusive(|byte| *byte == b'\n') {
            let of_stat = ["  ctime:", "  mtime:", "  dev:", "  uid:"];
            let is_stat = of_stat.iter().any(|field| line.starts_with(field.as_bytes()));
            if is_stat { &mut stat } else { &mut own }.extend_from_slice(line);
        }
        (own, stat)
    }

    /// Returns the tree ids that an index stores for its entries: its last extension.
    fn trees(&self, worktree: &Worktree) -> Vec<u8> {
        let index = fs::read(self.admin_directory(worktree).join("index")).unwrap();
        let start = index.windows(4).rposition(|four| four == b"TREE").expect("git tells of trees too");
        let length = u32::from_be_bytes(index[start + 4..start + 8].try_into().unwrap());
        index[start + 8..start + 8 + usize::try_from(length).unwrap()].to_vec()
    }

    /// Checks that the files and Git's output are the same as in a worktree that Git makes.
    #[track_caller]
    pub(super) fn check(&self, copies: &[Worktree]) {
        let mut by_git = self.worktree("by-git");
        by_git.target_path.clone_from(&copies[0].target_path);
        by_git.checkout = Checkout::Git;
        assert!(self.populate(std::slice::from_ref(&by_git)).is_empty());
        let made = walk(&self.path(&by_git));
        for copy in copies {
            assert_eq!(walk(&self.path(copy)), made);
            assert_eq!(shown(&self.debug(copy).0), shown(&self.debug(&by_git).0));
            assert_eq!(shown(&self.trees(copy)), shown(&self.trees(&by_git)));
            // Git may hash a file again that it wrote, and find that its own rules do not restore the blob.
            if self.is_copied_whole(copy) {
                assert_eq!(self.git_in(&self.path(copy), &["status", "--porcelain", "--ignored"]), "");
            }
            assert_eq!(self.git_in(&self.path(copy), &["fsck", "--strict", "--no-dangling"]), "");
        }
    }

    /// Checks that Git opens no unchanged file of a copy, and notices each change.
    #[track_caller]
    pub(super) fn check_index(&self, copy: &Worktree) {
        let top = self.path(copy);
        let tracked = self.tracked(copy);
        // First half of the proof: the stat data in the index equals that of the file system, to the nanosecond.
        let mut expected = String::new();
        for path in self.in_index(copy) {
            use std::fmt::Write as _;

            let found = fs::symlink_metadata(top.join(path));
            let Some(of) = found.ok().filter(|of| !of.is_dir()) else {
                expected.push_str("none\n");
                continue;
            };
            let _ = write!(
                expected,
                "  ctime: {}:{}\n  mtime: {}:{}\n  dev: {}\tino: {}\n  uid: {}\tgid: {}\n",
                of.ctime(),
                of.ctime_nsec(),
                of.mtime(),
                of.mtime_nsec(),
                of.dev() & 0xffff_ffff,
                of.ino() & 0xffff_ffff,
                of.uid(),
                of.gid()
            );
        }
        if !expected.contains("none") {
            assert_eq!(shown(&self.debug(copy).1), expected);
        }
        // Second half: other bytes go unnoticed if all stat fields are the same, except the one that cannot be set
        // back.
        let files = tracked.iter().filter(|path| !path.ends_with(".gitattributes"));
        let Some(path) = files.into_iter().find(|path| {
            fs::symlink_metadata(top.join(path)).is_ok_and(|found| found.is_file() && found.len() > 0)
        }) else {
            return;
        };
        let path = top.join(path);
        let (before, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        let other: Vec<u8> = before.iter().map(|byte| byte ^ 1).collect();
        rewrite(&path, &other, Some(modified));
        let status = ["-c", "core.trustctime=false", "status", "--porcelain"];
        assert_eq!(self.git_in(&top, &status), "", "git has read {}", path.display());
        // An edit of the same size is noticed.
        rewrite(&path, &other, None);
        assert_eq!(self.git_in(&top, &["status", "--porcelain"]).lines().count(), 1);
        rewrite(&path, &before, None);
        assert_eq!(self.git_in(&top, &["status", "--porcelain"]), "");
    }

    fn in_index(&self, worktree: &Worktree) -> Vec<PathBuf> {
        let listed = self.try_git(&self.path(worktree), &["ls-files", "-z"]).stdout;
        let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
    }
}

/// Writes other bytes of the same number into a file, and sets its time back.
fn rewrite(path: &Path, bytes: &[u8], modified: Option<SystemTime>) {
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(modified.unwrap_or_else(|| SystemTime::now() + Duration::from_secs(1))).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

/// Returns everything in a worktree, with modes and contents.
fn walk(top: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![top.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_owned();
            if name == Path::new(".git") {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                shown(fs::read_link(&path).unwrap().as_os_str().as_bytes())
            } else if metadata.is_dir() {
                ahead.push(path);
                String::new()
            } else {
                shown(&fs::read(&path).unwrap())
            };
            found.insert(name, (metadata.mode(), content));
        }
    }
    found
}

/// Returns bytes as text that an assertion can print.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.escape_ascii().to_string())
}

#[test]
fn filters_run_once_however_many_copies_there_are() {
    let mut lab = Lab::with_files(&[(".gitattributes", "*.big filter=count\n")]);
    let runs = lab.repo.with_file_name("runs");
    let smudge = format!("echo %f >> '{}'; tr a-z A-Z", runs.display());
    lab.config(&[("filter.count.clean", "tr A-Z a-z"), ("filter.count.smudge", &smudge)]);
    for file in ["a.big", "deep/b.big", "small"] {
        lab.write(file, "content\n");
    }
    lab.commit();
    let worktrees = lab.copies(20);
    assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 2);
    for copy in &worktrees[1..] {
        assert_eq!(fs::read_to_string(lab.path(copy).join("deep/b.big")).unwrap(), "CONTENT\n");
        assert_eq!(fs::read_to_string(lab.path(copy).join("small")).unwrap(), "content\n");
        assert_eq!(lab.status(copy), "");
    }
    lab.check(&worktrees[1..3]);
    lab.check_index(&worktrees[20]);
}

#[test]
fn submodules_are_empty_directories() {
    let mut lab = Lab::new();
    lab.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},deep/module", lab.commit)]);
    lab.git(&["commit", "-q", "-m", "a submodule"]);
    lab.commit = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let worktrees = lab.copies(2);
    assert!(lab.is_copied(&worktrees[1]));
    assert!(lab.path(&worktrees[2]).join("deep/module").is_dir());
    lab.check(&worktrees[1..]);
}

#[test]
fn untracked_files_are_not_copied() {
    let lab = Lab::new();
    let worktrees: Vec<_> = (0..2).map(|at| lab.worktree(&format!("w{at}"))).collect();
    lab.make(&worktrees[0]);
    fs::write(lab.path(&worktrees[0]).join("packages/notes.txt"), "mine").unwrap();
    register::register(&lab.task(), &worktrees[1]).unwrap();
    let source = Source::open(&lab.task(), &worktrees[0]).unwrap().unwrap();
    lab.copy(&source, &worktrees[1]).unwrap();
    assert!(lab.is_copied(&worktrees[1]));
    lab.check(&worktrees[1..]);
}

#[test]
fn a_worktree_that_was_touched_is_no_source() {
    type Touch = fn(&Path);
    let touched: [(&str, Touch); 5] = [
        ("edited", |top| fs::write(top.join("a.txt"), "two\n").unwrap()),
        ("replaced", |top| {
            fs::remove_file(top.join("a.txt")).unwrap();
            fs::write(top.join("a.txt"), "one\n").unwrap();
        }),
        ("removed", |top| fs::remove_file(top.join("a.txt")).unwrap()),
        ("a link", |top| {
            fs::remove_file(top.join("a.txt")).unwrap();
            symlink("other/x", top.join("a.txt")).unwrap();
        }),
        ("elsewhere", |top| {
            fs::rename(top.join("other"), top.join("elsewhere")).unwrap();
            symlink("elsewhere", top.join("other")).unwrap();
        }),
    ];
    for (what, touch) in touched {
        let lab = Lab::new();
        let worktree = lab.worktree("w");
        lab.make(&worktree);
        assert!(Source::open(&lab.task(), &worktree).unwrap().unwrap().is_unchanged(|_| true));
        touch(&lab.path(&worktree));
        assert!(!Source::open(&lab.task(), &worktree).unwrap().unwrap().is_unchanged(|_| true), "{what}");
    }
}

#[test]
fn worktrees_whose_first_was_touched_meanwhile_are_filled_by_themselves() {
    let mut lab =
        Lab::with_files(&[(".gitattributes", "*.up filter=up\n"), ("below/a.up", "A\n"), ("b", "b\n")]);
    lab.commit();
    let smudge = r#"case "$PWD" in */w0) echo mine >> b;; esac; cat"#;
    lab.config(&[("filter.up.smudge", smudge)]);
    let worktrees = lab.copies(2);
    let text = |at: usize| fs::read_to_string(lab.path(&worktrees[at]).join("b")).unwrap();
    assert_eq!([text(0), text(1), text(2)], ["b\nmine\n", "b\n", "b\n"]);
    lab.check(&worktrees[1..]);
}

#[test]
fn git_writes_files_that_a_changed_donor_lacks() {
    let mut lab = Lab::with_files(&[
        (".gitattributes", "*.up filter=up\n"),
        ("below/a.up", "A\n"),
        ("below/b.up", "B\n"),
        ("c", "c\n"),
    ]);
    lab.commit();
    let smudge = r#"case "$PWD" in */w0) test ! -e below/a.up || echo mine >> below/a.up;; esac; cat"#;
    lab.config(&[("filter.up.smudge", smudge)]);
    let worktrees = lab.copies(2);
    let text = |at: usize| fs::read_to_string(lab.path(&worktrees[at]).join("below/a.up")).unwrap();
    assert_eq!([text(0), text(1), text(2)], ["A\nmine\n", "A\n", "A\n"]);
    for worktree in &worktrees[1..] {
        assert!(lab.is_set_back(worktree, Path::new("c")), "what was given stays");
    }
    lab.check(&worktrees[1..]);
}

#[test]
fn a_source_that_changes_while_it_is_copied_is_an_error() {
    let lab = Lab::new();
    let worktrees: Vec<_> = (0..2).map(|at| lab.worktree(&format!("w{at}"))).collect();
    lab.make(&worktrees[0]);
    register::register(&lab.task(), &worktrees[1]).unwrap();
    let source = Source::open(&lab.task(), &worktrees[0]).unwrap().unwrap();
    fs::write(lab.path(&worktrees[0]).join("other/x"), "y\n").unwrap();
    let (_, failed) = lab.copy(&source, &worktrees[1]).unwrap_err();
    assert!(failed.to_string().contains("other/x: another program changes it"), "{failed}");
    assert!(
        !lab.admin_directory(&worktrees[1]).join("index").exists(),
        "an index says that the worktree is whole"
    );
    lab.release(&worktrees[1]);
    assert!(!lab.path(&worktrees[1]).exists() && !lab.admin_directory(&worktrees[1]).exists());
}

#[test]
fn existing_file_is_not_overwritten() {
    let lab = Lab::new();
    for name in ["a.txt", "packages/app/main.rs"] {
        let worktrees: Vec<_> = (0..2).map(|at| lab.worktree(&format!("w{at}"))).collect();
        lab.make(&worktrees[0]);
        register::register(&lab.task(), &worktrees[1]).unwrap();
        let path = lab.path(&worktrees[1]).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let source = Source::open(&lab.task(), &worktrees[0]).unwrap().unwrap();
        let (_, failed) = lab.copy(&source, &worktrees[1]).unwrap_err();
        assert!(failed.to_string().contains("File exists"), "{failed}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        for worktree in &worktrees {
            lab.release(worktree);
        }
    }
}

#[test]
fn configuration_that_depends_on_the_worktree_leaves_all_to_git() {
    let lab = Lab::with_files(&[("a.txt", "one\ntwo\n")]);
    let more = lab.repo.with_file_name("more");
    fs::write(&more, "[core]\n\tautocrlf = true\n").unwrap();
    let more = more.to_str().unwrap();
    lab.git(&["config", "includeIf.onbranch:windows.path", more]);
    let mut worktrees: Vec<_> = (0..3).map(|at| lab.worktree(&format!("w{at}"))).collect();
    worktrees[1].branch = Some("windows".to_owned());
    assert!(lab.populate(&worktrees).is_empty());
    let text = |at: usize| fs::read_to_string(lab.path(&worktrees[at]).join("a.txt")).unwrap();
    assert_eq!([text(0), text(1), text(2)], ["one\ntwo\n", "one\r\ntwo\r\n", "one\ntwo\n"]);
    for worktree in &worktrees {
        lab.release(worktree);
    }

    lab.git(&["config", "--unset", "includeIf.onbranch:windows.path"]);
    lab.git(&["config", "includeIf.gitdir:**/worktrees/w2.path", more]);
    let worktrees: Vec<_> = (0..3).map(|at| lab.worktree(&format!("w{at}"))).collect();
    assert!(lab.populate(&worktrees).is_empty());
    let text = |at: usize| fs::read_to_string(lab.path(&worktrees[at]).join("a.txt")).unwrap();
    assert_eq!([text(0), text(1), text(2)], ["one\ntwo\n", "one\ntwo\n", "one\r\ntwo\r\n"]);
}

#[test]
fn configuration_that_depends_on_where_the_repository_is_does_not() {
    let lab = Lab::new();
    let more = lab.repo.with_file_name("more");
    fs::write(&more, "[user]\n\tname = B\n").unwrap();
    lab.git(&["config", "includeIf.gitdir:~/work/.path", more.to_str().unwrap()]);
    lab.git(&["config", "includeIf.onbranch:release/.path", more.to_str().unwrap()]);
    let worktrees = lab.copies(1);
    assert!(lab.is_copied(&worktrees[1]));
}

#[test]
fn worktrees_of_other_commits_are_never_copies() {
    let mut lab = Lab::new();
    let old = lab.worktree("old");
    lab.write("a.txt", "two\n");
    lab.commit();
    let new = lab.worktree("new");
    assert!(lab.populate(&[old.clone(), new.clone()]).is_empty());
    assert_eq!(fs::read_to_string(lab.path(&old).join("a.txt")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(lab.path(&new).join("a.txt")).unwrap(), "two\n");
    assert_eq!(lab.status(&new), "");
}

#[test]
fn an_interruption_between_two_files_ends_it() {
    let lab = Lab::new();
    let worktrees: Vec<_> = (0..2).map(|at| lab.worktree(&format!("w{at}"))).collect();
    lab.make(&worktrees[0]);
    register::register(&lab.task(), &worktrees[1]).unwrap();
    let source = Source::open(&lab.task(), &worktrees[0]).unwrap().unwrap();
    lab.host.cancel.request();
    lab.copy(&source, &worktrees[1]).unwrap_err();
    assert!(!lab.path(&worktrees[1]).join("a.txt").exists());
    assert!(!lab.admin_directory(&worktrees[1]).join("index").exists());
}

#[test]
fn a_repository_that_git_registers_is_copied_too() {
    let lab = Lab::new();
    let mut worktrees: Vec<_> = (0..3).map(|at| lab.worktree(&format!("w{at}"))).collect();
    for worktree in &mut worktrees {
        worktree.registration = super::super::Registration::Git;
        worktree.target_path = Some("packages/app".to_owned());
    }
    assert!(lab.populate(&worktrees).is_empty());
    assert!(lab.is_copied(&worktrees[2]));
    lab.check(&worktrees[1..]);
    assert!(lab.inventory().keys().all(|path| !path.ends_with("index.lock")));
    assert_eq!(OWNER.len(), 32);
}
