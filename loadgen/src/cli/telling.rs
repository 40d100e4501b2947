//! Reports as files, and as words on standard output.

use std::fs;
use std::path::Path;

use anyhow::Context;
use rialto_loadgen::latency::Percentiles;
use serde::Serialize;

/// Whether it can be written: before a long run, not after it. Nothing is left behind should there be none.
pub(super) fn check_report(path: &Path) -> anyhow::Result<()> {
    let there = path.exists();
    let opened = fs::OpenOptions::new().create(true).append(true).open(path);
    let checked = opened.and_then(|_| if there { Ok(()) } else { fs::remove_file(path) });
    checked.with_context(|| format!("the report {} cannot be written", path.display()))
}

pub(super) fn write(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    fs::write(path, text)
        .with_context(|| format!("the report {} cannot be written", path.display()))
}

pub(super) fn tell_latencies(ack: &Percentiles, delivery: &Percentiles) {
    for (what, ms) in [("acknowledged", ack), ("delivered", delivery)] {
        println!(
            "{what} within ms: p50 {:.3}, p90 {:.3}, p99 {:.3}, p999 {:.3}, max {:.3}",
            ms.p50, ms.p90, ms.p99, ms.p999, ms.max
        );
    }
}

pub(super) fn tell_findings(violations: &[(&'static str, u64)], examples: &[String]) {
    let found: Vec<String> = violations
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    println!(
        "violations: {}",
        if found.is_empty() {
            "none".to_owned()
        } else {
            found.join(", ")
        }
    );
    for example in examples {
        println!("  {example}");
    }
}
