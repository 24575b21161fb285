//! Hosts that Slurm allocates: three nodes of four daemons, each with a network and a state directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;

use super::disturbed_hosts::{faketime, is_applied_changed_and_destroyed};
use super::lost_hosts::{assert_as, lives_on, nothing_runs};
use super::machines::{Machines, wait_until_begun, waiting, write_enter};
use super::slurm::Cluster;
use super::{Hosts, fleet};
use crate::sandbox::{Outcome, bin, wait_until};

/// Nodes of a Slurm, which the coordinator allocates.
pub(super) struct SlurmHosts {
    hosts: Hosts,
    cluster: Cluster,
}

impl SlurmHosts {
    /// Starts the daemons; `None`, with a notice, on a machine that cannot.
    pub(super) fn start(rest: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED, because only root can create networks");
            return None;
        }
        let cluster = Cluster::start()?;
        let hosts = Hosts::with_names(&["n1", "n2", "n3"], rest);
        let top = hosts.sandbox.top.clone();
        for name in &hosts.names {
            // The network exists as long as it is mounted, and the sandbox unmounts it.
            let network = top.join(name).join("network");
            fs::write(&network, "").unwrap();
            let mut unshare = Command::new("unshare");
            unshare.arg(format!("--net={}", network.display())).args(["ip", "link", "set", "lo", "up"]);
            Outcome::of(unshare.output().unwrap()).expect(0);
            write_enter(&hosts, name, &network);
        }
        // All nodes have the PATH of the coordinator.
        let script = format!(
            "#!/bin/sh\nexec {}/$SLURMD_NODENAME/enter 'exec {}/seedbed \"$@\"' \"$@\"\n",
            top.display(),
            bin().display()
        );
        fs::create_dir(top.join("bin")).unwrap();
        fs::write(top.join("bin/seedbed"), script).unwrap();
        fs::set_permissions(top.join("bin/seedbed"), fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { hosts, cluster })
    }

    /// Returns a command beside the nodes, with the programs of Slurm.
    fn command(&self, args: &[&str]) -> Command {
        let path = format!("{}/bin:{}", self.top().display(), std::env::var("PATH").unwrap());
        let mut command = self.hosts.sandbox.command(args);
        command.env("SLURM_CONF", self.cluster.conf()).env("PATH", path);
        command
    }
}

impl Machines for SlurmHosts {
    fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    fn reached(&self) -> Vec<String> {
        vec!["--slurm=--time=30".to_owned()]
    }

    fn fleet_command(&self, command: &str, args: &[&str]) -> Command {
        let directory = self.top().join("fleet");
        self.command(&[&["fleet", command, directory.to_str().unwrap()], args].concat())
    }

    /// Allocates again: an allocation is released with the sessions.
    fn apply(&self, args: &[&str]) -> Outcome {
        self.first(args)
    }

    fn shell(&self, host: &str, script: &str) -> Outcome {
        let enter = self.top().join(host).join("enter");
        let mut command = self.hosts.sandbox.program(enter.to_str().unwrap(), &self.top());
        Outcome::of(command.arg(script).output().unwrap())
    }

    fn lose(&mut self, host: &str) {
        self.cluster.script(&["kill-node", &host[1..]]);
    }

