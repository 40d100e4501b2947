//! Who is who in a replay: ids that follow from the run and from the file, so that a replay can be continued.

use rialto_protocol::ids::{ConversationId, UserId};
use sha2::{Digest, Sha256};

/// The time in the ids of replayed conversations: they are no younger or older than each other.
const CONVERSATION_TIME_MS: u64 = 1_100_000_000_000;

/// The conversation of a log in a run.
#[must_use]
pub(super) fn conversation(run: &str, channel: &str, day: &str) -> ConversationId {
    let mut hash = Sha256::new();
    for part in ["rialto replay", run, channel, day] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut entropy = [0; 10];
    entropy.copy_from_slice(&hash.finalize()[..10]);
    ConversationId::v7(CONVERSATION_TIME_MS, entropy)
}

/// The user behind a nick; the same in every run.
#[must_use]
pub(super) fn speaker(nick: &str) -> UserId {
    UserId::from_name(&format!("replay nick {nick}"))
}

/// Users of the replay itself: who opens conversations, who reads, who publishes for others.
#[must_use]
pub(super) fn staff(role: &str) -> UserId {
    UserId::from_name(&format!("replay staff {role}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_channels_and_days_have_conversations_of_their_own() {
        let ids = [
            ("r", "c", "d"),
            ("r", "cd", ""),
            ("r", "", "cd"),
            ("s", "c", "d"),
            ("r", "c", "e"),
        ]
        .map(|(run, channel, day)| conversation(run, channel, day));
        for (at, id) in ids.iter().enumerate() {
            assert!(id.is_v7() && !ids[..at].contains(id));
        }
        assert_eq!(ids[0], conversation("r", "c", "d"));
    }

    #[test]
    fn a_nick_is_never_staff_nor_the_id_that_it_spells() {
        assert_ne!(speaker("reader"), staff("reader"));
        assert_ne!(
            speaker("00000000-0000-0000-0000-000000000000"),
            UserId::SYSTEM
        );
    }
}
