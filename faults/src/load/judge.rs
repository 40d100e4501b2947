//! From a book and what readers got to a verdict: loadgen's checker says what was lost, repeated, reordered, altered or seen
//! differently; what it does not know of is compared here.

use std::collections::{HashMap, HashSet};

use rialto_loadgen::checker::{Fingerprint, Observed, Reading, Said, Script, Sent, check};
use rialto_protocol::ids::{ClientId, Seq, UserId};
use rialto_protocol::v1;
use rialto_protocol::v1::event::Content;

use super::ledger::{Book, Line, Words};
use crate::findings::Findings;

/// Whether what one device sent has to stand in the order of its sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// It has to.
    Count,
    /// Not where storage fails: the SDK by itself sends again later what was refused for that, behind what came after it.
    DoNotCount,
}

/// Judges one conversation. `log` is its whole history, `readings` what its readers got.
pub(super) fn judge(
    book: &Book,
    log: &[v1::Event],
    mut readings: Vec<Reading>,
    turns_count: Turns,
    findings: &mut Findings,
) {
    let deleted: HashSet<Seq> = log
        .iter()
        .filter_map(|event| match &event.content {
            Some(Content::Delete(delete)) => Some(Seq(delete.target)),
            _ => None,
        })
        .collect();
    let faded = faded(book, log);
    readings.push(Reading {
        reader: "reader of history".to_owned(),
        events: log.iter().map(Observed::of).collect(),
    });
    let script = script(book, log, &deleted);
    for reading in &mut readings {
        for event in &mut reading.events {
            if deleted.contains(&event.seq) {
                black_out(event);
            } else if faded.contains(&event.seq) {
                event.print = Fingerprint::of(b"deleted");
            }
        }
    }
    let verdict = check(&script, &readings);
    if verdict.violations.diverged > 0 {
        versions(book, &readings, findings);
    }
    findings.add_verdict(&verdict);
    receipts(book, log, &deleted, findings);
    refusals(book, log, findings);
    deletions(book, log, findings);
    if turns_count == Turns::Count {
        turns(book, findings);
    }
}

/// Edits of messages that were deleted later: their text goes with the message. Nothing but what was sent as no message may.
fn faded(book: &Book, log: &[v1::Event]) -> HashSet<Seq> {
    let messages = book.entries.iter().filter(|line| line.said().is_some());
    let messages: HashSet<ClientId> = messages.map(|line| line.client_id).collect();
    log.iter()
        .filter(|event| matches!(event.content, Some(Content::Redacted(_))))
        .filter(|event| {
            ClientId::from_slice(&event.client_id).is_ok_and(|id| !messages.contains(&id))
        })
        .map(|event| Seq(event.seq))
        .collect()
}

/// What was acknowledged, in the order of its seqs, and what was not but stands in the log all the same. Deleted messages are
/// known by their number alone: what readers got of them depends on when they read.
fn script(book: &Book, log: &[v1::Event], deleted: &HashSet<Seq>) -> Script {
    let found: HashMap<ClientId, Seq> = log
        .iter()
        .filter_map(|event| Some((ClientId::from_slice(&event.client_id).ok()?, Seq(event.seq))))
        .collect();
    let mut messages: Vec<(Seq, Sent)> = book
        .entries
        .iter()
        .filter_map(|line| {
            let seq = match line.receipt {
                Some(receipt) => receipt.seq,
                None => *found.get(&line.client_id)?,
            };
            Some((seq, sent(line, deleted.contains(&seq))?))
        })
        .collect();
    messages.sort_by_key(|(seq, _)| *seq);
    Script {
        name: book.name.clone(),
        messages: messages.into_iter().map(|(_, sent)| sent).collect(),
    }
}

fn sent(line: &Line, deleted: bool) -> Option<Sent> {
    let said = line.said().cloned()?;
    Some(Sent {
        client_id: Some(line.client_id),
        said: if deleted { blacked_out() } else { said },
        receipt: line.receipt.map(|receipt| (receipt.epoch, receipt.seq)),
    })
}

fn blacked_out() -> Said {
    Said {
        sender: UserId::SYSTEM,
        body: Fingerprint::of(b"deleted"),
        reply_to: Box::default(),
    }
}

fn black_out(event: &mut Observed) {
    event.said = Some(blacked_out());
    event.print = Fingerprint::of(b"deleted");
}

/// Both versions of the first event of which there are two.
fn versions(book: &Book, readings: &[Reading], findings: &mut Findings) {
    let mut seen: HashMap<Seq, (&str, &Observed)> = HashMap::new();
    for reading in readings {
        for event in &reading.events {
            let (reader, first) = *seen.entry(event.seq).or_insert((&reading.reader, event));
            if first != event {
                findings.examples.push(format!(
                    "{}: {reader} got {first:?}, {} got {event:?}",
                    book.name, reading.reader
                ));
                return;
            }
        }
    }
}

