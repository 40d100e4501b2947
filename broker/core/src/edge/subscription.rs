//! Subscriptions: where each stands, how it begins anew and how it ends. How they get their events: [`super::deliver`]
//! while they are live, [`super::catch_up`] while they are behind.

use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{ConversationId, Epoch, RequestId, Seq},
    v1,
};

use super::{
    Edge,
    session::SubRef,
    topic::{LiveReader, TopicKey},
};
use crate::{
    advice::retry_hint_ms, config::CoreConfig, effects::Effects, io::ConnId, message::ToOwner,
};

/// What a subscription takes, about: its own place, one in its session's list, and one among its conversation's readers.
const SUB_BYTES: usize = 96;
/// What it takes that somebody here follows a conversation at all, here and at its owner, about.
const TOPIC_BYTES: usize = 224;
/// What of the shard's budget that may be, beside it. Half goes to whoever comes, and past that nobody has more than an equal part
/// of the other half.
const FOLLOWING_PART: usize = 3;
/// An equal part is one of so many at least: it takes as many sessions to keep the next one out.
const SHARERS_MIN: usize = 1_024;
/// Six conversations, however small a part would be.
const SHARE_BYTES_MIN: usize = 6 * (SUB_BYTES + TOPIC_BYTES);

const _: () = assert!(
    CoreConfig::SHARD_BYTES_MAX_DEFAULT / FOLLOWING_PART / 2
        >= 50_000 * 5 * (SUB_BYTES + TOPIC_BYTES),
    "50,000 idle connections follow five conversations each, be they all on one shard and nobody's follow those of another"
);

/// Names a subscription while it lives; used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubKey(pub(super) u32);

/// One connection's following of one conversation.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) conn: ConnId,
    pub(super) topic: TopicKey,
    /// Its place among the topic's live readers, or among those behind.
    place: u32,
    pub(super) state: SubState,
}

#[derive(Debug)]
pub(super) enum SubState {
    /// Waits for the topic's next event.
    Live,
    /// Reads from the log.
    Behind(Box<Behind>),
}

/// A subscription that is behind.
#[derive(Debug)]
pub(super) struct Behind {
    /// What it needs next.
    pub(super) next: Seq,
    /// What the event before `next` has to have as its epoch; asked with the first read.
    pub(super) verify: Option<Epoch>,
    /// Serial of the Subscribe that has to be answered first; 0: of none.
    pub(super) held: u32,
    /// It is to end as soon as that Subscribe is answered.
    pub(super) ended: Option<ErrorCode>,
    /// When it reads on, among those of its session that are behind; 0: it does not wait for its turn.
    pub(super) turn: u64,
}

impl SubState {
    /// See [`Behind::turn`].
    fn turn(&self) -> u64 {
        match self {
            Self::Live => 0,
            Self::Behind(behind) => behind.turn,
        }
    }
}

impl Edge {
    pub(super) fn sub_of(&self, conn: ConnId, conversation: ConversationId) -> Option<SubKey> {
        self.conns
            .open(conn)?
            .sub_of(self.topics.key(conversation)?)
    }

    /// Why a session that has so many subscriptions may not have one more, of this conversation.
    pub(super) fn refusal_of_one_more(
        &self,
        conversation: ConversationId,
        taken: usize,
    ) -> Option<ErrorCode> {
        if taken >= self.config.subscriptions_max {
            return Some(ErrorCode::SubscriptionLimit);
        }
        let bytes_max = self.config.shard_bytes_max / FOLLOWING_PART;
        let half = bytes_max / 2;
        let sharers = usize::try_from(self.open).unwrap_or(usize::MAX);
        let part = half / sharers.max(SHARERS_MIN);
        let topics = self.topics.len() + usize::from(self.topics.key(conversation).is_none());
        // Those of sessions that are gone count until they are taken apart.
        let subs = self.subs.len() + self.topics.asked() + 1;
        let bytes = subs * SUB_BYTES + topics * TOPIC_BYTES;
        let own_bytes = (taken + 1) * (SUB_BYTES + TOPIC_BYTES);
        let has_room =
            bytes <= half || (bytes <= bytes_max && own_bytes <= part.max(SHARE_BYTES_MIN));
        (!has_room).then_some(ErrorCode::Overloaded)
    }

