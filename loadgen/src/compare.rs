//! Two reports beside each other.

use crate::run::Report;
use crate::threshold::METRICS;

/// Part by which two runs of the same load differ in their time.
const ALIKE: f64 = 0.02;

/// A number in both.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The metric's name.
    pub name: &'static str,
    /// In the first report.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// The second by the first; none when the first is 0.
    pub ratio: Option<f64>,
    /// Both as people read them.
    pub shown: [String; 2],
}

/// All numbers that both reports hold and that are not 0 in both.
#[must_use]
pub fn rows(before: &Report, after: &Report) -> Vec<Row> {
    let row = |metric: &'static crate::threshold::Metric| {
        let (before, after) = ((metric.of)(before)?, (metric.of)(after)?);
        (before != 0.0 || after != 0.0).then(|| Row {
            name: metric.name,
            before,
            after,
            ratio: (before != 0.0).then(|| after / before),
            shown: [metric.unit.show(before), metric.unit.show(after)],
        })
    };
    METRICS.iter().filter_map(row).collect()
}

/// The rows as a table.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<20} {:>14} {:>14} {:>8}\n", "", "A", "B", "B/A");
    for row in rows {
        let ratio = row
            .ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        text += &format!(
            "{:<20} {:>14} {:>14} {ratio:>8}\n",
            row.name, row.shown[0], row.shown[1]
        );
    }
    text
}

/// What of the load itself differs, so that a comparison would not be one of brokers alone.
#[must_use]
pub fn differences(before: &Report, after: &Report) -> Vec<String> {
    let text = |report: &Report| {
        [
            (
                "target",
                report
                    .target
                    .split("://")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ),
            ("connections", report.connections.to_string()),
            ("publishers", report.publishers.to_string()),
            ("readers", report.readers.to_string()),
            ("conversations", report.shapes.join(" ")),
            ("processes", report.processes.to_string()),
            ("size", report.size.clone()),
            ("burst", report.burst.to_string()),
            ("check", report.check.clone()),
            (
                "phases",
                report
                    .phases
                    .iter()
                    .map(|phase| phase.pace.as_str())
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
        ]
    };
    let mut differences: Vec<String> = text(before)
        .into_iter()
        .zip(text(after))
        .filter(|(a, b)| a.1 != b.1)
        .map(|(a, b)| format!("{}: {} and {}", a.0, a.1, b.1))
        .collect();
    let (a, b) = (before.duration_s, after.duration_s);
    if (a - b).abs() > ALIKE * a.max(b) {
        differences.push(format!("measured time: {a:.1} s and {b:.1} s"));
    }
    for (which, report) in [("A", before), ("B", after)] {
        if let Some(reason) = &report.ended_early {
            differences.push(format!("{which} ended early: {reason}"));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_the_second_by_the_first() {
        let report = |per_s, size: &str| Report {
            published_per_s: per_s,
            size: size.to_owned(),
            ..Report::default()
        };
        let (before, after) = (report(100_000.0, "100"), report(150_000.0, "200"));
        let rows = rows(&before, &after);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (rows[0].name, rows[0].ratio),
            ("published_per_s", Some(1.5))
        );
        let table = table(&rows);
        assert!(
            table.contains("100.0k") && table.contains("1.500"),
            "{table}"
        );
        assert_eq!(differences(&before, &after), ["size: 100 and 200"]);
    }

    #[test]
    fn everything_by_which_loads_differ_is_told() {
        let before = Report {
            duration_s: 10.0,
            burst: 1,
            ..Report::default()
        };
        let alike = Report {
            duration_s: 10.1,
            ..before.clone()
        };
        assert!(differences(&before, &alike).is_empty());
        let other = Report {
            duration_s: 12.0,
            burst: 16,
            processes: 2,
            ended_early: Some("interrupted".into()),
            ..before.clone()
        };
        assert_eq!(
            differences(&before, &other),
            [
                "processes: 0 and 2",
                "burst: 1 and 16",
                "measured time: 10.0 s and 12.0 s",
                "B ended early: interrupted"
            ]
        );
    }
}
