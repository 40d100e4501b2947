//! Which of its conversations a publisher writes to next.

use std::sync::Arc;

use super::body::mix;

/// Random numbers by given weights, each in a fixed time: the alias method (Walker 1974, in the form of Vose 1991).
#[derive(Clone, Debug, Default)]
pub(super) struct Weighted {
    /// For each number the chance, out of 2^32, that it is kept, and the one that is taken else.
    columns: Vec<(u32, u32)>,
}

impl Weighted {
    /// With these weights, of which there is one at least, all above 0.
    // Probabilities scaled to 32 bits, and places far below 2^32.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn new(weights: &[f64]) -> Self {
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|place| scaled[*place] < 1.0);
        let mut columns = vec![(u32::MAX, 0); weights.len()];
        for (place, column) in columns.iter_mut().enumerate() {
            column.1 = place as u32;
        }
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            columns[low] = ((scaled[low] * f64::from(u32::MAX)) as u32, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { columns }
    }

    /// By Zipf's law.
    pub(super) fn zipf(count: usize, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=count)
            .map(|rank| (rank as f64).powf(-exponent))
            .collect();
        Self::new(&weights)
    }

    /// The number that 64 random bits pick.
    #[inline]
    // The upper half picks the column, the lower half decides in it.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn pick(&self, random: u64) -> usize {
        let column = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (kept, other) = self.columns[column];
        if random as u32 <= kept {
            column
        } else {
            other as usize
        }
    }
}

/// Conversations of one part, as one publisher has them.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    /// One after the other.
    Round {
        /// The next one.
        next: usize,
    },
    /// By a law over the ranks of all threads: those below `hot` are everybody's, of the others each publisher has every
    /// `stride`-th.
    Law {
        law: Arc<Weighted>,
        hot: usize,
        stride: usize,
    },
}

/// A publisher's conversations: parts after each other.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    shares: Weighted,
    parts: Vec<(usize, usize, Turn)>,
    random: u64,
}

impl Choice {
    /// Among parts, each with its share, its number of conversations and their turn; every part has one at least.
    pub(super) fn new(parts: Vec<(f64, usize, Turn)>, seed: u64) -> Self {
        let shares: Vec<f64> = parts.iter().map(|(share, ..)| *share).collect();
        let mut start = 0;
        let parts = parts
            .into_iter()
            .map(|(_, count, turn)| {
                start += count;
                (start - count, count, turn)
            })
            .collect();
        Self {
            shares: Weighted::new(&shares),
            parts,
            random: mix(seed),
        }
    }

    /// 64 random bits.
    #[inline]
    pub(super) const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random)
    }

    /// The place of the next one among all of the publisher's.
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        let part = if self.parts.len() == 1 {
            0
        } else {
            let random = self.random();
            self.shares.pick(random)
        };
        let random = self.random();
        let (start, count, turn) = &mut self.parts[part];
        let place = match turn {
            Turn::Round { next } => {
                let place = *next;
                *next = if place + 1 == *count { 0 } else { place + 1 };
                place
            }
            Turn::Law { law, hot, stride } => {
                let rank = law.pick(random);
                let place = if rank < *hot {
                    rank
                } else {
                    *hot + (rank - *hot) / *stride
                };
                place.min(*count - 1)
            }
        };
        *start + place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(picks: impl Iterator<Item = usize>, places: usize) -> Vec<usize> {
        let mut counts = vec![0; places];
        picks.for_each(|place| counts[place] += 1);
        counts
    }

    #[test]
    fn numbers_come_by_their_weights() {
        let weighted = Weighted::new(&[1.0, 2.0, 5.0, 2.0]);
        let counts = counted((0..100_000).map(|step| weighted.pick(mix(step))), 4);
        for (count, expected) in counts.iter().zip([10_000, 20_000, 50_000, 20_000]) {
            assert!(
                usize::abs_diff(*count, expected) < expected / 20,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn zipf_gives_the_second_half_of_what_the_first_gets() {
        let law = Weighted::zipf(1000, 1.0);
        let counts = counted((0..200_000).map(|step| law.pick(mix(step))), 1000);
        // 1/H(1000) = 0.1336 of all.
        assert!((26_000..27_500).contains(&counts[0]), "{}", counts[0]);
        assert!((13_000..13_800).contains(&counts[1]), "{}", counts[1]);
        assert!(counts[100..].iter().sum::<usize>() > 50_000);
    }

    #[test]
    fn parts_get_their_shares_and_rounds_go_round() {
        let law = Arc::new(Weighted::zipf(10, 1.0));
        let turn = Turn::Law {
            law,
            hot: 2,
            stride: 4,
        };
        let mut choice = Choice::new(vec![(3.0, 5, Turn::Round { next: 0 }), (1.0, 4, turn)], 1);
        let counts = counted((0..40_000).map(|_| choice.next()), 9);
        for count in &counts[..5] {
            assert!(usize::abs_diff(*count, 6000) < 300, "{counts:?}");
        }
        // Ranks 0 and 1 are their own places; 2 to 5 and 6 to 9 share one each.
        assert!(
            counts[5] > counts[6] && counts[7] > counts[8] && counts[8] > 0,
            "{counts:?}"
        );
        let mut alone = Choice::new(vec![(1.0, 3, Turn::Round { next: 0 })], 1);
        let places: Vec<usize> = (0..5).map(|_| alone.next()).collect();
        assert_eq!(places, [0, 1, 2, 0, 1]);
    }
}
