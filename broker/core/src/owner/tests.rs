//! The owner, driven by hand over a store that is a few maps: what it decides, and when it says so.

mod append;
mod bounds;
mod failing;
mod members;
mod membership;
mod outbox;
mod reading;
mod retention;
mod store;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{ClientId, ConversationId, DeviceId, LaneId, RequestId, Seq, UserId},
    v1::{self, draft::Content},
};

use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{Answer, AppendFailure, ConnId, Entry, Input, Now, Output, Query, Ticket},
    message::{Author, Draft, Message, Origin, Receipt, Standing, ToEdge, ToOwner},
    topology::{ShardId, Topology},
};

use super::Owner;
use store::MapStore;

const EDGE: ShardId = ShardId(0);
const TOPOLOGY: Topology = Topology {
    shards: 1,
    lanes: 4,
};

/// An owner of all lanes, its store, and what it said to the edge.
struct World {
    owner: Owner,
    fx: Effects,
    store: MapStore,
    now: Now,
    next_id: u64,
    next_request: u32,
    /// Entries that the test holds back.
    held: Vec<Entry>,
    hold: bool,
    /// Reads that the test holds back.
    held_loads: Vec<(Ticket, Query)>,
    hold_loads: bool,
    /// Reads fail.
    fail_loads: bool,
    /// What they read is damaged.
    damaged: bool,
    /// Notices that the test holds back.
    held_notices: Vec<ToOwner>,
    hold_notices: bool,
    /// Who creates is a service.
    service: bool,
    said: Vec<ToEdge>,
}

impl World {
    fn new() -> Self {
        Self::with(CoreConfig::default(), MapStore::default())
    }

    fn with(config: CoreConfig, store: MapStore) -> Self {
        let mut fx = Effects::default();
        let owner = Owner::new(
            EDGE,
            TOPOLOGY,
            Arc::new(config),
            store.claims(TOPOLOGY.lanes),
            &mut fx,
        );
        let now = Now {
            mono_us: 1_000_000,
            unix_ms: 1_800_000_000_000,
        };
        let mut world = Self {
            owner,
            fx,
            store,
            now,
            next_id: 0,
            next_request: 0,
            held: Vec::new(),
            hold: false,
            held_loads: Vec::new(),
            hold_loads: false,
            fail_loads: false,
            damaged: false,
            held_notices: Vec::new(),
            hold_notices: false,
            service: false,
            said: Vec::new(),
        };
        world.settle();
        world
    }

    /// Ends the process and starts it again over the same store.
    fn restart(self) -> Self {
        let (next_id, store) = (self.next_id, self.store);
        Self {
            next_id,
            ..Self::with(CoreConfig::default(), store)
        }
    }

    /// Does what the owner asks for until it asks for nothing more.
    fn settle(&mut self) {
        loop {
            self.owner.clear_up(self.now, &mut self.fx);
            self.owner.close_entries(&mut self.fx);
            self.owner.flush_receipts(&mut self.fx);
            let outputs = std::mem::take(&mut self.fx.outputs);
            let messages = std::mem::take(&mut self.fx.messages);
            if outputs.is_empty() && messages.is_empty() {
                return;
            }
            for (_, message) in messages {
                match message {
                    Message::ToOwner(message @ ToOwner::Notify { .. }) if self.hold_notices => {
                        self.held_notices.push(message);
                    }
                    Message::ToOwner(message) => self.owner.take(self.now, message, &mut self.fx),
                    Message::ToEdge(message) => self.said.push(message),
                    Message::ToHome(_) => panic!("an owner says nothing about presence"),
                }
            }
            for output in outputs {
                match output {
                    Output::Append(entry) if self.hold => self.held.push(entry),
                    Output::Append(entry) => self.keep(entry),
                    Output::Load { ticket, query, .. } if self.hold_loads => {
                        self.held_loads.push((ticket, query));
                    }
                    Output::Load { ticket, query, .. } => self.load(ticket, &query),
                    other => panic!("an owner does not ask for {other:?}"),
                }
            }
        }
    }

