//! What was sent and what was acknowledged, written down on the clients' side as it happens.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rialto_loadgen::checker::Said;
use rialto_protocol::ids::{ClientId, ConversationId, Seq};
use rialto_protocol::v1;
use rialto_protocol::v1::event;
use rialto_sdk::{Content, Receipt};

use crate::findings::{Figures, Findings};
use crate::random::Dice;

/// Everything that clients know of one era's conversations.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Pages>);

/// What stands in a [`Ledger`].
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// A book for each conversation.
    pub(super) books: Vec<Book>,
    /// What clients noticed by themselves.
    pub(super) findings: Findings,
    /// What they did.
    pub(super) figures: Figures,
}

/// What was sent to one conversation.
#[derive(Debug)]
pub(super) struct Book {
    /// Names it in examples.
    pub(super) name: String,
    /// Its id.
    pub(super) conversation: ConversationId,
    /// Messages in it may be deleted.
    pub(super) moderated: bool,
    /// In the order of sending, all authors together.
    pub(super) entries: Vec<Line>,
}

/// Something that was sent.
#[derive(Debug)]
pub(super) struct Line {
    /// Its idempotency key.
    pub(super) client_id: ClientId,
    /// Number of the client that sent it.
    pub(super) author: usize,
    /// What it says.
    pub(super) words: Words,
    /// Where it stands, once that was acknowledged.
    pub(super) receipt: Option<Receipt>,
    /// Acknowledged at the first sending, so that it keeps its place among its author's.
    pub(super) in_turn: bool,
    /// Refused for good, as the rules have it: it must not stand in the log.
    pub(super) is_void: bool,
}

impl Line {
    /// What it says, when it is a message.
    pub(super) fn said(&self) -> Option<&Said> {
        match &self.words {
            Words::Said(said) => Some(said),
            Words::Change(_) => None,
        }
    }
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Words {
    /// A message.
    Said(Said),
    /// Something that is done to one.
    Change(Change),
}

/// What somebody does to a message that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It gets another text.
    Edit(Seq, String),
    /// It gets an emoji.
    React(Seq, String),
    /// It is taken away.
    Delete(Seq),
}

impl Change {
    /// As it is sent.
    pub(super) fn content(&self) -> Content {
        match self {
            Self::Edit(target, text) => Content::edit(*target, text.as_str()),
            Self::React(target, emoji) => Content::react(*target, emoji.as_str()),
            Self::Delete(target) => Content::delete(*target),
        }
    }

    /// Whether an event says this. An edit has no text any more once its message is one of those that were deleted.
    pub(super) fn is_in(&self, event: &v1::Event, deleted: &HashSet<Seq>) -> bool {
        match (self, &event.content) {
            (Self::Edit(target, text), Some(event::Content::Edit(edit))) => {
                edit.target == target.0 && edit.body == text.as_bytes()
            }
            (Self::Edit(target, _), Some(event::Content::Redacted(_))) => deleted.contains(target),
            (Self::React(target, emoji), Some(event::Content::Reaction(reaction))) => {
                reaction.target == target.0 && reaction.emoji == *emoji && !reaction.off
            }
            (Self::Delete(target), Some(event::Content::Delete(delete))) => {
                delete.target == target.0
            }
            _ => false,
        }
    }
}

/// Names a line: its book and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the book.
    pub(super) book: usize,
    /// Index of the line.
    pub(super) line: usize,
}

impl Ledger {
    /// For looking at several things at once.
    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a book.
    pub(super) fn open(&self, name: String, conversation: ConversationId, moderated: bool) {
        self.pages().books.push(Book {
            name,
            conversation,
            moderated,
            entries: Vec::new(),
        });
    }

    /// One of the conversations.
    pub(super) fn any(&self, dice: &mut Dice) -> Option<(usize, ConversationId)> {
        let pages = self.pages();
        let book = dice.roll(pages.books.len());
        pages
            .books
            .get(book)
            .map(|found| (book, found.conversation))
    }

    /// Writes down that something goes out.
    pub(super) fn sent(&self, book: usize, line: Line) -> Place {
        let entries = &mut self.pages().books[book].entries;
        entries.push(line);
        Place {
            book,
            line: entries.len() - 1,
        }
    }

