//! `rialto-peers`: runs Rialto and its peers in turn on this machine, with the same load, and compares them
//! (docs/decisions/0010-peer-benchmarks.md). Not here: the load itself, which each project's own load generator makes.

#![forbid(unsafe_code)]

mod case;
mod chart;
mod cli;
mod contest;
mod disk;
mod machine;
mod page;
mod peer;
mod process;
mod summary;
mod tools;
mod warm_up;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(&cli::Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rialto-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
