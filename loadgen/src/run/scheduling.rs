//! How the kernel is to treat the threads that make load: see `docs/decisions/0024-load-stands-back.md`.

use std::io;

#[cfg(target_os = "linux")]
const THIS_THREAD: libc::pid_t = 0;

/// Lets whoever has a processor go on when the calling thread wakes up, as work in batches does. On a machine that load and
/// broker share, each receipt would otherwise take the processor from the broker in the middle of its turn. No privilege is
/// needed, and its share stays whole.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn stand_back() -> io::Result<()> {
    // SAFETY: takes a number and touches no memory of ours.
    let policy = unsafe { libc::sched_getscheduler(THIS_THREAD) };
    if policy < 0 {
        return Err(io::Error::last_os_error());
    }
    // Whoever has given the process a policy of its own has thought about it.
    if policy != libc::SCHED_OTHER {
        return Ok(());
    }
    set_policy(libc::SCHED_BATCH)
}

/// Of the calling thread.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_policy(policy: libc::c_int) -> io::Result<()> {
    // None of the policies here has one.
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: `no_priority` lives until the call returns; the kernel reads it and keeps no pointer.
    let set = unsafe { libc::sched_setscheduler(THIS_THREAD, policy, &raw const no_priority) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// There is no such thing elsewhere.
#[cfg(not(target_os = "linux"))]
pub(super) fn stand_back() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// The calling thread's, as the kernel shows it: field 41 of `stat`, counted from the end of its name.
    fn policy() -> String {
        let shown = fs::read_to_string("/proc/thread-self/stat").expect("a thread");
        let (_, fields) = shown.rsplit_once(") ").expect("a name");
        fields.split(' ').nth(38).expect("a policy").to_owned()
    }

    #[test]
    fn only_the_calling_thread_stands_back() {
        let before = policy();
        let there = thread::spawn(|| {
            stand_back().expect("no privilege is needed");
            policy()
        });
        let there = there.join().expect("a policy");
        assert_eq!(there, libc::SCHED_BATCH.to_string());
        assert_eq!(policy(), before);
    }

    #[test]
    fn a_policy_that_was_chosen_stays() {
        let there = thread::spawn(|| {
            set_policy(libc::SCHED_IDLE).expect("no privilege is needed");
            stand_back().expect("nothing is done");
            policy()
        });
        let there = there.join().expect("a policy");
        assert_eq!(there, libc::SCHED_IDLE.to_string());
    }
}
