//! Drafts on their way: encoded once, packed into Publish frames, kept until they are acknowledged, sent again when they
//! have to be.

mod outbox;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::{FrameKind, HEADER_BYTES};
use rialto_protocol::ids::{ClientId, ConversationId, Cursor, Epoch, ID_BYTES, Seq, UserId};
use rialto_protocol::{limits, v1};
use tokio::sync::oneshot;

use crate::attempts::Attempts;
use crate::content::Content;
use crate::error::{CloseReason, PublishError, Retry, ServerError};
use crate::wire;

pub(crate) use outbox::{Batch, Outbox};

/// `Publish.conversation`, `Publish.drafts`, `Publish.on_behalf_of` and `Draft.client_id` as they stand before their length.
const CONVERSATION_TAG: u8 = 1 << 3 | 2;
const DRAFT_TAG: u8 = 3 << 3 | 2;
const ON_BEHALF_TAG: u8 = 4 << 3 | 2;
const CLIENT_ID_TAG: u8 = 1 << 3 | 2;
/// An id's length as a field's.
const ID_LENGTH: u8 = 16;
/// Bytes of an id as a field: tag, length, id.
const ID_FIELD_BYTES: usize = 2 + ID_BYTES;
const _: () = assert!(ID_LENGTH as usize == ID_BYTES);
/// Most bytes of a Publish frame beside its drafts' bytes and their lengths.
pub(crate) const FRAME_HEAD_BYTES: usize = HEADER_BYTES + 2 * ID_FIELD_BYTES;

/// Where a draft has become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Epoch of the owner that wrote it.
    pub epoch: Epoch,
    /// Its number in the conversation.
    pub seq: Seq,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// An earlier try had made it an event already.
    pub duplicate: bool,
}

impl Receipt {
    /// The event's position.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// A draft that is on its way, whether this is awaited or dropped: it is sent until it is acknowledged, unless the client is
/// closed before.
#[must_use = "the draft goes out unless the client is closed, but only this tells whether it has become an event"]
pub struct Publishing {
    client_id: ClientId,
    receipt: oneshot::Receiver<Result<Receipt, PublishError>>,
}

impl Publishing {
    /// The draft's idempotency key, for [`crate::Client::publish_again`].
    #[must_use]
    pub const fn client_id(&self) -> ClientId {
        self.client_id
    }
}

impl Future for Publishing {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receipt).poll(context).map(|answer| {
            // The session's task ended without a word.
            answer.unwrap_or(Err(PublishError::Closed {
                reason: CloseReason::Gone,
                retry: Retry::MaybeDuplicate,
            }))
        })
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Publishing")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// Bytes of a Draft of this content. Refuses what no frame can carry.
pub(crate) fn check_draft(
    content: &Content,
    frame_bytes_max: usize,
) -> Result<usize, PublishError> {
    content.check()?;
    let bytes = ID_FIELD_BYTES + content.as_wire().encoded_len();
    check_bytes(bytes, frame_bytes_max)?;
    Ok(bytes)
}

/// Whether a frame can carry a draft of so many bytes.
fn check_bytes(draft_bytes: usize, frame_bytes_max: usize) -> Result<(), PublishError> {
    let bytes = FRAME_HEAD_BYTES + listed_bytes(draft_bytes);
    if bytes > frame_bytes_max {
        return Err(PublishError::TooLarge {
            bytes,
            bytes_max: frame_bytes_max,
        });
    }
    Ok(())
}

/// The bytes of a Draft with zeroes in place of its client id. Refuses what no frame can carry.
pub(crate) fn encode_draft(
    content: &Content,
    frame_bytes_max: usize,
) -> Result<BytesMut, PublishError> {
    let bytes = check_draft(content, frame_bytes_max)?;
    let content = content.as_wire();
    let mut draft = BytesMut::with_capacity(bytes);
    draft.put_slice(&[CLIENT_ID_TAG, ID_LENGTH]);
    draft.put_bytes(0, ID_BYTES);
    content.encode(&mut draft);
    Ok(draft)
}

/// Bytes of a draft as an element of `Publish.drafts`.
fn listed_bytes(draft_bytes: usize) -> usize {
    1 + encoded_len_varint(draft_bytes as u64) + draft_bytes
}

/// A draft that is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Pending {
    conversation: ConversationId,
    on_behalf_of: Option<UserId>,
    draft: Bytes,
    pub(crate) cost: u32,
    attempts: Attempts,
    receipt: oneshot::Sender<Result<Receipt, PublishError>>,
}

