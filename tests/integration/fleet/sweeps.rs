//! Sweeps of SIGKILL over every failpoint that the coordinator and a host reach in runs over all hosts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fmt, fs};

use serde_json::Value;

use super::Hosts;
use crate::faults::{check_all_in, one_in, twice};
use crate::sandbox::{Inventory, Outcome};

/// Sessions on each of three hosts; those of `n1`, which is killed, have every feature that a session can have.
const SESSIONS: &str = r#"
[fleet]
shards = 3
[session.first]
shard = 0
resources = ["git-worktree", "port-range"]
[session.worker]
shard = 1
resources = [{ kind = "git-worktree", branch = "agents/{{ session.name }}", copy = [".env"] }, { kind = "port-range", block-size = 16 }]
setup = ["echo made > made.log"]
teardown = ["test -e README.md"]
files = { ".env" = { text = "PORT={{ sessions['first'].port.primary }}", mode = "section" } }
[session.worker.child.coder]
resources = [{ kind = "git-worktree" }, "port-range"]
[session.old]
shard = 1
resources = ["git-worktree", "port-range"]
[session.last]
shard = 2
resources = ["git-worktree"]
"#;

/// Returns the manifest of the second apply: one session is replaced, one removed, one added and one updated on `n1`, and one
/// is added on `n2`.
fn changed() -> String {
    SESSIONS.replace("block-size = 16", "block-size = 12").replace("session.old", "session.new").replace(
        "[session.last]",
        "[session.more]\nshard = 2\nresources = [\"git-worktree\"]\n[session.last]\nenv = { A = \"{{ sessions['new'].port.start }}\" }",
    )
}

/// Command that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    First,
    Changed,
    Destroy,
    /// `fleet recover` after a coordinator was killed at a point of [`Self::Changed`].
    Recover(&'static str),
    /// `fleet repair` after `n2` was lost and a worktree of `n1` was deleted.
    Repair,
}

/// Process that is killed: the coordinator, or a phase of host `n1`.
const PROCESSES: [&str; 5] = ["coordinator", "observe", "prepare", "release", "resolve"];

impl Killed {
    /// Creates the hosts; `n3` is a spare.
    fn hosts(self) -> Hosts {
        let hosts = Hosts::new(if self == Self::Repair { 4 } else { 3 }, SESSIONS);
        for name in &hosts.names {
            fs::write(hosts.root(name).join(".env"), "A=1\n").unwrap();
        }
        hosts
    }

    /// Brings the hosts to the state in which the command runs. Returns the inventories that an abort leaves.
    fn prepare(self, hosts: &Hosts) -> Vec<Inventory> {
        if self == Self::First {
            return hosts.inventories_without_records();
        }
        hosts.first(&[]).expect(0);
        if matches!(self, Self::Changed | Self::Recover(_)) {
            hosts.manifest(&changed());
        }
        if self == Self::Repair {
            fs::remove_dir_all(hosts.home("old").1).unwrap();
        }
        let before = hosts.inventories_without_records();
        if let Self::Recover(point) = self {
            let launcher = hosts.launcher_with("unset SEEDBED_FAILPOINT; ");
            let mut command = hosts.fleet_command("apply", &["--yes", "--launcher", &launcher]);
            command.env("SEEDBED_FAILPOINT", format!("{point}=crash"));
            Outcome::of(command.output().unwrap()).expect(137);
        }
        before
    }

    /// Returns the command with this launcher.
    fn command(self, hosts: &Hosts, launcher: &str) -> Command {
        match self {
            Self::First => hosts.first_command(launcher, &["--yes"]),
            Self::Changed => hosts.fleet_command("apply", &["--yes", "--launcher", launcher]),
            Self::Destroy => hosts.fleet_command("destroy", &["--yes", "--launcher", launcher]),
            Self::Recover(_) => hosts.fleet_command("recover", &["--launcher", launcher]),
            Self::Repair => hosts.fleet_command("repair", &["--launcher", launcher, "--forget", "n2"]),
        }
    }

