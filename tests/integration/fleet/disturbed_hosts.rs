//! Hosts that answer, but not as usual: they are full, frozen, shared with another fleet, an hour early, or cannot write where
//! all hosts do; and hosts that return after everything is over.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::lost_hosts::{
    assert_as, lives_on, nothing_runs, wait_for, waits_after_the_decision, waits_before_the_run,
};
use super::machines::{Coordinator, Machines, wait_until_begun, waiting};
use super::ssh::SshHosts;
use super::{SESSIONS, fleet};
use crate::sandbox::Outcome;

/// Hook that runs a script once, as soon as this file of the fleet's directory exists.
fn once_there_is(machines: &dyn Machines, file: &str, script: &str) -> String {
    let top = machines.top();
    let top = top.display();
    format!("if test -e {top}/fleet/{file} && ! test -e {top}/done; then touch {top}/done; {script}; fi\n")
}

fn write(machines: &dyn Machines, file: &str) {
    fs::write(machines.top().join(file), "").unwrap();
}

fn remove(machines: &dyn Machines, file: &str) {
    fs::remove_file(machines.top().join(file)).unwrap();
}

/// Returns the sessions of the index with their hosts.
fn homes(machines: &dyn Machines) -> Vec<(String, String)> {
    let index = machines.hosts().index();
    let text = |found: &serde_json::Value, key: &str| found[key].as_str().unwrap().to_owned();
    let sessions = index["sessions"].as_array().unwrap().iter();
    sessions.map(|found| (text(found, "session"), text(found, "host"))).collect()
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_disk_that_is_full_in_prepare_or_commit_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    ssh.mount("n1", "24m");
    let before = ssh.inventories();
    let home = ssh.top().join("n1");
    let home = home.display();
    let mut prepared = false;
    for kept in [0, 4, 8, 12, 20, 32, 64, 128, 256, 512, 1024, 8192] {
        let fill = format!("cat /dev/zero > {home}/filler 2> /dev/null; truncate -s -{kept}K {home}/filler");
        ssh.hook("n1", &once_there_is(&ssh, "runs/*/plan", &fill));
        let outcome = ssh.first(&[]);
        assert!(ssh.top().join("done").exists(), "{outcome:?}");
        ssh.hook("n1", "");
        if outcome.code == 1 {
            outcome.says(&["n1: ", "No space left", "every host was rolled back"]);
            assert_as(&ssh, &before);
        } else if outcome.code == 30 {
            fs::remove_file(ssh.top().join("n1/filler")).unwrap();
            ssh.fleet("recover", &[]).expect(0);
        } else {
            outcome.expect(0);
            prepared = true;
            fs::remove_file(ssh.top().join("n1/filler")).unwrap();
            ssh.fleet("destroy", &["--yes"]).expect(0);
        }
        let _ = fs::remove_file(ssh.top().join("n1/filler"));
        assert_as(&ssh, &before);
        fs::remove_dir_all(ssh.top().join("fleet")).unwrap();
        remove(&ssh, "done");
    }
    assert!(prepared, "the last one has room");
    for kept in [0, 4, 8, 16, 64] {
        let fill = format!("cat /dev/zero > {home}/filler 2> /dev/null; truncate -s -{kept}K {home}/filler");
        ssh.hook("n1", &once_there_is(&ssh, "runs/000001/decision.json", &fill));
        let outcome = ssh.first(&[]);
        assert!([0, 30].contains(&outcome.code));
        ssh.hook("n1", "");
        fs::remove_file(ssh.top().join("n1/filler")).unwrap();
        ssh.fleet("recover", &[]).expect(0);
        ssh.fleet("status", &[]).expect(0);
        assert_eq!(homes(&ssh).len(), 12);
        ssh.fleet("destroy", &["--yes"]).expect(0);
        assert_as(&ssh, &before);
        fs::remove_dir_all(ssh.top().join("fleet")).unwrap();
        remove(&ssh, "done");
    }
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_cannot_write_to_the_directory_of_the_fleet_in_every_case() {
    let Some(ssh) = SshHosts::start(3, &fleet(3)) else { return };
    ssh.first(&[]).expect(0);
    ssh.fleet("destroy", &["--yes"]).expect(0);
    let before = ssh.inventories();
    let directory = ssh.top().join("fleet");
    let directory = directory.display();
    let mut run = 3;
    for mount in [
        format!("mount --bind {directory} {directory} && mount -o remount,bind,ro {directory}"),
        format!("mount -t tmpfs tmpfs {directory}"),
    ] {
        ssh.shell("n1", &mount).expect(0);
        ssh.fleet("apply", &[]).expect(1).says(&["n1: ", "nothing was changed"]);
        assert_as(&ssh, &before);
        ssh.fleet("status", &[]).expect(30).says(&[]);
        ssh.shell("n1", &format!("umount {directory}")).expect(0);
        for phase in ["plan", "decision.json"] {
            ssh.hook("n1", &once_there_is(&ssh, &format!("runs/{run:06}/{phase}"), &mount));
            let outcome = ssh.fleet("apply", &[]);
            assert!(ssh.top().join("done").exists());
            ssh.hook("n1", "");
            remove(&ssh, "done");
            ssh.shell("n1", &format!("umount {directory}")).expect(0);
            if phase == "plan" {
                assert!([1, 30].contains(&outcome.code));
                ssh.fleet("recover", &[]).expect(0);
            } else {
                outcome.expect(30);
                ssh.fleet("recover", &[]).expect(0);
                ssh.fleet("status", &[]).expect(0);
                assert_eq!(homes(&ssh).len(), 12);
                ssh.fleet("destroy", &["--yes"]).expect(0);
                run += 1;
            }
            run += 1;
            assert_as(&ssh, &before);
        }
    }
    nothing_runs(&ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_frozen_host_resolves_its_part_when_it_continues_in_every_case() {
    let Some(ssh) = SshHosts::start(3, &fleet(3)) else { return };
    ssh.manifest(&waiting(&ssh, 1));
    let before = ssh.inventories();
    let coordinator = ssh.start_first(&["--timeout", "4"]);
    wait_until_begun(&ssh);
    ssh.freeze("n1");
    coordinator.outcome().expect(30).says(&["n1: it did not vote"]);
    let after = ssh.inventories();
    assert!((&after[0], &after[2]) == (&before[0], &before[2]));
    write(&ssh, "go");
    ssh.thaw("n1");
    nothing_runs(&ssh);
    assert_as(&ssh, &before);
    lives_on(&ssh);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_frozen_after_the_decision_commits_when_it_continues_in_every_case() {
    let Some(ssh) = SshHosts::start(3, &fleet(3)) else { return };
    ssh.hook("n1", &waits_after_the_decision(&ssh, 1));
    let before = ssh.inventories();
    let coordinator = ssh.start_first(&["--timeout", "6"]);
    wait_for(&ssh, "reached");
    ssh.freeze("n1");
    coordinator.outcome().expect(30).says(&["the run is committed"]);
    write(&ssh, "go");
    ssh.thaw("n1");
    nothing_runs(&ssh);
    ssh.fleet("status", &[]).expect(0);
    ssh.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&ssh, &before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_returns_after_an_apply_without_it_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, "") else { return };
    let any = format!("[fleet]\n{}", SESSIONS.replace("shard = 2\n", ""));
    ssh.manifest(&any);
    let before = ssh.inventories();
    // Lost with its sessions: the others have them from now on.
    ssh.first(&[]).expect(0);
    ssh.lose("n2");
    let without = ["--hosts", "n0,n1"];
    ssh.fleet("apply", &without).expect(1).says(&["n2", "--forget HOST"]);
    ssh.fleet("apply", &[&without[..], &["--forget", "n2", "--yes"]].concat()).expect(0);
    assert!(homes(&ssh).iter().all(|(_, host)| host != "n2"));
    assert_eq!(homes(&ssh).len(), 12);
    let applied = ssh.inventories();
    ssh.bring_back("n2");
    ssh.fleet("recover", &[]).expect(0);
    ssh.fleet("status", &[]).expect(0);
    assert_as(&ssh, &applied);
    // With it again, no session exists twice.
    let all = ["--hosts", "n0,n1,n2", "--yes"];
    ssh.fleet("apply", &all).expect(1).says(&["n2: it has sessions", "seedbed destroy"]);
    assert_as(&ssh, &applied);
    ssh.on("n2", "destroy --yes").expect(0);
    ssh.fleet("apply", &all).expect(0);
    let mut sessions: Vec<_> = ["n0", "n1", "n2"].iter().flat_map(|host| ssh.hosts().active(host)).collect();
    sessions.sort();
    let mut once = sessions.clone();
    once.dedup();
    assert_eq!(sessions, once);
    ssh.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&ssh, &before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_host_that_returns_after_the_destroy_of_its_fleet_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    let before = ssh.inventories();
    // One host is lost before it has committed, another with its sessions.
    ssh.hook("n2", &waits_after_the_decision(&ssh, 1));
    let coordinator = ssh.start_first(&[]);
    wait_for(&ssh, "reached");
    ssh.lose("n2");
    coordinator.outcome().expect(30);
    ssh.lose("n1");
    ssh.fleet("destroy", &["--yes", "--forget", "n2"]).expect(30).says(&["n1"]);
    ssh.fleet("destroy", &["--yes", "--forget", "n1", "--forget", "n2"]).expect(0);
    assert_eq!(homes(&ssh).len(), 0);
    ssh.remove_hook("n2");
    ssh.bring_back("n1");
    ssh.bring_back("n2");
    ssh.on("n1", "destroy --yes").expect(0);
    ssh.on("n2", "recover").expect(0).says(&["committed what a fleet has decided"]);
    ssh.on("n2", "destroy --yes").expect(0);
    assert_as(&ssh, &before);
    // The hosts that were given up take part again if they are named.
    ssh.first(&[]).expect(0);
    ssh.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&ssh, &before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn two_fleets_at_once_on_the_same_hosts_in_every_case() {
    let Some(ssh) = SshHosts::start(3, &fleet(3)) else { return };
    let top = ssh.top();
    // Both need all ports of a host.
    let manifest = |swarm: &str| {
        let text = ssh.hosts().sandbox.manifest_text(&fleet(3));
        text.replace("swarm = \"shop\"", &format!("swarm = \"{swarm}\""))
            .replace("block-count = 128", "block-count = 12")
    };
    for host in ["n0", "n1", "n2", "."] {
        ssh.hosts().sandbox.clone_to(&format!("{host}/other"));
        fs::write(top.join(host).join("other/seedbed.toml"), manifest("other")).unwrap();
        fs::write(top.join(host).join("repository/seedbed.toml"), manifest("shop")).unwrap();
    }
    let before = ssh.inventories();
    let command = |verb: &str, directory: &str, name: &str, rest: &[&str]| {
        let reached = ssh.reached();
        let root = top.join("{host}").join(directory);
        let fleet = top.join(name);
        let hosts = ["--hosts", "n0,n1,n2", &reached[0], &reached[1], "--root", root.to_str().unwrap()];
        let words = [&["fleet", verb, fleet.to_str().unwrap()], &hosts[..], rest].concat();
        let mut command = ssh.hosts().sandbox.command(&words);
        command.current_dir(top.join(directory)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    for _ in 0..3 {
        let both = [("repository", "fleet"), ("other", "fleet-2")]
            .map(|(directory, name)| Coordinator::start(command("apply", directory, name, &[])));
        let outcomes = both.map(Coordinator::outcome);
        for (outcome, (directory, name)) in
            outcomes.into_iter().zip([("repository", "fleet"), ("other", "fleet-2")])
        {
            if outcome.code != 0 {
                assert!([1, 75].contains(&outcome.code), "{outcome:?}");
                Outcome::of(command("apply", directory, name, &[]).output().unwrap()).expect(0);
            }
        }
        let ports = |name: &str| -> Vec<(String, u64)> {
            let index: serde_json::Value =
                serde_json::from_slice(&fs::read(top.join(name).join("index.json")).unwrap()).unwrap();
            let sessions = index["sessions"].as_array().unwrap().clone();
            assert_eq!(sessions.len(), 12);
            sessions
                .iter()
                .filter_map(|one| Some((one["host"].as_str()?.to_owned(), one["ports"][0][0].as_u64()?)))
                .collect()
        };
        let (one, two) = (ports("fleet"), ports("fleet-2"));
        assert!(one.iter().all(|block| !two.contains(block)), "{one:?} {two:?}");
        // Another coordinator of the same fleet at the same time.
        let both = [0, 1]
            .map(|_| Coordinator::start(command("destroy", "repository", "fleet", &["--yes"])))
            .map(Coordinator::outcome);
        let mut codes = both.each_ref().map(|outcome| outcome.code);
        codes.sort_unstable();
        assert!(codes == [0, 75] || codes == [0, 0], "{both:?}");
        Outcome::of(command("destroy", "other", "fleet-2", &["--yes"]).output().unwrap()).expect(0);
        assert_as(&ssh, &before);
    }
    // A second fleet of the same swarm cannot have its hosts.
    Outcome::of(command("apply", "repository", "fleet", &[]).output().unwrap()).expect(0);
    let applied = ssh.inventories();
    let second = Outcome::of(command("apply", "repository", "fleet-3", &[]).output().unwrap());
    second.expect(1).says(&["the swarm is the part of host n0 of the fleet in "]);
    assert_as(&ssh, &applied);
    Outcome::of(command("destroy", "repository", "fleet", &["--yes"]).output().unwrap()).expect(0);
    assert_as(&ssh, &before);
}

/// Applies the fleet, changes it and destroys it, and expects each host to be as it was.
#[track_caller]
pub(super) fn is_applied_changed_and_destroyed(machines: &dyn Machines) {
    let before = machines.inventories();
    machines.first(&[]).expect(0);
    machines.fleet("status", &[]).expect(0);
    machines.manifest(&fleet(3).replace("count = 8", "count = 10"));
    machines.fleet("apply", &[]).expect(0);
    machines.fleet("destroy", &["--yes"]).expect(0);
    machines.manifest(&fleet(3));
    assert_as(machines, &before);
}

/// Returns the variable that lets programs see another time; `None`, with a notice, on a machine without faketime.
pub(super) fn faketime() -> Option<String> {
    let Ok(environment) = Command::new("faketime").args(["-f", "+0", "env"]).output() else {
        eprintln!("NOT TESTED, because there is no faketime");
        return None;
    };
    let environment = String::from_utf8(environment.stdout).unwrap();
    Some(environment.lines().find(|line| line.starts_with("LD_PRELOAD=")).unwrap().to_owned())
}

#[test]
#[ignore = "`every_case` runs it"]
fn clocks_an_hour_apart_change_nothing_in_every_case() {
    let Some(mut ssh) = SshHosts::start(3, &fleet(3)) else { return };
    let Some(library) = faketime() else { return };
    let clocks = |ssh: &SshHosts, rest: &str| {
        for (host, offset) in [("n0", "+1h"), ("n2", "-1h")] {
            // The library of the user's programs, not of `nsenter`.
            ssh.hook(
                host,
                &format!("{rest}export '{library}' FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1\n"),
            );
        }
    };
    clocks(&ssh, "");
    let before = ssh.inventories();
    let hour = |host: &str| ssh.shell(host, "date +%s").expect(0).stdout.trim().parse::<i64>().unwrap();
    assert!((7190..7300).contains(&(hour("n0") - hour("n2"))), "the clocks differ");
    is_applied_changed_and_destroyed(&ssh);
    // Lost after the decision, back with another clock.
    clocks(&ssh, &waits_after_the_decision(&ssh, 4));
    let coordinator = Coordinator::start(ssh.fleet_command("apply", &[]));
    wait_for(&ssh, "reached");
    ssh.lose("n0");
    write(&ssh, "go");
    coordinator.outcome().expect(30);
    clocks(&ssh, "");
    ssh.bring_back("n0");
    ssh.fleet("recover", &[]).expect(0);
    ssh.fleet("status", &[]).expect(0);
    ssh.fleet("destroy", &["--yes"]).expect(0);
    assert_as(&ssh, &before);
}

/// Interrupts the first `fleet apply` when the file `reached` exists, and expects it to end soon.
#[track_caller]
fn interrupted(ssh: &SshHosts, signal: Signal, is_group: bool) -> Outcome {
    let _ = fs::remove_dir_all(ssh.top().join("fleet"));
    let coordinator = ssh.start_first(&["--timeout", "90"]);
    wait_for(ssh, "reached");
    if is_group {
        coordinator.signal_group(signal);
    } else {
        coordinator.signal(signal);
    }
    let begun = Instant::now();
    let outcome = coordinator.outcome();
    assert!(begun.elapsed() < Duration::from_mins(1), "it waits for hosts: {outcome:?}");
    remove(ssh, "reached");
    outcome
}

/// Lets everything that waits continue, and end.
#[track_caller]
fn released(ssh: &SshHosts) {
    write(ssh, "go");
    nothing_runs(ssh);
    remove(ssh, "go");
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_coordinator_that_is_interrupted_in_each_phase_in_every_case() {
    let Some(ssh) = SshHosts::start(3, &fleet(3)) else { return };
    let before = ssh.inventories();
    for (signal, is_group) in [(Signal::INT, true), (Signal::TERM, false)] {
        // While it observes.
        let _ = fs::remove_dir_all(ssh.top().join("fleet"));
        ssh.hook("n1", &waits_before_the_run(&ssh, 1));
        interrupted(&ssh, signal, is_group).expect(130);
        assert_as(&ssh, &before);
        released(&ssh);
        assert_as(&ssh, &before);
        // While a host prepares: it cannot be rolled back before its `setup` has ended.
        ssh.hook("n1", "");
        ssh.manifest(&waiting(&ssh, 1).replace("begun", "reached"));
        interrupted(&ssh, signal, is_group).expect(30).says(&["interrupted", "n1: "]);
        assert!(ssh.decision(1).unwrap().contains("abort"));
        released(&ssh);
        ssh.fleet("recover", &[]).expect(0);
        ssh.manifest(&fleet(3));
        assert_as(&ssh, &before);
        // While a host follows the decision.
        ssh.hook("n1", &waits_after_the_decision(&ssh, 1));
        interrupted(&ssh, signal, is_group).expect(30).says(&[
            "the run is committed",
            "n1: ",
            "fleet recover",
        ]);
        assert!(ssh.decision(1).unwrap().contains("commit"));
        released(&ssh);
        ssh.hook("n1", "");
        ssh.fleet("recover", &[]).expect(0);
        ssh.fleet("status", &[]).expect(0);
        assert_eq!(homes(&ssh).len(), 12);
        ssh.fleet("destroy", &["--yes"]).expect(0);
        assert_as(&ssh, &before);
    }
    // A host that hangs when the interrupted run is rolled back is not waited for either.
    ssh.hook("n1", &waits_after_the_decision(&ssh, 1).replace("reached", "hangs"));
    ssh.manifest(&waiting(&ssh, 2).replace("begun", "reached"));
    interrupted(&ssh, Signal::TERM, false).expect(30).says(&["n1: it did not answer"]);
    released(&ssh);
    ssh.hook("n1", "");
    ssh.fleet("recover", &[]).expect(0);
    ssh.manifest(&fleet(3));
    assert_as(&ssh, &before);
}
