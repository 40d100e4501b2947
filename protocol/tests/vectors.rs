//! `vectors/`: golden frames, and the ids that follow from names. Every implementation tests against them.
//!
//! After a change of the wire that is meant: `cargo test -p rialto-protocol --test vectors -- --ignored` writes them anew, and
//! the difference is reviewed like code.

#![allow(clippy::unwrap_used)] // Helpers of tests too.

#[path = "support/any.rs"]
mod any;
#[path = "support/descriptors.rs"]
mod descriptors;
#[path = "support/json.rs"]
mod json;
#[path = "support/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use rialto_protocol::frame::{self, Flags, Frame, FrameKind};
use rialto_protocol::ids::{ConversationId, LaneId, UserId};
use rialto_protocol::limits;
use samples::{Sample, samples};
use serde_json::{Value, json};

/// Lanes of a data set by default; those of the vectors.
const LANES: u16 = 128;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn read(file: &str) -> Vec<Value> {
    let path = folder().join(file);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str::<Vec<Value>>(&text).unwrap()
}

fn split(bytes: &[u8]) -> Frame {
    frame::split(&mut BytesMut::from(bytes), limits::FRAME_BYTES_MAX_DEFAULT)
        .unwrap()
        .unwrap()
}

/// `CreatedConversation` → `created_conversation.json`.
fn file_of(kind: FrameKind) -> String {
    let mut name = String::new();
    for letter in kind.name().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name + ".json"
}

fn vector(pool: &DescriptorPool, sample: &Sample) -> Value {
    let frame = split(&sample.frame);
    let message =
        DynamicMessage::decode(descriptors::message(pool, sample.kind.name()), frame.body).unwrap();
    json!({
        "name": sample.name,
        "kind": sample.kind.name(),
        "flags": frame.flags.bits(),
        "request_id": sample.request_id,
        "hex": json::hex(&sample.frame),
        "body": json::to_json(&message),
    })
}

fn by_file() -> BTreeMap<String, Vec<Value>> {
    let pool = descriptors::pool();
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for sample in samples() {
        files
            .entry(file_of(sample.kind))
            .or_default()
            .push(vector(&pool, &sample));
    }
    files
}

