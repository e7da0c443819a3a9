//! Depthwise convolution: every channel of the input is a plane with a small window of its own. Bias, residual and
//! clamp are applied in the same pass.
//!
//! Planes are read in place. Loads mask off what would be padding ([`Simd::load_between`]), so nothing is copied first.
//! Work goes down a strip of [`Simd::LANES`] columns. For 3x3 each row of the input is read once and used for three
//! rows of the output: three loads for nine multiplications, so that the multipliers are the bottleneck.

use std::ptr;

use crate::{
    convolution_window::{Axis, Window},
    share_out::share_out,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

/// A depthwise convolution over one image, ready to run.
#[derive(Clone, Debug)]
pub struct Depthwise {
    isa: Isa,
    window: Window,
    /// Rows of taps, one channel after another.
    weights: Vec<f32>,
    bias: Vec<f32>,
    clamp: (f32, f32),
}

impl Depthwise {
    /// `weights` are `channels` windows, row by row; `bias` has one value a channel. `None` for a stride of more than
    /// two columns, or a window that is not [`Window::is_countable`].
    ///
    /// # Panics
    /// Where the lengths do not match.
    pub fn new(isa: Isa, window: Window, weights: Vec<f32>, bias: Vec<f32>, clamp: (f32, f32)) -> Option<Depthwise> {
        if !window.is_countable() || window.width.stride > 2 {
            return None;
        }
        let weights_of = |channels: usize| channels.checked_mul(window.taps());
        assert_eq!(Some(weights.len()), weights_of(bias.len()), "a window of weights for each channel");
        Some(Depthwise { isa, window, weights, bias, clamp })
    }

    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// # Panics
    /// Unless each slice has the planes of all channels.
    pub fn run(&self, threads: &Threads, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) {
        let (inputs, outputs) = (self.window.inputs(), self.window.outputs());
        assert_eq!(input.len(), self.channels() * inputs, "all of the input");
        assert_eq!(output.len(), self.channels() * outputs, "all of the output");
        assert!(residual.is_none_or(|residual| residual.len() == output.len()), "a residual for each output");
        share_out(threads, output, outputs, &|channels, output| {
            let input = &input[channels.start * inputs..channels.end * inputs];
            let residual = residual.map(|residual| &residual[channels.start * outputs..channels.end * outputs]);
            self.run_channels(channels.start, channels.len(), input, residual, output);
        });
    }

    /// Computes `count` channels from `first` on, whose planes the slices are.
    fn run_channels(&self, first: usize, count: usize, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) {
        assert!(first + count <= self.channels());
        assert!(input.len() == count * self.window.inputs() && output.len() == count * self.window.outputs());
        assert!(residual.is_none_or(|residual| residual.len() == output.len()));
        let residual = residual.map_or(ptr::null(), <[f32]>::as_ptr);
        let task = Task { depthwise: self, first, count, input: input.as_ptr(), residual, output: output.as_mut_ptr() };
        // SAFETY: `isa` came from this processor; the lengths are checked above.
        unsafe { self.isa.run(task) }
    }
}

struct Task<'a> {
    depthwise: &'a Depthwise,
    first: usize,
    count: usize,
    input: *const f32,
    /// Null without one.
    residual: *const f32,
    output: *mut f32,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Depthwise { window, weights, bias, clamp, .. } = self.depthwise;
        let (width, height) = (window.width, window.height);
        let small = width.kernel == 3 && height.kernel == 3 && width.dilation == 1 && height.dilation == 1;
        // Narrow planes leave half of a wide vector empty: it takes two channels.
        let paired = small && width.stride == 1 && height.stride == 1 && S::LANES == 16 && width.output <= S::LANES / 2;
        let pairs = if paired { self.count / 2 } else { 0 };
        for pair in 0..pairs {
            self.pair::<S>(2 * pair);
        }
        for index in 2 * pairs..self.count {
            let channel = self.first + index;
            let plane = Plane::<S> {
                width,
                height,
                input: self.input.add(index * window.inputs()),
                residual: if self.residual.is_null() {
                    self.residual
                } else {
                    self.residual.add(index * window.outputs())
                },
                output: self.output.add(index * window.outputs()),
                weights: weights.as_ptr().add(channel * window.taps()),
                bias: S::splat(bias[channel]),
                low: S::splat(clamp.0),
                high: S::splat(clamp.1),
            };
            let mut column = 0;
            while column < width.output {
                match (small, width.stride, height.stride) {
                    (true, 1, 1) => plane.three_by_three(column),
                    (true, 2, 2) => plane.three_by_three_halved(column),
                    (_, 1, _) => plane.any::<1>(column),
                    _ => plane.any::<2>(column),
                }
                column += S::LANES;
            }
        }
    }
}