/// What the checker does not look at: acknowledged events that are no messages, and the time of each receipt.
fn receipts(book: &Book, log: &[v1::Event], deleted: &HashSet<Seq>, findings: &mut Findings) {
    let by_seq: HashMap<u64, &v1::Event> = log.iter().map(|event| (event.seq, event)).collect();
    for line in &book.entries {
        let Some(receipt) = line.receipt else {
            continue;
        };
        let name = &book.name;
        let Some(event) = by_seq.get(&receipt.seq.0) else {
            if line.said().is_none() {
                findings.add(
                    "lost",
                    format!("{name}: an event acknowledged at {receipt:?}"),
                );
            }
            continue;
        };
        let same = ClientId::from_slice(&event.client_id).ok() == Some(line.client_id);
        if let Words::Change(change) = &line.words {
            if !same || event.epoch != receipt.epoch.0 {
                findings.add(
                    "misacknowledged",
                    format!(
                        "{name}: {} was acknowledged at {receipt:?}, where {event:?} stands",
                        line.client_id
                    ),
                );
            } else if !change.is_in(event, deleted) {
                findings.add("altered", format!("{name}: sent {change:?}, got {event:?}"));
            }
        }
        if same && event.time_ms != receipt.time_ms {
            findings.add(
                "other time",
                format!(
                    "{name}: seq {} has {} ms, its receipt {} ms",
                    event.seq, event.time_ms, receipt.time_ms
                ),
            );
        }
    }
}

/// What the rules refused for good does not stand in the log.
fn refusals(book: &Book, log: &[v1::Event], findings: &mut Findings) {
    let void: HashSet<ClientId> = book
        .entries
        .iter()
        .filter(|line| line.is_void)
        .map(|line| line.client_id)
        .collect();
    for event in log {
        if ClientId::from_slice(&event.client_id).is_ok_and(|id| void.contains(&id)) {
            findings.add("refused and appended", format!("{}: {event:?}", book.name));
        }
    }
}

/// What was deleted is not served any more.
fn deletions(book: &Book, log: &[v1::Event], findings: &mut Findings) {
    let messages: HashSet<u64> = log
        .iter()
        .filter(|event| matches!(event.content, Some(Content::Message(_))))
        .map(|event| event.seq)
        .collect();
    for event in log {
        if let Some(Content::Delete(delete)) = &event.content
            && messages.contains(&delete.target)
        {
            findings.add(
                "deleted and served",
                format!("{}: seq {}", book.name, delete.target),
            );
        }
    }
}

