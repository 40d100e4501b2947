//! Decodes a body by its frame's kind, for tests and fuzzing that do not care what is in it.

use bytes::Bytes;
use rialto_protocol::body::{self, BodyError};
use rialto_protocol::frame::FrameKind;
use rialto_protocol::v1;

/// Decodes and encodes again.
fn again<T: body::Body>(bytes: &Bytes) -> Result<Bytes, BodyError> {
    body::decode::<T>(bytes).map(|body| body.encode_to_vec().into())
}

macro_rules! by_kind {
    ($($kind:ident)+) => {
        /// The body as its message encodes it: for what we sent ourselves, the same bytes.
        pub(crate) fn decode_and_encode(kind: FrameKind, bytes: &Bytes) -> Result<Bytes, BodyError> {
            match kind {
                $(FrameKind::$kind => again::<v1::$kind>(bytes),)+
            }
        }
    };
}

by_kind! {
    Hello Refresh Ping Publish Subscribe Unsubscribe History Mark Signal Watch SetPresence Create Describe Members
    Conversations Prefer Error Done Welcome Refreshed Pong Published Subscribed HistoryPage Marked Presences
    CreatedConversation Description MembersPage ConversationsPage Deliver Signalled SubscriptionEnded GoAway
}
