//! Mistakes that a broker makes on purpose, so that it can be shown that the fault campaigns find them. Without the feature
//! `planted`, which no build that is shipped has, [`strikes`] is `false` at compile time and the mistakes are not there.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Publishers are acknowledged before the journal is synced.
    AckBeforeSync = 1,
    /// A `client_id` is never found to have been appended before.
    SkipDedupe,
    /// A connection is not told that there is something to write.
    LostWakeUp,
    /// A reader who comes back gets what follows from one event too late.
    ResumeOffByOne,
}

/// Whether this mistake is to be made now.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn strikes(_: Mistake) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use mistakes::{choose, strikes};

#[cfg(feature = "planted")]
mod mistakes {
    use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

    use super::Mistake;

    /// A wake-up is lost once in so many.
    const LOST_ONE_IN: u32 = 8;

    static CHOSEN: AtomicU8 = AtomicU8::new(0);
    static WAKE_UPS: AtomicU32 = AtomicU32::new(0);

    /// Makes the mistake with this name from now on; false: there is none.
    pub fn choose(name: &str) -> bool {
        let mistake = match name {
            "ack-before-sync" => Mistake::AckBeforeSync,
            "skip-dedupe" => Mistake::SkipDedupe,
            "lost-wake-up" => Mistake::LostWakeUp,
            "resume-off-by-one" => Mistake::ResumeOffByOne,
            _ => return false,
        };
        CHOSEN.store(mistake as u8, Relaxed);
        true
    }

    /// Whether this mistake is to be made now.
    #[must_use]
    pub fn strikes(mistake: Mistake) -> bool {
        CHOSEN.load(Relaxed) == mistake as u8
            && (mistake != Mistake::LostWakeUp
                || WAKE_UPS.fetch_add(1, Relaxed).is_multiple_of(LOST_ONE_IN))
    }
}
