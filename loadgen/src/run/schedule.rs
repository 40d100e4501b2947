//! When messages are due: phases after each other, each with a rate that stands or moves in a straight line, or as fast as
//! acknowledged. The k-th message's time is a function, so publishers on any thread agree without talking.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast a phase publishes, all publishers together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// As fast as acknowledged, with so many messages of each publisher under way.
    Max {
        /// Messages under way.
        in_flight: usize,
    },
    /// Messages a second, from the phase's beginning to its end in a straight line.
    Rate {
        /// At the beginning.
        from: f64,
        /// At the end.
        to: f64,
    },
}

impl std::fmt::Display for Pace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Max { in_flight } => write!(out, "max, {in_flight} in flight"),
            Self::Rate { from, to } if from == to => write!(out, "{from}/s"),
            Self::Rate { from, to } => write!(out, "{from}..{to}/s"),
        }
    }
}

/// What a phase is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// A rate that moves, to get there.
    Ramp,
    /// A rate that stands.
    #[default]
    Steady,
    /// Far more for a while.
    Spike,
    /// A long time, in which nothing may grow.
    Soak,
}

impl std::fmt::Display for PhaseKind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Ramp => "ramp",
            Self::Steady => "steady",
            Self::Spike => "spike",
            Self::Soak => "soak",
        })
    }
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name in reports.
    pub name: String,
    /// What it is for.
    pub kind: PhaseKind,
    /// How fast it publishes.
    pub pace: Pace,
    /// How long it lasts.
    pub duration: Duration,
    /// Whether it counts in the report's totals.
    pub measured: bool,
}

/// Where a publisher is in the phases.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    phases: Arc<[Phase]>,
    /// The phase, when it begins, and the next message in it.
    at: usize,
    start_us: u64,
    next: u64,
    first: u64,
    stride: u64,
    /// Messages of a turn, which are due together, and those that are left of this one.
    burst: u64,
    left: u64,
}

/// What a publisher is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// Send one, which was due at this time.
    Send(u64),
    /// Wait until this time.
    Wait(u64),
    /// Wait for an acknowledgement.
    Answer,
    /// Nothing more will be due.
    End,
}

impl Pacing {
    /// Of the publisher `index` of so many, who take turns of so many messages, in phases that begin at `start_us`.
    pub(super) fn new(
        phases: Arc<[Phase]>,
        start_us: u64,
        (index, publishers): (usize, usize),
        burst: usize,
    ) -> Self {
        let burst = burst as u64;
        let first = index as u64 * burst;
        Self {
            phases,
            at: 0,
            start_us,
            next: first,
            first,
            stride: publishers as u64 * burst,
            burst,
            left: burst,
        }
    }

    /// What is to be done at this time, with so many messages under way.
    #[inline]
    pub(super) fn next(&mut self, now_us: u64, under_way: usize) -> Now {
        while let Some(phase) = self.phases.get(self.at) {
            let duration_us = super::clock::micros(phase.duration);
            match phase.pace {
                Pace::Max { .. } if now_us < self.start_us => return Now::Wait(self.start_us),
                Pace::Max { in_flight } if now_us < self.start_us + duration_us => {
                    return if under_way < in_flight {
                        Now::Send(now_us)
                    } else {
                        Now::Answer
                    };
                }
                Pace::Max { .. } => {}
                Pace::Rate { from, to } => {
                    let offset_us = offset_us(from, to, phase.duration, self.next);
                    if let Some(offset_us) = offset_us.filter(|offset| *offset < duration_us) {
                        let due_us = self.start_us + offset_us;
                        if due_us > now_us {
                            return Now::Wait(due_us);
                        }
                        self.left -= 1;
                        if self.left == 0 {
                            self.next += self.stride;
                            self.left = self.burst;
                        }
                        return Now::Send(due_us);
                    }
                }
            }
            self.move_on(duration_us);
        }
        Now::End
    }

    /// To the next phase, from one that lasted so long.
    const fn move_on(&mut self, duration_us: u64) {
        self.at += 1;
        self.start_us += duration_us;
        self.next = self.first;
        self.left = self.burst;
    }

