//! `Conv` and `ConvTranspose` over one or two axes: products of the weights with the windows laid out as columns. They
//! are computed in tiles that stay in the cache; a tile is part of an image or, where images are small, several whole
//! ones. Convolutions with one channel a group go to [`depthwise`].

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, boxed, depthwise,
    product::{Matrix, Store, Threads, multiply},
    support,
    vector::sum,
    window::{Layout, Side, Window, Windows},
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Conv", |node| boxed(Conv { window: Window::parse(node)?, groups: groups(node)? })),
    ("ConvTranspose", |node| {
        boxed(ConvTranspose {
            window: Window::parse(node)?,
            groups: groups(node)?,
            output_padding: node.list("output_padding"),
            output_shape: node.list("output_shape"),
        })
    }),
];

fn groups(node: &Attributes) -> Result<usize, String> {
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|groups| *groups > 0);
    groups.ok_or_else(|| "`group` must be at least 1".into())
}

#[derive(Debug)]
struct Conv {
    window: Window,
    groups: usize,
}

/// The number of parts of a batch, each with its own sum, for the gradient of weights. It does not depend on the number
/// of threads, so that sums are the same everywhere.
const PARTS: usize = 8;

/// The most elements of the sums of all parts: 64 MiB.
const MOST_SUMS: usize = 1 << 24;

impl Layout {
    /// Rows of the matrix of windows.
    fn depth(&self) -> usize {
        self.inputs * self.windows.kernel()
    }

    /// All input channels of one image.
    fn input_image(&self) -> usize {
        self.groups * self.inputs * self.windows.input()
    }

    fn output_image(&self) -> usize {
        self.groups * self.outputs * self.windows.output()
    }

    /// How many windows are a tile: about half a megabyte of them.
    fn tile(&self) -> usize {
        ((1 << 17) / self.depth().max(1)).clamp(64, 1 << 14)
    }

    /// How many whole images are a tile; 1 also where an image is several tiles.
    fn joined(&self) -> usize {
        (self.tile() / self.windows.output().max(1)).min(self.batch.div_ceil(4)).max(1)
    }

    /// The tiles of some images.
    fn tiles(&self, images: Range<usize>) -> Vec<Tile> {
        let (joined, windows) = (self.joined(), self.windows.output());
        let pieces = windows.div_ceil(self.tile()).max(1);
        let length = windows.div_ceil(pieces);
        let mut tiles = Vec::new();
        for from in images.clone().step_by(joined) {
            let images = from..(from + joined).min(images.end);
            tiles.extend((0..pieces).map(|piece| Tile {
                images: images.clone(),
                windows: (piece * length).min(windows)..((piece + 1) * length).min(windows),
            }));
        }
        tiles
    }
}

/// Some windows of one image, or all windows of several.
struct Tile {
    images: Range<usize>,
    windows: Range<usize>,
}

impl Tile {
    fn width(&self) -> usize {
        self.images.len() * self.windows.len()
    }
}

/// Memory reused from tile to tile.
#[derive(Default)]
struct Buffers {
    columns: Vec<f32>,
    rows: Vec<f32>,
    moved: Vec<f32>,
}

impl Conv {
    fn layout(&self, x: &Array<f32>, weights: &Array<f32>) -> Result<Layout, String> {
        let (groups, shape) = (self.groups, weights.shape());
        let [outputs, inputs, kernel @ ..] = shape else {
            return Err(format!("weights of shape {shape:?} are no kernels"));
        };
        let windows = self.window.place(x.shape(), kernel)?;
        if inputs.checked_mul(groups) != Some(x.shape()[1]) || outputs % groups != 0 {
            return Err(format!(
                "weights of shape {shape:?} in {groups} groups do not fit an input of shape {:?}",
                x.shape()
            ));
        }
        let layout = Layout { batch: x.shape()[0], groups, inputs: *inputs, outputs: outputs / groups, windows };
        support::elements(&windows.output_shape(layout.batch, *outputs, kernel.len()))?;
        Ok(layout)
    }
}

/// The bias, if there is one, with one value for each channel.
fn bias<'a>(inputs: &[Option<&'a Tensor>], channels: usize) -> Result<Option<&'a [f32]>, String> {
    let Some(bias) = support::optional(inputs, 2) else { return Ok(None) };
    let bias = bias.f32()?;
    if bias.shape() != [channels] {
        return Err(format!("a bias of shape {:?} for {channels} channels", bias.shape()));
    }
    Ok(Some(bias.data()))
}

