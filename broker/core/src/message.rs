//! What edges and owners say to each other: within a shard, between shards, and one day between brokers.
//!
//! From one edge to one owner, and back, messages keep their order.

mod payload;

use std::ops::Range;

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{
        ClientId, ConversationId, Cursor, DeviceId, Epoch, Handle, Ordinal, RequestId, Seq, UserId,
    },
    v1,
};
use smallvec::SmallVec;

use crate::{io::ConnId, topology::ShardId};

/// A message on its way.
#[derive(Clone, Debug)]
pub enum Message {
    /// To the owner of a conversation.
    ToOwner(ToOwner),
    /// To the edge that holds a connection.
    ToEdge(ToEdge),
    /// To the shard that keeps a user's presence.
    ToHome(ToHome),
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The edge.
    pub edge: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// The connection's request.
    pub request: RequestId,
    /// Byte credit that the request holds; given back with the answer.
    pub cost: u32,
}

/// Who wants to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// The sender.
    pub user: UserId,
    /// The device that sends.
    pub device: DeviceId,
}

/// A draft whose form has been checked (ids, lengths, counts, UTF-8) by the edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The idempotency key.
    pub client_id: ClientId,
    /// What it says.
    pub content: v1::draft::Content,
}

/// Messages of one connection in their usual form, for conversations of one owner, in the order they came.
#[derive(Clone, Debug)]
pub struct PlainBatch {
    /// Where the receipts go.
    pub edge: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// Who.
    pub author: Author,
    /// What; at least one.
    pub drafts: Vec<Plain>,
    /// The encoded messages, one behind the other.
    pub bytes: Vec<u8>,
}

/// A message of a [`PlainBatch`].
#[derive(Clone, Debug)]
pub struct Plain {
    /// Where to.
    pub conversation: ConversationId,
    /// The idempotency key.
    pub client_id: ClientId,
    /// The newest event that it answers; 0: none.
    pub newest_reply: Seq,
    /// The connection's request.
    pub request: RequestId,
    /// Index of the draft in its request.
    pub draft: u32,
    /// Byte credit that it holds.
    pub cost: u32,
    /// Where the encoded message stands in [`PlainBatch::bytes`].
    pub message: Range<usize>,
}

/// A receipt on its way to the connection that asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Receipted {
    /// The connection.
    pub conn: ConnId,
    /// Its request.
    pub request: RequestId,
    /// Index of the draft in the request.
    pub draft: u32,
    /// Byte credit that comes back.
    pub cost: u32,
    /// The answer.
    pub receipt: Receipt,
}

