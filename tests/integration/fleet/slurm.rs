//! Tests of fleets whose hosts Slurm allocates: four daemons of this machine, each with a state directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::life::running;
use super::{Hosts, SESSIONS, fleet};
use crate::fixtures::repository;
use crate::sandbox::{Outcome, bin, send, wait_until};

/// Names of the hosts of most tests.
const NAMES: &[&str] = &["n1", "n2", "n3"];

/// Slurm of four daemons, which is stopped at the end of the test.
pub(super) struct Cluster {
    directory: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}

impl Cluster {
    /// Starts the daemons; `None`, with a notice, on a machine without them.
    pub(super) fn start() -> Option<Self> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let is_installed =
            |program: &&str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
        if let Some(missing) =
            ["slurmctld", "slurmd", "srun", "salloc", "munged"].iter().find(|name| !is_installed(name))
        {
            eprintln!("NOT TESTED, because there is no {missing}");
            return None;
        }
        // Sockets have short paths.
        let cluster = Self { directory: tempfile::tempdir_in("/tmp").unwrap() };
        let started = cluster.script(&["start", "4"]);
        assert!(started.contains("4 nodes idle"), "{started}");
        Some(cluster)
    }

    /// Runs the script on this cluster, and returns its output.
    pub(super) fn script(&self, args: &[&str]) -> String {
        let mut command = Command::new(repository("tests/slurm-cluster.sh"));
        let output = command.arg(args[0]).arg(self.directory.path()).args(&args[1..]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    pub(super) fn conf(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("slurm.conf")
    }

    /// Runs a program of Slurm.
    pub(super) fn slurm(&self, program: &str, args: &[&str]) -> Outcome {
        Outcome::of(Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().unwrap())
    }

    /// Returns the numbers of all jobs that have not ended.
    pub(super) fn jobs(&self) -> Vec<String> {
        let listed = self.slurm("squeue", &["--noheader", "--format=%i", "--states=PENDING,RUNNING"]);
        listed.expect(0).stdout.split_whitespace().map(str::to_owned).collect()
    }

    pub(super) fn cancel_all(&self) {
        self.slurm("scancel", &self.jobs().iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        wait_until("jobs have ended", || self.jobs().is_empty());
    }

    /// Returns a command of `fleet` in an environment in which each node has the state directory of its host.
    fn command(&self, hosts: &Hosts, command: &str, args: &[&str]) -> Command {
        let (top, bin) = (hosts.sandbox.top.display(), bin().display());
        let script = format!(
            "#!/bin/sh\n[ -z \"$SLURMD_NODENAME\" ] || export SEEDBED_STATE_DIR={top}/$SLURMD_NODENAME/state\n\
             [ -z \"$SLURMD_NODENAME\" ] || [ ! -e {top}/slow ] || sleep 8\n\
             exec {bin}/seedbed \"$@\"\n"
        );
        let directory = hosts.sandbox.top.join("bin");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("new"), &script).unwrap();
        fs::set_permissions(directory.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(directory.join("new"), directory.join("seedbed")).unwrap();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
        let mut command = hosts.fleet_command(command, args);
        command.env("SLURM_CONF", self.conf()).env("PATH", path);
        command
    }

    fn fleet(&self, hosts: &Hosts, command: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.command(hosts, command, args).output().unwrap())
    }

    /// Returns an `apply` that allocates hosts with these arguments of `salloc`.
    fn apply_command(&self, hosts: &Hosts, slurm: &str, args: &[&str]) -> Command {
        let (slurm, root) = (format!("--slurm={slurm}"), hosts.sandbox.top.join("{host}/repository"));
        let first = [&slurm, "--root", root.to_str().unwrap()];
        self.command(hosts, "apply", &[&first[..], args].concat())
    }

    fn apply(&self, hosts: &Hosts, slurm: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.apply_command(hosts, slurm, args).output().unwrap())
    }
}

/// Returns the document of `fleet status`.
#[track_caller]
fn status(cluster: &Cluster, hosts: &Hosts, code: i32) -> Value {
    cluster.fleet(hosts, "status", &["--json"]).expect(code).json()
}

