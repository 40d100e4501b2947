//! Ids that follow from names, users and times. Frozen: every client derives the same, with the test values of
//! docs/PROTOCOL.md.

use sha2::{Digest, Sha256};

use super::{ConversationId, ID_BYTES, UserId, parse_text};

/// Domain prefixes; each ends with a zero byte, so that none is the beginning of another.
const USER: &[u8] = b"rialto user\0";
const SELF: &[u8] = b"rialto self\0";
const INBOX: &[u8] = b"rialto inbox\0";
const DIRECT: &[u8] = b"rialto direct\0";

impl UserId {
    /// The user with this name: a hyphenated UUID is the id itself, of any other name it is a UUIDv8 from SHA-256.
    ///
    /// The text of [`UserId::SYSTEM`] gives just that; whoever accepts names must refuse it.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self(parse_text(name).unwrap_or_else(|| v8(USER, &[name.as_bytes()])))
    }
}

impl ConversationId {
    /// The user's notes to himself.
    #[must_use]
    pub fn of_self(user: UserId) -> Self {
        Self(v8(SELF, &[user.as_bytes()]))
    }

    /// The user's inbox.
    #[must_use]
    pub fn of_inbox(user: UserId) -> Self {
        Self(v8(INBOX, &[user.as_bytes()]))
    }

    /// The conversation of two users; the same whoever is named first.
    #[must_use]
    pub fn of_direct(a: UserId, b: UserId) -> Self {
        Self(v8(DIRECT, &[a.min(b).as_bytes(), a.max(b).as_bytes()]))
    }
}

/// UUIDv7 (RFC 9562, section 5.7): 48 bits of time, then 74 random bits.
pub(super) fn v7(time_ms: u64, entropy: [u8; 10]) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&entropy);
    stamped(bytes, 7)
}

/// UUIDv8 (RFC 9562, section 5.8): the first 16 bytes of SHA-256, version and variant overwritten.
fn v8(domain: &[u8], parts: &[&[u8]]) -> [u8; ID_BYTES] {
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; ID_BYTES];
    bytes.copy_from_slice(&digest[..ID_BYTES]);
    stamped(bytes, 8)
}

/// Overwrites version and variant.
pub(super) const fn stamped(mut bytes: [u8; ID_BYTES], version: u8) -> [u8; ID_BYTES] {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_uuid_is_the_id_itself() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(UserId::from_name(text).to_string(), text);
        assert_ne!(UserId::from_name(&text.replace('-', "")).to_string(), text);
    }

    #[test]
    fn names_and_pairs_lead_to_the_ids_that_every_client_derives() {
        let (ann, bob) = (UserId::from_name("ann"), UserId::from_name("bob"));
        assert_eq!(ann.to_string(), "38b75acc-dd88-83b6-afab-e9bde17f58d8");
        let derived = [
            ConversationId::of_self(ann),
            ConversationId::of_inbox(ann),
            ConversationId::of_direct(ann, bob),
        ];
        assert_eq!(
            derived.map(|id| id.to_string()),
            [
                "d12d2045-3ee7-8810-ba24-dd81a1a28aca",
                "59101383-31f2-8a7a-8169-541e53e9c03f",
                "ad49639d-1b11-8b11-bd89-5a05da04c67e",
            ]
        );
    }

    #[test]
    fn both_sides_of_a_pair_arrive_at_the_same_conversation() {
        let (ann, bob) = (UserId::from_name("ann"), UserId::from_name("bob"));
        assert_eq!(
            ConversationId::of_direct(ann, bob),
            ConversationId::of_direct(bob, ann)
        );
        assert_ne!(
            ConversationId::of_direct(ann, bob),
            ConversationId::of_direct(ann, ann)
        );
        assert_ne!(ConversationId::of_self(ann), ConversationId::of_inbox(ann));
    }
}
