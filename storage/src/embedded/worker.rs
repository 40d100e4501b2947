//! The thread behind the journal: brings sealed segments into the views, throttled, and writes what the directory holds.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{
    directory::SeenBuffer,
    log::{Log, SealedSegment},
    views::{Fault, Memory, Pace, Step, ViewStore, checkpoint::Checkpoint},
};
use crate::{journal::JournalError, promise::Resolver};

/// Work goes on this long before it rests: a thread that wants its processor waits for the rest as a rule, because the kernel
/// looks for a better one only every 4 ms when that one has had its share.
const SLICE: Duration = Duration::from_micros(300);
/// Bytes of one read of a segment, and when publishers are about to be slowed.
const STEP_BYTES: usize = 128 << 10;
const HURRIED_STEP_BYTES: usize = 512 << 10;
/// The disk is left to others after a read of a segment for as many times as long as that took, and no longer than this.
const DISK_REST: u32 = 3;
const DISK_REST_MAX: Duration = Duration::from_millis(10);
/// What the next segment is brought in with is kept so long. Giving it back stops the processor for milliseconds, and so do
/// its pages when they are used for the first time.
const MEMORY_KEPT: Duration = Duration::from_secs(30);
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 64;
/// With so many segments waiting there is no rest: publishers are about to be slowed.
const HURRY_SEGMENTS: u64 = 2;
/// Between looks at tables that have to be merged before more come.
const CROWDED: Duration = Duration::from_millis(20);
/// Between attempts at a segment that could not be brought in.
const RETRY: Duration = Duration::from_secs(2);
/// After so many in a row, with room on the disk, a start has to find out what is wrong: without an end publishers would wait
/// for ever once the views lag by as much as they may.
const ATTEMPTS_MAX: u32 = 5;
/// What bringing in a segment may write, times its bytes. With less room it is not tried again after it failed for lack of
/// room: what an attempt leaves behind is removed by the next start only.
const ROOM_SEGMENTS: u64 = 2;

/// File by which it is found out whether there is room, and as much as a start needs to go on.
const PROBE: &str = "room.tmp";
const PROBE_BYTES: usize = 4 << 20;

type Settled = Result<(), JournalError>;

/// A test's way to let the work on a segment die at a step: called at each, `false` ends the worker for good.
#[derive(Clone)]
pub struct StepHook(pub Arc<dyn Fn(Step) -> bool + Send + Sync>);

impl fmt::Debug for StepHook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("StepHook")
    }
}

/// How the worker works.
#[derive(Clone, Debug)]
pub(super) struct WorkerOptions {
    /// Share of the time that it works while it is not behind, percent, 1 to 100.
    pub(super) duty_percent: u32,
    /// Events older than this by journal time may go, milliseconds; `None`: never.
    pub(super) retention_ms: Option<u64>,
    /// How often the directory is written, milliseconds.
    pub(super) seen_flush_ms: u64,
    /// See [`StepHook`].
    pub(super) on_step: Option<StepHook>,
}

#[derive(Default)]
struct Orders {
    stopping: bool,
    /// Whatever was not yet written stays so.
    abandoned: bool,
    flush_seen: bool,
    /// Who waits until the views hold a segment.
    waiting: Vec<(u64, Resolver<Settled>)>,
}

/// What the worker and its callers have in common.
pub(super) struct Work {
    data: PathBuf,
    options: WorkerOptions,
    pub(super) log: Log,
    pub(super) views: ViewStore,
    pub(super) seen: SeenBuffer,
    orders: Mutex<Orders>,
    bell: Condvar,
    /// Last segment that the views hold wholly.
    viewed: AtomicU64,
}

