//! Pages of stored events, as readers get them: what was deleted is taken out, and what does not fit is left for the next.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    event,
    ids::{Epoch, Seq},
};

use crate::io::Answer;

use super::deliver::fitting;

/// Stored events as a reader who is behind gets them; the one to be verified is taken off.
pub(super) fn continued(
    answer: Option<Answer>,
    from: Seq,
    verify: Option<Epoch>,
) -> Result<Vec<Bytes>, ErrorCode> {
    let Some(Answer::Events {
        mut events,
        tombstones,
    }) = answer
    else {
        return Err(ErrorCode::StorageUnavailable);
    };
    if let Some(epoch) = verify {
        let before = events.first().and_then(|event| event::peek(event).ok());
        match before {
            Some(head) if head.seq.next() == from && head.epoch == epoch => {
                events.remove(0);
            }
            _ => return Err(ErrorCode::CursorDiverged),
        }
    }
    Ok(redact(events, &tombstones))
}

/// Deleted messages are not served any more; what stands for them keeps their number.
pub(super) fn redact(mut events: Vec<Bytes>, tombstones: &[(Seq, Seq)]) -> Vec<Bytes> {
    if tombstones.is_empty() {
        return events;
    }
    for event in &mut events {
        let Ok(head) = event::peek(event) else {
            continue;
        };
        if let Some((_, by)) = tombstones.iter().find(|(seq, _)| *seq == head.seq)
            && let Ok(redacted) = event::redact(event, *by)
        {
            *event = redacted;
        }
    }
    events
}

/// As many events as a page holds, from the end that was asked for.
pub(super) fn page_of(mut events: Vec<Bytes>, budget: usize, backward: bool) -> Vec<Bytes> {
    if events.is_empty() {
        return events;
    }
    if backward {
        events.reverse();
    }
    let count = fitting(&events, budget);
    events.truncate(count);
    if backward {
        events.reverse();
    }
    events
}

/// The event's number.
pub(super) fn seq_of(event: &Bytes) -> Option<Seq> {
    event::peek(event).ok().map(|head| head.seq)
}
