//! What a campaign says at its end: what it did, how often, and the verdict; for people and as JSON.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{Campaign, CannotRun, Options};
use crate::findings::{Figures, Findings};

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was found.
    Passed,
    /// Violations were found.
    Failed,
    /// The machine lacks something that it needs.
    CannotRun(String),
    /// It was interrupted after so many rounds, in which nothing was found.
    Interrupted(u32),
    /// It broke off by itself.
    BrokeOff(String),
}

/// Of one campaign.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which.
    pub campaign: &'static str,
    /// Rounds that were asked for, or fewer if there is less to do.
    pub rounds: u32,
    /// To run it again.
    pub seed: u64,
    /// The mistake that the broker was told to make.
    pub planted: Option<String>,
    /// Seconds.
    pub took_s: f64,
    /// The verdict.
    pub outcome: Outcome,
    /// What it did.
    pub figures: Figures,
    /// What it found.
    pub findings: Findings,
    /// Where data and log of what failed are; of a disk of its own, the image.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Of a campaign that came to its end, after so many rounds, or not.
    #[must_use]
    pub fn of(
        campaign: Campaign,
        options: &Options,
        took: Duration,
        done: anyhow::Result<u32>,
        figures: Figures,
        findings: Findings,
    ) -> Self {
        let outcome = match done {
            // What it found may be why it broke off.
            _ if !findings.is_clean() => Outcome::Failed,
            Err(error) => match error.downcast::<CannotRun>() {
                Ok(CannotRun(why)) => Outcome::CannotRun(why),
                Err(error) => Outcome::BrokeOff(format!("{error:#}")),
            },
            Ok(rounds) if rounds < options.rounds => Outcome::Interrupted(rounds),
            Ok(_) => Outcome::Passed,
        };
        Self {
            campaign: campaign.name(),
            rounds: options.rounds,
            seed: options.seed,
            planted: options.planted.clone(),
            took_s: (took.as_secs_f64() * 10.0).round() / 10.0,
            outcome,
            figures,
            findings,
            kept: None,
        }
    }

    /// Of one that could not even begin.
    #[must_use]
    pub fn without(
        campaign: Campaign,
        options: &Options,
        took: Duration,
        error: anyhow::Error,
    ) -> Self {
        let (figures, findings) = <(Figures, Findings)>::default();
        Self::of(campaign, options, took, Err(error), figures, findings)
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }

    /// For people: what it did, what it found.
    #[must_use]
    pub fn text(&self) -> String {
        let done = match self.outcome {
            Outcome::Interrupted(done) => format!("{done} of "),
            _ => String::new(),
        };
        let mut text = format!(
            "{}: {done}{} rounds in {} s, seed {}\n",
            self.campaign, self.rounds, self.took_s, self.seed
        );
        for (name, count) in &self.figures.0 {
            let _ = writeln!(text, "  {name}: {count}");
        }
        for (kind, count) in &self.findings.violations {
            let _ = writeln!(text, "  VIOLATION {kind}: {count}");
        }
        for example in &self.findings.examples {
            let _ = writeln!(text, "    {example}");
        }
        let _ = writeln!(text, "  verdict: {}", self.verdict());
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "  data and log are kept in {}", kept.display());
        }
        text
    }

    fn verdict(&self) -> String {
        match &self.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed => format!("FAILED, {} violations", self.findings.total()),
            Outcome::CannotRun(why) => format!("CANNOT RUN: {why}"),
            Outcome::Interrupted(rounds) => format!("INTERRUPTED after {rounds} rounds"),
            Outcome::BrokeOff(why) => format!("BROKE OFF: {why}"),
        }
    }
}

/// A table of several.
#[must_use]
pub fn summary(reports: &[Report]) -> String {
    let mut text = format!(
        "{:<12} {:>7} {:>8} {:>13} {:>12}  verdict\n",
        "campaign", "rounds", "seconds", "acknowledged", "events read"
    );
    for report in reports {
        let _ = writeln!(
            text,
            "{:<12} {:>7} {:>8} {:>13} {:>12}  {}",
            report.campaign,
            report.rounds,
            report.took_s,
            report.figures.of("acknowledged"),
            report.figures.of("events read"),
            report.verdict()
        );
    }
    text
}
