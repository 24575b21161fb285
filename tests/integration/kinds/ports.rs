//! Tests of ports: no two sessions of a host share a port, and no port in use is allocated.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;

use crate::cli::shells::installed;
use crate::sandbox::{Outcome, Sandbox, ports, sessions, wait_until};

const CODERS: &str = "[session.coder]\ncount = 8\nresources = [\"port-range\"]\n";

fn all_ports(sandbox: &Sandbox, directory: &Path) -> Vec<u64> {
    let plan = sandbox.plan_in(directory);
    sessions(&plan).map(ports).flat_map(|(start, end)| start..=end).collect()
}

#[test]
fn two_clones_with_one_manifest_never_share_a_port() {
    let sandbox = Sandbox::new();
    sandbox.manifest(CODERS);
    let clone = sandbox.clone_to("clone");
    let third = sandbox.clone_to("third");
    assert_eq!(all_ports(&sandbox, &sandbox.repository), all_ports(&sandbox, &clone));
    sandbox.ok(&["apply"]);
    let plan = sandbox.seedbed_in(&clone, &["plan"]).expect(0);
    assert!(
        plan.stdout.contains("passed over") && plan.stdout.contains("leased to shop/coder-0"),
        "{}",
        plan.stdout
    );
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    sandbox.seedbed_in(&third, &["apply"]).expect(0);
    let held: Vec<u64> =
        [&sandbox.repository, &clone, &third].iter().flat_map(|top| all_ports(&sandbox, top)).collect();
    assert_eq!(held.len(), 3 * 8 * 4);
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), held.len());
    // A clone that is destroyed takes nothing from the others.
    let before = all_ports(&sandbox, &third);
    sandbox.seedbed_in(&clone, &["destroy"]).expect(0);
    sandbox.ok(&["destroy"]);
    assert_eq!(all_ports(&sandbox, &third), before);
    sandbox.seedbed_in(&third, &["plan", "--detailed-exitcode"]).expect(0);
}

/// Runs a command as a user with a state directory and a clone of their own, who publishes leases in the shared
/// directory.
fn as_user(sandbox: &Sandbox, name: &str, uid: Option<&str>, args: &[&str]) -> Outcome {
    let clone = sandbox.top.join(name);
    let mut command = match uid {
        None => sandbox.command(args),
        Some(uid) => {
            let mut command = sandbox.program("setpriv", &clone);
            command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
            command.arg(env!("CARGO_BIN_EXE_seedbed")).args(args);
            command
        }
    };
    command.current_dir(&clone).env("HOME", &clone).env_remove("SEEDBED_STATE_DIR");
    command.env("SEEDBED_PORT_REGISTRY", sandbox.top.join("shared"));
    Outcome::of(command.output().unwrap())
}

/// One manifest gives all users the same blocks, unless they can see each other's leases.
#[test]
fn users_of_one_host_never_share_a_port() {
    let sandbox = Sandbox::new();
    sandbox.manifest(CODERS);
    let shared = sandbox.top.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(&sandbox.top, fs::Permissions::from_mode(0o755)).unwrap();
    let mut users = ["one", "two"].map(|name| (name, None));
    for (name, _) in users {
        sandbox.clone_to(name);
    }
    if rustix::process::geteuid().is_root() && installed("setpriv") {
        for (user, uid) in users.iter_mut().zip(["54321", "54322"]) {
            let mut chown = sandbox.program("chown", &sandbox.top);
            assert!(chown.args(["-R", &format!("{uid}:{uid}"), user.0]).status().unwrap().success());
            user.1 = Some(uid);
        }
        let tried = as_user(&sandbox, "one", users[0].1, &["validate"]);
        if tried.code != 0 {
            eprintln!("NOT TESTED with several users: one cannot run the binary: {}", tried.stderr);
            users = users.map(|(name, _)| (name, None));
        }
    } else {
        eprintln!("NOT TESTED with several users: only root can become another user");
    }
    let run = |user: usize, args: &[&str]| as_user(&sandbox, users[user].0, users[user].1, args);
    let held = |user| -> BTreeSet<u64> {
        let plan: Value = serde_json::from_str(&run(user, &["plan", "--json"]).expect(0).stdout).unwrap();
        sessions(&plan).map(ports).flat_map(|(start, end)| start..=end).collect()
    };
    assert_eq!(held(0), held(1));
    run(0, &["apply"]).expect(0);
    let holder = users[0].1.map_or("another state directory of user".to_owned(), |uid| format!("user {uid}"));
    let shows = |args: &[&str], expected: &str| {
        let outcome = run(1, args).expect(0);
        assert!(outcome.stdout.contains(expected), "{args:?}: {}", outcome.stdout);
    };
    shows(&["plan"], &format!("leased to a session of {holder}"));
    run(1, &["apply"]).expect(0);
    assert!(held(0).is_disjoint(&held(1)));
    let port = held(0).first().unwrap().to_string();
    shows(&["explain", &port], &format!("to a session of {holder}"));
    // A block that one user releases is free to the other.
    run(0, &["destroy"]).expect(0);
    run(1, &["destroy"]).expect(0);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    assert_eq!(held(0), held(1));
    // A host that cannot share leases is reported.
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    shows(&["doctor"], "warns  ports-unshared: ");
    shows(&["doctor"], "has no sticky bit");
    run(0, &["apply"]).expect(0);
    run(0, &["destroy"]).expect(0);
}

