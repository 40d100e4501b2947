//! Readers who may read no more: each gets the events up to the one that says so, and nothing that follows it in the same frame.

use bytes::Bytes;
use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind, HEADER_BYTES},
    ids::{RequestId, Seq, UserId},
};
use smallvec::SmallVec;

use super::{
    Edge,
    subscription::{SubKey, SubState},
    topic::TopicKey,
};
use crate::{effects::Effects, io::Via};

/// Number of `Deliver.events`.
const EVENTS_FIELD: u32 = 2;

/// A user, the last event that he may have, and why.
pub(super) type Ended = (UserId, Seq, ErrorCode);

/// Frames with the first ones of the events of another, made as they are needed.
struct Beginnings<'a> {
    whole: &'a Bytes,
    first: Seq,
    /// Where each event ends in the frame.
    ends: Vec<usize>,
    /// The one that was made last, and its last event.
    newest: Option<(Seq, Bytes)>,
}

impl<'a> Beginnings<'a> {
    fn of(whole: &'a Bytes, first: Seq) -> Self {
        Self {
            whole,
            first,
            ends: ends_of_events(whole),
            newest: None,
        }
    }

    /// The events up to this one, if it is one of the frame's.
    fn up_to(&mut self, seq: Seq) -> Option<Bytes> {
        if let Some((last, frame)) = &self.newest
            && *last == seq
        {
            return Some(frame.clone());
        }
        let place = usize::try_from(seq.0.checked_sub(self.first.0)?).ok()?;
        let end = *self.ends.get(place)?;
        let frame = if end == self.whole.len() {
            self.whole.clone()
        } else {
            let body = self.whole.get(HEADER_BYTES..end)?;
            frame::wrap(FrameKind::Deliver, RequestId::PUSH, body)
        };
        self.newest = Some((seq, frame.clone()));
        Some(frame)
    }
}

impl Edge {
    /// Ends the subscriptions of those who may not have all that comes in a frame, in one pass over the readers.
    pub(super) fn part_all(
        &mut self,
        key: TopicKey,
        first: Seq,
        frame: &Bytes,
        ended: &[Ended],
        fx: &mut Effects,
    ) {
        let mut parting = self.parting(key, ended);
        if parting.is_empty() {
            return;
        }
        // Who ends with the same event gets the same frame.
        parting.sort_by_key(|(_, seq, _)| *seq);
        let mut beginnings = Beginnings::of(frame, first);
        for (sub, seq, code) in parting {
            self.part(sub, seq, code, &mut beginnings, fx);
        }
    }

    /// Their subscriptions, each with its last event.
    fn parting(&self, key: TopicKey, ended: &[Ended]) -> SmallVec<[(SubKey, Seq, ErrorCode); 2]> {
        // Who is put out again after he has come back has read nothing in between.
        let mut by_user: SmallVec<[Ended; 2]> = SmallVec::from_slice(ended);
        by_user.sort_unstable_by_key(|(user, seq, _)| (*user, *seq));
        by_user.dedup_by_key(|(user, ..)| *user);
        let topic = self.topics.at(key);
        let live = topic.live.iter().map(|reader| reader.sub);
        live.chain(topic.behind.iter().copied())
            .filter_map(|sub| {
                let user = self.conns.open(self.subs[sub.0 as usize].conn)?.user;
                let place = by_user.binary_search_by_key(&user, |(ended, ..)| *ended);
                let (_, seq, code) = by_user[place.ok()?];
                Some((sub, seq, code))
            })
            .collect()
    }

    /// The last events of a subscription whose reader may not have what comes after them.
    fn part(
        &mut self,
        key: SubKey,
        last: Seq,
        code: ErrorCode,
        beginnings: &mut Beginnings<'_>,
        fx: &mut Effects,
    ) {
        let first = beginnings.first;
        let sub = &mut self.subs[key.0 as usize];
        match &mut sub.state {
            SubState::Behind(behind) if behind.held != 0 => {
                behind.ended = Some(code);
                return;
            }
            SubState::Live if self.topics.at(sub.topic).next_live == first => {
                if let Some(frame) = beginnings.up_to(last)
                    && self.conns.offer(sub.conn, &frame, Via::Main, fx)
                {
                    fx.counters.events_delivered += last.0 - first.0 + 1;
                }
            }
            SubState::Live | SubState::Behind(_) => {}
        }
        self.end(key, Some(code), fx);
    }
}

/// Where the events of a `Deliver` frame end in it, in order.
fn ends_of_events(frame: &Bytes) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut rest = frame.get(HEADER_BYTES..).unwrap_or_default();
    while let Ok((field, wire_type)) = decode_key(&mut rest) {
        if field != EVENTS_FIELD {
            if skip_field(wire_type, field, &mut rest, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let length = decode_varint(&mut rest).ok();
        let Some(later) = length
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| rest.get(length..))
        else {
            break;
        };
        rest = later;
        ends.push(frame.len() - rest.len());
    }
    ends
}
