//! The few calls by which the log reaches files. In tests another disk stands here, one that fails and loses what was not
//! synced.

use std::{
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::UNIX_EPOCH,
};

use rustix::fs::{Advice, OFlags};

use super::blocks::{BLOCK_BYTES, Blocks};

/// A file system.
pub(super) trait Disk: Send + Sync + 'static {
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates the file, or empties it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens it past the page cache, where the file system can: of what is read and written addresses, offsets and lengths
    /// are multiples of a block ([`Blocks`]).
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that may still be written where this path is.
    fn room(&self, path: &Path) -> io::Result<u64>;
}

/// A file of a [`Disk`]. One thread writes; any may read.
pub(super) trait DiskFile: Send + Sync + 'static {
    fn bytes(&self) -> io::Result<u64>;
    /// When it was last written, milliseconds since 1970.
    fn modified_ms(&self) -> io::Result<u64>;
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// So many bytes are about to be read, in parts: the disk may find them at once.
    fn will_need(&self, offset: u64, bytes: u32);
    /// One write; says how many bytes went.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn sync_data(&self) -> io::Result<()>;
}

/// Writes all of it, in as many calls as it takes. For what is prepared: what is appended is never written in parts.
pub(super) fn write_all_at(
    file: &dyn DiskFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.write_at(bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Reads the first bytes of a file that was opened for direct I/O, in place of what the buffer held: whole blocks, of which
/// the last is cut, `step_bytes` at a time. Whoever leaves the disk to others meanwhile does so in `between`.
pub(super) fn read_blocks(
    file: &dyn DiskFile,
    bytes: usize,
    step_bytes: usize,
    blocks: &mut Blocks,
    between: &mut dyn FnMut(),
) -> io::Result<()> {
    blocks.set_len(bytes.next_multiple_of(BLOCK_BYTES));
    let mut offset = 0;
    for step in blocks.chunks_mut(step_bytes) {
        file.read_exact_at(step, offset)?;
        offset += step.len() as u64;
        between();
    }
    blocks.set_len(bytes);
    Ok(())
}

/// Replaces a small file as a whole: after a crash it holds either the old or the new bytes.
pub(super) fn replace(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    let file = disk.create(&temporary)?;
    write_all_at(&*file, bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, &directory.join(name))?;
    disk.sync_directory(directory)
}

/// The machine's file system.
pub(super) struct RealDisk;

struct RealFile(File);

impl Disk for RealDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let direct = OFlags::DIRECT.bits().cast_signed();
        match options.clone().custom_flags(direct).open(path) {
            // Some file systems have no other way than through the page cache.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Ok(Box::new(RealFile(options.open(path)?)))
            }
            opened => Ok(Box::new(RealFile(opened?))),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified_ms(&self) -> io::Result<u64> {
        let since = self
            .0
            .metadata()?
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn will_need(&self, offset: u64, bytes: u32) {
        // Advice: without it the same is read, later.
        let _ = rustix::fs::fadvise(
            &self.0,
            offset,
            NonZeroU64::new(bytes.into()),
            Advice::WillNeed,
        );
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
