//! The index of one lane: of each segment its chunks, and what was appended last. What is found is taken along, so that
//! nothing is read from a file while the lane is locked.

use std::{
    collections::VecDeque,
    ops::{Deref, Range},
    sync::Arc,
};

use bytes::Bytes;
use rialto_protocol::{ids::Seq, record::Table};

use super::{
    chunk::{Chunk, EventPlace, RowPlace},
    open::{Open, OpenEvent},
    read::Located,
    senders::Senders,
};
use crate::embedded::log::Segment;

/// The index.
#[derive(Default)]
pub(super) struct Lane {
    /// Oldest segment first.
    parts: VecDeque<Part>,
    /// Belongs to the last part.
    open: Open,
}

/// What stands in one segment.
struct Part {
    segment: Arc<Segment>,
    /// Oldest first.
    chunks: Vec<Arc<Chunk>>,
}

/// Consecutive events of one conversation in one segment.
pub(super) struct Group {
    segment: Arc<Segment>,
    places: Places,
}

enum Places {
    Frozen(Arc<Chunk>, Range<usize>),
    Open(Vec<EventPlace>),
}

/// Rows of one table of one conversation, by key.
pub(super) enum Rows {
    Frozen(Arc<Segment>, Arc<Chunk>, Range<usize>),
    Open(Arc<Segment>, Vec<(Bytes, RowPlace)>),
}

impl Deref for Group {
    type Target = [EventPlace];

    fn deref(&self) -> &[EventPlace] {
        match &self.places {
            Places::Frozen(chunk, range) => &chunk.events[range.clone()],
            Places::Open(places) => places,
        }
    }
}

impl Group {
    pub(super) fn located(&self, place: &EventPlace) -> Located {
        Located::new(&self.segment, place)
    }

    /// Its events `from..=to`.
    pub(super) fn range(&self, from: Seq, to: Seq) -> &[EventPlace] {
        let start = self.partition_point(|place| place.seq() < from);
        let end = self.partition_point(|place| place.seq() <= to);
        &self[start..end.max(start)]
    }

    /// Leaves out what is before a gap: whatever that is, the newest has to be found.
    fn without_gaps(self) -> Self {
        // They rise, so that their number tells whether any is missing: each page of a long log asks.
        if let (Some(first), Some(last)) = (self.first(), self.last())
            && last.seq().0 - first.seq().0 + 1 == self.len() as u64
        {
            return self;
        }
        let consecutive = |pair: &[EventPlace]| pair[0].seq().next() == pair[1].seq();
        let start = match self.windows(2).rposition(|pair| !consecutive(pair)) {
            Some(gap) => gap + 1,
            None => return self,
        };
        let places = match self.places {
            Places::Frozen(chunk, range) => Places::Frozen(chunk, range.start + start..range.end),
            Places::Open(mut places) => {
                places.drain(..start);
                Places::Open(places)
            }
        };
        Self { places, ..self }
    }
}

impl Lane {
    /// What follows stands in this segment.
    pub(super) fn begin(&mut self, segment: &Arc<Segment>) {
        let same = |part: &Part| part.segment.number() == segment.number();
        if !self.parts.back().is_some_and(same) {
            self.freeze();
            self.parts.push_back(Part {
                segment: Arc::clone(segment),
                chunks: Vec::new(),
            });
        }
    }

    pub(super) fn add_event(&mut self, event: OpenEvent) {
        self.open.add_event(event);
        if self.open.is_full() {
            self.freeze();
        }
    }

    pub(super) fn add_row(&mut self, place: RowPlace, key: &[u8]) {
        self.open.add_row(place, key);
        if self.open.is_full() {
            self.freeze();
        }
    }

    fn freeze(&mut self) {
        if let Some(part) = self.parts.back_mut() {
            part.chunks.extend(self.open.freeze().map(Arc::new));
        }
    }

    /// Takes out what stands in segments up to this one, for the caller to free.
    pub(super) fn forget(&mut self, segment: u64) -> Self {
        let mut forgotten = Self::default();
        while let Some(part) = self
            .parts
            .pop_front_if(|part| part.segment.number() <= segment)
        {
            forgotten.parts.push_back(part);
        }
        if self.parts.is_empty() {
            std::mem::swap(&mut forgotten.open, &mut self.open);
        }
        forgotten
    }

    /// The conversation's events, oldest first; no event between two groups is missing.
    pub(super) fn groups(&self, conversation: u64) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut add = |segment: &Arc<Segment>, places: Places| {
            let segment = Arc::clone(segment);
            let group = Group { segment, places }.without_gaps();
            let Some(first) = group.first() else { return };
            let before = groups.last().and_then(|group| group.last());
            if before.is_some_and(|before| before.seq().next() != first.seq()) {
                tracing::error!(seq = first.seq().0, "an event is out of order");
                groups.clear();
            }
            groups.push(group);
        };
        for part in &self.parts {
            for chunk in &part.chunks {
                let range = chunk.events_of(conversation);
                if !range.is_empty() {
                    add(&part.segment, Places::Frozen(Arc::clone(chunk), range));
                }
            }
        }
        if let Some(part) = self.parts.back() {
            add(
                &part.segment,
                Places::Open(self.open.events_of(conversation)),
            );
        }
        groups
    }

    /// What may be the user's devices'.
    pub(super) fn senders(&self, conversation: u64, user: u32) -> Senders {
        let mut senders = Senders::default();
        for part in &self.parts {
            for chunk in &part.chunks {
                let range = chunk.senders_of(user);
                if !range.is_empty() {
                    let (segment, chunk) = (Arc::clone(&part.segment), Arc::clone(chunk));
                    senders.frozen.push((segment, chunk, range));
                }
            }
        }
        senders.open = self.parts.back().map(|part| {
            let open = self.open.senders(conversation, user);
            (Arc::clone(&part.segment), open)
        });
        senders
    }

    /// Where the row may be, newest first, ending with the first place where it is for certain.
    pub(super) fn row(&self, conversation: u64, table: Table, key: &[u8]) -> Vec<Rows> {
        let mut found = Vec::new();
        if let Some(part) = self.parts.back()
            && let Some(place) = self.open.row(conversation, table, key)
        {
            let row = (Bytes::copy_from_slice(key), place);
            return vec![Rows::Open(Arc::clone(&part.segment), vec![row])];
        }
        self.frozen_rows(conversation, table, &mut found);
        found
    }

    /// Rows of a table whose keys `wanted` takes (those of chunks are not looked at), newest first.
    pub(super) fn rows(
        &self,
        conversation: u64,
        table: Table,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<Rows> {
        let mut found = Vec::new();
        if let Some(part) = self.parts.back() {
            let rows = self.open.rows(conversation, table, wanted);
            found.push(Rows::Open(Arc::clone(&part.segment), rows));
        }
        self.frozen_rows(conversation, table, &mut found);
        found
    }

    fn frozen_rows(&self, conversation: u64, table: Table, found: &mut Vec<Rows>) {
        for part in self.parts.iter().rev() {
            for chunk in part.chunks.iter().rev() {
                let range = chunk.rows_of(conversation, table);
                if !range.is_empty() {
                    found.push(Rows::Frozen(
                        Arc::clone(&part.segment),
                        Arc::clone(chunk),
                        range,
                    ));
                }
            }
        }
    }
}
