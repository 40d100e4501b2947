//! What a run tells at its end.

use serde::{Deserialize, Serialize};

use super::growth::Growth;
use super::interval::Due;
use super::lead::{Measured, MeasuredPhase};
use super::samples::Sample;
use super::schedule::{Pace, Phase, PhaseKind};
use super::{Check, Shared};
use crate::broker_process::Usage;
use crate::checker::Violations;
use crate::latency::Percentiles;
use crate::standstill::StoodStill;

/// Refusals in words that a report keeps.
const PROBLEMS_MAX: usize = 10;
/// What is checked when nobody reads anything.
const ACKNOWLEDGEMENTS: &str = "acknowledgements";
/// What is checked when readers have not come to judge.
const UNFINISHED: &str = "unfinished";

/// The report, as it is written in JSON. Counts and latencies at its top are those of all measured phases together: of the
/// messages that were due in them, whenever they came. Rates are of what came while they lasted.
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
    /// Those of them that nobody follows: what was said there was acknowledged, and that is all that is known.
    #[serde(default)]
    pub unread: usize,
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
    /// How much was examined of what was read: full, sampled=N or off; acknowledgements when nothing was to be read, unfinished
    /// when nobody has judged.
    pub check: String,
    /// Measured time, seconds.
    pub duration_s: f64,
    /// Messages acknowledged.
    pub published: u64,
    /// Messages acknowledged while the measured phases lasted, a second.
    pub published_per_s: f64,
    /// Message events that readers got, all together.
    pub delivered: u64,
    /// Those that they got while the measured phases lasted, a second.
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
    /// How long processors of the machine that led the load stood still while it lasted.
    #[serde(default)]
    pub stood_still: StoodStill,
    /// What grew while the load lasted; none when it lasted less than 4 seconds.
    pub growth: Option<Growth>,
    /// Why it ended before its time, in words: there is no verdict then.
    #[serde(default)]
    pub ended_early: Option<String>,
    /// No violation, nothing failed, and it came to its end.
    pub clean: bool,
    /// Thresholds that were passed, in words.
    pub passed_thresholds: Vec<String>,
    /// Each phase.
    pub phases: Vec<PhaseReport>,
    /// Each second.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Whether readers have come to judge: without that no violations mean nothing.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.check != UNFINISHED
    }
}

/// What a phase tells: counts and latencies of the messages that were due in it, whenever they came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// Messages acknowledged while it lasted, whenever they were due, a second.
    pub published_per_s: f64,
    /// Message events that readers got.
    pub delivered: u64,
    /// Those that they got while it lasted, a second.
    pub delivered_per_s: f64,
    /// From when a message was due to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From when a message was due to a reader.
    pub delivery_ms: Percentiles,
    /// What the broker used, if it was watched.
    pub broker: Option<Usage>,
}

/// A phase, or all measured ones together.
#[derive(Debug, Default)]
struct Stretch {
    seconds: f64,
    /// Acknowledged and delivered while it lasted.
    published: u64,
    delivered: u64,
    /// What was due in it. The last of that comes when it has ended.
    due: Due,
    broker: Option<Usage>,
}

impl Stretch {
    fn of(phase: &MeasuredPhase, due: Due) -> Self {
        Self {
            seconds: phase.seconds,
            published: phase.interval.published,
            delivered: phase.interval.delivered,
            due,
            broker: phase.broker,
        }
    }

    /// So many a second; 0 when it did not last.
    fn per_s(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            0.0
        }
    }

    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.published += other.published;
        self.delivered += other.delivered;
        self.due.add(&other.due);
        self.broker = Usage::both(self.broker, other.broker);
    }
}

