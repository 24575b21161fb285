//! Tests of `rescue restore --into SESSION`: the work is in the session, and nothing that the session has is lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::sandbox::{Outcome, Sandbox};

const ONE: &str = "[session.coder]\nresources = [{ kind = \"git-worktree\", branch = \"agents/coder\" }]\n";

/// Does work of every kind in a worktree: staged, changed after that, not staged, deleted, executable, a link, untracked.
fn work(sandbox: &Sandbox, directory: &Path) {
    fs::write(directory.join("README.md"), "staged\n").unwrap();
    fs::write(directory.join("new staged.txt"), "new\n").unwrap();
    sandbox.git_in(directory, &["add", "README.md", "new staged.txt"]);
    fs::write(directory.join("README.md"), "changed after that\n").unwrap();
    fs::create_dir_all(directory.join("deep/er")).unwrap();
    fs::write(directory.join("deep/er/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(directory.join("deep/er/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../README.md", directory.join("deep/link")).unwrap();
    fs::remove_file(directory.join("app/main.txt")).unwrap();
}

/// Returns what a user sees of a worktree: the status, the staged changes, and every file with its content.
fn seen(sandbox: &Sandbox, directory: &Path) -> String {
    let status = sandbox.git_in(directory, &["status", "--porcelain", "--untracked-files=all"]);
    let staged = sandbox.git_in(directory, &["diff", "--cached"]);
    let changed = sandbox.git_in(directory, &["diff"]);
    let others = sandbox.git_in(directory, &["ls-files", "--others", "--exclude-standard"]);
    let content = |path: &str| {
        let path = directory.join(path);
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        format!("{mode:o} {:?} {:?}", fs::read(&path).unwrap(), fs::read_link(&path).ok())
    };
    let others: Vec<_> = others.lines().map(|path| format!("{path}: {}", content(path))).collect();
    format!("{status}\n{staged}\n{changed}\n{}", others.join("\n"))
}

/// Returns a sandbox with a session whose work was rescued, the rescue's name, and what was seen of the work.
fn rescued(manifest: &str, work: impl Fn(&Sandbox, &Path)) -> (Sandbox, String, String) {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.repository.join("app")).unwrap();
    fs::write(sandbox.repository.join("app/main.txt"), "main\n").unwrap();
    fs::write(sandbox.repository.join("other.txt"), "other\n").unwrap();
    sandbox.git(&["add", "app", "other.txt"]);
    sandbox.git(&["commit", "-qm", "more files"]);
    sandbox.manifest(manifest);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder");
    work(&sandbox, &directory);
    let before = seen(&sandbox, &directory);
    let printed = sandbox.ok(&["destroy", "--rescue"]).stdout;
    let name =
        printed.lines().find_map(|line| line.strip_prefix("seedbed rescue restore ")).expect("a command");
    let name = name.trim_end().to_owned();
    sandbox.ok(&["apply"]);
    (sandbox, name, before)
}

fn restore<'a>(name: &'a str, into: &'a str) -> [&'a str; 5] {
    ["rescue", "restore", name, "--into", into]
}

#[test]
fn rescue_is_restored_in_a_session_as_it_was() {
    let (sandbox, name, before) = rescued(ONE, work);
    let directory = sandbox.directory("coder");
    let mut shell = sandbox.program("sleep", &directory).arg("1000").spawn().unwrap();
    let outcome =
        sandbox.ok(&restore(&name, "coder")).says(&["restored 5 files in coder (branch agents/coder)"]);
    assert_eq!(outcome.stdout.trim_end(), directory.to_str().unwrap());
    assert_eq!(seen(&sandbox, &directory), before);
    // Once more, by the session's id, and for programs.
    let document = sandbox.ok(&[&restore(&name, "shop/coder")[..], &["--json"]].concat()).json();
    assert_eq!((&document["session"], &document["action"]), (&"coder".into(), &"restored".into()));
    assert_eq!(seen(&sandbox, &directory), before);
    shell.kill().unwrap();
    shell.wait().unwrap();
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn rescue_is_restored_beside_other_work_of_the_session() {
    let (sandbox, name, before) = rescued(ONE, work);
    let directory = sandbox.directory("coder");
    // The session has gone on: a commit, and changes in other files. It is on another branch.
    sandbox.git_in(&directory, &["switch", "-qc", "side"]);
    fs::write(directory.join("committed.txt"), "committed\n").unwrap();
    sandbox.git_in(&directory, &["add", "committed.txt"]);
    sandbox.git_in(&directory, &["commit", "-qm", "goes on"]);
    fs::write(directory.join("other.txt"), "mine\n").unwrap();
    fs::write(directory.join("mine.txt"), "mine\n").unwrap();
    sandbox.git_in(&directory, &["add", "mine.txt"]);
    sandbox.ok(&restore(&name, "coder")).says(&["restored 5 files in coder (branch side)"]);
    assert_eq!(fs::read_to_string(directory.join("other.txt")).unwrap(), "mine\n");
    sandbox.git_in(&directory, &["rm", "-q", "--cached", "mine.txt"]);
    fs::remove_file(directory.join("mine.txt")).unwrap();
    sandbox.git_in(&directory, &["restore", "other.txt"]);
    assert_eq!(seen(&sandbox, &directory), before);
}

#[test]
fn restore_in_a_session_is_refused_for_paths_that_the_session_has_changed() {
    let (sandbox, name, _) = rescued(ONE, work);
    let directory = sandbox.directory("coder");
    let changes: [(&str, &dyn Fn()); 6] = [
        ("README.md", &|| fs::write(directory.join("README.md"), "mine\n").unwrap()),
        ("new staged.txt", &|| fs::write(directory.join("new staged.txt"), "mine\n").unwrap()),
        ("deep/er/run.sh", &|| fs::write(directory.join("deep"), "a file\n").unwrap()),
        ("deep/link", &|| symlink(&sandbox.top, directory.join("deep")).unwrap()),
        ("app/main.txt", &|| fs::write(directory.join("app/main.txt"), "mine\n").unwrap()),
        ("README.md", &|| {
            fs::write(directory.join("README.md"), "mine\n").unwrap();
            sandbox.git_in(&directory, &["commit", "-qam", "mine"]);
        }),
    ];
    for (path, change) in changes {
        change();
        sandbox.unchanged(|| {
            sandbox.seedbed(&restore(&name, "coder")).expect(69).says(&[
                "differs from the commit that the rescue was made from in",
                path,
                "nothing was changed",
            ]);
        });
        sandbox.git_in(&directory, &["reset", "-q", "--hard"]);
        sandbox.git_in(&directory, &["clean", "-fdq"]);
    }
    sandbox.git_in(&directory, &["reset", "-q", "--hard", "HEAD^"]);
    sandbox.ok(&restore(&name, "coder"));
}

#[test]
fn restore_in_a_session_names_the_commits_that_it_lacks() {
    let (sandbox, name, before) =
        rescued("[session.coder]\nresources = [\"git-worktree\"]\n", |sandbox, directory| {
            fs::write(directory.join("committed.txt"), "committed\n").unwrap();
            sandbox.git_in(directory, &["add", "committed.txt"]);
            sandbox.git_in(directory, &["commit", "-qm", "on no branch"]);
            work(sandbox, directory);
        });
    let directory = sandbox.directory("coder");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&restore(&name, "coder")).expect(69));
    refused.says(&["lacks 1 commit of the rescue", "merge --ff-only"]);
    let commit = sandbox.git(&["rev-parse", &format!("refs/seedbed/rescue/{name}^1")]);
    sandbox.git_in(&directory, &["merge", "-q", "--ff-only", &commit]);
    sandbox.ok(&restore(&name, "coder"));
    assert_eq!(seen(&sandbox, &directory), before);
}