impl Pending {
    /// `draft` is as [`encode_draft`] makes it.
    pub(crate) fn new(
        conversation: ConversationId,
        on_behalf_of: Option<UserId>,
        client_id: ClientId,
        mut draft: BytesMut,
        cost: u32,
    ) -> (Self, Publishing) {
        draft[2..ID_FIELD_BYTES].copy_from_slice(client_id.as_bytes());
        let (sender, receiver) = oneshot::channel();
        let pending = Self {
            conversation,
            on_behalf_of,
            draft: draft.freeze(),
            cost,
            attempts: Attempts::default(),
            receipt: sender,
        };
        (
            pending,
            Publishing {
                client_id,
                receipt: receiver,
            },
        )
    }

    /// The caller has sent it before, and sends it again.
    pub(crate) const fn sent_before(&mut self) {
        self.attempts.doubt_caller();
    }

    /// Whether both may stand in one Publish.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        self.conversation == other.conversation && self.on_behalf_of == other.on_behalf_of
    }

    /// Bytes that it adds to a Publish.
    pub(crate) fn listed_bytes(&self) -> usize {
        listed_bytes(self.draft.len())
    }

    /// Itself, unless the limit was lowered since it was queued and no frame can carry it any more: then it fails.
    pub(crate) fn fitting(self, frame_bytes_max: usize, release: impl Fn(u32)) -> Option<Self> {
        match check_bytes(self.draft.len(), frame_bytes_max) {
            Ok(()) => Some(self),
            Err(error) => {
                release(self.cost);
                let _ = self.receipt.send(Err(error));
                None
            }
        }
    }

    pub(crate) fn close(self, reason: &CloseReason, retry: Retry) {
        let _ = self.receipt.send(Err(PublishError::Closed {
            reason: reason.clone(),
            retry: self.attempts.counted(retry),
        }));
    }

    /// What its receipt says. The draft comes back if it is to be sent again, with how long to wait before.
    fn settle(self, receipt: v1::Receipt) -> Option<(Self, Duration)> {
        if let Some(error) = receipt.error {
            return self.refuse(error.into());
        }
        let settled = Receipt {
            epoch: Epoch(receipt.epoch),
            seq: Seq(receipt.seq),
            time_ms: receipt.time_ms,
            duplicate: receipt.duplicate,
        };
        let _ = self.receipt.send(Ok(settled));
        None
    }

    /// As [`Pending::settle`]. The server's own troubles are waited out here, and whatever is refused for now that an earlier
    /// attempt may have appended; what the caller did is told to him.
    fn refuse(mut self, error: ServerError) -> Option<(Self, Duration)> {
        let may_have_happened = error.retry() == Retry::MaybeDuplicate;
        if may_have_happened {
            self.attempts.doubt();
        }
        let passes = may_have_happened
            || self.attempts.leaves_open(&error)
            || matches!(
                error.known(),
                Some(ErrorCode::ShuttingDown | ErrorCode::TokenExpired)
            );
        if passes && let Some(wait) = self.attempts.again(&error) {
            return Some((self, wait));
        }
        let error = self.attempts.told(error);
        let _ = self.receipt.send(Err(PublishError::Refused(error)));
        None
    }
}

/// Appends the Publish frame of these drafts, which all go together.
pub(crate) fn put_frame(
    out: &mut BytesMut,
    request_id: rialto_protocol::ids::RequestId,
    drafts: &[(u64, Pending)],
) {
    let Some((_, first)) = drafts.first() else {
        return;
    };
    let listed: usize = drafts
        .iter()
        .map(|(_, pending)| pending.listed_bytes())
        .sum();
    let on_behalf_bytes = if first.on_behalf_of.is_some() {
        ID_FIELD_BYTES
    } else {
        0
    };
    wire::put_header(
        out,
        FrameKind::Publish,
        request_id,
        ID_FIELD_BYTES + listed + on_behalf_bytes,
    );
    put_id(out, CONVERSATION_TAG, first.conversation.as_bytes());
    for (_, pending) in drafts {
        out.put_u8(DRAFT_TAG);
        encode_varint(pending.draft.len() as u64, out);
        out.put_slice(&pending.draft);
    }
    if let Some(user) = &first.on_behalf_of {
        put_id(out, ON_BEHALF_TAG, user.as_bytes());
    }
}