impl Operator for Conv {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (x, weights) = (support::input(inputs, 0)?.f32()?, support::input(inputs, 1)?.f32()?);
        let layout = self.layout(x, weights)?;
        let channels = layout.groups * layout.outputs;
        let output = forward(&layout, x.data(), weights.data(), bias(inputs, channels)?);
        let shape = layout.windows.output_shape(layout.batch, channels, x.rank() - 2);
        Ok(Forward::floats(Array::new(shape, output)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, weights, seed) = (pass.input(0)?.f32()?, pass.input(1)?.f32()?, pass.seed()?);
        let layout = self.layout(x, weights)?;
        let wants = (pass.wants[0], pass.wants[1]);
        let (x_gradient, weight_gradient) = backward(&layout, x.data(), weights.data(), seed.data(), wants);
        let mut gradients = vec![
            x_gradient.map(|gradient| Array::new(x.shape(), gradient)),
            weight_gradient.map(|gradient| Array::new(weights.shape(), gradient)),
        ];
        if let Some(bias) = pass.wants.get(2) {
            let (channels, plane) = (layout.groups * layout.outputs, layout.windows.output());
            gradients.push((*bias).then(|| sums_of_channels(seed.data(), channels, plane)));
        }
        Ok(gradients)
    }
}

/// The gradient of a convolution with respect to its input, as an operator: that convolution's input is the output
/// here.
#[derive(Debug)]
struct ConvTranspose {
    window: Window,
    groups: usize,
    output_padding: Option<Vec<i64>>,
    output_shape: Option<Vec<i64>>,
}

impl ConvTranspose {
    /// The layout of that convolution, and the shape of its input.
    fn layout(&self, x: &Array<f32>, weights: &Array<f32>) -> Result<(Layout, Vec<usize>), String> {
        let (groups, shape) = (self.groups, weights.shape());
        let [outputs, inputs, kernel @ ..] = shape else {
            return Err(format!("weights of shape {shape:?} are no kernels"));
        };
        let extra = (self.output_padding.as_deref(), self.output_shape.as_deref());
        let windows = self.window.place_transposed(x.shape(), kernel, extra)?;
        if *outputs != x.shape()[1] || outputs % groups != 0 {
            let x = x.shape();
            return Err(format!("weights of shape {shape:?} in {groups} groups do not fit an input of shape {x:?}"));
        }
        let layout = Layout { batch: x.shape()[0], groups, inputs: *inputs, outputs: outputs / groups, windows };
        let shape = windows.input_shape(layout.batch, support::elements(&[groups, *inputs])?, kernel.len());
        support::elements(&shape)?;
        Ok((layout, shape))
    }
}

impl Operator for ConvTranspose {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (x, weights) = (support::input(inputs, 0)?.f32()?, support::input(inputs, 1)?.f32()?);
        let (layout, shape) = self.layout(x, weights)?;
        let bias = bias(inputs, shape[1])?;
        let zeros = vec![0.0; shape.iter().product()];
        let (y, _) = backward(&layout, &zeros, weights.data(), x.data(), (true, false));
        let mut y = y.unwrap_or(zeros);
        if let Some(bias) = bias {
            let planes = y.chunks_mut(layout.windows.input().max(1)).zip(bias.iter().cycle());
            planes.for_each(|(plane, bias)| plane.iter_mut().for_each(|y| *y += bias));
        }
        Ok(Forward::floats(Array::new(shape, y)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, weights, seed) = (pass.input(0)?.f32()?, pass.input(1)?.f32()?, pass.seed()?);
        let (layout, shape) = self.layout(x, weights)?;
        let by_x = || Array::new(x.shape(), forward(&layout, seed.data(), weights.data(), None));
        let (_, by_weights) = match pass.wants[1] {
            true => backward(&layout, seed.data(), weights.data(), x.data(), (false, true)),
            false => (None, None),
        };
        let by_weights = by_weights.map(|gradient| Array::new(weights.shape(), gradient));
        let mut gradients = vec![pass.wants[0].then(by_x), by_weights];
        if let Some(bias) = pass.wants.get(2) {
            gradients.push((*bias).then(|| sums_of_channels(seed.data(), shape[1], layout.windows.input())));
        }
        Ok(gradients)
    }
}

