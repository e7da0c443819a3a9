//! Convolutions with one input channel a group.
//!
//! Each plane is padded and, where windows are strided, sorted into one plane per phase of the stride. Then a tap of
//! the kernel is a plain shift: the whole output is a sum of shifted planes, which the compiler vectorises. Rows of the
//! output are as long as those of the padded planes; what is computed beyond their ends is dropped.

use rayon::prelude::*;

use super::{
    vector::{dot, sum_shifted},
    window::{Layout, Side, Windows},
};

/// The layout of the padded, sorted plane, and the shift of each tap.
struct Sorted {
    windows: Windows,
    /// Rows and columns of the plane of one phase.
    rows: usize,
    columns: usize,
    /// For each tap: its phase, and its shift within that.
    taps: Vec<(usize, usize)>,
}

impl Sorted {
    fn of(windows: &Windows) -> Sorted {
        let Windows { rows, columns } = *windows;
        // The window that reaches furthest, in phases of the stride.
        let length = |side: Side| side.output + (side.kernel - 1) * side.dilation / side.stride;
        let width = length(columns);
        let mut taps = Vec::with_capacity(windows.kernel());
        for row_tap in 0..rows.kernel {
            for column_tap in 0..columns.kernel {
                let (row, column) = (row_tap * rows.dilation, column_tap * columns.dilation);
                let phase = row % rows.stride * columns.stride + column % columns.stride;
                taps.push((phase, row / rows.stride * width + column / columns.stride));
            }
        }
        Sorted { windows: *windows, rows: length(rows), columns: width, taps }
    }

    fn phase(&self) -> usize {
        self.rows * self.columns
    }

    fn phases(&self) -> usize {
        self.windows.rows.stride * self.windows.columns.stride
    }

    /// The length of the output with rows as long as those of a phase, without what follows the last window.
    fn output(&self) -> usize {
        let Windows { rows, columns } = self.windows;
        if rows.output == 0 || columns.output == 0 { 0 } else { (rows.output - 1) * self.columns + columns.output }
    }

    /// Calls `f` for each row of the input in each phase: where it begins in the input and in the sorted planes, the
    /// distance of its elements in the input, and their number.
    #[inline(always)]
    fn for_each_row(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let Windows { rows, columns } = self.windows;
        for row in 0..rows.input {
            let padded = row + rows.before;
            let (row_phase, sorted_row) = (padded % rows.stride, padded / rows.stride);
            if sorted_row >= self.rows {
                continue;
            }
            for phase in 0..columns.stride {
                // The first padded column of this phase that is in the input.
                let first = columns.before.saturating_sub(phase).div_ceil(columns.stride);
                let input = first * columns.stride + phase - columns.before;
                if input >= columns.input || first >= self.columns {
                    continue;
                }
                let count = (columns.input - input).div_ceil(columns.stride).min(self.columns - first);
                let sorted = (row_phase * columns.stride + phase) * self.phase() + sorted_row * self.columns + first;
                f(row * columns.input + input, sorted, columns.stride, count);
            }
        }
    }

    fn sort(&self, plane: &[f32], sorted: &mut [f32]) {
        self.for_each_row(|input, at, step, count| {
            let to = &mut sorted[at..][..count];
            if step == 1 {
                to.copy_from_slice(&plane[input..][..count]);
            } else {
                to.iter_mut().zip(plane[input..].iter().step_by(step)).for_each(|(to, from)| *to = *from);
            }
        });
    }

    fn unsort(&self, sorted: &[f32], plane: &mut [f32]) {
        self.for_each_row(|input, at, step, count| {
            let from = &sorted[at..][..count];
            plane[input..].iter_mut().step_by(step).zip(from).for_each(|(to, from)| *to += from);
        });
    }
}

/// Whether a layout suits this module: several groups of one channel, and planes that padding and strides do not
/// inflate.
pub fn suits(layout: &Layout) -> bool {
    let Windows { rows, columns } = layout.windows;
    let length = |side: Side| (side.kernel - 1).checked_mul(side.dilation)?.checked_add(side.output);
    let plane = || length(rows)?.checked_mul(length(columns)?);
    let narrow = layout.inputs == 1 && layout.groups > 1 && layout.outputs <= 4;
    narrow && rows.stride <= 4 && columns.stride <= 4 && plane().is_some_and(|plane| plane <= 1 << 22)
}

