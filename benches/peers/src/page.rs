//! The table as Markdown, and its place in a page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::case::Figure;
use crate::summary::{Row, Spread, Summary};

const BEGIN: &str = "<!-- peers: begin -->\n";
const END: &str = "<!-- peers: end -->";

/// The whole part: machine, a table for each case, and how each peer was set up.
pub(crate) fn markdown(summary: &Summary) -> String {
    let mut text = heading(summary);
    for rows in summary
        .rows
        .chunk_by(|one, other| one.case.name == other.case.name)
    {
        table(&mut text, rows);
    }
    text.push_str("\nHow each was set up, beside the setting in the table:\n\n");
    for about in &summary.peers {
        _ = writeln!(
            text,
            "- **{}** ({}). {}",
            about.title,
            about.promise.words(),
            about.terms
        );
    }
    text
}

fn heading(summary: &Summary) -> String {
    let mut text = format!(
        "Written by `make peers`. {}; servers and clients share the processors. ",
        summary.machine
    );
    if let Some(commit) = &summary.commit {
        _ = write!(text, "Commit {commit}. ");
    }
    _ = write!(
        text,
        "Medians of {} interleaved runs of {} s, in brackets the least and the greatest; each run on an empty folder.",
        summary.repeats, summary.seconds
    );
    if let Some(ms) = summary.sync_p50_ms {
        _ = write!(
            text,
            " Writing 100 bytes and `fdatasync` there: p50 {ms:.3} ms."
        );
    }
    text.push_str(
        " \"Rialto ÷ it\" is how many times better Rialto over TCP is; in brackets where the promises differ.\n",
    );
    text
}

fn table(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let title = &first.case.title;
    _ = write!(
        text,
        "\n**{title}** (`{}`)\n\n| who | setting | acknowledged | a second | p50 ms | server's memory, MiB | Rialto ÷ it |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        first.case.name
    );
    for row in rows {
        let per_s = spread(&row.per_s, thousands);
        let p50 = row
            .p50_ms
            .as_ref()
            .map_or_else(dash, |p50| match row.case.figure {
                Figure::PerSecond => format!("{:.2}", p50.median),
                Figure::P50 => spread(p50, |ms| format!("{ms:.3}")),
            });
        let memory = row
            .peak_bytes
            .map_or_else(dash, |bytes| thousands((bytes >> 20) as f64));
        let ratio = row.ours_over_it.map_or_else(dash, |ratio| {
            if row.compared {
                format!("{ratio:.2}")
            } else {
                format!("({ratio:.2})")
            }
        });
        let failures = match row.failures.len() {
            0 => String::new(),
            count => format!("; failed: {count}"),
        };
        _ = writeln!(
            text,
            "| {} | {}{failures} | {} | {per_s} | {p50} | {memory} | {ratio} |",
            row.title,
            row.setting,
            row.promise.words()
        );
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn spread(spread: &Spread, write: impl Fn(f64) -> String) -> String {
    if spread.samples.len() < 2 {
        return write(spread.median);
    }
    format!(
        "{} ({}–{})",
        write(spread.median),
        write(spread.min),
        write(spread.max)
    )
}

/// A whole number with its thousands parted.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts the part between the marks of the page.
///
/// # Errors
/// When the page cannot be read or written, or has no marks.
pub(crate) fn put_into(page: &Path, part: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(page)
        .with_context(|| format!("the page {} cannot be read", page.display()))?;
    let text = replaced(&text, part).with_context(|| {
        format!(
            "{} has no lines {:?} and {END:?} between which the table could be put",
            page.display(),
            BEGIN.trim()
        )
    })?;
    fs::write(page, text).with_context(|| format!("the page {} cannot be written", page.display()))
}

fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::row;

    #[test]
    fn thousands_are_parted() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(123_456.0), "123,456");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }

    #[test]
    fn a_row_tells_median_spread_and_ratio() {
        let mut redis = row("durable-100x16", "redis", 300_000.0, 4.5);
        redis.failures.push("gone".to_owned());
        let mut text = String::new();
        table(&mut text, &[redis]);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "| <redis> | defaults; failed: 1 | durable | 300,000 (150,000–450,000) | 4.50 | 3 | 2.00 |"
        );
    }

    #[test]
    fn what_promises_less_has_its_ratio_in_brackets() {
        let mut row = row("durable-100x16", "jetstream-default", 300_000.0, 4.5);
        row.compared = false;
        let mut text = String::new();
        table(&mut text, &[row]);
        assert!(text.ends_with("| (2.00) |\n"));
    }

    #[test]
    fn the_part_between_the_marks_is_replaced_and_nothing_else() {
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(
            replaced(&page, "new\n").unwrap(),
            page.replace("old", "new")
        );
        assert_eq!(replaced("a\n", "new\n"), None);
    }
}