    /// Gives up the messages that are due before `over_us` and are not sent; how many they are.
    pub(super) fn give_up(&mut self, over_us: u64) -> u64 {
        let mut messages = 0;
        while let Some(phase) = self.phases.get(self.at) {
            let duration_us = super::clock::micros(phase.duration);
            if let Pace::Rate { from, to } = phase.pace {
                let end_us = duration_us.min(over_us.saturating_sub(self.start_us));
                let due = |turn: u64| {
                    let number = self.next + turn * self.stride;
                    offset_us(from, to, phase.duration, number)
                        .is_some_and(|offset_us| offset_us < end_us)
                };
                let area = (from + to) / 2.0 * phase.duration.as_secs_f64();
                // Not negative, and a saturating cast.
                #[allow(clippy::cast_possible_truncation)]
                let (mut turns, mut beyond) = (0, area as u64 / self.stride + 2);
                while turns < beyond {
                    let middle = turns + (beyond - turns) / 2;
                    if due(middle) {
                        turns = middle + 1;
                    } else {
                        beyond = middle;
                    }
                }
                messages += (turns * self.burst).saturating_sub(self.burst - self.left);
            }
            self.move_on(duration_us);
        }
        messages
    }
}

/// When the phases of a load end.
#[derive(Clone, Debug)]
pub(super) struct Ends(Vec<u64>);

impl Ends {
    /// Of phases that begin at `start_us`.
    pub(super) fn of(phases: &[Phase], start_us: u64) -> Self {
        let ends = phases.iter().scan(start_us, |end_us, phase| {
            *end_us += super::clock::micros(phase.duration);
            Some(*end_us)
        });
        Self(ends.collect())
    }

