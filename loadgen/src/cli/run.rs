//! `loadgen run`: flags and scenario become one load, alone or with workers.

mod workers;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::page::page;
use rialto_loadgen::run::{
    self, Check, Interrupts, Options, Pace, Part, Phase, PhaseKind, Report, Shape, Size, Spec,
};
use rialto_loadgen::scenario::{IN_FLIGHT_DEFAULT, Scenario};
use rialto_loadgen::threshold::Threshold;
use rialto_loadgen::watch::Watch;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::target::{SECONDS_MAX, TargetArgs, duration};
use super::telling::{check_report, tell_findings, tell_latencies, write};
use workers::Workers;

/// Public channels of a load that says nothing about conversations.
const CHANNELS_DEFAULT: usize = 1000;
const PUBLISHERS_DEFAULT: usize = 100;
const READERS_DEFAULT: usize = 1;
const SIZE_DEFAULT: usize = 100;
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const WARM_UP_DEFAULT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "worker")]
    report: Option<PathBuf>,
    /// Where the report goes as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// A scenario (TOML). Flags given beside it win.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// All connections; those that neither publish nor read are idle. By default as many as publish and read.
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Connections that publish; 100 by default.
    #[arg(long, value_name = "N")]
    publishers: Option<usize>,
    /// Connections that read; 1 by default.
    #[arg(long, value_name = "N")]
    readers: Option<usize>,
    /// Public channels, shared out among the publishers and followed by every reader; 1000 by default. Short for --shape
    /// channels:N.
    #[arg(long, value_name = "N", conflicts_with = "shape")]
    conversations: Option<usize>,
    /// Conversations: channels:COUNT, groups:COUNT:MEMBERS or threads:COUNT:ZIPF:FOLLOW (the last two may be left out). Given several times they share the
    /// messages evenly.
    #[arg(long, value_name = "SHAPE")]
    shape: Vec<Shape>,
    /// Messages a second of all publishers together, or max (the default): as fast as acknowledged. With a scenario: its
    /// highest rate becomes this, and the others go along.
    #[arg(long, value_name = "R|max", value_parser = rate)]
    rate: Option<Rate>,
    /// Messages of a publisher that wait for acknowledgement, at the rate max; 16 by default.
    #[arg(long, value_name = "N")]
    in_flight: Option<usize>,
    /// Messages that a publisher sends together when its turn comes, at a rate; 1 by default.
    #[arg(long, value_name = "N")]
    burst: Option<usize>,
    /// Bytes of a message, 32 at least: a number, or FROM..TO; 100 by default.
    #[arg(long, value_name = "BYTES")]
    size: Option<Size>,
    /// How long is measured: seconds, or with ms, s, m, h; 10 s by default. With a scenario: how long all its phases last
    /// together.
    #[arg(long, value_name = "S", value_parser = duration)]
    duration: Option<Duration>,
    /// How long the load lasts before that, 0 for not at all; 2 s by default, and none with a scenario.
    #[arg(long, value_name = "S", value_parser = warm_up)]
    warm_up: Option<Duration>,
    /// What readers examine: full (every byte, every order; the default), sampled=N (one conversation in N; seqs of all), or off.
    /// Without readers nothing is but that each message is acknowledged.
    #[arg(long, value_name = "full|sampled=N|off")]
    check: Option<Check>,
    /// Ends with status 1 if this holds, such as 'p99>5ms', 'published_per_s<100k' or 'broker.rss>1GiB'. May be given several
    /// times.
    #[arg(long, value_name = "EXPR")]
    fail_if: Vec<Threshold>,
    /// Threads of each process that carry the connections. As many as processors by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Processes that make the load together, all of them started by this one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    processes: u16,
    /// Workers that are waiting elsewhere and make the load together with this process.
    #[arg(long, value_name = "ADDR,ADDR", value_delimiter = ',')]
    coordinate: Vec<SocketAddr>,
    /// Waits at this address for a coordinator, carries its part of one load against --target, and ends. What load, the
    /// coordinator says.
    #[arg(long, value_name = "LISTEN", conflicts_with_all = [
        "processes", "coordinate", "scenario", "report", "html", "connections", "publishers", "readers", "conversations", "shape",
        "rate", "in_flight", "burst", "size", "duration", "warm_up", "check", "fail_if", "threads", "broker_pid", "settle_s",
    ])]
    worker: Option<SocketAddr>,
    /// The broker's process, to report what it uses.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Seconds that readers wait for what is missing when nothing comes, and publishers for an answer.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    settle_s: u64,
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
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .map(Rate::PerSecond)
        .ok_or_else(|| "neither `max` nor a number above 0".to_owned())
}

