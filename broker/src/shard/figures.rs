//! What a shard counts around its core. Read by the operations port; nothing here decides anything.

use rialto_core::counters::{Counters, Shed};

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// QUIC.
    Quic,
}

impl Carrier {
    /// All of them, with their names in metrics.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Tcp, "tcp"), (Self::Tls, "tls"), (Self::Quic, "quic")];
}

/// Where the shell, rather than the core, drops or refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A connection, before its handshake.
    Accept,
    /// A connection, during its handshake.
    Handshake,
    /// A message to another shard.
    Forward,
    /// The beginning of a frame.
    PartialFrame,
    /// A connection, by a mistake of ours.
    Connection,
    /// A signal that was to travel as a datagram.
    Datagram,
    /// A user's "last seen".
    Seen,
}

/// Every queue and reason that the shell counts, as in [`rialto_core::counters::SHED`].
pub(crate) const SHED: &[(&str, &str)] = &[
    ("accept", "address"),
    ("accept", "files"),
    ("accept", "socket"),
    ("accept", "stopping"),
    ("accept", "total"),
    ("connection", "panic"),
    ("datagram", "connection_lost"),
    ("datagram", "full"),
    ("datagram", "too_large"),
    ("forward", "news"),
    ("forward", "presence"),
    ("forward", "signals"),
    ("handshake", "address"),
    ("handshake", "alpn"),
    ("handshake", "parting"),
    ("handshake", "pending"),
    ("handshake", "quic"),
    ("handshake", "timeout"),
    ("handshake", "tls"),
    ("handshake", "waiting"),
    ("partial_frame", "shard_budget"),
    ("seen", "full"),
];

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::Forward => "forward",
            Self::PartialFrame => "partial_frame",
            Self::Connection => "connection",
            Self::Datagram => "datagram",
            Self::Seen => "seen",
        }
    }
}

/// Counters and gauges of the shell.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShellFigures {
    /// Connections now, by [`Carrier`].
    pub(crate) open: [u64; 3],
    /// Connections since the start, by [`Carrier`].
    pub(crate) opened: [u64; 3],
    /// Bytes read.
    pub(crate) bytes_in: u64,
    /// Times the system had no descriptor or memory for a connection.
    pub(crate) accept_errors: u64,
    /// QUIC clients that were asked to prove their address.
    pub(crate) retries: u64,
    /// Times a full mailbox made the shard stop reading.
    pub(crate) stalls: u64,
    /// Appends that failed.
    pub(crate) append_failures: u64,
    /// Reads of storage that failed.
    pub(crate) load_failures: u64,
    /// Drops and refusals.
    pub(crate) shed: Vec<(Shed, u64)>,
}

impl ShellFigures {
    pub(crate) fn shed(&mut self, stage: Stage, reason: &'static str) {
        let what = Shed {
            queue: stage.name(),
            reason,
        };
        debug_assert!(
            SHED.contains(&(what.queue, reason)),
            "{what:?} is in no table"
        );
        match self.shed.iter_mut().find(|(shed, _)| *shed == what) {
            Some((_, count)) => *count += 1,
            None => self.shed.push((what, 1)),
        }
    }
}

/// All figures of a shard at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardFigures {
    /// Of the core.
    pub(crate) core: Counters,
    /// Around it.
    pub(crate) shell: ShellFigures,
    /// Whether everything that was accepted is answered, and nothing is on its way to another shard.
    pub(crate) idle: bool,
}
