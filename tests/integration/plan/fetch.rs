//! Tests of `--fetch`, of pull requests as bases, and of the largest age of a base.

use std::path::PathBuf;

use crate::faults::{some_of, traced_in, twice};
use crate::sandbox::Sandbox;

fn based_on(sandbox: &Sandbox, options: &str) {
    sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"git-worktree\", {options} }}]\n"));
}

/// Returns a sandbox whose remote `origin` has one commit more, a pull request, a tag and another branch.
fn with_upstream() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    based_on(&sandbox, "base-ref = \"main\"");
    let upstream = sandbox.clone_to("upstream");
    sandbox.git(&["remote", "add", "origin", "../upstream"]);
    sandbox.git(&["fetch", "--quiet", "origin"]);
    std::fs::remove_file(sandbox.repository.join(".git/FETCH_HEAD")).unwrap();
    for args in [
        &["commit", "--quiet", "--allow-empty", "--message=new"][..],
        &["update-ref", "refs/pull/7/head", "HEAD"],
        &["branch", "other"],
        &["tag", "v1"],
    ] {
        sandbox.git_in(&upstream, args);
    }
    (sandbox, upstream)
}

/// Kills `--fetch` at every point, in a clone without old commits and without most files.
#[test]
fn killed_fetch_in_a_shallow_and_partial_clone_is_repeated_by_the_next() {
    let (sandbox, upstream) = with_upstream();
    sandbox.git_in(&upstream, &["config", "uploadpack.allowFilter", "true"]);
    let (clone, address) = (sandbox.top.join("clone"), format!("file://{}", upstream.display()));
    sandbox.git(&["clone", "--quiet", "--depth=1", "--filter=blob:none", &address, clone.to_str().unwrap()]);
    based_on(&sandbox, "base-ref = \"origin/main\"");
    std::fs::copy(sandbox.repository.join("seedbed.toml"), clone.join("seedbed.toml")).unwrap();
    let tip = || sandbox.git_in(&clone, &["rev-parse", "origin/main"]);
    let old = tip();
    std::fs::write(upstream.join("new"), "new\n").unwrap();
    sandbox.git_in(&upstream, &["add", "new"]);
    sandbox.git_in(&upstream, &["commit", "--quiet", "--message=newer"]);
    let new = sandbox.git_in(&upstream, &["rev-parse", "HEAD"]);
    let fetch = |failpoint: Option<&str>| traced_in(&sandbox, &clone, &["plan", "--fetch"], failpoint);
    assert_eq!(fetch(None).outcome.code, 0);
    assert_eq!(tip(), new);
    let go_back = || sandbox.git_in(&clone, &["update-ref", "refs/remotes/origin/main", &old]);
    go_back();
    // The state directory exists now.
    let run = fetch(None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    for point in some_of(twice(&run.counts())) {
        go_back();
        fetch(Some(&format!("{point}=crash"))).crashed_at(&point);
        assert!([&old, &new].contains(&&tip()), "{point}");
        assert_eq!(fetch(None).outcome.code, 0, "{point}");
        assert_eq!(tip(), new);
        assert_eq!(scratch_directories(&sandbox), 0, "{point}");
    }
    assert_eq!(
        sandbox.git_in(&clone, &["rev-list", "--count", "origin/main"]),
        "2",
        "it is as shallow as before"
    );
    sandbox.seedbed_in(&clone, &["apply", "--yes"]).expect(0);
    sandbox.git_in(&clone, &["fsck", "--connectivity-only"]);
    sandbox.seedbed_in(&clone, &["destroy", "--yes"]).expect(0);
}

/// Returns the number of temporary repositories of fetches.
fn scratch_directories(sandbox: &Sandbox) -> usize {
    let is_scratch = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("fetch"))
    };
    std::fs::read_dir(sandbox.state())
        .map_or(0, |found| found.filter_map(|entry| is_scratch(entry).then_some(())).count())
}

