//! What grows while nothing else changes: the end of the load in relation to its beginning.

use serde::{Deserialize, Serialize};

use super::samples::Sample;

/// Fewer samples than these say nothing about growth.
const SAMPLES_MIN: usize = 4;
/// The part of the samples that is its beginning, and its end; it has two samples at least.
const PART: usize = 4;

/// The last quarter's median by the first quarter's, of the soak phases if there are any, else of all that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Of the broker's memory, if it was watched.
    pub rss: Option<f64>,
    /// Of its open files.
    pub open_files: Option<f64>,
    /// Of the 99th percentile of acknowledgements.
    pub ack_p99: f64,
    /// And of deliveries, if there were any.
    pub delivery_p99: Option<f64>,
}

impl Growth {
    /// Between these samples; none when they are too few.
    pub(super) fn between(samples: &[&Sample]) -> Option<Self> {
        if samples.len() < SAMPLES_MIN {
            return None;
        }
        let part = (samples.len() / PART).max(2);
        let ratio = |of: &dyn Fn(&Sample) -> Option<f64>| {
            let before = median(samples[..part].iter().filter_map(|one| of(one)))?;
            let after = median(
                samples[samples.len() - part..]
                    .iter()
                    .filter_map(|one| of(one)),
            )?;
            (before > 0.0).then_some(after / before)
        };
        let above_zero = |value: f64| (value > 0.0).then_some(value);
        Some(Self {
            rss: ratio(&|one| Some(one.broker?.resident_bytes as f64)),
            open_files: ratio(&|one| above_zero(one.broker?.open_files as f64)),
            ack_p99: ratio(&|one| above_zero(one.ack_ms.p99))?,
            delivery_p99: ratio(&|one| above_zero(one.delivery_ms.p99)),
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::samples::BrokerSample;
    use super::*;

    fn sample(second: u64, p99: f64) -> Sample {
        let mut sample = Sample {
            broker: Some(BrokerSample {
                resident_bytes: 100 + second,
                open_files: 10,
                cpu: 0.5,
            }),
            ..Sample::default()
        };
        sample.ack_ms.p99 = p99;
        sample
    }

    #[test]
    fn growth_is_the_end_by_the_beginning_whatever_a_single_second_does() {
        let mut samples: Vec<Sample> = (0..12).map(|second| sample(10 * second, 2.0)).collect();
        samples[10].ack_ms.p99 = 500.0;
        let samples: Vec<&Sample> = samples.iter().collect();
        let growth = Growth::between(&samples).unwrap();
        assert_eq!(growth.rss, Some(200.0 / 110.0));
        assert_eq!((growth.ack_p99, growth.open_files), (1.0, Some(1.0)));
        assert_eq!(growth.delivery_p99, None, "nobody read");
        assert_eq!(Growth::between(&samples[..3]), None);
    }
}
