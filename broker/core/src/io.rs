//! What goes into a shard and what comes out of it.

use std::num::NonZeroU64;

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    ids::{
        ClientId, ConversationId, Cursor, DeviceId, Epoch, LaneId, Ordinal, Position, Seq, UserId,
    },
    record::Table,
};

use crate::{message::Message, topology::ShardId};

/// The time, as the shell read it once for a batch of inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic, microseconds since any fixed moment: deadlines and rates.
    pub mono_us: u64,
    /// Milliseconds since 1970: journal time, token ages. May jump.
    pub unix_ms: u64,
}

/// A connection of this shard: `index` is the shell's table slot and is used again, `generation` never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Slot.
    pub index: u32,
    /// Rises with each connection that takes a slot.
    pub generation: u32,
}

/// What a transport can do beside the stream of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Opens streams of its own for catch-up (native QUIC).
    pub catch_up_streams: bool,
    /// Carries datagrams (native QUIC).
    pub datagrams: bool,
    /// Finds out by itself that the other side is gone (QUIC): nobody pings over it.
    pub keeps_alive: bool,
}

/// Who a token says its bearer is, as the shell verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// When the token ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// A service: no rate limits, and it may publish on behalf of users.
    pub service: bool,
    /// The key that the token was signed with; `None`: with none that could be withdrawn.
    pub key: Option<KeyTag>,
}

impl Identity {
    /// How much longer a session goes on, so that a Refresh that is late is not lost, milliseconds.
    pub const GRACE_MS: u64 = 60_000;
}

/// Names a key that tokens are verified by, while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyTag(pub NonZeroU64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A connection was accepted, and its transport's handshake is done.
    Opened {
        /// The connection.
        conn: ConnId,
        /// What it can do.
        transport: Transport,
    },
    /// What arrived is no frame, as the shell has found: it was cut off in the middle.
    Broken {
        /// The connection.
        conn: ConnId,
        /// What is wrong.
        code: ErrorCode,
    },
    /// The shell holds so much more for a connection than its frames; [`Input::Written`] tells that it does not any more.
    Held {
        /// The connection.
        conn: ConnId,
        /// Bytes.
        bytes: usize,
    },
    /// Bytes of sent frames left for the operating system.
    Written {
        /// The connection.
        conn: ConnId,
        /// How many, headers included.
        bytes: usize,
    },
    /// The connection is gone.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Answer to [`Output::Authenticate`].
    Authenticated {
        /// The connection.
        conn: ConnId,
        /// Who it is, or why not.
        result: Result<Identity, ErrorCode>,
    },
    /// From another shard, in the order it sent them.
    Messages {
        /// The messages.
        messages: Vec<Message>,
    },
    /// A lane's entries are durable.
    Appended {
        /// The lane.
        lane: LaneId,
        /// Up to this position.
        through: Position,
    },
    /// A lane's entry was not made durable.
    AppendFailed {
        /// The lane.
        lane: LaneId,
        /// The entry's position.
        position: Position,
        /// How.
        failure: AppendFailure,
    },
    /// Answer to [`Output::Load`].
    Loaded {
        /// Whose.
        ticket: Ticket,
        /// What was found; `None`: the read failed, and may not another time.
        answer: Option<Answer>,
    },
    /// Storage has dropped old events: what it said before of the oldest that is kept may be too low.
    Dropped,
    /// Nothing happened but time.
    Tick,
    /// The node is about to stop or to give connections away: tell every connection to go.
    Drain {
        /// Over how long clients are to spread their reconnects, milliseconds.
        window_ms: u32,
    },
}

/// How an append failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFailure {
    /// Nothing was kept; the same lane can append again, from the same position. Every later entry in flight failed too.
    NothingKept,
    /// It may or may not have been kept: the lane is over for this process.
    Lost,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Queue a frame on a connection.
    Send {
        /// The connection.
        conn: ConnId,
        /// The whole frame, header included.
        frame: Bytes,
        /// By which way.
        via: Via,
    },
    /// Read on: the connection has byte credit again after [`crate::Shard::may_read`] said no.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// Close the connection once what is queued has been written.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// All is answered that a connection had asked for which is gone.
    Settled {
        /// The connection.
        conn: ConnId,
    },
    /// Verify an access token.
    Authenticate {
        /// The connection.
        conn: ConnId,
        /// The token.
        token: String,
    },
    /// Hand to another shard.
    Forward {
        /// Which.
        shard: ShardId,
        /// What.
        message: Message,
    },
    /// Append an entry to a lane.
    Append(Entry),
    /// Read from storage.
    Load {
        /// To be given back with the answer.
        ticket: Ticket,
        /// For whom; all zero: for nobody in particular.
        user: UserId,
        /// What.
        query: Query,
    },
    /// Note in the directory that a user was connected until then.
    Seen {
        /// Who.
        user: UserId,
        /// Milliseconds since 1970.
        time_ms: u64,
    },
}

