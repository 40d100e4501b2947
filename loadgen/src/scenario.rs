//! Scenarios: TOML files that name a load's connections, conversations, phases and thresholds.
//!
//! docs/LOADGEN.md describes the keys. Every key may be left out but `phases`; unknown ones are refused by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::run::{Check, Pace, Part, Phase, PhaseKind, Shape, ShapeError, Size};
use crate::threshold::Threshold;
use crate::units;

/// Messages under way of a phase as fast as acknowledged, where none are given.
pub const IN_FLIGHT_DEFAULT: usize = 16;

/// A scenario, read and checked.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// All connections.
    pub connections: Option<usize>,
    /// Connections that publish.
    pub publishers: Option<usize>,
    /// Connections that read.
    pub readers: Option<usize>,
    /// Messages of a publisher's turn, at a rate.
    pub burst: Option<usize>,
    /// Bytes of a body.
    pub size: Option<Size>,
    /// How much readers examine.
    pub check: Option<Check>,
    /// Conversations by shape; none: as by default.
    pub parts: Vec<Part>,
    /// What is published when.
    pub phases: Vec<Phase>,
    /// When the run counts as failed.
    pub fail_if: Vec<Threshold>,
}

/// A file that is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is no TOML, or has other keys or types.
    #[error("{0}: {1}")]
    Toml(PathBuf, Box<toml::de::Error>),
    /// A value cannot be.
    #[error("{path}: `{key}` {problem}", path = .0.display(), key = .1, problem = .2)]
    Value(PathBuf, String, String),
}

