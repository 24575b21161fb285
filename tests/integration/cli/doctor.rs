//! Tests of `doctor`: each problem is found, with its id and a remedy. Inspection changes nothing, and reaping removes
//! only resources without an owner.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::crash;
use crate::sandbox::{Outcome, Sandbox, assert_same, ports, send, sessions, wait_until};

const ONE: &str = "[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n";

/// Returns the severity, id and text of each finding, and the exit code.
fn examine(sandbox: &Sandbox, args: &[&str]) -> (Vec<(String, String, String)>, i32) {
    let args = [&["doctor", "--json"][..], args].concat();
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&args));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = outcome.json()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            assert!(!text(finding, "remedy").is_empty(), "{finding}");
            (text(finding, "severity"), text(finding, "id"), text(finding, "description"))
        })
        .collect();
    (findings, outcome.code)
}

/// Expects exactly one finding, with this severity, id and text.
#[track_caller]
fn check(sandbox: &Sandbox, severity: &str, id: &str, said: &str) {
    let (findings, code) = examine(sandbox, &[]);
    assert_eq!(code, i32::from(severity == "fails"), "{findings:?}");
    let [(found, what, text)] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((found.as_str(), what.as_str()), (severity, id), "{text}");
    assert!(text.contains(said), "not said: {said}: {text}");
}

#[test]
fn healthy_host_has_no_finding_at_any_stage() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["doctor"]).says(&["no problem found"]);
    sandbox.manifest(ONE);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
    sandbox.ok(&["apply"]);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
    let inside = sandbox.directory("a").join("app");
    sandbox.seedbed_in(&inside, &["doctor"]).expect(0).says(&["no problem found"]);
    sandbox.seedbed(&["doctor", "-f", "nowhere.toml"]).expect(64);
}

#[test]
fn every_finding_has_two_lines() {
    let sandbox = Sandbox::new();
    sandbox.git(&["config", "core.hooksPath", "/no/such/\u{1b}[31m"]);
    let told = sandbox.ok(&["doctor"]).stdout;
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("warns  hooks-path: core.hooksPath is /no/such/\\u{1b}[31m"), "{told}");
    assert!(lines[1].starts_with("       make it, or git config"), "{told}");
}

#[test]
fn a_directory_without_a_repository() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.top.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let outcome = sandbox.seedbed_in(&elsewhere, &["doctor"]).expect(1);
    assert!(outcome.stdout.contains("fails  no-repository: "), "{}", outcome.stdout);
}

