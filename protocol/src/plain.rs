//! Publish requests that hold nothing but messages in their usual form, which is nearly all of them: read in place, without
//! decoding. What is not quite so is left to [`crate::body`], which judges it in full; nothing is refused here.

use smallvec::SmallVec;

use crate::ids::{ClientId, ConversationId, Handle, ID_BYTES, Seq};
use crate::limits;
use crate::wire::{Reader, WireType};

/// Tag of `Publish.conversation`.
const CONVERSATION: u8 = 1 << 3 | 2;
/// Tag of `Publish.handle`.
const HANDLE: u8 = 2 << 3;
/// Tag of `Publish.drafts`.
const DRAFT: u8 = 3 << 3 | 2;
/// Tag of `Draft.client_id`.
const CLIENT_ID: u8 = 1 << 3 | 2;
/// Number of `Draft.message`.
const MESSAGE: u32 = 17;
/// Tag of `Message.body`.
const BODY: u8 = 1 << 3 | 2;
/// Tag of `Message.reply_to`, packed.
const REPLY_TO: u8 = 2 << 3 | 2;

/// A Publish with messages that have text, perhaps answer others, and hold nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPublish<'a> {
    /// Where to.
    pub target: PlainTarget,
    /// At least one.
    pub drafts: SmallVec<[PlainDraft<'a>; 1]>,
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainTarget {
    /// By its id.
    Conversation(ConversationId),
    /// By its name on this node.
    Handle(Handle),
}

/// A message of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainDraft<'a> {
    /// The idempotency key, a UUIDv7.
    pub client_id: ClientId,
    /// The encoded `Message`.
    pub message: &'a [u8],
    /// Bytes of its text, which is UTF-8 and not empty.
    pub body_bytes: usize,
    /// The newest event that it answers; 0: none.
    pub newest_reply: Seq,
}

impl<'a> PlainPublish<'a> {
    /// Reads the body of a Publish; `None`: it is something else, be it wrong or only unusual.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let target = match reader.byte().ok()? {
            CONVERSATION => PlainTarget::Conversation(ConversationId::from_bytes(id(&mut reader)?)),
            HANDLE => PlainTarget::Handle(Handle(u32::try_from(reader.varint().ok()?).ok()?)),
            _ => return None,
        };
        let mut drafts = SmallVec::new();
        while !reader.is_empty() {
            if reader.byte().ok()? != DRAFT || drafts.len() == limits::DRAFTS_MAX {
                return None;
            }
            drafts.push(draft(reader.len_prefixed().ok()?)?);
        }
        (!drafts.is_empty()).then_some(Self { target, drafts })
    }
}

fn draft(bytes: &[u8]) -> Option<PlainDraft<'_>> {
    let mut reader = Reader::new(bytes);
    if reader.byte().ok()? != CLIENT_ID {
        return None;
    }
    let client_id = ClientId::from_bytes(id(&mut reader)?);
    if !client_id.is_v7() || reader.tag().ok()? != (MESSAGE, WireType::Len) {
        return None;
    }
    let message = reader.len_prefixed().ok()?;
    if !reader.is_empty() {
        return None;
    }
    let mut reader = Reader::new(message);
    if reader.byte().ok()? != BODY {
        return None;
    }
    let body = reader.len_prefixed().ok()?;
    if body.is_empty() || std::str::from_utf8(body).is_err() {
        return None;
    }
    Some(PlainDraft {
        client_id,
        message,
        body_bytes: body.len(),
        newest_reply: newest_reply(&mut reader)?,
    })
}

fn newest_reply(reader: &mut Reader<'_>) -> Option<Seq> {
    if reader.is_empty() {
        return Some(Seq(0));
    }
    if reader.byte().ok()? != REPLY_TO {
        return None;
    }
    let mut replies = Reader::new(reader.len_prefixed().ok()?);
    if !reader.is_empty() {
        return None;
    }
    let (mut newest, mut count) = (0, 0);
    while !replies.is_empty() {
        let seq = replies.varint().ok()?;
        count += 1;
        if seq == 0 || count > limits::REPLY_TO_MAX {
            return None;
        }
        newest = newest.max(seq);
    }
    (count > 0).then_some(Seq(newest))
}

