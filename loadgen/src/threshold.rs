//! Thresholds such as `p99>5ms`: when a run, or the comparison of two, counts as failed.

use std::fmt;
use std::str::FromStr;

use crate::latency::Percentiles;
use crate::run::Report;
use crate::units;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds of processor time.
    Seconds,
    /// Bytes.
    Bytes,
    /// Something countable, or so many a second.
    Count,
    /// A ratio.
    Ratio,
}

/// A number of a report.
pub struct Metric {
    /// Its name in thresholds and comparisons.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it is; none when the report does not hold it.
    pub of: fn(&Report) -> Option<f64>,
}

/// All numbers that can be named.
pub const METRICS: &[Metric] = &[
    count("published", |report| Some(report.published as f64)),
    count("published_per_s", |report| Some(report.published_per_s)),
    count("delivered", |report| Some(report.delivered as f64)),
    count("delivered_per_s", |report| Some(report.delivered_per_s)),
    ms("ack.p50", |report| of(&report.ack_ms, |ms| ms.p50)),
    ms("ack.p90", |report| of(&report.ack_ms, |ms| ms.p90)),
    ms("ack.p99", |report| of(&report.ack_ms, |ms| ms.p99)),
    ms("ack.p999", |report| of(&report.ack_ms, |ms| ms.p999)),
    ms("ack.max", |report| of(&report.ack_ms, |ms| ms.max)),
    ms("delivery.p50", |report| {
        of(&report.delivery_ms, |ms| ms.p50)
    }),
    ms("delivery.p90", |report| {
        of(&report.delivery_ms, |ms| ms.p90)
    }),
    ms("delivery.p99", |report| {
        of(&report.delivery_ms, |ms| ms.p99)
    }),
    ms("delivery.p999", |report| {
        of(&report.delivery_ms, |ms| ms.p999)
    }),
    ms("delivery.max", |report| {
        of(&report.delivery_ms, |ms| ms.max)
    }),
    ms("p50", |report| worse(report, |ms| ms.p50)),
    ms("p90", |report| worse(report, |ms| ms.p90)),
    ms("p99", |report| worse(report, |ms| ms.p99)),
    ms("p999", |report| worse(report, |ms| ms.p999)),
    ms("max", |report| worse(report, |ms| ms.max)),
    count("violations", |report| Some(report.violations_total as f64)),
    count("failed", |report| Some(report.failed as f64)),
    count("refused", |report| Some(report.refused as f64)),
    // Everything that did not go through at once.
    count("errors", |report| {
        Some((report.failed + report.refused + report.reconnects) as f64)
    }),
    count("reconnects", |report| Some(report.reconnects as f64)),
    Metric {
        name: "broker.cpu_s",
        unit: Unit::Seconds,
        of: |report| Some(report.broker?.cpu_s),
    },
    Metric {
        name: "broker.rss",
        unit: Unit::Bytes,
        of: |report| Some(report.broker?.resident_bytes as f64),
    },
    // A process has some in any case: 0 says that they may not be seen.
    count("broker.open_files", |report| {
        let files = report.broker?.open_files;
        (files > 0).then_some(files as f64)
    }),
    Metric {
        name: "client.cpu_s",
        unit: Unit::Seconds,
        of: |report| Some(report.client?.cpu_s),
    },
    ratio("growth.rss", |report| report.growth?.rss),
    ratio("growth.open_files", |report| report.growth?.open_files),
    ratio("growth.ack_p99", |report| Some(report.growth?.ack_p99)),
    ratio("growth.delivery_p99", |report| report.growth?.delivery_p99),
];

/// A percentile; none when there was nothing to measure.
fn of(ms: &Percentiles, percentile: fn(&Percentiles) -> f64) -> Option<f64> {
    (ms.max > 0.0).then(|| percentile(ms))
}