#[test]
fn clones_that_apply_at_once_share_no_port() {
    let sandbox = Sandbox::new();
    sandbox.manifest(CODERS);
    // All plan the same blocks: a run that is too late plans again.
    let clones = ["a", "b", "c", "d"].map(|name| sandbox.clone_to(name));
    let runs = clones.each_ref().map(|clone| {
        let mut apply = sandbox.command(&["apply"]);
        let apply = apply.current_dir(clone).stdout(Stdio::piped()).stderr(Stdio::piped());
        apply.spawn().unwrap()
    });
    for run in runs {
        Outcome::of(run.wait_with_output().unwrap()).expect(0);
    }
    let held: BTreeSet<u64> = clones.iter().flat_map(|clone| all_ports(&sandbox, clone)).collect();
    assert_eq!(held.len(), 4 * 8 * 4);
}

/// Starts `apply`, listens on a planned port before the run can claim it, and lets the run continue.
fn overtake(sandbox: &Sandbox, args: &[&str]) -> (Outcome, TcpListener, (u64, u64)) {
    let plan = sandbox.plan();
    let (start, end) = ports(sessions(&plan).next().unwrap());
    let registry = sandbox.state().join("leases");
    fs::create_dir_all(&registry).unwrap();
    let guard = File::create(registry.join(".guard")).unwrap();
    guard.lock().unwrap();
    let run = sandbox.start(args);
    wait_until("the plan is on disk", || {
        let swarms = fs::read_dir(sandbox.state().join("swarms"));
        let mut swarms = swarms.into_iter().flatten().map(|entry| entry.unwrap().path());
        swarms.any(|swarm| swarm.join("intent.json").exists())
    });
    let listener = TcpListener::bind(("127.0.0.1", u16::try_from(end).unwrap())).unwrap();
    guard.unlock().unwrap();
    (Outcome::of(run.wait_with_output().unwrap()), listener, (start, end))
}

#[test]
fn run_that_loses_a_race_plans_again() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let (outcome, _listener, (start, end)) = overtake(&sandbox, &["apply"]);
    outcome.expect(0).says(&["the plan is stale", "planning again"]);
    let (first, last) = ports(sessions(&sandbox.plan()).next().unwrap());
    assert!(last < start || first > end, "{first}-{last} meets {start}-{end}");
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

/// R45: a socket that does not listen is found when its port is claimed, and is in no later plan.
#[test]
fn a_port_that_is_bound_and_does_not_listen_is_claimed_once() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let (start, _) = ports(sessions(&sandbox.plan()).next().unwrap());
    // The first block, and the first port of each of the next two, in either form.
    let mut held = Vec::new();
    for (at, port) in [start, start + 4, start + 8].into_iter().enumerate() {
        let port = u16::try_from(port).unwrap();
        let kind = if at == 1 { SocketType::DGRAM } else { SocketType::STREAM };
        let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
        if bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() {
            held.push((port, socket));
        }
    }
    let outcome = sandbox.ok(&["apply"]);
    let tries: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("planning again")).collect();
    assert!((1..=held.len()).contains(&tries.len()), "{}", outcome.stderr);
    let each_once: BTreeSet<_> = tries.iter().collect();
    assert_eq!(each_once.len(), tries.len(), "{tries:#?}");
    let (first, last) = ports(sessions(&sandbox.plan()).next().unwrap());
    assert!(held.iter().all(|(port, _)| !(first..=last).contains(&u64::from(*port))), "{first}-{last}");
    sandbox.ok(&["destroy"]);

    // The process that has an outgoing connection there is named.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    // The same socket: a process that another test starts meanwhile may have a copy of one that is closed here.
    held.truncate(1);
    let (port, socket) = &held[0];
    assert_eq!(u64::from(*port), start);
    connect(socket, &listener.local_addr().unwrap()).unwrap();
    let said = format!("tcp port {start} is in use by pid {}", std::process::id());
    sandbox.ok(&["apply"]).says(&[&said]);
}

