//! Tests of files that Git would wait for: a FIFO, a device, a directory or a socket at the path of a Git file, created
//! by any process that can write to the Git directory. No command waits for the file, each command names its path, and
//! no other process's file is changed because of it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{one_in, sandbox};
use crate::sandbox::{Outcome, Sandbox, assert_same, send};

const TWO: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", target-path = "app", branch = "agents/lead" }]
[session.other]
resources = ["git-worktree"]
"#;

/// File types that are planted.
const KINDS: [&str; 4] = ["FIFO", "directory", "socket", "device"];

/// Maximum duration of a command; far longer than it takes, and far shorter than the deadline that Git has here.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs seedbed with a deadline for Git that is never reached, and expects that seedbed ends by itself.
#[track_caller]
fn ended(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let mut command = sandbox.command(args);
    command.env("SEEDBED_GIT_TIMEOUT", "100000").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let begun = Instant::now();
    while run.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            // It takes its git along.
            send(Signal::TERM, &run);
            let said = Outcome::of(run.wait_with_output().unwrap());
            panic!("{args:?} waited for what never comes: {said:?}");
        }
        thread::sleep(Duration::from_millis(3));
    }
    Outcome::of(run.wait_with_output().unwrap())
}

/// File of another type at the path of a file, until it is dropped.
struct Planted {
    path: PathBuf,
    aside: PathBuf,
}

impl Planted {
    /// Plants the file; `None` if this user may not create it.
    fn new(sandbox: &Sandbox, path: PathBuf, kind: &str) -> Option<Self> {
        let aside = sandbox.top.join("aside");
        let _ = fs::rename(&path, &aside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let make = |program: &str, args: &[&str]| {
            let mut make = Command::new(program);
            make.arg(&path).args(args).stderr(Stdio::null()).status().unwrap().success()
        };
        let stands = match kind {
            "FIFO" => make("mkfifo", &[]),
            "directory" => fs::create_dir(&path).is_ok(),
            // Its own path may be longer than a socket's can be.
            "socket" => {
                let short = sandbox.top.join("socket");
                UnixListener::bind(&short).is_ok() && fs::rename(short, &path).is_ok()
            }
            // That of /dev/zero.
            _ => make("mknod", &["c", "1", "5"]),
        };
        let planted = Self { path, aside };
        stands.then_some(planted)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.path);
        let _ = fs::rename(&self.aside, &self.path);
    }
}

/// Plants one kind after the other.
fn for_each_kind(sandbox: &Sandbox, path: &Path, check: impl Fn(&str)) {
    for kind in KINDS {
        match Planted::new(sandbox, path.to_owned(), kind) {
            Some(_planted) => check(kind),
            None => eprintln!("NOT TESTED: this user may not make a {kind}"),
        }
    }
}

fn worktree(sandbox: &Sandbox) -> PathBuf {
    sandbox.directory("lead").parent().unwrap().to_owned()
}

fn entry(sandbox: &Sandbox) -> PathBuf {
    let worktree = worktree(sandbox);
    sandbox.repository.join(".git/worktrees").join(worktree.file_name().unwrap())
}

/// Expects that the command names the file and does not wait for it.
#[track_caller]
fn names(sandbox: &Sandbox, args: &[&str], code: i32, path: &Path, kind: &str) {
    let outcome = ended(sandbox, args);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    // A message about a line of the manifest is broken into lines.
    let said: String = said.split_whitespace().filter(|word| *word != "│").collect();
    let name = path.strip_prefix(&sandbox.top).unwrap();
    assert!(said.contains(name.to_str().unwrap()), "{args:?}, a {kind} at {}: {outcome:?}", path.display());
    assert_eq!(outcome.code, code, "{args:?}, a {kind} at {}: {outcome:?}", path.display());
}

