//! Element-wise functions, in place: on vectors for other kernels, on slices for ops.
//!
//! They are made of [`crate::activations`] and a similar erf. Errors are a few units in the last place, less than the
//! order of a sum changes.

use crate::{
    activations::{sigmoid, tanh},
    simd::{Isa, Kernel, Simd},
};

/// The function after a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    #[default]
    None,
    Relu,
    /// x Φ(x), by erf.
    Gelu,
    /// The approximation of GELU by tanh.
    GeluTanh,
    Tanh,
    Sigmoid,
    /// x sigmoid(x).
    Silu,
}

impl Activation {
    /// Applies the function to every value.
    pub fn apply(self, isa: Isa, values: &mut [f32]) {
        // SAFETY: the processor has `isa`'s instructions; the pointer is to that many values.
        unsafe { isa.run(Apply { activation: self, values: values.as_mut_ptr(), count: values.len() }) }
    }

    pub fn name(self) -> &'static str {
        match self {
            Activation::None => "none",
            Activation::Relu => "relu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu-tanh",
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Silu => "silu",
        }
    }

    /// The exact function, in double precision. Passes recognise activations by it, and tests compare the kernels with
    /// it.
    pub fn exact(self, x: f64) -> f64 {
        match self {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Gelu => 0.5 * x * (1.0 + erf_exact(x / std::f64::consts::SQRT_2)),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// erf by its Maclaurin series where that converges without cancellation, else by a continued fraction. Slow.
fn erf_exact(x: f64) -> f64 {
    let square = x * x;
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= 2.0 * square / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-square).exp() * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) * 0.5 / (x.abs() + fraction);
        }
        let rest = (-square).exp() / (std::f64::consts::PI.sqrt() * (x.abs() + fraction));
        (1.0 - rest).copysign(x)
    }
}

struct Apply {
    activation: Activation,
    values: *mut f32,
    count: usize,
}

impl Kernel for Apply {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        apply::<S>(self.activation, self.values, self.count)
    }
}

/// # Safety
/// There are `count` values.
#[inline(always)]
pub(crate) unsafe fn apply<S: Simd>(activation: Activation, values: *mut f32, count: usize) {
    match activation {
        Activation::None => {}
        Activation::Relu => each::<S, Relu>(values, count),
        Activation::Gelu => each::<S, Gelu>(values, count),
        Activation::GeluTanh => each::<S, GeluTanh>(values, count),
        Activation::Tanh => each::<S, Tanh>(values, count),
        Activation::Sigmoid => each::<S, Sigmoid>(values, count),
        Activation::Silu => each::<S, Silu>(values, count),
    }
}

/// A function as a type, so that a loop is compiled for it without closures.
trait Function {
    unsafe fn of<S: Simd>(x: S::V) -> S::V;
}

#[inline(always)]
unsafe fn each<S: Simd, F: Function>(values: *mut f32, count: usize) {
    let mut at = 0;
    // Two vectors at a time, so that their long chains of operations overlap.
    while at + 2 * S::LANES <= count {
        let (a, b) = (S::load(values.add(at)), S::load(values.add(at + S::LANES)));
        let (a, b) = (F::of::<S>(a), F::of::<S>(b));
        S::store(values.add(at), a);
        S::store(values.add(at + S::LANES), b);
        at += 2 * S::LANES;
    }
    while at < count {
        let some = S::LANES.min(count - at);
        let vector = S::load_partial(values.add(at), some);
        S::store_partial(values.add(at), F::of::<S>(vector), some);
        at += some;
    }
}

struct Relu;
impl Function for Relu {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        // In this order NaN stays NaN.
        S::max(S::splat(0.0), x)
    }
}

struct Gelu;
impl Function for Gelu {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        let erf = erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2)));
        let half = S::mul(x, S::splat(0.5));
        S::mul_add(half, erf, half)
    }
}

struct GeluTanh;
impl Function for GeluTanh {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        let cube = S::mul(S::mul(x, x), x);
        let inner = S::mul(S::mul_add(cube, S::splat(0.044_715), x), S::splat(0.797_884_6));
        let half = S::mul(x, S::splat(0.5));
        S::mul_add(half, tanh::<S>(inner), half)
    }
}