/// The worse of both ways; none when something was to be read and one of them is missing.
fn worse(report: &Report, percentile: fn(&Percentiles) -> f64) -> Option<f64> {
    let both = [&report.ack_ms, &report.delivery_ms].map(|ms| of(ms, percentile));
    let is_read = report.readers > 0 && report.unread < report.conversations;
    if is_read && both.contains(&None) {
        return None;
    }
    both.into_iter().flatten().reduce(f64::max)
}

const fn count(name: &'static str, of: fn(&Report) -> Option<f64>) -> Metric {
    let unit = Unit::Count;
    Metric { name, unit, of }
}

const fn ms(name: &'static str, of: fn(&Report) -> Option<f64>) -> Metric {
    let unit = Unit::Ms;
    Metric { name, unit, of }
}

const fn ratio(name: &'static str, of: fn(&Report) -> Option<f64>) -> Metric {
    let unit = Unit::Ratio;
    Metric { name, unit, of }
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// The longer ones first, because the shorter ones begin them.
const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// A condition under which a run has failed.
#[derive(Clone)]
pub struct Threshold {
    text: String,
    metric: &'static Metric,
    comparison: Comparison,
    limit: f64,
    relative: bool,
}

/// A text that is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No comparison stands in it.
    #[error("`{0}` is no threshold: write METRIC>NUMBER, with >, <, >= or <=, such as p99>5ms")]
    Form(String),
    /// The metric is not known.
    #[error("`{name}` is no metric; there are {known}", known = names())]
    Metric {
        /// As written.
        name: String,
    },
    /// The number is none, or has a unit that does not fit.
    #[error("`{text}` is no value of {metric}: write {form}")]
    Value {
        /// As written.
        text: String,
        /// Of which metric.
        metric: &'static str,
        /// What would be.
        form: &'static str,
    },
    /// The report does not hold the number.
    #[error("{text}: the report says nothing of it ({why})")]
    Missing {
        /// The threshold.
        text: String,
        /// What it would take.
        why: &'static str,
    },
    /// A ratio, where there is nothing to compare with.
    #[error("{0}: a ratio to another report is for `loadgen compare`")]
    Relative(String),
    /// A ratio to nothing, of which nobody can say that it is too small.
    #[error("{0}: the earlier report has 0 of it, to which there is no ratio")]
    Nothing(String),
}

fn names() -> String {
    let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    names.join(", ")
}

impl Unit {
    const fn form(self) -> &'static str {
        match self {
            Self::Ms => "milliseconds, or a number with us, ms or s",
            Self::Seconds => "seconds, or a number with ms, s or m",
            Self::Bytes => "bytes, or a number with KiB, MiB or GiB",
            Self::Count => "a number, which may end with k or M",
            Self::Ratio => "a number, such as 1.2",
        }
    }

    /// What one of a written unit is.
    fn scale(self, written: &str) -> Option<f64> {
        Some(match (self, written) {
            (_, "") | (Self::Ms, "ms") | (Self::Seconds, "s") | (Self::Bytes, "B") => 1.0,
            (Self::Ratio, "x") => 1.0,
            (Self::Ms, "us" | "µs") | (Self::Seconds, "ms") => 1e-3,
            (Self::Ms, "s") => 1e3,
            (Self::Seconds, "m" | "min") => 60.0,
            (Self::Bytes, "KiB") => 1024.0,
            (Self::Bytes, "MiB") => 1024.0 * 1024.0,
            (Self::Bytes, "GiB") => 1024.0 * 1024.0 * 1024.0,
            (Self::Count, "k") => 1e3,
            (Self::Count, "M") => 1e6,
            _ => return None,
        })
    }

    /// A value as people read it.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Ms => format!("{value:.3} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes => units::bytes(value),
            Self::Count => units::count(value),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let parts = COMPARISONS.into_iter().find_map(|(sign, comparison)| {
            let (name, limit) = text.split_once(sign)?;
            Some((name.trim(), comparison, limit.trim()))
        });
        let (name, comparison, limit) =
            parts.ok_or_else(|| ThresholdError::Form(text.to_owned()))?;
        let metric = METRICS
            .iter()
            .find(|metric| metric.name == name)
            .ok_or_else(|| ThresholdError::Metric {
                name: name.to_owned(),
            })?;
        let wrong = || ThresholdError::Value {
            text: limit.to_owned(),
            metric: metric.name,
            form: metric.unit.form(),
        };
        let (number, unit) = units::split(limit);
        let relative = unit == "x" && metric.unit != Unit::Ratio;
        let scale = if relative {
            Some(1.0)
        } else {
            metric.unit.scale(unit)
        };
        Ok(Self {
            text: text.to_owned(),
            metric,
            comparison,
            limit: number.ok_or_else(wrong)? * scale.ok_or_else(wrong)?,
            relative,
        })
    }
}

