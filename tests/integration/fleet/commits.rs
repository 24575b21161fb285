//! Tests of commits that a host lacks: it gets them in one bundle, and its own refs stay as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Hosts, fleet};
use crate::sandbox::assert_same;

/// Creates three hosts. The coordinator, `n0`, is two commits ahead of the others.
fn ahead() -> (Hosts, String) {
    let hosts = Hosts::new(3, &fleet(3));
    let commit = advance(&hosts);
    (hosts, commit)
}

/// Adds two commits on `n0`, and returns the last one.
fn advance(hosts: &Hosts) -> String {
    let root = hosts.root("n0");
    for text in ["one", "two"] {
        fs::write(root.join("new.txt"), text).unwrap();
        hosts.sandbox.git_in(&root, &["add", "new.txt"]);
        hosts.sandbox.git_in(&root, &["commit", "--quiet", "--message", text]);
    }
    hosts.sandbox.git_in(&root, &["rev-parse", "HEAD"])
}

/// Returns the refs of a host's user.
fn refs(hosts: &Hosts, name: &str) -> String {
    let listed = hosts.sandbox.git_in(&hosts.root(name), &["for-each-ref"]);
    listed.lines().filter(|line| !line.contains("refs/seedbed/fleet/")).collect::<Vec<_>>().join("\n")
}

