//! The one table of configuration keys. Names, environment variables, ranges, help and the table in docs/OPERATIONS.md
//! all come from here.

use rialto_protocol::limits::{FRAME_BYTES_MAX_CEILING, FRAME_BYTES_MAX_FLOOR};

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its value when nobody says otherwise, as it would be written in an environment variable.
    pub default: &'static str,
    /// What it does, in one sentence or two.
    pub doc: &'static str,
}

/// What the value of a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// `IP:PORT`, or `off`.
    Address,
    /// A file or directory.
    Path,
    /// A file or directory, or empty: none.
    OptionalPath,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text that is not empty.
    Text,
}

impl Key {
    /// The environment variable that sets it: `RIALTO_` and its name in capitals, with `_` for the dot.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "{VARIABLE_PREFIX}{}",
            self.name.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// Its section in the file.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name within the section.
    #[must_use]
    pub fn short(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(_, short)| short)
    }
}

/// What every environment variable of Rialto begins with.
pub const VARIABLE_PREFIX: &str = "RIALTO_";

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    TABLE.iter().find(|key| key.name == name)
}

const fn number(
    name: &'static str,
    default: &'static str,
    range: (u64, u64),
    unit: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Number {
            min: range.0,
            max: range.1,
            unit,
        },
        default,
        doc,
    }
}

const fn address(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Address,
        default,
        doc,
    }
}

const fn path(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: if default.is_empty() {
            Kind::OptionalPath
        } else {
            Kind::Path
        },
        default,
        doc,
    }
}

const fn text(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Text,
        default,
        doc,
    }
}

