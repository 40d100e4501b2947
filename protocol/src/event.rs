//! Events as bytes: their head is read, and they are passed on, without being decoded. Bodies with events in them are
//! assembled from such bytes in [`crate::frame`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::ids::{ClientId, DeviceId, Epoch, ID_BYTES, Ordinal, Seq, UserId};
use crate::limits::EVENT_HEAD_BYTES_MAX;
use crate::v1;
use crate::wire::{Reader, WireError};

/// Number of the first content field; 8 to 15 are kept for additions to the head.
const CONTENT_FIRST: u32 = 16;
/// An id's length as a varint.
const ID_LENGTH: u8 = 16;
const _: () = assert!(ID_LENGTH as usize == ID_BYTES);
/// Tag and length before an encoded message.
const MESSAGE_PREFIX_BYTES_MAX: usize = 2 + 10;
/// Number of the content `message`, the only one that is counted as unread.
pub const CONTENT_MESSAGE: u32 = 17;
/// Number of the content `edit`.
pub const CONTENT_EDIT: u32 = 18;
/// Number of the content `redacted`.
pub const CONTENT_REDACTED: u32 = 26;

/// What stands in every event, whatever it says: fields 1 to 7, always written and in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// Number in the conversation.
    pub seq: Seq,
    /// Epoch of the owner that wrote it.
    pub epoch: Epoch,
    /// Journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// Countable messages up to and including it.
    pub ordinal: Ordinal,
    /// Who said it.
    pub sender: UserId,
    /// On which device.
    pub device: DeviceId,
    /// The client's name for it.
    pub client_id: ClientId,
}

/// Bytes that are no event as an owner writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// They are no protobuf.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// Fields 1 to 7 do not all stand at the beginning, in order.
    #[error("the event's head is not fields 1 to 7 in order")]
    Head,
    /// Nothing follows the head.
    #[error("the event has no content")]
    NoContent,
}

/// Appends an event: its head, then what it says.
pub fn encode_into(buf: &mut BytesMut, head: &EventHead, content: &v1::event::Content) {
    buf.reserve(EVENT_HEAD_BYTES_MAX + content.encoded_len());
    encode_head(buf, head);
    content.encode(buf);
}

/// Encodes an event whose content is a message that is encoded already, behind what `buf` holds.
pub fn encode_message_into(buf: &mut BytesMut, head: &EventHead, message: &[u8]) {
    buf.reserve(EVENT_HEAD_BYTES_MAX + MESSAGE_PREFIX_BYTES_MAX + message.len());
    encode_head(buf, head);
    encode_key(CONTENT_MESSAGE, WireType::LengthDelimited, buf);
    encode_varint(message.len() as u64, buf);
    buf.put_slice(message);
}

/// Written by field, because generated code leaves out zeroes. Built on the stack and copied once: a buffer that grows is asked for room once an event, not once a field.
fn encode_head(buf: &mut BytesMut, head: &EventHead) {
    let mut bytes = [0; EVENT_HEAD_BYTES_MAX];
    let mut length = 0;
    for (number, value) in [
        (1, head.seq.0),
        (2, head.epoch.0),
        (3, head.time_ms),
        (4, head.ordinal.0),
    ] {
        length += put_number(&mut bytes[length..], number, value);
    }
    for (number, id) in [
        (5, head.sender.as_bytes()),
        (6, head.device.as_bytes()),
        (7, head.client_id.as_bytes()),
    ] {
        let (field, rest) = bytes[length..].split_at_mut(2);
        field.copy_from_slice(&[number << 3 | 2, ID_LENGTH]);
        rest[..ID_BYTES].copy_from_slice(id);
        length += 2 + ID_BYTES;
    }
    buf.put_slice(&bytes[..length]);
}

/// Writes a field of the number type, be it 0, and says how many bytes that took.
#[inline]
fn put_number(bytes: &mut [u8], number: u8, mut value: u64) -> usize {
    bytes[0] = number << 3;
    let mut length = 1;
    // The low seven bits each.
    #[allow(clippy::cast_possible_truncation)]
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    #[allow(clippy::cast_possible_truncation)]
    {
        bytes[length] = value as u8;
    }
    length + 1
}

/// The head of an encoded event.
///
/// # Errors
/// When the bytes do not begin with fields 1 to 7 in order.
pub fn peek(event: &[u8]) -> Result<EventHead, EventError> {
    read_head(&mut Reader::new(event))
}

/// Field number of what an encoded event says: 17 is a message, the only one that counts as unread. Contents that this
/// version does not know have a number too.
///
/// # Errors
/// When the bytes are no event, or it says nothing.
pub fn content_field(event: &[u8]) -> Result<u32, EventError> {
    let mut reader = Reader::new(event);
    read_head(&mut reader)?;
    let mut content = None;
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        reader.skip(wire_type)?;
        if number >= CONTENT_FIRST {
            content = Some(number);
        }
    }
    content.ok_or(EventError::NoContent)
}

/// The event with its content taken away: the same head, and where it was deleted (`by_seq`).
///
/// # Errors
/// As [`peek`].
pub fn redact(event: &Bytes, by_seq: Seq) -> Result<Bytes, EventError> {
    let mut reader = Reader::new(event);
    read_head(&mut reader)?;
    let head = &event[..event.len() - reader.remaining()];
    let content = v1::event::Content::Redacted(v1::Redacted { by_seq: by_seq.0 });
    let mut redacted = BytesMut::with_capacity(head.len() + content.encoded_len());
    redacted.put_slice(head);
    content.encode(&mut redacted);
    Ok(redacted.freeze())
}

