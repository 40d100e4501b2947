//! A plot over time as inline SVG.

use std::fmt::Write as _;

use super::escaped;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 40.0;
/// Horizontal lines, the lowest at 0.
const STEPS: u32 = 4;
/// Times that are written below, about.
const TIMES: f64 = 8.0;
/// Room for a letter.
const LETTER: f64 = 7.0;
/// Points that are drawn of a line: more cannot be seen.
const POINTS_MAX: usize = 1_800;

/// A line of a plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// Seconds and values.
    pub(super) points: Vec<(f64, f64)>,
}

/// Values over time.
pub(super) struct Plot {
    pub(super) title: String,
    /// How a value is written.
    pub(super) show: fn(f64) -> String,
    pub(super) lines: Vec<Line>,
    /// Where phases begin, and their names.
    pub(super) borders: Vec<(f64, String)>,
}

impl Plot {
    /// As a section of the page; nothing when there is nothing to be seen.
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let highest = points().map(|(_, value)| *value).fold(0.0, f64::max);
        let end_s = points().map(|(at_s, _)| *at_s).fold(0.0, f64::max);
        if highest <= 0.0 || end_s <= 0.0 {
            return String::new();
        }
        let top = round_up(highest);
        let x = |at_s: f64| LEFT + (WIDTH - LEFT - RIGHT) * at_s / end_s;
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
        let mut svg = format!(
            "<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n",
            title = escaped(&self.title)
        );
        for step in 0..=STEPS {
            let value = top * f64::from(step) / f64::from(STEPS);
            let (at, right) = (y(value), WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escaped(&(self.show)(value))
            );
        }
        let mut free = 0.0;
        for (at_s, name) in &self.borders {
            let at = x(*at_s);
            let _ = writeln!(
                svg,
                "<line class=\"phase\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>",
                HEIGHT - BOTTOM
            );
            // A phase that is too short for its name has none.
            if at >= free {
                free = at + LETTER * (name.chars().count() + 1) as f64;
                let (at, below, name) = (at + 3.0, HEIGHT - 6.0, escaped(name));
                let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\">{name}</text>");
            }
        }
        let step_s = round_up(end_s / TIMES);
        for time in (0..).map(|step| f64::from(step) * step_s) {
            if time > end_s {
                break;
            }
            let digits = usize::from(step_s < 1.0);
            let (at, below) = (x(time), HEIGHT - BOTTOM + 14.0);
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{time:.digits$} s</text>"
            );
        }
        let mut legend = LEFT;
        for line in &self.lines {
            let every = line.points.len().div_ceil(POINTS_MAX).max(1);
            let points: Vec<String> = line
                .points
                .chunks(every)
                // Of points that share a place the highest is what matters.
                .filter_map(|chunk| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)))
                .map(|(at_s, value)| format!("{:.1},{:.1}", x(at_s), y(value)))
                .collect();
            let (colour, name) = (line.colour, escaped(&line.name));
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\
                 <rect x=\"{legend:.1}\" y=\"6\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"15\">{name}</text>",
                points.join(" "),
                legend + 14.0
            );
            legend += 40.0 + LETTER * line.name.len() as f64;
        }
        svg += "</svg>\n";
        svg
    }
}

/// The next of 1, 2, 4, 5, 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "a & b".into(),
            show: |value| format!("<{value}>"),
            lines: vec![Line {
                name: "p99".into(),
                colour: "#123456",
                points,
            }],
            borders: vec![(0.0, "load".into())],
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [
            (0.7, 0.8),
            (1.0, 1.0),
            (3.0, 4.0),
            (41.0, 50.0),
            (850.0, 1000.0),
        ] {
            assert!((round_up(value) - top).abs() < 1e-9 * top, "{value}");
        }
    }

    #[test]
    fn lines_lie_within_the_plot_and_texts_are_escaped() {
        let svg = plot((0..5000).map(|second| (f64::from(second), 3.0)).collect()).svg();
        let points = svg
            .split("points=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert!(points.len() <= POINTS_MAX && points.len() > 1000);
        for (x, y) in points {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;2&gt;") && !svg.contains("<2>"));
    }

    #[test]
    fn times_are_written_and_names_do_not_lie_on_each_other() {
        let mut plot = plot((0..=60).map(|second| (f64::from(second), 3.0)).collect());
        plot.borders = [0.0, 1.0, 2.0, 30.0]
            .map(|at_s| (at_s, format!("phase {at_s}")))
            .into();
        let svg = plot.svg();
        for (words, there) in [
            (">0 s<", true),
            (">40 s<", true),
            (">phase 0<", true),
            (">phase 1<", false),
            (">phase 30<", true),
        ] {
            assert_eq!(svg.contains(words), there, "{words}: {svg}");
        }
        assert_eq!(svg.matches("class=\"phase\"").count(), 4);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(plot(Vec::new()).svg().is_empty());
        assert!(plot(vec![(1.0, 0.0)]).svg().is_empty());
    }
}