#[test]
#[ignore = "`every_case` runs it"]
fn fifo_in_a_worktree_blocks_only_that_session_in_every_case() {
    let sandbox = sandbox(TWO);
    let clean = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let stood = sandbox.inventory();
    let (entry, worktree) = (entry(&sandbox), worktree(&sandbox));
    let of_admin_directory =
        ["HEAD", "index", "commondir", "gitdir", "config.worktree"].map(|name| entry.join(name));
    for path in &one_in(3, of_admin_directory.clone()) {
        for_each_kind(&sandbox, path, |kind| {
            names(&sandbox, &["status"], 0, path, kind);
            names(&sandbox, &["destroy", "--dry-run"], 69, path, kind);
            names(&sandbox, &["destroy", "lead"], 69, path, kind);
            if kind == "FIFO" {
                names(&sandbox, &["destroy", "lead", "--rescue"], 69, path, kind);
                for args in
                    [&["plan"][..], &["doctor"], &["validate"], &["recover"], &["list"], &["env", "lead"]]
                {
                    ended(&sandbox, args);
                }
                ended(&sandbox, &["destroy", "other", "--dry-run"]).expect(0);
                ended(&sandbox, &["apply"]).expect(69);
            }
        });
        assert_same(&stood, &sandbox.inventory());
    }
    // Git is ended as soon as it waits for these; it does not open all of them for each command.
    let others = [
        entry.join("logs/HEAD"),
        entry.join("rebase-merge/head-name"),
        worktree.join("app/.gitignore"),
        worktree.join("app/.gitattributes"),
    ];
    for path in &others {
        let Some(planted) = Planted::new(&sandbox, path.clone(), "FIFO") else { continue };
        names(&sandbox, &["status"], 0, path, "FIFO");
        names(&sandbox, &["destroy", "lead"], 69, path, "FIFO");
        // A rescue reads neither the name of a rebased branch nor the attributes of files without changes.
        if path.ends_with("logs/HEAD") || path.ends_with(".gitignore") {
            names(&sandbox, &["destroy", "lead", "--rescue"], 69, path, "FIFO");
        }
        drop(planted);
        let _ = fs::remove_dir(entry.join("rebase-merge"));
        assert_same(&stood, &sandbox.inventory());
    }
    // Discarded sessions are released, regardless of their files; a session that has lost its pointer is recognised by
    // its admin directory.
    for path in one_in(5, of_admin_directory.iter().chain(&others).chain(&[worktree.join(".git")])) {
        let planted = Planted::new(&sandbox, path.clone(), "FIFO").unwrap();
        ended(&sandbox, &["status"]).expect(0);
        ended(&sandbox, &["destroy", "lead", "--discard"]).expect(0);
        assert!(!worktree.exists() && !entry.exists(), "{}", path.display());
        std::mem::forget(planted);
        ended(&sandbox, &["apply"]).expect(0);
    }
    // A pointer that is none loses nothing: the files are looked at by the entry.
    for kind in KINDS {
        let path = worktree.join(".git");
        let Some(planted) = Planted::new(&sandbox, path.clone(), kind) else { continue };
        names(&sandbox, &["status"], 0, &worktree, kind);
        if kind == "directory" {
            // The directory may be another owner's repository.
            ended(&sandbox, &["destroy", "lead", "--dry-run"]);
            drop(planted);
            continue;
        }
        fs::write(worktree.join("app/work.txt"), "work\n").unwrap();
        ended(&sandbox, &["destroy", "lead"]).expect(69).says(&["1 untracked"]);
        fs::remove_file(worktree.join("app/work.txt")).unwrap();
        ended(&sandbox, &["destroy", "lead"]).expect(0);
        std::mem::forget(planted);
        assert!(!worktree.exists());
        ended(&sandbox, &["apply"]).expect(0);
    }
    sandbox.ok(&["destroy"]);
    assert_same(&clean, &sandbox.inventory());
}

#[test]
#[ignore = "`every_case` runs it"]
fn fifo_in_the_repository_is_named_before_any_change_in_every_case() {
    let sandbox = sandbox(TWO);
    let clean = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let stood = sandbox.inventory();
    let git = sandbox.repository.join(".git");
    let check = |path: &Path, kind: &str| {
        sandbox.manifest(&format!(
            "{TWO}[session.more]\nresources = [{{ kind = \"git-worktree\", base-ref = \"main~0\" }}]\n"
        ));
        names(&sandbox, &["plan"], 65, path, kind);
        names(&sandbox, &["apply"], 65, path, kind);
        sandbox.manifest(TWO);
        names(&sandbox, &["status"], 0, path, kind);
        names(&sandbox, &["destroy", "--dry-run"], 69, path, kind);
        for args in [&["destroy"][..], &["destroy", "--rescue"], &["destroy", "--discard"]] {
            names(&sandbox, args, 1, path, kind);
        }
        names(&sandbox, &["doctor"], 1, path, kind);
    };
    for name in ["info/exclude", "info/sparse-checkout", "packed-refs"] {
        let path = git.join(name);
        for_each_kind(&sandbox, &path, |kind| check(&path, kind));
        assert_same(&stood, &sandbox.inventory());
    }
    for name in ["config", "HEAD", "shallow", "commondir"] {
        let path = git.join(name);
        let planted = Planted::new(&sandbox, path.clone(), "FIFO").unwrap();
        check(&path, "FIFO");
        drop(planted);
        let _ = fs::remove_dir(path.parent().unwrap());
        assert_same(&stood, &sandbox.inventory());
    }
    // A link leads to it as well.
    let exclude = git.join("info/exclude");
    let text = fs::read(&exclude).unwrap();
    fs::remove_file(&exclude).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &exclude).unwrap();
    check(&exclude, "link to a device");
    fs::remove_file(&exclude).unwrap();
    fs::write(&exclude, text).unwrap();
    sandbox.ok(&["destroy"]);
    assert_same(&clean, &sandbox.inventory());
}

/// A session cannot make a command inside it wait with a file at the path of its discovery file.
#[test]
fn fifo_for_a_discovery_file_is_not_waited_for() {
    let sandbox = sandbox(TWO);
    sandbox.ok(&["apply"]);
    let lead = sandbox.directory("lead");
    let planted = Planted::new(&sandbox, lead.join(".agent-context/resources.json"), "FIFO").unwrap();
    for args in [["whoami"], ["status"], ["plan"]] {
        let args = [&args[..], &["-C", lead.to_str().unwrap()]].concat();
        ended(&sandbox, &args);
    }
    drop(planted);
    sandbox.ok(&["destroy"]);
}
