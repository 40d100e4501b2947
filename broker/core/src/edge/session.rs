//! What the edge keeps of one connection. Small while nothing goes on: whatever is under way stands in a [`Work`] of its
//! own, which is dropped when it has run empty.

use std::collections::{BTreeMap, VecDeque};

use rialto_protocol::{
    frame::Frame,
    ids::{ConversationId, DeviceId, RequestId, Seq, UserId},
};
use smallvec::SmallVec;

use super::{
    presence::WaitingWatch, publish::Merge, rate::Bucket, subscribe::WaitingFollow,
    subscription::SubKey, topic::TopicKey,
};
use crate::io::{KeyTag, Transport};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Hello has not come.
    Unauthenticated,
    /// The token is being verified.
    Authenticating,
    /// In use.
    Open,
    /// Told to close; nothing is taken from it any more.
    Closing,
}

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) zstd: bool,
    pub(super) catch_up_streams: bool,
    pub(super) datagrams: bool,
}

/// A subscription of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubRef {
    pub(super) topic: TopicKey,
    pub(super) sub: SubKey,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    pub(super) transport: Transport,
    pub(super) agreed: Agreed,
    /// No limits, and it may speak for users.
    pub(super) service: bool,
    /// The user told this session to show as away.
    pub(super) away: bool,
    /// The beginning of a frame has come and its end has not.
    pub(super) begun: bool,
    /// Hello's, until it is answered.
    pub(super) hello: RequestId,
    /// Meaningful once open, as is the device once authenticating.
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    /// When the token ends, milliseconds since 1970.
    pub(super) token_expires_ms: u64,
    /// What it was signed with.
    pub(super) key: Option<KeyTag>,
    /// When a frame last came or began (until it is open: when it was accepted), monotonic microseconds.
    pub(super) heard_us: u64,
    /// When its valid entry in the timers comes up.
    pub(super) timer_us: u64,
    /// Of requests that keep the session.
    pub(super) requests: Bucket,
    /// What answers took that counts in the connection's next turns, in short messages.
    pub(super) owed_work: u32,
    /// Bytes of requests that wait for answers.
    pub(super) in_flight_bytes: usize,
    /// By rising topic.
    pub(super) subs: Vec<SubRef>,
    /// Whose presence it watches, rising.
    pub(super) watched: Box<[UserId]>,
    work: Option<Box<Work>>,
}

/// A Refresh that waits for its turn.
#[derive(Debug)]
pub(super) struct WaitingRefresh {
    pub(super) request: RequestId,
    pub(super) cost: u32,
    /// When it came, milliseconds since 1970.
    pub(super) since_ms: u64,
    /// Taken when it is being verified.
    pub(super) token: Option<String>,
}

/// A conversation in requests that are not answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    /// The newest Subscribe or Unsubscribe that names it.
    pub(super) serial: u32,
    /// That one is to have it followed.
    pub(super) wanted: bool,
    /// Serial and slot of the newest that has had its effect; what earlier ones still bring has none.
    pub(super) done: (u32, u16),
}

/// A read of a subscription that is behind.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) conversation: ConversationId,
    pub(super) from: Seq,
    /// `None`: the subscription ended or began anew, and the answer is of no use.
    pub(super) sub: Option<SubKey>,
    /// Room of the shard's budget that is kept for the answer.
    pub(super) bytes: usize,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Frames that came while the token was being verified.
    pub(super) parked: Vec<Frame>,
    /// In the order they came; only the first is being verified.
    pub(super) refreshes: VecDeque<WaitingRefresh>,
    /// Subscribes and Unsubscribes, in the order they came.
    pub(super) follows: Vec<WaitingFollow>,
    /// Of the newest of them.
    pub(super) serial: u32,
    /// Conversations that they name.
    pub(super) named: BTreeMap<ConversationId, Named>,
    /// Of Publish requests with drafts that were refused here.
    pub(super) merges: Vec<Merge>,
    pub(super) watches: Vec<WaitingWatch>,
    /// Subscriptions that are behind and have no read under way, by their turns: those served longest ago first.
    behind: BTreeMap<u64, SubKey>,
    pub(super) reads: SmallVec<[Read; 2]>,
}