pub(super) fn report(shared: &Shared, mut measured: Measured) -> Report {
    let spec = &shared.spec;
    let stretch = |(place, phase)| Stretch::of(phase, measured.total.due_in(place));
    let stretches: Vec<Stretch> = measured.phases.iter().enumerate().map(stretch).collect();
    let mut all = Stretch::default();
    for (of, stretch) in spec.phases.iter().zip(&stretches) {
        if of.measured {
            all.add(stretch);
        }
    }
    let phases = spec.phases.iter().zip(&stretches);
    let phases = phases
        .map(|(of, stretch)| phase_report(of, stretch))
        .collect();
    measured.problems.truncate(PROBLEMS_MAX);
    let violations = measured.violations.unwrap_or_default();
    let violations_total = violations.total();
    let unread = shared.plan.unread();
    Report {
        target: shared.target.to_string(),
        connections: spec.connections,
        publishers: spec.publishers,
        readers: spec.readers,
        conversations: shared.plan.conversations(),
        unread,
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
        check: match measured.violations {
            None => UNFINISHED.to_owned(),
            Some(_) if unread == shared.plan.conversations() => ACKNOWLEDGEMENTS.to_owned(),
            Some(_) => spec.check.to_string(),
        },
        duration_s: all.seconds,
        published: all.due.published,
        published_per_s: all.per_s(all.published),
        delivered: all.due.delivered,
        delivered_per_s: all.per_s(all.delivered),
        ack_ms: all.due.acks.percentiles(),
        delivery_ms: all.due.deliveries.percentiles(),
        violations,
        violations_total,
        failed: measured.total.failed,
        refused: measured.total.refused,
        problems: measured.problems,
        reconnects: measured.total.reconnects,
        broker: all.broker,
        client: measured.client,
        stood_still: measured.stood_still,
        growth: growth(&spec.phases, &measured.samples),
        clean: violations_total == 0
            && measured.total.failed == 0
            && measured.ended_early.is_none(),
        ended_early: measured.ended_early,
        passed_thresholds: Vec::new(),
        phases,
        samples: measured.samples,
    }
}

