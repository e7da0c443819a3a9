//! Convolutions over one image, dense or sparse, with any window.
//!
//! The input is copied into a layout that can be read in runs (`convolution_planes`); the convolution is then a product
//! over it ([`crate::panel`] or `convolution_tile`). Weights are packed once for one shape of input. Bias, residual and
//! clamp are applied in the same pass as the sums.

use std::ops::Range;

use espalier_weights::Sparse;

use crate::{
    convolution_planes::Planes,
    convolution_tile::Tiled,
    convolution_window::Window,
    panel::{self, Epilogue, Height, MapLines, Offsets, Output, PackedRows, Portion},
    simd::Isa,
    threads::Threads,
};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionShape {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub filters: usize,
    pub groups: usize,
    pub window: Window,
}

impl ConvolutionShape {
    /// Weights of one filter.
    pub fn depth(&self) -> usize {
        self.channels / self.groups * self.window.taps()
    }

    /// `None` for a window that is not [`Window::is_countable`], or more than offsets of 32 bits reach.
    fn planes(&self) -> Option<Planes> {
        let planes = self.window.is_countable().then(|| Planes::new(self.window))?;
        u32::try_from(self.channels.checked_mul(planes.channel())?).ok()?;
        let depth = (self.channels / self.groups).checked_mul(self.window.taps())?;
        u32::try_from(self.filters.checked_mul(depth)?).ok()?;
        self.filters.checked_mul(self.window.outputs())?;
        Some(planes)
    }

    /// Where the inputs of each column of weights begin.
    fn offset<'a>(&self, planes: &'a Planes) -> impl Fn(usize) -> usize + Copy + use<'a> {
        let (taps, across) = (self.window.taps(), self.window.width.kernel);
        move |column| planes.offset(column / taps, column % taps / across, column % taps % across)
    }

    /// Multiply-accumulates of a dense kernel for one image.
    pub fn macs(&self) -> usize {
        self.filters * self.depth() * self.window.outputs()
    }
}

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvolutionForm {
    /// All of them; vectors are of positions.
    Dense,
    /// All of them; vectors are of output channels, for small maps.
    Tiles,
    /// Those that are not zero, in blocks of as many filters.
    Sparse(Height),
}

impl ConvolutionForm {
    pub const ALL: [ConvolutionForm; 5] = [
        ConvolutionForm::Dense,
        ConvolutionForm::Tiles,
        ConvolutionForm::Sparse(Height::One),
        ConvolutionForm::Sparse(Height::Four),
        ConvolutionForm::Sparse(Height::Eight),
    ];

    /// As records and stored choices spell it. `4x1` is what other kernels call `block-4x1`: records of runs have it,
    /// and so it stays.
    pub fn name(self) -> &'static str {
        match self {
            ConvolutionForm::Dense => "dense",
            ConvolutionForm::Tiles => "dense tiles",
            ConvolutionForm::Sparse(Height::One) => "csr",
            ConvolutionForm::Sparse(Height::Four) => "4x1",
            ConvolutionForm::Sparse(Height::Eight) => "8x1",
        }
    }
}

/// A convolution ready to run.
#[derive(Clone, Debug)]
pub struct Convolution {
    isa: Isa,
    shape: ConvolutionShape,
    form: ConvolutionForm,
    planes: Planes,
    /// `None` where rows of the planes are as long as those of the output.
    lines: Option<MapLines>,
    groups: Vec<Group>,
    bias: Vec<f32>,
    clamp: (f32, f32),
}

#[derive(Clone, Debug)]
enum Group {
    Panels { weights: PackedRows, offsets: Offsets, chunk: usize },
    Tiles(Tiled),
}