impl Threshold {
    /// What it says of a run; none when the run stands.
    ///
    /// # Errors
    /// When the report does not hold the number.
    pub fn broken_by(&self, report: &Report) -> Result<Option<String>, ThresholdError> {
        self.absolute()?;
        let value = self.value(report)?;
        Ok(self
            .holds(value)
            .then(|| format!("{}: it is {}", self.text, self.metric.unit.show(value))))
    }

    /// What it says of a run in comparison with an earlier one. A limit that ends with x is one of their ratio.
    ///
    /// # Errors
    /// When a report does not hold the number.
    pub fn broken_between(
        &self,
        before: &Report,
        after: &Report,
    ) -> Result<Option<String>, ThresholdError> {
        if !self.relative {
            return self.broken_by(after);
        }
        let (after, before) = (self.value(after)?, self.value(before)?);
        if before == 0.0 && matches!(self.comparison, Comparison::Below | Comparison::AtMost) {
            return Err(ThresholdError::Nothing(self.text.clone()));
        }
        let ratio = after / before;
        Ok(self
            .holds(ratio)
            .then(|| format!("{}: it is {ratio:.3}x", self.text)))
    }

    /// Whether it can be told without another report.
    ///
    /// # Errors
    /// When it cannot.
    pub fn absolute(&self) -> Result<(), ThresholdError> {
        if self.relative {
            return Err(ThresholdError::Relative(self.text.clone()));
        }
        Ok(())
    }

    /// Whether the broker has to be watched for it.
    #[must_use]
    pub fn needs_broker(&self) -> bool {
        matches!(
            self.metric.name,
            "broker.cpu_s"
                | "broker.rss"
                | "broker.open_files"
                | "growth.rss"
                | "growth.open_files"
        )
    }

    /// Whether somebody has to read for it.
    #[must_use]
    pub fn needs_readers(&self) -> bool {
        self.metric.name.starts_with("delivery.") || self.metric.name == "growth.delivery_p99"
    }

    fn value(&self, report: &Report) -> Result<f64, ThresholdError> {
        (self.metric.of)(report).ok_or_else(|| ThresholdError::Missing {
            text: self.text.clone(),
            why: if report.broker.is_none() && self.needs_broker() {
                "--broker-pid was not given"
            } else if self.metric.name == "broker.open_files" {
                "they may not be seen: run loadgen as root, or as the user that runs the broker"
            } else if report.delivered == 0
                && (self.needs_readers() || self.metric.unit == Unit::Ms && report.published > 0)
            {
                "nothing was delivered"
            } else if self.metric.unit == Unit::Ms {
                "nothing was acknowledged"
            } else {
                "it takes 4 seconds of measured load, and something to measure"
            },
        })
    }

    /// A number that is none (0/0) holds nothing up.
    fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
        }
    }
}