impl Work {
    pub(super) fn new(
        data: PathBuf,
        options: WorkerOptions,
        log: Log,
        views: ViewStore,
        viewed: u64,
    ) -> Self {
        Self {
            data,
            options,
            log,
            views,
            seen: SeenBuffer::default(),
            orders: Mutex::default(),
            bell: Condvar::new(),
            viewed: AtomicU64::new(viewed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn viewed(&self) -> u64 {
        self.viewed.load(SeqCst)
    }

    /// Answers once the views hold this segment and all before it.
    pub(super) fn when_viewed(&self, segment: u64, resolver: Resolver<Settled>) {
        let mut orders = self.lock();
        if self.viewed() >= segment {
            drop(orders);
            resolver.resolve(Ok(()));
        } else if !orders.stopping {
            orders.waiting.push((segment, resolver));
            self.bell.notify_all();
        }
    }

    /// Has the directory written soon.
    pub(super) fn flush_seen(&self) {
        self.lock().flush_seen = true;
        self.bell.notify_all();
        self.log.call_who_waits();
    }

    /// Ends the worker after the segment that it is at.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.bell.notify_all();
    }

    /// Ends the worker at its next step, as a crash would.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.stop();
    }

    fn hurry(&self) -> bool {
        let orders = self.lock();
        orders.stopping || !orders.waiting.is_empty() || {
            drop(orders);
            self.log.views_lag_segments() > HURRY_SEGMENTS
        }
    }

    /// Waits for an order, not longer than this.
    fn rest(&self, time: Duration) {
        self.rest_unless(time, |orders| orders.flush_seen);
    }

    /// Waits until something is said, not longer than this; not at all where the worker is to stop or `anything` is there already.
    fn rest_unless(&self, time: Duration, anything: impl Fn(&Orders) -> bool) {
        let orders = self.lock();
        if !orders.stopping && !anything(&orders) {
            drop(
                self.bell
                    .wait_timeout(orders, time)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// The worker's thread, until [`Work::stop`].
    pub(super) fn run(&self, mut checkpoint: Checkpoint) {
        let flush_every = Duration::from_millis(self.options.seen_flush_ms.max(1));
        let mut flushed = Instant::now();
        let _ending = Ending(self);
        let mut failures = Failures::default();
        let mut memory = Memory::default();
        let mut used = Instant::now();
        loop {
            let (stopping, abandoned) = {
                let orders = self.lock();
                (orders.stopping, orders.abandoned)
            };
            if abandoned {
                break;
            }
            let flush = std::mem::take(&mut self.lock().flush_seen);
            if stopping || flush || flushed.elapsed() >= flush_every {
                if let Err(fault) = self.seen.flush(&self.views) {
                    tracing::error!(%fault, "when users were last seen could not be written");
                }
                flushed = Instant::now();
            }
            if stopping {
                break;
            }
            match self.log.sealed_unviewed() {
                Some(_) if self.views.is_crowded() => self.rest(CROWDED),
                Some(segment) if failures.short_of_room && !self.has_room_again() => {
                    self.refuse(&segment, "there is no room on the disk");
                    self.rest_unless(RETRY, |orders| {
                        orders.flush_seen || !orders.waiting.is_empty()
                    });
                }
                Some(segment) => {
                    match self.bring_in(&segment, &mut memory, &mut checkpoint) {
                        Ok(()) => {
                            failures = Failures::default();
                            self.log.hold_views_up(false);
                        }
                        Err(Fault::Stopped) => break,
                        Err(fault) => self.failed(&segment, &fault, &mut failures),
                    }
                    used = Instant::now();
                }
                None => {
                    let found = self.wait(flush_every.saturating_sub(flushed.elapsed()));
                    if !found && used.elapsed() >= MEMORY_KEPT {
                        memory.shrink();
                    }
                }
            }
        }
    }

    /// Waits for a segment, not longer than this; false: there is none.
    fn wait(&self, time: Duration) -> bool {
        let begun = Instant::now();
        let called = || self.lock().flush_seen;
        let found = self.log.wait_for_sealed(time, called);
        if !found {
            // A closed or poisoned log does not wait.
            self.rest(time.saturating_sub(begun.elapsed()));
        }
        found
    }

    fn failed(&self, segment: &SealedSegment, fault: &Fault, failures: &mut Failures) {
        tracing::error!(segment = segment.number(), %fault, "a segment could not be brought into the views");
        self.refuse(segment, &fault.to_string());
        let poisoned = matches!(
            fault,
            Fault::Store {
                cause: fjall::Error::Poisoned,
                ..
            }
        );
        failures.short_of_room = self.log.is_full(&self.data.join(PROBE), PROBE_BYTES);
        self.log.hold_views_up(failures.short_of_room);
        if failures.short_of_room {
            self.log.make_room();
        } else {
            failures.attempts += 1;
            // fjall takes nothing any more once a write of its own has failed. It does after a start, and a start needs room.
            if poisoned || failures.attempts >= ATTEMPTS_MAX {
                self.log
                    .give_up(format!("the views take nothing any more: {fault}"));
            }
        }
        self.rest(RETRY);
    }

    /// Answers all who wait that this segment does not come in for now.
    fn refuse(&self, segment: &SealedSegment, why: &str) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for (_, resolver) in waiting {
            resolver.resolve(Err(JournalError::Io {
                what: format!("bringing segment {} into the views", segment.number()),
                cause: why.to_owned(),
            }));
        }
    }

    /// Whether there is room for a segment's views. Where the file system does not tell, an attempt will.
    fn has_room_again(&self) -> bool {
        let wanted = ROOM_SEGMENTS * u64::from(self.log.segment_bytes());
        self.log
            .room(&self.data)
            .map_or(true, |room| room >= wanted)
    }

    /// One segment: in, durable, noted in the checkpoint, reported. Cut off anywhere, it is simply repeated.
    fn bring_in(
        &self,
        segment: &SealedSegment,
        memory: &mut Memory,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut pacer = Pacer {
            work: self,
            since: Instant::now(),
            records: 0,
        };
        self.views
            .bring_in(segment, memory, checkpoint, &mut pacer)?;
        let first = self
            .views
            .first_kept(checkpoint.newest_time_ms, self.options.retention_ms);
        self.views.keep_from(first);
        checkpoint.events_from = first;
        checkpoint.events_windows = self.views.existing_windows();
        checkpoint.sent_windows = self.views.kept_sent_windows(checkpoint.newest_time_ms);
        checkpoint.advance(segment.checkpoint());
        checkpoint
            .store(&self.data)
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        pacer.reached(Step::Checkpointed)?;
        // Windows go only after the checkpoint has said that nobody expects them.
        self.views.drop_windows(checkpoint.newest_time_ms)?;
        self.viewed.store(segment.number(), SeqCst);
        self.log.viewed(segment.number());
        tracing::debug!(segment = segment.number(), took = ?begun.elapsed(), "a segment is in the views");
        self.answer();
        Ok(())
    }

    fn answer(&self) {
        let viewed = self.viewed();
        let mut orders = self.lock();
        let (done, waiting) = std::mem::take(&mut orders.waiting)
            .into_iter()
            .partition(|(segment, _)| *segment <= viewed);
        orders.waiting = waiting;
        drop(orders);
        let done: Vec<(u64, Resolver<Settled>)> = done;
        for (_, resolver) in done {
            resolver.resolve(Ok(()));
        }
    }
}

/// Attempts in a row that failed.
#[derive(Default)]
struct Failures {
    /// With room on the disk.
    attempts: u32,
    /// The last one was for lack of it.
    short_of_room: bool,
}

/// The end of the worker: nobody is answered any more, or waits for views that no thread makes.
struct Ending<'a>(&'a Work);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .log
                .give_up("the thread that makes the views has panicked".to_owned());
        }
        let waiting = {
            let mut orders = self.0.lock();
            orders.stopping = true;
            std::mem::take(&mut orders.waiting)
        };
        drop(waiting);
    }
}

