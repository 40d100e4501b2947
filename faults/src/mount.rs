//! A disk of its own: an ext4 file system in an image on a loop device, whose power can be cut and which can be filled.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::campaign::CannotRun;

/// `EXT4_IOC_SHUTDOWN`, the same as `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, u32)`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the file system's own log is written, as when the power goes.
const NO_LOG_FLUSH: u32 = 2;
/// Bytes that a filler is written by, first large and at last small, so that it leaves no room.
const FILLER_CHUNKS: [usize; 3] = [1 << 20, 64 << 10, 512];

/// A mounted image. Unmounted, and its loop device given back, when it is dropped; the image goes or stays with the folder.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// Makes an image of this size in a folder and mounts it there.
    pub(crate) fn make(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        require_root_and_loop()?;
        let disk = Self {
            image: folder.join("disk.img"),
            mounted: folder.join("disk"),
        };
        File::create(&disk.image)
            .and_then(|image| image.set_len(bytes))
            .with_context(|| format!("{} cannot be made", disk.image.display()))?;
        fs::create_dir_all(&disk.mounted)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&disk.image))
        .map_err(|error| {
            CannotRun(format!(
                "no ext4 image can be made ({error:#}): install e2fsprogs"
            ))
        })?;
        disk.mount().map_err(|error| {
            CannotRun(format!(
                "the image cannot be mounted ({error:#}): run it where loop devices may be mounted, in a container with --privileged"
            ))
        })?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) -> anyhow::Result<()> {
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(&self.image)
            .arg(&self.mounted))
    }

    fn unmount(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.mounted))
    }

    /// The power goes: what was not synced is gone, and every call from now on fails.
    #[allow(unsafe_code)]
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        let root = File::open(&self.mounted)?;
        // SAFETY: the kernel reads one u32 behind the pointer, which is what `Setter` passes; nothing is written back.
        let cut = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        cut.with_context(|| format!("the power of {} cannot be cut", self.mounted.display()))
    }

    /// The power is back: the file system plays its own log. Nobody may have a file open there.
    pub(crate) fn power_on(&self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut filler = File::options()
            .create(true)
            .append(true)
            .open(self.filler())?;
        for bytes in FILLER_CHUNKS {
            let chunk = vec![0x55; bytes];
            loop {
                match filler.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("the filler"),
                }
            }
        }
        let _ = filler.sync_all();
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).context("the filler")
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // Somebody is still in there; it goes when he does.
            let _ = run(Command::new("umount").arg("-l").arg(&self.mounted));
        }
    }
}

fn require_root_and_loop() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(CannotRun(
            "mounting an image takes root: run it as root (sudo)".to_owned()
        ));
    }
    if !Path::new("/dev/loop-control").exists() {
        bail!(CannotRun(
            "this machine has no loop devices (/dev/loop-control): load the module `loop`, or run it elsewhere".to_owned()
        ));
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Ctrl-C is for the campaign alone.
    let output = command
        .process_group(0)
        .output()
        .with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
