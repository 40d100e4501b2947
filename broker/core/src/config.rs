//! What the core can be told; the binary's configuration fills it in.

use rialto_protocol::limits;

/// Limits and times of a shard. All sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Largest frame after authentication.
    pub frame_bytes_max: usize,
    /// Largest message body.
    pub body_bytes_max: usize,
    /// Requests of one connection that may wait for answers; past it the connection is not read.
    pub in_flight_bytes_max: usize,
    /// Frames queued for one connection; past it its subscriptions read from the log once it has drained.
    pub queue_bytes_max: usize,
    /// What a shard holds for its connections: half of it in frames queued and requests that wait for answers; past that each
    /// connection has an equal part of an eighth, from 4 to 64 KiB. A quarter is for beginnings of frames.
    pub shard_bytes_max: usize,
    /// Events that one catch-up read may bring.
    pub catch_up_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Messages a second and a user, a Create as one and one more for every 8 members; 0: no limit.
    pub publish_per_s: u32,
    /// Messages at once.
    pub publish_burst: u32,
    /// Other requests a second and a user, a page as one for each 100 that it is to hold; 0: no limit.
    pub requests_per_s: u32,
    /// Other requests at once.
    pub requests_burst: u32,
    /// From the accepted connection to its Hello.
    pub handshake_timeout_ms: u32,
    /// A client that has been silent this long is to send Ping; after three times that it is closed.
    pub keep_alive_ms: u32,
    /// While a shard holds more than half of what it may, a connection that holds more than its share, and whose client has taken
    /// hardly anything for so long, is closed.
    pub unread_timeout_ms: u32,
    /// Conversations kept in memory by one shard while nobody follows them.
    pub conversations_max: usize,
    /// Members kept in memory by one shard.
    pub members_max: usize,
    /// Newest events of a conversation of which the essentials stay in memory: most marks, edits, reactions and retries are
    /// about one of them, and need no read then.
    pub recent_events_max: usize,
    /// Inputs that may wait for a read, all conversations of a shard together.
    pub parked_max: usize,
    /// Members of one conversation.
    pub members_per_conversation_max: u32,
    /// Entries of one lane that may be on their way to the disk at once; 1 where each is a conditional insert.
    pub entries_in_flight_max: usize,
    /// Records at which a lane's entry is closed before the batch ends.
    pub entry_bytes_max: usize,
    /// Seed of all hash maps. The shell passes randomness, against keys crafted to collide; a simulation passes a fixed
    /// one, and the same inputs have the same outputs in the same order, in every run.
    pub hash_seed: u64,
}

impl CoreConfig {
    /// [`CoreConfig::shard_bytes_max`] unless configured otherwise.
    pub(crate) const SHARD_BYTES_MAX_DEFAULT: usize = 512 << 20;

    /// How the hash maps hash: the same for the same seed.
    #[must_use]
    pub fn hasher(&self) -> ahash::RandomState {
        let seed = self.hash_seed;
        // Four keys that differ and all depend on the seed; ahash mixes its own constants in.
        ahash::RandomState::with_seeds(
            seed,
            seed.rotate_left(16),
            seed.rotate_left(32),
            seed.rotate_left(48),
        )
    }
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::FRAME_BYTES_MAX_DEFAULT,
            body_bytes_max: limits::BODY_BYTES_MAX_DEFAULT,
            in_flight_bytes_max: 1 << 20,
            queue_bytes_max: 4 << 20,
            shard_bytes_max: Self::SHARD_BYTES_MAX_DEFAULT,
            catch_up_bytes_max: 256 << 10,
            subscriptions_max: 10_000,
            publish_per_s: 10,
            publish_burst: 30,
            requests_per_s: 100,
            requests_burst: 1_000,
            handshake_timeout_ms: 5_000,
            keep_alive_ms: 50_000,
            unread_timeout_ms: 30_000,
            conversations_max: 50_000,
            members_max: 200_000,
            recent_events_max: 16,
            parked_max: 100_000,
            members_per_conversation_max: 1_000_000,
            entries_in_flight_max: usize::MAX,
            entry_bytes_max: 128 << 10,
            hash_seed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_decides_how_keys_hash() {
        let hash = |hash_seed| {
            CoreConfig {
                hash_seed,
                ..CoreConfig::default()
            }
            .hasher()
            .hash_one("key")
        };
        assert_eq!(hash(7), hash(7));
        assert_ne!(hash(7), hash(8));
        assert_ne!(hash(0), hash(1 << 63));
    }
}
