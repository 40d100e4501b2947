//! What lanes still have to pass on: where the entries stand whose outbox records no outbox-done record covers.

use std::collections::VecDeque;

use rialto_protocol::{
    ids::{LaneId, Position},
    record::{Record, Records},
};

use super::{
    Segment,
    format::{ENTRY_HEADER_BYTES, damaged},
    io_error,
    sealed::LaneTail,
};
use crate::journal::{JournalError, OutboxItem};

/// Where an entry stands that has outbox records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) position: Position,
    pub(super) time_ms: u64,
    pub(super) segment: u64,
    /// Of its records in the segment.
    pub(super) offset: u32,
    /// Of its records.
    pub(super) bytes: u32,
}

impl Pending {
    /// Reads the entry once more and finds its outbox records.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when it is not the entry that was written, `Io` when it cannot be read.
    pub(super) fn items(
        &self,
        lane: LaneId,
        segment: &Segment,
    ) -> Result<Vec<OutboxItem>, JournalError> {
        let Self {
            position,
            time_ms,
            bytes,
            ..
        } = *self;
        let start = self.offset - ENTRY_HEADER_BYTES;
        let entry = segment
            .read(start, ENTRY_HEADER_BYTES + bytes)
            .map_err(|error| io_error(format!("read {}", segment.name()), &error))?;
        let bad = |why| damaged(&segment.name(), start, why);
        segment
            .codec()
            .decode(&entry, 0)
            .filter(|header| (header.lane, header.position) == (lane, position))
            .ok_or_else(|| bad("an entry that was durable has a wrong checksum"))?;
        let records = Records::new(entry.slice(ENTRY_HEADER_BYTES as usize..));
        let mut items = Vec::new();
        for record in records {
            let record = record.map_err(|_| bad("a record of an entry cannot be read"))?;
            if let Record::Outbox { user, notice } = record {
                let index = u16::try_from(items.len()).unwrap_or(u16::MAX);
                items.push(OutboxItem {
                    position,
                    index,
                    time_ms,
                    user,
                    notice,
                });
            }
        }
        Ok(items)
    }
}

/// The outboxes of all lanes.
pub(super) struct Outbox {
    lanes: Vec<Lane>,
}

#[derive(Clone, Default)]
struct Lane {
    done: Position,
    /// In rising order of positions, and so of segments.
    pending: VecDeque<Pending>,
}

impl Outbox {
    pub(super) fn new(lanes: u16, tails: &[LaneTail]) -> Self {
        let mut outbox = Self {
            lanes: vec![Lane::default(); usize::from(lanes)],
        };
        for tail in tails {
            if let Some(lane) = outbox.lanes.get_mut(usize::from(tail.lane.0)) {
                lane.done = tail.outbox_done;
            }
        }
        outbox
    }

    /// An entry has outbox records.
    pub(super) fn add(&mut self, lane: LaneId, pending: Pending) {
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0))
            && pending.position > lane.done
        {
            lane.pending.push_back(pending);
        }
    }

    /// Records up to and including this position have been passed on.
    pub(super) fn finish(&mut self, lane: LaneId, through: Position) {
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            lane.done = lane.done.max(through);
            while lane
                .pending
                .pop_front_if(|pending| pending.position <= through)
                .is_some()
            {}
        }
    }

    /// Up to where everything has been passed on.
    pub(super) fn done(&self, lane: LaneId) -> Position {
        self.lanes
            .get(usize::from(lane.0))
            .map_or(Position(0), |lane| lane.done)
    }

    /// What the lane still has to pass on, in order.
    pub(super) fn pending(&self, lane: LaneId) -> Vec<Pending> {
        self.lanes
            .get(usize::from(lane.0))
            .map_or_else(Vec::new, |lane| lane.pending.iter().copied().collect())
    }

    /// How many entries have something to pass on.
    pub(super) fn entries(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.pending.len() as u64)
            .sum()
    }

    /// The oldest segment that is needed to pass something on.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.pending.front())
            .map(|pending| pending.segment)
            .min()
    }
}
