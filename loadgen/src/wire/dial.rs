//! Opening of byte streams, many to one target: from several source addresses, because an address has only so many ports,
//! and over a few UDP sockets that QUIC connections share.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TransportConfig, VarInt};
use rialto_protocol::limits::{QUIC_KEEP_ALIVE_MS, QUIC_LOOPBACK_PAYLOAD_BYTES};
use rialto_sdk::Roots;
use rialto_tls::Buffers;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::lost::Lost;
use super::stream::{Encrypted, QuicStream, Stream};
use crate::target::{Target, Transport};

/// Connections from one source address, on loopback: far fewer than the 28,000 ports that Linux hands out by default.
const PER_SOURCE: usize = 1_000;
/// UDP sockets of a thread: each costs a file and buffers, and the broker spreads connections over its shards by their address.
const SOCKETS_MAX: usize = 16;
/// Bytes that a UDP socket may hold back: bursts of all its connections at once.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Silence after which QUIC itself shows that the path works, as in the SDK.
const KEEP_ALIVE: Duration = Duration::from_millis(QUIC_KEEP_ALIVE_MS);

/// Opens streams to one target, within one thread's runtime.
pub(crate) struct Dialer {
    target: Target,
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    quic: Option<ClientConfig>,
    sockets: RefCell<Vec<Endpoint>>,
    /// Of all TLS connections.
    buffers: Rc<RefCell<Buffers>>,
}

impl Dialer {
    /// Looks the target up, and reads the roots if it needs them.
    pub(crate) async fn new(target: &Target, roots: &Roots) -> Result<Self, Lost> {
        let mut addresses = tokio::net::lookup_host((target.host(), target.port())).await?;
        let address = addresses
            .next()
            .ok_or_else(|| Lost::Setup(format!("{target} has no address")))?;
        let secured = target.transport() != Transport::Tcp;
        if secured && matches!(roots, Roots::InsecureLoopbackOnly) && !is_loopback(address) {
            return Err(Lost::Setup(format!(
                "{address} is not this machine: say with --ca what its certificate is checked against"
            )));
        }
        let tls = secured
            .then(|| roots.client_config())
            .transpose()
            .map_err(|error| Lost::Setup(error.to_string()))?;
        let quic = (target.transport() == Transport::Quic)
            .then_some(tls.as_ref())
            .flatten()
            .map(|tls| quic_config(tls, address))
            .transpose()?;
        Ok(Self {
            target: target.clone(),
            address,
            tls,
            quic,
            sockets: RefCell::default(),
            buffers: Rc::default(),
        })
    }

    /// The stream of the connection with this number.
    pub(crate) async fn dial(&self, number: usize) -> Result<Stream, Lost> {
        match self.target.transport() {
            Transport::Tcp => Ok(Stream::Tcp(self.tcp(number).await?)),
            Transport::Tls => {
                let name = ServerName::try_from(self.target.host().to_owned())
                    .map_err(|error| Lost::Setup(error.to_string()))?;
                let config = self
                    .tls
                    .clone()
                    .ok_or_else(|| Lost::Setup("TLS without roots".into()))?;
                let session = UnbufferedClientConnection::new(config, name)
                    .map_err(|error| Lost::Setup(error.to_string()))?;
                let socket = self.tcp(number).await?;
                let stream = Encrypted::connect(socket, session, &self.buffers).await?;
                Ok(Stream::Tls(Box::new(stream)))
            }
            Transport::Quic => self.quic(number).await,
        }
    }

    async fn tcp(&self, number: usize) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        if let Some(source) = source(self.address.ip(), number) {
            socket.bind(source)?;
        }
        socket.connect(self.address).await
    }

    async fn quic(&self, number: usize) -> Result<Stream, Lost> {
        let config = self
            .quic
            .clone()
            .ok_or_else(|| Lost::Setup("QUIC without roots".into()))?;
        let connecting = self
            .socket(number)?
            .connect_with(config, self.address, self.target.host())
            .map_err(|error| Lost::Setup(error.to_string()))?;
        let connection = connecting.await.map_err(io::Error::from)?;
        let (send, receive) = connection.open_bi().await.map_err(io::Error::from)?;
        Ok(Stream::Quic(Box::new(QuicStream {
            send,
            receive,
            connection,
        })))
    }

    /// One of the shared UDP sockets.
    fn socket(&self, number: usize) -> Result<Endpoint, Lost> {
        let mut sockets = self.sockets.borrow_mut();
        let place = number % SOCKETS_MAX;
        while sockets.len() <= place {
            let from = source(self.address.ip(), sockets.len() * PER_SOURCE)
                .unwrap_or_else(|| unspecified(self.address));
            let bound = udp_socket(from)?;
            let runtime = Arc::new(quinn::TokioRuntime);
            let config = endpoint_config(self.address)?;
            sockets.push(Endpoint::new(config, None, bound, runtime)?);
        }
        Ok(sockets[place].clone())
    }
}

fn udp_socket(from: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(from), Type::DGRAM, Some(Protocol::UDP))?;
    // As far as the system's limits allow.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    socket.bind(&from.into())?;
    Ok(socket.into())
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What a socket takes in that reaches this address.
fn endpoint_config(remote: SocketAddr) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    if is_loopback(remote) {
        config
            .max_udp_payload_size(QUIC_LOOPBACK_PAYLOAD_BYTES)
            .map_err(io::Error::other)?;
    }
    Ok(config)
}

fn quic_config(tls: &Arc<rustls::ClientConfig>, remote: SocketAddr) -> Result<ClientConfig, Lost> {
    let crypto =
        QuicClientConfig::try_from(tls.clone()).map_err(|error| Lost::Setup(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    if is_loopback(remote) {
        transport
            .initial_mtu(QUIC_LOOPBACK_PAYLOAD_BYTES)
            .mtu_discovery_config(None);
    }
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The address that a connection comes from: on loopback one of 127.0.0.0/8, so many connections each. None: the system's choice.
fn source(peer: IpAddr, number: usize) -> Option<SocketAddr> {
    if !matches!(peer, IpAddr::V4(peer) if peer.is_loopback()) {
        return None;
    }
    // 127.1.0.1 and up: 254 addresses in each of 254 × 254 networks.
    let place = u32::try_from(number / PER_SOURCE % (254 * 254 * 254)).unwrap_or(0);
    let [_, second, third, fourth] =
        ((place / (254 * 254)) << 16 | (place / 254 % 254) << 8 | (place % 254)).to_be_bytes();
    let address = Ipv4Addr::new(127, second + 1, third, fourth + 1);
    Some(SocketAddr::new(address.into(), 0))
}

fn unspecified(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn connections_on_loopback_come_from_many_addresses_and_others_from_the_systems() {
        let peer: IpAddr = "127.0.0.1".parse().unwrap();
        let sources: BTreeSet<_> = (0..600_000)
            .step_by(PER_SOURCE)
            .map(|number| source(peer, number).unwrap().ip())
            .collect();
        assert_eq!(sources.len(), 600);
        assert!(sources.iter().all(IpAddr::is_loopback));
        assert_eq!(source(peer, 0), source(peer, PER_SOURCE - 1));
        assert_eq!(source(peer, 0).unwrap().to_string(), "127.1.0.1:0");
        assert_eq!(source("192.0.2.1".parse().unwrap(), 0), None);
        assert_eq!(source("::1".parse().unwrap(), 0), None);
    }
}
