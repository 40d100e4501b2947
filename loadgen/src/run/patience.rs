//! Waiting for what does not come. It is counted in steps, of which a time in which the whole machine stood still is one:
//! whoever was stopped cannot have answered.

use std::time::Duration;

use super::clock::micros;

/// Steps without any sign of life that are too many.
pub(super) const STEPS: u32 = 20;

/// How long somebody still waits.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    step_us: u64,
    next_us: u64,
    sign_us: u64,
    left: u32,
}

impl Patience {
    /// For about this long.
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            step_us: micros(settle / STEPS).max(1),
            next_us: 0,
            sign_us: 0,
            left: STEPS,
        }
    }

    /// Whether it lasts, when the last sign of life was at this time.
    pub(super) const fn lasts(&mut self, now_us: u64, sign_us: u64) -> bool {
        if self.next_us == 0 || sign_us != self.sign_us {
            self.sign_us = sign_us;
            self.left = STEPS;
            self.next_us = now_us + self.step_us;
        } else if now_us >= self.next_us {
            self.left = self.left.saturating_sub(1);
            self.next_us = now_us + self.step_us;
        }
        self.left > 0
    }

    /// When to ask again.
    pub(super) const fn next_us(&self) -> u64 {
        self.next_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_its_time_and_begins_anew_with_each_sign_of_life() {
        let mut patience = Patience::new(Duration::from_micros(200));
        assert!(patience.lasts(1000, 5));
        assert_eq!(patience.next_us(), 1010);
        let last = (1001..).find(|now_us| !patience.lasts(*now_us, 5)).unwrap();
        assert_eq!(last, 1200);
        let mut patience = Patience::new(Duration::from_micros(200));
        assert!((1000..5000).all(|now_us| patience.lasts(now_us, now_us / 100)));
    }

    #[test]
    fn standing_still_costs_one_step() {
        let mut patience = Patience::new(Duration::from_micros(200));
        assert!(patience.lasts(1000, 5) && patience.lasts(9_000_000, 5));
        assert_eq!(patience.left, STEPS - 1);
    }
}
