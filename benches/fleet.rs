//! Measures a fleet beside the loops that it replaces: `cargo bench --bench fleet`.
//!
//! Each of 4 and of 16 simulated hosts is a clone of 500 files and a state directory, in `/dev/shm`, and gets two worktrees. A
//! host is reached by `sh -c`, as by `ssh`. Beside `fleet apply`, the benchmark runs `seedbed apply` on every host without the
//! phases, and `git worktree add`: on one host after another, and on all at once. Times are medians, and only their ratios
//! mean anything: all hosts share the cores of this one. `-- N` measures N hosts instead.
#![expect(clippy::disallowed_methods, reason = "a benchmark sets the hosts up and times them")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::{Ground, median, run, shown, timed};

/// Number of measurements of each action.
const ROUNDS: usize = 5;

/// Number of files of the repository.
const FILES: usize = 500;

/// Commands of a host that make and remove its two worktrees without seedbed.
const GIT: [&str; 2] = [
    "git worktree add --quiet --detach ../w0 && git worktree add --quiet --detach ../w1",
    "git worktree remove ../w0 && git worktree remove ../w1",
];

/// Commands of a host that make and remove its part without the phases of a fleet.
const ALONE: [&str; 2] =
    ["seedbed -f plain.toml apply --quiet", "seedbed -f plain.toml destroy --yes --quiet"];

fn main() {
    // `cargo bench` passes `--bench` to every benchmark.
    let number = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok());
    println!("| what | hosts | time | of that of the loop of git |");
    println!("|---|---|---|---|");
    for hosts in number.map_or_else(|| vec![4, 16], |number| vec![number]) {
        let lab = Lab::new(hosts);
        let loop_of_git = measure(|| lab.on_each(GIT[0], ";"), || lab.on_each(GIT[1], ";"));
        let row = |what: &str, time: Duration| {
            let ratio = time.as_secs_f64() / loop_of_git.as_secs_f64();
            println!("| {what} | {hosts} | {} | {ratio:.2} |", shown(time));
        };
        row("git worktree add, one host after another", loop_of_git);
        let at_once = measure(|| lab.on_each(GIT[0], "&"), || lab.on_each(GIT[1], ";"));
        row("git worktree add, all hosts at once", at_once);
        let alone = measure(|| lab.on_each(ALONE[0], ";"), || lab.on_each(ALONE[1], ";"));
        row("seedbed apply, one host after another", alone);
        let at_once = measure(|| lab.on_each(ALONE[0], "&"), || lab.on_each(ALONE[1], ";"));
        row("seedbed apply, all hosts at once", at_once);
        let fleet = measure(|| lab.fleet("apply"), || lab.fleet("destroy"));
        row("seedbed fleet apply", fleet);
        let destroy = measure_after(|| lab.fleet("apply"), || lab.fleet("destroy"));
        row("seedbed fleet destroy", destroy);
    }
}

/// Simulated hosts.
struct Lab {
    ground: Ground,
    hosts: usize,
}

impl Lab {
    fn new(hosts: usize) -> Self {
        let ground = Ground::new();
        let repository = ground.repository();
        fs::create_dir(&repository).unwrap();
        for file in 0..FILES {
            fs::write(repository.join(format!("file-{file}.txt")), format!("{file}\n").repeat(100)).unwrap();
        }
        let manifest = |fleet: &str, count: usize| {
            format!(
                "version = 1\nswarm = \"bench\"\n{fleet}[session.a]\ncount = {count}\nresources = [\"git-worktree\"]\n"
            )
        };
        let fleet = manifest(&format!("[fleet]\nshards = {hosts}\n"), 2 * hosts);
        fs::write(repository.join("seedbed.toml"), fleet).unwrap();
        fs::write(repository.join("plain.toml"), manifest("", 2)).unwrap();
        ground.commit();
        for host in 0..hosts {
            let clone = ground.path(&format!("n{host}/repository"));
            ground.git(&["clone", "--quiet", "--shared", ".", clone.to_str().unwrap()]);
        }
        Self { ground, hosts }
    }

    /// Returns a shell in the repository that finds seedbed.
    fn shell(&self, script: &str) -> Command {
        let mut shell = self.ground.program("sh", &self.ground.repository());
        let seedbed = std::path::Path::new(env!("CARGO_BIN_EXE_seedbed")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        shell.args(["-c", script]).env("PATH", format!("{}:{path}", seedbed.display()));
        shell
    }

    /// Runs a command on each host, with `;` or `&` behind each, and expects success on all.
    fn on_each(&self, command: &str, behind: &str) {
        let top = self.ground.path("");
        let host = |host: usize| {
            let top = top.display();
            format!(
                "(export SEEDBED_STATE_DIR={top}/n{host}/state; cd {top}/n{host}/repository && sh -c '{command}' || touch {top}/failed) {behind}"
            )
        };
        let script: Vec<_> = (0..self.hosts).map(host).collect();
        run(&mut self.shell(&format!("{} wait", script.join("\n"))));
        assert!(!self.ground.path("failed").exists(), "{command}");
    }

    /// Runs a command of the fleet.
    fn fleet(&self, command: &str) {
        let top = self.ground.path("");
        let top = top.display();
        let hosts: Vec<_> = (0..self.hosts).map(|host| format!("n{host}")).collect();
        run(&mut self.shell(&format!(
            "seedbed fleet {command} {top}/fleet --yes --quiet --hosts {} --root {top}/{{host}}/repository \
             --launcher 'SEEDBED_STATE_DIR={top}/{{host}}/state sh -c {{command}}'",
            hosts.join(",")
        )));
    }
}

/// Returns the median time of `make`; `remove` undoes it.
fn measure(make: impl Fn(), remove: impl Fn()) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        let time = timed(&make);
        remove();
        time
    });
    median(times.collect())
}

/// Returns the median time of `act` after `make`.
fn measure_after(make: impl Fn(), act: impl Fn()) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        make();
        timed(&act)
    });
    median(times.collect())
}