/// Rests between slices of work, unless the journal is waiting.
struct Pacer<'a> {
    work: &'a Work,
    since: Instant,
    records: usize,
}

impl Pacer<'_> {
    fn rest(&mut self, time: Duration) {
        if !time.is_zero() && !self.work.hurry() {
            // Other orders come behind the segment, and are no reason to do without rests.
            self.work.rest_unless(time, |_| false);
        }
        self.since = Instant::now();
    }

    fn duty(&self) -> u32 {
        self.work.options.duty_percent.clamp(1, 100)
    }
}

impl Pace for Pacer<'_> {
    fn worked(&mut self, records: usize) {
        self.records += records;
        if self.records < RECORDS_PER_LOOK {
            return;
        }
        self.records = 0;
        let worked = self.since.elapsed();
        if worked >= SLICE {
            let duty = self.duty();
            self.rest(worked * (100 - duty) / duty);
        }
    }

    fn step_bytes(&self) -> usize {
        if self.work.hurry() {
            HURRIED_STEP_BYTES
        } else {
            STEP_BYTES
        }
    }

    fn moved(&mut self) {
        if self.duty() < 100 {
            let read = self.since.elapsed();
            self.rest((read * DISK_REST).min(DISK_REST_MAX));
        }
    }

    fn reached(&mut self, step: Step) -> Result<(), Fault> {
        let dies = self
            .work
            .options
            .on_step
            .as_ref()
            .is_some_and(|StepHook(goes_on)| !goes_on(step));
        if dies || self.work.lock().abandoned {
            Err(Fault::Stopped)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::UserId;

    use super::{super::format::Fixed, super::log::tests::sealed_on_a_small_disk, *};
    use crate::{directory::Seen, promise::promise, wait};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn whoever_waits_for_views_without_room_is_told_at_once_and_they_go_on_when_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let fixed = Fixed {
            lanes: 4,
            events_window_ms: 1 << 30,
            sent_window_ms: 1 << 30,
        };
        let checkpoint = Checkpoint::empty(1);
        let views = ViewStore::open(&dir.path().join("1"), 1 << 20, &fixed, &checkpoint).unwrap();
        let (log, set_room) = sealed_on_a_small_disk();
        set_room(Some(0));
        let options = WorkerOptions {
            duty_percent: 100,
            retention_ms: None,
            seen_flush_ms: 3_600_000,
            on_step: None,
        };
        // Without this directory no checkpoint can be written.
        let data = dir.path().join("data");
        let work = Arc::new(Work::new(data.clone(), options, log, views, 0));
        let worker = std::thread::spawn({
            let work = Arc::clone(&work);
            move || work.run(checkpoint)
        });
        let settle = || {
            let (resolver, answer) = promise();
            work.when_viewed(1, resolver);
            wait(answer).unwrap()
        };
        // By an attempt, and then without one, time and again.
        for _ in 0..4 {
            let error = settle().unwrap_err();
            assert!(matches!(error, JournalError::Io { .. }), "{error}");
        }
        std::fs::create_dir(data).unwrap();
        set_room(None);
        // One answer may be on its way still.
        while settle().is_err() {}
        // Times that should be written at once are, though nothing else happens.
        for time_ms in 1..=5 {
            let user = UserId::from_bytes([7; 16]);
            work.seen.record(&[Seen { user, time_ms }]);
            work.flush_seen();
            let begun = Instant::now();
            while work.views.read_seen(user).unwrap() != Some(time_ms) {
                assert!(begun.elapsed() < PATIENCE, "they are written");
                std::thread::yield_now();
            }
        }
        work.stop();
        work.log.close();
        worker.join().unwrap();
    }
}