    /// Runs the command with variables of failpoints in the environment of one process; returns the outcome and the trace.
    fn run(self, hosts: &Hosts, process: &str, failpoint: &str) -> (Outcome, Vec<String>) {
        let trace = hosts.sandbox.top.join("trace");
        let _ = fs::remove_file(&trace);
        let mut variables = vec![("SEEDBED_FAILPOINT_TRACE", trace.display().to_string())];
        if !failpoint.is_empty() {
            variables.push(("SEEDBED_FAILPOINT", format!("{failpoint}=crash")));
        }
        let mut command = if process == "coordinator" {
            let launcher = hosts.launcher_with("unset SEEDBED_FAILPOINT SEEDBED_FAILPOINT_TRACE; ");
            let mut command = self.command(hosts, &launcher);
            command.envs(variables);
            command
        } else {
            let exports = variables.iter().map(|(name, value)| format!("export {name}='{value}'; "));
            let exports = exports.collect::<String>();
            let before = format!("case {{host}}{{command}} in n1*\" {process} \"*) {exports};; esac; ");
            self.command(hosts, &hosts.launcher_with(&before))
        };
        let outcome = Outcome::of(command.output().unwrap());
        let trace = fs::read_to_string(&trace).unwrap_or_default();
        (outcome, trace.lines().map(str::to_owned).collect())
    }

    /// Returns a case for the first and a middle occurrence of each point that each process reaches.
    fn cases(self) -> Vec<String> {
        let hosts = self.hosts();
        let mut cases = Vec::new();
        for process in PROCESSES {
            self.prepare(&hosts);
            let (outcome, trace) = self.run(&hosts, process, "");
            outcome.expect(0);
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for line in &trace {
                *counts.entry(line.split('#').next().unwrap().to_owned()).or_default() += 1;
            }
            cases.extend(twice(&counts).into_iter().map(|point| format!("{process} {point}")));
            reset(&hosts);
        }
        cases
    }
}

/// Removes the swarm and the fleet.
#[track_caller]
fn reset(hosts: &Hosts) {
    for name in &hosts.names {
        hosts.on(name, &["recover"]).expect(0);
        if !hosts.active(name).is_empty() {
            hosts.on(name, &["destroy"]).expect(0);
        }
    }
    hosts.manifest(SESSIONS);
    let _ = fs::remove_dir_all(hosts.sandbox.top.join("fleet"));
}

/// Returns the number of the last committed run, and its sessions by host; nothing before the first commit. A host that was
/// forgotten has no entry, and each other host has one.
fn committed(fleet: &Path, names: &[String]) -> Option<(String, BTreeMap<String, Vec<String>>)> {
    let read =
        |path: &Path| -> Option<Value> { Some(serde_json::from_slice(&fs::read(path).ok()?).unwrap()) };
    let runs = fs::read_dir(fleet.join("runs")).ok()?;
    let mut runs: Vec<_> = runs.map(|run| run.unwrap().file_name().into_string().unwrap()).collect();
    runs.sort();
    let is_committed = |run: &String| {
        read(&fleet.join("runs").join(run).join("decision.json"))
            .is_some_and(|made| made["verdict"] == "commit")
    };
    let run = runs.into_iter().rfind(is_committed)?;
    let index = read(&fleet.join("runs").join(&run).join("index.json")).unwrap();
    let forgotten = index["forgotten"].as_array().cloned().unwrap_or_default();
    let known = names.iter().filter(|name| !forgotten.contains(&Value::from(name.as_str())));
    let mut by_host: BTreeMap<String, Vec<String>> = known.map(|name| (name.clone(), Vec::new())).collect();
    for session in index["sessions"].as_array().unwrap() {
        let text = |key: &str| session[key].as_str().unwrap().to_owned();
        by_host.entry(text("host")).or_default().push(text("session"));
    }
    Some((run, by_host))
}

/// Expects that all hosts are as before, if no run was committed since, or else as the last decision says.
#[track_caller]
fn assert_decided(hosts: &Hosts, before: &[Inventory], run_before: Option<&str>, is_run: bool) {
    let decided = committed(&hosts.sandbox.top.join("fleet"), &hosts.names);
    if decided.as_ref().map(|(run, _)| run.as_str()) == run_before {
        for (before, mut after) in before.iter().zip(hosts.inventories_without_records()) {
            // Without a run there is nothing to recover, and the next command removes the lock of a killed one.
            after.retain(|path, _| is_run || !path.starts_with("state/swarms/") || before.contains_key(path));
            crate::sandbox::assert_same(before, &after);
        }
        return;
    }
    for (name, mut expected) in decided.unwrap().1 {
        let mut active = hosts.active(&name);
        expected.sort();
        active.sort();
        assert_eq!(active, expected, "{name}");
    }
}

