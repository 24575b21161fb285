#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use super::super::sandbox::{Sandbox, commit, inventory, own};
use super::*;
use crate::observe::{BranchNames, Query};

fn branch() -> Query {
    Query::Branch {
        repository: own(),
        base_ref: "HEAD".to_owned(),
        names: BranchNames::from_template("{{ session.name }}"),
    }
}

fn repository(sandbox: &Sandbox, workspace: &Path) -> Result<Repository, String> {
    sandbox.observe_repository_in(workspace, [commit("HEAD"), branch()]).repository.unwrap()
}

fn refused(sandbox: &Sandbox, workspace: &Path, expected: &str) {
    let reason = repository(sandbox, workspace).unwrap_err();
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(reason.lines().count(), 1, "{reason}");
}

#[test]
fn ordinary_repository_is_observed() {
    let sandbox = Sandbox::with_files(&["a"]);
    sandbox.git(&["branch", "feature/x"]);
    sandbox.git(&["tag", "v1"]);
    let branches = repository(&sandbox, &sandbox.workspace).unwrap().branches;
    assert!(branches.keys().eq(["feature/x", "main"]));
    let expected = Repository {
        root: sandbox.workspace.clone(),
        common_dir: sandbox.workspace.join(".git"),
        bare: false,
        object_format: "sha1".to_owned(),
        registration: Ok(()),
        worktree_config: false,
        branches: branches.clone(),
        worktrees: BTreeSet::new(),
    };
    assert_eq!(repository(&sandbox, &sandbox.workspace), Ok(expected));
    let unasked = sandbox.observe_repository([commit("HEAD")]).repository.unwrap().unwrap();
    assert!(unasked.branches.is_empty(), "not requested");
}

#[test]
fn a_subdirectory_and_a_linked_worktree_of_it() {
    let sandbox = Sandbox::with_files(&["a/b/c"]);
    let found = repository(&sandbox, &sandbox.workspace.join("a/b")).unwrap();
    assert_eq!(found.root, sandbox.workspace);

    let linked = sandbox.workspace.with_file_name("linked");
    sandbox.git(&["worktree", "add", "--quiet", "-b", "side", "../linked"]);
    sandbox.git_in(&linked, &["commit", "--quiet", "--allow-empty", "--message=y"]);
    let observed = sandbox.observe_repository_in(&linked.join("a"), [commit("HEAD"), commit("main")]);
    let found = observed.repository.unwrap().unwrap();
    assert_eq!(found.root, linked);
    assert_eq!(found.common_dir, sandbox.workspace.join(".git"));
    assert_eq!(found.worktrees, ["linked".to_owned()].into());
    // HEAD names the commit of the worktree, not the repository's.
    assert_ne!(observed.commits["HEAD"], observed.commits["main"]);
}

#[test]
fn a_bare_repository_and_a_worktree_of_it() {
    let sandbox = Sandbox::with_files(&["a"]);
    let bare = sandbox.workspace.with_file_name("bare.git");
    sandbox.git(&["clone", "--quiet", "--bare", ".", "../bare.git"]);
    let observed = sandbox.observe_repository_in(&bare, [commit("main")]);
    assert!(observed.commits["main"].is_ok());
    let found = observed.repository.unwrap().unwrap();
    assert_eq!((&found.root, &found.common_dir, found.bare), (&bare, &bare, true));

    sandbox.git_in(&bare, &["worktree", "add", "--quiet", "--detach", "../linked"]);
    let linked = sandbox.workspace.with_file_name("linked");
    let found = repository(&sandbox, &linked).unwrap();
    assert_eq!((&found.root, &found.common_dir, found.bare), (&linked, &bare, true));
}

#[test]
fn sha256_repository_is_observed() {
    let sandbox = Sandbox::repository(&["--object-format=sha256"]);
    let id = sandbox.commit();
    let observed = sandbox.observe_repository([commit("main")]);
    assert_eq!(observed.commits["main"].as_ref(), Ok(&id));
    assert_eq!(id.len(), 64);
    let found = observed.repository.unwrap().unwrap();
    assert_eq!((found.object_format.as_str(), found.registration), ("sha256", Ok(())));
}

#[test]
fn formats_in_which_git_itself_has_to_register_worktrees() {
    let check = |settings: &[&str], expected: &str| {
        let sandbox = Sandbox::repository(&[]);
        sandbox.git(&["config", "core.repositoryFormatVersion", "1"]);
        for setting in settings {
            sandbox.git(&["config", "--add", setting, "true"]);
        }
        let found = repository(&sandbox, &sandbox.workspace);
        let found = found.and_then(|found| found.registration).err().unwrap_or_default();
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{settings:?}: {found}");
    };
    check(&["extensions.worktreeConfig", "extensions.preciousObjects", "extensions.noop"], "");
    // Some versions of Git know these extensions, others refuse the repository because of these.
    check(&["extensions.relativeWorktrees"], "relativeworktrees");
    check(&["extensions.fromTheFuture"], "fromthefuture");
}

#[test]
fn refs_that_are_not_files() {
    let sandbox = Sandbox::new();
    let workspace = &sandbox.workspace;
    if !sandbox.try_git(workspace, &["init", "--quiet", "--ref-format=reftable"]).0 {
        return;
    }
    let id = sandbox.commit();
    let observed = sandbox.observe_repository([commit("main"), branch()]);
    assert_eq!(observed.commits["main"].as_ref(), Ok(&id));
    let found = observed.repository.unwrap().unwrap();
    assert_eq!(found.registration, Err("its refs are kept in the format `reftable`".to_owned()));
    assert_eq!(found.branches["main"].tip, id);
    assert_eq!(found.branches["main"].first_log_entry.as_ref().map(|entry| &entry.commit), Some(&id));
}