/// Runs `doctor` with `text` as the script for Git.
fn with_git(sandbox: &Sandbox, text: Option<&str>) -> Outcome {
    let directory = sandbox.top.join("shim");
    fs::create_dir_all(&directory).unwrap();
    if let Some(text) = text {
        fs::write(directory.join("git"), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(directory.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = sandbox.command(&["doctor"]).env("PATH", directory).output().unwrap();
    Outcome::of(output)
}

#[test]
fn a_git_that_is_old_or_missing() {
    let sandbox = Sandbox::new();
    let missing = with_git(&sandbox, None).expect(1);
    assert!(missing.stdout.contains("fails  git-missing: git is not installed"), "{}", missing.stdout);
    let path = std::env::var_os("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|path| path.join("git")).find(|path| path.is_file()).unwrap();
    let says = |version: &str| {
        format!(
            "for word; do test \"$word\" = version && echo 'git version {version}' && exit; done; exec {} \"$@\"",
            real.display()
        )
    };
    let old = with_git(&sandbox, Some(&says("2.20.1"))).expect(1);
    assert!(old.stdout.contains("fails  git-old: git 2.20 is older than 2.31"), "{}", old.stdout);
    let old = with_git(&sandbox, Some(&says("2.34.1"))).expect(0);
    assert!(old.stdout.contains("warns  git-old: "), "{}", old.stdout);
}

#[test]
fn a_manifest_that_cannot_be_planned() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"nowhere\" }]\n");
    check(&sandbox, "fails", "manifest-invalid", "cannot be planned: seedbed.toml has 1 error");
}

#[test]
fn ports_in_the_ephemeral_range() {
    let sandbox = Sandbox::new();
    let Ok(range) = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return };
    let first: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    let base = first + 8;
    sandbox.manifest(&format!(
        "[session.a]\nresources = [{{ kind = \"port-range\", base-port = {base}, block-size = 4, block-count = 4 }}]\n"
    ));
    let said = format!("16 ports of {base}-{}", base + 15);
    check(&sandbox, "warns", "ports-ephemeral", &said);
}

#[test]
fn lack_of_disk_space_is_found() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.repository.join("large"), vec![0; 16 << 20]).unwrap();
    let blob = sandbox.git(&["hash-object", "-w", "large"]);
    fs::remove_file(sandbox.repository.join("large")).unwrap();
    let files: Vec<_> = (0..100).map(|at| format!("100644,{blob},large/{at}")).collect();
    let add = files.iter().flat_map(|file| ["--cacheinfo", file.as_str()]);
    sandbox.git(&["update-index", "--add"].into_iter().chain(add).collect::<Vec<_>>());
    sandbox.git(&["commit", "--quiet", "--message", "1600 MiB"]);
    // 1.5 TiB in all.
    sandbox.manifest("[session.a]\ncount = 1000\nresources = [\"git-worktree\"]\n");
    let outcome = sandbox.seedbed(&["doctor"]).expect(1);
    let found: Vec<_> = outcome.stdout.lines().filter(|line| line.contains("disk-space")).collect();
    assert_eq!(found.len(), 1, "{}", outcome.stdout);
    assert!(found[0].starts_with("fails  disk-space: 1000 new resources need up to 160"), "{found:?}");
    // Mounts share one checkout.
    sandbox.manifest(
        "[session.a]\ncount = 1000\nresources = [{ kind = \"git-worktree\", checkout = \"overlay\" }]\n",
    );
    let outcome = sandbox.seedbed(&["doctor"]);
    assert!(!outcome.stdout.contains("disk-space"), "{}", outcome.stdout);
    // A sparse worktree needs only its part of the tree; an applied swarm needs no more space.
    sandbox.manifest(
        "[session.a]\ncount = 3\nresources = [{ kind = \"git-worktree\", target-path = \"app\" }]\n",
    );
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
}

#[test]
fn few_open_files_for_many_jobs() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let binary = env!("CARGO_BIN_EXE_seedbed");
    let limited = |jobs: u32| {
        let script = format!("ulimit -n 256; exec {binary} doctor --json --jobs {jobs}");
        let output = sandbox.program("sh", &sandbox.repository).args(["-c", &script]).output().unwrap();
        Outcome::of(output).expect(0).json()["findings"].clone()
    };
    assert_eq!(limited(2), serde_json::json!([]));
    assert_eq!(limited(64)[0]["id"], "open-files");
}

#[test]
fn a_state_directory_that_cannot_be_used() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.state()).unwrap();
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o777)).unwrap();
    check(&sandbox, "warns", "state-directory", "others can write");
    fs::remove_dir(sandbox.state()).unwrap();
    fs::write(sandbox.state(), "").unwrap();
    let outcome = sandbox.seedbed(&["doctor"]).expect(1);
    assert!(outcome.stdout.contains("fails  state-directory: "), "{}", outcome.stdout);
}

#[test]
fn filters_that_cannot_run() {
    let sandbox = Sandbox::new();
    sandbox.write("app/.gitattributes", "*.psd filter=lfs diff=lfs merge=lfs -text\n");
    sandbox.commit("attributes");
    sandbox.manifest(ONE);
    check(&sandbox, "warns", "filter-unconfigured", "`lfs`");
    sandbox.git(&["config", "filter.lfs.process", "no-such-lfs filter-process"]);
    check(&sandbox, "warns", "filter-missing", "`no-such-lfs`");
    sandbox.git(&["config", "filter.lfs.required", "true"]);
    check(&sandbox, "fails", "filter-missing", "`no-such-lfs`");
    sandbox.git(&["config", "filter.lfs.process", "sh -c true"]);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
}

