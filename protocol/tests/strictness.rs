//! What the scan of bodies refuses, to the element.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::body::{self, BodyError};
use rialto_protocol::error::ErrorCode;
use rialto_protocol::{limits, v1};

fn decode<T: body::Body>(bytes: &[u8]) -> Result<T, BodyError> {
    body::decode(&Bytes::copy_from_slice(bytes))
}

#[test]
fn a_list_may_have_as_many_elements_as_its_limit_and_not_one_more() {
    let drafts = |count| {
        v1::Publish {
            drafts: vec![v1::Draft::default(); count],
            ..Default::default()
        }
        .encode_to_vec()
    };
    assert_eq!(
        decode::<v1::Publish>(&drafts(limits::DRAFTS_MAX))
            .unwrap()
            .drafts
            .len(),
        limits::DRAFTS_MAX
    );
    let refused = decode::<v1::Publish>(&drafts(limits::DRAFTS_MAX + 1)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TooManyElements);
    assert_eq!(
        refused,
        BodyError::TooManyElements {
            message: "Publish",
            field: "drafts",
            elements_max: limits::DRAFTS_MAX
        }
    );
}

#[test]
fn packed_and_single_elements_count_alike_and_together() {
    let reply_to = |packed: usize, single: usize| {
        let mut message = vec![0x12, u8::try_from(packed).unwrap()];
        message.extend(vec![1; packed]);
        message.extend([0x10, 1].repeat(single));
        let mut draft = vec![0x8a, 0x01, u8::try_from(message.len()).unwrap()];
        draft.extend(message);
        decode::<v1::Draft>(&draft)
    };
    for packed in 0..=limits::REPLY_TO_MAX {
        assert!(reply_to(packed, limits::REPLY_TO_MAX - packed).is_ok());
        assert!(matches!(
            reply_to(packed, limits::REPLY_TO_MAX + 1 - packed),
            Err(BodyError::TooManyElements {
                message: "Message",
                field: "reply_to",
                ..
            })
        ));
    }
}

#[test]
fn a_list_cannot_be_made_longer_by_sending_its_message_in_parts() {
    let part = v1::Draft {
        content: Some(v1::draft::Content::Message(v1::Message::default())),
        ..Default::default()
    };
    let twice = [part.encode_to_vec(), part.encode_to_vec()].concat();
    assert_eq!(
        decode::<v1::Draft>(&twice),
        Err(BodyError::Twice {
            message: "Draft",
            field: "message"
        })
    );
}

#[test]
fn of_two_contents_the_last_one_counts() {
    let pin = v1::draft::Content::Pin(v1::Pin {
        target: 1,
        off: false,
    });
    let vote = v1::draft::Content::Vote(v1::Vote {
        target: 2,
        value: 1,
    });
    let draft = |content: &v1::draft::Content| v1::Draft {
        content: Some(content.clone()),
        ..Default::default()
    };
    let both = [draft(&pin).encode_to_vec(), draft(&vote).encode_to_vec()].concat();
    assert_eq!(decode::<v1::Draft>(&both).unwrap().content, Some(vote));
}

#[test]
fn unknown_fields_are_skipped_however_many_there_are() {
    let of_every_type = [
        &[0xf8, 0x07, 1][..],
        &[0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xfa, 0x07, 2, 9, 9],
        &[0xfd, 0x07, 1, 2, 3, 4],
    ]
    .concat();
    let known = v1::Pong { server_time_ms: 5 }.encode_to_vec();
    // A list that a later version has is that many fields.
    for count in [1, 500] {
        let bytes = [of_every_type.repeat(count), known.clone()].concat();
        assert_eq!(decode::<v1::Pong>(&bytes).unwrap().server_time_ms, 5);
    }
    let cut = [of_every_type.repeat(500), vec![0xfa, 0x07, 2, 9]].concat();
    assert!(matches!(decode::<v1::Pong>(&cut), Err(BodyError::Wire(_))));
}

#[test]
fn every_scalar_with_another_wire_type_is_refused() {
    let refused = |bytes: &[u8]| decode::<v1::History>(bytes).unwrap_err();
    let wrong = |field| BodyError::WireType {
        message: "History",
        field,
    };
    assert_eq!(refused(&[0x08, 1]), wrong("conversation"));
    assert_eq!(
        refused(&[0x12, 1, 1]),
        wrong("from_seq"),
        "only lists are packed"
    );
    assert_eq!(refused(&[0x11, 1, 2, 3, 4, 5, 6, 7, 8]), wrong("from_seq"));
    assert_eq!(refused(&[0x25, 1, 2, 3, 4]), wrong("limit"));
}

#[test]
fn lengths_that_reach_out_of_their_message_are_refused() {
    // Deliver.events[0] has 2 bytes, of which the sender claims 16.
    assert!(matches!(
        decode::<v1::Deliver>(&[0x12, 2, 0x2a, 16, 0, 0, 0]),
        Err(BodyError::Wire(_))
    ));
    assert!(matches!(
        decode::<v1::Refresh>(&[0x0a, 1]),
        Err(BodyError::Wire(_))
    ));
    let huge = [&[0x0a][..], &[0xff; 9], &[1]].concat();
    assert!(matches!(
        decode::<v1::Refresh>(&huge),
        Err(BodyError::Wire(_))
    ));
}

#[test]
fn text_that_is_not_utf8_is_refused_and_bodies_of_messages_may_be_any_bytes() {
    let refused = decode::<v1::Refresh>(&[0x0a, 1, 0xff]).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::MalformedBody);
    assert_eq!(
        &decode::<v1::Message>(&[0x0a, 1, 0xff]).unwrap().body[..],
        [0xff]
    );
}

#[test]
fn an_empty_body_is_the_empty_message() {
    assert_eq!(decode::<v1::Publish>(&[]), Ok(v1::Publish::default()));
}
