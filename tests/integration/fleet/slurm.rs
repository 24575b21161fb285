//! Tests of fleets on the hosts of a Slurm allocation: four daemons of this machine, each with a state directory of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Hosts, SESSIONS, fleet};
use crate::fixtures::repository;
use crate::sandbox::{Outcome, wait_until};

/// Slurm of four daemons, which is stopped at the end of the test.
struct Cluster {
    directory: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}

impl Cluster {
    /// Starts the daemons; `None`, with a notice, on a machine without them.
    fn start() -> Option<Self> {
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
    fn script(&self, args: &[&str]) -> String {
        let mut command = Command::new(repository("tests/slurm-cluster.sh"));
        let output = command.arg(args[0]).arg(self.directory.path()).args(&args[1..]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn conf(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("slurm.conf")
    }

    /// Runs a program of Slurm.
    fn slurm(&self, program: &str, args: &[&str]) -> Outcome {
        Outcome::of(Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().unwrap())
    }

    /// Allocates hosts as the guide does, and returns the number of the job.
    fn allocate(&self, hosts: &str) -> String {
        let args = [
            "-N",
            hosts,
            "--ntasks-per-node=1",
            "--exclusive",
            "--no-kill",
            "--no-shell",
            "--immediate=60",
            "--time=30",
        ];
        let granted = self.slurm("salloc", &args).expect(0).stderr;
        granted.split("allocation ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    }
}

/// Returns a launcher with these arguments of `srun`.
fn launcher(hosts: &Hosts, arguments: &str) -> String {
    let srun =
        format!("srun {arguments} -N1 -n1 -w {{host}} --overlap --kill-on-bad-exit=0 --wait=0 -Q env ");
    hosts.launcher_with(&srun)
}

fn apply(cluster: &Cluster, hosts: &Hosts, job: &str) -> Command {
    let mut command = hosts.first_command(&launcher(hosts, &format!("--jobid={job}")), &[]);
    command.env("SLURM_CONF", cluster.conf());
    command
}

fn run(cluster: &Cluster, hosts: &Hosts, command: &str, args: &[&str]) -> Outcome {
    Outcome::of(hosts.fleet_command(command, args).env("SLURM_CONF", cluster.conf()).output().unwrap())
}

#[test]
fn a_fleet_lives_on_the_hosts_of_an_allocation() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(&["n1", "n2", "n3"], &fleet(3));
    let before = hosts.inventories();
    let job = cluster.allocate("3");
    Outcome::of(apply(&cluster, &hosts, &job).output().unwrap()).expect(0).says(&["12 sessions on 3 hosts"]);
    run(&cluster, &hosts, "status", &[]).expect(0);
    run(&cluster, &hosts, "destroy", &["--yes"]).expect(0);
    hosts.assert_as(&before);
    cluster.slurm("scancel", &[&job]).expect(0);
}

#[test]
fn a_fleet_is_refused_without_its_allocation() {
    let Some(cluster) = Cluster::start() else { return };
    let hosts = Hosts::with_names(&["n1", "n2", "n3"], &fleet(3));
    let before = hosts.inventories();
    let job = cluster.allocate("3");
    cluster.slurm("scancel", &[&job]).expect(0);
    let refused = Outcome::of(apply(&cluster, &hosts, &job).output().unwrap()).expect(1);
    refused.says(&["n1: it wrote no observation", "nothing was changed"]);
    hosts.assert_as(&before);
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_node_that_is_lost_in_prepare_is_rolled_back_when_it_returns_in_every_case() {
    let Some(cluster) = Cluster::start() else { return };
    let sessions = SESSIONS
        .replace("[session.pinned]\n", "[session.pinned]\nsetup = [\"touch ../../../begun; sleep 1000\"]\n");
    let hosts = Hosts::with_names(&["n1", "n2", "n3"], &format!("[fleet]\nshards = 3\n{sessions}"));
    let before = hosts.inventories();
    let job = cluster.allocate("3");
    let coordinator =
        apply(&cluster, &hosts, &job).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let marker = hosts.root("n3").join("begun");
    wait_until("setup runs on n3", || marker.exists());
    cluster.script(&["kill-node", "3"]);
    let outcome = Outcome::of(coordinator.wait_with_output().unwrap()).expect(30);
    outcome.says(&["n3: it did not vote"]);
    assert!(hosts.inventories()[..2] == before[..2]);
    cluster.script(&["start-node", "3"]);
    cluster.slurm("scancel", &[&job]).expect(0);
    fs::remove_file(&marker).unwrap();
    // The node has left the job, so that a step of its own reaches it.
    run(&cluster, &hosts, "recover", &["--launcher", &launcher(&hosts, "--immediate=60")]).expect(0);
    hosts.assert_as(&before);
}
