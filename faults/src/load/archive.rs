//! Logs that were judged: what they held never changes again, and what is said in them later stands behind it.

use futures_util::stream::{self, StreamExt as _};
use rialto_loadgen::checker::{Fingerprint, Said};
use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::v1;
use rialto_sdk::RequestError;

use super::Town;
use super::judge::{Turns, judge};
use super::later::Later;
use super::ledger::{Book, Line, Words};
use super::reader::{Read, read};
use crate::findings::Findings;

/// Logs that are read again at the same time: one that is refused takes a while.
const READ_AT_ONCE: usize = 8;
/// The author of what is said later, who is none of the devices.
const LATER_AUTHOR: usize = usize::MAX;

/// A log that was judged.
#[derive(Debug)]
pub(super) struct Archived {
    /// Names it in examples.
    pub(super) name: String,
    pub(super) conversation: ConversationId,
    /// How many it held, and what they were.
    pub(super) events: usize,
    pub(super) print: Fingerprint,
    /// What was sent to it, where more is said later.
    pub(super) book: Option<Book>,
}

/// What came of reading logs again: which ones are what they were, and the others in words.
#[derive(Clone, Debug, Default)]
pub struct Reread {
    /// They begin with what they held. What stands behind it was judged.
    pub same: Vec<ConversationId>,
    /// They hold something else, or are said not to be there.
    pub other: Vec<String>,
    /// The broker refused to read them for now, for as long as somebody waited.
    pub refused: Vec<String>,
    /// Nobody said anything.
    pub unanswered: Vec<String>,
    /// What is wrong with what was said later.
    pub wrong: Findings,
}

/// What is stored cannot be read back.
fn is_damage(error: &RequestError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.is(ErrorCode::Damaged))
}

impl Reread {
    fn add(&mut self, archived: &mut Archived, later: &[Later], turns: Turns, read: Read) {
        let name = &archived.name;
        match read {
            Read::Whole(log) if archived.begins(&log) => {
                self.same.push(archived.conversation);
                archived.judge_later(later, &log, turns, &mut self.wrong);
            }
            Read::Whole(log) => self.other.push(format!(
                "{name} had {} events and has {}, the first of which are others",
                archived.events,
                log.len()
            )),
            Read::Denied(error) if !is_damage(&error) => {
                self.other.push(format!("{name}: {error}"));
            }
            Read::Denied(error) | Read::Refused(error) => {
                self.refused.push(format!("{name}: {error}"));
            }
            Read::Unanswered => self.unanswered.push(name.clone()),
        }
    }
}

impl Archived {
    /// Whether a log begins with what this one held.
    fn begins(&self, log: &[v1::Event]) -> bool {
        log.get(..self.events)
            .is_some_and(|held| print(held) == self.print)
    }

    /// Judges a log with what was said in it later, as far as it is of this conversation. Where nothing was to be said, nothing may
    /// stand behind.
    fn judge_later(
        &mut self,
        later: &[Later],
        log: &[v1::Event],
        turns: Turns,
        findings: &mut Findings,
    ) {
        let Some(book) = &mut self.book else {
            if log.len() > self.events {
                let words = format!("{} had {} events", self.name, self.events);
                findings.add("said by nobody", format!("{words} and has {}", log.len()));
            }
            return;
        };
        let held = book.entries.len();
        let mine = later.iter();
        let mine = mine.filter(|message| message.conversation == self.conversation);
        book.entries.extend(mine.map(line));
        judge(book, log, Vec::new(), turns, findings);
        book.entries.truncate(held);
    }
}

fn line(message: &Later) -> Line {
    Line {
        client_id: message.client_id,
        author: LATER_AUTHOR,
        words: Words::Said(Said {
            sender: message.sender,
            body: Fingerprint::of(message.body.as_bytes()),
            reply_to: Box::default(),
        }),
        receipt: message.receipt,
        in_turn: true,
        is_void: false,
    }
}

/// Of everything that events are.
pub(super) fn print(log: &[v1::Event]) -> Fingerprint {
    let bytes: Vec<u8> = log
        .iter()
        .flat_map(prost::Message::encode_length_delimited_to_vec)
        .collect();
    Fingerprint::of(&bytes)
}

impl Town {
    /// Whoever founds conversations, and owns them.
    pub(crate) fn keeper(&self) -> UserId {
        self.keeper.user()
    }

    /// Reads every log that was judged once more, with what was said in it later. What came of it stands in `reread` also when this
    /// is given up.
    pub(crate) async fn reread(&mut self, later: &[Later], reread: &mut Reread) {
        let (patience, refused_max) = (self.plan.patience, self.plan.refused_max);
        let logs = self.archive.iter().map(|archived| archived.conversation);
        let logs: Vec<ConversationId> = logs.collect();
        let keeper = &self.keeper;
        let reads = stream::iter(logs.into_iter().enumerate())
            .map(async |(place, log)| (place, read(keeper, log, patience, refused_max).await));
        let mut reads = Box::pin(reads.buffered(READ_AT_ONCE));
        while let Some((place, read)) = reads.next().await {
            reread.add(&mut self.archive[place], later, self.plan.turns, read);
        }
    }

