//! Pages of stored events, as readers get them: what was deleted is taken out, and what does not fit is left for the next.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    event,
    ids::{Epoch, Seq},
};

use super::deliver::fitting;
use crate::{advice::read_failure, io::Answer};

/// Stored events as a reader who is behind gets them; the one to be verified is taken off. Where it is missing it has been
/// dropped meanwhile, which does not show another log: the reader is to subscribe anew, and is told then what is left. Where it is
/// damaged he would meet the same again.
pub(super) fn continued(
    answer: Option<Answer>,
    from: Seq,
    verify: Option<Epoch>,
    budget: usize,
) -> Result<Vec<Bytes>, ErrorCode> {
    let (events, tombstones) = match answer {
        Some(Answer::Events { events, tombstones }) => (events, tombstones),
        answer => return Err(read_failure(answer.as_ref())),
    };
    let mut events = events.into_iter();
    if let Some(epoch) = verify {
        let before = events.next().map(|event| event::peek(&event));
        let before = before
            .transpose()
            .map_err(|_| ErrorCode::Damaged)?
            .filter(|head| head.seq.next() == from)
            .ok_or(ErrorCode::StorageUnavailable)?;
        if before.epoch != epoch {
            return Err(ErrorCode::CursorDiverged);
        }
    }
    Ok(page_up(events, &tombstones, budget))
}

/// The events of a page that goes up from the first of them; only those are looked at, and the next.
pub(super) fn page_up(
    events: impl IntoIterator<Item = Bytes>,
    tombstones: &[(Seq, Seq)],
    budget: usize,
) -> Vec<Bytes> {
    // Deleted ones count as they are sent: what stands for a short message is longer than it.
    let events = events.into_iter().map(|event| redacted(event, tombstones));
    fitting(events, budget).collect()
}

/// The same down from the last of them; they rise all the same.
pub(super) fn page_down(
    events: impl IntoIterator<Item = Bytes, IntoIter: DoubleEndedIterator>,
    tombstones: &[(Seq, Seq)],
    budget: usize,
) -> Vec<Bytes> {
    let mut page = page_up(events.into_iter().rev(), tombstones, budget);
    page.reverse();
    page
}

/// A deleted message is not served any more; what stands for it keeps its number.
fn redacted(event: Bytes, tombstones: &[(Seq, Seq)]) -> Bytes {
    if tombstones.is_empty() {
        return event;
    }
    let by = seq_of(&event).and_then(|seq| {
        let place = tombstones.binary_search_by_key(&seq, |(dead, _)| *dead);
        place.ok().map(|place| tombstones[place].1)
    });
    match by {
        Some(by) => event::redact(&event, by).unwrap_or(event),
        None => event,
    }
}

/// The event's number.
pub(super) fn seq_of(event: &Bytes) -> Option<Seq> {
    event::peek(event).ok().map(|head| head.seq)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::BytesMut;
    use rialto_protocol::{
        event::EventHead,
        frame,
        ids::{ClientId, DeviceId, Ordinal, UserId},
        v1::{self, event::Content},
    };

    use super::*;

    /// Short messages with rising numbers, all of them deleted by the event with this number.
    fn deleted(count: u64, by: Seq) -> (Vec<Bytes>, Vec<(Seq, Seq)>) {
        let message = Content::Message(v1::Message {
            body: Bytes::from_static(b"x"),
            ..v1::Message::default()
        });
        let head = |seq| EventHead {
            seq: Seq(seq),
            epoch: Epoch(1),
            time_ms: 1,
            ordinal: Ordinal(seq),
            sender: UserId::from_name("ann"),
            device: DeviceId::from_bytes([1; 16]),
            client_id: ClientId::v7(seq, [0; 10]),
        };
        let events = (1..=count).map(|seq| {
            let mut event = BytesMut::new();
            event::encode_into(&mut event, &head(seq), &message);
            event.freeze()
        });
        let tombstones = (1..=count).map(|seq| (Seq(seq), by));
        (events.collect(), tombstones.collect())
    }

    fn is_redacted(event: &Bytes) -> bool {
        event::content_field(event) == Ok(event::CONTENT_REDACTED)
    }

    #[test]
    fn a_damaged_event_at_the_cursor_is_not_taken_for_one_that_was_dropped() {
        let read = |events| {
            let tombstones = Vec::new();
            let answer = Some(Answer::Events { events, tombstones });
            continued(answer, Seq(2), Some(Epoch(1)), usize::MAX)
        };
        let (events, _) = deleted(3, Seq(9));
        let damaged = vec![Bytes::from_static(b"no event"), events[1].clone()];
        assert_eq!(read(damaged), Err(ErrorCode::Damaged));
        let dropped = events[1..].to_vec();
        assert_eq!(read(dropped), Err(ErrorCode::StorageUnavailable));
        assert_eq!(read(events.clone()), Ok(events[1..].to_vec()));
    }

    #[test]
    fn all_deleted_messages_of_many_are_taken_out() {
        let (events, tombstones) = deleted(7_000, Seq(9_000));
        let mut next = 0;
        while next < events.len() {
            let page = page_up(events[next..].to_vec(), &tombstones, usize::MAX);
            assert!(page.iter().all(is_redacted));
            next += page.len();
        }
        let page = page_down(events, &tombstones, usize::MAX);
        assert!(page.iter().all(is_redacted));
        assert_eq!(page.last().and_then(seq_of), Some(Seq(7_000)));
    }

    #[test]
    fn only_what_is_sent_is_looked_at_and_it_fits_as_it_is_sent() {
        const BUDGET: usize = 4_000;
        // What stands for these is longer than they are.
        let (events, tombstones) = deleted(7_000, Seq(u64::MAX));
        let looked_at = Cell::new(0);
        let counted = || {
            events
                .iter()
                .cloned()
                .inspect(|_| looked_at.set(looked_at.get() + 1))
        };
        for goes_up in [true, false] {
            let page = if goes_up {
                page_up(counted(), &tombstones, BUDGET)
            } else {
                page_down(counted(), &tombstones, BUDGET)
            };
            assert_eq!(looked_at.take(), page.len() + 1);
            let cost = |event: &Bytes| frame::event_cost(event.len());
            let bytes: usize = page.iter().map(cost).sum();
            assert!(page.iter().all(is_redacted) && bytes <= BUDGET);
            assert!(bytes + cost(&page[0]) > BUDGET, "the page is full");
        }
        let (none, whole) = (Vec::new(), page_up(events[..1].to_vec(), &[], 0));
        assert_eq!(page_up(none, &tombstones, BUDGET), Vec::<Bytes>::new());
        assert_eq!(whole, events[..1], "one goes in any case");
    }
}
