//! For load generators that count messages: how many fill the time that was asked for.

use std::time::Duration;

use crate::peer::Measured;

/// A round of the warm-up publishes at most so many times what the one before it did: the rate of a short round says little.
const GROWTH_MAX: u64 = 20;
/// Rounds of the warm-up.
const ROUNDS_MAX: usize = 6;

/// Warms the server up with rounds of growing size that begin at `first` messages, then measures for about `measure`.
///
/// `run` sends so many messages. Its result may count several deliveries a message (`per_message`).
///
/// # Errors
/// Those of `run`.
pub(crate) fn then_measure(
    (warm_up, measure): (Duration, Duration),
    (first, per_message): (u64, usize),
    mut run: impl FnMut(u64) -> anyhow::Result<Measured>,
) -> anyhow::Result<Measured> {
    let mut messages = first.max(1);
    let mut spent_s = 0.0;
    let mut rate = 0.0;
    for _ in 0..ROUNDS_MAX {
        rate = run(messages)?.per_s / per_message as f64;
        spent_s += messages as f64 / rate;
        let left_s = warm_up.as_secs_f64() - spent_s;
        if left_s < 0.2 * warm_up.as_secs_f64() {
            break;
        }
        messages = whole(rate * left_s).clamp(first.max(1), messages * GROWTH_MAX);
    }
    run(whole(rate * measure.as_secs_f64()).clamp(first.max(1), messages * GROWTH_MAX))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(per_s: f64) -> Measured {
        Measured {
            per_s,
            p50_ms: None,
            peak_bytes: None,
        }
    }

    #[test]
    fn the_measured_run_lasts_as_long_as_asked() {
        let mut runs = Vec::new();
        let times = (Duration::from_secs(2), Duration::from_secs(8));
        let result = then_measure(times, (100, 1), |messages| {
            runs.push(messages);
            Ok(measured(50_000.0))
        });
        assert_eq!(result.unwrap().per_s, 50_000.0);
        assert_eq!(runs.last(), Some(&400_000));
        let warm: u64 = runs[..runs.len() - 1].iter().sum();
        assert!((80_000..=110_000).contains(&warm), "{runs:?}");
    }

    #[test]
    fn deliveries_of_a_message_count_as_one_message() {
        let mut last = 0;
        let times = (Duration::from_secs(1), Duration::from_secs(4));
        let result = then_measure(times, (1000, 100), |messages| {
            last = messages;
            Ok(measured(1_000_000.0))
        });
        assert!(result.is_ok());
        assert_eq!(last, 40_000);
    }

    #[test]
    fn an_absurd_rate_of_a_short_round_does_not_make_the_next_endless() {
        let mut runs = Vec::new();
        let times = (Duration::from_secs(1), Duration::from_secs(8));
        let result = then_measure(times, (1000, 1), |messages| {
            runs.push(messages);
            Ok(measured(if runs.len() == 1 { 1e12 } else { 100_000.0 }))
        });
        assert!(result.is_ok());
        assert_eq!(runs[1], 20_000);
        assert_eq!(runs.last(), Some(&800_000));
    }

    #[test]
    fn what_goes_wrong_is_passed_on() {
        let times = (Duration::from_secs(1), Duration::from_secs(1));
        let result = then_measure(times, (1, 1), |_| anyhow::bail!("gone"));
        assert_eq!(result.unwrap_err().to_string(), "gone");
    }
}
