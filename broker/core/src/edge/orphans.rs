//! What connections that are gone have left under way. It is held until it is answered, as if they were still there: who leaves
//! does not take back what he asked, and how much others may ask goes by all that is under way.

use super::{
    life::parked_bytes, presence::WaitingWatch, session::Session, subscribe::WaitingFollow,
};

/// What one connection has left under way.
#[derive(Debug, Default)]
pub(super) struct Orphan {
    /// Of requests whose answers say what they held.
    bytes: usize,
    /// Of requests that are answered in parts, which do not.
    parts: Parts,
    /// Of reads for subscriptions that were behind.
    reads: Parts,
}

/// Bytes that are given back with so many answers, in equal parts.
#[derive(Debug, Default)]
struct Parts {
    bytes: usize,
    answers: usize,
}

impl Parts {
    fn add(&mut self, bytes: usize, answers: usize) {
        if answers > 0 {
            self.bytes += bytes;
            self.answers += answers;
        }
    }

    /// What one answer gives back.
    fn take(&mut self) -> usize {
        let Some(part) = self.bytes.checked_div(self.answers) else {
            return 0;
        };
        self.bytes -= part;
        self.answers -= 1;
        part
    }
}

impl Orphan {
    /// What owners and homes have still to answer of what a session asked them.
    pub(super) fn of(session: &mut Session) -> Self {
        let mut orphan = Self::default();
        let in_flight_bytes = session.in_flight_bytes;
        // What nobody else has been asked is dropped with the session.
        let mut dropped_bytes = 0;
        if let Some(work) = session.work_if_any() {
            for read in &work.reads {
                orphan.reads.add(read.bytes, 1);
            }
            let follows = work.follows.iter().map(WaitingFollow::held);
            let watches = work.watches.iter().map(WaitingWatch::held);
            for (bytes, answers) in follows.chain(watches) {
                orphan.parts.add(bytes, answers);
                dropped_bytes += if answers == 0 { bytes } else { 0 };
            }
            let refreshes = work.refreshes.iter().map(|refresh| refresh.cost as usize);
            let parked = work.parked.iter().map(parked_bytes);
            dropped_bytes += refreshes.chain(parked).sum::<usize>();
        }
        orphan.parts.bytes = orphan.parts.bytes.min(in_flight_bytes);
        orphan.bytes = in_flight_bytes.saturating_sub(orphan.parts.bytes + dropped_bytes);
        orphan
    }

    /// Whether there is nothing left.
    pub(super) fn is_done(&self) -> bool {
        self.bytes == 0 && self.parts.answers == 0 && self.reads.answers == 0
    }

    /// What it holds of what may be in flight.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.bytes + self.parts.bytes
    }

    /// An answer has come that gives so much back; how much of it was held.
    pub(super) fn answer(&mut self, bytes: usize) -> usize {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        bytes
    }

    /// One part of an answer has come; what was held for it.
    pub(super) fn answer_part(&mut self) -> usize {
        self.parts.take()
    }

    /// A read has come; the room that was kept for it.
    pub(super) fn answer_read(&mut self) -> usize {
        self.reads.take()
    }
}
