//! Delivering: a conversation's durable events, in one frame for all readers of the node.

use bytes::Bytes;
use rialto_protocol::{
    frame::{self, HEADER_BYTES},
    ids::Seq,
    limits::DELIVER_EVENTS_MAX,
};
use smallvec::SmallVec;

use crate::{
    effects::Effects,
    message::{Message, ToEdge},
};

use super::{
    conversation::Conversation,
    desk::Desk,
    entry::{Built, Touched},
};

/// What a `Deliver` frame holds beside its events, with room to spare.
const DELIVER_OVERHEAD_BYTES: usize = HEADER_BYTES + 20;

impl Desk {
    /// A conversation's events of one entry are durable: they may be seen.
    pub(super) fn deliver(
        &mut self,
        conversation: &mut Conversation,
        entry: &Built,
        touched: &Touched,
        fx: &mut Effects,
    ) {
        conversation.durable = touched.end;
        fx.counters.events_appended += touched.events.len() as u64;
        let Some(attachment) = self.attachments.get(&conversation.id) else {
            return;
        };
        let events: SmallVec<[Bytes; 16]> = touched
            .events
            .iter()
            .map(|range| entry.records.slice(range.clone()))
            .collect();
        let budget = self
            .config
            .frame_bytes_max
            .saturating_sub(DELIVER_OVERHEAD_BYTES);
        let mut first = touched.first;
        let mut rest = &events[..];
        while !rest.is_empty() {
            let count = fitting(rest, budget).count();
            let (chunk, later) = rest.split_at(count);
            rest = later;
            let last = Seq(first.0 + count as u64 - 1);
            let frame = frame::deliver(attachment.handle, chunk.iter());
            // Whoever is put out may have the event that says so, and nothing that follows: his edge sees to that.
            let ended = touched.ended.iter();
            let ended: SmallVec<_> = ended
                .filter(|(_, seq, _)| (first..=last).contains(seq))
                .copied()
                .collect();
            for edge in &attachment.edges {
                let (conversation, frame, ended) = (conversation.id, frame.clone(), ended.clone());
                fx.send(
                    *edge,
                    Message::ToEdge(ToEdge::Deliver {
                        conversation,
                        first,
                        last,
                        frame,
                        ended,
                    }),
                );
            }
            first = last.next();
        }
    }
}

/// The first of the events, as many as fit, and one in any case.
pub(super) fn fitting<E: AsRef<[u8]>>(
    events: impl IntoIterator<Item = E>,
    budget: usize,
) -> impl Iterator<Item = E> {
    let (mut bytes, mut count) = (0, 0);
    let fits = events.into_iter().take_while(move |event| {
        bytes += frame::event_cost(event.as_ref().len());
        count += 1;
        count == 1 || bytes <= budget
    });
    fits.take(DELIVER_EVENTS_MAX)
}
