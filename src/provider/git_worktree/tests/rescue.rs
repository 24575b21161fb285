//! Checks that rescued work is restored unchanged. Each test rescues, releases, collects garbage, runs the printed
//! command, and compares.

mod files;
mod history;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::rescue::{common_directory, list, rescue, restore};
use super::super::unsaved::unsaved_work;
use super::Lab;
use crate::provider::Rescue;
use crate::provider::git_worktree::Worktree;

/// Visible state of a worktree.
#[derive(Debug, PartialEq)]
struct Picture {
    head: String,
    status: String,
    index: String,
    debug: String,
    files: BTreeMap<PathBuf, String>,
}

impl Picture {
    fn of(lab: &Lab, path: &Path) -> Self {
        let mut files = BTreeMap::new();
        walk(path, path, &mut files);
        let head = lab.try_git(path, &["rev-parse", "HEAD"]).stdout;
        let debug = lab.git_in(path, &["ls-files", "--debug"]);
        // Among the stat data that Git keeps of a file, only the flags belong to the session.
        let flags = debug.lines().map(|line| line.split("flags:").last().unwrap_or(line));
        let debug =
            flags.filter(|line| !line.contains("time:") && !line.contains("dev:") && !line.contains("uid:"));
        Self {
            head: String::from_utf8(head).unwrap(),
            debug: debug.collect::<Vec<_>>().join("\n"),
            status: lab.git_in(path, &["status", "--porcelain=v2", "--untracked-files=all", "--no-renames"]),
            index: lab.git_in(path, &["ls-files", "-v", "--stage"]),
            files,
        }
    }
}

fn walk(top: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let found = fs::symlink_metadata(&path).unwrap();
        if name == Path::new(".git") {
        } else if found.is_symlink() {
            files.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else if found.is_dir() {
            walk(top, &path, files);
        } else {
            let executable = found.mode() & 0o100 != 0;
            files.insert(name, format!("{executable} {}", fs::read(&path).unwrap().escape_ascii()));
        }
    }
}

/// Does `work` in a worktree, rescues and releases the worktree, and restores it.
#[track_caller]
fn round_trip(lab: &Lab, worktree: &Worktree, work: impl FnOnce(&Path)) -> (Rescue, PathBuf) {
    lab.make(worktree);
    let path = lab.path(worktree);
    work(&path);
    let before = Picture::of(lab, &path);
    let entry = lab.admin_directory(worktree);
    let index = fs::read(entry.join("index")).unwrap();
    assert!(!unsaved_work(&lab.task(), worktree).unwrap().work.is_empty(), "there is something to rescue");
    let rescued = rescue(&lab.task(), worktree).unwrap();
    assert_eq!(fs::read(entry.join("index")).unwrap(), index, "the session's index is left alone");
    assert_eq!(Picture::of(lab, &path), before, "and so is its worktree");
    assert!(!leftovers(lab), "nothing temporary is left");
    let place = bring_back(lab, worktree, &rescued);
    assert_eq!(Picture::of(lab, &place), before);
    let again = restored(lab, &rescued);
    assert_eq!(Picture::of(lab, &again), before, "`seedbed rescue restore` does the same");
    (rescued, place)
}

/// Restores a rescue as `seedbed rescue restore` does.
fn restored(lab: &Lab, rescued: &Rescue) -> PathBuf {
    let common = common_directory(&lab.host, &lab.repo).unwrap();
    let saved = list(&lab.host, &common).unwrap();
    let saved = saved.iter().find(|saved| saved.reference == rescued.reference).unwrap();
    assert!(saved.valid && saved.files.is_some(), "{saved:?}");
    let into = lab.repo.with_file_name("restored");
    restore(&lab.host, &common, saved, Some(&into)).unwrap()
}

fn bring_back(lab: &Lab, worktree: &Worktree, rescued: &Rescue) -> PathBuf {
    lab.release(worktree);
    lab.git(&["reflog", "expire", "--expire=now", "--all"]);
    lab.git(&["gc", "--quiet", "--prune=now"]);
    let outcome = Command::new("sh")
        .args(["-c", &rescued.command])
        .env_clear()
        .envs(lab.host.environment.iter().cloned())
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{}\n{said}", rescued.command);
    let listed = lab.git(&["worktree", "list", "--porcelain"]);
    let places: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("worktree ")).collect();
    PathBuf::from(places.into_iter().find(|place| place.contains("-rescued-")).unwrap())
}

