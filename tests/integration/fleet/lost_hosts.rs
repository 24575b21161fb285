//! Real losses of hosts and coordinators: processes are killed, and what is left is resolved.
//!
//! Each test is a row of the guide's table, on hosts that ssh reaches.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::fleet;
use super::machines::{Machines, wait_until_begun, waiting};
use super::slurm_hosts::SlurmHosts;
use super::ssh::SshHosts;
use crate::sandbox::{Inventory, assert_same, wait_until};

/// Expects each host to be as it was, and the fleet to be applied and destroyed from there.
#[track_caller]
pub(super) fn assert_as(machines: &dyn Machines, before: &[Inventory]) {
    for (before, after) in before.iter().zip(&machines.inventories()) {
        assert_same(before, after);
    }
}

/// Expects that nothing but the hosts' own sshd runs, and that the fleet can be applied and destroyed.
#[track_caller]
pub(super) fn lives_on(machines: &dyn Machines) {
    nothing_runs(machines);
    machines.manifest(&fleet(3));
    let before = machines.inventories();
    machines.apply(&[]).expect(0);
    let status = machines.fleet("status", &["--json"]).expect(0).json();
    assert!(status["hosts"].as_array().unwrap().iter().all(|host| host["state"] == "applied"), "{status}");
    machines.fleet("destroy", &["--yes"]).expect(0);
    assert_as(machines, &before);
}

/// Expects that the hosts have no process of the fleet any more.
#[track_caller]
pub(super) fn nothing_runs(machines: &dyn Machines) {
    let begun = Instant::now();
    while !machines.programs().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", machines.programs());
        thread::sleep(Duration::from_millis(50));
    }
}

fn a_host_refuses(machines: &mut dyn Machines) {
    machines.manifest(&fleet(3).replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"exit 7\"]\n"));
    let before = machines.inventories();
    let refuses = format!("{}: pinned: setup", machines.name(2));
    machines.first(&[]).expect(1).says(&[&refuses, "every host was rolled back"]);
    assert_as(machines, &before);
    lives_on(machines);
}

fn a_host_is_lost_in_prepare(machines: &mut dyn Machines, shard: u32) {
    let host = machines.name(shard as usize);
    machines.manifest(&waiting(machines, shard));
    let before = machines.inventories();
    let coordinator = machines.start_first(&[]);
    wait_until_begun(machines);
    machines.lose(&host);
    coordinator.outcome().expect(30).says(&[&format!("{host}: it did not vote"), "seedbed fleet recover"]);
    for (at, (before, after)) in before.iter().zip(&machines.inventories()).enumerate() {
        if at != shard as usize {
            assert_same(before, after);
        }
    }
    machines.fleet("recover", &[]).expect(30).says(&[&host]);
    machines.bring_back(&host);
    machines.on(&host, "recover").expect(0);
    assert_as(machines, &before);
    lives_on(machines);
}

/// Hook that lets each command wait as soon as the run is decided.
pub(super) fn waits_after_the_decision(machines: &dyn Machines, run: u32) -> String {
    let top = machines.top();
    let (top, decision) = (top.display(), format!("fleet/runs/{run:06}/decision.json"));
    format!(
        "if test -e {top}/{decision}; then touch {top}/reached; while ! test -e {top}/go; do sleep 0.05; done; fi\n"
    )
}

/// Hook that lets each command wait until the run is planned.
pub(super) fn waits_before_the_run(machines: &dyn Machines, run: u32) -> String {
    let top = machines.top();
    let (top, planned) = (top.display(), format!("fleet/runs/{run:06}"));
    format!(
        "if ! test -e {top}/{planned}; then touch {top}/reached; while ! test -e {top}/go; do sleep 0.05; done; fi\n"
    )
}

/// Waits for a file beside the hosts.
#[track_caller]
pub(super) fn wait_for(machines: &dyn Machines, file: &str) {
    let path = machines.top().join(file);
    wait_until(file, || path.exists());
}

fn a_host_is_lost_in_commit(machines: &mut dyn Machines, at: usize, status: i32) {
    let host = &machines.name(at);
    machines.hook(host, &waits_after_the_decision(machines, 1));
    let before = machines.inventories();
    let coordinator = machines.start_first(&[]);
    wait_for(machines, "reached");
    machines.lose(host);
    coordinator.outcome().expect(30).says(&["the run is committed", &format!("{host}: it did not answer")]);
    machines.fleet("status", &[]).expect(30);
    machines.fleet("destroy", &["--yes"]).expect(30).says(&[host]);
    machines.remove_hook(host);
    machines.bring_back(host);
    machines.on(host, "recover").expect(0);
    machines.fleet("recover", &[]).expect(0);
    machines.fleet("status", &[]).expect(status);
    machines.fleet("destroy", &["--yes"]).expect(0);
    assert_as(machines, &before);
    lives_on(machines);
}

