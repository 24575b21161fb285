use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::super::unsaved::unsaved_work;
use super::super::untracked::{copy_and_link, outdated, refresh};
use super::Lab;
use crate::provider::UnsavedWork;
use crate::provider::git_worktree::Worktree;

/// Makes a worktree with the files that `copy` and `link` bring from a workspace with untracked files.
fn brought(copy: &[&str], link: &[&str]) -> (Lab, Worktree, PathBuf) {
    let lab = Lab::new();
    lab.write(".gitignore", ".env*\n");
    for (name, text) in [
        (".env", "SECRET=1\n"),
        (".env.local", "SECRET=2\n"),
        ("packages/app/.env", "SECRET=3\n"),
        ("node_modules/a/index.js", "a"),
        ("node_modules/b/index.js", "b"),
        ("a.txt", "changed in the workspace\n"),
        ("run.sh", "#!/bin/sh\n"),
        (".ai_ops/worktrees/foreign/.env", "no"),
    ] {
        lab.write(name, text);
    }
    fs::set_permissions(lab.repo.join(".env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(lab.repo.join("run.sh"), fs::Permissions::from_mode(0o775)).unwrap();
    let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
    let worktree = Worktree { copy: own(copy), link: own(link), ..lab.worktree("w") };
    lab.make(&worktree);
    let path = lab.path(&worktree);
    (lab, worktree, path)
}

#[test]
fn copies_keep_their_modes() {
    let (lab, worktree, path) = brought(&["**/.env*", "run.sh"], &[]);
    copy_and_link(&lab.task(), &worktree).unwrap();
    assert_eq!(fs::read_to_string(path.join(".env")).unwrap(), "SECRET=1\n");
    assert_eq!(fs::read_to_string(path.join("packages/app/.env")).unwrap(), "SECRET=3\n");
    assert_eq!(fs::metadata(path.join(".env")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.join("run.sh")).unwrap().permissions().mode() & 0o777, 0o775);
    assert!(!path.join(".ai_ops").exists());
    // A brought file is no unsaved work until it is changed.
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default());
    fs::write(path.join("run.sh"), "mine").unwrap();
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap().work.len(), 1);
    copy_and_link(&lab.task(), &worktree).unwrap();
    assert_eq!(fs::read_to_string(path.join("run.sh")).unwrap(), "mine");
}

/// Returns how much of the worktree's content is work.
fn work(lab: &Lab, worktree: &Worktree) -> usize {
    unsaved_work(&lab.task(), worktree).unwrap().work.len()
}

#[test]
fn edit_of_a_copy_is_found_at_any_size_and_time() {
    let (lab, worktree, path) = brought(&["*.bin"], &[]);
    for (name, size) in [("small.bin", 100), ("large.bin", 200_000)] {
        lab.write(name, &"a".repeat(size));
    }
    copy_and_link(&lab.task(), &worktree).unwrap();
    for name in ["small.bin", "large.bin"] {
        let file = path.join(name);
        assert_eq!(work(&lab, &worktree), 0);
        let (copied, found) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap());
        let mut edited = copied.clone();
        edited[50] = b'b';
        let write = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            let times = fs::FileTimes::new().set_modified(found.modified().unwrap());
            fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
        };
        write(&edited);
        assert_eq!(work(&lab, &worktree), 1, "{name}");
        // Written again, it is what the workspace has, and what was copied.
        write(&copied);
        assert_eq!(work(&lab, &worktree), 0, "{name}");
    }
}

