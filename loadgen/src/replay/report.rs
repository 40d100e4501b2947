//! What a replay tells at its end.

use serde::Serialize;

use crate::checker::Violations;
use crate::latency::Percentiles;

/// The report, as it is written in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where to.
    pub target: String,
    /// The run's name; with it the replay can be continued.
    pub run: String,
    /// Messages of the file, as far as it was played.
    pub messages: u64,
    /// Of these, how many this replay sent and saw acknowledged.
    pub published: u64,
    /// Of these, how many an earlier replay of the run had sent.
    pub resumed: u64,
    /// Message events that readers got, all together.
    pub delivered: u64,
    /// What the checker found.
    pub violations: Violations,
    /// All of it together.
    pub violations_total: u64,
    /// The first findings in words.
    pub examples: Vec<String>,
    /// Nothing was found.
    pub clean: bool,
    /// Logs.
    pub conversations: u64,
    /// Nicks.
    pub users: u64,
    /// Connections that were opened, those of readers included.
    pub connections: u64,
    /// Readers of each conversation: live ones, and those that read it again at the end.
    pub readers: u64,
    /// Connections that were lost and came back.
    pub reconnects: u64,
    /// Publishes that were refused for now and sent again.
    pub refused: u64,
    /// Answers in the file to lines that it does not hold before them.
    pub replies_unresolved: u64,
    /// Answers beyond the 16 that one message may name.
    pub replies_cut: u64,
    /// From the first message to the last acknowledgement, seconds.
    pub play_s: f64,
    /// From the start to the verdict, seconds.
    pub elapsed_s: f64,
    /// Messages acknowledged a second of play.
    pub published_per_s: f64,
    /// Message events that live readers got a second of play.
    pub delivered_per_s: f64,
    /// From the publish to its acknowledgement.
    pub ack_ms: Percentiles,
    /// From the publish to a live reader.
    pub delivery_ms: Percentiles,
}

/// A number of things for a report.
#[must_use]
pub(super) fn count(things: usize) -> u64 {
    things as u64
}

/// So many a second; 0 when there was no time.
#[must_use]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}
