//! Any message of any kind survives the wire, however its bytes arrive. Messages are made from the .proto files by a
//! second implementation, so a field that generated code or the scan forgets is found.

#![allow(clippy::unwrap_used)] // Helpers of tests too.

#[path = "support/any.rs"]
mod any;
#[path = "support/descriptors.rs"]
mod descriptors;

use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use rialto_protocol::frame::{self, Flags, Frame, FrameKind};
use rialto_protocol::{event, limits, v1};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(descriptors::pool);

/// Choices, made from bytes; 0 when they have run out, so that shorter is simpler.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => 0,
            1 => u64::from(self.byte()),
            2 => u64::from(self.byte()) << (self.byte() % 64),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.byte() % 20).map(|_| self.byte()).collect()
    }
}

fn message(descriptor: &MessageDescriptor, tape: &mut Tape<'_>) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        match tape.byte() % 4 {
            0 => {}
            count if field.is_list() => {
                let list = (0..count).map(|_| value(&field, tape)).collect();
                message.set_field(&field, Value::List(list));
            }
            _ => message.set_field(&field, value(&field, tape)),
        }
    }
    message
}

#[allow(clippy::cast_possible_truncation)] // Any 32 bits will do.
fn value(field: &FieldDescriptor, tape: &mut Tape<'_>) -> Value {
    match field.kind() {
        Kind::Message(descriptor) => Value::Message(message(&descriptor, tape)),
        Kind::Bool => Value::Bool(tape.byte() % 2 == 1),
        Kind::Uint32 => Value::U32(tape.number() as u32),
        Kind::Sint32 => Value::I32(tape.number() as i32),
        Kind::Uint64 => Value::U64(tape.number()),
        Kind::Enum(_) => Value::EnumNumber(tape.number() as i32),
        Kind::String => Value::String(String::from_utf8_lossy(&tape.bytes()).into_owned()),
        Kind::Bytes => Value::Bytes(tape.bytes().into()),
        other => unreachable!("{other:?} is not used on the wire"),
    }
}

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop::sample::select(FrameKind::ALL)
}

fn encoded(kind: FrameKind, tape: &[u8]) -> Bytes {
    message(&descriptors::message(&POOL, kind.name()), &mut Tape(tape))
        .encode_to_vec()
        .into()
}

fn framed(kind: FrameKind, request_id: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    let head = [
        &length.to_le_bytes()[..],
        &[kind.number(), 0, 0, 0],
        &request_id.to_le_bytes(),
    ];
    [&head.concat(), body].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_message_is_accepted_and_encoded_again_the_same(
        kind in kinds(),
        tape in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let body = encoded(kind, &tape);
        prop_assert_eq!(any::decode_and_encode(kind, &body), Ok(body));
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_their_bytes_arrive(
        sent in prop::collection::vec((kinds(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..80)), 1..6),
        chunks in prop::collection::vec(1_usize..40, 1..30),
    ) {
        let frames: Vec<_> = sent.iter().map(|(kind, id, tape)| (*kind, *id, encoded(*kind, tape))).collect();
        let stream: Vec<u8> = frames.iter().flat_map(|(kind, id, body)| framed(*kind, *id, body)).collect();
        let mut received = Vec::new();
        let mut buf = BytesMut::new();
        let mut rest = &stream[..];
        for chunk in chunks.iter().cycle() {
            let (now, later) = rest.split_at((*chunk).min(rest.len()));
            buf.put_slice(now);
            rest = later;
            while let Some(frame) = frame::split(&mut buf, limits::FRAME_BYTES_MAX_DEFAULT).unwrap() {
                received.push((frame.kind, frame.request_id.0, frame.body));
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(buf.is_empty());
        prop_assert_eq!(received, frames);
    }

    #[test]
    fn random_bytes_never_panic_anywhere(kind in kinds(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = frame::split(&mut BytesMut::from(&bytes[..]), limits::FRAME_BYTES_MAX_DEFAULT);
        let _ = any::decode_and_encode(kind, &bytes);
        let _ = event::content_field(&bytes);
        let request_id = rialto_protocol::ids::RequestId(1);
        let _ = frame::decompress(Frame { kind, flags: Flags::COMPRESSED, request_id, body: bytes }, 4096);
    }

    #[test]
    fn what_is_compressed_comes_back(body in prop::collection::vec(0_u8..8, 0..20_000)) {
        let signal = Some(v1::signal::Signal::Custom(body.into()));
        let signal = v1::Signal { conversation: Bytes::new(), signal };
        let plain = frame::encode(FrameKind::Signal, rialto_protocol::ids::RequestId(1), &signal);
        let Some(small) = frame::compress(&plain) else { return Ok(()) };
        prop_assert!(small.len() < plain.len());
        let split = |bytes: &[u8]| frame::split(&mut BytesMut::from(bytes), limits::FRAME_BYTES_MAX_DEFAULT);
        let small = split(&small).unwrap().unwrap();
        let plain = split(&plain).unwrap().unwrap();
        prop_assert_eq!(frame::decompress(small, plain.body.len()), Ok(plain));
    }
}
