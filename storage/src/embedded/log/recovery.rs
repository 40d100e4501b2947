//! Reading a log back: what the views do not hold is indexed again, a torn end is cut, and damage is refused.

use std::{collections::BTreeMap, panic::resume_unwind, path::Path, sync::Arc, thread};

use super::{
    Blocks, LogOptions, Recovered, Segment, TailIndex, ViewCheckpoint,
    ahead::{Loaded, read_ahead},
    disk::{Disk, write_all_at},
    format::{
        ENTRY_HEADER_BYTES, EntryCodec, EntryHeader, FILE_HEADER_BYTES, FIRST_ENTRY,
        check_file_header, damaged,
    },
    io_error,
    lanes::Lanes,
    outbox::{Outbox, Pending},
    scan::{End, Scan},
    segment::{Ready, Sealed, States, Viewed, file_name, number_of},
};
use crate::{
    embedded::tail::{EntryAt, OutboxSeen, outbox_of},
    journal::JournalError,
};

/// A log as it was found.
pub(super) struct Recovery {
    pub(super) segments: States,
    pub(super) lanes: Lanes,
    pub(super) outbox: Outbox,
    pub(super) found: Recovered,
}

/// The last segment in which anything was written.
struct Last {
    segment: Arc<Segment>,
    /// Where its last write began, and its bytes.
    start: u32,
    written: Vec<u8>,
    scan: Scan,
}

/// Threads that index a segment read back; more of them would wait for the one that reads.
const INDEX_THREADS_MAX: usize = 4;
/// Smallest and largest segment: an offset has 32 bits, and an entry of some size must fit.
const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 8 << 10..=1 << 30;

pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    options: &LogOptions,
    viewed: &ViewCheckpoint,
    tail: &TailIndex,
) -> Result<Recovery, JournalError> {
    if !SEGMENT_BYTES.contains(&options.segment_bytes) {
        return Err(JournalError::Format(format!(
            "segments of {} bytes are not supported",
            options.segment_bytes
        )));
    }
    let first = viewed.outbox_segment.min(viewed.segment);
    let (kept, to_read) = open_all(disk, directory, options, first)?;
    check_none_missing(viewed, &to_read)?;

    let mut replay = Replay {
        place: (disk, directory),
        tail,
        viewed,
        segment_bytes: options.segment_bytes,
        lanes: Lanes::new(options.lanes, &viewed.lanes),
        outbox: Outbox::new(options.lanes, &viewed.lanes),
        states: States {
            viewed: kept.into_values().collect(),
            next_number: viewed.segment,
            outbox_noted: Some(viewed.outbox_segment),
            outbox_kept: Some(viewed.outbox_segment),
            ..States::default()
        },
        found: Recovered::default(),
        open: None,
        last: None,
    };
    read_ahead(
        (disk, directory),
        to_read.into_values().collect(),
        |loaded| replay.take(loaded),
    )?;
    replay.finish()
}

/// Segments that are kept, and those that are needed, by their numbers.
type Found = (BTreeMap<u64, Viewed>, BTreeMap<u64, Arc<Segment>>);

