//! QUIC: one stream opened by the client for everything, and beside it the server's catch-up streams and datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, EndpointConfig, RecvStream, SendStream, TransportConfig, VarInt,
};
use rialto_protocol::frame::Frame;
use rialto_protocol::limits::{QUIC_KEEP_ALIVE_MS, QUIC_LOOPBACK_PAYLOAD_BYTES};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::tls::TlsSetup;
use super::{Connected, Connector, Side, is_loopback};
use crate::error::TransportError;
use crate::wire::{self, FrameReader};

/// Batches of frames that wait for the session: it stops taking them when the caller takes no events.
const SIDE_BATCHES_MAX: usize = 4;
/// Streams that the server may have open at once; docs/PROTOCOL.md asks for 100 or more.
const SIDE_STREAMS_MAX: u32 = 128;

/// Bytes that lie here until they are read, of all streams together: as much as may wait for the caller. Each of them has a
/// window of its own, of some 1.2 MiB, and all of these would be beyond 150 MiB when the caller takes no events.
const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;

/// Silence after which the connection is dead, keep-alives included.
const IDLE_TIMEOUT_MS: u32 = 30_000;
const _: () = assert!(QUIC_KEEP_ALIVE_MS < IDLE_TIMEOUT_MS as u64);

/// A UDP socket that several clients share; without one, each client has its own.
#[derive(Clone, Debug)]
pub struct QuicSocket(quinn::Endpoint);

impl QuicSocket {
    /// Binds a socket; port 0 picks a free one. Its address family limits which addresses can be reached. To be called, and
    /// used, within one tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        Self::on(socket, address)
    }

    /// A socket by which that address is to be reached.
    fn on(socket: std::net::UdpSocket, remote: SocketAddr) -> io::Result<Self> {
        let mut config = EndpointConfig::default();
        if is_loopback(remote) {
            config
                .max_udp_payload_size(QUIC_LOOPBACK_PAYLOAD_BYTES)
                .map_err(io::Error::other)?;
        }
        let runtime = Arc::new(quinn::TokioRuntime);
        quinn::Endpoint::new(config, None, socket, runtime).map(Self)
    }

    fn bind_for(remote: SocketAddr) -> io::Result<Self> {
        let ip: IpAddr = if remote.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Self::on(std::net::UdpSocket::bind(SocketAddr::new(ip, 0))?, remote)
    }
}

pub(super) async fn connect(
    connector: &Connector,
    tls: &TlsSetup,
    host: &str,
    address: SocketAddr,
) -> Result<Connected, TransportError> {
    let crypto = QuicClientConfig::try_from(tls.config.clone()).map_err(other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .keep_alive_interval(Some(connector.quic_keep_alive))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    if is_loopback(address) {
        transport
            .initial_mtu(QUIC_LOOPBACK_PAYLOAD_BYTES)
            .mtu_discovery_config(None);
    }
    transport.max_concurrent_uni_streams(SIDE_STREAMS_MAX.into());
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    let socket = match &connector.quic_socket {
        Some(socket) => socket.clone(),
        None => QuicSocket::bind_for(address)?,
    };
    let connection = socket
        .0
        .connect_with(config, address, host)
        .map_err(other)?
        .await
        .map_err(io::Error::from)?;
    let (send, receive) = connection.open_bi().await.map_err(io::Error::from)?;
    let (sender, frames) = mpsc::channel(SIDE_BATCHES_MAX);
    let task = tokio::spawn(accept(connection.clone(), sender)).abort_handle();
    let side = Side {
        frames: Some(frames),
        task: Some(task),
    };
    Ok(Connected::new(
        Box::new(receive),
        Box::new(MainStream { send, connection }),
        side,
    ))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::from(io::Error::other(error))
}

/// The writing half; closes the connection with it.
struct MainStream {
    send: SendStream,
    connection: Connection,
}

impl AsyncWrite for MainStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}

impl Drop for MainStream {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// Takes what the server sends beside the main stream, until the connection ends.
async fn accept(connection: Connection, frames: mpsc::Sender<Vec<Frame>>) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    streams.spawn(read_stream(stream, frames.clone()));
                }
                Err(_) => break,
            },
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => {
                    let mut datagram = BytesMut::from(datagram);
                    if let Ok(Some(frame)) = wire::split(&mut datagram) {
                        // Signals may be lost: rather they than what is on streams.
                        let _ = frames.try_send(vec![frame]);
                    }
                }
                Err(_) => break,
            },
            Some(_) = streams.join_next() => {}
        }
    }
    // What the server had sent before it closed is still there to be read.
    while streams.join_next().await.is_some() {}
}

/// Hands the frames of a catch-up stream on. Should it break off, the session notices the gap.
async fn read_stream(stream: RecvStream, frames: mpsc::Sender<Vec<Frame>>) {
    let mut reader = FrameReader::new(stream);
    while let Ok(1..) = reader.read().await {
        let mut batch = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(frame)) => batch.push(frame),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "catch-up stream left: it holds no frames");
                    return;
                }
            }
        }
        if !batch.is_empty() && frames.send(batch).await.is_err() {
            return;
        }
    }
}
