//! Layer normalisation of panels: (x - mean) / sqrt(variance + epsilon) * scale + shift, over the features of each
//! token.
//!
//! Tokens lie side by side, so sums are of whole vectors. The variance is computed from the differences to the mean, in
//! a pass of its own: the mean of squares less the square of the mean loses all digits where the mean is large.

use std::ops::Range;

use crate::{
    linear_panels::{Panels, Target},
    share_out::in_parts,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

/// `scale` and `shift`: one value a feature.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    pub epsilon: f32,
}

impl LayerNorm {
    /// # Panics
    /// Unless every length is the one its shape asks for.
    pub fn run(&self, isa: Isa, threads: &Threads, panels: Panels, input: &[f32], output: &mut [f32]) {
        let features = self.scale.len();
        assert_eq!(self.shift.len(), features, "a shift for each scale");
        assert_eq!(input.len(), panels.values(features), "panels of {features} features");
        assert_eq!(output.len(), input.len(), "an output for each input");
        let target = Target::of(output);
        in_parts(threads, panels.count(), &|part| {
            // SAFETY: the processor has `isa`'s instructions; the lengths were checked, and panels are written once
            // each.
            unsafe { isa.run(Normalise { norm: self, panels, part, input, output: target.pointer() }) }
        });
    }
}

struct Normalise<'a> {
    norm: &'a LayerNorm,
    panels: Panels,
    /// The panels to normalise.
    part: Range<usize>,
    input: &'a [f32],
    output: *mut f32,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let features = self.norm.scale.len();
        for index in self.part.clone() {
            let panel = self.panels.get(index);
            let mut done = 0;
            while done < panel.width {
                let at = panel.column * features + done;
                let (input, output) = (self.input.as_ptr().add(at), self.output.add(at));
                if panel.width - done >= 4 * S::LANES {
                    columns::<S, 4>(self.norm, input, output, panel.width);
                    done += 4 * S::LANES;
                } else {
                    columns::<S, 1>(self.norm, input, output, panel.width);
                    done += S::LANES;
                }
            }
        }
    }
}

/// Normalises `C` vectors of tokens.
#[inline(always)]
unsafe fn columns<S: Simd, const C: usize>(norm: &LayerNorm, input: *const f32, output: *mut f32, stride: usize) {
    let features = norm.scale.len();
    let part = S::splat(1.0 / features as f32);
    let mut mean = [S::splat(0.0); C];
    for feature in 0..features {
        for vector in 0..C {
            mean[vector] = S::add(mean[vector], S::load(input.add(feature * stride + vector * S::LANES)));
        }
    }
    let mut variance = [S::splat(0.0); C];
    for vector in 0..C {
        mean[vector] = S::mul(mean[vector], part);
    }
    for feature in 0..features {
        for vector in 0..C {
            let away = S::sub(S::load(input.add(feature * stride + vector * S::LANES)), mean[vector]);
            variance[vector] = S::mul_add(away, away, variance[vector]);
        }
    }
    let mut factor = [S::splat(0.0); C];
    for vector in 0..C {
        let variance = S::mul_add(variance[vector], part, S::splat(norm.epsilon));
        factor[vector] = S::div(S::splat(1.0), S::sqrt(variance));
    }
    for feature in 0..features {
        let scale = S::splat(*norm.scale.as_ptr().add(feature));
        let shift = S::splat(*norm.shift.as_ptr().add(feature));
        for vector in 0..C {
            let place = feature * stride + vector * S::LANES;
            let away = S::sub(S::load(input.add(place)), mean[vector]);
            S::store(output.add(place), S::mul_add(S::mul(away, factor[vector]), scale, shift));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::synthetic;

    proptest! {
        #[test]
        fn rows_are_normalised(
            sequences in 1usize..3, tokens in 1usize..150, features in 2usize..70, mean in -20.0f32..20.0,
        ) {
            let panels = Panels::new(sequences, tokens);
            let rows: Vec<f32> = synthetic(panels.rows() * features, 1).iter().map(|value| value + mean).collect();
            let norm = LayerNorm { scale: synthetic(features, 2), shift: synthetic(features, 3), epsilon: 1e-5 };
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let mut input = vec![0.0; panels.columns() * features];
                    panels.enter(isa, features, &rows, &mut input);
                    let mut output = vec![f32::NAN; input.len()];
                    norm.run(isa, &Threads::new(threads), panels, &input, &mut output);
                    let mut found = vec![f32::NAN; rows.len()];
                    panels.leave(isa, features, &output, &mut found);
                    for (row, found) in rows.chunks(features).zip(found.chunks(features)) {
                        let count = features as f64;
                        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
                        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
                        let deviation = (variance + 1e-5).sqrt();
                        for (feature, (x, found)) in row.iter().zip(found).enumerate() {
                            let unit = (f64::from(*x) - mean) / deviation;
                            let exact = unit * f64::from(norm.scale[feature]) + f64::from(norm.shift[feature]);
                            // The rounding of the mean and of the differences to it.
                            let rounded = f64::from(f32::EPSILON) * (mean.abs() + variance.sqrt()) / deviation;
                            let (error, isa) = ((exact - f64::from(*found)).abs(), isa.name());
                            prop_assert!(error <= 1e-5 + 4.0 * rounded, "{isa} {feature}: {found}, not {exact}");
                        }
                    }
                }
            }
        }
    }
}
