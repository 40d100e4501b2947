//! The log as its callers see it, over a disk that fails and loses what was not synced.

mod checks;
mod disk;
mod faults;
mod fixture;
mod lifecycle;
mod machine;
mod recovery;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    ids::{ConversationId, Epoch, LaneId, Position, UserId},
    record::{Table, put_outbox, put_outbox_done, put_row},
};

use self::disk::FakeDisk;
use super::{
    Log, LogOptions, Recovered, ViewCheckpoint,
    segment::{Sealed, States},
};
use crate::journal::{AppendError, Claim, Entry, JournalError};

const DATA_SET: u128 = 0x0123_4567_89ab_cdef;
const LANES: u16 = 4;

/// Segments that a handful of entries fills.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 8 << 10,
        // Journal time begins with 1970 in these tests.
        keep_ms: u64::MAX,
        full_retry: Duration::from_millis(1),
        lag_segments_soft: 1000,
        lag_segments_hard: 2000,
        ..LogOptions::new(DATA_SET, LANES)
    }
}

fn open_with(
    disk: &Arc<FakeDisk>,
    options: LogOptions,
    viewed: &ViewCheckpoint,
) -> Result<(Log, Recovered), JournalError> {
    let disk = Arc::clone(disk);
    Log::open_on(disk, Path::new("data"), options, viewed)
}

fn open(disk: &Arc<FakeDisk>) -> (Log, Recovered) {
    open_with(disk, small(), &ViewCheckpoint::default()).unwrap()
}

/// Waits for the one answer of a call.
fn answer<T: Send + 'static>(call: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}

fn append(log: &Log, entries: Vec<Entry>) -> Result<(), AppendError> {
    answer(|done| log.append(entries, done))
}

fn claim(log: &Log) -> Vec<Claim> {
    answer(|done| log.claim((0..LANES).map(LaneId).collect(), done)).unwrap()
}

fn seal(log: &Log) -> u64 {
    answer(|done| log.seal(done)).unwrap()
}

/// Writes lanes as an owner does.
struct Owner {
    epoch: Epoch,
    tails: Vec<(Position, u64)>,
}

impl Owner {
    fn of(log: &Log) -> Self {
        let claims = claim(log);
        let epoch = claims[0].epoch;
        Self {
            epoch,
            tails: claims
                .iter()
                .map(|claim| (claim.tail, claim.time_ms))
                .collect(),
        }
    }

    fn next(&mut self, lane: u16, records: Bytes) -> Entry {
        let (position, time_ms) = &mut self.tails[usize::from(lane)];
        (*position, *time_ms) = (position.next(), *time_ms + 1);
        Entry {
            lane: LaneId(lane),
            epoch: self.epoch,
            position: *position,
            time_ms: *time_ms,
            records,
        }
    }

    /// An entry with one row.
    fn row(&mut self, lane: u16, key: u8, bytes: usize) -> Entry {
        self.next(lane, row(key, bytes))
    }
}

fn row(key: u8, bytes: usize) -> Bytes {
    let mut records = BytesMut::new();
    put_row(
        &mut records,
        &ConversationId::from_bytes([1; 16]),
        Table::Member,
        &[key],
        &vec![key; bytes],
    );
    records.freeze()
}

fn outbox(notices: &[&[u8]]) -> Bytes {
    let mut records = BytesMut::new();
    for notice in notices {
        put_outbox(&mut records, &UserId::from_bytes([2; 16]), notice);
    }
    records.freeze()
}

fn outbox_done(through: Position) -> Bytes {
    let mut records = BytesMut::new();
    put_outbox_done(&mut records, through);
    records.freeze()
}

/// Everything in sealed segments, in the order in which it was written.
fn sealed_entries(log: &Log) -> Vec<Entry> {
    let sealed: Vec<Sealed> = log.shared.segments.lock().sealed.iter().cloned().collect();
    let entries = sealed
        .iter()
        .flat_map(|sealed| entries_in(&sealed.segment, sealed.end).unwrap());
    entries.collect()
}

fn entries_of(segment: &super::SealedSegment) -> Vec<Entry> {
    let mut bytes = super::Blocks::default();
    segment.read(1 << 20, &mut bytes, &mut || {}).unwrap();
    segment
        .entries(&bytes)
        .map(|entry| owned(&entry.unwrap()))
        .collect()
}

fn entries_in(segment: &super::Segment, end: u32) -> Result<Vec<Entry>, JournalError> {
    let bytes = segment.read(0, end).unwrap();
    super::sealed::Entries::of(segment, &bytes)
        .map(|entry| Ok(owned(&entry?)))
        .collect()
}

fn owned(entry: &super::StoredEntry<'_>) -> Entry {
    Entry {
        lane: entry.lane,
        epoch: entry.epoch,
        position: entry.position,
        time_ms: entry.time_ms,
        records: Bytes::copy_from_slice(entry.records),
    }
}

/// Brings every sealed segment into views that keep nothing but the checkpoint.
fn view_all(log: &Log, checkpoint: &mut ViewCheckpoint) {
    while let Some(segment) = log.sealed_unviewed() {
        *checkpoint = segment.checkpoint();
        log.viewed(segment.number());
    }
}

/// Waits until the segments are in such a state.
fn wait_until(log: &Log, condition: impl Fn(&States) -> bool) {
    let mut states = log.shared.segments.lock();
    while !condition(&states) {
        states = log.shared.segments.wait(states);
    }
}

/// A log with one entry in a segment that is not full.
pub(in crate::embedded) fn not_sealed() -> Log {
    let (log, _) = open(&FakeDisk::new());
    let mut owner = Owner::of(&log);
    append(&log, vec![owner.row(0, 1, 100)]).unwrap();
    log
}

/// A log with one sealed segment, and a way to say how many more bytes its disk takes, for tests of what stands behind it.
pub(in crate::embedded) fn sealed_on_a_small_disk() -> (Log, impl Fn(Option<usize>)) {
    sealed_at(1)
}

/// The same, of an entry of this journal time.
pub(in crate::embedded) fn sealed_at(time_ms: u64) -> (Log, impl Fn(Option<usize>)) {
    let disk = FakeDisk::new();
    let (log, _) = open(&disk);
    let mut owner = Owner::of(&log);
    let entry = Entry {
        time_ms,
        ..owner.row(0, 1, 100)
    };
    append(&log, vec![entry]).unwrap();
    seal(&log);
    (log, move |room| disk.set_room(room))
}

/// A log with two sealed segments, each with a row of so many bytes.
pub(in crate::embedded) fn sealed_twice(bytes: usize) -> Log {
    let options = LogOptions {
        segment_bytes: 4 << 20,
        ..small()
    };
    let (log, _) = open_with(&FakeDisk::new(), options, &ViewCheckpoint::default()).unwrap();
    let mut owner = Owner::of(&log);
    for key in 1..=2 {
        append(&log, vec![owner.row(0, key, bytes)]).unwrap();
        seal(&log);
    }
    log
}
