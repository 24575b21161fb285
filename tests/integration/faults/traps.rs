//! Tests of hostile configuration: no command of seedbed runs a program that an agent plants in the common Git
//! directory or in its worktree (R23, R24). Filters are the exception that a checkout needs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{TREE, sandbox};
use crate::sandbox::{Outcome, Sandbox};

/// Settings whose values are programs, or paths that lead to one.
const PROGRAMS: [&str; 19] = [
    "core.fsmonitor",
    "core.sshCommand",
    "core.askPass",
    "core.pager",
    "core.editor",
    "core.gitProxy",
    "sequence.editor",
    "diff.external",
    "diff.evil.command",
    "diff.evil.textconv",
    "merge.evil.driver",
    "credential.helper",
    "gpg.program",
    "gpg.ssh.program",
    "pager.status",
    "uploadpack.packObjectsHook",
    "remote.origin.uploadpack",
    "alias.status",
    "interactive.diffFilter",
];

const HOOKS: [&str; 8] = [
    "post-checkout",
    "post-index-change",
    "reference-transaction",
    "fsmonitor-watchman",
    "pre-commit",
    "post-commit",
    "pre-auto-gc",
    "sendemail-validate",
];

/// Creates a program that records its name.
fn trap(sandbox: &Sandbox, name: &str) -> String {
    let path = sandbox.top.join(format!("trap-{name}"));
    let sprung = sandbox.top.join("sprung");
    let script = format!("#!/bin/sh\necho {name} >> '{}'\nexit 1\n", sprung.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn plant_settings(sandbox: &Sandbox, git: &[&str]) {
    for name in PROGRAMS {
        let value = trap(sandbox, name);
        sandbox.git(&[git, &["config", name, &value]].concat());
    }
    let settings = [
        ("remote.origin.url", "ext::sh -c true"),
        ("remote.origin.promisor", "true"),
        ("commit.gpgSign", "true"),
        ("log.showSignature", "true"),
        ("submodule.recurse", "true"),
        ("gc.auto", "1"),
        ("core.untrackedCache", "true"),
    ];
    for (name, value) in settings {
        sandbox.git(&[git, &["config", name, value]].concat());
    }
}

fn plant_hooks(sandbox: &Sandbox, directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    for hook in HOOKS {
        let _ = fs::remove_file(directory.join(hook));
        symlink(trap(sandbox, hook), directory.join(hook)).unwrap();
    }
}

fn sprung(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.top.join("sprung")).unwrap_or_default()
}

/// Runs every command on an applied swarm; their exit codes do not matter here.
fn every_command(sandbox: &Sandbox, inside: &Path) {
    let commands: [&[&str]; 17] = [
        &["validate"],
        &["plan"],
        &["apply", "--yes"],
        &["status"],
        &["status", "--repair"],
        &["exec", "lead", "--", "true"],
        &["env", "lead"],
        &["prompt", "lead", "hello"],
        &["list"],
        &["doctor"],
        &["explain", "lead"],
        &["recover"],
        &["init"],
        &["schema"],
        &["destroy", "--dry-run"],
        &["destroy", "lead/coder-0", "--rescue"],
        &["destroy", "--discard"],
    ];
    let run = |directory: &Path, args: &[&str]| {
        let outcome = sandbox.seedbed_in(directory, args);
        assert_ne!(outcome.code, 70, "{args:?}: {outcome:?}");
        assert_eq!(sprung(sandbox), "", "{args:?}: {outcome:?}");
        outcome
    };
    run(inside, &["whoami"]);
    for args in commands {
        run(&sandbox.repository, args);
    }
    assert_eq!(run(&sandbox.repository, &["status"]).code, 64, "something still stands");
}

#[test]
fn the_traps_are_real() {
    let sandbox = sandbox(TREE);
    plant_settings(&sandbox, &[]);
    plant_hooks(&sandbox, &sandbox.repository.join(".git/hooks"));
    let git =
        |args: &[&str]| Outcome::of(sandbox.program("git", &sandbox.repository).args(args).output().unwrap());
    git(&["-p", "status"]);
    git(&["worktree", "add", "../there"]);
    for name in ["core.fsmonitor", "post-index-change", "reference-transaction"] {
        assert!(sprung(&sandbox).contains(name), "{name} did not spring: {}", sprung(&sandbox));
    }
}

#[test]
fn programs_in_the_common_git_directory_do_not_run() {
    let sandbox = sandbox(TREE);
    plant_settings(&sandbox, &[]);
    plant_hooks(&sandbox, &sandbox.repository.join(".git/hooks"));
    let hooks = sandbox.top.join("hooks");
    plant_hooks(&sandbox, &hooks);
    sandbox.git(&["config", "core.hooksPath", hooks.to_str().unwrap()]);
    sandbox.ok(&["apply"]);
    assert_eq!(sprung(&sandbox), "");
    let lead = sandbox.directory("lead");
    fs::write(lead.join("README.md"), "changed\n").unwrap();
    fs::write(sandbox.directory("lead/coder-0").join("README.md"), "changed\n").unwrap();
    every_command(&sandbox, &lead);
}

#[test]
fn programs_in_a_worktree_do_not_run() {
    // A `.git` file that leads to a repository of the agent's own, and a whole repository in its place.
    for whole in [false, true] {
        let sandbox = sandbox(TREE);
        sandbox.ok(&["apply"]);
        let evil = sandbox.top.join("evil");
        sandbox.git(&["clone", "--quiet", ".", evil.to_str().unwrap()]);
        plant_settings(&sandbox, &["-C", evil.to_str().unwrap()]);
        plant_hooks(&sandbox, &evil.join(".git/hooks"));
        let coder = sandbox.directory("lead/coder-1");
        fs::write(coder.join(".gitattributes"), "* diff=evil merge=evil\n").unwrap();
        fs::write(coder.join("README.md"), "changed\n").unwrap();
        fs::remove_file(coder.join(".git")).unwrap();
        if whole {
            fs::rename(evil.join(".git"), coder.join(".git")).unwrap();
        } else {
            fs::write(coder.join(".git"), format!("gitdir: {}\n", evil.join(".git").display())).unwrap();
        }
        let inside = coder.clone();
        for args in
            [&["status"][..], &["plan"], &["doctor"], &["destroy", "--dry-run"], &["destroy"], &["recover"]]
        {
            let outcome = sandbox.seedbed(args);
            assert_eq!(sprung(&sandbox), "", "{args:?}: {outcome:?}");
        }
        sandbox.seedbed_in(&inside, &["whoami"]);
        // Another owner's repository is not removed either, with any option.
        sandbox.seedbed(&["destroy", "--discard"]);
        assert_eq!(sprung(&sandbox), "");
        assert!(coder.join("README.md").exists());
    }
}

#[test]
fn programs_in_worktree_settings_do_not_run() {
    let sandbox = sandbox(TREE);
    sandbox.ok(&["apply"]);
    // A sparse session has turned on settings of a worktree's own, which an agent can write to.
    let app = sandbox.directory("sparse");
    let sparse = app.parent().unwrap();
    let entry = fs::read_to_string(sparse.join(".git")).unwrap();
    let settings = Path::new(entry.trim_end().strip_prefix("gitdir: ").unwrap()).join("config.worktree");
    let mut text = fs::read_to_string(&settings).unwrap();
    let (fsmonitor, hooks) = (trap(&sandbox, "fsmonitor"), sandbox.top.join("hooks"));
    write!(text, "\tfsmonitor = {fsmonitor}\n\thooksPath = {}\n", hooks.display()).unwrap();
    fs::write(&settings, text).unwrap();
    plant_hooks(&sandbox, &sandbox.top.join("hooks"));
    fs::write(app.join("main.txt"), "changed\n").unwrap();
    every_command(&sandbox, sparse);
}