    /// As `Town::reread`, at the end of a campaign: anything else than the same is a violation.
    pub async fn read_all_again(&mut self) {
        let mut reread = Reread::default();
        self.reread(&[], &mut reread).await;
        if reread.same.len() == self.archive.len() {
            let events = self.archive.iter().map(|archived| archived.events as u64);
            self.figures.add("events read again", events.sum());
        }
        self.findings.merge(reread.wrong);
        for words in reread.other {
            self.findings.add("changed later", words);
        }
        for words in reread.refused.into_iter().chain(reread.unanswered) {
            self.findings.add("unreadable", words);
        }
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::{ClientId, Epoch, Seq};
    use rialto_protocol::v1::event::Content;
    use rialto_sdk::Receipt;

    use super::*;

    const ANN: UserId = UserId::from_bytes([3; 16]);
    const ROOM: ConversationId = ConversationId::from_bytes([1; 16]);

    fn event(number: u8, seq: u64) -> v1::Event {
        v1::Event {
            seq,
            epoch: 1,
            time_ms: seq,
            ordinal: seq,
            sender: ANN.to_proto(),
            client_id: ClientId::from_bytes([number; 16]).to_proto(),
            content: Some(Content::Message(v1::Message {
                body: vec![b'0' + number].into(),
                ..v1::Message::default()
            })),
            ..v1::Event::default()
        }
    }

    fn said(number: u8, seq: Option<u64>) -> Later {
        Later {
            conversation: ROOM,
            client_id: ClientId::from_bytes([number; 16]),
            sender: ANN,
            body: number.to_string(),
            receipt: seq.map(|seq| Receipt {
                epoch: Epoch(1),
                seq: Seq(seq),
                time_ms: seq,
                duplicate: false,
            }),
        }
    }

    /// A log of two messages.
    fn archived(book: bool) -> Archived {
        let log = [event(1, 1), event(2, 2)];
        Archived {
            name: "room".to_owned(),
            conversation: ROOM,
            events: log.len(),
            print: print(&log),
            book: book.then(|| Book {
                name: "room".to_owned(),
                conversation: ROOM,
                moderated: false,
                entries: [(1, 1), (2, 2)]
                    .map(|(number, seq)| line(&said(number, Some(seq))))
                    .into(),
            }),
        }
    }

    /// What is found of a log with these messages, behind which so much was said.
    fn found(later: &[Later], log: &[(u8, u64)]) -> Vec<String> {
        let mut archived = archived(true);
        let events = log.iter().map(|(number, seq)| event(*number, *seq));
        let mut reread = Reread::default();
        let read = Read::Whole(events.collect());
        reread.add(&mut archived, later, Turns::Count, read);
        assert_eq!((&reread.same[..], reread.other.len()), (&[ROOM][..], 0));
        let book = archived.book.unwrap();
        assert_eq!(book.entries.len(), 2, "the next one begins as this one did");
        reread.wrong.violations.into_keys().collect()
    }

    #[test]
    fn what_was_said_later_stands_behind_under_the_next_numbers() {
        let log = [(1, 1), (2, 2), (3, 3), (4, 4)];
        let said_all = [said(3, Some(3)), said(4, Some(4))];
        assert_eq!(found(&said_all, &log), [""; 0]);
        let unsure = [said(3, Some(3)), said(4, None)];
        assert_eq!(found(&unsure, &log), [""; 0]);
        assert_eq!(found(&unsure, &log[..3]), [""; 0]);
        assert_eq!(found(&said_all, &log[..3]), ["gapped", "lost"]);
        assert_eq!(found(&said_all[..1], &log), ["foreign"]);
        let twice = [said(3, Some(3)), said(4, Some(3))];
        let reused = found(&twice, &log[..3]);
        assert!(reused.contains(&"lost".to_owned()), "{reused:?}");
        let gap = [(1, 1), (2, 2), (3, 4)];
        let left_out = found(&[said(3, Some(4))], &gap);
        assert!(left_out.contains(&"gapped".to_owned()), "{left_out:?}");
        // A number that somebody had before.
        let old = found(&[said(3, Some(2))], &log[..2]);
        assert!(old.contains(&"lost".to_owned()), "{old:?}");
    }

    #[test]
    fn a_log_is_what_it_was_or_refused_or_wrong() {
        let mut archived = archived(false);
        let whole = |numbers: &[u8]| {
            let numbers = numbers
                .iter()
                .map(|number| event(*number, (*number).into()));
            Read::Whole(numbers.collect())
        };
        let mut reread = Reread::default();
        for read in [
            whole(&[]),
            whole(&[2, 1]),
            Read::Refused(RequestError::UnexpectedAnswer),
            Read::Unanswered,
            Read::Denied(RequestError::Invalid("no such log")),
            whole(&[1, 2]),
        ] {
            reread.add(&mut archived, &[], Turns::Count, read);
        }
        assert_eq!(reread.same, [ROOM]);
        let wrong = [
            "room had 2 events and has 0, the first of which are others",
            "room had 2 events and has 2, the first of which are others",
            "room: no such log",
        ];
        assert_eq!(reread.other, wrong);
        assert_eq!((reread.refused.len(), reread.unanswered.len()), (1, 1));
        assert!(reread.wrong.is_clean());
        reread.add(&mut archived, &[], Turns::Count, whole(&[1, 2, 3]));
        assert_eq!(reread.wrong.violations["said by nobody"], 1);
    }
}