/// What one device sent stands in the order of its sending, but for what was refused meanwhile.
fn turns(book: &Book, findings: &mut Findings) {
    let mut before: HashMap<usize, Seq> = HashMap::new();
    for line in book.entries.iter().filter(|line| line.in_turn) {
        let Some(receipt) = line.receipt else {
            continue;
        };
        let last = before.entry(line.author).or_default();
        if receipt.seq <= *last {
            findings.add(
                "out of its author's order",
                format!(
                    "{}: author {}: {receipt:?} after seq {last}",
                    book.name, line.author
                ),
            );
        }
        *last = receipt.seq.max(*last);
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::{ConversationId, Epoch};
    use rialto_sdk::Receipt;

    use super::super::ledger::Change;
    use super::*;

    const ANN: UserId = UserId::from_bytes([3; 16]);

    fn client_id(number: u8) -> ClientId {
        ClientId::from_bytes([number; 16])
    }

    fn line(number: u8, seq: u64) -> Line {
        Line {
            client_id: client_id(number),
            author: 0,
            words: Words::Said(Said {
                sender: ANN,
                body: Fingerprint::of(&[number]),
                reply_to: Box::default(),
            }),
            receipt: Some(Receipt {
                epoch: Epoch(1),
                seq: Seq(seq),
                time_ms: seq,
                duplicate: false,
            }),
            in_turn: true,
            is_void: false,
        }
    }

    fn event(number: u8, seq: u64) -> v1::Event {
        v1::Event {
            seq,
            epoch: 1,
            time_ms: seq,
            ordinal: seq,
            sender: ANN.to_proto(),
            client_id: client_id(number).to_proto(),
            content: Some(Content::Message(v1::Message {
                body: vec![number].into(),
                ..v1::Message::default()
            })),
            ..v1::Event::default()
        }
    }

    fn found(lines: Vec<Line>, log: &[v1::Event]) -> Vec<String> {
        let book = Book {
            name: "room".into(),
            conversation: ConversationId::from_bytes([1; 16]),
            moderated: false,
            entries: lines,
        };
        let mut findings = Findings::default();
        judge(&book, log, Vec::new(), Turns::Count, &mut findings);
        findings.violations.into_keys().collect()
    }

    #[test]
    fn a_log_as_it_was_acknowledged_is_clean() {
        let log = [event(1, 1), event(2, 2)];
        assert_eq!(found(vec![line(1, 1), line(2, 2)], &log), [""; 0]);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let lines = vec![line(1, 1), line(2, 2)];
        assert_eq!(found(lines, &[event(1, 1)]), ["gapped", "lost"]);
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        let unanswered = || {
            let mut unanswered = line(2, 2);
            unanswered.receipt = None;
            vec![line(1, 1), unanswered]
        };
        assert_eq!(found(unanswered(), &[event(1, 1)]), [""; 0]);
        assert_eq!(found(unanswered(), &[event(1, 1), event(2, 2)]), [""; 0]);
    }

    #[test]
    fn an_event_that_stands_twice_is_found() {
        let log = [event(1, 1), event(1, 2)];
        assert!(found(vec![line(1, 1)], &log).contains(&"duplicated".to_owned()));
    }

    #[test]
    fn a_receipt_with_another_time_and_an_author_out_of_turn_are_found() {
        let mut late = line(1, 1);
        late.receipt = late.receipt.map(|receipt| Receipt {
            time_ms: 9,
            ..receipt
        });
        assert_eq!(found(vec![late], &[event(1, 1)]), ["other time"]);
        let log = [event(1, 1), event(2, 2)];
        assert_eq!(
            found(vec![line(2, 2), line(1, 1)], &log),
            ["out of its author's order"]
        );
    }

    #[test]
    fn a_deleted_message_is_the_same_to_those_who_read_it_before() {
        let redacted = v1::Event {
            content: None,
            ..event(1, 1)
        };
        let lines = || vec![line(1, 1), change(9, 2, Change::Delete(Seq(1)))];
        let delete = change_event(9, 2, Change::Delete(Seq(1)));
        assert_eq!(found(lines(), &[redacted, delete.clone()]), [""; 0]);
        let served = found(lines(), &[event(1, 1), delete]);
        assert_eq!(served, ["deleted and served"]);
    }

    /// Something that is done to a message, acknowledged at this seq.
    fn change(number: u8, seq: u64, change: Change) -> Line {
        Line {
            words: Words::Change(change),
            ..line(number, seq)
        }
    }

    /// The event that it becomes, behind one message.
    fn change_event(number: u8, seq: u64, change: Change) -> v1::Event {
        let content = match change {
            Change::Edit(target, text) => Content::Edit(v1::Edit {
                target: target.0,
                body: text.into(),
                ..v1::Edit::default()
            }),
            Change::React(target, emoji) => Content::Reaction(v1::Reaction {
                target: target.0,
                emoji,
                off: false,
            }),
            Change::Delete(target) => Content::Delete(v1::Delete {
                target: target.0,
                reason: String::new(),
            }),
        };
        v1::Event {
            ordinal: 1,
            content: Some(content),
            ..event(number, seq)
        }
    }

    #[test]
    fn an_edit_that_says_something_else_than_was_sent_is_found() {
        let edit = |text: &str| Change::Edit(Seq(1), text.to_owned());
        let judged = |sent: Change, stands: Change| {
            let log = [event(1, 1), change_event(2, 2, stands)];
            found(vec![line(1, 1), change(2, 2, sent)], &log)
        };
        assert_eq!(judged(edit("new"), edit("new")), [""; 0]);
        assert_eq!(judged(edit("new"), edit("old")), ["altered"]);
        let elsewhere = Change::React(Seq(2), "👍".to_owned());
        let here = Change::React(Seq(1), "👍".to_owned());
        assert_eq!(judged(here.clone(), here.clone()), [""; 0]);
        assert_eq!(judged(here, elsewhere), ["altered"]);
    }

    #[test]
    fn an_edit_has_lost_its_text_only_where_its_message_was_deleted() {
        let edit = Change::Edit(Seq(1), "new".to_owned());
        let faded = v1::Event {
            content: Some(Content::Redacted(v1::Redacted { by_seq: 3 })),
            ..change_event(2, 2, edit.clone())
        };
        let mut lines = vec![line(1, 1), change(2, 2, edit.clone())];
        assert_eq!(found(lines, &[event(1, 1), faded.clone()]), ["altered"]);
        lines = vec![
            line(1, 1),
            change(2, 2, edit),
            change(3, 3, Change::Delete(Seq(1))),
        ];
        let redacted = v1::Event {
            content: None,
            ..event(1, 1)
        };
        let delete = change_event(3, 3, Change::Delete(Seq(1)));
        assert_eq!(found(lines, &[redacted, faded, delete]), [""; 0]);
    }

    #[test]
    fn what_the_rules_refused_must_not_stand_in_the_log() {
        let refused = || {
            let mut refused = change(2, 2, Change::React(Seq(1), "👍".to_owned()));
            refused.receipt = None;
            refused.is_void = true;
            vec![line(1, 1), refused]
        };
        assert_eq!(found(refused(), &[event(1, 1)]), [""; 0]);
        let there = change_event(2, 2, Change::React(Seq(1), "👍".to_owned()));
        assert_eq!(
            found(refused(), &[event(1, 1), there]),
            ["refused and appended"]
        );
    }
}
