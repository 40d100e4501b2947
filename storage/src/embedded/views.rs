//! The embedded views: a fjall database made from sealed segments, and read together with what is not in it yet.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `codec` | bytes of keys and values |
//! | `gather` | a segment's entries, sorted the way that views are |
//! | `sink` | bulk ingestion into one keyspace |
//! | `apply` | a gathered segment into the keyspaces, in one pass |
//! | `partitions` | windows of time: which there are, and which are kept |
//! | `leaving` | windows that are not kept, on their way out |
//! | `read` | reads of the database alone |
//! | `merge` | reads of the database and of the journal's tail together: what callers see |
//! | `compaction` | how fjall merges the tables of a keyspace |
//! | `trickle` | what is written goes to the disk a little at a time |
//! | `fault` | what goes wrong |
//! | `checkpoint` | how far the views have come, durably |
//!
//! Everything but `seen` comes in by bulk ingestion, which syncs its files itself and never touches fjall's own journal.
//! Each keyspace changes at once, all of them together do not: until a segment is reported as viewed its entries are
//! found in the journal's tail, which counts as the newer of both, so nobody sees the difference.
//!
//! Events and sent ids are partitioned by journal time, one keyspace a window: retention drops whole windows. What a
//! device last sent stands in `devices` for good, because markers derive from it.

mod apply;
pub(super) mod checkpoint;
mod codec;
mod compaction;
mod fault;
mod gather;
mod leaving;
mod manifests;
pub(super) mod merge;
mod partitions;
mod read;
mod sink;
#[cfg(test)]
pub(super) mod tests;
mod trickle;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry},
};
use rialto_protocol::ids::UserId;

use super::{
    format::Fixed,
    log::{Blocks, SealedSegment},
};
use apply::Known;
use checkpoint::Checkpoint;
use compaction::Compaction;
use gather::{Gathered, Scratch};
use leaving::Leaving;
use partitions::{Partitions, numbered};

pub(super) use fault::{Doing, Fault};
pub(super) use leaving::Leave;

const EVENTS: &str = "events-";
const SENT: &str = "sent-";
const WINDOWS: &str = "windows";
const FIXED: [&str; 5] = ["heads", WINDOWS, "rows", "devices", "seen"];
/// Values of this length stand beside the tables. Shorter runs are found side by side in them, so that a page that is made of many
/// is read in one place.
const SEPARATED_BYTES: u32 = 4 << 10;
/// Tables of one keyspace that have not been merged; each costs every read a look.
const UNMERGED_TABLES_MAX: usize = 24;
/// With so many, merges go on without rest.
const UNMERGED_TABLES_HURRIED: usize = 12;
/// Files of the database that stay open to be read from. A process may have no more than some thousands, and connections need them;
/// opening one again takes 10 µs.
const FILES_OPEN_MAX: usize = 128;
/// `seen` alone lives in memory tables; this many bytes of it at most.
const SEEN_MEMTABLE_BYTES: u64 = 8 << 20;
/// Sent ids are kept at least this long (guarantee G3), milliseconds.
pub(super) const SENT_KEEP_MS: u64 = 7 * 24 * 3600 * 1000;

/// Points of the work on a segment, in order; tests have it die at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The segment was read and sorted; nothing is written yet.
    Gathered,
    /// Its events are in, nothing else.
    Events,
    /// All of it is in; the checkpoint is still the old one.
    Applied,
    /// The checkpoint is durable; the journal does not know yet.
    Checkpointed,
}

/// What the work on a segment asks for again and again.
pub(super) trait Pace {
    /// Called after some work on so many records: a place to rest.
    fn worked(&mut self, records: usize);
    /// Bytes that are read at once: whoever else uses the disk waits for as many.
    fn step_bytes(&self) -> usize;
    /// Called after such a read: another place to rest.
    fn moved(&mut self);
    /// Called at each step; `Err` ends the work as a crash would.
    fn reached(&mut self, step: Step) -> Result<(), Fault>;
}

/// What the work on a segment needs, kept for the next one.
#[derive(Default)]
pub(super) struct Memory {
    segment: Blocks,
    scratch: Scratch,
    known: Known,
}

impl Memory {
    /// Frees all that only speeds the next segment up if it comes soon.
    pub(super) fn shrink(&mut self) {
        (self.segment, self.scratch) = Default::default();
    }
}

