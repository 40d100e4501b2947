//! What `/status` answers and `rialto status` shows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::shared::{Phase, Shared};

/// A broker at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the broker.
    pub version: String,
    /// `starting`, `serving`, `draining` or `failed`.
    pub state: String,
    /// Why it failed.
    pub problem: Option<String>,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Where it listens.
    pub addresses: StatusAddresses,
    /// Threads that own conversations.
    pub shards: u16,
    /// Shards that did not answer within a second are counted as they were before.
    pub complete: bool,
    /// Lanes of the data set.
    pub lanes: u16,
    /// Open connections.
    pub connections: ConnectionCounts,
    /// Authenticated sessions.
    pub sessions: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Conversations in memory.
    pub conversations: u64,
    /// Events appended since the start.
    pub events_appended: u64,
    /// Events delivered since the start.
    pub events_delivered: u64,
    /// Drops and refusals since the start.
    pub shed: u64,
    /// The journal.
    pub journal: JournalFigures,
}

/// Addresses with their real ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAddresses {
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TCP with TLS.
    pub tls: Option<SocketAddr>,
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// The operations port.
    pub ops: Option<SocketAddr>,
}

/// Open connections by what carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Plain TCP.
    pub tcp: u64,
    /// TCP with TLS.
    pub tls: u64,
    /// QUIC.
    pub quic: u64,
}

/// The journal since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalFigures {
    /// Entries appended.
    pub entries: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// Groups written, each with one sync.
    pub groups: u64,
    /// Durable bytes that the views do not hold yet.
    pub views_lag_bytes: u64,
    /// Segments that the views do not hold yet.
    pub views_lag_segments: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Nothing can be appended any more.
    pub poisoned: bool,
}

impl Status {
    pub(super) async fn of(shared: &Shared) -> Self {
        let figures = shared.figures().await;
        let problem = shared.node().fate.reason().map(|reason| reason.to_string());
        let state = match (&problem, shared.phase()) {
            (Some(_), _) => "failed",
            (None, Phase::Starting) => "starting",
            (None, Phase::Serving) => "serving",
            (None, Phase::Draining) => "draining",
        };
        let addresses = shared.addresses();
        let open = |carrier: usize| {
            figures
                .shards
                .iter()
                .map(|shard| shard.shell.open[carrier])
                .sum()
        };
        let core = |read: fn(&rialto_core::counters::Counters) -> u64| {
            figures.shards.iter().map(|shard| read(&shard.core)).sum()
        };
        let journal = figures.journal;
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.to_owned(),
            problem,
            uptime_ms: u64::try_from(figures.uptime.as_millis()).unwrap_or(u64::MAX),
            addresses: StatusAddresses {
                tcp: addresses.tcp,
                tls: addresses.tls,
                quic: addresses.quic,
                ops: addresses.ops,
            },
            shards: shared.topology().shards,
            complete: figures.complete,
            lanes: shared.topology().lanes,
            connections: ConnectionCounts {
                tcp: open(0),
                tls: open(1),
                quic: open(2),
            },
            sessions: core(|core| core.sessions),
            subscriptions: core(|core| core.subscriptions),
            conversations: core(|core| core.conversations),
            events_appended: core(|core| core.events_appended),
            events_delivered: core(|core| core.events_delivered),
            shed: figures.shed().values().sum(),
            journal: JournalFigures {
                entries: journal.entries,
                bytes: journal.bytes,
                groups: journal.groups,
                views_lag_bytes: journal.views_lag_bytes,
                views_lag_segments: journal.views_lag_segments,
                segments: journal.segments,
                poisoned: journal.poisoned,
            },
        }
    }
}
