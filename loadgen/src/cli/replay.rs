//! `loadgen replay`.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use rialto_loadgen::corpus::Limit;
use rialto_loadgen::replay::{self, Sharing};
use tokio::runtime::Builder;

use super::target::{SECONDS_MAX, TargetArgs};
use super::telling::{check_report, tell_findings, tell_latencies, write};

/// Slowest speed: a day becomes three years.
const SPEED_MIN: f64 = 0.001;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// What to play: JSON lines with channel, day, n, at, nick, text and reply_to.
    file: PathBuf,
    #[command(flatten)]
    to: TargetArgs,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Play over so many connections that users share; each user has one of his own otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Times real time, such as 60x; as fast as acknowledged otherwise.
    #[arg(long, value_name = "N", value_parser = speed)]
    speed: Option<f64>,
    /// Play the first messages of the file only.
    #[arg(long, value_name = "N")]
    limit_messages: Option<usize>,
    /// Play the first days' logs of the file only.
    #[arg(long, value_name = "N")]
    limit_days: Option<usize>,
    /// Live readers of each conversation.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    readers: u32,
    /// Names the run's conversations; the same name continues an earlier replay. A new one by default.
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Shuffles the order in which conversations begin.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Conversations that are played at the same time.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Messages of one conversation that may wait for acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Seconds that a reader waits for what is missing when nothing comes.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    settle_s: u64,
}

/// Plays a file and has it judged.
pub(super) fn run(args: ReplayArgs) -> anyhow::Result<bool> {
    check_report(&args.report)?;
    let options = replay::Options {
        file: args.file,
        limit: Limit {
            messages: args.limit_messages,
            logs: args.limit_days,
        },
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        patience: args.to.patience(),
        target: args.to.target,
        sharing: args.connections.map_or(Sharing::None, |connections| {
            Sharing::Among(connections as usize)
        }),
        speed: args.speed,
        readers: args.readers as usize,
        run: args.run.map_or_else(new_run, Ok)?,
        seed: args.seed,
        at_once: args.at_once as usize,
        window: args.window as usize,
        settle: Duration::from_secs(args.settle_s),
        counters: Arc::default(),
    };
    let report = on_all_processors(replay::replay(options))??;
    write(&args.report, &report)?;
    println!(
        "{} messages, {} delivered to {} readers of each conversation, {:.0} published/s, {} reconnects",
        report.messages,
        report.delivered,
        report.readers,
        report.published_per_s,
        report.reconnects
    );
    tell_latencies(&report.ack_ms, &report.delivery_ms);
    tell_findings(&report.violations.named(), &report.examples);
    Ok(report.clean)
}

fn on_all_processors<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work))
}

/// A name that no run had before: the time, and some random digits.
fn new_run() -> anyhow::Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("{now_s}-{:08x}", u32::from_le_bytes(random)))
}

fn speed(text: &str) -> Result<f64, String> {
    text.trim_end_matches(['x', '×'])
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= SPEED_MIN)
        .ok_or_else(|| format!("no number from {SPEED_MIN} on, such as 60x"))
}
