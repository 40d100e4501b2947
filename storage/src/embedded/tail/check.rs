//! Checksums of what places lead to: what is read from a segment is what was appended there, or an error.
//!
//! They are CRC32C, begin with the id of the conversation, and stand in memory alone. A place thus tells whether what it leads to is
//! of the conversation that is asked for, should its hash be another's too.

use rialto_protocol::ids::ConversationId;

use super::chunk::CHECK_BITS;
use crate::{embedded::log::Segment, views::ViewsError};

/// With what the checksums of a conversation begin.
#[derive(Clone, Copy)]
pub(super) struct Checksums(u32);

impl Checksums {
    pub(super) fn of(conversation: &ConversationId) -> Self {
        Self(crc32c::crc32c(conversation.as_bytes()))
    }

    /// Of an event: as many bits as a place has room for.
    pub(super) fn event(self, bytes: &[u8]) -> u32 {
        short(crc32c::crc32c_append(self.0, bytes))
    }

    /// Of a row's key and value.
    pub(super) fn row(self, key: &[u8], value: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, key), value)
    }
}

/// Of an event that stands behind the id of its conversation: one pass, as each event of the journal is taken in.
pub(super) fn of_event_with_id(bytes: &[u8]) -> u32 {
    short(crc32c::crc32c(bytes))
}

/// The upper bits that a place has no room for go into the lower ones: unlike with either end cut off, a flipped bit is seen wherever
/// it stands in an entry.
fn short(checksum: u32) -> u32 {
    (checksum ^ checksum >> CHECK_BITS) & ((1 << CHECK_BITS) - 1)
}

/// What was durable reads back otherwise: where, and what to do now.
pub(super) fn damaged(segment: &Segment, offset: u32) -> ViewsError {
    ViewsError::Damaged(format!(
        "segment {} of the journal is damaged at byte {offset}: what was appended there reads back otherwise. Stop the broker, copy \
         the data directory, check memory and disk, then start it again: it reads the journal from the disk and says whether that is \
         damaged",
        segment.number()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ENTRY_BYTES_MAX;

    #[test]
    fn a_flipped_bit_is_seen_wherever_it_stands_in_an_entry() {
        for bit in 0..8 {
            // By how much the checksum differs follows from how far behind the bit the event ends, and from nothing else.
            let mut change = crc32c::crc32c(&[0]) ^ crc32c::crc32c(&[1 << bit]);
            for bytes in 0..ENTRY_BYTES_MAX {
                assert_ne!(short(change), 0, "bit {bit}, {bytes} bytes before the end");
                change = !crc32c::crc32c_append(!change, &[0]);
            }
        }
    }

    #[test]
    fn what_is_of_another_conversation_is_seen() {
        let of = |number| Checksums::of(&ConversationId::from_bytes([number; 16]));
        assert_eq!(
            of_event_with_id(&[&[1; 16], &b"event"[..]].concat()),
            of(1).event(b"event")
        );
        assert_ne!(of(1).event(b"event"), of(2).event(b"event"));
        assert_ne!(of(1).row(b"key", b"value"), of(2).row(b"key", b"value"));
    }
}
