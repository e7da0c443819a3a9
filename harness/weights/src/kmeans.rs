//! Codebooks: deterministic k-means in one dimension.
//!
//! Values are sorted once. A cluster is then a run of them, its mean is a difference of prefix sums, and an iteration
//! costs k binary searches. Centroids start evenly spread between the smallest and the largest value, as in Deep
//! Compression (Han, Mao and Dally, 2016): there are few large weights and they matter, but starting from quantiles
//! would give them one centroid. zstd compresses the codes afterwards, so a value goes to the cluster where error plus
//! cost in bits is the least (entropy-constrained quantisation). At the same size the error is about a tenth smaller
//! than with the nearest centroid.

/// The most iterations. Lloyd's algorithm converges without this bound, but it may take long.
const ITERATIONS: usize = 100;

/// The cost of one bit of a code, as a share of the mean square of the values. With this cost 32 centroids have an
/// error of 3 % in a pruned gaussian matrix and take 3.7 bits a value.
const BIT: f64 = 7e-4;

#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    pub centroids: Vec<f32>,
    coding: Coding,
}

#[derive(Clone, Debug, PartialEq)]
enum Coding {
    /// The centroids are all values that occur, ascending.
    Exact,
    /// The largest value of each cluster but the last. With `zero`, the last centroid is for zeros alone.
    Clusters { tops: Vec<f32>, zero: bool },
}

impl Codebook {
    /// At most `size` (at least 2) centroids for finite values. Zero is a centroid if it is one of the values.
    pub fn of(values: &[f32], size: usize) -> Codebook {
        if let Some(centroids) = distinct(values, size) {
            return Codebook { centroids, coding: Coding::Exact };
        }
        let others: Vec<f32> = values.iter().copied().filter(|value| *value != 0.0).collect();
        let zero = others.len() < values.len();
        let (mut centroids, tops) = cluster(others, size - usize::from(zero));
        if zero {
            centroids.push(0.0);
        }
        Codebook { centroids, coding: Coding::Clusters { tops, zero } }
    }

    /// The index of the centroid for one of the codebook's values.
    pub fn code(&self, value: f32) -> u8 {
        let place = match &self.coding {
            Coding::Exact => self.centroids.partition_point(|centroid| centroid.total_cmp(&value).is_lt()),
            Coding::Clusters { zero: true, .. } if value == 0.0 => self.centroids.len() - 1,
            Coding::Clusters { tops, .. } => tops.partition_point(|top| *top < value),
        };
        place as u8
    }
}

/// The distinct values (by their bits) in ascending order; `None` if there are more than `most`.
pub fn distinct(values: &[f32], most: usize) -> Option<Vec<f32>> {
    let mut found: Vec<f32> = Vec::with_capacity(most);
    for value in values {
        if let Err(place) = found.binary_search_by(|known| known.total_cmp(value)) {
            if found.len() == most {
                return None;
            }
            found.insert(place, *value);
        }
    }
    Some(found)
}

