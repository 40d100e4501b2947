//! A reader who was away gets everything, from the real broker, over every transport.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use broker::Broker;
use bytes::BytesMut;
use rialto_loadgen::catch_up::{CatchUpError, Options, catch_up};
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::frame::{self, Frame, FrameKind};
use rialto_protocol::limits::FRAME_BYTES_MAX_DEFAULT;
use rialto_protocol::v1;
use rialto_sdk::Roots;

fn options(target: &str, messages: u64) -> Options {
    Options {
        target: target.parse().unwrap(),
        tokens: Tokens::Development,
        roots: Roots::InsecureLoopbackOnly,
        messages,
        body_bytes: 40,
        patience: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn a_finished_log_is_read_from_its_beginning_over_every_transport() {
    let broker = Broker::start();
    for transport in ["tcp", "tls", "quic"] {
        let report = catch_up(options(&broker.target(transport), 3000))
            .await
            .unwrap();
        assert_eq!(report.messages, 3000);
        assert!(report.read_per_s > 0.0 && report.fill_s > 0.0, "{report:?}");
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error() {
    // Has the port, so that nobody else gets it, and does not listen.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = format!("tcp://{}", nobody.local_addr().unwrap());
    let error = catch_up(options(&target, 1)).await.unwrap_err();
    assert!(matches!(error, CatchUpError::Lost(_)), "{error}");
}

#[test]
fn a_broker_that_only_answers_pings_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| answer_all_and_deliver_nothing(stream.unwrap()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["catch-up", "--messages", "3", "--patience-s", "3"])
        .args(["--target", &target, "--report"])
        .arg(folder.path().join("report.json"))
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    let says = "nothing was acknowledged or delivered for 3s";
    assert!(
        output.status.code() == Some(2) && words.contains(says),
        "{words}"
    );
}

/// A broker that takes everything, and keeps it.
fn answer_all_and_deliver_nothing(mut stream: TcpStream) {
    let (mut received, mut seq, mut some) = (BytesMut::new(), 0, [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut some) {
        received.extend_from_slice(&some[..read]);
        while let Some(asked) = frame::split(&mut received, FRAME_BYTES_MAX_DEFAULT).unwrap() {
            seq += 1;
            let _ = stream.write_all(&answer(&asked, seq));
        }
    }
}

fn answer(asked: &Frame, seq: u64) -> bytes::Bytes {
    let id = asked.request_id;
    match asked.kind {
        FrameKind::Hello => {
            let welcome = v1::Welcome {
                // Less than is waited for the rest, and a silence that counts would be longer.
                keep_alive_ms: 2_000,
                ..v1::Welcome::default()
            };
            frame::encode(FrameKind::Welcome, id, &welcome)
        }
        FrameKind::Create => {
            let created = v1::CreatedConversation::default();
            frame::encode(FrameKind::CreatedConversation, id, &created)
        }
        FrameKind::Publish => {
            let receipt = v1::Receipt {
                request_id: id.0,
                epoch: 1,
                seq,
                ..v1::Receipt::default()
            };
            let receipts = vec![receipt];
            frame::encode(FrameKind::Published, id, &v1::Published { receipts })
        }
        FrameKind::Subscribe => {
            let result = v1::SubscriptionResult {
                status: v1::SubscriptionStatus::Following.into(),
                handle: 1,
                ..v1::SubscriptionResult::default()
            };
            let results = vec![result];
            frame::encode(FrameKind::Subscribed, id, &v1::Subscribed { results })
        }
        _ => frame::encode(FrameKind::Pong, id, &v1::Pong::default()),
    }
}
