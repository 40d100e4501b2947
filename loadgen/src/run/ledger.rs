//! What publishers say was acknowledged, by conversation: what readers are judged by at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::body::mix;
use super::numbers::Numbers;

/// What one publisher sent to one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Place of the conversation in the run.
    pub(super) conversation: usize,
    pub(super) publisher: u32,
    /// Its messages have the numbers from 1 to this.
    pub(super) numbers: u64,
    /// Of these, the ones that were refused for good.
    pub(super) refused: Numbers,
    /// And those that were never answered: they may be there or not.
    pub(super) unanswered: Numbers,
    /// Those that were sent again as they were and may stand later, each with the number up to which it may stand behind.
    pub(super) repeated: BTreeMap<u64, u64>,
    /// The greatest seq that was acknowledged.
    pub(super) seq_max: u64,
    /// [`fingerprint`]s of all acknowledged ones, added up.
    pub(super) digest: u64,
}

/// All accounts of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(super) seq_max: u64,
    pub(super) digest: u64,
    /// No message is unanswered, so the digest is that of the whole conversation.
    pub(super) complete: bool,
    pub(super) accounts: Vec<Account>,
}

/// All conversations of a run, by their place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(super) entries: Vec<Entry>,
}

/// Where a message stands, in one number; added up over a conversation it tells whether two saw the same, in whatever order
/// they add.
#[inline]
pub(super) const fn fingerprint(seq: u64, publisher: u32, number: u64) -> u64 {
    mix(mix(seq ^ (publisher as u64) << 40) ^ number)
}

impl Ledger {
    /// For so many conversations.
    pub(crate) fn new(conversations: usize, accounts: impl IntoIterator<Item = Account>) -> Self {
        let empty = Entry {
            complete: true,
            ..Entry::default()
        };
        let mut entries = vec![empty; conversations];
        for account in accounts {
            let entry = &mut entries[account.conversation];
            entry.seq_max = entry.seq_max.max(account.seq_max);
            entry.digest = entry.digest.wrapping_add(account.digest);
            entry.complete &= account.unanswered.len() == 0;
            entry.accounts.push(account);
        }
        Self { entries }
    }
}