#[test]
fn submodules_and_hooks_that_lead_nowhere() {
    let sandbox = Sandbox::new();
    let head = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},vendor/lib")]);
    sandbox.git(&["commit", "--quiet", "--message", "a submodule"]);
    sandbox.manifest(ONE);
    check(&sandbox, "warns", "submodules", "(vendor/lib)");
    sandbox.git(&["rm", "--quiet", "--cached", "vendor/lib"]);
    sandbox.git(&["commit", "--quiet", "--message", "no submodule"]);
    sandbox.git(&["config", "core.hooksPath", "tools"]);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
    sandbox.git(&["config", "core.hooksPath", ".husky"]);
    check(&sandbox, "warns", "hooks-path", ".husky");
}

#[test]
fn a_repository_whose_worktrees_git_has_to_register() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.repository.join(".git/config.worktree"), "").unwrap();
    check(&sandbox, "notes", "registration-by-git", "config.worktree");
}

#[test]
fn committed_discovery_path_is_found() {
    let sandbox = Sandbox::new();
    sandbox.write(".agent-context/notes", "");
    sandbox.commit("notes");
    check(&sandbox, "fails", "committed-discovery", "`.agent-context`");
    sandbox.git(&["rm", "--quiet", "-r", "--cached", ".agent-context"]);
    std::os::unix::fs::symlink("/tmp", sandbox.repository.join(".ai_ops")).unwrap();
    sandbox.git(&["add", ".ai_ops"]);
    sandbox.git(&["commit", "--quiet", "--message", "a link"]);
    fs::remove_file(sandbox.repository.join(".ai_ops")).unwrap();
    check(&sandbox, "fails", "committed-discovery", "`.ai_ops`");
}

#[test]
fn file_that_leads_git_to_other_settings_is_named() {
    let sandbox = Sandbox::new();
    let git = sandbox.repository.join(".git");
    let copied = Command::new("cp").arg("-a").args([&git, &sandbox.top.join("planted")]).status().unwrap();
    assert!(copied.success());
    fs::write(git.join("commondir"), "../../planted\n").unwrap();
    sandbox.git(&["config", "a.b", "planted"]);
    assert!(fs::read_to_string(sandbox.top.join("planted/config")).unwrap().contains("planted"));
    check(&sandbox, "fails", "redirected-repository", ".git/commondir");
    fs::remove_file(git.join("commondir")).unwrap();
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
}

#[test]
fn torn_admin_directories_are_named_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.git(&["worktree", "add", "--quiet", "--detach", "../foreign"]);
    let commondir = sandbox.repository.join(".git/worktrees/foreign/commondir");
    let whole = fs::read(&commondir).unwrap();
    fs::write(&commondir, "").unwrap();
    // `unchanged` asks git, which dies of it.
    let outcome = sandbox.seedbed(&["doctor"]).expect(0);
    assert!(outcome.stdout.contains("warns  torn-admin-directory: "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("worktrees/foreign is torn (commondir)"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("seedbed did not create it"), "{}", outcome.stdout);
    assert_eq!(fs::read(&commondir).unwrap(), b"");
    fs::write(&commondir, whole).unwrap();
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));

    sandbox.manifest(ONE);
    sandbox.ok(&["apply"]);
    let entry = sandbox.directory("a").file_name().unwrap().to_owned();
    fs::write(sandbox.repository.join(".git/worktrees").join(entry).join("HEAD"), "garbage").unwrap();
    let outcome = sandbox.seedbed(&["doctor"]).expect(0);
    assert!(outcome.stdout.contains("is torn (HEAD)"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("it belongs to the session shop/a"), "{}", outcome.stdout);
}

