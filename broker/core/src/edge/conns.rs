//! The connections by slot, and how many bytes each has queued. What delivery looks at for every reader stands in the slot
//! itself, beside the session, not in it.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;

use super::{
    check::clamped,
    held::{Held, SHARE_BYTES},
    orphans::Orphan,
    session::{Session, State},
    window::Window,
};
use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{ConnId, Output, Via},
};

/// Looks in a row after which a client does not read, and what it has to take from one to the next to be one that does: a
/// kibibyte a second, when they are 15 s apart.
pub(super) const UNREAD_LOOKS: u8 = 3;
const TAKEN_BYTES_MIN: u32 = 16 << 10;

#[derive(Debug, Default)]
struct Slot {
    session: Option<Box<Session>>,
    generation: u32,
    /// Told to wait with reading.
    throttled: bool,
    /// Takes no more frames.
    closing: bool,
    /// Was refused too often, and is not read for a while; and how often since the last time.
    resting: bool,
    refusals: u8,
    /// Looks in a row that found much queued and little taken, and what its client has taken since the last.
    unread_looks: u8,
    taken_bytes: u32,
    queued_bytes: usize,
}

impl Slot {
    fn is_there(&self) -> bool {
        !self.closing && self.session.is_some()
    }

    /// Whether more than its share is queued for it, and its client has taken hardly anything since the last look.
    fn takes_little(&self, share: usize) -> bool {
        self.queued_bytes > share && self.taken_bytes < TAKEN_BYTES_MIN && !self.closing
    }
}

/// All connections of the shard.
#[derive(Debug)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    /// Slots with a session.
    count: usize,
    /// What connections that are gone have left under way.
    orphans: HashMap<ConnId, Orphan, RandomState>,
    held: Held,
    /// What readers that are behind have asked storage for: held once it comes.
    awaited_bytes: usize,
    /// Of what is held, in flight.
    window: Window,
    /// What one connection may have queued, and in flight, while there is room.
    queue_bytes_max: usize,
    in_flight_bytes_max: usize,
}

impl Conns {
    pub(super) fn new(config: &CoreConfig) -> Self {
        Self {
            slots: Vec::new(),
            count: 0,
            orphans: HashMap::with_hasher(config.hasher()),
            held: Held {
                bytes: 0,
                budget: config.shard_bytes_max,
            },
            awaited_bytes: 0,
            window: Window::default(),
            queue_bytes_max: config.queue_bytes_max,
            in_flight_bytes_max: config.in_flight_bytes_max,
        }
    }

    /// Puts a session into its slot.
    pub(super) fn insert(&mut self, conn: ConnId, session: Session) {
        let index = conn.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.count += 1;
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
        self.held.bytes -= queued_bytes;
        self.count -= usize::from(session.is_some());
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

    /// Whether something can be sent to it: it is neither closing nor gone.
    pub(super) fn is_there(&self, conn: ConnId) -> bool {
        self.slot(conn).is_some_and(Slot::is_there)
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

    /// Counts refusals.
    pub(super) fn note_refusals(&mut self, conn: ConnId, count: usize) {
        if let Some(slot) = self.slot_mut(conn) {
            let count = u8::try_from(count).unwrap_or(u8::MAX);
            slot.refusals = slot.refusals.saturating_add(count);
        }
    }

    /// After so many of them it is not read until [`Conns::end_rest`]; whether that begins now.
    pub(super) fn rests_after(&mut self, conn: ConnId, refusals: u8) -> bool {
        let Some(slot) = self
            .slot_mut(conn)
            .filter(|slot| slot.refusals >= refusals && !slot.resting)
        else {
            return false;
        };
        (slot.throttled, slot.resting, slot.refusals) = (true, true, 0);
        true
    }

    pub(super) fn end_rest(&mut self, conn: ConnId) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.resting = false;
        }
    }

