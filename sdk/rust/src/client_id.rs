//! Client ids: UUIDv7, each greater than the one before, whatever the clock does.

use std::time::{SystemTime, UNIX_EPOCH};

use rialto_protocol::ids::{ClientId, ConversationId};

/// Ids of one millisecond: what fits into the 26 bits behind the time.
const COUNTER_MAX: u32 = (1 << 26) - 1;

/// Makes client ids: 48 bits of time, 26 of a counter, 48 that tell this generator from every other.
#[derive(Debug)]
pub struct ClientIds {
    time_ms: u64,
    counter: u32,
    random: [u8; 6],
}

impl ClientIds {
    /// A generator; `random` tells it from every other.
    #[must_use]
    pub const fn new(random: [u8; 6]) -> Self {
        Self {
            time_ms: 0,
            counter: 0,
            random,
        }
    }

    /// Lets no id be of an earlier time, milliseconds since 1970: a server's, to which this machine's clock may be slow.
    pub const fn not_before(&mut self, time_ms: u64) {
        if time_ms > self.time_ms {
            (self.time_ms, self.counter) = (time_ms, 0);
        }
    }

    /// The next id, at `now_ms` milliseconds since 1970.
    pub fn next(&mut self, now_ms: u64) -> ClientId {
        if now_ms > self.time_ms {
            (self.time_ms, self.counter) = (now_ms, 0);
        } else if self.counter == COUNTER_MAX {
            (self.time_ms, self.counter) = (self.time_ms + 1, 0);
        } else {
            self.counter += 1;
        }
        // Version and variant take the upper bits of bytes 6 and 8: 12 bits of the counter go before the variant, 14 after.
        let upper = self.counter >> 14;
        let [_, _, upper_1, upper_0] = upper.to_be_bytes();
        let [_, _, lower_1, lower_0] = (self.counter & 0x3fff).to_be_bytes();
        let mut entropy = [0; 10];
        entropy[..4].copy_from_slice(&[upper_1, upper_0, lower_1, lower_0]);
        entropy[4..].copy_from_slice(&self.random);
        ClientId::v7(self.time_ms, entropy)
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A new conversation id.
pub(crate) fn conversation_id() -> Result<ConversationId, getrandom::Error> {
    Ok(ConversationId::v7(now_ms(), random()?))
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back() {
        let mut ids = ClientIds::new([0xff; 6]);
        let mut last = ids.next(1_000);
        for now_ms in [1_000, 1_000, 999, 5, 1_001, 1_001, 1_000] {
            let id = ids.next(now_ms);
            assert!(id > last && id.is_v7(), "{id} after {last}");
            last = id;
        }
        assert_eq!(last.time_ms(), 1_001);
    }

    #[test]
    fn ids_rise_past_every_boundary_of_the_counter() {
        for counter in [
            (1 << 8) - 1,
            (1 << 14) - 1,
            (1 << 22) - 1,
            COUNTER_MAX - 1,
            COUNTER_MAX,
        ] {
            let mut ids = ClientIds {
                time_ms: 7,
                counter: counter - 1,
                random: [0xff; 6],
            };
            let (before, at, after) = (ids.next(7), ids.next(7), ids.next(7));
            assert!(before < at && at < after, "{counter}");
        }
    }

    #[test]
    fn ids_are_not_of_before_the_servers_time_and_rise_through_it() {
        let mut ids = ClientIds::new([0xff; 6]);
        ids.not_before(5_000);
        let first = ids.next(10);
        ids.not_before(4_000);
        let second = ids.next(10);
        ids.not_before(6_000);
        let third = ids.next(6_000);
        assert!(first < second && second < third);
        assert_eq!(
            [first, second, third].map(|id| id.time_ms()),
            [5_000, 5_000, 6_000]
        );
    }

    #[test]
    fn generators_differ_at_the_same_time() {
        assert_ne!(
            ClientIds::new([1; 6]).next(9),
            ClientIds::new([2; 6]).next(9)
        );
    }
}
