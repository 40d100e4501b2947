//! Bodies of made messages. A body is text: 32 characters that say what it is, then filler that follows from them.
//!
//! Six bits stand in a character, so that a body is UTF-8 and is still read eight characters at a time:
//!
//! | characters | bits | what |
//! | --- | --- | --- |
//! | 0..8 | 48 | when it was due, microseconds since the run's epoch |
//! | 8..16 | 48 | its number among the publisher's messages to this conversation, from 1 |
//! | 16..24 | 24 + 18 + 6 | publisher; length of the body; how often it was refused before |
//! | 24..32 | 30 + 18 | run; a check of all of these, and of the conversation that it was sent to |

use std::str::FromStr;
use std::sync::LazyLock;

use rialto_protocol::limits::BODY_BYTES_MAX_DEFAULT;
use serde::{Deserialize, Serialize};

/// Bytes of a body without filler.
pub const BODY_BYTES_MIN: usize = 32;
/// Values of the check, and places where filler may begin.
const CHECKS: usize = 1 << 18;
/// Places in the filler's source.
const STARTS: usize = 4096;
/// Characters hold six bits above this one: `0` to `o`.
const ZEROES: u64 = 0x3030_3030_3030_3030;

/// Bytes of a body: all alike, or evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    from: usize,
    to: usize,
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: BYTES or FROM..TO, from {BODY_BYTES_MIN} to {BODY_BYTES_MAX_DEFAULT}")]
pub struct SizeError(String);

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let parse = |text: &str| {
            text.parse()
                .ok()
                .filter(|size| (BODY_BYTES_MIN..=BODY_BYTES_MAX_DEFAULT).contains(size))
        };
        match (parse(from), parse(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to }),
            _ => Err(SizeError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.from == self.to {
            write!(out, "{}", self.from)
        } else {
            write!(out, "{}..{}", self.from, self.to)
        }
    }
}

impl Size {
    /// All bodies of one length, which is at least [`BODY_BYTES_MIN`].
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        Self {
            from: bytes,
            to: bytes,
        }
    }

    /// The length that a random number picks.
    // Below the difference of two lengths.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) const fn pick(self, random: u64) -> usize {
        self.from + (random % (self.to - self.from + 1) as u64) as usize
    }
}

/// What a body says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) due_us: u64,
    pub(super) number: u64,
    pub(super) publisher: u32,
    pub(super) refusals: u8,
}

/// Bodies of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bodies {
    run: u64,
}

impl Bodies {
    /// Of the run with this number, of which 30 bits are told apart.
    pub(super) const fn of(run: u64) -> Self {
        Self {
            run: run & 0x3fff_ffff,
        }
    }

    /// Appends a body of `bytes` bytes, for the conversation at this place.
    pub(super) fn put(self, out: &mut Vec<u8>, mark: Mark, conversation: usize, bytes: usize) {
        let (words, check) = self.words(mark, conversation, bytes);
        let mut text = [0; BODY_BYTES_MIN];
        for (place, word) in text.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&spread(word));
        }
        out.extend_from_slice(&text);
        out.extend_from_slice(filler(check, bytes - BODY_BYTES_MIN));
    }

    /// What a body says; none when it is not one of this run's, was sent to another conversation, or is not as it was sent.
    #[inline]
    pub(super) fn read(self, body: &[u8], conversation: usize) -> Option<Mark> {
        let mark = self.peek(body)?;
        let (words, check) = self.words(mark, conversation, body.len());
        let as_sent = gather(body, 2)? == words[2]
            && gather(body, 3)? == words[3]
            && &body[BODY_BYTES_MIN..] == filler(check, body.len() - BODY_BYTES_MIN);
        as_sent.then_some(mark)
    }

    /// What a body says, without a look at whether it is as it was sent.
    #[inline]
    // The fields are as wide as their types, or narrower.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn peek(self, body: &[u8]) -> Option<Mark> {
        let third = gather(body, 2)?;
        Some(Mark {
            due_us: gather(body, 0)?,
            number: gather(body, 1)?,
            publisher: (third >> 24) as u32,
            refusals: (third & 0x3f) as u8,
        })
    }

    fn words(self, mark: Mark, conversation: usize, bytes: usize) -> ([u64; 4], usize) {
        let third = u64::from(mark.publisher & 0xff_ffff) << 24
            | (bytes as u64 & 0x3_ffff) << 6
            | u64::from(mark.refusals & 0x3f);
        let place = mix(mix(self.run) ^ conversation as u64);
        let mixed = mix(mix(place ^ mark.due_us) ^ mark.number) ^ third;
        let check = mix(mixed) % CHECKS as u64;
        let words = [
            mark.due_us & 0xffff_ffff_ffff,
            mark.number & 0xffff_ffff_ffff,
            third,
            self.run << 18 | check,
        ];
        // Below `CHECKS`.
        #[allow(clippy::cast_possible_truncation)]
        let check = check as usize;
        (words, check)
    }
}

