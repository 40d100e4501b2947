//! Brings a gathered segment into the keyspaces: one pass over its conversations, every keyspace written in rising order, and
//! none of them read. A later segment's row replaces an earlier one's: segments come in order, and what is repeated after a
//! crash is the same again.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
};

use ahash::RandomState;
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ClientId, ConversationId},
};

use super::{
    Fault, Pace, Step, ViewStore,
    codec::{
        DeviceValue, HeadValue, LENGTH_BYTES, RUN_BYTES_MAX, device_key, put_event, put_sent,
        row_key, row_value, run_key, sent_key, window_key,
    },
    gather::{Gathered, Place, RowRef},
    partitions::{Windows, sent_is_kept, window},
    sink::Sink,
};
use crate::views::SentEvent;

/// Conversations of the newest window that are known to stand in `windows`; so many of them take about 4 MiB.
const KNOWN_MAX: usize = 1 << 17;

/// What is written goes to the disk after so many steps of reading: a sync costs more than a read.
const SYNCED_STEPS: usize = 4;
/// Events that are looked at together; the processor keeps so many of the usual length at hand.
const NEAR: usize = 64;
/// What a processor fetches at once.
const LINE_BYTES: usize = 64;

/// One ingestion into each keyspace that the segment touches.
struct Sinks<'k> {
    events: BTreeMap<u32, Sink<'k>>,
    sent: BTreeMap<u32, Sink<'k>>,
    devices: Sink<'k>,
    windows: Sink<'k>,
    heads: Sink<'k>,
}

/// Conversations whose events of one window stand in `windows` already.
#[derive(Default)]
pub(super) struct Known {
    window: u32,
    conversations: HashSet<ConversationId, RandomState>,
}

/// Which windows events and sent ids go into. Lanes have times of their own: what comes in after another lane's clock had leapt ahead
/// may be older, by journal time, than anything that is kept, and was said a moment ago all the same.
#[derive(Clone, Copy)]
struct Windowing {
    /// First window of events that is kept.
    events_from: u32,
    newest_time_ms: u64,
    events_window_ms: u64,
    sent_window_ms: u64,
}

/// An event and its head.
struct Event {
    head: EventHead,
    /// In the segment.
    bytes: Range<usize>,
    window: u32,
    sent_window: u32,
}

/// What is built for one conversation after the other, kept from one to the next.
#[derive(Default)]
struct Buffers {
    events: Vec<Event>,
    by_sender: Vec<u32>,
    run: Vec<u8>,
    list: Vec<u8>,
}

fn sinks(keyspaces: &Windows, step_bytes: usize) -> BTreeMap<u32, Sink<'_>> {
    keyspaces
        .iter()
        .map(|(window, keyspace)| (*window, Sink::of_long_values(keyspace, step_bytes)))
        .collect()
}

/// The sink of a window, all of which were made before.
fn sink_of<'s, 'k>(
    sinks: &'s mut BTreeMap<u32, Sink<'k>>,
    window: u32,
) -> Result<&'s mut Sink<'k>, Fault> {
    let missing = || Fault::Damaged(format!("window {window} of the views was not opened"));
    sinks.get_mut(&window).ok_or_else(missing)
}

impl Known {
    /// Whether it is new that the conversation has events in this window; false where that is written already.
    fn is_new(&mut self, conversation: ConversationId, window: u32) -> bool {
        if window < self.window {
            return true;
        }
        if window > self.window || self.conversations.len() >= KNOWN_MAX {
            self.window = window;
            self.conversations.clear();
        }
        self.conversations.insert(conversation)
    }
}

