//! Ports in use: by the host's registry, by lock files of a workspace, by sockets.
#![expect(clippy::disallowed_methods, reason = "reads /proc")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::directories;
use super::{Directory, ItemInUse, PortOwner, PortsInUse};
use crate::host::leases::{self, Key, Published};
use crate::host::sockets;
use crate::host::{Host, files};
use crate::name::PortBlock;

/// Largest lock file that is read, in bytes. A lock file has about 200.
const LOCK_LIMIT: usize = 64 * 1024;

/// Returns the leases in the registry of this host, and the leases that other users of the host have published.
pub(super) fn leases(host: &Host) -> Result<Vec<PortsInUse>, files::Error> {
    let ports = |leased: Leased| match leased.key {
        Key::Ports(block) => {
            let owner = PortOwner::Lease { session: leased.session, owner: leased.owner };
            Some(PortsInUse { block, owner })
        }
        _ => None,
    };
    Ok(leased(host)?.into_iter().filter_map(ports).collect())
}

/// Returns the leased items of pools.
pub(super) fn items(host: &Host) -> Result<Vec<ItemInUse>, files::Error> {
    let item = |leased: Leased| match leased.key {
        Key::Item(key) => Some(ItemInUse { key, session: leased.session, owner: leased.owner }),
        _ => None,
    };
    Ok(leased(host)?.into_iter().filter_map(item).collect())
}

/// A lease of this host, or one that another user of the host has published.
struct Leased {
    key: Key,
    session: String,
    owner: String,
}

fn leased(host: &Host) -> Result<Vec<Leased>, files::Error> {
    let leases = leases::all(host)?.into_iter().map(|lease| Leased {
        key: lease.resource.key(),
        session: lease.session,
        owner: lease.owner,
    });
    let published = leases::others(host).into_iter().map(|Published { key, holder }| Leased {
        key,
        session: format!("a session of {holder}"),
        owner: String::new(),
    });
    Ok(leases.chain(published).collect())
}

/// Returns the ports of the lock files in a directory.
///
/// The name reserves the ports, with any file under it: the reference implementation could not create its lock
/// there.
pub(super) fn locks(workspace: &Path, directory: &Path, listed: &Directory) -> Vec<PortsInUse> {
    let Directory::Listed(names) = listed else { return Vec::new() };
    let root = directories::open(workspace, directory).ok().flatten();
    let text = |content: &Option<Value>, key| content.as_ref()?.get(key)?.as_str().map(str::to_owned);
    names
        .iter()
        .filter_map(|name| {
            let block = locked_block(name)?;
            let bytes = root.as_ref().and_then(|root| root.read(Path::new(name), LOCK_LIMIT).ok().flatten());
            let content = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            let (session, owner) = (text(&content, "sessionId"), text(&content, "owner"));
            Some(PortsInUse { block, owner: PortOwner::LockFile { name: name.clone(), session, owner } })
        })
        .collect()
}

