//! Tests of hosts without the repository: they clone it from the coordinator, once and completely.

use std::fs;
use std::path::Path;

use super::{Hosts, fleet};

/// Creates three hosts. `n1` has no directory for the repository, and `n2` an empty one.
fn without_clones() -> Hosts {
    let hosts = Hosts::new(3, &fleet(3));
    for name in ["n1", "n2"] {
        fs::remove_dir_all(hosts.root(name)).unwrap();
    }
    fs::create_dir(hosts.root("n2")).unwrap();
    hosts
}

/// Returns the names beside the repository of a host.
fn beside(hosts: &Hosts, name: &str) -> Vec<String> {
    let names = fs::read_dir(hosts.sandbox.top.join(name)).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "state");
    names
}

fn git(hosts: &Hosts, name: &str, args: &[&str]) -> String {
    hosts.sandbox.git_in(&hosts.root(name), args)
}

#[test]
fn a_host_without_the_repository_clones_it() {
    let hosts = without_clones();
    git(&hosts, "n0", &["config", "remote.origin.url", "https://me:secret@example.org/shop.git"]);
    hosts.first(&[]).expect(0).says(&[
        "n1 gets a clone at ",
        "n2 gets a clone at ",
        "all 1 commit of the workspace (",
    ]);
    let head = git(&hosts, "n0", &["rev-parse", "HEAD"]);
    for name in ["n1", "n2"] {
        assert_eq!(git(&hosts, name, &["rev-parse", "main", "HEAD"]), format!("{head}\n{head}"), "{name}");
        assert_eq!(git(&hosts, name, &["remote", "get-url", "origin"]), "https://example.org/shop.git");
        assert_eq!(git(&hosts, name, &["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(git(&hosts, name, &["fsck"]), "");
        let text = |name: &str| fs::read_to_string(hosts.root(name).join("seedbed.toml")).unwrap();
        assert_eq!(text(name), text("n0"), "the manifest that is not committed");
        assert!(!hosts.active(name).is_empty());
        assert_eq!(beside(&hosts, name), ["repository"]);
    }
    let again = hosts.fleet("apply", &[]).expect(0);
    assert!(again.stderr.contains("12 to keep") && !again.stderr.contains("gets a clone"), "{again:?}");
    hosts.fleet("destroy", &["--yes"]).expect(0);
    assert_eq!(git(&hosts, "n1", &["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
}

#[test]
fn a_clone_stays_when_its_run_is_rolled_back() {
    let hosts = without_clones();
    hosts.manifest_at(
        "n0",
        &fleet(3).replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"exit 7\"]\n"),
    );
    hosts.first(&[]).expect(1).says(&["n2: pinned: setup", "every host was rolled back"]);
    for name in ["n1", "n2"] {
        assert!(hosts.active(name).is_empty());
        assert!(!git(&hosts, name, &["for-each-ref"]).contains("seedbed"));
    }
    hosts.manifest_at("n0", &fleet(3));
    let applied = hosts.fleet("apply", &[]).expect(0);
    assert!(!applied.stderr.contains("gets a clone"), "{applied:?}");
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_killed_while_it_clones_leaves_nothing_in_every_case() {
    for point in ["fleet.cloning", "fleet.cloned"] {
        let hosts = without_clones();
        let exported = format!(
            "case {{host}}{{command}} in n1*\" clone \"*) export SEEDBED_FAILPOINT={point}=crash;; esac; "
        );
        let killed = hosts.first_with(&hosts.launcher_with(&exported), &[]);
        killed.expect(1).says(&["hosts could not clone", "n1: it wrote no observation", "are kept"]);
        assert!(!fs::exists(hosts.root("n1")).unwrap());
        hosts.fleet("apply", &["--launcher", &hosts.launcher()]).expect(0);
        assert_eq!(beside(&hosts, "n1"), ["repository"], "{point}");
    }
}

#[test]
fn a_clone_that_is_gone_with_its_sessions_is_not_made_again() {
    let hosts = without_clones();
    hosts.first(&[]).expect(0);
    let moved = hosts.sandbox.top.join("n1/moved");
    fs::rename(hosts.root("n1"), &moved).unwrap();
    hosts.fleet("apply", &[]).expect(1).says(&["n1: ", "is gone, and swarm `shop` has sessions in it"]);
    assert!(!fs::exists(hosts.root("n1")).unwrap());
    fs::rename(&moved, hosts.root("n1")).unwrap();
    hosts.fleet("apply", &[]).expect(0).says(&["12 to keep"]);
}

#[test]
fn clones_that_cannot_be_made_are_refused() {
    let hosts = without_clones();
    fs::remove_dir_all(hosts.sandbox.top.join("n1")).unwrap();
    hosts.first(&[]).expect(1).says(&["n1: ", "has no directory above it", "mkdir -p"]);
    let hosts = without_clones();
    let digest = format!("sha256:{}", "0".repeat(64));
    hosts
        .first(&["--expect", &digest])
        .expect(69)
        .says(&["n1: it lacks a repository", "nothing was changed"]);
    assert_eq!(beside(&hosts, "n1"), [""; 0]);
    git(&hosts, "n0", &["config", "remote.origin.promisor", "true"]);
    hosts.first(&[]).expect(69).says(&["cannot be cloned", "a partial clone"]);
    assert_eq!(beside(&hosts, "n1"), [""; 0]);
}

#[test]
fn hosts_read_the_manifest_of_the_coordinator() {
    let hosts = Hosts::new(3, &fleet(3));
    fs::write(hosts.root("n1").join("seedbed.toml"), "version = 1\nswarm = \"other\"\n").unwrap();
    fs::remove_file(hosts.root("n2").join("seedbed.toml")).unwrap();
    hosts.first(&[]).expect(0);
    assert_eq!(hosts.index()["sessions"].as_array().unwrap().len(), 12);
    let status = hosts.fleet("status", &["--json"]).expect(0).json();
    assert!(status["hosts"].as_array().unwrap().iter().all(|host| host["state"] == "applied"), "{status}");
    // Another program writes to the file.
    let file = hosts.sandbox.top.join("fleet/manifests/*/seedbed.toml");
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" observe \"*) for file in {}; do echo >> $file; done;; esac; ",
        file.display()
    ));
    let refused = hosts.fleet("apply", &["--launcher", &launcher]);
    refused.expect(1).says(&["n1: ", "is not the manifest of the coordinator"]);
    hosts.fleet("destroy", &["--yes", "--launcher", &hosts.launcher()]).expect(0);
    assert!(hosts.names.iter().all(|name| hosts.active(name).is_empty()));
}

#[test]
fn a_host_clones_other_repositories_of_the_manifest() {
    let hosts = Hosts::new(
        2,
        "[fleet]\nshards = 2\n[repository.web]\nroot = \"../web\"\n[session.a]\ncount = 4\n\
         resources = [{ kind = \"git-worktree\", repository = \"web\" }]\n",
    );
    let web = hosts.sandbox.clone_to("n0/web");
    hosts.sandbox.git_in(&web, &["commit", "--quiet", "--allow-empty", "--message", "web"]);
    hosts.first(&[]).expect(0).says(&["n1 gets a clone at ", "n1/web: all 2 commits of repository web"]);
    let (host, directory) = hosts.home("a-0");
    let head = hosts.sandbox.git_in(Path::new(&directory), &["rev-parse", "HEAD"]);
    assert_eq!(head, hosts.sandbox.git_in(&web, &["rev-parse", "HEAD"]), "{host}");
    assert_eq!(hosts.active("n1").len(), 2);
}

#[test]
fn clones_that_another_program_has_changed_are_not_made() {
    let hosts = without_clones();
    let launcher = hosts.launcher_with(&format!(
        "case {{host}}{{command}} in n1*\" clone \"*) sed -i s/example.org/elsewhere.org/ {};; esac; ",
        hosts.sandbox.top.join("fleet/observations/*/clones/clones.json").display()
    ));
    git(&hosts, "n0", &["config", "remote.origin.url", "https://example.org/shop.git"]);
    hosts.first_with(&launcher, &[]).expect(1).says(&["n1: ", "the clones are not those of the coordinator"]);
    assert_eq!(beside(&hosts, "n1"), [""; 0]);
}