#[test]
fn a_fleet_allocates_its_hosts_and_releases_them() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    let before = hosts.inventories();
    let mut first = cluster.apply_command(&hosts, "--time=30", &[]);
    // A variable of an enclosing job, which would hide `PATH` from the hosts.
    let applied = Outcome::of(first.env("SLURM_EXPORT_ENV", "NONE").output().unwrap()).expect(0);
    applied.says(&["job 1 of Slurm has 3 hosts: n1, n2, n3", "12 sessions on 3 hosts"]);
    let state = status(&cluster, &hosts, 0);
    assert_eq!((&state["allocation"]["state"], &state["allocation"]["job"]), (&"running".into(), &1.into()));
    let shown = cluster.fleet(&hosts, "status", &[]).expect(0).stdout;
    assert!(shown.starts_with("job 1 of Slurm has 3 hosts until "), "{shown}");
    // Neither allocates again.
    cluster.fleet(&hosts, "apply", &[]).expect(0).says(&["12 to keep"]);
    cluster.apply(&hosts, "--time=40", &[]).expect(0).says(&["12 to keep"]);
    assert_eq!(cluster.jobs(), ["1"]);
    cluster.fleet(&hosts, "recover", &[]).expect(0);
    // A suspended job has its hosts, and runs nothing.
    cluster.slurm("scontrol", &["suspend", "1"]).expect(0);
    cluster
        .fleet(&hosts, "apply", &[])
        .expect(75)
        .says(&["the state of job 1 of Slurm is unknown: job 1 is SUSPENDED"]);
    cluster.slurm("scontrol", &["resume", "1"]).expect(0);
    cluster.fleet(&hosts, "destroy", &["--yes"]).expect(0).says(&["job 1 of Slurm is released"]);
    wait_until("the job has ended", || cluster.jobs().is_empty());
    assert_eq!(status(&cluster, &hosts, 0)["allocation"]["state"], "ended");
    hosts.assert_as(&before);
    assert!(fs::read_dir(hosts.sandbox.top.join("fleet/steps")).unwrap().next().is_none());
}

#[test]
fn nothing_is_changed_without_all_hosts() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    let before = hosts.inventories();
    let unallocated = |args: &[&str], said: &str| {
        let refused = cluster.apply(&hosts, "--immediate=1", args).expect(75);
        refused.says(&["could not be allocated; nothing was changed", said, "fleet-unallocated"]);
        assert!(cluster.jobs().is_empty());
        hosts.assert_as(&before);
        assert!(!fs::exists(hosts.sandbox.top.join("fleet/config.json")).unwrap());
    };
    unallocated(&["--hosts", "9"], "Node count specification invalid");
    unallocated(&["--hosts", "n1,n2,n9"], "Invalid node name");
    cluster.slurm("scontrol", &["update", "nodename=n2", "state=drain", "reason=test"]).expect(0);
    unallocated(&["--hosts", "4"], "Required node not available");
    unallocated(&["--hosts", "n1,n2,n3"], "Required node not available");
}

#[test]
fn a_first_apply_that_fails_releases_its_hosts() {
    let Some(cluster) = Cluster::start() else { return };
    let sessions = SESSIONS.replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"false\"]\n");
    let hosts = Hosts::with_names(NAMES, &format!("[fleet]\nshards = 3\n{sessions}"));
    let before = hosts.inventories();
    cluster.apply(&hosts, "", &[]).expect(1).says(&[
        "n3: ",
        "every host was rolled back",
        "job 1 of Slurm is released",
    ]);
    wait_until("the job has ended", || cluster.jobs().is_empty());
    hosts.assert_as(&before);
    // A host that cannot be observed names its reason.
    hosts.break_state("n2");
    let refused = cluster.apply(&hosts, "", &[]).expect(1);
    let refused = refused.says(&["n2: it wrote no observation", "n2/state", "job 2 of Slurm is released"]);
    assert!(!refused.stderr.contains("n1: "), "{}", refused.stderr);
}