pub fn forward(layout: &Layout, x: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let Layout { batch, groups, outputs, windows, .. } = *layout;
    let sorted = Sorted::of(&windows);
    let (positions, kernel) = (windows.output(), windows.kernel());
    let mut y = vec![0.0f32; batch * groups * outputs * positions];
    if y.is_empty() || x.is_empty() {
        return y;
    }
    let pieces = y.par_chunks_mut(outputs * positions).zip(x.par_chunks(windows.input())).enumerate();
    pieces.with_min_len(pieces_at_least(&sorted)).for_each_init(
        || (vec![0.0; sorted.phases() * sorted.phase()], vec![0.0; sorted.output()]),
        |(planes, wide), (index, (y, x))| {
            sorted.sort(x, planes);
            for (output, y) in y.chunks_mut(positions).enumerate() {
                let channel = index % groups * outputs + output;
                let weights = &weights[channel * kernel..][..kernel];
                let taps: Vec<(f32, usize)> = weights
                    .iter()
                    .zip(&sorted.taps)
                    .map(|(weight, (phase, shift))| (*weight, phase * sorted.phase() + shift))
                    .collect();
                sum_shifted(wide, bias.map_or(0.0, |bias| bias[channel]), planes, &taps);
                for (row, y) in y.chunks_mut(windows.columns.output).enumerate() {
                    y.copy_from_slice(&wide[row * sorted.columns..][..windows.columns.output]);
                }
            }
        },
    );
    y
}

/// The fewest planes that a thread takes, so that a task is not too small.
fn pieces_at_least(sorted: &Sorted) -> usize {
    (1 << 15) / (sorted.output() * sorted.taps.len()).max(1) + 1
}

/// Goes channel by channel through all images: the gradient of a channel's weights is summed up in one place, in a
/// fixed order.
pub fn backward(
    layout: &Layout,
    x: &[f32],
    weights: &[f32],
    seed: &[f32],
    wants: (bool, bool),
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let Layout { batch, groups, outputs, windows, .. } = *layout;
    let mut x_gradient = wants.0.then(|| vec![0.0f32; x.len()]);
    let mut weight_gradient = wants.1.then(|| vec![0.0f32; weights.len()]);
    if seed.is_empty() || x.is_empty() || weights.is_empty() {
        return (x_gradient, weight_gradient);
    }
    let sorted = Sorted::of(&windows);
    let (positions, kernel, input) = (windows.output(), windows.kernel(), windows.input());
    // The seed begins and ends with as many zeros as a tap can shift.
    let margin = sorted.taps.iter().map(|(_, shift)| *shift).max().unwrap_or(0);
    let mut by_channel: Vec<(Vec<&mut [f32]>, &mut [f32])> = {
        let mut weights = weight_gradient.as_deref_mut().map(|weights| weights.chunks_mut(outputs * kernel));
        let mut channels: Vec<_> =
            (0..groups).map(|_| (Vec::new(), weights.as_mut().and_then(Iterator::next).unwrap_or_default())).collect();
        for (index, plane) in x_gradient.iter_mut().flat_map(|x| x.chunks_mut(input)).enumerate() {
            channels[index % groups].0.push(plane);
        }
        channels
    };
    by_channel.par_iter_mut().enumerate().with_min_len(pieces_at_least(&sorted).div_ceil(batch)).for_each_init(
        || {
            let phases = sorted.phases() * sorted.phase();
            (vec![0.0; phases], vec![0.0; phases], vec![0.0; sorted.phase() + 2 * margin])
        },
        |(planes, gradients, wide), (group, (x_gradient, weight_gradient))| {
            for image in 0..batch {
                let plane = image * groups + group;
                if wants.1 {
                    sorted.sort(&x[plane * input..][..input], planes);
                }
                for output in 0..outputs {
                    let seed = &seed[(plane * outputs + output) * positions..][..positions];
                    for (row, seed) in seed.chunks(windows.columns.output).enumerate() {
                        wide[margin + row * sorted.columns..][..seed.len()].copy_from_slice(seed);
                    }
                    let end = margin + sorted.output();
                    if wants.1 {
                        let sums = &mut weight_gradient[output * kernel..][..kernel];
                        for (sum, (phase, shift)) in sums.iter_mut().zip(&sorted.taps) {
                            let source = &planes[phase * sorted.phase() + shift..][..sorted.output()];
                            *sum += dot(&wide[margin..end], source);
                        }
                    }
                    if let Some(x_gradient) = x_gradient.get_mut(image) {
                        let weights = &weights[(group * outputs + output) * kernel..][..kernel];
                        for phase in 0..sorted.phases() {
                            let taps: Vec<(f32, usize)> = weights
                                .iter()
                                .zip(&sorted.taps)
                                .filter(|(_, tap)| tap.0 == phase)
                                .map(|(weight, (_, shift))| (*weight, margin - shift))
                                .collect();
                            let target = &mut gradients[phase * sorted.phase()..][..sorted.phase()];
                            sum_shifted(target, 0.0, wide, &taps);
                        }
                        sorted.unsort(gradients, x_gradient);
                    }
                }
            }
        },
    );
    drop(by_channel);
    (x_gradient, weight_gradient)
}
