//! How fjall merges tables: on a thread of its own, which knows of nobody else. Every merge asks us about each of its items; that is
//! where it rests, and where what it has written goes to the disk a little at a time. See `docs/decisions/0020-merges.md`. And it
//! is where rows of `windows` go whose windows are gone.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use fjall::{
    Keyspace,
    compaction::{
        Leveled,
        filter::{
            CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
        },
    },
};

use super::{
    WINDOWS,
    codec::window_of,
    trickle::{Trickle, tables_of},
};

/// Merged tables become as long as this at most: removing a longer one takes the disk from everybody else for long.
const TABLE_BYTES_MAX: u64 = 8 << 20;
/// A merge works this long, then rests as long.
const SLICE: Duration = Duration::from_micros(300);
/// It never rests longer: what seemed to be work was a process that was stopped, for an hour perhaps.
const REST_MAX: Duration = Duration::from_millis(10);
/// Items between two looks at the clock.
const ITEMS_PER_LOOK: usize = 64;
/// What is written goes to the disk after so many bytes.
const STEP_BYTES: usize = 512 << 10;

/// What all merges of a database have in common.
pub(super) struct Compaction {
    hurried: AtomicBool,
    /// Events of windows before this one are not kept, and what says that they were there need not be.
    events_from: Arc<AtomicU32>,
    /// Where the tables of each keyspace are.
    tables: RwLock<HashMap<String, PathBuf>>,
    /// The keyspace of the first merge that failed; fjall merges none after it.
    failed: OnceLock<String>,
    #[cfg(test)]
    fail: AtomicBool,
}

/// Merges of one keyspace.
struct Merges {
    of: Arc<Compaction>,
    keyspace: String,
}

struct Merge {
    of: Arc<Compaction>,
    keyspace: String,
    /// Of `windows`.
    windows: bool,
    tables: Option<Trickle>,
    items: usize,
    since: Instant,
    /// All of its items were merged.
    finished: bool,
}

/// Which tables are merged when, and into what.
pub(super) fn strategy() -> Arc<Leveled> {
    Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES_MAX))
}

impl Compaction {
    /// Of a database that keeps events from this window on. The number never falls, and what was taken from it is durable.
    pub(super) fn new(events_from: Arc<AtomicU32>) -> Arc<Self> {
        Arc::new(Self {
            hurried: AtomicBool::new(false),
            events_from,
            tables: RwLock::default(),
            failed: OnceLock::new(),
            #[cfg(test)]
            fail: AtomicBool::new(false),
        })
    }

    /// Has the next merge end by a panic.
    #[cfg(test)]
    pub(super) fn fail_merges(&self) {
        self.fail.store(true, Relaxed);
    }

    /// The keyspace whose merge has failed, if one has.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Whether merges go on without rest.
    pub(super) fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Relaxed);
    }

    /// Tells where the tables of a keyspace are. Until then its merges leave it to fjall when they go to the disk.
    pub(super) fn opened(&self, keyspace: &Keyspace) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.insert(keyspace.name().to_string(), tables_of(keyspace));
    }

    /// The keyspace is gone.
    pub(super) fn dropped(&self, keyspace: &Keyspace) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.remove(&**keyspace.name());
    }

    /// What fjall asks at the beginning of each merge of a keyspace.
    pub(super) fn merges(self: Arc<Self>, keyspace: &str) -> Arc<dyn Factory> {
        Arc::new(Merges {
            of: self,
            keyspace: keyspace.to_owned(),
        })
    }
}

impl Factory for Merges {
    fn name(&self) -> &str {
        "rialto-pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let tables = self
            .of
            .tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&self.keyspace)
            .map(|folder| Trickle::new(folder.clone(), STEP_BYTES));
        Box::new(Merge {
            of: Arc::clone(&self.of),
            keyspace: self.keyspace.clone(),
            windows: self.keyspace == WINDOWS,
            tables,
            items: 0,
            since: Instant::now(),
            finished: false,
        })
    }
}

