//! Segments read back at a start, one ahead of the work on them.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use super::{
    Blocks, Segment,
    disk::Disk,
    io_error,
    scan::{Scan, scan},
};
use crate::journal::JournalError;

/// Bytes of one read: nobody else uses the disk yet.
const READ_BYTES: usize = 8 << 20;

/// A segment whose bytes have been read.
pub(super) struct Loaded {
    pub(super) segment: Arc<Segment>,
    pub(super) bytes: Blocks,
    pub(super) scan: Scan,
}

/// Reads segments on a thread of its own, one ahead of the work that `take` does on this one. Two buffers are enough: what
/// `take` gives back is read into again.
pub(super) fn read_ahead(
    place: (&dyn Disk, &Path),
    segments: Vec<Arc<Segment>>,
    mut take: impl FnMut(Loaded) -> Result<Blocks, JournalError>,
) -> Result<(), JournalError> {
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        let (give_back, buffers) = mpsc::channel();
        scope.spawn(move || {
            segments.into_iter().try_for_each(|segment| {
                let buffer = buffers.try_recv().unwrap_or_default();
                match sender.send(load(place, segment, buffer)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
        });
        receiver.into_iter().try_for_each(|loaded| {
            // The last one is read into no more.
            let _ = give_back.send(take(loaded?)?);
            Ok(())
        })
    })
}

fn load(
    place: (&dyn Disk, &Path),
    segment: Arc<Segment>,
    mut bytes: Blocks,
) -> Result<Loaded, JournalError> {
    let read = segment.read_into(
        place,
        segment.capacity(),
        READ_BYTES,
        &mut bytes,
        &mut || {},
    );
    read.map_err(|error| io_error(format!("read {}", segment.name()), &error))?;
    let scan = scan(&bytes, segment.codec());
    Ok(Loaded {
        segment,
        bytes,
        scan,
    })
}