#[test]
fn a_configuration_that_may_say_more_is_read_by_git() {
    let check = |text: &str, expected: bool| assert_eq!(is_plain(text.as_bytes()), expected, "{text}");
    check("", true);
    check(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\r\n[user]\n\tname = a\n",
        true,
    );
    check("[core]\n\tBare = False\n", true);
    check("[core]\n\tbare\n", false);
    check("[core]\n\tbare = true\n", false);
    check("[core] bare = false\n", false);
    check("[core]\n\tbare = false # no\n", false);
    check("[core]\n\tsharedRepository = group\n", true);
    check("[Extensions]\n\tnoop = 1\n", false);
    check("[core] x = 1 [extensions] noop\n", false);
}

#[test]
fn worktree_settings_are_observed() {
    let sandbox = Sandbox::with_files(&["a"]);
    sandbox.git(&["config", "extensions.worktreeConfig", "true"]);
    let found = repository(&sandbox, &sandbox.workspace).unwrap();
    assert!(found.worktree_config);
    assert_eq!(found.registration, Ok(()));

    sandbox.git(&["config", "--worktree", "a.b", "c"]);
    let found = repository(&sandbox, &sandbox.workspace).unwrap();
    assert!(found.registration.unwrap_err().contains("config.worktree"));

    // A setting of the user is not a setting of the repository.
    let other = Sandbox::with_files(&["a"]);
    other.git(&["config", "--global", "extensions.worktreeConfig", "true"]);
    assert!(!repository(&other, &other.workspace).unwrap().worktree_config);
}

#[test]
fn directory_without_a_repository_is_reported() {
    let sandbox = Sandbox::new();
    refused(&sandbox, &sandbox.workspace, "is not in a git repository: run `git init`");
    let observed = sandbox.observe_repository([commit("HEAD")]);
    assert!(observed.commits.is_empty());
}

#[test]
fn inside_the_git_directory() {
    let sandbox = Sandbox::with_files(&["a"]);
    refused(&sandbox, &sandbox.workspace.join(".git"), "inside a Git directory");
}

#[test]
fn missing_git_is_an_error() {
    let mut sandbox = Sandbox::with_files(&["a"]);
    sandbox.host.environment = vec![("PATH".into(), sandbox.workspace.clone().into())];
    refused(&sandbox, &sandbox.workspace, "git is not installed, or not in PATH");
}

#[test]
fn missing_workspace_is_an_error() {
    let sandbox = Sandbox::new();
    let result =
        crate::observe::observe(&sandbox.host, &sandbox.workspace.join("none"), &[commit("HEAD")].into());
    assert!(matches!(result, Err(Error::Workspace(_))), "{result:?}");
}

#[test]
fn repository_of_another_user_is_refused() {
    let sandbox = Sandbox::with_files(&["a"]);
    let other = Some(rustix::fs::Uid::from_raw(65534));
    for path in [sandbox.workspace.clone(), sandbox.workspace.join(".git")] {
        if rustix::fs::chown(&path, other, None).is_err() {
            // Only root can change the owner of files.
            return;
        }
    }
    let workspace = sandbox.workspace.display();
    let remedy = format!("if you trust it, run `git config --global --add safe.directory {workspace}`");
    refused(&sandbox, &sandbox.workspace, &remedy);
}

#[test]
fn broken_repository_is_reported_in_one_line() {
    let sandbox = Sandbox::with_files(&["a"]);
    sandbox.write(".git/config", "[core\n");
    refused(&sandbox, &sandbox.workspace, "git cannot use the repository");
}

#[test]
fn a_reason_does_not_reach_the_terminal() {
    let sandbox = Sandbox::new();
    let workspace = sandbox.workspace.join("a\n\u{1b}[2J");
    std::fs::create_dir_all(&workspace).unwrap();
    refused(&sandbox, &workspace, "a\\n\\u{1b}[2J is not in a git repository");
}

#[test]
fn a_root_with_a_line_break() {
    let sandbox = Sandbox::new();
    let workspace = sandbox.workspace.join("a\nb");
    std::fs::create_dir_all(&workspace).unwrap();
    sandbox.git_in(&workspace, &["init", "--quiet"]);
    refused(&sandbox, &workspace, "line break");
}

#[test]
fn surrounding_repository_wins_over_the_environment() {
    let mut sandbox = Sandbox::with_files(&["a"]);
    let other = Sandbox::with_files(&["b"]);
    sandbox.host.environment.push(("GIT_DIR".into(), other.workspace.join(".git").into()));
    let found = repository(&sandbox, &sandbox.workspace).unwrap();
    assert_eq!(found.common_dir, sandbox.workspace.join(".git"));
}

#[test]
fn looking_changes_nothing() {
    let sandbox = Sandbox::with_files(&["a/b"]);
    let before = inventory(sandbox.directory.path());
    let tree = super::super::sandbox::tree("main", "a");
    sandbox.observe_repository([commit("none"), commit("HEAD"), tree]);
    assert_eq!(inventory(sandbox.directory.path()), before);
}
