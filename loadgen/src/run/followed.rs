//! What one reader has seen of one conversation, and what is wrong with it.

use ahash::AHashMap;

use super::body::{Bodies, Mark};
use super::ledger::{Account, Entry, fingerprint};
use super::numbers::Numbers;
use crate::checker::Violations;
use crate::wire::walk::Event;
use rialto_protocol::ids::UserId;

/// Publishers of one conversation that are looked for one after the other.
const SEARCHED_MAX: usize = 8;
/// A number so far beyond the one that was expected is no gap but nonsense.
const MISSING_MAX: u64 = 1 << 20;

/// How much of what comes is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Everything: seqs, who sent what in which order, every byte of the bodies.
    Full,
    /// That seqs follow each other.
    Seqs,
    /// Nothing: messages are counted.
    Counts,
}

/// A conversation as a reader sees it.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    /// Place in the run.
    pub(super) conversation: usize,
    depth: Depth,
    next_seq: u64,
    epoch: u64,
    /// An event has come.
    has_seen: bool,
    messages: u64,
    digest: u64,
    tracks: Tracks,
    pub(super) violations: Violations,
}

/// What a new event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A message, which was due at this time.
    Message(u64),
    /// Something else, or something that is wrong.
    Other,
}

/// Messages of one publisher.
#[derive(Clone, Debug)]
struct Track {
    publisher: u32,
    next: u64,
    missing: Numbers,
    /// Those that came behind later ones and do not say why, each with the greatest number that it came behind.
    late: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Tracks {
    list: Vec<Track>,
    last: usize,
    by_publisher: AHashMap<u32, usize>,
}

impl Tracks {
    #[inline]
    fn of(&mut self, publisher: u32) -> &mut Track {
        let right = |track: &Track| track.publisher == publisher;
        if !self.list.get(self.last).is_some_and(right) {
            let found = if self.list.len() <= SEARCHED_MAX {
                self.list.iter().position(right)
            } else {
                self.by_publisher.get(&publisher).copied()
            };
            self.last = found.unwrap_or_else(|| self.begin(publisher));
        }
        &mut self.list[self.last]
    }

    fn begin(&mut self, publisher: u32) -> usize {
        let place = self.list.len();
        self.list.push(Track {
            publisher,
            next: 1,
            missing: Numbers::default(),
            late: Vec::new(),
        });
        self.by_publisher.insert(publisher, place);
        place
    }
}

impl Followed {
    /// The cursor before the first event.
    pub(super) const BEGINNING: (u64, u64) = (0, 0);

    /// A conversation that nothing is known of.
    pub(super) fn new(conversation: usize, depth: Depth) -> Self {
        Self {
            conversation,
            depth,
            next_seq: 0,
            epoch: 0,
            has_seen: false,
            messages: 0,
            digest: 0,
            tracks: Tracks::default(),
            violations: Violations::default(),
        }
    }

    /// It is followed from behind this event on, if that is new.
    pub(super) fn begins_behind(&mut self, epoch: u64, seq: u64) {
        if self.next_seq == 0 {
            (self.epoch, self.next_seq) = (epoch, seq + 1);
        }
    }

    /// The log does not hold what was seen of it, which is a fault if that was anything. It is followed anew, from its beginning.
    pub(super) fn diverges(&mut self) {
        let seen = u64::from(self.has_seen);
        let before = std::mem::replace(self, Self::new(self.conversation, self.depth));
        self.violations = before.violations;
        self.violations.diverged += seen;
        let (epoch, seq) = Self::BEGINNING;
        self.begins_behind(epoch, seq);
    }

    /// Epoch and seq of the last event; none before the first answer.
    pub(super) const fn cursor(&self) -> Option<(u64, u64)> {
        match self.next_seq {
            0 => None,
            next => Some((self.epoch, next - 1)),
        }
    }

    /// Takes an event. `senders` are the users of the run's publishers.
    #[inline]
    pub(super) fn take(&mut self, event: &Event<'_>, bodies: Bodies, senders: &[UserId]) -> News {
        self.has_seen = true;
        if self.depth == Depth::Counts {
            self.next_seq = self.next_seq.max(event.seq + 1);
        } else if event.seq < self.next_seq {
            self.violations.duplicated += 1;
            return News::Other;
        } else {
            self.violations.gapped += event.seq - self.next_seq;
            self.violations.misnumbered += u64::from(event.epoch < self.epoch);
            self.next_seq = event.seq + 1;
        }
        self.epoch = event.epoch;
        let Some(body) = event.message else {
            return News::Other;
        };
        self.messages += 1;
        let mark = match self.depth {
            Depth::Full => self.examined(event, body, bodies, senders),
            _ => bodies.peek(body),
        };
        match mark {
            Some(mark) => News::Message(mark.due_us),
            None => {
                self.violations.altered += 1;
                News::Other
            }
        }
    }

