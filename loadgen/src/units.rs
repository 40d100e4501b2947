//! Numbers with units, as people write them.

use std::time::Duration;

/// Longest duration: a year.
const DURATION_MAX_S: f64 = 365.0 * 24.0 * 3600.0;

/// A duration: a number of seconds, or one with `us`, `ms`, `s`, `m` or `h`.
///
/// # Errors
/// When it is none, not above 0, or longer than a year.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => 0.0,
    };
    number
        .filter(|number| number * scale > 0.0 && number * scale <= DURATION_MAX_S)
        .and_then(|number| Duration::try_from_secs_f64(number * scale).ok())
        .ok_or_else(|| {
            format!("`{text}` is no duration such as 10, 500ms, 10s, 5m or 1h, of a year at most")
        })
}

/// The number at the beginning of a text, and what stands behind it.
#[must_use]
pub fn split(text: &str) -> (Option<f64>, &str) {
    let text = text.trim();
    let end = text
        .find(|letter: char| !(letter.is_ascii_digit() || matches!(letter, '.' | '-' | '+')))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite());
    (number, unit.trim())
}

/// Bytes in the unit in which they are best read.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

/// A count with k or M, three digits or more.
#[must_use]
pub fn count(count: f64) -> String {
    match count.abs() {
        small if small < 10.0 && small.fract() > 0.0 => format!("{count:.2}"),
        small if small < 10_000.0 => format!("{count:.0}"),
        middle if middle < 999_500.0 => format!("{:.1}k", count / 1e3),
        _ => format!("{:.2}M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("10", 10_000),
            ("0.5", 500),
            ("500ms", 500),
            ("10 s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "-1", "x", "5 days", "1e99", "NaN", "8761h"] {
            assert!(duration(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn counts_and_bytes_are_short() {
        let counts = [0.0, 0.25, 7.0, 9999.0, 12_345.0, 999_499.0, 2_345_678.0];
        let counts: Vec<String> = counts.into_iter().map(count).collect();
        assert_eq!(
            counts,
            ["0", "0.25", "7", "9999", "12.3k", "999.5k", "2.35M"]
        );
        let sizes = [512.0, 2048.0, 150.0 * 1024.0, 3e6, 5e12];
        let sizes: Vec<String> = sizes.into_iter().map(bytes).collect();
        assert_eq!(
            sizes,
            ["512 B", "2.0 KiB", "150 KiB", "2.9 MiB", "4657 GiB"]
        );
    }
}