fn phase_report(phase: &Phase, stretch: &Stretch) -> PhaseReport {
    PhaseReport {
        name: phase.name.clone(),
        measured: phase.measured,
        pace: phase.pace.to_string(),
        duration_s: stretch.seconds,
        published: stretch.due.published,
        published_per_s: stretch.per_s(stretch.published),
        delivered: stretch.due.delivered,
        delivered_per_s: stretch.per_s(stretch.delivered),
        ack_ms: stretch.due.acks.percentiles(),
        delivery_ms: stretch.due.deliveries.percentiles(),
        broker: stretch.broker,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rialto_sdk::Roots;

    use super::super::interval::Interval;
    use super::super::{Part, Shape, Spec};
    use super::*;
    use crate::tokens::Tokens;

    fn phase(name: &str, measured: bool) -> Phase {
        Phase {
            name: name.into(),
            kind: PhaseKind::Steady,
            pace: Pace::Rate {
                from: 100.0,
                to: 100.0,
            },
            duration: Duration::from_secs(1),
            measured,
        }
    }

    fn shared(phases: Vec<Phase>, readers: usize) -> Shared {
        let spec = Spec {
            phases,
            readers,
            ..Spec::now().unwrap()
        };
        of(spec)
    }

    fn of(spec: Spec) -> Shared {
        let target = "tcp://127.0.0.1:1".parse().unwrap();
        let roots = Roots::InsecureLoopbackOnly;
        Shared::new(target, Tokens::Development, roots, spec, 0)
    }

    /// Messages of a phase, each acknowledged and delivered so late.
    fn came(phase: usize, messages: u64, late_ms: u64) -> Interval {
        let mut interval = Interval::default();
        for _ in 0..messages {
            interval.acknowledge(phase, late_ms * 1000);
            interval.deliver(phase, Some(late_ms * 1000));
        }
        interval
    }

    /// What came in each phase, a second long, and behind the last one.
    fn measured(phases: Vec<Interval>, behind: &Interval) -> Measured {
        let mut measured = Measured {
            violations: Some(Violations::default()),
            ..Measured::default()
        };
        for interval in phases {
            measured.total.add(&interval);
            measured.phases.push(MeasuredPhase {
                interval,
                seconds: 1.0,
                broker: None,
            });
        }
        measured.total.add(behind);
        measured
    }

    #[test]
    fn what_comes_behind_the_last_phase_counts_in_its_latencies_and_in_no_rate() {
        let shared = shared(vec![phase("load", true)], 1);
        let report = report(&shared, measured(vec![came(0, 60, 1)], &came(0, 40, 700)));
        assert_eq!((report.published, report.delivered), (100, 100));
        assert_eq!(
            (report.published_per_s, report.delivered_per_s),
            (60.0, 60.0)
        );
        for latencies in [
            report.ack_ms,
            report.delivery_ms,
            report.phases[0].ack_ms,
            report.phases[0].delivery_ms,
        ] {
            assert!(
                latencies.p50 < 2.0 && latencies.p90 > 600.0,
                "{latencies:?}"
            );
        }
        assert_eq!(report.phases[0].published, 100);
        assert_eq!(report.phases[0].delivered_per_s, 60.0);
    }

    #[test]
    fn messages_count_in_the_phase_that_they_were_due_in() {
        let phases = vec![
            phase("warm-up", false),
            phase("load", true),
            phase("end", false),
        ];
        let shared = shared(phases, 1);
        let mut second = came(0, 30, 900);
        second.add(&came(1, 60, 1));
        let mut third = came(1, 40, 300);
        third.add(&came(2, 50, 1));
        let mut behind = came(0, 5, 2500);
        behind.add(&came(2, 50, 2500));
        let report = report(
            &shared,
            measured(vec![came(0, 65, 1), second, third], &behind),
        );
        assert_eq!((report.published, report.delivered), (100, 100));
        assert_eq!(report.published_per_s, 90.0);
        assert!(
            report.ack_ms.p90 > 200.0 && report.ack_ms.max < 400.0,
            "{:?}",
            report.ack_ms
        );
        let by_phase: Vec<u64> = report.phases.iter().map(|phase| phase.published).collect();
        assert_eq!(by_phase, [100, 100, 100]);
    }

    #[test]
    fn what_ended_early_tells_what_was_measured_and_gives_no_verdict() {
        let shared = shared(vec![phase("load", true), phase("end", true)], 1);
        let mut measured = measured(vec![came(0, 60, 1)], &came(0, 40, 1));
        measured.violations = None;
        measured.ended_early = Some("the broker is gone".into());
        let found = report(&shared, measured);
        assert_eq!((found.published, found.phases.len()), (100, 1));
        assert_eq!((found.check.as_str(), found.clean), ("unfinished", false));
        assert!(!found.is_judged());
        assert_eq!(found.ended_early.as_deref(), Some("the broker is gone"));
        let nothing = report(&shared, Measured::default());
        let text = serde_json::to_string(&nothing).unwrap();
        let again: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(again.published_per_s, 0.0, "a number, not null");
    }

    #[test]
    fn without_readers_acknowledgements_alone_are_checked() {
        for (readers, check) in [(0, "acknowledgements"), (1, "full")] {
            let shared = shared(vec![phase("load", true)], readers);
            let report = report(&shared, measured(vec![came(0, 1, 1)], &Interval::default()));
            assert_eq!(report.check, check);
        }
    }

    #[test]
    fn of_conversations_that_nobody_follows_acknowledgements_alone_are_checked() {
        let groups = |members| Part::of(Shape::Groups { count: 3, members });
        for (parts, unread, check) in [
            (vec![groups(1)], 3, "acknowledgements"),
            (vec![groups(1), groups(2)], 3, "full"),
        ] {
            let shared = of(Spec {
                phases: vec![phase("load", true)],
                readers: 4,
                parts,
                ..Spec::now().unwrap()
            });
            let report = report(&shared, measured(vec![came(0, 1, 1)], &Interval::default()));
            assert_eq!((report.unread, &*report.check), (unread, check));
        }
    }
}
