//! A day of a swarm with kills in the middle of each step: plan, review, apply, work, spawn, collect, merge, release,
//! and the next day in tmux.
//!
//! Four agents work: one commits, one commits twice, one hangs beside a file that is in no commit, and one is killed. All
//! that seedbed prints as a command is run as it is printed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{check_all, one_in, traced_in};
use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same, send, wait_until};
use crate::sessions::export::Tmux;

/// Numbers of the failpoints at which each step is killed, from its first effects to its last. The first is in the middle
/// of most steps.
const KILLS: [u32; 24] =
    [60, 1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 33, 41, 50, 75, 90, 110, 130, 155, 185, 220, 270, 330, 400];

/// Work of an agent, by the name of its session. An agent continues where a killed one has stopped.
const AGENT: &str = r#"#!/bin/sh
set -eu
commit() {
    if [ ! -e "$1" ]; then
        echo "$NAME" > "$1"
        git add "$1"
        git commit --quiet --message "Add $1"
        git rev-parse HEAD >> "$AGENT_REPO_ROOT/../made"
    fi
    echo "committed $1"
}
commit "$NAME.txt"
case $NAME in
coder-1) commit "$NAME-again.txt" ;;
coder-2) echo half > notes.txt; exec sleep 1011 ;;
coder-3) kill -KILL $$ ;;
esac
"#;

const MANIFEST: &str = r#"
[defaults.git-worktree]
base-ref = "main"
[session.lead]
resources = ["git-worktree", { kind = "port-range", block-size = 8, block-count = 64, slots = 6 }]
[session.lead.child.coder]
count = 4
resources = [{ kind = "git-worktree", branch = "agents/{{ session.name }}" }, "port-range"]
env = { NAME = "{{ session.name }}" }
command = ["./agent.sh"]
"#;

/// Files that the agents commit.
const COMMITTED: [&str; 6] =
    ["coder-0.txt", "coder-1.txt", "coder-1-again.txt", "coder-2.txt", "coder-3.txt", "helper.txt"];

struct Day<'s> {
    sandbox: &'s Sandbox,
    /// Number of the failpoint at which each step is killed.
    kill: u32,
}

#[test]
#[ignore = "`every_case` runs it"]
fn day_of_a_swarm_with_kills_loses_no_work_and_leaves_nothing() {
    let cases: Vec<_> = one_in(KILLS.len(), KILLS).iter().map(u32::to_string).collect();
    check_all(MANIFEST, &cases, |sandbox, kill| {
        let day = Day { sandbox, kill: kill.parse().unwrap() };
        let first = day.dawn();
        // Ends the server, but only after the day.
        let tmux = Tmux::of(sandbox);
        let before = sandbox.inventory();
        day.apply();
        day.work();
        day.spawn();
        day.merge();
        day.release_landed();
        // The next day, agents whose branches have landed begin again at main.
        day.apply();
        day.work_in_tmux(tmux.as_ref());
        day.end();
        let main = sandbox.git(&["ls-tree", "--name-only", "main"]);
        for file in COMMITTED {
            assert!(main.lines().any(|line| line == file), "{file} is lost");
        }
        sandbox.git(&["reset", "--quiet", "--hard", &first]);
        assert_same(&without_journals(before), &without_journals(sandbox.inventory()));
        sandbox.ok(&["doctor"]);
    });
}

/// Returns an inventory without the journals and objects of Git, which only grow.
fn without_journals(mut inventory: Inventory) -> Inventory {
    let grows = [
        "repository/.git/objects",
        "repository/.git/logs",
        "repository/.git/ORIG_HEAD",
        // Git keeps the directory of a group of refs.
        "repository/.git/refs/seedbed",
    ];
    inventory.retain(|path, _| !grows.iter().any(|part| path.starts_with(part)));
    inventory
}

/// Returns the texts of an array.
fn texts(array: &Value) -> Vec<String> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

