//! `loadgen compare`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rialto_loadgen::compare::{differences, rows, table};
use rialto_loadgen::run::Report;
use rialto_loadgen::threshold::Threshold;

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The earlier report, JSON as `run` writes it.
    before: PathBuf,
    /// The later one.
    after: PathBuf,
    /// Ends with status 1 if this holds of the later report, such as 'p99>5ms', or of both with x: 'published_per_s<0.9x'.
    /// May be given several times.
    #[arg(long, value_name = "EXPR")]
    fail_if: Vec<Threshold>,
}

/// Prints the table; whether no threshold was passed.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<bool> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    for difference in differences(&before, &after) {
        println!("not the same load: {difference}");
    }
    print!("{}", table(&rows(&before, &after)));
    if !args.fail_if.is_empty() {
        // What was measured of a part, or judged by nobody, holds nothing up.
        for (path, report) in [(&args.before, &before), (&args.after, &after)] {
            if let Some(reason) = &report.ended_early {
                bail!(
                    "{} ended early ({reason}): there is nothing to hold a threshold against",
                    path.display()
                );
            }
        }
    }
    let mut stands = true;
    for threshold in &args.fail_if {
        if let Some(words) = threshold.broken_between(&before, &after)? {
            println!("passed {words}");
            stands = false;
        }
    }
    Ok(stands)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{} is no report of `loadgen run`", path.display()))
}