fn sums_of_channels(seed: &[f32], channels: usize, plane: usize) -> Array<f32> {
    let mut sums = vec![0.0; channels];
    for (index, plane) in seed.chunks(plane.max(1)).enumerate() {
        sums[index % channels] += sum(plane);
    }
    Array::new([channels], sums)
}

/// The range of one group's channels in a tensor; `length` is that of all channels of a group.
fn channels(image: usize, group: usize, groups: usize, length: usize) -> Range<usize> {
    let start = (image * groups + group) * length;
    start..start + length
}

fn forward(layout: &Layout, x: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    if depthwise::suits(layout) {
        return depthwise::forward(layout, x, weights, bias);
    }
    let mut y = vec![0.0f32; layout.batch * layout.output_image()];
    if y.is_empty() {
        return y;
    }
    let joined = layout.joined();
    let parts = layout.batch.div_ceil(joined);
    let part = |index: usize, y: &mut [f32], threads: Threads, buffers: &mut Buffers| {
        let images = index * joined..((index + 1) * joined).min(layout.batch);
        for tile in layout.tiles(images.clone()) {
            (0..layout.groups).for_each(|group| {
                forward_tile(layout, group, &tile, images.start, x, weights, bias, y, threads, buffers)
            });
        }
    };
    if parts < rayon::current_num_threads() || parts == 1 {
        let mut buffers = Buffers::default();
        let pieces = y.chunks_mut(joined * layout.output_image());
        pieces.enumerate().for_each(|(index, y)| part(index, y, Threads::All, &mut buffers));
    } else {
        let pieces = y.par_chunks_mut(joined * layout.output_image()).enumerate();
        pieces.for_each_init(Buffers::default, |buffers, (index, y)| part(index, y, Threads::This, buffers));
    }
    y
}

/// `y` is the output of images from `first` on.
#[expect(clippy::too_many_arguments, reason = "one step of `forward`, with all it works on")]
fn forward_tile(
    layout: &Layout,
    group: usize,
    tile: &Tile,
    first: usize,
    x: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    threads: Threads,
    buffers: &mut Buffers,
) {
    let Layout { groups, inputs, outputs, windows, .. } = *layout;
    let (positions, depth, width) = (windows.output(), layout.depth(), tile.width());
    let weights = Matrix::new(&weights[group * outputs * depth..], outputs, depth);
    let product = |target: &mut [f32], stride: usize, columns: Matrix| match bias {
        None => multiply(target, stride, weights, columns, 1.0, Store::Overwrite, threads),
        Some(bias) => {
            for (channel, bias) in bias[group * outputs..][..outputs].iter().enumerate() {
                target[channel * stride..][..width].fill(*bias);
            }
            multiply(target, stride, weights, columns, 1.0, Store::Add, threads);
        }
    };
    let single = tile.images.len() == 1;
    let direct = single && windows.pointwise();
    if !direct {
        fill_columns(layout, group, tile, x, &mut buffers.columns);
    }
    let columns = if direct {
        let image = &x[channels(tile.images.start, group, groups, inputs * windows.input())];
        Matrix::strided(&image[tile.windows.start..], depth, width, positions)
    } else {
        Matrix::new(&buffers.columns, depth, width)
    };
    if single {
        let image = channels(tile.images.start - first, group, groups, outputs * positions);
        product(&mut y[image][tile.windows.start..], positions, columns);
        return;
    }
    buffers.rows.resize(outputs * width, 0.0);
    product(&mut buffers.rows, width, columns);
    for (index, image) in tile.images.clone().enumerate() {
        let planes = &mut y[channels(image - first, group, groups, outputs * positions)];
        for (channel, plane) in planes.chunks_mut(positions).enumerate() {
            plane.copy_from_slice(&buffers.rows[channel * width + index * positions..][..positions]);
        }
    }
}

