//! Progress for whoever waits: a bar on a terminal, plain lines elsewhere, on standard error.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::counters::{Counted, Counters};

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A display that runs until it is dropped.
#[derive(Debug)]
pub struct Progress {
    task: JoinHandle<()>,
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    /// Shows the counts on their way to `total` published messages; 0: there is no such number.
    #[must_use]
    pub fn show(counters: Arc<Counters>, total: u64) -> Self {
        let plain = !stderr().is_terminal();
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            bar(total)
        };
        let task = tokio::spawn(run(counters, bar.clone(), total, plain));
        Self { task, bar, plain }
    }

    /// Tells what comes next.
    pub fn stage(&self, words: &str) {
        if self.plain {
            eprintln!("{words}");
        } else {
            self.bar.println(words);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

fn bar(total: u64) -> ProgressBar {
    let template = if total == 0 {
        "{spinner} {elapsed_precise} {msg}"
    } else {
        "{wide_bar} {pos}/{len} {elapsed_precise} {msg}"
    };
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    // The templates are constants; the default style is good enough should one be wrong.
    ProgressStyle::with_template(template)
        .map(|style| bar.set_style(style))
        .unwrap_or_default();
    bar
}

async fn run(counters: Arc<Counters>, bar: ProgressBar, total: u64, plain: bool) {
    let mut ticks = interval(if plain { LINE_EVERY } else { BAR_EVERY });
    let mut rate = Rate::default();
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let counted = counters.now();
        let line = Line {
            counted,
            per_s: rate.per_s(Instant::now(), counted.published),
        };
        if plain {
            let of_total = if total == 0 {
                String::new()
            } else {
                format!(" of {total}")
            };
            eprintln!("{}{of_total} published, {line}", counted.published);
        } else {
            bar.set_position(counted.published);
            bar.set_message(line.to_string());
        }
    }
}

/// The rate since the last time it was asked for.
#[derive(Default)]
struct Rate {
    before: Option<(Instant, u64)>,
}

impl Rate {
    fn per_s(&mut self, now: Instant, count: u64) -> f64 {
        let (at, before) = self.before.replace((now, count)).unwrap_or((now, count));
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds > 0.0 {
            count.saturating_sub(before) as f64 / seconds
        } else {
            0.0
        }
    }
}

struct Line {
    counted: Counted,
    per_s: f64,
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted {
            delivered,
            connections,
            reconnects,
            refused,
            ..
        } = self.counted;
        write!(
            out,
            "{:.0}/s, {delivered} delivered, {connections} connections, {reconnects} reconnects",
            self.per_s
        )?;
        if refused > 0 {
            write!(out, ", {refused} refused and sent again")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_since_it_was_last_asked_for() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.per_s(start, 10), 0.0);
        assert_eq!(rate.per_s(start + Duration::from_secs(2), 110), 50.0);
        assert_eq!(rate.per_s(start + Duration::from_secs(3), 110), 0.0);
    }

    #[test]
    fn refusals_are_told_only_when_there_are_some() {
        let line = |refused| {
            Line {
                counted: Counted {
                    refused,
                    ..Counted::default()
                },
                per_s: 1.0,
            }
            .to_string()
        };
        assert!(!line(0).contains("refused") && line(3).contains("3 refused"));
    }
}
