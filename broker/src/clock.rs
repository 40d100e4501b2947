//! The one place of the broker that reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rialto_core::io::Now;

/// Tells all shards of a process the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Both times.
    pub(crate) fn now(&self) -> Now {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono_us: u64::try_from(self.uptime().as_micros()).unwrap_or(u64::MAX),
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The moment that [`Now::mono_us`] will be `mono_us`.
    pub(crate) fn instant(&self, mono_us: u64) -> Option<tokio::time::Instant> {
        self.origin
            .checked_add(Duration::from_micros(mono_us))
            .map(tokio::time::Instant::from_std)
    }
}