impl Task<'_> {
    /// [`Plane::three_by_three`] for two channels, one in each half of the lanes.
    #[inline(always)]
    unsafe fn pair<S: Simd>(&self, index: usize) {
        let Depthwise { window, weights, bias, clamp, .. } = self.depthwise;
        let (width, height, half) = (window.width, window.height, S::LANES / 2);
        let channel = self.first + index;
        let inputs = [0, 1].map(|second| self.input.add((index + second) * window.inputs()));
        let outputs = [0, 1].map(|second| self.output.add((index + second) * window.outputs()));
        let bias = S::halves(bias[channel], bias[channel + 1]);
        let (low, high) = (S::splat(clamp.0), S::splat(clamp.1));
        let weights = weights.as_ptr().add(channel * 9);
        let mut taps = [bias; 9];
        for tap in 0..9 {
            taps[tap] = S::halves(*weights.add(tap), *weights.add(9 + tap));
        }
        let first = -(width.before as isize);
        let mut inside = [(0, 0); 3];
        for tap in 0..3 {
            let column = first + tap as isize;
            let end = (width.input as isize - column).clamp(0, half as isize) as usize;
            inside[tap] = ((-column).clamp(0, end as isize) as usize, end);
        }
        let (mut oldest, mut middle, mut newest) = (bias, bias, bias);
        for step in 0..height.output + 2 {
            let row = step as isize - height.before as isize;
            if row >= 0 && row < height.input as isize {
                let at = row * width.input as isize + first;
                for tap in 0..3 {
                    let (begin, end) = inside[tap];
                    let from = at + tap as isize;
                    let value = S::load_between(inputs[0].wrapping_offset(from), begin, end);
                    let second = inputs[1].wrapping_offset(from - half as isize);
                    let value = S::load_onto(value, second, half + begin, half + end);
                    oldest = S::mul_add(taps[6 + tap], value, oldest);
                    middle = S::mul_add(taps[3 + tap], value, middle);
                    newest = S::mul_add(taps[tap], value, newest);
                }
            }
            if step >= 2 {
                let (at, count) = ((step - 2) * width.output, width.output);
                let mut sum = oldest;
                if !self.residual.is_null() {
                    let residual = self.residual.add(index * window.outputs() + at);
                    let more = S::load_between(residual, 0, count);
                    let second = residual.wrapping_add(window.outputs()).wrapping_sub(half);
                    sum = S::add(sum, S::load_onto(more, second, half, half + count));
                }
                let sum = S::min(S::max(sum, low), high);
                S::store_between(outputs[0].add(at), sum, 0, count);
                S::store_between(outputs[1].add(at).wrapping_sub(half), sum, half, half + count);
            }
            (oldest, middle, newest) = (middle, newest, bias);
        }
    }
}

struct Plane<S: Simd> {
    width: Axis,
    height: Axis,
    input: *const f32,
    residual: *const f32,
    output: *mut f32,
    weights: *const f32,
    bias: S::V,
    low: S::V,
    high: S::V,
}

/// Which lanes of a load are inside the row.
#[derive(Clone, Copy)]
struct Lanes {
    first: usize,
    end: usize,
}

impl<S: Simd> Plane<S> {
    /// For a vector that begins at `column` of a row; `column` may be outside of it.
    #[inline(always)]
    fn lanes(&self, column: isize) -> Lanes {
        let end = (self.width.input as isize - column).clamp(0, S::LANES as isize) as usize;
        let first = (-column).clamp(0, end as isize) as usize;
        Lanes { first, end }
    }

    #[inline(always)]
    unsafe fn load(&self, row: *const f32, column: isize, lanes: Lanes) -> S::V {
        S::load_between(row.wrapping_offset(column), lanes.first, lanes.end)
    }

    /// The vector of a row for one tap: columns `STRIDE * x + column` for the outputs `x` of a strip.
    #[inline(always)]
    unsafe fn tap<const STRIDE: usize>(&self, row: *const f32, column: isize) -> S::V {
        let low = self.load(row, column, self.lanes(column));
        if STRIDE == 1 {
            return low;
        }
        let beyond = column + S::LANES as isize;
        S::unzip(low, self.load(row, beyond, self.lanes(beyond))).0
    }

