//! Ids and numbers of the domain, each a type of its own. How ids follow from names and pairs is in derive.rs, which lane
//! a conversation belongs to in lane.rs. Randomness and time are passed in.

mod derive;
mod lane;
mod numbers;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

pub use numbers::{Cursor, Epoch, Handle, LaneId, Ordinal, Position, RequestId, Seq};

/// Bytes of every id.
pub const ID_BYTES: usize = 16;
/// Characters of an id's text: hyphenated UUID.
const TEXT_BYTES: usize = 36;

/// Bytes or text that are no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An id has 16 bytes exactly.
    #[error("an id has 16 bytes, not {0}")]
    Length(usize),
    /// The text is no hyphenated UUID.
    #[error("the text is no hyphenated UUID")]
    Text,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The id with these bytes.
            ///
            /// # Errors
            /// When they are not exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::Length(bytes.len()))
            }

            /// Its 16 bytes, as they stand on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// Its bytes for a field of a message.
            #[must_use]
            pub fn to_proto(&self) -> Bytes {
                Bytes::copy_from_slice(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Uuid::from_bytes(self.0).hyphenated(), out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// From a hyphenated UUID, in either case.
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_text(text).map(Self).ok_or(IdError::Text)
            }
        }
    )+};
}

ids! {
    /// A user.
    UserId
    /// A device of a user: made once by the device and kept.
    DeviceId
    /// An event as its client names it: the idempotency key.
    ClientId
    /// A conversation.
    ConversationId
    /// A session, from Hello to the end of its connection.
    SessionId
}

impl UserId {
    /// Sender of what nobody in particular said.
    pub const SYSTEM: Self = Self([0; ID_BYTES]);
}

impl ClientId {
    /// A new id; `entropy` is random. Rising with `time_ms` (milliseconds since 1970, 48 bits).
    #[must_use]
    pub fn v7(time_ms: u64, entropy: [u8; 10]) -> Self {
        Self(derive::v7(time_ms, entropy))
    }

    /// The time that the client put into it, milliseconds since 1970. Meaningful for a UUIDv7 only, and never to be trusted.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        let mut time = [0; 8];
        time[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(time)
    }

    /// Whether it is a UUID of version 7 and of the usual variant.
    #[must_use]
    pub const fn is_v7(&self) -> bool {
        self.0[6] >> 4 == 7 && self.0[8] >> 6 == 0b10
    }
}

impl ConversationId {
    /// A new id; `entropy` is random. `time_ms` is milliseconds since 1970, 48 bits.
    #[must_use]
    pub fn v7(time_ms: u64, entropy: [u8; 10]) -> Self {
        Self(derive::v7(time_ms, entropy))
    }

    /// Whether it is a UUID of version 7 and of the usual variant, as the id of every created conversation is.
    #[must_use]
    pub const fn is_v7(&self) -> bool {
        self.0[6] >> 4 == 7 && self.0[8] >> 6 == 0b10
    }
}

impl SessionId {
    /// A new id; `entropy` is random. `time_ms` is milliseconds since 1970, 48 bits.
    #[must_use]
    pub fn v7(time_ms: u64, entropy: [u8; 10]) -> Self {
        Self(derive::v7(time_ms, entropy))
    }
}

impl DeviceId {
    /// A new id; `entropy` is random, its version and variant bits are overwritten.
    #[must_use]
    pub fn v4(entropy: [u8; ID_BYTES]) -> Self {
        Self(derive::stamped(entropy, 4))
    }
}

fn parse_text(text: &str) -> Option<[u8; ID_BYTES]> {
    if text.len() != TEXT_BYTES {
        return None;
    }
    Uuid::try_parse(text).ok().map(Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_id() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let id: UserId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), format!("UserId({text})"));
        assert_eq!(UserId::from_slice(&id.to_proto()), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn other_lengths_and_other_forms_are_refused() {
        assert_eq!(UserId::from_slice(&[0; 15]), Err(IdError::Length(15)));
        assert_eq!(UserId::from_slice(&[0; 17]), Err(IdError::Length(17)));
        for text in [
            "",
            "00112233445566778899aabbccddeeff",
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "0011223-34455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(text.parse::<UserId>(), Err(IdError::Text), "{text}");
        }
    }

    #[test]
    fn client_ids_rise_with_time_and_tell_it() {
        let early = ClientId::v7(1_700_000_000_000, [0xff; 10]);
        let late = ClientId::v7(1_700_000_000_001, [0; 10]);
        assert!(early < late && early.is_v7() && late.is_v7());
        assert_eq!(early.time_ms(), 1_700_000_000_000);
        assert_eq!(early.to_string(), "018bcfe5-6800-7fff-bfff-ffffffffffff");
        assert!(!ClientId::from_bytes(*DeviceId::v4([7; 16]).as_bytes()).is_v7());
    }

    #[test]
    fn the_versions_of_made_ids_are_marked() {
        assert_eq!(
            DeviceId::v4([0xff; 16]).to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert!(ConversationId::v7(1, [3; 10]).is_v7());
        assert_eq!(
            &SessionId::v7(1, [3; 10]).as_bytes()[..6],
            &[0, 0, 0, 0, 0, 1]
        );
    }
}
