//! Who may wait while others have their turn: connections with more to say than a turn is for, readers of what a crowd is
//! told, handshakes, answers of storage, and those who leave. The pump calls the next of them once a round, so that who says little waits for a
//! short round at most. When thousands say a little at the same moment, those for whom the round has no time wait for the next.
//!
//! Of those who wait for a turn the one is next who will have had least after it (fair queueing): a connection's account is what it
//! has taken, and begins where the others are whenever that is more, so that nobody saves for later. One that has said nothing yet
//! is taken to want much, or clients that come anew all the time would go before those who say little.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use super::{link::Link, quota::TimeQuota};
use bytes::Bytes;

/// What is done in a round for connections that have more to say, in short messages: some 1 ms.
const ROUND_WORK: usize = 1_024;
/// Of it, in one connection's turn, at least and at most.
const TURN_WORK: (usize, usize) = (16, 512);
/// What is done in a round beside, for those who have had least of all: little of each, so that what others do at once delays them by
/// less than a round.
const LEAST_WORK: usize = 256;
/// What a connection is taken to want that has not had a turn: more than those who say little have in minutes, and about as much as
/// the longest of requests.
const UNKNOWN_WORK: usize = 8 * ROUND_WORK;
/// Whoever has had no more than so much beyond the last that was called is one of them, if no more is expected of a turn.
const LEAST_SLACK: usize = 64;
/// What it takes to look whether a connection has something to say.
const LOOK_WORK: usize = 4;
/// Closing a connection takes as long as so many short messages.
pub(crate) const CLOSE_WORK: usize = 32;
/// Bytes that are written in the time that a short message takes.
const WRITE_WORK_BYTES: usize = 1_024;
/// Those of a crowd that write in a round, and what they have to write together, about: some 0.25 ms, and 1 at most.
const CROWD_CALLED_MAX: usize = 24;
const CROWD_BYTES_MAX: usize = 1 << 20;
/// Those who leave in a round: some 0.25 ms.
const LEAVING_CALLED_MAX: usize = 8;
/// For reads of TLS handshakes, and as much for connections over QUIC in the middle of theirs: what comes may be the end of a
/// ClientHello, which leads to a key exchange and a signature, 0.3 ms and more, or a byte.
const HANDSHAKES_TIME: Duration = Duration::from_micros(250);
/// For answers of storage: a page to be compressed is some 1 ms.
const ANSWERS_TIME: Duration = Duration::from_micros(500);

/// See the module.
pub(crate) struct Turns {
    /// Connections that have more to say, by what they will have had after their turns, and the order in which they came.
    eager: RefCell<BTreeMap<(u64, u64), Rc<Link>>>,
    /// Given to the next of them.
    number: Cell<u64>,
    /// What the one had had that was called last, the most that anybody has.
    had: Cell<u64>,
    had_most: Cell<u64>,
    /// Connections that were sent what many are sent, and have not been called to write it.
    crowd: RefCell<VecDeque<Rc<Link>>>,
    /// Frames that wait with them.
    crowd_frames: Cell<usize>,
    /// Connections whose clients are gone.
    leaving: RefCell<VecDeque<Rc<Link>>>,
    /// Reads of TLS handshakes.
    tls_handshakes: TimeQuota,
    /// Connections over QUIC in the middle of their handshakes.
    quic_handshakes: TimeQuota,
    /// Answers of storage, of this shard's and of others'.
    answers: TimeQuota,
    /// Each of those of other shards that waits has a clone.
    answers_held: Rc<()>,
    /// What was done in this round for connections that waited for their turn, for those that did not, and for those that need not.
    called_work: Cell<usize>,
    uncalled_work: Cell<usize>,
    least_work: Cell<usize>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            eager: RefCell::default(),
            number: Cell::default(),
            had: Cell::default(),
            had_most: Cell::default(),
            crowd: RefCell::default(),
            crowd_frames: Cell::default(),
            leaving: RefCell::default(),
            tls_handshakes: TimeQuota::new(HANDSHAKES_TIME),
            quic_handshakes: TimeQuota::new(HANDSHAKES_TIME),
            answers: TimeQuota::new(ANSWERS_TIME),
            answers_held: Rc::default(),
            called_work: Cell::default(),
            uncalled_work: Cell::default(),
            least_work: Cell::default(),
        }
    }
}