/// What a segment brings, in the order of the views.
pub(super) struct Brought<'m> {
    gathered: Gathered<'m>,
    known: &'m mut Known,
}

/// The database.
pub(super) struct ViewStore {
    db: Database,
    compaction: Arc<Compaction>,
    heads: Keyspace,
    windows: Keyspace,
    rows: Keyspace,
    devices: Keyspace,
    seen: Keyspace,
    partitions: RwLock<Partitions>,
    /// After the database: what is in it is let go of when nobody works on it any more.
    leaving: Leaving,
    /// Events of windows before this one are not kept.
    events_from: Arc<AtomicU32>,
    /// Greatest journal time that was brought in, or is being: sent ids are kept or not by it.
    newest_time_ms: AtomicU64,
    events_window_ms: u64,
    sent_window_ms: u64,
}

/// Keyspaces that are found by point look-ups.
fn looked_up() -> KeyspaceCreateOptions {
    // Ids are random and texts short: compressing them costs more than it saves.
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
            BloomConstructionPolicy::BitsPerKey(10.0),
        )))
        .compaction_strategy(compaction::strategy())
}

/// Keyspaces that are found by ranges alone: filters would never be asked.
fn ranged() -> KeyspaceCreateOptions {
    looked_up().filter_policy(FilterPolicy::disabled())
}

/// As [`ranged`]; long values stand in files beside the tables and are written once, however often their keys are merged.
fn separated() -> KeyspaceCreateOptions {
    let values = KvSeparationOptions::default()
        .separation_threshold(SEPARATED_BYTES)
        .compression(CompressionType::None);
    ranged().with_kv_separation(Some(values))
}

