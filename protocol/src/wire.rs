//! Reading of protobuf's wire format without allocation: varints, tags, slices. What the fields mean is known elsewhere.

/// Most bytes of a varint: 10 × 7 bits hold 64.
const VARINT_BYTES_MAX: usize = 10;

/// Wire types of protobuf; the deprecated groups (3 and 4) and what was never assigned (6 and 7) are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Len,
    Fixed32,
}

/// The bytes are no protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A value or a length reaches beyond the end.
    #[error("a value is cut short")]
    Truncated,
    /// More than 64 bits.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// Field number 0 or above 2^29 - 1, or a wire type that is not in use.
    #[error("a field's tag is not valid")]
    Tag,
}

/// Reads one message's bytes from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    #[inline]
    pub(crate) fn tag(&mut self) -> Result<(u32, WireType), WireError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::Tag)?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Len,
            5 => WireType::Fixed32,
            _ => return Err(WireError::Tag),
        };
        match tag >> 3 {
            0 => Err(WireError::Tag),
            number => Ok((number, wire_type)),
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length and as many bytes.
    #[inline]
    pub(crate) fn len_prefixed(&mut self) -> Result<&'a [u8], WireError> {
        let bytes = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        self.take(bytes)
    }

    pub(crate) fn skip(&mut self, wire_type: WireType) -> Result<(), WireError> {
        match wire_type {
            WireType::Varint => self.varint().map(|_| ()),
            WireType::Fixed64 => self.take(8).map(|_| ()),
            WireType::Fixed32 => self.take(4).map(|_| ()),
            WireType::Len => self.len_prefixed().map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_hold_64_bits_and_no_more() {
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Reader::new(&most).varint(), Ok(u64::MAX));
        most[9] = 2;
        assert_eq!(Reader::new(&most).varint(), Err(WireError::Varint));
        assert_eq!(Reader::new(&[0x80; 11]).varint(), Err(WireError::Varint));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(WireError::Truncated));
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        for tag in [0x00, 0x0b, 0x0c, 0x0e, 0x0f] {
            assert_eq!(Reader::new(&[tag]).tag(), Err(WireError::Tag), "{tag:#x}");
        }
        assert_eq!(Reader::new(&[0x0a]).tag(), Ok((1, WireType::Len)));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(
            Reader::new(&[2, 0]).len_prefixed(),
            Err(WireError::Truncated)
        );
        let mut huge = vec![0xff; 9];
        huge.push(1);
        assert_eq!(Reader::new(&huge).len_prefixed(), Err(WireError::Truncated));
    }
}