fn open_all(
    disk: &dyn Disk,
    directory: &Path,
    options: &LogOptions,
    first_needed: u64,
) -> Result<Found, JournalError> {
    let (mut kept, mut needed) = Found::default();
    for file in disk
        .list(directory)
        .map_err(|error| io_error("list journal", &error))?
    {
        if file.ends_with(".tmp") {
            // Left by a crash on its way to become something.
            disk.remove(&directory.join(&file))
                .map_err(|error| io_error(format!("remove journal/{file}"), &error))?;
        } else if let Some(number) = number_of(&file) {
            match open(disk, directory, options, number) {
                Ok(segment) if number < first_needed => {
                    kept.insert(number, viewed(&Arc::new(segment))?);
                }
                Ok(segment) => {
                    needed.insert(number, Arc::new(segment));
                }
                // Views that have to be made again need it, and are not made without.
                Err(error) if number < first_needed => {
                    tracing::error!(%error, "a segment that the views hold cannot be used and is left alone");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((kept, needed))
}

/// A segment that the views hold, and that is needed for nothing but restoring once its outbox is passed on.
fn viewed(segment: &Arc<Segment>) -> Result<Viewed, JournalError> {
    let modified = segment.file().modified_ms();
    let time_ms = modified.map_err(|error| io_error(format!("read {}", segment.name()), &error))?;
    Ok(Viewed::new(segment, time_ms))
}

fn open(
    disk: &dyn Disk,
    directory: &Path,
    options: &LogOptions,
    number: u64,
) -> Result<Segment, JournalError> {
    let file_name = file_name(number);
    let name = format!("journal/{file_name}");
    let failed = |error: std::io::Error| io_error(format!("open {name}"), &error);
    let file = disk.open(&directory.join(&file_name)).map_err(failed)?;
    let bytes = file.bytes().map_err(failed)?;
    let capacity = u32::try_from(bytes)
        .ok()
        .filter(|capacity| SEGMENT_BYTES.contains(capacity));
    let Some(capacity) = capacity else {
        return Err(damaged(
            &name,
            0,
            &format!("it has {bytes} bytes, which no segment has"),
        ));
    };
    let mut header = [0; FILE_HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let made_with = check_file_header(&header, options.data_set, number, &name)?;
    if capacity < made_with {
        // No crash does this, for a segment has its whole length before anything is written to it.
        return Err(damaged(
            &name,
            capacity,
            &format!("the file was made with {made_with} bytes: what stood behind is cut off"),
        ));
    }
    Ok(Segment::new(
        number,
        capacity,
        EntryCodec::new(options.data_set, number),
        file,
    ))
}

/// From the first segment that is needed on, none may be missing between others.
fn check_none_missing(
    viewed: &ViewCheckpoint,
    segments: &BTreeMap<u64, Arc<Segment>>,
) -> Result<(), JournalError> {
    let first = viewed.outbox_segment.min(viewed.segment);
    // The views hold all that was sealed, and the next segment was never made: a full disk leaves that behind.
    if segments.is_empty() && first == viewed.segment {
        return Ok(());
    }
    let last = segments
        .keys()
        .next_back()
        .copied()
        .unwrap_or(0)
        .max(viewed.segment.saturating_sub(1));
    match (first..=last).find(|number| !segments.contains_key(number)) {
        Some(missing) => Err(damaged(
            &format!("journal/{}", file_name(missing)),
            0,
            "the segment is missing",
        )),
        None => Ok(()),
    }
}

struct Replay<'a> {
    place: (&'a dyn Disk, &'a Path),
    tail: &'a TailIndex,
    viewed: &'a ViewCheckpoint,
    segment_bytes: u32,
    lanes: Lanes,
    outbox: Outbox,
    states: States,
    found: Recovered,
    /// The first segment that was not sealed, and where it ends: nothing may come after it.
    open: Option<(String, u32)>,
    last: Option<Last>,
}

impl Replay<'_> {
    /// Takes a segment in, giving its buffer back.
    fn take(&mut self, loaded: Loaded) -> Result<Blocks, JournalError> {
        let Loaded { segment, scan, .. } = &loaded;
        let name = segment.name();
        let anything = !scan.entries.is_empty() || matches!(scan.end, End::Sealed(_));
        if anything && let Some((open, end)) = &self.open {
            return Err(damaged(
                open,
                *end,
                "its end is missing, and later segments hold entries",
            ));
        }
        let in_views = segment.number() < self.viewed.segment;
        match scan.end {
            End::Damaged(offset) => {
                return Err(damaged(
                    &name,
                    offset,
                    "an entry is bad, and entries written after it are not",
                ));
            }
            // No write was torn there: the views take what was ended durably, and nothing else.
            End::Open { end, .. } if in_views => {
                return Err(damaged(
                    &name,
                    end,
                    "its end is missing, and the views hold what stood there",
                ));
            }
            End::Open { end, .. } if self.open.is_none() => self.open = Some((name.clone(), end)),
            End::Open { .. } | End::Sealed(_) => {}
        }
        if !in_views {
            for (offset, header) in &scan.entries {
                self.replay(header)
                    .map_err(|why| damaged(&name, *offset, &why))?;
            }
        }
        for (number, seen) in index(self.tail, &loaded, in_views) {
            self.note_outbox(segment.number(), &scan.entries[number], seen);
        }
        if in_views {
            self.states.viewed.push_back(viewed(segment)?);
            return Ok(loaded.bytes);
        }
        let next = segment.number() + 1;
        match scan.end {
            End::Sealed(end) => {
                self.sealed(Arc::clone(segment), end, scan);
                self.states.next_number = next;
                return Ok(self.remember(loaded, end));
            }
            End::Open { end, .. } if anything => {
                self.states.next_number = next;
                return Ok(self.remember(loaded, end));
            }
            // An empty one. Of another size than wanted, or with the torn beginning of a write that was never answered, it
            // is made anew, and so are those behind it.
            End::Open { torn_bytes: 0, .. }
                if self.states.next_number == segment.number()
                    && segment.capacity() == self.segment_bytes =>
            {
                self.states.next_number = next;
                let ready = self.ready(Arc::clone(segment))?;
                self.states.ready.push_back(ready);
            }
            End::Open { end, torn_bytes } => self.note_cut(&name, end, torn_bytes),
            End::Damaged(_) => {}
        }
        Ok(loaded.bytes)
    }

    fn ready(&self, segment: Arc<Segment>) -> Result<Ready, JournalError> {
        let (disk, directory) = self.place;
        let blocks = disk
            .open_direct(&directory.join(file_name(segment.number())))
            .map_err(|error| io_error(format!("open {}", segment.name()), &error))?;
        Ok(Ready { segment, blocks })
    }

    /// Keeps what the end of the log may be, and gives the buffer back.
    fn remember(&mut self, loaded: Loaded, end: u32) -> Blocks {
        let Loaded {
            segment,
            bytes,
            scan,
        } = loaded;
        let start = scan.last_group.clamp(FIRST_ENTRY, end);
        let written = bytes[start as usize..end as usize].to_vec();
        self.last = Some(Last {
            segment,
            start,
            written,
            scan,
        });
        bytes
    }

    fn replay(&mut self, header: &EntryHeader) -> Result<(), String> {
        let EntryHeader {
            lane,
            position,
            epoch,
            time_ms,
            length,
            ..
        } = *header;
        self.lanes.replay(lane, position, epoch, time_ms)?;
        self.found.entries += 1;
        self.found.bytes += u64::from(length);
        Ok(())
    }

    fn note_outbox(
        &mut self,
        segment: u64,
        (offset, header): &(u32, EntryHeader),
        seen: OutboxSeen,
    ) {
        let EntryHeader {
            lane,
            position,
            time_ms,
            length: bytes,
            ..
        } = *header;
        if seen.outbox {
            let offset = offset + ENTRY_HEADER_BYTES;
            self.outbox.add(
                lane,
                Pending {
                    position,
                    time_ms,
                    segment,
                    offset,
                    bytes,
                },
            );
        }
        if let Some(through) = seen.outbox_done {
            self.outbox.finish(lane, through);
        }
    }

    fn note_cut(&mut self, file: &str, offset: u32, torn_bytes: u32) {
        if torn_bytes > 0 {
            tracing::warn!(file, offset, torn_bytes, "an unfinished write was cut off");
            self.found.cut_bytes += u64::from(torn_bytes);
        }
    }

    fn sealed(&mut self, segment: Arc<Segment>, end: u32, scan: &Scan) {
        self.found.segments += 1;
        self.states.last_sealed = segment.number();
        let time_ms = scan.entries.last().map_or(0, |(_, header)| header.time_ms);
        let lanes = self.lanes.tails(&self.outbox).into();
        // The seal itself is not part of what the views read.
        let end = end - ENTRY_HEADER_BYTES;
        self.states.sealed.push_back(Sealed {
            segment,
            end,
            lanes,
            time_ms,
        });
    }

    fn finish(mut self) -> Result<Recovery, JournalError> {
        if let Some(last) = self.last.take() {
            self.settle_last(last)?;
        }
        self.states.last_sealed = self
            .states
            .last_sealed
            .max(self.viewed.segment.saturating_sub(1));
        self.found.outbox_entries = self.outbox.entries();
        let Self {
            lanes,
            outbox,
            states,
            found,
            ..
        } = self;
        Ok(Recovery {
            segments: states,
            lanes,
            outbox,
            found,
        })
    }

    /// Makes sure of the end of the log: the last write is repeated, since its sync may have failed and what was read may
    /// stand in the page cache alone; and a segment that was being written is sealed, so that torn bytes are never looked at again.
    fn settle_last(&mut self, last: Last) -> Result<(), JournalError> {
        let Last {
            segment,
            start,
            written: mut rewritten,
            scan,
        } = last;
        let (end, sealed) = match scan.end {
            End::Sealed(end) => (end, true),
            End::Open { end, torn_bytes } => {
                self.note_cut(&segment.name(), end, torn_bytes);
                (end, false)
            }
            End::Damaged(_) => return Ok(()),
        };
        if !sealed {
            // One write with the group before it: torn together, they are no damage.
            rewritten.extend_from_slice(&segment.codec().encode(&EntryHeader::seal(start), &[]));
        }
        let written = write_all_at(segment.file(), &rewritten, u64::from(start));
        let synced = written.and_then(|()| segment.file().sync_data());
        synced.map_err(|error| io_error(format!("write {}", segment.name()), &error))?;
        if !sealed {
            self.sealed(segment, end + ENTRY_HEADER_BYTES, &scan);
        }
        Ok(())
    }
}

/// Indexes a segment's entries, each lane's in order and lanes side by side; gives what concerns an outbox, by the number of
/// the entry. Of entries that are in the views nothing but that is read.
fn index(tail: &TailIndex, loaded: &Loaded, in_views: bool) -> Vec<(usize, OutboxSeen)> {
    let Loaded {
        segment,
        bytes,
        scan,
    } = loaded;
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(INDEX_THREADS_MAX);
    let of_thread = |thread: usize| {
        let numbered = scan.entries.iter().enumerate();
        let own =
            numbered.filter(|(_, (_, header))| usize::from(header.lane.0) % threads == thread);
        let seen = own.map(|(number, (offset, header))| {
            let at = EntryAt {
                lane: header.lane,
                offset: offset + ENTRY_HEADER_BYTES,
            };
            let records = &bytes[at.offset as usize..header.end(*offset) as usize];
            (
                number,
                if in_views {
                    outbox_of(records)
                } else {
                    tail.add(segment, &at, records)
                },
            )
        });
        seen.filter(|(_, seen)| *seen != OutboxSeen::default())
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let of_thread = &of_thread;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || of_thread(thread)))
            .collect();
        let seen = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        seen.flatten().collect()
    })
}
