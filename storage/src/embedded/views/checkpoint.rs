//! How far the views have come, in one small file beside them: `views.checkpoint`.
//!
//! CRC32C of all that follows (u32) · version (u8) · generation (u64) · newest journal time (u64, ms) · first window of
//! events that is kept (u32) · number of windows of events (u32) · these windows (u32 each) · number of windows of sent ids (u32)
//! · these windows (u32 each) · the log's part ([`ViewCheckpoint::encode`]). Integers are little endian. Version 1 does not name
//! the windows of sent ids.

use std::path::Path;

use bytes::{Buf, BufMut};

use super::super::{
    format::write_durably,
    log::{LaneTail, ViewCheckpoint},
};
use crate::journal::JournalError;

/// Name of the file.
pub(crate) const FILE: &str = "views.checkpoint";
const VERSION: u8 = 2;
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
    /// Windows of sent ids that exist and are kept, as far as it is known.
    pub(crate) sent_windows: Vec<u32>,
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
            sent_windows: Vec::new(),
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
        for windows in [&self.events_windows, &self.sent_windows] {
            bytes.put_u32_le(u32::try_from(windows.len()).unwrap_or(u32::MAX));
            for window in windows {
                bytes.put_u32_le(*window);
            }
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
        if !(1..=VERSION).contains(&version) {
            let text = format!(
                "{FILE} has version {version}, this program knows versions up to {VERSION}: use the program that wrote it"
            );
            return Err(JournalError::Format(text));
        }
        let (generation, newest_time_ms) = (bytes.get_u64_le(), bytes.get_u64_le());
        let events_from = bytes.get_u32_le();
        let events_windows = windows(&mut bytes).ok_or_else(damaged)?;
        let sent_windows = if version == 1 {
            Vec::new()
        } else {
            windows(&mut bytes).ok_or_else(damaged)?
        };
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
            sent_windows,
            segment,
            outbox_segment,
            lanes,
        })
    }
}

/// Their number, and as many.
fn windows(bytes: &mut &[u8]) -> Option<Vec<u32>> {
    let number = bytes.try_get_u32_le().ok()? as usize;
    (bytes.len() / 4 >= number).then(|| (0..number).map(|_| bytes.get_u32_le()).collect())
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
            sent_windows: vec![5],
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
        // As version 2 was first written.
        let frozen = "05c0aff402030000000000000000000000000000000400000002000000\
                      0400000005000000010000000500000001080000000000000007000000000000000500\
                      090000000000000002000000000000004d000000000000000300000000000000";
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, frozen, "another layout is another version");
    }

    #[test]
    fn a_checkpoint_of_version_1_is_read_and_names_no_windows_of_sent_ids() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-v1");
        let checkpoint = Checkpoint::load(&fixture).unwrap().unwrap();
        assert_eq!(checkpoint.sent_windows, [0; 0]);
        assert_eq!(checkpoint.events_windows.len(), 1);
        assert!(checkpoint.segment > 1 && !checkpoint.lanes.is_empty());
    }
}
