//! What all connections together may have in flight before each has but its part: as much as is answered in time. More would
//! only wait, and let everybody else wait with it.

/// How often it is looked at how long answers take, microseconds.
const LOOK_EVERY_US: u64 = 20_000;
/// How long they are to take at most, on average, microseconds.
const ANSWERED_WITHIN_US: u64 = 8_000;
/// The window at least and at most. With the least a disk that takes 25 ms for a sync still writes 20 MB/s.
const BYTES: (usize, usize) = (512 << 10, 8 << 20);

/// The window, and what is in it.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: usize,
    bytes: usize,
    /// Since the last look.
    answered: usize,
    looked_us: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes_max: BYTES.1,
            bytes: 0,
            answered: 0,
            looked_us: 0,
        }
    }
}

impl Window {
    /// Requests are under way.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Requests are answered.
    pub(super) fn credit(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.answered += bytes;
    }

    /// Requests are given up before anybody was asked.
    pub(super) fn drop(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Takes in how long answers take now: what is under way, divided by what is answered in a time (Little's law).
    pub(super) fn look(&mut self, mono_us: u64) {
        let elapsed_us = mono_us.saturating_sub(self.looked_us);
        if elapsed_us < LOOK_EVERY_US {
            return;
        }
        let answered = self.answered.max(1) as u128;
        let takes_us = self.bytes as u128 * u128::from(elapsed_us) / answered;
        let bytes_max = if takes_us > u128::from(ANSWERED_WITHIN_US) {
            self.bytes_max / 4 * 3
        } else {
            self.bytes_max / 4 * 5
        };
        self.bytes_max = bytes_max.clamp(BYTES.0, BYTES.1);
        (self.answered, self.looked_us) = (0, mono_us);
    }

    /// What each of so many may have in flight; `None`: as much as it likes.
    pub(super) fn part(&self, connections: usize) -> Option<usize> {
        (self.bytes > self.bytes_max).then(|| self.bytes_max / connections.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window after a second in which so much is in flight all the time, and so much of it answered every 20 ms.
    fn after(in_flight: usize, answered: usize) -> Window {
        let mut window = Window::default();
        window.charge(in_flight);
        for look in 1..=50 {
            window.charge(answered);
            window.credit(answered);
            window.look(look * LOOK_EVERY_US);
        }
        window
    }

    #[test]
    fn a_shard_that_answers_in_time_may_have_much_in_flight() {
        // 7 ms.
        let window = after(7 << 20, 20 << 20);
        assert_eq!(window.bytes_max, BYTES.1);
        assert_eq!(window.part(10), None);
    }

    #[test]
    fn one_that_does_not_takes_in_less_until_it_does() {
        // 9 ms.
        let mut window = after(9 << 20, 20 << 20);
        assert_eq!(window.bytes_max, BYTES.0);
        assert_eq!(window.part(10), Some(BYTES.0 / 10));
        window.credit(9 << 20);
        assert_eq!(window.part(10), None);
        for look in 51..=100 {
            window.look(look * LOOK_EVERY_US);
        }
        assert_eq!(window.bytes_max, BYTES.1);
    }

    #[test]
    fn what_is_given_up_is_not_taken_for_answered() {
        let mut window = Window::default();
        window.charge(4 << 20);
        for look in 1..=50 {
            window.charge(8 << 20);
            window.drop(8 << 20);
            window.look(look * LOOK_EVERY_US);
        }
        assert_eq!(window.bytes_max, BYTES.0);
    }

    #[test]
    fn looking_twice_at_once_changes_nothing() {
        let mut window = after(8 << 20, 1 << 20);
        window.credit(8 << 20);
        window.look(50 * LOOK_EVERY_US + 1);
        assert_eq!(window.bytes_max, BYTES.0);
    }
}
