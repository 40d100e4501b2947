//! An open segment, and the states that segments go through: ready → active → sealed → viewed → ready again.

use std::{
    collections::VecDeque,
    io,
    ops::Deref,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    LogOptions,
    blocks::{BLOCK_BYTES, Blocks},
    disk::{Disk, DiskFile, read_blocks},
    format::EntryCodec,
    locked,
    sealed::LaneTail,
};

/// Delay of a group for each segment above the soft limit.
const SLOW_STEP: Duration = Duration::from_millis(2);

/// A segment file that is open. Whoever holds it can read from it: its file is not reused before everybody has let go.
pub(crate) struct Segment {
    number: u64,
    capacity: u32,
    codec: EntryCodec,
    file: Box<dyn DiskFile>,
}

impl Segment {
    pub(super) fn new(
        number: u64,
        capacity: u32,
        codec: EntryCodec,
        file: Box<dyn DiskFile>,
    ) -> Self {
        Self {
            number,
            capacity,
            codec,
            file,
        }
    }

    /// Its number; they rise by one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the file.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn codec(&self) -> EntryCodec {
        self.codec
    }

    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Reads bytes that are known to be there.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn read(&self, offset: u32, bytes: u32) -> io::Result<Bytes> {
        let mut buf = vec![0; bytes as usize];
        self.file.read_exact_at(&mut buf, u64::from(offset))?;
        Ok(buf.into())
    }

    /// So many bytes are about to be read, in parts.
    pub(crate) fn will_need(&self, offset: u32, bytes: u32) {
        self.file.will_need(offset.into(), bytes);
    }

    /// Reads the first bytes of it, in place of what the buffer held: past the page cache, which live readers have better use for.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn read_into(
        &self,
        (disk, directory): (&dyn Disk, &Path),
        bytes: u32,
        step_bytes: usize,
        buffer: &mut Blocks,
        between: &mut dyn FnMut(),
    ) -> io::Result<()> {
        if !(self.capacity as usize).is_multiple_of(BLOCK_BYTES) {
            // A file that was cut short ends within a block.
            buffer.set_len(bytes as usize);
            return self.file.read_exact_at(buffer, 0);
        }
        let direct = disk.open_direct(&directory.join(file_name(self.number)))?;
        read_blocks(&*direct, bytes as usize, step_bytes, buffer, between)
    }

    /// What an error message calls it.
    pub(super) fn name(&self) -> String {
        format!("journal/{}", file_name(self.number))
    }
}

/// The name of a segment's file.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:010}.seg")
}

/// The number in the name of a segment's file.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// An empty segment, prepared.
pub(super) struct Ready {
    pub(super) segment: Arc<Segment>,
    /// The way to write it: past the page cache, in whole blocks.
    pub(super) blocks: Box<dyn DiskFile>,
}

/// A segment that is written to its end and not in the views yet.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    /// Offset behind the last entry.
    pub(super) end: u32,
    /// Tails of all lanes at its end.
    pub(super) lanes: Arc<[LaneTail]>,
    /// Journal time of its last entry, milliseconds.
    pub(super) time_ms: u64,
}

/// A segment whose entries the views hold; kept for restoring to a point in time. Its file is open for whoever reads from it and for
/// nobody else: very many may be kept, and open files are few.
pub(super) struct Viewed {
    pub(super) number: u64,
    /// Bytes of the file.
    pub(super) capacity: u32,
    /// Journal time of its last entry, milliseconds; after a start the time of the last write.
    pub(super) time_ms: u64,
    /// What those who read from it hold.
    open: Weak<Segment>,
}

impl Viewed {
    pub(super) fn new(segment: &Arc<Segment>, time_ms: u64) -> Self {
        Self {
            number: segment.number,
            capacity: segment.capacity,
            time_ms,
            open: Arc::downgrade(segment),
        }
    }

    /// Whether somebody reads from it.
    pub(super) fn is_read(&self) -> bool {
        self.open.strong_count() > 0
    }

    /// Takes its file, which was opened for somebody who is to read from it; nobody else has it open.
    pub(super) fn opened(&mut self, codec: EntryCodec, file: Box<dyn DiskFile>) -> Arc<Segment> {
        let segment = Arc::new(Segment::new(self.number, self.capacity, codec, file));
        self.open = Arc::downgrade(&segment);
        segment
    }
}

/// All segments, by state.
#[derive(Default)]
pub(super) struct States {
    /// Empty ones, prepared, in the order of their numbers.
    pub(super) ready: VecDeque<Ready>,
    /// The one being written and how far, once something was.
    pub(super) active: Option<(Arc<Segment>, u32)>,
    /// Oldest first.
    pub(super) sealed: VecDeque<Sealed>,
    /// Oldest first.
    pub(super) viewed: VecDeque<Viewed>,
    /// Number of the next segment to prepare.
    pub(super) next_number: u64,
    /// How many ready segments the journal thread waits for.
    pub(super) wanted: usize,
    /// Preparing failed; not tried again before this.
    pub(super) full_until: Option<Instant>,
    /// Why it failed, if not for lack of room.
    pub(super) unprepared: Option<String>,
    /// It failed for lack of room: until then those that are needed are made of viewed ones, whether or not they would be kept.
    pub(super) short_until: Option<Instant>,
    /// Something else than the journal lacks room: no viewed segment is kept.
    pub(super) room_wanted: bool,
    /// The views lack room to go on: nobody waits for them.
    pub(super) views_are_held_up: bool,
    /// Number of the last sealed segment, 0: none yet.
    pub(super) last_sealed: u64,
    /// The first segment that the views' checkpoint names as needed for an outbox: as it was last made, and as it lies on disk.
    pub(super) outbox_noted: Option<u64>,
    pub(super) outbox_kept: Option<u64>,
    /// When it was last said that viewed segments are more than may be kept, because of an outbox.
    pub(super) outbox_complained: Option<Instant>,
    /// The log finishes what it has and slows nobody any more.
    pub(super) closing: bool,
    /// No segment is prepared any more.
    pub(super) closed: bool,
}

