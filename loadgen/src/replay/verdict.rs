//! From what was played and read to the report.

use std::time::Duration;

use ahash::AHashMap;
use rialto_protocol::ids::{ClientId, ConversationId};

use super::follower::{Arrivals, Followed};
use super::player::Play;
use super::report::{Report, count, per_second};
use super::{COLD_READERS, House, ReplayError};
use crate::checker::{EXAMPLES_MAX, Reading, Verdict, Violations, check};
use crate::latency::Latencies;

/// What the checker found, and how long deliveries took.
#[derive(Default)]
pub(super) struct Found {
    verdict: Verdict,
    delivery: Latencies,
    live_delivered: u64,
}

/// Judges every conversation. The first `live` of the readings were live; only their times mean anything.
pub(super) async fn judge(
    plays: &[Play],
    readings: Vec<Followed>,
    live: usize,
) -> Result<Found, ReplayError> {
    let mut found = Found::default();
    let scripts: AHashMap<ConversationId, &Play> =
        plays.iter().map(|play| (play.conversation, play)).collect();
    let mut conversations: AHashMap<ConversationId, Vec<Reading>> = AHashMap::new();
    for (reader, followed) in readings.into_iter().enumerate() {
        for (conversation, arrivals) in followed {
            let name = scripts.get(&conversation).map(|play| &*play.script.name);
            let ended = ended_early(name.unwrap_or_default(), &arrivals);
            found.verdict.add(ended);
            if let Some(play) = scripts.get(&conversation).filter(|_| reader < live) {
                found.live_delivered += arrivals.reading.messages() as u64;
                deliveries(play, &arrivals, &mut found.delivery);
            }
            conversations
                .entry(conversation)
                .or_default()
                .push(arrivals.reading);
        }
    }
    for play in plays {
        let readings = conversations.remove(&play.conversation).unwrap_or_default();
        let script = play.script.clone();
        found
            .verdict
            .add(tokio::task::spawn_blocking(move || check(&script, &readings)).await?);
    }
    Ok(found)
}

/// What the broker said of a log before its reader had all of it.
fn ended_early(name: &str, arrivals: &Arrivals) -> Verdict {
    let words = |words: &String| format!("{name}: {} {words}", arrivals.reading.reader);
    Verdict {
        violations: Violations {
            diverged: arrivals.diverged,
            ..Violations::default()
        },
        examples: arrivals.ends.iter().map(words).collect(),
        ..Verdict::default()
    }
}

/// From each publish of this replay to its arrival.
fn deliveries(play: &Play, arrivals: &Arrivals, delivery: &mut Latencies) {
    let sent = play.script.messages.iter().zip(&play.sent_us);
    let sent: AHashMap<ClientId, u64> = sent
        .filter_map(|(message, at_us)| Some((message.client_id?, *at_us)))
        .collect();
    for (event, at_us) in arrivals.reading.events.iter().zip(&arrivals.at_us) {
        if let Some(sent_us) = sent.get(&event.client_id).filter(|sent_us| **sent_us > 0) {
            delivery.record_us(at_us.saturating_sub(*sent_us));
        }
    }
}

/// The report of a replay that took `elapsed`, `play` of it from the first message to the last acknowledgement.
pub(super) fn report(
    house: &House,
    plays: &[Play],
    found: Found,
    play: Duration,
    elapsed: Duration,
) -> Report {
    let (corpus, counted) = (&house.corpus, house.counters.now());
    let Verdict {
        violations,
        delivered,
        examples: found_examples,
    } = found.verdict;
    // What was refused explains what is missing, so it comes first.
    let refused = plays.iter().flat_map(|play| play.problems.iter().cloned());
    let examples = refused.chain(found_examples).take(EXAMPLES_MAX).collect();
    let mut acks = Latencies::default();
    plays.iter().for_each(|play| acks.add(&play.acks));
    let play_s = play.as_secs_f64();
    Report {
        target: house.options.target.to_string(),
        run: house.options.run.clone(),
        messages: count(corpus.messages),
        published: counted.published,
        resumed: count(plays.iter().map(|play| play.resumed).sum()),
        delivered,
        violations,
        violations_total: violations.total(),
        clean: violations.total() == 0,
        examples,
        conversations: count(plays.len()),
        users: count(corpus.nicks.len()),
        connections: counted.connections,
        readers: count(house.options.readers.max(1) + COLD_READERS),
        reconnects: counted.reconnects,
        refused: counted.refused,
        replies_unresolved: count(corpus.replies_unresolved),
        replies_cut: count(corpus.replies_cut),
        play_s,
        elapsed_s: elapsed.as_secs_f64(),
        published_per_s: per_second(counted.published, play_s),
        delivered_per_s: per_second(found.live_delivered, play_s),
        ack_ms: acks.percentiles(),
        delivery_ms: found.delivery.percentiles(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_diverged_is_found_and_told() {
        let arrivals = Arrivals {
            reading: Reading::new("live reader 0"),
            diverged: 1,
            ends: vec!["was told that the log diverged, 7 events on".to_owned()],
            ..Arrivals::default()
        };
        let verdict = ended_early("room", &arrivals);
        assert_eq!(verdict.violations.total(), 1);
        let words = "room: live reader 0 was told that the log diverged, 7 events on";
        assert_eq!(verdict.examples, [words]);
        assert!(ended_early("room", &Arrivals::default()).is_clean());
    }
}
