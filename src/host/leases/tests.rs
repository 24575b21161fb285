#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use tempfile::TempDir;

use super::*;
use crate::name::ItemKey;

const OURS: &str = "00000000000000000000000000000000";
const THEIRS: &str = "ffffffffffffffffffffffffffffffff";

/// Returns the first of `size` ports that no process is bound to, below the ephemeral range; no two calls return the
/// same.
///
/// Tests run beside one another, and a probe itself binds ports that another test would probe.
pub(crate) fn free_ports(size: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    // Other test programs begin at other ports.
    let offset = u16::try_from(std::process::id() % 20).unwrap() * 1000;
    loop {
        let start = FIRST + (offset + NEXT.fetch_add(size, Ordering::Relaxed)) % 20_000;
        if probe(PortBlock::new(start.into(), (start + size - 1).into()).unwrap()).is_ok() {
            return start;
        }
    }
}

struct Registry {
    _directory: TempDir,
    host: Host,
}

impl Registry {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let state = directory.path().join("state");
        let host = Host::new(vec![], state);
        Self { _directory: directory, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.state.join(DIRECTORY).join(name)
    }

    fn grant(&self, lease: &Lease) -> Result<(), Error> {
        grant(&self.host, lease, &[])
    }

    /// Returns a registry in which something has been granted and revoked.
    fn used() -> Self {
        let registry = Self::new();
        let port = free_ports(1);
        let lease = lease("s/first", OURS, port, port);
        registry.grant(&lease).unwrap();
        revoke(&registry.host, &lease).unwrap();
        registry
    }
}

fn lease(session: &str, owner: &str, start: u16, end: u16) -> Lease {
    let resource = Leased::Ports(PortBlock::new(start.into(), end.into()).unwrap());
    Lease::new(session.to_owned(), owner.to_owned(), "/workspace".into(), resource)
}

fn name(lease: &Lease) -> String {
    file_of(lease)
}

