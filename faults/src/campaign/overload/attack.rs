//! The attacks: what each is called, how many connections it has, what it has the broker refuse or drop, and by which settings
//! that comes soon.

use std::rc::Rc;

use super::site::{Site, Tally};
use super::{amplifying, crowding, flooding, holding, quic};

/// Where something is refused or dropped, and why, as in `rialto_shed_total`.
pub(super) type Shed = (&'static str, &'static str);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attack {
    /// In reports.
    pub(super) name: &'static str,
    kind: Kind,
    /// Connections that it holds at a time, or tries to.
    pub(super) connections: usize,
    /// What it must lead to: refusals that nobody counts are as bad as none. An attack without any is there to be told
    /// something, as often as it has connections at least.
    pub(super) expected: &'static [Shed],
    /// Settings of its broker, beside those of every round.
    pub(super) settings: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    SlowHandshakes,
    SlowReaders,
    SlowSenders,
    BegunFrames,
    TinyWrites,
    Pipelines,
    DeafPublishers,
    DeafReaders,
    CompressedPages,
    SubscribeStorm,
    ReconnectStorm,
    HotConversation,
    Flood,
    Garbage,
    Creates,
    Presence,
    BegunRecords,
    QuicHandshakes,
    QuicFrames,
    QuicHalves,
    QuicJunk,
}

/// A part of a connection's life that a round can wait for.
const SOON: &str = "limits.handshake_timeout_ms=1000";

/// All of them, in the order of the rounds.
pub(super) const ATTACKS: [Attack; 21] = [
    Attack {
        name: "slow handshakes",
        kind: Kind::SlowHandshakes,
        connections: 3_000,
        expected: &[
            ("handshake", "address"),
            ("handshake", "timeout"),
            ("session", "handshake_timeout"),
        ],
        settings: &[SOON, "broker.handshakes_max=500"],
    },
    Attack {
        name: "slow readers",
        kind: Kind::SlowReaders,
        connections: 1_000,
        expected: &[("queue", "shard_budget")],
        settings: &[],
    },
    Attack {
        name: "slow senders",
        kind: Kind::SlowSenders,
        connections: 1_000,
        expected: &[("session", "idle_timeout")],
        settings: &["limits.keep_alive_ms=1000"],
    },
    Attack {
        name: "begun frames",
        kind: Kind::BegunFrames,
        connections: 3_000,
        expected: &[("partial_frame", "shard_budget")],
        settings: &[],
    },
    Attack {
        name: "tiny writes",
        kind: Kind::TinyWrites,
        connections: 100,
        expected: &[("session", "rate_limited")],
        settings: &[],
    },
    Attack {
        name: "pipelines",
        kind: Kind::Pipelines,
        connections: 50,
        expected: &[("session", "rate_limited")],
        settings: &[],
    },
    Attack {
        name: "deaf publishers",
        kind: Kind::DeafPublishers,
        connections: 100,
        expected: &[("session", "rate_limited")],
        settings: &[],
    },
    Attack {
        name: "deaf readers of history",
        kind: Kind::DeafReaders,
        connections: 1_000,
        expected: &[("session", "overloaded")],
        settings: &[],
    },
    Attack {
        name: "compressed pages",
        kind: Kind::CompressedPages,
        connections: 100,
        expected: &[],
        settings: &[],
    },
    Attack {
        name: "subscribe storm",
        kind: Kind::SubscribeStorm,
        connections: 100,
        expected: &[("session", "subscription_limit"), ("parked", "full")],
        settings: &["limits.subscriptions_max=150"],
    },
    Attack {
        name: "reconnect storm",
        kind: Kind::ReconnectStorm,
        connections: 18_000,
        expected: &[("accept", "address")],
        settings: &["broker.connections_per_address_max=900"],
    },
    Attack {
        name: "hot conversation",
        kind: Kind::HotConversation,
        connections: 10_000,
        expected: &[],
        settings: &[],
    },
    Attack {
        name: "flood",
        kind: Kind::Flood,
        connections: 200,
        expected: &[("session", "rate_limited")],
        settings: &[],
    },
    Attack {
        name: "garbage",
        kind: Kind::Garbage,
        connections: 200,
        expected: &[
            ("session", "malformed_frame"),
            ("session", "frame_too_large"),
            ("session", "unknown_kind"),
            ("session", "malformed_body"),
            ("session", "not_authenticated"),
        ],
        settings: &[],
    },
    Attack {
        name: "creates",
        kind: Kind::Creates,
        connections: 200,
        expected: &[
            ("session", "rate_limited"),
            ("parked", "full"),
            ("owner", "overloaded"),
        ],
        // What stays in memory of conversations stands beside the budget.
        settings: &["limits.conversations_max=10000", "limits.members_max=20000"],
    },
    Attack {
        name: "presence",
        kind: Kind::Presence,
        connections: 2_000,
        expected: &[("session", "overloaded"), ("session", "rate_limited")],
        settings: &["limits.requests_burst=100"],
    },
    Attack {
        name: "begun records",
        kind: Kind::BegunRecords,
        connections: 3_000,
        expected: &[("handshake", "timeout"), ("partial_frame", "shard_budget")],
        settings: &[SOON],
    },
    Attack {
        name: "quic handshakes",
        kind: Kind::QuicHandshakes,
        connections: 3_000,
        expected: &[
            ("handshake", "address"),
            ("handshake", "timeout"),
            ("session", "handshake_timeout"),
        ],
        settings: &[SOON, "broker.handshakes_max=500"],
    },
    Attack {
        name: "quic frames",
        kind: Kind::QuicFrames,
        connections: 3_000,
        expected: &[("partial_frame", "shard_budget")],
        settings: &[],
    },
    Attack {
        name: "quic halves",
        kind: Kind::QuicHalves,
        connections: 3_000,
        expected: &[("handshake", "address"), ("handshake", "timeout")],
        settings: &[SOON, "broker.handshakes_max=1000"],
    },
    Attack {
        name: "quic junk",
        kind: Kind::QuicJunk,
        connections: 64,
        expected: &[("handshake", "quic")],
        settings: &[],
    },
];

