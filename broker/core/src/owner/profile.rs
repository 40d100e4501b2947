//! What a conversation is and how it is set: one row.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    ids::UserId,
    v1::{ConversationKind, Role, Visibility},
};

/// The row, as it is stored. Field numbers are on disk: never used again.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Profile {
    #[prost(enumeration = "ConversationKind", tag = "1")]
    pub(super) kind: i32,
    #[prost(enumeration = "Visibility", tag = "2")]
    pub(super) visibility: i32,
    #[prost(string, tag = "3")]
    pub(super) title: String,
    #[prost(string, tag = "4")]
    pub(super) topic: String,
    #[prost(uint32, tag = "5")]
    pub(super) slow_mode_s: u32,
    #[prost(enumeration = "Role", tag = "6")]
    pub(super) write_role: i32,
    #[prost(bool, tag = "7")]
    pub(super) locked: bool,
    #[prost(bytes = "bytes", tag = "8")]
    pub(super) created_by: Bytes,
    #[prost(uint64, tag = "9")]
    pub(super) created_ms: u64,
    #[prost(bytes = "bytes", tag = "10")]
    pub(super) parent: Bytes,
    /// Joined members.
    #[prost(uint32, tag = "11")]
    pub(super) members: u32,
    /// Joined members who are owners.
    #[prost(uint32, tag = "12")]
    pub(super) owners: u32,
    /// Of a direct conversation: the other user than `created_by`. Of an inbox: whose it is.
    #[prost(bytes = "bytes", tag = "13")]
    pub(super) peer: Bytes,
}

impl Profile {
    pub(super) fn from_row(row: &Bytes) -> Option<Self> {
        // What is read from `Bytes` would be slices of them, and they of the block that storage has read.
        Self::decode(&row[..])
            .ok()
            .filter(|profile| profile.kind() != ConversationKind::Unspecified)
    }

    pub(super) fn is_public(&self) -> bool {
        self.visibility() == Visibility::Public
    }

    /// Members see how far the others have read: where few talk to each other.
    pub(super) fn shows_markers(&self) -> bool {
        matches!(
            self.kind(),
            ConversationKind::Direct | ConversationKind::Group | ConversationKind::Family
        )
    }

    /// Least role that may write.
    pub(super) fn least_writer(&self) -> Role {
        match self.write_role() {
            Role::Unspecified => Role::Member,
            role => role,
        }
    }

    pub(super) fn creator(&self) -> UserId {
        UserId::from_slice(&self.created_by).unwrap_or(UserId::SYSTEM)
    }

    /// The other side of a direct conversation.
    pub(super) fn peer_of(&self, user: &UserId) -> Bytes {
        if self.kind() != ConversationKind::Direct {
            Bytes::new()
        } else if self.created_by == user.as_bytes()[..] {
            self.peer.clone()
        } else {
            self.created_by.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_does_not_keep_the_memory_that_it_was_read_from() {
        let id = |number: u8| Bytes::copy_from_slice(&[number; 16]);
        let profile = Profile {
            kind: ConversationKind::Group as i32,
            created_by: id(1),
            parent: id(2),
            peer: id(3),
            ..Profile::default()
        };
        let row = Bytes::from(profile.encode_to_vec());
        let read = Profile::from_row(&row).unwrap();
        assert_eq!(read, profile);
        assert!(row.is_unique(), "nothing of it is held");
    }
}
