//! Events and journal entries as an owner writes them.

use bytes::{Bytes, BytesMut};
use rialto_protocol::event::{self, EventHead};
use rialto_protocol::ids::{
    ClientId, ConversationId, DeviceId, Epoch, LaneId, Ordinal, Position, Seq, UserId,
};
use rialto_protocol::record;
use rialto_protocol::v1::Message;
use rialto_protocol::v1::event::Content;
use rialto_storage::journal::Entry;

use crate::BODY_BYTES;

/// The head and content of a conversation's message at `seq`.
#[must_use]
pub fn message_event(seq: u64) -> (EventHead, Content) {
    let head = EventHead {
        seq: Seq(seq),
        epoch: Epoch(1),
        time_ms: 1_700_000_000_000 + seq,
        ordinal: Ordinal(seq),
        sender: UserId::from_name("bench"),
        device: DeviceId::v4([1; 16]),
        client_id: ClientId::v7(1_700_000_000_000 + seq, [2; 10]),
    };
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    (
        head,
        Content::Message(Message {
            body,
            ..Message::default()
        }),
    )
}

/// An entry of a lane that appends one message at `seq` to each of these conversations.
#[must_use]
pub fn entry(
    lane: LaneId,
    epoch: Epoch,
    position: Position,
    conversations: &[ConversationId],
    seq: u64,
) -> Entry {
    let (head, content) = message_event(seq);
    let mut records = BytesMut::new();
    for conversation in conversations {
        record::put_event(&mut records, conversation, |buf| {
            event::encode_into(buf, &head, &content);
        });
    }
    Entry {
        lane,
        epoch,
        position,
        time_ms: head.time_ms,
        records: records.freeze(),
    }
}
