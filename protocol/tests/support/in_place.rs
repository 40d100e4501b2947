//! A Publish read in place and decoded, for tests and fuzzing: both have to say the same.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::body;
use rialto_protocol::ids::Seq;
use rialto_protocol::plain::{PlainDraft, PlainPublish, PlainTarget};
use rialto_protocol::v1::{self, draft::Content, publish::Target};

/// Whether the body is read in place.
///
/// # Panics
/// When it is, and its decoding says something else.
pub(crate) fn is_read_in_place(bytes: &[u8]) -> bool {
    let Some(plain) = PlainPublish::read(bytes) else {
        return false;
    };
    let target = match plain.target {
        PlainTarget::Conversation(conversation) => Target::Conversation(conversation.to_proto()),
        PlainTarget::Handle(handle) => Target::Handle(handle.0),
    };
    let publish = v1::Publish {
        target: Some(target),
        drafts: plain.drafts.iter().map(draft).collect(),
        on_behalf_of: Bytes::new(),
    };
    let decoded = body::decode::<v1::Publish>(&Bytes::copy_from_slice(bytes));
    assert_eq!(decoded, Ok(publish));
    true
}

fn draft(plain: &PlainDraft<'_>) -> v1::Draft {
    let message = v1::Message::decode(plain.message).expect("it was read");
    let newest = message.reply_to.iter().copied().max().unwrap_or(0);
    assert_eq!(plain.newest_reply, Seq(newest));
    assert_eq!(plain.body_bytes, message.body.len());
    assert!(std::str::from_utf8(&message.body).is_ok() && !message.reply_to.contains(&0));
    let nothing_else = v1::Message {
        body: message.body.clone(),
        reply_to: message.reply_to.clone(),
        ..Default::default()
    };
    assert_eq!(message, nothing_else);
    v1::Draft {
        client_id: plain.client_id.to_proto(),
        content: Some(Content::Message(message)),
    }
}
