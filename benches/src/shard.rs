//! A shard of the core, driven by hand: every append is durable at once, nothing is stored that is not in memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rialto_core::Shard;
use rialto_core::config::CoreConfig;
use rialto_core::io::{Answer, ConnId, Identity, Input, LaneClaim, Now, Output, Query, Transport};
use rialto_core::topology::{ShardId, Topology};
use rialto_protocol::frame::{self, FrameKind};
use rialto_protocol::ids::{
    ClientId, ConversationId, DeviceId, Epoch, LaneId, Position, RequestId, UserId,
};
use rialto_protocol::v1;

use crate::BODY_BYTES;

/// When the benchmarks take place, milliseconds since 1970.
const NOW_MS: u64 = 1_700_000_000_000;
/// Tokens outlast every benchmark.
const EXPIRES_MS: u64 = u64::MAX;

/// The shard, and the time.
#[derive(Debug)]
pub struct ShardRig {
    shard: Shard,
    now: Now,
    conns: u32,
    outputs: Vec<Output>,
    /// Bytes that were sent to connections so far.
    pub sent_bytes: u64,
    /// Frames that were sent to connections so far.
    pub sent_frames: u64,
}

impl Default for ShardRig {
    fn default() -> Self {
        Self::new()
    }
}

impl ShardRig {
    /// A shard that owns every lane.
    #[must_use]
    pub fn new() -> Self {
        let topology = Topology {
            shards: 1,
            lanes: 4,
        };
        let claim = |lane| LaneClaim {
            lane: LaneId(lane),
            epoch: Epoch(1),
            tail: Position(0),
            time_ms: 0,
            outbox: Vec::new(),
        };
        let claims = (0..topology.lanes).map(claim).collect();
        Self {
            shard: Shard::new(
                ShardId(0),
                topology,
                Arc::new(CoreConfig::default()),
                claims,
            ),
            now: Now {
                mono_us: 1_000_000,
                unix_ms: NOW_MS,
            },
            conns: 0,
            outputs: Vec::new(),
            sent_bytes: 0,
            sent_frames: 0,
        }
    }

    /// A connection of a service, so that no rate limit counts.
    pub fn connect(&mut self, user: UserId) -> ConnId {
        self.conns += 1;
        let conn = ConnId {
            index: self.conns,
            generation: 1,
        };
        let hello = v1::Hello {
            token: "t".to_owned(),
            device: DeviceId::v4([3; 16]).to_proto(),
            ..v1::Hello::default()
        };
        self.shard.handle(
            self.now,
            Input::Opened {
                conn,
                transport: Transport::default(),
            },
        );
        self.frames(conn, &frame::encode(FrameKind::Hello, RequestId(1), &hello));
        let identity = Identity {
            user,
            expires_ms: EXPIRES_MS,
            service: true,
            key: None,
        };
        self.shard.handle(
            self.now,
            Input::Authenticated {
                conn,
                result: Ok(identity),
            },
        );
        self.settle();
        conn
    }

    /// Opens a public channel.
    pub fn create(&mut self, conn: ConnId, conversation: ConversationId) {
        let create = v1::Create {
            conversation: conversation.to_proto(),
            kind: v1::ConversationKind::Channel.into(),
            visibility: v1::Visibility::Public.into(),
            title: "bench".to_owned(),
            client_id: ClientId::v7(NOW_MS, [1; 10]).to_proto(),
            ..v1::Create::default()
        };
        self.frames(
            conn,
            &frame::encode(FrameKind::Create, RequestId(2), &create),
        );
    }

    /// Follows conversations from now on.
    pub fn subscribe(&mut self, conn: ConnId, conversations: &[ConversationId]) {
        let subscription = |id: &ConversationId| v1::Subscription {
            conversation: id.to_proto(),
            cursor: None,
        };
        let subscriptions = conversations.iter().map(subscription).collect();
        self.frames(
            conn,
            &frame::encode(
                FrameKind::Subscribe,
                RequestId(3),
                &v1::Subscribe { subscriptions },
            ),
        );
    }

    /// Hands bytes of a connection in as one read, whole frames, and lets everything that follows from them happen.
    pub fn frames(&mut self, conn: ConnId, frames: &[u8]) {
        self.now.mono_us += 10;
        self.shard
            .receive(self.now, conn, frames, usize::MAX)
            .expect("whole frames");
        self.settle();
    }

    /// The world around the shard: an instant disk, empty views, sockets that take everything.
    fn settle(&mut self) {
        loop {
            self.shard.flush(self.now);
            self.shard.take_outputs(&mut self.outputs);
            if self.outputs.is_empty() {
                return;
            }
            for output in std::mem::take(&mut self.outputs) {
                let input = match output {
                    Output::Send { conn, frame, .. } => {
                        self.sent_frames += 1;
                        self.sent_bytes += frame.len() as u64;
                        Input::Written {
                            conn,
                            bytes: frame.len(),
                        }
                    }
                    Output::Append(entry) => Input::Appended {
                        lane: entry.lane,
                        through: entry.position,
                    },
                    Output::Load { ticket, query, .. } => Input::Loaded {
                        ticket,
                        answer: Some(nothing(&query)),
                    },
                    _ => continue,
                };
                self.shard.handle(self.now, input);
            }
        }
    }
}

/// What views answer that hold nothing.
fn nothing(query: &Query) -> Answer {
    match query {
        Query::Conversation { .. } => Answer::Conversation(None),
        Query::Member { .. } => Answer::Member {
            row: None,
            sent: Vec::new(),
            more_devices: false,
        },
        Query::FindSent { .. } => Answer::Sent {
            event: None,
            as_of_ms: 0,
        },
        Query::Events { .. } => Answer::Events {
            events: Vec::new(),
            tombstones: Vec::new(),
        },
        Query::Scan { .. } => Answer::Scan(Vec::new()),
        Query::Rows { keys, .. } => Answer::Rows(vec![None; keys.len()]),
        Query::LastSeen { users } => Answer::LastSeen(vec![None; users.len()]),
    }
}

/// A request that publishes one message; `number` makes its client id, which must rise.
#[must_use]
pub fn publish(conversation: ConversationId, number: u64) -> v1::Publish {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let content = v1::draft::Content::Message(v1::Message {
        body,
        ..v1::Message::default()
    });
    let draft = v1::Draft {
        client_id: ClientId::v7(NOW_MS + number, [4; 10]).to_proto(),
        content: Some(content),
    };
    v1::Publish {
        target: Some(v1::publish::Target::Conversation(conversation.to_proto())),
        drafts: vec![draft],
        on_behalf_of: Bytes::new(),
    }
}

/// Such requests, one behind the other, as one read brings them.
#[must_use]
pub fn publishes(requests: impl Iterator<Item = (ConversationId, u64)>) -> Bytes {
    let mut wire = BytesMut::new();
    for (conversation, number) in requests {
        // Ids of requests in flight differ; no benchmark has so many.
        let request = u32::try_from(number % u64::from(u32::MAX - 10)).unwrap_or(0) + 10;
        let publish = publish(conversation, number);
        frame::encode_into(&mut wire, FrameKind::Publish, RequestId(request), &publish);
    }
    wire.freeze()
}
