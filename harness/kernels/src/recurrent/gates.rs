//! What a step does with its products: gates, cell, new state. One pass over the hidden units, all gates of a vector of
//! them at once.

use crate::{
    activations::{sigmoid, sigmoid_times_tanh, tanh},
    simd::{Isa, Kernel, Simd},
};

/// `products` is `[batch, 4 * hidden]` in the order input, output, forget, cell; `c` and `h` are `[batch, hidden]`.
pub(super) fn lstm(isa: Isa, hidden: usize, products: &[f32], c: &mut [f32], h: &mut [f32]) {
    assert!(c.len() == h.len() && products.len() == 4 * h.len());
    // SAFETY: a layer's instruction set was there when it was made; lengths are checked above.
    unsafe { isa.run(Lstm { hidden, products, c, h }) }
}

struct Lstm<'a> {
    hidden: usize,
    products: &'a [f32],
    c: &'a mut [f32],
    h: &'a mut [f32],
}

impl Kernel for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let hidden = self.hidden;
        for sample in 0..self.h.len() / hidden {
            let mut unit = 0;
            while unit < hidden {
                let count = S::LANES.min(hidden - unit);
                let (c, h) =
                    (self.c.as_mut_ptr().add(sample * hidden + unit), self.h.as_mut_ptr().add(sample * hidden + unit));
                let from = self.products.as_ptr().add(sample * 4 * hidden + unit);
                let (input, output) = (load::<S>(from, count), load::<S>(from.add(hidden), count));
                let forget = sigmoid::<S>(load::<S>(from.add(2 * hidden), count));
                let added = sigmoid_times_tanh::<S>(input, load::<S>(from.add(3 * hidden), count));
                let cell = S::mul_add(forget, load::<S>(c, count), added);
                store::<S>(c, cell, count);
                store::<S>(h, sigmoid_times_tanh::<S>(output, cell), count);
                unit += count;
            }
        }
    }
}

/// Writes the state with the reset gate applied: `products` is `[batch, 3 * hidden]` in the order update, reset,
/// hidden.
pub(super) fn reset(isa: Isa, hidden: usize, products: &[f32], h: &[f32], out: &mut [f32]) {
    assert!(out.len() == h.len() && products.len() == 3 * h.len());
    // SAFETY: as in `lstm`.
    unsafe { isa.run(Reset { hidden, products, h, out }) }
}

struct Reset<'a> {
    hidden: usize,
    products: &'a [f32],
    h: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Reset<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let hidden = self.hidden;
        for sample in 0..self.h.len() / hidden {
            let mut unit = 0;
            while unit < hidden {
                let count = S::LANES.min(hidden - unit);
                let at = sample * hidden + unit;
                let reset = self.products.as_ptr().add((sample * 3 + 1) * hidden + unit);
                let reset = sigmoid::<S>(load::<S>(reset, count));
                let state = load::<S>(self.h.as_ptr().add(at), count);
                store::<S>(self.out.as_mut_ptr().add(at), S::mul(reset, state), count);
                unit += count;
            }
        }
    }
}

/// Computes the new state. `products` has what the inputs contribute, and without `of_state` what the state contributes
/// as well. `of_state`, in the same order, is the contribution of the state where the reset gate applies to it.
pub(super) fn gru(isa: Isa, hidden: usize, products: &[f32], of_state: Option<&[f32]>, h: &mut [f32]) {
    assert!(products.len() == 3 * h.len());
    assert!(of_state.is_none_or(|of_state| of_state.len() == products.len()));
    // SAFETY: as in `lstm`.
    unsafe { isa.run(Gru { hidden, products, of_state, h }) }
}

struct Gru<'a> {
    hidden: usize,
    products: &'a [f32],
    of_state: Option<&'a [f32]>,
    h: &'a mut [f32],
}

impl Kernel for Gru<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let hidden = self.hidden;
        for sample in 0..self.h.len() / hidden {
            let mut unit = 0;
            while unit < hidden {
                let count = S::LANES.min(hidden - unit);
                let at = sample * 3 * hidden + unit;
                let from = self.products.as_ptr().add(at);
                let h = self.h.as_mut_ptr().add(sample * hidden + unit);
                let mut update = load::<S>(from, count);
                let mut candidate = load::<S>(from.add(2 * hidden), count);
                if let Some(of_state) = self.of_state {
                    let of_state = of_state.as_ptr().add(at);
                    update = S::add(update, load::<S>(of_state, count));
                    let reset = S::add(load::<S>(from.add(hidden), count), load::<S>(of_state.add(hidden), count));
                    let product = load::<S>(of_state.add(2 * hidden), count);
                    candidate = S::mul_add(sigmoid::<S>(reset), product, candidate);
                }
                let update = sigmoid::<S>(update);
                let candidate = tanh::<S>(candidate);
                let before = load::<S>(h, count);
                store::<S>(h, S::mul_add(update, S::sub(before, candidate), candidate), count);
                unit += count;
            }
        }
    }
}

/// A whole vector is loaded without a mask, which is faster on every processor.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32, count: usize) -> S::V {
    if count == S::LANES { S::load(from) } else { S::load_partial(from, count) }
}

#[inline(always)]
unsafe fn store<S: Simd>(to: *mut f32, vector: S::V, count: usize) {
    if count == S::LANES { S::store(to, vector) } else { S::store_partial(to, vector, count) }
}
