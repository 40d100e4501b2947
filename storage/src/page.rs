//! Where a page of events ends: one rule for every implementation.

/// Counts the bytes of a page. The first event always fits, the others while the sum stays within the limit.
pub(crate) struct Page {
    bytes_max: usize,
    bytes: usize,
    empty: bool,
}

impl Page {
    /// An empty page of at most `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            empty: true,
        }
    }

    /// Takes an event of this length in, or says that the page ends before it.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let sum = self.bytes.saturating_add(bytes);
        if !self.empty && sum > self.bytes_max {
            return false;
        }
        self.empty = false;
        self.bytes = sum;
        true
    }

    /// What is still free.
    pub(crate) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Whether nothing was taken in yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.empty
    }
}