/// A connection's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waited for it.
    Called,
    /// It did not, and the round has time for it.
    Uncalled,
    /// It did not either, has had hardly more than any that waits, and wants little.
    Least,
}

impl Turns {
    /// What a connection's turn is for, in short messages: all who have more to say share a round out.
    pub(crate) fn work(&self) -> usize {
        (ROUND_WORK / (1 + self.eager.borrow().len())).clamp(TURN_WORK.0, TURN_WORK.1)
    }

    /// The turn of a connection that is polled; `None`: the round has no time for it, and it waits.
    pub(crate) fn begin(&self, link: &Rc<Link>) -> Option<Turn> {
        let was_called = link.was_called();
        if was_called && self.called_work.get() < ROUND_WORK {
            return Some(Turn::Called);
        }
        if self.uncalled_work.get() < ROUND_WORK && self.may_go_before(link) {
            return Some(Turn::Uncalled);
        }
        let unwritten = link.outbox().bytes().min(ROUND_WORK * WRITE_WORK_BYTES);
        let close = if link.is_closing() { CLOSE_WORK } else { 0 };
        let work = link
            .expected()
            .max(LOOK_WORK + close + unwritten / WRITE_WORK_BYTES);
        let is_known = link.had().get() > 0;
        if is_known
            && work <= LEAST_SLACK
            && self.least_work.get() < LEAST_WORK
            && self.ahead(link) <= LEAST_SLACK
        {
            return Some(Turn::Least);
        }
        if was_called {
            // Those that were called before it have taken more than was expected: it keeps its place.
            self.put(link, work, link.place().get());
        } else {
            self.wait(link, work);
        }
        None
    }

    /// How much more it has had than the last that was called.
    fn ahead(&self, link: &Link) -> usize {
        let ahead = link.had().get().saturating_sub(self.had.get());
        usize::try_from(ahead).unwrap_or(usize::MAX)
    }

    /// Whether it may have a turn before those that wait for theirs: it has not had a whole one more than the last that was called.
    fn may_go_before(&self, link: &Link) -> bool {
        self.ahead(link) <= TURN_WORK.1 || self.eager.borrow().is_empty()
    }

    /// Takes in that a connection was read in its turn, and what that took.
    pub(crate) fn was_read(&self, link: &Link, turn: Turn, work: usize) {
        self.spend(link, turn, LOOK_WORK + work);
        link.took(LOOK_WORK + work);
    }

    /// Takes in that so many bytes were written to it.
    pub(crate) fn was_written(&self, link: &Link, turn: Turn, bytes: usize) {
        let call = if bytes > 0 { LOOK_WORK } else { 0 };
        self.spend(link, turn, call + bytes / WRITE_WORK_BYTES);
    }

    fn spend(&self, link: &Link, turn: Turn, work: usize) {
        let had = link.had().get().max(self.had.get()) + work as u64;
        link.had().set(had);
        self.had_most.set(self.had_most.get().max(had));
        let spent = match turn {
            Turn::Called => &self.called_work,
            Turn::Uncalled => &self.uncalled_work,
            Turn::Least => &self.least_work,
        };
        spent.set(spent.get() + work);
    }

    /// Whether a connection whose client is gone may leave now; if not, it is called when it may.
    pub(crate) fn leave(&self, link: &Rc<Link>) -> bool {
        if link.wait_to_leave() {
            self.leaving.borrow_mut().push_back(Rc::clone(link));
        }
        link.may_leave()
    }

    /// Time for reads of TLS handshakes.
    pub(crate) fn tls_handshakes(&self) -> &TimeQuota {
        &self.tls_handshakes
    }

