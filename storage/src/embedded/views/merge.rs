//! Reads of the views and of the journal's tail together: as of the last durable entry.
//!
//! The tail is asked first. What has left it by then is in the views already, so nothing is missed; what is in both is
//! the same, or newer in the tail.

use std::{cmp::Ordering, iter::Peekable};

use bytes::Bytes;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, Seq, UserId},
    record::Table,
};

use super::{super::worker::Work, Fault};
use crate::{
    page::Page,
    views::{Head, Order, Range, Scan, SentDevices, SentEvent, ViewsError},
};

type Rows = Vec<(Bytes, Bytes)>;

pub(in super::super) fn head(
    work: &Work,
    conversation: ConversationId,
) -> Result<Option<Head>, ViewsError> {
    let tail = work.log.tail().head(&conversation)?;
    let viewed = work.views.head(conversation)?;
    let tail_head = tail.map(|tail| (tail.seq, tail.epoch, tail.ordinal, tail.time_ms));
    let view_head = viewed.map(|head| (head.seq, head.epoch, head.ordinal, head.time_ms));
    let Some((seq, epoch, ordinal, time_ms)) = tail_head.max(view_head) else {
        return Ok(None);
    };
    let oldest = if work.views.events_from() == 0 {
        // Nothing was ever dropped.
        Seq(1)
    } else {
        let in_views = work.views.oldest(conversation)?;
        in_views
            .or(tail.map(|tail| tail.first))
            .unwrap_or(seq.next())
    };
    Ok(Some(Head {
        seq,
        epoch,
        ordinal,
        time_ms,
        oldest,
    }))
}

pub(in super::super) fn events(work: &Work, range: &Range) -> Result<Vec<Bytes>, ViewsError> {
    let range = Range {
        from: range.from.max(Seq(1)),
        ..*range
    };
    if range.from > range.to {
        return Ok(Vec::new());
    }
    match range.order {
        Order::Forward => forward(work, &range),
        Order::Backward => backward(work, &range),
    }
}

fn before(seq: Seq) -> Seq {
    Seq(seq.0.saturating_sub(1))
}

fn forward(work: &Work, range: &Range) -> Result<Vec<Bytes>, ViewsError> {
    let tail = work.log.tail().events(range);
    let mut page = Page::new(range.bytes_max);
    let mut events = Vec::new();
    let last_in_views = tail
        .first
        .map_or(range.to, |first| before(first).min(range.to));
    if range.from <= last_in_views {
        let (next, full) = work.views.events_forward(
            range.conversation,
            range.from,
            last_in_views,
            &mut page,
            &mut events,
        )?;
        if full {
            return Ok(events);
        }
        // Below the tail nothing but what was dropped may be missing, and that from the oldest on.
        let begun = !events.is_empty() || work.views.events_from() == 0;
        if tail.first.is_some() && begun && next <= last_in_views {
            return Err(ViewsError::Damaged(format!(
                "event {next} of conversation {} is missing in the views",
                range.conversation
            )));
        }
    }
    if tail.from().is_some() && (page.is_empty() || page.room() > 0) {
        events.extend(
            tail.read()?
                .into_iter()
                .take_while(|event| page.takes(event.len())),
        );
    }
    Ok(events)
}

fn backward(work: &Work, range: &Range) -> Result<Vec<Bytes>, ViewsError> {
    let tail = work.log.tail().events(range);
    let in_tail = tail.read()?;
    let mut page = Page::new(range.bytes_max);
    for event in in_tail.iter().rev() {
        page.takes(event.len());
    }
    let to = match (tail.from(), tail.first) {
        // Cut within the tail.
        (Some(from), Some(first)) if from > first => return Ok(in_tail),
        (Some(from), _) => before(from),
        (None, Some(first)) => before(first).min(range.to),
        (None, None) => work
            .views
            .head(range.conversation)?
            .map_or(Seq(0), |head| head.seq.min(range.to)),
    };
    let mut events = Vec::new();
    if range.from <= to {
        work.views
            .events_backward(range.conversation, range.from, to, &mut page, &mut events)?;
    }
    events.reverse();
    events.extend(in_tail);
    Ok(events)
}

pub(in super::super) fn rows(
    work: &Work,
    conversation: ConversationId,
    table: Table,
    keys: &[Bytes],
) -> Result<Vec<Option<Bytes>>, ViewsError> {
    let row = |key: &Bytes| match work.log.tail().row(&conversation, table, key)? {
        Some(value) => Ok(value),
        None => Ok(work
            .views
            .row(conversation, table, key)?
            .map(|(_, value)| value)),
    };
    keys.iter().map(row).collect()
}

pub(in super::super) fn scan(work: &Work, scan: &Scan) -> Result<Rows, ViewsError> {
    let tail = work.log.tail().scan_rows(scan)?;
    let viewed = work
        .views
        .scan(scan)
        .map(|row| row.map(|(key, _, value)| (key, value)));
    merge_rows(tail.into_iter().peekable(), viewed.peekable(), scan.limit)
}

/// Both rise by key; of equal keys the tail's counts, and a deleted one hides the other.
fn merge_rows(
    mut tail: Peekable<impl Iterator<Item = (Bytes, Option<Bytes>)>>,
    mut viewed: Peekable<impl Iterator<Item = Result<(Bytes, Bytes), Fault>>>,
    limit: usize,
) -> Result<Rows, ViewsError> {
    let mut rows = Vec::new();
    while rows.len() < limit {
        let order = match (tail.peek(), viewed.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) | (Some(_), Some(Err(_))) => Ordering::Greater,
            (Some((in_tail, _)), Some(Ok((in_views, _)))) => in_tail.cmp(in_views),
        };
        if order != Ordering::Less {
            let row = viewed.next().transpose()?;
            if order == Ordering::Greater {
                rows.extend(row);
            }
        }
        if order != Ordering::Greater
            && let Some((key, Some(value))) = tail.next()
        {
            rows.push((key, value));
        }
    }
    Ok(rows)
}

pub(in super::super) fn sent(
    work: &Work,
    conversation: ConversationId,
    user: UserId,
) -> Result<SentDevices, ViewsError> {
    let tail = work.log.tail().sent(&conversation, &user)?;
    Ok(work.views.sent(conversation, user, tail)?)
}

pub(in super::super) fn find_sent(
    work: &Work,
    conversation: ConversationId,
    user: UserId,
    device: DeviceId,
    client_id: ClientId,
) -> Result<Option<SentEvent>, ViewsError> {
    match work
        .log
        .tail()
        .find_sent(&conversation, &user, &device, &client_id)?
    {
        Some(found) => Ok(Some(found)),
        None => Ok(work
            .views
            .find_sent(conversation, user, device, client_id)?),
    }
}
