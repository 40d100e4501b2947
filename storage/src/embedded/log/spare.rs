//! The thread that prepares segments before they are needed: recycled old ones if there are any, new ones filled with zeroes
//! otherwise, so that appending neither allocates blocks nor changes a file's length. It also removes what is kept no
//! longer.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Blocks, Segment, Shared,
    blocks::BLOCK_BYTES,
    disk::{DiskFile, write_all_at},
    format::{EntryCodec, FILE_HEADER_BYTES, FIRST_ENTRY, file_header},
    lacks_room, locked, now_ms,
    segment::{Ready, States, Viewed, file_name},
};

/// Ready segments beyond which old ones are removed rather than recycled.
const READY_MAX: usize = 2;
/// Bytes of one write while a segment is filled: an append that comes meanwhile waits for one of these at most.
const STEP_BYTES: usize = 128 << 10;
/// Between two of them while the segment is not needed yet.
const FILL_REST: Duration = Duration::from_millis(1);
/// What a new file leaves free on the disk: whatever else is written is small, and worth more than one more segment.
const ROOM_LEFT_BYTES: u64 = 1 << 20;
/// Once the disk was full, segments that are needed are made of viewed ones, whether or not they would be kept, for so many
/// times [`LogOptions::full_retry`].
///
/// [`LogOptions::full_retry`]: super::LogOptions::full_retry
const SHORT_RETRIES: u32 = 60;
/// So many segments may stay for an outbox without a complaint, and two complaints are so far apart.
const COMPLAINT_SEGMENTS: u64 = 4;
const COMPLAINT_EVERY: Duration = Duration::from_secs(3600);
/// Between looks whether a segment has become too old to be kept, at most: clocks are set.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Name of a file on its way to become a segment.
pub(super) const TEMPORARY: &str = "next.tmp";

enum Task {
    /// Makes the segment with this number, of an old one if there is one.
    Prepare(u64, Option<u64>),
    Remove(u64),
}

/// Works until the log is closed.
pub(super) fn run(shared: &Shared) {
    let _guard = CloseAtEnd(shared);
    while let Some(task) = next_task(shared) {
        match task {
            Task::Prepare(number, old) => prepare_and_publish(shared, number, old),
            Task::Remove(segment) => {
                if let Err(error) = remove(shared, segment) {
                    tracing::warn!(segment, %error, "an old segment could not be removed");
                }
            }
        }
    }
}

/// Gives up the oldest segment that the views hold and no outbox needs, whatever was to be kept; false: there is none.
pub(super) fn give_up_one(shared: &Shared) -> io::Result<bool> {
    let mut states = shared.segments.lock();
    let oldest = take_viewed(shared, &mut states, Keep::Nothing, now_ms());
    drop(states);
    let Some(Viewed { number, .. }) = oldest else {
        return Ok(false);
    };
    remove(shared, number)?;
    Ok(true)
}

/// Where somebody reads from it, its room is free once he has done.
fn remove(shared: &Shared, segment: u64) -> io::Result<()> {
    let path = shared.directory.join(file_name(segment));
    let removed = shared.disk.remove(&path);
    let removed = removed.and_then(|()| shared.disk.sync_directory(&shared.directory));
    shared.segments.change(|_| ());
    removed
}

fn next_task(shared: &Shared) -> Option<Task> {
    let mut states = shared.segments.lock();
    loop {
        if states.closed {
            return None;
        }
        let clock_ms = now_ms();
        if states.room_wanted {
            match take_viewed(shared, &mut states, Keep::Nothing, clock_ms) {
                Some(old) => return Some(Task::Remove(old.number)),
                None => states.room_wanted = false,
            }
        }
        let now = Instant::now();
        let mut again = states.full_until.filter(|until| *until > now);
        let wanted = states.wanted.max(1);
        if again.is_none() && states.ready.len() < READY_MAX.max(wanted) {
            let needed = states.ready.len() < wanted;
            let keep = if needed && states.short_until.is_some_and(|until| until > now) {
                Keep::Nothing
            } else {
                Keep::AsConfigured
            };
            let old = match take_viewed(shared, &mut states, keep, clock_ms) {
                Some(old) if old.capacity != shared.options.segment_bytes => {
                    return Some(Task::Remove(old.number));
                }
                Some(old) if old.is_read() => {
                    // Nobody says when he has done who reads.
                    states.viewed.push_front(old);
                    again = Some(now + shared.options.full_retry);
                    None
                }
                old => old.map(|old| old.number),
            };
            if needed || old.is_some() {
                return Some(Task::Prepare(states.next_number, old));
            }
        } else if states.ready.len() >= READY_MAX
            && let Some(old) = take_viewed(shared, &mut states, Keep::AsConfigured, clock_ms)
        {
            return Some(Task::Remove(old.number));
        }
        let aged = aged_in(&states, shared.options.keep_ms, clock_ms).map(|time| now + time);
        states = match again.into_iter().chain(aged).min() {
            Some(until) => shared.segments.wait_until(states, until).0,
            None => shared.segments.wait(states),
        };
    }
}