impl ViewStore {
    /// Opens the database in `dir`, or makes it when the checkpoint says that nothing is in it.
    pub(super) fn open(
        dir: &Path,
        cache_bytes: u64,
        fixed: &Fixed,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Fault> {
        manifests::check(dir)?;
        let events_from = Arc::new(AtomicU32::new(checkpoint.events_from));
        let compaction = Compaction::new(Arc::clone(&events_from));
        let merges = Arc::clone(&compaction);
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            .max_cached_files(Some(FILES_OPEN_MAX))
            .worker_threads(1)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                Some(Arc::clone(&merges).merges(keyspace))
            }))
            .open()
            .doing("opening the views")?;
        if !checkpoint.is_empty() {
            require_keyspaces(&db, checkpoint)?;
        }
        let open = |name: &str, options: fn() -> KeyspaceCreateOptions| {
            open_keyspace(&db, &compaction, name, options).doing("opening a keyspace of the views")
        };
        let mut partitions = Partitions::default();
        for name in db.list_keyspace_names() {
            if let Some(window) = numbered(&name, EVENTS) {
                let keyspace = Arc::new(open(&name, separated)?);
                partitions.events.insert(window, keyspace);
            } else if let Some(window) = numbered(&name, SENT) {
                let keyspace = Arc::new(open(&name, separated)?);
                partitions.sent.insert(window, keyspace);
            }
        }
        let store = Self {
            heads: open("heads", looked_up)?,
            windows: open(WINDOWS, ranged)?,
            rows: open("rows", looked_up)?,
            devices: open("devices", ranged)?,
            seen: open("seen", || {
                looked_up().max_memtable_size(SEEN_MEMTABLE_BYTES)
            })?,
            db,
            compaction,
            partitions: RwLock::new(partitions),
            leaving: Leaving::new(dir),
            events_from,
            newest_time_ms: AtomicU64::new(checkpoint.newest_time_ms),
            events_window_ms: fixed.events_window_ms,
            sent_window_ms: fixed.sent_window_ms,
        };
        // Those that were just made, and what a process made that was killed before it came to this.
        trickle::sync_folder_of(&store.devices)?;
        store.drop_windows(checkpoint.newest_time_ms);
        Ok(store)
    }

    /// Whether so much waits to be merged, and is being, that more should not come in before.
    pub(super) fn is_crowded(&self) -> bool {
        let fixed = [&self.heads, &self.windows, &self.rows, &self.devices];
        let most = self.with_partitions(|Partitions { events, sent }| {
            let windows = events.values().chain(sent.values());
            let all = fixed.into_iter().chain(windows.map(Arc::as_ref));
            all.map(Keyspace::l0_table_count).max().unwrap_or(0)
        });
        self.compaction.hurry(most >= UNMERGED_TABLES_HURRIED);
        most >= UNMERGED_TABLES_MAX && self.db.active_compactions() > 0
    }

    /// The keyspace of the first merge that has failed, if one has. Nothing comes in any more then.
    pub(super) fn failed_merge(&self) -> Option<&str> {
        self.compaction.failed()
    }

    /// Reads a segment and sorts what it brings. Nothing is written yet.
    pub(super) fn gather<'m>(
        &self,
        segment: &SealedSegment,
        memory: &'m mut Memory,
        pace: &mut dyn Pace,
    ) -> Result<Brought<'m>, Fault> {
        let Memory {
            segment: bytes,
            scratch,
            known,
        } = memory;
        segment
            .read(pace.step_bytes(), bytes, &mut || pace.moved())
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        let gathered = Gathered::from_entries(bytes, segment.entries(bytes), scratch, pace)?;
        pace.reached(Step::Gathered)?;
        // Before events or ids are left out or dropped by it.
        self.newest_time_ms
            .fetch_max(gathered.newest_time_ms, SeqCst);
        Ok(Brought { gathered, known })
    }

    /// Brings in what a segment brings, durably. May be repeated, wholly or after it was cut off anywhere.
    pub(super) fn bring_in(
        &self,
        Brought { gathered, known }: Brought<'_>,
        checkpoint: &mut Checkpoint,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        let newest_time_ms = self.newest_time_ms();
        let applied = self
            .apply(&gathered, newest_time_ms, known, pace)
            .and_then(|()| pace.reached(Step::Applied));
        if applied.is_err() {
            // What was about to be written may not have been.
            *known = Known::default();
        }
        applied?;
        checkpoint.newest_time_ms = newest_time_ms;
        Ok(())
    }

    /// Writes when users were last seen; later times win. Durable on return.
    pub(super) fn write_seen(&self, seen: &[(UserId, u64)]) -> Result<(), Fault> {
        for (user, time_ms) in seen {
            let before = match self.read_seen(*user) {
                // Or nobody's time would be written any more.
                Err(fault) if !fault.may_pass() => {
                    tracing::error!(%fault, "when a user was last seen is written anew");
                    None
                }
                before => before?,
            };
            if before.is_none_or(|before| before < *time_ms) {
                self.seen
                    .insert(user.as_bytes(), time_ms.to_le_bytes())
                    .doing("writing when users were seen")?;
            }
        }
        self.persist()
    }

    /// When a user was last seen, as far as it was written.
    pub(super) fn read_seen(&self, user: UserId) -> Result<Option<u64>, Fault> {
        let value = self
            .seen
            .get(user.as_bytes())
            .doing("reading when a user was seen")?;
        Ok(value.and_then(|value| codec::number(&value, 0)))
    }

    /// Makes durable what went through fjall's own journal.
    pub(super) fn persist(&self) -> Result<(), Fault> {
        self.db
            .persist(PersistMode::SyncAll)
            .doing("syncing the views")
    }
}

/// Opens a keyspace, or makes it when there is none.
fn open_keyspace(
    db: &Database,
    compaction: &Compaction,
    name: &str,
    options: fn() -> KeyspaceCreateOptions,
) -> Result<Keyspace, fjall::Error> {
    let keyspace = db.keyspace(name, options)?;
    compaction.opened(&keyspace);
    Ok(keyspace)
}

/// A keyspace whose folder is gone would be taken for an empty one.
fn require_keyspaces(db: &Database, checkpoint: &Checkpoint) -> Result<(), Fault> {
    let names: BTreeSet<String> = db
        .list_keyspace_names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let events = checkpoint
        .events_windows
        .iter()
        .filter(|window| **window >= checkpoint.events_from);
    let sent = checkpoint.sent_windows.iter();
    let expected = FIXED
        .iter()
        .map(ToString::to_string)
        .chain(events.map(|window| format!("{EVENTS}{window}")))
        .chain(sent.map(|window| format!("{SENT}{window}")));
    for name in expected {
        if !names.contains(&name) {
            return Err(Fault::Damaged(format!("the keyspace {name} is gone")));
        }
    }
    Ok(())
}

/// Where a generation of the views lives.
pub(super) fn directory(data: &Path, generation: u64) -> PathBuf {
    data.join("views").join(generation.to_string())
}
