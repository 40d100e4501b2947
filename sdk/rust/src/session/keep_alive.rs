//! When a connection has been silent for too long: the clockwork of Ping.

use std::time::Duration;

use tokio::time::Instant;

/// Times of the last bytes of a connection. docs/PROTOCOL.md, section 4: whoever has said nothing for a keep-alive time is
/// pinged, and a server from which nothing came for two of them, its Ping included, is given up.
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// None: the transport keeps itself alive.
    silence_max: Option<Duration>,
    last_read: Instant,
    last_written: Instant,
    pinged: Option<Instant>,
}

impl KeepAlive {
    /// Of a connection that begins; `keep_alive_ms` is Welcome's.
    pub(super) fn new(keep_alive_ms: u32, now: Instant) -> Self {
        Self {
            silence_max: (keep_alive_ms > 0).then(|| Duration::from_millis(keep_alive_ms.into())),
            last_read: now,
            last_written: now,
            pinged: None,
        }
    }

    /// Something came from the server.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_read = now;
        self.pinged = None;
    }

    /// Something went to the server.
    pub(super) fn said(&mut self, now: Instant) {
        self.last_written = now;
    }

    /// The server has been asked to say something.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Whether that was in vain so far.
    pub(super) const fn is_pinged(&self) -> bool {
        self.pinged.is_some()
    }

    /// When a Ping is due, or its answer.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.pinged.unwrap_or(self.last_read.min(self.last_written));
        Some(since + self.silence_max?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_millis(50_000);

    #[test]
    fn a_server_is_given_up_after_two_keep_alive_times_its_ping_included() {
        let began = Instant::now();
        let mut silence = KeepAlive::new(50_000, began);
        assert_eq!(silence.due(), Some(began + KEEP_ALIVE));
        assert!(!silence.is_pinged());
        silence.pinged(began + KEEP_ALIVE);
        silence.said(began + KEEP_ALIVE);
        assert_eq!(silence.due(), Some(began + 2 * KEEP_ALIVE));
        assert!(silence.is_pinged());
        silence.heard(began + KEEP_ALIVE);
        assert!(!silence.is_pinged());
        assert_eq!(silence.due(), Some(began + 2 * KEEP_ALIVE));
    }

    #[test]
    fn whichever_side_is_silent_counts_and_a_transport_of_its_own_means_never() {
        let began = Instant::now();
        let mut silence = KeepAlive::new(50_000, began);
        silence.heard(began + KEEP_ALIVE / 2);
        assert_eq!(silence.due(), Some(began + KEEP_ALIVE));
        silence.said(began + KEEP_ALIVE / 5);
        assert_eq!(silence.due(), Some(began + KEEP_ALIVE / 5 + KEEP_ALIVE));
        assert_eq!(KeepAlive::new(0, began).due(), None);
    }
}
