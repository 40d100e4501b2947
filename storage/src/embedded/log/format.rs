//! Bytes of a segment. Frozen: format version 2; a change of layout is another version. Version 1 does not say how many bytes
//! the file was made with.
//!
//! The file begins with a header of 48 bytes, alone in its first 4 KiB so that no write of an entry touches its sector:
//! magic (8) · version (u16) · 0 (u48) · data set (u128) · segment (u64) · bytes of the file (u32; 0 in
//! version 1) · CRC32C of all that (u32).
//!
//! Entries follow one another: a header of 48 bytes, then records.
//! CRC32C of all that follows (u32) · length of the records (u32) · lane (u16) · flags (u16) · group (u32) · epoch (u64) ·
//! position (u64) · time (u64, ms) · segment (u64). Integers are little endian.
//!
//! *group* is the offset at which the write began that brought the entry: entries of one group may be torn in any order by a
//! power cut, a group before the last one was durable as a whole. *segment* keeps stale bytes of a recycled file from ever
//! being taken for an entry. The CRC starts from the data set, which no client knows, and from the segment, so that nobody can
//! put an entry into the text of a message.

use rialto_protocol::ids::{Epoch, LaneId, Position};

use crate::journal::JournalError;

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: u16 = 2;
/// Where the first entry of a segment begins.
pub(super) const FIRST_ENTRY: u32 = 4096;
/// Bytes of a file header.
pub(super) const FILE_HEADER_BYTES: usize = 48;
/// Bytes before an entry's records; also the length of a seal, which has none.
pub(super) const ENTRY_HEADER_BYTES: u32 = 48;
/// Flag of the last entry of a segment: nothing follows.
pub(super) const FLAG_SEAL: u16 = 1;

static ZEROES: [u8; 4096] = [0; 4096];

const MAGIC: [u8; 8] = *b"RIALTOJL";

/// The bytes with which a segment file begins.
pub(super) fn file_header(
    data_set: u128,
    segment: u64,
    file_bytes: u32,
) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&data_set.to_le_bytes());
    bytes[32..40].copy_from_slice(&segment.to_le_bytes());
    bytes[40..44].copy_from_slice(&file_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..44]);
    bytes[44..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks the beginning of the file `name`, which should be this segment of this data set; gives how many bytes the file was
/// made with, 0 where that is not known.
pub(super) fn check_file_header(
    bytes: &[u8; FILE_HEADER_BYTES],
    data_set: u128,
    segment: u64,
    name: &str,
) -> Result<u32, JournalError> {
    if bytes[..8] != MAGIC {
        return Err(damaged(name, 0, "it does not begin like a segment"));
    }
    let version = u16::from_le_bytes(array(bytes, 8));
    if version > FORMAT_VERSION {
        return Err(JournalError::Format(format!(
            "{name} has format version {version}, this program knows versions up to {FORMAT_VERSION}: it was written by a newer one"
        )));
    }
    if version == 0 || crc32c::crc32c(&bytes[..44]) != u32::from_le_bytes(array(bytes, 44)) {
        return Err(damaged(name, 0, "its header has a wrong checksum"));
    }
    if u128::from_le_bytes(array(bytes, 16)) != data_set {
        return Err(JournalError::Format(format!(
            "{name} belongs to another data set"
        )));
    }
    let found = u64::from_le_bytes(array(bytes, 32));
    if found != segment {
        return Err(damaged(
            name,
            32,
            &format!("its header says segment {found}"),
        ));
    }
    Ok(u32::from_le_bytes(array(bytes, 40)))
}

/// The header of an entry, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    /// Bytes of records.
    pub(super) length: u32,
    pub(super) lane: LaneId,
    pub(super) flags: u16,
    /// Offset at which the write of its group began.
    pub(super) group: u32,
    pub(super) epoch: Epoch,
    pub(super) position: Position,
    pub(super) time_ms: u64,
}

impl EntryHeader {
    /// The last entry of a segment.
    pub(super) fn seal(group: u32) -> Self {
        let (epoch, position) = (Epoch(0), Position(0));
        Self {
            length: 0,
            lane: LaneId(0),
            flags: FLAG_SEAL,
            group,
            epoch,
            position,
            time_ms: 0,
        }
    }

