//! The judge: what was sent to one conversation against what each of its readers got.
//!
//! It knows nothing of connections. A [`Script`] says what was sent and acknowledged, a [`Reading`] what one reader saw in
//! the order of arrival; [`check`] counts every way in which they differ. Each count has one meaning:
//!
//! | count | what is counted, for each reader |
//! | --- | --- |
//! | `lost` | messages of the script that the reader never got |
//! | `duplicated` | events that the reader had got before: the same seq again, or the same `client_id` under another |
//! | `reordered` | events that would have to be moved: against the order of seqs in arrival, and against the script in seqs |
//! | `gapped` | seqs from 1 to the head that never arrived |
//! | `altered` | messages with another sender, text or list of answered events than was sent |
//! | `diverged` | seqs under which readers saw different events (one for each further version) |
//! | `foreign` | messages that nobody sent |
//! | `misacknowledged` | messages that stand at another seq or epoch than their receipt says |
//! | `misnumbered` | events whose epoch or time goes back, or whose ordinal is not the count of messages |

mod judge;
mod reading;
mod verdict;

#[cfg(test)]
mod planted;

pub use judge::check;
pub use reading::{Fingerprint, Observed, Reading, Said};
pub use verdict::{EXAMPLES_MAX, Verdict, Violations};

use rialto_protocol::ids::{ClientId, Epoch, Seq, UserId};

/// What was sent to one conversation, in the order in which it must stand in the log.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Names the conversation in examples.
    pub name: String,
    /// The messages.
    pub messages: Vec<Sent>,
}

/// A message as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its idempotency key; none: it could not be sent at all, and every reader lacks it.
    pub client_id: Option<ClientId>,
    /// What it says.
    pub said: Said,
    /// Where it stands, as acknowledged; none: no acknowledgement came.
    pub receipt: Option<(Epoch, Seq)>,
}

/// A sender whose bytes were no id; never equal to a real one.
const NO_SENDER: UserId = UserId::SYSTEM;