impl Convolution {
    /// `weights` are `filters` rows of [`ConvolutionShape::depth`]: channel by channel of the group, the window row by
    /// row. `None` where the form does not suit the shape.
    ///
    /// # Panics
    /// Where lengths do not match.
    pub fn new(
        isa: Isa,
        shape: ConvolutionShape,
        form: ConvolutionForm,
        weights: &[f32],
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Option<Convolution> {
        let planes = shape.planes()?;
        let (depth, window) = (shape.depth(), shape.window);
        assert_eq!(weights.len(), shape.filters * depth, "a row of weights for each filter");
        if form == ConvolutionForm::Tiles && !Convolution::suits_tiles(&window) {
            return None;
        }
        let filters = shape.filters / shape.groups;
        let offset = shape.offset(&planes);
        let group = |group: usize| {
            let weights = &weights[group * filters * depth..][..filters * depth];
            let bias = &bias[group * filters..][..filters];
            let packed = match form {
                ConvolutionForm::Tiles => {
                    let offsets = (0..depth).map(|column| offset(column) as u32).collect();
                    return Group::Tiles(Tiled::new(isa, &window, planes.pitch(), offsets, weights, bias, clamp));
                }
                ConvolutionForm::Dense => PackedRows::dense(filters, depth, weights, Height::dense(isa)),
                ConvolutionForm::Sparse(height) => PackedRows::sparse(filters, depth, weights, height),
            };
            let offsets = packed.offsets(offset);
            let chunk = chunk(isa, depth, &packed);
            Group::Panels { weights: packed, offsets, chunk }
        };
        let groups = (0..shape.groups).map(group).collect();
        Some(Convolution::of_groups(isa, shape, form, planes, groups, bias, clamp))
    }

    /// A sparse convolution of a weight that is stored sparse already, each filter multiplied by its factor. The result
    /// is the one of [`Convolution::new`] for the same weight as a dense matrix. `None` with groups, and where the
    /// matrix or the shape does not suit.
    ///
    /// # Panics
    /// Where lengths do not match.
    pub fn of_cells(
        isa: Isa,
        shape: ConvolutionShape,
        height: Height,
        (weights, factors): (&Sparse, &[f32]),
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Option<Convolution> {
        if shape.groups != 1 || (weights.rows, weights.columns) != (shape.filters, shape.depth()) {
            return None;
        }
        let planes = shape.planes()?;
        let packed = PackedRows::of_cells(weights, factors, height);
        let offsets = packed.offsets(shape.offset(&planes));
        let chunk = chunk(isa, shape.depth(), &packed);
        let groups = vec![Group::Panels { weights: packed, offsets, chunk }];
        Some(Convolution::of_groups(isa, shape, ConvolutionForm::Sparse(height), planes, groups, bias, clamp))
    }

    fn of_groups(
        isa: Isa,
        shape: ConvolutionShape,
        form: ConvolutionForm,
        planes: Planes,
        groups: Vec<Group>,
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Convolution {
        assert_eq!(bias.len(), shape.filters, "a bias for each filter");
        let (pitch, width) = (planes.pitch(), shape.window.width.output);
        let lines = (pitch > width).then(|| MapLines::new(isa, pitch, width, planes.positions()));
        Convolution { isa, shape, form, planes, lines, groups, bias, clamp }
    }

    /// Whether [`ConvolutionForm::Tiles`] can be used.
    pub fn suits_tiles(window: &Window) -> bool {
        window.is_countable() && Tiled::suits(window, Planes::new(*window).pitch())
    }

    pub fn shape(&self) -> &ConvolutionShape {
        &self.shape
    }

    pub fn form(&self) -> ConvolutionForm {
        self.form
    }

    /// `input` and `output` are one image each; `residual` has the output's layout. `scratch` grows to what is needed
    /// and may be shared with other layers.
    ///
    /// # Panics
    /// Where a slice has another length than the shape says.
    pub fn run(
        &self,
        threads: &Threads,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let ConvolutionShape { channels, filters, groups, window } = self.shape;
        assert_eq!(input.len(), channels * window.inputs(), "all of the input");
        assert_eq!(output.len(), filters * window.outputs(), "all of the output");
        assert!(residual.is_none_or(|residual| residual.len() == output.len()), "a residual for each output");
        let input = if self.planes.is_input() {
            input
        } else {
            let needed = channels * self.planes.channel();
            if scratch.len() < needed {
                scratch.resize(needed, 0.0);
            }
            self.planes.fill(self.isa, input, &mut scratch[..needed]);
            &scratch[..needed]
        };
        let (values, results) = (channels / groups * self.planes.channel(), filters / groups * window.outputs());
        for (index, (group, output)) in self.groups.iter().zip(output.chunks_exact_mut(results)).enumerate() {
            let input = &input[index * values..][..values];
            let residual = residual.map(|residual| &residual[index * results..][..results]);
            match group {
                Group::Tiles(tiled) => tiled.run(threads, input, residual, output),
                Group::Panels { weights, offsets, chunk } => {
                    let bias = &self.bias[index * filters / groups..][..filters / groups];
                    let epilogue = Epilogue { bias: Some(bias), residual, clamp: self.limits() };
                    let output = match &self.lines {
                        Some(lines) => Output::maps(output, window.outputs(), lines),
                        None => Output::new(output, window.outputs()),
                    };
                    let positions = self.planes.positions();
                    let parts = parts(threads.count(), self.isa, weights.blocks(), positions);
                    threads.run(parts.len(), &|part| {
                        let (blocks, positions) = parts[part].clone();
                        let portion = Portion { blocks, positions, chunk: *chunk };
                        // SAFETY: portions do not overlap, and `output` is borrowed until all of them are done.
                        unsafe { panel::multiply(self.isa, weights, offsets, input, epilogue, output, portion) }
                    });
                }
            }
        }
    }

    fn limits(&self) -> Option<(f32, f32)> {
        (self.clamp != (f32::NEG_INFINITY, f32::INFINITY)).then_some(self.clamp)
    }
}

/// Bytes of inputs that stay in the first-level cache while weights stream past them.
const NEAR: usize = 16 << 10;
/// Bytes of weights that may be read several times. Larger ones are read once.
const FAR: usize = 512 << 10;

/// Positions that are computed for all blocks before the next ones. At least a panel of them, because short runs would
/// write to rows far apart in turn.
fn chunk(isa: Isa, depth: usize, packed: &PackedRows) -> usize {
    if packed.stored() * size_of::<f32>() > FAR {
        return usize::MAX;
    }
    let panel = panel::panel(isa, packed.height());
    (NEAR / (depth.max(1) * size_of::<f32>())).max(panel)
}

/// Blocks and positions of each task: blocks are divided among the tasks where there are enough, else positions, in
/// whole vectors.
fn parts(threads: usize, isa: Isa, blocks: usize, positions: usize) -> Vec<(Range<usize>, Range<usize>)> {
    if threads == 1 {
        return vec![(0..blocks, 0..positions)];
    }
    let tasks = 2 * threads;
    if blocks >= 2 * tasks {
        let bound = |task: usize| blocks * task / tasks;
        return (0..tasks).map(|task| (bound(task)..bound(task + 1), 0..positions)).collect();
    }
    let vectors = positions.div_ceil(isa.lanes());
    let bound = |task: usize| (vectors * task / tasks * isa.lanes()).min(positions);
    (0..tasks).map(|task| (0..blocks, bound(task)..bound(task + 1))).collect()
}