    /// Lets it be read again, if the queue allows; `below`: its requests in flight do.
    pub(super) fn resume(&mut self, conn: ConnId, below: bool, fx: &mut Effects) {
        let share = self.queue_share();
        if let Some(slot) = self.slot_mut(conn)
            && slot.throttled
            && !slot.resting
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
            .is_some_and(|queued| queued <= self.queue_share() / 2)
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
            slot.taken_bytes = slot.taken_bytes.saturating_add(clamped(bytes));
            self.held.bytes -= bytes;
        }
    }

    /// Takes in that requests of a connection are under way, or answered.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.held.bytes += bytes;
        self.window.charge(bytes);
    }

    pub(super) fn credit(&mut self, bytes: usize) {
        self.held.bytes -= bytes;
        self.window.credit(bytes);
    }

    /// A connection leaves, which has so much in flight; what is still to be answered of it stays held.
    pub(super) fn leave_behind(&mut self, conn: ConnId, in_flight_bytes: usize, orphan: Orphan) {
        let dropped = in_flight_bytes - orphan.in_flight_bytes();
        self.held.bytes -= dropped;
        self.window.drop(dropped);
        if !orphan.is_done() {
            self.orphans.insert(conn, orphan);
        }
    }

    /// Whether a connection that is gone has left something under way.
    pub(super) fn has_left_behind(&self, conn: ConnId) -> bool {
        self.orphans.contains_key(&conn)
    }

    /// An answer has come that gives so much back; of a connection that is gone.
    pub(super) fn answered(&mut self, conn: ConnId, bytes: usize, fx: &mut Effects) {
        if let Some(orphan) = self.orphans.get_mut(&conn) {
            let bytes = orphan.answer(bytes);
            self.credit(bytes);
            self.settle(conn, fx);
        }
    }

    /// A part of an answer has come, perhaps of a connection that is gone.
    pub(super) fn part_answered(&mut self, conn: ConnId, fx: &mut Effects) {
        if let Some(orphan) = self.orphans.get_mut(&conn) {
            let bytes = orphan.answer_part();
            self.credit(bytes);
            self.settle(conn, fx);
        }
    }

    /// A read for a subscription has come, perhaps of a connection that is gone.
    pub(super) fn read_answered(&mut self, conn: ConnId, fx: &mut Effects) {
        if let Some(orphan) = self.orphans.get_mut(&conn) {
            let bytes = orphan.answer_read();
            self.release(bytes);
            self.settle(conn, fx);
        }
    }

    fn settle(&mut self, conn: ConnId, fx: &mut Effects) {
        if self.orphans.get(&conn).is_some_and(Orphan::is_done) {
            self.orphans.remove(&conn);
            fx.outputs.push(Output::Settled { conn });
        }
    }

    /// So many bytes at most will come from storage for a reader.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.awaited_bytes += bytes;
    }

    /// They have come, or nobody waits for them any more.
    pub(super) fn release(&mut self, bytes: usize) {
        self.awaited_bytes -= bytes;
    }

    /// Whether so much is held that new requests are refused; messages are taken as far as each connection's share goes.
    pub(super) fn are_full(&self) -> bool {
        self.held.is_full()
    }

    /// Whether more is held than is for whoever comes.
    pub(super) fn are_crowded(&self) -> bool {
        self.held.is_crowded()
    }

    /// What a connection may have under way now.
    pub(super) fn in_flight_share(&self) -> usize {
        let share = self.held.share(self.in_flight_bytes_max, self.count);
        match self.window.part(self.count) {
            Some(part) => share.min(part.clamp(SHARE_BYTES.0, SHARE_BYTES.1)),
            None => share,
        }
    }

    /// Looks at how long answers take.
    pub(super) fn look(&mut self, mono_us: u64) {
        self.window.look(mono_us);
    }

    /// How long an answer may be that would have so many bytes while there is room.
    pub(super) fn answer_bytes_max(&self, bytes: usize) -> usize {
        let soon = Held {
            bytes: self.held.bytes + self.awaited_bytes,
            ..self.held
        };
        soon.share(bytes, self.count)
    }

    /// What it may have queued now.
    fn queue_share(&self) -> usize {
        self.held.share(self.queue_bytes_max, self.count)
    }

    /// Takes in that so much is held for it beside its frames.
    pub(super) fn hold(&mut self, conn: ConnId, bytes: usize) {
        let share = self.queue_share();
        if let Some(slot) = find(&mut self.slots, conn).filter(|slot| slot.session.is_some()) {
            self.held.bytes += bytes;
            queue(slot, bytes, share);
        }
    }

    /// Queues a frame that may not be lost.
    pub(super) fn send(&mut self, conn: ConnId, frame: Bytes, via: Via, fx: &mut Effects) {
        let share = self.queue_share();
        let Some(slot) = find(&mut self.slots, conn).filter(|slot| slot.is_there()) else {
            return;
        };
        self.held.bytes += frame.len();
        push(slot, conn, frame, via, share, fx);
    }

    /// Queues a frame unless the queue is over its limit, or the connection is gone; says whether it did.
    pub(super) fn offer(
        &mut self,
        conn: ConnId,
        frame: &Bytes,
        via: Via,
        fx: &mut Effects,
    ) -> bool {
        let (share, each_max) = (self.queue_share(), self.queue_bytes_max);
        let Some(slot) = find(&mut self.slots, conn).filter(|slot| slot.is_there()) else {
            return false;
        };
        if slot.queued_bytes > share {
            if slot.queued_bytes <= each_max {
                fx.counters.shed("queue", "shard_budget");
            }
            return false;
        }
        self.held.bytes += frame.len();
        push(slot, conn, frame.clone(), via, share, fx);
        true
    }

    /// Whether so much is held that it matters soon who does not read.
    pub(super) fn are_filling(&self) -> bool {
        self.held.is_filling()
    }

    /// Looks at what each has taken since the last look; gives those that have more than their share queued, and have taken hardly
    /// anything for [`UNREAD_LOOKS`] of them, while the shard is over its budget.
    pub(super) fn look_for_unread(&mut self) -> Vec<ConnId> {
        let (share, is_crowded) = (self.queue_share(), self.are_crowded());
        let mut unread = Vec::new();
        for (index, slot) in (0..).zip(&mut self.slots) {
            let takes_little = slot.takes_little(share);
            slot.taken_bytes = 0;
            if !takes_little {
                slot.unread_looks = 0;
                continue;
            }
            slot.unread_looks = slot.unread_looks.saturating_add(1);
            if is_crowded && slot.unread_looks >= UNREAD_LOOKS {
                unread.push(ConnId {
                    index,
                    generation: slot.generation,
                });
            }
        }
        unread
    }

    /// Whether that is still so of one that was found by the last look: it may have begun to read since, or others made room.
    pub(super) fn is_unread(&self, conn: ConnId) -> bool {
        let share = self.queue_share();
        self.are_crowded() && self.slot(conn).is_some_and(|slot| slot.takes_little(share))
    }

    /// Bytes that all of them hold, whatever storage has been asked for included.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.bytes + self.awaited_bytes
    }

    /// Bytes that one that is gone has left in flight.
    #[cfg(test)]
    pub(super) fn orphan(&self, conn: ConnId) -> usize {
        self.orphans.get(&conn).map_or(0, Orphan::in_flight_bytes)
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
fn queue(slot: &mut Slot, bytes: usize, share: usize) {
    slot.queued_bytes += bytes;
    slot.throttled |= slot.queued_bytes > share.saturating_mul(2);
}

fn push(slot: &mut Slot, conn: ConnId, frame: Bytes, via: Via, share: usize, fx: &mut Effects) {
    queue(slot, frame.len(), share);
    fx.counters.frames_out += 1;
    fx.counters.bytes_out += frame.len() as u64;
    fx.outputs.push(Output::Send { conn, frame, via });
}