fn read_head(reader: &mut Reader<'_>) -> Result<EventHead, EventError> {
    Ok(EventHead {
        seq: Seq(number(reader, 1)?),
        epoch: Epoch(number(reader, 2)?),
        time_ms: number(reader, 3)?,
        ordinal: Ordinal(number(reader, 4)?),
        sender: UserId::from_bytes(id(reader, 5)?),
        device: DeviceId::from_bytes(id(reader, 6)?),
        client_id: ClientId::from_bytes(id(reader, 7)?),
    })
}

#[inline]
fn number(reader: &mut Reader<'_>, field: u8) -> Result<u64, EventError> {
    if reader.byte()? != field << 3 {
        return Err(EventError::Head);
    }
    Ok(reader.varint()?)
}

#[inline]
fn id(reader: &mut Reader<'_>, field: u8) -> Result<[u8; ID_BYTES], EventError> {
    if reader.byte()? != field << 3 | 2 || usize::from(reader.byte()?) != ID_BYTES {
        return Err(EventError::Head);
    }
    reader
        .take(ID_BYTES)?
        .try_into()
        .map_err(|_| EventError::Head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::event::Content;
    use prost::Message as _;
    use prost::encoding::uint64;

    fn head() -> EventHead {
        EventHead {
            seq: Seq(300),
            epoch: Epoch(2),
            time_ms: 1_700_000_000_000,
            ordinal: Ordinal(299),
            sender: UserId::from_name("ann"),
            device: DeviceId::v4([5; 16]),
            client_id: ClientId::v7(1_700_000_000_000, [6; 10]),
        }
    }

    fn message(body: &'static [u8]) -> Content {
        Content::Message(v1::Message {
            body: Bytes::from_static(body),
            ..Default::default()
        })
    }

    fn encoded(head: &EventHead, content: &Content) -> Bytes {
        let mut buf = BytesMut::new();
        encode_into(&mut buf, head, content);
        buf.freeze()
    }

    #[test]
    fn an_event_is_what_generated_code_writes_and_reads() {
        let event = encoded(&head(), &message(b"hello"));
        let decoded = v1::Event::decode(event.clone()).unwrap();
        assert_eq!(decoded.seq, 300);
        assert_eq!(decoded.content, Some(message(b"hello")));
        assert_eq!(decoded.encode_to_vec(), event);
        assert_eq!(peek(&event), Ok(head()));
        assert_eq!(content_field(&event), Ok(CONTENT_MESSAGE));
    }

    #[test]
    fn a_message_that_is_encoded_already_becomes_the_same_event() {
        let content = message(b"hello");
        let Content::Message(inner) = &content else {
            unreachable!("a message")
        };
        let mut buf = BytesMut::new();
        encode_message_into(&mut buf, &head(), &inner.encode_to_vec());
        assert_eq!(buf, encoded(&head(), &content));
    }

    #[test]
    fn zeroes_stand_in_the_head_too() {
        let zero = EventHead {
            seq: Seq(0),
            epoch: Epoch(0),
            time_ms: 0,
            ordinal: Ordinal(0),
            sender: UserId::SYSTEM,
            device: DeviceId::from_bytes([0; 16]),
            client_id: ClientId::from_bytes([0; 16]),
        };
        let event = encoded(&zero, &message(b""));
        assert_eq!(peek(&event), Ok(zero));
        assert_eq!(content_field(&event), Ok(CONTENT_MESSAGE));
    }

    #[test]
    fn the_largest_head_fits_its_bound() {
        let most = EventHead {
            seq: Seq(u64::MAX),
            epoch: Epoch(u64::MAX),
            time_ms: u64::MAX,
            ordinal: Ordinal(u64::MAX),
            ..head()
        };
        let mut buf = BytesMut::new();
        encode_head(&mut buf, &most);
        assert!(buf.len() <= EVENT_HEAD_BYTES_MAX);
        assert_eq!(peek(&buf), Ok(most));
        assert_eq!(content_field(&buf), Err(EventError::NoContent));
    }

    #[test]
    fn a_head_that_is_cut_or_out_of_order_is_refused() {
        let event = encoded(&head(), &message(b"hello"));
        let mut bare = BytesMut::new();
        encode_head(&mut bare, &head());
        for cut in 0..bare.len() {
            assert!(peek(&event[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(peek(&event[1..]), Err(EventError::Head));
        let mut long_id = event.to_vec();
        let sender_length = event
            .windows(2)
            .position(|pair| pair == [5 << 3 | 2, 16])
            .unwrap()
            + 1;
        long_id[sender_length] = 17;
        assert_eq!(peek(&long_id), Err(EventError::Head));
    }

    #[test]
    fn a_redacted_event_keeps_its_head_and_nothing_else() {
        let event = encoded(&head(), &message(b"a secret"));
        let redacted = redact(&event, Seq(301)).unwrap();
        assert_eq!(peek(&redacted), Ok(head()));
        assert_eq!(content_field(&redacted), Ok(CONTENT_REDACTED));
        let decoded = v1::Event::decode(redacted.clone()).unwrap();
        assert_eq!(
            decoded.content,
            Some(Content::Redacted(v1::Redacted { by_seq: 301 }))
        );
        assert!(!redacted.windows(6).any(|bytes| bytes == b"secret"));
        assert!(redact(&event.slice(3..), Seq(301)).is_err());
    }

    #[test]
    fn a_content_of_the_future_has_a_number_and_a_later_head_field_is_none() {
        let mut buf = BytesMut::new();
        encode_head(&mut buf, &head());
        uint64::encode(8, &1, &mut buf);
        assert_eq!(content_field(&buf), Err(EventError::NoContent));
        uint64::encode(40, &1, &mut buf);
        assert_eq!(content_field(&buf), Ok(40));
    }
}
