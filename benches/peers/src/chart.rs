//! The page with charts: one HTML file that needs nothing else.

use std::fmt::Write as _;

use crate::case::Figure;
use crate::page::thousands;
use crate::peer::OURS;
use crate::summary::{Row, Summary};

/// Width of the names, of the longest bar, and of a row, in the units of the drawing.
const NAMES: f64 = 330.0;
const BARS: f64 = 420.0;
const FIGURES: f64 = 210.0;
const ROW: f64 = 30.0;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}\
    h1{font-size:1.5rem}h2{font-size:1.05rem;margin:2rem 0 .3rem}svg{width:100%;height:auto}text{font-size:13px;fill:currentColor}\
    .ours{fill:#1664c0}.durable{fill:#7d8aa0}.other{fill:#cfd6e0}.spread{stroke:#1c2430;stroke-width:1.5}.note{color:#566377;font-size:.9rem}\
    @media(prefers-color-scheme:dark){body{color:#e3e8ef;background:#12161c}.durable{fill:#8593aa}.other{fill:#414b5a}.spread{stroke:#e3e8ef}.note{color:#9aa7b8}}";

/// The page.
pub(crate) fn html(summary: &Summary) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Rialto and its peers</title><style>{STYLE}</style></head><body>\n<h1>Rialto and its peers</h1>\n<p class=\"note\">{}; \
         medians of {} interleaved runs of {} s, the thin line from the least to the greatest. Dark bars acknowledge what is durable; \
         light ones do not, and are shown for information or where nothing has to be durable.</p>\n",
        escape(&summary.machine.to_string()),
        summary.repeats,
        summary.seconds
    );
    for rows in summary
        .rows
        .chunk_by(|one, other| one.case.name == other.case.name)
    {
        chart(&mut text, rows);
    }
    text.push_str("<h2>How each was set up</h2>\n<ul class=\"note\">\n");
    for about in &summary.peers {
        _ = writeln!(
            text,
            "<li><b>{}</b> ({}). {}</li>",
            escape(&about.title),
            about.promise.words(),
            escape(about.terms)
        );
    }
    text.push_str("</ul></body></html>\n");
    text
}

fn chart(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let most = rows
        .iter()
        .filter_map(Row::figure)
        .fold(0.0_f64, |most, figure| most.max(figure.max));
    let better = match first.case.figure {
        Figure::PerSecond => "more is better",
        Figure::P50 => "milliseconds, less is better",
    };
    let title = escape(first.case.title);
    let height = ROW * rows.len() as f64;
    let width = NAMES + BARS + FIGURES;
    _ = writeln!(
        text,
        "<h2>{title} ({better})</h2>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (at, row) in rows.iter().enumerate() {
        bar(text, row, ROW * at as f64, most);
    }
    text.push_str("</svg>\n");
}

fn bar(text: &mut String, row: &Row, top: f64, most: f64) {
    let Some(figure) = row.figure() else { return };
    let scale = |number: f64| {
        if most > 0.0 {
            BARS * number / most
        } else {
            0.0
        }
    };
    let class = if row.peer == OURS {
        "ours"
    } else if row.promise == crate::peer::Promise::Durable {
        "durable"
    } else {
        "other"
    };
    let write = |number: f64| match row.case.figure {
        Figure::PerSecond => thousands(number),
        Figure::P50 => format!("{number:.3}"),
    };
    let ratio = row
        .ours_over_it
        .map(|ratio| format!("  (Rialto ÷ it {ratio:.2})"))
        .unwrap_or_default();
    let (middle, end) = (top + ROW / 2.0, NAMES + scale(figure.median));
    let (from, to) = (NAMES + scale(figure.min), NAMES + scale(figure.max));
    _ = writeln!(
        text,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{NAMES:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" rx=\"3\">\
         <title>{}</title></rect><line class=\"spread\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.0}\" y2=\"{middle:.0}\"/>\
         <text x=\"{:.1}\" y=\"{:.0}\">{}{ratio}</text>",
        NAMES - 8.0,
        middle + 4.0,
        escape(&row.title),
        top + 4.0,
        end - NAMES,
        ROW - 8.0,
        escape(&row.setting),
        to.max(end) + 8.0,
        middle + 4.0,
        write(figure.median),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::row;

    #[test]
    fn the_longest_bar_is_that_of_the_greatest_and_names_are_escaped() {
        let mut text = String::new();
        let rows = [
            row("durable-100x1", "redis", 100.0, 1.0),
            row("durable-100x1", OURS, 200.0, 1.0),
        ];
        chart(&mut text, &rows);
        assert!(text.contains("&lt;redis&gt;") && !text.contains("<redis>"));
        assert_eq!(text.matches("<rect").count(), 2);
        let widths: Vec<f64> = text
            .split("<rect ")
            .skip(1)
            .filter_map(|rest| {
                rest.split("width=\"")
                    .nth(1)?
                    .split('"')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        assert_eq!(widths[1], widths[0] * 2.0);
        assert!(
            text.contains("x2=\"750.0\""),
            "the greatest ends where bars end"
        );
    }
}
