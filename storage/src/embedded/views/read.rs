//! Reads of the database alone: as far as the views have come.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use fjall::Keyspace;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, Position, Seq, UserId},
    record::Table,
};

use super::{
    Doing, Fault, ViewStore,
    codec::{
        self, DeviceValue, HeadValue, Run, device_key, find_in_list, parse_row, row_key, run_first,
        run_key, sent_key, window_key, window_of,
    },
};
use crate::{
    page::Page,
    views::{Scan, Sent, SentEvent},
};

/// A window in which a conversation has events, and the first of them there.
struct WindowPart {
    window: u32,
    first: Seq,
}

fn unreadable(what: &str, conversation: ConversationId) -> Fault {
    Fault::Damaged(format!(
        "{what} of conversation {conversation} cannot be read back"
    ))
}

fn gap(conversation: ConversationId, seq: Seq) -> Fault {
    Fault::Damaged(format!(
        "event {seq} of conversation {conversation} is missing in the views"
    ))
}

impl ViewStore {
    /// First window of events that is kept.
    pub(super) fn events_from(&self) -> u32 {
        self.events_from.load(Relaxed)
    }

    /// The last event that is in.
    pub(super) fn head(&self, conversation: ConversationId) -> Result<Option<HeadValue>, Fault> {
        let Some(value) = self
            .heads
            .get(conversation.as_bytes())
            .doing("reading a head")?
        else {
            return Ok(None);
        };
        HeadValue::decode(&value)
            .map(Some)
            .ok_or_else(|| unreadable("the head", conversation))
    }

    /// The oldest event that is in and kept; `None`: none is.
    pub(super) fn oldest(&self, conversation: ConversationId) -> Result<Option<Seq>, Fault> {
        let from = window_key(conversation, self.events_from());
        let Some(guard) = self
            .windows
            .range(from..=window_key(conversation, u32::MAX))
            .next()
        else {
            return Ok(None);
        };
        let (_, value) = guard
            .into_inner()
            .doing("reading a conversation's windows")?;
        Ok(codec::number(&value, 0).map(Seq))
    }

