//! The last epoch that was given out, in a small file of its own: a claim is durable before anything is written under it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rialto_protocol::ids::Epoch;

use super::{
    disk::{Disk, replace},
    format::{array, damaged},
    io_error,
};
use crate::journal::JournalError;

const NAME: &str = "epoch";
const MAGIC: [u8; 8] = *b"RIALTOEP";
const VERSION: u16 = 1;
/// Magic (8) · version (u16) · 0 (u16) · epoch (u64) · CRC32C of all that (u32).
const BYTES: usize = 24;

/// The file, and what it says.
pub(super) struct EpochFile {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    last: Epoch,
    exists: bool,
}

impl EpochFile {
    /// Reads it if there is one.
    pub(super) fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, JournalError> {
        let failed = |error: io::Error| io_error(format!("read journal/{NAME}"), &error);
        let directory = directory.to_owned();
        if !disk
            .list(&directory)
            .map_err(failed)?
            .iter()
            .any(|name| name == NAME)
        {
            return Ok(Self {
                disk,
                directory,
                last: Epoch(0),
                exists: false,
            });
        }
        let file = disk.open(&directory.join(NAME)).map_err(failed)?;
        let mut bytes = [0; BYTES];
        if file.bytes().map_err(failed)? < BYTES as u64 {
            return Err(damaged("journal/epoch", 0, "it is cut short"));
        }
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        Ok(Self {
            disk,
            directory,
            last: parse(&bytes)?,
            exists: true,
        })
    }

    /// Refuses a journal without it in which something was written: every entry comes after a claim.
    pub(super) fn require(&self) -> Result<(), JournalError> {
        if self.exists {
            return Ok(());
        }
        Err(JournalError::Damaged(
            "journal/epoch is missing, though the views hold what was written under it: the journal is gone or another \
             folder stands in its place. Mount or move back what belongs there, or restore the data directory from a \
             backup; nothing in it has been changed or deleted"
                .to_owned(),
        ))
    }

    /// The last epoch that was given out.
    pub(super) fn last(&self) -> Epoch {
        self.last
    }

    /// Gives this one out: it is durable when this returns.
    ///
    /// # Errors
    /// What the operating system says; the last one stays.
    pub(super) fn advance(&mut self, epoch: Epoch) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&epoch.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        replace(&*self.disk, &self.directory, NAME, &bytes)?;
        (self.last, self.exists) = (epoch, true);
        Ok(())
    }
}

fn parse(bytes: &[u8; BYTES]) -> Result<Epoch, JournalError> {
    let version = u16::from_le_bytes(array(bytes, 8));
    if bytes[..8] == MAGIC && version > VERSION {
        let text =
            format!("journal/epoch has version {version}: it was written by a newer program");
        return Err(JournalError::Format(text));
    }
    if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..20]) != u32::from_le_bytes(array(bytes, 20)) {
        return Err(damaged("journal/epoch", 0, "it has a wrong checksum"));
    }
    Ok(Epoch(u64::from_le_bytes(array(bytes, 12))))
}