    /// Writes down where it stands. A second acknowledgement that says something else is a violation.
    pub(super) fn acknowledged(&self, place: Place, receipt: Receipt) {
        let mut pages = self.pages();
        let book = &mut pages.books[place.book];
        let name = book.name.clone();
        let line = &mut book.entries[place.line];
        let (client_id, before) = (line.client_id, line.receipt);
        if before.is_none() {
            line.receipt = Some(receipt);
        }
        match before {
            None => pages.figures.add("acknowledged", 1),
            Some(before) if at(before) != at(receipt) => {
                let words = format!(
                    "{name}: {client_id} stood at {:?}, a retry at {:?}",
                    at(before),
                    at(receipt)
                );
                pages.findings.add("retry answered otherwise", words);
            }
            Some(_) => pages.figures.add("retries answered the same", 1),
        }
    }

    /// Writes down that it has to be sent again.
    pub(super) fn refused(&self, place: Place, advised: bool) {
        let mut pages = self.pages();
        pages
            .figures
            .add("refused with advice when to come back", u64::from(advised));
        pages.books[place.book].entries[place.line].in_turn = false;
        pages.figures.add("refused for now", 1);
    }

    /// Writes down that the rules refuse it for good. What was acknowledged before must not be refused when it is sent again.
    pub(super) fn void(&self, place: Place) {
        let mut pages = self.pages();
        let book = &mut pages.books[place.book];
        let line = &mut book.entries[place.line];
        line.in_turn = false;
        line.is_void = line.receipt.is_none();
        let before = line.receipt.map(|receipt| {
            let (client_id, name) = (line.client_id, &book.name);
            format!(
                "{name}: {client_id} stood at {:?}, a retry was refused",
                at(receipt)
            )
        });
        match before {
            None => pages.figures.add("refused by the rules", 1),
            Some(words) => pages.findings.add("retry answered otherwise", words),
        }
    }

    /// Counts a violation.
    pub(super) fn violation(&self, kind: &str, words: impl Into<String>) {
        self.pages().findings.add(kind, words);
    }

    /// Acknowledgements so far.
    pub(super) fn acknowledged_count(&self) -> u64 {
        self.pages().figures.of("acknowledged")
    }

    /// The latest time that a receipt tells, milliseconds since 1970; 0: there is none.
    pub(super) fn newest_ms(&self) -> u64 {
        let pages = self.pages();
        let lines = pages.books.iter().flat_map(|book| &book.entries);
        let times = lines.filter_map(|line| Some(line.receipt?.time_ms));
        times.max().unwrap_or_default()
    }
}

/// What of a receipt stays the same for ever.
fn at(receipt: Receipt) -> (u64, u64, u64) {
    (receipt.epoch.0, receipt.seq.0, receipt.time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::ids::Epoch;

    fn ledger_with_a_line() -> (Ledger, Place) {
        let ledger = Ledger::default();
        ledger.open("room".into(), ConversationId::from_bytes([1; 16]), false);
        let line = Line {
            client_id: ClientId::from_bytes([2; 16]),
            author: 0,
            words: Words::Change(Change::Delete(Seq(3))),
            receipt: None,
            in_turn: true,
            is_void: false,
        };
        let place = ledger.sent(0, line);
        (ledger, place)
    }

    #[test]
    fn a_retry_that_is_answered_otherwise_is_a_violation() {
        let (ledger, place) = ledger_with_a_line();
        let receipt = |seq, duplicate| Receipt {
            epoch: Epoch(1),
            seq: Seq(seq),
            time_ms: 5,
            duplicate,
        };
        ledger.acknowledged(place, receipt(7, false));
        ledger.acknowledged(place, receipt(7, true));
        assert!(ledger.pages().findings.is_clean());
        ledger.acknowledged(place, receipt(8, false));
        assert!(!ledger.pages().findings.is_clean());
        assert_eq!((ledger.acknowledged_count(), ledger.newest_ms()), (1, 5));
    }

    #[test]
    fn the_rules_may_refuse_what_is_new_and_no_retry_of_what_was_acknowledged() {
        let (ledger, place) = ledger_with_a_line();
        ledger.void(place);
        assert!(ledger.pages().findings.is_clean());
        assert!(ledger.pages().books[0].entries[0].is_void);
        let (ledger, place) = ledger_with_a_line();
        let receipt = Receipt {
            epoch: Epoch(1),
            seq: Seq(7),
            time_ms: 5,
            duplicate: false,
        };
        ledger.acknowledged(place, receipt);
        ledger.void(place);
        let pages = ledger.pages();
        assert_eq!(pages.findings.violations["retry answered otherwise"], 1);
        assert!(!pages.books[0].entries[0].is_void);
    }
}