impl Work {
    /// Puts a subscription behind all that wait to read; gives its turn, which is not 0.
    pub(super) fn wait_to_read(&mut self, sub: SubKey) -> u64 {
        let turn = self.behind.last_key_value().map_or(1, |(turn, _)| turn + 1);
        self.behind.insert(turn, sub);
        turn
    }

    /// The next to read.
    pub(super) fn next_to_read(&mut self) -> Option<SubKey> {
        self.behind.pop_first().map(|(_, sub)| sub)
    }

    /// What a subscription had under way is of no use any more: its turn, if it waits for one, and its reads.
    pub(super) fn forget(&mut self, sub: SubKey, turn: u64) {
        self.behind.remove(&turn);
        for read in self.reads.iter_mut().filter(|read| read.sub == Some(sub)) {
            read.sub = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.parked.is_empty()
            && self.refreshes.is_empty()
            && self.follows.is_empty()
            && self.merges.is_empty()
            && self.watches.is_empty()
            && self.behind.is_empty()
            && self.reads.is_empty()
    }
}

impl Session {
    /// A connection as it was accepted.
    pub(super) fn new(transport: Transport, now_us: u64) -> Self {
        Self {
            state: State::Unauthenticated,
            transport,
            agreed: Agreed::default(),
            service: false,
            away: false,
            begun: false,
            hello: RequestId::PUSH,
            user: UserId::SYSTEM,
            device: DeviceId::from_bytes([0; 16]),
            token_expires_ms: 0,
            key: None,
            heard_us: now_us,
            timer_us: u64::MAX,
            requests: Bucket::default(),
            owed_work: 0,
            in_flight_bytes: 0,
            subs: Vec::new(),
            watched: Box::default(),
            work: None,
        }
    }

    /// What is under way, to add to it.
    pub(super) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// What is under way, if anything is.
    pub(super) fn work_if_any(&mut self) -> Option<&mut Work> {
        self.work.as_deref_mut()
    }

    /// What is under way, of a session that is over.
    pub(super) fn take_work(&mut self) -> Option<Box<Work>> {
        self.work.take()
    }

    /// Conversations that requests which are not answered are to make followed.
    pub(super) fn coming(&self) -> impl Iterator<Item = ConversationId> {
        let named = self.work.iter().flat_map(|work| &work.named);
        named
            .filter(|(_, named)| named.wanted)
            .map(|(conversation, _)| *conversation)
    }

    /// Gives the memory of finished work back.
    pub(super) fn rest(&mut self) {
        if self.work.as_ref().is_some_and(|work| work.is_empty()) {
            self.work = None;
        }
    }

    /// When the Refresh came whose token is being verified, milliseconds since 1970; none: there is none.
    pub(super) fn refreshing_since_ms(&self) -> Option<u64> {
        let first = self.work.as_ref()?.refreshes.front()?;
        Some(first.since_ms)
    }

    /// The session's subscription of a topic.
    pub(super) fn sub_of(&self, topic: TopicKey) -> Option<SubKey> {
        self.place_of(topic).ok().map(|place| self.subs[place].sub)
    }

    /// Adds a subscription of a topic that it has none of.
    pub(super) fn add_sub(&mut self, topic: TopicKey, sub: SubKey) {
        if let Err(place) = self.place_of(topic) {
            self.subs.insert(place, SubRef { topic, sub });
        }
    }

    /// Forgets the subscription of a topic.
    pub(super) fn remove_sub(&mut self, topic: TopicKey) {
        if let Ok(place) = self.place_of(topic) {
            self.subs.remove(place);
        }
    }

    fn place_of(&self, topic: TopicKey) -> Result<usize, usize> {
        self.subs.binary_search_by_key(&topic, |sub| sub.topic)
    }
}
