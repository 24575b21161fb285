//! Hosts that Slurm allocates: three nodes of four daemons, each with a network and a state directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

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
        let mut command =
            self.hosts.sandbox.command(&[&["fleet", command, directory.to_str().unwrap()], args].concat());
        let path = format!("{}/bin:{}", self.top().display(), std::env::var("PATH").unwrap());
        command.env("SLURM_CONF", self.cluster.conf()).env("PATH", path);
        command
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
