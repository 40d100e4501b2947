//! How long processors stood still: a host that has other work, or limits what a virtual machine may use, takes them away without
//! a word (`steal` of /proc/stat tells of the former alone), and whatever is measured meanwhile is as late as that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

/// How often it is looked whether a processor is there.
const LOOK: Duration = Duration::from_millis(2);
/// Being later than this is a standstill: more than the kernel lets others finish first.
const LATE: Duration = Duration::from_millis(15);
/// Taken from the priority of those who look, so that they run before all others.
const NICE: i32 = -20;

/// Standstills of the processors that this process may use, up to now or in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoodStill {
    /// How often one did.
    pub times: u64,
    /// How long, milliseconds, of all processors together.
    pub total_ms: f64,
    /// The longest, milliseconds.
    pub longest_ms: f64,
}

impl StoodStill {
    fn note(&mut self, late: Duration) {
        let ms = late.as_secs_f64() * 1_000.0;
        self.times += 1;
        self.total_ms += ms;
        self.longest_ms = self.longest_ms.max(ms);
    }

    /// Adds those of another stretch.
    pub fn add(&mut self, other: Self) {
        self.times += other.times;
        self.total_ms += other.total_ms;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

impl std::fmt::Display for StoodStill {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            times,
            total_ms,
            longest_ms,
        } = self;
        write!(
            out,
            "{times} times, {total_ms:.0} ms in all, {longest_ms:.0} ms at once"
        )
    }
}

/// Looks for standstills, on a thread for each processor, until it is dropped.
#[derive(Debug)]
pub struct Standstills {
    seen: Arc<Seen>,
    lookouts: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    over: AtomicBool,
    since_taken: Mutex<StoodStill>,
}

impl Standstills {
    /// From now on. Where threads cannot be had, bound or given priority, it sees less, or takes a busy machine for one that
    /// stands still.
    #[must_use]
    pub fn begin() -> Self {
        let seen = Arc::new(Seen::default());
        let lookouts = processors().into_iter().filter_map(|processor| {
            let seen = seen.clone();
            let thread = std::thread::Builder::new().name("standstill".into());
            let lookout = thread.spawn(move || {
                let mut only = CpuSet::new();
                only.set(processor);
                let _ = rustix::thread::sched_setaffinity(None, &only);
                let _ = rustix::process::nice(NICE);
                seen.look();
            });
            lookout.ok()
        });
        let lookouts = lookouts.collect();
        Self { seen, lookouts }
    }

    /// Those since this was asked last, or since they are looked for.
    #[must_use]
    pub fn take(&self) -> StoodStill {
        std::mem::take(&mut *self.seen.lock())
    }
}

impl Drop for Standstills {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Relaxed);
        for lookout in self.lookouts.drain(..) {
            // One that has panicked has said so.
            let _ = lookout.join();
        }
    }
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, StoodStill> {
        self.since_taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut last = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            let now = Instant::now();
            self.looked(now - last);
            last = now;
        }
    }

    /// So long after the last look.
    fn looked(&self, after: Duration) {
        let late = after.saturating_sub(LOOK);
        if late > LATE {
            self.lock().note(late);
        }
    }
}

/// Those that this process may use; none where the kernel does not tell.
fn processors() -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&processor| allowed.is_set(processor))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_late_is_counted_and_what_the_kernel_does_is_not() {
        let seen = Seen::default();
        for ms in [2, 9, 17, 102, 52] {
            seen.looked(Duration::from_millis(ms));
        }
        let standstills = Standstills {
            seen: Arc::new(seen),
            lookouts: Vec::new(),
        };
        let mut stood = standstills.take();
        assert_eq!((stood.times, stood.longest_ms.round()), (2, 100.0));
        assert_eq!(stood.to_string(), "2 times, 150 ms in all, 100 ms at once");
        assert_eq!(standstills.take(), StoodStill::default());
        stood.add(stood);
        assert_eq!((stood.times, stood.total_ms.round()), (4, 300.0));
    }

    #[test]
    fn each_processor_has_its_lookout_and_all_end() {
        let standstills = Standstills::begin();
        assert_eq!(standstills.lookouts.len(), processors().len());
        assert!(!standstills.lookouts.is_empty());
        let seen = Arc::downgrade(&standstills.seen);
        drop(standstills);
        assert!(seen.upgrade().is_none());
    }
}
