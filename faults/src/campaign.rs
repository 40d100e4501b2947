//! The campaigns, what they share, and what they report.

mod certificate;
mod clock;
mod corrupt;
mod full;
mod io;
mod kill;
mod overload;
mod pause;
mod power;
mod relay;
mod report;
mod stage;
mod storm;

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use tokio::sync::watch;

use crate::progress::Progress;
pub use report::{Outcome, Report, summary};
use stage::Stage;

macro_rules! campaigns {
    ($($(#[doc = $doc:literal])* $name:ident $text:literal $rounds:literal $short:literal)+) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        pub enum Campaign {
            $($(#[doc = $doc])* $name,)+
        }

        impl Campaign {
            /// All of them, in the order in which `make faults` runs them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name on the command line and in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Rounds of a full run; of those that have a list to work through, more than it can have.
            #[must_use]
            pub const fn rounds(self) -> u32 {
                match self {
                    $(Self::$name => $rounds,)+
                }
            }

            /// Rounds of the short form.
            #[must_use]
            pub const fn rounds_short(self) -> u32 {
                match self {
                    $(Self::$name => $short,)+
                }
            }
        }
    };
}

campaigns! {
    /// kill -9 at random points under load, also while it recovers
    Kill "kill" 500 8
    /// Power cuts: unsynced writes are really lost; needs root and loop devices
    Power "power" 200 5
    /// Each site from which files are reached fails once: EIO, ENOSPC, short writes
    Io "io" 2000 4
    /// The disk fills up and is freed again; needs root and loop devices
    Full "full" 20 1
    /// Bits flipped, sectors zeroed, ends cut off, in each file at its head, middle and tail
    Corrupt "corrupt" 5000 12
    /// The wall clock steps forward and back, up to a week
    Clock "clock" 60 6
    /// The process stands still for 30 s
    Pause "pause" 10 1
    /// QUIC through losses, delay, doubles, address changes and darkness
    Relay "relay" 60 4
    /// TLS certificates are replaced under load
    Certificate "certificate" 40 3
    /// Restarts every few hundred milliseconds while a crowd reconnects
    Storm "storm" 40 3
    /// Twenty-one kinds of attack on a small budget while others go on as before; one a round
    Overload "overload" 21 21
}

/// How a campaign is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary `rialto`.
    pub binary: PathBuf,
    /// Where data directories and images are made; each campaign removes its own.
    pub scratch: PathBuf,
    /// How often it breaks something.
    pub rounds: u32,
    /// What it does follows from this; how threads and sockets take turns does not.
    pub seed: u64,
    /// Of `overload`, this attack alone, by its name in reports.
    pub attack: Option<String>,
    /// Short pauses, for tests.
    pub short: bool,
    /// A mistake that the broker was built with and is to make: see docs/RELIABILITY.md.
    pub planted: Option<String>,
}

/// There is no verdict, because the machine lacks something. The text says what, and what to do.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// Runs a campaign to its verdict. Once it is interrupted it ends after the round that it is at, and judges. Violations are no
/// error, they stand in the report.
pub async fn run(
    campaign: Campaign,
    options: &Options,
    interrupted: watch::Receiver<bool>,
) -> Report {
    let begun = Instant::now();
    let progress = Progress::show(campaign.name(), options.rounds);
    let mut set = match Stage::set(campaign, options, progress, interrupted) {
        Ok(stage) => stage,
        Err(error) => return Report::without(campaign, options, begun.elapsed(), error),
    };
    let stage = &mut set;
    let done = match campaign {
        Campaign::Kill => Box::pin(kill::run(stage)).await,
        Campaign::Power => Box::pin(power::run(stage)).await,
        Campaign::Io => Box::pin(io::run(stage)).await,
        Campaign::Full => Box::pin(full::run(stage)).await,
        Campaign::Corrupt => Box::pin(corrupt::run(stage)).await,
        Campaign::Clock => Box::pin(clock::run(stage)).await,
        Campaign::Pause => Box::pin(pause::run(stage)).await,
        Campaign::Relay => Box::pin(relay::run(stage)).await,
        Campaign::Certificate => Box::pin(certificate::run(stage)).await,
        Campaign::Storm => Box::pin(storm::run(stage)).await,
        Campaign::Overload => Box::pin(overload::run(stage)).await,
    };
    set.report(done, begun.elapsed())
}
