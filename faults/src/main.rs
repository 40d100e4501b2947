//! The binary `faults`. Exit status: 0 every campaign passed, 1 violations were found or a campaign broke off, 2 the command
//! line is wrong, 3 a campaign cannot run on this machine, 130 it was interrupted and
//! had found nothing until then.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum as _};
use futures_util::future::select_all;
use rialto_faults::campaign::{self, Campaign, Options, Outcome, Report};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

const FAILED: u8 = 1;
const CANNOT_RUN: u8 = 3;
const INTERRUPTED: u8 = 130;
/// The choice that means every campaign.
const ALL: &str = "all";

/// Breaks a real broker on purpose and judges what came of it.
#[derive(Debug, Parser)]
#[command(name = "faults", version, about)]
struct Cli {
    /// Which campaigns; `all` for every one
    #[arg(required = true, value_name = "CAMPAIGN", value_parser = choices())]
    campaigns: Vec<String>,
    /// How often each breaks something [default: the campaign's own number]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// What is done follows from this number [default: a fresh one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Writes the reports as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The binary `rialto` [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    rialto: Option<PathBuf>,
    /// Where data directories and disk images are made
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Of `overload`, this attack alone, by its name in reports; once, unless more rounds are asked for
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,
    /// Short pauses and few rounds, as in the tests
    #[arg(long)]
    short: bool,
    /// A mistake that the broker is to make; it has to be built with the feature `planted`
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
}

fn choices() -> clap::builder::PossibleValuesParser {
    let campaigns = Campaign::value_variants()
        .iter()
        .filter_map(Campaign::to_possible_value);
    let all = clap::builder::PossibleValue::new(ALL).help("every campaign, one after the other");
    campaigns.chain([all]).collect::<Vec<_>>().into()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<ExitCode> {
    let binary = binary(cli.rialto.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        let mut signals = signals()?;
        let mut stops = async || {
            select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
        };
        let (interrupt, interrupted) = watch::channel(false);
        let stopped_twice = async {
            stops().await;
            tell("ends after this round and judges; once more, and it ends at once");
            interrupt.send_replace(true);
            stops().await;
        };
        let failed = Cell::new(false);
        // Whatever is given up here ends its broker, and takes its mounts and folders away.
        tokio::select! {
            code = play(cli, &binary, &interrupted, &failed) => code,
            () = stopped_twice => {
                let code = if failed.get() { FAILED } else { INTERRUPTED };
                Ok(ExitCode::from(code))
            }
        }
    })
}

/// Whatever asks a process to end. Who was started to outlive his terminal (nohup) does so.
fn signals() -> anyhow::Result<Vec<Signal>> {
    let mut kinds = vec![
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
    ];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !ignores(&status, SignalKind::hangup()) {
        kinds.push(SignalKind::hangup());
    }
    let signals = kinds.into_iter().map(signal).collect::<io::Result<_>>();
    signals.context("signals")
}

/// Whether a process of this status ignores a signal (proc(5), `SigIgn`).
fn ignores(status: &str, kind: SignalKind) -> bool {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap_or_default();
    let mask = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Says it on a terminal that may be gone.
fn tell(words: &str) {
    let _ = writeln!(io::stderr(), "faults: {words}");
}

/// The same for what is asked for.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Plays one campaign after the other; `failed` says at any time whether one of them has.
async fn play(
    cli: &Cli,
    binary: &Path,
    interrupted: &watch::Receiver<bool>,
    failed: &Cell<bool>,
) -> anyhow::Result<ExitCode> {
    let mut reports: Vec<Report> = Vec::new();
    // A file that cannot be written is known before hours have gone, and that of another run is not taken for this one's.
    write_report(cli.report.as_deref(), &reports)?;
    let campaigns = wanted(&cli.campaigns);
    if cli.attack.is_some() && campaigns != [Campaign::Overload] {
        bail!("only overload has attacks that can be named");
    }
    for campaign in campaigns {
        let seed = cli.seed.unwrap_or_else(fresh_seed);
        let rounds = cli.rounds.unwrap_or(match cli.attack {
            Some(_) => 1,
            None if cli.short => campaign.rounds_short(),
            None => campaign.rounds(),
        });
        tell(&format!("{} with seed {seed}", campaign.name()));
        let options = Options {
            binary: binary.to_owned(),
            scratch: cli.scratch.clone(),
            rounds,
            seed,
            attack: cli.attack.clone(),
            short: cli.short,
            planted: cli.planted.clone(),
        };
        let report = Box::pin(campaign::run(campaign, &options, interrupted.clone())).await;
        print(&format!("{}\n", report.text()));
        if matches!(report.outcome, Outcome::Failed | Outcome::BrokeOff(_)) {
            failed.set(true);
        }
        reports.push(report);
        write_report(cli.report.as_deref(), &reports)?;
        if *interrupted.borrow() {
            break;
        }
    }
    print(&campaign::summary(&reports));
    let cannot_run = |report: &Report| matches!(report.outcome, Outcome::CannotRun(_));
    let code = if failed.get() {
        FAILED
    } else if *interrupted.borrow() {
        INTERRUPTED
    } else if reports.iter().any(cannot_run) {
        CANNOT_RUN
    } else {
        0
    };
    Ok(ExitCode::from(code))
}

fn write_report(path: Option<&Path>, reports: &[Report]) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let json = serde_json::to_vec_pretty(reports).context("the report")?;
    std::fs::write(path, json).with_context(|| format!("{} cannot be written", path.display()))
}

fn wanted(names: &[String]) -> Vec<Campaign> {
    if names.iter().any(|name| name == ALL) {
        return Campaign::ALL.to_vec();
    }
    names
        .iter()
        .filter_map(|name| Campaign::from_str(name, false).ok())
        .collect()
}

fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .context("this program's own path")?
            .with_file_name("rialto"),
    };
    if !path.is_file() {
        bail!(
            "there is no broker at {}: build it with `cargo build --release -p rialto-server`, or name it with --rialto",
            path.display()
        );
    }
    // The broker is started from other folders.
    path.canonicalize()
        .with_context(|| path.display().to_string())
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_secs() % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ignores_what_its_status_says() {
        let nohup = "SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert!(ignores(nohup, SignalKind::hangup()));
        assert!(!ignores(nohup, SignalKind::interrupt()));
        assert!(!ignores("", SignalKind::hangup()));
    }
}