    /// Time for connections over QUIC in the middle of their handshakes.
    pub(crate) fn quic_handshakes(&self) -> &TimeQuota {
        &self.quic_handshakes
    }

    /// Time for answers of storage.
    pub(crate) fn answers(&self) -> &TimeQuota {
        &self.answers
    }

    /// An answer of another shard waits until this is dropped.
    pub(crate) fn hold_answer(&self) -> Rc<()> {
        Rc::clone(&self.answers_held)
    }

    /// Whether answers of other shards wait.
    pub(crate) fn holds_answers(&self) -> bool {
        Rc::strong_count(&self.answers_held) > 1
    }

    /// Puts a connection, whose turn is expected to take so much work, behind all others that have more to say and
    /// have had less.
    pub(crate) fn wait(&self, link: &Rc<Link>, work: usize) {
        let number = self.number.replace(self.number.get() + 1);
        let had = link.had().get();
        let begins = had.max(self.had.get());
        let wants = if had > 0 { work } else { UNKNOWN_WORK };
        self.put(link, work, (begins + wants as u64, number));
    }

    fn put(&self, link: &Rc<Link>, work: usize, place: (u64, u64)) {
        if link.wait_for_turn(work) {
            link.place().set(place);
            self.eager.borrow_mut().insert(place, Rc::clone(link));
        }
    }

    /// The connection is gone: it waits for nothing any more.
    pub(crate) fn forget(&self, link: &Link) {
        if link.waits_for_turn() {
            self.eager.borrow_mut().remove(&link.place().get());
        }
    }

    /// Queues a frame that many are sent.
    pub(crate) fn send_to_crowd(&self, link: Rc<Link>, frame: Bytes) {
        self.crowd_frames.set(self.crowd_frames.get() + 1);
        if link.push_unhurried(frame) {
            self.crowd.borrow_mut().push_back(link);
        }
    }

    /// Begins a round and lets the next go on; whether there are more.
    pub(crate) fn call(&self) -> bool {
        for spent in [&self.called_work, &self.uncalled_work, &self.least_work] {
            spent.set(0);
        }
        let wait_for_time =
            self.tls_handshakes.renew() | self.quic_handshakes.renew() | self.answers.renew();
        self.call_crowd() | self.call_eager() | self.call_leaving() | wait_for_time
    }

    fn call_leaving(&self) -> bool {
        let mut leaving = self.leaving.borrow_mut();
        for _ in 0..LEAVING_CALLED_MAX {
            let Some(link) = leaving.pop_front() else {
                break;
            };
            link.call_to_leave();
        }
        !leaving.is_empty()
    }

    fn call_crowd(&self) -> bool {
        let mut crowd = self.crowd.borrow_mut();
        let waiting = self.crowd_frames.get();
        // The next is here before the last was written: whoever publishes faster than a crowd can be told waits with it.
        let hurry = waiting > crowd.len() / 2 * 3;
        let (mut called, mut frames, mut bytes) = (0, 0, 0);
        while (hurry || (called < CROWD_CALLED_MAX && bytes < CROWD_BYTES_MAX))
            && let Some(link) = crowd.pop_front()
        {
            called += 1;
            bytes += link.outbox().bytes();
            frames += link.call_unhurried();
        }
        self.crowd_frames.set(waiting - frames);
        !crowd.is_empty()
    }