/// The gradients of input and weights, where required.
fn backward(
    layout: &Layout,
    x: &[f32],
    weights: &[f32],
    seed: &[f32],
    wants: (bool, bool),
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    if wants == (false, false) {
        return (None, None);
    }
    if depthwise::suits(layout) {
        return depthwise::backward(layout, x, weights, seed, wants);
    }
    let mut x_gradient = wants.0.then(|| vec![0.0f32; x.len()]);
    let mut weight_gradient = wants.1.then(|| vec![0.0f32; weights.len()]);
    if seed.is_empty() || weights.is_empty() || x.is_empty() {
        return (x_gradient, weight_gradient);
    }
    let parts = if wants.1 { (MOST_SUMS / weights.len()).clamp(2, PARTS) } else { layout.batch };
    let images = layout.batch.div_ceil(parts);
    let parts = layout.batch.div_ceil(images);
    // The first part adds up in the result itself.
    let mut sums: Vec<Vec<f32>> = match (&mut weight_gradient, wants.1) {
        (Some(first), true) => {
            let mut sums = vec![vec![0.0; weights.len()]; parts - 1];
            sums.insert(0, std::mem::take(first));
            sums
        }
        _ => vec![Vec::new(); parts],
    };
    let mut pieces: Vec<Option<&mut [f32]>> = match &mut x_gradient {
        Some(gradient) => gradient.chunks_mut(images * layout.input_image()).map(Some).collect(),
        None => (0..parts).map(|_| None).collect(),
    };
    let threads = if parts < rayon::current_num_threads() || parts == 1 { Threads::All } else { Threads::This };
    let part = |(index, (sums, piece)): (usize, (&mut Vec<f32>, &mut Option<&mut [f32]>))| {
        let mut buffers = Buffers::default();
        let images = index * images..((index + 1) * images).min(layout.batch);
        for tile in layout.tiles(images.clone()) {
            for group in 0..layout.groups {
                let range = layout.outputs * layout.depth();
                let weights = &weights[group * range..][..range];
                let sums = if wants.1 { Some(&mut sums[group * range..][..range]) } else { None };
                let x_gradient = piece.as_deref_mut().map(|piece| (piece, images.start));
                backward_tile(layout, group, &tile, x, weights, seed, sums, x_gradient, threads, &mut buffers);
            }
        }
    };
    if threads == Threads::All {
        sums.iter_mut().zip(&mut pieces).enumerate().for_each(part);
    } else {
        sums.par_iter_mut().zip(&mut pieces).enumerate().for_each(part);
    }
    if let Some(gradient) = &mut weight_gradient {
        let mut sums = sums.into_iter();
        *gradient = sums.next().expect("there is at least one image");
        for term in sums {
            let add = |(sum, term): (&mut [f32], &[f32])| sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
            gradient.par_chunks_mut(1 << 16).zip(term.par_chunks(1 << 16)).for_each(add);
        }
    }
    (x_gradient, weight_gradient)
}

/// Adds one tile's part of the gradient of one group's weights, and of the input's gradient, which begins at the given
/// image.
#[expect(clippy::too_many_arguments, reason = "one step of `backward`, with all it works on")]
fn backward_tile(
    layout: &Layout,
    group: usize,
    tile: &Tile,
    x: &[f32],
    weights: &[f32],
    seed: &[f32],
    weight_sums: Option<&mut [f32]>,
    x_gradient: Option<(&mut [f32], usize)>,
    threads: Threads,
    buffers: &mut Buffers,
) {
    let Layout { groups, inputs, outputs, windows, .. } = *layout;
    let (positions, depth, width) = (windows.output(), layout.depth(), tile.width());
    let single = tile.images.len() == 1;
    let seed_image = |image: usize| &seed[channels(image, group, groups, outputs * positions)];
    let seed = if single {
        Matrix::strided(&seed_image(tile.images.start)[tile.windows.start..], outputs, width, positions)
    } else {
        buffers.rows.resize(outputs * width, 0.0);
        for (index, image) in tile.images.clone().enumerate() {
            for (channel, plane) in seed_image(image).chunks(positions).enumerate() {
                buffers.rows[channel * width + index * positions..][..positions].copy_from_slice(plane);
            }
        }
        Matrix::new(&buffers.rows, outputs, width)
    };
    let direct = single && windows.pointwise();
    if let Some(sums) = weight_sums {
        let columns = if direct {
            let image = &x[channels(tile.images.start, group, groups, inputs * windows.input())];
            Matrix::strided(&image[tile.windows.start..], depth, width, positions)
        } else {
            fill_columns(layout, group, tile, x, &mut buffers.columns);
            Matrix::new(&buffers.columns, depth, width)
        };
        multiply(sums, depth, seed, columns.transposed(), 1.0, Store::Add, threads);
    }
    let Some((gradient, first)) = x_gradient else { return };
    let weights = Matrix::new(weights, outputs, depth).transposed();
    let input = inputs * windows.input();
    if direct {
        let planes = &mut gradient[channels(tile.images.start - first, group, groups, input)];
        multiply(&mut planes[tile.windows.start..], positions, weights, seed, 1.0, Store::Overwrite, threads);
        return;
    }
    buffers.moved.resize(depth * width, 0.0);
    multiply(&mut buffers.moved, width, weights, seed, 1.0, Store::Overwrite, threads);
    for (index, image) in tile.images.clone().enumerate() {
        let planes = &mut gradient[channels(image - first, group, groups, input)];
        let at = index * tile.windows.len();
        for_each_run(layout, &tile.windows, |row, run| {
            let from = &buffers.moved[row * width + at + run.column..][..run.length];
            let to = &mut planes[run.input..];
            if run.step == 1 {
                to[..run.length].iter_mut().zip(from).for_each(|(to, from)| *to += from);
            } else {
                to.iter_mut().step_by(run.step).zip(from).for_each(|(to, from)| *to += from);
            }
        });
    }
}

