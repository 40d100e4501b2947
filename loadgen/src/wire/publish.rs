//! Publish frames of one draft with one message, written in place.

use bytes::BufMut;
use rialto_protocol::frame::{Flags, FrameKind, HEADER_BYTES, LENGTH_BYTES};
use rialto_protocol::ids::{ClientId, ConversationId, ID_BYTES};

/// Tag and length of an id.
const ID_FIELD: usize = 2 + ID_BYTES;
/// Tag of `Publish.conversation`, and of `Draft.client_id`.
const FIRST_BYTES: u8 = 1 << 3 | 2;
/// Tag of `Publish.drafts`.
const DRAFTS: u8 = 3 << 3 | 2;
/// Tag of `Draft.message`: 17 << 3 | 2 as a varint.
const MESSAGE: [u8; 2] = [0x8a, 0x01];

/// Appends the frame, and then what `body` appends, which has to be `body_bytes` bytes.
pub(crate) fn put(
    out: &mut Vec<u8>,
    request_id: u32,
    conversation: &ConversationId,
    client_id: &ClientId,
    body_bytes: usize,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let message_bytes = 1 + varint_bytes(body_bytes) + body_bytes;
    let draft_bytes = ID_FIELD + MESSAGE.len() + varint_bytes(message_bytes) + message_bytes;
    let frame_bytes = HEADER_BYTES + ID_FIELD + 1 + varint_bytes(draft_bytes) + draft_bytes;
    out.reserve(frame_bytes);
    let start = out.len();
    let length = u32::try_from(frame_bytes - LENGTH_BYTES).expect("a frame is far below 4 GiB");
    out.put_u32_le(length);
    out.put_slice(&[FrameKind::Publish.number(), Flags::NONE.bits(), 0, 0]);
    out.put_u32_le(request_id);
    put_id(out, conversation.as_bytes());
    out.put_u8(DRAFTS);
    put_varint(out, draft_bytes);
    put_id(out, client_id.as_bytes());
    out.put_slice(&MESSAGE);
    put_varint(out, message_bytes);
    out.put_u8(FIRST_BYTES);
    put_varint(out, body_bytes);
    body(out);
    debug_assert_eq!(out.len() - start, frame_bytes, "the body has its length");
}

/// Bytes of the frame, for counting credit.
pub(crate) const fn frame_bytes(body_bytes: usize) -> usize {
    let message_bytes = 1 + varint_bytes(body_bytes) + body_bytes;
    let draft_bytes = ID_FIELD + MESSAGE.len() + varint_bytes(message_bytes) + message_bytes;
    HEADER_BYTES + ID_FIELD + 1 + varint_bytes(draft_bytes) + draft_bytes
}

#[inline]
fn put_id(out: &mut Vec<u8>, id: &[u8; ID_BYTES]) {
    let mut field = [0; ID_FIELD];
    (field[0], field[1]) = (FIRST_BYTES, 16);
    field[2..].copy_from_slice(id);
    out.put_slice(&field);
}

#[inline]
// Seven bits at a time.
#[allow(clippy::cast_possible_truncation)]
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

const fn varint_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rialto_protocol::frame;
    use rialto_protocol::ids::RequestId;
    use rialto_protocol::v1;

    use super::*;

    #[test]
    fn a_frame_is_what_generated_code_writes_whatever_the_lengths() {
        let conversation = ConversationId::v7(1, [7; 10]);
        let client_id = ClientId::v7(2, [8; 10]);
        let mut out = Vec::new();
        for bytes in [1, 32, 100, 106, 107, 127, 128, 200, 16_300, 16_384, 65_536] {
            let body = vec![b'x'; bytes];
            let publish = v1::Publish {
                target: Some(v1::publish::Target::Conversation(conversation.to_proto())),
                drafts: vec![v1::Draft {
                    client_id: client_id.to_proto(),
                    content: Some(v1::draft::Content::Message(v1::Message {
                        body: Bytes::from(body.clone()),
                        ..Default::default()
                    })),
                }],
                ..Default::default()
            };
            out.clear();
            put(&mut out, 9, &conversation, &client_id, bytes, |out| {
                out.put_slice(&body);
            });
            let expected = frame::encode(FrameKind::Publish, RequestId(9), &publish);
            assert_eq!(out, expected, "{bytes}");
            assert_eq!(frame_bytes(bytes), expected.len());
        }
    }
}