/// Asked of an owner. Every variant with an origin is answered exactly once.
#[derive(Clone, Debug)]
pub enum ToOwner {
    /// Append drafts; answered by [`ToEdge::Appended`].
    Append {
        /// Where the receipts go.
        origin: Origin,
        /// Who.
        author: Author,
        /// Where to.
        conversation: ConversationId,
        /// Index of the first of them in the request.
        first: u32,
        /// What; at least one.
        drafts: Vec<Draft>,
    },
    /// Append messages; each is answered by a receipt of [`ToEdge::Receipts`], or by a [`ToEdge::Appended`] of its own.
    AppendPlain(PlainBatch),
    /// Open a conversation (its id is settled); answered by `CreatedConversation`.
    Create {
        /// Where the answer goes.
        origin: Origin,
        /// Who.
        author: Author,
        /// Which.
        conversation: ConversationId,
        /// What it is to be; form checked, `conversation` filled in, members named once and the author not among them.
        create: v1::Create,
        /// A service asks: what inboxes are told of it is on nobody's account.
        service: bool,
    },
    /// Follow a conversation; answered by [`ToEdge::Subscribed`].
    Subscribe {
        /// Where the answer goes.
        origin: Origin,
        /// Index in the request.
        slot: u16,
        /// Who.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// Deliver what comes after; `None`: only what comes from now on.
        cursor: Option<Cursor>,
    },
    /// The edge has no subscriber of the conversation any more.
    Detach {
        /// The edge.
        edge: ShardId,
        /// The conversation.
        conversation: ConversationId,
    },
    /// Stored events for a subscription that is behind; answered by [`ToEdge::CaughtUp`].
    CatchUp {
        /// The edge.
        edge: ShardId,
        /// Its connection.
        conn: ConnId,
        /// Who reads.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// First event wanted.
        from: Seq,
        /// When set, the event before `from` must have this epoch, or the answer is diverged.
        verify: Option<Epoch>,
        /// Most bytes of events.
        bytes_max: usize,
    },
    /// A page of history; answered by `HistoryPage`.
    History {
        /// Where the answer goes.
        origin: Origin,
        /// Who reads.
        user: UserId,
        /// What.
        conversation: ConversationId,
        /// As in `rialto.v1.History`.
        from: Seq,
        /// As in `rialto.v1.History`.
        backward: bool,
        /// 1 to 1,000.
        limit: u32,
        /// Most bytes of events.
        bytes_max: usize,
    },
    /// Move markers; answered by `Marked`.
    Mark {
        /// Where the answer goes.
        origin: Origin,
        /// Whose, and by which device.
        author: Author,
        /// In which conversation.
        conversation: ConversationId,
        /// 0: leave, unless `unread`.
        read: Seq,
        /// 0: leave.
        delivered: Seq,
        /// `read` may go back, and is exact.
        unread: bool,
    },
    /// Change what the user alone sees; answered by `Done`.
    Prefer {
        /// Where the answer goes.
        origin: Origin,
        /// Whose.
        author: Author,
        /// Of which conversation.
        conversation: ConversationId,
        /// Absent: leave.
        hidden: Option<bool>,
        /// Absent: leave.
        muted_until_ms: Option<u64>,
    },
    /// Answered by `Description`.
    Describe {
        /// Where the answer goes.
        origin: Origin,
        /// Who asks.
        user: UserId,
        /// About what.
        conversation: ConversationId,
    },
    /// Answered by `MembersPage`.
    Members {
        /// Where the answer goes.
        origin: Origin,
        /// Who asks.
        user: UserId,
        /// About what.
        conversation: ConversationId,
        /// Users greater than this.
        after: Option<UserId>,
        /// 1 to 500.
        limit: u32,
    },
    /// The user's own list, kept at the inbox; answered by `ConversationsPage`.
    Conversations {
        /// Where the answer goes.
        origin: Origin,
        /// Whose list; only the user's own.
        user: UserId,
        /// Conversations greater than this.
        after: Option<ConversationId>,
        /// 1 to 500.
        limit: u32,
    },
    /// Pass a signal to who follows the conversation; answered only when refused.
    Signal {
        /// Where a refusal goes.
        origin: Origin,
        /// Who signals.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// What.
        signal: v1::signalled::Signal,
    },
    /// From a lane's outbox to a user's inbox; answered by [`ToOwner::PassedOn`].
    Notify {
        /// The shard whose lane passes it on.
        from: ShardId,
        /// That lane.
        lane: rialto_protocol::ids::LaneId,
        /// Position of the outbox record's entry, and its number there.
        item: (rialto_protocol::ids::Position, u16),
        /// Derived from both.
        client_id: ClientId,
        /// Whose inbox.
        user: UserId,
        /// Encoded `rialto.v1.Notice`.
        notice: Bytes,
        /// A later one of the lane says how the user's list is to show the conversation: this one leaves the list as it is.
        is_outdated: bool,
    },
    /// An outbox item is durable in the inbox.
    PassedOn {
        /// The lane that passed it on.
        lane: rialto_protocol::ids::LaneId,
        /// Which item.
        item: (rialto_protocol::ids::Position, u16),
        /// `false`: it could not be kept now and has to be sent again.
        kept: bool,
    },
}

impl ToOwner {
    /// Whether whoever asks can ask again later.
    #[must_use]
    pub(crate) fn may_be_refused(&self) -> bool {
        !matches!(
            self,
            Self::CatchUp { .. }
                | Self::Signal { .. }
                | Self::Detach { .. }
                | Self::PassedOn { .. }
                | Self::AppendPlain(_)
        )
    }
}