    /// Begins a subscription, or begins it anew; it waits until the Subscribe is answered.
    pub(super) fn install(&mut self, conn: ConnId, key: TopicKey, behind: Behind) {
        let Some(session) = self.conns.open_mut(conn) else {
            return;
        };
        if let Some(sub) = session.sub_of(key) {
            if let Some(work) = session.work_if_any() {
                work.forget(sub, self.subs[sub.0 as usize].state.turn());
            }
            self.unlink(sub);
            self.subs[sub.0 as usize].state = SubState::Behind(Box::new(behind));
            self.link(sub);
            return;
        }
        let state = SubState::Behind(Box::new(behind));
        let index = self.subs.insert(Sub {
            conn,
            topic: key,
            place: 0,
            state,
        });
        let sub = SubKey(
            u32::try_from(index).expect("subscriptions of one shard are far fewer than 4 billion"),
        );
        session.add_sub(key, sub);
        self.link(sub);
    }

    /// Ends a subscription; with a code its client is told.
    pub(super) fn end(&mut self, sub: SubKey, code: Option<ErrorCode>, fx: &mut Effects) {
        self.unlink(sub);
        let Sub {
            conn,
            topic: key,
            state,
            ..
        } = self.subs.remove(sub.0 as usize);
        if let Some(session) = self.conns.open_mut(conn) {
            session.remove_sub(key);
            if let Some(work) = session.work_if_any() {
                work.forget(sub, state.turn());
            }
            session.rest();
        }
        if let Some(code) = code {
            let topic = self.topics.at(key);
            let ended = v1::SubscriptionEnded {
                conversation: topic.conversation.to_proto(),
                handle: topic.handle.0,
                error: Some(code.to_proto(retry_hint_ms(code))),
            };
            fx.counters.shed("subscription", code.name());
            self.send(
                conn,
                frame::encode(FrameKind::SubscriptionEnded, RequestId::PUSH, &ended),
                fx,
            );
        }
        self.release(key, fx);
    }

    /// Drops the subscriptions of a session that is gone.
    pub(super) fn drop_subs(&mut self, subs: &[SubRef], fx: &mut Effects) {
        for SubRef { topic, sub } in subs {
            self.unlink(*sub);
            self.subs.remove(sub.0 as usize);
            self.release(*topic, fx);
        }
    }

    /// Drops a topic that nobody follows or is about to; its owner forgets the edge.
    pub(super) fn release(&mut self, key: TopicKey, fx: &mut Effects) {
        if let Some(conversation) = self.topics.release(key) {
            self.tell(
                conversation,
                ToOwner::Detach {
                    edge: self.id,
                    conversation,
                },
                fx,
            );
        }
    }

    /// Puts a subscription where its state says.
    pub(super) fn link(&mut self, key: SubKey) {
        let sub = &mut self.subs[key.0 as usize];
        let topic = self.topics.at_mut(sub.topic);
        let place = match sub.state {
            SubState::Live => {
                topic.live.push(LiveReader {
                    conn: sub.conn,
                    sub: key,
                });
                topic.live.len() - 1
            }
            SubState::Behind(_) => {
                topic.behind.push(key);
                topic.behind.len() - 1
            }
        };
        sub.place =
            u32::try_from(place).expect("readers of one shard are far fewer than 4 billion");
    }

    /// Takes a subscription out of where its state says; the last one there takes its place.
    pub(super) fn unlink(&mut self, key: SubKey) {
        let sub = &self.subs[key.0 as usize];
        let (place, topic) = (sub.place, self.topics.at_mut(sub.topic));
        let moved = match sub.state {
            SubState::Live => {
                topic.live.swap_remove(place as usize);
                topic.live.get(place as usize).map(|reader| reader.sub)
            }
            SubState::Behind(_) => {
                topic.behind.swap_remove(place as usize);
                topic.behind.get(place as usize).copied()
            }
        };
        if let Some(moved) = moved {
            self.subs[moved.0 as usize].place = place;
        }
    }
}
