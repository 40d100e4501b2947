//! What a shard has for another one until that one's mailbox takes it.
//!
//! A mailbox that refuses stops its sender's reading, but what the disk, storage and other shards bring goes on making messages.
//! Past the limit of bytes news is left out then: its readers there find it in the log, as whoever falls behind does. Of users
//! whose presence changes only the newest state is kept, and signals are dropped. What is left are answers, of which there are no
//! more than requests that the other shard has sent and holds credit for, and notices, which have a limit of their own.

use std::collections::HashMap;

use rialto_core::message::{Message, PresenceOf, ToEdge};
use rialto_protocol::ids::{ConversationId, Seq, UserId};

/// See the module.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes_max: usize,
    messages: Vec<Message>,
    bytes: usize,
    /// It was refused, and nothing has been taken since.
    refused: bool,
    /// Conversations with news that was left out, and the last event of it.
    missed: HashMap<ConversationId, Seq, ahash::RandomState>,
    /// Users whose presence has changed meanwhile, which the other shard watches, as they are by now.
    presences: HashMap<UserId, PresenceOf, ahash::RandomState>,
}

/// What was left out, or dropped, since there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Events, which are to be read from the log.
    News,
    /// A signal.
    Signal,
    /// A change of presence, unless it is the user's newest.
    Presence,
}

impl LeftOut {
    /// As it stands in metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::News => "news",
            Self::Signal => "signals",
            Self::Presence => "presence",
        }
    }
}

impl Outgoing {
    /// Nothing yet. Of what a mailbox has refused, `bytes_max` or a little more are kept as they are.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            messages: Vec::new(),
            bytes: 0,
            refused: false,
            missed: HashMap::default(),
            presences: HashMap::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.missed.is_empty() && self.presences.is_empty()
    }

    /// Adds a message, or as much of it as there is room for.
    pub(crate) fn push(&mut self, message: Message) -> Option<LeftOut> {
        if !self.refused || self.bytes < self.bytes_max {
            self.add(message);
            return None;
        }
        match message {
            Message::ToEdge(ToEdge::Deliver {
                conversation,
                last,
                ended,
                ..
            }) => {
                if ended.is_empty() {
                    self.missed.insert(conversation, last);
                } else {
                    let mut message = ToEdge::missed(conversation, last);
                    if let ToEdge::Deliver { ended: told, .. } = &mut message {
                        *told = ended;
                    }
                    self.add(Message::ToEdge(message));
                }
                Some(LeftOut::News)
            }
            Message::ToEdge(ToEdge::Signalled { .. }) => Some(LeftOut::Signal),
            Message::ToEdge(ToEdge::Presence {
                origin: None,
                presences,
            }) => {
                let by_user = presences
                    .into_iter()
                    .map(|presence| (presence.user, presence));
                self.presences.extend(by_user);
                Some(LeftOut::Presence)
            }
            message => {
                self.add(message);
                None
            }
        }
    }

    fn add(&mut self, message: Message) {
        self.bytes += weight(&message);
        self.messages.push(message);
    }

    /// There was no room for it.
    pub(crate) fn refuse(&mut self) {
        self.refused = true;
    }

    /// Moves everything, in order; what was left out is named last. Gives the bytes.
    pub(crate) fn move_to(&mut self, post: &mut Vec<Message>) -> usize {
        post.append(&mut self.messages);
        let mut bytes = std::mem::take(&mut self.bytes);
        self.refused = false;
        let missed = std::mem::take(&mut self.missed).into_iter();
        let missed = missed.map(|(conversation, last)| ToEdge::missed(conversation, last));
        let presences: Vec<_> = std::mem::take(&mut self.presences).into_values().collect();
        let origin = None;
        let presence = (!presences.is_empty()).then_some(ToEdge::Presence { origin, presences });
        for message in missed.chain(presence).map(Message::ToEdge) {
            bytes += weight(&message);
            post.push(message);
        }
        bytes
    }
}

