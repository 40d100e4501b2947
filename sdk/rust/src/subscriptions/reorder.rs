//! Events that are here before their turn: beyond a gap, or of a handle that is not announced yet.

use std::collections::{BTreeMap, HashMap};

use rialto_protocol::v1;

/// Handles of which runs are kept ahead of the answer that announces them.
pub(super) const HANDLES_MAX: usize = 64 * 1024;

/// The events of one Deliver, and the bytes they came in.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) events: Vec<v1::Event>,
    pub(super) bytes: usize,
}

impl Run {
    pub(super) fn first(&self) -> Option<u64> {
        self.events.first().map(|event| event.seq)
    }

    pub(super) fn is_consecutive(&self) -> bool {
        self.events
            .windows(2)
            .all(|pair| pair[0].seq.checked_add(1) == Some(pair[1].seq))
    }

    /// Drops the events below `seq` of consecutive ones.
    pub(super) fn skip_below(&mut self, seq: u64) {
        let Some(first) = self.first() else { return };
        let repeated = usize::try_from(seq.saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(self.events.len());
        if repeated > 0 {
            self.events.drain(..repeated);
        }
    }
}

/// Runs beyond the next event of one subscription, by their first event.
#[derive(Debug, Default)]
pub(super) struct HoldBack {
    runs: BTreeMap<u64, Run>,
    bytes: usize,
}

impl HoldBack {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Holds a run back. How many bytes more are held than before: of two that begin alike the longer one stays.
    pub(super) fn insert(&mut self, run: Run) -> usize {
        let Some(first) = run.first() else { return 0 };
        let before = self.bytes;
        match self.runs.get_mut(&first) {
            Some(held) if held.events.len() >= run.events.len() => {}
            Some(held) => {
                // Longer, so with more bytes; saturating, since that is for the server to say.
                self.bytes = self.bytes - held.bytes + run.bytes.max(held.bytes);
                *held = Run {
                    bytes: run.bytes.max(held.bytes),
                    ..run
                };
            }
            None => {
                self.bytes += run.bytes;
                self.runs.insert(first, run);
            }
        }
        self.bytes - before
    }

    /// The first run, if it begins with `next` at the latest.
    pub(super) fn take_up_to(&mut self, next: u64) -> Option<Run> {
        let first = self
            .runs
            .first_entry()
            .filter(|first| *first.key() <= next)?;
        let run = first.remove();
        self.bytes -= run.bytes;
        Some(run)
    }
}

/// Runs by handles that no answer has announced yet.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_handle: HashMap<u32, Family>,
    /// Runs of more handles had to be thrown away.
    overflowed: bool,
}

#[derive(Debug, Default)]
struct Family {
    runs: Vec<Run>,
    overflowed: bool,
}

impl Orphans {
    /// Keeps a run if there is `room` for its bytes. How many bytes it took.
    pub(super) fn hold(&mut self, handle: u32, run: Run, room: usize) -> usize {
        if run.events.is_empty() {
            return 0;
        }
        if self.by_handle.len() == HANDLES_MAX && !self.by_handle.contains_key(&handle) {
            self.overflowed = true;
            return 0;
        }
        let family = self.by_handle.entry(handle).or_default();
        if run.bytes > room {
            family.overflowed = true;
            return 0;
        }
        let bytes = run.bytes;
        family.runs.push(run);
        bytes
    }

    /// The runs of a handle, and whether some had to be thrown away.
    pub(super) fn take(&mut self, handle: u32) -> (Vec<Run>, bool) {
        let family = self.by_handle.remove(&handle).unwrap_or_default();
        (family.runs, family.overflowed || self.overflowed)
    }

    /// Forgets all. How many bytes they had.
    pub(super) fn clear(&mut self) -> usize {
        self.overflowed = false;
        self.by_handle
            .drain()
            .flat_map(|(_, family)| family.runs)
            .map(|run| run.bytes)
            .sum()
    }
}
