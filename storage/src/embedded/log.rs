//! The embedded journal: a write-ahead log of segments, written by one thread with greedy group commit.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `format` | bytes of a segment's header and of an entry's header |
//! | `blocks` | memory for direct I/O |
//! | `disk` | the few calls by which files are reached; tests put faults and power cuts there |
//! | `segment` | an open segment, and the states that segments go through |
//! | `spare` | the thread that prepares, recycles and removes segments, away from the hot path |
//! | `queue` | what waits for the journal thread, bounded in bytes |
//! | `writer` | the journal thread: checks, groups, writes, syncs, indexes, answers |
//! | `lanes`, `outbox`, `epoch` | tails of lanes, what they still have to pass on, the last epoch |
//! | `ahead`, `scan`, `recovery` | reading segments back, and what to make of bad bytes |
//! | `sealed` | segments on their way into the views |
//!
//! What stands in the log but not yet in the views is found through [`super::tail`].

mod ahead;
mod blocks;
mod disk;
mod epoch;
mod format;
mod lanes;
mod outbox;
mod queue;
mod recovery;
mod scan;
mod sealed;
mod segment;
mod spare;
mod writer;

#[cfg(test)]
pub(super) mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rialto_protocol::ids::LaneId;

use self::{
    disk::{Disk, RealDisk},
    format::{EntryCodec, FIRST_ENTRY},
    outbox::Outbox,
    queue::{Command, Queue},
    segment::{Segments, file_name},
};
pub(crate) use self::{
    sealed::{LaneTail, SealedSegment, StoredEntry, ViewCheckpoint},
    segment::Segment,
};
use super::{
    tail::TailIndex,
    threads::{self, StoreThread, ThreadHook},
};
use crate::journal::{AppendError, Claim, Entry, JournalError, JournalStatus};
pub(crate) use blocks::Blocks;

/// How a log is kept.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    /// Names the data set; a segment of another one is refused. Its bytes also enter every checksum.
    pub(crate) data_set: u128,
    /// Lanes of the data set.
    pub(crate) lanes: u16,
    /// Bytes of a segment file, header included; rounded down to whole blocks of 4 KiB.
    pub(crate) segment_bytes: u32,
    /// Bytes that may wait for the journal thread; beyond it `append` blocks its caller.
    pub(crate) queue_bytes_max: usize,
    /// Viewed segments are kept while they have not more bytes than this together, there is room for them …
    pub(crate) keep_bytes: u64,
    /// … and are not older than this, milliseconds.
    pub(crate) keep_ms: u64,
    /// Above so many unviewed segments, groups are delayed.
    pub(crate) lag_segments_soft: usize,
    /// At so many, groups wait until the views have caught up.
    pub(crate) lag_segments_hard: usize,
    /// With the disk full, how long until the next attempt to make a segment.
    pub(crate) full_retry: Duration,
    /// Called on each thread as it starts.
    pub(crate) on_thread: Option<ThreadHook>,
}

impl LogOptions {
    /// The usual sizes.
    pub(crate) fn new(data_set: u128, lanes: u16) -> Self {
        Self {
            data_set,
            lanes,
            segment_bytes: 64 << 20,
            queue_bytes_max: 32 << 20,
            keep_bytes: 1 << 30,
            keep_ms: 7 * 24 * 3600 * 1000,
            lag_segments_soft: 4,
            lag_segments_hard: 16,
            full_retry: Duration::from_secs(1),
            on_thread: None,
        }
    }
}

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Segments read because the views do not hold them.
    pub(crate) segments: u64,
    /// Entries in them.
    pub(crate) entries: u64,
    /// Bytes of these entries.
    pub(crate) bytes: u64,
    /// Bytes of an unfinished write that were cut off the end.
    pub(crate) cut_bytes: u64,
    /// Entries whose outbox records have not all been passed on.
    pub(crate) outbox_entries: u64,
}

