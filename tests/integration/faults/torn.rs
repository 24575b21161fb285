//! Tests of files of the state and of the workspace that are empty, missing, garbage, or not files at all: no command
//! hangs, nothing is allocated twice, and nothing is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PAIR, crash, one_in, sandbox};
use crate::sandbox::{Sandbox, assert_same, ports, sessions};

/// Kinds of damage to a file.
const WAYS: [&str; 6] = ["empty", "gone", "garbage", "link", "directory", "fifo"];

fn tear(path: &Path, way: &str) {
    fs::remove_file(path).unwrap();
    match way {
        "empty" => fs::write(path, "").unwrap(),
        "gone" => {}
        "garbage" => fs::write(path, "\u{1}{garbage \u{2}").unwrap(),
        "link" => symlink("/etc/hostname", path).unwrap(),
        "directory" => fs::create_dir(path).unwrap(),
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        way => panic!("{way}"),
    }
}

/// Reverts [`tear`].
fn repair(path: &Path, content: &[u8]) {
    remove(path);
    fs::write(path, content).unwrap();
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn find(directory: &Path, matches: &dyn Fn(&str) -> bool) -> PathBuf {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                left.push(entry);
            } else if matches(entry.to_str().unwrap()) {
                found.push(entry);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A record that cannot be read stops every command that needs it. The error names the record, and nothing is changed.
#[test]
fn a_torn_record_is_named_and_nothing_is_touched() {
    for (record, crashed) in [
        ("applied.json", None),
        ("intent.json", Some((&["apply"], "apply.told#1"))),
        ("releasing.json", Some((&["destroy"], "run.torn-down#1"))),
    ] {
        let sandbox = sandbox(PAIR);
        let before = sandbox.inventory();
        if record != "intent.json" {
            sandbox.ok(&["apply"]);
        }
        if let Some((args, point)) = crashed {
            crash(&sandbox, args, point);
        }
        let path = find(&sandbox.state(), &|path| path.ends_with(record));
        let content = fs::read(&path).unwrap();
        for way in WAYS.into_iter().filter(|way| *way != "gone") {
            tear(&path, way);
            // The first run after a kill takes away who held the lock.
            sandbox.seedbed(&["recover"]);
            sandbox.unchanged(|| {
                for args in [&["apply"][..], &["destroy"], &["recover"], &["plan"], &["list"]] {
                    let outcome = sandbox.seedbed(args);
                    let is_read = match args[0] {
                        "plan" => record == "applied.json",
                        "recover" => record != "applied.json",
                        _ => true,
                    };
                    assert!(
                        args == ["list"] || !is_read || outcome.code != 0 && outcome.stderr.contains(record),
                        "{record} {way} {args:?}: {outcome:?}"
                    );
                    assert_ne!(outcome.code, 70, "{record} {way} {args:?}: {outcome:?}");
                }
            });
            repair(&path, &content);
        }
        sandbox.ok(&["recover"]);
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    }
}

/// Every other file can be lost: the swarm can still be released, and the rest of the file does no harm.
#[test]
fn a_torn_file_beside_the_records_keeps_nothing_from_going() {
    type Find = fn(&Sandbox) -> PathBuf;
    let files: [(&str, Find); 6] = [
        ("lease", |sandbox| find(&sandbox.state().join("leases"), &|path| has_extension(path, "json"))),
        ("lock file of ports", |sandbox| {
            find(&sandbox.repository.join(".ai_ops/locks"), &|path| has_extension(path, "lock"))
        }),
        ("canonical copy", |sandbox| {
            find(&sandbox.state().join("swarms"), &|path| {
                path.contains("lead") && path.ends_with("resources.json")
            })
        }),
        ("discovery file", |sandbox| sandbox.directory("lead").join(".agent-context/resources.json")),
        ("entry's HEAD", |sandbox| entry(sandbox).join("HEAD")),
        ("entry's commondir", |sandbox| entry(sandbox).join("commondir")),
    ];
    let sandbox = sandbox(PAIR);
    let before = sandbox.inventory();
    let cases = files.iter().flat_map(|file| WAYS.map(|way| (file, way)));
    for ((what, find), way) in one_in(7, cases) {
        sandbox.ok(&["apply"]);
        let path = find(&sandbox);
        tear(&path, way);
        let status = sandbox.seedbed(&["status"]);
        assert!(matches!(status.code, 0 | 1), "{what} {way}: {status:?}");
        let again = sandbox.seedbed(&["destroy", "--discard"]);
        if again.code != 0 {
            // A file that seedbed did not write belongs to another owner: it is named and kept, and nothing is
            // released until it is removed.
            assert_eq!(again.code, 1, "{what} {way}: {again:?}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(again.stderr.contains(name), "{what} {way}: {again:?}");
            remove(&path);
            sandbox.ok(&["destroy", "--discard"]);
        }
        if path.symlink_metadata().is_ok() {
            remove(&path);
            sandbox.ok(&["apply"]);
            sandbox.ok(&["destroy"]);
        }
        assert_same(&before, &sandbox.inventory());
    }
}

fn entry(sandbox: &Sandbox) -> PathBuf {
    let app = sandbox.directory("lead");
    sandbox.repository.join(".git/worktrees").join(app.parent().unwrap().file_name().unwrap())
}

/// A lock file without content never counts as free: its block is skipped, for every kind of damage.
#[test]
fn ports_whose_lock_or_lease_is_torn_are_not_granted_twice() {
    let sandbox = sandbox("[session.a]\nresources = [\"port-range\"]\n");
    let clone = sandbox.clone_to("clone");
    sandbox.ok(&["apply"]);
    let block = ports(sessions(&sandbox.plan()).next().unwrap());
    let lease = find(&sandbox.state().join("leases"), &|path| has_extension(path, "json"));
    for way in ["empty", "garbage"] {
        tear(&lease, way);
        sandbox.seedbed_in(&clone, &["apply"]).expect(0);
        let other = ports(sessions(&sandbox.plan_in(&clone)).next().unwrap());
        assert!(other.1 < block.0 || other.0 > block.1, "{way}: {block:?} {other:?}");
        sandbox.seedbed_in(&clone, &["destroy"]).expect(0);
    }
}