/// Bytes that a message holds in memory, near enough to bound a queue: the large parts are payloads.
fn weight(message: &Message) -> usize {
    size_of::<Message>() + message.payload_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use rialto_core::{
        io::ConnId,
        message::{Author, Origin, ToOwner},
        topology::ShardId,
    };
    use rialto_protocol::{
        error::ErrorCode,
        frame::FrameKind,
        ids::{DeviceId, RequestId},
        v1,
    };

    fn conversation(number: u8) -> ConversationId {
        ConversationId::from_bytes([number; 16])
    }

    fn origin() -> Origin {
        Origin {
            edge: ShardId(0),
            conn: ConnId {
                index: 0,
                generation: 0,
            },
            request: RequestId(1),
            cost: 1_000,
        }
    }

    fn news(number: u8, seq: u64) -> Message {
        let mut deliver = ToEdge::missed(conversation(number), Seq(seq));
        if let ToEdge::Deliver { first, frame, .. } = &mut deliver {
            (*first, *frame) = (Seq(seq), Bytes::from(vec![0; 1_000]));
        }
        Message::ToEdge(deliver)
    }

    fn answer() -> Message {
        Message::ToEdge(ToEdge::Answered {
            origin: origin(),
            kind: FrameKind::HistoryPage,
            body: Bytes::from(vec![0; 1_000]),
        })
    }

    fn signal() -> Message {
        Message::ToEdge(ToEdge::Signalled {
            conversation: conversation(1),
            user: UserId::SYSTEM,
            frame: Bytes::from(vec![0; 1_000]),
        })
    }

    fn presence(origin: Option<Origin>, name: &str, state: v1::PresenceState) -> Message {
        let presences = vec![PresenceOf {
            user: UserId::from_name(name),
            state,
            last_seen_ms: Some(0),
        }];
        Message::ToEdge(ToEdge::Presence { origin, presences })
    }

    /// (conversation, first, last, bytes) of the news among the messages.
    fn told(messages: &[Message]) -> Vec<(ConversationId, u64, u64, usize)> {
        let news = messages.iter().filter_map(|message| match message {
            Message::ToEdge(ToEdge::Deliver {
                conversation,
                first,
                last,
                frame,
                ..
            }) => Some((*conversation, first.0, last.0, frame.len())),
            _ => None,
        });
        news.collect()
    }

    /// One that was refused with as much as it may keep.
    fn full() -> Outgoing {
        let mut outgoing = Outgoing::new(1_000);
        assert_eq!(outgoing.push(news(1, 1)), None);
        outgoing.refuse();
        outgoing
    }

    #[test]
    fn a_turn_that_nobody_refused_goes_out_as_it_is() {
        let mut outgoing = Outgoing::new(1_000);
        for seq in 1..=10 {
            assert_eq!(outgoing.push(news(1, seq)), None);
        }
        let mut post = Vec::new();
        assert!(outgoing.move_to(&mut post) > 10_000 && outgoing.is_empty());
        assert_eq!(told(&post).len(), 10);
    }

    #[test]
    fn news_past_the_limit_takes_no_room_and_is_named_once_after_all_else() {
        let mut outgoing = full();
        for seq in 2..=1_000 {
            assert_eq!(outgoing.push(news(1, seq)), Some(LeftOut::News));
            assert_eq!(outgoing.push(news(2, seq)), Some(LeftOut::News));
        }
        assert!(outgoing.bytes < 2_000 && outgoing.messages.len() == 1);
        assert_eq!(outgoing.push(answer()), None);
        let mut post = Vec::new();
        outgoing.move_to(&mut post);
        assert!(outgoing.is_empty() && matches!(post[1], Message::ToEdge(ToEdge::Answered { .. })));
        let mut told = told(&post);
        assert_eq!(told.remove(0), (conversation(1), 1, 1, 1_000));
        told.sort_unstable();
        assert_eq!(
            told,
            [
                (conversation(1), 0, 1_000, 0),
                (conversation(2), 0, 1_000, 0)
            ]
        );
        // From then on it is as before.
        assert_eq!(outgoing.push(news(1, 1_001)), None);
    }

    #[test]
    fn whose_subscription_ends_is_named_in_its_place() {
        let mut outgoing = full();
        let mut ending = news(1, 2);
        let Message::ToEdge(ToEdge::Deliver { ended, .. }) = &mut ending else {
            panic!("{ending:?}")
        };
        let user = UserId::from_name("ann");
        ended.push((user, Seq(2), ErrorCode::NotAMember));
        assert_eq!(outgoing.push(ending), Some(LeftOut::News));
        assert_eq!(outgoing.push(answer()), None);
        let mut post = Vec::new();
        outgoing.move_to(&mut post);
        let Message::ToEdge(ToEdge::Deliver {
            first,
            last,
            frame,
            ended,
            ..
        }) = &post[1]
        else {
            panic!("{post:?}")
        };
        assert_eq!((first.0, last.0, frame.len(), ended.len()), (0, 2, 0, 1));
    }

    #[test]
    fn signals_are_dropped_and_what_was_asked_for_is_kept() {
        let mut outgoing = full();
        assert_eq!(outgoing.push(signal()), Some(LeftOut::Signal));
        let answer_to_a_watch = presence(Some(origin()), "ann", v1::PresenceState::Online);
        assert_eq!(outgoing.push(answer_to_a_watch), None);
        assert_eq!(outgoing.push(answer()), None);
        let mut post = Vec::new();
        outgoing.move_to(&mut post);
        assert_eq!(post.len(), 3);
    }

    #[test]
    fn of_users_who_come_and_go_meanwhile_the_newest_state_is_told_after_all_else() {
        use v1::PresenceState::{Away, Offline, Online};
        let mut outgoing = full();
        for (name, state) in [
            ("ann", Online),
            ("bob", Online),
            ("ann", Away),
            ("ann", Offline),
        ] {
            let left_out = outgoing.push(presence(None, name, state));
            assert_eq!(left_out, Some(LeftOut::Presence));
        }
        assert_eq!(outgoing.push(answer()), None);
        let mut post = Vec::new();
        outgoing.move_to(&mut post);
        assert!(outgoing.is_empty() && post.len() == 3);
        let Message::ToEdge(ToEdge::Presence {
            origin: None,
            presences,
        }) = &post[2]
        else {
            panic!("{post:?}")
        };
        let told = |name| {
            let told = |presence: &&PresenceOf| presence.user == UserId::from_name(name);
            presences.iter().find(told).map(|presence| presence.state)
        };
        assert_eq!((told("ann"), told("bob")), (Some(Offline), Some(Online)));
        assert_eq!(presences.len(), 2);
    }

    #[test]
    fn signals_and_requests_weigh_what_they_hold() {
        let origin = origin();
        let (user, conversation) = (UserId::SYSTEM, ConversationId::from_bytes([1; 16]));
        let custom = Bytes::from(vec![0; 1_000]);
        let signal = ToOwner::Signal {
            origin,
            user,
            conversation,
            signal: v1::signalled::Signal::Custom(custom),
        };
        let create = ToOwner::Create {
            origin,
            author: Author {
                user,
                device: DeviceId::from_bytes([1; 16]),
            },
            conversation,
            create: v1::Create::default(),
            service: false,
        };
        let describe = ToOwner::Describe {
            origin,
            user,
            conversation,
        };
        let weight_of = |message: ToOwner| weight(&Message::ToOwner(message));
        assert_eq!(
            weight_of(signal.clone()),
            weight_of(describe.clone()) + 1_000
        );
        assert_eq!(weight_of(create), weight_of(describe) + 1_000);
    }
}
