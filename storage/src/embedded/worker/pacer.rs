//! How a segment's way into the views leaves processor and disk to others.

use std::time::{Duration, Instant};

use super::{
    super::views::{Fault, Pace, Step},
    StepHook, Work,
};

/// Work goes on this long before it rests: a thread that wants its processor waits for the rest as a rule, because the kernel
/// looks for a better one only every 4 ms when that one has had its share.
const SLICE: Duration = Duration::from_micros(300);
/// Bytes of one read of a segment, and when publishers are about to be slowed.
const STEP_BYTES: usize = 128 << 10;
const HURRIED_STEP_BYTES: usize = 512 << 10;
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 64;

/// Rests between slices of work, unless the journal is waiting.
pub(super) struct Pacer<'a> {
    work: &'a Work,
    since: Instant,
    records: usize,
}

impl<'a> Pacer<'a> {
    pub(super) fn new(work: &'a Work) -> Self {
        Self {
            work,
            since: Instant::now(),
            records: 0,
        }
    }

    fn rest(&mut self, time: Duration) {
        if !time.is_zero() && !self.work.hurry() {
            // Other orders come behind the segment, and are no reason to do without rests.
            self.work.rest_unless(time, |_| false);
        }
        self.since = Instant::now();
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
            let duty = self.work.duty();
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
        self.rest(self.work.disk_rest(self.since.elapsed()));
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
