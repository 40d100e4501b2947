//! Where a subscription starts, and what the server answers to it.

use rialto_protocol::ids::{ConversationId, Cursor, Epoch, Ordinal, Seq};
use rialto_protocol::v1;
use tokio::sync::oneshot;

use crate::error::{CloseReason, RequestError, Retry, ServerError};

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After the last event that is known already.
    After(Cursor),
    /// With the first event.
    Beginning,
    /// With what comes from now on.
    Live,
}

impl Start {
    /// After this event.
    #[must_use]
    pub const fn after(event: &v1::Event) -> Self {
        Self::After(Cursor {
            epoch: Epoch(event.epoch),
            seq: Seq(event.seq),
        })
    }

    pub(super) fn cursor(self) -> Option<Cursor> {
        match self {
            Self::After(cursor) => Some(cursor),
            Self::Beginning => Some(Cursor::default()),
            Self::Live => None,
        }
    }
}

/// How a subscription was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeStatus {
    /// Events follow, without a gap from the start on.
    Following,
    /// The oldest events after the start are gone; events follow from [`SubscribeOutcome::oldest`] on.
    Truncated,
    /// Not subscribed: the log does not hold the cursor's event, so it is another log than the one that was read. Discard
    /// what is stored of it and subscribe from the beginning.
    Diverged,
    /// Not subscribed from this start. A conversation that was followed before is followed on if the error may pass
    /// ([`ServerError::retry`]), and not followed any more if it will not.
    Denied(ServerError),
}

/// The answer to one subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeOutcome {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Whether it worked.
    pub status: SubscribeStatus,
    /// Where the log ended when it was answered.
    pub head: Cursor,
    /// Countable messages up to there.
    pub ordinal: Ordinal,
    /// First event that is kept.
    pub oldest: Seq,
    /// The user's own markers.
    pub marker: v1::Marker,
    /// Messages that the user has not read.
    pub unread: u64,
    /// Mentions of the user that he has not read.
    pub unread_mentions: u32,
    /// The user's role.
    pub role: v1::Role,
}

impl SubscribeOutcome {
    pub(super) fn new(conversation: ConversationId, result: &v1::SubscriptionResult) -> Self {
        let status = match result.status() {
            v1::SubscriptionStatus::Following => SubscribeStatus::Following,
            v1::SubscriptionStatus::Truncated => SubscribeStatus::Truncated,
            v1::SubscriptionStatus::Diverged => SubscribeStatus::Diverged,
            v1::SubscriptionStatus::Denied | v1::SubscriptionStatus::Unspecified => {
                SubscribeStatus::Denied(result.error.clone().unwrap_or_default().into())
            }
        };
        Self {
            conversation,
            status,
            head: result.head.unwrap_or_default().into(),
            ordinal: Ordinal(result.ordinal),
            oldest: Seq(result.oldest_seq),
            marker: result.marker.unwrap_or_default(),
            unread: result.unread,
            unread_mentions: result.unread_mentions,
            role: result.role(),
        }
    }

    /// One of a request that was refused as a whole.
    pub(crate) fn denied(conversation: ConversationId, error: ServerError) -> Self {
        Self {
            status: SubscribeStatus::Denied(error),
            ..Self::new(conversation, &v1::SubscriptionResult::default())
        }
    }

    /// Whether events follow.
    #[must_use]
    pub const fn is_following(&self) -> bool {
        matches!(
            self.status,
            SubscribeStatus::Following | SubscribeStatus::Truncated
        )
    }
}

/// Who waits for the answer to a Subscribe.
#[derive(Debug)]
pub(crate) struct SubscribeAnswer(oneshot::Sender<Result<Vec<SubscribeOutcome>, RequestError>>);

impl SubscribeAnswer {
    pub(crate) fn new() -> (
        Self,
        oneshot::Receiver<Result<Vec<SubscribeOutcome>, RequestError>>,
    ) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub(crate) fn send(self, answer: Result<Vec<SubscribeOutcome>, RequestError>) {
        // Whoever asked may have lost interest; the subscription stays.
        let _ = self.0.send(answer);
    }

    pub(crate) fn close(self, reason: &CloseReason, retry: Retry) {
        self.send(Err(RequestError::Closed {
            reason: reason.clone(),
            retry,
        }));
    }
}
