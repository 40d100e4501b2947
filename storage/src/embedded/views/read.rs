//! Reads of the database alone: as far as the views have come.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use bytes::Bytes;
use fjall::Keyspace;
use rialto_protocol::{
    event,
    ids::{ClientId, ConversationId, DeviceId, Position, Seq, UserId},
    record::Table,
};

use super::{
    Doing, Fault, Partitions, ViewStore,
    codec::{
        DeviceValue, HeadValue, Run, device_key, find_in_list, parse_row, row_key, run_first,
        run_key, sent_key, window_key, window_of,
    },
};
use crate::{
    page::Page,
    views::{Scan, Sent, SentDevices, SentEvent},
};

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
    pub(in super::super) fn events_from(&self) -> u32 {
        self.events_from.load(Relaxed)
    }

    /// Greatest journal time that has decided which sent ids are kept.
    pub(in super::super) fn newest_time_ms(&self) -> u64 {
        self.newest_time_ms.load(SeqCst)
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
        for window in &self.windows(conversation)? {
            if let Some(first) = first_run(window, conversation)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// The kept windows in which the conversation has events, oldest first. All of them as they are at one moment: those that are dropped
    /// meanwhile are the oldest, and what is read from these has no gap.
    fn windows(&self, conversation: ConversationId) -> Result<Vec<Arc<Keyspace>>, Fault> {
        let kept =
            window_key(conversation, self.events_from())..=window_key(conversation, u32::MAX);
        let windows = self.windows.range(kept).map(|guard| {
            let key = guard.key().doing("reading a conversation's windows")?;
            window_of(&key).ok_or_else(|| unreadable("a window", conversation))
        });
        let windows = windows.collect::<Result<Vec<u32>, Fault>>()?;
        Ok(self.with_partitions(|Partitions { events, .. }| {
            let windows = windows.iter().filter_map(|window| events.get(window));
            windows.cloned().collect()
        }))
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
        let windows = self.windows(conversation)?;
        // The newest window that begins with `from` or before it; the oldest one if none does.
        let mut begin = 0;
        let mut next = from;
        let mut from_run = Seq(0);
        for (place, window) in windows.iter().enumerate().rev() {
            let before = run_key(conversation, Seq(0))..=run_key(conversation, from);
            if let Some(guard) = window.range(before).next_back() {
                let key = guard.key().doing("reading events")?;
                from_run = run_first(&key).ok_or_else(|| unreadable("a run", conversation))?;
                begin = place;
                break;
            }
        }
        for window in &windows[begin..] {
            if from_run == Seq(0) {
                // Nothing is kept at `from` or below it.
                let Some(oldest) = first_run(window, conversation)? else {
                    continue;
                };
                (from_run, next) = (oldest, next.max(oldest));
            }
            for guard in window.range(run_key(conversation, from_run)..=run_key(conversation, to)) {
                let run = open_run(conversation, guard)?;
                if forward_run(conversation, &run, &mut next, to, page, events)? {
                    return Ok((next, true));
                }
            }
            if next > to {
                break;
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
        for window in self.windows(conversation)?.into_iter().rev() {
            let below = run_key(conversation, Seq(0))..=run_key(conversation, last);
            for guard in window.range(below).rev() {
                if backward_run(conversation, guard, from, &mut last, page, events)? {
                    return Ok(());
                }
            }
        }
        if self.events_from() == 0 && last >= from {
            // Nothing was ever dropped.
            return Err(gap(conversation, last));
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

    /// Of the user's devices those with the newest events, what the tail knows of them being given.
    pub(super) fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        mut sent: SentDevices,
    ) -> Result<SentDevices, Fault> {
        let key = |device: DeviceId| device_key(conversation, user, device);
        if sent.more {
            // The events of all others are older.
            for sent in &mut sent.devices {
                let value = self.devices.get(key(sent.device));
                if let Some(value) = value.doing("reading what devices sent")? {
                    let value = DeviceValue::decode(&value);
                    join(
                        sent,
                        value.ok_or_else(|| unreadable("a device", conversation))?,
                    );
                }
            }
        } else {
            self.scan_devices(conversation, user, &mut sent)?;
        }
        // Of its last segment alone; an earlier one may have had a greater id.
        for keyspace in &self.sent_windows() {
            for sent in &mut sent.devices {
                let newest = newest_sent(keyspace, conversation, &key(sent.device))?;
                sent.newest = sent.newest.max(newest.unwrap_or(sent.newest));
            }
        }
        Ok(sent)
    }

    /// Joins all of the user's devices to what the tail knows of them.
    fn scan_devices(
        &self,
        conversation: ConversationId,
        user: UserId,
        sent: &mut SentDevices,
    ) -> Result<(), Fault> {
        let mut others = SentDevices::default();
        let first = device_key(conversation, user, DeviceId::from_bytes([0; 16]));
        let last = device_key(conversation, user, DeviceId::from_bytes([0xff; 16]));
        for guard in self.devices.range(first..=last) {
            let (key, value) = guard.into_inner().doing("reading what devices sent")?;
            let device = key.get(32..).and_then(|id| DeviceId::from_slice(id).ok());
            let (device, value) = device
                .zip(DeviceValue::decode(&value))
                .ok_or_else(|| unreadable("a device", conversation))?;
            match sent.devices.iter_mut().find(|sent| sent.device == device) {
                Some(sent) => join(sent, value),
                None => others.offer(Sent {
                    device,
                    newest: value.newest,
                    seq: value.seq,
                    ordinal: value.ordinal,
                }),
            }
        }
        sent.devices.extend(others.devices);
        sent.more |= others.more;
        sent.cut();
        Ok(())
    }

    /// Windows of sent ids, the newest first.
    fn sent_windows(&self) -> Vec<Arc<Keyspace>> {
        self.with_partitions(|partitions| partitions.sent.values().rev().cloned().collect())
    }

    /// The event under this id, the newest windows first.
    pub(super) fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> Result<Option<SentEvent>, Fault> {
        let key = device_key(conversation, user, device);
        let last = sent_key(&key, ClientId::from_bytes([0xff; 16]));
        for keyspace in self.sent_windows() {
            // Lists that end before it cannot hold it; of the others one does as a rule, the first.
            for guard in keyspace.range(sent_key(&key, client_id)..=last) {
                let list = guard.value().doing("reading sent ids")?;
                let found = find_in_list(&list, client_id);
                for sent in found.ok_or_else(|| unreadable("sent ids", conversation))? {
                    if self.was_sent(conversation, sent.seq, (user, device, client_id))? {
                        return Ok(Some(sent));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether the event was sent under this id, by this device of this user. Its list knows no more than half of the id; where
    /// the event is not kept any more that has to do.
    fn was_sent(
        &self,
        conversation: ConversationId,
        seq: Seq,
        wanted: (UserId, DeviceId, ClientId),
    ) -> Result<bool, Fault> {
        let (mut page, mut events) = (Page::new(0), Vec::new());
        self.events_forward(conversation, seq, seq, &mut page, &mut events)?;
        let Some(event) = events.first() else {
            return Ok(true);
        };
        let head = event::peek(event).map_err(|_| unreadable("an event", conversation))?;
        Ok((head.sender, head.device, head.client_id) == wanted)
    }
}

/// The newer of both in each respect.
fn join(sent: &mut Sent, value: DeviceValue) {
    let known = DeviceValue {
        newest: sent.newest,
        seq: sent.seq,
        ordinal: sent.ordinal,
    };
    let DeviceValue {
        newest,
        seq,
        ordinal,
    } = known.merge(value);
    (sent.newest, sent.seq, sent.ordinal) = (newest, seq, ordinal);
}

/// The first event of the conversation in a window.
fn first_run(keyspace: &Keyspace, conversation: ConversationId) -> Result<Option<Seq>, Fault> {
    let all = run_key(conversation, Seq(0))..=run_key(conversation, Seq(u64::MAX));
    let Some(guard) = keyspace.range(all).next() else {
        return Ok(None);
    };
    let key = guard.key().doing("reading events")?;
    run_first(&key)
        .map(Some)
        .ok_or_else(|| unreadable("a run", conversation))
}

/// The greatest id that the device sent in a window: the key of its last list ends with it.
fn newest_sent(
    keyspace: &Keyspace,
    conversation: ConversationId,
    device: &[u8; 48],
) -> Result<Option<ClientId>, Fault> {
    let all = sent_key(device, ClientId::from_bytes([0; 16]))
        ..=sent_key(device, ClientId::from_bytes([0xff; 16]));
    let Some(guard) = keyspace.range(all).next_back() else {
        return Ok(None);
    };
    let key = guard.key().doing("reading sent ids")?;
    let newest = key.get(48..).and_then(|id| ClientId::from_slice(id).ok());
    newest
        .map(Some)
        .ok_or_else(|| unreadable("sent ids", conversation))
}

fn open_run(conversation: ConversationId, guard: fjall::Guard) -> Result<(Seq, Bytes), Fault> {
    let (key, value) = guard.into_inner().doing("reading events")?;
    let first = run_first(&key).ok_or_else(|| unreadable("a run", conversation))?;
    Ok((first, shared(value)))
}

/// A run whose events are handed out without copying them.
fn shared(value: fjall::UserValue) -> Bytes {
    Bytes::from_owner(value)
}

/// Takes `next` and what follows from a run; true: the page is full.
fn forward_run(
    conversation: ConversationId,
    (first, value): &(Seq, Bytes),
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
        events.push(value.slice_ref(event));
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
        events.push(value.slice_ref(event));
        *last = Seq(seq.0.saturating_sub(1));
    }
    Ok(*last < from)
}