/// Which viewed segments are kept, beside those that an outbox needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    AsConfigured,
    /// There is no room for it.
    Nothing,
}

/// In how long it has to be looked whether the oldest viewed segment is too old by then. One that is so now stays for another reason.
fn aged_in(states: &States, keep_ms: u64, now_ms: u64) -> Option<Duration> {
    let last_ms = states.viewed.front()?.time_ms.saturating_add(keep_ms);
    Some(match last_ms.saturating_add(1).saturating_sub(now_ms) {
        0 => LOOK_EVERY,
        left_ms => Duration::from_millis(left_ms).min(LOOK_EVERY),
    })
}

/// Takes the oldest viewed segment out if it need not be kept any longer.
fn take_viewed(shared: &Shared, states: &mut States, keep: Keep, now_ms: u64) -> Option<Viewed> {
    let options = &shared.options;
    let pinned = first_needed(shared, states);
    let kept_bytes: u64 = states
        .viewed
        .iter()
        .map(|viewed| u64::from(viewed.capacity))
        .sum();
    let oldest_kept_ms = now_ms.saturating_sub(options.keep_ms);
    let taken = states.viewed.pop_front_if(|oldest| {
        let number = oldest.number;
        if pinned.is_some_and(|pinned| number >= pinned) {
            return false;
        }
        let expired = kept_bytes > options.keep_bytes || oldest.time_ms < oldest_kept_ms;
        if !expired && keep == Keep::Nothing {
            tracing::warn!(
                segment = number,
                "the disk is full: a segment that the views hold is given up early"
            );
        }
        expired || keep == Keep::Nothing
    });
    // What is on its way to an inbox for a moment is not worth a word.
    let usual = COMPLAINT_SEGMENTS * u64::from(options.segment_bytes);
    if taken.is_none() && kept_bytes > options.keep_bytes.max(usual) {
        complain(states, pinned, kept_bytes);
    }
    taken
}

/// The first segment that is needed to pass something on.
pub(super) fn first_needed(shared: &Shared, states: &States) -> Option<u64> {
    // A start reads from where the checkpoint on disk says, though more may have been passed on since.
    let pending = locked(&shared.outbox).oldest_segment();
    pending.into_iter().chain(states.outbox_kept).min()
}

/// Says, once and rarely after that, that segments stay which nothing but an outbox needs.
fn complain(states: &mut States, pinned: Option<u64>, kept_bytes: u64) {
    let complained = states.outbox_complained;
    if complained.is_some_and(|last| last.elapsed() < COMPLAINT_EVERY) {
        return;
    }
    states.outbox_complained = Some(Instant::now());
    tracing::warn!(
        segment = pinned,
        segments = states.viewed.len(),
        kept_bytes,
        "more segments are kept than configured: the first of them has a notice that its inbox has not taken"
    );
}

fn prepare_and_publish(shared: &Shared, number: u64, old: Option<u64>) {
    let prepared = prepare(shared, number, old);
    if prepared.is_err() {
        // What was begun takes room that is short.
        let _ = shared.disk.remove(&shared.directory.join(TEMPORARY));
    }
    shared.segments.change(|states| match prepared {
        Ok(ready) => {
            states.ready.push_back(ready);
            states.next_number = number + 1;
            (states.full_until, states.unprepared) = (None, None);
            if states.ready.len() >= states.wanted {
                states.wanted = 0;
            }
        }
        Err(error) => {
            let short = lacks_room(&error);
            let now = Instant::now();
            let was_short = states.short_until.is_some_and(|until| until > now);
            states.unprepared = (!short).then(|| error.to_string());
            states.short_until = short.then(|| now + shared.options.full_retry * SHORT_RETRIES);
            if short && !was_short && !states.viewed.is_empty() {
                // Not without having asked for one of these.
                return;
            }
            if states.full_until.is_none() {
                tracing::warn!(segment = number, %error, "no segment could be prepared; trying again");
            }
            states.full_until = Some(Instant::now() + shared.options.full_retry);
        }
    });
}

