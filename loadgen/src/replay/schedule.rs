//! When each message of a log is due.

use std::time::Duration;

use crate::corpus::Message;

/// What a log's times are precise to, seconds.
const PRECISION_S: u32 = 60;

/// Times since the log's first message, at `speed` times real time. Messages of one minute are spread over it evenly, and
/// nothing is due before what stands before it.
#[must_use]
pub(super) fn due(messages: &[Message], speed: f64) -> Vec<Duration> {
    let Some(first) = messages.first() else {
        return Vec::new();
    };
    let mut due = Vec::with_capacity(messages.len());
    let mut latest = 0.0_f64;
    for minute in messages.chunk_by(|a, b| a.at_s == b.at_s) {
        let start = f64::from(minute[0].at_s) - f64::from(first.at_s);
        let step = f64::from(PRECISION_S) / minute.len() as f64;
        for at in 0..minute.len() {
            latest = latest.max(start + step * at as f64);
            due.push(Duration::from_secs_f64(latest / speed));
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_s: u32) -> Message {
        Message {
            nick: 0,
            at_s,
            text: String::new(),
            reply_to: Vec::new(),
        }
    }

    #[test]
    fn a_minute_is_spread_evenly_and_time_never_goes_back() {
        let log = [600, 600, 600, 660, 540, 720].map(at);
        let seconds: Vec<f64> = due(&log, 2.0).iter().map(Duration::as_secs_f64).collect();
        assert_eq!(seconds, [0.0, 10.0, 20.0, 30.0, 30.0, 60.0]);
        assert!(due(&[], 1.0).is_empty());
    }
}
