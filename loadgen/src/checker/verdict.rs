//! The counts, and some examples for people.

use serde::{Deserialize, Serialize};

/// Examples that a verdict keeps; the counts go on.
pub const EXAMPLES_MAX: usize = 20;

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident)+) => {
        /// A count for each way in which readers and script can differ; their meaning stands in [`super`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Violations {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Violations {
            /// Every count by its name.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, u64); [$(stringify!($name)),+].len()] {
                [$((stringify!($name), self.$name)),+]
            }

            /// Adds those of another verdict.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

violations! {
    /// Messages that a reader never got.
    lost
    /// Events that a reader had got before.
    duplicated
    /// Events that would have to be moved.
    reordered
    /// Seqs that never arrived.
    gapped
    /// Messages that are not as they were sent.
    altered
    /// Seqs under which readers saw different events.
    diverged
    /// Messages that nobody sent.
    foreign
    /// Messages that stand elsewhere than their receipt says.
    misacknowledged
    /// Events whose epoch, time or ordinal does not follow.
    misnumbered
}

impl Violations {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

/// What the judge found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The counts.
    pub violations: Violations,
    /// Message events that arrived, all readers together.
    pub delivered: u64,
    /// The first ones in words, [`EXAMPLES_MAX`] at most.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.total() == 0
    }

    /// Adds the verdict over another conversation.
    pub fn add(&mut self, other: Self) {
        self.violations.add(&other.violations);
        self.delivered += other.delivered;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Keeps an example while there is room.
    pub(super) fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }
}
