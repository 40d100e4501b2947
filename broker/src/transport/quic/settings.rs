//! Windows, timeouts and limits of QUIC connections: small, because most of them are idle.

use std::{sync::Arc, time::Duration};

use quinn::{
    EndpointConfig, IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use rialto_protocol::limits::{
    FRAME_BYTES_MAX_UNAUTHENTICATED, KEEP_ALIVE_PATIENCE, QUIC_LOOPBACK_PAYLOAD_BYTES,
};

use super::frames::Looking;
use crate::{
    config::BrokerConfig,
    transport::certificates::{Certificates, IdentityError},
};

/// Of the one stream that a client may open, sent and not read: what a phone sends in a round trip. A longer frame comes by
/// pieces, which are read as they come.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same of the connection: before a client has shown who it is, as much as is kept of its requests until then …
const STRANGER_WINDOW_BYTES: u32 = 16 << 10;
/// … and after that.
pub(crate) const RECEIVE_WINDOW: VarInt = VarInt::from_u32(STREAM_WINDOW_BYTES);
/// Sent and not acknowledged, all streams of a connection together. Half of it halves what a reader of a log gets, because
/// he acknowledges when he has a processor.
const SEND_WINDOW_BYTES: u64 = 256 << 10;
/// Handshake messages that are not whole, of which clients send one, of some 2 KiB with keys against quantum computers.
const CRYPTO_BYTES: usize = 8 << 10;
/// Datagrams of a connection that wait to be sent.
const DATAGRAM_BUFFER_BYTES: usize = 16 << 10;
/// First packets of clients that the shard has not looked at yet, no more than it comes to before they give up, one a round; and
/// what they may hold in memory.
const INCOMING_MAX: usize = 2_048;
const INCOMING_BYTES_MAX: u64 = 16 << 20;
/// Silence that the core judges first: its answer says why.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// Patience from which clients need not ping over QUIC: they keep it alive every
/// `QUIC_KEEP_ALIVE_MS`, and a packet may be lost.
const KEEPS_ALIVE_FROM: Duration = Duration::from_secs(60);

const _: () = assert!(
    STRANGER_WINDOW_BYTES as usize == 4 * FRAME_BYTES_MAX_UNAUTHENTICATED,
    "what the core keeps of a stranger's requests"
);

/// Least time between two stateless resets of an endpoint. After a crash thousands of clients are owed one; each is smaller than
/// the packet that asks for it, so that nothing is amplified.
const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// What all endpoints of a broker share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The keys of retry tokens among it, so that any shard knows them.
    pub(crate) server: quinn::ServerConfig,
    /// For clients on this machine.
    pub(crate) loopback: Arc<quinn::ServerConfig>,
    /// The key of stateless resets.
    reset_key: Arc<ring::hmac::Key>,
}

impl Shared {
    pub(crate) fn new(
        certificates: &Arc<Certificates>,
        config: &BrokerConfig,
    ) -> Result<Self, IdentityError> {
        let server = server_config(certificates, config)?;
        let mut loopback = server.clone();
        let mut transport = transport(config);
        transport
            .initial_mtu(QUIC_LOOPBACK_PAYLOAD_BYTES)
            .mtu_discovery_config(None);
        loopback.transport_config(Arc::new(transport));
        Ok(Self {
            server,
            loopback: Arc::new(loopback),
            reset_key: Arc::new(certificates.reset_key()?),
        })
    }

    /// The settings of one endpoint, its connection ids not among them.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let reset_key: Arc<ring::hmac::Key> = Arc::clone(&self.reset_key);
        let mut endpoint = EndpointConfig::new(reset_key);
        endpoint.min_reset_interval(RESET_INTERVAL);
        endpoint
            .max_udp_payload_size(QUIC_LOOPBACK_PAYLOAD_BYTES)
            .expect("more than the 1,200 bytes that every path carries");
        endpoint
    }
}

fn server_config(
    certificates: &Arc<Certificates>,
    config: &BrokerConfig,
) -> Result<quinn::ServerConfig, IdentityError> {
    let tls = certificates.server_config()?;
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| IdentityError::Refused(rustls::Error::General(error.to_string())))?;
    let mut quic = quinn::ServerConfig::with_crypto(Looking::over(Arc::new(crypto)));
    quic.max_incoming(INCOMING_MAX)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX)
        .migration(true)
        .transport_config(Arc::new(transport(config)));
    Ok(quic)
}

/// Whether a client that keeps QUIC itself alive is patiently waited for, without a Ping.
pub(super) fn keeps_alive(config: &BrokerConfig) -> bool {
    patience(config) >= KEEPS_ALIVE_FROM
}

/// Silence after which nobody is thought to be there.
fn patience(config: &BrokerConfig) -> Duration {
    Duration::from_millis(u64::from(config.core.keep_alive_ms) * KEEP_ALIVE_PATIENCE)
}

fn transport(config: &BrokerConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .crypto_buffer_size(CRYPTO_BYTES)
        // Clients send none: who does is closed. With `None` quinn would not send any either.
        .datagram_receive_buffer_size(Some(0))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .max_idle_timeout(IdleTimeout::try_from(patience(config) + IDLE_GRACE).ok())
        // Clients keep the connection alive, and know when they sleep.
        .keep_alive_interval(None)
        // The spin bit tells observers of round-trip times.
        .allow_spin(false);
    transport
}