    pub(super) fn is_seal(&self) -> bool {
        self.flags & FLAG_SEAL != 0
    }

    /// Where the entry ends that begins at `offset`.
    pub(super) fn end(&self, offset: u32) -> u32 {
        offset + ENTRY_HEADER_BYTES + self.length
    }
}

/// Seals and checks the entries of one segment.
#[derive(Clone, Copy)]
pub(super) struct EntryCodec {
    segment: u64,
    seed: u32,
}

impl EntryCodec {
    pub(super) fn new(data_set: u128, segment: u64) -> Self {
        let seed = crc32c::crc32c_append(
            crc32c::crc32c(&data_set.to_le_bytes()),
            &segment.to_le_bytes(),
        );
        Self { segment, seed }
    }

    /// The bytes before `records`.
    pub(super) fn encode(
        &self,
        header: &EntryHeader,
        records: &[u8],
    ) -> [u8; ENTRY_HEADER_BYTES as usize] {
        let mut bytes = [0; ENTRY_HEADER_BYTES as usize];
        bytes[4..8].copy_from_slice(&header.length.to_le_bytes());
        bytes[8..10].copy_from_slice(&header.lane.0.to_le_bytes());
        bytes[10..12].copy_from_slice(&header.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&header.group.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.epoch.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&header.position.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&header.time_ms.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.segment.to_le_bytes());
        let crc = self.checksum(&bytes, records);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The entry that begins at `offset` of a segment's bytes, if a whole and right one does.
    pub(super) fn decode(&self, segment: &[u8], offset: u32) -> Option<EntryHeader> {
        let rest = segment.get(offset as usize..)?;
        let bytes = rest.get(..ENTRY_HEADER_BYTES as usize)?;
        if u64::from_le_bytes(array(bytes, 40)) != self.segment {
            return None;
        }
        let length = u32::from_le_bytes(array(bytes, 4));
        let records = rest[bytes.len()..].get(..length as usize)?;
        if self.checksum(bytes, records) != u32::from_le_bytes(array(bytes, 0)) {
            return None;
        }
        let flags = u16::from_le_bytes(array(bytes, 10));
        (flags & !FLAG_SEAL == 0).then(|| EntryHeader {
            length,
            lane: LaneId(u16::from_le_bytes(array(bytes, 8))),
            flags,
            group: u32::from_le_bytes(array(bytes, 12)),
            epoch: Epoch(u64::from_le_bytes(array(bytes, 16))),
            position: Position(u64::from_le_bytes(array(bytes, 24))),
            time_ms: u64::from_le_bytes(array(bytes, 32)),
        })
    }

    /// The first offset from `from` on at which an entry may begin: where its segment would stand, it does.
    pub(super) fn candidate(&self, segment: &[u8], from: u32) -> Option<u32> {
        let pattern = self.segment.to_le_bytes();
        let mut start = from as usize + 40;
        while start + pattern.len() <= segment.len() {
            // Blocks overlap by less than the pattern. Most of what is searched has never been written.
            let block = &segment[start..segment.len().min(start + ZEROES.len())];
            if block != &ZEROES[..block.len()]
                && let Some(found) = block
                    .windows(pattern.len())
                    .position(|window| window == pattern)
            {
                return u32::try_from(start + found - 40).ok();
            }
            start += ZEROES.len() - (pattern.len() - 1);
        }
        None
    }

    /// How long the records are of the entry that may begin at `offset`.
    pub(super) fn length(segment: &[u8], offset: u32) -> Option<u32> {
        let bytes = segment.get(offset as usize + 4..)?.get(..4)?;
        Some(u32::from_le_bytes(array(bytes, 0)))
    }

    fn checksum(&self, header: &[u8], records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.seed, &header[4..]), records)
    }
}

/// Bytes that were durable are bad: what, where, and what to do now.
pub(super) fn damaged(name: &str, offset: u32, why: &str) -> JournalError {
    JournalError::Damaged(format!(
        "{name} is damaged at byte {offset}: {why}. Restore the data directory from a backup, or move it aside to start \
         afresh; nothing in it has been changed or deleted"
    ))
}

/// `N` bytes from `at` on; the caller has checked that they are there.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