#[test]
#[ignore = "`every_case` runs it"]
fn an_allocation_that_a_killed_apply_has_not_saved_is_replaced_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    let mut killed = cluster.apply_command(&hosts, "", &[]);
    Outcome::of(killed.env("SEEDBED_FAILPOINT", "fleet.allocated=crash").output().unwrap()).expect(137);
    assert_eq!(cluster.jobs(), ["1"]);
    cluster.apply(&hosts, "", &[]).expect(0).says(&["job 2 of Slurm has 3 hosts"]);
    assert_eq!(cluster.jobs(), ["2"]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn commands_run_as_steps_that_end_with_their_coordinator_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    cluster.apply(&hosts, "", &[]).expect(0);
    let long = "x".repeat(3000);
    let script = format!("echo {long}; echo bad >&2");
    let ran = cluster.fleet(&hosts, "exec", &["--all", "--", "sh", "-c", &script]).expect(0);
    let whole = |line: &str| line.ends_with(&format!(": {long}"));
    assert_eq!(ran.stdout.lines().filter(|line| whole(line)).count(), 12, "{}", ran.stdout);
    assert_eq!(ran.stderr.lines().filter(|line| line.ends_with(": bad")).count(), 12, "{}", ran.stderr);
    cluster.fleet(&hosts, "exec", &["runner-3", "--", "sh", "-c", "exit 7"]).expect(7);
    let ids = hosts.sandbox.top.join("ids");
    fs::create_dir(&ids).unwrap();
    let script = format!("echo $$ > {}/$(basename $PWD); exec sleep 1000", ids.display());
    let mut command = cluster.command(&hosts, "exec", &["runner", "--", "sh", "-c", &script]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the command runs in each session", || running(&ids) == 8);
    send(Signal::INT, &child);
    let ended = Outcome::of(child.wait_with_output().unwrap()).expect(130);
    ended.says(&["ended the commands of runner-0"]);
    assert_eq!(running(&ids), 0);
    cluster.fleet(&hosts, "collect", &[]).expect(0);
    cluster.fleet(&hosts, "destroy", &["--yes"]).expect(0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_fleet_outlives_its_job_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(&["n1", "n2", "n3", "n4"], &fleet(3));
    let before = hosts.inventories();
    cluster.apply(&hosts, "", &["--hosts", "n2,n3,n4"]).expect(0);
    let applied = hosts.inventories_without_records();
    cluster.cancel_all();
    let shown = cluster.fleet(&hosts, "status", &[]).expect(30).stdout;
    assert!(shown.starts_with("job 1 of Slurm has ended, ") && shown.contains("not heard of"), "{shown}");
    assert_eq!(status(&cluster, &hosts, 30)["allocation"]["state"], "ended");
    let refused = cluster.fleet(&hosts, "apply", &[]).expect(75);
    refused.says(&["job 1 of Slurm has ended", "nothing was changed", "--slurm"]);
    // The same hosts are allocated again.
    cluster.apply(&hosts, "", &[]).expect(0).says(&["3 hosts: n2, n3, n4", "12 to keep"]);
    assert!(hosts.inventories_without_records() == applied);
    cluster.cancel_all();
    cluster.fleet(&hosts, "recover", &[]).expect(0);
    cluster.fleet(&hosts, "destroy", &["--yes"]).expect(0);
    hosts.assert_as(&before);
    wait_until("the jobs of the hosts have ended", || cluster.jobs().is_empty());
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_fleet_uses_the_job_around_it_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    let before = hosts.inventories();
    let inside = |apply: &Command, before: &str, after: &str| {
        let words = std::iter::once(apply.get_program()).chain(apply.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let script = format!("{before} {} {after}", words.join(" "));
        let mut command = Command::new("salloc");
        command.args(["-N3", "--no-kill", "--time=30", "-Q", "sh", "-c", &script]);
        command.current_dir(apply.get_current_dir().unwrap());
        for (name, value) in apply.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Outcome::of(command.output().unwrap())
    };
    let step = inside(&cluster.apply_command(&hosts, "", &[]), "srun -N1 -n1", "").expect(64);
    step.says(&["this is step 0 of job 1", "without `srun`"]);
    let arguments = inside(&cluster.apply_command(&hosts, "-pdebug", &[]), "", "").expect(64);
    arguments.says(&["takes no arguments inside job 2"]);
    inside(&cluster.apply_command(&hosts, "", &["--hosts", "4"]), "", "").expect(75).says(&["job 3 has 3"]);
    let destroy =
        "&& seedbed fleet destroy ../../fleet --yes && squeue -h -j $SLURM_JOB_ID -o 'it is %T' >&2";
    let applied = inside(&cluster.apply_command(&hosts, "", &[]), "", destroy).expect(0);
    let applied = applied.says(&["job 4 of Slurm has 3 hosts", "12 sessions on 3 hosts", "it is RUNNING"]);
    assert!(!applied.stderr.contains("is released"), "{}", applied.stderr);
    hosts.assert_as(&before);
}

#[test]
fn arguments_that_contradict_a_fleet_are_refused() {
    let hosts = Hosts::new(1, &fleet(3));
    let check = |args: &[&str], said: &str| {
        hosts.fleet("apply", args).expect(64).says(&[said]);
        assert!(!fs::exists(hosts.sandbox.top.join("fleet")).unwrap());
    };
    for word in [
        "-N4",
        "-N 4",
        "--nodes=4",
        "--node=4",
        "-wn1",
        "-vN4",
        "-s",
        "--excl",
        "--no-k",
        "-Jx",
        "--clusters=a",
    ] {
        check(&[&format!("--slurm={word}")], "sets `-");
    }
    check(&["--slurm=debug"], "`debug` is no option of `salloc`");
    check(&["--slurm='-p"], "a quote is not closed");
    check(&["--slurm", "--launcher", "ssh {host} {command}"], "cannot be used with");
    check(&["--slurm", "--hosts", "2"], "`--hosts` has 2 hosts, and the fleet needs 3");
    hosts.manifest(&fleet(3).replace("shards = 3\n", ""));
    check(&["--slurm"], "declare `shards` in `[fleet]`, or pass `--hosts NUMBER`");
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_node_that_is_lost_follows_the_decision_when_it_returns_in_every_case() {
    // The first host, and another one.
    for lost in ["n1", "n3"] {
        let Some(cluster) = Cluster::start() else { return };
        let sessions = format!(
            "{SESSIONS}[session.slow]\nshard = {}\nresources = [\"git-worktree\"]\nsetup = [\"touch ../../../begun; sleep 1000\"]\n",
            if lost == "n1" { 0 } else { 2 }
        );
        let hosts = Hosts::with_names(NAMES, &format!("[fleet]\nshards = 3\n{sessions}"));
        let before = hosts.inventories();
        let mut coordinator = cluster.apply_command(&hosts, "", &[]);
        let coordinator = coordinator.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let marker = hosts.root(lost).join("begun");
        wait_until("setup runs on the host", || marker.exists());
        cluster.script(&["kill-node", &lost[1..]]);
        let outcome = Outcome::of(coordinator.wait_with_output().unwrap()).expect(30);
        let outcome = outcome.says(&[&format!("{lost}: it did not vote"), "does so when the host returns"]);
        for (at, name) in NAMES.iter().enumerate().filter(|(_, name)| **name != lost) {
            assert!(hosts.inventories()[at] == before[at], "{name}");
        }
        fs::remove_file(&marker).unwrap();
        assert_eq!(cluster.jobs().len(), 1, "the janitor waits: {}", outcome.stderr);
        cluster.script(&["start-node", &lost[1..]]);
        wait_until("the host has followed", || cluster.jobs().is_empty());
        hosts.assert_as(&before);
        cluster.fleet(&hosts, "recover", &[]).expect(0);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_node_that_is_lost_after_the_commit_is_destroyed_when_it_returns_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(NAMES, &fleet(3));
    let before = hosts.inventories();
    cluster.apply(&hosts, "", &[]).expect(0);
    cluster.script(&["kill-node", "2"]);
    // Slurm has not noticed, and ends the step on the others before they report. They do so in the next step.
    fs::write(hosts.sandbox.top.join("slow"), "").unwrap();
    let state = status(&cluster, &hosts, 30);
    fs::remove_file(hosts.sandbox.top.join("slow")).unwrap();
    let states: Vec<_> =
        state["hosts"].as_array().unwrap().iter().map(|host| host["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["applied", "notHeard", "applied"]);
    wait_until("Slurm notices", || {
        status(&cluster, &hosts, 30)["allocation"]["hosts"] == serde_json::json!(["n1", "n3"])
    });
    let refused = cluster.fleet(&hosts, "apply", &[]).expect(1);
    refused.says(&[
        "n2: it wrote no observation: job 1 has lost this host",
        "nothing was changed",
        "--forget",
    ]);
    cluster.fleet(&hosts, "destroy", &["--yes"]).expect(30).says(&["n2: it did not vote"]);
    cluster.script(&["start-node", "2"]);
    wait_until("the janitor has ended", || cluster.jobs() == ["1"]);
    cluster.fleet(&hosts, "destroy", &["--yes"]).expect(0).says(&["job 1 of Slurm is released"]);
    hosts.assert_as(&before);
}
