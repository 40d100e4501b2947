//! The report as one HTML page: no script, nothing loaded from elsewhere.

mod plot;

use std::fmt::Write as _;

use crate::latency::Percentiles;
use crate::run::{Report, Sample};
use crate::units;
use plot::{Line, Plot};

/// Colours of lines, told apart on light and on dark ground, and by those who do not see red and green.
const COLOURS: [&str; 4] = ["#3b82c4", "#d97706", "#8b5cf6", "#0f9d76"];

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.2rem .6rem;border-bottom:1px solid #8884}\
th:first-child,td:first-child{text-align:left}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:currentColor}\
.grid{stroke:#8883;stroke-width:1}.phase{stroke:#8888;stroke-dasharray:3 3}\
.bad{color:#d33}.wide{overflow-x:auto}";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = String::new();
    let title = format!("loadgen: {}", report.target);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = escaped(&title)
    );
    html += &findings(report);
    html += &summary(report);
    html += &phases(report);
    for plot in plots(report) {
        html += &plot.svg();
    }
    html += "</body>\n</html>\n";
    html
}

/// What stands for characters that HTML gives a meaning.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn rows(html: &mut String, rows: &[(&str, String)]) {
    *html += "<table>\n";
    for (name, value) in rows {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(value)
        );
    }
    *html += "</table>\n";
}

fn summary(report: &Report) -> String {
    let mut html = String::new();
    let per_s = |count: u64, per_s: f64| format!("{count} ({}/s)", units::count(per_s));
    let violations = if report.is_judged() {
        report.violations_total.to_string()
    } else {
        "nobody has judged".to_owned()
    };
    let mut all = vec![
        ("published", per_s(report.published, report.published_per_s)),
        ("delivered", per_s(report.delivered, report.delivered_per_s)),
        ("acknowledged within", percentiles(&report.ack_ms)),
        ("delivered within", percentiles(&report.delivery_ms)),
        (
            "violations, failed, refused for now, reconnects",
            format!(
                "{violations}, {}, {}, {}",
                report.failed, report.refused, report.reconnects
            ),
        ),
        (
            "connections",
            format!(
                "{}: {} publish, {} read",
                report.connections, report.publishers, report.readers
            ),
        ),
        ("conversations", report.shapes.join(", ")),
        ("bytes of a message", report.size.clone()),
        ("check", report.check.clone()),
        ("measured", format!("{:.1} s", report.duration_s)),
    ];
    if report.unread > 0 {
        let unread = format!("{} of {}", report.unread, report.conversations);
        all.push(("conversations that nobody follows", unread));
    }
    for (who, usage) in [("broker", report.broker), ("loadgen", report.client)] {
        if let Some(usage) = usage {
            let memory = units::bytes(usage.resident_bytes as f64);
            all.push((
                who,
                format!("{:.2} s of processor time, {memory}", usage.cpu_s),
            ));
        }
    }
    if report.stood_still.times > 0 {
        all.push(("processors stood still", report.stood_still.to_string()));
    }
    if let Some(growth) = report.growth {
        let grown = [
            ("memory", growth.rss),
            ("open files", growth.open_files),
            ("ack p99", Some(growth.ack_p99)),
            ("delivery p99", growth.delivery_p99),
        ];
        let words = grown
            .into_iter()
            .filter_map(|(what, ratio)| Some(format!("{what} {:.2}", ratio?)));
        let words: Vec<String> = words.collect();
        all.push(("last quarter by first", words.join(", ")));
    }
    rows(&mut html, &all);
    html
}

fn percentiles(ms: &Percentiles) -> String {
    format!(
        "p50 {:.3}, p90 {:.3}, p99 {:.3}, p999 {:.3}, max {:.3} ms",
        ms.p50, ms.p90, ms.p99, ms.p999, ms.max
    )
}

fn phases(report: &Report) -> String {
    let mut html = String::from(
        "<h2>Phases</h2>\n<div class=\"wide\"><table>\n<tr><th>phase</th><th>pace</th><th>s</th><th>published/s</th>\
         <th>delivered/s</th><th>ack p50 ms</th><th>ack p99 ms</th><th>delivery p99 ms</th></tr>\n",
    );
    for phase in &report.phases {
        let measured = if phase.measured { "" } else { " (not counted)" };
        let _ = writeln!(
            html,
            "<tr><td>{}{measured}</td><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td></tr>",
            escaped(&phase.name),
            escaped(&phase.pace),
            phase.duration_s,
            units::count(phase.published_per_s),
            units::count(phase.delivered_per_s),
            phase.ack_ms.p50,
            phase.ack_ms.p99,
            phase.delivery_ms.p99
        );
    }
    html += "</table></div>\n";
    html
}