fn put_id(out: &mut BytesMut, tag: u8, id: &[u8; ID_BYTES]) {
    out.put_slice(&[tag, ID_LENGTH]);
    out.put_slice(id);
}

/// Whether a frame with `drafts` drafts of `listed_bytes` bytes can take one more.
pub(crate) fn fits(
    drafts: usize,
    listed_bytes: usize,
    next: &Pending,
    frame_bytes_max: usize,
) -> bool {
    drafts < limits::DRAFTS_MAX
        && FRAME_HEAD_BYTES + listed_bytes + next.listed_bytes() <= frame_bytes_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::ATTEMPTS_MAX;
    use rialto_protocol::frame;
    use rialto_protocol::ids::RequestId;

    const ROOM: ConversationId = ConversationId::from_bytes([1; 16]);

    fn pending(user: Option<UserId>, text: &str, time_ms: u64) -> (Pending, Publishing) {
        let draft = encode_draft(&Content::text(text), limits::FRAME_BYTES_MAX_DEFAULT).unwrap();
        Pending::new(ROOM, user, ClientId::v7(time_ms, [9; 10]), draft, 100)
    }

    #[test]
    fn the_frame_is_what_the_protocol_crate_writes() {
        for user in [None, Some(UserId::from_name("ann"))] {
            let texts = ["", "short", &"long".repeat(100)];
            let drafts: Vec<_> = (1..)
                .zip(texts)
                .map(|(n, text)| (n, pending(user, text, n).0))
                .collect();
            let mut out = BytesMut::new();
            put_frame(&mut out, RequestId(5), &drafts);
            let body = v1::Publish {
                target: Some(v1::publish::Target::Conversation(ROOM.to_proto())),
                drafts: (1..)
                    .zip(texts)
                    .map(|(n, text)| v1::Draft {
                        client_id: ClientId::v7(n, [9; 10]).to_proto(),
                        content: Some(Content::text(text).as_wire().clone()),
                    })
                    .collect(),
                on_behalf_of: user.map(|user| user.to_proto()).unwrap_or_default(),
            };
            assert_eq!(
                out.freeze(),
                frame::encode(FrameKind::Publish, RequestId(5), &body)
            );
        }
    }

    #[test]
    fn a_draft_that_no_frame_can_carry_is_refused() {
        let error = encode_draft(&Content::text("x".repeat(5000)), 4096).unwrap_err();
        assert!(
            matches!(
                error,
                PublishError::TooLarge {
                    bytes: 5001..,
                    bytes_max: 4096
                }
            ),
            "{error:?}"
        );
        assert_eq!(error.retry(), Retry::Never);
    }

    #[test]
    fn waiting_out_has_an_end() {
        let (mut draft, _publishing) = pending(None, "a", 1);
        for _ in 0..ATTEMPTS_MAX {
            draft = draft
                .refuse(ErrorCode::InternalError.to_proto(0).into())
                .expect("again")
                .0;
        }
        assert!(
            draft
                .refuse(ErrorCode::InternalError.to_proto(0).into())
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_draft_that_may_have_been_appended_is_never_said_not_to_have_been() {
        let refusal = |code: ErrorCode| ServerError::from(code.to_proto(0));
        let (draft, publishing) = pending(None, "a", 1);
        let limited = draft.refuse(refusal(ErrorCode::RateLimited));
        assert!(limited.is_none(), "nothing was sent before");
        assert_eq!(publishing.await.unwrap_err().retry(), Retry::Safe);

        let (draft, publishing) = pending(None, "b", 2);
        let (mut draft, _) = draft.refuse(refusal(ErrorCode::OwnerMoved)).expect("again");
        for code in [ErrorCode::RateLimited, ErrorCode::Overloaded] {
            draft = draft.refuse(refusal(code)).expect("again").0;
        }
        while let Some((again, _)) = draft.refuse(refusal(ErrorCode::SlowMode)) {
            draft = again;
        }
        let error = publishing.await.unwrap_err();
        assert!(error.refusal().unwrap().is(ErrorCode::SlowMode));
        assert_eq!(error.retry(), Retry::MaybeDuplicate);

        let (mut draft, publishing) = pending(None, "c", 3);
        draft.sent_before();
        assert!(draft.refuse(refusal(ErrorCode::RateLimited)).is_none());
        assert_eq!(publishing.await.unwrap_err().retry(), Retry::MaybeDuplicate);
    }
}