#[test]
fn fetch_updates_exactly_the_named_refs_and_runs_nothing_that_the_repository_names() {
    let (sandbox, upstream) = with_upstream();
    let new = sandbox.git_in(&upstream, &["rev-parse", "HEAD"]);
    let old = sandbox.git(&["rev-parse", "origin/main"]);
    let trap = sandbox.top.join("trap");
    let touch = format!("touch {} && false", trap.display());
    for key in ["remote.origin.uploadpack", "core.sshCommand", "core.alternateRefsCommand", "core.fsmonitor"]
    {
        sandbox.git(&["config", key, &touch]);
    }
    sandbox.git(&["config", "remote.origin.vcs", "evil"]);
    sandbox.git(&["config", "protocol.ext.allow", "always"]);
    sandbox.git(&["config", "remote.evil.url", &format!("ext::touch {}", trap.display())]);

    based_on(&sandbox, "base-ref = \"origin/main\"");
    let planned = |plan: &str| plan.contains(&format!("@ {new:.10}"));
    assert!(!planned(&sandbox.ok(&["plan"]).stdout));
    let refs = sandbox.git(&["for-each-ref"]);
    let plan = sandbox.ok(&["plan", "--fetch"]).stdout;
    assert!(
        planned(&plan) && plan.contains(&format!("fetched now: moved from {old:.10} to {new:.10}")),
        "{plan}"
    );
    assert_eq!(
        sandbox.git(&["for-each-ref"]),
        refs.replace(&format!("{old} commit\trefs/remotes"), &format!("{new} commit\trefs/remotes"))
    );
    assert!(!sandbox.repository.join(".git/FETCH_HEAD").exists());
    assert!(sandbox.ok(&["plan", "--fetch"]).stdout.contains("fetched now: has not moved"));
    assert_eq!(scratch_directories(&sandbox), 0);
    assert!(!trap.exists());

    based_on(&sandbox, "base-ref = \"evil/main\"");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["plan", "--fetch"]).expect(69));
    refused.says(&["cannot fetch evil/main from the remote `evil`", "'ext' not allowed"]);
    assert!(!trap.exists());
    // Without a network, nothing is planned.
    std::fs::rename(&upstream, sandbox.top.join("gone")).unwrap();
    based_on(&sandbox, "base-ref = \"origin/main\"");
    for command in ["plan", "apply"] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(&[command, "--fetch"]).expect(69));
        refused.says(&["cannot fetch origin/main from the remote `origin`", "without `--fetch`"]);
    }
    // A ref that follows no remote needs none.
    based_on(&sandbox, "base-ref = \"main\"");
    sandbox.ok(&["plan", "--fetch"]);
}

#[test]
fn pull_request_is_a_base_once_it_was_fetched() {
    let (sandbox, upstream) = with_upstream();
    let new = sandbox.git_in(&upstream, &["rev-parse", "HEAD"]);
    for (base_ref, full) in [("pull/7", "refs/pull/7"), ("origin/pull/7", "refs/remotes/origin/pull/7")] {
        based_on(&sandbox, &format!("base-ref = \"{base_ref}\""));
        let unknown = sandbox.unchanged(|| sandbox.seedbed(&["plan"]).expect(65));
        unknown.says(&[&format!("`seedbed plan --fetch` fetches `{base_ref}`")]);
        let plan = sandbox.ok(&["plan", "--fetch"]).stdout;
        assert!(plan.contains(&format!("{base_ref} @ {new:.10}")), "{plan}");
        assert_eq!(sandbox.git(&["rev-parse", full, base_ref]), format!("{new}\n{new}"));
    }
    sandbox.ok(&["apply"]);
    assert_eq!(sandbox.git_in(&sandbox.directory("a"), &["rev-parse", "HEAD"]), new);
    sandbox.ok(&["destroy"]);
    based_on(&sandbox, "base-ref = \"pull/8\"");
    sandbox.seedbed(&["plan", "--fetch"]).expect(69).says(&["cannot fetch pull/8", "refs/pull/8/head"]);
}

#[test]
fn base_that_is_too_old_is_refused_until_it_was_fetched() {
    let (sandbox, upstream) = with_upstream();
    for args in [
        &["reset", "--quiet", "--hard", "HEAD~1"][..],
        &["commit", "--quiet", "--allow-empty", "--message=old", "--date=2020-01-01T00:00:00Z"],
        &["rebase", "--quiet", "--force-rebase", "--committer-date-is-author-date", "HEAD~1"],
    ] {
        sandbox.git_in(&upstream, args);
    }
    sandbox.git(&["fetch", "--quiet", "--no-write-fetch-head", "origin"]);
    sandbox.git(&["branch", "--quiet", "--track", "local", "origin/main"]);
    std::fs::remove_dir_all(sandbox.repository.join(".git/logs")).unwrap();
    let refused = |options: &str, parts: &[&str]| {
        based_on(&sandbox, options);
        for command in ["validate", "plan", "apply"] {
            let printed = sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(65)).stderr;
            let words = printed.replace('│', "").split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(parts.iter().all(|part| words.contains(part)), "{printed}");
        }
    };
    refused(
        "base-ref = \"local\", max-base-age = \"1d\"",
        &["`local` is older than 1d", "`base-ref = \"origin/main\"`", "`seedbed plan --fetch`"],
    );
    refused(
        "base-ref = \"origin/main\", max-base-age = \"1d\"",
        &["`origin/main` is older than 1d", "last fetch of origin/main is unknown", "`seedbed plan --fetch`"],
    );
    sandbox.ok(&["apply", "--fetch"]);
    // An active session keeps its base.
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.ok(&["destroy"]);
    refused("base-ref = \"main\", max-base-age = \"soon\"", &["max-base-age", "12h"]);
    based_on(&sandbox, "base-ref = \"main\", max-base-age = \"90000w\"");
    sandbox.ok(&["plan"]);
}
