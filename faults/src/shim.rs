//! The page that `faults` shares with the library in the broker's process (`faults/shim/shim.c`): what goes wrong there, and
//! which sites were met.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, as `build.rs` made it.
const LIBRARY: &[u8] = include_bytes!(env!("FAULTS_SHIM"));

const HEADER_BYTES: usize = 256;
const SITE_BYTES: usize = 256;
const SITES_MAX: usize = 1024;
const FRAMES: usize = 10;
const CLOCK_AT: u64 = 8;
const TARGET_AT: u64 = 16;
const HOW_AT: u64 = 24;
const LIE_AT: u64 = 36;
const COUNTS_AT: u64 = 40;
const INJECTED_AT: usize = 48;
const USED_AT: usize = 56;
const CACHED_AT: u64 = 60;
const CLASS_AT: usize = 104;
const _: () = assert!(CLASS_AT == 24 + 8 * FRAMES);

/// Calls that the library knows, in the order of its own numbers from 1 on.
const CALLS: [&str; 10] = [
    "open", "read", "write", "sync", "truncate", "allocate", "rename", "unlink", "mkdir", "list",
];

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// With the error that has this number.
    Error(i32),
    /// Half of the bytes go.
    Short,
}

impl Wrong {
    /// A disk that cannot, and one that is full.
    pub(crate) const EIO: Self = Self::Error(5);
    pub(crate) const ENOSPC: Self = Self::Error(28);

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EIO => "EIO",
            Self::ENOSPC => "ENOSPC",
            Self::Error(_) => "another error",
            Self::Short => "short",
        }
    }
}

/// A place in the program that reaches files in one way.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Names it, for one binary.
    pub(crate) hash: u64,
    /// Calls since the page was made.
    pub(crate) count: u64,
    /// What it calls.
    pub(crate) call: &'static str,
    /// The kind of file.
    pub(crate) class: String,
    frames: Vec<u64>,
}

impl Site {
    /// Ways in which it can go wrong.
    pub(crate) fn ways(&self) -> &'static [Wrong] {
        match self.call {
            "write" => &[Wrong::EIO, Wrong::ENOSPC, Wrong::Short],
            "read" => &[Wrong::EIO, Wrong::Short],
            "open" | "truncate" | "allocate" | "rename" | "mkdir" => &[Wrong::EIO, Wrong::ENOSPC],
            _ => &[Wrong::EIO],
        }
    }
}

/// The page, the library beside it, and the environment that leads a process to both.
#[derive(Debug)]
pub(crate) struct Shim {
    page: File,
    control: PathBuf,
    library: PathBuf,
}

