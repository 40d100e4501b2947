//! What is said in logs that were judged before. Frame by frame, without the SDK: each answer is heard as the broker gives it, and
//! nothing is sent again by itself, be it to the broker of another round.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use prost::Message as _;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::{self, Frame, FrameKind};
use rialto_protocol::ids::{ClientId, ConversationId, DeviceId, Epoch, RequestId, Seq, UserId};
use rialto_protocol::limits::FRAME_BYTES_MAX_CEILING;
use rialto_protocol::v1;
use rialto_sdk::{ClientIds, Receipt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Tells the ids of what is said from those of the SDK.
const ENTROPY: [u8; 6] = *b"later!";
/// The request id of Hello; those of messages are their places, from 1 on.
const HELLO: RequestId = RequestId(u32::MAX);

/// A message that was said behind what its log held when it was judged.
#[derive(Clone, Debug)]
pub(crate) struct Later {
    pub(super) conversation: ConversationId,
    pub(super) client_id: ClientId,
    pub(super) sender: UserId,
    pub(super) body: String,
    /// Where it stands, once that was acknowledged.
    pub(super) receipt: Option<Receipt>,
}

/// What came of saying something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Messages that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Those that were refused because of storage, which did not answer or holds what is damaged, in words.
    pub(crate) unavailable: Vec<String>,
    /// Those that were refused for any other reason.
    pub(crate) refused: Vec<String>,
    /// How many were not answered.
    pub(crate) unanswered: usize,
    /// The requests that were.
    pub(crate) answered: BTreeSet<u32>,
}

/// Who says it.
pub(crate) struct Speaker {
    user: UserId,
    stream: TcpStream,
    buf: BytesMut,
    ids: ClientIds,
}

impl Speaker {
    /// A session of the user on a connection over plain TCP.
    pub(crate) async fn enter(port: u16, user: UserId) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut speaker = Self {
            user,
            stream,
            buf: BytesMut::new(),
            ids: ClientIds::new(ENTROPY),
        };
        let hello = v1::Hello {
            token: Tokens::Development.of(user),
            device: DeviceId::from_bytes(*user.as_bytes()).to_proto(),
            sdk: "rialto-faults".to_owned(),
            ..v1::Hello::default()
        };
        let hello = frame::encode(FrameKind::Hello, HELLO, &hello);
        speaker.stream.write_all(&hello).await?;
        match speaker.next().await?.kind {
            FrameKind::Welcome => Ok(speaker),
            other => Err(io::Error::other(format!("{other} instead of Welcome"))),
        }
    }

    /// Says so many messages in each of these conversations without waiting, then hears all answers. What was said and heard is
    /// written down as it happens.
    pub(crate) async fn say(
        &mut self,
        conversations: &[ConversationId],
        each: usize,
        later: &mut Vec<Later>,
        heard: &mut Heard,
    ) -> io::Result<()> {
        let mut frames = BytesMut::new();
        for _ in 0..each {
            for &conversation in conversations {
                let message = Later {
                    conversation,
                    client_id: self.ids.next(now_ms()),
                    sender: self.user,
                    body: format!("later: {}", later.len()),
                    receipt: None,
                };
                let publish = publish(&message);
                later.push(message);
                let request = RequestId(u32::try_from(later.len()).unwrap_or(u32::MAX));
                frame::encode_into(&mut frames, FrameKind::Publish, request, &publish);
                heard.unanswered += 1;
            }
        }
        self.stream.write_all(&frames).await?;
        while heard.unanswered > 0 {
            let frame = self.next().await?;
            hear(&frame, later, heard)?;
        }
        Ok(())
    }

    /// What the broker says next.
    async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let split = frame::split(&mut self.buf, FRAME_BYTES_MAX_CEILING);
            if let Some(frame) = split.map_err(io::Error::other)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn publish(message: &Later) -> v1::Publish {
    let content = v1::Message {
        body: message.body.clone().into(),
        ..v1::Message::default()
    };
    v1::Publish {
        target: Some(v1::publish::Target::Conversation(
            message.conversation.to_proto(),
        )),
        drafts: vec![v1::Draft {
            client_id: message.client_id.to_proto(),
            content: Some(v1::draft::Content::Message(content)),
        }],
        ..v1::Publish::default()
    }
}