/// What became of bytes that were read from a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// How many were taken in, in whole frames; the rest is to be brought again, with what follows it.
    pub bytes: usize,
    /// What that took, in short messages.
    pub work: usize,
}

/// By which way a frame leaves; a transport that has only one sends all by it, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The stream that the client opened.
    Main,
    /// The same, for one of so many who are sent the same that others may go first.
    Crowd,
    /// Stored events for a subscription that is behind: a stream of their own, the same one for the same key.
    CatchUp(ConversationId),
    /// May be lost.
    Datagram,
}

/// A batch of records of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The lane.
    pub lane: LaneId,
    /// Of this owner.
    pub epoch: Epoch,
    /// The lane's next.
    pub position: Position,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Encoded records.
    pub records: Bytes,
}

/// A lane as it was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneClaim {
    /// The lane.
    pub lane: LaneId,
    /// Of this owner.
    pub epoch: Epoch,
    /// Last durable entry.
    pub tail: Position,
    /// Its journal time.
    pub time_ms: u64,
    /// What has still to be passed on.
    pub outbox: Vec<OutboxItem>,
}

/// Something that a lane has to pass on to a user's inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// Position of its entry.
    pub position: Position,
    /// Number among the outbox records of the entry.
    pub index: u16,
    /// Journal time of the entry.
    pub time_ms: u64,
    /// Whose inbox.
    pub user: UserId,
    /// Encoded `rialto.v1.Notice`.
    pub notice: Bytes,
}

/// Names a read that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A conversation's head and profile row.
    Conversation {
        /// Which.
        conversation: ConversationId,
    },
    /// A member's row and what the user's devices sent.
    Member {
        /// In which conversation.
        conversation: ConversationId,
        /// Who.
        user: UserId,
    },
    /// Where the event with this `client_id` went.
    FindSent {
        /// In which conversation.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// Which device's.
        device: DeviceId,
        /// The idempotency key.
        client_id: ClientId,
    },
    /// Events `from..=to` and the tombstones among them.
    Events {
        /// Whose.
        conversation: ConversationId,
        /// First, included.
        from: Seq,
        /// Last, included.
        to: Seq,
        /// Where to stop.
        bytes_max: usize,
        /// Keep the end next to `to` when cut.
        backward: bool,
    },
    /// Rows of a table in key order.
    Scan {
        /// Whose.
        conversation: ConversationId,
        /// Which table.
        table: Table,
        /// Keys greater than this; empty: from the start.
        after: Bytes,
        /// At most.
        limit: usize,
    },
    /// Single rows.
    Rows {
        /// Whose.
        conversation: ConversationId,
        /// Which table.
        table: Table,
        /// Which keys.
        keys: Vec<Bytes>,
    },
    /// When users were last seen.
    LastSeen {
        /// Who.
        users: Vec<UserId>,
    },
}

/// What was read; the variant fits the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To any: what is stored is not as it was written, and will not be another time.
    Damaged,
    /// To [`Query::Conversation`]; `None`: there is no such conversation.
    Conversation(Option<StoredConversation>),
    /// To [`Query::Member`].
    Member {
        /// The row; `None`: never was one.
        row: Option<Bytes>,
        /// What the devices with the newest events sent last, a few of them.
        sent: Vec<StoredSent>,
        /// There are devices that `sent` does not name; their events are older.
        more_devices: bool,
    },
    /// To [`Query::FindSent`].
    Sent {
        /// Where it went; `None`: it was not found.
        event: Option<SentEvent>,
        /// The greatest time by which ids were forgotten, milliseconds since 1970; 0: none were.
        as_of_ms: u64,
    },
    /// To [`Query::Events`].
    Events {
        /// Encoded events, rising.
        events: Vec<Bytes>,
        /// Deleted ones among them and edits of deleted ones, rising, each with the seq of the delete event.
        tombstones: Vec<(Seq, Seq)>,
    },
    /// To [`Query::Scan`].
    Scan(Vec<(Bytes, Bytes)>),
    /// To [`Query::Rows`].
    Rows(Vec<Option<Bytes>>),
    /// To [`Query::LastSeen`], in the order asked.
    LastSeen(Vec<Option<u64>>),
}

/// A conversation at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConversation {
    /// Its last event.
    pub head: Cursor,
    /// Countable messages so far.
    pub ordinal: Ordinal,
    /// Journal time of the last event.
    pub time_ms: u64,
    /// Oldest event kept.
    pub oldest: Seq,
    /// The profile row.
    pub profile: Bytes,
}

/// What a device sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSent {
    /// The device.
    pub device: DeviceId,
    /// Its greatest `client_id`.
    pub newest: ClientId,
    /// Its last event.
    pub seq: Seq,
    /// Ordinal at that event.
    pub ordinal: Ordinal,
}

/// Where an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentEvent {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Its journal time.
    pub time_ms: u64,
}
