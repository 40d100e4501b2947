//! How a segment's way into the views leaves processor and disk to others.

use std::time::{Duration, Instant};

use super::{
    super::views::{Fault, Pace, Step},
    StepHook, Work,
};

/// Work goes on this long before it rests: a thread that wants its processor waits for the rest as a rule, because the kernel
/// looks for a better one only every 4 ms when that one has had its share.
const SLICE: Duration = Duration::from_micros(300);
/// More than this was not work: the process was stopped meanwhile, for an hour perhaps, and is not to rest as long.
const WORKED_MAX: Duration = Duration::from_millis(10);
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

/// How long is rested after work that seemed to take so long.
fn rest_after(worked: Duration, duty_percent: u32) -> Duration {
    worked.min(WORKED_MAX) * (100 - duty_percent) / duty_percent
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
            self.rest(rest_after(worked, self.work.duty()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_stopped_for_an_hour_does_not_rest_for_one() {
        assert_eq!(rest_after(SLICE, 50), SLICE);
        assert_eq!(rest_after(SLICE, 25), 3 * SLICE);
        assert_eq!(rest_after(Duration::from_secs(3600), 50), WORKED_MAX);
        assert_eq!(rest_after(Duration::from_secs(3600), 100), Duration::ZERO);
    }
}