/// Writes down what a frame says of messages. What is said of none, or of the connection, ends it.
fn hear(frame: &Frame, later: &mut [Later], heard: &mut Heard) -> io::Result<()> {
    match frame.kind {
        FrameKind::Published => {
            let published = v1::Published::decode(frame.body.clone()).map_err(io::Error::other)?;
            for receipt in published.receipts {
                let request = receipt.request_id;
                let answer = match receipt.error {
                    Some(error) => Err(error),
                    None => Ok(Receipt {
                        epoch: Epoch(receipt.epoch),
                        seq: Seq(receipt.seq),
                        time_ms: receipt.time_ms,
                        duplicate: receipt.duplicate,
                    }),
                };
                answered(request, answer, later, heard)?;
            }
            Ok(())
        }
        FrameKind::Error => {
            let error = v1::Error::decode(frame.body.clone()).map_err(io::Error::other)?;
            answered(frame.request_id.0, Err(error), later, heard)
        }
        _ => Ok(()),
    }
}

fn answered(
    request: u32,
    answer: Result<Receipt, v1::Error>,
    later: &mut [Later],
    heard: &mut Heard,
) -> io::Result<()> {
    let place = usize::try_from(request)
        .ok()
        .and_then(|request| request.checked_sub(1));
    let Some(message) = place.and_then(|place| later.get_mut(place)) else {
        let words = format!("request {request}, which is none, was answered with {answer:?}");
        return Err(io::Error::other(words));
    };
    // Else the second answer would count as that of another message.
    if !heard.answered.insert(request) {
        let words = format!("request {request} was answered twice, now with {answer:?}");
        return Err(io::Error::other(words));
    }
    heard.unanswered = heard.unanswered.saturating_sub(1);
    match answer {
        Ok(receipt) => {
            message.receipt = Some(receipt);
            heard.acknowledged += 1;
        }
        Err(error) => {
            let conversation = message.conversation;
            let words = format!("{conversation}: {} (code {})", error.text, error.code);
            match ErrorCode::from_proto(&error) {
                Some(ErrorCode::StorageUnavailable | ErrorCode::Damaged) => {
                    heard.unavailable.push(words);
                }
                _ => heard.refused.push(words),
            }
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8) -> Later {
        Later {
            conversation: ConversationId::from_bytes([1; 16]),
            client_id: ClientId::from_bytes([number; 16]),
            sender: UserId::from_bytes([3; 16]),
            body: number.to_string(),
            receipt: None,
        }
    }

    fn split(bytes: &[u8]) -> Frame {
        let mut buf = BytesMut::from(bytes);
        frame::split(&mut buf, FRAME_BYTES_MAX_CEILING)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn each_answer_is_written_down_as_what_it_is() {
        let mut later = [message(1), message(2), message(3)];
        let mut heard = Heard {
            unanswered: 4,
            ..Heard::default()
        };
        let receipts = vec![
            v1::Receipt {
                request_id: 2,
                epoch: 4,
                seq: 9,
                time_ms: 7,
                ..v1::Receipt::default()
            },
            v1::Receipt {
                request_id: 1,
                error: Some(ErrorCode::StorageUnavailable.to_proto(5)),
                ..v1::Receipt::default()
            },
        ];
        let published = v1::Published { receipts };
        let published = frame::encode(FrameKind::Published, RequestId::PUSH, &published);
        hear(&split(&published), &mut later, &mut heard).unwrap();
        let refused = frame::error(RequestId(3), ErrorCode::NotAMember, 0);
        hear(&split(&refused), &mut later, &mut heard).unwrap();
        let stands = later[1].receipt.map(|receipt| (receipt.epoch, receipt.seq));
        assert_eq!(stands, Some((Epoch(4), Seq(9))));
        assert_eq!((later[0].receipt, later[2].receipt), (None, None));
        assert_eq!((heard.acknowledged, heard.unanswered), (1, 1));
        assert_eq!((heard.unavailable.len(), heard.refused.len()), (1, 1));
    }

    /// Its second answer would stand for that of the other.
    #[test]
    fn a_message_that_is_answered_twice_ends_it() {
        let mut later = [message(1), message(2)];
        let mut heard = Heard {
            unanswered: 2,
            ..Heard::default()
        };
        let receipt = v1::Receipt {
            request_id: 1,
            epoch: 1,
            seq: 1,
            ..v1::Receipt::default()
        };
        let receipts = vec![receipt.clone(), v1::Receipt { seq: 2, ..receipt }];
        let published = v1::Published { receipts };
        let published = frame::encode(FrameKind::Published, RequestId::PUSH, &published);
        let twice = hear(&split(&published), &mut later, &mut heard).unwrap_err();
        assert!(twice.to_string().contains("answered twice"), "{twice}");
        assert_eq!(heard.unanswered, 1);
    }

    #[test]
    fn what_is_said_of_the_connection_or_of_no_message_ends_it() {
        let mut heard = Heard::default();
        for request in [RequestId::PUSH, RequestId(2)] {
            let closing = split(&frame::error(request, ErrorCode::IdleTimeout, 0));
            let heard = hear(&closing, &mut [message(1)], &mut heard);
            assert!(heard.unwrap_err().to_string().contains("108"));
        }
    }
}
