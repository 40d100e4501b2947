//! Which lane a conversation belongs to. Frozen: a data set that was written with another answer could not be read.

use super::{ConversationId, LaneId};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl LaneId {
    /// The conversation's lane among `lanes` of them (0 counts as 1): FNV-1a of the id's bytes, the bits mixed as at the
    /// end of MurmurHash3 (FNV's low bits alone are poor), modulo `lanes`.
    #[must_use]
    pub fn of(conversation: &ConversationId, lanes: u16) -> Self {
        let mut hash = FNV_OFFSET;
        for byte in conversation.as_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
        let lane = mixed(hash) % u64::from(lanes.max(1));
        // Below `lanes`, which is a u16.
        #[allow(clippy::cast_possible_truncation)]
        Self(lane as u16)
    }
}

const fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    #[test]
    fn conversations_spread_evenly() {
        let mut counts = [0_u32; 128];
        for time_ms in 0..12_800 {
            counts[usize::from(LaneId::of(&ConversationId::v7(time_ms, [0; 10]), 128).0)] += 1;
        }
        assert!(
            counts.iter().all(|count| (50..=160).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn lanes_are_those_of_every_data_set_there_is() {
        let ann = UserId::from_name("ann");
        let lanes = |count| {
            let conversations = [ConversationId::of_self(ann), ConversationId::of_inbox(ann)];
            conversations.map(|conversation| LaneId::of(&conversation, count).0)
        };
        assert_eq!(lanes(128), [97, 107]);
        assert_eq!(lanes(u16::MAX), [60_359, 44_584]);
        assert_eq!(
            LaneId::of(&ConversationId::from_bytes([0; 16]), 128),
            LaneId(10)
        );
        assert_eq!(
            LaneId::of(&ConversationId::from_bytes([0xff; 16]), 1000),
            LaneId(943)
        );
    }

    #[test]
    fn one_lane_or_none_is_lane_zero() {
        let conversation = ConversationId::of_self(UserId::from_name("ann"));
        assert_eq!(LaneId::of(&conversation, 1), LaneId(0));
        assert_eq!(LaneId::of(&conversation, 0), LaneId(0));
    }
}
