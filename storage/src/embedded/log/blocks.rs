//! Memory for direct I/O: it begins at a multiple of a block, as files opened past the page cache want it.

use std::ops::{Deref, DerefMut};

/// Of what direct I/O reads and writes, addresses, offsets and lengths are multiples of this: what file systems and disks ask
/// for as a rule (Linux, `open(2)`, `O_DIRECT`: the block size of the device, 512 or 4096).
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Bytes in memory that begins at a multiple of [`BLOCK_BYTES`].
#[derive(Default)]
pub(crate) struct Blocks {
    memory: Vec<u8>,
    /// Where in it the bytes begin.
    start: usize,
    length: usize,
}

impl Blocks {
    /// So many bytes; those that were not there before are zero or left over from earlier use.
    pub(super) fn set_len(&mut self, bytes: usize) {
        self.make_room(bytes);
        self.length = bytes;
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.make_room(end);
        let behind = self.start + self.length;
        self.memory[behind..behind + bytes.len()].copy_from_slice(bytes);
        self.length = end;
    }

    /// Fills the last block up with zeroes.
    pub(super) fn pad(&mut self) {
        let zeroes = [0; BLOCK_BYTES];
        let missing = self.length.next_multiple_of(BLOCK_BYTES) - self.length;
        self.extend_from_slice(&zeroes[..missing]);
    }

    /// Keeps what stands in this range, at the beginning.
    pub(super) fn keep(&mut self, range: std::ops::Range<usize>) {
        let kept = range.len();
        self.copy_within(range, 0);
        self.length = kept;
    }

    /// Gives memory back beyond so many bytes, when there is nothing in it.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if self.memory.len() > bytes + BLOCK_BYTES && self.length <= bytes {
            let kept = self.to_vec();
            *self = Self::default();
            self.extend_from_slice(&kept);
        }
    }

    fn make_room(&mut self, bytes: usize) {
        if self.start + bytes <= self.memory.len() {
            return;
        }
        let grown = bytes.max(2 * self.memory.len().saturating_sub(BLOCK_BYTES));
        let mut memory = vec![0; grown + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        memory[start..start + self.length].copy_from_slice(self);
        (self.memory, self.start) = (memory, start);
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(blocks: &Blocks) -> bool {
        blocks.as_ptr().align_offset(BLOCK_BYTES) == 0
    }

    #[test]
    fn bytes_stay_aligned_and_as_they_are_while_the_memory_grows() {
        let mut blocks = Blocks::default();
        let mut expected = Vec::new();
        for round in 1_u8..200 {
            let bytes = vec![round; 97 * usize::from(round)];
            blocks.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            assert!(is_aligned(&blocks) && *blocks == *expected);
        }
    }

    #[test]
    fn the_last_block_is_filled_up_with_zeroes_whatever_stood_there() {
        let mut blocks = Blocks::default();
        blocks.extend_from_slice(&[7; 3 * BLOCK_BYTES]);
        blocks.keep(1..BLOCK_BYTES + 2);
        blocks.pad();
        assert_eq!(blocks.len(), 2 * BLOCK_BYTES);
        assert_eq!(blocks[BLOCK_BYTES], 7);
        assert!(blocks[BLOCK_BYTES + 1..].iter().all(|byte| *byte == 0));
        blocks.pad();
        assert_eq!(blocks.len(), 2 * BLOCK_BYTES);
    }

    #[test]
    fn memory_is_given_back_and_what_is_in_use_stays() {
        let mut blocks = Blocks::default();
        blocks.set_len(1 << 20);
        blocks.keep(0..0);
        blocks.extend_from_slice(b"kept");
        blocks.shrink_to(BLOCK_BYTES);
        assert!(blocks.memory.len() <= 2 * BLOCK_BYTES);
        assert!(is_aligned(&blocks) && *blocks == *b"kept");
    }
}
