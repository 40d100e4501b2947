//! The connections by slot, and how many bytes each has queued. What delivery looks at for every reader stands in the slot
//! itself, beside the session, not in it.

use bytes::Bytes;

use super::session::{Session, State};
use crate::{
    effects::Effects,
    io::{ConnId, Output, Via},
};

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
    queue_bytes_max: usize,
}

impl Conns {
    pub(super) fn new(queue_bytes_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            queue_bytes_max,
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
        self.slot_mut(conn)?.session.take()
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
        let queue_bytes_max = self.queue_bytes_max;
        if let Some(slot) = self.slot_mut(conn)
            && slot.throttled
            && below
            && slot.queued_bytes <= queue_bytes_max
            && !slot.closing
        {
            slot.throttled = false;
            fx.outputs.push(Output::Resume { conn });
        }
    }

    /// Bytes queued for it; none: it is gone.
    pub(super) fn queued_bytes(&self, conn: ConnId) -> Option<usize> {
        self.slot(conn)
            .filter(|slot| !slot.closing)
            .map(|slot| slot.queued_bytes)
    }

    /// Takes in that bytes have left.
    pub(super) fn written(&mut self, conn: ConnId, bytes: usize) {
        if let Some(slot) = self.slot_mut(conn) {
            slot.queued_bytes = slot.queued_bytes.saturating_sub(bytes);
        }
    }

    /// Queues a frame that may not be lost.
    pub(super) fn send(&mut self, conn: ConnId, frame: Bytes, via: Via, fx: &mut Effects) {
        let throttle_at = self.queue_bytes_max.saturating_mul(2);
        let Some(slot) = self
            .slot_mut(conn)
            .filter(|slot| !slot.closing && slot.session.is_some())
        else {
            return;
        };
        push(slot, conn, frame, via, throttle_at, fx);
    }

    /// Queues a frame unless the queue is over its limit; says whether it did.
    pub(super) fn offer(
        &mut self,
        conn: ConnId,
        frame: &Bytes,
        via: Via,
        fx: &mut Effects,
    ) -> bool {
        let queue_bytes_max = self.queue_bytes_max;
        let Some(slot) = self.slot_mut(conn).filter(|slot| !slot.closing) else {
            return false;
        };
        if slot.queued_bytes > queue_bytes_max {
            return false;
        }
        push(
            slot,
            conn,
            frame.clone(),
            via,
            queue_bytes_max.saturating_mul(2),
            fx,
        );
        true
    }

    fn slot(&self, conn: ConnId) -> Option<&Slot> {
        self.slots
            .get(conn.index as usize)
            .filter(|slot| slot.generation == conn.generation)
    }

    fn slot_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.slots
            .get_mut(conn.index as usize)
            .filter(|slot| slot.generation == conn.generation)
    }
}

/// A client that does not read its answers is not read any more either.
fn push(
    slot: &mut Slot,
    conn: ConnId,
    frame: Bytes,
    via: Via,
    throttle_at: usize,
    fx: &mut Effects,
) {
    slot.queued_bytes += frame.len();
    slot.throttled |= slot.queued_bytes > throttle_at;
    fx.counters.frames_out += 1;
    fx.counters.bytes_out += frame.len() as u64;
    fx.outputs.push(Output::Send { conn, frame, via });
}
