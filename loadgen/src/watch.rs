//! What is shown while a run lasts, on standard error: a view that is drawn again each second on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::latency::Percentiles;
use crate::run::{Phase, Sample};
use crate::units;

/// Seconds that the small curves show.
const CURVE_S: usize = 60;
/// Samples between two plain lines.
const LINE_EVERY: usize = 5;
/// Heights of a curve.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How a bar of time looks; what does not fit into the terminal is cut off.
const TIME: &str = "{bar:20} {wide_msg}";
/// How a row looks.
const ROW: &str = "{prefix:>12}  {wide_msg}";
/// How a row with a curve looks: its end is what has just happened.
const CURVE: &str = "{prefix:>22}  {wide_msg:>}";
/// The rows in their order.
const ROWS: [(&str, &str); 6] = [
    ("published/s", CURVE),
    ("delivered/s", CURVE),
    ("ack", ROW),
    ("delivery", ROW),
    ("broker", ROW),
    ("errors", ROW),
];

/// A view of a run.
#[derive(Debug)]
pub struct Watch {
    view: View,
}

#[derive(Debug)]
enum View {
    Silent,
    Plain { samples: usize },
    Live(Box<Live>),
}

/// Rows that are written again and again.
#[derive(Debug)]
struct Live {
    screen: MultiProgress,
    time: ProgressBar,
    rows: Vec<ProgressBar>,
    published: Curve,
    delivered: Curve,
    errors: [u64; 3],
}

impl Watch {
    /// Nothing is shown.
    #[must_use]
    pub const fn silent() -> Self {
        Self { view: View::Silent }
    }

    /// Plain lines.
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            view: View::Plain { samples: 0 },
        }
    }

    /// What fits standard error.
    #[must_use]
    pub fn fitting() -> Self {
        if stderr().is_terminal() {
            Self {
                view: View::Live(Box::new(Live::new())),
            }
        } else {
            Self::plain()
        }
    }

    /// Tells what comes next.
    pub fn stage(&self, words: &str) {
        match &self.view {
            View::Silent => {}
            View::Plain { .. } => plain(words),
            // It is for the view's sake only that this can fail.
            View::Live(live) => drop(live.screen.println(words)),
        }
    }

    /// Shows a sample of the phase with this index.
    pub fn sample(&mut self, phases: &[Phase], index: usize, sample: &Sample) {
        match &mut self.view {
            View::Silent => {}
            View::Plain { samples } => {
                *samples += 1;
                if *samples % LINE_EVERY == 1 {
                    plain(&line(sample));
                }
            }
            View::Live(live) => live.show(phases, index, sample),
        }
    }
}

/// A line for whoever reads them. That nobody does any more, such as behind `| head`, ends no run.
fn plain(words: &str) {
    drop(writeln!(stderr(), "{words}"));
}

/// A sample in one line.
fn line(sample: &Sample) -> String {
    let mut line = format!(
        "{:>6.0} s {}: {} published/s, {} delivered/s",
        sample.at_s,
        sample.phase,
        units::count(sample.published_per_s),
        units::count(sample.delivered_per_s),
    );
    // Of nothing there is no latency; and writing to a string does not fail.
    if sample.published_per_s > 0.0 {
        let Percentiles { p50, p99, .. } = sample.ack_ms;
        let _ = write!(line, ", ack p50 {p50:.3} p99 {p99:.3} ms");
    }
    if sample.delivered_per_s > 0.0 {
        let _ = write!(line, ", delivery p99 {:.3} ms", sample.delivery_ms.p99);
    }
    if let Some(broker) = sample.broker {
        let memory = units::bytes(broker.resident_bytes as f64);
        let _ = write!(line, ", broker {:.0} % {memory}", broker.cpu * 100.0);
    }
    if sample.stood_still.times > 0 {
        let _ = write!(line, ", machine stood still {}", sample.stood_still);
    }
    for (count, what) in [
        (sample.refused, "refused for now"),
        (sample.failed, "failed"),
        (sample.reconnects, "reconnects"),
    ] {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    line
}

impl Live {
    fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let time = screen.add(ProgressBar::new(1));
        // The templates are constants; the default style is good enough should one be wrong.
        let style = |template| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        time.set_style(style(TIME));
        let rows = ROWS.map(|(name, template)| {
            let row = screen.add(ProgressBar::new_spinner());
            row.set_style(style(template));
            row.set_prefix(name);
            row
        });
        Self {
            screen,
            time,
            rows: rows.into(),
            published: Curve::default(),
            delivered: Curve::default(),
            errors: [0; 3],
        }
    }

    fn show(&mut self, phases: &[Phase], index: usize, sample: &Sample) {
        let total: Duration = phases.iter().map(|phase| phase.duration).sum();
        let ms = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0)).as_millis();
        self.time
            .set_length(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
        self.time
            .set_position(u64::try_from(ms(sample.at_s)).unwrap_or(u64::MAX));
        self.time.set_message(format!(
            "{:.0} of {:.0} s, phase {} of {}: {} ({})",
            sample.at_s,
            total.as_secs_f64(),
            index + 1,
            phases.len(),
            sample.phase,
            phases[index].pace
        ));
        self.published.push(sample.published_per_s);
        self.delivered.push(sample.delivered_per_s);
        for (sum, more) in
            self.errors
                .iter_mut()
                .zip([sample.refused, sample.failed, sample.reconnects])
        {
            *sum += more;
        }
        for (row, (name, per_s)) in self.rows.iter().zip([
            (ROWS[0].0, sample.published_per_s),
            (ROWS[1].0, sample.delivered_per_s),
        ]) {
            row.set_prefix(format!("{name}  {:>8}", units::count(per_s)));
        }
        let broker = sample.broker.map_or_else(
            || "not watched (--broker-pid)".to_owned(),
            |broker| {
                format!(
                    "{:.0} % of a processor, {}, {} open files",
                    broker.cpu * 100.0,
                    units::bytes(broker.resident_bytes as f64),
                    broker.open_files
                )
            },
        );
        let [refused, failed, reconnects] = self.errors;
        let words = [
            self.published.to_string(),
            self.delivered.to_string(),
            percentiles(&sample.ack_ms),
            percentiles(&sample.delivery_ms),
            broker,
            format!("{failed} failed, {refused} refused for now, {reconnects} reconnects"),
        ];
        for (row, words) in self.rows.iter().zip(words) {
            row.set_message(words);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // What was seen last is told by the report too.
        drop(self.screen.clear());
    }
}

