//! What a run tells at its end.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::worker::Tally;
use super::{Measured, Shared};
use crate::broker_process::Usage;
use crate::checker::Violations;
use crate::latency::Percentiles;

/// Refusals in words that a report keeps.
const PROBLEMS_MAX: usize = 10;

/// The report, as it is written in JSON. Counts and latencies are those of the measured time.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where to.
    pub target: String,
    /// All connections.
    pub connections: usize,
    /// Those that published.
    pub publishers: usize,
    /// Those that read everything.
    pub readers: usize,
    /// Public channels.
    pub conversations: usize,
    /// Messages a second that were asked for; none: as fast as acknowledged.
    pub rate: Option<f64>,
    /// Messages of a publisher that waited for acknowledgement at most; none with a rate.
    pub in_flight: Option<usize>,
    /// Bytes of a body.
    pub size: String,
    /// Measured time, seconds.
    pub duration_s: f64,
    /// Messages acknowledged.
    pub published: u64,
    /// A second.
    pub published_per_s: f64,
    /// Message events that readers got, all together.
    pub delivered: u64,
    /// A second.
    pub delivered_per_s: f64,
    /// From the (intended) publish to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From the (intended) publish to a reader.
    pub delivery_ms: Percentiles,
    /// What readers missed, or got twice, over the whole run.
    pub violations: Violations,
    /// All of it together.
    pub violations_total: u64,
    /// Messages that were not taken, over the whole run.
    pub failed: u64,
    /// The first of these in words.
    pub problems: Vec<String>,
    /// Connections that were lost and came back.
    pub reconnects: u64,
    /// What the broker used while it was measured, if it was watched.
    pub broker: Option<Usage>,
    /// No violation, and nothing failed.
    pub clean: bool,
}

pub(super) fn report(shared: &Shared, measured: &Measured, tallies: &[Tally]) -> Report {
    let mut tally = Tally::default();
    tallies.iter().for_each(|other| tally.add(other));
    tally.problems.truncate(PROBLEMS_MAX);
    let options = &shared.options;
    let duration_s = measured.duration.as_secs_f64();
    let failed = shared.failed.load(Ordering::Relaxed);
    Report {
        target: options.target.to_string(),
        connections: options.connections,
        publishers: options.publishers,
        readers: options.readers,
        conversations: options.conversations,
        rate: options.rate,
        in_flight: options.rate.is_none().then_some(options.in_flight),
        size: options.size.to_string(),
        duration_s,
        published: tally.published,
        published_per_s: tally.published as f64 / duration_s,
        delivered: tally.delivered,
        delivered_per_s: tally.delivered as f64 / duration_s,
        ack_ms: tally.acks.percentiles(),
        delivery_ms: tally.deliveries.percentiles(),
        violations: tally.violations,
        violations_total: tally.violations.total(),
        failed,
        problems: tally.problems,
        reconnects: measured.counted.reconnects,
        broker: measured.broker,
        clean: tally.violations.total() == 0 && failed == 0,
    }
}