/// The windows of a tile as columns: row `(channel, tap)`, zero where a window sticks out.
fn fill_columns(layout: &Layout, group: usize, tile: &Tile, x: &[f32], columns: &mut Vec<f32>) {
    let width = tile.width();
    let windows = &layout.windows;
    let sticks_out = |side: Side| side.before > 0 || side.after > 0 || side.inside(side.kernel - 1).end < side.output;
    if sticks_out(windows.rows) || sticks_out(windows.columns) {
        columns.clear();
    }
    columns.resize(layout.depth() * width, 0.0);
    for (index, image) in tile.images.clone().enumerate() {
        let planes = &x[channels(image, group, layout.groups, layout.inputs * windows.input())];
        let at = index * tile.windows.len();
        for_each_run(layout, &tile.windows, |row, run| {
            let to = &mut columns[row * width + at + run.column..][..run.length];
            let from = &planes[run.input..];
            if run.step == 1 {
                to.copy_from_slice(&from[..run.length]);
            } else {
                to.iter_mut().zip(from.iter().step_by(run.step)).for_each(|(to, from)| *to = *from);
            }
        });
    }
}

/// Neighbouring windows that have one tap inside the input, in one row of it.
struct Run {
    /// Counted from the first window of the tile.
    column: usize,
    /// The place of the first one in the planes of the group, and the distance to the next.
    input: usize,
    step: usize,
    length: usize,
}