/// Kills the command in one process at one point, and perhaps a `recover` after it; then hosts follow, and the command is
/// run again.
fn check(killed: Killed, at: usize, hosts: &Hosts, case: &str) {
    let fleet = hosts.sandbox.top.join("fleet");
    let clean = hosts.inventories();
    let run_before = (killed != Killed::First).then_some("000001");
    let before = killed.prepare(hosts);
    let (case, second) = case.split_once(" | ").map_or((case, None), |(first, second)| (first, Some(second)));
    let (process, point) = case.split_once(' ').unwrap();
    let (outcome, trace) = killed.run(hosts, process, point);
    assert!(trace.contains(&format!("crash {point}")), "it did not die there: {outcome:?}");
    assert_eq!(outcome.code == 137, process == "coordinator", "{outcome:?}");
    if let Some((process, point)) = second.and_then(|second| second.split_once(' ')) {
        // The state differs from that in which the points were counted: this one is perhaps not reached.
        Killed::Recover("").run(hosts, process, point);
    }
    let launcher = hosts.launcher();
    if at.is_multiple_of(2) {
        // A fleet whose hosts are not written down has nothing to recover.
        let is_new = !fleet.join("config.json").exists();
        let recovered = hosts.fleet("recover", &["--launcher", &launcher]);
        assert_eq!(recovered.code == 0, !is_new, "{recovered:?}");
    } else {
        for name in hosts.names.iter().rev() {
            hosts.on(name, &["recover"]).expect(0);
        }
    }
    assert_decided(hosts, &before, run_before, process != "observe");
    let again = killed.command(hosts, &launcher).output().unwrap();
    Outcome::of(again).expect(0);
    hosts.fleet("status", &[]).expect(0);
    hosts.fleet("destroy", &["--yes"]).expect(0);
    if killed == Killed::Repair {
        hosts.on("n2", &["destroy"]).expect(0).says(&["has given up host n2"]);
    }
    hosts.manifest(SESSIONS);
    hosts.assert_as(&clean);
    fs::remove_dir_all(&fleet).unwrap();
}

/// Kill, with its position among all kills of its sweep, which chooses how the run is recovered.
struct Case {
    at: usize,
    kill: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kill)
    }
}

/// Checks some of these kills, or all, each worker with hosts of its own.
#[track_caller]
fn check_some(killed: Killed, kills: impl IntoIterator<Item = String>) {
    let cases: Vec<_> = kills.into_iter().enumerate().map(|(at, kill)| Case { at, kill }).collect();
    eprintln!("{killed:?}: {} cases", cases.len());
    check_all_in(|| killed.hosts(), &one_in(96, cases), |own, case| check(killed, case.at, own, &case.kill));
}

fn sweep(killed: Killed) {
    check_some(killed, killed.cases());
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_first_apply_killed_anywhere_is_all_or_nothing_in_every_case() {
    sweep(Killed::First);
}

#[test]
#[ignore = "`every_case` runs it"]
fn an_apply_that_changes_and_releases_killed_anywhere_is_all_or_nothing_in_every_case() {
    sweep(Killed::Changed);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_destroy_killed_anywhere_is_all_or_nothing_in_every_case() {
    sweep(Killed::Destroy);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_recover_killed_anywhere_is_done_again_in_every_case() {
    sweep(Killed::Recover("fleet.deciding"));
    sweep(Killed::Recover("fleet.decided"));
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_repair_killed_anywhere_is_all_or_nothing_in_every_case() {
    sweep(Killed::Repair);
}

/// A second kill, of the recovery of the first one: pairs of points, each point of the first run once.
#[test]
#[ignore = "`every_case` runs it"]
fn an_apply_and_its_recovery_killed_anywhere_are_all_or_nothing_in_every_case() {
    let recoveries = Killed::Recover("fleet.decided").cases();
    let pair = |(at, case): (usize, String)| format!("{case} | {}", recoveries[at * 37 % recoveries.len()]);
    check_some(Killed::Changed, Killed::Changed.cases().into_iter().enumerate().map(pair));
}