    fn keep(&mut self, entry: Entry) {
        let (lane, through) = (entry.lane, entry.position);
        self.store.keep(entry);
        self.owner
            .handle_append(self.now, &Input::Appended { lane, through }, &mut self.fx);
    }

    fn load(&mut self, ticket: Ticket, query: &Query) {
        let answer = match self.damaged {
            true => Some(Answer::Damaged),
            false => (!self.fail_loads).then(|| self.store.read(query)),
        };
        if self.owner.awaits(ticket) {
            self.owner
                .handle_loaded(self.now, ticket, answer, &mut self.fx);
        }
    }

    /// Lets the held reads come back.
    fn read(&mut self) {
        self.hold_loads = false;
        for (ticket, query) in std::mem::take(&mut self.held_loads) {
            self.load(ticket, &query);
        }
        self.settle();
    }

    /// Lets the held entries become durable.
    fn sync(&mut self) {
        self.hold = false;
        for entry in std::mem::take(&mut self.held) {
            self.keep(entry);
        }
        self.settle();
    }

    /// Lets the held entries fail.
    fn fail(&mut self, failure: AppendFailure) {
        self.hold = false;
        for entry in std::mem::take(&mut self.held) {
            let input = Input::AppendFailed {
                lane: entry.lane,
                position: entry.position,
                failure,
            };
            self.owner.handle_append(self.now, &input, &mut self.fx);
        }
        self.settle();
    }

    /// Lets the held entries of one lane fail; nothing of them is kept.
    fn fail_lane(&mut self, lane: LaneId) {
        let (failing, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|entry| entry.lane == lane);
        self.held = held;
        let failing: Vec<Entry> = failing;
        for entry in failing {
            let failure = AppendFailure::NothingKept;
            let input = Input::AppendFailed {
                lane,
                position: entry.position,
                failure,
            };
            self.owner.handle_append(self.now, &input, &mut self.fx);
        }
        self.settle();
    }

    fn origin(&mut self) -> Origin {
        self.next_request += 1;
        let conn = ConnId {
            index: 0,
            generation: 0,
        };
        Origin {
            edge: EDGE,
            conn,
            request: RequestId(self.next_request),
            cost: 100,
        }
    }

    fn id(&mut self) -> ClientId {
        self.next_id += 1;
        ClientId::v7(self.now.unix_ms + self.next_id, [0; 10])
    }

    fn send(&mut self, message: ToOwner) {
        self.owner.take(self.now, message, &mut self.fx);
        self.settle();
    }

    fn create(
        &mut self,
        user: UserId,
        kind: v1::ConversationKind,
        public: bool,
        members: &[UserId],
    ) -> ConversationId {
        let client_id = self.id();
        let conversation = match kind {
            v1::ConversationKind::Direct => ConversationId::of_direct(user, members[0]),
            _ => ConversationId::from_bytes(*client_id.as_bytes()),
        };
        let visibility = if public {
            v1::Visibility::Public
        } else {
            v1::Visibility::Private
        };
        let create = v1::Create {
            conversation: conversation.to_proto(),
            kind: kind as i32,
            visibility: visibility as i32,
            title: "Title".to_owned(),
            members: members.iter().map(UserId::to_proto).collect(),
            parent: Bytes::new(),
            client_id: client_id.to_proto(),
        };
        let origin = self.origin();
        self.send(ToOwner::Create {
            origin,
            author: author(user),
            conversation,
            create,
            service: self.service,
        });
        conversation
    }

    fn publish(&mut self, user: UserId, conversation: ConversationId, content: Content) -> Receipt {
        let client_id = self.id();
        self.publish_as(user, conversation, client_id, content);
        self.receipt()
    }

    fn publish_as(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        client_id: ClientId,
        content: Content,
    ) {
        let drafts = vec![Draft { client_id, content }];
        let origin = self.origin();
        self.send(ToOwner::Append {
            origin,
            author: author(user),
            conversation,
            first: 0,
            drafts,
        });
    }