    /// Waits for what Slurm starts on the host as soon as it returns, too.
    fn bring_back(&mut self, host: &str) {
        self.cluster.script(&["start-node", &host[1..]]);
        wait_until("jobs that waited for the host have ended", || self.cluster.jobs().len() < 2);
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn an_allocation_that_is_cancelled_in_prepare_leaves_nothing_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    slurm.manifest(&waiting(&slurm, 1));
    let before = slurm.inventories();
    let coordinator = slurm.start_first(&[]);
    wait_until_begun(&slurm);
    slurm.cluster.cancel_all();
    let outcome = coordinator.outcome();
    assert!([1, 30].contains(&outcome.code), "{outcome:?}");
    let outcome = outcome.says(&["n2: "]);
    assert!(slurm.decision(1).unwrap().contains("abort"));
    if outcome.code == 1 {
        assert_as(&slurm, &before);
    }
    nothing_runs(&slurm);
    slurm.fleet("recover", &[]).expect(0);
    assert_as(&slurm, &before);
    wait_until("jobs have ended", || slurm.cluster.jobs().is_empty());
    lives_on(&slurm);
    wait_until("jobs have ended", || slurm.cluster.jobs().is_empty());
}

#[test]
#[ignore = "`every_case` runs it"]
fn an_allocation_that_ends_between_commands_keeps_the_sessions_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    let before = slurm.inventories();
    slurm.first(&[]).expect(0);
    let applied = slurm.inventories();
    slurm.cluster.cancel_all();
    slurm.fleet("status", &[]).expect(30);
    slurm.fleet("apply", &[]).expect(75).says(&["nothing was changed"]);
    assert_as(&slurm, &applied);
    slurm.apply(&[]).expect(0).says(&["12 to keep"]);
    slurm.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&slurm, &before);
    wait_until("jobs have ended", || slurm.cluster.jobs().is_empty());
    nothing_runs(&slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn an_interrupted_coordinator_leaves_nothing_on_nodes_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    slurm.manifest(&waiting(&slurm, 1));
    let before = slurm.inventories();
    let coordinator = slurm.start_first(&[]);
    wait_until_begun(&slurm);
    coordinator.signal_group(Signal::INT);
    let outcome = coordinator.outcome();
    assert!([30, 130].contains(&outcome.code), "{outcome:?}");
    assert!(slurm.decision(1).unwrap().contains("abort"));
    fs::write(slurm.top().join("go"), "").unwrap();
    nothing_runs(&slurm);
    slurm.fleet("recover", &[]).expect(0);
    assert_as(&slurm, &before);
    wait_until("jobs have ended", || slurm.cluster.jobs().is_empty());
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_node_that_is_full_is_rolled_back_or_commits_later_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    // Everything of the host except its hook is on a small disk.
    let (root, top) = (slurm.hosts.root("n2"), slurm.top());
    let (root, top) = (root.display(), top.display());
    let small = format!(
        "mv {root} {root}.large && mkdir {root} && mount -t tmpfs -o size=24m tmpfs {root} && cp -a {root}.large/. {root} && \
         rm -r {root}.large"
    );
    Outcome::of(Command::new("sh").args(["-c", &small]).output().unwrap()).expect(0);
    let before = slurm.inventories();
    for (file, kept) in [
        ("plan", 0),
        ("plan", 12),
        ("plan", 128),
        ("plan", 8192),
        ("decision.json", 0),
        ("decision.json", 64),
    ] {
        slurm.hook(
            "n2",
            &format!(
                "if test -e {top}/fleet/runs/000001/{file} && ! test -e {top}/done; then touch {top}/done\n\
                 cat /dev/zero > {root}/.git/filler 2> /dev/null; truncate -s -{kept}K {root}/.git/filler; fi\n"
            ),
        );
        let outcome = slurm.first(&[]);
        assert!([0, 1, 30].contains(&outcome.code) && slurm.top().join("done").exists(), "{outcome:?}");
        slurm.remove_hook("n2");
        fs::remove_file(slurm.hosts.root("n2").join(".git/filler")).unwrap();
        if outcome.code != 1 {
            slurm.fleet("recover", &[]).expect(0);
        }
        let committed = slurm.decision(1).unwrap().contains("commit");
        assert_eq!(
            slurm.hosts.index()["sessions"].as_array().map_or(0, Vec::len),
            if committed { 12 } else { 0 }
        );
        if committed {
            slurm.fleet("status", &[]).expect(0);
            slurm.fleet("destroy", &["--yes"]).expect(0);
        }
        assert_as(&slurm, &before);
        wait_until("jobs have ended", || slurm.cluster.jobs().is_empty());
        fs::remove_dir_all(slurm.top().join("fleet")).unwrap();
        fs::remove_file(slurm.top().join("done")).unwrap();
    }
    nothing_runs(&slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_node_that_returns_when_its_fleet_is_gone_keeps_its_sessions_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    let before = slurm.inventories();
    slurm.first(&[]).expect(0);
    let lost = slurm.hosts.active("n2");
    slurm.lose("n2");
    slurm.fleet("destroy", &["--yes"]).expect(30).says(&["n2"]);
    slurm.fleet("destroy", &["--yes", "--forget", "n2"]).expect(0);
    // A job still waits for the node, and does nothing there.
    slurm.bring_back("n2");
    assert_eq!(slurm.hosts.active("n2"), lost);
    slurm.on("n2", "recover").expect(0);
    slurm.on("n2", "destroy --yes").expect(0).says(&["given up"]);
    assert_as(&slurm, &before);
    lives_on(&slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn two_fleets_share_no_node_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    let before = slurm.inventories();
    slurm.first(&[]).expect(0);
    let applied = slurm.inventories();
    // Four nodes, of which the first fleet has three.
    let second = slurm.top().join("fleet-2");
    let root = slurm.top().join("{host}/repository");
    let words = ["fleet", "apply", second.to_str().unwrap(), "--root", root.to_str().unwrap()];
    let mut command = slurm.command(&[&words[..], &["--slurm=--immediate=3"]].concat());
    Outcome::of(command.output().unwrap()).expect(75).says(&["nothing was changed"]);
    assert_as(&slurm, &applied);
    slurm.fleet("status", &[]).expect(0);
    slurm.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&slurm, &before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn nodes_whose_clocks_differ_by_two_hours_are_one_fleet_in_every_case() {
    let Some(slurm) = SlurmHosts::start(&fleet(3)) else { return };
    let Some(library) = faketime() else { return };
    for (host, offset) in [("n1", "+1h"), ("n3", "-1h")] {
        slurm.hook(host, &format!("export '{library}' FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1\n"));
    }
    let clock = |host: &str| slurm.shell(host, "date +%s").expect(0).stdout.trim().parse::<i64>().unwrap();
    assert!((7190..7300).contains(&(clock("n1") - clock("n3"))), "the clocks differ");
    is_applied_changed_and_destroyed(&slurm);
}
