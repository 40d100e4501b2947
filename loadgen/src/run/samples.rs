//! What a run looks like second by second.

use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::schedule::Phase;
use crate::broker_process::Usage;
use crate::latency::Percentiles;
use crate::standstill::StoodStill;

/// A stretch of the load, a second or what is left of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its end, seconds since the load began.
    pub at_s: f64,
    /// How long it lasted, seconds.
    pub seconds: f64,
    /// The phase.
    pub phase: String,
    /// Whether it counts in the totals.
    pub measured: bool,
    /// Messages acknowledged a second.
    pub published_per_s: f64,
    /// Message events that readers got a second.
    pub delivered_per_s: f64,
    /// Messages refused for now.
    pub refused: u64,
    /// Messages refused for good, or never answered.
    pub failed: u64,
    /// Connections that were lost and came back.
    pub reconnects: u64,
    /// From when a message was due to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From when a message was due to a reader.
    pub delivery_ms: Percentiles,
    /// What the broker used, if it was watched.
    pub broker: Option<BrokerSample>,
    /// How long processors stood still.
    #[serde(default)]
    pub stood_still: StoodStill,
}

/// What the broker used in a stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerSample {
    /// Processors that were kept busy.
    pub cpu: f64,
    /// Memory that is in RAM, bytes.
    pub resident_bytes: u64,
    /// Files, sockets included, that are open.
    pub open_files: u64,
}

impl Sample {
    /// Of an interval that ended `at_s` seconds after the load began; `used` is what the broker used in it.
    pub(super) fn of(
        interval: &Interval,
        phase: &Phase,
        at_s: f64,
        seconds: f64,
        used: Option<Usage>,
        stood_still: StoodStill,
    ) -> Self {
        let per_s = |count: u64| count as f64 / seconds.max(1e-9);
        let messages = interval.messages();
        Self {
            at_s,
            seconds,
            phase: phase.name.clone(),
            measured: phase.measured,
            published_per_s: per_s(interval.published),
            delivered_per_s: per_s(interval.delivered),
            refused: interval.refused,
            failed: interval.failed,
            reconnects: interval.reconnects,
            ack_ms: messages.acks.percentiles(),
            delivery_ms: messages.deliveries.percentiles(),
            broker: used.map(|used| BrokerSample {
                cpu: used.cpu_s / seconds.max(1e-9),
                resident_bytes: used.resident_bytes,
                open_files: used.open_files,
            }),
            stood_still,
        }
    }
}
