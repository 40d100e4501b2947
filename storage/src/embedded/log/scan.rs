//! Reading a segment's bytes back: which entries are there, and what its end means.
//!
//! A bad entry is the torn end of the last write when nothing behind it was written later. What was written later says so
//! itself: its group begins behind the bad entry.

use super::format::{ENTRY_HEADER_BYTES, EntryCodec, EntryHeader, FIRST_ENTRY};

/// A segment, read.
pub(super) struct Scan {
    /// Right entries from the beginning on, with the offset of each; a seal is not among them.
    pub(super) entries: Vec<(u32, EntryHeader)>,
    pub(super) end: End,
    /// Where the last write began that reached the entries; the end when there are none.
    pub(super) last_group: u32,
}

/// What stands behind the last right entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A seal, which ends at this offset.
    Sealed(u32),
    /// Nothing that counts.
    Open {
        /// Behind the last entry.
        end: u32,
        /// Bytes of an unfinished write from there on.
        torn_bytes: u32,
    },
    /// A bad entry begins at this offset, and what was written after it is there.
    Damaged(u32),
}

/// Reads all of a segment file's bytes.
pub(super) fn scan(bytes: &[u8], codec: EntryCodec) -> Scan {
    let mut entries = Vec::new();
    let mut offset = FIRST_ENTRY;
    let mut last_group = FIRST_ENTRY;
    while let Some(header) = codec.decode(bytes, offset) {
        last_group = header.group;
        let end = header.end(offset);
        if header.is_seal() {
            return Scan { entries, end: End::Sealed(end), last_group };
        }
        entries.push((offset, header));
        offset = end;
    }
    if entries.is_empty() {
        last_group = offset;
    }
    Scan { end: classify(bytes, codec, offset), entries, last_group }
}

/// What the bytes from `bad` on are, where no right entry begins.
fn classify(bytes: &[u8], codec: EntryCodec, bad: u32) -> End {
    let mut torn_end = bad;
    let mut from = bad;
    while let Some(candidate) = codec.candidate(bytes, from) {
        let decoded = codec.decode(bytes, candidate);
        if decoded.is_some_and(|header| header.group > bad) {
            return End::Damaged(bad);
        }
        let end = decoded.map_or(candidate + ENTRY_HEADER_BYTES, |header| header.end(candidate));
        torn_end = torn_end.max(end);
        from = decoded.map_or(candidate + 1, |_| end);
    }
    End::Open { end: bad, torn_bytes: torn_end - bad }
}