    /// A row of the input; `None` for one of the padding.
    #[inline(always)]
    fn row(&self, row: isize) -> Option<*const f32> {
        let inside = row >= 0 && row < self.height.input as isize;
        inside.then(|| self.input.wrapping_add(row as usize * self.width.input))
    }

    #[inline(always)]
    unsafe fn finish(&self, row: usize, column: usize, count: usize, mut sum: S::V) {
        let at = row * self.width.output + column;
        if !self.residual.is_null() {
            sum = S::add(sum, S::load_partial(self.residual.add(at), count));
        }
        let sum = S::min(S::max(sum, self.low), self.high);
        if count == S::LANES {
            S::store(self.output.add(at), sum);
        } else {
            S::store_partial(self.output.add(at), sum, count);
        }
    }

    #[inline(always)]
    unsafe fn taps_of_nine(&self) -> [S::V; 9] {
        let mut taps = [self.bias; 9];
        for (index, tap) in taps.iter_mut().enumerate() {
            *tap = S::splat(*self.weights.add(index));
        }
        taps
    }

    /// 3x3, stride 1: a row of the input is added to three rows of the output while it is in registers.
    #[inline(always)]
    unsafe fn three_by_three(&self, column: usize) {
        let taps = self.taps_of_nine();
        let count = S::LANES.min(self.width.output - column);
        let first = column as isize - self.width.before as isize;
        let lanes = [self.lanes(first), self.lanes(first + 1), self.lanes(first + 2)];
        let (mut oldest, mut middle, mut newest) = (self.bias, self.bias, self.bias);
        for step in 0..self.height.output + 2 {
            if let Some(row) = self.row(step as isize - self.height.before as isize) {
                for tap in 0..3 {
                    let value = self.load(row, first + tap as isize, lanes[tap]);
                    oldest = S::mul_add(taps[6 + tap], value, oldest);
                    middle = S::mul_add(taps[3 + tap], value, middle);
                    newest = S::mul_add(taps[tap], value, newest);
                }
            }
            if step >= 2 {
                self.finish(step - 2, column, count, oldest);
            }
            (oldest, middle, newest) = (middle, newest, self.bias);
        }
    }

    /// 3x3, stride 2: every other row of the input is added to two rows of the output.
    #[inline(always)]
    unsafe fn three_by_three_halved(&self, column: usize) {
        let taps = self.taps_of_nine();
        let count = S::LANES.min(self.width.output - column);
        let first = 2 * column as isize - self.width.before as isize;
        let lanes = S::LANES as isize;
        let begins = [first, first + lanes, first + 2, first + 2 + lanes];
        let inside = begins.map(|begin| self.lanes(begin));
        let mut current = self.bias;
        for step in 0..2 * self.height.output + 1 {
            let mut next = self.bias;
            if let Some(row) = self.row(step as isize - self.height.before as isize) {
                let low = self.load(row, begins[0], inside[0]);
                let high = self.load(row, begins[1], inside[1]);
                let (even, odd) = S::unzip(low, high);
                let low = self.load(row, begins[2], inside[2]);
                let high = self.load(row, begins[3], inside[3]);
                let values = [even, odd, S::unzip(low, high).0];
                if step % 2 == 1 {
                    for tap in 0..3 {
                        current = S::mul_add(taps[3 + tap], values[tap], current);
                    }
                } else {
                    for tap in 0..3 {
                        current = S::mul_add(taps[6 + tap], values[tap], current);
                        next = S::mul_add(taps[tap], values[tap], next);
                    }
                }
            }
            if step % 2 == 0 {
                if step > 0 {
                    self.finish(step / 2 - 1, column, count, current);
                }
                current = next;
            }
        }
    }

    /// Any window, row by row.
    #[inline(always)]
    unsafe fn any<const STRIDE: usize>(&self, column: usize) {
        let count = S::LANES.min(self.width.output - column);
        let first = (STRIDE * column) as isize - self.width.before as isize;
        for output_row in 0..self.height.output {
            let mut sum = self.bias;
            for tap_row in 0..self.height.kernel {
                let Some(row) = self.row(self.height.at(output_row, tap_row)) else { continue };
                for tap in 0..self.width.kernel {
                    let value = self.tap::<STRIDE>(row, first + (tap * self.width.dilation) as isize);
                    sum = S::mul_add(S::splat(*self.weights.add(tap_row * self.width.kernel + tap)), value, sum);
                }
            }
            self.finish(output_row, column, count, sum);
        }
    }
}