impl Shim {
    /// Lays them down in a folder.
    pub(crate) fn lay(folder: &Path) -> io::Result<Self> {
        let (library, control) = (folder.join("shim.so"), folder.join("shim.page"));
        fs::write(&library, LIBRARY)?;
        let page = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&control)?;
        page.set_len((HEADER_BYTES + SITES_MAX * SITE_BYTES) as u64)?;
        Ok(Self {
            page,
            control,
            library,
        })
    }

    /// What a process needs so that its calls below `root` pass here.
    pub(crate) fn environment(&self, root: &Path) -> BTreeMap<String, OsString> {
        [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAULTS_CONTROL", self.control.as_os_str()),
            ("FAULTS_ROOT", root.as_os_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Sets the wall clock off.
    pub(crate) fn shift_clock(&self, offset_ns: i64) -> io::Result<()> {
        self.page.write_all_at(&offset_ns.to_ne_bytes(), CLOCK_AT)
    }

    /// The nth call of a site from now on goes wrong, once.
    pub(crate) fn aim(&self, site: &Site, nth: u32, wrong: Wrong) -> io::Result<()> {
        let (mode, error) = match wrong {
            Wrong::Error(error) => (1_u32, error),
            Wrong::Short => (2, 0),
        };
        let mut how = Vec::with_capacity(12);
        how.extend_from_slice(&nth.to_ne_bytes());
        how.extend_from_slice(&mode.to_ne_bytes());
        how.extend_from_slice(&error.to_ne_bytes());
        self.calm()?;
        self.page.write_all_at(&how, HOW_AT)?;
        self.page.write_all_at(&[0; 16], COUNTS_AT)?;
        // Last: from then on the library counts.
        self.page.write_all_at(&site.hash.to_ne_bytes(), TARGET_AT)
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&self) -> io::Result<()> {
        self.page.write_all_at(&[0; 8], TARGET_AT)
    }

    /// Syncs are called done that were not.
    pub(crate) fn lie_about_syncs(&self) -> io::Result<()> {
        self.page.write_all_at(&1_u32.to_ne_bytes(), LIE_AT)
    }

    /// Whether the disk has a cache of its own: what is written stays there until it is synced, past the page cache or not.
    pub(crate) fn cache_writes(&self, cached: bool) -> io::Result<()> {
        self.page
            .write_all_at(&u32::from(cached).to_ne_bytes(), CACHED_AT)
    }

    /// Whether the call that was aimed at has gone wrong.
    pub(crate) fn has_struck(&self) -> io::Result<bool> {
        let mut injected = [0; 8];
        self.page.read_exact_at(&mut injected, INJECTED_AT as u64)?;
        Ok(u64::from_ne_bytes(injected) > 0)
    }

    /// Whether anybody reached a file through the library.
    pub(crate) fn is_met(&self) -> io::Result<bool> {
        let mut used = [0; 4];
        self.page.read_exact_at(&mut used, USED_AT as u64)?;
        Ok(u32::from_ne_bytes(used) > 0)
    }

    /// Every site that was met, in the order of the first meeting.
    pub(crate) fn sites(&self) -> io::Result<Vec<Site>> {
        let mut page = vec![0; HEADER_BYTES + SITES_MAX * SITE_BYTES];
        self.page.read_exact_at(&mut page, 0)?;
        let used = usize::try_from(word(&page, USED_AT) & u64::from(u32::MAX)).unwrap_or(0);
        let sites = page[HEADER_BYTES..].chunks_exact(SITE_BYTES);
        Ok(sites.take(used).filter_map(site).collect())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

fn site(bytes: &[u8]) -> Option<Site> {
    let call = usize::try_from(word(bytes, 16) & u64::from(u32::MAX)).ok()?;
    let class: Vec<u8> = bytes[CLASS_AT..]
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    Some(Site {
        hash: word(bytes, 0),
        count: word(bytes, 8),
        call: CALLS.get(call.checked_sub(1)?)?,
        class: String::from_utf8_lossy(&class).into_owned(),
        frames: (0..FRAMES)
            .map(|frame| word(bytes, 24 + 8 * frame))
            .take_while(|frame| *frame != 0)
            .collect(),
    })
}

/// The nearest function of ours or of the views' database on the way to a site, where `addr2line` is there to say.
pub(crate) fn place(binary: &Path, site: &Site) -> Option<String> {
    let output = Command::new("addr2line")
        .args(["-C", "-f", "-i", "-e"])
        .arg(binary)
        // A return address is behind its call.
        .args(site.frames.iter().map(|frame| format!("{:#x}", frame - 1)))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = ["rialto_", "fjall", "lsm_tree"];
    let functions = text.lines().step_by(2);
    functions
        .into_iter()
        .find(|name| {
            ours.iter()
                .any(|prefix| name.starts_with(prefix) || name.starts_with(&format!("<{prefix}")))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell below the library; gives what it printed and whether it succeeded.
    fn shell(shim: &Shim, root: &Path, script: &str) -> (String, bool) {
        let output = Command::new("sh")
            .args(["-c", script])
            .envs(shim.environment(root))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, output.status.success())
    }

    #[test]
    fn sites_are_found_and_fail_when_they_are_aimed_at() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        fs::create_dir(&root).unwrap();
        let shim = Shim::lay(folder.path()).unwrap();
        let script = format!("echo hello > {}/file12", root.display());
        assert!(!shim.is_met().unwrap());
        assert!(shell(&shim, &root, &script).1);
        let sites = shim.sites().unwrap();
        let opening = sites.iter().find(|site| site.call == "open").unwrap();
        assert_eq!(opening.class, "file#");
        assert!(shim.is_met().unwrap() && !shim.has_struck().unwrap());
        shim.aim(opening, 1, Wrong::EIO).unwrap();
        assert!(!shell(&shim, &root, &script).1);
        assert!(shim.has_struck().unwrap());
        shim.calm().unwrap();
        assert!(shell(&shim, &root, &script).1);
    }

    #[test]
    fn a_disk_that_lies_does_so_whatever_else_goes_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let shim = Shim::lay(folder.path()).unwrap();
        shim.lie_about_syncs().unwrap();
        let site = Site {
            hash: 7,
            count: 1,
            call: "open",
            class: String::new(),
            frames: Vec::new(),
        };
        shim.aim(&site, 1, Wrong::EIO).unwrap();
        shim.calm().unwrap();
        let mut lies = [0; 4];
        shim.page.read_exact_at(&mut lies, LIE_AT).unwrap();
        assert_eq!(u32::from_ne_bytes(lies), 1);
    }

    #[test]
    fn the_wall_clock_is_off_by_as_much_as_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let shim = Shim::lay(folder.path()).unwrap();
        let year = |shim: &Shim| {
            shell(shim, folder.path(), "date -u +%Y")
                .0
                .trim()
                .to_owned()
        };
        let now = year(&shim);
        shim.shift_clock(-20 * 365 * 24 * 3_600 * 1_000_000_000)
            .unwrap();
        assert_ne!(year(&shim), now);
    }
}