struct Tanh;
impl Function for Tanh {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        tanh::<S>(x)
    }
}

struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        sigmoid::<S>(x)
    }
}

struct Silu;
impl Function for Silu {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: S::V) -> S::V {
        S::mul(x, sigmoid::<S>(x))
    }
}

/// A quotient of polynomials in x², fitted to erf(x)/x on [0, 4] for the least relative error (3e-7 in f32). Beyond 4
/// it is 1.
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
pub unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    let size = S::abs(x);
    let square = S::mul(x, x);
    let mut above = S::splat(ERF_ABOVE[0]);
    for coefficient in &ERF_ABOVE[1..] {
        above = S::mul_add(above, square, S::splat(*coefficient));
    }
    let mut below = S::splat(ERF_BELOW[0]);
    for coefficient in &ERF_BELOW[1..] {
        below = S::mul_add(below, square, S::splat(*coefficient));
    }
    // In this order NaN stays NaN.
    let one = S::with_sign_of(S::splat(1.0), x);
    S::select_less(S::splat(ERF_RANGE), size, one, S::div(S::mul(above, x), below))
}

const ERF_RANGE: f32 = 4.0;
/// The highest power first.
const ERF_ABOVE: [f32; 6] =
    [1.986_801e-6, 2.845_576e-4, 3.883_072_9e-3, 5.310_090_6e-2, 1.935_390_7e-1, std::f32::consts::FRAC_2_SQRT_PI];
const ERF_BELOW: [f32; 6] = [3.741_993e-5, 1.185_501_2e-3, 1.520_671_1e-2, 1.153_474_8e-1, 5.048_521e-1, 1.0];

/// `to += from`.
///
/// # Safety
/// Both have `count` values.
#[inline(always)]
pub(crate) unsafe fn add<S: Simd>(to: *mut f32, from: *const f32, count: usize) {
    let mut at = 0;
    while at < count {
        let some = S::LANES.min(count - at);
        if some == S::LANES {
            S::store(to.add(at), S::add(S::load(to.add(at)), S::load(from.add(at))));
        } else {
            let sum = S::add(S::load_partial(to.add(at), some), S::load_partial(from.add(at), some));
            S::store_partial(to.add(at), sum, some);
        }
        at += some;
    }
}

/// `to += from`.
///
/// # Panics
/// Unless both have as many values.
pub fn sum(isa: Isa, to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len());
    // SAFETY: the processor has `isa`'s instructions; both are as long.
    unsafe { isa.run(Sum { to: to.as_mut_ptr(), from: from.as_ptr(), count: to.len() }) }
}

struct Sum {
    to: *mut f32,
    from: *const f32,
    count: usize,
}

impl Kernel for Sum {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        add::<S>(self.to, self.from, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_what_they_are() {
        let points: Vec<f32> =
            (-1400..1400).map(|point| point as f32 / 100.0 + 0.003).chain([0.0, -80.0, 90.0]).collect();
        let activations = [
            Activation::None,
            Activation::Relu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Tanh,
            Activation::Sigmoid,
            Activation::Silu,
        ];
        for isa in Isa::available() {
            for activation in activations {
                let mut values = points.clone();
                activation.apply(isa, &mut values);
                for (found, x) in values.iter().zip(&points) {
                    let exact = activation.exact(f64::from(*x));
                    let error = (f64::from(*found) - exact).abs();
                    // Where 1 + erf cancels, what is left is some units of 1's last place times x.
                    let allowed = 1e-6 * exact.abs().max(1.0);
                    assert!(error <= allowed, "{} {} of {x}: {found}, not {exact}", isa.name(), activation.name());
                }
            }
        }
    }

    #[test]
    fn relu_keeps_nan() {
        for isa in Isa::available() {
            let mut values = vec![f32::NAN; 35];
            Activation::Relu.apply(isa, &mut values);
            assert!(values.iter().all(|value| value.is_nan()));
        }
    }

    #[test]
    fn erf_is_that_of_the_tables() {
        for (x, erf) in [
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (2.0, 0.995_322_265),
            (3.0, 0.999_977_909_5),
        ] {
            assert!((erf_exact(x) - erf).abs() < 1e-9 && (erf_exact(-x) + erf).abs() < 1e-9, "{x}");
        }
    }
}