fn percentiles(ms: &Percentiles) -> String {
    if ms.max == 0.0 {
        return "nothing came".to_owned();
    }
    format!(
        "p50 {:.3}  p90 {:.3}  p99 {:.3}  p999 {:.3}  max {:.3} ms",
        ms.p50, ms.p90, ms.p99, ms.p999, ms.max
    )
}

/// The last values as a row of blocks.
#[derive(Debug, Default)]
struct Curve(VecDeque<f64>);

impl Curve {
    fn push(&mut self, value: f64) {
        if self.0.len() == CURVE_S {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }
}

impl std::fmt::Display for Curve {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let highest = self.0.iter().copied().fold(0.0, f64::max);
        for value in &self.0 {
            let height = value / highest * (BLOCKS.len() - 1) as f64;
            // Between 0 and 7; 0/0 becomes 0.
            #[allow(clippy::cast_possible_truncation)]
            out.write_char(BLOCKS[height.round() as usize])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::run::BrokerSample;

    #[test]
    fn a_line_tells_what_happened_and_no_more() {
        let quiet = Sample {
            at_s: 3.0,
            phase: "load".into(),
            published_per_s: 20_000.0,
            ..Sample::default()
        };
        let words = line(&Sample::default());
        assert!(!words.contains("ack"), "{words}");
        let words = line(&quiet);
        assert!(words.contains("load: 20.0k published/s"), "{words}");
        assert!(
            !words.contains("refused") && !words.contains("broker"),
            "{words}"
        );
        let busy = Sample {
            refused: 3,
            broker: Some(BrokerSample {
                cpu: 0.5,
                resident_bytes: 64 << 20,
                open_files: 9,
            }),
            ..quiet
        };
        let words = line(&busy);
        assert!(
            words.contains("3 refused for now") && words.contains("broker 50 % 64.0 MiB"),
            "{words}"
        );
    }

    #[test]
    fn curves_are_as_high_as_their_highest_value() {
        let mut curve = Curve::default();
        assert_eq!(curve.to_string(), "");
        curve.push(0.0);
        assert_eq!(curve.to_string(), "▁");
        for value in [10.0, 5.0] {
            curve.push(value);
        }
        assert_eq!(curve.to_string(), "▁█▅");
        for _ in 0..100 {
            curve.push(1.0);
        }
        assert_eq!(curve.to_string().chars().count(), CURVE_S);
    }

    #[test]
    fn a_live_view_shows_samples_without_a_terminal_to_draw_on() {
        let mut live = Live::new();
        let phases = [Phase {
            name: "load".into(),
            kind: crate::run::PhaseKind::Steady,
            pace: crate::run::Pace::Max { in_flight: 3 },
            duration: Duration::from_secs(10),
            measured: true,
        }];
        let sample = Sample {
            at_s: 4.0,
            published_per_s: 1234.0,
            ..Sample::default()
        };
        live.show(&phases, 0, &sample);
        assert!(live.time.message().contains("4 of 10 s, phase 1 of 1"));
        assert!(live.rows[0].prefix().contains("1234"));
    }

    #[test]
    fn a_narrow_terminal_shows_each_row_in_a_line_and_the_end_of_the_curves() {
        let terminal = Narrow::default();
        let mut live = Live::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let phases = [Phase {
            name: "a phase with a name that is far too long for this terminal".into(),
            kind: crate::run::PhaseKind::Steady,
            pace: crate::run::Pace::Max { in_flight: 3 },
            duration: Duration::from_secs(100),
            measured: true,
        }];
        (0..99).for_each(|_| live.published.push(10.0));
        let sample = Sample {
            at_s: 99.0,
            published_per_s: 8000.0,
            ..Sample::default()
        };
        live.show(&phases, 0, &sample);
        let written = terminal.written.lock().unwrap();
        let longest = written.iter().map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(usize::from(Narrow::COLUMNS)), "{written:#?}");
        let published = |line: &&String| line.contains("published/s      8000");
        let row = written.iter().rfind(published).unwrap();
        assert!(row.ends_with('█'), "{row}");
    }

    /// What is written to a terminal that nobody sees.
    #[derive(Clone, Debug, Default)]
    struct Narrow {
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Narrow {
        const COLUMNS: u16 = 40;
    }

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            Self::COLUMNS
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.written.lock().unwrap().push(text.to_owned());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
