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

/// Bound sockets; in the order of their shards, which is the order that steering counts in.
fn group(address: SocketAddr, shards: u16, kind: Type) -> io::Result<(Vec<Socket>, SocketAddr)> {
    if address.port() != 0 {
        // A second broker of the same user could join the group of the first and take half of its connections.
        open(address, kind, Sharing::Alone)?;
    }
    let first = open(address, kind, Sharing::Group)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(open(address, kind, Sharing::Group)?);
    }
    Ok((sockets, address))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Group,
}

fn open(address: SocketAddr, kind: Type, sharing: Sharing) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if kind == Type::STREAM {
        // Connections of the process before, in TIME_WAIT, do not keep the port.
        socket.set_reuse_address(true)?;
    }
    if sharing == Sharing::Group {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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
