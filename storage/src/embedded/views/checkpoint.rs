//! How far the views have come, in one small file beside them: `views.checkpoint`.
//!
//! CRC32C of all that follows (u32) · version (u8) · generation (u64) · newest journal time (u64, ms) · first window of
//! events that is kept (u32) · number of windows of events (u32) · these windows (u32 each) · the log's part
//! ([`ViewCheckpoint::encode`]). Integers are little endian.

use std::path::Path;

use bytes::{Buf, BufMut};

use super::super::{
    format::write_durably,
    log::{LaneTail, ViewCheckpoint},
};
use crate::journal::JournalError;

/// Name of the file.
pub(crate) const FILE: &str = "views.checkpoint";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 25;

/// What the views hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Which directory below `views` holds the database.
    pub(crate) generation: u64,
    /// Greatest journal time in the views, milliseconds since 1970.
    pub(crate) newest_time_ms: u64,
    /// Events of windows before this one are not kept.
    pub(crate) events_from: u32,
    /// Windows of events that exist.
    pub(crate) events_windows: Vec<u32>,
    /// The first segment that is not wholly in the views.
    pub(crate) segment: u64,
    /// See [`ViewCheckpoint`].
    pub(crate) outbox_segment: u64,
    /// See [`ViewCheckpoint`].
    pub(crate) lanes: Vec<LaneTail>,
}

impl Checkpoint {
    /// Of a database that is empty.
    pub(crate) fn empty(generation: u64) -> Self {
        let log = ViewCheckpoint::default();
        Self {
            generation,
            newest_time_ms: 0,
            events_from: 0,
            events_windows: Vec::new(),
            segment: log.segment,
            outbox_segment: log.outbox_segment,
            lanes: log.lanes,
        }
    }

    /// Whether the views hold nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.segment == ViewCheckpoint::default().segment
    }

    /// The log's part of it.
    pub(crate) fn of_log(&self) -> ViewCheckpoint {
        let Self {
            segment,
            outbox_segment,
            lanes,
            ..
        } = self;
        ViewCheckpoint {
            segment: *segment,
            outbox_segment: *outbox_segment,
            lanes: lanes.clone(),
        }
    }

    /// Takes over how far the log's segments are in.
    pub(crate) fn advance(&mut self, log: ViewCheckpoint) {
        let ViewCheckpoint {
            segment,
            outbox_segment,
            lanes,
        } = log;
        (self.segment, self.outbox_segment, self.lanes) = (segment, outbox_segment, lanes);
    }

    /// Reads the file; `None`: there is none.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, JournalError> {
        let path = data.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::Io {
                what: format!("reading {}", path.display()),
                cause: error.to_string(),
            }),
        }
    }

    /// Writes the file; durable on return.
    pub(crate) fn store(&self, data: &Path) -> Result<(), JournalError> {
        write_durably(data, FILE, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.put_u8(VERSION);
        bytes.put_u64_le(self.generation);
        bytes.put_u64_le(self.newest_time_ms);
        bytes.put_u32_le(self.events_from);
        bytes.put_u32_le(u32::try_from(self.events_windows.len()).unwrap_or(u32::MAX));
        for window in &self.events_windows {
            bytes.put_u32_le(*window);
        }
        bytes.extend_from_slice(&self.of_log().encode());
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, JournalError> {
        let damaged = || JournalError::Damaged(format!("{FILE} is damaged"));
        if bytes.len() < 4 + HEAD_BYTES || bytes.get_u32_le() != crc32c::crc32c(bytes) {
            return Err(damaged());
        }
        let version = bytes.get_u8();
        if version != VERSION {
            let text = format!(
                "{FILE} has version {version}, this program knows {VERSION}: use the program that wrote it"
            );
            return Err(JournalError::Format(text));
        }
        let (generation, newest_time_ms) = (bytes.get_u64_le(), bytes.get_u64_le());
        let (events_from, windows) = (bytes.get_u32_le(), bytes.get_u32_le() as usize);
        if bytes.len() / 4 < windows {
            return Err(damaged());
        }
        let events_windows = (0..windows).map(|_| bytes.get_u32_le()).collect();
        let ViewCheckpoint {
            segment,
            outbox_segment,
            lanes,
        } = ViewCheckpoint::decode(bytes)?;
        Ok(Self {
            generation,
            newest_time_ms,
            events_from,
            events_windows,
            segment,
            outbox_segment,
            lanes,
        })
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::{Epoch, LaneId, Position};

    use super::*;

    #[test]
    fn a_checkpoint_comes_back_as_it_was_and_no_flipped_bit_passes() {
        let lane = LaneTail {
            lane: LaneId(5),
            position: Position(9),
            epoch: Epoch(2),
            time_ms: 77,
            outbox_done: Position(3),
        };
        let mut checkpoint = Checkpoint {
            events_windows: vec![4, 5],
            events_from: 4,
            ..Checkpoint::empty(3)
        };
        checkpoint.advance(ViewCheckpoint {
            segment: 8,
            outbox_segment: 7,
            lanes: vec![lane],
        });
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(dir.path()).unwrap(), None);
        checkpoint.store(dir.path()).unwrap();
        assert_eq!(
            Checkpoint::load(dir.path()).unwrap(),
            Some(checkpoint.clone())
        );
        let bytes = checkpoint.encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(
                matches!(Checkpoint::decode(&bad), Err(JournalError::Damaged(_))),
                "byte {at}"
            );
            assert!(Checkpoint::decode(&bytes[..at]).is_err());
        }
    }
}