/// A log that is open. Dropping it finishes what was appended, then stops its threads.
pub(crate) struct Log {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads of a log and its callers have in common.
struct Shared {
    options: LogOptions,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    queue: Queue,
    segments: Segments,
    outbox: Mutex<Outbox>,
    tail: Arc<TailIndex>,
    counters: Counters,
    poison: OnceLock<String>,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    bytes: AtomicU64,
    groups: AtomicU64,
    sync_us: AtomicU64,
    slowed: AtomicU64,
}

impl Log {
    /// Opens or creates the log below `directory` (the data directory; segments live in `journal/`), and reads back what the
    /// views do not hold: everything from `viewed` on.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when durable bytes are bad, `Format` for data of a newer version or of another data set,
    /// `Io` for what the operating system says.
    pub(crate) fn open(
        directory: &Path,
        options: LogOptions,
        viewed: &ViewCheckpoint,
    ) -> Result<(Self, Recovered), JournalError> {
        Self::open_on(Arc::new(RealDisk), directory, options, viewed)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        mut options: LogOptions,
        viewed: &ViewCheckpoint,
    ) -> Result<(Self, Recovered), JournalError> {
        // Whole blocks, as the space before the first entry is.
        options.segment_bytes -= options.segment_bytes % FIRST_ENTRY;
        let directory = directory.join("journal");
        let tail = Arc::new(TailIndex::new(options.lanes));
        disk.create_directory(&directory)
            .map_err(|error| io_error("create journal", &error))?;
        let epochs = epoch::EpochFile::open(Arc::clone(&disk), &directory)?;
        if viewed.segment > 1 {
            epochs.require()?;
        }
        let recovery = recovery::recover(&*disk, &directory, &options, viewed, &tail)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_bytes_max),
            segments: Segments::new(recovery.segments),
            outbox: Mutex::new(recovery.outbox),
            options,
            disk,
            directory,
            tail,
            counters: Counters::default(),
            poison: OnceLock::new(),
        });
        let log = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::new(Vec::new()),
        };
        let writer = writer::Writer::new(Arc::clone(&shared), recovery.lanes, epochs);
        log.spawn("rialto-journal", StoreThread::Journal, move || writer.run())?;
        log.spawn("rialto-segments", StoreThread::Segments, move || {
            spare::run(&shared);
        })?;
        Ok((log, recovery.found))
    }

    fn spawn(
        &self,
        name: &str,
        role: StoreThread,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), JournalError> {
        let hook = self.shared.options.on_thread;
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            threads::begin(hook, role);
            body();
        });
        let thread = thread.map_err(|error| io_error("start a thread", &error))?;
        locked(&self.threads).push(thread);
        Ok(())
    }

    /// Makes entries durable; `done` is called once, by the journal thread as a rule, in the order of the calls. It must be
    /// short and must not wait. Blocks while more than `queue_bytes_max` waits.
    pub(crate) fn append(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) {
        self.push(Command::append(entries, Box::new(done)));
    }

    /// Raises the lanes' epoch and finds their tails, after everything appended before the call.
    pub(crate) fn claim(
        &self,
        lanes: Vec<LaneId>,
        done: impl FnOnce(Result<Vec<Claim>, JournalError>) + Send + 'static,
    ) {
        self.push(Command::Claim {
            lanes,
            done: Box::new(done),
        });
    }

    /// Ends the active segment, so that the views can take it; `done` gets the number of the last sealed segment (0: there
    /// never was one). Does nothing when the active segment is empty.
    pub(crate) fn seal(&self, done: impl FnOnce(Result<u64, JournalError>) + Send + 'static) {
        self.push(Command::Seal {
            done: Box::new(done),
        });
    }

    fn push(&self, command: Command) {
        if let Err(command) = self.shared.queue.push(command) {
            command.fail(&self.shared.why_closed());
        }
    }

    /// What is durable and not yet forgotten.
    pub(crate) fn tail(&self) -> &Arc<TailIndex> {
        &self.shared.tail
    }

    /// The oldest sealed segment that the views do not hold.
    pub(crate) fn sealed_unviewed(&self) -> Option<SealedSegment> {
        let sealed = self.shared.segments.lock().sealed.front().cloned()?;
        Some(SealedSegment::new(sealed, Arc::clone(&self.shared)))
    }

    /// Waits until there is a sealed segment that the views do not hold; false: there is none, after `timeout`, because the log
    /// was closed, or because `called` says that something else is to be done ([`Log::call_who_waits`]).
    pub(crate) fn wait_for_sealed(&self, timeout: Duration, called: impl Fn() -> bool) -> bool {
        self.shared
            .segments
            .wait_for_sealed(Instant::now() + timeout, called)
    }

    /// Has whoever waits for a segment look whether something else is to be done.
    pub(crate) fn call_who_waits(&self) {
        self.shared.segments.change(|_| ());
    }

    /// The views hold every segment up to and including this one, and their checkpoint says so durably.
    pub(crate) fn viewed(&self, segment: u64) {
        self.shared.tail.forget(segment);
        self.shared.segments.viewed(segment);
    }

    /// Bytes of a new segment.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.shared.options.segment_bytes
    }

    /// Whether the views lack room to go on. While they do, what would wait for them is turned away.
    pub(crate) fn hold_views_up(&self, held_up: bool) {
        self.shared
            .segments
            .change(|states| states.views_are_held_up = held_up);
    }

    /// Bytes that may still be written where this path is.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn room(&self, path: &Path) -> io::Result<u64> {
        self.shared.disk.room(path)
    }

    /// Whether it is for lack of room that the disk does not take so many bytes at this path, where they do not stay.
    pub(crate) fn is_full(&self, path: &Path, bytes: usize) -> bool {
        let disk = &self.shared.disk;
        let file = disk.create(path);
        let written = file.and_then(|file| disk::write_all_at(&*file, &vec![0; bytes], 0));
        let _ = disk.remove(path);
        written.is_err_and(|error| lacks_room(&error))
    }

    /// Something else has no room on the disk: segments that the views hold are given up, whatever was to be kept.
    pub(crate) fn make_room(&self) {
        self.shared
            .segments
            .change(|states| states.room_wanted = true);
    }

    /// Takes nothing any more, for this reason: the process has to be started again.
    pub(crate) fn give_up(&self, reason: String) {
        self.shared.poison(reason);
    }

    /// Segments that the views do not hold yet.
    pub(crate) fn views_lag_segments(&self) -> u64 {
        self.shared.segments.lock().lag_segments()
    }

    /// Figures since the log was opened.
    pub(crate) fn status(&self) -> JournalStatus {
        let counters = &self.shared.counters;
        let segments = self.shared.segments.lock();
        let first_needed = spare::first_needed(&self.shared, &segments);
        JournalStatus {
            entries: counters.entries.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            groups: counters.groups.load(Relaxed),
            sync_us: counters.sync_us.load(Relaxed),
            views_lag_bytes: segments.lag_bytes(),
            views_lag_segments: segments.lag_segments(),
            segments: segments.count(),
            outbox_segments: segments.viewed_from(first_needed),
            slowed: counters.slowed.load(Relaxed),
            poisoned: self.shared.poison.get().is_some(),
        }
    }

    /// Finishes what was appended, answers it, and stops the threads. Later appends fail; reads go on.
    pub(crate) fn close(&self) {
        self.shared.queue.close();
        self.shared.segments.start_closing();
        // The journal thread first: it may need another segment for what it has.
        for thread in std::mem::take(&mut *locked(&self.threads)) {
            // The last reference may be dropped by an answer, which the journal thread itself calls.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the journal has panicked");
            }
            self.shared.segments.close();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Nothing is appended any more, for this reason; the first one counts.
    fn poison(&self, reason: String) -> String {
        let reason = self.poison.get_or_init(|| {
            tracing::error!(reason, "the journal is poisoned");
            reason
        });
        self.queue.close();
        self.segments.close();
        reason.clone()
    }

    fn why_closed(&self) -> String {
        self.poison
            .get()
            .cloned()
            .unwrap_or_else(|| "the log is closed".to_owned())
    }

    /// The segment with this number that holds entries, to be read from. It is not used again before it is let go of.
    fn segment(&self, number: u64) -> Result<Arc<Segment>, JournalError> {
        let failed = |error: io::Error| io_error(format!("read segment {number}"), &error);
        let mut states = self.segments.lock();
        if let Some(segment) = states.find_open(number) {
            return Ok(segment);
        }
        let mut viewed = states.viewed.iter_mut();
        let viewed = viewed
            .find(|viewed| viewed.number == number)
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let path = self.directory.join(file_name(number));
        let file = self.disk.open(&path).map_err(failed)?;
        let codec = EntryCodec::new(self.options.data_set, number);
        Ok(viewed.opened(codec, file))
    }
}

/// Whether it is for lack of room that something could not be written.
pub(super) fn lacks_room(error: &io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// A lock that outlives a panic of its holder: what it guards is changed in single steps.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io_error(what: impl Into<String>, error: &io::Error) -> JournalError {
    JournalError::Io {
        what: what.into(),
        cause: error.to_string(),
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
