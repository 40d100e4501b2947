//! Which thread has a processor first when there are fewer of them than there is to do: see
//! `docs/decisions/0016-who-runs-first.md`.
//!
//! Nothing here takes a share from anybody else: no privilege is needed, and none is used.

use std::{io, time::Duration};

use rialto_storage::embedded::StoreThread;

/// The journal asks for a processor for no longer than this at once, and has it the sooner. The kernel takes 0.1 to 100 ms.
const JOURNAL_SLICE: Duration = Duration::from_micros(100);
/// How far the views stand back: a tenth of the share of a thread that does not. Publishers are slowed when that is not enough,
/// and then leave them a processor.
const VIEWS_NICE: i32 = 10;
/// And how long they keep a processor at most when a thread wakes up that is put in front of them.
const VIEWS_SLICE: Duration = Duration::from_micros(300);

/// Tells the kernel what the calling thread is for.
pub(crate) fn arrange(thread: StoreThread) {
    let arranged = match thread {
        StoreThread::Journal => ask_for_slices(JOURNAL_SLICE),
        StoreThread::Views => rustix::process::nice(VIEWS_NICE)
            .map_err(io::Error::from)
            .and_then(|_| ask_for_slices(VIEWS_SLICE)),
        StoreThread::Segments | StoreThread::Reader => Ok(()),
    };
    if let Err(error) = arranged {
        tracing::debug!(?thread, %error, "the kernel schedules this thread like any other");
    }
}

/// Shorter slices, sooner: from Linux 6.12 on. Earlier kernels take the number and make nothing of it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn ask_for_slices(slice: Duration) -> io::Result<()> {
    const THIS_THREAD: libc::c_long = 0;
    const NO_FLAGS: libc::c_long = 0;

    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = u32::try_from(size_of_val(&attributes)).unwrap_or(u32::MAX);
    // SAFETY: the kernel writes no more than `size` bytes, which is the size of what is pointed to, and keeps no pointer.
    let got = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            THIS_THREAD,
            &raw mut attributes,
            size,
            NO_FLAGS,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // Whoever has given the process a policy of its own has thought about it.
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: `attributes` is a valid `sched_attr` whose size stands in it, and lives until the call returns; the kernel reads it
    // and keeps no pointer.
    let set = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            THIS_THREAD,
            &raw const attributes,
            NO_FLAGS,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// There is no such thing elsewhere.
#[cfg(not(target_os = "linux"))]
fn ask_for_slices(_: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, thread};

    use rustix::process::getpriority_process;

    use super::*;

    fn nice() -> i32 {
        getpriority_process(None).expect("a thread has a priority")
    }

    /// A number of the calling thread's, as the kernel shows it, if it does.
    fn shown(name: &str) -> Option<u64> {
        let shown = fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = shown.lines().find(|line| line.starts_with(name))?;
        line.rsplit(':').next()?.trim().parse().ok()
    }

    /// Major and minor.
    fn kernel() -> (u32, u32) {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
        let numbers = release.split(['.', '-']).take(2);
        let numbers: Vec<u32> = numbers
            .map(|number| number.parse().expect("a number"))
            .collect();
        (numbers[0], numbers[1])
    }

    fn on_a_thread<T: Send>(of: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(of).join().expect("a result"))
    }

    #[test]
    fn the_views_stand_back_and_nobody_else() {
        let before = nice();
        for thread in [
            StoreThread::Journal,
            StoreThread::Segments,
            StoreThread::Reader,
        ] {
            let there = on_a_thread(|| {
                arrange(thread);
                nice()
            });
            assert_eq!(there, before, "{thread:?}");
        }
        let views = on_a_thread(|| {
            arrange(StoreThread::Views);
            nice()
        });
        assert_eq!(views, (before + VIEWS_NICE).min(19));
        assert_eq!(nice(), before);
    }

    #[test]
    fn the_journal_has_short_slices_where_the_kernel_knows_them() {
        let slice = on_a_thread(|| {
            ask_for_slices(JOURNAL_SLICE).expect("the kernel takes it");
            shown("se.slice")
        });
        if kernel() >= (6, 12) {
            let asked = u64::try_from(JOURNAL_SLICE.as_nanos()).expect("short");
            assert!(slice.is_none_or(|slice| slice == asked), "{slice:?}");
        }
    }
}
