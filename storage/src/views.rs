//! Views: what is read. Made from the journal, behind it; a read finds what is durable either way.
//!
//! Every method answers as of the last durable entry, whether the views hold it already or the journal alone does.

use std::cmp::Reverse;

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, Epoch, Ordinal, Seq, UserId},
    record::Table,
};

use crate::StoreFuture;

/// Reads of what the journal says.
pub trait Views: Send + Sync + 'static {
    /// The end of a conversation's log; `None` when it has no event.
    ///
    /// # Errors
    /// [`ViewsError`] as with every method here.
    fn head(&self, conversation: ConversationId) -> StoreFuture<Option<Head>, ViewsError>;

    /// Events `from..=to`, in rising order, ending early at `bytes_max` (but never before the first). Events below the
    /// oldest that is kept are left out.
    fn events(&self, range: Range) -> StoreFuture<Vec<Bytes>, ViewsError>;

    /// Rises whenever old events are dropped: [`Head::oldest`] may have been read too low before.
    fn drops(&self) -> u64;

    /// The newest value of each key asked for, in that order; `None`: no such row, or deleted.
    fn rows(
        &self,
        conversation: ConversationId,
        table: Table,
        keys: Vec<Bytes>,
    ) -> StoreFuture<Vec<Option<Bytes>>, ViewsError>;

    /// Up to `limit` rows with keys greater than `after` and at most `through` (both optional by being empty), in key order.
    fn scan(&self, scan: Scan) -> StoreFuture<Vec<(Bytes, Bytes)>, ViewsError>;

    /// Of the user's devices that have appended to the conversation those with the newest events, [`SENT_DEVICES_MAX`] at most:
    /// their newest `client_id` and last event. Anybody can have any number of devices.
    fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> StoreFuture<SentDevices, ViewsError>;

    /// The event that was appended under this `client_id`; kept until 7 days have passed by [`Views::sent_as_of_ms`].
    fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> StoreFuture<Option<SentEvent>, ViewsError>;

    /// The greatest journal time that has decided which ids are kept for [`Views::find_sent`], milliseconds since 1970. A clock
    /// that leapt and was set right leaves it in time to come. To be asked after a look-up that has found nothing.
    fn sent_as_of_ms(&self) -> u64;
}

/// The end of a conversation's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the last event.
    pub seq: Seq,
    /// Of the last event.
    pub epoch: Epoch,
    /// Countable messages so far.
    pub ordinal: Ordinal,
    /// Of the last event, milliseconds since 1970.
    pub time_ms: u64,
    /// Oldest event that is kept; one more than `seq` when none is.
    pub oldest: Seq,
}

/// Which events to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose.
    pub conversation: ConversationId,
    /// First seq, included.
    pub from: Seq,
    /// Last seq, included.
    pub to: Seq,
    /// Sum of the events' bytes at which to stop.
    pub bytes_max: usize,
    /// With `Backward` it is the events next to `to` that are kept when `bytes_max` cuts; the answer rises all the same.
    pub order: Order,
}

/// From which end a cut range is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Next to `from`.
    Forward,
    /// Next to `to`.
    Backward,
}

/// Which rows to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Whose.
    pub conversation: ConversationId,
    /// Which table.
    pub table: Table,
    /// Keys greater than this; empty: from the start.
    pub after: Bytes,
    /// Keys up to and including this; empty: to the end.
    pub through: Bytes,
    /// At most this many.
    pub limit: usize,
}

/// What a device last appended to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The device.
    pub device: DeviceId,
    /// The greatest `client_id` that it used there.
    pub newest: ClientId,
    /// Its last event.
    pub seq: Seq,
    /// Ordinal at that event.
    pub ordinal: Ordinal,
}

/// Devices that [`Views::sent`] names at most.
pub const SENT_DEVICES_MAX: usize = 16;

/// What a user's devices last appended to a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentDevices {
    /// Those with the newest events, the newest first.
    pub devices: Vec<Sent>,
    /// There are others, whose last events are older than these.
    pub more: bool,
}

impl SentDevices {
    /// Takes another device in; however many come, a few are kept.
    pub(crate) fn offer(&mut self, sent: Sent) {
        self.devices.push(sent);
        if self.devices.len() > 4 * SENT_DEVICES_MAX {
            self.cut();
        }
    }

    /// Brings them into their order and leaves out what is beyond the bound.
    pub(crate) fn cut(&mut self) {
        self.devices.sort_unstable_by_key(|sent| Reverse(sent.seq));
        self.more |= self.devices.len() > SENT_DEVICES_MAX;
        self.devices.truncate(SENT_DEVICES_MAX);
    }
}

/// Where an event went that was appended before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentEvent {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Its journal time.
    pub time_ms: u64,
}

/// A read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewsError {
    /// What the operating system or the store said.
    #[error("{what}: {cause}")]
    Io {
        /// What was read.
        what: String,
        /// Why it failed.
        cause: String,
    },
    /// What is stored cannot be read back.
    #[error("{0}")]
    Damaged(String),
    /// More reads wait than may. Safe to try again.
    #[error("too many reads are waiting")]
    Busy,
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
}