/// Told to an edge.
#[derive(Clone, Debug)]
pub enum ToEdge {
    /// Drafts are durable, or refused.
    Appended {
        /// From the request.
        origin: Origin,
        /// From the request.
        first: u32,
        /// One a draft, in order.
        receipts: SmallVec<[Receipt; 1]>,
    },
    /// Answers to messages of [`ToOwner::AppendPlain`], of any connections.
    Receipts(Vec<Receipted>),
    /// A request is answered by this frame.
    Answered {
        /// From the request.
        origin: Origin,
        /// Which answer.
        kind: FrameKind,
        /// Its encoded body.
        body: Bytes,
    },
    /// A request is refused.
    Refused {
        /// From the request.
        origin: Origin,
        /// Why.
        code: ErrorCode,
        /// 0: no hint.
        retry_after_ms: u32,
    },
    /// Answer to [`ToOwner::Subscribe`].
    Subscribed {
        /// From the request.
        origin: Origin,
        /// From the request.
        slot: u16,
        /// From the request.
        user: UserId,
        /// From the request.
        conversation: ConversationId,
        /// From the request.
        cursor: Option<Cursor>,
        /// How it stands, or why not. With `Ok` the edge is attached.
        result: Result<Standing, ErrorCode>,
    },
    /// Answer to [`ToOwner::CatchUp`].
    CaughtUp {
        /// From the request.
        conn: ConnId,
        /// From the request.
        conversation: ConversationId,
        /// From the request.
        from: Seq,
        /// Encoded events from `from` on (or from the oldest kept), possibly none.
        result: Result<Vec<Bytes>, ErrorCode>,
    },
    /// Consecutive events became durable.
    Deliver {
        /// Whose.
        conversation: ConversationId,
        /// First. 0, which no event has: they are left out, and their readers find them in the log.
        first: Seq,
        /// Last.
        last: Seq,
        /// A whole `Deliver` frame with all of them.
        frame: Bytes,
        /// Readers who may have these up to the one that is named, and not what follows it: their subscriptions end.
        ended: SmallVec<[(UserId, Seq, ErrorCode); 1]>,
    },
    /// A signal in a conversation.
    Signalled {
        /// Whose.
        conversation: ConversationId,
        /// Who signals; not told to the user's own connections unless it is a marker.
        user: UserId,
        /// A whole `Signalled` frame.
        frame: Bytes,
    },
    /// Presence of users that the edge watches.
    Presence {
        /// Set when it answers [`ToHome::Watch`].
        origin: Option<Origin>,
        /// Each with state and last seen.
        presences: Vec<PresenceOf>,
    },
}

impl ToEdge {
    /// Events up to `last` became durable, and are left out.
    #[must_use]
    pub fn missed(conversation: ConversationId, last: Seq) -> Self {
        Self::Deliver {
            conversation,
            first: Seq(0),
            last,
            frame: Bytes::new(),
            ended: SmallVec::new(),
        }
    }
}

/// Answer to one draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It stands in the log.
    Kept {
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        seq: Seq,
        /// Its journal time.
        time_ms: u64,
        /// It had been there before.
        duplicate: bool,
    },
    /// It does not.
    Refused {
        /// Why.
        code: ErrorCode,
        /// 0: no hint.
        retry_after_ms: u32,
    },
}

/// How a conversation and a reader stand to each other at subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Names the conversation on this node.
    pub handle: Handle,
    /// Last durable event.
    pub head: Cursor,
    /// Ordinal there.
    pub ordinal: Ordinal,
    /// Oldest event kept.
    pub oldest: Seq,
    /// The reader's marker.
    pub marker: v1::Marker,
    /// Messages not read.
    pub unread: u64,
    /// Mentions not read.
    pub unread_mentions: u32,
    /// The reader's role; unspecified: not a member, but it is public.
    pub role: v1::Role,
}

/// Asked of the shard that keeps a user's presence.
#[derive(Clone, Debug)]
pub enum ToHome {
    /// The best state that the user's sessions at this edge have together; offline: there is none any more.
    Report {
        /// The edge.
        edge: ShardId,
        /// Who.
        user: UserId,
        /// Which.
        state: v1::PresenceState,
        /// When, milliseconds since 1970.
        time_ms: u64,
    },
    /// The edge wants to know these users' presence, now and when it changes; answered by [`ToEdge::Presence`].
    Watch {
        /// Where the answer goes.
        origin: Origin,
        /// Who.
        users: Vec<UserId>,
    },
    /// Nobody at the edge watches them any more.
    Unwatch {
        /// The edge.
        edge: ShardId,
        /// Who.
        users: Vec<UserId>,
    },
}

/// A user's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceOf {
    /// Who.
    pub user: UserId,
    /// Best state of all sessions.
    pub state: v1::PresenceState,
    /// When the user was last connected; 0: never, or not offline; `None`: it could not be read.
    pub last_seen_ms: Option<u64>,
}
