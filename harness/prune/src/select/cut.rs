//! Exactly which `k` of `n` scores are the smallest, whatever the ties.
//!
//! Two counting passes over 16 bits each find the k-th smallest score exactly, in memory that does not grow with the
//! model. Of equal scores the earlier ones count as smaller (by tensor, then by flat index), so that the same model
//! gives the same bytes everywhere.

/// The order of [`f32::total_cmp`], as unsigned integers.
pub fn key(score: f32) -> u32 {
    let bits = score.to_bits();
    // Of negative numbers all bits are flipped, as they grow downwards; of positive ones only the sign.
    bits ^ ((bits as i32 >> 31) as u32 | 0x8000_0000)
}

/// The score of a key.
pub fn score(key: u32) -> f32 {
    f32::from_bits(if key & 0x8000_0000 != 0 { key ^ 0x8000_0000 } else { !key })
}

/// Removes everything below `key`, and the first `ties` keys that equal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    key: u32,
    ties: u64,
}

impl Cut {
    pub const NOTHING: Cut = Cut { key: 0, ties: 0 };

    /// Removes everything below `key`.
    pub fn below(key: u32) -> Cut {
        Cut { key, ties: 0 }
    }

    /// The cut that removes exactly `k` of the keys that `visit` shows; `visit` is called twice and must show the same
    /// keys. `None` if there are fewer than `k`.
    pub fn smallest(k: u64, visit: impl Fn(&mut dyn FnMut(u32))) -> Option<Cut> {
        if k == 0 {
            return Some(Cut::NOTHING);
        }
        let mut counts = vec![0u64; 1 << 16];
        visit(&mut |key| counts[(key >> 16) as usize] += 1);
        let (high, rest) = bucket(&counts, k)?;

        counts.fill(0);
        visit(&mut |key| {
            if key >> 16 == high {
                counts[(key & 0xffff) as usize] += 1;
            }
        });
        let (low, ties) = bucket(&counts, rest)?;
        Some(Cut { key: high << 16 | low, ties })
    }

    /// Whether the next element is removed; has to be called for every element once, in order.
    pub fn removes(&mut self, key: u32) -> bool {
        if key < self.key {
            return true;
        }
        if key == self.key && self.ties > 0 {
            self.ties -= 1;
            return true;
        }
        false
    }
}

/// The bucket of the `k`-th smallest (from 1), and its rank in there.
fn bucket(counts: &[u64], mut k: u64) -> Option<(u32, u64)> {
    for (index, count) in counts.iter().enumerate() {
        if k <= *count {
            return Some((index as u32, k));
        }
        k -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_order_as_total_cmp(a: u32, b: u32) {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            prop_assert_eq!(key(a).cmp(&key(b)), a.total_cmp(&b));
            prop_assert_eq!(score(key(a)).to_bits(), a.to_bits());
        }

        /// Against a stable sort. Few distinct values, so that there are ties on both sides of the cut.
        #[test]
        fn the_same_as_sorting(
            scores in prop::collection::vec(prop_oneof![Just(0.0f32), Just(1.0), -3.0f32..3.0], 0..200),
            share in 0.0..=1.0f64,
        ) {
            let k = (share * scores.len() as f64).round() as usize;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            let mut expected = vec![false; scores.len()];
            order[..k].iter().for_each(|index| expected[*index] = true);

            let keys: Vec<u32> = scores.iter().map(|score| key(*score)).collect();
            let mut cut = Cut::smallest(k as u64, |show| keys.iter().for_each(|key| show(*key))).unwrap();
            let removed: Vec<bool> = keys.iter().map(|key| cut.removes(*key)).collect();
            prop_assert_eq!(removed, expected);
        }
    }

    #[test]
    fn more_than_there_are_is_none() {
        assert_eq!(Cut::smallest(3, |show| (0..2).for_each(show)), None);
    }
}
