//! Rows of the tail: keys are read from the segments, those of neighbours by bisection.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    chunk::{Chunk, RowPlace},
    lane::Rows,
    read::{Located, read_one},
};
use crate::{embedded::log::Segment, views::ViewsError};

/// A row's key and value; no value: it was deleted.
pub(super) type Row = (Bytes, Option<Bytes>);

fn read_row(segment: &Arc<Segment>, place: &RowPlace) -> Result<Row, ViewsError> {
    let both = read_one(&Located {
        segment: Arc::clone(segment),
        offset: place.offset,
        bytes: place.key_bytes() + place.value_bytes(),
    })?;
    let key = both.slice(..place.key_bytes() as usize);
    let value = both.slice(key.len()..);
    Ok((key, (!value.is_empty()).then_some(value)))
}

/// The first row of a range whose key is `key` or greater.
fn lower_bound(
    segment: &Arc<Segment>,
    chunk: &Chunk,
    range: &Range<usize>,
    key: &[u8],
) -> Result<usize, ViewsError> {
    let Range { mut start, mut end } = range.clone();
    while start < end {
        let middle = start + (end - start) / 2;
        if read_row(segment, &chunk.rows[middle])?.0 < key {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(start)
}

/// The row with this key, if it is among them.
pub(super) fn find(rows: &Rows, key: &[u8]) -> Result<Option<Row>, ViewsError> {
    let row = match rows {
        Rows::Open(segment, rows) => match rows.first() {
            Some((_, place)) => read_row(segment, place)?,
            None => return Ok(None),
        },
        Rows::Frozen(segment, chunk, range) => {
            let at = lower_bound(segment, chunk, range, key)?;
            if at == range.end {
                return Ok(None);
            }
            read_row(segment, &chunk.rows[at])?
        }
    };
    Ok(Some(row).filter(|(found, _)| found == key))
}

/// Rows one after the other, by key, each read when it is its turn.
pub(super) struct Cursor {
    rows: Rows,
    next: usize,
    through: Bytes,
    /// The row that comes next.
    pub(super) row: Option<Row>,
}

impl Cursor {
    /// Begins behind the key `after` (empty: with the first) and ends with `through` (empty: with the last).
    pub(super) fn new(rows: Rows, after: &Bytes, through: &Bytes) -> Result<Self, ViewsError> {
        let next = match &rows {
            Rows::Open(..) => 0,
            Rows::Frozen(segment, chunk, range) => lower_bound(segment, chunk, range, after)?,
        };
        let mut cursor = Self {
            rows,
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
            Rows::Open(segment, rows) => rows
                .get(self.next)
                .map(|(_, place)| read_row(segment, place)),
            Rows::Frozen(segment, chunk, range) => {
                (self.next < range.end).then(|| read_row(segment, &chunk.rows[self.next]))
            }
        };
        self.next += 1;
        let through = &self.through;
        let row = row
            .transpose()?
            .filter(|(key, _)| through.is_empty() || key <= through);
        Ok(std::mem::replace(&mut self.row, row))
    }
}