/// A flag that would change nothing of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitFlag {
    /// `--rate`, and no phase has one.
    #[error(
        "--rate does not go with this scenario: none of its phases has a rate above 0. Leave the flag out, or give a phase a number as `rate`"
    )]
    Rate,
    /// `--in-flight`, and every phase has a rate.
    #[error(
        "--in-flight does not go with this scenario: none of its phases is as fast as acknowledged. Leave the flag out, or give a phase `rate = \"max\"`"
    )]
    InFlight,
    /// `--burst`, and no phase has a rate.
    #[error(
        "--burst does not go with this scenario: all of its phases are as fast as acknowledged. Leave the flag out, or give a phase a number as `rate`"
    )]
    Burst,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    connections: Option<usize>,
    publishers: Option<usize>,
    readers: Option<usize>,
    in_flight: Option<usize>,
    burst: Option<usize>,
    size: Option<NumberOrText>,
    check: Option<String>,
    #[serde(default)]
    conversations: Vec<PartTable>,
    #[serde(default)]
    phases: Vec<PhaseTable>,
    #[serde(default)]
    fail_if: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartTable {
    shape: ShapeName,
    count: usize,
    members: Option<usize>,
    zipf: Option<f64>,
    follow: Option<usize>,
    share: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShapeName {
    Channels,
    Groups,
    Threads,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseTable {
    kind: PhaseKind,
    name: Option<String>,
    rate: Option<NumberOrText>,
    from: Option<f64>,
    to: Option<f64>,
    peak: Option<f64>,
    duration: NumberOrText,
    measured: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number or a text")]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl NumberOrText {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// A key, and what is wrong with it.
type Wrong = (String, String);

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is not there, or is no scenario.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            fs::read_to_string(path).map_err(|error| ScenarioError::Read(path.into(), error))?;
        let file: File = toml::from_str(&text)
            .map_err(|error| ScenarioError::Toml(path.into(), Box::new(error)))?;
        file.checked()
            .map_err(|(key, problem)| ScenarioError::Value(path.into(), key, problem))
    }

    /// Stretches or shortens all phases alike, so that they last this long together.
    pub fn last(&mut self, duration: Duration) {
        let total: Duration = self.phases.iter().map(|phase| phase.duration).sum();
        if total.is_zero() {
            return;
        }
        for phase in &mut self.phases {
            let part = phase.duration.as_secs_f64() / total.as_secs_f64();
            phase.duration = duration.mul_f64(part);
        }
    }

    /// Raises or lowers all rates alike, so that the highest is this.
    ///
    /// # Errors
    /// When no phase has a rate.
    pub fn peak_at(&mut self, rate: f64) -> Result<(), UnfitFlag> {
        let highest = self.phases.iter().filter_map(|phase| match phase.pace {
            Pace::Rate { from, to } => Some(from.max(to)),
            Pace::Max { .. } => None,
        });
        let highest = highest.fold(0.0, f64::max);
        if highest == 0.0 {
            return Err(UnfitFlag::Rate);
        }
        for phase in &mut self.phases {
            if let Pace::Rate { from, to } = &mut phase.pace {
                *from *= rate / highest;
                *to *= rate / highest;
            }
        }
        Ok(())
    }

    /// Keeps so many messages of a publisher under way in all phases that are as fast as acknowledged.
    ///
    /// # Errors
    /// When no phase is.
    pub fn keep_in_flight(&mut self, messages: usize) -> Result<(), UnfitFlag> {
        let mut kept = false;
        for phase in &mut self.phases {
            if let Pace::Max { in_flight } = &mut phase.pace {
                *in_flight = messages;
                kept = true;
            }
        }
        kept.then_some(()).ok_or(UnfitFlag::InFlight)
    }

    /// Lets publishers send so many messages together in all phases that have a rate.
    ///
    /// # Errors
    /// When no phase has one.
    pub fn take_turns_of(&mut self, messages: usize) -> Result<(), UnfitFlag> {
        let rate = |phase: &Phase| matches!(phase.pace, Pace::Rate { .. });
        if !self.phases.iter().any(rate) {
            return Err(UnfitFlag::Burst);
        }
        self.burst = Some(messages);
        Ok(())
    }
}

impl File {
    fn checked(self) -> Result<Scenario, Wrong> {
        let wrong = |key: &str, problem: &dyn ToString| (key.to_owned(), problem.to_string());
        let size = self.size.as_ref().map(|size| size.text().parse::<Size>());
        let size = size.transpose().map_err(|error| wrong("size", &error))?;
        let check = self.check.as_deref().map(str::parse::<Check>).transpose();
        let check = check.map_err(|error| wrong("check", &error))?;
        let mut parts = Vec::new();
        for (index, table) in self.conversations.iter().enumerate() {
            let part = table.checked();
            parts.push(
                part.map_err(|(key, problem)| (format!("conversations[{index}].{key}"), problem))?,
            );
        }
        if self.phases.is_empty() {
            let problem = "is missing: at least one [[phases]] is needed";
            return Err(wrong("phases", &problem));
        }
        let in_flight = self.in_flight.unwrap_or(IN_FLIGHT_DEFAULT);
        let mut phases: Vec<Phase> = Vec::new();
        for (index, table) in self.phases.iter().enumerate() {
            let more = table.checked(in_flight);
            phases.extend(
                more.map_err(|(key, problem)| (format!("phases[{index}].{key}"), problem))?,
            );
        }
        let has_max = |phase: &Phase| matches!(phase.pace, Pace::Max { .. });
        if self.in_flight.is_some() && !phases.iter().any(has_max) {
            let problem = "changes nothing: no phase has `rate = \"max\"`";
            return Err(wrong("in_flight", &problem));
        }
        if self.burst.is_some() && phases.iter().all(has_max) {
            let problem = "changes nothing: no phase has a number as `rate`";
            return Err(wrong("burst", &problem));
        }
        for (key, number) in [("in_flight", self.in_flight), ("burst", self.burst)] {
            if number == Some(0) {
                return Err(wrong(key, &"has to be 1 at least"));
            }
        }
        let mut fail_if = Vec::new();
        for (index, text) in self.fail_if.iter().enumerate() {
            let threshold = text.parse();
            fail_if.push(threshold.map_err(|error| wrong(&format!("fail_if[{index}]"), &error))?);
        }
        Ok(Scenario {
            connections: self.connections,
            publishers: self.publishers,
            readers: self.readers,
            burst: self.burst,
            size,
            check,
            parts,
            phases,
            fail_if,
        })
    }
}

impl PartTable {
    fn checked(&self) -> Result<Part, Wrong> {
        let name = self.shape;
        let stray = |key: &str, given: bool, of: ShapeName| {
            if given && name != of {
                let of = format!("{of:?}").to_lowercase();
                Err((key.to_owned(), format!("is for the shape {of}")))
            } else {
                Ok(())
            }
        };
        stray("members", self.members.is_some(), ShapeName::Groups)?;
        stray("zipf", self.zipf.is_some(), ShapeName::Threads)?;
        stray("follow", self.follow.is_some(), ShapeName::Threads)?;
        let count = self.count;
        let shape = match name {
            ShapeName::Channels => Shape::Channels { count },
            ShapeName::Groups => Shape::Groups {
                count,
                members: self
                    .members
                    .ok_or_else(|| ("members".to_owned(), "is missing".to_owned()))?,
            },
            ShapeName::Threads => Shape::Threads {
                count,
                zipf: self.zipf.unwrap_or(crate::run::ZIPF_DEFAULT),
                follow: self.follow.unwrap_or(0),
            },
        };
        let part = Part {
            shape,
            share: self.share.unwrap_or(1.0),
        };
        part.check().map_err(|error| {
            let key = match error {
                ShapeError::Range { what, .. } => what,
                ShapeError::Zipf => "zipf",
                ShapeError::Share => "share",
                ShapeError::Form(_) => "shape",
            };
            (key.to_owned(), format!("is out of range: {error}"))
        })?;
        Ok(part)
    }
}

impl PhaseTable {
    /// A spike becomes three: before, peak, after.
    fn checked(&self, in_flight: usize) -> Result<Vec<Phase>, Wrong> {
        let duration = units::duration(&self.duration.text())
            .map_err(|problem| ("duration".to_owned(), problem))?;
        let name = self.name.clone().unwrap_or_else(|| self.kind.to_string());
        let phase = |name: String, pace, duration| Phase {
            name,
            kind: self.kind,
            pace,
            duration,
            measured: self.measured.unwrap_or(self.kind != PhaseKind::Ramp),
        };
        let level = |rate: f64| Pace::Rate {
            from: rate,
            to: rate,
        };
        let known = self.known_keys();
        for (key, given) in [
            ("rate", self.rate.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("peak", self.peak.is_some()),
        ] {
            if given && !known.contains(&key) {
                return Err((key.to_owned(), format!("is not for a {}", self.kind)));
            }
        }
        Ok(match self.kind {
            PhaseKind::Ramp => {
                let pace = Pace::Rate {
                    from: positive("from", Some(self.from.unwrap_or(0.0)))?,
                    to: positive("to", self.to)?,
                };
                vec![phase(name, pace, duration)]
            }
            PhaseKind::Spike => {
                let (rate, peak) = (self.rate()?, positive("peak", self.peak)?);
                let rate = rate
                    .ok_or_else(|| ("rate".to_owned(), "of a spike has to be a number".into()))?;
                let third = duration / 3;
                vec![
                    phase(format!("{name}: before"), level(rate), third),
                    phase(format!("{name}: peak"), level(peak), third),
                    phase(format!("{name}: after"), level(rate), third),
                ]
            }
            PhaseKind::Steady | PhaseKind::Soak => {
                let pace = self.rate()?.map_or(Pace::Max { in_flight }, level);
                vec![phase(name, pace, duration)]
            }
        })
    }

    const fn known_keys(&self) -> &'static [&'static str] {
        match self.kind {
            PhaseKind::Ramp => &["from", "to"],
            PhaseKind::Spike => &["rate", "peak"],
            PhaseKind::Steady | PhaseKind::Soak => &["rate"],
        }
    }

    /// None: as fast as acknowledged.
    fn rate(&self) -> Result<Option<f64>, Wrong> {
        match &self.rate {
            Some(NumberOrText::Text(text)) if text == "max" => Ok(None),
            Some(NumberOrText::Number(number)) => positive("rate", Some(*number)).map(Some),
            Some(NumberOrText::Text(_)) => {
                Err(("rate".into(), "is neither a number nor \"max\"".into()))
            }
            None => Err(("rate".into(), "is missing: a number or \"max\"".into())),
        }
    }
}

fn positive(key: &str, number: Option<f64>) -> Result<f64, Wrong> {
    match number {
        Some(number) if number.is_finite() && number >= 0.0 => Ok(number),
        Some(_) => Err((key.into(), "is no number of messages a second".into())),
        None => Err((key.into(), "is missing: messages a second".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Scenario, ScenarioError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scenario.toml");
        fs::write(&path, text).unwrap();
        Scenario::read(&path)
    }

    const WHOLE: &str = r#"
        connections = 400
        publishers = 50
        readers = 100
        in_flight = 4
        size = "40..400"
        check = "sampled=10"
        fail_if = ["p99>5ms"]

        [[conversations]]
        shape = "groups"
        count = 2000
        members = 8
        share = 3

        [[conversations]]
        shape = "threads"
        count = 500
        zipf = 1.2
        follow = 20

        [[phases]]
        kind = "ramp"
        to = 2000
        duration = 10

        [[phases]]
        kind = "spike"
        rate = 1000
        peak = 4000
        duration = "30s"

        [[phases]]
        kind = "soak"
        rate = "max"
        duration = "1h"
    "#;

    #[test]
    fn every_key_is_read() {
        let scenario = read(WHOLE).unwrap();
        assert_eq!(
            (scenario.connections, scenario.publishers, scenario.readers),
            (Some(400), Some(50), Some(100))
        );
        assert_eq!(scenario.size.unwrap().to_string(), "40..400");
        assert_eq!(scenario.check, Some(Check::Sampled(10)));
        let shapes: Vec<String> = scenario
            .parts
            .iter()
            .map(|part| part.shape.to_string())
            .collect();
        assert_eq!(shapes, ["groups:2000:8", "threads:500:1.2:20"]);
        let phases: Vec<(&str, String, u64, bool)> = scenario
            .phases
            .iter()
            .map(|phase| {
                let seconds = phase.duration.as_secs();
                (
                    phase.name.as_str(),
                    phase.pace.to_string(),
                    seconds,
                    phase.measured,
                )
            })
            .collect();
        assert_eq!(
            phases,
            [
                ("ramp", "0..2000/s".into(), 10, false),
                ("spike: before", "1000/s".into(), 10, true),
                ("spike: peak", "4000/s".into(), 10, true),
                ("spike: after", "1000/s".into(), 10, true),
                ("soak", "max, 4 in flight".into(), 3600, true),
            ]
        );
        assert_eq!(scenario.fail_if.len(), 1);
    }

    #[test]
    fn phases_are_stretched_and_rates_raised_alike() {
        let mut scenario = read(WHOLE).unwrap();
        scenario.last(Duration::from_secs(364));
        scenario.peak_at(8000.0).unwrap();
        let seconds: Vec<f64> = scenario
            .phases
            .iter()
            .map(|phase| phase.duration.as_secs_f64().round())
            .collect();
        assert_eq!(seconds, [1.0, 1.0, 1.0, 1.0, 360.0]);
        let paces: Vec<String> = scenario
            .phases
            .iter()
            .map(|phase| phase.pace.to_string())
            .collect();
        assert_eq!(paces[0], "0..4000/s");
        assert_eq!(paces[2], "8000/s");
    }

    #[test]
    fn flags_win_over_the_phases_that_they_are_for_and_are_refused_without_any() {
        let mut scenario = read(WHOLE).unwrap();
        scenario.keep_in_flight(70).unwrap();
        scenario.take_turns_of(9).unwrap();
        assert_eq!(scenario.phases[4].pace, Pace::Max { in_flight: 70 });
        assert_eq!(scenario.burst, Some(9));
        let only = |rate: &str| {
            let text = format!("[[phases]]\nkind = \"steady\"\nrate = {rate}\nduration = 1");
            read(&text).unwrap()
        };
        let mut max = only("\"max\"");
        assert_eq!(max.peak_at(100.0), Err(UnfitFlag::Rate));
        assert_eq!(max.take_turns_of(9), Err(UnfitFlag::Burst));
        let mut rate = only("100");
        assert_eq!(rate.keep_in_flight(70), Err(UnfitFlag::InFlight));
        assert_eq!(only("0").peak_at(100.0), Err(UnfitFlag::Rate));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let phase = "[[phases]]\nkind = \"steady\"\nrate = 5\nduration = 1\n";
        for (text, says) in [
            ("", "`phases` is missing"),
            ("speed = 3", "speed"),
            ("publishers = \"many\"", "publishers"),
            (
                "size = 5\n[[phases]]\nkind = \"steady\"\nrate = 1\nduration = 1",
                "`size`",
            ),
            (
                "check = \"some\"\n[[phases]]\nkind = \"steady\"\nrate = 1\nduration = 1",
                "`check`",
            ),
            (
                "fail_if = [\"p98>1\"]\n[[phases]]\nkind = \"steady\"\nrate = 1\nduration = 1",
                "`fail_if[0]`",
            ),
            (
                &format!("{phase}[[phases]]\nkind = \"pause\"\nduration = 1"),
                "pause",
            ),
            (
                &format!("{phase}[[phases]]\nkind = \"ramp\"\nduration = 1"),
                "`phases[1].to` is missing",
            ),
            (
                &format!("{phase}[[phases]]\nkind = \"soak\"\npeak = 1\nduration = 1"),
                "`phases[1].peak` is not for a soak",
            ),
            (
                &format!(
                    "{phase}[[phases]]\nkind = \"spike\"\nrate = \"max\"\npeak = 5\nduration = 1"
                ),
                "`phases[1].rate`",
            ),
            (
                &format!("in_flight = 5\n{phase}"),
                "`in_flight` changes nothing",
            ),
            (
                &format!("burst = 5\n{}", phase.replace("5", "\"max\"")),
                "`burst` changes nothing",
            ),
            (&format!("burst = 0\n{phase}"), "`burst` has to be 1"),
            (
                &format!("{phase}[[phases]]\nkind = \"steady\"\nrate = \"fast\"\nduration = 1"),
                "`phases[1].rate`",
            ),
            (
                &format!("{phase}[[phases]]\nkind = \"steady\"\nrate = 1\nduration = \"soon\""),
                "`phases[1].duration`",
            ),
            (
                &format!("{phase}[[conversations]]\nshape = \"groups\"\ncount = 1"),
                "`conversations[0].members` is missing",
            ),
            (
                &format!("{phase}[[conversations]]\nshape = \"channels\"\ncount = 0"),
                "`conversations[0].count`",
            ),
            (
                &format!("{phase}[[conversations]]\nshape = \"channels\"\ncount = 1\nzipf = 1"),
                "`conversations[0].zipf` is for the shape threads",
            ),
            (
                &format!("{phase}[[conversations]]\nshape = \"rooms\"\ncount = 1"),
                "rooms",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        let missing = Scenario::read(Path::new("missing.toml")).unwrap_err();
        assert!(missing.to_string().contains("missing.toml"));
    }
}
