//! A piece of work for a conversation: what was asked, how far it has come, and what it still needs to be read.

use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, ConversationId, DeviceId, Ordinal, Seq, UserId},
    v1::Retry,
};
use smallvec::SmallVec;

use super::read::ReadJob;
use crate::{
    advice::retry_hint_ms,
    io::SentEvent,
    message::{Origin, Receipt, ToOwner},
    topology::ShardId,
};

/// Something that has to be read before a piece of work can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A member's state.
    Member(UserId),
    /// Which of these have ever been members: one read, and one more for each who has.
    Rows(Vec<UserId>),
    /// Whether this `client_id` was appended before.
    Sent(DeviceId, ClientId),
    /// The event with this number.
    Target(Seq),
    /// The oldest event that is kept; with how often some had been dropped when it was asked for.
    Oldest(u64),
}

/// A read under way.
#[derive(Debug)]
pub(super) enum Load {
    /// The conversation itself; with how often events had been dropped when it was asked for.
    Conversation(u64),
    /// Something that a user's first piece of work needs.
    For {
        /// Whose work.
        user: UserId,
        /// What.
        need: Need,
    },
    /// What was asked for.
    Read(ReadJob),
}

/// What is known of an event that another refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its number.
    pub(super) seq: Seq,
    /// Countable messages up to it.
    pub(super) ordinal: Ordinal,
    /// Who wrote it.
    pub(super) sender: UserId,
    /// Whether it is a message.
    pub(super) is_message: bool,
    /// Whether it was deleted.
    pub(super) deleted: bool,
    /// Whom it mentions; `None`: not looked at.
    pub(super) mentions: Option<Vec<UserId>>,
}

/// What was read for a piece of work, beside members.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Answer to the last [`Need::Sent`]; an error: not found, and the greatest time by which ids were forgotten.
    pub(super) sent: Option<(ClientId, Result<SentEvent, u64>)>,
    /// Events of which the draft has asked for [`Need::Target`].
    pub(super) asked: SmallVec<[Seq; 1]>,
    /// Answers to [`Need::Target`]; `None` in the pair: there is no such event.
    pub(super) targets: SmallVec<[(Seq, Option<Target>); 1]>,
    /// Members that were asked for: they stay in memory until the draft is decided.
    pub(super) wanted: SmallVec<[UserId; 1]>,
    /// [`Need::Rows`] is answered.
    pub(super) rows_looked_up: bool,
    /// Events asked for that were deleted since: the reads may have found them as they were before.
    pub(super) deleted: Vec<Seq>,
}

impl Known {
    /// What is known of the event with this number, if it was read.
    pub(super) fn target(&self, seq: Seq) -> Option<&Option<Target>> {
        self.targets
            .iter()
            .find(|(known, _)| *known == seq)
            .map(|(_, target)| target)
    }
}

/// What was asked, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// What was asked.
    pub(super) ask: ToOwner,
    /// Drafts that are decided.
    pub(super) receipts: SmallVec<[Receipt; 1]>,
    /// What was read for the draft at hand.
    pub(super) known: Known,
    /// Reads under way for it.
    pub(super) outstanding: u32,
    /// One of them failed, and what is told then.
    pub(super) failed: Option<ErrorCode>,
    /// It is done from its start again, and some of its drafts may have been kept the first time.
    pub(super) begun_before: bool,
}

/// How a run of a piece of work ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is answered, or its answer waits for the disk.
    Done,
    /// It cannot go on without these.
    Needs(SmallVec<[Need; 2]>),
}

impl Work {
    pub(super) fn new(ask: ToOwner) -> Self {
        Self {
            ask,
            receipts: SmallVec::new(),
            known: Known::default(),
            outstanding: 0,
            failed: None,
            begun_before: false,
        }
    }

    /// The same from its start.
    pub(super) fn anew(self) -> Self {
        Self {
            begun_before: self.begun_before || !self.receipts.is_empty(),
            ..Self::new(self.ask)
        }
    }

