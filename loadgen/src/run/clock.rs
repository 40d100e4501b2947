//! The clock of a run: microseconds since its epoch, which all of its processes share.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the time of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_us: u64,
    epoch_us: u64,
}

impl Clock {
    /// For a run whose epoch was at this time, microseconds since 1970. Monotonic from here on.
    pub(crate) fn since(epoch_us: u64) -> Self {
        Self {
            start: Instant::now(),
            start_us: unix_us().saturating_sub(epoch_us),
            epoch_us,
        }
    }

    /// Microseconds since the epoch.
    #[inline]
    pub(crate) fn now_us(&self) -> u64 {
        self.start_us + micros(self.start.elapsed())
    }

    /// Milliseconds since 1970 at a time of this clock.
    #[inline]
    pub(crate) const fn unix_ms(&self, at_us: u64) -> u64 {
        (self.epoch_us + at_us) / 1000
    }

    /// From now until a time of this clock; nothing when it has passed.
    pub(crate) fn until(&self, at_us: u64) -> Duration {
        Duration::from_micros(at_us.saturating_sub(self.now_us()))
    }
}

/// Microseconds since 1970.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, micros)
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
