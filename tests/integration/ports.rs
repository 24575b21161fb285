//! Ports: no two sessions of a host share one, and none is given that something listens on.

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use serde_json::Value;

use crate::sandbox::{Sandbox, ports, sessions};

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

#[test]
fn two_clones_that_apply_at_once_never_share_a_port() {
    let sandbox = Sandbox::new();
    sandbox.manifest(CODERS);
    let clone = sandbox.clone_to("clone");
    // Both plan the same blocks. One may be too late, and then it is refused whole; the next try passes them over.
    let runs = [&sandbox.repository, &clone].map(|top| {
        let mut apply = sandbox.command(&["apply", "--quiet"]);
        (top, apply.current_dir(top).stderr(std::process::Stdio::null()).spawn().unwrap())
    });
    for (top, mut run) in runs {
        if !run.wait().unwrap().success() {
            sandbox.seedbed_in(top, &["apply"]).expect(0);
        }
    }
    let held: Vec<u64> =
        [&sandbox.repository, &clone].iter().flat_map(|top| all_ports(&sandbox, top)).collect();
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), 2 * 8 * 4);
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

/// Plans one block, has something listen in it, and expects another block and the reason in the plan.
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
    // What is leased stays, whoever comes and goes.
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
fn a_lock_file_of_the_seed_is_passed_over_and_left_alone() {
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
