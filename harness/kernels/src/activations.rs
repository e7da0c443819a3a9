//! exp, sigmoid and tanh on vectors, for gates and softmaxes.
//!
//! All come from one polynomial for `e^r - 1` on |r| <= ln 2 / 2. It is exact to the last bit or two near zero as well,
//! so tanh of a small value loses no digits to a subtraction. The relative error is below 4e-7 (the tests measure it
//! against f64). NaN stays NaN.

use crate::simd::Simd;

/// `e^x` of a larger magnitude is no normal number, or close to infinity.
const LARGEST: f32 = 87.0;
/// From here on tanh is 1 to the last bit.
const TANH_IS_ONE: f32 = 9.1;

/// `x` as `n ln 2 + r`: `2^n` and `e^r - 1`.
///
/// # Safety
/// As for [`Simd`]; `|x|` is at most 87.
#[inline(always)]
unsafe fn split_exp<S: Simd>(x: S::V) -> (S::V, S::V) {
    // ln 2 in two parts. The first has so few digits that n times it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::mul_add(n, S::splat(-LN_2_HIGH), x);
    let r = S::mul_add(n, S::splat(-LN_2_LOW), r);
    // The Taylor series of e^r - 1 up to r^7 / 7!; the remainder is 2e-8 of the value.
    let mut sum = S::splat(1.0 / 5040.0);
    sum = S::mul_add(sum, r, S::splat(1.0 / 720.0));
    sum = S::mul_add(sum, r, S::splat(1.0 / 120.0));
    sum = S::mul_add(sum, r, S::splat(1.0 / 24.0));
    sum = S::mul_add(sum, r, S::splat(1.0 / 6.0));
    sum = S::mul_add(sum, r, S::splat(0.5));
    (S::exp2_whole(n), S::mul_add(S::mul(sum, r), r, r))
}

/// `e^x`, with `x` clamped to [-87, 87].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // In this order NaN stays NaN.
    let x = S::max(S::splat(-LARGEST), S::min(S::splat(LARGEST), x));
    let (power, rest) = split_exp::<S>(x);
    S::mul_add(power, rest, power)
}

/// `1 / (1 + e^-x)`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
}

/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    let x = S::max(S::splat(-TANH_IS_ONE), S::min(S::splat(TANH_IS_ONE), x));
    let (power, rest) = split_exp::<S>(S::add(x, x));
    // E = e^2x - 1, and tanh x = E / (E + 2).
    let e = S::mul_add(power, rest, S::sub(power, S::splat(1.0)));
    S::div(e, S::add(e, S::splat(2.0)))
}

/// `sigmoid(a) * tanh(b)` with one division.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn sigmoid_times_tanh<S: Simd>(a: S::V, b: S::V) -> S::V {
    let b = S::max(S::splat(-TANH_IS_ONE), S::min(S::splat(TANH_IS_ONE), b));
    let (power, rest) = split_exp::<S>(S::add(b, b));
    let e = S::mul_add(power, rest, S::sub(power, S::splat(1.0)));
    // Where the product overflows to infinity the quotient is 0, which is right to a few bits.
    let below = S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), a)));
    S::div(e, S::mul(below, S::add(e, S::splat(2.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Activation {
        Exp,
        Sigmoid,
        Tanh,
    }

    struct Apply<'a> {
        activation: Activation,
        values: &'a mut [f32],
    }

    impl Kernel for Apply<'_> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for values in self.values.chunks_mut(S::LANES) {
                let count = values.len();
                // SAFETY: the chunk has `count` values.
                unsafe {
                    let x = S::load_partial(values.as_ptr(), count);
                    let y = match self.activation {
                        Activation::Exp => exp::<S>(x),
                        Activation::Sigmoid => sigmoid::<S>(x),
                        Activation::Tanh => tanh::<S>(x),
                    };
                    S::store_partial(values.as_mut_ptr(), y, count);
                }
            }
        }
    }

    fn apply(isa: Isa, activation: Activation, values: &mut [f32]) {
        // SAFETY: the processor has the instructions.
        unsafe { isa.run(Apply { activation, values }) }
    }

    #[track_caller]
    fn check(activation: Activation, exact: impl Fn(f64) -> f64, tolerance: f64) {
        let mut inputs: Vec<f32> = (-40_000..=40_000).map(|step| step as f32 * 0.002).collect();
        inputs.extend((-40..0).flat_map(|power| [2f32.powi(power), -1.7 * 2f32.powi(power)]));
        for isa in Isa::available() {
            let mut outputs = inputs.clone();
            apply(isa, activation, &mut outputs);
            for (x, y) in inputs.iter().zip(&outputs) {
                let exact = exact(f64::from(*x));
                // Some processors flush denormals to zero.
                let error = (f64::from(*y) - exact).abs() / exact.abs().max(1e-30);
                assert!(error <= tolerance, "{activation:?} of {x} is {y} with {}, off by {error:e} of it", isa.name());
            }
        }
    }

    #[test]
    fn exact_to_some_bits() {
        check(Activation::Exp, f64::exp, 4e-7);
        check(Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 4e-7);
        check(Activation::Tanh, f64::tanh, 4e-7);
    }

    #[test]
    fn the_ends_of_the_line() {
        for isa in Isa::available() {
            for (activation, lowest, highest) in
                [(Activation::Exp, 0.0, 6.1e37), (Activation::Sigmoid, 0.0, 1.0), (Activation::Tanh, -1.0, 1.0)]
            {
                let mut values = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, f32::MIN, f32::MAX];
                apply(isa, activation, &mut values);
                let close = |value: f32, limit: f32| (value - limit).abs() <= 1e-6 * limit.abs().max(1.0);
                let [least, most, nan, min, max] = values;
                assert!(close(least, lowest) && close(min, lowest), "{activation:?} {} {values:?}", isa.name());
                assert!(nan.is_nan(), "{activation:?} {} {values:?}", isa.name());
                if activation != Activation::Exp {
                    assert!(close(most, highest) && close(max, highest), "{activation:?} {} {values:?}", isa.name());
                }
            }
        }
    }
}
