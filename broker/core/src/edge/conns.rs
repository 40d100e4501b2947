//! The connections by slot, and how many bytes each has queued. What delivery looks at for every reader stands in the slot
//! itself, beside the session, not in it.
//!
//! A connection may hold much as long as few do: past the budget of the shard each has the same small share, so that readers
//! read from the log instead of from a queue, and publishers are not read until they are answered.

use bytes::Bytes;

use super::session::{Session, State};
use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{ConnId, Output, Via},
};

/// What a connection may hold, queued or in flight, while the shard is over its budget.
const SHARE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Slot {
    session: Option<Box<Session>>,
    generation: u32,
    /// Told to wait with reading.
    throttled: bool,
    /// Takes no more frames.
    closing: bool,
    queued_bytes: usize,
}

/// All connections of the shard.
#[derive(Debug)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    queue: Budget,
    in_flight: Budget,
}

/// Bytes that all connections hold together.
#[derive(Clone, Copy, Debug)]
struct Budget {
    bytes: usize,
    bytes_max: usize,
    /// What one connection may have of it.
    each_max: usize,
}

impl Budget {
    /// What one connection may have of it now.
    fn share(self) -> usize {
        if self.bytes > self.bytes_max {
            self.each_max.min(SHARE_BYTES)
        } else {
            self.each_max
        }
    }
}

impl Conns {
    pub(super) fn new(config: &CoreConfig) -> Self {
        let budget = |each_max| Budget {
            bytes: 0,
            bytes_max: config.shard_bytes_max,
            each_max,
        };
        Self {
            slots: Vec::new(),
            queue: budget(config.queue_bytes_max),
            in_flight: budget(config.in_flight_bytes_max),
        }
    }

    /// Puts a session into its slot.
    pub(super) fn insert(&mut self, conn: ConnId, session: Session) {
        let index = conn.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots[index] = Slot {
            session: Some(Box::new(session)),
            generation: conn.generation,
            ..Slot::default()
        };
    }

    /// Takes the session of a connection that is gone.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Box<Session>> {
        let slot = self.slot_mut(conn)?;
        let (session, queued_bytes) = (slot.session.take(), std::mem::take(&mut slot.queued_bytes));
        self.queue.bytes -= queued_bytes;
        session
    }

    /// The connection that has the slot now.
    pub(super) fn occupant(&self, index: u32) -> Option<ConnId> {
        let slot = self.slots.get(index as usize)?;
        slot.session.as_ref().map(|_| ConnId {
            index,
            generation: slot.generation,
        })
    }

    /// Every connection.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        (0..self.slots.len())
            .filter_map(|index| self.occupant(u32::try_from(index).ok()?))
            .collect()
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&Session> {
        self.slot(conn)?.session.as_deref()
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.slot_mut(conn)?.session.as_deref_mut()
    }

    /// The session if it is in use.
    pub(super) fn open(&self, conn: ConnId) -> Option<&Session> {
        self.get(conn)
            .filter(|session| session.state == State::Open)
    }

    /// The session if it is in use.
    pub(super) fn open_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.get_mut(conn)
            .filter(|session| session.state == State::Open)
    }

    /// From now on nothing is sent to it.
    pub(super) fn close(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.closing = true;
        }
    }

    pub(super) fn may_read(&self, conn: ConnId) -> bool {
        self.slot(conn)
            .is_some_and(|slot| !slot.throttled && !slot.closing)
    }

    pub(super) fn throttle(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.throttled = true;
        }
    }

    /// Lets it be read again, if the queue allows; `below`: its requests in flight do.
    pub(super) fn resume(&mut self, conn: ConnId, below: bool, fx: &mut Effects) {
        let share = self.queue.share();
        if let Some(slot) = self.slot_mut(conn)
            && slot.throttled
            && below
            && slot.queued_bytes <= share
            && !slot.closing
        {
            slot.throttled = false;
            fx.outputs.push(Output::Resume { conn });
        }
    }

    /// Whether half of what it may queue is free.
    pub(super) fn has_room(&self, conn: ConnId) -> bool {
        self.queued_bytes(conn)
            .is_some_and(|queued| queued <= self.queue.share() / 2)
    }

    /// Bytes queued for it; none: it is gone.
    pub(super) fn queued_bytes(&self, conn: ConnId) -> Option<usize> {
        self.slot(conn)
            .filter(|slot| !slot.closing)
            .map(|slot| slot.queued_bytes)
    }

    /// Takes in that bytes have left.
    pub(super) fn written(&mut self, conn: ConnId, bytes: usize) {
        if let Some(slot) = find(&mut self.slots, conn) {
            let bytes = bytes.min(slot.queued_bytes);
            slot.queued_bytes -= bytes;
            self.queue.bytes -= bytes;
        }
    }

    /// Takes in that requests of a connection are under way, or answered.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.in_flight.bytes += bytes;
    }

    pub(super) fn credit(&mut self, bytes: usize) {
        self.in_flight.bytes -= bytes;
    }

    /// What a connection may have under way now.
    pub(super) fn in_flight_share(&self) -> usize {
        self.in_flight.share()
    }

    /// Queues a frame that may not be lost.
    pub(super) fn send(&mut self, conn: ConnId, frame: Bytes, via: Via, fx: &mut Effects) {
        let share = self.queue.share();
        let Some(slot) =
            find(&mut self.slots, conn).filter(|slot| !slot.closing && slot.session.is_some())
        else {
            return;
        };
        self.queue.bytes += frame.len();
        push(slot, conn, frame, via, share, fx);
    }

    /// Queues a frame unless the queue is over its limit; says whether it did.
    pub(super) fn offer(
        &mut self,
        conn: ConnId,
        frame: &Bytes,
        via: Via,
        fx: &mut Effects,
    ) -> bool {
        let (share, each_max) = (self.queue.share(), self.queue.each_max);
        let Some(slot) = find(&mut self.slots, conn).filter(|slot| !slot.closing) else {
            return false;
        };
        if slot.queued_bytes > share {
            if slot.queued_bytes <= each_max {
                fx.counters.shed("queue", "shard_budget");
            }
            return false;
        }
        self.queue.bytes += frame.len();
        push(slot, conn, frame.clone(), via, share, fx);
        true
    }

    fn slot(&self, conn: ConnId) -> Option<&Slot> {
        self.slots
            .get(conn.index as usize)
            .filter(|slot| slot.generation == conn.generation)
    }

    fn slot_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        find(&mut self.slots, conn)
    }
}

fn find(slots: &mut [Slot], conn: ConnId) -> Option<&mut Slot> {
    slots
        .get_mut(conn.index as usize)
        .filter(|slot| slot.generation == conn.generation)
}

/// A client that does not read its answers is not read any more either.
fn push(slot: &mut Slot, conn: ConnId, frame: Bytes, via: Via, share: usize, fx: &mut Effects) {
    slot.queued_bytes += frame.len();
    slot.throttled |= slot.queued_bytes > share.saturating_mul(2);
    fx.counters.frames_out += 1;
    fx.counters.bytes_out += frame.len() as u64;
    fx.outputs.push(Output::Send { conn, frame, via });
}