fn bundles(hosts: &Hosts) -> Vec<String> {
    let names = fs::read_dir(hosts.sandbox.top.join("fleet/bundles")).into_iter().flatten();
    let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Returns the beginning of a launcher with which hosts write their calls of Git to the returned file.
fn counted_git(hosts: &Hosts) -> (String, PathBuf) {
    let (directory, calls) = (hosts.sandbox.top.join("counted"), hosts.sandbox.top.join("calls"));
    fs::create_dir(&directory).unwrap();
    let script =
        format!("#!/bin/sh\necho \"$*\" >> {}\nPATH=\"$COUNTED\" exec git \"$@\"\n", calls.display());
    fs::write(directory.join("git"), script).unwrap();
    fs::set_permissions(directory.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    (format!("export COUNTED=\"$PATH\"; PATH={}:$PATH; ", directory.display()), calls)
}

#[test]
fn a_host_gets_the_commits_that_it_lacks_and_keeps_its_refs() {
    let (hosts, commit) = ahead();
    let before: Vec<_> = hosts.names.iter().map(|name| refs(&hosts, name)).collect();
    let inventories = hosts.inventories_without_objects();
    hosts.first(&[]).expect(0).says(&["n1, n2 get 2 commits of the workspace ("]);
    for (name, before) in hosts.names.iter().zip(&before) {
        assert_eq!(refs(&hosts, name), *before, "{name}");
        assert!(!hosts.active(name).is_empty());
    }
    let (host, directory) = hosts.home("pinned");
    assert_eq!(host, "n2");
    assert_eq!(hosts.sandbox.git_in(Path::new(&directory), &["rev-parse", "HEAD"]), commit);
    assert_eq!(fs::read_to_string(Path::new(&directory).join("new.txt")).unwrap(), "two");
    // The hosts have the commits now, although no ref of theirs names them.
    let again = hosts.fleet("apply", &[]).expect(0);
    assert!(again.stderr.contains("12 to keep") && !again.stderr.contains(" get "), "{again:?}");
    hosts.manifest(&fleet(3).replace("count = 8", "count = 10"));
    let grown = hosts.fleet("apply", &[]).expect(0);
    assert!(grown.stderr.contains("14 sessions") && !grown.stderr.contains(" get "), "{grown:?}");
    assert_eq!(bundles(&hosts), [""; 0], "no host needs one any more");
    // Garbage collection keeps the commits, which are no unsaved work.
    hosts.sandbox.git_in(&hosts.root("n2"), &["repack", "-a", "-d", "-n", "--quiet"]);
    hosts.manifest(&fleet(3));
    hosts.fleet("destroy", &["--yes"]).expect(0);
    hosts.assert_as_without_objects(&inventories);
}

#[test]
fn a_host_that_is_destroyed_by_itself_keeps_no_ref() {
    let (hosts, _) = ahead();
    let before = hosts.inventories_without_objects();
    hosts.first(&[]).expect(0);
    hosts.on("n1", &["destroy", "--yes"]).expect(0);
    assert_same(&before[1], &hosts.inventories_without_objects()[1]);
}

#[test]
fn one_bundle_is_received_once_for_all_worktrees_of_a_host() {
    let hosts =
        Hosts::new(2, "[fleet]\nshards = 2\n[session.a]\ncount = 16\nresources = [\"git-worktree\"]\n");
    advance(&hosts);
    let (before, calls) = counted_git(&hosts);
    hosts.first_with(&hosts.launcher_with(&before), &[]).expect(0).says(&["n1 gets 2 commits"]);
    assert_eq!(hosts.active("n1").len(), 8);
    assert_eq!(bundles(&hosts).len(), 2, "{:?}", bundles(&hosts));
    let calls = fs::read_to_string(calls).unwrap();
    let count = |word: &str| calls.lines().filter(|line| line.split(' ').any(|found| found == word)).count();
    assert_eq!((count("index-pack"), count("fetch"), count("clone")), (1, 0, 0), "{calls}");
}

#[test]
fn an_aborted_run_leaves_no_ref_and_the_next_run_needs_no_bundle() {
    let (hosts, _) = ahead();
    hosts.manifest(&fleet(3).replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"exit 7\"]\n"));
    let before = hosts.inventories_without_objects();
    hosts.first(&[]).expect(1).says(&["n2: pinned: setup", "every host was rolled back"]);
    hosts.assert_as_without_objects(&before);
    hosts.manifest(&fleet(3));
    let applied = hosts.fleet("apply", &[]).expect(0);
    assert!(!applied.stderr.contains(" get "), "{applied:?}");
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_killed_while_it_receives_commits_leaves_nothing_in_every_case() {
    for point in ["fleet.keeping", "fleet.receiving", "fleet.received", "fleet.kept"] {
        let (hosts, _) = ahead();
        let before = hosts.inventories_without_objects();
        let exported = format!(
            "case {{host}}{{command}} in n1*\" prepare \"*) export SEEDBED_FAILPOINT={point}=crash;; esac; "
        );
        hosts.first_with(&hosts.launcher_with(&exported), &[]).expect(1).says(&["n1: it did not vote"]);
        hosts.assert_as_without_objects(&before);
        hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_coordinator_killed_while_it_makes_a_bundle_leaves_nothing_in_every_case() {
    for point in ["fleet.bundling", "fleet.packed"] {
        let (hosts, _) = ahead();
        let before = hosts.inventories();
        let mut command = hosts.first_command(&hosts.launcher_with("unset SEEDBED_FAILPOINT; "), &[]);
        command.env("SEEDBED_FAILPOINT", format!("{point}=crash"));
        assert!(!command.output().unwrap().status.success());
        assert_same(&before[1], &hosts.inventories()[1]);
        hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
        assert_eq!(bundles(&hosts).len(), 2, "{point}: {:?}", bundles(&hosts));
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_bundle_that_is_missing_or_damaged_aborts_and_is_made_again_in_every_case() {
    let (hosts, _) = ahead();
    let bundle = hosts.sandbox.top.join("fleet/bundles/*.bundle");
    let bundle = bundle.display();
    let header = "grep -a -m1 -n '^$' F | cut -d: -f1";
    let damages = [
        ("rm -f F", "does not exist"),
        ("echo x > F", "is no bundle"),
        ("truncate -s -30 F", "cannot be used"),
        (&format!("head -n $({header}) F > F.x; mv F.x F"), "cannot be used"),
    ];
    let before = hosts.inventories_without_objects();
    let untouched = hosts.inventories();
    for (at, (damage, said)) in damages.into_iter().enumerate() {
        let damage = damage.replace('F', "\"$bundle\"");
        let launcher = hosts.launcher_with(&format!(
            "case {{host}}{{command}} in n1*\" prepare \"*) for bundle in {bundle}; do {damage}; done;; n2*) sleep 0;; esac; "
        ));
        // The other host receives the bundle before or after that, so it may refuse too.
        let args: &[&str] = if at == 0 { &[] } else { &["--launcher"] };
        let refused = if args.is_empty() {
            hosts.first_with(&launcher, &[])
        } else {
            hosts.fleet("apply", &["--launcher", &launcher])
        };
        refused.expect(1).says(&[said, "repeat the command"]);
        hosts.assert_as_without_objects(&before);
        assert_same(&untouched[1], &hosts.inventories()[1]);
    }
    hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
}

#[test]
fn a_bundle_of_other_commits_is_refused() {
    let (hosts, _) = ahead();
    let before = hosts.inventories_without_objects();
    // Another program puts a bundle of another commit at the name.
    let other = hosts.sandbox.top.join("other");
    hosts.sandbox.clone_to("other");
    hosts.sandbox.git_in(&other, &["commit", "--quiet", "--allow-empty", "--message", "planted"]);
    let planted = hosts.sandbox.top.join("planted.bundle");
    hosts.sandbox.git_in(&other, &["bundle", "create", "--quiet", planted.to_str().unwrap(), "HEAD"]);
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in *\" prepare \"*) for bundle in {}; do cp {} \"$bundle\"; done;; esac; ",
        hosts.sandbox.top.join("fleet/bundles/*.bundle").display(),
        planted.display()
    ));
    hosts.first_with(&launcher, &[]).expect(1).says(&["does not have the commits of the plan"]);
    hosts.assert_as_without_objects(&before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn commits_that_are_collected_after_the_observation_abort_the_run_in_every_case() {
    let (hosts, _) = ahead();
    hosts.first(&[]).expect(0);
    hosts.fleet("destroy", &["--yes"]).expect(0);
    // The objects are there, and nothing names them: garbage collection removes them before the hosts prepare.
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" prepare \"*) git -C {} reflog expire --expire=now --all; git -C {} gc --quiet --prune=now;; esac; ",
        hosts.root("n1").display(),
        hosts.root("n1").display()
    ));
    hosts.fleet("apply", &["--launcher", &launcher]).expect(1).says(&[
        "n1: ",
        "are gone",
        "repeat the command",
    ]);
    let applied = hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
    applied.says(&["n1 gets 2 commits"]);
}

#[test]
fn a_ref_that_moves_on_the_coordinator_makes_the_plan_stale() {
    let (hosts, _) = ahead();
    let before = hosts.inventories();
    // The last host is observed, then HEAD of the coordinator moves.
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n2*\" observe \"*) git -C {} commit --quiet --allow-empty --message moved;; esac; ",
        hosts.root("n0").display()
    ));
    hosts.first_with(&launcher, &[]).expect(69).says(&["the plan is stale", "`HEAD` has moved on this host"]);
    for (before, after) in before.iter().zip(&hosts.inventories()).skip(1) {
        assert_same(before, after);
    }
}

#[test]
fn a_host_that_is_ahead_or_dirty_gets_the_commit_of_the_plan() {
    let (hosts, commit) = ahead();
    hosts.sandbox.git_in(&hosts.root("n1"), &["commit", "--quiet", "--allow-empty", "--message", "own"]);
    fs::write(hosts.root("n2").join("README.md"), "edited\n").unwrap();
    let own = hosts.sandbox.git_in(&hosts.root("n1"), &["rev-parse", "HEAD"]);
    hosts.first(&[]).expect(0).says(&["gets all 3 commits of the workspace", "n2 gets 2 commits"]);
    assert_eq!(hosts.sandbox.git_in(&hosts.root("n1"), &["rev-parse", "HEAD"]), own);
    assert_eq!(fs::read_to_string(hosts.root("n2").join("README.md")).unwrap(), "edited\n");
    for name in &hosts.names {
        let status = hosts.on(name, &["status", "--json"]).expect(0).json();
        for session in status["sessions"].as_array().unwrap() {
            let directory = session["workingDirectory"].as_str().unwrap();
            assert_eq!(hosts.sandbox.git_in(Path::new(directory), &["rev-parse", "HEAD"]), commit, "{name}");
        }
    }
}

#[test]
fn a_coordinator_that_cannot_send_commits_refuses_before_anything_is_changed() {
    let check = |prepare: &dyn Fn(&Hosts), said: &str| {
        let (hosts, _) = ahead();
        prepare(&hosts);
        let before = hosts.inventories();
        hosts.first(&[]).expect(69).says(&["hosts lack commits; nothing was changed", "n1: it lacks ", said]);
        hosts.assert_as(&before);
    };
    check(
        &|hosts| {
            let root = hosts.root("n0");
            let commit = hosts.sandbox.git_in(&root, &["rev-parse", "HEAD~1"]);
            fs::write(root.join(".git/shallow"), format!("{commit}\n")).unwrap();
        },
        "this host has a shallow clone",
    );
    check(
        &|hosts| {
            hosts.sandbox.git_in(&hosts.root("n0"), &["config", "remote.origin.promisor", "true"]);
        },
        "this host has a partial clone",
    );
    check(
        &|hosts| {
            let root = hosts.root("n0");
            fs::create_dir(root.join("assets")).unwrap();
            fs::write(root.join("assets/.gitattributes"), "*.bin filter=lfs\n").unwrap();
            hosts.sandbox.git_in(&root, &["add", "assets"]);
            hosts.sandbox.git_in(&root, &["commit", "--quiet", "--message", "assets"]);
        },
        "Git LFS",
    );
}