#[test]
fn restore_in_a_session_waits_for_operations_and_interrupted_runs() {
    let (sandbox, name, _) = rescued(ONE, work);
    let directory = sandbox.directory("coder");
    sandbox.git_in(&directory, &["bisect", "start"]);
    sandbox
        .unchanged(|| sandbox.seedbed(&restore(&name, "coder")).expect(69).says(&["middle of a bisection"]));
    let bisected = sandbox.ok(&["destroy", "--rescue"]).stdout;
    let bisected = bisected.lines().find_map(|line| line.strip_prefix("seedbed rescue restore ")).unwrap();
    sandbox.ok(&["apply"]);
    sandbox.unchanged(|| {
        let refused = sandbox.seedbed(&restore(bisected, "coder")).expect(69);
        refused.says(&["the rescue is in the middle of a bisection", "without `--into`"]);
        // Anything that is no session is a directory, as ever.
        sandbox.seedbed(&restore(&name, ".")).expect(69).says(&["exists, and nothing is overwritten"]);
    });
    let mut destroy = sandbox.command(&["destroy"]);
    Outcome::of(destroy.env("SEEDBED_FAILPOINT", "run.intended=crash").output().unwrap()).expect(137);
    let before = seen(&sandbox, &directory);
    sandbox.seedbed(&restore(&name, "coder")).expect(75).says(&["seedbed recover"]);
    assert_eq!(seen(&sandbox, &directory), before);
}

#[test]
fn restore_in_a_session_of_another_repository_is_refused() {
    let (sandbox, name, _) = rescued(ONE, work);
    let clone = sandbox.top.join("clone");
    sandbox.git(&["clone", "-q", "--mirror", ".", clone.to_str().unwrap()]);
    let manifest = sandbox.repository.join("seedbed.toml");
    let args = [&restore(&name, "coder")[..], &["-f", manifest.to_str().unwrap()]].concat();
    sandbox.unchanged(|| sandbox.seedbed_in(&clone, &args).expect(69).says(&["is a worktree of"]));
}

/// Kills a restore between two files; the same restore continues, also after a recovery.
fn continued(manifest: &str, recovers: bool) {
    let (sandbox, name, before) = rescued(manifest, work);
    let directory = sandbox.directory("coder");
    let mut command = sandbox.command(&restore(&name, "coder"));
    Outcome::of(command.env("SEEDBED_FAILPOINT", "restore.file#2=crash").output().unwrap()).expect(137);
    assert_ne!(seen(&sandbox, &directory), before);
    if recovers {
        sandbox.ok(&["recover"]);
    }
    sandbox.ok(&restore(&name, "coder"));
    assert_eq!(seen(&sandbox, &directory), before);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn killed_restore_in_a_session_is_continued() {
    continued(ONE, true);
}

#[test]
fn rescue_is_restored_in_an_overlay() {
    let manifest = ONE.replace(" }", ", checkout = \"overlay\" }");
    let sandbox = Sandbox::new();
    sandbox.manifest(&manifest);
    if !sandbox.can_mount() {
        return eprintln!("NOT TESTED: overlays cannot be mounted here");
    }
    continued(&manifest, false);
}
