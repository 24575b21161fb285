//! Machines of a fleet that can be lost: what the tests of faults need of them, whichever way they are reached.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Hosts;
use crate::sandbox::{Inventory, Outcome, bin, wait_until};

/// Hosts that a launcher reaches. The coordinator runs on none of them, in a clone of its own.
pub(super) trait Machines {
    fn hosts(&self) -> &Hosts;

    /// Returns the options with which the first command reaches the hosts, as the guide writes them.
    fn reached(&self) -> Vec<String>;

    /// Runs a script on a host.
    fn shell(&self, host: &str, script: &str) -> Outcome;

    /// Ends a host with all its processes, as a power failure does.
    fn lose(&mut self, host: &str);

    /// Starts a host that was lost, with the files that it had.
    fn bring_back(&mut self, host: &str);

    /// Returns the name of the host of a shard.
    fn name(&self, shard: usize) -> String {
        self.hosts().names[shard].clone()
    }

    fn top(&self) -> PathBuf {
        self.hosts().sandbox.top.clone()
    }

    /// Writes another manifest on every host, and beside the coordinator.
    fn manifest(&self, rest: &str) {
        self.hosts().manifest(rest);
        self.hosts().sandbox.manifest(rest);
    }

    /// Runs the binary in the repository of a host.
    fn on(&self, host: &str, args: &str) -> Outcome {
        self.shell(host, &format!("cd {} && seedbed {args}", self.hosts().root(host).display()))
    }

    /// Returns a command of the coordinator.
    fn fleet_command(&self, command: &str, args: &[&str]) -> Command {
        let directory = self.top().join("fleet");
        let named = [&["fleet", command, directory.to_str().unwrap()], args].concat();
        self.hosts().sandbox.command(&named)
    }

    fn fleet(&self, command: &str, args: &[&str]) -> Outcome {
        Outcome::of(self.fleet_command(command, args).output().unwrap())
    }

    /// Applies the fleet after the first command.
    fn apply(&self, args: &[&str]) -> Outcome {
        self.fleet("apply", args)
    }

    /// Returns the first `fleet apply`, which names the hosts.
    fn first_command(&self, args: &[&str]) -> Command {
        let (names, root) = (self.hosts().names.join(","), self.top().join("{host}/repository"));
        let reached = self.reached();
        let mut named = vec!["--hosts", &names, "--root", root.to_str().unwrap()];
        named.extend(reached.iter().map(String::as_str));
        self.fleet_command("apply", &[&named[..], args].concat())
    }

    fn first(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.first_command(args).output().unwrap())
    }

    /// Starts the first `fleet apply` in a process group of its own.
    fn start_first(&self, args: &[&str]) -> Coordinator {
        Coordinator::start(self.first_command(args))
    }

    /// Lets a shell script run before every command on a host from now on.
    fn hook(&self, host: &str, script: &str) {
        let path = self.top().join(host).join("hook");
        fs::write(path.with_extension("new"), script).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn remove_hook(&self, host: &str) {
        fs::remove_file(self.top().join(host).join("hook")).unwrap();
    }

    /// Returns the decision of a run, if there is one.
    fn decision(&self, run: u32) -> Option<String> {
        fs::read_to_string(self.top().join(format!("fleet/runs/{run:06}/decision.json"))).ok()
    }

    /// Returns the command lines of the programs that run on the hosts or for the coordinator, without those that hosts
    /// always have.
    fn programs(&self) -> Vec<String> {
        let top = self.top().display().to_string();
        let process = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let read = |name: &str| {
                fs::read(path.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            };
            let (line, environment) = (read("cmdline").ok()?, read("environ").ok()?);
            let is_ours = line.contains(&top) || environment.contains(&top);
            let is_host = ["sshd", "unshare ", "slurm"].iter().any(|name| {
                line.split(' ').next().unwrap().rsplit('/').next().unwrap().starts_with(name.trim())
            });
            (is_ours && !is_host).then_some(line)
        };
        fs::read_dir("/proc").unwrap().filter_map(process).collect()
    }

    /// Returns the inventory of each host, and of the clone beside the coordinator.
    fn inventories(&self) -> Vec<Inventory> {
        let mut all = self.hosts().inventories();
        all.push(self.hosts().sandbox.inventory());
        all
    }
}

/// Writes the script `enter` of a host, which runs a command of a shell with what belongs to the host, in this network.
pub(super) fn write_enter(hosts: &Hosts, name: &str, network: &Path) {
    let home = hosts.sandbox.top.join(name);
    let enter = home.join("enter");
    let (home, bin) = (home.display(), bin().display());
    let text = format!(
        "#!/bin/sh\nexport SEEDBED_STATE_DIR={home}/state SEEDBED_PORT_REGISTRY={home} PATH={bin}:$PATH\n\
         export GIT_CONFIG_NOSYSTEM=1 NO_COLOR=1\n\
         if test -e {home}/hook; then . {home}/hook; fi\n\
         command=\"${{1-$SSH_ORIGINAL_COMMAND}}\"; test $# = 0 || shift\n\
         exec nsenter --net={} sh -c \"$command\" sh \"$@\"\n",
        network.display()
    );
    fs::write(&enter, text).unwrap();
    fs::set_permissions(&enter, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Process of a coordinator, whose group has the launchers that it started. The group is killed at the end.
pub(super) struct Coordinator(Option<Child>);

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Coordinator {
    pub(super) fn start(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.process_group(0).spawn().unwrap()))
    }

    fn child(&self) -> &Child {
        self.0.as_ref().unwrap()
    }

    /// Sends a signal to the coordinator and its launchers, as a terminal does.
    pub(super) fn signal_group(&self, signal: Signal) {
        kill_process_group(Pid::from_child(self.child()), signal).unwrap();
    }

    /// Sends a signal to the coordinator alone.
    pub(super) fn signal(&self, signal: Signal) {
        crate::sandbox::send(signal, self.child());
    }

    pub(super) fn outcome(mut self) -> Outcome {
        Outcome::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

/// Returns the manifest of three shards whose session `pinned` on this shard waits in its `setup`: it creates the file
/// `begun`, and continues when `go` exists.
pub(super) fn waiting(machines: &dyn Machines, shard: u32) -> String {
    let top = machines.top();
    let setup = format!("touch {0}/begun; while ! test -e {0}/go; do sleep 0.05; done", top.display());
    super::fleet(3).replace("shard = 2\n", &format!("shard = {shard}\nsetup = [\"{setup}\"]\n"))
}

/// Waits until the `setup` of [`waiting`] runs.
pub(super) fn wait_until_begun(machines: &dyn Machines) {
    let begun = machines.top().join("begun");
    wait_until("setup runs", || begun.exists());
}