    /// The kept windows that hold events `from..=to`, the newest first.
    fn parts(
        &self,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<WindowPart>, Fault> {
        let mut parts = Vec::new();
        let kept =
            window_key(conversation, self.events_from())..=window_key(conversation, u32::MAX);
        for guard in self.windows.range(kept).rev() {
            let (key, value) = guard
                .into_inner()
                .doing("reading a conversation's windows")?;
            let part = window_of(&key).zip(codec::number(&value, 0));
            let (window, first) = part.ok_or_else(|| unreadable("a window", conversation))?;
            let first = Seq(first);
            if first <= to {
                parts.push(WindowPart { window, first });
            }
            if first <= from {
                break;
            }
        }
        Ok(parts)
    }

    fn events_window(&self, window: u32) -> Option<Keyspace> {
        self.with_partitions(|partitions| partitions.events.get(&window).cloned())
    }

    /// Events from `from` on, at most `to`, as many as the views hold and the page takes. Returns the seq after the last
    /// one (`from`, or the oldest that is kept, when there is none) and whether the page is full.
    pub(super) fn events_forward(
        &self,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
        page: &mut Page,
        events: &mut Vec<Bytes>,
    ) -> Result<(Seq, bool), Fault> {
        let parts = self.parts(conversation, from, to)?;
        let mut next = parts.last().map_or(from, |part| part.first.max(from));
        for WindowPart { window, first } in parts.into_iter().rev() {
            let Some(keyspace) = self.events_window(window) else {
                // Dropped since: as if it had been before.
                continue;
            };
            if window == self.events_from() {
                next = next.max(first);
            }
            // The run that holds `next` begins with it or before.
            let mut begin = next;
            if let Some(guard) = keyspace
                .range(run_key(conversation, Seq(0))..=run_key(conversation, next))
                .next_back()
            {
                let run = open_run(conversation, guard)?;
                begin = run.0.next();
                if forward_run(conversation, &run, &mut next, to, page, events)? {
                    return Ok((next, true));
                }
            }
            if next > to {
                break;
            }
            for guard in keyspace.range(run_key(conversation, begin)..=run_key(conversation, to)) {
                if forward_run(
                    conversation,
                    &open_run(conversation, guard)?,
                    &mut next,
                    to,
                    page,
                    events,
                )? {
                    return Ok((next, true));
                }
            }
        }
        Ok((next, false))
    }

    /// Events down from `to`, not below `from`, as many as are kept and the page takes, the newest first. All of them up
    /// to `to` must be in.
    pub(super) fn events_backward(
        &self,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
        page: &mut Page,
        events: &mut Vec<Bytes>,
    ) -> Result<(), Fault> {
        let mut last = to;
        for WindowPart { window, first } in self.parts(conversation, from, to)? {
            let Some(keyspace) = self.events_window(window) else {
                return Ok(());
            };
            let lowest = first.max(from);
            for guard in keyspace
                .range(run_key(conversation, Seq(0))..=run_key(conversation, last))
                .rev()
            {
                if last < lowest {
                    break;
                }
                if backward_run(conversation, guard, from, &mut last, page, events)? {
                    return Ok(());
                }
            }
            if last >= lowest {
                return Err(gap(conversation, last));
            }
        }
        Ok(())
    }

    /// A row and the position that wrote it; `None`: no such row, or deleted.
    pub(super) fn row(
        &self,
        conversation: ConversationId,
        table: Table,
        key: &[u8],
    ) -> Result<Option<(Position, Bytes)>, Fault> {
        let value = self
            .rows
            .get(row_key(conversation, table, key))
            .doing("reading a row")?;
        let Some(value) = value else { return Ok(None) };
        parse_row(&value)
            .map(Some)
            .ok_or_else(|| unreadable("a row", conversation))
    }

    /// Rows in the order of their keys, lazily.
    pub(super) fn scan(
        &self,
        scan: &Scan,
    ) -> impl Iterator<Item = Result<(Bytes, Position, Bytes), Fault>> + use<> {
        let Scan {
            conversation,
            table,
            ref after,
            ref through,
            ..
        } = *scan;
        let first = row_key(conversation, table, after);
        let last = if through.is_empty() {
            // Longer than every key of the table, so above all of them.
            row_key(
                conversation,
                table,
                &[0xff; rialto_protocol::record::ROW_KEY_BYTES_MAX + 1],
            )
        } else {
            row_key(conversation, table, through)
        };
        // From the start means with the empty key, which is a key as well.
        let after = after.clone();
        let range = (first <= last).then(|| self.rows.range(first..=last));
        range.into_iter().flatten().filter_map(move |guard| {
            let (key, value) = match guard.into_inner().doing("reading rows") {
                Ok(pair) => pair,
                Err(fault) => return Some(Err(fault)),
            };
            let key = Bytes::copy_from_slice(&key[17..]);
            if !after.is_empty() && key == after {
                return None;
            }
            let row = parse_row(&value).ok_or_else(|| unreadable("a row", conversation));
            Some(row.map(|(position, value)| (key, position, value)))
        })
    }

    /// What each of the user's devices last sent.
    pub(super) fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Vec<Sent>, Fault> {
        let mut sent = Vec::new();
        let first = device_key(conversation, user, DeviceId::from_bytes([0; 16]));
        let last = device_key(conversation, user, DeviceId::from_bytes([0xff; 16]));
        for guard in self.devices.range(first..=last) {
            let (key, value) = guard.into_inner().doing("reading what devices sent")?;
            let device = DeviceId::from_slice(&key[32..])
                .ok()
                .zip(DeviceValue::decode(&value));
            let (device, value) = device.ok_or_else(|| unreadable("a device", conversation))?;
            let DeviceValue {
                newest,
                seq,
                ordinal,
            } = value;
            sent.push(Sent {
                device,
                newest,
                seq,
                ordinal,
            });
        }
        Ok(sent)
    }

    /// The event under this id, the newest windows first.
    pub(super) fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> Result<Option<SentEvent>, Fault> {
        let windows: Vec<Keyspace> =
            self.with_partitions(|partitions| partitions.sent.values().rev().cloned().collect());
        let key = device_key(conversation, user, device);
        let last = sent_key(&key, ClientId::from_bytes([0xff; 16]));
        for keyspace in windows {
            // Lists that end before it cannot hold it; of the others one does as a rule, the first.
            for guard in keyspace.range(sent_key(&key, client_id)..=last) {
                let list = guard.value().doing("reading sent ids")?;
                if let Some(found) = find_in_list(&list, client_id) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

fn open_run(
    conversation: ConversationId,
    guard: fjall::Guard,
) -> Result<(Seq, fjall::UserValue), Fault> {
    let (key, value) = guard.into_inner().doing("reading events")?;
    let first = run_first(&key).ok_or_else(|| unreadable("a run", conversation))?;
    Ok((first, value))
}

/// Takes `next` and what follows from a run; true: the page is full.
fn forward_run(
    conversation: ConversationId,
    (first, value): &(Seq, fjall::UserValue),
    next: &mut Seq,
    to: Seq,
    page: &mut Page,
    events: &mut Vec<Bytes>,
) -> Result<bool, Fault> {
    if first > next {
        return Err(gap(conversation, *next));
    }
    for event in Run::new(*first, value) {
        let (seq, event) = event.ok_or_else(|| unreadable("a run", conversation))?;
        // A run that overlaps the one before repeats what was taken already.
        if seq < *next {
            continue;
        }
        if seq > to {
            break;
        }
        if !page.takes(event.len()) {
            return Ok(true);
        }
        events.push(Bytes::copy_from_slice(event));
        *next = seq.next();
    }
    Ok(false)
}

/// Takes `last` and what comes before it from a run; true: nothing more is wanted.
fn backward_run(
    conversation: ConversationId,
    guard: fjall::Guard,
    from: Seq,
    last: &mut Seq,
    page: &mut Page,
    events: &mut Vec<Bytes>,
) -> Result<bool, Fault> {
    let (first, value) = open_run(conversation, guard)?;
    let mut found = Vec::new();
    for event in Run::new(first, &value) {
        let (seq, event) = event.ok_or_else(|| unreadable("a run", conversation))?;
        if (from..=*last).contains(&seq) {
            found.push((seq, event));
        }
    }
    if found.last().is_none_or(|(seq, _)| seq != last) {
        return Err(gap(conversation, *last));
    }
    for (seq, event) in found.into_iter().rev() {
        if !page.takes(event.len()) {
            return Ok(true);
        }
        events.push(Bytes::copy_from_slice(event));
        *last = Seq(seq.0.saturating_sub(1));
    }
    Ok(*last < from)
}
