//! Segments on their way into the views, and the checkpoint that the views keep of the log.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use rialto_protocol::ids::{Epoch, LaneId, Position};

use super::{
    Blocks, Segment, Shared,
    format::{ENTRY_HEADER_BYTES, EntryCodec, FIRST_ENTRY, damaged},
    io_error, locked,
    segment::Sealed,
};
use crate::journal::JournalError;

/// How far the views have come in the log, kept by the views together with what they made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViewCheckpoint {
    /// The first segment that is not wholly in the views.
    pub(crate) segment: u64,
    /// The first segment that holds outbox records which have not been passed on; at most `segment`.
    pub(crate) outbox_segment: u64,
    /// Tails of the lanes where `segment` begins; lanes without an entry are left out.
    pub(crate) lanes: Vec<LaneTail>,
}

/// The end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneTail {
    /// The lane.
    pub(crate) lane: LaneId,
    /// Of its last entry.
    pub(crate) position: Position,
    /// Of its last entry.
    pub(crate) epoch: Epoch,
    /// Of its last entry, milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// Outbox records up to this position have been passed on.
    pub(crate) outbox_done: Position,
}

impl Default for ViewCheckpoint {
    /// Of views that hold nothing.
    fn default() -> Self {
        Self {
            segment: 1,
            outbox_segment: 1,
            lanes: Vec::new(),
        }
    }
}

const CHECKPOINT_VERSION: u8 = 1;
const LANE_TAIL_BYTES: usize = 34;

impl ViewCheckpoint {
    /// Its bytes, which say their version.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(17 + self.lanes.len() * LANE_TAIL_BYTES);
        bytes.put_u8(CHECKPOINT_VERSION);
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.outbox_segment);
        for tail in &self.lanes {
            bytes.put_u16_le(tail.lane.0);
            bytes.put_u64_le(tail.position.0);
            bytes.put_u64_le(tail.epoch.0);
            bytes.put_u64_le(tail.time_ms);
            bytes.put_u64_le(tail.outbox_done.0);
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`JournalError::Format`] for a newer version, [`JournalError::Damaged`] for bytes that are none.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, JournalError> {
        match bytes.first() {
            Some(&version) if version > CHECKPOINT_VERSION => {
                let text = format!(
                    "the views' checkpoint has version {version}: it was written by a newer program"
                );
                return Err(JournalError::Format(text));
            }
            Some(&CHECKPOINT_VERSION)
                if bytes.len() >= 17 && (bytes.len() - 17).is_multiple_of(LANE_TAIL_BYTES) => {}
            _ => {
                return Err(JournalError::Damaged(
                    "the views' checkpoint cannot be read".to_owned(),
                ));
            }
        }
        bytes.advance(1);
        let (segment, outbox_segment) = (bytes.get_u64_le(), bytes.get_u64_le());
        let mut lanes = Vec::with_capacity(bytes.len() / LANE_TAIL_BYTES);
        while bytes.has_remaining() {
            lanes.push(LaneTail {
                lane: LaneId(bytes.get_u16_le()),
                position: Position(bytes.get_u64_le()),
                epoch: Epoch(bytes.get_u64_le()),
                time_ms: bytes.get_u64_le(),
                outbox_done: Position(bytes.get_u64_le()),
            });
        }
        Ok(Self {
            segment,
            outbox_segment,
            lanes,
        })
    }
}

/// A segment that is written to its end and not in the views yet.
pub(crate) struct SealedSegment {
    sealed: Sealed,
    shared: Arc<Shared>,
}

impl SealedSegment {
    pub(super) fn new(sealed: Sealed, shared: Arc<Shared>) -> Self {
        Self { sealed, shared }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.sealed.number()
    }

    /// Bytes up to the end of its last entry.
    pub(crate) fn bytes(&self) -> u32 {
        self.sealed.end
    }

    /// What the views have to keep, durably, together with what this segment holds, before they call [`super::Log::viewed`].
    pub(crate) fn checkpoint(&self) -> ViewCheckpoint {
        let segment = self.number() + 1;
        let pending = locked(&self.shared.outbox).oldest_segment();
        let outbox_segment = pending.map_or(segment, |pending| pending.min(segment));
        self.shared.segments.lock().outbox_noted = Some(outbox_segment);
        ViewCheckpoint {
            segment,
            outbox_segment,
            lanes: self.sealed.lanes.to_vec(),
        }
    }

    /// Reads the segment into a buffer, in place of what it held, `step_bytes` at a time; `between` is called after each.
    ///
    /// # Errors
    /// [`JournalError::Io`] when it cannot be read.
    pub(crate) fn read(
        &self,
        step_bytes: usize,
        buffer: &mut Blocks,
        between: &mut dyn FnMut(),
    ) -> Result<(), JournalError> {
        let Shared {
            disk, directory, ..
        } = &*self.shared;
        let place = (&**disk, &**directory);
        self.sealed
            .read_into(place, self.sealed.end, step_bytes, buffer, between)
            .map_err(|error| io_error(format!("read {}", self.sealed.name()), &error))
    }

    /// The entries in what [`Self::read`] has read.
    pub(crate) fn entries<'b>(&self, bytes: &'b [u8]) -> Entries<'b> {
        Entries::of(&self.sealed, bytes)
    }
}

/// An entry in a segment's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredEntry<'b> {
    /// The lane.
    pub(crate) lane: LaneId,
    /// Of the owner that wrote it.
    pub(crate) epoch: Epoch,
    /// In the lane.
    pub(crate) position: Position,
    /// Journal time, milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// Where its records begin in the segment.
    pub(crate) offset: u32,
    /// Its records.
    pub(crate) records: &'b [u8],
}

/// The entries of a sealed segment, in the order in which they were written, each checked once more.
pub(crate) struct Entries<'b> {
    bytes: &'b [u8],
    codec: EntryCodec,
    name: String,
    offset: u32,
}

impl<'b> Entries<'b> {
    /// The entries of a segment in its bytes, which end with the last of them.
    pub(super) fn of(segment: &Segment, bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            codec: segment.codec(),
            name: segment.name(),
            offset: FIRST_ENTRY,
        }
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<StoredEntry<'b>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset as usize >= self.bytes.len() {
            return None;
        }
        let Some(header) = self.codec.decode(self.bytes, self.offset) else {
            let error = damaged(
                &self.name,
                self.offset,
                "an entry that was durable has a wrong checksum",
            );
            self.bytes = &[];
            return Some(Err(error));
        };
        let offset = self.offset + ENTRY_HEADER_BYTES;
        self.offset = header.end(self.offset);
        Some(Ok(StoredEntry {
            lane: header.lane,
            epoch: header.epoch,
            position: header.position,
            time_ms: header.time_ms,
            offset,
            records: &self.bytes[offset as usize..self.offset as usize],
        }))
    }
}
