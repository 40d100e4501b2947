//! Rows of the tail: keys are read from the segments, those of neighbours by bisection.

use std::ops::Range;

use bytes::Bytes;

use super::{
    check::{Checksums, damaged},
    chunk::{Chunk, RowPlace},
    lane::Rows,
    read::read,
};
use crate::{embedded::log::Segment, views::ViewsError};

/// A row's key and value; no value: it was deleted.
pub(super) type Row = (Bytes, Option<Bytes>);

fn read_row(segment: &Segment, place: &RowPlace, checksums: Checksums) -> Result<Row, ViewsError> {
    let bytes = place.key_bytes() + place.value_bytes();
    let both = read(segment, place.offset, bytes)?;
    let key = both.slice(..place.key_bytes() as usize);
    let value = both.slice(key.len()..);
    if checksums.row(&key, &value) != place.check {
        return Err(damaged(segment, place.offset));
    }
    Ok((key, (!value.is_empty()).then_some(value)))
}

/// The first row of a range whose key is `key` or greater.
fn lower_bound(
    segment: &Segment,
    chunk: &Chunk,
    range: &Range<usize>,
    key: &[u8],
    checksums: Checksums,
) -> Result<usize, ViewsError> {
    let Range { mut start, mut end } = range.clone();
    while start < end {
        let middle = start + (end - start) / 2;
        if read_row(segment, &chunk.rows[middle], checksums)?.0 < key {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(start)
}

/// The row with this key, if it is among them.
pub(super) fn find(
    rows: &Rows,
    key: &[u8],
    checksums: Checksums,
) -> Result<Option<Row>, ViewsError> {
    let row = match rows {
        Rows::Open(segment, rows) => match rows.first() {
            Some((_, place)) => read_row(segment, place, checksums)?,
            None => return Ok(None),
        },
        Rows::Frozen(segment, chunk, range) => {
            let at = lower_bound(segment, chunk, range, key, checksums)?;
            if at == range.end {
                return Ok(None);
            }
            read_row(segment, &chunk.rows[at], checksums)?
        }
    };
    Ok(Some(row).filter(|(found, _)| found == key))
}

/// Rows one after the other, by key, each read when it is its turn.
pub(super) struct Cursor {
    rows: Rows,
    checksums: Checksums,
    next: usize,
    through: Bytes,
    /// The row that comes next.
    pub(super) row: Option<Row>,
}

impl Cursor {
    /// Begins behind the key `after` (empty: with the first) and ends with `through` (empty: with the last).
    pub(super) fn new(
        rows: Rows,
        after: &Bytes,
        through: &Bytes,
        checksums: Checksums,
    ) -> Result<Self, ViewsError> {
        let next = match &rows {
            Rows::Open(..) => 0,
            Rows::Frozen(segment, chunk, range) => {
                lower_bound(segment, chunk, range, after, checksums)?
            }
        };
        let mut cursor = Self {
            rows,
            checksums,
            next,
            through: through.clone(),
            row: None,
        };
        cursor.advance()?;
        if !after.is_empty() && cursor.row.as_ref().is_some_and(|(key, _)| key == after) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// Goes on to the next row, handing out the one before.
    pub(super) fn advance(&mut self) -> Result<Option<Row>, ViewsError> {
        let row = match &self.rows {
            Rows::Open(segment, rows) => rows.get(self.next).map(|(_, place)| (segment, place)),
            Rows::Frozen(segment, chunk, range) => {
                (self.next < range.end).then(|| (segment, &chunk.rows[self.next]))
            }
        };
        let row = row.map(|(segment, place)| read_row(segment, place, self.checksums));
        self.next += 1;
        let through = &self.through;
        let row = row
            .transpose()?
            .filter(|(key, _)| through.is_empty() || key <= through);
        Ok(std::mem::replace(&mut self.row, row))
    }
}
