//! Something that speaks the protocol as a broker does, and answers Publish as a test wants it, or not at all. No event is delivered.

#![allow(clippy::unwrap_used)] // as in every test

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use prost::Message;
use rialto_protocol::frame::{self, FrameKind, HEADER_BYTES, LENGTH_BYTES};
use rialto_protocol::ids::RequestId;
use rialto_protocol::v1;

/// The frame that answers the Publish with this request id; none: nothing does. And a reader's Ping, which has [`PING`]; none: Pong.
pub(crate) type Answer = Arc<dyn Fn(u32) -> Option<Bytes> + Send + Sync>;

/// The request id of every Ping.
pub(crate) const PING: u32 = u32::MAX;

/// A frame with one receipt.
pub(crate) fn receipt(request_id: u32, receipt: v1::Receipt) -> Option<Bytes> {
    let receipts = vec![v1::Receipt {
        request_id,
        ..receipt
    }];
    let published = v1::Published { receipts };
    let id = RequestId(request_id);
    Some(frame::encode(FrameKind::Published, id, &published))
}

/// Serves for as long as the test lasts, with these words of welcome; the target.
pub(crate) fn serve(welcome: v1::Welcome, answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (welcome, answer) = (welcome.clone(), answer.clone());
            // The client goes away as it likes.
            thread::spawn(move || drop(speak(stream.unwrap(), &welcome, &answer)));
        }
    });
    target
}

fn speak(mut stream: TcpStream, welcome: &v1::Welcome, answer: &Answer) -> std::io::Result<()> {
    let mut reads = false;
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let length = u32::from_le_bytes(*header.first_chunk().unwrap()) as usize;
        let request_id = u32::from_le_bytes(*header.last_chunk().unwrap());
        let mut body = vec![0; length + LENGTH_BYTES - HEADER_BYTES];
        stream.read_exact(&mut body)?;
        let kind = FrameKind::try_from(header[LENGTH_BYTES]).unwrap();
        let id = RequestId(request_id);
        let reply = match kind {
            FrameKind::Hello => frame::encode(FrameKind::Welcome, id, welcome),
            FrameKind::Ping => reads
                .then(|| answer(request_id))
                .flatten()
                .unwrap_or_else(|| frame::encode(FrameKind::Pong, id, &v1::Pong::default())),
            FrameKind::Create => {
                let created = v1::CreatedConversation::default();
                frame::encode(FrameKind::CreatedConversation, id, &created)
            }
            FrameKind::Subscribe => {
                reads = true;
                let subscribe = v1::Subscribe::decode(&*body).unwrap();
                let result = |(handle, one): (u32, v1::Subscription)| v1::SubscriptionResult {
                    conversation: one.conversation,
                    status: v1::SubscriptionStatus::Following.into(),
                    handle,
                    head: Some(v1::Cursor { epoch: 1, seq: 1 }),
                    ..v1::SubscriptionResult::default()
                };
                let results = (1..).zip(subscribe.subscriptions).map(result).collect();
                frame::encode(FrameKind::Subscribed, id, &v1::Subscribed { results })
            }
            FrameKind::Publish => {
                let Some(reply) = answer(request_id) else {
                    continue;
                };
                reply
            }
            _ => return Err(ErrorKind::Unsupported.into()),
        };
        stream.write_all(&reply)?;
    }
}
