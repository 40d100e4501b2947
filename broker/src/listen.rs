//! Listening sockets: one a shard on the same port, between which the kernel spreads connections.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::transport::steering;

/// Connections that may wait to be accepted, for each socket.
const BACKLOG: i32 = 4_096;
/// Room for bursts of datagrams between two turns of a shard.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// TCP listeners of one address for so many shards, and the address with its port.
pub(crate) fn tcp(address: SocketAddr, shards: u16) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let (sockets, address) = group(address, shards, Type::STREAM)?;
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok((sockets.into_iter().map(Into::into).collect(), address))
}

/// UDP sockets of one address for so many shards, steered by connection id, and the address with its port.
pub(crate) fn udp(address: SocketAddr, shards: u16) -> io::Result<(Vec<UdpSocket>, SocketAddr)> {
    let (sockets, address) = group(address, shards, Type::DGRAM)?;
    for socket in &sockets {
        // The kernel may grant less, which is no reason not to start.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    }
    if let Some(first) = sockets.first()
        && shards > 1
    {
        steering::attach(&SockRef::from(first), shards)?;
    }
    Ok((sockets.into_iter().map(Into::into).collect(), address))
}

/// Sees that TCP can be listened on there, without listening: nobody's connection waits for a broker that is not there yet.
pub(crate) fn probe_tcp(address: SocketAddr) -> io::Result<(Vec<Socket>, SocketAddr)> {
    group(address, 1, Type::STREAM)
}

/// The same for UDP.
pub(crate) fn probe_udp(address: SocketAddr) -> io::Result<(Vec<Socket>, SocketAddr)> {
    group(address, 1, Type::DGRAM)
}

/// Bound sockets; in the order of their shards, which is the order that steering counts in.
///
/// The first takes its port alone and shares it afterwards: had it shared from the beginning, another broker of the same
/// user could be in the group already, or be given the same free port, and each would get half of the other's packets.
fn group(address: SocketAddr, shards: u16, kind: Type) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let first = socket(address, kind)?;
    if address.port() != 0 {
        survive(&first, kind)?;
    }
    first.bind(&address.into())?;
    survive(&first, kind)?;
    first.set_reuse_port(true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..shards {
        let next = socket(address, kind)?;
        survive(&next, kind)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        sockets.push(next);
    }
    Ok((sockets, address))
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connections of the process before, in TIME_WAIT, do not keep the port; nor will those of this one.
fn survive(socket: &Socket, kind: Type) -> io::Result<()> {
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn all_shards_share_the_port_that_the_first_was_given() {
        let (listeners, address) = tcp(FREE, 3).unwrap();
        assert_eq!(listeners.len(), 3);
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
    }

    /// So many that by chance some would meet, had they not to be alone.
    #[test]
    fn no_two_groups_are_given_the_same_free_port() {
        let groups: Vec<_> = (0..400).map(|_| udp(FREE, 2).unwrap()).collect();
        let ports: std::collections::HashSet<_> =
            groups.iter().map(|(_, address)| address.port()).collect();
        assert_eq!(ports.len(), groups.len());
    }

    #[test]
    fn a_second_broker_cannot_join_the_group() {
        let (_listeners, address) = tcp(FREE, 2).unwrap();
        assert_eq!(
            tcp(address, 2).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let (_sockets, address) = udp(FREE, 2).unwrap();
        assert_eq!(
            udp(address, 2).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