    /// Whose conversation it is about.
    pub(super) fn conversation(&self) -> ConversationId {
        match &self.ask {
            ToOwner::Append { conversation, .. }
            | ToOwner::Create { conversation, .. }
            | ToOwner::Subscribe { conversation, .. }
            | ToOwner::Detach { conversation, .. }
            | ToOwner::CatchUp { conversation, .. }
            | ToOwner::History { conversation, .. }
            | ToOwner::Mark { conversation, .. }
            | ToOwner::Prefer { conversation, .. }
            | ToOwner::Describe { conversation, .. }
            | ToOwner::Members { conversation, .. }
            | ToOwner::Signal { conversation, .. } => *conversation,
            ToOwner::Conversations { user, .. } | ToOwner::Notify { user, .. } => {
                ConversationId::of_inbox(*user)
            }
            ToOwner::PassedOn { .. } | ToOwner::AppendPlain(_) => {
                ConversationId::from_bytes([0; 16])
            }
        }
    }

    /// Among whose work it keeps its place.
    pub(super) fn user(&self) -> UserId {
        match &self.ask {
            ToOwner::Append { author, .. }
            | ToOwner::Create { author, .. }
            | ToOwner::Mark { author, .. }
            | ToOwner::Prefer { author, .. } => author.user,
            ToOwner::Subscribe { user, .. }
            | ToOwner::CatchUp { user, .. }
            | ToOwner::History { user, .. }
            | ToOwner::Describe { user, .. }
            | ToOwner::Members { user, .. }
            | ToOwner::Conversations { user, .. }
            | ToOwner::Signal { user, .. } => *user,
            ToOwner::Notify { .. }
            | ToOwner::Detach { .. }
            | ToOwner::PassedOn { .. }
            | ToOwner::AppendPlain(_) => UserId::SYSTEM,
        }
    }

    /// Bytes that it keeps while it waits, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.ask.payload_bytes()
    }

    /// A refusal, and to whom it goes.
    pub(super) fn refusal(&self, code: ErrorCode) -> Option<(ShardId, crate::message::Message)> {
        use crate::message::{Message, ToEdge};
        // What may have been kept may not be said to have had no effect.
        let says_so = code.retry() == Retry::Safe || code == ErrorCode::Damaged;
        let code = if self.begun_before && says_so {
            ErrorCode::StorageUnavailable
        } else {
            code
        };
        let retry_after_ms = retry_hint_ms(code);
        let refused = |origin: Origin| {
            (
                origin.edge,
                Message::ToEdge(ToEdge::Refused {
                    origin,
                    code,
                    retry_after_ms,
                }),
            )
        };
        Some(match &self.ask {
            ToOwner::Append {
                origin,
                first,
                drafts,
                ..
            } => {
                let mut receipts = self.receipts.clone();
                receipts.resize(
                    drafts.len(),
                    Receipt::Refused {
                        code,
                        retry_after_ms,
                    },
                );
                (
                    origin.edge,
                    Message::ToEdge(ToEdge::Appended {
                        origin: *origin,
                        first: *first,
                        receipts,
                    }),
                )
            }
            ToOwner::Subscribe {
                origin,
                slot,
                user,
                conversation,
                cursor,
            } => {
                let (slot, user, conversation, cursor) = (*slot, *user, *conversation, *cursor);
                let result = Err(code);
                (
                    origin.edge,
                    Message::ToEdge(ToEdge::Subscribed {
                        origin: *origin,
                        slot,
                        user,
                        conversation,
                        cursor,
                        result,
                    }),
                )
            }
            ToOwner::CatchUp {
                edge,
                conn,
                conversation,
                from,
                ..
            } => {
                let (conn, conversation, from, result) = (*conn, *conversation, *from, Err(code));
                (
                    *edge,
                    Message::ToEdge(ToEdge::CaughtUp {
                        conn,
                        conversation,
                        from,
                        result,
                    }),
                )
            }
            ToOwner::Notify {
                from, lane, item, ..
            } => (
                *from,
                Message::ToOwner(ToOwner::PassedOn {
                    lane: *lane,
                    item: *item,
                    kept: false,
                }),
            ),
            ToOwner::Create { origin, .. }
            | ToOwner::History { origin, .. }
            | ToOwner::Mark { origin, .. }
            | ToOwner::Prefer { origin, .. }
            | ToOwner::Describe { origin, .. }
            | ToOwner::Members { origin, .. }
            | ToOwner::Conversations { origin, .. }
            | ToOwner::Signal { origin, .. } => refused(*origin),
            ToOwner::Detach { .. } | ToOwner::PassedOn { .. } | ToOwner::AppendPlain(_) => {
                return None;
            }
        })
    }
}
