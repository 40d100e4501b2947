//! The attempts at something that is sent again by itself: when the next one is due, and what its caller is told in the end.

use std::time::Duration;

use rialto_protocol::error::ErrorCode;

use crate::error::{Retry, ServerError};

/// How often something is sent again that the server refused for now.
pub(crate) const ATTEMPTS_MAX: u8 = 8;
/// Wait before that, when the server gave no advice; doubled with each attempt.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait before that, whatever the server says.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// The attempts at one draft or request so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    refusals: u8,
    doubt: Doubt,
}

/// Whether an attempt may have done it already. A refusal that says that nothing happened speaks of the last attempt alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubt {
    /// None has.
    #[default]
    None,
    /// One of the session's own, which goes on until it knows.
    Session,
    /// One of the caller's, who goes on himself.
    Caller,
}

impl Attempts {
    /// The last one may have done it.
    pub(crate) fn doubt(&mut self) {
        if self.doubt == Doubt::None {
            self.doubt = Doubt::Session;
        }
    }

    /// One that the caller made before this may have done it.
    pub(crate) const fn doubt_caller(&mut self) {
        self.doubt = Doubt::Caller;
    }

    /// Whether this refusal of the last one leaves open what an earlier one of the session's did, so that only another tells.
    pub(crate) fn leaves_open(&self, error: &ServerError) -> bool {
        self.doubt == Doubt::Session && error.retry() == Retry::Safe
    }

    /// The last one was refused for a reason that passes. How long to wait before the next one; none: there were enough.
    pub(crate) fn again(&mut self, error: &ServerError) -> Option<Duration> {
        if self.refusals == ATTEMPTS_MAX {
            return None;
        }
        let backoff = AGAIN * 2_u32.pow(self.refusals.into());
        let wait = match error.retry_after() {
            // It is when the first of all that wait has its turn.
            Some(advised) if error.retry() == Retry::Safe => advised.max(backoff),
            Some(advised) => advised,
            None => backoff,
        };
        if !error.is(ErrorCode::ShuttingDown) {
            // That passes with the connection, and says nothing about what was sent.
            self.refusals += 1;
        }
        Some(wait.min(AGAIN_MAX))
    }

    /// The refusal of the last one as the caller is told it, for whom all of them count.
    pub(crate) fn told(&self, error: ServerError) -> ServerError {
        match error.retry() {
            Retry::Safe => error.with_retry(self.counted(Retry::Safe)),
            Retry::MaybeDuplicate | Retry::Never => error,
        }
    }

    /// What holds for all of them, when this holds for the last one.
    pub(crate) fn counted(&self, retry: Retry) -> Retry {
        if retry == Retry::Safe && self.doubt != Doubt::None {
            Retry::MaybeDuplicate
        } else {
            retry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(after_ms: u32) -> ServerError {
        ErrorCode::RateLimited.to_proto(after_ms).into()
    }

    #[test]
    fn nothing_happened_is_believed_only_where_nothing_was_sent_before() {
        let mut attempts = Attempts::default();
        assert!(!attempts.leaves_open(&limited(1)));
        assert_eq!(attempts.told(limited(1)).retry(), Retry::Safe);
        attempts.doubt();
        assert!(attempts.leaves_open(&limited(1)));
        assert_eq!(attempts.told(limited(1)).retry(), Retry::MaybeDuplicate);
        let refused = ServerError::from(ErrorCode::NotAMember.to_proto(0));
        assert!(!attempts.leaves_open(&refused));
        assert_eq!(attempts.told(refused).retry(), Retry::Never);
    }

    #[test]
    fn what_the_caller_sends_again_by_hand_is_left_to_him() {
        let mut attempts = Attempts::default();
        attempts.doubt_caller();
        attempts.doubt();
        assert!(!attempts.leaves_open(&limited(1)));
        assert_eq!(attempts.told(limited(1)).retry(), Retry::MaybeDuplicate);
        assert_eq!(attempts.counted(Retry::Safe), Retry::MaybeDuplicate);
    }

    #[test]
    fn many_that_wait_for_a_turn_each_get_one_in_the_end() {
        let mut attempts = Attempts::default();
        let waits: Vec<_> = std::iter::from_fn(|| attempts.again(&limited(150))).collect();
        let waits_ms: Vec<_> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(waits_ms, [150, 200, 400, 800, 1_600, 3_200, 6_400, 12_800]);
        let mut attempts = Attempts::default();
        assert_eq!(attempts.again(&limited(3_600_000)), Some(AGAIN_MAX));
    }
}
