//! How many there are of each: only what there are some of takes memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

/// See the module.
#[derive(Debug)]
pub struct Counts<K, S = ahash::RandomState>(HashMap<K, u32, S>);

impl<K: Eq + Hash, S: BuildHasher + Default> Default for Counts<K, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<K: Eq + Hash, S: BuildHasher> Counts<K, S> {
    /// None of any.
    #[must_use]
    pub fn with_hasher(hasher: S) -> Self {
        Self(HashMap::with_hasher(hasher))
    }

    /// How many there are of this one.
    #[must_use]
    pub fn get(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// One more; gives how many there were before.
    pub fn add(&mut self, key: K) -> u32 {
        let count = self.0.entry(key).or_default();
        *count += 1;
        *count - 1
    }

    /// One less, if there are any.
    pub fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_none_of_any_more_takes_no_memory() {
        let mut counts = Counts::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        assert_eq!(
            (counts.add("a"), counts.add("a"), counts.add("b")),
            (0, 1, 0)
        );
        counts.remove(&"b");
        counts.remove(&"b");
        assert_eq!((counts.get(&"a"), counts.get(&"b")), (2, 0));
        counts.remove(&"a");
        assert!(!counts.is_empty());
        counts.remove(&"a");
        assert!(counts.is_empty());
    }
}
