//! `loadgen idle`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rialto_loadgen::broker_process::BrokerProcess;
use rialto_loadgen::idle;
use tokio::runtime::Builder;

use super::target::{TargetArgs, duration};
use super::telling::{check_report, write};

/// Beside the one that opens what they follow, as many as user names tell apart.
const CONNECTIONS_MAX: i64 = (1 << 24) - 2;

#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Connections, each of a user of its own. On loopback they come from many addresses of 127.0.0.0/8.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// The broker's process.
    #[arg(long, value_name = "PID")]
    broker_pid: u32,
    /// How long idle processor time is measured: seconds, or with ms, s, m, h.
    #[arg(long, value_name = "S", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// Threads that carry the connections. As many as processors by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// Opens the connections and measures; whether none was lost.
pub(super) fn run(args: &IdleArgs) -> anyhow::Result<bool> {
    check_report(&args.report)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let options = idle::Options {
        target: args.to.target.clone(),
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        connections: args.connections as usize,
        broker: BrokerProcess::of(args.broker_pid)?,
        duration: args.duration,
        patience: args.to.patience(),
        threads: args.threads.map_or(processors, usize::from),
    };
    let coordinator = Builder::new_current_thread().enable_all().build()?;
    let report = coordinator.block_on(idle::idle(options))?;
    write(&args.report, &report)?;
    println!(
        "{} connections in {:.1} s: {:.0} bytes each, {:.2} % of a processor while idle, {} reconnects, {} lost",
        report.connections,
        report.connect_s,
        report.resident_bytes_per_connection,
        report.idle_cpu * 100.0,
        report.reconnects,
        report.lost
    );
    Ok(report.reconnects + report.lost == 0)
}
