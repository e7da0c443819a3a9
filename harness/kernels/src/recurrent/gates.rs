//! What a step does with its products: gates, cell, new state. One pass over the hidden units, with all gates of a
//! vector of units at once.

use crate::{
    activations::{sigmoid, sigmoid_times_tanh, tanh},
    simd::{Isa, Kernel, Simd},
};

/// The computation for `count` units of a sample from `unit` on. Slices of units are `[batch, gates * hidden]`.
trait Gates {
    unsafe fn units<S: Simd>(&mut self, sample: usize, unit: usize, count: usize);
}

struct AllUnits<G> {
    gates: G,
    samples: usize,
    hidden: usize,
}

impl<G: Gates> Kernel for AllUnits<G> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        for sample in 0..self.samples {
            let mut unit = 0;
            while unit < self.hidden {
                let count = S::LANES.min(self.hidden - unit);
                self.gates.units::<S>(sample, unit, count);
                unit += count;
            }
        }
    }
}

/// `products` is `[batch, 4 * hidden]` in the order input, output, forget, cell; `c` and `h` are `[batch, hidden]`.
pub(super) fn lstm(isa: Isa, hidden: usize, products: &[f32], c: &mut [f32], h: &mut [f32]) {
    assert!(c.len() == h.len() && products.len() == 4 * h.len());
    let samples = h.len() / hidden;
    // SAFETY: the lengths are checked.
    unsafe { isa.run(AllUnits { gates: Lstm { hidden, products, c, h }, samples, hidden }) }
}

struct Lstm<'a> {
    hidden: usize,
    products: &'a [f32],
    c: &'a mut [f32],
    h: &'a mut [f32],
}

impl Gates for Lstm<'_> {
    #[inline(always)]
    unsafe fn units<S: Simd>(&mut self, sample: usize, unit: usize, count: usize) {
        let (hidden, at) = (self.hidden, sample * self.hidden + unit);
        let (c, h) = (self.c.as_mut_ptr().add(at), self.h.as_mut_ptr().add(at));
        let from = self.products.as_ptr().add(sample * 4 * hidden + unit);
        let (input, output) = (load::<S>(from, count), load::<S>(from.add(hidden), count));
        let forget = sigmoid::<S>(load::<S>(from.add(2 * hidden), count));
        let added = sigmoid_times_tanh::<S>(input, load::<S>(from.add(3 * hidden), count));
        let cell = S::mul_add(forget, load::<S>(c, count), added);
        store::<S>(c, cell, count);
        store::<S>(h, sigmoid_times_tanh::<S>(output, cell), count);
    }
}

/// Writes the state with the reset gate applied to `out`. `products` is `[batch, 3 * hidden]` in the order update,
/// reset, hidden.
pub(super) fn reset(isa: Isa, hidden: usize, products: &[f32], h: &[f32], out: &mut [f32]) {
    assert!(out.len() == h.len() && products.len() == 3 * h.len());
    // SAFETY: the lengths are checked.
    unsafe { isa.run(AllUnits { gates: Reset { hidden, products, h, out }, samples: h.len() / hidden, hidden }) }
}

struct Reset<'a> {
    hidden: usize,
    products: &'a [f32],
    h: &'a [f32],
    out: &'a mut [f32],
}

impl Gates for Reset<'_> {
    #[inline(always)]
    unsafe fn units<S: Simd>(&mut self, sample: usize, unit: usize, count: usize) {
        let at = sample * self.hidden + unit;
        let reset = self.products.as_ptr().add((sample * 3 + 1) * self.hidden + unit);
        let reset = sigmoid::<S>(load::<S>(reset, count));
        let state = load::<S>(self.h.as_ptr().add(at), count);
        store::<S>(self.out.as_mut_ptr().add(at), S::mul(reset, state), count);
    }
}

/// Computes the new state. `products` has what the inputs contribute, and without `of_state` what the state contributes
/// as well. `of_state`, in the same order, is the contribution of the state where the reset gate applies to it.
pub(super) fn gru(isa: Isa, hidden: usize, products: &[f32], of_state: Option<&[f32]>, h: &mut [f32]) {
    assert!(products.len() == 3 * h.len());
    assert!(of_state.is_none_or(|of_state| of_state.len() == products.len()));
    let samples = h.len() / hidden;
    // SAFETY: the lengths are checked.
    unsafe { isa.run(AllUnits { gates: Gru { hidden, products, of_state, h }, samples, hidden }) }
}

struct Gru<'a> {
    hidden: usize,
    products: &'a [f32],
    of_state: Option<&'a [f32]>,
    h: &'a mut [f32],
}

impl Gates for Gru<'_> {
    #[inline(always)]
    unsafe fn units<S: Simd>(&mut self, sample: usize, unit: usize, count: usize) {
        let (hidden, at) = (self.hidden, sample * 3 * self.hidden + unit);
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
    }
}

/// Loads a whole vector without a mask, which is faster on every processor.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32, count: usize) -> S::V {
    if count == S::LANES { S::load(from) } else { S::load_partial(from, count) }
}

#[inline(always)]
unsafe fn store<S: Simd>(to: *mut f32, vector: S::V, count: usize) {
    if count == S::LANES { S::store(to, vector) } else { S::store_partial(to, vector, count) }
}