fn the_coordinator_is_killed_in_prepare(machines: &mut dyn Machines) {
    let host = &machines.name(1);
    machines.manifest(&waiting(machines, 1));
    let before = machines.inventories();
    let coordinator = machines.start_first(&[]);
    wait_until_begun(machines);
    coordinator.signal_group(Signal::KILL);
    coordinator.outcome().expect(137);
    // One host is still preparing: it cannot be resolved yet.
    machines.fleet("recover", &[]).expect(30).says(&[host]);
    fs::write(machines.top().join("go"), "").unwrap();
    nothing_runs(machines);
    machines.fleet("recover", &[]).expect(0);
    assert_as(machines, &before);
    assert!(machines.decision(1).unwrap().contains("abort"));
    lives_on(machines);
}

fn the_coordinator_is_killed_after_the_decision(machines: &mut dyn Machines) {
    for host in &machines.hosts().names {
        machines.hook(host, &waits_after_the_decision(machines, 1));
    }
    let before = machines.inventories();
    let coordinator = machines.start_first(&[]);
    wait_for(machines, "reached");
    coordinator.signal_group(Signal::KILL);
    coordinator.outcome().expect(137);
    for host in &machines.hosts().names {
        machines.remove_hook(host);
    }
    assert!(machines.decision(1).unwrap().contains("commit"));
    machines.fleet("recover", &[]).expect(0);
    assert_eq!(machines.hosts().index()["sessions"].as_array().unwrap().len(), 12);
    machines.fleet("status", &[]).expect(0);
    // What the coordinator has begun on a host ends without effect.
    fs::write(machines.top().join("go"), "").unwrap();
    nothing_runs(machines);
    machines.fleet("status", &[]).expect(0);
    machines.fleet("destroy", &["--yes"]).expect(0);
    assert_as(machines, &before);
    lives_on(machines);
}

fn a_host_cannot_be_reached(machines: &mut dyn Machines) {
    let host = &machines.name(1);
    let before = machines.inventories();
    machines.lose(host);
    machines.first(&[]).expect(1).says(&[host, "nothing was changed"]);
    assert_as(machines, &before);
    machines.bring_back(host);
    machines.first(&[]).expect(0);
    let applied = machines.inventories();
    machines.lose(host);
    machines.fleet("apply", &[]).expect(1).says(&[host]);
    machines.fleet("destroy", &["--yes"]).expect(30).says(&[host]);
    machines.fleet("status", &[]).expect(30);
    assert_as(machines, &applied);
    machines.bring_back(host);
    machines.fleet("destroy", &["--yes"]).expect(0);
    assert_as(machines, &before);
}

fn a_part_is_stale(machines: &mut dyn Machines) {
    let host = &machines.name(1);
    let root = machines.hosts().root(host);
    // After the observation, a ref moves, which is no reason, and a directory is made at the path of a worktree.
    let moves = format!(
        "if test -e {0} && ! test -e {1}/moved; then git -C {2} commit -q --allow-empty -m other\n\
         mkdir -p {2}/$(grep -o '[.]ai_ops/worktrees/[^\"/]*' {0} | head -n 1) && touch {1}/moved; fi\n",
        machines.top().join("fleet/runs/000001/plan/shard-1.json").display(),
        machines.top().display(),
        root.display()
    );
    machines.hook(host, &moves);
    let before = machines.inventories();
    let refused = machines.first(&[]).expect(1);
    refused.says(&[&format!("{host}: the plan is stale"), "` exists", "every host was rolled back"]);
    wait_for(machines, "moved");
    let after = machines.inventories();
    assert!((&after[0], &after[2], &after[3]) == (&before[0], &before[2], &before[3]));
    machines.remove_hook(host);
    let restores = format!("cd {} && git reset -q --hard HEAD~ && rm -r .ai_ops", root.display());
    machines.shell(host, &restores).expect(0);
    lives_on(machines);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_a_host_refuses_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_host_refuses(&mut ssh);
}

#[test]
fn ssh_the_first_host_is_lost_in_prepare() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_host_is_lost_in_prepare(&mut ssh, 0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_a_host_is_lost_in_commit_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_host_is_lost_in_commit(&mut ssh, 1, 0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_the_first_host_is_lost_in_commit_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_host_is_lost_in_commit(&mut ssh, 0, 0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_the_coordinator_is_killed_in_prepare_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    the_coordinator_is_killed_in_prepare(&mut ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_the_coordinator_is_killed_after_the_decision_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    the_coordinator_is_killed_after_the_decision(&mut ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_a_host_cannot_be_reached_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_host_cannot_be_reached(&mut ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ssh_a_part_is_stale_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    a_part_is_stale(&mut ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_a_host_refuses_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    a_host_refuses(&mut slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_a_host_is_lost_in_prepare_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    a_host_is_lost_in_prepare(&mut slurm, 2);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_the_first_host_is_lost_in_prepare_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    a_host_is_lost_in_prepare(&mut slurm, 0);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_a_host_is_lost_in_commit_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    // The job has lost the node, although it is back.
    a_host_is_lost_in_commit(&mut slurm, 1, 30);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_the_coordinator_is_killed_in_prepare_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    the_coordinator_is_killed_in_prepare(&mut slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_the_coordinator_is_killed_after_the_decision_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    the_coordinator_is_killed_after_the_decision(&mut slurm);
}

#[test]
#[ignore = "`every_case` runs it"]
fn slurm_a_part_is_stale_in_every_case() {
    let Some(mut slurm) = SlurmHosts::start(&fleet(3)) else { return };
    a_part_is_stale(&mut slurm);
}
