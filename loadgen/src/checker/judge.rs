//! The comparison itself. Every count is taken on its own, so that one fault raises the counts whose meaning it meets and no other.

use ahash::{AHashMap, AHashSet};
use rialto_protocol::ids::{ClientId, Seq};

use super::{Observed, Reading, Script, Verdict};

/// Judges what the readers of one conversation got. Each of them is expected to have read from the first event to the last.
#[must_use]
pub fn check(script: &Script, readings: &[Reading]) -> Verdict {
    let index: AHashMap<ClientId, usize> = script
        .messages
        .iter()
        .enumerate()
        .filter_map(|(at, sent)| sent.client_id.map(|id| (id, at)))
        .collect();
    let head = head(script, readings);
    let mut verdict = Verdict::default();
    let mut versions = Versions::default();
    for reading in readings {
        verdict.delivered += reading.messages() as u64;
        let mut judge = Judge {
            script,
            index: &index,
            reader: &reading.reader,
            verdict: &mut verdict,
        };
        let first = judge.repeats(reading);
        judge.arrival(&first);
        let mut log = first;
        log.sort_by_key(|event| event.seq);
        judge.gaps(&log, head);
        judge.messages(&log);
        judge.numbers(&log);
        versions.add(&log);
    }
    versions.judge(script, &mut verdict);
    verdict
}

/// The greatest seq that anybody speaks of.
fn head(script: &Script, readings: &[Reading]) -> Seq {
    let read = readings
        .iter()
        .flat_map(|reading| &reading.events)
        .map(|event| event.seq);
    let acknowledged = script
        .messages
        .iter()
        .filter_map(|sent| sent.receipt)
        .map(|(_, seq)| seq);
    read.chain(acknowledged).max().unwrap_or_default()
}

/// One reader's judge.
struct Judge<'a> {
    script: &'a Script,
    index: &'a AHashMap<ClientId, usize>,
    reader: &'a str,
    verdict: &'a mut Verdict,
}

