//! The command line, what it begins, and what is shown meanwhile.

use std::fs;
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::case::{self, CASES};
use crate::contest::{Contest, Pace, Settings, Watch};
use crate::machine::Machine;
use crate::summary::Summary;
use crate::tools::Tools;
use crate::{chart, page, peer};

/// Runs Rialto and its peers in turn on this machine, same load, interleaved repeats, and writes one table.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Cases to run, by the beginnings of their names: durable, latency, fan-out, catch-up, durable-100x16 and so on.
    #[arg(long, value_name = "CASE,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Who takes part, by the beginnings of their names: rialto, rialto-tcp, redis, jetstream, nats and so on.
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    peers: Vec<String>,
    /// Repeats of everything.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Seconds that each run is measured.
    #[arg(long, value_name = "S", default_value_t = 8.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before that.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    warm_up: f64,
    /// Seconds of rest between two runs.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    settle: f64,
    /// Settings of each peer: the one found to be the best, or all that are worth trying.
    #[arg(long, value_enum, default_value_t = Settings::Best)]
    settings: Settings,
    /// Folder for the data, on a disk; each run has an empty folder in it. By default target/peers/data.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for table, JSON and charts. By default target/peers/results.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Markdown page that gets the table between its marks, such as docs/PERFORMANCE.md.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Folder with the binaries rialto and loadgen. By default that of this program.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// List the cases and end.
    #[arg(long)]
    list: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "no number".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .map(|_| seconds)
        .map_err(|_| "no number of seconds".to_owned())
}

/// Does what the command line says. Whether every run went well.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<bool> {
    if cli.list {
        for case in CASES {
            println!("{:<16}{}", case.name, case.title);
        }
        return Ok(true);
    }
    let cases = case::chosen(&cli.only)?;
    let mut tools = Tools::beside_us()?;
    if let Some(binaries) = &cli.binaries {
        tools.binaries.clone_from(binaries);
    }
    let data = folder(cli.data.as_deref(), &tools.folder.join("data"))?;
    let out = folder(cli.out.as_deref(), &tools.folder.join("results"))?;
    let machine = Machine::this(&data)?;
    let peers = peer::chosen(&cli.peers, &tools)?;
    let mut contest = Contest::new(&cases, peers, cli.settings);
    let pace = Pace {
        repeats: cli.repeats as usize,
        measure: Duration::from_secs_f64(cli.seconds),
        warm_up: Duration::from_secs_f64(cli.warm_up),
        settle: Duration::from_secs_f64(cli.settle),
    };
    let mut teller = Teller {
        bar: ProgressBar::hidden(),
        plain: !stderr().is_terminal(),
        runs: 0,
        done: 0,
        // Starting, stopping and cleaning up take about a second.
        guess: pace.measure + pace.warm_up + pace.settle + Duration::from_secs(1),
        begun: Instant::now(),
        write: Writer {
            machine,
            commit: commit(),
            seconds: cli.seconds,
            out,
        },
    };
    contest.run(pace, &data, &mut teller)?;
    teller.bar.finish_and_clear();
    let summary = teller.write.summary(&contest);
    let table = page::markdown(&summary);
    if let Some(page) = &cli.page {
        page::put_into(page, &table)?;
    }
    println!("{table}");
    eprintln!(
        "peers.md, peers.json and peers.html are in {}",
        teller.write.out.display()
    );
    let failed: usize = contest
        .entries
        .iter()
        .map(|entry| entry.failures.len())
        .sum();
    if failed > 0 {
        eprintln!("failed runs: {failed}; their reasons are in peers.json and above");
    }
    Ok(failed == 0)
}

fn folder(wanted: Option<&Path>, default: &Path) -> anyhow::Result<PathBuf> {
    let folder = wanted.unwrap_or(default);
    fs::create_dir_all(folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// The commit that is checked out here, with a mark if files differ from it.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty=, changed"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// Puts results into files.
struct Writer {
    machine: Machine,
    commit: Option<String>,
    seconds: f64,
    out: PathBuf,
}

impl Writer {
    fn summary(&self, contest: &Contest) -> Summary {
        Summary::of(contest, &self.machine, self.commit.as_deref(), self.seconds)
    }

    fn write(&self, contest: &Contest) -> anyhow::Result<()> {
        let summary = self.summary(contest);
        let failures: Vec<_> = contest
            .entries
            .iter()
            .filter(|entry| !entry.failures.is_empty())
            .collect();
        let json = serde_json::json!({ "summary": summary, "failures": failures });
        let files = [
            ("peers.json", serde_json::to_string_pretty(&json)? + "\n"),
            ("peers.md", page::markdown(&summary)),
            ("peers.html", chart::html(&summary)),
        ];
        for (name, text) in files {
            let path = self.out.join(name);
            fs::write(&path, text)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }
}

/// Shows a bar on a terminal and plain lines elsewhere, on standard error, and writes results after each run.
struct Teller {
    bar: ProgressBar,
    plain: bool,
    runs: usize,
    done: usize,
    guess: Duration,
    begun: Instant,
    write: Writer,
}

impl Teller {
    /// Minutes that are left: from the runs up to now, or from the plan.
    fn minutes_left(&self) -> f64 {
        let left = self.runs.saturating_sub(self.done) as f64;
        let each = if self.done == 0 {
            self.guess.as_secs_f64()
        } else {
            self.begun.elapsed().as_secs_f64() / self.done as f64
        };
        left * each / 60.0
    }
}

impl Watch for Teller {
    fn begins(&mut self, runs: usize) {
        self.runs = runs;
        self.begun = Instant::now();
        if self.plain {
            eprintln!("{runs} runs, about {:.0} minutes", self.minutes_left());
            return;
        }
        self.bar = ProgressBar::new(runs as u64);
        // The template is a constant; the default style is good enough should it be wrong.
        ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed_precise} {msg}")
            .map(|style| self.bar.set_style(style))
            .unwrap_or_default();
        self.bar.enable_steady_tick(Duration::from_millis(500));
    }

    fn run_begins(&mut self, words: &str) {
        let left = self.minutes_left();
        self.bar.set_message(format!("{left:.0} min left: {words}"));
    }

    fn run_ends(&mut self, words: &str) {
        self.done += 1;
        if self.plain {
            let left = self.minutes_left();
            eprintln!("{}/{} {words}; {left:.0} min left", self.done, self.runs);
        } else {
            self.bar.println(words);
            self.bar.inc(1);
        }
    }

    fn keep(&mut self, contest: &Contest) -> anyhow::Result<()> {
        self.write.write(contest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn parts_are_chosen_by_lists() {
        let cli = Cli::parse_from(["x", "--only", "durable,latency", "--peers", "redis"]);
        assert_eq!((cli.only.len(), cli.peers.len()), (2, 1));
        assert!(Cli::try_parse_from(["x", "--repeats", "0"]).is_err());
        assert!(Cli::try_parse_from(["x", "--seconds", "-1"]).is_err());
    }
}