#[test]
fn a_run_that_was_interrupted_but_not_one_that_is_under_way() {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    sandbox
        .manifest(&format!("{ONE}setup = ['touch {top}/begun; while test -d {top}; do sleep 0.1; done']\n"));
    let run = sandbox.start(&["apply"]);
    wait_until("the setup runs", || sandbox.top.join("begun").exists());
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
    send(Signal::KILL, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(137);
    check(&sandbox, "warns", "interrupted-run", "swarm shop");
    sandbox.ok(&["recover"]);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
}

#[test]
fn a_rescue_that_was_interrupted() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    for call in 1.. {
        sandbox.ok(&["apply"]);
        fs::write(sandbox.directory("a").join("new"), "work").unwrap();
        crash(&sandbox, &["destroy", "--rescue"], &format!("process.started#{call}"));
        if records(&sandbox).join("rescuing.json").exists() {
            break;
        }
        sandbox.ok(&["recover"]);
    }
    check(&sandbox, "warns", "interrupted-run", "swarm shop");
    sandbox.ok(&["recover"]);
    assert_eq!(examine(&sandbox, &[]), (Vec::new(), 0));
}

/// Returns the directory of the swarm's records.
fn records(sandbox: &Sandbox) -> PathBuf {
    let entries = fs::read_dir(sandbox.state().join("swarms")).unwrap();
    entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
}

#[test]
fn deleted_workspace_keeps_its_leases_until_they_are_discarded() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let clone = sandbox.clone_to("clone");
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let lease = || fs::read_dir(sandbox.state().join("leases")).unwrap().count();
    let leased = lease();
    fs::remove_dir_all(&clone).unwrap();
    check(&sandbox, "warns", "workspace-missing", "swarm shop does not exist");
    // The records claim that the lease is theirs.
    sandbox.unchanged(|| sandbox.ok(&["doctor", "--reap"]));
    assert_eq!(lease(), leased);
    fs::remove_dir_all(records(&sandbox)).unwrap();
    check(&sandbox, "warns", "leaked-lease", "leased to shop/a");
    sandbox.ok(&["doctor", "--reap"]).says(&["reaped the lease of ports", "shop/a", "no problem found"]);
    assert_eq!(lease(), leased - 1);
}

#[test]
fn only_orphaned_leases_are_reaped() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    sandbox.ok(&["apply"]);
    sandbox.write("other.toml", &sandbox.manifest_text(ONE).replace("\"shop\"", "\"other\""));
    sandbox.ok(&["apply", "-f", "other.toml"]);
    let (start, end) = ports(sessions(&sandbox.plan()).next().unwrap());
    let kept = sandbox.inventory();
    // The records of one swarm are lost, and those of the other exist; a lock file of the reference implementation is
    // beside them.
    let other = fs::read_dir(sandbox.state().join("swarms")).unwrap().map(|entry| entry.unwrap().path());
    let other =
        other.into_iter().find(|path| path.is_dir() && path.to_string_lossy().contains("other-")).unwrap();
    let moved = sandbox.top.join("moved");
    fs::rename(&other, &moved).unwrap();
    let locks = sandbox.repository.join(".ai_ops/locks/ports");
    let foreign = locks.join("9000-9031.lock");
    fs::write(&foreign, "{\"sessionId\":\"x\"}\n").unwrap();

    // If a record cannot be read, no lease can be proven orphaned.
    let applied = records(&sandbox).join("applied.json");
    let whole = fs::read(&applied).unwrap();
    fs::write(&applied, "torn").unwrap();
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["doctor", "--reap"]).expect(1));
    refused.says(&["nothing was reaped", "applied.json"]);
    fs::write(&applied, whole).unwrap();

    let (findings, _) = examine(&sandbox, &[]);
    let ids: Vec<_> = findings.iter().map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(ids, ["leaked-lease", "lock-file", "lock-file", "unknown-worktree"], "{findings:?}");
    let reaped = sandbox.ok(&["doctor", "--reap", "--json"]).json();
    assert_eq!(reaped["reaped"]["leases"].as_array().unwrap().len(), 1);
    assert_eq!(reaped["reaped"]["leases"][0]["session"], "other/a");
    assert_eq!(reaped["reaped"]["lockFiles"].as_array().unwrap().len(), 1);
    assert!(foreign.exists() && locks.join(format!("{start}-{end}.lock")).exists());
    fs::remove_file(&foreign).unwrap();

    // Nothing else was touched: once the records are back, a repair makes everything what it was.
    fs::rename(&moved, &other).unwrap();
    sandbox.ok(&["status", "--repair", "-f", "other.toml"]);
    let without_times = |mut inventory: crate::sandbox::Inventory| {
        inventory.retain(|path, _| !path.contains("/locks/ports/"));
        inventory
    };
    assert_same(&without_times(kept), &without_times(sandbox.inventory()));
}