/// Calls `f` with the row of each channel and tap, and each run of `range`.
#[inline(always)]
fn for_each_run(layout: &Layout, range: &Range<usize>, mut f: impl FnMut(usize, Run)) {
    let Windows { rows, columns } = layout.windows;
    for channel in 0..layout.inputs {
        for row_tap in 0..rows.kernel {
            for column_tap in 0..columns.kernel {
                let row = (channel * rows.kernel + row_tap) * columns.kernel + column_tap;
                let inside = columns.inside(column_tap);
                let mut position = range.start;
                while position < range.end {
                    let (y, from) = (position / columns.output, position % columns.output);
                    let until = columns.output.min(from + range.end - position);
                    let (start, end) = (from.max(inside.start), until.min(inside.end));
                    if let (Some(input_row), true) = (rows.at(y, row_tap), start < end) {
                        let input_column = start * columns.stride + column_tap * columns.dilation - columns.before;
                        f(
                            row,
                            Run {
                                column: position - range.start + start - from,
                                input: (channel * rows.input + input_row) * columns.input + input_column,
                                step: columns.stride,
                                length: end - start,
                            },
                        );
                    }
                    position += until - from;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check, floats, int, int_list, operator, output, random, string};

    /// The definition, with none of the shortcuts.
    fn slowly(layout: &Layout, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let Layout { batch, groups, inputs, outputs, windows: Windows { rows, columns } } = *layout;
        let mut y = Vec::new();
        for (image, channel) in (0..batch).flat_map(|image| (0..groups * outputs).map(move |c| (image, c))) {
            for (row, column) in (0..rows.output).flat_map(|row| (0..columns.output).map(move |c| (row, c))) {
                let mut sum = f64::from(bias[channel]);
                for input in 0..inputs {
                    for (row_tap, column_tap) in
                        (0..rows.kernel).flat_map(|row| (0..columns.kernel).map(move |c| (row, c)))
                    {
                        let (Some(r), Some(c)) = (rows.at(row, row_tap), columns.at(column, column_tap)) else {
                            continue;
                        };
                        let plane = (image * groups + channel / outputs) * inputs + input;
                        let weight = ((channel * inputs + input) * rows.kernel + row_tap) * columns.kernel + column_tap;
                        let value = x[(plane * rows.input + r) * columns.input + c];
                        sum += f64::from(value) * f64::from(weights[weight]);
                    }
                }
                y.push(sum as f32);
            }
        }
        y
    }

    #[track_caller]
    fn right(x: &[usize], weights: &[usize], groups: i64, attributes: Vec<espalier_onnx::AttributeProto>) {
        let attributes = [attributes, vec![int("group", groups)]].concat();
        let conv = operator("Conv", 11, attributes.clone());
        let bias = random(3, &weights[..1]);
        let (x, weights) = (random(1, x), random(2, weights));
        let y = output(&*conv, &[x.clone(), weights.clone(), bias.clone()]);
        let proto = espalier_onnx::NodeProto { attribute: attributes, ..Default::default() };
        let parsed =
            Window::parse(&Attributes { proto: &proto, opset: 11, types: &Default::default() }).expect("parsed before");
        let conv_again = Conv { window: parsed, groups: groups as usize };
        let (xs, ws) = (x.f32().expect("floats"), weights.f32().expect("floats"));
        let layout = conv_again.layout(xs, ws).expect("it fitted");
        let expected = slowly(&layout, xs.data(), ws.data(), bias.f32().expect("floats").data());
        assert_eq!(y.len(), expected.len());
        for (index, (y, expected)) in y.data().iter().zip(&expected).enumerate() {
            assert!((y - expected).abs() <= 1e-4, "at {index}: {y} instead of {expected}");
        }
        check(&*conv, &[x.clone(), weights.clone(), bias], 1, &[0, 1, 2]);
        check(&*conv, &[x, weights], 1, &[0, 1]);
    }

    #[test]
    fn plain_padded_strided_and_dilated() {
        let pads = |pads: &[i64]| int_list("pads", pads);
        right(&[2, 3, 5, 6], &[4, 3, 3, 3], 1, vec![]);
        right(&[2, 3, 5, 6], &[4, 3, 3, 3], 1, vec![pads(&[1, 1, 1, 1])]);
        right(&[1, 3, 7, 6], &[4, 3, 3, 2], 1, vec![pads(&[1, 0, 2, 1]), int_list("strides", &[2, 2])]);
        right(&[2, 2, 9, 9], &[3, 2, 3, 3], 1, vec![pads(&[2, 2, 2, 2]), int_list("dilations", &[2, 3])]);
        right(&[1, 2, 4, 4], &[3, 2, 3, 3], 1, vec![pads(&[5, 4, 3, 6]), int_list("strides", &[3, 2])]);
        right(&[2, 5, 4, 4], &[3, 5, 1, 1], 1, vec![]);
        right(&[2, 5, 5, 4], &[3, 5, 1, 1], 1, vec![int_list("strides", &[2, 2])]);
        right(&[1, 3, 1, 1], &[2, 3, 3, 3], 1, vec![pads(&[1, 1, 1, 1])]);
    }

    #[test]
    fn grouped_and_depthwise() {
        let pads = || int_list("pads", &[1, 1, 1, 1]);
        right(&[2, 6, 5, 4], &[4, 3, 3, 3], 2, vec![pads()]);
        right(&[2, 4, 5, 6], &[4, 1, 3, 3], 4, vec![pads()]);
        right(&[2, 4, 5, 7], &[8, 1, 3, 3], 4, vec![pads(), int_list("strides", &[2, 2])]);
        right(&[1, 2, 9, 8], &[4, 1, 3, 2], 2, vec![int_list("dilations", &[2, 3]), int_list("strides", &[1, 2])]);
        right(&[1, 2, 9, 8], &[2, 1, 3, 3], 2, vec![int_list("dilations", &[2, 1]), int_list("strides", &[3, 2])]);
        right(&[3, 1, 6, 6], &[5, 1, 5, 5], 1, vec![]);
        right(&[2, 3, 40, 40], &[3, 1, 3, 3], 3, vec![pads()]);
    }

    #[test]
    fn over_one_axis_and_padded_to_the_same() {
        right(&[2, 3, 11], &[4, 3, 3], 1, vec![int_list("pads", &[1, 2]), int_list("strides", &[2])]);
        right(&[2, 4, 11], &[4, 1, 3], 4, vec![int_list("dilations", &[2])]);
        for same in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
            right(&[2, 2, 7, 6], &[3, 2, 4, 3], 1, vec![string("auto_pad", same), int_list("strides", &[2, 2])]);
            right(&[1, 3, 7, 6], &[3, 1, 2, 3], 3, vec![string("auto_pad", same), int_list("strides", &[2, 1])]);
        }
    }

    #[test]
    fn transposed_convolutions_have_gradients() {
        let pads = |pads: &[i64]| int_list("pads", pads);
        let strides = |strides: &[i64]| int_list("strides", strides);
        let forms: [(&[usize], &[usize], i64, Vec<_>); 9] = [
            (&[2, 3, 4, 5], &[3, 4, 3, 3], 1, vec![]),
            (&[2, 3, 4, 5], &[3, 4, 3, 2], 1, vec![pads(&[1, 0, 2, 1]), strides(&[2, 3])]),
            (&[1, 4, 3, 3], &[4, 2, 2, 2], 2, vec![strides(&[2, 2]), int_list("output_padding", &[1, 0])]),
            (&[2, 3, 4, 4], &[3, 1, 3, 3], 3, vec![pads(&[1, 1, 1, 1]), strides(&[2, 2])]),
            (&[2, 3, 6], &[3, 2, 3], 1, vec![int_list("dilations", &[2]), pads(&[1, 2])]),
            (&[2, 3, 4], &[3, 2, 1], 1, vec![]),
            (&[1, 2, 4, 4], &[2, 3, 3, 3], 1, vec![string("auto_pad", "SAME_UPPER"), strides(&[2, 2])]),
            (&[1, 2, 4, 4], &[2, 3, 3, 3], 1, vec![string("auto_pad", "SAME_LOWER"), strides(&[2, 1])]),
            (&[1, 2, 4, 4], &[2, 3, 3, 3], 1, vec![int_list("output_shape", &[9, 8]), strides(&[2, 2])]),
        ];
        for (x, weights, groups, attributes) in forms {
            let conv = operator("ConvTranspose", 11, [attributes, vec![int("group", groups)]].concat());
            let bias = random(3, &[weights[1] * groups as usize]);
            check(&*conv, &[random(1, x), random(2, weights), bias], 1, &[0, 1, 2]);
            check(&*conv, &[random(1, x), random(2, weights)], 1, &[0, 1]);
        }
    }

    /// `[1, 2]` spread by a stride of 2 under the kernel `[1, 10, 100]`.
    #[test]
    fn a_transposed_convolution_by_hand() {
        let conv = operator("ConvTranspose", 11, vec![int_list("strides", &[2])]);
        let inputs = [floats(&[1, 1, 2], &[1.0, 2.0]), floats(&[1, 1, 3], &[1.0, 10.0, 100.0])];
        assert_eq!(output(&*conv, &inputs).data(), [1.0, 10.0, 102.0, 20.0, 200.0]);
    }

    #[test]
    fn tiles_of_parts_and_of_several_images() {
        // An image is several tiles.
        right(&[2, 32, 40, 40], &[3, 32, 3, 3], 1, vec![int_list("pads", &[1, 1, 1, 1])]);
        right(&[1, 1100, 12, 13], &[3, 1100, 1, 1], 1, vec![]);
        // Several images are a tile, the last with fewer.
        right(&[19, 3, 4, 4], &[4, 3, 3, 3], 1, vec![int_list("pads", &[1, 1, 1, 1])]);
        right(&[21, 4, 3, 3], &[6, 2, 1, 1], 2, vec![]);
    }
}