/// The means of at most `k` clusters, and the largest value of each but the last, ascending.
fn cluster(mut values: Vec<f32>, k: usize) -> (Vec<f32>, Vec<f32>) {
    values.sort_unstable_by(f32::total_cmp);
    let (mut sums, mut squares) = (Vec::with_capacity(values.len() + 1), 0.0);
    let mut sum = 0.0f64;
    sums.push(sum);
    for value in values.iter().map(|value| f64::from(*value)) {
        sum += value;
        squares += value * value;
        sums.push(sum);
    }
    let count = values.len() as f64;
    let bit = BIT * squares / count;
    let (low, high) = (f64::from(values[0]), f64::from(values[values.len() - 1]));
    let place = |index: usize| low + (high - low) * index as f64 / (k - 1).max(1) as f64;
    let mut centroids: Vec<f64> = (0..k).map(place).collect();
    let mut bits = vec![0.0; k];
    let mut ends = Vec::new();
    for _ in 0..ITERATIONS {
        let mut new_ends: Vec<usize> = (1..centroids.len())
            .map(|above| {
                let (low, high) = (centroids[above - 1], centroids[above]);
                let middle = (low + high) / 2.0 + bit * (bits[above] - bits[above - 1]) / (2.0 * (high - low));
                values.partition_point(|value| f64::from(*value) <= middle)
            })
            .collect();
        new_ends.push(values.len());
        // Clusters without values are removed: no value is near them, or they are so costly that their neighbours meet.
        for index in (1..new_ends.len()).rev() {
            new_ends[index - 1] = new_ends[index - 1].min(new_ends[index]);
        }
        new_ends.dedup();
        if new_ends[0] == 0 {
            new_ends.remove(0);
        }
        if new_ends == ends {
            break;
        }
        ends = new_ends;
        let mut start = 0;
        (centroids, bits) = ends
            .iter()
            .map(|end| {
                let first = std::mem::replace(&mut start, *end);
                let members = (end - first) as f64;
                ((sums[*end] - sums[first]) / members, (count / members).log2())
            })
            .unzip();
    }
    let tops = ends[..ends.len() - 1].iter().map(|end| values[end - 1]).collect();
    (centroids.iter().map(|centroid| *centroid as f32).collect(), tops)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_values_are_their_own_codebook() {
        let values = [3.0, 1.0, 3.0, -2.0];
        let exact = Codebook::of(&values, 3);
        assert_eq!((&exact.coding, exact.centroids.as_slice()), (&Coding::Exact, &[-2.0, 1.0, 3.0][..]));
        assert_eq!(values.map(|value| exact.code(value)), [2, 1, 2, 0]);
        let zeros = Codebook::of(&[0.0, -0.0, f32::NAN], 3);
        assert_eq!([0.0, -0.0, f32::NAN].map(|value| zeros.code(value)), [1, 0, 2]);
        assert_eq!(Codebook::of(&[], 4).centroids, []);
        assert_ne!(Codebook::of(&values, 2).coding, Coding::Exact);
    }

    #[test]
    fn clusters_that_lie_apart_are_found() {
        let near = |centre: f32| (0..50).map(move |step| centre + step as f32 * 1e-3);
        let values: Vec<f32> = near(-5.0).chain(near(0.5)).chain(near(4.0)).chain([0.0; 9]).collect();
        let codebook = Codebook::of(&values, 4);
        for (centroid, centre) in codebook.centroids.iter().zip([-4.9755, 0.5245, 4.0245, 0.0]) {
            assert!((centroid - centre).abs() < 1e-4, "{codebook:?}");
        }
        assert_eq!([-5.0, 0.52, 4.03, 0.0, -0.0].map(|value| codebook.code(value)), [0, 1, 2, 3, 3]);
    }

    proptest! {
        #[test]
        fn order_is_kept_and_means_are_within(
            values in prop::collection::vec(prop_oneof![-1e3f32..1e3, Just(0.0), Just(3e38), Just(1e-40)], 1..300),
            size in 2usize..40,
        ) {
            let codebook = Codebook::of(&values, size);
            prop_assert!(!codebook.centroids.is_empty() && codebook.centroids.len() <= size);
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            // Zeros are left out: with one cluster for both sides of zero, their own centroid is not in order.
            sorted.retain(|value| *value != 0.0);
            prop_assume!(!sorted.is_empty());
            let centroid = |value: &f32| codebook.centroids[usize::from(codebook.code(*value))];
            let back: Vec<f32> = sorted.iter().map(centroid).collect();
            prop_assert!(back.is_sorted(), "{:?}", codebook);
            prop_assert!(back[0] >= sorted[0] && back[back.len() - 1] <= sorted[sorted.len() - 1]);
        }

        /// The bound is twice the largest error of an even grid of as many steps.
        #[test]
        fn errors_are_small_in_the_mean(values in prop::collection::vec(-1f32..1.0, 100..300)) {
            let codebook = Codebook::of(&values, 32);
            let error = |value: &f32| (codebook.centroids[usize::from(codebook.code(*value))] - value).powi(2);
            let rms = (values.iter().map(error).sum::<f32>() / values.len() as f32).sqrt();
            prop_assert!(rms < 2.0 / 31.0, "{}", rms);
        }
    }
}
