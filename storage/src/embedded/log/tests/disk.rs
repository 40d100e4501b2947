//! A disk in memory that fails when told to and, when its power is cut, keeps of what was not synced only some sectors.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use super::super::{
    blocks::BLOCK_BYTES,
    disk::{Disk, DiskFile},
    locked,
    spare::TEMPORARY,
};

const SECTOR: usize = 512;

/// What goes wrong at a write or sync of a segment that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Write,
    WriteOutOfSpace,
    ShortWrite,
    Sync,
}

pub(super) struct FakeDisk {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    fills: Arc<Gate>,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<Fault>,
    creation_refused: Option<i32>,
    /// Bytes by which files may still grow; `None`: any number.
    room: Option<usize>,
    /// Nobody is told of it before he writes.
    room_is_secret: bool,
    /// The least of it after a write, since it was set.
    least_room: Option<usize>,
    /// Changes that still happen; then the machine is dead. `None`: it lives.
    changes_left: Option<u64>,
    syncs: u64,
}

#[derive(Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    handles: usize,
}

/// Holds syncs of segments back, or the filling of new ones.
#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn wait_for_one(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

struct FakeFile {
    number: usize,
    /// Addresses, offsets and lengths are those of whole blocks.
    direct: bool,
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    fills: Arc<Gate>,
}

impl FakeDisk {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Arc::default(),
            gate: Arc::default(),
            fills: Arc::default(),
        })
    }

    /// No file can be created, with this error of the operating system.
    pub(super) fn refuse_creation(&self, error: Option<i32>) {
        locked(&self.state).creation_refused = error;
    }

    /// The next such call fails.
    pub(super) fn fail(&self, fault: Fault) {
        locked(&self.state).fault = Some(fault);
    }

    pub(super) fn set_room(&self, bytes: Option<usize>) {
        let mut state = locked(&self.state);
        (state.room, state.least_room) = (bytes, bytes);
    }

    /// As of a file system that does not say how much room there is.
    pub(super) fn keep_room_secret(&self) {
        locked(&self.state).room_is_secret = true;
    }

    /// The least room that there was after a write, since it was set.
    pub(super) fn least_room(&self) -> Option<usize> {
        locked(&self.state).least_room
    }

    /// After so many more changes nothing works any more.
    pub(super) fn die_after(&self, changes: u64) {
        locked(&self.state).changes_left = Some(changes);
    }

    /// Power returns. Of what was not synced those sectors remain for which `survives` says so.
    pub(super) fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let state = &mut *locked(&self.state);
        state.names = state.durable_names.clone();
        (state.changes_left, state.fault) = (None, None);
        for file in &mut state.files {
            let length = file.seen.len().min(file.durable.len());
            let sectors = file.seen[..length]
                .chunks(SECTOR)
                .zip(file.durable[..length].chunks_mut(SECTOR));
            for (seen, durable) in sectors {
                if seen != durable && survives() {
                    durable.copy_from_slice(seen);
                }
            }
            file.seen = file.durable.clone();
        }
    }

    /// Syncs of segments in use so far.
    pub(super) fn syncs(&self) -> u64 {
        locked(&self.state).syncs
    }

    /// Syncs wait from now on.
    pub(super) fn close_gate(&self) {
        self.gate.set(true);
    }

    pub(super) fn open_gate(&self) {
        self.gate.set(false);
    }

    /// Until a sync waits.
    pub(super) fn wait_for_sync(&self) {
        self.gate.wait_for_one();
    }

    /// Segments that are filled wait behind their first write from now on.
    pub(super) fn hold_fills(&self) {
        self.fills.set(true);
    }

    pub(super) fn let_fills_go(&self) {
        self.fills.set(false);
    }

    /// Until one waits.
    pub(super) fn wait_for_fill(&self) {
        self.fills.wait_for_one();
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = locked(&self.state);
        state.files[state.names[name]].seen.clone()
    }

    /// Replaces a file's bytes, or makes the file.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let state = &mut *locked(&self.state);
        let number = *state
            .names
            .entry(name.to_owned())
            .or_insert(state.files.len());
        if number == state.files.len() {
            state.files.push(File::default());
        }
        state.durable_names.insert(name.to_owned(), number);
        let file = &mut state.files[number];
        (file.seen, file.durable) = (bytes.to_vec(), bytes.to_vec());
    }

    pub(super) fn names(&self) -> Vec<String> {
        locked(&self.state).names.keys().cloned().collect()
    }

    /// How often a file is open.
    pub(super) fn handles(&self, name: &str) -> usize {
        let state = locked(&self.state);
        state.files[state.names[name]].handles
    }

    fn open_file(&self, path: &Path, direct: bool) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *locked(&self.state);
        let number = state.names.get(&name(path)).copied();
        Ok(self.file(state, number.ok_or_else(missing)?, direct))
    }

    fn file(&self, state: &mut State, number: usize, direct: bool) -> Box<dyn DiskFile> {
        state.files[number].handles += 1;
        Box::new(FakeFile {
            number,
            direct,
            state: Arc::clone(&self.state),
            gate: Arc::clone(&self.gate),
            fills: Arc::clone(&self.fills),
        })
    }
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the machine is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Gives the room of a file back that has neither a name nor anybody who has it open.
    fn free(&mut self, number: usize) {
        let File { seen, handles, .. } = &self.files[number];
        if *handles == 0 && !self.names.values().any(|named| *named == number) {
            let freed = seen.len();
            self.room = self.room.map(|room| room + freed);
        }
    }

    /// Whether it is a segment with its final name, not one that is being prepared.
    fn in_use(&self, number: usize) -> bool {
        self.names
            .iter()
            .any(|(name, file)| *file == number && name.ends_with(".seg"))
    }

    fn take_fault(&mut self, number: usize, kinds: &[Fault]) -> Option<Fault> {
        let fault = self
            .fault
            .filter(|fault| kinds.contains(fault) && self.in_use(number))?;
        self.fault = None;
        Some(fault)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for FakeDisk {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *locked(&self.state);
        state.change()?;
        if let Some(error) = state.creation_refused {
            return Err(io::Error::from_raw_os_error(error));
        }
        let number = state.files.len();
        state.files.push(File::default());
        if let Some(before) = state.names.insert(name(path), number) {
            state.free(before);
        }
        Ok(self.file(state, number, false))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(path, false)
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.change()?;
        let number = state.names.remove(&name(from)).ok_or_else(missing)?;
        if let Some(before) = state.names.insert(name(to), number) {
            state.free(before);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.change()?;
        let number = state.names.remove(&name(path)).ok_or_else(missing)?;
        state.free(number);
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.change()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        let state = locked(&self.state);
        let told = state.room.filter(|_| !state.room_is_secret);
        Ok(told.map_or(u64::MAX, |room| room as u64))
    }
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        state.files[self.number].handles -= 1;
        state.free(self.number);
    }
}