fn plots(report: &Report) -> Vec<Plot> {
    let samples = &report.samples;
    let line = |name: &str, colour: usize, of: &dyn Fn(&Sample) -> Option<f64>| Line {
        name: name.to_owned(),
        colour: COLOURS[colour],
        points: samples
            .iter()
            .filter_map(|sample| Some((sample.at_s, of(sample)?)))
            .collect(),
    };
    let mut begin_s = 0.0;
    let borders: Vec<(f64, String)> = report
        .phases
        .iter()
        .map(|phase| {
            begin_s += phase.duration_s;
            (begin_s - phase.duration_s, phase.name.clone())
        })
        .collect();
    let plot = |title: &str, show, lines| Plot {
        title: title.to_owned(),
        show,
        lines,
        borders: borders.clone(),
    };
    let latencies = |title: &str, of: fn(&Sample) -> &Percentiles| {
        // A second in which nothing came has no latency: 0 would show a stall as the best of times.
        let some = |ms: f64| (ms > 0.0).then_some(ms);
        let lines = vec![
            line("p50", 0, &|sample| some(of(sample).p50)),
            line("p99", 1, &|sample| some(of(sample).p99)),
            line("p999", 2, &|sample| some(of(sample).p999)),
        ];
        plot(title, show_ms as fn(f64) -> String, lines)
    };
    let mut plots = vec![
        plot(
            "Messages a second",
            units::count as fn(f64) -> String,
            vec![
                line("published", 0, &|sample| Some(sample.published_per_s)),
                line("delivered", 1, &|sample| Some(sample.delivered_per_s)),
            ],
        ),
        latencies("From due to acknowledged", |sample| &sample.ack_ms),
        latencies("From due to delivered", |sample| &sample.delivery_ms),
        plot(
            "Refused, failed and lost connections a sample",
            units::count,
            vec![
                line("refused for now", 0, &|sample| Some(sample.refused as f64)),
                line("failed", 1, &|sample| Some(sample.failed as f64)),
                line("reconnects", 2, &|sample| Some(sample.reconnects as f64)),
            ],
        ),
    ];
    plots.push(plot(
        "Standstills of the machine's processors a sample",
        show_ms,
        vec![line("all processors", 0, &|sample| {
            Some(sample.stood_still.total_ms)
        })],
    ));
    if report.broker.is_some() {
        plots.push(plot(
            "Processors that the broker kept busy",
            units::count,
            vec![line("broker", 0, &|sample| Some(sample.broker?.cpu))],
        ));
        plots.push(plot(
            "Memory of the broker",
            units::bytes,
            vec![line("resident", 0, &|sample| {
                Some(sample.broker?.resident_bytes as f64)
            })],
        ));
        plots.push(plot(
            "Open files of the broker",
            units::count,
            vec![line("open", 0, &|sample| {
                Some(sample.broker?.open_files as f64)
            })],
        ));
    }
    plots
}

fn show_ms(ms: f64) -> String {
    format!("{} ms", units::count(ms))
}

/// Words under one name.
fn named<'a>(name: &'a str, words: &[String]) -> Vec<(&'a str, String)> {
    words.iter().map(|words| (name, words.clone())).collect()
}

/// What a reader of the page has to know first.
fn findings(report: &Report) -> String {
    let mut found = named("no verdict", report.ended_early.as_slice());
    found.extend(named("threshold passed", &report.passed_thresholds));
    let violations = report.violations.named().into_iter();
    found.extend(
        violations
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name, count.to_string())),
    );
    found.extend(named("problem", &report.problems));
    if found.is_empty() {
        return String::new();
    }
    let mut html = String::from("<h2 class=\"bad\">Findings</h2>\n");
    rows(&mut html, &found);
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Violations;
    use crate::run::PhaseReport;

    fn sample(second: u32, p99: f64) -> Sample {
        let mut sample = Sample {
            at_s: f64::from(second),
            seconds: 1.0,
            ..Sample::default()
        };
        sample.ack_ms.p99 = p99;
        sample
    }

    #[test]
    fn everything_that_was_found_is_told() {
        let report = Report {
            ended_early: Some("interrupted".into()),
            passed_thresholds: vec!["p99>5ms: it is 6 ms".into()],
            violations: Violations {
                lost: 7,
                ..Violations::default()
            },
            problems: vec!["refused with 401".into()],
            conversations: 9,
            unread: 7,
            ..Report::default()
        };
        let html = page(&report);
        for words in [
            "interrupted",
            "p99&gt;5ms: it is 6 ms",
            "<td>lost</td><td>7</td>",
            "7 of 9",
            "refused with 401",
        ] {
            assert!(html.contains(words), "{words}");
        }
        assert!(!page(&Report::default()).contains("Findings"));
    }

    #[test]
    fn a_stall_is_not_drawn_as_no_latency() {
        let report = Report {
            samples: vec![
                sample(1, 2.0),
                sample(2, 0.0),
                sample(3, 2000.0),
                sample(4, 2.0),
            ],
            phases: vec![PhaseReport {
                duration_s: 4.0,
                ..PhaseReport::default()
            }],
            ..Report::default()
        };
        let plots = plots(&report);
        let seconds: Vec<f64> = plots[1].lines[1]
            .points
            .iter()
            .map(|point| point.0)
            .collect();
        assert_eq!(seconds, [1.0, 3.0, 4.0]);
    }
}
