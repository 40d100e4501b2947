//! The journal thread. It takes all that waits, checks it, writes it with one write and one sync, makes it findable, and then
//! answers. While it syncs the next group gathers by itself: no timer is needed.

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Instant,
};

use rialto_protocol::{
    ids::{Epoch, LaneId},
    planted::{self, Mistake},
};

use super::{
    Blocks, Segment, Shared,
    blocks::BLOCK_BYTES,
    disk::DiskFile,
    epoch::EpochFile,
    format::{ENTRY_HEADER_BYTES, EntryHeader, FIRST_ENTRY},
    io_error, lacks_room,
    lanes::Lanes,
    locked, now_ms,
    outbox::Pending,
    queue::{Command, Done},
    segment::{Ready, Sealed},
    spare,
};
use crate::{
    embedded::tail::EntryAt,
    journal::{AppendError, Claim, Entry, JournalError, OutboxItem},
};

/// Bytes after which a group is written though more waits, so that no answer waits for a very long write.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// The journal thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    lanes: Lanes,
    epochs: EpochFile,
    active: Option<Active>,
    /// The views lag as far as they may and do not go on: nothing is appended.
    held_up: bool,
    group: Group,
    /// What is written: the block in which the group begins, as far as it stands in the file, the group, and zeroes up to the
    /// end of its last block.
    blocks: Blocks,
}

/// The segment being written.
struct Active {
    ready: Ready,
    /// Where its next entry goes, those of the open group counted.
    offset: u32,
}

impl Active {
    fn room(&self) -> u32 {
        self.ready.segment.capacity() - self.offset
    }
}

/// Memory for what is written that is kept between groups: more than one of thousands of messages takes, which would have to find it
/// anew each time.
const BLOCKS_KEPT_BYTES: usize = 4 << 20;