const fn choice(
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Choice(words),
        default,
        doc,
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_S: u64 = 24 * 60 * 60;
const MILLION: u64 = 1_000_000;

/// Every key, by section.
pub const TABLE: &[Key] = &[
    path(
        "data.dir",
        "./data",
        "Directory that everything is kept in; made when it is missing, and used by one process at a time.",
    ),
    address(
        "listen.tcp",
        "127.0.0.1:4400",
        "Plain TCP, for clients on the same machine: loopback addresses only.",
    ),
    address("listen.tls", "127.0.0.1:4401", "TCP with TLS 1.3."),
    address("listen.quic", "127.0.0.1:4400", "QUIC over UDP."),
    address(
        "listen.ops",
        "127.0.0.1:4410",
        "Operations over plain HTTP: metrics, health and status. Not for the internet.",
    ),
    path(
        "tls.certificate",
        "",
        "PEM file with the certificate and its chain. Empty: a self-signed one, made at the first start.",
    ),
    path(
        "tls.key",
        "",
        "PEM file with the private key that fits `tls.certificate`.",
    ),
    path(
        "auth.keys",
        "",
        "JSON Web Key Set with the public keys that access tokens are verified by. Empty: `keys/jwks.json` in the data directory.",
    ),
    text(
        "auth.issuer",
        "rialto",
        "The issuer (`iss`) that access tokens must name.",
    ),
    text(
        "auth.audience",
        "rialto",
        "The audience (`aud`) that access tokens must name.",
    ),
    number(
        "auth.leeway_s",
        "60",
        (0, 600),
        "seconds",
        "By how much the issuer's clock may differ.",
    ),
    choice(
        "auth.development_tokens",
        "auto",
        &["auto", "off"],
        "`auto`: tokens of the form `dev:NAME` are taken as long as every listener is on loopback.",
    ),
    number(
        "broker.shards",
        "0",
        (0, 256),
        "threads",
        "Shards, each a thread with a core of its own; 0: one a core, and one core left to the threads of storage.",
    ),
    choice(
        "broker.pin",
        "on",
        &["on", "off"],
        "Whether each shard stays on one processor of its own.",
    ),
    number(
        "broker.drain_ms",
        "10000",
        (0, 600_000),
        "milliseconds",
        "Over how long clients are to spread their reconnects when the server stops, and how long it waits for them.",
    ),
    number(
        "broker.connections_max",
        "200000",
        (1, 100 * MILLION),
        "connections",
        "Open connections of the node.",
    ),
    number(
        "broker.connections_per_address_max",
        "20000",
        (1, 100 * MILLION),
        "connections",
        "Open connections from one IPv4 address or one IPv6 network of 64 bits.",
    ),
    number(
        "broker.connections_per_user_max",
        "100",
        (1, 100 * MILLION),
        "connections",
        "Open connections of one user. Service tokens have no limit.",
    ),
    number(
        "broker.handshakes_max",
        "2048",
        (1, MILLION),
        "connections",
        "Connections of one shard that have not shown a valid token yet; past it more are refused. Half as many beside them are for addresses that have few.",
    ),
    number(
        "limits.frame_bytes_max",
        "262144",
        (FRAME_BYTES_MAX_FLOOR as u64, FRAME_BYTES_MAX_CEILING as u64),
        "bytes",
        "Largest frame after authentication.",
    ),
    number(
        "limits.body_bytes_max",
        "65536",
        (KIB, MIB / 2),
        "bytes",
        "Largest body of a message; at most half a frame.",
    ),
    number(
        "limits.in_flight_bytes_max",
        "1048576",
        (MIB, GIB),
        "bytes",
        "Requests of one connection that may wait for answers; past it the connection is not read.",
    ),
    number(
        "limits.queue_bytes_max",
        "4194304",
        (256 * KIB, GIB),
        "bytes",
        "Frames queued for one connection while there is room; past it its subscriptions read from the log.",
    ),
    number(
        "limits.node_bytes_max",
        "1073741824",
        (4 * MIB, 1024 * GIB),
        "bytes",
        "What the node holds for its connections: frames queued, requests in flight, and frames that have not arrived in whole. Each shard has an equal part.",
    ),
    number(
        "limits.shard_bytes_max",
        "536870912",
        (MIB, 1024 * GIB),
        "bytes",
        "The same for one shard, where its part of the node's is more.",
    ),
    number(
        "limits.catch_up_bytes_max",
        "262144",
        (16 * KIB, 16 * MIB),
        "bytes",
        "Events that one catch-up read may bring.",
    ),
    number(
        "limits.subscriptions_max",
        "10000",
        (1, MILLION),
        "subscriptions",
        "Subscriptions of one connection.",
    ),
    number(
        "limits.publish_per_s",
        "10",
        (0, MILLION),
        "messages a second",
        "Messages of one user on one shard, a Create as one and one more for every 8 members; 0: no limit. Service tokens have none.",
    ),
    number(
        "limits.publish_burst",
        "30",
        (1, MILLION),
        "messages",
        "Messages at once.",
    ),
    number(
        "limits.requests_per_s",
        "100",
        (0, MILLION),
        "requests a second",
        "Other requests of one user on one shard, a page as one for each 100 that it is to hold; 0: no limit. Service tokens have none.",
    ),
    number(
        "limits.requests_burst",
        "1000",
        (1, MILLION),
        "requests",
        "Other requests at once.",
    ),
    number(
        "limits.handshake_timeout_ms",
        "5000",
        (100, 60_000),
        "milliseconds",
        "For a handshake of TLS or QUIC, and again from its end, or from the accepted connection, to the Hello.",
    ),
    number(
        "limits.keep_alive_ms",
        "50000",
        (1_000, 3_600_000),
        "milliseconds",
        "Silence after which a client pings, except over QUIC from 20000 on, which keeps itself alive; after three times that the connection is closed.",
    ),
    number(
        "limits.conversations_max",
        "50000",
        (100, 100 * MILLION),
        "conversations",
        "Conversations kept in memory by one shard while nobody follows them.",
    ),
    number(
        "limits.members_max",
        "200000",
        (1_000, 1_000 * MILLION),
        "members",
        "Members kept in memory by one shard.",
    ),
    number(
        "limits.parked_max",
        "100000",
        (100, 10 * MILLION),
        "requests",
        "Requests and notices of one shard that may wait for a read; a quarter of it is for notices.",
    ),
    number(
        "limits.members_per_conversation_max",
        "1000000",
        (2, 10 * MILLION),
        "members",
        "Members of one conversation.",
    ),
    number(
        "limits.entry_bytes_max",
        "131072",
        (16 * KIB, MIB),
        "bytes",
        "Records at which a lane's journal entry is closed before the batch ends.",
    ),
    number(
        "storage.lanes",
        "128",
        (1, 4096),
        "lanes",
        "Journals that conversations are spread over: how many shards and brokers can ever share the work. Fixed when the data directory is made.",
    ),
    number(
        "storage.retention_days",
        "0",
        (0, 36_500),
        "days",
        "Events are dropped, a week's worth at a time, once the newest is so much younger; their room comes back over minutes. 0: kept for ever.",
    ),
    number(
        "storage.segment_bytes",
        "67108864",
        (MIB, GIB),
        "bytes",
        "Size of a journal file; rounded down to a multiple of 4096.",
    ),
    number(
        "storage.journal_keep_bytes",
        "1073741824",
        (0, 1 << 50),
        "bytes",
        "Journal files that the views hold are kept for rebuilding them, up to these bytes together; none where the disk is full.",
    ),
    number(
        "storage.journal_keep_days",
        "7",
        (0, 3650),
        "days",
        "… and up to this age.",
    ),
    number(
        "storage.cache_bytes",
        "33554432",
        (MIB, 1 << 40),
        "bytes",
        "Blocks of the views kept in memory.",
    ),
    number(
        "storage.reader_threads",
        "2",
        (1, 256),
        "threads",
        "Threads that reads from the disk run on.",
    ),
    choice(
        "log.format",
        "human",
        &["human", "json"],
        "How log lines look on standard error.",
    ),
    text(
        "log.level",
        "info",
        "Which lines are logged: `error`, `warn`, `info`, `debug`, or directives such as `info,rialto_broker=debug`.",
    ),
];

/// Longest life that `rialto token` gives a token, seconds.
pub const TOKEN_LIFE_S_MAX: u64 = 365 * DAY_S;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_so_are_their_variables() {
        let names: BTreeSet<_> = TABLE.iter().map(|key| key.name).collect();
        let variables: BTreeSet<_> = TABLE.iter().map(Key::variable).collect();
        assert_eq!((names.len(), variables.len()), (TABLE.len(), TABLE.len()));
        assert_eq!(
            find("limits.frame_bytes_max").unwrap().variable(),
            "RIALTO_LIMITS_FRAME_BYTES_MAX"
        );
    }

    #[test]
    fn keys_of_a_section_stand_together() {
        let mut sections: Vec<_> = TABLE.iter().map(Key::section).collect();
        sections.dedup();
        let distinct: BTreeSet<_> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len(), "{sections:?}");
    }

    #[test]
    fn every_default_is_allowed() {
        for key in TABLE {
            assert!(key.kind.parse(key.default).is_ok(), "{}", key.name);
            assert!(
                key.doc.ends_with('.') || key.doc.ends_with('`'),
                "{}",
                key.name
            );
        }
    }
}
