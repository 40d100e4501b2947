//! Work that a round has so much time for, whoever it is done for: those who come when it is used up wait for the next, in the
//! order in which they came.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Called at the beginning of a round: as many as there may be time for if each wants little.
const CALLED_MAX: usize = 32;

/// So much time of a round. What is begun in it is done, so that a round has one piece of work more at most.
pub(crate) struct TimeQuota {
    time: Duration,
    spent: Cell<Duration>,
    /// Given to the next who waits.
    number: Cell<u64>,
    /// Those with lesser numbers were called.
    called: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Waker>>,
}

impl TimeQuota {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            spent: Cell::default(),
            number: Cell::default(),
            called: Cell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Resolves when there is time; the work is to be done at once, see [`Self::working`].
    pub(crate) fn take(&self) -> Take<'_> {
        Take {
            quota: self,
            place: None,
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
        self.waiting.borrow().len()
    }

    /// A round begins. Those who are called and find no time keep their places. Whether somebody waits: those who are called may be
    /// gone, and then have no other round begun for those behind them.
    pub(super) fn renew(&self) -> bool {
        self.spent.set(Duration::ZERO);
        let waiting = self.waiting.borrow();
        for (number, waker) in waiting.iter().take(CALLED_MAX) {
            self.called.set(number + 1);
            waker.wake_by_ref();
        }
        !waiting.is_empty()
    }

    /// The round has no time left.
    #[cfg(test)]
    pub(crate) fn use_up(&self) {
        self.spend(self.time);
    }

    /// What was spent of the round so far.
    #[cfg(test)]
    pub(crate) fn spent(&self) -> Duration {
        self.spent.get()
    }

    fn has_time(&self) -> bool {
        self.spent.get() < self.time
    }

    fn spend(&self, time: Duration) {
        self.spent.set(self.spent.get() + time);
    }
}

/// See [`TimeQuota::take`].
pub(crate) struct Take<'a> {
    quota: &'a TimeQuota,
    /// Among those who wait.
    place: Option<u64>,
}

impl Future for Take<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let quota = self.quota;
        let mut waiting = quota.waiting.borrow_mut();
        let may = match self.place {
            // Whoever comes now comes behind those who wait.
            None => waiting.is_empty(),
            Some(number) => number < quota.called.get(),
        };
        if may && quota.has_time() {
            if let Some(number) = self.place.take() {
                waiting.remove(&number);
            }
            return Poll::Ready(());
        }
        let number = self
            .place
            .unwrap_or_else(|| quota.number.replace(quota.number.get() + 1));
        waiting.insert(number, cx.waker().clone());
        self.place = Some(number);
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.place {
            self.quota.waiting.borrow_mut().remove(&number);
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures_util::FutureExt as _;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

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
        quota.spend(TIME);
        let mut turns: Vec<_> = (0..3).map(|_| Box::pin(quota.take())).collect();
        let mut poll = |turn: &mut Pin<Box<Take<'_>>>| turn.poll_unpin(&mut cx).is_ready();
        assert!(!turns.iter_mut().any(&mut poll));
        assert_eq!(quota.waiting(), 3);
        drop(turns.remove(1));
        assert_eq!(quota.waiting(), 2);
        quota.renew();
        let mut late = Box::pin(quota.take());
        assert!(!poll(&mut late), "out of turn");
        assert!(poll(&mut turns[0]));
        quota.spend(TIME);
        assert!(!poll(&mut turns[1]) && !poll(&mut late));
        quota.renew();
        assert!(poll(&mut turns[1]) && poll(&mut late));
        assert_eq!(quota.waiting(), 0);
    }

    #[test]
    fn very_many_are_called_some_at_a_time_in_the_order_in_which_they_came() {
        let quota = TimeQuota::new(TIME);
        let mut cx = Context::from_waker(Waker::noop());
        quota.spend(TIME);
        let count = 3 * CALLED_MAX - 1;
        let mut turns: Vec<_> = (0..count).map(|_| Box::pin(quota.take())).collect();
        turns.retain_mut(|turn| turn.poll_unpin(&mut cx).is_pending());
        assert_eq!(turns.len(), count);
        for left in [2 * CALLED_MAX - 1, CALLED_MAX - 1, 0] {
            assert!(quota.renew(), "somebody waits");
            // Whoever is not called has none, even if he looks first.
            let last = turns.last_mut();
            assert!(left == 0 || last.is_none_or(|turn| turn.poll_unpin(&mut cx).is_pending()));
            turns.retain_mut(|turn| turn.poll_unpin(&mut cx).is_pending());
            assert_eq!((turns.len(), quota.waiting()), (left, left));
        }
    }

    #[tokio::test]
    async fn as_many_as_there_is_time_for_are_served_in_a_round() {
        const COUNT: usize = 100;
        let quota = Rc::new(TimeQuota::new(TIME));
        quota.spend(TIME);
        let tasks = LocalSet::new();
        let rounds = tasks.run_until(async {
            let served = Rc::new(Cell::new(0));
            for _ in 0..COUNT {
                let (quota, served) = (Rc::clone(&quota), Rc::clone(&served));
                spawn_local(async move {
                    quota.take().await;
                    let _working = quota.working();
                    served.set(served.get() + 1);
                });
            }
            yield_now().await;
            let mut rounds = 0;
            while served.get() < COUNT {
                quota.renew();
                rounds += 1;
                yield_now().await;
            }
            rounds
        });
        let rounds = rounds.await;
        assert!(rounds <= COUNT.div_ceil(CALLED_MAX) + 1, "{rounds}");
    }
}