#[test]
fn every_kind_has_a_vector_and_names_are_unique() {
    let samples = samples();
    for kind in FrameKind::ALL {
        assert!(
            samples.iter().any(|sample| sample.kind == *kind),
            "{kind} has none"
        );
    }
    let mut names: Vec<&str> = samples.iter().map(|sample| sample.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn vectors_are_what_this_version_encodes_and_decodes() {
    for sample in samples() {
        let vectors = read(&file_of(sample.kind));
        let vector = vectors.iter().find(|vector| vector["name"] == sample.name);
        let vector = vector.unwrap_or_else(|| panic!("{} is not in its file", sample.name));
        assert_eq!(vector["hex"], json::hex(&sample.frame), "{}", sample.name);
        let frame = split(&json::unhex(vector["hex"].as_str().unwrap()));
        assert_eq!(
            (frame.kind, frame.request_id.0),
            (sample.kind, sample.request_id)
        );
        assert_eq!(vector["kind"], frame.kind.name());
        assert_eq!(vector["flags"], frame.flags.bits());
        assert_eq!(vector["request_id"], frame.request_id.0);
        assert!((sample.decodes)(&frame.body), "{}", sample.name);
    }
}

#[test]
fn another_implementation_reads_the_same_meaning_and_writes_the_same_bytes() {
    let pool = descriptors::pool();
    for kind in FrameKind::ALL {
        for vector in read(&file_of(*kind)) {
            let body = split(&json::unhex(vector["hex"].as_str().unwrap())).body;
            let descriptor = descriptors::message(&pool, kind.name());
            let decoded = DynamicMessage::decode(descriptor.clone(), body.clone()).unwrap();
            assert_eq!(
                json::to_json(&decoded),
                vector["body"],
                "{}",
                vector["name"]
            );
            let encoded = json::from_json(&descriptor, &vector["body"]).encode_to_vec();
            assert_eq!(json::hex(&encoded), json::hex(&body), "{}", vector["name"]);
        }
    }
}

#[test]
fn no_file_or_vector_is_left_over() {
    let mut expected: Vec<String> = FrameKind::ALL.iter().map(|kind| file_of(*kind)).collect();
    expected.extend(["compressed.json", "ids.json", "refused.json"].map(String::from));
    expected.sort();
    let entries = fs::read_dir(folder()).unwrap();
    let mut found: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected);
    for (file, vectors) in by_file() {
        assert_eq!(read(&file), vectors, "{file}");
    }
}

#[test]
fn ids_follow_from_names_as_in_the_vectors() {
    assert_eq!(read("ids.json"), ids());
}

fn ids() -> Vec<Value> {
    let names = [
        "ann",
        "bob",
        "Zoë",
        "",
        "00112233-4455-6677-8899-aabbccddeeff",
    ];
    let users = names.map(|name| {
        let user = UserId::from_name(name);
        let (own, inbox) = (
            ConversationId::of_self(user),
            ConversationId::of_inbox(user),
        );
        json!({
            "name": name,
            "user": user.to_string(),
            "self": own.to_string(),
            "inbox": inbox.to_string(),
            "lane_of_self": LaneId::of(&own, LANES).0,
            "lane_of_inbox": LaneId::of(&inbox, LANES).0,
        })
    });
    let pairs = [("ann", "bob"), ("bob", "ann"), ("ann", "Zoë")].map(|(a, b)| {
        let direct = ConversationId::of_direct(UserId::from_name(a), UserId::from_name(b));
        json!({ "a": a, "b": b, "direct": direct.to_string(), "lane_of_direct": LaneId::of(&direct, LANES).0 })
    });
    users.into_iter().chain(pairs).collect()
}

#[test]
fn compressed_vectors_become_the_plain_ones() {
    let vectors = read("compressed.json");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let compressed = split(&json::unhex(vector["hex"].as_str().unwrap()));
        assert!(compressed.flags.contains(Flags::COMPRESSED));
        assert_eq!(vector["flags"], compressed.flags.bits());
        let plain = split(&json::unhex(vector["plain_hex"].as_str().unwrap()));
        assert_eq!(
            frame::decompress(compressed, limits::FRAME_BYTES_MAX_DEFAULT),
            Ok(plain),
            "{}",
            vector["name"]
        );
    }
}

/// The output of zstd is its own affair: these are decoded, never compared with what we would encode.
fn compressed() -> Vec<Value> {
    samples()
        .iter()
        .filter_map(|sample| {
            let small = frame::compress(&sample.frame)?;
            Some(json!({
                "name": format!("{}_compressed", sample.name),
                "kind": sample.kind.name(),
                "flags": split(&small).flags.bits(),
                "request_id": sample.request_id,
                "hex": json::hex(&small),
                "plain_hex": json::hex(&sample.frame),
            }))
        })
        .collect()
}

/// Name, frame, the limit to read it with, and the error that it must be refused with.
type Refused = (&'static str, Vec<u8>, usize, &'static str);

fn framed(kind: FrameKind, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    [
        &length.to_le_bytes()[..],
        &[kind.number(), flags, 0, 0, 1, 0, 0, 0],
        body,
    ]
    .concat()
}

fn with_byte(index: usize, byte: u8) -> Vec<u8> {
    let mut ping = framed(FrameKind::Ping, 0, &[]);
    ping[index] = byte;
    ping
}

fn refused() -> Vec<Refused> {
    let mut refused = refused_headers();
    let body = |name, kind, body: &[u8], error| (name, framed(kind, 0, body), 4096, error);
    let malformed = "malformed_body";
    refused.extend([
        body("text_cut_short", FrameKind::Refresh, &[0x0a, 5], malformed),
        body("field_number_0", FrameKind::Ping, &[0x00, 0x00], malformed),
        body("group", FrameKind::Ping, &[0x0b, 0x0c], malformed),
        body("wrong_wire_type", FrameKind::Refresh, &[0x08, 1], malformed),
        body(
            "varint_beyond_64_bits",
            FrameKind::Pong,
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            malformed,
        ),
        body(
            "text_not_utf8",
            FrameKind::Refresh,
            &[0x0a, 1, 0xff],
            malformed,
        ),
        body(
            "message_twice",
            FrameKind::Marked,
            &[0x0a, 0, 0x0a, 0],
            malformed,
        ),
        body(
            "257_drafts",
            FrameKind::Publish,
            &[0x1a, 0].repeat(257),
            "too_many_elements",
        ),
        body(
            "65_capabilities_packed",
            FrameKind::Hello,
            &[&[0x22, 65][..], &[1; 65]].concat(),
            "too_many_elements",
        ),
    ]);
    refused.extend(refused_compressions());
    refused
}