/// 48 bits as eight characters, the upper ones first.
#[inline]
const fn spread(word: u64) -> [u8; 8] {
    // Halves, quarters, eighths: each step moves the upper half of a group up to the next power of two.
    let word = (word & 0xffff_ff00_0000) << 8 | word & 0xff_ffff;
    let word = (word & 0x00ff_f000_00ff_f000) << 4 | word & 0x0000_0fff_0000_0fff;
    let word = (word & 0x0fc0_0fc0_0fc0_0fc0) << 2 | word & 0x003f_003f_003f_003f;
    (word + ZEROES).to_be_bytes()
}

/// The 48 bits of the eight characters at a place; none when they are not of ours.
#[inline]
fn gather(body: &[u8], place: usize) -> Option<u64> {
    let text = body.get(8 * place..)?.first_chunk::<8>()?;
    let word = u64::from_be_bytes(*text).wrapping_sub(ZEROES);
    if word & 0xc0c0_c0c0_c0c0_c0c0 != 0 {
        return None;
    }
    let word = (word & 0x3f00_3f00_3f00_3f00) >> 2 | word & 0x003f_003f_003f_003f;
    let word = (word & 0x0fff_0000_0fff_0000) >> 4 | word & 0x0000_0fff_0000_0fff;
    Some((word & 0x00ff_ffff_0000_0000) >> 8 | word & 0xff_ffff)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input changes half of the output.
#[inline]
pub(super) const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// So much of a text without repetition, from where the check says.
fn filler(check: usize, bytes: usize) -> &'static [u8] {
    static SOURCE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..(STARTS + BODY_BYTES_MAX_DEFAULT) as u64)
            .map(|place| b'0' + (mix(place) >> 58) as u8)
            .collect()
    });
    &SOURCE[check % STARTS..][..bytes]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODIES: Bodies = Bodies::of(0x1234_5678_9abc);
    const CONVERSATION: usize = 70_000;

    fn body(mark: Mark, bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        BODIES.put(&mut body, mark, CONVERSATION, bytes);
        body
    }

    proptest! {
        #[test]
        fn a_body_tells_what_was_put_into_it(
            due_us in 0_u64..1 << 48, number in 0_u64..1 << 48, publisher in 0_u32..1 << 24, refusals in 0_u8..64, bytes in 32_usize..5000
        ) {
            let mark = Mark { due_us, number, publisher, refusals };
            let body = body(mark, bytes);
            prop_assert_eq!(body.len(), bytes);
            prop_assert!(std::str::from_utf8(&body).is_ok());
            prop_assert_eq!(BODIES.read(&body, CONVERSATION), Some(mark));
            prop_assert_eq!(Bodies::of(7).read(&body, CONVERSATION), None, "another run");
        }
    }

    #[test]
    fn every_changed_byte_and_every_other_length_is_noticed() {
        let mark = Mark {
            due_us: 123_456_789,
            number: 77,
            publisher: 3,
            refusals: 0,
        };
        let sent = body(mark, 100);
        assert_eq!(BODIES.read(&sent, CONVERSATION), Some(mark));
        for place in 0..sent.len() {
            let mut changed = sent.clone();
            changed[place] ^= 1;
            assert_eq!(BODIES.read(&changed, CONVERSATION), None, "{place}");
        }
        for bytes in 0..100 {
            assert_eq!(BODIES.read(&sent[..bytes], CONVERSATION), None, "{bytes}");
        }
        assert_eq!(BODIES.read(&[&sent[..], b"x"].concat(), CONVERSATION), None);
        assert_eq!(
            BODIES.read(b"hello, everybody! this is no body of ours", CONVERSATION),
            None
        );
    }

    #[test]
    fn a_body_that_was_sent_to_another_conversation_is_noticed() {
        let mark = Mark {
            due_us: 123_456_789,
            number: 77,
            publisher: 3,
            refusals: 0,
        };
        let sent = body(mark, 32);
        for conversation in (0..1000).chain(CONVERSATION - 500..CONVERSATION) {
            assert_eq!(BODIES.read(&sent, conversation), None, "{conversation}");
        }
        assert_eq!(BODIES.peek(&sent), Some(mark));
    }

    #[test]
    fn sizes_are_a_number_or_a_range() {
        for text in ["100", "32..65536"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["", "31", "65537", "40..36", "a..b", "1e3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        let size: Size = "32..34".parse().unwrap();
        let picked: Vec<_> = (0..4).map(|random| size.pick(random)).collect();
        assert_eq!(picked, [32, 33, 34, 32]);
    }
}