fn id(reader: &mut Reader<'_>) -> Option<[u8; ID_BYTES]> {
    if usize::from(reader.byte().ok()?) != ID_BYTES {
        return None;
    }
    reader.take(ID_BYTES).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::v1::{self, draft::Content, publish::Target};

    fn message(text: &'static str, reply_to: Vec<u64>) -> v1::Message {
        v1::Message {
            body: Bytes::from_static(text.as_bytes()),
            reply_to,
            ..Default::default()
        }
    }

    fn draft_of(number: u8, content: Content) -> v1::Draft {
        v1::Draft {
            client_id: ClientId::v7(1_700_000_000_000, [number; 10]).to_proto(),
            content: Some(content),
        }
    }

    fn publish(drafts: Vec<v1::Draft>) -> v1::Publish {
        v1::Publish {
            target: Some(Target::Conversation(Bytes::from_static(&[7; 16]))),
            drafts,
            on_behalf_of: Bytes::new(),
        }
    }

    #[test]
    fn usual_messages_are_read_in_place() {
        let messages = [message("hello", vec![]), message("and again", vec![300, 9])];
        let drafts = (1..)
            .zip(&messages)
            .map(|(number, message)| draft_of(number, Content::Message(message.clone())));
        let bytes = publish(drafts.collect()).encode_to_vec();
        let read = PlainPublish::read(&bytes).expect("plain");
        let to = ConversationId::from_bytes([7; 16]);
        assert_eq!(read.target, PlainTarget::Conversation(to));
        assert_eq!(read.drafts.len(), 2);
        for (number, (draft, message)) in (1..).zip(read.drafts.iter().zip(&messages)) {
            assert_eq!(
                draft.client_id,
                ClientId::v7(1_700_000_000_000, [number; 10])
            );
            assert_eq!(draft.message, message.encode_to_vec());
            assert_eq!(draft.body_bytes, message.body.len());
        }
        assert_eq!(
            [read.drafts[0].newest_reply, read.drafts[1].newest_reply],
            [Seq(0), Seq(300)]
        );
    }

    #[test]
    fn a_handle_names_the_conversation_too() {
        let mut request = publish(vec![draft_of(1, Content::Message(message("a", vec![])))]);
        request.target = Some(Target::Handle(70_000));
        let bytes = request.encode_to_vec();
        let read = PlainPublish::read(&bytes).expect("plain");
        assert_eq!(read.target, PlainTarget::Handle(Handle(70_000)));
    }

    #[test]
    fn whatever_is_unusual_is_left_to_the_decoder() {
        let plain = || draft_of(1, Content::Message(message("a", vec![])));
        let with = |change: fn(&mut v1::Message)| {
            let mut message = message("a", vec![]);
            change(&mut message);
            publish(vec![draft_of(1, Content::Message(message))])
        };
        let mut unusual = vec![
            publish(vec![]),
            publish(vec![plain(), draft_of(2, Content::Pin(v1::Pin::default()))]),
            publish(vec![plain(); limits::DRAFTS_MAX + 1]),
            with(|message| message.body = Bytes::new()),
            with(|message| message.body = Bytes::from_static(&[0xff])),
            with(|message| message.reply_to = vec![0]),
            with(|message| message.reply_to = vec![1; limits::REPLY_TO_MAX + 1]),
            with(|message| message.mentions = vec![Bytes::from_static(&[1; 16])]),
            with(|message| message.attachments = vec![v1::Attachment::default()]),
            with(|message| message.envelope = Some(v1::Envelope::default())),
        ];
        unusual.push(v1::Publish {
            on_behalf_of: Bytes::from_static(&[1; 16]),
            ..publish(vec![plain()])
        });
        unusual.push(v1::Publish {
            target: None,
            ..publish(vec![plain()])
        });
        unusual.push(v1::Publish {
            target: Some(Target::Conversation(Bytes::from_static(&[7; 15]))),
            ..publish(vec![plain()])
        });
        unusual.push(publish(vec![v1::Draft {
            client_id: Bytes::from_static(&[1; 16]),
            ..plain()
        }]));
        for request in unusual {
            let bytes = request.encode_to_vec();
            assert_eq!(PlainPublish::read(&bytes), None, "{request:?}");
        }
    }

    #[test]
    fn a_request_that_is_cut_or_followed_by_something_is_not_plain() {
        let bytes = publish(vec![draft_of(
            1,
            Content::Message(message("hello", vec![5])),
        )])
        .encode_to_vec();
        assert!(PlainPublish::read(&bytes).is_some());
        for cut in 0..bytes.len() {
            assert_eq!(PlainPublish::read(&bytes[..cut]), None, "cut at {cut}");
        }
        for next in [0x00, 0x22, 0x1a, 0xff] {
            let longer = [&bytes[..], &[next]].concat();
            assert_eq!(PlainPublish::read(&longer), None);
        }
    }
}
