//! Work that a round has room for only so much of, whoever it is done for: those who come when it is used up wait for the next,
//! in the order in which they came.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// So many of a kind in a round.
pub(super) struct Quota {
    left: Semaphore,
    each_round: usize,
}

impl Quota {
    pub(super) fn new(each_round: usize) -> Self {
        Self {
            left: Semaphore::new(each_round),
            each_round,
        }
    }

    pub(super) async fn take(&self) {
        if let Ok(turn) = self.left.acquire().await {
            turn.forget();
        }
    }

    /// A round begins.
    pub(super) fn renew(&self) {
        let taken = self.each_round.saturating_sub(self.left());
        self.left.add_permits(taken);
    }

    pub(super) fn left(&self) -> usize {
        self.left.available_permits()
    }
}

/// So much time of a round. What is begun in it is done, so that a round has one piece of work more at most.
pub(crate) struct TimeQuota {
    time: Duration,
    spent: Cell<Duration>,
    /// One, while there is time left and nobody is at work.
    turn: Semaphore,
    waiting: Cell<usize>,
}

impl TimeQuota {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            spent: Cell::default(),
            turn: Semaphore::new(1),
            waiting: Cell::default(),
        }
    }

    /// Resolves when there is time; the work is to be done at once, see [`Self::working`].
    pub(crate) async fn take(&self) {
        let _waiting = Waiting::begin(&self.waiting);
        if let Ok(turn) = self.turn.acquire().await {
            turn.forget();
        }
    }

    /// The work of whoever has taken a turn lasts until this is dropped.
    pub(crate) fn working(&self) -> Working<'_> {
        Working {
            quota: self,
            begun: Instant::now(),
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// A round begins.
    pub(super) fn renew(&self) {
        if self.spent.replace(Duration::ZERO) >= self.time {
            self.turn.add_permits(1);
        }
    }

    fn spend(&self, time: Duration) {
        let spent = self.spent.get() + time;
        self.spent.set(spent);
        if spent < self.time {
            self.turn.add_permits(1);
        }
    }
}

/// See [`TimeQuota::working`].
pub(crate) struct Working<'a> {
    quota: &'a TimeQuota,
    begun: Instant,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.quota.spend(self.begun.elapsed());
    }
}

/// One of those who wait, until it is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn those_that_a_round_has_no_room_for_have_the_next_in_the_order_in_which_they_came() {
        let quota = Quota::new(2);
        let mut cx = Context::from_waker(Waker::noop());
        let mut turns: Vec<_> = (0..5).map(|_| Box::pin(quota.take())).collect();
        turns.retain_mut(|turn| turn.poll_unpin(&mut cx).is_pending());
        assert_eq!(turns.len(), 3);
        quota.renew();
        let last = turns.split_off(2);
        // Whoever gives up gives his turn back.
        drop(turns.drain(1..));
        assert!(turns[0].poll_unpin(&mut cx).is_ready());
        for mut turn in last {
            assert!(turn.poll_unpin(&mut cx).is_ready());
        }
        for _ in 0..2 {
            quota.renew();
            assert_eq!(quota.left(), 2);
        }
    }

    /// A round's time, by spending more or less than it.
    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn when_the_time_of_a_round_is_spent_others_wait_for_the_next() {
        let quota = TimeQuota::new(TIME);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            assert!(quota.take().now_or_never().is_some());
            // Next to nothing.
            drop(quota.working());
        }
        assert!(quota.take().now_or_never().is_some());
        let mut turns: Vec<_> = (0..3).map(|_| Box::pin(quota.take())).collect();
        turns.retain_mut(|turn| turn.poll_unpin(&mut cx).is_pending());
        assert_eq!((turns.len(), quota.waiting()), (3, 3), "one is at work");
        quota.spend(TIME);
        assert!(turns[0].poll_unpin(&mut cx).is_pending());
        drop(turns.remove(1));
        assert_eq!(quota.waiting(), 2);
        quota.renew();
        assert!(turns[1].poll_unpin(&mut cx).is_pending(), "out of turn");
        assert!(turns[0].poll_unpin(&mut cx).is_ready());
        drop(quota.working());
        assert!(turns[1].poll_unpin(&mut cx).is_ready());
        assert_eq!(quota.waiting(), 0);
        quota.spend(TIME);
        for _ in 0..2 {
            quota.renew();
            assert_eq!(quota.turn.available_permits(), 1);
        }
    }
}
