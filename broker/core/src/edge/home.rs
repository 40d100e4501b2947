//! The home of users' presence: which edges have sessions of a user, which edges watch him, and when he was last seen.

use std::collections::HashMap;

use ahash::RandomState;
use hashlink::LruCache;
use rialto_protocol::{ids::UserId, v1};
use smallvec::SmallVec;

use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{Answer, Output, Query, Ticket},
    message::{Message, Origin, PresenceOf, ToEdge},
    topology::ShardId,
};

/// Users who are neither connected nor watched, but were lately: their last seen is known without a read.
const SEEN_MAX: usize = 16_384;
/// What of the shard's budget may be watches that wait for a read, beside it: past that the read is left out.
const LOADS_PART: usize = 16;
/// What such a watch takes beside its users.
const LOAD_OVERHEAD_BYTES: usize = 256;
/// Set in tickets of this half of a shard, clear in those of the owner.
const TICKET_BIT: u64 = 1 << 63;

/// Presence of the users whose home this shard is.
#[derive(Debug)]
pub(super) struct Home {
    /// Those who are connected, or watched.
    users: HashMap<UserId, Known, RandomState>,
    seen: LruCache<UserId, u64, RandomState>,
    loads: HashMap<Ticket, Waiting, RandomState>,
    /// What they take, and may.
    loads_bytes: usize,
    loads_bytes_max: usize,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// Edges with sessions, and the best state there.
    edges: SmallVec<[(ShardId, v1::PresenceState); 1]>,
    watchers: SmallVec<[ShardId; 2]>,
    /// Milliseconds since 1970, 0: never; none: not read yet. Of no meaning while connected.
    last_seen_ms: Option<u64>,
}

/// A watch that waits for a read.
#[derive(Debug)]
struct Waiting {
    origin: Origin,
    users: Vec<UserId>,
    /// Those of them that are being read.
    unknown: Vec<UserId>,
}

impl Waiting {
    /// What it takes: two lists, and two more of the read, which may have to be tried again.
    fn bytes(&self) -> usize {
        let users = self.users.len() + 3 * self.unknown.len();
        users * size_of::<UserId>() + LOAD_OVERHEAD_BYTES
    }
}

impl Known {
    fn state(&self) -> v1::PresenceState {
        let best = self
            .edges
            .iter()
            .map(|(_, state)| *state)
            .max_by_key(|state| *state as i32);
        best.unwrap_or(v1::PresenceState::Offline)
    }

    fn presence(&self, user: UserId) -> PresenceOf {
        let state = self.state();
        let last_seen_ms = match state {
            v1::PresenceState::Offline => self.last_seen_ms,
            _ => Some(0),
        };
        PresenceOf {
            user,
            state,
            last_seen_ms,
        }
    }

    fn is_idle(&self) -> bool {
        self.edges.is_empty() && self.watchers.is_empty()
    }
}

impl Home {
    pub(super) fn new(config: &CoreConfig) -> Self {
        let hasher = config.hasher();
        Self {
            users: HashMap::with_hasher(hasher.clone()),
            seen: LruCache::with_hasher(SEEN_MAX, hasher.clone()),
            loads: HashMap::with_hasher(hasher),
            loads_bytes: 0,
            loads_bytes_max: config.shard_bytes_max / LOADS_PART,
            next_ticket: TICKET_BIT,
        }
    }

    /// What the sessions of a user add up to at one edge.
    pub(super) fn report(
        &mut self,
        edge: ShardId,
        user: UserId,
        state: v1::PresenceState,
        time_ms: u64,
        fx: &mut Effects,
    ) {
        let known = self.users.entry(user).or_default();
        let before = known.state();
        known.edges.retain(|(reported, _)| *reported != edge);
        if state != v1::PresenceState::Offline {
            known.edges.push((edge, state));
        }
        let after = known.state();
        if after != before {
            self.changed(user, after, time_ms, fx);
        }
        if self.users.get(&user).is_some_and(Known::is_idle) {
            self.users.remove(&user);
        }
    }

