//! Tests of fleets: one manifest on several hosts. Every host is a clone with a state directory of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same, bin};

mod clones;
mod commits;
mod directory;
mod disturbed_hosts;
mod faults;
mod kubernetes;
mod life;
mod lost_hosts;
mod machines;
mod planning;
mod repair;
mod review;
mod runs;
mod scale;
mod slurm;
mod slurm_hosts;
mod ssh;
mod sweeps;

/// Sessions of most tests: a tree, replicas, and one that chooses its shard. No two of them prefer one block of ports: the
/// hosts of a test are one machine, and two that probe one port at the same time disturb each other.
const SESSIONS: &str = r#"
[session.lead]
resources = ["git-worktree", "port-range"]
[session.lead.child.coder]
count = 2
[session.runner]
count = 8
resources = ["git-worktree", "port-range"]
env = { LEAD = "{{ sessions['lead'].host }}:{{ sessions['lead'].port.start }}", OWN = "{{ host }}" }
[session.pinned]
shard = 2
resources = ["git-worktree"]
"#;

/// Returns a manifest of [`SESSIONS`] with this number of shards.
fn fleet(shards: u32) -> String {
    format!("[fleet]\nshards = {shards}\n{SESSIONS}")
}

/// Hosts `n0`, `n1`, … of one machine, and the directory that they share.
struct Hosts {
    sandbox: Sandbox,
    names: Vec<String>,
}

impl Hosts {
    /// Clones the repository with this manifest to each host.
    fn new(count: usize, rest: &str) -> Self {
        let names: Vec<_> = (0..count).map(|at| format!("n{at}")).collect();
        Self::with_names(&names.iter().map(String::as_str).collect::<Vec<_>>(), rest)
    }

    /// Clones the repository with this manifest to each of these hosts.
    fn with_names(names: &[&str], rest: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.manifest(rest);
        sandbox.write(".env", "A=1\n");
        fs::create_dir(sandbox.top.join("observations")).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        for name in &names {
            fs::create_dir(sandbox.top.join(name)).unwrap();
            sandbox.clone_to(&format!("{name}/repository"));
        }
        Self { sandbox, names }
    }

    /// Writes another manifest on every host.
    fn manifest(&self, rest: &str) {
        let text = self.sandbox.manifest_text(rest);
        for name in &self.names {
            fs::write(self.root(name).join("seedbed.toml"), &text).unwrap();
        }
    }

    /// Writes another manifest on one host.
    fn manifest_at(&self, name: &str, rest: &str) {
        fs::write(self.root(name).join("seedbed.toml"), self.sandbox.manifest_text(rest)).unwrap();
    }

    /// Replaces the state directory of a host by a file, so that no command works there.
    fn break_state(&self, name: &str) {
        let state = self.sandbox.top.join(name).join("state");
        if state.exists() {
            fs::rename(&state, state.with_extension("away")).unwrap();
        }
        fs::write(state, "").unwrap();
    }

    fn root(&self, name: &str) -> PathBuf {
        self.sandbox.top.join(name).join("repository")
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command
            .current_dir(self.root(name))
            .env("SEEDBED_STATE_DIR", self.sandbox.top.join(name).join("state"));
        command
    }

