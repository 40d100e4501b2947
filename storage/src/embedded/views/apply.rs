//! Brings a gathered segment into the keyspaces: one pass over its conversations, every keyspace written in rising order.

use std::collections::{BTreeMap, BTreeSet};

use fjall::Keyspace;
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ConversationId, Seq},
};

use super::{
    Doing, Fault, Pace, Step, ViewStore,
    codec::{
        self, DeviceValue, HeadValue, LENGTH_BYTES, RUN_BYTES_MAX, device_key, put_sent, row_key,
        row_value, run_key, sent_key, window_key,
    },
    gather::{EventRef, Gathered, RowRef},
    sink::Sink,
    window,
};
use crate::views::SentEvent;

/// One ingestion into each keyspace that the segment touches.
struct Sinks<'k> {
    events: BTreeMap<u32, Sink<'k>>,
    sent: BTreeMap<u32, Sink<'k>>,
    devices: Sink<'k>,
    windows: Sink<'k>,
    heads: Sink<'k>,
}

/// An event's head, and the window of its client id.
struct SentRef {
    head: EventHead,
    window: u32,
}

fn sinks(keyspaces: &BTreeMap<u32, Keyspace>) -> BTreeMap<u32, Sink<'_>> {
    keyspaces
        .iter()
        .map(|(window, keyspace)| (*window, Sink::new(keyspace)))
        .collect()
}

impl ViewStore {
    /// Brings all of it in, durably. May be repeated, wholly or after it was cut off anywhere.
    pub(super) fn apply(
        &self,
        gathered: &Gathered,
        newest_time_ms: u64,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        let (events, sent) = self.windows_of(gathered, newest_time_ms);
        let (events, sent) = self.open_windows(&events, &sent)?;
        let mut sinks = Sinks {
            events: sinks(&events),
            sent: sinks(&sent),
            devices: Sink::new(&self.devices),
            windows: Sink::new(&self.windows),
            heads: Sink::new(&self.heads),
        };
        let mut run = Vec::with_capacity(2 * RUN_BYTES_MAX);
        for events in gathered
            .events
            .chunk_by(|a, b| a.conversation == b.conversation)
        {
            self.apply_conversation(events, &mut sinks, &mut run)?;
            pace.breathe();
        }
        // Windows and heads last: what they name is there.
        sinks.events.into_values().try_for_each(Sink::finish)?;
        pace.reached(Step::Events)?;
        sinks.sent.into_values().try_for_each(Sink::finish)?;
        sinks.devices.finish()?;
        sinks.windows.finish()?;
        sinks.heads.finish()?;
        self.apply_rows(&gathered.rows, pace)?;
        self.persist()
    }

