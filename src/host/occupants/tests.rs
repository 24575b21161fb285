use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use super::*;

/// A child that ends with the test.
struct Running(Child);

impl Running {
    fn new(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts a shell that runs `script` in `directory`, and then waits.
    fn shell(script: &str, directory: &Path) -> Self {
        let running = Self::new(
            Command::new("sh")
                .args(["-c", &format!("{script}; touch ready.$$; while :; do sleep 100; done")])
                .current_dir(directory),
        );
        let ready = directory.join(format!("ready.{}", running.0.id()));
        while !ready.exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        running
    }

    fn uses(&self, scan: &Scan) -> Vec<(usize, Use)> {
        let own = scan.occupants.iter().filter(|one| one.process.is_some_and(|one| one.pid == self.0.id()));
        own.flat_map(|one| one.uses.iter().map(|used| (one.footprint, used.clone()))).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn footprint(directory: &Path) -> Footprint {
    Footprint { directories: vec![directory.to_owned()], ..Footprint::default() }
}

#[test]
fn a_process_is_found_by_everything_that_it_uses() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let (a, b) = (top.join("a"), top.join("a/b"));
    fs::create_dir_all(&b).unwrap();
    fs::write(b.join("open"), "").unwrap();
    let sleep = ["/bin/sleep", "/usr/bin/sleep"].into_iter().find(|path| Path::new(path).is_file()).unwrap();
    fs::copy(sleep, a.join("program")).unwrap();
    let footprints = [footprint(&a), footprint(&b)];
    let shell = Running::shell("exec 7<b/open", &a);
    let program = Running::new(Command::new(a.join("program")).arg("100").current_dir("/"));
    let beside = Running::shell(":", &top);
    // Until the child runs its program, it is a copy of this process.
    while !fs::read_link(format!("/proc/{}/exe", program.0.id())).is_ok_and(|exe| exe == a.join("program")) {
        std::thread::yield_now();
    }
    let scan = scan(&footprints);
    let expected =
        [(0, Use::WorkingDirectory { path: a.clone() }), (1, Use::OpenFile { path: b.join("open") })];
    assert_eq!(shell.uses(&scan), expected);
    assert_eq!(program.uses(&scan), [(0, Use::Executable { path: a.join("program") })]);
    assert_eq!(beside.uses(&scan), []);
}

#[test]
fn removed_file_differs_from_a_file_with_such_a_name() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let (gone, called) = (top.join("w"), top.join("w (deleted)"));
    fs::create_dir(&gone).unwrap();
    fs::create_dir(&called).unwrap();
    let other = Running::shell(":", &called);
    let in_gone = Running::shell(":", &gone);
    fs::remove_dir_all(&gone).unwrap();
    let scan = scan(&[footprint(&gone)]);
    assert_eq!(in_gone.uses(&scan), [(0, Use::WorkingDirectory { path: gone })]);
    assert_eq!(other.uses(&scan), []);
}

#[test]
fn sockets_are_found_on_the_innermost_block_and_with_their_process() {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let block = |start: u16, end: u16| PortBlock::new(start.into(), end.into()).unwrap();
    let footprints = [
        Footprint { ports: vec![block(port - 1, port)], ..Footprint::default() },
        Footprint { ports: vec![block(port, port)], ..Footprint::default() },
    ];
    // The sockets of this process are not listed; a child's are.
    let own = |scan: &Scan| scan.occupants.iter().filter(|one| one.process.is_some()).count();
    assert_eq!(own(&scan(&footprints)), 0);
    let child = {
        use std::os::fd::OwnedFd;
        let (tcp, udp) = (OwnedFd::from(tcp.try_clone().unwrap()), OwnedFd::from(udp.try_clone().unwrap()));
        Running(
            Command::new("sleep")
                .arg("100")
                .stdin(Stdio::from(tcp))
                .stdout(Stdio::from(udp))
                .spawn()
                .unwrap(),
        )
    };
    let used = |protocol: &str| {
        let address = "127.0.0.1".parse().unwrap();
        (1, Use::Port { protocol: protocol.to_owned(), address, port })
    };
    assert_eq!(child.uses(&scan(&footprints)), [used("tcp"), used("udp")]);
}

#[test]
fn a_mapped_file_counts_after_it_was_closed() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    fs::write(top.join("data"), "data").unwrap();
    let script = "import mmap, os, time\nf = os.open('data', os.O_RDONLY)\nm = mmap.mmap(f, 4, prot=mmap.PROT_READ)\n\
                  os.close(f)\nopen('ready', 'w').close()\nos.chdir('/')\ntime.sleep(100)\n";
    let Ok(mut python) = Command::new("python3").args(["-c", script]).current_dir(&top).spawn() else {
        return eprintln!("NOT TESTED: there is no python3");
    };
    while !fs::read_link(format!("/proc/{}/cwd", python.id())).is_ok_and(|cwd| cwd == Path::new("/")) {
        assert!(python.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let python = Running(python);
    // Python keeps a duplicate of the descriptor: either way the process is found.
    let uses = python.uses(&scan(&[footprint(&top)]));
    let path = top.join("data");
    assert!(
        uses == [(0, Use::MappedFile { path: path.clone() })] || uses == [(0, Use::OpenFile { path })],
        "{uses:?}"
    );
}

#[test]
fn callers_are_distinguished_from_other_processes() {
    let scan = scan(&[footprint(&std::fs::read_link("/proc/self/cwd").unwrap())]);
    let own = scan.occupants.iter().find(|one| one.process.is_some_and(|one| one.pid == std::process::id()));
    assert!(own.unwrap().is_caller);
    let above = Processes::read().callers();
    assert!(above.contains(&std::process::id()) && above.len() > 1);
    for one in scan.occupants {
        assert_eq!(one.is_caller, one.process.is_some_and(|one| above.contains(&one.pid)));
    }
}

#[test]
fn a_process_in_another_mount_namespace_is_found_at_the_path_that_it_knows() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let (own, other) = (top.join("own"), top.join("other"));
    for directory in [&own.join("sub"), &other] {
        fs::create_dir_all(directory).unwrap();
    }
    File::create(own.join("sub/file")).unwrap();
    let script = format!(
        "mount --make-rprivate / && mount --bind {}/sub {} && cd {} && exec 7<file && touch {}/ready && exec sleep 100",
        own.display(),
        other.display(),
        other.display(),
        top.display()
    );
    let mut child =
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).stderr(Stdio::null()).spawn().unwrap();
    while !top.join("ready").exists() {
        if child.try_wait().unwrap().is_some() {
            return eprintln!("NOT TESTED: mount namespaces are not permitted here");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let child = Running(child);
    let expected =
        [(0, Use::WorkingDirectory { path: other.clone() }), (0, Use::OpenFile { path: other.join("file") })];
    assert_eq!(child.uses(&scan(&[footprint(&own)])), expected);
    assert_eq!(child.uses(&scan(&[footprint(&other)])), []);
}

#[test]
fn a_scan_for_a_thousand_areas_takes_milliseconds() {
    let footprints: Vec<Footprint> = (0..1000)
        .map(|at| Footprint {
            directories: (0..3).map(|part| PathBuf::from(format!("/nowhere/at/all/{at}/{part}"))).collect(),
            ports: PortBlock::new(20_000 + at * 32, 20_031 + at * 32).into_iter().collect(),
            ..Footprint::default()
        })
        .collect();
    let begun = std::time::Instant::now();
    let found = scan(&footprints);
    eprintln!("{:?} for {} processes", begun.elapsed(), Processes::read().all().len());
    assert!(found.occupants.iter().all(|one| one.uses.iter().all(|used| matches!(used, Use::Port { .. }))));
}
