#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use std::os::unix::fs::PermissionsExt as _;

use super::super::sandbox::{Sandbox, commit, own};
use super::*;
use crate::observe::Query;

fn check(sandbox: &Sandbox, name: &str) -> Result<Commit, UnknownRef> {
    sandbox.observe_repository([commit(name)]).commits[name].clone()
}

#[test]
fn refs_of_every_sort() {
    let sandbox = Sandbox::with_files(&["a"]);
    let first = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.git(&["tag", "-a", "-m", "t", "v1"]);
    let second = sandbox.commit();
    sandbox.git(&["branch", "feature/x"]);
    for (name, expected) in [
        ("v1", &first),
        ("refs/tags/v1", &first),
        ("HEAD~1", &first),
        (&first[..12], &first),
        (first.as_str(), &first),
        ("HEAD", &second),
        ("main", &second),
        ("@", &second),
        ("feature/x", &second),
        ("refs/heads/main", &second),
    ] {
        assert_eq!(check(&sandbox, name).as_ref(), Ok(expected), "{name}");
    }
}

#[test]
fn hostile_names_name_nothing() {
    let sandbox = Sandbox::with_files(&["a"]);
    let id = sandbox.git(&["rev-parse", "HEAD"]);
    let range = format!("{id}..{id}");
    let names = [
        "",
        "-",
        "-f",
        "-b",
        "-x",
        "--",
        "--all",
        "--lock",
        "--orphan",
        "--stdin",
        "--git-dir",
        "--end-of-options",
        "--verify",
        "HEAD\n",
        "\nHEAD",
        "HEAD\0",
        "HEAD\u{1b}[2J",
        "HEAD\u{9b}",
        "main..main",
        "main...main",
        "^main",
        "main --",
        "main HEAD",
        "HEAD:",
        "HEAD:a",
        "HEAD^{tree}",
        "HEAD^@",
        "HEAD^!",
        ".",
        "..",
        "/",
        "a",
        "*",
        "m*",
        ":/",
        ":a",
        "@{-1}",
        &range,
        "0000000000000000000000000000000000000000",
    ];
    let observed = sandbox.observe_repository(names.map(commit));
    assert_eq!(observed.commits.len(), names.len());
    for (name, result) in observed.commits {
        assert!(result.is_err(), "{name:?}: {result:?}");
    }
}

#[test]
fn a_branch_that_looks_like_an_option_is_still_none() {
    let sandbox = Sandbox::with_files(&["a"]);
    sandbox.git(&["update-ref", "refs/heads/-f", "HEAD"]);
    assert!(check(&sandbox, "-f").is_err());
    assert!(check(&sandbox, "refs/heads/-f").is_ok());
}

#[test]
fn near_misses_come_from_branches_tags_and_remotes() {
    let sandbox = Sandbox::with_files(&["a"]);
    sandbox.git(&["tag", "v1.0"]);
    sandbox.git(&["update-ref", "refs/remotes/origin/feature", "HEAD"]);
    let near = |name| check(&sandbox, name).unwrap_err().near;
    assert_eq!(near("mian"), ["main"]);
    assert_eq!(near("v1.1"), ["v1.0"]);
    assert_eq!(near("feature"), ["origin/feature"]);
    assert_eq!(near("something-else"), [""; 0]);
    assert_eq!(check(&sandbox, "mian").unwrap_err().reason, "it names no commit");
}

#[test]
fn missing_main_branch_is_answered_with_the_usual_names_that_exist() {
    let sandbox = Sandbox::with_files(&["a"]);
    for branch in ["trunk", "develop", "unrelated"] {
        sandbox.git(&["branch", branch]);
    }
    assert_eq!(check(&sandbox, "master").unwrap_err().near, ["main", "trunk", "develop"]);
    sandbox.git(&["branch", "--move", "main", "master"]);
    assert_eq!(check(&sandbox, "main").unwrap_err().near, ["master", "trunk", "develop"]);
}

#[test]
fn repository_without_commits_is_reported() {
    let sandbox = Sandbox::repository(&[]);
    for name in ["HEAD", "main", "-f"] {
        let unknown = check(&sandbox, name).unwrap_err();
        assert!(unknown.reason.contains("no commits yet"), "{}", unknown.reason);
        assert_eq!(unknown.near, [""; 0]);
    }
    assert!(sandbox.observe_repository([commit("HEAD")]).repository.unwrap().is_ok());
}

#[test]
fn many_refs_are_each_answered() {
    let sandbox = Sandbox::with_files(&["a"]);
    let observed = sandbox.observe_repository(["main", "HEAD", "none", "nothing"].map(commit));
    let known: Vec<bool> = observed.commits.values().map(Result::is_ok).collect();
    assert_eq!(known, [true, true, false, false]);
}

/// Replaces Git by a script that adds a line to a file for each start, and returns the file.
fn counted(sandbox: &mut Sandbox) -> std::path::PathBuf {
    let bin = sandbox.directory.path().join("bin");
    let count = sandbox.directory.path().join("count");
    std::fs::create_dir(&bin).unwrap();
    let (_, path) = sandbox.host.environment.iter_mut().find(|(name, _)| name == "PATH").unwrap();
    let real = std::env::split_paths(path).map(|directory| directory.join("git")).find(|git| git.is_file());
    let script =
        format!("#!/bin/sh\necho x >> {}\nexec {} \"$@\"\n", count.display(), real.unwrap().display());
    std::fs::write(bin.join("git"), script).unwrap();
    std::fs::set_permissions(bin.join("git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut with = bin.into_os_string();
    with.push(":");
    with.push(&*path);
    *path = with;
    count
}

#[test]
fn number_of_processes_does_not_depend_on_the_number_of_refs() {
    let mut sandbox = Sandbox::with_files(&["a"]);
    let id = sandbox.git(&["rev-parse", "HEAD"]);
    for at in 0..20 {
        sandbox.git(&["branch", &format!("b{at}")]);
    }
    let count = counted(&mut sandbox);
    let names: Vec<String> = (0..20).map(|at| format!("b{at}")).collect();
    let queries = |name: &String| {
        // The query that every worktree asks.
        let path = ".agent-context".to_owned();
        [commit(name), Query::Tree { repository: own(), base_ref: name.clone(), path, required: false }]
    };
    let observed = sandbox.observe_repository(names.iter().flat_map(queries));
    assert!(names.iter().all(|name| observed.commits[name] == Ok(id.clone())));
    assert_eq!(observed.trees.len(), 20);
    let started = std::fs::read_to_string(&count).unwrap().lines().count();
    assert_eq!(started, 4, "its version, where the repository is, its permissions, the refs");
}