impl FakeFile {
    /// As the kernel refuses what is no whole block.
    fn check(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let whole = |number: usize| number.is_multiple_of(BLOCK_BYTES);
        let aligned = whole(bytes.len())
            && whole(usize::try_from(offset).unwrap())
            && bytes.as_ptr().align_offset(BLOCK_BYTES) == 0;
        if self.direct && !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(locked(&self.state).files[self.number].seen.len() as u64)
    }

    fn modified_ms(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(buf, offset)?;
        let state = locked(&self.state);
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.files[self.number]
            .seen
            .get(offset..offset + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn will_need(&self, _: u64, _: u32) {}

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.check(bytes, offset)?;
        let filled = locked(&self.state).names.get(TEMPORARY) == Some(&self.number);
        if filled && offset > 0 {
            self.fills.pass();
        }
        let mut state = locked(&self.state);
        state.change()?;
        let mut bytes = bytes.to_vec();
        match state.take_fault(
            self.number,
            &[Fault::Write, Fault::WriteOutOfSpace, Fault::ShortWrite],
        ) {
            Some(Fault::ShortWrite) => bytes.truncate(bytes.len() / 2),
            Some(Fault::WriteOutOfSpace) => return Err(io::ErrorKind::StorageFull.into()),
            Some(_) => return Err(io::Error::from_raw_os_error(5)),
            None => {}
        }
        let offset = usize::try_from(offset).unwrap();
        let growth = (offset + bytes.len()).saturating_sub(state.files[self.number].seen.len());
        if let Some(room) = state.room {
            if room < growth {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.room = Some(room - growth);
        }
        state.least_room = state.least_room.min(state.room);
        let seen = &mut state.files[self.number].seen;
        seen.resize(seen.len() + growth, 0);
        seen[offset..offset + bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        if locked(&self.state).in_use(self.number) {
            self.gate.pass();
        }
        let mut state = locked(&self.state);
        state.change()?;
        if state.take_fault(self.number, &[Fault::Sync]).is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        state.syncs += u64::from(state.in_use(self.number));
        let file = &mut state.files[self.number];
        file.durable = file.seen.clone();
        Ok(())
    }
}