#[test]
fn a_copy_is_untouched_when_the_workspace_has_changed() {
    let (lab, worktree, path) = brought(&["*.bin"], &[]);
    let names = ["small.bin", "large.bin"];
    for (name, size) in names.into_iter().zip([100, 200_000]) {
        lab.write(name, &"a".repeat(size));
    }
    copy_and_link(&lab.task(), &worktree).unwrap();
    for name in names {
        lab.write(name, "of the workspace");
    }
    assert_eq!(work(&lab, &worktree), 0);
    assert_eq!(outdated(&lab.task(), &worktree).unwrap().len(), 2);
    // Of the large one it is not known any more whether its content is the one that was copied.
    for name in names {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(work(&lab, &worktree), 1);
    assert_eq!(outdated(&lab.task(), &worktree).unwrap().len(), 1);
    // A copied repository: other inodes and times, the same content.
    for name in names {
        let bytes = fs::read(path.join(name)).unwrap();
        fs::remove_file(path.join(name)).unwrap();
        fs::write(path.join(name), &bytes).unwrap();
        lab.write(name, std::str::from_utf8(&bytes).unwrap());
    }
    assert_eq!(work(&lab, &worktree), 0);
    assert_eq!(refresh(&lab.task(), &worktree).unwrap(), [] as [String; 0]);
}

#[test]
fn large_copies_are_refreshed_where_they_are_untouched() {
    let (lab, worktree, path) = brought(&["*.bin"], &[]);
    lab.write("large.bin", &"a".repeat(200_000));
    copy_and_link(&lab.task(), &worktree).unwrap();
    for text in ["b", "c"] {
        lab.write("large.bin", &text.repeat(200_001));
        assert_eq!(refresh(&lab.task(), &worktree).unwrap(), [] as [String; 0]);
        assert_eq!(fs::read_to_string(path.join("large.bin")).unwrap(), text.repeat(200_001));
        assert_eq!(work(&lab, &worktree), 0);
    }
    lab.write("large.bin", &"d".repeat(200_002));
    fs::write(path.join("large.bin"), "mine").unwrap();
    assert_eq!(refresh(&lab.task(), &worktree).unwrap().len(), 1);
    assert_eq!(fs::read_to_string(path.join("large.bin")).unwrap(), "mine");
    assert_eq!(work(&lab, &worktree), 1);
}

#[test]
fn links_lead_to_the_workspace() {
    let (lab, worktree, path) = brought(&[], &["node_modules", ".env"]);
    copy_and_link(&lab.task(), &worktree).unwrap();
    assert_eq!(fs::read_link(path.join("node_modules")).unwrap(), lab.repo.join("node_modules"));
    assert_eq!(fs::read_link(path.join(".env")).unwrap(), lab.repo.join(".env"));
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap(), UnsavedWork::default());
    lab.release(&worktree);
    assert_eq!(fs::read_to_string(lab.repo.join("node_modules/a/index.js")).unwrap(), "a");
}

#[test]
fn a_directory_that_the_commit_has_is_linked_file_by_file() {
    let (lab, worktree, path) = brought(&[], &["packages/"]);
    copy_and_link(&lab.task(), &worktree).unwrap();
    assert_eq!(fs::read_link(path.join("packages/app/.env")).unwrap(), lab.repo.join("packages/app/.env"));
    assert!(!path.join("packages").is_symlink());
}

#[test]
fn glob_without_a_match_is_reported() {
    let (lab, worktree, _) = brought(&["*.nothing", "no/where/**"], &[]);
    copy_and_link(&lab.task(), &worktree).unwrap();
    for literal in ["missing", "a.txt", "../outside", ""] {
        let worktree = Worktree { copy: vec![literal.into()], ..worktree.clone() };
        let error = copy_and_link(&lab.task(), &worktree).unwrap_err().to_string();
        assert!(error.contains(&format!("{literal:?}")) || literal == "../outside", "{error}");
    }
}

#[test]
fn a_link_that_the_commit_has_leads_nowhere() {
    let lab = Lab::new();
    let outside = lab.repo.join("../outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, lab.repo.join("out")).unwrap();
    lab.git(&["add", "-A"]);
    lab.git(&["commit", "-q", "-m", "link"]);
    let commit = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
    lab.git(&["rm", "-q", "out"]);
    lab.write("out/secret", "1");
    for (copy, link) in [("out/secret", ""), ("", "out/secret")] {
        let some = |glob: &str| if glob.is_empty() { Vec::new() } else { vec![glob.to_owned()] };
        let worktree =
            Worktree { commit: commit.clone(), copy: some(copy), link: some(link), ..lab.worktree("w") };
        lab.make(&worktree);
        copy_and_link(&lab.task(), &worktree).unwrap_err();
        lab.release(&worktree);
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}
