//! Reading what the index has found from its segments.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    check::{Checksums, damaged},
    chunk::EventPlace,
};
use crate::{embedded::log::Segment, views::ViewsError};

/// Neighbours that are not further apart than this are read together: what stands between them costs less than another call.
const GAP_BYTES_MAX: u32 = 1024;
/// Longest read that takes neighbours along.
const READ_BYTES_MAX: u32 = 64 << 10;

/// Where an event stands. Holding it keeps its segment readable.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    /// Checksum of the event.
    pub(super) check: u32,
}

impl Located {
    pub(super) fn new(segment: &Arc<Segment>, place: &EventPlace) -> Self {
        Self {
            segment: Arc::clone(segment),
            offset: place.offset,
            bytes: place.bytes(),
            check: place.check(),
        }
    }

    fn end(&self) -> u32 {
        self.offset + self.bytes
    }

    /// What was read, if it is what was appended.
    fn checked(&self, bytes: Bytes, checksums: Checksums) -> Result<Bytes, ViewsError> {
        if checksums.event(&bytes) != self.check {
            return Err(damaged(&self.segment, self.offset));
        }
        Ok(bytes)
    }
}

/// Reads an event of the conversation whose checksums these are.
pub(super) fn read_one(located: &Located, checksums: Checksums) -> Result<Bytes, ViewsError> {
    let bytes = read(&located.segment, located.offset, located.bytes)?;
    located.checked(bytes, checksums)
}

/// Reads many, in their order; each is a slice of what was read with it.
pub(super) fn read_all(
    located: &[Located],
    checksums: Checksums,
) -> Result<Vec<Bytes>, ViewsError> {
    let mut all = Vec::with_capacity(located.len());
    let groups = located.chunk_by(|before, next| {
        // A group's length is bounded by what follows; here only neighbours are compared.
        Arc::ptr_eq(&before.segment, &next.segment)
            && next.offset >= before.end()
            && next.offset - before.end() <= GAP_BYTES_MAX
    });
    for mut group in groups {
        if let [first, .., last] = group
            && last.end() - first.offset > READ_BYTES_MAX
        {
            first
                .segment
                .will_need(first.offset, last.end() - first.offset);
        }
        while let [first, ..] = group {
            let fits = group
                .iter()
                .take_while(|located| located.end() - first.offset <= READ_BYTES_MAX)
                .count()
                .max(1);
            let (together, rest) = group.split_at(fits);
            let end = together[fits - 1].end();
            let bytes = read(&first.segment, first.offset, end - first.offset)?;
            for located in together {
                let start = (located.offset - first.offset) as usize;
                let event = bytes.slice(start..start + located.bytes as usize);
                all.push(located.checked(event, checksums)?);
            }
            group = rest;
        }
    }
    Ok(all)
}

/// Reads bytes that are not checked yet.
pub(super) fn read(segment: &Segment, offset: u32, bytes: u32) -> Result<Bytes, ViewsError> {
    segment.read(offset, bytes).map_err(|error| ViewsError::Io {
        what: format!("read segment {}", segment.number()),
        cause: error.to_string(),
    })
}
