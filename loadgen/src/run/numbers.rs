//! Sets of numbers that come in rows, kept as ranges: a load that is refused from some message on names every one behind it.

use serde::{Deserialize, Serialize};

/// Numbers, as ranges from the first to the last of a row; the rows rise and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Takes one in.
    pub(super) fn insert(&mut self, number: u64) {
        self.insert_row(number, number);
    }

    /// Takes a row in, none of which is there.
    pub(super) fn insert_row(&mut self, first: u64, last: u64) {
        let place = self.0.partition_point(|(_, before)| *before < first);
        let behind = self.0.get(place).copied();
        if behind.is_some_and(|(start, _)| start <= first) {
            return;
        }
        let follows = place > 0 && self.0[place - 1].1 + 1 == first;
        let leads = behind.is_some_and(|(start, _)| last + 1 == start);
        match (follows, leads) {
            (true, true) => self.0[place - 1].1 = self.0.remove(place).1,
            (true, false) => self.0[place - 1].1 = last,
            (false, true) => self.0[place].0 = first,
            (false, false) => self.0.insert(place, (first, last)),
        }
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some(place) = self.row(number) else {
            return false;
        };
        let (first, last) = self.0[place];
        match (first == number, last == number) {
            (true, true) => drop(self.0.remove(place)),
            (true, false) => self.0[place].0 = number + 1,
            (false, true) => self.0[place].1 = number - 1,
            (false, false) => {
                self.0[place].0 = number + 1;
                self.0.insert(place, (first, number - 1));
            }
        }
        true
    }

    /// Whether it is there.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.row(number).is_some()
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// All of them, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The place of the row that holds it.
    fn row(&self, number: u64) -> Option<usize> {
        let place = self.0.partition_point(|(_, last)| *last < number);
        let (first, _) = self.0.get(place)?;
        (*first <= number).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(steps in proptest::collection::vec((0_u64..40, any::<bool>()), 0..200)) {
            let (mut numbers, mut set) = (Numbers::default(), BTreeSet::new());
            for (number, comes) in steps {
                if comes {
                    numbers.insert(number);
                    set.insert(number);
                } else {
                    prop_assert_eq!(numbers.remove(number), set.remove(&number));
                }
                prop_assert_eq!(numbers.len(), set.len() as u64);
                prop_assert!(numbers.iter().eq(set.iter().copied()));
                prop_assert!((0..41).all(|one| numbers.contains(one) == set.contains(&one)));
                prop_assert!(numbers.0.is_sorted_by(|(_, last), (first, _)| last + 1 < *first));
            }
        }
    }

    #[test]
    fn a_row_takes_the_room_of_one_range() {
        let mut numbers = Numbers::default();
        (1..=1_000_000).for_each(|number| numbers.insert(number));
        numbers.insert_row(1_000_001, 2_000_000);
        assert_eq!((numbers.0.len(), numbers.len()), (1, 2_000_000));
    }
}