    #[inline]
    fn examined(
        &mut self,
        event: &Event<'_>,
        body: &[u8],
        bodies: Bodies,
        senders: &[UserId],
    ) -> Option<Mark> {
        let mark = bodies.read(body, self.conversation)?;
        let sender = senders.get(mark.publisher as usize)?;
        if sender.as_bytes() != event.sender {
            return None;
        }
        let print = fingerprint(event.seq, mark.publisher, mark.number);
        self.digest = self.digest.wrapping_add(print);
        let track = self.tracks.of(mark.publisher);
        if mark.number == track.next {
            track.next += 1;
            return Some(mark);
        }
        if mark.number > track.next {
            if mark.number - track.next > MISSING_MAX {
                return None;
            }
            track.missing.insert_row(track.next, mark.number - 1);
            track.next = mark.number + 1;
        } else if track.missing.remove(mark.number) {
            // A message that was refused before stands behind those that were not.
            if mark.refusals == 0 {
                track.late.push((mark.number, track.next - 1));
            }
        } else {
            self.violations.duplicated += 1;
        }
        Some(mark)
    }

    /// Whether everything has come that was acknowledged.
    pub(super) const fn is_complete(&self, entry: &Entry) -> bool {
        self.next_seq > entry.seq_max
    }

    /// Compares with what was acknowledged, once no more is to come; gives what is wrong in all.
    pub(super) fn judge(&mut self, entry: &Entry) -> Violations {
        let mut violations = self.violations;
        let sent =
            |account: &Account| account.numbers - account.refused.len() - account.unanswered.len();
        if self.depth != Depth::Full {
            if self.depth == Depth::Seqs {
                let expected: u64 = entry.accounts.iter().map(sent).sum();
                violations.lost += expected.saturating_sub(self.messages);
            }
            return violations;
        }
        for account in &entry.accounts {
            let track = self.tracks.of(account.publisher);
            let tail = track.next..=account.numbers;
            let missing = track.missing.iter().chain(tail);
            let lost = missing.filter(|number| {
                !account.refused.contains(*number) && !account.unanswered.contains(*number)
            });
            violations.lost += lost.count() as u64;
            violations.foreign += (track.next - 1).saturating_sub(account.numbers);
            let reordered = track.late.iter().filter(|(number, behind)| {
                let allowed = account.repeated.get(number);
                allowed.is_none_or(|allowed| behind > allowed)
            });
            violations.reordered += reordered.count() as u64;
        }
        // The sum does not tell which message it is, and what is wrong already explains a difference.
        let told = violations.total() > 0;
        if entry.complete && !told && self.digest != entry.digest {
            violations.misacknowledged += 1;
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ledger::Ledger;
    use super::*;

    const BODIES: Bodies = Bodies::of(77);

    /// An event of a publisher.
    #[derive(Clone, Copy, Debug)]
    struct Said {
        seq: u64,
        publisher: u32,
        number: u64,
        refusals: u8,
    }

    fn said(seq: u64, publisher: u32, number: u64) -> Said {
        Said {
            seq,
            publisher,
            number,
            refusals: 0,
        }
    }

    fn numbers(all: impl IntoIterator<Item = u64>) -> Numbers {
        let mut numbers = Numbers::default();
        all.into_iter().for_each(|one| numbers.insert(one));
        numbers
    }

    fn senders() -> Vec<UserId> {
        (0..20)
            .map(|index| UserId::from_name(&format!("{index}")))
            .collect()
    }

    fn body(said: Said) -> Vec<u8> {
        let mark = Mark {
            due_us: 5,
            number: said.number,
            publisher: said.publisher,
            refusals: said.refusals,
        };
        let mut body = Vec::new();
        BODIES.put(&mut body, mark, 0, 60);
        body
    }

    fn take(followed: &mut Followed, said: Said, body: &[u8]) -> News {
        let senders = senders();
        let event = Event {
            seq: said.seq,
            epoch: 1,
            sender: senders[said.publisher as usize].as_bytes(),
            message: Some(body),
        };
        followed.take(&event, BODIES, &senders)
    }

    /// Twelve publishers take turns, and their accounts.
    fn script() -> (Vec<Said>, Ledger) {
        let all: Vec<Said> = (0..120)
            .map(|place| {
                said(
                    place + 3,
                    u32::try_from(place % 12).unwrap(),
                    place / 12 + 1,
                )
            })
            .collect();
        let accounts = (0..12).map(|publisher| {
            let mine = all.iter().filter(|said| said.publisher == publisher);
            Account {
                conversation: 0,
                publisher,
                numbers: 10,
                refused: Numbers::default(),
                unanswered: Numbers::default(),
                repeated: BTreeMap::new(),
                seq_max: mine.clone().map(|said| said.seq).max().unwrap(),
                digest: mine
                    .map(|said| fingerprint(said.seq, said.publisher, said.number))
                    .fold(0, u64::wrapping_add),
            }
        });
        let ledger = Ledger::new(1, accounts);
        (all, ledger)
    }

    fn judged(depth: Depth, events: &[Said], ledger: &Ledger) -> Violations {
        let mut followed = Followed::new(0, depth);
        followed.begins_behind(1, 2);
        for said in events {
            take(&mut followed, *said, &body(*said));
        }
        followed.judge(&ledger.entries[0])
    }

    #[test]
    fn what_is_right_is_found_right() {
        let (all, ledger) = script();
        for depth in [Depth::Full, Depth::Seqs, Depth::Counts] {
            assert_eq!(judged(depth, &all, &ledger), Violations::default());
        }
        let mut followed = Followed::new(0, Depth::Full);
        assert_eq!(followed.cursor(), None);
        followed.begins_behind(1, 2);
        for (index, said) in all.iter().enumerate() {
            assert!(!followed.is_complete(&ledger.entries[0]), "{index}");
            assert_eq!(take(&mut followed, *said, &body(*said)), News::Message(5));
        }
        assert!(followed.is_complete(&ledger.entries[0]));
        assert_eq!(followed.cursor(), Some((1, 122)));
    }

    #[test]
    fn every_planted_fault_is_counted_as_what_it_is() {
        let (all, ledger) = script();
        let judged = |change: &dyn Fn(&mut Vec<Said>)| {
            let mut events = all.clone();
            change(&mut events);
            judged(Depth::Full, &events, &ledger)
        };
        let none = Violations::default();
        let renumber = |events: &mut Vec<Said>| {
            for (seq, said) in (3..).zip(events.iter_mut()) {
                said.seq = seq;
            }
        };
        let lost = judged(&|events| {
            events.remove(50);
        });
        assert_eq!(
            lost,
            Violations {
                lost: 1,
                gapped: 1,
                ..none
            }
        );
        let lost_unseen = judged(&|events| {
            events.remove(50);
            renumber(events);
        });
        assert_eq!(lost_unseen, Violations { lost: 1, ..none });
        let last_lost = judged(&|events| {
            events.pop();
        });
        assert_eq!(last_lost, Violations { lost: 1, ..none });
        let again = judged(&|events| events.insert(50, events[50]));
        assert_eq!(
            again,
            Violations {
                duplicated: 1,
                ..none
            }
        );
        let again_under_another_seq = judged(&|events| {
            events.insert(50, events[49]);
            renumber(events);
        });
        assert_eq!(
            again_under_another_seq,
            Violations {
                duplicated: 1,
                ..none
            }
        );
        let turned = judged(&|events| {
            events.swap(50, 62);
            renumber(events);
        });
        assert_eq!(
            turned,
            Violations {
                reordered: 1,
                ..none
            }
        );
        let two_publishers_turned = judged(&|events| {
            events.swap(50, 51);
            renumber(events);
        });
        assert_eq!(
            two_publishers_turned,
            Violations {
                misacknowledged: 1,
                ..none
            }
        );
        let foreign = judged(&|events| events.push(said(123, 0, 11)));
        assert_eq!(foreign, Violations { foreign: 1, ..none });
    }

    #[test]
    fn changed_bodies_and_other_senders_are_altered() {
        for depth in [Depth::Full, Depth::Seqs] {
            let mut followed = Followed::new(0, depth);
            followed.begins_behind(1, 0);
            let mut changed = body(said(1, 0, 1));
            changed[40] ^= 1;
            let seen = take(&mut followed, said(1, 0, 1), &changed);
            let noticed = u64::from(depth == Depth::Full);
            assert_eq!(followed.violations.altered, noticed);
            assert_eq!(seen == News::Other, noticed == 1);
            take(&mut followed, said(2, 3, 1), &body(said(2, 4, 1)));
            assert_eq!(followed.violations.altered, 2 * noticed);
            take(&mut followed, said(3, 3, 1), b"none of ours");
            assert_eq!(followed.violations.altered, 2 * noticed + 1);
        }
    }

    #[test]
    fn a_message_that_was_refused_before_may_stand_behind_later_ones() {
        let mut followed = Followed::new(0, Depth::Full);
        followed.begins_behind(1, 0);
        let late = Said {
            refusals: 1,
            ..said(3, 0, 1)
        };
        for said in [said(1, 0, 2), said(2, 0, 3), late] {
            take(&mut followed, said, &body(said));
        }
        assert_eq!(followed.violations, Violations::default());
        let entry = Ledger::new(
            1,
            [Account {
                conversation: 0,
                publisher: 0,
                numbers: 5,
                refused: numbers([4]),
                unanswered: numbers([5]),
                repeated: BTreeMap::new(),
                seq_max: 3,
                digest: 0,
            }],
        )
        .entries
        .remove(0);
        assert_eq!(followed.judge(&entry), Violations::default());
    }

    #[test]
    fn a_load_that_is_refused_as_a_whole_is_judged_at_once() {
        let mut followed = Followed::new(0, Depth::Full);
        followed.begins_behind(1, 0);
        // One by one these would be looked for in a list of as many: for hours.
        let account = Account {
            conversation: 0,
            publisher: 0,
            numbers: 3_000_000,
            refused: numbers(1..=1_500_000),
            unanswered: numbers(1_500_001..=3_000_000),
            repeated: BTreeMap::new(),
            seq_max: 0,
            digest: 0,
        };
        let entry = Ledger::new(1, [account]).entries.remove(0);
        assert_eq!(followed.judge(&entry), Violations::default());
    }

    #[test]
    fn a_message_that_was_repeated_as_it_was_may_stand_behind_later_ones() {
        for (repeated, reordered) in [
            (vec![(1, 3)], 0),
            (vec![], 1),
            (vec![(2, 3)], 1),
            // The third was sent only after the first was sent again, on the same connection.
            (vec![(1, 2)], 1),
        ] {
            let mut followed = Followed::new(0, Depth::Full);
            followed.begins_behind(1, 0);
            for said in [said(1, 0, 2), said(2, 0, 3), said(3, 0, 1)] {
                take(&mut followed, said, &body(said));
            }
            let account = Account {
                conversation: 0,
                publisher: 0,
                numbers: 3,
                refused: Numbers::default(),
                unanswered: Numbers::default(),
                repeated: repeated.into_iter().collect(),
                seq_max: 3,
                digest: [(1, 2), (2, 3), (3, 1)]
                    .map(|(seq, number)| fingerprint(seq, 0, number))
                    .into_iter()
                    .fold(0, u64::wrapping_add),
            };
            let found = followed.judge(&Ledger::new(1, [account]).entries[0]);
            let expected = Violations {
                reordered,
                ..Violations::default()
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_epoch_that_goes_back_is_misnumbered() {
        let mut followed = Followed::new(0, Depth::Seqs);
        followed.begins_behind(2, 0);
        for (seq, epoch) in [(1, 2), (2, 3), (3, 2)] {
            let event = Event {
                seq,
                epoch,
                sender: &[],
                message: None,
            };
            followed.take(&event, BODIES, &senders());
        }
        assert_eq!(followed.violations.misnumbered, 1);
    }

    #[test]
    fn two_conversations_that_are_crossed_are_altered() {
        let (all, ledger) = script();
        let mut other = Followed::new(1, Depth::Full);
        other.begins_behind(1, 2);
        for said in &all {
            take(&mut other, *said, &body(*said));
        }
        let found = other.judge(&ledger.entries[0]);
        assert_eq!((found.altered, found.lost), (120, 120));
    }

    #[test]
    fn a_log_that_does_not_hold_what_was_seen_has_diverged_and_is_judged_from_its_beginning() {
        let (all, ledger) = script();
        let mut followed = Followed::new(0, Depth::Full);
        followed.begins_behind(1, 2);
        for said in &all[..100] {
            take(&mut followed, *said, &body(*said));
        }
        followed.diverges();
        assert_eq!(followed.cursor(), Some((0, 0)));
        // What the publishers found there before, and all but the last message.
        followed.begins_behind(1, 0);
        for seq in [1, 2] {
            let event = Event {
                seq,
                epoch: 1,
                sender: &[],
                message: None,
            };
            followed.take(&event, BODIES, &senders());
        }
        for said in &all[..119] {
            take(&mut followed, *said, &body(*said));
        }
        let expected = Violations {
            diverged: 1,
            lost: 1,
            ..Violations::default()
        };
        assert_eq!(followed.judge(&ledger.entries[0]), expected);
    }

    #[test]
    fn nothing_that_was_seen_has_not_diverged() {
        let mut followed = Followed::new(0, Depth::Full);
        followed.begins_behind(1, 2);
        followed.diverges();
        assert_eq!(followed.cursor(), Some((0, 0)));
        assert_eq!(followed.violations, Violations::default());
    }
}