fn warm_up(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

/// Makes the load; whether all was clean and no threshold was passed.
pub(super) fn run(args: RunArgs) -> anyhow::Result<bool> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    if let Some(listen) = args.worker {
        let (tokens, roots) = (args.to.tokens()?, args.to.roots()?);
        let told = |address| println!("{}{address}", workers::LISTENING);
        let serving = run::serve(listen, args.to.target, tokens, roots, told);
        runtime.block_on(serving)?;
        return Ok(true);
    }
    let Some(path) = args.report.clone() else {
        bail!("--report is missing");
    };
    check_report(&path)?;
    if let Some(html) = &args.html {
        if *html == path {
            bail!("--report and --html name the same file, {}", path.display());
        }
        check_report(html)?;
    }
    let scenario = args.scenario.as_deref().map(Scenario::read).transpose()?;
    let mut fail_if = args.fail_if.clone();
    fail_if.extend(
        scenario
            .iter()
            .flat_map(|scenario| scenario.fail_if.clone()),
    );
    for threshold in &fail_if {
        threshold.absolute()?;
        if threshold.needs_broker() && args.broker_pid.is_none() {
            bail!("{threshold}: say with --broker-pid which process is the broker");
        }
    }
    let spec = spec(&args, scenario)?;
    for threshold in &fail_if {
        if threshold.needs_readers() && spec.readers == 0 {
            bail!("{threshold}: nobody reads. Say --readers N, or hold it against ack");
        }
    }
    let workers = Workers::start(usize::from(args.processes) - 1, &args.to)?;
    let options = Options {
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        broker: args.broker_pid.map(BrokerProcess::of).transpose()?,
        spec,
        workers: [workers.addresses(), args.coordinate.as_slice()].concat(),
        watch: Watch::fitting(),
        interrupts: runtime.block_on(async { interrupts() })?,
        target: args.to.target,
    };
    let mut report = runtime.block_on(run::run(options))?;
    let mut untold = None;
    for threshold in &fail_if {
        match threshold.broken_by(&report) {
            Ok(passed) => report.passed_thresholds.extend(passed),
            Err(error) => untold = Some(error),
        }
    }
    write(&path, &report)?;
    if let Some(html) = &args.html {
        fs::write(html, page(&report))
            .with_context(|| format!("the report {} cannot be written", html.display()))?;
    }
    tell(&report);
    // The load was made, so what was measured is told before what cannot be judged.
    if let Some(reason) = &report.ended_early {
        bail!("{reason}: the report tells what was measured until then");
    }
    if let Some(error) = untold {
        if report.clean {
            return Err(error.into());
        }
        eprintln!("loadgen: {error}");
    }
    workers.join()?;
    Ok(report.clean && report.passed_thresholds.is_empty())
}

/// Ctrl-C, and the signal by which others end a process; within a runtime.
fn interrupts() -> std::io::Result<Interrupts> {
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut signals, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() && sender.send(()).await.is_ok() {}
        });
    }
    Ok(Interrupts::from(receiver))
}

/// Flags and scenario as one load.
fn spec(args: &RunArgs, scenario: Option<Scenario>) -> anyhow::Result<Spec> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut scenario = match scenario {
        Some(scenario) => changed(args, scenario)?,
        None => steady(args)?,
    };
    if let Some(count) = args.conversations {
        let shape = Shape::Channels { count };
        shape.check()?;
        scenario.parts = vec![Part::of(shape)];
    } else if !args.shape.is_empty() {
        scenario.parts = args.shape.iter().copied().map(Part::of).collect();
    } else if scenario.parts.is_empty() {
        scenario.parts = vec![Part::of(Shape::Channels {
            count: CHANNELS_DEFAULT,
        })];
    }
    let publishers = args
        .publishers
        .or(scenario.publishers)
        .unwrap_or(PUBLISHERS_DEFAULT);
    let readers = args.readers.or(scenario.readers).unwrap_or(READERS_DEFAULT);
    Ok(Spec {
        connections: args
            .connections
            .or(scenario.connections)
            .unwrap_or(publishers + readers),
        publishers,
        readers,
        parts: scenario.parts,
        size: args
            .size
            .or(scenario.size)
            .unwrap_or(Size::of(SIZE_DEFAULT)),
        phases: scenario.phases,
        burst: scenario.burst.unwrap_or(1),
        check: args.check.or(scenario.check).unwrap_or(Check::Full),
        settle: Duration::from_secs(args.settle_s),
        patience: args.to.patience(),
        threads: args.threads.map_or(processors, usize::from),
        ..Spec::now()?
    })
}

