//! The thread behind the journal: brings sealed segments into the views, throttled, has windows leave that are not kept any more, and
//! writes what the directory holds.

mod pacer;
#[cfg(test)]
mod tests;
mod windows;

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
use pacer::Pacer;

/// The disk is left to others after a read of a segment, or a step of what leaves, for as many times as long as that took, and no
/// longer than this.
const DISK_REST: u32 = 3;
const DISK_REST_MAX: Duration = Duration::from_millis(10);
/// What the next segment is brought in with is kept so long. Giving it back stops the processor for milliseconds, and so do
/// its pages when they are used for the first time.
const MEMORY_KEPT: Duration = Duration::from_secs(30);
/// With so many segments waiting there is no rest: publishers are about to be slowed.
const HURRY_SEGMENTS: u64 = 2;
/// Between looks at tables that have to be merged before more come.
const CROWDED: Duration = Duration::from_millis(20);
/// Between looks whether fjall goes on meanwhile: the thread that merges may have ended.
const CROWDED_LOOK: Duration = Duration::from_secs(1);
/// Between attempts at a segment that could not be brought in.
const RETRY: Duration = Duration::from_secs(2);
/// After so many in a row, with room on the disk, a start has to find out what is wrong: without an end publishers would wait
/// for ever once the views lag by as much as they may.
const ATTEMPTS_MAX: u32 = 5;
/// What bringing in a segment may write, times its bytes. With less room it is not tried again after it failed for lack of
/// room: what an attempt leaves behind is removed by the next start only. And as much leaves behind it.
const ROOM_SEGMENTS: u64 = 2;

