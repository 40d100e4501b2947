//! What is read in place is what decoding gives: a message is the same whichever way it is taken.

#[path = "support/in_place.rs"]
mod in_place;

use bytes::Bytes;
use in_place::is_read_in_place;
use prost::Message as _;
use rialto_protocol::ids::ClientId;
use rialto_protocol::v1::{self, draft::Content, publish::Target};

fn draft(number: u8, text: &'static str, reply_to: Vec<u64>) -> v1::Draft {
    let message = v1::Message {
        body: Bytes::from_static(text.as_bytes()),
        reply_to,
        ..Default::default()
    };
    v1::Draft {
        client_id: ClientId::v7(1_700_000_000_000, [number; 10]).to_proto(),
        content: Some(Content::Message(message)),
    }
}

/// Two messages, to a conversation by its id and by a handle.
fn publishes() -> [Vec<u8>; 2] {
    let conversation = Bytes::from_static(&[7; 16]);
    [Target::Conversation(conversation), Target::Handle(70_000)].map(|target| {
        let publish = v1::Publish {
            target: Some(target),
            drafts: vec![
                draft(1, "hello", vec![]),
                draft(2, "Zoë again", vec![300, 9]),
            ],
            on_behalf_of: Bytes::new(),
        };
        publish.encode_to_vec()
    })
}

#[test]
fn whatever_byte_is_changed_it_says_what_decoding_says_or_is_left_to_that() {
    for publish in publishes() {
        let mut read = 0;
        for index in 0..publish.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = publish.clone();
                bytes[index] = byte;
                read += usize::from(is_read_in_place(&bytes));
            }
        }
        // Each byte as it is, and others in ids and texts.
        assert!(read > 2 * publish.len(), "{read}");
    }
}

#[test]
fn numbers_with_more_bytes_than_they_take_are_the_same_numbers() {
    for publish in publishes() {
        let longer = |index: usize| {
            let (before, behind) = publish.split_at(index);
            [before, &[behind[0] | 0x80, 0], &behind[1..]].concat()
        };
        let read = (0..publish.len()).filter(|index| is_read_in_place(&longer(*index)));
        assert!(read.count() >= 2, "the lengths of both drafts at least");
    }
}
