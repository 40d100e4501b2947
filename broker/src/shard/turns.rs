//! Who may wait while others have their turn: connections with more to say than a turn is for, readers of what a crowd is
//! told, handshakes, and those who leave. The pump calls the next of them once a round, so that who says little waits for a
//! short round at most. When thousands say a little at the same moment, those for whom the round has no time wait for the next.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::link::Link;

/// What is done in a round for connections that have more to say, in short messages: some 2 ms.
const ROUND_WORK: usize = 2_048;
/// Of it, in one connection's turn, at least and at most.
const TURN_WORK: (usize, usize) = (16, 512);
/// What it takes to look whether a connection has something to say.
const LOOK_WORK: usize = 4;
/// Closing a connection takes as long as so many short messages.
pub(crate) const CLOSE_WORK: usize = 32;
/// Bytes that are written in the time that a short message takes.
const WRITE_WORK_BYTES: usize = 1_024;
/// Those of a crowd that write in a round, and what they have to write together, about: some 0.5 ms.
const CROWD_CALLED_MAX: usize = 48;
const CROWD_BYTES_MAX: usize = 1 << 20;
/// Those who leave in a round: some 0.5 ms.
const LEAVING_CALLED_MAX: usize = 16;
/// Reads of TLS handshakes in a round, as many as connections are accepted. Each may take a key exchange and a signature.
const HANDSHAKES_CALLED_MAX: usize = 8;

/// See the module.
pub(crate) struct Turns {
    /// Connections that have more to say.
    eager: RefCell<VecDeque<Rc<Link>>>,
    /// Connections that were sent what many are sent, and have not been called to write it.
    crowd: RefCell<VecDeque<Rc<Link>>>,
    /// Frames that wait with them.
    crowd_frames: Cell<usize>,
    /// Connections whose clients are gone.
    leaving: RefCell<VecDeque<Rc<Link>>>,
    /// Reads of handshakes that the round has time for; those who wait have them in the order in which they came.
    handshakes: Semaphore,
    /// What was done in this round for connections that did not wait for their turn.
    uncalled_work: Cell<usize>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            eager: RefCell::default(),
            crowd: RefCell::default(),
            crowd_frames: Cell::default(),
            leaving: RefCell::default(),
            handshakes: Semaphore::new(HANDSHAKES_CALLED_MAX),
            uncalled_work: Cell::default(),
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
}

impl Turns {
    /// What a connection's turn is for, in short messages: all who have more to say share a round out.
    pub(crate) fn work(&self) -> usize {
        (ROUND_WORK / (1 + self.eager.borrow().len())).clamp(TURN_WORK.0, TURN_WORK.1)
    }

    /// The turn of a connection that is polled; `None`: the round has no time for it, and it waits behind all others that do.
    pub(crate) fn begin(&self, link: &Rc<Link>) -> Option<Turn> {
        if link.was_called() {
            Some(Turn::Called)
        } else if self.uncalled_work.get() < ROUND_WORK {
            Some(Turn::Uncalled)
        } else {
            let unwritten = link.outbox().bytes().min(ROUND_WORK * WRITE_WORK_BYTES);
            let close = if link.is_closing() { CLOSE_WORK } else { 0 };
            self.wait(link, LOOK_WORK + close + unwritten / WRITE_WORK_BYTES);
            None
        }
    }

    /// Takes in that a connection was read in its turn, and what that took.
    pub(crate) fn was_read(&self, turn: Turn, work: usize) {
        self.spend(turn, LOOK_WORK + work);
    }

    /// Takes in that so many bytes were written to it.
    pub(crate) fn was_written(&self, turn: Turn, bytes: usize) {
        self.spend(turn, bytes / WRITE_WORK_BYTES);
    }

    fn spend(&self, turn: Turn, work: usize) {
        if turn == Turn::Uncalled {
            self.uncalled_work.set(self.uncalled_work.get() + work);
        }
    }

    /// Whether a connection whose client is gone may leave now; if not, it is called when it may.
    pub(crate) fn leave(&self, link: &Rc<Link>) -> bool {
        if link.wait_to_leave() {
            self.leaving.borrow_mut().push_back(Rc::clone(link));
        }
        link.may_leave()
    }

    /// Resolves when the round has time for a read of a handshake.
    pub(crate) async fn handshake(&self) {
        if let Ok(turn) = self.handshakes.acquire().await {
            turn.forget();
        }
    }

