//! The directory: what is known of users beside what they say.
//!
//! It holds what the broker itself needs: when somebody was last seen. Accounts and the like come with the bridge.

use rialto_protocol::ids::UserId;

use crate::StoreFuture;

/// Look-ups and changes of users.
pub trait Directory: Send + Sync + 'static {
    /// Notes that a user was connected until `time_ms`. Later times win. Durable within seconds, not at once:
    /// losing the last ones in a crash makes "last seen" a little older, never newer, and so do those of a call that fails.
    ///
    /// # Errors
    /// [`DirectoryError`], as with every method here.
    fn record_seen(&self, seen: Vec<Seen>) -> StoreFuture<(), DirectoryError>;

    /// When each user was last seen, milliseconds since 1970, in the order asked; `None`: never.
    fn last_seen(&self, users: Vec<UserId>) -> StoreFuture<Vec<Option<u64>>, DirectoryError>;
}

/// A user was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose.
    pub user: UserId,
    /// Until when, milliseconds since 1970.
    pub time_ms: u64,
}

/// The directory cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// What the operating system or the store said.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: String,
    },
    /// More reads wait than may, or more times to be written. Safe to try again.
    #[error("too much is waiting")]
    Busy,
}
