//! The command line, and what becomes of it. Each command has a file of its own.

mod catch_up;
mod compare;
mod idle;
mod replay;
mod run;
mod target;
mod telling;

use clap::{Parser, Subcommand};

/// Load and correctness of a Rialto broker.
///
/// Exit status: 0 all was clean, 1 something was found or a threshold was passed, 2 there is no verdict.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays real chat (JSON lines, gzip or plain) and checks every event that readers get.
    Replay(replay::ReplayArgs),
    /// Publishes at a constant rate, as fast as acknowledged, or by a scenario, and measures.
    Run(Box<run::RunArgs>),
    /// Opens connections that do nothing, and measures what the broker pays for each.
    Idle(idle::IdleArgs),
    /// Fills a channel, reads it from its beginning with one reader, checks what comes, and measures.
    CatchUp(catch_up::CatchUpArgs),
    /// Shows two reports of `run` beside each other, and holds thresholds against them.
    Compare(compare::CompareArgs),
}

/// Does what the command line says. Whether all was clean.
pub(crate) fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Replay(args) => replay::run(args),
        Command::Run(args) => run::run(*args),
        Command::Idle(args) => idle::run(&args),
        Command::CatchUp(args) => catch_up::run(args),
        Command::Compare(args) => compare::run(&args),
    }
}