/// Returns the ports on which processes listen (TCP) or to which they are bound (UDP). Ports that a claim of this host
/// found bound are included.
///
/// The kernel does not list all sockets; binding the ports before a grant finds the rest.
pub(super) fn served(host: &Host) -> Vec<PortsInUse> {
    let served = sockets::served().into_iter().map(|socket| (socket.port, socket.protocol));
    let all: BTreeSet<(u16, &'static str)> = served.chain(host.bound.all()).collect();
    all.into_iter()
        .filter_map(|(port, protocol)| {
            Some(PortsInUse {
                block: PortBlock::single(port)?,
                owner: PortOwner::Socket { protocol: protocol.to_owned() },
            })
        })
        .collect()
}

/// Returns the ports that the kernel gives to outgoing connections, if it reports them.
pub(super) fn ephemeral() -> Option<PortBlock> {
    range(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn range(text: &str) -> Option<PortBlock> {
    let mut ends = text.split_whitespace().map(str::parse);
    PortBlock::new(ends.next()?.ok()?, ends.next()?.ok()?)
}

/// Returns the block in the name of a lock file of the reference implementation: `START-END.lock`.
fn locked_block(name: &str) -> Option<PortBlock> {
    let (start, end) = name.strip_suffix(".lock")?.split_once('-')?;
    let number = |digits: &str| {
        // `parse` alone would accept a sign.
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    PortBlock::new(number(start)?, number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Query;
    use crate::observe::sandbox::Sandbox;
    use std::net::{TcpListener, UdpSocket};

    fn lock(session: Option<&str>, owner: Option<&str>, name: &str) -> PortsInUse {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let owner = PortOwner::LockFile { name: name.to_owned(), session: own(session), owner: own(owner) };
        PortsInUse { block: locked_block(name).unwrap(), owner }
    }

    #[test]
    fn lock_file_names_are_parsed() {
        for name in [
            "1-2.lock.tmp",
            "a-2.lock",
            "+1-2.lock",
            "1-+2.lock",
            "2-1.lock",
            "0-4.lock",
            "1-70000.lock",
            "-.lock",
            "1.lock",
            "1-2-3.lock",
            "1-2.json",
            " 1-2.lock",
            "1-99999999999999999999.lock",
        ] {
            assert_eq!(locked_block(name), None, "{name}");
        }
        assert_eq!(locked_block("36000-36031.lock"), PortBlock::new(36000, 36031));
        assert_eq!(locked_block("7-7.lock"), PortBlock::single(7));
    }

    #[test]
    fn lock_files_of_every_content_keep_the_ports_in_their_name() {
        let sandbox = Sandbox::new();
        let directory = Path::new("locks");
        let at = sandbox.workspace.join(directory);
        std::fs::create_dir(&at).unwrap();
        let seed =
            r#"{"sessionId":"a/b","allocatedAt":"2026-01-01T00:00:00.000Z","startPort":10,"endPort":19}"#;
        std::fs::write(at.join("10-19.lock"), seed).unwrap();
        std::fs::write(at.join("20-29.lock"), r#"{"sessionId":"c","owner":"00ff","extra":[1]}"#).unwrap();
        std::fs::write(at.join("30-39.lock"), "{").unwrap();
        std::fs::write(at.join("40-49.lock"), "").unwrap();
        std::fs::write(at.join("50-59.lock"), vec![b' '; 2 * LOCK_LIMIT]).unwrap();
        std::fs::create_dir(at.join("60-69.lock")).unwrap();
        std::fs::write(sandbox.workspace.join("secret"), r#"{"sessionId":"secret"}"#).unwrap();
        std::os::unix::fs::symlink("../secret", at.join("70-79.lock")).unwrap();
        sandbox.fifo("locks/80-89.lock");
        std::fs::write(at.join("README"), "").unwrap();

        let observed = sandbox.observe([Query::Locks { directory: directory.to_owned() }]);
        let expected = [
            lock(Some("a/b"), None, "10-19.lock"),
            lock(Some("c"), Some("00ff"), "20-29.lock"),
            lock(None, None, "30-39.lock"),
            lock(None, None, "40-49.lock"),
            lock(None, None, "50-59.lock"),
            lock(None, None, "60-69.lock"),
            lock(None, None, "70-79.lock"),
            lock(None, None, "80-89.lock"),
        ];
        assert_eq!(observed.ports_in_use, expected);
        assert!(observed.repositories.is_empty());
    }

    #[test]
    fn lock_directory_that_is_a_link_is_not_read() {
        let sandbox = Sandbox::new();
        let outside = sandbox.directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("10-19.lock"), "{}").unwrap();
        std::os::unix::fs::symlink(&outside, sandbox.workspace.join("locks")).unwrap();
        let observed = sandbox.observe([Query::Locks { directory: "locks".into() }]);
        assert_eq!(observed.ports_in_use, []);
        assert_eq!(observed.directories[Path::new("locks")], Directory::Link("locks".into()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn listening_sockets_are_found_on_every_address() {
        let sandbox = Sandbox::new();
        for address in ["0.0.0.0:0", "127.0.0.1:0", "127.9.8.7:0", "[::]:0", "[::1]:0"] {
            let (Ok(tcp), Ok(udp)) = (TcpListener::bind(address), UdpSocket::bind(address)) else {
                assert!(address.starts_with('['), "{address}");
                continue;
            };
            let in_use = sandbox.observe([Query::Ports]).ports_in_use;
            for (protocol, port) in
                [("tcp", tcp.local_addr().unwrap().port()), ("udp", udp.local_addr().unwrap().port())]
            {
                let expected = PortsInUse {
                    block: PortBlock::single(port).unwrap(),
                    owner: PortOwner::Socket { protocol: protocol.to_owned() },
                };
                assert_eq!(in_use.iter().filter(|one| **one == expected).count(), 1, "{address} {protocol}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn port_with_two_listeners_is_listed_once() {
        let sandbox = Sandbox::new();
        let port = leases::tests::free_ports(1);
        let Ok(_v6) = TcpListener::bind(("::1", port)) else { return };
        let _v4 = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let expected = PortsInUse {
            block: PortBlock::single(port).unwrap(),
            owner: PortOwner::Socket { protocol: "tcp".to_owned() },
        };
        let in_use = sandbox.observe([Query::Ports]).ports_in_use;
        assert_eq!(in_use.iter().filter(|one| **one == expected).count(), 1);
    }

    #[test]
    fn leases_are_listed_in_order() {
        let sandbox = Sandbox::new();
        let port = leases::tests::free_ports(4);
        let block = PortBlock::new(port.into(), (port + 3).into()).unwrap();
        let resource = leases::Leased::Ports(block);
        let lease = leases::Lease::new("s/a".to_owned(), "00ff".to_owned(), "/workspace".into(), resource);
        leases::grant(&sandbox.host, &lease, &[]).unwrap();
        let in_use = sandbox.observe([Query::Ports]).ports_in_use;
        assert!(in_use.contains(&PortsInUse {
            block,
            owner: PortOwner::Lease { session: lease.session, owner: lease.owner }
        }));
        let sorted: BTreeSet<&PortsInUse> = in_use.iter().collect();
        assert!(in_use.iter().eq(sorted));
    }

    #[test]
    fn observing_ports_creates_nothing() {
        let sandbox = Sandbox::new();
        sandbox.observe([Query::Ports, Query::Locks { directory: "locks".into() }]);
        assert!(!sandbox.host.state.exists());
    }

    #[test]
    fn ephemeral_range_is_parsed() {
        assert_eq!(range("32768\t60999\n"), PortBlock::new(32768, 60999));
        assert_eq!(range(""), None);
        assert_eq!(range("a b"), None);
    }
}
