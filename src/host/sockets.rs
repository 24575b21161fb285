//! Sockets that the kernel reports in `/proc/net`; none on systems without it.
#![expect(clippy::disallowed_methods, reason = "reads /proc")]

#[cfg(target_os = "linux")]
mod listening;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// State of a TCP socket that waits for connections.
const LISTEN: u8 = 0x0A;
/// State of a UDP socket that is bound and not connected.
const UNCONNECTED: u8 = 0x07;
/// State of a TCP connection for a minute after its end.
const TIME_WAIT: u8 = 0x06;

/// One line of the kernel's tables. A TCP socket that is bound but neither listens nor is connected is in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// Local address.
    pub(crate) address: IpAddr,
    /// Local port.
    pub(crate) port: u16,
    /// Number of the user that created the socket.
    pub(crate) user: u32,
    /// Inode, which names the socket among the open files of processes.
    pub(crate) inode: u64,
    state: u8,
}

impl Socket {
    /// Returns whether a process accepts connections or datagrams of any sender on the port.
    pub(crate) fn is_served(self) -> bool {
        self.state == if self.protocol == "tcp" { LISTEN } else { UNCONNECTED }
    }
}

/// Returns every socket of the network namespace, IPv4 and IPv6.
pub(crate) fn all() -> Vec<Socket> {
    let tables = [("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6")];
    tables.into_iter().flat_map(|(protocol, file)| table(protocol, file)).collect()
}

/// Returns the sockets of [`all`] that are served, if possible without listing every connection.
pub(crate) fn served() -> Vec<Socket> {
    let Some(mut served) = listening() else {
        return all().into_iter().filter(|socket| socket.is_served()).collect();
    };
    let bound = ["udp", "udp6"].into_iter().flat_map(|file| table("udp", file));
    served.extend(bound.filter(|socket| socket.is_served()));
    served
}

#[cfg(target_os = "linux")]
fn listening() -> Option<Vec<Socket>> {
    listening::all()
}

#[cfg(not(target_os = "linux"))]
fn listening() -> Option<Vec<Socket>> {
    None
}

fn table(protocol: &'static str, file: &str) -> Vec<Socket> {
    let table = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
    table.lines().filter_map(|line| parse(protocol, line)).collect()
}

/// Returns whether only ended connections remain on a TCP port.
///
/// No process has the port, and every server that sets `SO_REUSEADDR`, as nearly all do, may listen on it.
pub(crate) fn only_lingers(port: u16) -> bool {
    let states: Vec<u8> = all()
        .iter()
        .filter(|socket| socket.protocol == "tcp" && socket.port == port)
        .map(|socket| socket.state)
        .collect();
    !states.is_empty() && states.iter().all(|&state| state == TIME_WAIT)
}

fn parse(protocol: &'static str, line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.rsplit_once(':')?;
    Some(Socket {
        protocol,
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(fields.nth(1)?, 16).ok()?,
        user: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

/// Parses an address as the kernel writes it: words of 32 bits, each in the host's byte order.
fn parse_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tables() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let expected = Socket {
            protocol: "tcp",
            address: Ipv4Addr::from(0x0100_007Fu32.to_ne_bytes()).into(),
            port: 8080,
            user: 1000,
            inode: 4711,
            state: LISTEN,
        };
        assert_eq!(parse("tcp", line), Some(expected));
        let line = " 12: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 33 0 9 1";
        let expected = Socket {
            protocol: "udp",
            address: Ipv6Addr::UNSPECIFIED.into(),
            port: 53,
            user: 33,
            inode: 9,
            state: UNCONNECTED,
        };
        assert_eq!(parse("udp", line), Some(expected));
        for line in [
            "  sl  local_address rem_address   st tx_queue",
            "",
            "0: 1:2",
            "0: 00000000:10000 0:0 0A 0:0 0:0 0 0 0 1",
            "0: 000000:1000 0:0 0A 0:0 0:0 0 0 0 1",
        ] {
            assert_eq!(parse("tcp", line), None, "{line}");
        }
    }
}
