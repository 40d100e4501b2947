//! Byte credit: how much a client may have in flight, as far as its caller would have it and the server takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rialto_protocol::v1;
use tokio::sync::{Notify, Semaphore};

/// Least byte credit of anything that is sent: so its number is bounded too.
pub(crate) const COST_MIN: usize = 64;
/// Most byte credit of a client: with [`COST_MIN`], requests in flight stay below what request ids can tell apart.
const CREDIT_MAX: usize = 48 << 20;

/// The byte credit of one client.
#[derive(Debug)]
pub(crate) struct Credit {
    free: Semaphore,
    /// What the caller would have.
    wanted: usize,
    granted: Mutex<Granted>,
    /// There is less in all: whoever waits for more than that would wait for ever.
    lowered: Notify,
}

#[derive(Debug)]
struct Granted {
    /// What there is in all.
    bytes: u32,
    /// How much there is beyond that, which is not to be free again.
    excess: u32,
}

impl Credit {
    /// Of a client that would have `wanted` bytes, with a server of these limits.
    pub(crate) fn new(wanted: usize, limits: &v1::Limits) -> Self {
        let bytes = granted(wanted, limits);
        Self {
            free: Semaphore::new(bytes as usize),
            wanted,
            granted: Mutex::new(Granted { bytes, excess: 0 }),
            lowered: Notify::new(),
        }
    }

    fn granted(&self) -> MutexGuard<'_, Granted> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more may be in flight. What was taken: to be given back with [`Credit::release`]. None: it is closed.
    pub(crate) async fn take(&self, bytes: usize) -> Option<u32> {
        loop {
            let lowered = self.lowered.notified();
            if let Some(cost) = self.try_take(bytes) {
                return Some(cost);
            }
            let cost = self.cost(bytes);
            tokio::select! {
                permit = self.free.acquire_many(cost) => {
                    permit.ok()?.forget();
                    return Some(cost);
                }
                () = lowered => self.take_back(),
            }
        }
    }

    /// As [`Credit::take`], if there is enough.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<u32> {
        let cost = self.cost(bytes);
        self.free.try_acquire_many(cost).ok()?.forget();
        Some(cost)
    }

    /// What is larger than all credit takes all of it.
    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.max(COST_MIN))
            .unwrap_or(u32::MAX)
            .min(self.granted().bytes)
    }

    /// So much is in flight no more.
    pub(crate) fn release(&self, cost: u32) {
        let mut granted = self.granted();
        let kept = cost.min(granted.excess);
        granted.excess -= kept;
        self.free.add_permits((cost - kept) as usize);
    }

    /// A server of these limits from now on. What is in flight beyond them stays there.
    pub(crate) fn limit(&self, limits: &v1::Limits) {
        let bytes = granted(self.wanted, limits);
        let before = std::mem::replace(&mut self.granted().bytes, bytes);
        if bytes < before {
            self.granted().excess += before - bytes;
            self.take_back();
            self.lowered.notify_waiters();
        } else {
            self.release(bytes - before);
        }
    }

    /// Takes what is free of what there is too much of. What is put by for somebody who waits is free when he asks anew.
    fn take_back(&self) {
        let mut granted = self.granted();
        let taken = self.free.forget_permits(granted.excess as usize);
        granted.excess -= u32::try_from(taken).unwrap_or(granted.excess);
    }

    /// Nobody gets any more.
    pub(crate) fn close(&self) {
        self.free.close();
    }
}

/// The byte credit of a client that would have `wanted` bytes, under these limits.
fn granted(wanted: usize, limits: &v1::Limits) -> u32 {
    let bytes = wanted
        .min(limits.in_flight_bytes_max as usize)
        .clamp(COST_MIN, CREDIT_MAX);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn limits(in_flight_bytes_max: u32) -> v1::Limits {
        v1::Limits {
            in_flight_bytes_max,
            ..v1::Limits::default()
        }
    }

    #[test]
    fn a_server_that_takes_more_gives_more_credit_as_far_as_the_caller_would_have_it() {
        let credit = Credit::new(1_000, &limits(200));
        assert_eq!(credit.try_take(5_000), Some(200));
        assert_eq!(credit.try_take(64), None);
        credit.limit(&limits(500));
        assert_eq!(credit.try_take(300), Some(300));
        assert_eq!(credit.try_take(64), None);
        credit.limit(&limits(u32::MAX));
        assert_eq!(credit.try_take(5_000), None);
        assert_eq!(credit.try_take(500), Some(500));
        assert_eq!(credit.try_take(64), None);
    }

    #[test]
    fn a_server_that_takes_less_gets_less_once_what_is_in_flight_has_been_answered() {
        let credit = Credit::new(1_000, &limits(1_000));
        assert_eq!(credit.try_take(700), Some(700));
        credit.limit(&limits(200));
        assert_eq!(credit.try_take(64), None);
        credit.release(500);
        assert_eq!(credit.try_take(64), None);
        credit.release(200);
        assert_eq!(credit.try_take(64), Some(64));
        assert_eq!(credit.try_take(200), None);
        assert_eq!(credit.try_take(136), Some(136));
        // What was owed when a larger limit came is owed no more.
        credit.limit(&limits(100));
        credit.limit(&limits(300));
        assert_eq!(credit.try_take(100), Some(100));
        assert_eq!(credit.try_take(64), None);
        credit.release(300);
        assert_eq!(credit.try_take(5_000), Some(300));
    }

    #[test]
    fn who_waits_for_more_than_there_is_any_more_gets_all_of_it() {
        let credit = Credit::new(1_000, &limits(1_000));
        assert_eq!(credit.try_take(300), Some(300));
        let mut waiting = Box::pin(credit.take(900));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        credit.limit(&limits(200));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        assert_eq!(credit.try_take(64), None, "what was put by for him");
        credit.release(300);
        assert_eq!(waiting.as_mut().now_or_never(), Some(Some(200)));
        assert_eq!(credit.try_take(64), None);
        credit.release(200);
        assert_eq!(credit.try_take(200), Some(200));
    }

    #[test]
    fn nobody_waits_for_what_is_closed() {
        let credit = Credit::new(1_000, &limits(100));
        assert_eq!(credit.try_take(100), Some(100));
        let mut waiting = Box::pin(credit.take(64));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        credit.close();
        assert_eq!(waiting.as_mut().now_or_never(), Some(None));
        assert_eq!(credit.try_take(64), None);
    }
}
