//! Token buckets, kept as one number each: the moment at which the bucket is full again (the generic cell rate algorithm
//! of ITU-T I.371, which is the same as a token bucket).

use std::collections::HashMap;

use ahash::RandomState;
use rialto_protocol::ids::UserId;

use crate::io::Now;

/// Buckets of users at which those that are full are looked for first.
const PRUNE_AT_MIN: usize = 1024;

/// How fast and how much at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Between two tokens; 0: no limit.
    interval_ns: u64,
    /// What a full bucket is worth.
    burst_ns: u64,
}

/// One bucket: when it is full again, monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket(u64);

/// What a bucket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many of those asked for.
    pub(super) allowed: usize,
    /// When the next is to be had, if not all were; at least 1 then.
    pub(super) retry_after_ms: u32,
}

impl Rate {
    /// `per_s` 0: no limit. At least one at once.
    pub(super) fn new(per_s: u32, burst: u32) -> Self {
        let interval_ns = if per_s == 0 {
            0
        } else {
            (1_000_000_000 / u64::from(per_s)).max(1)
        };
        Self {
            interval_ns,
            burst_ns: interval_ns * u64::from(burst.max(1)),
        }
    }

    /// Takes tokens that the bucket may not have yet: the next take waits for them.
    fn owe(self, bucket: &mut Bucket, tokens: usize) {
        bucket.0 += tokens as u64 * self.interval_ns;
    }

    /// Takes up to `wanted` tokens.
    pub(super) fn take(self, bucket: &mut Bucket, now: Now, wanted: usize) -> Taken {
        if self.interval_ns == 0 {
            return Taken {
                allowed: wanted,
                retry_after_ms: 0,
            };
        }
        let now_ns = now.mono_us * 1_000;
        let full_at = bucket.0.max(now_ns);
        let room = (now_ns + self.burst_ns).saturating_sub(full_at) / self.interval_ns;
        let allowed = usize::try_from(room).unwrap_or(usize::MAX).min(wanted);
        bucket.0 = full_at + allowed as u64 * self.interval_ns;
        let retry_after_ms = if allowed == wanted {
            0
        } else {
            let at = (bucket.0 + self.interval_ns).saturating_sub(self.burst_ns);
            u32::try_from(at.saturating_sub(now_ns).div_ceil(1_000_000))
                .unwrap_or(u32::MAX)
                .max(1)
        };
        Taken {
            allowed,
            retry_after_ms,
        }
    }
}

/// The buckets of users who published lately, shared by all their sessions here.
#[derive(Debug)]
pub(super) struct UserRates {
    rate: Rate,
    buckets: HashMap<UserId, Bucket, RandomState>,
    prune_at: usize,
}

impl UserRates {
    pub(super) fn new(rate: Rate, hasher: RandomState) -> Self {
        Self {
            rate,
            buckets: HashMap::with_hasher(hasher),
            prune_at: PRUNE_AT_MIN,
        }
    }

    /// Takes up to `wanted` tokens of a user's.
    pub(super) fn take(&mut self, user: UserId, now: Now, wanted: usize) -> Taken {
        if self.rate.interval_ns == 0 {
            return Taken {
                allowed: wanted,
                retry_after_ms: 0,
            };
        }
        if self.buckets.len() >= self.prune_at {
            self.prune(now);
        }
        self.rate
            .take(self.buckets.entry(user).or_default(), now, wanted)
    }

    /// What the user took a token for costs more than that one.
    pub(super) fn owe(&mut self, user: UserId, tokens: usize) {
        if let Some(bucket) = self.buckets.get_mut(&user) {
            self.rate.owe(bucket, tokens);
        }
    }

    /// Buckets in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// A full bucket is the same as none.
    fn prune(&mut self, now: Now) {
        self.buckets
            .retain(|_, bucket| bucket.0 > now.mono_us * 1_000);
        self.prune_at = (self.buckets.len() * 2).max(PRUNE_AT_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CoreConfig;

    fn at_ms(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            unix_ms: 0,
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate::new(10, 30);
        let mut bucket = Bucket::default();
        assert_eq!(
            rate.take(&mut bucket, at_ms(0), 256),
            Taken {
                allowed: 30,
                retry_after_ms: 100
            }
        );
        assert_eq!(
            rate.take(&mut bucket, at_ms(99), 1),
            Taken {
                allowed: 0,
                retry_after_ms: 1
            }
        );
        assert_eq!(
            rate.take(&mut bucket, at_ms(100), 1),
            Taken {
                allowed: 1,
                retry_after_ms: 0
            }
        );
        assert_eq!(rate.take(&mut bucket, at_ms(10_000), 31).allowed, 30);
    }

    #[test]
    fn what_is_owed_comes_in_before_the_next() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        rate.owe(&mut bucket, 7);
        let none = |retry_after_ms| Taken {
            allowed: 0,
            retry_after_ms,
        };
        assert_eq!(rate.take(&mut bucket, at_ms(0), 1), none(300));
        assert_eq!(rate.take(&mut bucket, at_ms(299), 1), none(1));
        assert_eq!(rate.take(&mut bucket, at_ms(300), 1).allowed, 1);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!(
            Rate::new(0, 0)
                .take(&mut Bucket::default(), at_ms(0), 1_000)
                .allowed,
            1_000
        );
    }

    #[test]
    fn full_buckets_of_users_are_dropped() {
        let mut rates = UserRates::new(Rate::new(10, 30), CoreConfig::default().hasher());
        for number in 0..5_000_u16 {
            let mut id = [1; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            // One token is back after 100 ms, so about 100 buckets are not full at any time.
            rates.take(UserId::from_bytes(id), at_ms(u64::from(number)), 1);
        }
        assert!(rates.len() <= PRUNE_AT_MIN, "{} buckets", rates.len());
    }
}
