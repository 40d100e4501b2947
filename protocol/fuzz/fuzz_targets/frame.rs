//! Everything that is done with received bytes: frames are split off, decompressed, decoded or read in place, and their events
//! peeked at; and the records that the journal holds.
//!
//! `cargo +nightly fuzz run frame` in `protocol/` (needs cargo-fuzz).

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use rialto_protocol::frame::{self, Frame, FrameKind};
use rialto_protocol::ids::Seq;
use rialto_protocol::record::RecordRefs;
use rialto_protocol::{body, event, limits, v1};

#[path = "../../tests/support/any.rs"]
mod any;
#[path = "../../tests/support/in_place.rs"]
mod in_place;

fuzz_target!(|bytes: &[u8]| {
    let mut buf = BytesMut::from(bytes);
    while let Ok(Some(frame)) = frame::split(&mut buf, limits::FRAME_BYTES_MAX_CEILING) {
        let Ok(frame) = frame::decompress(frame, limits::FRAME_BYTES_MAX_CEILING) else { break };
        receive(&frame);
    }
    // The same bytes as a body of every kind, without the luck that a header takes.
    let body = Bytes::copy_from_slice(bytes);
    for kind in FrameKind::ALL {
        let _ = any::decode_and_encode(*kind, &body);
    }
    peek(&body);
    let _ = in_place::is_read_in_place(bytes);
    let _ = RecordRefs::new(bytes).count();
});

fn receive(frame: &Frame) {
    let Ok(again) = any::decode_and_encode(frame.kind, &frame.body) else { return };
    let thrice = any::decode_and_encode(frame.kind, &again);
    assert_eq!(thrice.as_ref(), Ok(&again), "what was accepted can be passed on");
    if let (FrameKind::Deliver, Ok(deliver)) = (frame.kind, body::decode::<v1::Deliver>(&frame.body)) {
        for event in deliver.events {
            peek(&prost::Message::encode_to_vec(&event).into());
        }
    }
}

fn peek(event: &Bytes) {
    let head = event::peek(event);
    let redacted = event::redact(event, Seq(1));
    if let Ok(redacted) = &redacted {
        assert_eq!(event::peek(redacted), head, "redaction keeps the head");
    }
    assert_eq!(head.is_ok(), redacted.is_ok());
    let _ = event::content_field(event);
}