fn refused_headers() -> Vec<Refused> {
    let malformed = "malformed_frame";
    vec![
        ("length_0", vec![0; 4], 4096, malformed),
        ("length_below_the_header", with_byte(0, 7), 4096, malformed),
        (
            "one_byte_above_the_limit",
            4093_u32.to_le_bytes().to_vec(),
            4096,
            "frame_too_large",
        ),
        (
            "length_of_4_gib",
            vec![0xff; 4],
            1_048_576,
            "frame_too_large",
        ),
        ("kind_0", with_byte(4, 0), 4096, "unknown_kind"),
        ("kind_17", with_byte(4, 17), 4096, "unknown_kind"),
        ("flag_without_a_meaning", with_byte(5, 4), 4096, malformed),
        ("reserved_not_0", with_byte(7, 1), 4096, malformed),
    ]
}

fn refused_compressions() -> Vec<Refused> {
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let good = zstd(b"not much");
    let compressed = |name, body: &[u8]| {
        (
            name,
            framed(FrameKind::Ping, 1, body),
            4096,
            "decompression_failed",
        )
    };
    vec![
        compressed("compressed_but_no_zstd", &[0, 0]),
        compressed("compressed_and_a_byte_more", &[&good[..], &[0]].concat()),
        compressed("compressed_and_a_byte_less", &good[..good.len() - 1]),
        compressed("compressed_twice_over", &[&good[..], &good[..]].concat()),
        compressed("compressed_more_than_a_hundredfold", &zstd(&[0; 50_000])),
    ]
}

#[test]
fn frames_that_must_be_refused_are_refused_for_the_reason_named() {
    let vectors = read("refused.json");
    let names: Vec<&Value> = vectors.iter().map(|vector| &vector["name"]).collect();
    assert_eq!(
        names,
        refused()
            .iter()
            .map(|refused| refused.0)
            .collect::<Vec<_>>()
    );
    for vector in vectors {
        let bytes = json::unhex(vector["hex"].as_str().unwrap());
        let frame_bytes_max = usize::try_from(vector["frame_bytes_max"].as_u64().unwrap()).unwrap();
        assert_eq!(
            json!(refusal(&bytes, frame_bytes_max)),
            vector["error"],
            "{}",
            vector["name"]
        );
    }
}

fn refusal(bytes: &[u8], frame_bytes_max: usize) -> &'static str {
    let frame = match frame::split(&mut BytesMut::from(bytes), frame_bytes_max) {
        Ok(frame) => frame.expect("the header is whole"),
        Err(error) => return error.code().name(),
    };
    let frame = match frame::decompress(frame, limits::FRAME_BYTES_MAX_CEILING) {
        Ok(frame) => frame,
        Err(error) => return error.code().name(),
    };
    match any::decode_and_encode(frame.kind, &frame.body) {
        Ok(_) => "accepted",
        Err(error) => error.code().name(),
    }
}

/// Writes every file of `vectors/` anew.
#[test]
#[ignore = "rewrites the golden files: run it after a change of the wire that is meant"]
fn rewrite() {
    let write = |file: &str, vectors: Vec<Value>| {
        let text = serde_json::to_string_pretty(&Value::Array(vectors)).unwrap() + "\n";
        fs::write(folder().join(file), text).unwrap();
    };
    for (file, vectors) in by_file() {
        write(&file, vectors);
    }
    write("ids.json", ids());
    write("compressed.json", compressed());
    let refused = refused().into_iter().map(|(name, bytes, frame_bytes_max, error)| {
        json!({ "name": name, "hex": json::hex(&bytes), "frame_bytes_max": frame_bytes_max, "error": error })
    });
    write("refused.json", refused.collect());
}
