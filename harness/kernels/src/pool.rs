//! Largest value under a window, plane by plane: first down the columns into one padded row, then along that row.

use crate::{
    convolution_window::Window,
    simd::{Isa, Kernel, Simd},
};

/// A MaxPool over one image, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool {
    isa: Isa,
    window: Window,
}

impl MaxPool {
    /// `None` for a stride of more than two columns, or a window that is not [`Window::is_countable`].
    pub fn new(isa: Isa, window: Window) -> Option<MaxPool> {
        (window.is_countable() && window.width.stride <= 2).then_some(MaxPool { isa, window })
    }

    /// # Panics
    /// Unless the slices are the planes of as many channels.
    pub fn run(&self, input: &[f32], output: &mut [f32]) {
        let channels = output.len() / self.window.outputs();
        assert_eq!(output.len(), channels * self.window.outputs(), "whole planes");
        assert_eq!(input.len(), channels * self.window.inputs(), "as many planes");
        // SAFETY: `isa` is this processor's.
        unsafe { self.isa.run(Task { window: self.window, channels, input, output }) }
    }
}

struct Task<'a> {
    window: Window,
    channels: usize,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Window { height, width } = self.window;
        let reach = (width.output.next_multiple_of(S::LANES) + S::LANES) * width.stride + width.kernel * width.dilation;
        let mut row = vec![f32::NEG_INFINITY; reach.max(width.before + width.input)];
        for channel in 0..self.channels {
            let input = &self.input[channel * self.window.inputs()..][..self.window.inputs()];
            let output = &mut self.output[channel * self.window.outputs()..][..self.window.outputs()];
            for (index, output) in output.chunks_exact_mut(width.output).enumerate() {
                let below = &mut row[width.before..][..width.input];
                below.fill(f32::NEG_INFINITY);
                for tap in 0..height.kernel {
                    let at = height.at(index, tap);
                    if at >= 0 && (at as usize) < height.input {
                        let above = &input[at as usize * width.input..][..width.input];
                        let mut column = 0;
                        while column < width.input {
                            let count = S::LANES.min(width.input - column);
                            let to = below.as_mut_ptr().add(column);
                            let value = S::load_partial(above.as_ptr().add(column), count);
                            S::store_partial(to, S::max(S::load_partial(to, count), value), count);
                            column += count;
                        }
                    }
                }
                let mut column = 0;
                while column < width.output {
                    let count = S::LANES.min(width.output - column);
                    let mut largest = S::splat(f32::NEG_INFINITY);
                    for tap in 0..width.kernel {
                        let from = row.as_ptr().add(column * width.stride + tap * width.dilation);
                        let value = if width.stride == 1 { S::load(from) } else { S::deinterleave(from).0 };
                        largest = S::max(largest, value);
                    }
                    S::store_partial(output.as_mut_ptr().add(column), largest, count);
                    column += count;
                }
            }
        }
    }
}