fn leftovers(lab: &Lab) -> bool {
    let Ok(entries) = fs::read_dir(lab.repo.join(".ai_ops/worktrees")) else { return false };
    entries.map(|entry| entry.unwrap().file_name()).any(|name| name.to_string_lossy().starts_with(".rescue"))
}

fn set_executable(path: &Path, executable: bool) {
    fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 })).unwrap();
}

#[test]
fn a_torn_entry_keeps_the_files() {
    for (torn, said) in
        [("HEAD", "torn or missing"), ("index", "index does not exist"), ("", "torn or missing")]
    {
        let lab = Lab::new();
        let worktree = lab.worktree("w");
        lab.make(&worktree);
        let path = lab.path(&worktree);
        fs::write(path.join("a.txt"), "changed\n").unwrap();
        fs::write(path.join("new"), "new\n").unwrap();
        if torn.is_empty() {
            fs::remove_dir_all(lab.admin_directory(&worktree)).unwrap();
        } else {
            fs::write(lab.admin_directory(&worktree).join(torn), "").unwrap();
        }
        let mut files = BTreeMap::new();
        walk(&path, &path, &mut files);
        assert!(!unsaved_work(&lab.task(), &worktree).unwrap().work.is_empty());
        let rescued = rescue(&lab.task(), &worktree).unwrap();
        assert!(rescued.missing.iter().any(|line| line.contains(said)), "{torn}: {rescued:?}");
        if torn.is_empty() {
            // Only a directory without an admin directory is left, and nothing shows that it may be removed.
            fs::remove_dir_all(&path).unwrap();
        }
        let place = bring_back(&lab, &worktree, &rescued);
        let mut restored = BTreeMap::new();
        walk(&place, &place, &mut restored);
        assert_eq!(restored, files, "{torn}");
        let status = lab.git_in(&place, &["status", "--porcelain"]);
        assert_eq!(status, " M a.txt\n?? new\n", "{torn}");
    }
}

#[test]
fn unchanged_work_is_rescued_once_and_new_work_again() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let work = lab.path(&worktree).join("work");
    fs::write(&work, "one").unwrap();
    let first = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    fs::write(&work, "two").unwrap();
    let second = rescue(&lab.task(), &worktree).unwrap();
    assert_ne!(second.reference, first.reference);
    fs::write(&work, "one").unwrap();
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    let refs = lab.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert_eq!(refs.lines().count(), 2);
    // A commit with the message of this rescue but other content is not used.
    let message = lab.git(&["log", "-1", "--format=%B", &first.reference]);
    let tree = format!("{}^{{tree}}", worktree.commit);
    let forged = lab.git(&["commit-tree", "-m", &message, &tree]);
    lab.git(&["update-ref", &first.reference, forged.trim()]);
    assert_ne!(rescue(&lab.task(), &worktree).unwrap().reference, first.reference);
    // A session whose name has the same beginning does not use the rescue either.
    let other = crate::provider::Task { session: "swarm", ..lab.task() };
    assert_ne!(rescue(&other, &worktree).unwrap().reference, first.reference);
}

#[test]
fn removed_objects_are_reported() {
    let mut lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    fs::write(lab.path(&worktree).join("work"), "not yet saved\n").unwrap();
    let id = {
        let path = lab.path(&worktree).join("work");
        lab.git(&["hash-object", path.to_str().unwrap()]).trim().to_owned()
    };
    let blob = lab.repo.join(".git/objects").join(&id[..2]).join(&id[2..]);
    // This Git removes the object just before the ref is created.
    let shim = lab.host.state.with_file_name("shim");
    fs::create_dir_all(&shim).unwrap();
    let path = lab.host.environment.iter().find(|(name, _)| name == "PATH").unwrap().1.clone();
    let real = std::env::split_paths(&path).map(|path| path.join("git")).find(|path| path.is_file()).unwrap();
    let script = format!(
        "#!/bin/sh\nfor word; do test \"$word\" = update-ref && rm -f {}; done\nexec {} \"$@\"\n",
        blob.display(),
        real.display()
    );
    fs::write(shim.join("git"), script).unwrap();
    set_executable(&shim.join("git"), true);
    let honest = lab.host.environment.clone();
    for (name, value) in &mut lab.host.environment {
        if name == "PATH" {
            let mut first = shim.clone().into_os_string();
            first.push(":");
            first.push(&*value);
            *value = first;
        }
    }
    let error = rescue(&lab.task(), &worktree).unwrap_err().to_string();
    assert!(error.contains("cannot be verified"), "{error}");
    assert_eq!(
        lab.git(&["for-each-ref", "refs/seedbed/rescue"]),
        "",
        "a broken ref would be in everybody's way"
    );
    // The next attempt writes the missing objects.
    lab.host.environment = honest;
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(lab.git(&["show", &format!("{}:work", rescued.reference)]), "not yet saved\n");
    assert_eq!(lab.git(&["for-each-ref", "refs/seedbed/rescue"]).lines().count(), 1);
}