#[test]
fn saved_plan_that_loses_a_race_is_not_planned_again_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let file = sandbox.top.join("plan.json");
    sandbox.ok(&["plan", "-o", file.to_str().unwrap()]);
    sandbox.unchanged(|| {
        let (outcome, _listener, (_, end)) = overtake(&sandbox, &["apply", "-v", file.to_str().unwrap()]);
        let outcome = outcome.expect(1).says(&[&format!("tcp port {end} is in use"), "was rolled back"]);
        assert!(!outcome.stderr.contains("planning again"), "{}", outcome.stderr);
        // Claims come first: the worktree, which the manifest names before the ports, was not begun.
        assert!(!outcome.stderr.contains("a: git-worktree\n"), "{}", outcome.stderr);
    });
}

#[test]
fn blocks_of_other_geometry_never_overlap() {
    let sandbox = Sandbox::new();
    let session = |name: &str, offset: u64, size: u64, count: u64| {
        let base = sandbox.base_port + offset;
        format!(
            "[session.{name}]\nresources = [{{ kind = \"port-range\", base-port = {base}, block-size = {size}, block-count = {count} }}]\n"
        )
    };
    let two = session("a", 0, 32, 1) + &session("b", 16, 32, 2);
    sandbox.manifest(&two);
    let starts: Vec<_> = sessions(&sandbox.plan()).map(|session| ports(session).0).collect();
    assert_eq!(starts, [sandbox.base_port, sandbox.base_port + 48]);
    // Each of these four blocks reaches into one of those two.
    sandbox.manifest(&(two + &session("c", 8, 20, 4)));
    sandbox.seedbed(&["plan"]).expect(65).says(&["no block of 20 ports is free"]);
}

/// Plans one block and listens on one of its ports. Expects another block, and the reason in the plan.
#[track_caller]
fn check_passed_over<S>(listen: impl FnOnce(u16) -> S, said: &str) {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let block = |plan: &Value| ports(sessions(plan).next().unwrap());
    let (start, end) = block(&sandbox.plan());
    let listener = listen(u16::try_from(end).unwrap());
    let plan = sandbox.ok(&["plan"]).stdout;
    let reason = format!("({start}-{end}) passed over: {said} {end} is in use");
    assert!(plan.contains(&reason), "not said: {reason}\n{plan}");
    let other = block(&sandbox.plan());
    assert!(other.1 < start || other.0 > end);
    sandbox.ok(&["apply"]);
    assert_eq!(block(&sandbox.plan()), other);
    // Leased ports stay the same, regardless of other sessions.
    drop(listener);
    assert_eq!(block(&sandbox.plan()), other);
}

#[test]
fn a_block_with_a_listening_socket_is_passed_over() {
    check_passed_over(|port| TcpListener::bind(("127.0.0.1", port)).unwrap(), "tcp port");
    check_passed_over(|port| TcpListener::bind(("0.0.0.0", port)).unwrap(), "tcp port");
    check_passed_over(|port| TcpListener::bind(("127.0.0.53", port)).unwrap(), "tcp port");
    check_passed_over(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap(), "udp port");
}

#[test]
fn a_block_with_a_listening_socket_of_ipv6_is_passed_over() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    check_passed_over(|port| TcpListener::bind(("::", port)).unwrap(), "tcp port");
    check_passed_over(|port| TcpListener::bind(("::1", port)).unwrap(), "tcp port");
}