impl Day<'_> {
    /// Commits the program of the agents, and returns the commit.
    fn dawn(&self) -> String {
        let _ = fs::remove_file(self.sandbox.top.join("made"));
        self.sandbox.write("agent.sh", AGENT);
        let program = self.sandbox.repository.join("agent.sh");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        self.sandbox.git(&["add", "--all"]);
        self.sandbox.commit("agent")
    }

    /// Runs a command that is killed, as the recovery after it; then runs it again unless it is done.
    fn step(&self, directory: &Path, args: &[&str], is_done: impl Fn() -> bool) {
        let sandbox = self.sandbox;
        let args = [args, &["--yes"]].concat();
        let killed_at = |directory: &Path, args: &[&str], number: u32| {
            let run = traced_in(sandbox, directory, args, Some(&format!("*#{number}=crash"))).outcome;
            let is_killed = run.code == 137;
            if !is_killed {
                run.expect(0);
            }
            self.assert_commits_are_reachable();
            is_killed
        };
        if killed_at(directory, &args, self.kill) {
            killed_at(&sandbox.repository, &["recover"], self.kill / 2 + 1);
            sandbox.ok(&["recover"]);
            sandbox.git(&["fsck", "--no-dangling"]);
            if !is_done() {
                let again = sandbox.seedbed_in(directory, &args);
                if let Some(remedy) = again.stderr.split('`').find(|part| part.contains(" worktree remove "))
                {
                    self.shell(remedy);
                    sandbox.seedbed_in(directory, &args).expect(0);
                } else {
                    again.expect(0);
                }
            }
        }
        assert!(is_done(), "{args:?}");
        self.assert_commits_are_reachable();
    }

    /// Expects each commit of an agent in a ref, or in the history of a worktree.
    #[track_caller]
    fn assert_commits_are_reachable(&self) {
        let reachable = self.sandbox.git(&["rev-list", "--all"]);
        let reachable: BTreeSet<_> = reachable.lines().collect();
        let made = fs::read_to_string(self.sandbox.top.join("made")).unwrap_or_default();
        let lost: Vec<_> = made.lines().filter(|commit| !reachable.contains(commit)).collect();
        assert!(lost.is_empty(), "{lost:?} of {made}");
    }

    /// Returns the paths of the active sessions.
    fn active(&self) -> Vec<String> {
        let list = self.sandbox.ok(&["list", "--json"]).json();
        list["swarms"].as_array().unwrap().first().map(|swarm| texts(&swarm["sessions"])).unwrap_or_default()
    }

    /// Applies the manifest as it was reviewed.
    fn apply(&self) {
        let sandbox = self.sandbox;
        let file = sandbox.top.join("plan.json");
        let file = file.to_str().unwrap();
        let _ = fs::remove_file(file);
        sandbox.ok(&["plan", "-o", file]);
        let shown = sandbox.ok(&["show", file, "--json"]).json();
        let digest = shown["digest"].as_str().unwrap();
        let other = format!("sha256:{:064}", 0);
        sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes", "--expect", &other]).expect(69));
        let is_done = || sandbox.seedbed(&["plan", "--detailed-exitcode"]).code == 0;
        self.step(&sandbox.repository, &["apply", "--expect", digest], is_done);
        assert_eq!(self.active().len(), 5);
    }

    /// Runs the agents: first in a `start` that is killed, then until all have ended.
    fn work(&self) {
        let sandbox = self.sandbox;
        let killed = sandbox.start(&["start"]);
        let notes = sandbox.directory_of("lead/coder-2").join("notes.txt");
        wait_until("an agent hangs", || notes.exists());
        send(Signal::KILL, &killed);
        killed.wait_with_output().unwrap();
        sandbox.unchanged(|| {
            sandbox.seedbed(&["destroy", "--yes", "--rescue"]).expect(69).says(&["sleep 1011"]);
        });
        let refused = sandbox.seedbed(&["start"]).expect(69).says(&["lead/coder-2: ", "sleep 1011"]);
        let remedy = refused.stderr.split('`').find(|part| part.starts_with("kill ")).unwrap();
        self.shell(remedy);
        wait_until("the run has ended", || {
            sandbox.ok(&["status"]).stdout.contains("last command: ended without a result")
        });
        let text = sandbox.seedbed(&["start", "--stall", "1s", "--show", "grouped"]).expect(137).stderr;
        for (coder, result) in [(0, "done"), (1, "done"), (2, "no output"), (3, "SIGKILL")] {
            let row = text.lines().find(|line| line.starts_with(&format!("lead/coder-{coder} "))).unwrap();
            assert!(row.contains(&format!("  {result}")), "{text}");
        }
        assert_eq!(sandbox.ok(&["logs", "coder-2"]).stdout, "committed coder-2.txt\n");
        self.assert_commits_are_reachable();
    }

    /// Adds an agent from inside a session, and runs it.
    fn spawn(&self) {
        let lead = self.sandbox.directory_of("lead");
        let is_done = || self.active().contains(&"lead/helper".to_owned());
        self.step(&lead, &["spawn", "helper", "--template", "coder"], is_done);
        self.sandbox.ok(&["start", "helper"]);
        self.assert_commits_are_reachable();
    }

    /// Collects the work, also in a run that is killed, and merges it with the printed commands.
    fn merge(&self) {
        let sandbox = self.sandbox;
        let results = sandbox.top.join("results");
        let args = ["collect", "-o", results.to_str().unwrap()];
        let collected = sandbox.unchanged(|| {
            let killed = sandbox.start(&args);
            thread::sleep(Duration::from_millis(u64::from(self.kill)));
            send(Signal::KILL, &killed);
            killed.wait_with_output().unwrap();
            let _ = fs::remove_dir_all(&results);
            sandbox.ok(&args).stdout
        });
        let commands = collected.lines().skip_while(|line| *line != "merge with:").skip(1);
        let commands: Vec<_> = commands.map_while(|line| line.strip_prefix("    ")).collect();
        assert!(!commands.is_empty(), "{collected}");
        self.shell(&commands.join("\n"));
        fs::remove_dir_all(results).unwrap();
    }

    /// Releases all that has landed. What is in no commit stays.
    fn release_landed(&self) {
        let where_landed = ["destroy", "--where", "landed=main,clean,no-process"];
        let is_done = || self.active() == ["lead", "lead/coder-2"];
        self.step(&self.sandbox.repository, &where_landed, is_done);
        assert_notes_are_in(&self.sandbox.directory_of("lead/coder-2"));
    }

    /// Runs the agents in windows of tmux. Three have nothing to do, and one hangs.
    fn work_in_tmux(&self, tmux: Option<&Tmux<'_>>) {
        let sandbox = self.sandbox;
        let main = sandbox.git(&["rev-parse", "main"]);
        let at_main =
            (0..4).filter(|coder| sandbox.git(&["rev-parse", &format!("agents/coder-{coder}")]) == main);
        assert_eq!(at_main.collect::<Vec<_>>(), [0, 1, 3], "only coder-2 goes on with its branch");
        let Some(tmux) = tmux else { return };
        let has_windows =
            || sandbox.program("tmux", &sandbox.top).arg("list-windows").output().unwrap().status.success();
        self.step(&sandbox.repository, &["start", "--tmux"], has_windows);
        let expected = "lead/coder-0 1\nlead/coder-1 1\nlead/coder-2 0\nlead/coder-3 1\n";
        wait_until("all but one have ended", || tmux.windows() == expected);
        sandbox.seedbed(&["destroy", "--yes"]).expect(69).says(&[
            "lead/coder-2:",
            "sleep 1011",
            "1 untracked",
        ]);
        let stop = ["destroy", "coder-2", "--stop", "--rescue"];
        self.step(&sandbox.repository, &stop, || !self.active().contains(&"lead/coder-2".to_owned()));
    }

    /// Releases everything, and restores what was saved.
    fn end(&self) {
        let sandbox = self.sandbox;
        self.step(&sandbox.repository, &["destroy", "--rescue"], || self.active().is_empty());
        let list = sandbox.ok(&["rescue", "list", "--json"]).json();
        let rescues = list["rescues"].as_array().unwrap();
        let rescues: BTreeSet<_> = rescues.iter().map(|rescue| rescue["name"].as_str().unwrap()).collect();
        let restored = sandbox.top.join("restored");
        let name = rescues.first().expect("the notes were saved");
        let restore = ["rescue", "restore", name, "--into", restored.to_str().unwrap()];
        let is_complete = || {
            let marker = ["rev-parse", "--git-path", "seedbed-restoring"];
            restored.join("notes.txt").exists() && !Path::new(&sandbox.git_in(&restored, &marker)).exists()
        };
        self.step(&sandbox.repository, &restore, is_complete);
        assert_notes_are_in(&restored);
        sandbox.git(&["worktree", "remove", "--force", restored.to_str().unwrap()]);
        for name in rescues {
            let drop = ["rescue", "drop", name];
            self.step(&sandbox.repository, &drop, || !sandbox.ok(&["rescue", "list"]).stdout.contains(name));
        }
        // A branch that Git deletes without force has landed.
        for branch in sandbox.git(&["branch", "--list", "agents/*", "--format=%(refname:short)"]).lines() {
            sandbox.git(&["branch", "--quiet", "-d", branch]);
        }
        self.assert_commits_are_reachable();
        let server = sandbox.program("tmux", &sandbox.top).arg("list-windows").output();
        assert!(server.is_ok_and(|listed| !listed.status.success()), "windows are left");
        wait_until("no process is left", || processes_in(&sandbox.top).is_empty());
    }

    /// Runs commands of a user in the repository.
    fn shell(&self, commands: &str) {
        let mut shell = self.sandbox.program("sh", &self.sandbox.repository);
        Outcome::of(shell.args(["-ec", commands]).output().unwrap()).expect(0);
    }
}

/// Expects the file of the agent that hangs, which is in no commit.
#[track_caller]
fn assert_notes_are_in(directory: &Path) {
    assert_eq!(fs::read_to_string(directory.join("notes.txt")).unwrap(), "half\n");
}

/// Returns the directories of the processes that work below a directory.
fn processes_in(top: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cwd"));
    processes.filter_map(|cwd| fs::read_link(cwd).ok()).filter(|cwd| cwd.starts_with(top)).collect()
}
