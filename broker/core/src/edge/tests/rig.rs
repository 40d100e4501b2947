//! An edge, the time, and clients and owners played by hand.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, Flags, Frame, FrameKind},
    ids::{ClientId, ConversationId, Cursor, RequestId, UserId},
    v1,
};
use smallvec::SmallVec;

use crate::{
    config::CoreConfig,
    edge::Edge,
    effects::Effects,
    io::{ConnId, Identity, Input, Now, Output, Transport, Via},
    message::{Author, Message, Origin, PlainBatch, Receipt, Receipted, ToEdge, ToOwner},
    topology::{ShardId, Topology},
};

pub(super) use super::log::Log;

/// When the tests begin, milliseconds since 1970.
pub(super) const START_MS: u64 = 1_700_000_000_000;
/// When tokens end unless a test says otherwise.
pub(super) const TOKEN_ENDS_MS: u64 = START_MS + 3_600_000;

pub(super) struct Rig {
    pub(super) edge: Edge,
    pub(super) fx: Effects,
    pub(super) now: Now,
    /// What owners were asked and have not been made to answer.
    pub(super) asked: VecDeque<ToOwner>,
    pub(super) outputs: Vec<Output>,
    conns: u32,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(CoreConfig::default())
    }

    pub(super) fn with(config: CoreConfig) -> Self {
        let topology = Topology {
            shards: 1,
            lanes: 4,
        };
        Self {
            edge: Edge::new(ShardId(0), topology, Arc::new(config)),
            fx: Effects::default(),
            now: Now {
                mono_us: 1_000_000,
                unix_ms: START_MS,
            },
            asked: VecDeque::new(),
            outputs: Vec::new(),
            conns: 0,
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.edge.handle(self.now, input, &mut self.fx);
        self.settle();
    }

    pub(super) fn tell(&mut self, message: ToEdge) {
        self.edge.take(self.now, message, &mut self.fx);
        self.settle();
    }

    /// Presence goes round by itself, owners are played by the test.
    pub(super) fn settle(&mut self) {
        while let Some((_, message)) = self.fx.messages.pop_front() {
            match message {
                Message::ToOwner(message) => self.asked.push_back(message),
                Message::ToEdge(message) => self.edge.take(self.now, message, &mut self.fx),
                Message::ToHome(message) => self.edge.take_home(self.now, message, &mut self.fx),
            }
        }
        self.outputs.append(&mut self.fx.outputs);
    }

    pub(super) fn flush(&mut self) {
        self.edge.flush(self.now, &mut self.fx);
        self.settle();
    }

    /// Time passes; the timers fire when they are due.
    pub(super) fn pass_ms(&mut self, ms: u64) {
        let until_us = self.now.mono_us + ms * 1_000;
        while let Some(due_us) = self.edge.deadline_us().filter(|due_us| *due_us <= until_us) {
            self.set_time_us(due_us.max(self.now.mono_us));
            self.edge.handle_tick(self.now, &mut self.fx);
            self.settle();
        }
        self.set_time_us(until_us);
    }

    fn set_time_us(&mut self, mono_us: u64) {
        self.now = Now {
            mono_us,
            unix_ms: START_MS + (mono_us - 1_000_000) / 1_000,
        };
    }

    pub(super) fn accept(&mut self, transport: Transport) -> ConnId {
        self.conns += 1;
        let conn = ConnId {
            index: self.conns,
            generation: 7,
        };
        self.input(Input::Opened { conn, transport });
        conn
    }

    /// A session of a user's.
    pub(super) fn connect(&mut self, name: &str) -> ConnId {
        self.connect_as(name, Transport::default(), &[], false)
    }

    pub(super) fn connect_as(
        &mut self,
        name: &str,
        transport: Transport,
        capabilities: &[v1::Capability],
        service: bool,
    ) -> ConnId {
        let conn = self.accept(transport);
        let capabilities = capabilities
            .iter()
            .map(|capability| *capability as i32)
            .collect();
        self.send(
            conn,
            FrameKind::Hello,
            1,
            &v1::Hello {
                capabilities,
                ..hello()
            },
        );
        self.authenticate(
            conn,
            Ok(Identity {
                user: user(name),
                expires_ms: TOKEN_ENDS_MS,
                service,
                key: None,
            }),
        );
        let frames = self.frames(conn);
        assert_eq!(frames.len(), 1, "one Welcome");
        assert_eq!(
            (frames[0].kind, frames[0].request_id),
            (FrameKind::Welcome, RequestId(1))
        );
        self.outputs.clear();
        conn
    }

    pub(super) fn authenticate(&mut self, conn: ConnId, result: Result<Identity, ErrorCode>) {
        self.input(Input::Authenticated { conn, result });
    }

    pub(super) fn send<M: prost::Message>(
        &mut self,
        conn: ConnId,
        kind: FrameKind,
        request: u32,
        body: &M,
    ) {
        self.send_raw(conn, kind, request, &body.encode_to_vec());
    }

    pub(super) fn send_raw(&mut self, conn: ConnId, kind: FrameKind, request: u32, body: &[u8]) {
        self.receive(conn, &frame::wrap(kind, RequestId(request), body));
    }

    /// Bytes arrive, whole frames as a rule; says how many were taken in: none of a connection that is to wait.
    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        // What is wrong with them the connection is told.
        let taken = self
            .edge
            .receive(self.now, conn, bytes, usize::MAX, &mut self.fx);
        self.settle();
        taken.map_or(bytes.len(), |taken| taken.bytes)
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.input(Input::Closed { conn });
    }

    /// Takes what was sent to a connection.
    pub(super) fn frames(&mut self, conn: ConnId) -> Vec<Frame> {
        self.frames_via(conn)
            .into_iter()
            .map(|(frame, _)| frame)
            .collect()
    }

    pub(super) fn frames_via(&mut self, conn: ConnId) -> Vec<(Frame, Via)> {
        let mut frames = Vec::new();
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Send {
                    conn: to,
                    frame,
                    via,
                } if to == conn => {
                    let mut buf = BytesMut::from(&frame[..]);
                    frames.push((
                        frame::split(&mut buf, usize::MAX)
                            .unwrap()
                            .expect("a whole frame"),
                        via,
                    ));
                    assert!(buf.is_empty());
                }
                other => self.outputs.push(other),
            }
        }
        frames
    }

    /// Takes the only frame that was sent to a connection.
    pub(super) fn frame(&mut self, conn: ConnId) -> Frame {
        let mut frames = self.frames(conn);
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    /// Takes the only frame, which has to be an error; (request id, code).
    pub(super) fn error(&mut self, conn: ConnId) -> (u32, ErrorCode) {
        error_of(&self.frame(conn))
    }

    /// Whether the connection was told to close; asked once.
    pub(super) fn was_closed(&mut self, conn: ConnId) -> bool {
        self.take_output(
            |output| matches!(output, Output::Close { conn: closed } if *closed == conn),
        )
    }

    pub(super) fn was_resumed(&mut self, conn: ConnId) -> bool {
        self.take_output(
            |output| matches!(output, Output::Resume { conn: resumed } if *resumed == conn),
        )
    }

    pub(super) fn take_output(&mut self, wanted: impl Fn(&Output) -> bool) -> bool {
        let before = self.outputs.len();
        self.outputs.retain(|output| !wanted(output));
        self.outputs.len() < before
    }

    /// The next thing that an owner is asked is to read on for a subscription; answers it so.
    pub(super) fn answer_read(&mut self, result: Result<Vec<Bytes>, ErrorCode>) {
        let ToOwner::CatchUp {
            conn,
            conversation,
            from,
            ..
        } = self.ask()
        else {
            panic!("CatchUp")
        };
        self.tell(ToEdge::CaughtUp {
            conn,
            conversation,
            from,
            result,
        });
    }

    /// The next thing that an owner was asked.
    pub(super) fn ask(&mut self) -> ToOwner {
        self.asked.pop_front().expect("an owner was asked")
    }

    /// The next thing that an owner was asked, which has to be an append.
    pub(super) fn append(&mut self) -> Append {
        match self.ask() {
            ToOwner::Append {
                origin,
                author,
                conversation,
                first,
                drafts,
            } => Append {
                conn: origin.conn,
                author,
                conversations: vec![conversation; drafts.len()],
                client_ids: drafts.iter().map(|draft| draft.client_id).collect(),
                places: Places::Decoded(origin, first),
            },
            ToOwner::AppendPlain(batch) => Append {
                conn: batch.conn,
                author: batch.author,
                conversations: batch
                    .drafts
                    .iter()
                    .map(|draft| draft.conversation)
                    .collect(),
                client_ids: batch.drafts.iter().map(|draft| draft.client_id).collect(),
                places: Places::Plain(batch),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Answers an append, draft by draft.
    pub(super) fn receipts(&mut self, append: &Append, receipts: &[Receipt]) {
        let message = match &append.places {
            Places::Decoded(origin, first) => ToEdge::Appended {
                origin: *origin,
                first: *first,
                receipts: SmallVec::from_slice(receipts),
            },
            Places::Plain(batch) => {
                let receipted = batch.drafts.iter().zip(receipts);
                let receipted = receipted.map(|(draft, receipt)| Receipted {
                    conn: batch.conn,
                    request: draft.request,
                    draft: draft.draft,
                    cost: draft.cost,
                    receipt: *receipt,
                });
                ToEdge::Receipts(receipted.collect())
            }
        };
        self.tell(message);
    }

    pub(super) fn answer<M: prost::Message>(&mut self, origin: Origin, kind: FrameKind, body: &M) {
        self.tell(ToEdge::Answered {
            origin,
            kind,
            body: Bytes::from(body.encode_to_vec()),
        });
    }

    /// Subscribes to the log of a fake owner, which answers at once.
    pub(super) fn follow(
        &mut self,
        conn: ConnId,
        log: &mut Log,
        cursor: Option<Cursor>,
    ) -> v1::SubscriptionResult {
        self.send(
            conn,
            FrameKind::Subscribe,
            9,
            &subscribe(&[(log.conversation, cursor)]),
        );
        let ask = self.ask();
        let answer = log.answer(ask).expect("Subscribe is answered");
        self.tell(answer);
        let frames = self.frames(conn);
        let subscribed: v1::Subscribed = decode(&frames[0]);
        subscribed.results.into_iter().next().expect("one result")
    }

    /// As [`Rig::follow`], with reads that are under way left alone.
    pub(super) fn follow_later(&mut self, conn: ConnId, log: &mut Log, cursor: Option<Cursor>) {
        self.send(
            conn,
            FrameKind::Subscribe,
            9,
            &subscribe(&[(log.conversation, cursor)]),
        );
        let ask = self.asked.pop_back().expect("an owner was asked");
        let answer = log.answer(ask).expect("Subscribe is answered");
        self.tell(answer);
    }

    pub(super) fn shed(&self, queue: &str, reason: &str) -> u64 {
        let found = self
            .fx
            .counters
            .shed
            .iter()
            .find(|(shed, _)| shed.queue == queue && shed.reason == reason);
        found.map_or(0, |(_, count)| *count)
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::from_name(name)
}

pub(super) fn conversation(number: u8) -> ConversationId {
    ConversationId::v7(START_MS, [number; 10])
}

pub(super) fn client_id(number: u64) -> ClientId {
    ClientId::v7(START_MS + number, [5; 10])
}

pub(super) fn hello() -> v1::Hello {
    v1::Hello {
        token: "token".into(),
        device: Bytes::from_static(&[1; 16]),
        sdk: "test/1".into(),
        capabilities: Vec::new(),
    }
}

pub(super) fn subscribe(items: &[(ConversationId, Option<Cursor>)]) -> v1::Subscribe {
    let subscriptions = items.iter().map(|(conversation, cursor)| v1::Subscription {
        conversation: conversation.to_proto(),
        cursor: cursor.map(v1::Cursor::from),
    });
    v1::Subscribe {
        subscriptions: subscriptions.collect(),
    }
}

pub(super) fn message(text: &str) -> v1::draft::Content {
    v1::draft::Content::Message(v1::Message {
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..v1::Message::default()
    })
}

pub(super) fn publish(
    conversation: ConversationId,
    contents: Vec<v1::draft::Content>,
) -> v1::Publish {
    let drafts = contents
        .into_iter()
        .enumerate()
        .map(|(index, content)| v1::Draft {
            client_id: client_id(index as u64).to_proto(),
            content: Some(content),
        });
    v1::Publish {
        target: Some(v1::publish::Target::Conversation(conversation.to_proto())),
        drafts: drafts.collect(),
        on_behalf_of: Bytes::new(),
    }
}

pub(super) fn decode<M: prost::Message + Default>(frame: &Frame) -> M {
    assert!(!frame.flags.contains(Flags::COMPRESSED));
    M::decode(frame.body.clone()).unwrap()
}

pub(super) fn error_of(frame: &Frame) -> (u32, ErrorCode) {
    assert_eq!(frame.kind, FrameKind::Error);
    (
        frame.request_id.0,
        ErrorCode::from_proto(&decode(frame)).unwrap(),
    )
}

/// Seqs of all events in Deliver frames, in order.
pub(super) fn seqs(frames: &[Frame]) -> Vec<u64> {
    let mut seqs = Vec::new();
    for frame in frames
        .iter()
        .filter(|frame| frame.kind == FrameKind::Deliver)
    {
        let frame = frame::decompress(frame.clone(), 1 << 20).unwrap();
        seqs.extend(
            decode::<v1::Deliver>(&frame)
                .events
                .iter()
                .map(|event| event.seq),
        );
    }
    seqs
}

/// How a subscription ended, if one did.
pub(super) fn ended(frames: &[Frame]) -> Option<ErrorCode> {
    let frame = frames
        .iter()
        .find(|frame| frame.kind == FrameKind::SubscriptionEnded)?;
    ErrorCode::from_proto(&decode::<v1::SubscriptionEnded>(frame).error.unwrap())
}

/// What an owner was asked to append, by whichever way.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) conn: ConnId,
    pub(super) author: Author,
    /// Of each draft.
    pub(super) conversations: Vec<ConversationId>,
    /// Of each draft.
    pub(super) client_ids: Vec<ClientId>,
    places: Places,
}

#[derive(Debug)]
enum Places {
    Decoded(Origin, u32),
    Plain(PlainBatch),
}