    fn call_eager(&self) -> bool {
        let mut eager = self.eager.borrow_mut();
        if eager.is_empty() {
            // Nobody has waited since: whoever comes now has had as much as anybody.
            self.had.set(self.had_most.get());
        }
        let mut work = 0;
        while work < ROUND_WORK
            && let Some((_, link)) = eager.pop_first()
        {
            self.had.set(self.had.get().max(link.had().get()));
            work += link.call_eager();
        }
        !eager.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use rialto_core::io::ConnId;

    use super::*;
    use crate::admission::Strangers;

    /// Connections that have had a turn.
    fn links(count: u32) -> Vec<Rc<Link>> {
        let strangers = Strangers::default();
        (0..count)
            .map(|index| {
                let conn = ConnId {
                    index,
                    generation: 0,
                };
                let stranger = strangers.admit([127, 0, 0, 1].into(), 1_000).expect("room");
                let link = Rc::new(Link::new(conn, None, stranger));
                link.had().set(1);
                link
            })
            .collect()
    }

    fn tell(turns: &Turns, crowd: &[Rc<Link>]) {
        for link in crowd {
            turns.send_to_crowd(Rc::clone(link), Bytes::from_static(b"news"));
        }
    }

    fn waiting(queue: &RefCell<VecDeque<Rc<Link>>>) -> Vec<u32> {
        queue.borrow().iter().map(|link| link.id().index).collect()
    }

    /// Rounds until nobody waits, 100 at most.
    fn rounds(turns: &Turns) -> usize {
        (1..=100).find(|_| !turns.call()).expect("an end")
    }

    fn eager(turns: &Turns) -> Vec<u32> {
        let eager = turns.eager.borrow();
        eager.values().map(|link| link.id().index).collect()
    }

    #[test]
    fn a_crowd_is_called_a_few_at_a_time() {
        let (turns, crowd) = (Turns::default(), links(100));
        tell(&turns, &crowd);
        assert!(turns.call());
        let last: Vec<u32> = (0..100).skip(CROWD_CALLED_MAX).collect();
        assert_eq!(waiting(&turns.crowd), last);
        assert_eq!(rounds(&turns), 100_usize.div_ceil(CROWD_CALLED_MAX) - 1);
        assert_eq!(turns.crowd_frames.get(), 0);
        assert!(crowd.iter().all(|link| link.outbox().bytes() == 4));
    }

    #[test]
    fn a_crowd_that_is_told_more_before_it_has_read_is_called_as_a_whole() {
        let (turns, crowd) = (Turns::default(), links(100));
        tell(&turns, &crowd);
        assert!(turns.call());
        tell(&turns, &crowd);
        assert_eq!(turns.crowd_frames.get(), 200 - CROWD_CALLED_MAX);
        tell(&turns, &crowd[..20]);
        assert!(!turns.call());
        assert_eq!(turns.crowd_frames.get(), 0);
    }

    #[test]
    fn who_has_more_to_say_comes_again_after_all_others() {
        let (turns, links) = (Turns::default(), links(6));
        assert_eq!(turns.work(), TURN_WORK.1);
        for link in &links {
            turns.wait(link, ROUND_WORK / 4);
            turns.wait(link, ROUND_WORK / 4);
        }
        assert_eq!(turns.work(), ROUND_WORK / 7);
        assert!(turns.call());
        assert_eq!(eager(&turns), [4, 5]);
        assert!(!links[0].waits_for_turn() && links[4].waits_for_turn());
        turns.wait(&links[0], ROUND_WORK / 4);
        assert_eq!(eager(&turns), [4, 5, 0]);
        assert!(!turns.call());
    }

    /// The round has no time left, for nobody.
    fn use_up(turns: &Turns, by: &Link) {
        turns.was_read(by, Turn::Uncalled, ROUND_WORK);
        turns.was_read(by, Turn::Least, LEAST_WORK);
    }

    #[test]
    fn who_has_had_little_does_not_wait_for_those_who_have_had_much() {
        let (turns, links) = (Turns::default(), links(6));
        let [others @ .., little] = &links[..] else {
            panic!()
        };
        for (place, link) in others.iter().enumerate() {
            turns.was_read(link, Turn::Uncalled, place * ROUND_WORK);
            turns.wait(link, ROUND_WORK);
        }
        for _ in 0..20 {
            turns.call();
            let called = others.iter().find(|link| link.was_called()).unwrap();
            turns.was_read(called, Turn::Uncalled, ROUND_WORK * others.len());
            assert_eq!(turns.begin(called), None);
            assert_eq!(turns.begin(little), Some(Turn::Least));
            turns.was_read(little, Turn::Least, 1);
            turns.was_read(called, Turn::Least, LEAST_WORK);
            assert_eq!(turns.begin(little), None, "the round is used up");
            assert_eq!(eager(&turns)[0], little.id().index);
            turns.call();
            assert!(little.was_called());
            for link in others.iter().filter(|link| link.was_called()) {
                turns.was_read(link, Turn::Called, ROUND_WORK * others.len());
                turns.wait(link, ROUND_WORK);
            }
        }
    }

    #[test]
    fn who_says_little_goes_before_those_who_want_much_or_have_said_nothing_yet() {
        let (turns, links) = (Turns::default(), links(5));
        let [other, much, little, unknown @ ..] = &links[..] else {
            panic!()
        };
        for link in [much, little] {
            turns.was_read(link, Turn::Called, 10);
        }
        turns.was_read(other, Turn::Uncalled, ROUND_WORK);
        for link in unknown {
            link.had().set(0);
            assert_eq!(turns.begin(link), None);
        }
        turns.wait(much, ROUND_WORK);
        assert_eq!(turns.begin(little), Some(Turn::Least));
        use_up(&turns, other);
        assert_eq!(turns.begin(little), None);
        assert_eq!(eager(&turns), [2, 1, 3, 4]);
    }

    #[test]
    fn who_wants_much_is_not_one_of_those_who_have_had_least() {
        let (turns, links) = (Turns::default(), links(3));
        let [other, reader, talker] = &links[..] else {
            panic!()
        };
        turns.was_read(other, Turn::Uncalled, ROUND_WORK);
        turns.call();
        turns.was_read(other, Turn::Uncalled, ROUND_WORK);
        reader.push(Bytes::from(vec![0; 65 * WRITE_WORK_BYTES]));
        assert_eq!(turns.begin(reader), None);
        turns.was_read(talker, Turn::Called, LEAST_SLACK);
        assert_eq!(turns.begin(talker), None);
        // A few short turns later that is forgotten.
        for _ in 0..2 {
            turns.was_read(talker, Turn::Called, 1);
        }
        turns.call();
        turns.call();
        turns.was_read(other, Turn::Uncalled, ROUND_WORK);
        assert!(talker.was_called());
        assert_eq!(turns.begin(talker), Some(Turn::Least));
    }

    #[test]
    fn those_that_were_called_beyond_what_a_round_is_for_keep_their_places() {
        let (turns, links) = (Turns::default(), links(4));
        for link in &links {
            turns.wait(link, 1);
        }
        assert!(!turns.call());
        use_up(&turns, &links[3]);
        for link in &links[..3] {
            assert_eq!(turns.begin(link), Some(Turn::Called));
        }
        turns.was_read(&links[0], Turn::Called, ROUND_WORK);
        for link in &links[1..3] {
            turns.wait(link, 1);
        }
        assert_eq!(turns.begin(&links[3]), None);
        assert_eq!(
            eager(&turns),
            [3, 1, 2],
            "the last of those that were called"
        );
    }

    #[test]
    fn who_is_gone_waits_for_nothing() {
        let (turns, links) = (Turns::default(), links(2));
        for link in &links {
            turns.wait(link, ROUND_WORK);
            turns.forget(link);
            turns.forget(link);
        }
        assert!(!turns.call() && eager(&turns).is_empty());
    }

    #[test]
    fn who_has_had_much_does_not_go_before_those_who_wait() {
        let (turns, links) = (Turns::default(), links(2));
        turns.was_read(&links[0], Turn::Called, TURN_WORK.1 + 1);
        assert_eq!(turns.begin(&links[0]), Some(Turn::Uncalled));
        turns.wait(&links[1], ROUND_WORK);
        assert_eq!(turns.begin(&links[0]), None);
        assert_eq!(eager(&turns), [1, 0]);
    }

    #[test]
    fn nobody_has_more_later_for_having_had_nothing_before() {
        let (turns, links) = (Turns::default(), links(2));
        let [busy, idle] = &links[..] else { panic!() };
        for _ in 0..100 {
            turns.wait(busy, ROUND_WORK);
            turns.call();
            assert!(busy.was_called());
            turns.was_read(busy, Turn::Called, ROUND_WORK);
        }
        let mut turns_of_idle = 0;
        for link in [busy, idle] {
            turns.wait(link, ROUND_WORK);
        }
        for _ in 0..20 {
            turns.call();
            let called = links.iter().find(|link| link.was_called()).unwrap();
            turns_of_idle += u32::from(called.id() == idle.id());
            turns.was_read(called, Turn::Called, ROUND_WORK);
            turns.wait(called, ROUND_WORK);
        }
        assert!((9..=11).contains(&turns_of_idle), "{turns_of_idle} of 20");
    }

    #[test]
    fn when_a_round_has_no_time_left_those_who_come_wait_for_the_next() {
        let (turns, links) = (Turns::default(), links(3));
        assert_eq!(turns.begin(&links[0]), Some(Turn::Uncalled));
        turns.was_read(&links[0], Turn::Called, ROUND_WORK);
        assert_eq!(turns.begin(&links[0]), Some(Turn::Uncalled));
        turns.was_written(&links[0], Turn::Uncalled, ROUND_WORK / 2 * WRITE_WORK_BYTES);
        turns.was_read(&links[0], Turn::Uncalled, ROUND_WORK / 2);
        assert_eq!(turns.begin(&links[1]), Some(Turn::Least));
        use_up(&turns, &links[0]);
        assert_eq!(turns.begin(&links[1]), None);
        assert_eq!(eager(&turns), [1]);
        assert!(!turns.call());
        assert_eq!(turns.begin(&links[1]), Some(Turn::Called));
        assert_eq!(turns.begin(&links[2]), Some(Turn::Uncalled));
    }

    #[test]
    fn many_with_much_to_be_written_are_not_called_at_once() {
        let (turns, links) = (Turns::default(), links(6));
        use_up(&turns, &links[5]);
        for link in &links[..5] {
            link.push(Bytes::from(vec![0; ROUND_WORK / 2 * WRITE_WORK_BYTES]));
            assert_eq!(turns.begin(link), None);
        }
        assert!(turns.call());
        assert_eq!(eager(&turns), [2, 3, 4]);
    }

    #[test]
    fn many_that_are_to_be_closed_are_not_called_at_once() {
        let (turns, links) = (Turns::default(), links(101));
        use_up(&turns, &links[100]);
        for link in &links[..100] {
            link.close();
            assert_eq!(turns.begin(link), None);
        }
        assert!(turns.call());
        let called = ROUND_WORK.div_ceil(LOOK_WORK + CLOSE_WORK);
        assert_eq!(turns.eager.borrow().len(), 100 - called);
    }

    #[test]
    fn while_somebody_waits_for_time_another_round_follows() {
        let turns = Turns::default();
        for quota in [
            turns.tls_handshakes(),
            turns.quic_handshakes(),
            turns.answers(),
        ] {
            quota.use_up();
            let mut cx = Context::from_waker(Waker::noop());
            let mut waiting = Box::pin(quota.take());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            // Whoever is called may be gone: nobody else says that there are others.
            assert!(turns.call());
            drop(waiting);
            assert!(!turns.call());
        }
    }

    #[test]
    fn who_leaves_waits_until_it_is_called_and_once() {
        let (turns, links) = (Turns::default(), links(100));
        for _ in 0..2 {
            assert!(links.iter().all(|link| !turns.leave(link)));
        }
        assert!(turns.call());
        let last: Vec<u32> = (0..100).skip(LEAVING_CALLED_MAX).collect();
        assert_eq!(waiting(&turns.leaving), last);
        assert!(turns.leave(&links[0]) && !turns.leave(&links[LEAVING_CALLED_MAX]));
        assert_eq!(rounds(&turns), 100_usize.div_ceil(LEAVING_CALLED_MAX) - 1);
        assert!(links.iter().all(|link| turns.leave(link)));
    }
}