impl ViewStore {
    /// Brings all of it in, durably. May be repeated, wholly or after it was cut off anywhere.
    pub(super) fn apply(
        &self,
        gathered: &Gathered<'_>,
        newest_time_ms: u64,
        known: &mut Known,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        let windowing = self.windowing(newest_time_ms);
        let (events, sent) = windowing.of(gathered);
        let (events, sent) = self.open_windows(&events, &sent)?;
        let step_bytes = SYNCED_STEPS * pace.step_bytes();
        let mut sinks = Sinks {
            events: sinks(&events, step_bytes),
            sent: sinks(&sent, step_bytes),
            devices: Sink::new(&self.devices, step_bytes),
            windows: Sink::new(&self.windows, step_bytes),
            heads: Sink::new(&self.heads, step_bytes),
        };
        let mut buffers = Buffers::default();
        for said in &gathered.conversations {
            let places = &gathered.events[said.events.clone()];
            let (conversation, segment) = (said.conversation, gathered.segment);
            let events = &mut buffers.events;
            windowing.read_heads(conversation, segment, places, events, pace)?;
            apply_conversation(conversation, segment, &mut buffers, &mut sinks, known, pace)?;
        }
        // Windows and heads last: what they name is there.
        sinks.events.into_values().try_for_each(Sink::finish)?;
        pace.reached(Step::Events)?;
        sinks.sent.into_values().try_for_each(Sink::finish)?;
        sinks.devices.finish()?;
        sinks.windows.finish()?;
        sinks.heads.finish()?;
        self.apply_rows(&gathered.rows, step_bytes, pace)?;
        self.persist()
    }

    fn windowing(&self, newest_time_ms: u64) -> Windowing {
        Windowing {
            events_from: self.events_from(),
            newest_time_ms,
            events_window_ms: self.events_window_ms,
            sent_window_ms: self.sent_window_ms,
        }
    }

    fn apply_rows(
        &self,
        rows: &[RowRef<'_>],
        step_bytes: usize,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        let mut sink = Sink::new(&self.rows, step_bytes);
        for row in rows {
            let key = row_key(row.conversation, row.table, row.key);
            if row.value.is_empty() {
                sink.delete(&key)?;
            } else {
                sink.put(&key, &row_value(row.position, row.value))?;
            }
            pace.worked(1);
        }
        sink.finish()
    }
}

impl Windowing {
    /// Into which windows what a segment brings goes.
    fn of(self, gathered: &Gathered<'_>) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let (mut events, mut sent) = (BTreeSet::new(), BTreeSet::new());
        let mut last = None;
        for Place { time_ms, .. } in gathered.events {
            if last.replace(*time_ms) != Some(*time_ms) {
                events.insert(self.of_event(*time_ms));
                sent.insert(self.of_sent(*time_ms));
            }
        }
        (events, sent)
    }

    /// The window of an event, which is one that is kept. Those of a conversation do not go back, as time in its lane does not.
    fn of_event(self, time_ms: u64) -> u32 {
        window(time_ms, self.events_window_ms).max(self.events_from)
    }

    /// The window of a sent id, which is one that is kept.
    fn of_sent(self, time_ms: u64) -> u32 {
        let own = window(time_ms, self.sent_window_ms);
        if sent_is_kept(own, self.sent_window_ms, self.newest_time_ms) {
            own
        } else {
            window(self.newest_time_ms, self.sent_window_ms)
        }
    }

