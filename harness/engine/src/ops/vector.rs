//! Sums over slices, vectorised by the compiler for the instructions that the processor has.

/// Lanes of one step: a few registers on any processor.
const LANES: usize = 32;

/// `target[i] = start + sum of weight * source[i + shift]`, for each tap.
pub fn sum_shifted(target: &mut [f32], start: f32, source: &[f32], taps: &[(f32, usize)]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let (blocks, rest) = target.as_chunks_mut::<LANES>();
            for (index, block) in blocks.iter_mut().enumerate() {
                let mut sums = [start; LANES];
                for (weight, shift) in taps {
                    let source = source[index * LANES + shift..].first_chunk::<LANES>().expect("sources are longer");
                    for lane in 0..LANES {
                        sums[lane] = f32::mul_add(*weight, source[lane], sums[lane]);
                    }
                }
                *block = sums;
            }
            let done = blocks.len() * LANES;
            for (index, target) in rest.iter_mut().enumerate() {
                *target = start;
                taps.iter().for_each(|(weight, shift)| *target += weight * source[done + index + shift]);
            }
        },
    );
}

/// `<a, b>` for two slices of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let (a, a_rest) = a.as_chunks::<LANES>();
            let (b, b_rest) = b.as_chunks::<LANES>();
            let mut sums = [0.0f32; LANES];
            for (a, b) in a.iter().zip(b) {
                for lane in 0..LANES {
                    sums[lane] = f32::mul_add(a[lane], b[lane], sums[lane]);
                }
            }
            let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
            sums.iter().sum::<f32>() + rest
        },
    )
}

/// The sum of a slice, in lanes: faster and more exact than one by one.
pub fn sum(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for block in blocks {
        for lane in 0..LANES {
            sums[lane] += block[lane];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}
