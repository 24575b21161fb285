//! Tests of the permissions of worktrees in repositories that several users share.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::sandbox::{Sandbox, assert_same};

const TWO: &str =
    "[session.s]\ncount = 2\nresources = [{ kind = \"git-worktree\", branch = \"b/{{ session.name }}\" }]\n";

/// Returns the modes of a directory and of all paths below it, except files that only Git or seedbed writes.
fn modes(top: &Path) -> BTreeMap<String, u32> {
    let own = [".agent-context", ".git/info", "seedbed", "locked", "ORIG_HEAD"];
    let mut found = BTreeMap::new();
    let mut ahead = vec![top.to_owned()];
    while let Some(path) = ahead.pop() {
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if own.contains(&name.as_str()) {
            continue;
        }
        if metadata.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(name, metadata.permissions().mode() & 0o7777);
    }
    found
}

/// Checks that worktrees and their admin directories get the modes that Git gives, one after another if it `is_shared`.
fn check_modes(sandbox: &Sandbox, is_shared: bool, name: &str) {
    let plan = sandbox.ok(&["plan"]).stdout;
    sandbox.ok(&["apply"]);
    sandbox.git(&["worktree", "add", "--quiet", "--detach", "../gits"]);
    let repository = &sandbox.repository;
    let git = [modes(&repository.join("../gits")), modes(&repository.join(".git/worktrees/gits"))];
    for session in ["s-0", "s-1"] {
        let worktree = sandbox.directory(session);
        let admin = sandbox.git_in(&worktree, &["rev-parse", "--absolute-git-dir"]);
        assert_eq!([modes(&worktree), modes(Path::new(&admin))], git, "{name}: {session}");
        sandbox.assert_clean(&worktree);
    }
    assert_eq!(plan.contains("one after another"), is_shared, "{name}: {plan}");
    sandbox.git(&["worktree", "remove", "--force", "../gits"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn worktrees_have_the_modes_of_git_in_a_shared_repository() {
    let sandbox = Sandbox::new();
    sandbox.write("tools/deep/run", "#!/bin/sh\n");
    fs::set_permissions(sandbox.repository.join("tools/deep/run"), fs::Permissions::from_mode(0o755))
        .unwrap();
    sandbox.commit("a tool");
    sandbox.manifest(TWO);
    for setting in ["umask", "group", "all", "0640", "0660"] {
        sandbox.git(&["config", "core.sharedRepository", setting]);
        check_modes(&sandbox, setting != "umask", setting);
    }
}

/// Git regards the setting in the user's configuration, and in a file that the repository's includes.
#[test]
fn worktrees_have_the_modes_of_git_where_another_file_shares_the_repository() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.git(&["config", "--global", "core.sharedRepository", "group"]);
    check_modes(&sandbox, true, "the user's");
    sandbox.git(&["config", "--global", "--unset", "core.sharedRepository"]);
    sandbox.write(".git/more", "[core]\n\tsharedRepository = all\n");
    sandbox.git(&["config", "include.path", "more"]);
    check_modes(&sandbox, true, "an included one");
}

/// Files that existed before a setting keep their modes.
#[test]
fn worktrees_stay_as_they_are_when_a_repository_becomes_shared() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    sandbox.git(&["config", "core.sharedRepository", "group"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn a_replacement_that_is_rolled_back_keeps_the_modes_of_a_shared_repository() {
    let sandbox = Sandbox::new();
    sandbox.git(&["config", "core.sharedRepository", "group"]);
    let session = |rest: &str| {
        let worktree = "{ kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }";
        sandbox.manifest(&format!(
            "[session.other]\nresources = [{worktree}]\n[session.coder]\nresources = [{worktree}]\n{rest}"
        ));
    };
    session("");
    sandbox.ok(&["apply"]);
    fs::rename(sandbox.directory("coder"), sandbox.top.join("moved")).unwrap();
    session("setup = [\"false\"]\n");
    let before = sandbox.inventory();
    sandbox.seedbed(&["apply", "--yes", "--discard"]).expect(1).says(&["rolled back"]);
    assert_same(&before, &sandbox.inventory());
}