    /// Publishes several at once; there may be no answer yet.
    fn publish_all(&mut self, user: UserId, conversation: ConversationId, ids: &[ClientId]) {
        let drafts = ids
            .iter()
            .map(|client_id| Draft {
                client_id: *client_id,
                content: text("one of several"),
            })
            .collect();
        let origin = self.origin();
        self.send(ToOwner::Append {
            origin,
            author: author(user),
            conversation,
            first: 0,
            drafts,
        });
    }

    /// All receipts so far.
    fn receipts(&self) -> Vec<Receipt> {
        let receipts = self.said.iter().filter_map(|said| match said {
            ToEdge::Appended { receipts, .. } => Some(receipts.to_vec()),
            _ => None,
        });
        receipts.flatten().collect()
    }

    /// The newest receipt.
    fn receipt(&self) -> Receipt {
        let receipts = self.said.iter().rev().find_map(|said| match said {
            ToEdge::Appended { receipts, .. } => Some(receipts.clone()),
            _ => None,
        });
        receipts.expect("a receipt")[0]
    }

    fn answer<M: prost::Message + Default>(&self, kind: FrameKind) -> M {
        match self.said.last().expect("an answer") {
            ToEdge::Answered {
                kind: answered,
                body,
                ..
            } if *answered == kind => M::decode(body.clone()).unwrap(),
            other => panic!("{kind:?} was expected, {other:?} came"),
        }
    }

    fn refusal(&self) -> Option<ErrorCode> {
        match self.said.last() {
            Some(ToEdge::Refused { code, .. }) => Some(*code),
            Some(
                ToEdge::Subscribed {
                    result: Err(code), ..
                }
                | ToEdge::CaughtUp {
                    result: Err(code), ..
                },
            ) => Some(*code),
            _ => None,
        }
    }

    fn subscribe(
        &mut self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<Standing, ErrorCode> {
        let origin = self.origin();
        self.send(ToOwner::Subscribe {
            origin,
            slot: 0,
            user,
            conversation,
            cursor: None,
        });
        match self.said.last() {
            Some(ToEdge::Subscribed { result, .. }) => *result,
            other => panic!("a standing was expected, {other:?} came"),
        }
    }

    /// All events of a conversation, as a reader gets them.
    fn history(&mut self, user: UserId, conversation: ConversationId) -> Vec<v1::Event> {
        let origin = self.origin();
        let ask = ToOwner::History {
            origin,
            user,
            conversation,
            from: Seq(1),
            backward: false,
            limit: 1_000,
            bytes_max: 1 << 18,
        };
        self.send(ask);
        self.answer::<v1::HistoryPage>(FrameKind::HistoryPage)
            .events
    }

    fn notices(&mut self, user: UserId) -> Vec<v1::notice::Notice> {
        let events = self.history(user, ConversationId::of_inbox(user));
        let notice = |event: v1::Event| match event.content {
            Some(v1::event::Content::Notice(notice)) => notice.notice,
            _ => None,
        };
        events.into_iter().filter_map(notice).collect()
    }
}

fn user(name: &str) -> UserId {
    UserId::from_name(name)
}

fn author(user: UserId) -> Author {
    Author {
        user,
        device: DeviceId::from_bytes(*user.as_bytes()),
    }
}

fn text(text: &str) -> Content {
    Content::Message(v1::Message {
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..v1::Message::default()
    })
}

fn membership(action: v1::MembershipAction, user: Option<UserId>, role: v1::Role) -> Content {
    let user = user.map(|user| user.to_proto()).unwrap_or_default();
    Content::Membership(v1::Membership {
        action: action as i32,
        user,
        role: role as i32,
        reason: String::new(),
    })
}

fn refused(code: ErrorCode) -> Receipt {
    Receipt::Refused {
        code,
        retry_after_ms: 0,
    }
}

fn seq_of(receipt: Receipt) -> u64 {
    match receipt {
        Receipt::Kept { seq, .. } => seq.0,
        Receipt::Refused { code, .. } => panic!("refused: {code}"),
    }
}
