//! `loadgen catch-up`.

use std::path::PathBuf;

use clap::Args;
use rialto_loadgen::catch_up;
use tokio::runtime::Builder;

use super::target::TargetArgs;
use super::telling::{check_report, write};

#[derive(Debug, Args)]
pub(super) struct CatchUpArgs {
    #[command(flatten)]
    to: TargetArgs,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Messages in the channel.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
}

/// Fills a channel and reads it; there is no result when anything was wrong.
pub(super) fn run(args: CatchUpArgs) -> anyhow::Result<bool> {
    check_report(&args.report)?;
    let options = catch_up::Options {
        tokens: args.to.tokens()?,
        roots: args.to.roots()?,
        patience: args.to.patience(),
        target: args.to.target,
        messages: args.messages,
        body_bytes: args.size,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(catch_up::catch_up(options))?;
    write(&args.report, &report)?;
    println!(
        "{} messages read in {:.3} s ({:.0}/s)",
        report.messages, report.read_s, report.read_per_s
    );
    Ok(true)
}
