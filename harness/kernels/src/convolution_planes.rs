//! A convolution's input in a layout in which neighbouring outputs find their inputs side by side, whatever the window,
//! the stride and the padding.
//!
//! Each channel becomes one plane for each remainder of row and column by the stride (a "phase"; stride 1 has one),
//! with the padding in place. The output at row `y` and column `x` then reads, under one tap, from
//! `offset(channel, tap) + y * pitch + x`. So all outputs of a map are one run of positions; results in the last
//! columns of each row are meaningless and are dropped. With stride 1 the padding after one row is also the padding
//! before the next.

use crate::{
    convolution_window::{Axis, Window},
    simd::{Isa, Kernel, Simd},
};

/// The layout of the planes for one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    window: Window,
    /// From one row of a plane to the next.
    pitch: usize,
    /// Rows of a plane.
    rows: usize,
    /// Remainders of rows and of columns that taps ask for, ascending.
    row_phases: Vec<usize>,
    column_phases: Vec<usize>,
    /// From one plane to the next.
    plane: usize,
}

impl Planes {
    /// The window is [`Window::is_countable`].
    pub fn new(window: Window) -> Planes {
        let (height, width) = (window.height, window.width);
        let reach = reach(&width);
        let pitch = if width.stride == 1 {
            let after = reach.saturating_sub(width.input + width.before);
            (width.input + after.max(width.before)).max(width.output)
        } else {
            reach.div_ceil(width.stride).max(width.output)
        };
        let rows = self::reach(&height).div_ceil(height.stride);
        // The last row's outputs reach into the padding of a row after it.
        let shared = if width.stride == 1 { width.before } else { 0 };
        let plane = rows * pitch + shared;
        Planes { window, pitch, rows, row_phases: phases(&height), column_phases: phases(&width), plane }
    }

    /// Whether the input already has this layout, so that nothing is copied.
    pub fn is_input(&self) -> bool {
        let plain = |axis: &Axis| axis.stride == 1 && axis.before == 0 && reach(axis) <= axis.input;
        plain(&self.window.height) && plain(&self.window.width)
    }

    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// From the first position to the last that is kept, both included.
    pub fn positions(&self) -> usize {
        (self.window.height.output - 1) * self.pitch + self.window.width.output
    }

    /// Distance from one channel to the next.
    pub fn channel(&self) -> usize {
        if self.is_input() {
            self.window.inputs()
        } else {
            self.plane * self.row_phases.len() * self.column_phases.len()
        }
    }

    /// Where the first output finds its input in a channel under a tap.
    pub fn offset(&self, channel: usize, row: usize, column: usize) -> usize {
        let (height, width) = (self.window.height, self.window.width);
        let (row, column) = (row * height.dilation, column * width.dilation);
        let place = |phases: &[usize], remainder| phases.iter().position(|phase| *phase == remainder).unwrap_or(0);
        let row_phase = place(&self.row_phases, row % height.stride);
        let column_phase = place(&self.column_phases, column % width.stride);
        let plane = (row_phase * self.column_phases.len() + column_phase) * self.plane;
        channel * self.channel() + plane + row / height.stride * self.pitch + column / width.stride
    }

    /// Copies `input`, one or more channels, into the first `channels * channel()` places of `buffer`.
    ///
    /// # Panics
    /// Unless the input is whole planes and the buffer is long enough.
    pub fn fill(&self, isa: Isa, input: &[f32], buffer: &mut [f32]) {
        let channels = input.len() / self.window.inputs();
        assert_eq!(input.len(), channels * self.window.inputs(), "whole planes");
        assert!(buffer.len() >= channels * self.channel(), "room for all planes");
        // SAFETY: `isa` is this processor's.
        unsafe { isa.run(Fill { planes: self, channels, input, buffer }) }
    }

    /// The columns of a phase that the input fills: the first of them in the plane, how many there are, and the column
    /// of the input that comes first.
    fn filled(&self, phase: usize) -> (usize, usize, usize) {
        let Axis { input, stride, before, .. } = self.window.width;
        let first = before.saturating_sub(phase).div_ceil(stride);
        let from = first * stride + phase - before;
        let count = input.saturating_sub(from).div_ceil(stride).min(self.pitch.saturating_sub(first));
        (first, count, from)
    }
}

/// Inputs and padding that the outputs reach over.
fn reach(axis: &Axis) -> usize {
    (axis.output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
}

fn phases(axis: &Axis) -> Vec<usize> {
    let mut phases: Vec<usize> = (0..axis.kernel).map(|tap| tap * axis.dilation % axis.stride).collect();
    phases.sort_unstable();
    phases.dedup();
    phases
}

struct Fill<'a> {
    planes: &'a Planes,
    channels: usize,
    input: &'a [f32],
    buffer: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Fill { planes, channels, input, buffer } = self;
        let (height, width) = (planes.window.height, planes.window.width);
        let mut at = 0;
        for channel in 0..channels {
            let plane = &input[channel * planes.window.inputs()..][..planes.window.inputs()];
            for row_phase in &planes.row_phases {
                for column_phase in &planes.column_phases {
                    let (first, count, from) = planes.filled(*column_phase);
                    let end = at + planes.plane;
                    for row in 0..planes.rows {
                        let to = &mut buffer[at + row * planes.pitch..end];
                        let source = (row * height.stride + row_phase).wrapping_sub(height.before);
                        if source >= height.input {
                            to[..planes.pitch].fill(0.0);
                            continue;
                        }
                        to[..first].fill(0.0);
                        let source = &plane[source * width.input..][..width.input];
                        let source = &source[from.min(width.input)..];
                        copy_row::<S>(source, width.stride, &mut to[first..], count);
                        to[first + count..planes.pitch].fill(0.0);
                    }
                    buffer[at + planes.rows * planes.pitch..end].fill(0.0);
                    at = end;
                }
            }
        }
    }
}

/// Copies `count` values of `source` that lie `stride` apart.
///
/// # Safety
/// `source` has as many, and `to` has room for them.
#[inline(always)]
unsafe fn copy_row<S: Simd>(source: &[f32], stride: usize, to: &mut [f32], count: usize) {
    match stride {
        1 => to[..count].copy_from_slice(&source[..count]),
        2 => {
            let mut done = 0;
            while done < count {
                let left = source.len() - 2 * done;
                let some = S::LANES.min(count - done);
                let from = source.as_ptr().add(2 * done);
                let to = to.as_mut_ptr().add(done);
                if left >= 2 * S::LANES && some == S::LANES {
                    S::store(to, S::deinterleave(from).0);
                } else {
                    let low = S::load_partial(from, left.min(S::LANES));
                    let high =
                        S::load_partial(from.wrapping_add(S::LANES), left.saturating_sub(S::LANES).min(S::LANES));
                    S::store_partial(to, S::unzip(low, high).0, some);
                }
                done += some;
            }
        }
        _ => {
            for (index, to) in to[..count].iter_mut().enumerate() {
                *to = source[index * stride];
            }
        }
    }
}
