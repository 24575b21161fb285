//! Checks that ports are free, by binding them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket_with, sockopt};

use crate::host::sockets;
use crate::name::PortBlock;

/// Tries to bind every port of the block, TCP and UDP, on all addresses.
///
/// Returns the first port that cannot be bound: its number and `tcp` or `udp`. Nothing listens on the ports, and
/// everything is released at once. Any other error (a privileged port, no free file descriptor) counts as in use too: a
/// port that cannot be proven free is not leased. A port with only lingering closed connections is free.
pub fn probe(block: PortBlock) -> Result<(), (u16, &'static str)> {
    for port in block.ports() {
        match bind_everywhere(SocketType::STREAM, port) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) if sockets::only_lingers(port) => {}
            Err(_) => return Err((port, "tcp")),
        }
        bind_everywhere(SocketType::DGRAM, port).map_err(|_| (port, "udp"))?;
    }
    Ok(())
}

/// Binds one dual-stack socket, which conflicts with a socket on any address of either family.
fn bind_everywhere(kind: SocketType, port: u16) -> Result<(), Errno> {
    match bind_to(kind, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => bind_to(kind, (Ipv4Addr::UNSPECIFIED, port).into()),
        result => result,
    }
}

/// Binds without the help of the standard library, which sets `SO_REUSEADDR` and listens: the first overlooks sockets,
/// the second accepts connections.
fn bind_to(kind: SocketType, address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = open(family, kind)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)
}

/// Opens a socket that is closed on exec from its first moment. Otherwise a Git started at the same time would block
/// the port as long as it runs.
#[cfg(not(target_vendor = "apple"))]
fn open(family: AddressFamily, kind: SocketType) -> Result<rustix::fd::OwnedFd, Errno> {
    socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, None)
}

/// Opens a socket. Apple's systems cannot set the flag in the same step.
#[cfg(target_vendor = "apple")]
fn open(family: AddressFamily, kind: SocketType) -> Result<rustix::fd::OwnedFd, Errno> {
    let socket = socket_with(family, kind, rustix::net::SocketFlags::empty(), None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn single(port: u16) -> PortBlock {
        PortBlock::single(port).unwrap()
    }

    #[test]
    fn listeners_on_any_address_are_met() {
        for address in ["0.0.0.0:0", "127.0.0.1:0", "127.9.8.7:0", "[::]:0", "[::1]:0"] {
            if TcpListener::bind(address).is_err() {
                assert!(address.starts_with('['), "{address}");
                continue;
            }
            // Another process may use the port once it is released, but not every time.
            let is_freed = |_| {
                let listener = TcpListener::bind(address).unwrap();
                let port = listener.local_addr().unwrap().port();
                assert_eq!(probe(single(port)), Err((port, "tcp")), "{address}");
                drop(listener);
                probe(single(port)) == Ok(())
            };
            assert!((0..20).any(is_freed), "{address}");
        }
    }

    #[test]
    fn udp_on_any_address_is_met() {
        for address in ["0.0.0.0:0", "127.0.0.1:0", "127.9.8.7:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else { continue };
            let port = socket.local_addr().unwrap().port();
            assert_eq!(probe(single(port)), Err((port, "udp")), "{address}");
        }
    }

    #[test]
    fn a_port_bound_with_reuse_and_not_listened_on_is_met() {
        let socket = open(AddressFamily::INET, SocketType::STREAM).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap().port();
        assert_eq!(probe(single(port)), Err((port, "tcp")));
    }

    #[test]
    fn the_port_of_an_outgoing_connection_is_met() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(probe(single(port)), Err((port, "tcp")));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn closed_connection_keeps_no_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The side that closes first keeps the port in TIME_WAIT.
        drop(server);
        assert_eq!(std::io::Read::read(&mut &client, &mut [0]).unwrap(), 0);
        drop((client, listener));
        let mut waited = 0;
        while !sockets::only_lingers(address.port()) && waited < 200 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            waited += 1;
        }
        assert_eq!(bind_everywhere(SocketType::STREAM, address.port()), Err(Errno::ADDRINUSE));
        assert_eq!(probe(single(address.port())), Ok(()));
    }

    #[test]
    fn hosts_without_ipv6_are_probed_by_ipv4() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        assert_eq!(bind_to(SocketType::STREAM, any), Err(Errno::ADDRINUSE));
        drop(listener);
        // A process that another test has just forked has a copy of the socket until it executes its program.
        assert!((0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            bind_to(SocketType::STREAM, any) == Ok(())
        }));
    }

    #[test]
    fn the_first_port_in_use_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let block = PortBlock::new(u32::from(port) - 1, u32::from(port) + 1).unwrap();
        let (found, protocol) = probe(block).unwrap_err();
        assert!(found <= port, "{found} {protocol}");
    }
}
