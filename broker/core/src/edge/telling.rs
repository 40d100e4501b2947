//! Watchers are told what has become of those they watch, in passes: who comes and goes without end is told of once in a pass,
//! and all that a connection watches comes to it in as few frames as can be. The newest state is always told, be it later.

use std::collections::{HashMap, hash_map::Entry};

use ahash::RandomState;
use bytes::Bytes;
use hashlink::LinkedHashSet;
use rialto_protocol::{
    frame::{self, FrameKind},
    ids::{RequestId, UserId},
    v1,
};

use super::{
    Edge,
    conns::Conns,
    deliver::{CROWD, CROWD_SIGNAL_US},
};
use crate::{
    effects::Effects,
    io::{ConnId, Now, Via},
    message::PresenceOf,
};

/// From the beginning of a pass to that of the next at least, microseconds.
const PASS_US: u64 = 250_000;
/// Presences that are told at once, each to one connection: some 2 ms. Of a user whom more watch nobody else is told with him,
/// and all get the same frame. One who needs no telling any more counts as one: there may be as many of them.
const TOLD_AT_ONCE: usize = 4_096;
/// How long the next telling is away, for each frame and for each presence in them, microseconds: as with signals to crowds, so
/// that presence has a quarter of a shard's time at most.
const FRAME_US: u64 = CROWD_SIGNAL_US;
const PRESENCE_US: u64 = 1;

/// Who is to be told of, and when.
#[derive(Debug)]
pub(super) struct Telling {
    /// Users who may be another way than their watchers know, those who changed first first.
    changed: LinkedHashSet<UserId, RandomState>,
    /// Of these, the first ones: what is left of the pass.
    left: usize,
    /// When the next pass may begin, and the next users be told of, monotonic microseconds.
    pass_us: u64,
    next_us: u64,
}

impl Telling {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            changed: LinkedHashSet::with_hasher(hasher),
            left: 0,
            pass_us: 0,
            next_us: 0,
        }
    }

    /// Has the user's watchers told.
    pub(super) fn add(&mut self, user: UserId) {
        if !self.changed.contains(&user) {
            self.changed.insert(user);
        }
    }

    /// When somebody is to be told, monotonic microseconds; `None`: there is nothing to tell.
    pub(super) fn due_us(&self) -> Option<u64> {
        if self.changed.is_empty() {
            None
        } else if self.left > 0 {
            Some(self.next_us)
        } else {
            Some(self.next_us.max(self.pass_us))
        }
    }

    /// Goes on with the pass, or begins one; says whether it is time.
    fn begin(&mut self, now: Now) -> bool {
        if self.due_us().is_none_or(|due_us| now.mono_us < due_us) {
            return false;
        }
        if self.left == 0 {
            self.left = self.changed.len();
            self.pass_us = now.mono_us + PASS_US;
        }
        true
    }

    /// The next user of the pass.
    fn next(&self) -> Option<UserId> {
        self.changed.front().copied().filter(|_| self.left > 0)
    }

    /// That one needs no telling any more.
    fn skip(&mut self) {
        self.changed.pop_front();
        self.left -= 1;
    }

    /// Takes in what was told.
    fn spend(&mut self, now: Now, frames: usize, presences: usize) {
        self.next_us = now.mono_us + frames as u64 * FRAME_US + presences as u64 * PRESENCE_US;
        if self.changed.is_empty() {
            // The memory of a time in which very many came or went.
            self.changed.shrink_to_fit();
        }
    }
}

/// What is told at once.
struct Pushes {
    /// A connection once.
    in_order: Vec<(ConnId, v1::Presences)>,
    places: HashMap<ConnId, usize, RandomState>,
}

impl Pushes {
    fn new(hasher: RandomState) -> Self {
        Self {
            in_order: Vec::new(),
            places: HashMap::with_hasher(hasher),
        }
    }

    fn add(&mut self, conn: ConnId, presence: &PresenceOf) {
        let place = match self.places.entry(conn) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                self.in_order.push((conn, v1::Presences::default()));
                *vacant.insert(self.in_order.len() - 1)
            }
        };
        self.in_order[place].1.presences.push(presence.to_proto());
    }
}

impl Edge {
    /// Tells watchers of the next users who have changed, if it is time.
    pub(super) fn tell_watchers(&mut self, now: Now, fx: &mut Effects) {
        if !self.presence.telling.begin(now) {
            return;
        }
        let mut users = Vec::new();
        let mut presences = 0;
        while let Some(user) = self.presence.telling.next() {
            let untold = self.presence.untold(user);
            let more = untold.map_or(1, |(_, watchers)| watchers);
            if presences > 0 && presences + more > TOLD_AT_ONCE {
                break;
            }
            presences += more;
            users.extend(untold.map(|(presence, _)| presence));
            self.presence.telling.skip();
        }
        let frames = match users[..] {
            [] => 0,
            [presence] => self.tell_of_one(presence, fx),
            _ => self.tell_of_several(&users, fx),
        };
        self.presence.telling.spend(now, frames, presences);
    }

    /// The same frame for all; returns how many there are.
    fn tell_of_one(&mut self, presence: PresenceOf, fx: &mut Effects) -> usize {
        let push = v1::Presences {
            presences: vec![presence.to_proto()],
        };
        let frame = frame::encode(FrameKind::Presences, RequestId::PUSH, &push);
        let Some(watchers) = self.presence.told(presence) else {
            return 0;
        };
        let via = via(watchers.len());
        for conn in watchers {
            push_to(&mut self.conns, *conn, &frame, via, fx);
        }
        watchers.len()
    }

    /// A frame for each watcher; returns how many there are.
    fn tell_of_several(&mut self, users: &[PresenceOf], fx: &mut Effects) -> usize {
        let mut pushes = Pushes::new(self.config.hasher());
        for presence in users {
            let watchers = self.presence.told(*presence).into_iter().flatten();
            for conn in watchers.filter(|conn| self.conns.is_there(**conn)) {
                pushes.add(*conn, presence);
            }
        }
        let frames = pushes.in_order.len();
        let via = via(frames);
        for (conn, push) in pushes.in_order {
            let frame = frame::encode(FrameKind::Presences, RequestId::PUSH, &push);
            push_to(&mut self.conns, conn, &frame, via, fx);
        }
        frames
    }
}

fn push_to(conns: &mut Conns, conn: ConnId, frame: &Bytes, via: Via, fx: &mut Effects) {
    if !conns.offer(conn, frame, via, fx) && conns.is_there(conn) {
        fx.counters.shed("presence", "queue_full");
    }
}

/// How a frame leaves that so many get at once, or others like it.
fn via(frames: usize) -> Via {
    if frames > CROWD {
        Via::Crowd
    } else {
        Via::Main
    }
}
