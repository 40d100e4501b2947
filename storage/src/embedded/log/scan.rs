//! Reading a segment's bytes back: which entries are there, and what its end means.
//!
//! A bad entry is the torn end of the last write when nothing behind it was written later. What was written later says so
//! itself: its group begins behind the bad entry.

use super::format::{ENTRY_HEADER_BYTES, EntryCodec, EntryHeader, FIRST_ENTRY};
use crate::journal::ENTRY_BYTES_MAX;

/// Bytes whose checksum is looked at behind a bad entry: about a second's work. Nobody can make a start take longer by what
/// he writes into messages.
const CHECKED_BYTES_MAX: u64 = 4 << 30;

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
            return Scan {
                entries,
                end: End::Sealed(end),
                last_group,
            };
        }
        entries.push((offset, header));
        offset = end;
    }
    if entries.is_empty() {
        last_group = offset;
    }
    Scan {
        end: classify(bytes, codec, offset),
        entries,
        last_group,
    }
}

/// What the bytes from `bad` on are, where no right entry begins.
fn classify(bytes: &[u8], codec: EntryCodec, bad: u32) -> End {
    let mut torn_end = bad;
    let mut from = bad;
    let mut checked_bytes = 0;
    while let Some(candidate) = codec.candidate(bytes, from) {
        from = candidate + 1;
        // Stale bytes of a recycled file may hold the number by chance or by design; elsewhere than where an entry was to
        // begin it means nothing without the checksum.
        if candidate == bad {
            torn_end = bad + ENTRY_HEADER_BYTES;
        }
        let length = EntryCodec::length(bytes, candidate)
            .filter(|length| *length as usize <= ENTRY_BYTES_MAX);
        let Some(length) = length else { continue };
        checked_bytes += u64::from(length);
        if checked_bytes > CHECKED_BYTES_MAX {
            tracing::warn!(
                offset = bad,
                "too much looks like an entry; what follows is taken for old bytes"
            );
            break;
        }
        if let Some(header) = codec.decode(bytes, candidate) {
            if header.group > bad {
                return End::Damaged(bad);
            }
            torn_end = header.end(candidate);
            from = torn_end;
        }
    }
    End::Open {
        end: bad,
        torn_bytes: torn_end - bad,
    }
}