#[test]
fn lock_file_of_the_reference_implementation_is_skipped_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let (start, end) = ports(sessions(&sandbox.plan()).next().unwrap());
    let lock = format!(".ai_ops/locks/ports/{start}-{end}.lock");
    sandbox.write(&lock, "{\"sessionId\":\"other\"}\n");
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains(&format!("({start}-{end}) passed over: lock file")), "{plan}");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    let left = std::fs::read_to_string(sandbox.repository.join(lock)).unwrap();
    assert_eq!(left, "{\"sessionId\":\"other\"}\n");
}

/// R12: a release removes only the lock file that names its own session.
#[test]
fn lock_file_of_another_session_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let directory = sandbox.repository.join(".ai_ops/locks/ports");
    let mut names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let path = names.find(|path| path.extension().is_some_and(|extension| extension == "lock")).unwrap();
    let own: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |key: &str, value: &str| {
        let mut lock = own.clone();
        lock[key] = value.into();
        lock.to_string()
    };
    for text in [
        with("owner", "0123456789abcdef0123456789abcdef"),
        with("sessionId", "shop/b"),
        "garbage".to_owned(),
        String::new(),
    ] {
        fs::write(&path, &text).unwrap();
        sandbox.ok(&["destroy"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let doctor = sandbox.ok(&["doctor"]).stdout;
        assert!(doctor.contains("lock-file"), "{text}: {doctor}");
        fs::remove_file(&path).unwrap();
        sandbox.ok(&["apply"]);
    }
    sandbox.ok(&["destroy"]);
    assert!(!path.exists());
}

/// The share of a new child is as free as a new block: a port on which the parent's agent listens is not in it.
#[test]
fn a_new_child_of_an_applied_block_gets_no_port_that_is_served() {
    let sandbox = Sandbox::new();
    let parent = "[session.a]\nresources = [{ kind = \"port-range\", slots = 2 }]\n";
    sandbox.manifest(parent);
    sandbox.ok(&["apply"]);
    let (start, end) = ports(sessions(&sandbox.plan()).next().unwrap());
    let served = TcpListener::bind(("127.0.0.1", u16::try_from(start).unwrap())).unwrap();
    sandbox.manifest(&format!(
        "{parent}[session.a.child.b]\nresources = [{{ kind = \"port-range\", names = [\"http\"] }}]\n"
    ));
    let child = |plan: &Value| ports(sessions(plan).find(|session| session["path"] == "a/b").unwrap());
    let second = (start + (end - start).div_ceil(2), end);
    assert_eq!(child(&sandbox.plan()), second, "the first share is served");
    // If both are in use, the session gets a block of its own.
    let other = TcpListener::bind(("127.0.0.1", u16::try_from(end).unwrap())).unwrap();
    let (own, _) = child(&sandbox.plan());
    assert!(!(start..=end).contains(&own), "{own}");
    drop(other);
    sandbox.ok(&["apply"]);
    assert_eq!(child(&sandbox.plan()), second);
    drop(served);
    sandbox.ok(&["destroy"]);
}

/// R45: the kernel does not list a socket that is only bound, so that a new share is probed when it is claimed.
#[test]
fn a_new_child_of_an_applied_block_gets_no_port_that_is_bound() {
    let sandbox = Sandbox::new();
    let parent = "[session.a]\nresources = [{ kind = \"port-range\", slots = 2 }]\n";
    sandbox.manifest(parent);
    sandbox.ok(&["apply"]);
    let (start, end) = ports(sessions(&sandbox.plan()).next().unwrap());
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(start).unwrap()))).unwrap();
    sandbox.manifest(&format!("{parent}[session.a.child.b]\nresources = [\"port-range\"]\n"));
    let said = format!("tcp port {start} is in use");
    sandbox.ok(&["apply"]).says(&[&said, "planning again"]);
    let plan = sandbox.plan();
    let child = sessions(&plan).find(|session| session["path"] == "a/b").unwrap();
    let second = (start + (end - start).div_ceil(2), end);
    assert_eq!(ports(child), second);

    // Its lease is granted again when it is lost, though the child serves a port of it.
    let served = TcpListener::bind(("127.0.0.1", u16::try_from(end).unwrap())).unwrap();
    std::fs::remove_dir_all(sandbox.state().join("leases")).unwrap();
    sandbox.ok(&["status", "--repair"]).says(&["a/b: repaired: port-range: "]);
    drop((served, socket));
    sandbox.ok(&["destroy"]);
}
