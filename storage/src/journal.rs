//! The journal: a lane's ordered, fenced record of everything that happened. The truth.

use bytes::Bytes;
use rialto_protocol::ids::{Epoch, LaneId, Position, UserId};

use crate::StoreFuture;

/// Appends and replays lanes.
pub trait Journal: Send + Sync + 'static {
    /// How many lanes the data set has; fixed when it is created.
    fn lanes(&self) -> u16;

    /// Takes the lanes over: raises their epoch, makes sure that no former owner can append any more, and finds their
    /// tails. Claims come back in the order asked.
    ///
    /// # Errors
    /// [`JournalError`] when the lanes cannot be read or the new epoch cannot be made durable.
    fn claim(&self, lanes: Vec<LaneId>) -> StoreFuture<Vec<Claim>, JournalError>;

    /// Makes entries durable. Entries of one lane must come at exactly the position after the lane's last one and under
    /// the epoch of its claim; calls for a lane take effect in the order of the calls. Resolves once all are durable (one
    /// machine: the group's `fdatasync` has returned).
    ///
    /// # Errors
    /// See [`AppendError`]: each says whether anything may have been kept.
    fn append(&self, entries: Vec<Entry>) -> StoreFuture<(), AppendError>;

    /// Waits until the views hold everything that was durable at the call, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// [`JournalError`] when the views cannot be written.
    fn settle(&self) -> StoreFuture<(), JournalError>;

    /// Figures for metrics and for `rialto status`.
    fn status(&self) -> JournalStatus;
}

/// A batch of records of one lane: what one append makes durable, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The lane.
    pub lane: LaneId,
    /// Of the owner that writes it.
    pub epoch: Epoch,
    /// Exactly the lane's last position + 1; the first is 1.
    pub position: Position,
    /// Journal time, milliseconds since 1970; never less than that of the entry before.
    pub time_ms: u64,
    /// Encoded [`rialto_protocol::record::Record`]s; at most [`ENTRY_BYTES_MAX`]. Their conversations belong to the lane
    /// ([`LaneId::of`]): reads look for them there.
    pub records: Bytes,
}

/// Longest entry: a CQL row that an LWT carries well would be 128 KiB; one batch of one client (a full frame) must fit.
pub const ENTRY_BYTES_MAX: usize = 2 << 20;

/// A lane, as its new owner finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lane.
    pub lane: LaneId,
    /// Greater than every epoch that the lane has seen, and never used before, even where older data was restored.
    pub epoch: Epoch,
    /// Position of the last durable entry; 0: none.
    pub tail: Position,
    /// Journal time of the last durable entry; 0: none.
    pub time_ms: u64,
    /// Outbox records that no outbox-done record covers, in order.
    pub outbox: Vec<OutboxItem>,
}

/// Something that a lane still has to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// Position of its entry.
    pub position: Position,
    /// Number among the outbox records of that entry, from 0.
    pub index: u16,
    /// Journal time of its entry.
    pub time_ms: u64,
    /// Whose inbox.
    pub user: UserId,
    /// Encoded `rialto.v1.Notice`.
    pub notice: Bytes,
}

/// Why entries were not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room for another segment. Nothing was kept; reads go on; appends work again once there is room.
    #[error("the disk is full: free space in the data directory, appending goes on by itself")]
    Full,
    /// No segment can be made, for this reason. Nothing was kept; reads go on; appends work again once one can.
    #[error("no journal segment can be made ({0}): appending goes on by itself once one can")]
    NoSegment(String),
    /// A write or sync failed, now or earlier. The entries may or may not have been kept; this process cannot append any
    /// more and has to be started again, which recovers.
    #[error("the journal is poisoned: {0}")]
    Poisoned(String),
    /// Another owner has the lane.
    #[error("lane {lane} has another owner")]
    Fenced {
        /// The lane that was lost.
        lane: LaneId,
    },
    /// A mistake of the caller: wrong position or epoch, time going back, too large. Nothing was kept.
    #[error("entry refused: {0}")]
    Refused(String),
}

/// Why a journal cannot be opened, claimed or settled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// What the operating system said, and about what.
    #[error("{what}: {cause}")]
    Io {
        /// The file or directory and what was done to it.
        what: String,
        /// The operating system's text.
        cause: String,
    },
    /// Bytes that were durable are damaged. Says what to do.
    #[error("{0}")]
    Damaged(String),
    /// The data was written by a newer version, or is of another kind.
    #[error("{0}")]
    Format(String),
    /// Another process uses the data directory.
    #[error("{0}")]
    Locked(String),
}

/// Figures of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Entries appended since the start.
    pub entries: u64,
    /// Bytes appended since the start.
    pub bytes: u64,
    /// Groups written, each with one sync.
    pub groups: u64,
    /// Sum of the time that syncs took, microseconds.
    pub sync_us: u64,
    /// Durable bytes that the views do not hold yet.
    pub views_lag_bytes: u64,
    /// Segments that the views do not hold yet.
    pub views_lag_segments: u64,
    /// Segments on disk, recycled ones included.
    pub segments: u64,
    /// Of these, segments that the views hold and that cannot go, because they or one before them have something to pass on.
    pub outbox_segments: u64,
    /// Appends were slowed because the views lagged, times.
    pub slowed: u64,
    /// Poisoned: nothing can be appended any more.
    pub poisoned: bool,
}