    fn changed(&mut self, user: UserId, state: v1::PresenceState, time_ms: u64, fx: &mut Effects) {
        let Some(known) = self.users.get_mut(&user) else {
            return;
        };
        if state == v1::PresenceState::Offline {
            known.last_seen_ms = Some(time_ms);
            self.seen.insert(user, time_ms);
            fx.outputs.push(Output::Seen { user, time_ms });
        }
        let presence = known.presence(user);
        for watcher in &known.watchers {
            fx.send(
                *watcher,
                Message::ToEdge(ToEdge::Presence {
                    origin: None,
                    presences: vec![presence],
                }),
            );
        }
    }

    /// An edge wants to know of users, now and when something changes.
    pub(super) fn watch(&mut self, origin: Origin, users: Vec<UserId>, fx: &mut Effects) {
        let mut unknown = Vec::new();
        for user in &users {
            let known = self.users.entry(*user).or_default();
            if !known.watchers.contains(&origin.edge) {
                known.watchers.push(origin.edge);
            }
            if known.last_seen_ms.is_none() {
                known.last_seen_ms = self.seen.get(user).copied();
            }
            if known.edges.is_empty() && known.last_seen_ms.is_none() {
                unknown.push(*user);
            }
        }
        if unknown.is_empty() {
            self.answer(origin, &users, fx);
            return;
        }
        let waiting = Waiting {
            origin,
            users,
            unknown,
        };
        let loads_bytes = self.loads_bytes + waiting.bytes();
        if loads_bytes > self.loads_bytes_max {
            fx.counters.shed("last_seen", "full");
            self.answer(origin, &waiting.users, fx);
            return;
        }
        self.loads_bytes = loads_bytes;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1) | TICKET_BIT;
        fx.counters.loads += 1;
        fx.outputs.push(Output::Load {
            ticket,
            user: UserId::SYSTEM,
            query: Query::LastSeen {
                users: waiting.unknown.clone(),
            },
        });
        self.loads.insert(ticket, waiting);
    }

    /// Nobody at the edge watches these users any more.
    pub(super) fn unwatch(&mut self, edge: ShardId, users: &[UserId]) {
        for user in users {
            if let Some(known) = self.users.get_mut(user) {
                known.watchers.retain(|watcher| *watcher != edge);
                if known.is_idle() {
                    self.users.remove(user);
                }
            }
        }
    }

    /// Storage says when users were last seen. What could not be read is not known to the edge either, so that its next watch
    /// asks again.
    pub(super) fn loaded(&mut self, ticket: Ticket, answer: Option<Answer>, fx: &mut Effects) {
        let Some(waiting) = self.loads.remove(&ticket) else {
            return;
        };
        self.loads_bytes -= waiting.bytes();
        if let Some(Answer::LastSeen(seen)) = answer {
            for (user, seen) in waiting.unknown.iter().zip(seen) {
                self.learn(*user, seen.unwrap_or(0));
            }
        }
        self.answer(waiting.origin, &waiting.users, fx);
    }

    /// What was read, unless the user has come and gone meanwhile. Whoever was never here is not remembered: there is no end to
    /// such users.
    fn learn(&mut self, user: UserId, seen_ms: u64) {
        let newest = self.seen.get(&user).copied().unwrap_or(0).max(seen_ms);
        if newest > 0 {
            self.seen.insert(user, newest);
        }
        if let Some(known) = self.users.get_mut(&user) {
            known.last_seen_ms.get_or_insert(newest);
        }
    }

    fn answer(&self, origin: Origin, users: &[UserId], fx: &mut Effects) {
        let presences = users
            .iter()
            .map(|user| match self.users.get(user) {
                Some(known) => known.presence(*user),
                None => PresenceOf {
                    user: *user,
                    state: v1::PresenceState::Offline,
                    last_seen_ms: self.seen.peek(user).copied(),
                },
            })
            .collect();
        fx.send(
            origin.edge,
            Message::ToEdge(ToEdge::Presence {
                origin: Some(origin),
                presences,
            }),
        );
    }
}
