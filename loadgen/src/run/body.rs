//! Bodies of made messages: when each was to be sent, and filling up to the size that was asked for.

use std::str::FromStr;

use bytes::Bytes;
use rialto_protocol::limits::BODY_BYTES_MAX_DEFAULT;

/// Bytes of the time: microseconds in hexadecimal digits, because a body is text.
pub const BODY_BYTES_MIN: usize = 16;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes of a body: all alike, or evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Makes bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    size: Size,
    state: u64,
}

impl Bodies {
    /// Of this size; each publisher has its own seed.
    #[must_use]
    pub(super) const fn new(size: Size, seed: u64) -> Self {
        Self {
            size,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// The next body, which says when it was to be sent.
    pub(super) fn next(&mut self, at_us: u64) -> Bytes {
        let bytes = self.size.from + self.below(self.size.to - self.size.from + 1);
        let mut body = vec![b'.'; bytes];
        for (place, digit) in body[..BODY_BYTES_MIN].iter_mut().enumerate() {
            *digit = DIGITS[usize::from((at_us >> (60 - 4 * place) & 15) as u8)];
        }
        body.into()
    }

    /// Evenly spread below `bound`, by xorshift; the bound is far below what would show its bias.
    fn below(&mut self, bound: usize) -> usize {
        if bound == 1 {
            return 0;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // Below `bound`, which is a usize.
        #[allow(clippy::cast_possible_truncation)]
        let below = (self.state % bound as u64) as usize;
        below
    }
}

/// When a body says it was to be sent; none when it is none of ours.
#[must_use]
pub(super) fn sent_us(body: &[u8]) -> Option<u64> {
    body.get(..BODY_BYTES_MIN)?
        .iter()
        .try_fold(0, |time, digit| {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            Some(time << 4 | u64::from(digit))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_when_it_was_sent_and_has_the_size_asked_for() {
        let mut bodies = Bodies::new("16..40".parse().unwrap(), 7);
        let mut sizes = Vec::new();
        for at_us in (0..200).map(|power| u64::MAX.wrapping_sub(1 << (power % 64))) {
            let body = bodies.next(at_us);
            assert_eq!(sent_us(&body), Some(at_us));
            assert!(std::str::from_utf8(&body).is_ok());
            sizes.push(body.len());
        }
        assert_eq!(
            (sizes.iter().min(), sizes.iter().max()),
            (Some(&16), Some(&40))
        );
        assert_eq!(sent_us(b"0123"), None);
        assert_eq!(sent_us(b"hello, everybody!"), None);
    }

    #[test]
    fn sizes_are_a_number_or_a_range() {
        for text in ["100", "16..65536"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["", "15", "65537", "40..16", "a..b", "1e3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
