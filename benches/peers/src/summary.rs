//! Medians, spread and ratios of what was measured.

use serde::Serialize;

use crate::case::{Case, Figure};
use crate::contest::Contest;
use crate::machine::Machine;
use crate::peer::{self, Promise};

/// Everything that the table, the page and the JSON file tell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Where it was measured.
    pub(crate) machine: Machine,
    /// The commit of this repository, if git tells.
    pub(crate) commit: Option<String>,
    /// Repeats of each run.
    pub(crate) repeats: usize,
    /// Seconds of each run.
    pub(crate) seconds: f64,
    /// Writing 100 bytes and `fdatasync`: the median of each repeat's median, milliseconds.
    pub(crate) sync_p50_ms: Option<f64>,
    /// Those that took part.
    pub(crate) peers: Vec<About>,
    /// Case by case, of each peer its best setting.
    pub(crate) rows: Vec<Row>,
    /// All settings that were measured, the best one of each peer too.
    pub(crate) settings: Vec<Row>,
}

/// What stands below the table for a peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    /// As tables name it.
    pub(crate) title: String,
    /// What its acknowledgements say.
    pub(crate) promise: Promise,
    /// How it was set up.
    pub(crate) terms: &'static str,
}

/// One peer in one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The case.
    pub(crate) case: Case,
    /// The peer, as `--peers` names it.
    pub(crate) peer: &'static str,
    /// The peer, as tables name it.
    pub(crate) title: String,
    /// What its acknowledgements say.
    pub(crate) promise: Promise,
    /// Whether it is compared, or shown for information.
    pub(crate) compared: bool,
    /// How it was set up.
    pub(crate) setting: String,
    /// Messages a second.
    pub(crate) per_s: Spread,
    /// Median latency, milliseconds.
    pub(crate) p50_ms: Option<Spread>,
    /// The most memory of the server in any repeat, bytes.
    pub(crate) peak_bytes: Option<u64>,
    /// How many times better Rialto over TCP is in the figure that decides; none if it was not measured.
    pub(crate) ours_over_it: Option<f64>,
    /// Why repeats failed.
    pub(crate) failures: Vec<String>,
}

/// A figure over all repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// All, as they came.
    pub(crate) samples: Vec<f64>,
}

impl Spread {
    /// None when there is no sample.
    pub(crate) fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = sorted.get(sorted.len() / 2)?;
        let lower = sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(*lower, *upper),
            min: *sorted.first()?,
            max: *sorted.last()?,
            samples,
        })
    }
}

impl Row {
    /// The figure that decides.
    pub(crate) fn figure(&self) -> Option<&Spread> {
        match self.case.figure {
            Figure::PerSecond => Some(&self.per_s),
            Figure::P50 => self.p50_ms.as_ref(),
        }
    }

    /// How many times better than `other`.
    fn over(&self, other: &Self) -> Option<f64> {
        let (ours, theirs) = (self.figure()?.median, other.figure()?.median);
        let (good, bad) = match self.case.figure {
            Figure::PerSecond => (ours, theirs),
            Figure::P50 => (theirs, ours),
        };
        (bad > 0.0).then(|| good / bad)
    }
}

impl Summary {
    pub(crate) fn of(
        contest: &Contest,
        machine: &Machine,
        commit: Option<&str>,
        seconds: f64,
    ) -> Self {
        let mut settings: Vec<Row> = contest
            .entries
            .iter()
            .filter_map(|entry| {
                let samples = &entry.samples;
                let peer = &contest.peers[entry.peer];
                Some(Row {
                    case: entry.case,
                    peer: peer.name(),
                    title: peer.title(),
                    promise: peer.promise(),
                    compared: peer::compares(peer.promise(), &entry.case),
                    setting: entry.setting.name.clone(),
                    per_s: Spread::of(samples.iter().map(|sample| sample.per_s).collect())?,
                    p50_ms: Spread::of(samples.iter().filter_map(|sample| sample.p50_ms).collect()),
                    peak_bytes: samples.iter().filter_map(|sample| sample.peak_bytes).max(),
                    ours_over_it: None,
                    failures: entry.failures.clone(),
                })
            })
            .collect();
        let ours: Vec<Row> = best_of_each(&settings)
            .into_iter()
            .filter(|row| row.peer == peer::OURS)
            .collect();
        for row in &mut settings {
            let rival = ours.iter().find(|ours| ours.case == row.case);
            row.ours_over_it = rival
                .filter(|_| row.peer != peer::OURS)
                .and_then(|ours| ours.over(row));
        }
        Self {
            machine: machine.clone(),
            commit: commit.map(ToOwned::to_owned),
            repeats: contest.sync_p50_ms.len(),
            seconds,
            sync_p50_ms: Spread::of(contest.sync_p50_ms.clone()).map(|spread| spread.median),
            peers: contest
                .peers
                .iter()
                .map(|peer| About {
                    title: peer.title(),
                    promise: peer.promise(),
                    terms: peer.terms(),
                })
                .collect(),
            rows: best_of_each(&settings),
            settings,
        }
    }
}

/// Of each peer in each case the row with the best median.
fn best_of_each(rows: &[Row]) -> Vec<Row> {
    let mut best: Vec<Row> = Vec::new();
    for row in rows {
        let before = best
            .iter_mut()
            .find(|other| other.case == row.case && other.peer == row.peer);
        match before {
            Some(before) => {
                if row.over(before).is_some_and(|ratio| ratio > 1.0) {
                    *before = row.clone();
                }
            }
            None => best.push(row.clone()),
        }
    }
    best
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::CASES;

    pub(crate) fn row(case: &str, peer: &'static str, per_s: f64, p50_ms: f64) -> Row {
        Row {
            case: *CASES.iter().find(|other| other.name == case).unwrap(),
            peer,
            title: format!("<{peer}>"),
            promise: Promise::Durable,
            compared: true,
            setting: "defaults".to_owned(),
            per_s: Spread::of(vec![per_s, per_s * 1.5, per_s * 0.5]).unwrap(),
            p50_ms: Spread::of(vec![p50_ms]),
            peak_bytes: Some(3 << 20),
            ours_over_it: Some(2.0),
            failures: Vec::new(),
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let median = |samples: &[f64]| Spread::of(samples.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.max, spread.samples[0]), (1.0, 3.0, 3.0));
    }

    #[test]
    fn more_a_second_is_better_and_less_latency_is_better() {
        let (fast, slow) = (
            row("durable-100x1", "a", 200.0, 1.0),
            row("durable-100x1", "b", 100.0, 0.5),
        );
        assert_eq!(fast.over(&slow), Some(2.0));
        let (slow, quick) = (
            row("latency-1x1", "a", 200.0, 1.0),
            row("latency-1x1", "b", 100.0, 0.25),
        );
        assert_eq!(quick.over(&slow), Some(4.0));
    }

    #[test]
    fn of_each_peer_the_best_setting_counts() {
        let rows = [
            row("durable-100x1", "a", 100.0, 1.0),
            row("durable-100x1", "a", 300.0, 1.0),
            row("durable-100x1", "b", 200.0, 1.0),
            row("latency-1x1", "a", 100.0, 1.0),
            row("latency-1x1", "a", 900.0, 2.0),
        ];
        let best: Vec<_> = best_of_each(&rows)
            .iter()
            .map(|row| row.per_s.median)
            .collect();
        assert_eq!(best, [300.0, 200.0, 100.0]);
    }
}
