//! Bytes changed, cut and added in every golden frame: what comes of it is an error or another message, never a panic.

#![allow(clippy::unwrap_used)] // Helpers of tests too.

#[path = "support/any.rs"]
mod any;
#[path = "support/samples.rs"]
mod samples;

use bytes::{Bytes, BytesMut};
use rialto_protocol::event;
use rialto_protocol::frame::{self, Flags, Frame, FrameError, FrameKind, HEADER_BYTES};
use rialto_protocol::ids::Seq;
use rialto_protocol::v1;
use samples::samples;

const FRAME_BYTES_MAX: usize = 4096;

/// Everything that can be done with received bytes.
fn receive(bytes: &[u8]) -> Result<Option<(Frame, bool)>, FrameError> {
    let mut buf = BytesMut::from(bytes);
    let Some(frame) = frame::split(&mut buf, FRAME_BYTES_MAX)? else {
        return Ok(None);
    };
    let frame = frame::decompress(frame, FRAME_BYTES_MAX)?;
    let decoded = any::decode_and_encode(frame.kind, &frame.body);
    if let Ok(again) = &decoded {
        assert_eq!(
            any::decode_and_encode(frame.kind, again).as_ref(),
            Ok(again),
            "what was accepted can be passed on"
        );
    }
    let accepted = decoded.is_ok();
    Ok(Some((frame, accepted)))
}

fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn every_flipped_bit_is_an_error_or_another_frame() {
    for sample in samples() {
        for index in 0..sample.frame.len() {
            for bit in 0..8 {
                let mut bytes = sample.frame.to_vec();
                bytes[index] ^= 1 << bit;
                let result = receive(&bytes);
                let Ok(Some((frame, _))) = &result else {
                    continue;
                };
                let whole = frame::split(&mut BytesMut::from(&sample.frame[..]), FRAME_BYTES_MAX)
                    .unwrap()
                    .unwrap();
                assert_ne!(
                    frame, &whole,
                    "{}: bit {bit} of byte {index} says nothing",
                    sample.name
                );
                assert!(
                    !(6..8).contains(&index),
                    "{}: reserved bytes are checked",
                    sample.name
                );
            }
        }
    }
}

#[test]
fn a_cut_frame_is_waited_for_and_a_cut_body_is_refused_or_ends_between_fields() {
    for sample in samples() {
        let mut accepted = 0;
        for cut in 0..sample.frame.len() {
            assert_eq!(
                receive(&sample.frame[..cut]),
                Ok(None),
                "{} cut at {cut}",
                sample.name
            );
            if cut >= HEADER_BYTES {
                let (_, whole) = receive(&with_length(sample.frame[..cut].to_vec()))
                    .unwrap()
                    .unwrap();
                accepted += usize::from(whole);
            }
        }
        // A body has at most 18 fields at its top, and a list's elements count as one each.
        assert!(
            accepted <= 40,
            "{}: {accepted} cuts were accepted",
            sample.name
        );
    }
}

#[test]
fn bytes_after_a_body_are_refused_unless_they_are_a_field() {
    for sample in samples() {
        for byte in 0..=255 {
            let mut bytes = sample.frame.to_vec();
            bytes.push(byte);
            let (_, accepted) = receive(&with_length(bytes)).unwrap().unwrap();
            assert!(!accepted, "{}: a tag without a value ({byte})", sample.name);
        }
    }
}

#[test]
fn a_frame_of_one_kind_read_as_another_never_panics() {
    for sample in samples() {
        for kind in FrameKind::ALL {
            let mut bytes = sample.frame.to_vec();
            bytes[4] = kind.number();
            let (frame, _) = receive(&bytes).unwrap().unwrap();
            assert_eq!(frame.kind, *kind);
        }
    }
}

#[test]
fn any_body_that_claims_to_be_compressed_is_refused() {
    for sample in samples() {
        let mut bytes = sample.frame.to_vec();
        bytes[5] |= Flags::COMPRESSED.bits();
        assert_eq!(
            receive(&bytes),
            Err(FrameError::NotOneZstdFrame),
            "{}",
            sample.name
        );
    }
}

#[test]
fn changed_events_are_peeked_at_without_a_panic() {
    let deliver = samples()
        .into_iter()
        .find(|sample| sample.name == "deliver_every_content")
        .unwrap();
    let deliver: v1::Deliver =
        rialto_protocol::body::decode(&deliver.frame.slice(HEADER_BYTES..)).unwrap();
    for event in deliver.events {
        let event = Bytes::from(prost::Message::encode_to_vec(&event));
        assert!(event::peek(&event).is_ok() && event::content_field(&event).is_ok());
        for index in 0..event.len() {
            assert!(event::peek(&event[..index]).is_err() || event::content_field(&event).is_ok());
            for bit in 0..8 {
                let mut bytes = event.to_vec();
                bytes[index] ^= 1 << bit;
                let (head, redacted) = (
                    event::peek(&bytes),
                    event::redact(&bytes.clone().into(), Seq(1)),
                );
                assert_eq!(head.is_ok(), redacted.is_ok());
                let _ = event::content_field(&bytes);
            }
        }
    }
}