impl Judge<'_> {
    fn example(&mut self, words: impl FnOnce() -> String) {
        let (script, reader) = (&self.script.name, self.reader);
        self.verdict
            .example(|| format!("{script}: {reader} {}", words()));
    }

    /// Counts repeats, and gives back the events without them, in the order of arrival.
    fn repeats<'r>(&mut self, reading: &'r Reading) -> Vec<&'r Observed> {
        let mut seqs = AHashSet::with_capacity(reading.events.len());
        let mut ids = AHashSet::with_capacity(reading.events.len());
        let mut first = Vec::with_capacity(reading.events.len());
        for event in &reading.events {
            let new_seq = seqs.insert(event.seq);
            let new_id = ids.insert(event.client_id);
            if !new_seq || !new_id {
                self.verdict.violations.duplicated += 1;
                self.example(|| format!("got {} again, at seq {}", event.client_id, event.seq));
            }
            // An event that was appended twice stays in its place, so that it leaves no gap.
            if new_seq {
                first.push(event);
            }
        }
        first
    }

    /// The order of arrival against the order of seqs.
    fn arrival(&mut self, arrived: &[&Observed]) {
        let seqs: Vec<u64> = arrived.iter().map(|event| event.seq.0).collect();
        let moved = moves(&seqs);
        self.verdict.violations.reordered += moved;
        if moved > 0 {
            self.example(|| format!("got {moved} events out of the order of their seqs"));
        }
    }

    /// Seqs that are missing up to the head.
    fn gaps(&mut self, log: &[&Observed], head: Seq) {
        let missing = head.0.saturating_sub(log.len() as u64);
        self.verdict.violations.gapped += missing;
        if missing > 0 {
            let after = log
                .iter()
                .zip(1..)
                .take_while(|(event, seq)| event.seq.0 == *seq)
                .count();
            self.example(|| {
                format!("lacks {missing} of the seqs up to {head}, the first after {after}")
            });
        }
    }

    /// What the log says against what the script says, and in which order.
    fn messages(&mut self, log: &[&Observed]) {
        let mut found = vec![false; self.script.messages.len()];
        let mut order = Vec::with_capacity(found.len());
        for event in log {
            let Some(said) = &event.said else { continue };
            let Some(&at) = self.index.get(&event.client_id) else {
                self.verdict.violations.foreign += 1;
                self.example(|| {
                    format!(
                        "got {} at seq {}, which nobody sent",
                        event.client_id, event.seq
                    )
                });
                continue;
            };
            if std::mem::replace(&mut found[at], true) {
                continue;
            }
            order.push(at as u64);
            let sent = &self.script.messages[at];
            if sent.said != *said {
                self.verdict.violations.altered += 1;
                self.example(|| {
                    format!(
                        "got message {at} at seq {} altered: sent {:?}, got {said:?}",
                        event.seq, sent.said
                    )
                });
            }
            if let Some((epoch, seq)) = sent.receipt
                && (epoch, seq) != (event.epoch, event.seq)
            {
                self.verdict.violations.misacknowledged += 1;
                self.example(|| {
                    format!(
                        "got message {at} at ({}, {}), acknowledged at ({epoch}, {seq})",
                        event.epoch, event.seq
                    )
                });
            }
        }
        let moved = moves(&order);
        self.verdict.violations.reordered += moved;
        if moved > 0 {
            self.example(|| format!("sees {moved} messages in another order than they were sent"));
        }
        for at in found
            .iter()
            .enumerate()
            .filter_map(|(at, found)| (!found).then_some(at))
        {
            self.verdict.violations.lost += 1;
            self.example(|| {
                format!(
                    "never got message {at}, acknowledged: {:?}",
                    self.script.messages[at].receipt
                )
            });
        }
    }

    /// Epochs, times and ordinals along the log. Across a gap the ordinal may rise by as much as is missing.
    fn numbers(&mut self, log: &[&Observed]) {
        let mut before = (0, 0, 0, 0);
        for event in log {
            let (seq, epoch, time_ms, ordinal) = before;
            let counted = u64::from(event.said.is_some());
            let least = ordinal + counted;
            let most = least + (event.seq.0 - seq).saturating_sub(1);
            if event.epoch.0 < epoch
                || event.time_ms < time_ms
                || event.ordinal.0 < least
                || event.ordinal.0 > most
            {
                self.verdict.violations.misnumbered += 1;
                self.example(|| {
                    format!(
                        "got seq {} with {event:?} after (seq, epoch, ms, ordinal) {before:?}",
                        event.seq
                    )
                });
            }
            before = (event.seq.0, event.epoch.0, event.time_ms, event.ordinal.0);
        }
    }
}

/// Which events stand under each seq, over all readers.
#[derive(Default)]
struct Versions<'a> {
    seen: AHashMap<Seq, Vec<&'a Observed>>,
}

impl<'a> Versions<'a> {
    fn add(&mut self, log: &[&'a Observed]) {
        for &event in log {
            let versions = self
                .seen
                .entry(event.seq)
                .or_insert_with(|| Vec::with_capacity(1));
            if !versions.contains(&event) {
                versions.push(event);
            }
        }
    }

    fn judge(self, script: &Script, verdict: &mut Verdict) {
        let mut diverged: Vec<_> = self
            .seen
            .into_iter()
            .filter(|(_, versions)| versions.len() > 1)
            .collect();
        diverged.sort_by_key(|(seq, _)| *seq);
        for (seq, versions) in diverged {
            verdict.violations.diverged += versions.len() as u64 - 1;
            verdict.example(|| {
                format!(
                    "{}: readers saw {} different events at seq {seq}",
                    script.name,
                    versions.len()
                )
            });
        }
    }
}

/// How many of the numbers, all different, must be moved for the rest to rise: all but a longest rising subsequence.
fn moves(numbers: &[u64]) -> u64 {
    let mut tails: Vec<u64> = Vec::new();
    for &number in numbers {
        let at = tails.partition_point(|tail| *tail < number);
        if at == tails.len() {
            tails.push(number);
        } else {
            tails[at] = number;
        }
    }
    (numbers.len() - tails.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_the_fewest_that_restore_the_order() {
        for (numbers, fewest) in [
            (vec![], 0),
            (vec![1, 2, 3], 0),
            (vec![2, 1, 3], 1),
            (vec![4, 1, 2, 3], 1),
            (vec![2, 3, 4, 1], 1),
            (vec![3, 2, 1], 2),
        ] {
            assert_eq!(moves(&numbers), fewest, "{numbers:?}");
        }
    }
}
