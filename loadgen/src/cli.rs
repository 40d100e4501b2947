//! The command line, and what becomes of it.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::corpus::Limit;
use rialto_loadgen::replay::{self, Sharing};
use rialto_loadgen::run::{self, Check, Pace, Phase, Size};
use rialto_loadgen::target::Target;
use rialto_loadgen::tokens::Tokens;
use rialto_loadgen::{catch_up, idle, latency::Percentiles};
use rialto_sdk::Roots;
use serde::Serialize;
use tokio::runtime::Builder;

/// Load and correctness of a Rialto broker.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays real chat (JSON lines, gzip or plain) and checks every event that readers get.
    Replay(ReplayArgs),
    /// Publishes at a constant rate, or as fast as acknowledged, and measures.
    Run(RunArgs),
    /// Opens connections that do nothing, and measures what the broker pays for each.
    Idle(IdleArgs),
    /// Fills a channel, reads it from its beginning with one reader, checks what comes, and measures.
    CatchUp(CatchUpArgs),
}

#[derive(Debug, Args)]
struct TargetArgs {
    /// The broker: tcp://HOST:PORT, tls://HOST:PORT or quic://HOST:PORT.
    #[arg(long)]
    target: Target,
    /// PEM file with the root of the broker's certificate. Without it certificates go unchecked, on loopback only.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with the key that signs access tokens. Without it development tokens are used.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,
    /// Issuer of signed tokens.
    #[arg(long, default_value = "rialto", requires = "token_key")]
    issuer: String,
    /// Audience of signed tokens.
    #[arg(long, default_value = "rialto", requires = "token_key")]
    audience: String,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Seconds without any progress after which the broker counts as gone.
    #[arg(long, value_name = "S", default_value_t = 120)]
    patience_s: u64,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// What to play: JSON lines with channel, day, n, at, nick, text and reply_to.
    file: PathBuf,
    #[command(flatten)]
    to: TargetArgs,
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
    #[arg(long, value_name = "N", default_value_t = 256)]
    at_once: usize,
    /// Messages of one conversation that may wait for acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 16)]
    window: usize,
    /// Seconds that a reader waits for what is missing when nothing comes.
    #[arg(long, value_name = "S", default_value_t = 30)]
    settle_s: u64,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// All connections; those that neither publish nor read are idle. By default as many as publish and read.
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 100)]
    publishers: usize,
    /// Connections that read all conversations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    readers: usize,
    /// Public channels, shared out among the publishers.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    conversations: usize,
    /// Messages a second of all publishers together, or max.
    #[arg(long, value_name = "R|max", default_value = "max", value_parser = rate)]
    rate: Rate,
    /// Messages of a publisher that wait for acknowledgement, at the rate max.
    #[arg(long, value_name = "N", default_value_t = 16)]
    in_flight: usize,
    /// Bytes of a message: a number, or FROM..TO.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    size: Size,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    duration: f64,
    /// Seconds of load before that.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warm_up: f64,
    /// What readers examine: full (every byte, every order), sampled=N (one conversation in N; seqs of all), or off.
    #[arg(long, value_name = "full|sampled=N|off", default_value = "full", value_parser = check)]
    check: Check,
    /// Threads that carry the connections. As many as processors by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The broker's process, to report what it uses.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Seconds that a reader waits for what is missing when nothing comes.
    #[arg(long, value_name = "S", default_value_t = 10)]
    settle_s: u64,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// Connections, each of a user of its own.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: usize,
    /// The broker's process.
    #[arg(long, value_name = "PID")]
    broker_pid: u32,
    /// Seconds for which idle processor time is measured.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    duration: f64,
}

#[derive(Debug, Args)]
struct CatchUpArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// Messages in the channel.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
}

/// How fast to publish.
#[derive(Clone, Copy, Debug)]
enum Rate {
    Max,
    PerSecond(f64),
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    positive(text)
        .map(Rate::PerSecond)
        .ok_or_else(|| "neither `max` nor a number above 0".to_owned())
}

fn speed(text: &str) -> Result<f64, String> {
    positive(text.trim_end_matches(['x', '×']))
        .ok_or_else(|| "no number above 0, such as 60x".to_owned())
}

fn positive(text: &str) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
}

/// Does what the command line says. Whether all was clean.
pub(crate) fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Replay(args) => replay_file(args),
        Command::Run(args) => run_load(&args),
        Command::Idle(args) => run_idle(&args),
        Command::CatchUp(args) => run_catch_up(args),
    }
}

impl TargetArgs {
    fn tokens(&self) -> anyhow::Result<Tokens> {
        match &self.token_key {
            Some(key) => Ok(Tokens::signed(key, &self.issuer, &self.audience)?),
            None => Ok(Tokens::Development),
        }
    }

    fn roots(&self) -> anyhow::Result<Roots> {
        match &self.ca {
            Some(file) => Ok(Roots::File(file.clone())),
            None if self.target.is_loopback() => Ok(Roots::InsecureLoopbackOnly),
            None => bail!(
                "{} is no loopback address: --ca FILE must name the root of its certificate",
                self.target
            ),
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }

    /// Before a long run, not after it.
    fn check_report(&self) -> anyhow::Result<()> {
        let opened = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.report);
        opened
            .map(drop)
            .with_context(|| format!("the report {} cannot be written", self.report.display()))
    }
}