impl States {
    pub(super) fn lag_segments(&self) -> u64 {
        (self.sealed.len() + usize::from(self.active.is_some())) as u64
    }

    pub(super) fn lag_bytes(&self) -> u64 {
        let sealed = self.sealed.iter().map(|sealed| u64::from(sealed.end));
        sealed.sum::<u64>() + self.active.as_ref().map_or(0, |(_, end)| u64::from(*end))
    }

    pub(super) fn count(&self) -> u64 {
        let inactive = self.ready.len() + self.sealed.len() + self.viewed.len();
        (inactive + usize::from(self.active.is_some())) as u64
    }

    /// How many segments the views hold from this one on; `None`: no such one.
    pub(super) fn viewed_from(&self, first: Option<u64>) -> u64 {
        first.map_or(0, |first| {
            let viewed = self.viewed.iter();
            viewed.filter(|viewed| viewed.number >= first).count() as u64
        })
    }

    /// The segment with this number that holds entries, if it is open.
    pub(super) fn find_open(&self, number: u64) -> Option<Arc<Segment>> {
        let active = self.active.iter().map(|(segment, _)| segment);
        let sealed = self.sealed.iter().map(|sealed| &sealed.segment);
        let mut held = active.chain(sealed);
        let viewed = self.viewed.iter().find(|viewed| viewed.number == number);
        held.find(|segment| segment.number == number)
            .cloned()
            .or_else(|| viewed?.open.upgrade())
    }
}

/// The states behind their lock, and a bell that rings at every change.
pub(super) struct Segments {
    states: Mutex<States>,
    changed: Condvar,
}

/// The lock on the states.
pub(super) type Guard<'a> = MutexGuard<'a, States>;

impl Segments {
    pub(super) fn new(states: States) -> Self {
        Self {
            states: Mutex::new(states),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        locked(&self.states)
    }

    /// Changes something and tells all who wait.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut States) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits for the next change.
    pub(super) fn wait<'a>(&self, guard: Guard<'a>) -> Guard<'a> {
        self.changed
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change, not beyond the deadline; false: it has passed.
    pub(super) fn wait_until<'a>(&self, guard: Guard<'a>, deadline: Instant) -> (Guard<'a>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (guard, false);
        }
        (
            self.changed
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0,
            true,
        )
    }

    /// Sees to it that `count` segments are ready; false: there is no room for them, or the log is closing.
    pub(super) fn prepare(&self, count: usize) -> bool {
        let mut states = self.lock();
        loop {
            if states.ready.len() >= count {
                return true;
            }
            if states.closed
                || states
                    .full_until
                    .is_some_and(|until| until > Instant::now())
            {
                return false;
            }
            if states.wanted < count {
                states.wanted = count;
                self.changed.notify_all();
            }
            let full_until = states.full_until;
            while states.ready.len() < count && states.full_until == full_until && !states.closed {
                states = self.wait(states);
            }
        }
    }

    /// Slows appending down while the views lag, and counts it; false: they lag as far as they may, and do not go on.
    pub(super) fn throttle(&self, options: &LogOptions, slowed: &AtomicU64) -> bool {
        let mut states = self.lock();
        let excess = states
            .sealed
            .len()
            .saturating_sub(options.lag_segments_soft);
        if excess == 0 || states.closing {
            return true;
        }
        slowed.fetch_add(1, Relaxed);
        let deadline = Instant::now() + SLOW_STEP * u32::try_from(excess).unwrap_or(u32::MAX);
        let mut in_time = true;
        while states.sealed.len() > options.lag_segments_soft && !states.closing {
            if states.sealed.len() >= options.lag_segments_hard {
                if states.views_are_held_up {
                    return false;
                }
                states = self.wait(states);
            } else if in_time {
                (states, in_time) = self.wait_until(states, deadline);
            } else {
                return true;
            }
        }
        true
    }

    /// The views hold every segment up to this one.
    pub(super) fn viewed(&self, number: u64) {
        let closed = self.change(|states| {
            states.outbox_kept = states.outbox_noted;
            let mut closed = Vec::new();
            while let Some(sealed) = states
                .sealed
                .pop_front_if(|sealed| sealed.segment.number <= number)
            {
                let viewed = Viewed::new(&sealed.segment, sealed.time_ms);
                states.viewed.push_back(viewed);
                closed.push(sealed);
            }
            closed
        });
        // Files are closed without the lock.
        drop(closed);
    }

    pub(super) fn wait_for_sealed(&self, deadline: Instant, called: impl Fn() -> bool) -> bool {
        let mut states = self.lock();
        let mut in_time = true;
        while states.sealed.is_empty() && in_time && !states.closing && !called() {
            (states, in_time) = self.wait_until(states, deadline);
        }
        !states.sealed.is_empty()
    }

    /// Stops slowing and waiting; the journal thread may still need segments.
    pub(super) fn start_closing(&self) {
        self.change(|states| states.closing = true);
    }

    pub(super) fn close(&self) {
        self.change(|states| (states.closing, states.closed) = (true, true));
    }
}

impl Deref for Sealed {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}