    /// Runs the binary on a host.
    fn on(&self, name: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.command(name, args).output().unwrap())
    }

    /// Observes each host.
    #[track_caller]
    fn observe(&self) {
        for name in &self.names {
            self.on(name, &["observe", "--host", name, "-o", &format!("../../observations/{name}.json")])
                .expect(0);
        }
    }

    /// Runs `fleet plan` on the first host.
    fn plan(&self, args: &[&str]) -> Outcome {
        self.on(&self.names[0], &[&["fleet", "plan", "--observations", "../../observations"], args].concat())
    }

    /// Returns a launcher that runs commands with the state directory of their host.
    fn launcher(&self) -> String {
        self.launcher_with("")
    }

    /// Returns a launcher that runs `before` in its shell first.
    fn launcher_with(&self, before: &str) -> String {
        let (top, bin) = (self.sandbox.top.display(), bin().display());
        format!("{before}SEEDBED_STATE_DIR={top}/{{host}}/state PATH={bin}:$PATH sh -c {{command}}")
    }

    /// Returns the first `fleet apply`, which names the hosts.
    fn first_command(&self, launcher: &str, args: &[&str]) -> Command {
        let (hosts, root) = (self.names.join(","), self.sandbox.top.join("{host}/repository"));
        let named = ["--hosts", &hosts, "--launcher", launcher, "--root", root.to_str().unwrap()];
        self.fleet_command("apply", &[&named[..], args].concat())
    }

    fn first_with(&self, launcher: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.first_command(launcher, args).output().unwrap())
    }

    fn first(&self, args: &[&str]) -> Outcome {
        self.first_with(&self.launcher(), args)
    }

    /// Returns a command of `fleet`, which runs on a host beside the fleet.
    fn fleet_command(&self, command: &str, args: &[&str]) -> Command {
        self.command(&self.names[0], &[&["fleet", command, "../../fleet"], args].concat())
    }

    fn fleet(&self, command: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.fleet_command(command, args).output().unwrap())
    }

    /// Returns the sessions of all hosts; null before the first commit.
    fn index(&self) -> Value {
        let index = fs::read(self.sandbox.top.join("fleet/index.json"));
        index.map_or(Value::Null, |index| serde_json::from_slice(&index).unwrap())
    }

    /// Returns the host of a session and its working directory, from the index.
    fn home(&self, session: &str) -> (String, String) {
        let index = self.index();
        let found =
            index["sessions"].as_array().unwrap().iter().find(|found| found["session"] == session).unwrap();
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        (text("host"), text("workingDirectory"))
    }

    /// Returns the inventory of each host.
    fn inventories(&self) -> Vec<Inventory> {
        let of_host = |name: &String| {
            self.sandbox.inventory_of(&self.root(name), &self.sandbox.top.join(name).join("state"))
        };
        self.names.iter().map(of_host).collect()
    }

    /// Expects the inventory of each host.
    #[track_caller]
    fn assert_as(&self, before: &[Inventory]) {
        for (before, after) in before.iter().zip(&self.inventories()) {
            assert_same(before, after);
        }
    }

    /// Returns the inventories without records of applied swarms.
    fn inventories_without_records(&self) -> Vec<Inventory> {
        let mut all = self.inventories();
        for found in &mut all {
            found.retain(|path, _| !path.ends_with("/applied.json"));
        }
        all
    }

    /// Returns the inventories without objects of Git: those of a run that was rolled back stay until garbage collection.
    fn inventories_without_objects(&self) -> Vec<Inventory> {
        let mut all = self.inventories();
        for found in &mut all {
            found
                .retain(|path, _| !path.starts_with("repository/.git/objects/") || path.contains("incoming"));
        }
        all
    }

    /// Expects the inventory of each host, except for objects.
    #[track_caller]
    fn assert_as_without_objects(&self, before: &[Inventory]) {
        for (before, after) in before.iter().zip(&self.inventories_without_objects()) {
            assert_same(before, after);
        }
    }

    /// Returns the names of the active sessions of a host, in order.
    #[track_caller]
    fn active(&self, name: &str) -> Vec<String> {
        let status = self.on(name, &["status", "--json"]);
        let status: Value = if status.code == 0 { status.json() } else { Value::Null };
        let sessions = status["sessions"].as_array().cloned().unwrap_or_default();
        sessions.iter().map(|session| session["session"].as_str().unwrap().to_owned()).collect()
    }
}

/// Returns the paths of the sessions of each shard of a plan.
fn placed(plan: &Value) -> Vec<Vec<String>> {
    let shards = plan["shards"].as_array().unwrap().iter();
    let paths = |shard: &Value| {
        let sessions = shard["plan"]["sessions"].as_array().unwrap().iter();
        sessions.map(|session| session["path"].as_str().unwrap().to_owned()).collect()
    };
    shards.map(paths).collect()
}