impl Attack {
    /// Why it is no attack; none: it took place.
    pub(super) fn missing(self, tally: &Tally, connections: u64) -> Option<String> {
        let nothing = |count| Tally::of(count) == 0;
        let told = Tally::of(&tally.told);
        let why = match self.kind {
            _ if nothing(&tally.opened) => "no connection was opened",
            Kind::QuicHalves if nothing(&tally.let_go) => "nothing was held back",
            Kind::CompressedPages if nothing(&tally.compressed) => "nothing was compressed",
            Kind::Presence if told == 0 => "nobody was told of anybody",
            Kind::ReconnectStorm if nothing(&tally.in_over_tcp) => "nobody came in over TCP",
            Kind::ReconnectStorm if nothing(&tally.in_over_quic) => "nobody came in over QUIC",
            _ if self.expected.is_empty() && told < connections => {
                return Some(format!(
                    "{connections} connections were told something {told} times"
                ));
            }
            _ => return tally.failed.get().cloned(),
        };
        Some(
            tally
                .failed
                .get()
                .cloned()
                .unwrap_or_else(|| why.to_owned()),
        )
    }

    /// Goes on until it is dropped.
    pub(super) async fn act(self, site: Rc<Site>) {
        match self.kind {
            Kind::SlowHandshakes => holding::slow_handshakes(&site).await,
            Kind::SlowSenders => holding::slow_senders(&site).await,
            Kind::BegunFrames => holding::begun_frames(&site).await,
            Kind::TinyWrites => flooding::tiny_writes(&site).await,
            Kind::Pipelines => flooding::pipelines(&site).await,
            Kind::DeafPublishers => flooding::deaf_publishers(&site).await,
            Kind::DeafReaders => flooding::deaf_readers(&site).await,
            Kind::CompressedPages => flooding::compressed_pages(&site).await,
            Kind::Flood => flooding::flood(&site).await,
            Kind::Garbage => flooding::garbage(&site).await,
            Kind::SlowReaders => crowding::slow_readers(&site).await,
            Kind::SubscribeStorm => crowding::subscribe_storm(&site).await,
            Kind::ReconnectStorm => crowding::reconnect_storm(&site).await,
            Kind::HotConversation => crowding::hot_conversation(&site).await,
            Kind::Creates => amplifying::creates(&site).await,
            Kind::Presence => amplifying::presence(&site).await,
            Kind::BegunRecords => holding::begun_records(&site).await,
            Kind::QuicHandshakes => quic::quic_handshakes(&site).await,
            Kind::QuicFrames => quic::quic_frames(&site).await,
            Kind::QuicHalves => quic::quic_halves(&site).await,
            Kind::QuicJunk => quic::quic_junk(&site).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attack_that_did_nothing_is_none() {
        let missing = |attack: Attack, tally: &Tally| attack.missing(tally, 2).is_some();
        for attack in ATTACKS {
            let tally = Tally::default();
            assert!(missing(attack, &tally), "{} opened nothing", attack.name);
            Tally::add(&tally.opened);
            let silent = missing(attack, &tally);
            let more = matches!(
                attack.kind,
                Kind::QuicHalves | Kind::Presence | Kind::ReconnectStorm
            );
            assert_eq!(
                silent,
                more || attack.expected.is_empty(),
                "{}",
                attack.name
            );
            Tally::add(&tally.told);
            Tally::add(&tally.told);
            Tally::add(&tally.let_go);
            Tally::add(&tally.in_over_tcp);
            let half = matches!(attack.kind, Kind::CompressedPages | Kind::ReconnectStorm);
            assert_eq!(missing(attack, &tally), half, "{}", attack.name);
            Tally::add(&tally.compressed);
            Tally::add(&tally.in_over_quic);
            assert!(!missing(attack, &tally), "{} took place", attack.name);
            let _ = tally.failed.set("no herald".to_owned());
            assert!(missing(attack, &tally), "{} failed", attack.name);
        }
    }
}