fn prepare(shared: &Shared, number: u64, old: Option<u64>) -> io::Result<Ready> {
    let Shared {
        disk,
        directory,
        options,
        ..
    } = shared;
    let temporary = directory.join(TEMPORARY);
    let capacity = options.segment_bytes;
    let file = match old {
        Some(old) => {
            disk.rename(&directory.join(file_name(old)), &temporary)?;
            // Or a power cut might leave the old name on a file with the new header.
            disk.sync_directory(directory)?;
            disk.open(&temporary)?
        }
        None => {
            // Where the file system does not tell, an attempt will.
            let room = disk.room(directory).unwrap_or(u64::MAX);
            if room < u64::from(capacity) + ROOM_LEFT_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.create(&temporary)?
        }
    };
    let blocks = disk.open_direct(&temporary)?;
    if file.bytes()? < u64::from(capacity) {
        fill(&*blocks, capacity, |filled| leave_room(shared, filled))?;
    }
    // Stale entries behind it carry another segment's number.
    let mut header = Blocks::default();
    header.extend_from_slice(&file_header(options.data_set, number, capacity));
    header.pad();
    write_all_at(&*blocks, &header, 0)?;
    blocks.sync_data()?;
    disk.rename(&temporary, &directory.join(file_name(number)))?;
    disk.sync_directory(directory)?;
    let codec = EntryCodec::new(options.data_set, number);
    Ok(Ready {
        segment: Arc::new(Segment::new(number, capacity, codec, file)),
        blocks,
    })
}

/// Calls `between` after each step, with the bytes that are filled.
fn fill(file: &dyn DiskFile, capacity: u32, mut between: impl FnMut(u64)) -> io::Result<()> {
    let mut zeroes = Blocks::default();
    zeroes.set_len(STEP_BYTES.min(capacity as usize));
    let mut offset = 0;
    while offset < u64::from(capacity) {
        let left = u64::from(capacity) - offset;
        let count = usize::try_from(left).map_or(zeroes.len(), |left| left.min(zeroes.len()));
        write_all_at(file, &zeroes[..count], offset)?;
        offset += count as u64;
        between(offset);
    }
    Ok(())
}

/// Leaves the disk to appends for a while, unless they need the segment soon.
fn leave_room(shared: &Shared, filled: u64) {
    let ahead = is_ahead(&shared.segments.lock(), filled);
    if ahead {
        std::thread::sleep(FILL_REST);
    }
}

/// Whether more is filled than has been written of the segment that appends go to, by so much that it will be ready in time.
fn is_ahead(states: &States, filled: u64) -> bool {
    let written = states.active.as_ref().map(|(_, end)| u64::from(*end));
    states.wanted == 0 && !states.closing && written.is_some_and(|end| filled / 8 * 7 >= end)
}

/// Whether this thread was told to end or has panicked: nobody waits for segments that it would have made.
struct CloseAtEnd<'a>(&'a Shared);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .poison("the thread that prepares segments has panicked".to_owned());
        }
        self.0.segments.close();
    }
}

const _: () = assert!(FILE_HEADER_BYTES <= FIRST_ENTRY as usize);
// No write of an entry touches the header.
const _: () = assert!((FIRST_ENTRY as usize).is_multiple_of(BLOCK_BYTES));

#[cfg(test)]
mod tests {
    use super::{super::disk::Disk, super::disk::RealDisk, *};

    #[test]
    fn a_segment_is_filled_at_leisure_only_while_it_will_be_ready_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&folder.path().join(TEMPORARY)).unwrap();
        let codec = EntryCodec::new(1, 1);
        let segment = Arc::new(Segment::new(1, 64 << 20, codec, file));
        let mut states = States::default();
        assert!(!is_ahead(&states, 64 << 20), "nothing is written yet");
        states.active = Some((segment, 7 << 20));
        assert!(is_ahead(&states, 8 << 20));
        assert!(!is_ahead(&states, (8 << 20) - 8));
        states.wanted = 1;
        assert!(!is_ahead(&states, 64 << 20), "the journal waits");
        (states.wanted, states.closing) = (0, true);
        assert!(!is_ahead(&states, 64 << 20), "the log closes");
    }
}