impl CompactionFilter for Merge {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        #[cfg(test)]
        assert!(!self.of.fail.load(Relaxed), "a test has merges fail");
        self.items += 1;
        if self.items >= ITEMS_PER_LOOK {
            self.items = 0;
            self.look();
        }
        if self.windows && self.is_of_the_past(item.key()) {
            // Where an older row of the same key comes to light again, nobody asks for it either.
            return Ok(Verdict::Destroy);
        }
        Ok(Verdict::Keep)
    }

    fn finish(mut self: Box<Self>) {
        self.finished = true;
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        if !self.finished {
            tracing::error!(
                keyspace = self.keyspace,
                "a merge of the views' tables has failed"
            );
            let _ = self.of.failed.set(self.keyspace.clone());
        }
    }
}

impl Merge {
    /// Whether a row of `windows` names one that is not kept any more.
    fn is_of_the_past(&self, key: &[u8]) -> bool {
        window_of(key).is_some_and(|window| window < self.of.events_from.load(Relaxed))
    }

    fn look(&mut self) {
        let worked = self.since.elapsed();
        if worked < SLICE || self.of.hurried.load(Relaxed) {
            return;
        }
        if let Some(tables) = &mut self.tables {
            // What cannot be synced now cannot be synced by fjall either, which then says so.
            tables.may_have_grown().ok();
        }
        thread::sleep(rest_after(worked));
        self.since = Instant::now();
    }
}

/// How long is rested after work that seemed to take so long.
fn rest_after(worked: Duration) -> Duration {
    worked.min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions};

    use super::*;

    const KEYS: u32 = 5_000;
    /// As many as are merged at once, twice.
    const INGESTIONS: u32 = 8;
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Each ingestion writes all keys that the one before it wrote, and deletes a key of its own.
    fn ingest(keyspace: &Keyspace) {
        for round in 0..INGESTIONS {
            let mut ingestion = keyspace.start_ingestion().unwrap();
            for key in 0..KEYS {
                let name = key.to_be_bytes();
                if key == round {
                    ingestion.write_tombstone(name).unwrap();
                } else if key >= INGESTIONS || key > round {
                    ingestion.write(name, round.to_be_bytes()).unwrap();
                }
            }
            ingestion.finish().unwrap();
        }
    }

    #[test]
    fn a_merge_that_was_stopped_for_an_hour_does_not_rest_for_one() {
        assert_eq!(rest_after(SLICE), SLICE);
        assert_eq!(rest_after(Duration::from_secs(3600)), REST_MAX);
    }

    #[test]
    fn merges_that_rest_and_merges_that_hurry_keep_the_newest_of_everything() {
        for hurried in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let compaction = Compaction::new(Arc::default());
            let merges = Arc::clone(&compaction);
            let db = Database::builder(folder.path())
                .worker_threads(1)
                .with_compaction_filter_factories(Arc::new(move |keyspace| {
                    Some(Arc::clone(&merges).merges(keyspace))
                }))
                .open()
                .unwrap();
            let options = || KeyspaceCreateOptions::default().compaction_strategy(strategy());
            let keyspace = db.keyspace("merged", options).unwrap();
            compaction.opened(&keyspace);
            compaction.hurry(hurried);
            ingest(&keyspace);
            let begun = Instant::now();
            while keyspace.l0_table_count() >= 4 {
                assert!(begun.elapsed() < PATIENCE, "tables are merged");
                thread::sleep(Duration::from_millis(5));
            }
            for key in 0..KEYS {
                let value = keyspace.get(key.to_be_bytes()).unwrap();
                let expected = (key >= INGESTIONS).then(|| (INGESTIONS - 1).to_be_bytes());
                assert_eq!(value.as_deref(), expected.as_ref().map(<[u8; 4]>::as_slice));
            }
        }
    }
}
