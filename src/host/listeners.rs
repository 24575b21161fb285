//! Processes that listen on ports, as far as the kernel reports them to this user.
#![expect(clippy::disallowed_methods, reason = "reads /proc")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sockets;
use super::text::printable;
use crate::name::PortBlock;

/// Number of bytes of a process's command that are kept.
const COMMAND_MAX: usize = 4096;

/// Number of characters of a command that a message shows.
const SHOWN_MAX: usize = 60;

/// A socket that accepts connections or datagrams of any sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Listener {
    /// Protocol: `tcp` or `udp`.
    pub protocol: String,
    /// Local address; unspecified (`0.0.0.0`, `::`) for all addresses.
    pub address: IpAddr,
    /// Number of the port.
    pub port: u16,
    /// Number of the user that created the socket.
    pub user: u32,
    /// Processes that have the socket open, by number; empty if unknown: processes of another user or of another
    /// namespace.
    pub processes: Vec<Running>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// Program and arguments, separated by blanks; bytes that are not UTF-8 are replaced. A process chooses this text
    /// itself.
    pub command: String,
}

/// Returns the sockets that listen (TCP) or are bound (UDP) on the ports of a block, by port, with their processes.
pub fn on(ports: PortBlock) -> Vec<Listener> {
    let within = |port: u16| (ports.start()..=ports.end()).contains(&port);
    let mut served: Vec<_> =
        sockets::all().into_iter().filter(|socket| socket.is_served() && within(socket.port)).collect();
    served.sort_by_key(|socket| (socket.port, socket.protocol, socket.address));
    let inodes: BTreeSet<u64> = served.iter().map(|socket| socket.inode).collect();
    let holders = if inodes.is_empty() { BTreeMap::new() } else { holders(&inodes) };
    let listener = |socket: sockets::Socket| Listener {
        protocol: socket.protocol.to_owned(),
        address: socket.address,
        port: socket.port,
        user: socket.user,
        processes: holders.get(&socket.inode).into_iter().flatten().cloned().collect(),
    };
    served.into_iter().map(listener).collect()
}

/// Describes the process that has bound a port, listening or not: ` by pid 12 (python3 -m http)`.
///
/// Returns an empty text if the kernel does not report the process to this user. A TCP socket that neither listens nor
/// is connected is in no table of the kernel.
pub(crate) fn holder(port: u16, protocol: &str) -> String {
    let bound =
        sockets::all().into_iter().filter(|socket| socket.port == port && socket.protocol == protocol);
    let inodes: BTreeSet<u64> = bound.map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
    if inodes.is_empty() {
        return String::new();
    }
    let running = holders(&inodes).into_values().flatten().next();
    running.map_or_else(String::new, |running| {
        let command: String = printable(&running.command).chars().take(SHOWN_MAX).collect();
        format!(" by pid {} ({command})", running.pid)
    })
}

/// Returns the processes that have each of the sockets open. Processes that this user may not inspect are skipped.
fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, BTreeSet<Running>> {
    let mut holders: BTreeMap<u64, BTreeSet<Running>> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let held: BTreeSet<u64> = files
            .filter_map(|file| inode(&std::fs::read_link(file.path()).ok()?))
            .filter(|inode| inodes.contains(inode))
            .collect();
        for inode in held {
            let running = Running { pid, command: command(&process.path()) };
            holders.entry(inode).or_default().insert(running);
        }
    }
    holders
}

/// Returns the inode of an open file that is a socket.
pub(super) fn inode(file: &Path) -> Option<u64> {
    file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns the command of a process, by its directory in `/proc`, in the form of [`Running::command`].
pub(super) fn command(process: &Path) -> String {
    let mut words = std::fs::read(process.join("cmdline")).unwrap_or_default();
    words.truncate(COMMAND_MAX);
    let text = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
    if !text.is_empty() {
        return text;
    }
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    format!("[{}]", name.trim_end())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

    #[test]
    fn a_socket_of_this_process_is_found_with_its_process() {
        let tcp = TcpListener::bind((Ipv4Addr::new(127, 3, 2, 1), 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let found = on(PortBlock::single(port).unwrap());
        let own = |protocol: &str, address: IpAddr| {
            let mut found = found.iter().filter(|one| one.protocol == protocol && one.address == address);
            found.next().unwrap_or_else(|| panic!("{protocol} {address}")).clone()
        };
        for listener in
            [own("tcp", Ipv4Addr::new(127, 3, 2, 1).into()), own("udp", udp.local_addr().unwrap().ip())]
        {
            assert_eq!(listener.port, port);
            assert!(listener.processes.iter().any(|process| process.pid == std::process::id()));
            let binary = std::env::current_exe().unwrap();
            let name = binary.file_name().unwrap().to_str().unwrap();
            assert!(listener.processes[0].command.contains(name), "{listener:?}");
        }
        drop((tcp, udp));
        assert!(on(PortBlock::single(port).unwrap()).is_empty());
    }

    #[test]
    fn an_address_of_the_longer_kind_is_read_as_it_is() {
        let Ok(tcp) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
        let found = on(PortBlock::single(tcp.local_addr().unwrap().port()).unwrap());
        assert_eq!(found[0].address, IpAddr::V6(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn other_files_are_no_sockets() {
        for (file, expected) in
            [("socket:[12]", Some(12)), ("pipe:[12]", None), ("/a", None), ("socket:[x]", None)]
        {
            assert_eq!(inode(Path::new(file)), expected, "{file}");
        }
    }
}