    /// When the last of them does.
    pub(super) fn over_us(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// Place of the phase in which something was due at this time: the first one before the load, the last one behind it.
    #[inline]
    pub(super) fn phase_of(&self, due_us: u64) -> usize {
        let last = self.0.len().saturating_sub(1);
        self.0.partition_point(|end_us| *end_us <= due_us).min(last)
    }
}

/// When the message with this number is due in a phase; none: never.
///
/// Up to time t a phase of length D publishes from·t + (to − from)·t²/2D messages; this is the inverse.
#[inline]
fn offset_us(from: f64, to: f64, duration: Duration, number: u64) -> Option<u64> {
    let number = number as f64;
    let slope = (to - from) / duration.as_secs_f64();
    let root = (from * from + 2.0 * slope * number).sqrt();
    let at_s = 2.0 * number / (from + root);
    // 0/0 when nothing is ever due, no root when the rate falls to zero before.
    if !at_s.is_finite() {
        return (number == 0.0 && to > 0.0).then_some(0);
    }
    // Not negative, and a saturating cast.
    #[allow(clippy::cast_possible_truncation)]
    Some((at_s * 1e6) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(pace: Pace, seconds: u64) -> Phase {
        Phase {
            name: "a".into(),
            kind: PhaseKind::Steady,
            pace,
            duration: Duration::from_secs(seconds),
            measured: true,
        }
    }

    /// Every time at which a publisher sends, when it is never late and everything is acknowledged at once.
    fn times(phases: &[Phase], index: usize, publishers: usize) -> Vec<u64> {
        times_in_turns(phases, (index, publishers), 1)
    }

    fn times_in_turns(phases: &[Phase], who: (usize, usize), burst: usize) -> Vec<u64> {
        let mut pacing = Pacing::new(phases.into(), 1_000_000, who, burst);
        let (mut now_us, mut times) = (0, Vec::new());
        loop {
            match pacing.next(now_us, 0) {
                Now::Send(due_us) => times.push(due_us),
                Now::Wait(until_us) => now_us = until_us,
                Now::Answer | Now::End => return times,
            }
        }
    }

    #[test]
    fn a_steady_rate_is_shared_out_evenly() {
        let phases = [phase(
            Pace::Rate {
                from: 100.0,
                to: 100.0,
            },
            2,
        )];
        let first = times(&phases, 0, 4);
        assert_eq!(first.len(), 50);
        assert_eq!(&first[..3], [1_000_000, 1_040_000, 1_080_000]);
        assert_eq!(times(&phases, 3, 4)[0], 1_030_000);
    }

    #[test]
    fn the_messages_of_a_turn_are_due_together_and_the_rate_stays() {
        let phases = [phase(
            Pace::Rate {
                from: 100.0,
                to: 100.0,
            },
            2,
        )];
        let first = times_in_turns(&phases, (0, 4), 5);
        assert_eq!(first.len(), 50);
        assert_eq!(first[..5], [1_000_000; 5]);
        assert_eq!(first[5..10], [1_200_000; 5]);
        assert_eq!(times_in_turns(&phases, (3, 4), 5)[0], 1_150_000);
    }

    #[test]
    fn a_ramp_publishes_the_area_below_it_and_moves_on_to_the_next_phase() {
        for (from, to, messages) in [
            (0.0, 1000.0, 5000),
            (1000.0, 0.0, 5000),
            (200.0, 600.0, 4000),
        ] {
            let ramp = phase(Pace::Rate { from, to }, 10);
            let steady = phase(
                Pace::Rate {
                    from: 10.0,
                    to: 10.0,
                },
                1,
            );
            let times = times(&[ramp, steady], 0, 1);
            let in_ramp = times.iter().filter(|time| **time < 11_000_000).count();
            assert!(
                usize::abs_diff(in_ramp, messages) <= 1,
                "{from}..{to}: {in_ramp}"
            );
            assert_eq!(times.len() - in_ramp, 10);
            assert!(times.is_sorted());
        }
        let rising = times(&[phase(Pace::Rate { from: 0.0, to: 8.0 }, 2)], 0, 1);
        // Half of the messages are due in the last 1 − 1/√2 of the time.
        assert_eq!(
            rising.iter().filter(|time| **time < 2_414_000).count(),
            4,
            "{rising:?}"
        );
    }

    #[test]
    fn every_message_is_due_in_the_phase_that_sends_it() {
        let rate = |rate| Pace::Rate {
            from: rate,
            to: rate,
        };
        let phases = [phase(rate(10.0), 1), phase(rate(30.0), 2)];
        let ends = Ends::of(&phases, 1_000_000);
        let found: Vec<usize> = times(&phases, 0, 1)
            .into_iter()
            .map(|due_us| ends.phase_of(due_us))
            .collect();
        assert_eq!(found, [vec![0; 10], vec![1; 60]].concat());
        assert_eq!((ends.phase_of(0), ends.phase_of(u64::MAX)), (0, 1));
        assert_eq!(Ends::of(&[], 0).phase_of(5), 0);
    }

    #[test]
    fn what_is_given_up_is_what_was_not_sent() {
        let rate = |from, to| Pace::Rate { from, to };
        let phases: Arc<[Phase]> = [
            phase(rate(100.0, 100.0), 1),
            phase(rate(0.0, 0.0), 1),
            phase(rate(0.0, 300.0), 2),
            // Nothing is due here.
            phase(Pace::Max { in_flight: 3 }, 1),
        ]
        .into();
        for burst in [1, 3] {
            for publisher in 0..7 {
                let whole = times_in_turns(&phases[..3], (publisher, 7), burst).len() as u64;
                let mut pacing = Pacing::new(phases.clone(), 1_000_000, (publisher, 7), burst);
                let mut sent = 0;
                while sent < 5
                    && let Now::Send(_) = pacing.next(1_500_000, 0)
                {
                    sent += 1;
                }
                assert_eq!(sent + pacing.give_up(u64::MAX), whole);
                assert_eq!(pacing.next(9_000_000, 0), Now::End);
            }
        }
        let mut stopped = Pacing::new(phases, 1_000_000, (0, 1), 1);
        assert_eq!(stopped.give_up(1_500_000), 50);
    }

    #[test]
    fn nothing_is_due_at_no_rate() {
        let phases = [phase(Pace::Rate { from: 0.0, to: 0.0 }, 5)];
        assert!(times(&phases, 0, 1).is_empty());
    }

    #[test]
    fn at_the_rate_max_a_publisher_waits_for_answers_and_for_its_phase() {
        let max = phase(Pace::Max { in_flight: 2 }, 1);
        let mut pacing = Pacing::new([max].into(), 1_000_000, (0, 1), 1);
        assert_eq!(pacing.next(5, 0), Now::Wait(1_000_000));
        assert_eq!(pacing.next(1_000_000, 1), Now::Send(1_000_000));
        assert_eq!(pacing.next(1_000_001, 2), Now::Answer);
        assert_eq!(pacing.next(2_000_000, 0), Now::End);
    }

    #[test]
    fn a_publisher_that_is_late_sends_all_that_was_due() {
        let phases = [phase(
            Pace::Rate {
                from: 10.0,
                to: 10.0,
            },
            1,
        )];
        let mut pacing = Pacing::new(phases.into(), 0, (0, 1), 1);
        let mut sent = 0;
        while let Now::Send(due_us) = pacing.next(9_000_000, sent) {
            assert_eq!(due_us, 100_000 * sent as u64);
            sent += 1;
        }
        assert_eq!(sent, 10);
    }
}