    /// Puts a connection, whose turn took so much work, behind all others that have more to say.
    pub(crate) fn wait(&self, link: &Rc<Link>, work: usize) {
        if link.wait_for_turn(work) {
            self.eager.borrow_mut().push_back(Rc::clone(link));
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
        self.uncalled_work.set(0);
        self.call_handshakes();
        self.call_crowd() | self.call_eager() | self.call_leaving()
    }

    /// Whoever has its turn by this has the pump begin another round.
    fn call_handshakes(&self) {
        let left = self.handshakes.available_permits();
        let more = HANDSHAKES_CALLED_MAX.saturating_sub(left);
        self.handshakes.add_permits(more);
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
        let mut work = 0;
        while work < ROUND_WORK
            && let Some(link) = eager.pop_front()
        {
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

    fn links(count: u32) -> Vec<Rc<Link>> {
        let strangers = Strangers::default();
        (0..count)
            .map(|index| {
                let conn = ConnId {
                    index,
                    generation: 0,
                };
                let stranger = strangers.admit([127, 0, 0, 1].into(), 1_000).expect("room");
                Rc::new(Link::new(conn, None, stranger))
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

    #[test]
    fn a_crowd_is_called_a_few_at_a_time() {
        let (turns, crowd) = (Turns::default(), links(100));
        tell(&turns, &crowd);
        assert!(turns.call());
        assert_eq!(waiting(&turns.crowd), (48..100).collect::<Vec<_>>());
        assert!(turns.call());
        assert!(!turns.call());
        assert_eq!(turns.crowd_frames.get(), 0);
        assert!(crowd.iter().all(|link| link.outbox().bytes() == 4));
    }

    #[test]
    fn a_crowd_that_is_told_more_before_it_has_read_is_called_as_a_whole() {
        let (turns, crowd) = (Turns::default(), links(100));
        tell(&turns, &crowd);
        assert!(turns.call());
        tell(&turns, &crowd);
        assert_eq!(turns.crowd_frames.get(), 152);
        tell(&turns, &crowd[..20]);
        assert!(!turns.call());
        assert_eq!(turns.crowd_frames.get(), 0);
    }

    #[test]
    fn who_has_more_to_say_comes_again_after_all_others() {
        let (turns, links) = (Turns::default(), links(6));
        assert_eq!(turns.work(), TURN_WORK.1);
        for link in &links {
            turns.wait(link, 512);
            turns.wait(link, 512);
        }
        assert_eq!(turns.work(), ROUND_WORK / 7);
        assert!(turns.call());
        assert_eq!(waiting(&turns.eager), [4, 5]);
        assert!(!links[0].waits_for_turn() && links[4].waits_for_turn());
        turns.wait(&links[0], 1);
        assert_eq!(waiting(&turns.eager), [4, 5, 0]);
        assert!(!turns.call());
    }

    #[test]
    fn when_a_round_has_no_time_left_those_who_come_wait_for_the_next() {
        let (turns, links) = (Turns::default(), links(3));
        assert_eq!(turns.begin(&links[0]), Some(Turn::Uncalled));
        turns.was_read(Turn::Called, ROUND_WORK);
        assert_eq!(turns.begin(&links[0]), Some(Turn::Uncalled));
        turns.was_written(Turn::Uncalled, ROUND_WORK / 2 * WRITE_WORK_BYTES);
        turns.was_read(Turn::Uncalled, ROUND_WORK / 2);
        assert_eq!(turns.begin(&links[1]), None);
        assert_eq!(waiting(&turns.eager), [1]);
        assert!(!turns.call());
        assert_eq!(turns.begin(&links[1]), Some(Turn::Called));
        assert_eq!(turns.begin(&links[2]), Some(Turn::Uncalled));
    }

    #[test]
    fn many_with_much_to_be_written_are_not_called_at_once() {
        let (turns, links) = (Turns::default(), links(5));
        turns.was_read(Turn::Uncalled, ROUND_WORK);
        for link in &links {
            link.push(Bytes::from(vec![0; ROUND_WORK / 2 * WRITE_WORK_BYTES]));
            assert_eq!(turns.begin(link), None);
        }
        assert!(turns.call());
        assert_eq!(waiting(&turns.eager), [2, 3, 4]);
    }

    #[test]
    fn many_that_are_to_be_closed_are_not_called_at_once() {
        let (turns, links) = (Turns::default(), links(100));
        turns.was_read(Turn::Uncalled, ROUND_WORK);
        for link in &links {
            link.close();
            assert_eq!(turns.begin(link), None);
        }
        assert!(turns.call());
        assert_eq!(turns.eager.borrow().len(), 100 - 57);
    }

    #[test]
    fn handshakes_that_a_round_has_no_time_for_have_the_next_in_the_order_in_which_they_came() {
        let turns = Turns::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut handshakes: Vec<_> = (0..20).map(|_| Box::pin(turns.handshake())).collect();
        handshakes.retain_mut(|turn| turn.as_mut().poll(&mut cx).is_pending());
        assert_eq!(handshakes.len(), 20 - HANDSHAKES_CALLED_MAX);
        turns.call();
        let last = handshakes.split_off(HANDSHAKES_CALLED_MAX);
        // Whoever gives up gives his turn back.
        drop(handshakes.drain(1..));
        assert!(handshakes[0].as_mut().poll(&mut cx).is_ready());
        for mut turn in last {
            assert!(turn.as_mut().poll(&mut cx).is_ready());
        }
        turns.call();
        assert_eq!(turns.handshakes.available_permits(), HANDSHAKES_CALLED_MAX);
        turns.call();
        assert_eq!(turns.handshakes.available_permits(), HANDSHAKES_CALLED_MAX);
    }

    #[test]
    fn who_leaves_waits_until_it_is_called_and_once() {
        let (turns, links) = (Turns::default(), links(20));
        for _ in 0..2 {
            assert!(links.iter().all(|link| !turns.leave(link)));
        }
        assert!(turns.call());
        assert_eq!(waiting(&turns.leaving), [16, 17, 18, 19]);
        assert!(turns.leave(&links[0]) && !turns.leave(&links[16]));
        assert!(!turns.call());
        assert!(links.iter().all(|link| turns.leave(link)));
    }
}