/// A scenario with what flags say of its phases.
fn changed(args: &RunArgs, mut scenario: Scenario) -> anyhow::Result<Scenario> {
    match args.rate {
        Some(Rate::PerSecond(rate)) => scenario.peak_at(rate)?,
        Some(Rate::Max) => {
            bail!("--rate max does not go with --scenario: its phases say how fast")
        }
        None => {}
    }
    if let Some(messages) = args.in_flight {
        scenario.keep_in_flight(messages)?;
    }
    if let Some(messages) = args.burst {
        scenario.take_turns_of(messages)?;
    }
    if let Some(duration) = args.duration {
        scenario.last(duration);
    }
    warmed_up(&mut scenario.phases, args.warm_up.unwrap_or_default())?;
    Ok(scenario)
}

/// What flags alone say: one phase. A flag that changes nothing is no error, so that commands can differ by the rate alone.
fn steady(args: &RunArgs) -> anyhow::Result<Scenario> {
    match args.rate {
        Some(Rate::PerSecond(_)) if args.in_flight.is_some() => {
            eprintln!("loadgen: --in-flight is for --rate max: at a rate it changes nothing");
        }
        Some(Rate::Max) | None if args.burst.is_some() => {
            eprintln!("loadgen: --burst is for a rate: at --rate max it changes nothing");
        }
        _ => {}
    }
    let pace = match args.rate {
        Some(Rate::PerSecond(rate)) => Pace::Rate {
            from: rate,
            to: rate,
        },
        Some(Rate::Max) | None => Pace::Max {
            in_flight: args.in_flight.unwrap_or(IN_FLIGHT_DEFAULT),
        },
    };
    let mut phases = vec![Phase {
        name: "load".to_owned(),
        kind: PhaseKind::Steady,
        pace,
        duration: args.duration.unwrap_or(DURATION_DEFAULT),
        measured: true,
    }];
    warmed_up(&mut phases, args.warm_up.unwrap_or(WARM_UP_DEFAULT))?;
    Ok(Scenario {
        burst: args.burst,
        phases,
        ..Scenario::default()
    })
}

/// The first phase's beginning, before it counts.
fn warmed_up(phases: &mut Vec<Phase>, duration: Duration) -> anyhow::Result<()> {
    if duration.is_zero() {
        return Ok(());
    }
    if let Some(first) = phases.first() {
        let pace = match first.pace {
            Pace::Rate { from: 0.0, .. } => bail!(
                "--warm-up does not go with this scenario: its first phase begins at no rate. Leave the flag out, or put a phase \
                 with `measured = false` first"
            ),
            Pace::Rate { from, .. } => Pace::Rate { from, to: from },
            max @ Pace::Max { .. } => max,
        };
        let warm_up = Phase {
            name: "warm-up".to_owned(),
            kind: PhaseKind::Ramp,
            pace,
            duration,
            measured: false,
        };
        phases.insert(0, warm_up);
    }
    Ok(())
}

fn tell(report: &Report) {
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
    if report.stood_still.times > 0 {
        println!(
            "processors of this machine stood still {}: nothing that was measured then is the broker's",
            report.stood_still
        );
    }
    println!("checked: {}", report.check);
    if (1..report.conversations).contains(&report.unread) {
        println!(
            "{} of {} conversations are followed by nobody: of those, acknowledgements alone",
            report.unread, report.conversations
        );
    }
    if report.is_judged() {
        tell_findings(&report.violations.named(), &report.problems);
    } else {
        println!("violations: nobody has judged");
        for problem in &report.problems {
            println!("  {problem}");
        }
    }
    for words in &report.passed_thresholds {
        println!("passed {words}");
    }
}