fn replay_file(args: ReplayArgs) -> anyhow::Result<bool> {
    args.to.check_report()?;
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
        at_once: args.at_once,
        window: args.window,
        settle: Duration::from_secs(args.settle_s),
        counters: Arc::default(),
    };
    let report = on_all_processors(replay::replay(options))??;
    write(&args.to.report, &report)?;
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

fn run_load(args: &RunArgs) -> anyhow::Result<bool> {
    args.to.check_report()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let pace = match args.rate {
        Rate::Max => Pace::Max {
            in_flight: args.in_flight,
        },
        Rate::PerSecond(rate) => Pace::Rate {
            from: rate,
            to: rate,
        },
    };
    let phase = |name: &str, duration, measured| Phase {
        name: name.to_owned(),
        pace,
        duration,
        measured,
    };
    let mut phases = vec![phase("load", seconds(args.duration)?, true)];
    if args.warm_up > 0.0 {
        phases.insert(0, phase("warm-up", seconds(args.warm_up)?, false));
    }
    let options = run::Options {
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        target: args.to.target.clone(),
        broker: args.broker_pid.map(BrokerProcess::of).transpose()?,
        spec: run::Spec {
            connections: args.connections.unwrap_or(args.publishers + args.readers),
            publishers: args.publishers,
            readers: args.readers,
            conversations: args.conversations,
            size: args.size,
            phases,
            check: args.check,
            settle: Duration::from_secs(args.settle_s),
            patience: args.to.patience(),
            threads: args.threads.unwrap_or(processors),
            ..run::Spec::now()?
        },
    };
    let coordinator = Builder::new_current_thread().enable_all().build()?;
    let report = coordinator.block_on(run::run(options))?;
    write(&args.to.report, &report)?;
    println!(
        "{} published ({:.0}/s), {} delivered ({:.0}/s), {} failed, {} refused for now, {} reconnects",
        report.published,
        report.published_per_s,
        report.delivered,
        report.delivered_per_s,
        report.failed,
        report.refused,
        report.reconnects
    );
    tell_latencies(&report.ack_ms, &report.delivery_ms);
    for (who, usage) in [("broker", report.broker), ("loadgen", report.client)] {
        if let Some(usage) = usage {
            println!(
                "{who}: {:.2} s of processor time, {} MiB resident",
                usage.cpu_s,
                usage.resident_bytes >> 20
            );
        }
    }
    tell_findings(&report.violations.named(), &report.problems);
    Ok(report.clean)
}

fn check(text: &str) -> Result<Check, String> {
    match text {
        "full" => Ok(Check::Full),
        "off" => Ok(Check::Off),
        _ => text
            .strip_prefix("sampled=")
            .and_then(|n| n.parse().ok())
            .filter(|n| *n > 0)
            .map(Check::Sampled)
            .ok_or_else(|| "neither full nor sampled=N nor off".to_owned()),
    }
}

fn run_idle(args: &IdleArgs) -> anyhow::Result<bool> {
    args.to.check_report()?;
    let options = idle::Options {
        target: args.to.target.clone(),
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        connections: args.connections,
        broker: BrokerProcess::of(args.broker_pid)?,
        duration: seconds(args.duration)?,
        patience: args.to.patience(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let coordinator = Builder::new_current_thread().enable_all().build()?;
    let report = coordinator.block_on(idle::idle(options))?;
    write(&args.to.report, &report)?;
    println!(
        "{} connections in {:.1} s: {:.0} bytes each, {:.2} % of a processor while idle, {} reconnects",
        report.connections,
        report.connect_s,
        report.resident_bytes_per_connection,
        report.idle_cpu * 100.0,
        report.reconnects
    );
    Ok(report.reconnects == 0)
}

fn run_catch_up(args: CatchUpArgs) -> anyhow::Result<bool> {
    args.to.check_report()?;
    let options = catch_up::Options {
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        target: args.to.target,
        messages: args.messages,
        body_bytes: args.size,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(catch_up::catch_up(options))?;
    write(&args.to.report, &report)?;
    println!(
        "{} messages read in {:.3} s ({:.0}/s)",
        report.messages, report.read_s, report.read_per_s
    );
    Ok(true)
}

fn on_all_processors<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work))
}

fn seconds(seconds: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{seconds} is no number of seconds"))
}

/// A name that no run had before: the time, and some random digits.
fn new_run() -> anyhow::Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("{now_s}-{:08x}", u32::from_le_bytes(random)))
}

fn write(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    fs::write(path, text)
        .with_context(|| format!("the report {} cannot be written", path.display()))
}

fn tell_latencies(ack: &Percentiles, delivery: &Percentiles) {
    for (what, ms) in [("acknowledged", ack), ("delivered", delivery)] {
        println!(
            "{what} within ms: p50 {:.3}, p90 {:.3}, p99 {:.3}, p999 {:.3}, max {:.3}",
            ms.p50, ms.p90, ms.p99, ms.p999, ms.max
        );
    }
}

fn tell_findings(violations: &[(&'static str, u64)], examples: &[String]) {
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
