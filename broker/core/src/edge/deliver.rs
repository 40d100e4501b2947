//! What an owner tells all readers of a conversation: events, which nobody may miss, and signals, which may be dropped.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    frame::HEADER_BYTES,
    ids::{ConversationId, Seq, UserId},
    v1,
};

use super::{
    Edge,
    parting::Ended,
    subscription::{Behind, SubKey, SubState},
    topic::TopicKey,
};
use crate::{
    effects::Effects,
    io::{ConnId, Now, Via},
};

/// More readers of a shard than these are a crowd: writing to all of them takes so long that whoever is sent something else would
/// notice.
pub(super) const CROWD: usize = 64;
/// How long the next signal to a crowd is away, for each reader of the one before: some four times as long as telling him takes,
/// so that signals to crowds have a quarter of a shard's time at most.
pub(super) const CROWD_SIGNAL_US: u64 = 40;

impl Edge {
    /// Events `first..=last` in one frame, to all who wait for just these.
    pub(super) fn deliver(
        &mut self,
        conversation: ConversationId,
        (first, last): (Seq, Seq),
        frame: &Bytes,
        ended: &[Ended],
        fx: &mut Effects,
    ) {
        let Some(key) = self
            .topics
            .key(conversation)
            .filter(|key| self.topics.at(*key).attached)
        else {
            return;
        };
        let next_live = self.topics.at(key).next_live;
        if last < next_live {
            return;
        }
        if !ended.is_empty() {
            // Those who may not have all of this are served, and ended, before the others.
            self.part_all(key, first, frame, ended, fx);
            // The last of them may have been the last of all.
            if self.topics.key(conversation) != Some(key) {
                return;
            }
        }
        if first == next_live {
            self.fan_out(key, (first, last), frame, fx);
            self.topics.at_mut(key).next_live = last.next();
        } else {
            self.leave_out(key, last.next(), fx);
        }
    }

    /// Events before `next` became durable, and are not what the live readers wait for: they find them in the log, to which
    /// [`Edge::read_on`] lets them one after the other.
    pub(super) fn leave_out(&mut self, key: TopicKey, next: Seq, fx: &mut Effects) {
        let next_live = self.topics.at(key).next_live;
        for index in (0..self.topics.at(key).live.len()).rev() {
            let reader = self.topics.at(key).live[index];
            // Those who are gone stay where they are, and one of them takes the place.
            if self.conns.is_there(reader.conn) {
                self.fall_behind(reader.sub, reader.conn, next_live, fx);
                self.lagging.add(reader.conn);
            }
        }
        self.topics.at_mut(key).next_live = next;
    }

    fn fan_out(
        &mut self,
        key: TopicKey,
        (first, last): (Seq, Seq),
        frame: &Bytes,
        fx: &mut Effects,
    ) {
        let events = last.0 - first.0 + 1;
        let live = &self.topics.at(key).live;
        let mut there = live
            .iter()
            .filter(|reader| self.conns.is_there(reader.conn));
        let via = if live.len() > CROWD && there.nth(CROWD).is_some() {
            Via::Crowd
        } else {
            Via::Main
        };
        let mut index = 0;
        let mut served = 0;
        while let Some(reader) = self.topics.at(key).live.get(index).copied() {
            if self.conns.offer(reader.conn, frame, via, fx) {
                served += 1;
                index += 1;
            } else if !self.conns.is_there(reader.conn) {
                // It is gone, and not taken apart yet.
                index += 1;
            } else {
                // Another reader takes its place in the list.
                self.fall_behind(reader.sub, reader.conn, first, fx);
            }
        }
        fx.counters.events_delivered += served * events;
    }

    /// From live to reading from the log. Its turn comes when its connection's queue has drained.
    fn fall_behind(&mut self, sub: SubKey, conn: ConnId, next: Seq, fx: &mut Effects) {
        fx.counters.readers_fallen_behind += 1;
        self.unlink(sub);
        let turn = self
            .conns
            .open_mut(conn)
            .map_or(0, |session| session.work().wait_to_read(sub));
        self.subs[sub.0 as usize].state = SubState::Behind(Box::new(Behind {
            next,
            verify: None,
            held: 0,
            ended: None,
            turn,
        }));
        self.link(sub);
    }

    /// A signal, to whoever follows the conversation and can take it now. A crowd is called for it a few at a time, as for
    /// events, and one that comes too soon after the last is dropped.
    pub(super) fn signalled(
        &mut self,
        now: Now,
        conversation: ConversationId,
        user: UserId,
        frame: &Bytes,
        fx: &mut Effects,
    ) {
        let Some(key) = self.topics.key(conversation) else {
            return;
        };
        let is_crowd = self.followers(key).nth(CROWD).is_some();
        if is_crowd {
            if now.mono_us < self.crowd_signal_us {
                fx.counters.shed("signals", "crowd");
                return;
            }
            let readers = self.followers(key).count() as u64;
            self.crowd_signal_us = now.mono_us + readers * CROWD_SIGNAL_US;
        }
        let via = if is_crowd { Via::Crowd } else { Via::Main };
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        let is_marker = v1::Signalled::decode(body).is_ok_and(|signalled| {
            matches!(signalled.signal, Some(v1::signalled::Signal::Marker(_)))
        });
        let not_to = (!is_marker).then_some(user);
        for index in 0..self.topics.at(key).live.len() {
            let conn = self.topics.at(key).live[index].conn;
            self.signal_to(conn, not_to, frame, via, fx);
        }
        for index in 0..self.topics.at(key).behind.len() {
            let sub = &self.subs[self.topics.at(key).behind[index].0 as usize];
            // Before Subscribed its client does not know the handle.
            if matches!(&sub.state, SubState::Behind(behind) if behind.held == 0) {
                self.signal_to(sub.conn, not_to, frame, via, fx);
            }
        }
    }

    /// Connections that follow a conversation, without those that are gone and not taken apart yet.
    fn followers(&self, key: TopicKey) -> impl Iterator<Item = ConnId> {
        let topic = self.topics.at(key);
        let live = topic.live.iter().map(|reader| reader.conn);
        let behind = topic.behind.iter();
        let behind = behind.map(|sub| self.subs[sub.0 as usize].conn);
        live.chain(behind).filter(|conn| self.conns.is_there(*conn))
    }

    fn signal_to(
        &mut self,
        conn: ConnId,
        not_to: Option<UserId>,
        frame: &Bytes,
        via: Via,
        fx: &mut Effects,
    ) {
        let Some(session) = self.conns.open(conn) else {
            return;
        };
        if Some(session.user) == not_to {
            return;
        }
        // A crowd is called a few at a time, which datagrams do not wait for.
        let via = if session.agreed.datagrams && via != Via::Crowd {
            Via::Datagram
        } else {
            via
        };
        if !self.conns.offer(conn, frame, via, fx) {
            fx.counters.shed("signals", "queue_full");
        }
    }
}