#[test]
fn a_lease_is_granted_listed_and_revoked() {
    let p = free_ports(64);
    let registry = Registry::new();
    assert_eq!(all(&registry.host).unwrap(), []);
    let (second, first) = (lease("s/b", OURS, p + 16, p + 31), lease("s/a", OURS, p, p + 15));
    registry.grant(&second).unwrap();
    registry.grant(&first).unwrap();
    assert_eq!(all(&registry.host).unwrap(), [first.clone(), second.clone()]);

    revoke(&registry.host, &second).unwrap();
    revoke(&registry.host, &second).unwrap();
    assert_eq!(all(&registry.host).unwrap(), [first]);
    let mode = std::fs::metadata(registry.path("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn revoking_no_lease_creates_nothing() {
    let p = free_ports(64);
    let registry = Registry::new();
    revoke(&registry.host, &lease("s/a", OURS, p, p + 15)).unwrap();
    assert!(!registry.host.state.exists());
}

#[test]
fn no_port_is_granted_twice_in_any_geometry() {
    let p = free_ports(64);
    let registry = Registry::new();
    registry.grant(&lease("s/a", OURS, p + 16, p + 31)).unwrap();
    for (start, end) in [(p, p + 16), (p + 31, p + 40), (p + 20, p + 21), (p, p + 60), (p + 16, p + 31)] {
        for owner in [OURS, THEIRS] {
            let result = registry.grant(&lease("s/b", owner, start, end));
            let Err(Error::Leased { held, session, .. }) = result else {
                panic!("{start}-{end}: {result:?}")
            };
            let first = Key::Ports(PortBlock::new((p + 16).into(), (p + 31).into()).unwrap());
            assert_eq!((held, session.as_str()), (first, "s/a"));
        }
    }
    // The same session of another swarm is another session.
    assert!(registry.grant(&lease("s/a", THEIRS, p + 16, p + 31)).is_err());
    registry.grant(&lease("s/b", THEIRS, p, p + 15)).unwrap();
    registry.grant(&lease("s/b", THEIRS, p + 32, p + 40)).unwrap();
}

#[test]
fn a_child_shares_its_ancestors_ports_only() {
    let p = free_ports(64);
    let registry = Registry::new();
    registry.grant(&lease("s/a", OURS, p, p + 31)).unwrap();
    let child = lease("s/a/b", OURS, p + 8, p + 15);
    assert!(matches!(grant(&registry.host, &child, &[]), Err(Error::Leased { .. })));
    assert!(matches!(grant(&registry.host, &child, &["s"]), Err(Error::Leased { .. })));
    grant(&registry.host, &child, &["s/a"]).unwrap();
    let sibling = lease("s/a/c", OURS, p + 15, p + 16);
    assert!(matches!(grant(&registry.host, &sibling, &["s/a"]), Err(Error::Leased { .. })));
    let foreign = lease("s/a/d", THEIRS, p + 20, p + 21);
    assert!(matches!(grant(&registry.host, &foreign, &["s/a"]), Err(Error::Leased { .. })));
}

#[test]
fn ports_in_use_are_not_granted_for_the_first_time() {
    let registry = Registry::new();
    let (listener, port) = listener();
    let parent = lease("s/a", OURS, port, port + 1);
    let result = registry.grant(&parent);
    assert!(
        matches!(result, Err(Error::Bound { port: found, protocol: "tcp", .. }) if found == port),
        "{result:?}"
    );
    assert_eq!(all(&registry.host).unwrap(), []);

    drop(listener);
    // A process that another test has just forked has a copy of the socket until it executes its program.
    while !crate::host::listeners::on(PortBlock::new(port.into(), port.into()).unwrap()).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    registry.grant(&parent).unwrap();
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    // The parent serves the port now. A lease that is granted or was lost is granted again; a new share of the lease is
    // not.
    registry.grant(&parent).unwrap();
    let share = lease("s/a/b", OURS, port, port);
    assert!(matches!(grant(&registry.host, &share, &["s/a"]), Err(Error::Bound { .. })));
    grant_again(&registry.host, &share, &["s/a"]).unwrap();
    let other = lease("s/c", THEIRS, port, port);
    assert!(matches!(grant_again(&registry.host, &other, &[]), Err(Error::Leased { .. })));
}

/// Returns a listener with free ports beside its own.
fn listener() -> (TcpListener, u16) {
    let port = free_ports(3) + 1;
    (TcpListener::bind(("127.0.0.1", port)).unwrap(), port)
}

#[test]
fn torn_lease_keeps_its_ports_until_its_session_repairs_or_revokes_it() {
    let p = free_ports(64);
    let own = lease("s/a", OURS, p, p + 15);
    let moved = serde_json::to_string(&lease("s/a", OURS, p, p + 1)).unwrap();
    let future = serde_json::to_string(&Lease { schema_version: SCHEMA_VERSION + 1, ..own.clone() }).unwrap();
    let huge = " ".repeat(FILE_LIMIT + 1);
    for content in ["", "{", "null", &moved, &future, &huge] {
        let registry = Registry::used();
        let file = name(&own);
        std::fs::write(registry.path(&file), content).unwrap();
        let listed = all(&registry.host).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            (listed[0].session.as_str(), listed[0].owner.as_str()),
            (format!("unknown ({file})").as_str(), "")
        );
        assert_eq!(listed[0].ports(), PortBlock::new(p.into(), (p + 15).into()));

        let other = lease("s/b", OURS, p + 15, p + 20);
        assert!(matches!(registry.grant(&other), Err(Error::Leased { .. })));
        revoke(&registry.host, &other).unwrap();
        registry.grant(&own).unwrap();
        assert_eq!(all(&registry.host).unwrap(), std::slice::from_ref(&own));

        std::fs::write(registry.path(&file), content).unwrap();
        revoke(&registry.host, &own).unwrap();
        assert_eq!(all(&registry.host).unwrap(), []);
    }
}

#[test]
fn revoking_leaves_what_is_not_this_sessions() {
    let p = free_ports(64);
    let registry = Registry::new();
    let own = lease("s/a", OURS, p, p + 15);
    registry.grant(&own).unwrap();
    for other in [
        lease("s/a", THEIRS, p, p + 15),
        lease("s/b", OURS, p, p + 15),
        lease("s/a", OURS, p, p + 14),
        lease("s/a", OURS, p + 1, p + 15),
    ] {
        revoke(&registry.host, &other).unwrap();
        assert_eq!(all(&registry.host).unwrap(), std::slice::from_ref(&own));
    }
}

#[test]
fn other_files_are_skipped_without_a_hang() {
    let p = free_ports(64);
    let registry = Registry::used();
    let names = [1, 2, 3].map(|n| name(&lease("s/x", THEIRS, p, p + n)));
    let status = std::process::Command::new("mkfifo").arg(registry.path(&names[0])).status().unwrap();
    assert!(status.success());
    let target = registry.host.state.join("secret");
    std::fs::write(&target, serde_json::to_vec(&lease("s/x", THEIRS, p, p + 2)).unwrap()).unwrap();
    symlink(&target, registry.path(&names[1])).unwrap();
    std::fs::create_dir(registry.path(&names[2])).unwrap();
    for foreign in ["README", "20000-20015.lock", "20000-20015.json", "20000-20015.0123456789ABCDEF.json"] {
        std::fs::write(registry.path(foreign), "{}").unwrap();
    }
    assert_eq!(all(&registry.host).unwrap(), []);
    registry.grant(&lease("s/a", OURS, p, p + 15)).unwrap();
    // With the exact name of a lease file, they block it.
    let blocked = lease("s/x", THEIRS, p, p + 1);
    revoke(&registry.host, &lease("s/a", OURS, p, p + 15)).unwrap();
    assert!(matches!(registry.grant(&blocked), Err(Error::File(files::Error::Irregular { .. }))));
}

#[test]
fn lease_file_names_are_parsed() {
    let mark = "0123456789abcdef";
    assert_eq!(key_of(&format!("1-2.{mark}.json")), PortBlock::new(1, 2).map(Key::Ports));
    let key = ItemKey::new("gpu", "gpu0");
    assert_eq!(key_of(&format!("item-{key}.{mark}.json")), Some(Key::Item(key)));
    for name in [
        "1-2.json".to_owned(),
        format!("1-2.{mark}"),
        format!("01-2.{mark}.json"),
        format!("+1-2.{mark}.json"),
        format!("2-1.{mark}.json"),
        format!("0-1.{mark}.json"),
        format!("1-65536.{mark}.json"),
        format!("1-2.{mark}0.json"),
        format!("1-2.{}.json", mark.to_uppercase()),
        format!(".1-2.{mark}.json"),
        format!("1-2.{mark}.json.tmp"),
        format!("item-{}.{mark}.json", "A".repeat(16)),
        format!("item-0.{mark}.json"),
    ] {
        assert_eq!(key_of(&name), None, "{name}");
    }
}

#[test]
fn a_registry_that_is_a_link_is_refused() {
    let p = free_ports(64);
    let registry = Registry::new();
    let elsewhere = TempDir::new().unwrap();
    std::fs::create_dir(&registry.host.state).unwrap();
    symlink(elsewhere.path(), registry.path("").parent().unwrap().join(DIRECTORY)).unwrap();
    let own = lease("s/a", OURS, p, p + 15);
    assert!(registry.grant(&own).is_err());
    assert!(all(&registry.host).is_err());
    assert!(revoke(&registry.host, &own).is_err());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_guard_that_is_a_link_is_refused() {
    let p = free_ports(64);
    let registry = Registry::used();
    let elsewhere = registry.host.state.join("elsewhere");
    std::fs::remove_file(registry.path(GUARD)).unwrap();
    symlink(&elsewhere, registry.path(GUARD)).unwrap();
    assert!(matches!(registry.grant(&lease("s/a", OURS, p, p + 15)), Err(Error::Lock(_))));
    assert!(!elsewhere.exists());
}

#[test]
fn an_item_of_a_pool_is_leased_once() {
    let registry = Registry::new();
    let lease = |session: &str, owner: &str, pool: &str, item: &str| {
        let resource = Leased::Item { pool: pool.to_owned(), item: item.to_owned() };
        Lease::new(session.to_owned(), owner.to_owned(), "/workspace".into(), resource)
    };
    let own = lease("s/a", OURS, "gpu", "0");
    registry.grant(&own).unwrap();
    registry.grant(&own).unwrap();
    let error = registry.grant(&lease("s/b", THEIRS, "gpu", "0")).unwrap_err();
    assert_eq!(error.to_string(), "`0` of the pool `gpu` is not free: it is leased to s/a of /workspace");
    for other in [lease("s/b", THEIRS, "gpu", "1"), lease("s/b", THEIRS, "phone", "0")] {
        registry.grant(&other).unwrap();
    }
    let child = lease("s/a/b", OURS, "gpu", "0");
    assert!(matches!(registry.grant(&child), Err(Error::Leased { .. })));
    grant(&registry.host, &child, &["s/a"]).unwrap();
    revoke(&registry.host, &child).unwrap();
    // A lease whose content is torn keeps its item.
    std::fs::write(registry.path(&name(&own)), "{").unwrap();
    assert!(all(&registry.host).unwrap().iter().any(|lease| lease.owner.is_empty()));
    assert!(matches!(registry.grant(&lease("s/b", THEIRS, "gpu", "0")), Err(Error::Leased { .. })));
    set_aside(&registry.host, &own).unwrap();
    revoke_aside(&registry.host, &own).unwrap();
    registry.grant(&lease("s/b", THEIRS, "gpu", "0")).unwrap();
}

/// The threads represent processes: the guard's flock belongs to the open file, and each grant opens its own.
#[test]
fn racing_grants_never_give_one_port_twice() {
    let p = free_ports(64);
    for round in 0..40 {
        let registry = Registry::new();
        let go = AtomicBool::new(false);
        let granted: Vec<Lease> = std::thread::scope(|scope| {
            let (registry, go) = (&registry, &go);
            let threads: Vec<_> = (0..16_u16)
                .map(|n| {
                    // Each overlaps its neighbours, and none has another's file name.
                    let start = p + n % 4 * 3;
                    let lease = lease(&format!("s/{n}"), OURS, start, start + 3 + n / 4);
                    scope.spawn(move || {
                        while !go.load(Ordering::Acquire) {
                            std::hint::spin_loop();
                        }
                        registry.grant(&lease).is_ok().then_some(lease)
                    })
                })
                .collect();
            go.store(true, Ordering::Release);
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let blocks: Vec<PortBlock> = granted.iter().map(|lease| lease.ports().unwrap()).collect();
        assert!(!blocks.is_empty());
        for (n, block) in blocks.iter().enumerate() {
            assert!(blocks[n + 1..].iter().all(|other| !other.overlaps(*block)), "round {round}: {blocks:?}");
        }
        assert_eq!(all(&registry.host).unwrap().len(), granted.len());
    }
}