    fn read_heads(
        self,
        conversation: ConversationId,
        segment: &[u8],
        places: &[Place],
        events: &mut Vec<Event>,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        events.clear();
        for places in places.chunks(NEAR) {
            bring_near(segment, places);
            for place in places {
                let bytes = place.range();
                let head = event::peek(&segment[bytes.clone()]).map_err(|cause| {
                    let text =
                        format!("an event of conversation {conversation} cannot be read: {cause}");
                    Fault::Damaged(text)
                })?;
                events.push(Event {
                    head,
                    bytes,
                    window: self.of_event(place.time_ms),
                    sent_window: self.of_sent(place.time_ms),
                });
            }
            pace.worked(places.len());
        }
        // The owner numbers them without gaps; whatever else this may be, runs rise.
        if !events.is_sorted_by(|a, b| a.head.seq < b.head.seq) {
            events.sort_by_key(|event| event.head.seq);
            events.dedup_by_key(|event| event.head.seq);
        }
        Ok(())
    }
}

fn apply_conversation(
    conversation: ConversationId,
    segment: &[u8],
    buffers: &mut Buffers,
    sinks: &mut Sinks<'_>,
    known: &mut Known,
    pace: &mut dyn Pace,
) -> Result<(), Fault> {
    let Buffers {
        events,
        by_sender,
        run,
        list,
    } = buffers;
    let Some(last) = events.last() else {
        return Ok(());
    };
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
    for events in events.chunk_by(|a, b| a.window == b.window) {
        let window = events[0].window;
        let sink = sink_of(&mut sinks.events, window)?;
        apply_runs(conversation, events, segment, sink, run, pace)?;
        if known.is_new(conversation, window) {
            sinks.windows.put(&window_key(conversation, window), &[])?;
        }
    }
    apply_sent(conversation, events, by_sender, list, sinks)
}

/// Looks at these events once, so that the processor fetches them side by side: they stand all over the segment.
fn bring_near(segment: &[u8], places: &[Place]) {
    let seen = places.iter().map(|place| {
        let lines = segment[place.range()].iter().step_by(LINE_BYTES);
        lines.fold(0, |seen: u8, byte| seen ^ byte)
    });
    std::hint::black_box(seen.fold(0, |seen, line| seen ^ line));
}

/// Consecutive events as runs of [`RUN_BYTES_MAX`] at most.
fn apply_runs(
    conversation: ConversationId,
    events: &[Event],
    segment: &[u8],
    sink: &mut Sink<'_>,
    run: &mut Vec<u8>,
    pace: &mut dyn Pace,
) -> Result<(), Fault> {
    let mut rest = events;
    while let [first, ..] = rest {
        run.clear();
        let (mut next, mut count) = (first.head.seq, 0);
        for event in rest {
            let bytes = &segment[event.bytes.clone()];
            let grown = run.len() + LENGTH_BYTES + bytes.len();
            if count > 0 && (grown > RUN_BYTES_MAX || event.head.seq != next) {
                break;
            }
            put_event(run, bytes);
            (next, count) = (next.next(), count + 1);
        }
        sink.put(&run_key(conversation, first.head.seq), run)?;
        pace.worked(count);
        rest = &rest[count..];
    }
    Ok(())
}

/// What each device sent, by the window of its ids.
fn apply_sent(
    conversation: ConversationId,
    events: &[Event],
    by_sender: &mut Vec<u32>,
    list: &mut Vec<u8>,
    sinks: &mut Sinks<'_>,
) -> Result<(), Fault> {
    let at = |number: &u32| &events[*number as usize];
    by_sender.clear();
    by_sender.extend((0..).take(events.len()));
    by_sender.sort_unstable_by_key(|number| {
        let Event {
            head, sent_window, ..
        } = at(number);
        // As numbers they compare without a call.
        (
            u128::from_be_bytes(*head.sender.as_bytes()),
            u128::from_be_bytes(*head.device.as_bytes()),
            *sent_window,
            u128::from_be_bytes(*head.client_id.as_bytes()),
            head.seq,
        )
    });
    let device = |number: &u32| (at(number).head.sender, at(number).head.device);
    for sent in by_sender.chunk_by(|a, b| device(a) == device(b)) {
        let (sender, on) = device(&sent[0]);
        let key = device_key(conversation, sender, on);
        for sent in sent.chunk_by(|a, b| at(a).sent_window == at(b).sent_window) {
            let sink = sink_of(&mut sinks.sent, at(&sent[0]).sent_window)?;
            list.clear();
            put_sent(list, sent.iter().map(|number| sent_event(&at(number).head)));
            let newest = at(&sent[sent.len() - 1]).head.client_id;
            sink.put(&sent_key(&key, newest), list)?;
        }
        let values = sent.iter().map(|number| {
            let head = &at(number).head;
            DeviceValue {
                newest: head.client_id,
                seq: head.seq,
                ordinal: head.ordinal,
            }
        });
        if let Some(value) = values.reduce(DeviceValue::merge) {
            sinks.devices.put(&key, &value.encode())?;
        }
    }
    Ok(())
}

fn sent_event(head: &EventHead) -> (ClientId, SentEvent) {
    let EventHead {
        epoch,
        seq,
        time_ms,
        client_id,
        ..
    } = *head;
    let event = SentEvent {
        epoch,
        seq,
        time_ms,
    };
    (client_id, event)
}
