//! Whether a load can be: numbers that do not fit each other, or are beyond what a run can tell apart, are refused by the flag
//! or key that they come from.

use rialto_protocol::limits::MEMBERS_PER_CREATE_MAX;

use super::schedule::{Pace, Phase};
use super::shape::{Part, Shape};
use super::{Check, RunError, Spec};

/// Connections that bodies and user names tell apart.
const CONNECTIONS_MAX: usize = (1 << 24) - 1;
/// Messages a second: a thousand times what a machine sends.
const RATE_MAX: f64 = 1e9;
/// Messages of a publisher that are under way or sent together.
const TOGETHER_MAX: usize = 1 << 20;

impl Spec {
    pub(super) fn check(&self) -> Result<(), RunError> {
        let refuse = |words: String| Err(RunError::Options(words));
        let (publishers, readers) = (self.publishers, self.readers);
        if publishers == 0 {
            return refuse("--publishers has to be 1 at least".into());
        }
        if self.parts.is_empty() {
            return refuse("there is no conversation: say --conversations or --shape".into());
        }
        if self.connections > CONNECTIONS_MAX {
            return refuse(format!("--connections has to be {CONNECTIONS_MAX} at most"));
        }
        if publishers.saturating_add(readers) > self.connections {
            return refuse(format!(
                "--connections is less than publishers and readers together: say {} at least",
                publishers.saturating_add(readers)
            ));
        }
        for part in &self.parts {
            part.check()?;
            self.check_members(part)?;
        }
        for phase in &self.phases {
            check_pace(phase)?;
        }
        if !(1..=TOGETHER_MAX).contains(&self.burst) {
            return refuse(format!("--burst has to be from 1 to {TOGETHER_MAX}"));
        }
        if self.check == Check::Sampled(0) {
            return refuse("--check sampled=N needs an N of 1 or more".into());
        }
        let publishes = |phase: &Phase| match phase.pace {
            Pace::Max { .. } => true,
            Pace::Rate { from, to } => from + to > 0.0,
        };
        let mut measured = self
            .phases
            .iter()
            .filter(|phase| phase.measured && !phase.duration.is_zero());
        if !measured.any(publishes) {
            return refuse("no phase is measured in which anything is published".into());
        }
        Ok(())
    }

    /// Whether everybody who writes to a group or reads it can be in it from its beginning.
    fn check_members(&self, part: &Part) -> Result<(), RunError> {
        let Shape::Groups { count, members } = part.shape else {
            return Ok(());
        };
        let all = self.publishers.div_ceil(count) + members.saturating_sub(1).min(self.readers);
        if all > MEMBERS_PER_CREATE_MAX {
            return Err(RunError::Options(format!(
                "{} would have {all} members with {} publishers, and {MEMBERS_PER_CREATE_MAX} is the most: \
                 say more groups or fewer publishers",
                part.shape, self.publishers
            )));
        }
        Ok(())
    }
}

fn check_pace(phase: &Phase) -> Result<(), RunError> {
    let wrong = match phase.pace {
        Pace::Max { in_flight } => (!(1..=TOGETHER_MAX).contains(&in_flight))
            .then(|| format!("in_flight has to be from 1 to {TOGETHER_MAX}")),
        Pace::Rate { from, to } => (![from, to]
            .iter()
            .all(|rate| (0.0..=RATE_MAX).contains(rate)))
        .then(|| format!("a rate has to be from 0 to {RATE_MAX} messages a second")),
    };
    match wrong {
        Some(words) => Err(RunError::Options(format!(
            "phase \"{}\": {words}",
            phase.name
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::schedule::PhaseKind;
    use super::*;

    /// What is said of a load that is changed so; nothing when it can be.
    fn said(change: impl FnOnce(&mut Spec)) -> String {
        let phase = |name: &str, pace| Phase {
            name: name.into(),
            kind: PhaseKind::Steady,
            pace,
            duration: Duration::from_secs(1),
            measured: true,
        };
        let mut spec = Spec {
            connections: 30,
            publishers: 20,
            readers: 10,
            phases: vec![
                phase("first", Pace::Rate { from: 0.0, to: 5.0 }),
                phase("quiet", Pace::Rate { from: 0.0, to: 0.0 }),
                phase("last", Pace::Max { in_flight: 1 }),
            ],
            ..Spec::now().unwrap()
        };
        change(&mut spec);
        spec.check()
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn what_can_be_is_not_refused() {
        assert_eq!(said(|_| ()), "");
        assert_eq!(said(|spec| drop(spec.phases.remove(2))), "");
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        let rate = |from, to| Pace::Rate { from, to };
        for (said, words) in [
            (said(|spec| spec.publishers = 0), "--publishers"),
            (said(|spec| spec.connections = 29), "say 30 at least"),
            (said(|spec| spec.readers = usize::MAX), "--connections"),
            (said(|spec| spec.connections = 1 << 24), "16777215 at most"),
            (said(|spec| spec.parts.clear()), "--shape"),
            (said(|spec| spec.burst = 0), "--burst"),
            (said(|spec| spec.burst = usize::MAX), "--burst"),
            (
                said(|spec| spec.phases[2].pace = Pace::Max { in_flight: 0 }),
                "\"last\": in_flight",
            ),
            (
                said(|spec| spec.phases[0].pace = rate(-1.0, 5.0)),
                "\"first\": a rate",
            ),
            (
                said(|spec| spec.phases[0].pace = rate(0.0, f64::NAN)),
                "\"first\": a rate",
            ),
            (
                said(|spec| spec.phases[0].pace = rate(0.0, 1e300)),
                "\"first\": a rate",
            ),
            (said(|spec| spec.phases.clear()), "no phase is measured"),
            (
                said(|spec| spec.phases = vec![spec.phases[1].clone()]),
                "no phase is measured",
            ),
            (
                said(|spec| {
                    (spec.publishers, spec.connections) = (600, 700);
                    spec.parts = vec![Part::of(Shape::Groups {
                        count: 1,
                        members: 5,
                    })];
                }),
                "would have 604 members",
            ),
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
