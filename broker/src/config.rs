//! What the broker can be told; the binary's configuration fills it in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
};

use rialto_core::config::CoreConfig;
use rialto_protocol::limits;

/// What beginnings of frames may take of a shard's budget.
pub(crate) const BEGUN_SHARE: usize = 4;

/// Most shards of a node: one byte of a QUIC connection id names the shard.
pub const SHARDS_MAX: u16 = 256;

/// Listeners, threads and limits of a broker. Port 0 takes a free one; [`crate::Broker::addresses`] tells which.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Threads that own conversations and connections, 1 to [`SHARDS_MAX`].
    pub shards: u16,
    /// Whether each shard stays on one processor of its own.
    pub pin: bool,
    /// Limits and times of the decisions. A hash seed of 0 is replaced with a random one at the start.
    pub core: CoreConfig,
    /// Plain TCP; on loopback only.
    pub tcp: Option<SocketAddr>,
    /// TCP with TLS 1.3.
    pub tls: Option<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// Metrics, health and status over HTTP, for operators: not to be reachable for clients.
    pub ops: Option<SocketAddr>,
    /// Certificate and key of TLS and QUIC.
    pub tls_identity: Option<TlsIdentity>,
    /// Open connections of the node.
    pub connections_max: usize,
    /// Descriptors below which those of TCP connections stay; the ones from there on are left to storage, which ends the broker
    /// when it gets none for long. The system gives the lowest that is free, so that its number tells how many are in use.
    pub descriptors_max: usize,
    /// Open connections from one IPv4 address or one IPv6 network of 64 bits.
    pub connections_per_address_max: usize,
    /// Open connections of one user; service tokens have no limit.
    pub connections_per_user_max: usize,
    /// Bytes that all shards together may hold for their connections. Each has an equal part of it, if
    /// [`CoreConfig::shard_bytes_max`] does not give it less.
    pub node_bytes_max: usize,
    /// Bytes of messages that wait for a shard; past it those who send to it stop reading from their connections.
    pub forward_bytes_max: usize,
    /// Connections of one shard that have not shown who they are, past which a QUIC client has to prove its address first.
    pub quic_retry_above: usize,
    /// Connections of one shard that have not shown who they are, past which more are refused; half as many beside them are for
    /// addresses that have few.
    pub handshakes_max: usize,
    /// How long a connection that is being closed may take what is still queued, milliseconds.
    pub close_timeout_ms: u32,
    /// How long a stopping broker waits for what was accepted to be answered, milliseconds.
    pub stop_timeout_ms: u32,
}

/// A certificate chain and its private key, in PEM.
#[derive(Clone)]
pub enum TlsIdentity {
    /// In files, which are read again when they change.
    Files {
        /// The chain, the server's own certificate first.
        certificates: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// As they are.
    Pem {
        /// The chain, the server's own certificate first.
        certificates: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
}

impl std::fmt::Debug for TlsIdentity {
    /// Never shows a key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files { certificates, key } => out
                .debug_struct("Files")
                .field("certificates", certificates)
                .field("key", key)
                .finish(),
            Self::Pem { .. } => out.debug_struct("Pem").finish_non_exhaustive(),
        }
    }
}

impl Default for BrokerConfig {
    /// Plain TCP and the operations port on loopback, both on free ports; a shard for each processor but one, which is left to
    /// the threads of storage (docs/decisions/0015-where-the-time-goes.md).
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            shards: u16::try_from(processors - 1)
                .unwrap_or(SHARDS_MAX)
                .clamp(1, SHARDS_MAX),
            pin: true,
            core: CoreConfig::default(),
            tcp: Some(loopback),
            tls: None,
            quic: None,
            ops: Some(loopback),
            tls_identity: None,
            connections_max: 200_000,
            descriptors_max: usize::MAX,
            connections_per_address_max: 20_000,
            connections_per_user_max: 100,
            node_bytes_max: 1 << 30,
            forward_bytes_max: 16 << 20,
            quic_retry_above: 128,
            handshakes_max: 2_048,
            close_timeout_ms: 2_000,
            stop_timeout_ms: 5_000,
        }
    }
}

impl BrokerConfig {
    /// What one shard may hold for its connections.
    #[must_use]
    pub fn shard_bytes_max(&self) -> usize {
        let part = self.node_bytes_max / usize::from(self.shards.max(1));
        self.core.shard_bytes_max.min(part)
    }

    /// What beginnings of frames may take of that. A frame that is longer may never come to its end.
    #[must_use]
    pub fn begun_bytes_max(&self) -> usize {
        self.shard_bytes_max() / BEGUN_SHARE
    }

    /// What is wrong with it, all at once, as text for the operator; empty: nothing.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        check(
            (1..=SHARDS_MAX).contains(&self.shards),
            format!("shards is {}: 1 to {SHARDS_MAX} are possible", self.shards),
        );
        check(
            self.tcp.is_some() || self.tls.is_some() || self.quic.is_some(),
            "no listener: set one of tcp, tls and quic".to_owned(),
        );
        if let Some(address) = self.tcp {
            check(
                address.ip().to_canonical().is_loopback(),
                format!("tcp is {address}: plain TCP is allowed on loopback only, use tls or quic"),
            );
        }
        check(
            self.tls_identity.is_some() || (self.tls.is_none() && self.quic.is_none()),
            "tls and quic need a certificate and its key".to_owned(),
        );
        let frames = limits::FRAME_BYTES_MAX_FLOOR..=limits::FRAME_BYTES_MAX_CEILING;
        check(
            frames.contains(&self.core.frame_bytes_max),
            format!(
                "the largest frame is {} bytes: {} to {} are possible",
                self.core.frame_bytes_max,
                frames.start(),
                frames.end()
            ),
        );
        check(
            self.connections_max > 0,
            "connections_max is 0: nobody could connect".to_owned(),
        );
        for (name, max) in [
            (
                "connections_per_address_max",
                self.connections_per_address_max,
            ),
            ("connections_per_user_max", self.connections_per_user_max),
            ("handshakes_max", self.handshakes_max),
        ] {
            check(max > 0, format!("{name} is 0: nobody could connect"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_no_problem() {
        assert_eq!(BrokerConfig::default().problems(), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let config = BrokerConfig {
            shards: 0,
            tcp: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
            tls: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
            ..BrokerConfig::default()
        };
        assert_eq!(config.problems().len(), 3, "{:?}", config.problems());
    }

    #[test]
    fn a_shard_has_its_part_of_the_node_or_less() {
        let mut config = BrokerConfig {
            shards: 4,
            node_bytes_max: 400,
            ..BrokerConfig::default()
        };
        assert_eq!(config.shard_bytes_max(), 100);
        config.core.shard_bytes_max = 30;
        assert_eq!(config.shard_bytes_max(), 30);
    }

    #[test]
    fn a_key_is_never_shown() {
        let identity = TlsIdentity::Pem {
            certificates: b"chain".to_vec(),
            key: b"secret".to_vec(),
        };
        let shown = format!("{identity:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("115"),
            "{shown}"
        );
    }
}
