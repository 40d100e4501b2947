//! How far a campaign has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);
const STYLE: &str = "{prefix} [{bar:30}] {pos}/{len} {msg} {elapsed_precise}";

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    name: &'static str,
    said: Instant,
}

impl Progress {
    pub(crate) fn show(name: &'static str, rounds: u32) -> Self {
        let bar = ProgressBar::new(rounds.into()).with_prefix(name);
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        Self {
            bar,
            name,
            said: Instant::now(),
        }
    }

    /// So many rounds are done.
    pub(crate) fn step(&mut self, rounds: u32) {
        self.bar.set_position(rounds.into());
        if self.bar.is_hidden() && self.said.elapsed() > LINE_EVERY {
            self.said = Instant::now();
            let all = self.bar.length().unwrap_or_default();
            // Nobody may be there to read it any more.
            let _ = writeln!(io::stderr(), "{}: {rounds} of {all} rounds", self.name);
        }
    }

    /// More rounds than was thought, or fewer.
    pub(crate) fn expect(&self, rounds: u32) {
        self.bar.set_length(rounds.into());
    }

    /// What it is at.
    pub(crate) fn at(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
