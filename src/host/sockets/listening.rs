//! Listening TCP sockets, requested from the kernel (`sock_diag(7)`).
//!
//! For a reader of `/proc/net/tcp`, the kernel also walks its table of connections. That table has hundreds of
//! thousands of slots, however few are used. The walk takes as long as three starts of Git.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::{LISTEN, Socket};

/// Size of the header of every message: length, type, flags, number and sender.
const HEADER: usize = 16;
/// Type of a request for sockets of one family, and of an answer with one.
const BY_FAMILY: u16 = 20;
/// Flags of a request for all sockets.
const REQUEST_DUMP: u16 = 0x301;
/// Type of the message that ends the answer. An error has another type.
const DONE: u16 = 3;
/// Flag of an answer during which the table changed.
const INTERRUPTED: u16 = 0x10;
/// Protocol number of TCP.
const TCP: u8 = 6;
/// Largest datagram of an answer, in bytes.
const DATAGRAM: usize = 32 * 1024;

/// Returns every listening TCP socket of the network namespace, IPv4 and IPv6; `None` if the kernel does not answer.
pub(super) fn all() -> Option<Vec<Socket>> {
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(SOCK_DIAG)).ok()?;
        // The kernel's address: messages of other senders are not received then.
        connect(&socket, &SocketAddrNetlink::new(0, 0)).ok()?;
        let request = request(family);
        if send(&socket, &request, SendFlags::empty()).ok()? != request.len() {
            return None;
        }
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::TRUNC).ok()?;
            if read(buffer.get(..length)?, &mut found)? {
                break;
            }
        }
    }
    Some(found)
}

/// Returns a request for sockets of a family in the state [`LISTEN`], without further conditions.
fn request(family: AddressFamily) -> Vec<u8> {
    let mut wanted = [0_u8; 56];
    wanted[0] = u8::try_from(family.as_raw()).unwrap_or_default();
    wanted[1] = TCP;
    wanted[4..8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    let length = u32::try_from(HEADER + wanted.len()).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(wanted);
    request
}

/// Reads the messages of one datagram, and returns whether the answer ends with it; `None` if it is no valid answer.
fn read(datagram: &[u8], found: &mut Vec<Socket>) -> Option<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length)?;
        let number = |at: usize| Some(u16::from_ne_bytes(*message.get(at..)?.first_chunk()?));
        if number(6)? & INTERRUPTED != 0 {
            return None;
        }
        match number(4)? {
            DONE => return Some(true),
            BY_FAMILY => found.push(socket(message.get(HEADER..)?)?),
            _ => return None,
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(false)
}

/// Parses one socket: family and state, a byte each; two unused bytes; the port and the address in network byte order;
/// among others the user and the inode.
fn socket(message: &[u8]) -> Option<Socket> {
    let number = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    let address = message.get(8..24)?;
    let is_of = |family: AddressFamily| u16::from(message[0]) == family.as_raw();
    let address = if is_of(AddressFamily::INET) {
        Ipv4Addr::from(*address.first_chunk::<4>()?).into()
    } else if is_of(AddressFamily::INET6) {
        Ipv6Addr::from(*address.first_chunk::<16>()?).into()
    } else {
        return None;
    };
    Some(Socket {
        protocol: "tcp",
        address,
        port: u16::from_be_bytes(*message.get(4..)?.first_chunk()?),
        user: number(64)?,
        inode: number(68)?.into(),
        state: message[1],
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::{served, table};

    #[test]
    fn kernel_answer_equals_its_tables() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let client = TcpStream::connect(v4.local_addr().unwrap()).unwrap();
        let own: Vec<_> = [Some(&v4), v6.as_ref()].into_iter().flatten().collect();
        let ports: Vec<_> = own.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let client = client.local_addr().unwrap().port();
        let of_these = |sockets: Vec<super::Socket>| {
            let is_one = |socket: &super::Socket| [&ports[..], &[client]].concat().contains(&socket.port);
            let mut sockets: Vec<_> = sockets.into_iter().filter(is_one).collect();
            sockets.sort_by_key(|socket| (socket.port, socket.address));
            sockets
        };
        let tables = ["tcp", "tcp6"].into_iter().flat_map(|file| table("tcp", file));
        let expected = of_these(tables.filter(|socket| socket.is_served()).collect());
        assert_eq!(expected.len(), ports.len());
        // If the kernel does not answer, its tables are used.
        let is_tcp = |socket: &super::Socket| socket.protocol == "tcp";
        assert_eq!(of_these(served().into_iter().filter(is_tcp).collect()), expected);
        if let Some(found) = super::all() {
            assert_eq!(of_these(found), expected);
        }
    }

    #[test]
    fn malformed_answer_is_rejected() {
        let header = |length: u32, kind: u16, flags: u16| {
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat()
        };
        let read = |datagram: &[u8]| super::read(datagram, &mut Vec::new());
        assert_eq!(read(&header(16, super::DONE, 2)), Some(true));
        assert_eq!(read(&[]), Some(false));
        assert_eq!(read(&header(16, super::DONE, super::INTERRUPTED)), None);
        // An error; no socket; a message longer than the datagram; a message shorter than its header.
        assert_eq!(read(&header(16, 2, 0)), None);
        assert_eq!(read(&header(16, super::BY_FAMILY, 2)), None);
        assert_eq!(read(&header(20, super::DONE, 2)), None);
        assert_eq!(read(&header(0, super::BY_FAMILY, 2)), None);
        assert_eq!(read(&[1, 2, 3]), None);
    }

    #[test]
    fn fuzz_datagrams() {
        let message = |family: u8| {
            let mut message = [0_u8; 72];
            message[0] = family;
            let head =
                [&88_u32.to_ne_bytes()[..], &super::BY_FAMILY.to_ne_bytes(), &[2, 0], &[0; 8]].concat();
            [&head[..], &message].concat()
        };
        let done = [&20_u32.to_ne_bytes()[..], &super::DONE.to_ne_bytes(), &[2, 0], &[0; 12]].concat();
        let corpus =
            [[message(2), message(10), message(2)].concat(), [message(10), done.clone()].concat(), done];
        let mutate = |random: &mut crate::fuzz::Random| crate::fuzz::bytes(random, &corpus, &[]);
        crate::fuzz::run("datagram", mutate, |input| {
            let mut sockets = Vec::new();
            let is_accepted = super::read(input, &mut sockets).is_some();
            assert!(sockets.len() <= input.len() / 88, "each socket is a message of its own");
            is_accepted && !sockets.is_empty()
        });
    }
}
