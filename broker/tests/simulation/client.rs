//! A client as an SDK is one: it publishes under rising ids, repeats what was not acknowledged, and follows from its cursor.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rialto_protocol::{
    body,
    frame::{self, Frame, FrameKind},
    ids::{ClientId, ConversationId, Cursor, DeviceId, Epoch, RequestId, Seq, UserId},
    v1::{self, draft::Content},
};

use super::{
    oracle::{Oracle, Violation},
    random::Random,
};

/// A publish that waits for its receipt.
#[derive(Clone)]
struct Unacked {
    conversation: ConversationId,
    draft: v1::Draft,
    request: u32,
}

/// One followed conversation.
#[derive(Default)]
pub(crate) struct Following {
    pub(crate) cursor: Cursor,
    handle: Option<u32>,
    asked: bool,
}

/// One user at one device.
pub(crate) struct Client {
    pub(crate) user: UserId,
    pub(crate) name: String,
    device: DeviceId,
    /// Its connection in the world.
    pub(crate) conn: Option<usize>,
    ready: bool,
    /// Takes nothing from its connection for a while.
    pub(crate) stalled: bool,
    next_request: u32,
    next_id: u64,
    unacked: VecDeque<Unacked>,
    pub(crate) follows: BTreeMap<ConversationId, Following>,
}

