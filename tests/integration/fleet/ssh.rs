//! Hosts that only ssh reaches: each is a real sshd with processes, a network and a state directory of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Hosts;
use super::machines::{Machines, write_enter};
use crate::fixtures::repository;
use crate::sandbox::{Outcome, wait_until};

/// Hosts of one machine, each behind its own sshd. A host is lost with all its processes.
pub(super) struct SshHosts {
    hosts: Hosts,
    running: Vec<Option<Child>>,
    ports: Vec<u16>,
}

impl Drop for SshHosts {
    fn drop(&mut self) {
        for running in self.running.iter_mut().flatten() {
            kill(running);
        }
    }
}

/// Kills a host, and waits until all its processes have ended.
fn kill(running: &mut Child) {
    // The first process of the host dies with this one, and with it all others.
    running.kill().unwrap();
    running.wait().unwrap();
}

/// Returns the first requirement of these hosts that is missing here.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let is_installed =
        |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let programs = ["sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv", "ip"];
    if let Some(missing) = programs.into_iter().find(|program| !is_installed(program)) {
        return Some(missing);
    }
    let namespaces = Command::new("unshare")
        .args(["--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status();
    (!namespaces.is_ok_and(|status| status.success())).then_some("permission to create namespaces")
}

impl SshHosts {
    /// Starts hosts `n0`, `n1`, … with a clone of the repository with this manifest; `None`, with a notice, on a machine
    /// that cannot.
    pub(super) fn start(count: usize, rest: &str) -> Option<Self> {
        if let Some(missing) = missing() {
            eprintln!("NOT TESTED, because there is no {missing}");
            return None;
        }
        let hosts = Hosts::new(count, rest);
        let top = &hosts.sandbox.top;
        for key in ["user_key", "host_key"] {
            let arguments = ["-q", "-t", "ed25519", "-N", "", "-f"];
            let made = Command::new("ssh-keygen").args(arguments).arg(top.join(key)).status();
            assert!(made.unwrap().success());
        }
        let ports = vec![0; count];
        let mut started = Self { running: (0..count).map(|_| None).collect(), ports, hosts };
        for at in 0..count {
            started.start_host(at);
        }
        Some(started)
    }

    fn home(&self, name: &str) -> PathBuf {
        self.hosts.sandbox.top.join(name)
    }

    fn position(&self, name: &str) -> usize {
        self.hosts.names.iter().position(|host| host == name).unwrap()
    }

    /// Starts a host, on a port that it keeps.
    fn start_host(&mut self, at: usize) {
        let name = self.hosts.names[at].clone();
        let (top, home) = (self.hosts.sandbox.top.display().to_string(), self.home(&name));
        if self.ports[at] == 0 {
            self.ports[at] = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            self.write_client();
        }
        let port = self.ports[at];
        write_enter(&self.hosts, &name, Path::new("/run/net"));
        fs::write(
            home.join("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {top}/host_key\nAuthorizedKeysFile {top}/user_key.pub\n\
                 PermitRootLogin yes\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n\
                 ForceCommand {top}/{name}/enter\n"
            ),
        )
        .unwrap();
        let log = fs::File::create(home.join("sshd.log")).unwrap();
        // It ends with the thread of this test, also if that panics or is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave", "--uts", "--pid"])
            .args(["--fork", "--kill-child", "--mount-proc"])
            .arg(repository("tests/ssh-host.sh"))
            .arg(&name)
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.running[at] = Some(command.spawn().unwrap());
        wait_until("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Puts everything of a host on a file system of this size.
    pub(super) fn mount(&mut self, name: &str, size: &str) {
        self.lose(name);
        let (home, copied) = (self.home(name), self.home(name).with_extension("copied"));
        fs::rename(&home, &copied).unwrap();
        fs::create_dir(&home).unwrap();
        let run = |program: &str, args: &[&str]| {
            let outcome = Outcome::of(Command::new(program).args(args).output().unwrap());
            outcome.expect(0);
        };
        let (home, copied) = (home.to_str().unwrap(), copied.to_str().unwrap());
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", home]);
        run("cp", &["-a", &format!("{copied}/."), home]);
        self.bring_back(name);
    }

    /// Stops all processes of a host, as a virtual machine that is paused.
    pub(super) fn freeze(&self, name: &str) {
        self.signal(name, Signal::STOP);
    }

    /// Lets a host that was frozen continue.
    pub(super) fn thaw(&self, name: &str) {
        self.signal(name, Signal::CONT);
    }

    fn signal(&self, name: &str, signal: Signal) {
        let parent = self.running[self.position(name)].as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let host = namespace(children.trim());
        assert!(host.is_some(), "the host runs");
        for entry in fs::read_dir("/proc").unwrap() {
            let process = entry.unwrap().file_name().into_string().unwrap();
            if let Ok(number) = process.parse()
                && namespace(&process) == host
            {
                // A process may have ended meanwhile.
                let _ = kill_process(Pid::from_raw(number).unwrap(), signal);
            }
        }
    }

    /// Writes the configuration of `ssh`, with the port of each host.
    fn write_client(&self) {
        let top = self.hosts.sandbox.top.display();
        let mut text = format!(
            "Host *\nUser root\nHostName 127.0.0.1\nIdentityFile {top}/user_key\nIdentitiesOnly yes\nBatchMode yes\n\
             StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nConnectTimeout 10\n"
        );
        for (name, port) in self.hosts.names.iter().zip(&self.ports) {
            writeln!(text, "Host {name}\nPort {port}").unwrap();
        }
        fs::write(self.hosts.sandbox.top.join("ssh_config"), text).unwrap();
    }
}

impl Machines for SshHosts {
    fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    fn reached(&self) -> Vec<String> {
        let launcher = format!("ssh -F {}/ssh_config {{host}} {{command}}", self.hosts.sandbox.top.display());
        vec!["--launcher".to_owned(), launcher]
    }

    fn shell(&self, host: &str, script: &str) -> Outcome {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.hosts.sandbox.top.join("ssh_config")).args([host, script]);
        Outcome::of(command.stdin(Stdio::null()).output().unwrap())
    }

    fn lose(&mut self, host: &str) {
        let at = self.position(host);
        kill(&mut self.running[at].take().expect("the host runs"));
        let port = self.ports[at];
        wait_until("sshd has ended", || TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    fn bring_back(&mut self, host: &str) {
        self.start_host(self.position(host));
    }
}

#[test]
fn a_fleet_lives_on_hosts_that_ssh_reaches() {
    let Some(ssh) = SshHosts::start(3, "") else { return };
    // One block of ports: each host has it.
    let sessions = [0, 1, 2].map(|shard| {
        format!("[session.s{shard}]\nshard = {shard}\nresources = [\"git-worktree\", \"port-range\"]\n")
    });
    ssh.manifest(&format!("[fleet]\nshards = 3\n{}", sessions.concat()));
    for path in ["n0/repository", "n1/repository", "n2/repository", "repository"] {
        let manifest = ssh.top().join(path).join("seedbed.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("block-count = 128", "block-count = 1")).unwrap();
    }
    let before = ssh.inventories();
    ssh.first(&[]).expect(0).says(&["3 sessions on 3 hosts"]);
    let index = ssh.hosts().index();
    let port = ssh.hosts().sandbox.base_port;
    for session in index["sessions"].as_array().unwrap() {
        assert_eq!(session["ports"][0][0], port, "{session}");
        // A server of each host has the port, and only there.
        let server = format!(
            "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:{port}\", Listen => 1) or exit 3; \
             $| = 1; print \"listens\\n\"; sleep 1000'  > server.log 2>&1 < /dev/null & echo $! > server.pid; while ! test -s server.log; do sleep 0.05; done; cat server.log"
        );
        let listens = ssh.shell(session["host"].as_str().unwrap(), &server);
        assert_eq!(listens.expect(0).stdout, "listens\n");
    }
    ssh.fleet("status", &[]).expect(0);
    ssh.fleet("destroy", &["--yes"]).expect(1).says(&[
        "n0: refused",
        "n2: refused",
        &format!("127.0.0.1:{port}"),
    ]);
    for host in &ssh.hosts().names {
        ssh.shell(host, "kill $(cat server.pid)").expect(0);
    }
    ssh.fleet("destroy", &["--yes"]).expect(0);
    assert!(ssh.inventories() == before);
}
