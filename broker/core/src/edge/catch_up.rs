//! Subscriptions that are behind read from the log until they have what the live ones have. A session reads only as fast as
//! its client takes in, and its subscriptions take turns.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    event,
    frame::{self, HEADER_BYTES},
    ids::{ConversationId, Handle, Seq},
    limits,
};

use super::{
    Edge,
    session::Read,
    subscription::{SubKey, SubState},
};
use crate::{
    effects::Effects,
    io::{ConnId, Via},
    message::ToOwner,
};

/// Reads of one session at once: one is being written while the next is on its way.
const READS_MAX: usize = 2;
/// Most bytes of the handle in a Deliver.
const HANDLE_BYTES_MAX: usize = 6;

impl Edge {
    /// Lets a subscription go on from where it stands: live if it has everything, else it waits for its turn to read.
    pub(super) fn follow_on(&mut self, key: SubKey) {
        let sub = &mut self.subs[key.0 as usize];
        let SubState::Behind(behind) = &mut sub.state else {
            return;
        };
        if behind.next == self.topics.at(sub.topic).next_live {
            self.unlink(key);
            self.subs[key.0 as usize].state = SubState::Live;
            self.link(key);
        } else if let Some(session) = self.conns.open_mut(sub.conn) {
            behind.turn = session.work().wait_to_read(key);
        }
    }

    /// Reads on for a session's subscriptions that are behind, as far as its queue allows.
    pub(super) fn pump(&mut self, conn: ConnId, fx: &mut Effects) {
        if !self.conns.has_room(conn) {
            return;
        }
        let bytes_max = self.conns.answer_bytes_max(self.config.catch_up_bytes_max);
        while let Some(session) = self.conns.open_mut(conn) {
            let user = session.user;
            let Some(work) = session
                .work_if_any()
                .filter(|work| work.reads.len() < READS_MAX)
            else {
                return;
            };
            let Some(key) = work.next_to_read() else {
                return;
            };
            let sub = &mut self.subs[key.0 as usize];
            let SubState::Behind(behind) = &mut sub.state else {
                continue;
            };
            behind.turn = 0;
            let (from, verify) = (behind.next, behind.verify.take());
            let conversation = self.topics.at(sub.topic).conversation;
            work.reads.push(Read {
                conversation,
                from,
                sub: Some(key),
                bytes: bytes_max,
            });
            self.conns.reserve(bytes_max);
            let read = ToOwner::CatchUp {
                edge: self.id,
                conn,
                user,
                conversation,
                from,
                verify,
                bytes_max,
            };
            self.tell(conversation, read, fx);
        }
    }

    /// A read is answered.
    pub(super) fn caught_up(
        &mut self,
        conn: ConnId,
        conversation: ConversationId,
        from: Seq,
        result: Result<Vec<Bytes>, ErrorCode>,
        fx: &mut Effects,
    ) {
        self.conns.read_answered(conn, fx);
        if let Some(key) = self.finish_read(conn, conversation, from) {
            match result.and_then(|events| self.pass_on(key, from, events, fx)) {
                Ok(()) => self.follow_on(key),
                Err(code) => self.end(key, Some(code), fx),
            }
        }
        self.pump(conn, fx);
        if let Some(session) = self.conns.open_mut(conn) {
            session.rest();
        }
    }

    /// Takes the read from those under way; returns the subscription that still wants it.
    fn finish_read(
        &mut self,
        conn: ConnId,
        conversation: ConversationId,
        from: Seq,
    ) -> Option<SubKey> {
        let reads = &mut self.conns.open_mut(conn)?.work_if_any()?.reads;
        let fits = |read: &Read| read.conversation == conversation && read.from == from;
        // Of two equal ones the older was given up.
        let place = reads
            .iter()
            .position(|read| fits(read) && read.sub.is_none())
            .or_else(|| reads.iter().position(fits))?;
        let read = reads.remove(place);
        self.conns.release(read.bytes);
        read.sub
    }

    /// Sends the events of a read to its subscription.
    fn pass_on(
        &mut self,
        key: SubKey,
        from: Seq,
        mut events: Vec<Bytes>,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let sub = &self.subs[key.0 as usize];
        let topic = self.topics.at(sub.topic);
        let (conn, handle, conversation) = (sub.conn, topic.handle, topic.conversation);
        // What the owner has yet to tell all readers of comes to this one in the same way.
        let wanted = topic.next_live.0.saturating_sub(from.0);
        events.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        let next = judge(from, &events)?;
        for frame in deliver_frames(handle, &events, self.config.frame_bytes_max) {
            let frame = self.shrunk(conn, frame);
            let streams = self
                .conns
                .open(conn)
                .is_some_and(|session| session.agreed.catch_up_streams);
            let via = if streams {
                Via::CatchUp(conversation)
            } else {
                Via::Main
            };
            self.conns.send(conn, frame, via, fx);
        }
        fx.counters.events_delivered += events.len() as u64;
        if let SubState::Behind(behind) = &mut self.subs[key.0 as usize].state {
            behind.next = next;
        }
        Ok(())
    }
}

/// The seq after these events, if they are what was asked for: consecutive, from `from` on.
///
/// When the oldest of them have been dropped meanwhile, the reader has to subscribe anew, and is told then from where he
/// follows on. What he has is of this log all the same.
fn judge(from: Seq, events: &[Bytes]) -> Result<Seq, ErrorCode> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        return Err(ErrorCode::StorageUnavailable);
    };
    let seq_of = |event: &Bytes| {
        event::peek(event)
            .map(|head| head.seq)
            .map_err(|_| ErrorCode::Damaged)
    };
    let (first, last) = (seq_of(first)?, seq_of(last)?);
    if first > from {
        Err(ErrorCode::StorageUnavailable)
    } else if first != from || last.0 - first.0 + 1 != events.len() as u64 {
        Err(ErrorCode::InternalError)
    } else {
        Ok(last.next())
    }
}

/// Deliver frames with these events, none larger than allowed.
fn deliver_frames(handle: Handle, events: &[Bytes], frame_bytes_max: usize) -> Vec<Bytes> {
    let mut frames = Vec::with_capacity(1);
    let mut rest = events;
    while !rest.is_empty() {
        let mut bytes = HEADER_BYTES + HANDLE_BYTES_MAX;
        let fitting = rest
            .iter()
            .take(limits::DELIVER_EVENTS_MAX)
            .take_while(|event| {
                bytes += frame::event_cost(event.len());
                bytes <= frame_bytes_max
            })
            .count();
        // An event beyond the limit, configured down since it was written, goes alone.
        let (now, later) = rest.split_at(fitting.max(1));
        frames.push(frame::deliver(handle, now.iter()));
        rest = later;
    }
    frames
}