#[test]
fn a_repository_inside_is_not_passed_over() {
    // If the index cannot be read, no earlier step has found the repository.
    for torn in [false, true] {
        let lab = Lab::new();
        let worktree = lab.worktree("w");
        lab.make(&worktree);
        let nested = lab.path(&worktree).join("nested");
        fs::create_dir(&nested).unwrap();
        lab.git_in(&nested, &["init", "-q"]);
        lab.git_in(
            &nested,
            &["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "m"],
        );
        if torn {
            fs::write(lab.admin_directory(&worktree).join("index"), "torn").unwrap();
        }
        let error = rescue(&lab.task(), &worktree).unwrap_err().to_string();
        assert!(error.contains("(nested)"), "{error}");
        assert_eq!(lab.git(&["for-each-ref", "refs/seedbed"]), "");
    }
}

#[test]
fn programs_of_a_session_do_not_run() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    let trapped = lab.host.state.with_file_name("trapped");
    let trap = lab.repo.join(".git/trap");
    fs::write(&trap, format!("#!/bin/sh\necho $0 >> {}\n", trapped.display())).unwrap();
    set_executable(&trap, true);
    fs::create_dir_all(lab.repo.join(".git/hooks")).unwrap();
    for hook in ["reference-transaction", "post-index-change", "post-checkout", "pre-commit", "post-commit"] {
        symlink(&trap, lab.repo.join(".git/hooks").join(hook)).unwrap();
    }
    for (key, value) in [
        ("core.fsmonitor", trap.to_str().unwrap()),
        ("gpg.program", trap.to_str().unwrap()),
        ("commit.gpgSign", "true"),
        ("core.hooksPath", ".git/hooks"),
    ] {
        lab.git(&["config", key, value]);
    }
    fs::write(path.join("work"), "").unwrap();
    unsaved_work(&lab.task(), &worktree).unwrap();
    rescue(&lab.task(), &worktree).unwrap();
    assert!(!trapped.exists(), "{}", fs::read_to_string(&trapped).unwrap());
}

#[test]
fn other_formats() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let Some(lab) = Lab::with_init(&[option], &[("a.txt", "one\n")]) else { continue };
        let registration = match option {
            "--ref-format=reftable" => super::Registration::Git,
            _ => super::Registration::Rename,
        };
        let worktree = Worktree { registration, ..lab.worktree("w") };
        round_trip(&lab, &worktree, |path| {
            lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", "more"]);
            fs::write(path.join("a.txt"), "staged\n").unwrap();
            lab.git_in(path, &["add", "a.txt"]);
            fs::write(path.join("a.txt"), "changed\n").unwrap();
            fs::write(path.join("new"), "").unwrap();
        });
    }
}

#[test]
fn rescue_needs_no_other_object() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    lab.git_in(&path, &["commit", "-q", "--allow-empty", "-m", "left"]);
    let left = lab.git_in(&path, &["rev-parse", "HEAD"]).trim().to_owned();
    lab.git_in(&path, &["checkout", "-q", "--detach", "main"]);
    let first = rescue(&lab.task(), &worktree).unwrap();
    assert_eq!(
        unsaved_work(&lab.task(), &worktree).unwrap().work,
        Vec::<String>::new(),
        "what is rescued is not lost"
    );
    assert_eq!(rescue(&lab.task(), &worktree).unwrap(), first);
    fs::write(path.join("new"), "").unwrap();
    let second = rescue(&lab.task(), &worktree).unwrap();
    lab.git(&["update-ref", "-d", &first.reference]);
    lab.git(&["merge-base", "--is-ancestor", &left, &second.reference]);
}