impl fmt::Debug for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Threshold({})", self.text)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_process::Usage;

    fn report() -> Report {
        Report {
            published_per_s: 20_000.0,
            ack_ms: Percentiles {
                p99: 4.0,
                max: 9.0,
                ..Percentiles::default()
            },
            delivery_ms: Percentiles {
                p99: 6.0,
                max: 9.0,
                ..Percentiles::default()
            },
            violations_total: 1,
            ..Report::default()
        }
    }

    fn broken(text: &str) -> bool {
        let threshold: Threshold = text.parse().unwrap();
        threshold.broken_by(&report()).unwrap().is_some()
    }

    #[test]
    fn thresholds_are_held_against_the_report() {
        for text in [
            "p99>5ms",
            "p99 > 5000us",
            "delivery.p99>=6",
            "violations>0",
            "published_per_s<20.1k",
            "ack.p99<=4ms",
        ] {
            assert!(broken(text), "{text}");
        }
        for text in [
            "p99>6ms",
            "ack.p99>4ms",
            "p99>1s",
            "violations>1",
            "published_per_s<20k",
            "failed>0",
        ] {
            assert!(!broken(text), "{text}");
        }
        let threshold: Threshold = "p99>5ms".parse().unwrap();
        assert_eq!(
            threshold.broken_by(&report()).unwrap().unwrap(),
            "p99>5ms: it is 6.000 ms"
        );
    }

    #[test]
    fn of_what_did_not_come_there_is_no_latency_to_hold() {
        let unread = Report {
            delivery_ms: Percentiles::default(),
            ..report()
        };
        let held = |text: &str, report: &Report| {
            let threshold: Threshold = text.parse().unwrap();
            threshold.broken_by(report)
        };
        assert_eq!(held("p99>5ms", &unread), Ok(None), "4 ms to acknowledge");
        let error = held("delivery.p99>5ms", &unread).unwrap_err().to_string();
        assert!(error.contains("nothing was delivered"), "{error}");
        let unfollowed = Report {
            readers: 1,
            conversations: 2,
            unread: 2,
            published: 7,
            ..unread
        };
        assert_eq!(held("p99>5ms", &unfollowed), Ok(None));
        let missed = Report {
            unread: 1,
            ..unfollowed
        };
        assert_eq!(held("ack.p99>5ms", &missed), Ok(None));
        let error = held("p99>5ms", &missed).unwrap_err().to_string();
        assert!(error.contains("nothing was delivered"), "{error}");
        let nothing = Report::default();
        for text in ["p99>5ms", "ack.max>1s"] {
            let error = held(text, &nothing).unwrap_err().to_string();
            assert!(error.contains("nothing was acknowledged"), "{error}");
        }
    }

    #[test]
    fn ratios_are_between_two_reports() {
        let after = Report {
            published_per_s: 15_000.0,
            ..report()
        };
        let slower: Threshold = "published_per_s<0.9x".parse().unwrap();
        assert!(slower.broken_between(&report(), &after).unwrap().is_some());
        assert!(slower.broken_between(&after, &report()).unwrap().is_none());
        assert!(slower.broken_by(&after).is_err());
        let nothing = Report::default();
        let error = slower.broken_between(&nothing, &nothing).unwrap_err();
        assert!(error.to_string().contains("no ratio"), "{error}");
        let more: Threshold = "violations>1x".parse().unwrap();
        assert_eq!(more.broken_between(&nothing, &nothing), Ok(None));
        assert!(more.broken_between(&nothing, &after).unwrap().is_some());
        let absolute: Threshold = "published_per_s<16k".parse().unwrap();
        assert!(
            absolute
                .broken_between(&report(), &after)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn bad_ones_are_refused_with_what_would_be_good() {
        for (text, says) in [
            ("", "METRIC>NUMBER"),
            ("p99", "METRIC>NUMBER"),
            ("p98>5ms", "ack.p99"),
            ("p99>fast", "milliseconds"),
            ("p99>5KiB", "us, ms or s"),
            ("broker.rss>5ms", "MiB"),
            ("violations>1ms", "a number"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let hidden = Report {
            broker: Some(Usage::default()),
            ..report()
        };
        let files: Threshold = "broker.open_files>1k".parse().unwrap();
        let error = files.broken_by(&hidden).unwrap_err().to_string();
        assert!(error.contains("may not be seen"), "{error}");
        let unwatched: Threshold = "broker.rss>1GiB".parse().unwrap();
        let error = unwatched.broken_by(&report()).unwrap_err().to_string();
        assert!(
            unwatched.needs_broker() && error.contains("--broker-pid"),
            "{error}"
        );
    }
}