impl Client {
    pub(crate) fn new(number: usize, conversations: &[ConversationId]) -> Self {
        let name = format!("user-{number}");
        let user = UserId::from_name(&name);
        let follows = conversations
            .iter()
            .map(|id| (*id, Following::default()))
            .collect();
        Self {
            user,
            name,
            device: DeviceId::from_bytes(*user.as_bytes()),
            conn: None,
            ready: false,
            stalled: false,
            next_request: 0,
            next_id: 0,
            unacked: VecDeque::new(),
            follows,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.ready && self.unacked.is_empty()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) fn hello(&self) -> Bytes {
        let hello = v1::Hello {
            token: self.name.clone(),
            device: self.device.to_proto(),
            ..v1::Hello::default()
        };
        frame::encode(FrameKind::Hello, RequestId(1), &hello)
    }

    /// The connection is gone.
    pub(crate) fn cut(&mut self) {
        self.conn = None;
        self.ready = false;
        self.next_request = 1;
        for following in self.follows.values_mut() {
            following.handle = None;
            following.asked = false;
        }
    }

    fn request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    /// Subscribes to whatever is not followed; one frame, if any.
    pub(crate) fn subscribe(&mut self) -> Option<Bytes> {
        let mut subscriptions = Vec::new();
        for (id, following) in &mut self.follows {
            if following.handle.is_none() && !following.asked {
                following.asked = true;
                subscriptions.push(v1::Subscription {
                    conversation: id.to_proto(),
                    cursor: Some(following.cursor.into()),
                });
            }
        }
        if subscriptions.is_empty() {
            return None;
        }
        let request = RequestId(self.request());
        Some(frame::encode(
            FrameKind::Subscribe,
            request,
            &v1::Subscribe { subscriptions },
        ))
    }

    /// A new publish, kept until its receipt comes.
    pub(crate) fn publish(
        &mut self,
        unix_ms: u64,
        conversation: ConversationId,
        content: Content,
    ) -> Bytes {
        self.next_id += 1;
        let mut entropy = [0; 10];
        entropy[1] = self.device.as_bytes()[1];
        entropy[2..].copy_from_slice(&(self.next_id << 2).to_be_bytes());
        let client_id = ClientId::v7(unix_ms, entropy).to_proto();
        let request = self.request();
        let draft = v1::Draft {
            client_id,
            content: Some(content),
        };
        self.unacked.push_back(Unacked {
            conversation,
            draft,
            request,
        });
        self.encode(self.unacked.len() - 1)
    }

    fn encode(&self, index: usize) -> Bytes {
        let Unacked {
            conversation,
            draft,
            request,
        } = &self.unacked[index];
        let target = Some(v1::publish::Target::Conversation(conversation.to_proto()));
        let publish = v1::Publish {
            target,
            drafts: vec![draft.clone()],
            on_behalf_of: Bytes::new(),
        };
        frame::encode(FrameKind::Publish, RequestId(*request), &publish)
    }

    /// Something unacknowledged, once more.
    pub(crate) fn repeat(&mut self, random: &mut Random) -> Option<Bytes> {
        if self.unacked.is_empty() {
            return None;
        }
        let index = random.below(self.unacked.len());
        Some(self.encode(index))
    }

    /// Keeps a quiet connection alive.
    pub(crate) fn ping(&mut self) -> Bytes {
        frame::encode(FrameKind::Ping, RequestId(self.request()), &v1::Ping {})
    }

    pub(crate) fn mark(&mut self, conversation: ConversationId) -> Option<Bytes> {
        let seq = self.follows.get(&conversation)?.cursor.seq;
        let mark = v1::Mark {
            conversation: conversation.to_proto(),
            read_seq: seq.0,
            ..v1::Mark::default()
        };
        Some(frame::encode(
            FrameKind::Mark,
            RequestId(self.request()),
            &mark,
        ))
    }

    /// Takes a frame in; what it answers leaves at once.
    pub(crate) fn take(
        &mut self,
        frame: &Frame,
        oracle: &Oracle,
        violations: &mut Vec<Violation>,
    ) -> Vec<Bytes> {
        match frame.kind {
            FrameKind::Welcome => {
                self.ready = true;
                let mut answers: Vec<Bytes> = self.subscribe().into_iter().collect();
                for index in 0..self.unacked.len() {
                    let request = self.request();
                    self.unacked[index].request = request;
                    answers.push(self.encode(index));
                }
                return answers;
            }
            FrameKind::Published => {
                let published = body::decode::<v1::Published>(&frame.body).expect("a body");
                for receipt in published.receipts {
                    self.receipt(&receipt, oracle, violations);
                }
            }
            FrameKind::Subscribed => {
                let subscribed = body::decode::<v1::Subscribed>(&frame.body).expect("a body");
                for result in subscribed.results {
                    self.subscribed(&result, violations);
                }
            }
            FrameKind::Deliver => self.delivered(frame, oracle, violations),
            FrameKind::SubscriptionEnded => {
                let ended = body::decode::<v1::SubscriptionEnded>(&frame.body).expect("a body");
                let id = ConversationId::from_slice(&ended.conversation).expect("an id");
                if let Some(following) = self.follows.get_mut(&id) {
                    following.handle = None;
                    following.asked = false;
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn receipt(&mut self, receipt: &v1::Receipt, oracle: &Oracle, violations: &mut Vec<Violation>) {
        let Some(index) = self
            .unacked
            .iter()
            .position(|unacked| unacked.request == receipt.request_id)
        else {
            return;
        };
        if let Some(error) = &receipt.error {
            // What can still succeed is tried again by whoever repeats.
            if error.retry() != v1::Retry::Never {
                return;
            }
            self.unacked.remove(index);
            return;
        }
        let Some(unacked) = self.unacked.remove(index) else {
            return;
        };
        let truth = oracle.event(&unacked.conversation, receipt.seq);
        let same = truth.is_some_and(|(head, _)| {
            head.client_id.to_proto() == unacked.draft.client_id
                && head.epoch == Epoch(receipt.epoch)
                && head.time_ms == receipt.time_ms
        });
        if !same {
            let what = format!(
                "{}: receipt {receipt:?} is not what the log holds: {:?}",
                self.name,
                truth.map(|(head, _)| head)
            );
            violations.push(Violation::new("G3", what));
        }
    }

    fn subscribed(&mut self, result: &v1::SubscriptionResult, violations: &mut Vec<Violation>) {
        use v1::SubscriptionStatus::{Denied, Following as Follows};
        let id = ConversationId::from_slice(&result.conversation).expect("an id");
        let Some(following) = self.follows.get_mut(&id) else {
            return;
        };
        match result.status() {
            Follows => following.handle = Some(result.handle),
            Denied => following.asked = false,
            other => violations.push(Violation::new(
                "G2",
                format!("{}: {other:?} at {:?}", self.name, following.cursor),
            )),
        }
    }

    fn delivered(&mut self, frame: &Frame, oracle: &Oracle, violations: &mut Vec<Violation>) {
        let deliver = body::decode::<v1::Deliver>(&frame.body).expect("a body");
        let followed = self
            .follows
            .iter_mut()
            .find(|(_, following)| following.handle == Some(deliver.handle));
        let Some((id, following)) = followed else {
            violations.push(Violation::new(
                "G7",
                format!("{}: events of an unknown handle", self.name),
            ));
            return;
        };
        for event in deliver.events {
            if event.seq != following.cursor.seq.0 + 1 {
                let what = format!(
                    "{}: {id} goes on with {} after {}",
                    self.name, event.seq, following.cursor.seq
                );
                violations.push(Violation::new("G2", what));
            }
            match oracle.event(id, event.seq) {
                Some((head, _))
                    if head.epoch.0 == event.epoch
                        && head.client_id.to_proto() == event.client_id => {}
                truth => {
                    let truth = truth.map(|(head, _)| head);
                    let what = format!(
                        "{}: {id} {} is not what the log holds: {truth:?}",
                        self.name, event.seq
                    );
                    violations.push(Violation::new("G2", what));
                }
            }
            following.cursor = Cursor {
                epoch: Epoch(event.epoch),
                seq: Seq(event.seq),
            };
        }
    }
}