/// What the next write brings.
#[derive(Default)]
struct Group {
    /// Where it begins in the active segment.
    start: u32,
    entries: Vec<Entry>,
    bytes: usize,
    /// Calls whose last entry is in this group or was in an earlier one.
    done: Vec<Done<(), AppendError>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lanes: Lanes, epochs: EpochFile) -> Self {
        Self {
            shared,
            lanes,
            epochs,
            active: None,
            held_up: false,
            group: Group::default(),
            blocks: Blocks::default(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _guard = PoisonOnPanic(Arc::clone(&self.shared));
        let mut taken = Vec::new();
        let mut finished = 0;
        while self.shared.queue.take(&mut taken, finished) {
            finished = 0;
            if taken
                .iter()
                .any(|command| matches!(command, Command::Append { .. }))
            {
                let Shared {
                    segments,
                    options,
                    counters,
                    ..
                } = &*self.shared;
                self.held_up = !segments.throttle(options, &counters.slowed);
            }
            for command in taken.drain(..) {
                finished += self.execute(command);
            }
            self.flush(false);
        }
    }

    fn poisoned(&self) -> Option<String> {
        self.shared.poison.get().cloned()
    }

    /// Does a call, or puts it into the group; says how many bytes it held in the queue.
    fn execute(&mut self, command: Command) -> usize {
        if let Some(reason) = self.poisoned() {
            let bytes = command.bytes();
            command.fail(&reason);
            return bytes;
        }
        match command {
            Command::Append {
                entries,
                bytes,
                done,
            } => {
                self.append(entries, done);
                if self.group.bytes >= GROUP_BYTES_MAX {
                    self.flush(false);
                }
                bytes
            }
            Command::Claim { lanes, done } => {
                self.flush(false);
                let claims = self.claim(&lanes);
                done(claims);
                0
            }
            Command::Seal { done } => {
                self.flush(false);
                self.seal();
                done(match self.poisoned() {
                    None => Ok(self.shared.segments.lock().last_sealed),
                    Some(cause) => Err(JournalError::Io {
                        what: "seal a segment".to_owned(),
                        cause,
                    }),
                });
                0
            }
        }
    }

    fn append(&mut self, entries: Vec<Entry>, done: Done<(), AppendError>) {
        let overhead = FIRST_ENTRY + 2 * ENTRY_HEADER_BYTES;
        let records_bytes_max = (self.shared.options.segment_bytes - overhead) as usize;
        if let Err(error) = self.lanes.admit(&entries, records_bytes_max) {
            return self.refuse(done, error);
        }
        let needed = self.segments_needed(&entries);
        if self.held_up || (needed > 0 && !self.shared.segments.prepare(needed)) {
            self.lanes.turn_away(&entries);
            return self.refuse(done, AppendError::Full);
        }
        for entry in entries {
            if !self.place(entry) {
                return done(Err(AppendError::Poisoned(self.shared.why_closed())));
            }
        }
        self.group.done.push(done);
    }

    /// Answers with a refusal. It may rest on what stands in the open group, which has to be durable first.
    fn refuse(&mut self, done: Done<(), AppendError>, error: AppendError) {
        self.flush(false);
        let error = match (self.poisoned(), error) {
            (Some(reason), _) => AppendError::Poisoned(reason),
            (None, AppendError::Full) => self.why_full(),
            (None, error) => error,
        };
        done(Err(error));
    }

    /// What stands in the way of another segment.
    fn why_full(&self) -> AppendError {
        let why = self.shared.segments.lock().unprepared.clone();
        why.map_or(AppendError::Full, AppendError::NoSegment)
    }

    /// How many new segments it takes to place these entries behind what is there.
    fn segments_needed(&self, entries: &[Entry]) -> usize {
        let mut room = self.active.as_ref().map_or(0, Active::room);
        let mut needed = 0;
        for entry in entries {
            let bytes = entry_bytes(entry);
            // A seal has to fit behind it.
            if bytes + ENTRY_HEADER_BYTES > room {
                needed += 1;
                room = self.shared.options.segment_bytes - FIRST_ENTRY;
            }
            room -= bytes;
        }
        needed
    }

    /// Puts an entry into the group, going on to the next segment where it does not fit; false: that failed.
    fn place(&mut self, entry: Entry) -> bool {
        let bytes = entry_bytes(&entry);
        loop {
            if let Some(active) = &mut self.active {
                if bytes + ENTRY_HEADER_BYTES <= active.room() {
                    if self.group.entries.is_empty() {
                        self.group.start = active.offset;
                    }
                    active.offset += bytes;
                    self.group.bytes += bytes as usize;
                    self.group.entries.push(entry);
                    return true;
                }
                self.flush(true);
            }
            let next = self.shared.segments.change(|states| {
                let next = states.ready.pop_front()?;
                states.active = Some((Arc::clone(&next.segment), FIRST_ENTRY));
                Some(next)
            });
            match next {
                Some(ready) if self.poisoned().is_none() => {
                    self.blocks.clear();
                    self.active = Some(Active {
                        ready,
                        offset: FIRST_ENTRY,
                    });
                }
                _ => return false,
            }
        }
    }

    /// Ends the active segment, the group being empty.
    fn seal(&mut self) {
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.offset > FIRST_ENTRY)
        {
            self.flush(true);
        }
    }

    /// Makes the group durable and findable, then answers. With `seal` the active segment ends with it.
    fn flush(&mut self, seal: bool) {
        let done = mem::take(&mut self.group.done);
        let result = match self.active.take() {
            Some(active) if seal || !self.group.entries.is_empty() => self.commit(active, seal),
            active => {
                self.active = active;
                Ok(())
            }
        };
        self.group.entries.clear();
        self.group.bytes = 0;
        let result =
            result.map_err(|error| AppendError::Poisoned(self.shared.poison(error.to_string())));
        for done in done {
            done(result.clone());
        }
    }

    fn commit(&mut self, active: Active, seal: bool) -> io::Result<()> {
        let Active {
            ready: Ready { segment, blocks },
            offset: end,
        } = &active;
        let end = *end;
        self.write(segment, &**blocks, end, seal)?;
        let counters = &self.shared.counters;
        let begun = Instant::now();
        if !planted::strikes(Mistake::AckBeforeSync) {
            blocks.sync_data()?;
        }
        let sync_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.sync_us.fetch_add(sync_us, Relaxed);
        counters.groups.fetch_add(1, Relaxed);
        counters
            .entries
            .fetch_add(self.group.entries.len() as u64, Relaxed);
        counters.bytes.fetch_add(self.group.bytes as u64, Relaxed);
        self.index(segment);
        if seal {
            let lanes = self.lanes.tails(&locked(&self.shared.outbox)).into();
            let sealed = Sealed {
                segment: Arc::clone(segment),
                end,
                lanes,
                time_ms: self.lanes.time_max(),
            };
            self.shared.segments.change(|states| {
                states.active = None;
                states.last_sealed = sealed.segment.number();
                states.sealed.push_back(sealed);
            });
        } else {
            // Nobody waits for this.
            self.shared.segments.lock().active = Some((Arc::clone(segment), end));
            self.active = Some(active);
        }
        Ok(())
    }

    /// Writes the group, which ends at `end`, in whole blocks; a write that is not whole is an error.
    fn write(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        end: u32,
        seal: bool,
    ) -> io::Result<()> {
        let (group, blocks) = (&mut self.group, &mut self.blocks);
        if group.entries.is_empty() {
            group.start = end;
        }
        let codec = segment.codec();
        // The blocks hold the beginning of the first block already.
        let first = u64::from(group.start) - blocks.len() as u64;
        for entry in &group.entries {
            blocks.extend_from_slice(&codec.encode(&header(entry, group.start), &entry.records));
            blocks.extend_from_slice(&entry.records);
        }
        if seal {
            blocks.extend_from_slice(&codec.encode(&EntryHeader::seal(group.start), &[]));
        }
        let bytes = blocks.len();
        blocks.pad();
        let written = file.write_at(blocks, first)?;
        if written != blocks.len() {
            let text = format!(
                "{}: {written} of {} bytes were written",
                segment.name(),
                blocks.len()
            );
            return Err(io::Error::new(io::ErrorKind::WriteZero, text));
        }
        blocks.keep(bytes - bytes % BLOCK_BYTES..bytes);
        blocks.shrink_to(BLOCKS_KEPT_BYTES);
        Ok(())
    }

    fn index(&mut self, segment: &Arc<Segment>) {
        let mut offset = self.group.start;
        for entry in &self.group.entries {
            let Entry {
                lane,
                position,
                time_ms,
                ..
            } = *entry;
            let records = offset + ENTRY_HEADER_BYTES;
            offset += entry_bytes(entry);
            let seen = self.shared.tail.add(
                segment,
                &EntryAt {
                    lane,
                    offset: records,
                },
                &entry.records,
            );
            self.lanes.written(entry);
            if seen.outbox {
                let (segment, bytes) = (segment.number(), offset - records);
                let pending = Pending {
                    position,
                    time_ms,
                    segment,
                    offset: records,
                    bytes,
                };
                locked(&self.shared.outbox).add(lane, pending);
            }
            if let Some(through) = seen.outbox_done {
                locked(&self.shared.outbox).finish(lane, through);
            }
        }
    }

    fn claim(&mut self, lanes: &[LaneId]) -> Result<Vec<Claim>, JournalError> {
        if let Some(cause) = self.poisoned() {
            return Err(JournalError::Io {
                what: "claim lanes".to_owned(),
                cause,
            });
        }
        let last = self.epochs.last().max(self.lanes.epoch_max());
        let epoch = last.next().max(Epoch(now_ms() / 1000));
        let mut claims = Vec::with_capacity(lanes.len());
        for &lane in lanes {
            let Some((tail, time_ms)) = self.lanes.end(lane) else {
                let cause = format!("the data set has no lane {lane}");
                return Err(JournalError::Io {
                    what: "claim lanes".to_owned(),
                    cause,
                });
            };
            claims.push(Claim {
                lane,
                epoch,
                tail,
                time_ms,
                outbox: self.outbox(lane)?,
            });
        }
        self.give_out(epoch)
            .map_err(|error| io_error("write journal/epoch", &error))?;
        for &lane in lanes {
            self.lanes.own(lane, epoch);
        }
        Ok(claims)
    }

    /// Makes the epoch durable. Nothing is served without it: where there is no room for its few bytes, segments go that were
    /// only to be kept.
    fn give_out(&mut self, epoch: Epoch) -> io::Result<()> {
        loop {
            let full = match self.epochs.advance(epoch) {
                Err(error) if lacks_room(&error) => error,
                done => return done,
            };
            if !spare::give_up_one(&self.shared)? {
                tracing::warn!(%full, "no segment is left that could be given up");
                // One that is begun and does not fit has given its room back when this returns.
                self.shared.segments.prepare(1);
                return self.epochs.advance(epoch);
            }
        }
    }

    fn outbox(&self, lane: LaneId) -> Result<Vec<OutboxItem>, JournalError> {
        let pending = locked(&self.shared.outbox).pending(lane);
        let mut items = Vec::with_capacity(pending.len());
        let mut open: Option<Arc<Segment>> = None;
        for pending in pending {
            let last = open.take_if(|segment| segment.number() == pending.segment);
            let segment = last.map_or_else(|| self.shared.segment(pending.segment), Ok)?;
            items.extend(pending.items(lane, &segment)?);
            open = Some(segment);
        }
        Ok(items)
    }
}

fn header(entry: &Entry, group: u32) -> EntryHeader {
    let Entry {
        lane,
        epoch,
        position,
        time_ms,
        ref records,
    } = *entry;
    let length = u32::try_from(records.len()).unwrap_or(u32::MAX);
    EntryHeader {
        length,
        lane,
        flags: 0,
        group,
        epoch,
        position,
        time_ms,
    }
}

/// Bytes of an entry in a segment; admitted ones are far below 4 GiB.
fn entry_bytes(entry: &Entry) -> u32 {
    ENTRY_HEADER_BYTES + u32::try_from(entry.records.len()).unwrap_or(u32::MAX - ENTRY_HEADER_BYTES)
}

/// A journal thread that panics leaves nobody waiting.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = self.0.poison("the journal thread has panicked".to_owned());
            let mut waiting = Vec::new();
            self.0.queue.take(&mut waiting, 0);
            for command in waiting {
                command.fail(&reason);
            }
        }
    }
}