/// A swarm of another user or of another `SEEDBED_STATE_DIR` is named, and none of its resources is reaped.
#[test]
fn a_swarm_that_another_state_directory_knows_is_not_reaped() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let elsewhere = |args: &[&str]| {
        let state = sandbox.top.join("elsewhere");
        Outcome::of(sandbox.command(args).env("SEEDBED_STATE_DIR", state).output().unwrap())
    };
    sandbox.unchanged(|| {
        elsewhere(&["apply"]).expect(0);
        let (findings, _) = examine(&sandbox, &["--reap"]);
        let ids: Vec<_> = findings.iter().map(|(_, id, _)| id.as_str()).collect();
        assert_eq!(ids, ["manifest-invalid", "lock-file", "unknown-worktree"], "{findings:?}");
        assert!(findings[2].2.contains("belongs to the session shop/a"), "{findings:?}");
        sandbox.seedbed(&["apply"]).expect(65).says(&["reports whether it belongs to another swarm"]);
        assert_eq!(elsewhere(&["status", "--json"]).json()["sessions"][0]["drift"], serde_json::json!([]));
        elsewhere(&["destroy"]).expect(0);
    });
}

#[test]
fn leftovers_of_an_ended_run_are_found() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    sandbox.ok(&["apply"]);
    let owner = "0123456789abcdef0123456789abcdef";
    let trash = sandbox.repository.join(format!(".ai_ops/worktrees/.trash-{owner}-x"));
    let aside = sandbox.repository.join(format!(".git/seedbed/{owner}-x"));
    for path in [&trash, &aside] {
        fs::create_dir_all(path).unwrap();
    }
    let (findings, code) = examine(&sandbox, &[]);
    assert_eq!(code, 0);
    let ids: Vec<_> = findings.iter().map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(ids, ["leftover", "leftover"], "{findings:?}");
    sandbox.ok(&["doctor", "--reap"]);
    assert!(trash.exists() && aside.exists(), "nobody knows what is in it");
}

/// Ten trees, each of which has the tree below ten times: ten thousand million files in two kilobytes.
#[test]
#[ignore = "`every_case` runs it"]
fn a_tree_that_repeats_itself_ends_in_every_case() {
    let sandbox = Sandbox::new();
    let blob = sandbox.git(&["hash-object", "-w", "README.md"]).trim().to_owned();
    let mut object = format!("100644 blob {blob}");
    for _ in 0..10 {
        let entries: Vec<String> = (0..10).map(|name| format!("{object}\t{name}\n")).collect();
        let listing = sandbox.top.join("tree");
        fs::write(&listing, entries.concat()).unwrap();
        let mut mktree = Command::new("git");
        let mktree =
            mktree.current_dir(&sandbox.repository).arg("mktree").stdin(fs::File::open(&listing).unwrap());
        let tree = String::from_utf8(mktree.output().unwrap().stdout).unwrap();
        object = format!("040000 tree {}", tree.trim());
    }
    let tree = object.rsplit(' ').next().unwrap();
    let commit = sandbox.git(&["commit-tree", "-m", "large", tree]);
    sandbox.git(&["branch", "large", commit.trim()]);
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"large\" }]\n");
    let mut doctor = sandbox.command(&["doctor", "--json"]);
    let found = Outcome::of(doctor.env("SEEDBED_GIT_TIMEOUT", "1").output().unwrap()).json();
    let findings = found["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|finding| finding["description"]
            .as_str()
            .is_some_and(|what| what.contains("too many files"))),
        "{findings:#?}"
    );
}
