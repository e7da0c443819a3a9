//! Sums of rows, for global average pools.

use crate::simd::{Isa, Kernel, Simd};

/// Writes the sum of each row. Values of a row are not added in their order.
///
/// # Panics
/// Unless the input is as many rows of one length as `sums` has places.
pub fn sums(isa: Isa, input: &[f32], sums: &mut [f32]) {
    let length = input.len() / sums.len().max(1);
    assert_eq!(input.len(), length * sums.len(), "rows of one length");
    // SAFETY: `isa` is this processor's.
    unsafe { isa.run(Sums { length, input, sums }) }
}

struct Sums<'a> {
    length: usize,
    input: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (index, sum) in self.sums.iter_mut().enumerate() {
            let row = &self.input[index * self.length..][..self.length];
            let mut total = S::splat(0.0);
            let mut at = 0;
            while at + S::LANES <= row.len() {
                total = S::add(total, S::load(row.as_ptr().add(at)));
                at += S::LANES;
            }
            total = S::add(total, S::load_partial(row.as_ptr().add(at), row.len() - at));
            *sum = S::sum(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed() {
        for length in [0, 1, 3, 4, 15, 16, 49, 196] {
            let input: Vec<f32> = (0..3 * length).map(|index| (index % 13) as f32).collect();
            let expected: Vec<f32> = (0..3).map(|row| input[row * length..][..length].iter().sum()).collect();
            for isa in Isa::available() {
                let mut found = [f32::NAN; 3];
                sums(isa, &input, &mut found);
                assert_eq!(found.as_slice(), expected, "{} {length}", isa.name());
            }
        }
    }
}
