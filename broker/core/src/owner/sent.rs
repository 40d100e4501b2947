//! The recent window of appended `client_id`s, so that a prompt retry is answered without a read. Bounded; what has left
//! it is found in storage.

use std::collections::{HashMap, VecDeque};

use rialto_protocol::ids::{ClientId, ConversationId, DeviceId, LaneId, Position, UserId};

use crate::io::SentEvent;

/// Who sent what where.
pub(super) type SentKey = (ConversationId, UserId, DeviceId, ClientId);

/// Newest appended ids of a shard.
#[derive(Debug)]
pub(super) struct RecentSent {
    events: HashMap<SentKey, SentEvent, ahash::RandomState>,
    order: VecDeque<(SentKey, LaneId, Position)>,
    max: usize,
}

impl RecentSent {
    pub(super) fn new(max: usize, hasher: ahash::RandomState) -> Self {
        Self {
            events: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
            max,
        }
    }

    pub(super) fn get(&self, key: &SentKey) -> Option<SentEvent> {
        self.events.get(key).copied()
    }

    /// Adds an event of the entry at `position`. The oldest leave, but none that `is_durable` denies: storage would not
    /// find those yet.
    pub(super) fn insert(
        &mut self,
        key: SentKey,
        event: SentEvent,
        (lane, position): (LaneId, Position),
        is_durable: impl Fn(LaneId, Position) -> bool,
    ) {
        while self.order.len() >= self.max {
            match self.order.front() {
                Some((_, lane, position)) if is_durable(*lane, *position) => {
                    if let Some((key, ..)) = self.order.pop_front() {
                        self.events.remove(&key);
                    }
                }
                _ => break,
            }
        }
        self.events.insert(key, event);
        self.order.push_back((key, lane, position));
    }

    /// Forgets what a lane was to append beyond `durable`: it was not kept. What other lanes have on their way stays:
    /// nothing else knows of it yet.
    pub(super) fn forget(&mut self, lane: LaneId, durable: Position) {
        let events = &mut self.events;
        self.order.retain(|(key, of, position)| {
            let is_kept = *of != lane || *position <= durable;
            if !is_kept {
                events.remove(key);
            }
            is_kept
        });
    }
}
