//! What a run tells at its end.

use serde::{Deserialize, Serialize};

use super::growth::Growth;
use super::interval::Interval;
use super::lead::Measured;
use super::samples::Sample;
use super::schedule::{Pace, Phase, PhaseKind};
use super::{Check, Shared};
use crate::broker_process::Usage;
use crate::checker::Violations;
use crate::latency::Percentiles;

/// Refusals in words that a report keeps.
const PROBLEMS_MAX: usize = 10;

/// The report, as it is written in JSON. Counts and latencies at its top are those of all measured phases together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Where to.
    pub target: String,
    /// All connections.
    pub connections: usize,
    /// Those that published.
    pub publishers: usize,
    /// Those that read.
    pub readers: usize,
    /// Conversations.
    pub conversations: usize,
    /// Their shapes.
    pub shapes: Vec<String>,
    /// Processes that made the load.
    pub processes: usize,
    /// Messages a second that were asked for, if every measured phase had the same rate.
    pub rate: Option<f64>,
    /// Messages of a publisher that waited for acknowledgement at most, if every measured phase was as fast as acknowledged.
    pub in_flight: Option<usize>,
    /// At a rate, messages that a publisher sent together.
    #[serde(default = "one")]
    pub burst: usize,
    /// Bytes of a body.
    pub size: String,
    /// How much was examined: full, sampled=N or off.
    pub check: String,
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
    /// From when a message was due to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From when a message was due to a reader.
    pub delivery_ms: Percentiles,
    /// What readers missed, got twice, or got otherwise than it was sent, over the whole run.
    pub violations: Violations,
    /// All of it together.
    pub violations_total: u64,
    /// Messages that were refused for good or never answered, over the whole run.
    pub failed: u64,
    /// Messages that were refused for now and sent again, over the whole run.
    pub refused: u64,
    /// The first refusals in words.
    pub problems: Vec<String>,
    /// Connections that were lost and came back.
    pub reconnects: u64,
    /// What the broker used in the measured time, if it was watched.
    pub broker: Option<Usage>,
    /// What this load generator used itself, over all phases.
    pub client: Option<Usage>,
    /// What grew while the load lasted; none when it lasted less than 4 seconds.
    pub growth: Option<Growth>,
    /// No violation, and nothing failed.
    pub clean: bool,
    /// Thresholds that were passed, in words.
    pub passed_thresholds: Vec<String>,
    /// Each phase.
    pub phases: Vec<PhaseReport>,
    /// Each second.
    pub samples: Vec<Sample>,
}

/// What a phase tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// Whether it counts in the totals.
    pub measured: bool,
    /// How fast it was to publish.
    pub pace: String,
    /// How long it lasted, seconds.
    pub duration_s: f64,
    /// Messages acknowledged.
    pub published: u64,
    /// A second.
    pub published_per_s: f64,
    /// Message events that readers got.
    pub delivered: u64,
    /// A second.
    pub delivered_per_s: f64,
    /// From when a message was due to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From when a message was due to a reader.
    pub delivery_ms: Percentiles,
    /// What the broker used, if it was watched.
    pub broker: Option<Usage>,
}

pub(super) fn report(shared: &Shared, mut measured: Measured) -> Report {
    let spec = &shared.spec;
    let mut all = Interval::default();
    let (mut duration_s, mut broker) = (0.0, None);
    for (phase, of) in measured.phases.iter().zip(&spec.phases) {
        if of.measured {
            all.add(&phase.interval);
            duration_s += phase.seconds;
            broker = phase.broker.map(|used| used.after(broker));
        }
    }
    let phases = measured.phases.iter().zip(&spec.phases);
    let phases = phases
        .map(|(phase, of)| phase_report(of, &phase.interval, phase.seconds, phase.broker))
        .collect();
    measured.problems.truncate(PROBLEMS_MAX);
    let violations_total = measured.violations.total();
    Report {
        target: shared.target.to_string(),
        connections: spec.connections,
        publishers: spec.publishers,
        readers: spec.readers,
        conversations: shared.plan.conversations(),
        shapes: spec
            .parts
            .iter()
            .map(|part| part.shape.to_string())
            .collect(),
        processes: spec.processes,
        rate: common(&spec.phases, |pace| match pace {
            Pace::Rate { from, to } if from == to => Some(from),
            _ => None,
        }),
        in_flight: common(&spec.phases, |pace| match pace {
            Pace::Max { in_flight } => Some(in_flight),
            Pace::Rate { .. } => None,
        }),
        burst: spec.burst,
        size: spec.size.to_string(),
        check: spec.check.to_string(),
        duration_s,
        published: all.published,
        published_per_s: all.published as f64 / duration_s,
        delivered: all.delivered,
        delivered_per_s: all.delivered as f64 / duration_s,
        ack_ms: all.acks.percentiles(),
        delivery_ms: all.deliveries.percentiles(),
        violations: measured.violations,
        violations_total,
        failed: measured.total.failed,
        refused: measured.total.refused,
        problems: measured.problems,
        reconnects: measured.total.reconnects,
        broker,
        client: measured.client,
        growth: growth(&spec.phases, &measured.samples),
        clean: violations_total == 0 && measured.total.failed == 0,
        passed_thresholds: Vec::new(),
        phases,
        samples: measured.samples,
    }
}

fn phase_report(
    phase: &Phase,
    interval: &Interval,
    seconds: f64,
    broker: Option<Usage>,
) -> PhaseReport {
    PhaseReport {
        name: phase.name.clone(),
        measured: phase.measured,
        pace: phase.pace.to_string(),
        duration_s: seconds,
        published: interval.published,
        published_per_s: interval.published as f64 / seconds,
        delivered: interval.delivered,
        delivered_per_s: interval.delivered as f64 / seconds,
        ack_ms: interval.acks.percentiles(),
        delivery_ms: interval.deliveries.percentiles(),
        broker,
    }
}

/// Of the soak phases if there are any, else of all that is measured.
fn growth(phases: &[Phase], samples: &[Sample]) -> Option<Growth> {
    let soaks: Vec<&str> = phases
        .iter()
        .filter(|phase| phase.kind == PhaseKind::Soak)
        .map(|phase| phase.name.as_str())
        .collect();
    let counts = |sample: &&Sample| {
        sample.measured && (soaks.is_empty() || soaks.contains(&sample.phase.as_str()))
    };
    let samples: Vec<&Sample> = samples.iter().filter(counts).collect();
    Growth::between(&samples)
}

/// What all measured phases have in common.
fn common<T: PartialEq + Copy>(phases: &[Phase], what: impl Fn(Pace) -> Option<T>) -> Option<T> {
    let mut all = phases
        .iter()
        .filter(|phase| phase.measured)
        .map(|phase| what(phase.pace));
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

impl std::fmt::Display for Check {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => out.write_str("full"),
            Self::Sampled(n) => write!(out, "sampled={n}"),
            Self::Off => out.write_str("off"),
        }
    }
}

/// What reports say of turns that were made before there were any.
fn one() -> usize {
    1
}
