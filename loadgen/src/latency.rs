//! Latencies with a known error: at most 0.1 % of the value, from a microsecond to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest that is told apart; what is longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;
/// Decimal digits that are kept of a value.
const DIGITS: u8 = 3;

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    us: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        // The bounds are constants that fit each other.
        Self {
            us: Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("bounds of the histogram"),
        }
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        self.record_us(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts one, in microseconds.
    pub fn record_us(&mut self, latency_us: u64) {
        self.us.saturating_record(latency_us.max(1));
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, which is all that can go wrong.
        self.us.add(&other.us).expect("histograms of one kind");
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.us.len()
    }

    /// What a report says of them.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(self.us.value_at_quantile(quantile));
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(self.us.max()),
        }
    }
}

/// As pairs of a value and its count, which is all of it.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.us.iter_recorded();
        serializer.collect_seq(recorded.map(|one| (one.value_iterated_to(), one.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latencies = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latencies.us.saturating_record_n(value, count);
        }
        Ok(latencies)
    }
}

/// Milliseconds that so many of a hundred (or of a thousand) stay below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_threads_together() {
        let mut all = Latencies::default();
        let mut other = Latencies::default();
        for us in 1..=500 {
            all.record_us(us * 1000);
            other.record(Duration::from_millis(us + 500));
        }
        all.add(&other);
        let found = all.percentiles();
        for (found, expected) in [
            (found.p50, 500.0),
            (found.p90, 900.0),
            (found.p99, 990.0),
            (found.p999, 999.0),
            (found.max, 1000.0),
        ] {
            assert!(
                (found - expected).abs() <= expected * 0.001,
                "{found} for {expected}"
            );
        }
        assert_eq!(all.count(), 1000);
    }

    #[test]
    fn what_is_sent_to_another_process_is_the_same_there() {
        let mut latencies = Latencies::default();
        for us in [1, 2, 900, 77_777, 1_000_000, u64::MAX] {
            latencies.record_us(us);
            latencies.record_us(us);
        }
        let text = serde_json::to_string(&latencies).unwrap();
        let again: Latencies = serde_json::from_str(&text).unwrap();
        assert_eq!(again.us, latencies.us);
    }

    #[test]
    fn nothing_counted_is_zero_and_too_long_counts_as_the_longest() {
        assert_eq!(Latencies::default().percentiles(), Percentiles::default());
        let mut one = Latencies::default();
        one.record_us(u64::MAX);
        assert!(one.percentiles().max >= LONGEST_US as f64 / 1000.0);
    }
}