    fn windows_of(
        &self,
        gathered: &Gathered,
        newest_time_ms: u64,
    ) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let (mut events, mut sent) = (BTreeSet::new(), BTreeSet::new());
        let mut last = None;
        for event in &gathered.events {
            let windows = (
                window(event.time_ms, self.events_window_ms),
                window(event.time_ms, self.sent_window_ms),
            );
            if last.replace(windows) != Some(windows) {
                events.insert(windows.0);
                sent.insert(windows.1);
            }
        }
        events.retain(|window| *window >= self.events_from());
        sent.retain(|window| self.sent_is_kept(*window, newest_time_ms));
        (events, sent)
    }

    fn apply_conversation(
        &self,
        events: &[EventRef],
        sinks: &mut Sinks<'_>,
        run: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut heads = Vec::with_capacity(events.len());
        for event in events {
            let head = event::peek(&event.event).map_err(|error| {
                Fault::Damaged(format!("event {} cannot be read: {error}", event.seq))
            })?;
            heads.push(SentRef {
                head,
                window: window(event.time_ms, self.sent_window_ms),
            });
        }
        let Some((event, last)) = events.last().zip(heads.last()) else {
            return Ok(());
        };
        let conversation = event.conversation;
        let EventHead {
            seq,
            epoch,
            ordinal,
            time_ms,
            ..
        } = last.head;
        sinks.heads.put(
            conversation.as_bytes(),
            &HeadValue {
                seq,
                epoch,
                ordinal,
                time_ms,
            }
            .encode(),
        )?;
        let same_window = |a: &EventRef, b: &EventRef| {
            window(a.time_ms, self.events_window_ms) == window(b.time_ms, self.events_window_ms)
        };
        for events in events.chunk_by(same_window) {
            let window = window(events[0].time_ms, self.events_window_ms);
            // A window that is not kept any more has no sink.
            if let Some(sink) = sinks.events.get_mut(&window) {
                apply_runs(conversation, events, sink, run)?;
                self.apply_window(conversation, window, events[0].seq, &mut sinks.windows)?;
            }
        }
        self.apply_sent(conversation, &mut heads, sinks)
    }

    fn apply_window(
        &self,
        conversation: ConversationId,
        window: u32,
        first: Seq,
        windows: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let key = window_key(conversation, window);
        let known = self
            .windows
            .get(key)
            .doing("reading a conversation's windows")?;
        if known
            .and_then(|value| codec::number(&value, 0))
            .is_some_and(|known| known <= first.0)
        {
            return Ok(());
        }
        windows.put(&key, &first.0.to_le_bytes())
    }

    fn apply_sent(
        &self,
        conversation: ConversationId,
        heads: &mut [SentRef],
        sinks: &mut Sinks<'_>,
    ) -> Result<(), Fault> {
        heads.sort_unstable_by_key(|SentRef { head, window }| {
            (head.sender, head.device, *window, head.client_id, head.seq)
        });
        let same_device = |a: &SentRef, b: &SentRef| {
            (a.head.sender, a.head.device) == (b.head.sender, b.head.device)
        };
        let mut list = Vec::new();
        for sent in heads.chunk_by(same_device) {
            let key = device_key(conversation, sent[0].head.sender, sent[0].head.device);
            for sent in sent.chunk_by(|a, b| a.window == b.window) {
                let Some(sink) = sinks.sent.get_mut(&sent[0].window) else {
                    continue;
                };
                list.clear();
                for SentRef { head, .. } in sent {
                    let event = SentEvent {
                        epoch: head.epoch,
                        seq: head.seq,
                        time_ms: head.time_ms,
                    };
                    put_sent(&mut list, head.client_id, &event);
                }
                sink.put(&sent_key(&key, sent[sent.len() - 1].head.client_id), &list)?;
            }
            self.apply_device(&key, sent, &mut sinks.devices)?;
        }
        Ok(())
    }

    fn apply_device(
        &self,
        key: &[u8; 48],
        sent: &[SentRef],
        devices: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let stored = self.devices.get(key).doing("reading what a device sent")?;
        let stored = stored.as_deref().and_then(DeviceValue::decode);
        let new = sent.iter().map(|SentRef { head, .. }| DeviceValue {
            newest: head.client_id,
            seq: head.seq,
            ordinal: head.ordinal,
        });
        match stored.into_iter().chain(new).reduce(DeviceValue::merge) {
            Some(value) => devices.put(key, &value.encode()),
            None => Ok(()),
        }
    }

    fn apply_rows(&self, rows: &[RowRef], pace: &mut dyn Pace) -> Result<(), Fault> {
        let mut sink = Sink::new(&self.rows);
        for row in rows {
            let key = row_key(row.conversation, row.table, &row.key);
            if row.value.is_empty() {
                sink.delete(&key)?;
            } else {
                sink.put(&key, &row_value(row.position, &row.value))?;
            }
            pace.breathe();
        }
        sink.finish()
    }
}

/// Consecutive events as runs of [`RUN_BYTES_MAX`] at most.
fn apply_runs(
    conversation: ConversationId,
    events: &[EventRef],
    sink: &mut Sink<'_>,
    run: &mut Vec<u8>,
) -> Result<(), Fault> {
    run.clear();
    let (mut first, mut next) = (events[0].seq, events[0].seq);
    for event in events {
        let full = run.len() + LENGTH_BYTES + event.event.len() > RUN_BYTES_MAX;
        if !run.is_empty() && (full || event.seq != next) {
            sink.put(&run_key(conversation, first), run)?;
            run.clear();
        }
        if run.is_empty() {
            first = event.seq;
        }
        let length = u32::try_from(event.event.len()).map_err(|_| {
            Fault::Damaged(format!("event {} of {conversation} is too long", event.seq))
        })?;
        run.extend_from_slice(&length.to_le_bytes());
        run.extend_from_slice(&event.event);
        next = event.seq.next();
    }
    sink.put(&run_key(conversation, first), run)
}
