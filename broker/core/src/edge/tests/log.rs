//! An owner played by hand.

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    error::ErrorCode,
    event::{self, EventHead},
    frame,
    ids::{ConversationId, Cursor, DeviceId, Epoch, Handle, Ordinal, Seq},
    v1,
};

use super::rig::{START_MS, client_id, conversation, user};
use crate::message::{Standing, ToEdge, ToOwner};

/// An owner of one conversation, as far as edges see it.
pub(super) struct Log {
    pub(super) conversation: ConversationId,
    pub(super) handle: Handle,
    pub(super) epoch: Epoch,
    pub(super) events: Vec<Bytes>,
    pub(super) oldest: Seq,
    pub(super) attached: bool,
}

impl Log {
    pub(super) fn new(number: u8, events: u64) -> Self {
        let mut log = Self {
            conversation: conversation(number),
            handle: Handle(100 + u32::from(number)),
            epoch: Epoch(3),
            events: Vec::new(),
            oldest: Seq(1),
            attached: false,
        };
        log.append(events, 10);
        log
    }

    pub(super) fn head(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: Seq(self.events.len() as u64),
        }
    }

    pub(super) fn cursor(&self, seq: u64) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: Seq(seq),
        }
    }

    /// Appends events and says how readers are told.
    pub(super) fn append(&mut self, count: u64, body_bytes: usize) -> ToEdge {
        let first = self.events.len() as u64 + 1;
        for seq in first..first + count {
            self.events.push(self.event(seq, body_bytes));
        }
        let batch = &self.events[usize::try_from(first - 1).unwrap()..];
        ToEdge::Deliver {
            conversation: self.conversation,
            first: Seq(first),
            last: Seq(first + count - 1),
            frame: frame::deliver(self.handle, batch.iter()),
            ended: smallvec::SmallVec::new(),
        }
    }

    fn event(&self, seq: u64, body_bytes: usize) -> Bytes {
        let head = EventHead {
            seq: Seq(seq),
            epoch: self.epoch,
            time_ms: START_MS + seq,
            ordinal: Ordinal(seq),
            sender: user("ann"),
            device: DeviceId::from_bytes([1; 16]),
            client_id: client_id(seq),
        };
        // Not to be compressed to nothing.
        let body = (0..body_bytes as u64)
            .map(|index| b'a' + ((index * 7919 + seq * 104_729) % 26) as u8)
            .collect::<Vec<u8>>();
        let mut buf = BytesMut::new();
        let content = v1::event::Content::Message(v1::Message {
            body: Bytes::from(body),
            ..v1::Message::default()
        });
        event::encode_into(&mut buf, &head, &content);
        buf.freeze()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            handle: self.handle,
            head: self.head(),
            ordinal: Ordinal(self.head().seq.0),
            oldest: self.oldest,
            marker: v1::Marker::default(),
            unread: 0,
            unread_mentions: 0,
            role: v1::Role::Member,
        }
    }

    /// Answers what readers ask; none: it has no answer.
    pub(super) fn answer(&mut self, ask: ToOwner) -> Option<ToEdge> {
        match ask {
            ToOwner::Subscribe {
                origin,
                slot,
                user,
                conversation,
                cursor,
            } => {
                assert_eq!(conversation, self.conversation);
                self.attached = true;
                let result = Ok(self.standing());
                Some(ToEdge::Subscribed {
                    origin,
                    slot,
                    user,
                    conversation,
                    cursor,
                    result,
                })
            }
            ToOwner::CatchUp {
                conn,
                conversation,
                from,
                verify,
                bytes_max,
                ..
            } => {
                assert_eq!(conversation, self.conversation);
                let result = if verify.is_some_and(|epoch| epoch != self.epoch) {
                    Err(ErrorCode::CursorDiverged)
                } else {
                    Ok(self.read(from, bytes_max))
                };
                Some(ToEdge::CaughtUp {
                    conn,
                    conversation,
                    from,
                    result,
                })
            }
            ToOwner::Detach { conversation, .. } => {
                assert_eq!(conversation, self.conversation);
                assert!(self.attached, "only what is attached is detached");
                self.attached = false;
                None
            }
            other => panic!("not for this owner: {other:?}"),
        }
    }

    /// One event at least, as owners do.
    fn read(&self, from: Seq, bytes_max: usize) -> Vec<Bytes> {
        let from = from.max(self.oldest);
        let mut bytes = 0;
        let rest = self
            .events
            .iter()
            .skip(usize::try_from(from.0).unwrap() - 1);
        rest.enumerate()
            .take_while(|(index, event)| {
                bytes += event.len();
                *index == 0 || bytes <= bytes_max
            })
            .map(|(_, event)| event.clone())
            .collect()
    }
}