/// File by which it is found out whether there is room, and as much as a start needs to go on.
pub(super) const PROBE: &str = "room.tmp";
pub(super) const PROBE_BYTES: usize = 4 << 20;

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
    /// A segment that is not full is ended when none came for so long, milliseconds; `None`: never.
    pub(super) seal_ms: Option<u64>,
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

    fn duty(&self) -> u32 {
        self.options.duty_percent.clamp(1, 100)
    }

    /// For how long the disk is left to others after work on it that took so long.
    fn disk_rest(&self, worked: Duration) -> Duration {
        if self.duty() < 100 {
            (worked * DISK_REST).min(DISK_REST_MAX)
        } else {
            Duration::ZERO
        }
    }

    /// The worker's thread, until [`Work::stop`].
    pub(super) fn run(&self, checkpoint: Checkpoint) {
        let flush_every = Duration::from_millis(self.options.seen_flush_ms.max(1));
        let _ending = Ending(self);
        let mut turns = Turns::new(checkpoint);
        self.expire(&mut turns.checkpoint);
        loop {
            let (stopping, abandoned) = {
                let orders = self.lock();
                (orders.stopping, orders.abandoned)
            };
            if abandoned {
                break;
            }
            let flush = std::mem::take(&mut self.lock().flush_seen);
            if stopping || flush || turns.flushed.elapsed() >= flush_every {
                if let Err(fault) = self.seen.flush(&self.views) {
                    tracing::error!(%fault, "when users were last seen could not be written");
                    // While no segment comes nobody else would say so.
                    if !stopping && fault.is_for_good() && self.has_room_again() {
                        self.give_up(&fault);
                    }
                }
                turns.flushed = Instant::now();
            }
            if stopping {
                break;
            }
            match self.log.sealed_unviewed() {
                // Crowded or not: merges may have ended for lack of room, and what leaves makes some.
                Some(segment) if turns.failures.short_of_room && !self.has_room_again() => {
                    self.make_do(&segment, &mut turns);
                }
                Some(segment) if self.views.is_crowded() => self.crowded(&segment, &mut turns),
                Some(segment) => match self.bring_in(&segment, &mut turns) {
                    Ok(()) => self.brought_in(segment, &mut turns),
                    Err(Fault::Stopped) => break,
                    Err(fault) => self.failed(&segment, &fault, &mut turns),
                },
                None => self.idle(flush_every, &mut turns),
            }
        }
    }

    /// Tables have to be merged before more come.
    fn crowded(&self, segment: &SealedSegment, turns: &mut Turns) {
        if turns.looked.elapsed() >= CROWDED_LOOK {
            turns.looked = Instant::now();
            if let Err(fault) = self.views.persist() {
                self.failed(segment, &fault, turns);
                return;
            }
        }
        self.rest(CROWDED);
    }

    /// There is no room for a segment: what is on its way out makes some.
    fn make_do(&self, segment: &SealedSegment, turns: &mut Turns) {
        self.refuse(segment, "there is no room on the disk");
        let rest = self.leave(turns).rest().unwrap_or_else(|| {
            self.expire(&mut turns.checkpoint);
            RETRY
        });
        self.rest_unless(rest, |orders| {
            orders.flush_seen || !orders.waiting.is_empty()
        });
    }

    fn brought_in(&self, segment: SealedSegment, turns: &mut Turns) {
        turns.failures = Failures::default();
        self.log.hold_views_up(false);
        let bytes = segment.bytes();
        // Or it could not be used again meanwhile.
        drop(segment);
        self.leave_as_much(bytes, turns);
        (turns.used, turns.sealed) = (Instant::now(), Instant::now());
    }

    /// There is no segment: what leaves goes on meanwhile.
    fn idle(&self, flush_every: Duration, turns: &mut Turns) {
        let due = flush_every.saturating_sub(turns.flushed.elapsed());
        let rest = self.leave(turns).rest().map_or(due, |rest| rest.min(due));
        if self.wait(rest) {
            return;
        }
        if turns.used.elapsed() >= MEMORY_KEPT {
            turns.memory.shrink();
        }
        let seal_ms = self.options.seal_ms.map(Duration::from_millis);
        if seal_ms.is_some_and(|time| turns.sealed.elapsed() >= time) {
            turns.sealed = Instant::now();
            self.log.seal(|_| ());
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

    fn failed(&self, segment: &SealedSegment, fault: &Fault, turns: &mut Turns) {
        let failures = &mut turns.failures;
        tracing::error!(segment = segment.number(), %fault, "a segment could not be brought into the views");
        self.refuse(segment, &fault.to_string());
        failures.short_of_room = self.log.is_full(&self.data.join(PROBE), PROBE_BYTES);
        self.log.hold_views_up(failures.short_of_room);
        if failures.short_of_room {
            self.log.make_room();
        } else {
            failures.attempts += 1;
            // A start needs room.
            if fault.is_for_good() || failures.attempts >= ATTEMPTS_MAX {
                self.give_up(fault);
            }
        }
        turns.used = Instant::now();
        self.rest(RETRY);
    }

    /// Has the process end: a start has to find out what is wrong.
    fn give_up(&self, fault: &Fault) {
        let why = format!("the views take nothing any more: {fault}");
        self.log.give_up(match self.views.failed_merge() {
            Some(keyspace) => format!("{why}, since a merge of {keyspace} has failed"),
            None => why,
        });
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
    fn bring_in(&self, segment: &SealedSegment, turns: &mut Turns) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut pacer = Pacer::new(self);
        let Turns {
            checkpoint, memory, ..
        } = turns;
        let brought = self.views.gather(segment, memory, &mut pacer)?;
        // Before it is said into which windows it goes: another lane's clock may have leapt ahead in the same segment.
        self.keep(checkpoint)?;
        let mut next = checkpoint.clone();
        self.views.bring_in(brought, &mut next, &mut pacer)?;
        next.events_windows = self.views.existing_windows();
        next.sent_windows = self.views.kept_sent_windows(next.newest_time_ms);
        next.advance(segment.checkpoint());
        self.store(&next)?;
        // Not before: windows of sent ids go by its time, and a start refuses views without those that the one on the disk names.
        *checkpoint = next;
        pacer.reached(Step::Checkpointed)?;
        self.viewed.store(segment.number(), SeqCst);
        self.log.viewed(segment.number());
        tracing::debug!(segment = segment.number(), took = ?begun.elapsed(), "a segment is in the views");
        self.answer();
        // Windows go only after the checkpoint has said that nobody expects them.
        self.views.drop_windows(checkpoint.newest_time_ms);
        Ok(())
    }

    fn store(&self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        checkpoint
            .store(&self.data)
            .map_err(|error| Fault::Damaged(error.to_string()))
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

/// What the worker keeps from one turn to the next.
struct Turns {
    checkpoint: Checkpoint,
    memory: Memory,
    failures: Failures,
    /// When the directory was written.
    flushed: Instant,
    /// When a segment was last worked on.
    used: Instant,
    /// When a segment last came in, or the journal was asked for one.
    sealed: Instant,
    /// When it was last looked whether fjall goes on.
    looked: Instant,
    /// What is on its way out could not be gone on with, and is not tried again before this.
    leaves_not_before: Option<Instant>,
}

impl Turns {
    fn new(checkpoint: Checkpoint) -> Self {
        let now = Instant::now();
        Self {
            checkpoint,
            memory: Memory::default(),
            failures: Failures::default(),
            flushed: now,
            used: now,
            sealed: now,
            looked: now,
            leaves_not_before: None,
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
