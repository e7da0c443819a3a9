//! Convolutions over one image, dense or sparse, with any window, as products ([`crate::panel`], [`crate::convolution_tile`]) over an input laid out so
//! that it can be read in runs ([`crate::convolution_planes`]). Weights are packed once for one shape of input; bias, residual and clamp are done in the
//! same pass as the sums.

use std::ops::Range;

use espalier_weights::Sparse;

use crate::{
    convolution_planes::Planes,
    convolution_tile::Tiled,
    convolution_window::Window,
    panel::{self, Epilogue, Height, Lines, Offsets, Output, Packed, Part},
    simd::Isa,
    threads::Threads,
};

/// What a convolution is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Of the input.
    pub channels: usize,
    /// Channels of the output.
    pub filters: usize,
    pub groups: usize,
    pub window: Window,
}

impl Shape {
    /// Weights of one filter.
    pub fn depth(&self) -> usize {
        self.channels / self.groups * self.window.taps()
    }

    /// Nothing for a window that is not [`Window::is_countable`], or more than offsets of 32 bits reach.
    fn planes(&self) -> Option<Planes> {
        let planes = self.window.is_countable().then(|| Planes::new(self.window))?;
        u32::try_from(self.channels.checked_mul(planes.channel())?).ok()?;
        let depth = (self.channels / self.groups).checked_mul(self.window.taps())?;
        u32::try_from(self.filters.checked_mul(depth)?).ok()?;
        self.filters.checked_mul(self.window.outputs())?;
        Some(planes)
    }

    /// Where the inputs of a column of weights begin.
    fn offset<'a>(&self, planes: &'a Planes) -> impl Fn(usize) -> usize + Copy + use<'a> {
        let (taps, across) = (self.window.taps(), self.window.width.kernel);
        move |column| planes.offset(column / taps, column % taps / across, column % taps % across)
    }

    /// Multiply-accumulates of a dense kernel.
    pub fn macs(&self) -> usize {
        self.filters * self.depth() * self.window.outputs()
    }
}

/// How the weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// All of them, in vectors of positions.
    Dense,
    /// All of them, in vectors of channels: for small maps.
    Tiles,
    /// Those that are not zero, for so many filters together.
    Sparse(Height),
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Dense => "dense",
            Form::Tiles => "dense tiles",
            Form::Sparse(Height::One) => "csr",
            Form::Sparse(Height::Four) => "4x1",
            Form::Sparse(Height::Eight) => "8x1",
        }
    }
}

/// A convolution ready to run.
#[derive(Clone, Debug)]
pub struct Convolution {
    isa: Isa,
    shape: Shape,
    form: Form,
    planes: Planes,
    /// Where rows of the planes are longer than those of the output.
    lines: Option<Lines>,
    groups: Vec<Group>,
    bias: Vec<f32>,
    clamp: (f32, f32),
}

#[derive(Clone, Debug)]
enum Group {
    Panels { weights: Packed, offsets: Offsets, chunk: usize },
    Tiles(Tiled),
}

impl Convolution {
    /// `weights` are `filters` rows of [`Shape::depth`]: channel by channel of the group, the window row by row. `None` where the form does not suit the
    /// shape.
    ///
    /// # Panics
    /// Where lengths do not fit each other.
    pub fn new(
        isa: Isa,
        shape: Shape,
        form: Form,
        weights: &[f32],
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Option<Convolution> {
        let planes = shape.planes()?;
        let (depth, window) = (shape.depth(), shape.window);
        assert_eq!(weights.len(), shape.filters * depth, "a row of weights for each filter");
        if form == Form::Tiles && !Convolution::suits_tiles(&window) {
            return None;
        }
        let filters = shape.filters / shape.groups;
        let offset = shape.offset(&planes);
        let group = |group: usize| {
            let weights = &weights[group * filters * depth..][..filters * depth];
            let bias = &bias[group * filters..][..filters];
            let packed = match form {
                Form::Tiles => {
                    let offsets = (0..depth).map(|column| offset(column) as u32).collect();
                    return Group::Tiles(Tiled::new(isa, &window, planes.pitch(), offsets, weights, bias, clamp));
                }
                Form::Dense => Packed::dense(filters, depth, weights, Height::dense(isa)),
                Form::Sparse(height) => Packed::sparse(filters, depth, weights, height),
            };
            let offsets = packed.offsets(offset);
            let chunk = chunk(isa, depth, &packed);
            Group::Panels { weights: packed, offsets, chunk }
        };
        let groups = (0..shape.groups).map(group).collect();
        Some(Convolution::of_groups(isa, shape, form, planes, groups, bias, clamp))
    }

    /// Sparse, of a weight whose cells are known, each filter's times its factor: what [`Convolution::new`] makes of the same weight written out. `None`
    /// with groups, and where the matrix or the shape does not suit.
    ///
    /// # Panics
    /// Where lengths do not fit each other.
    pub fn of_cells(
        isa: Isa,
        shape: Shape,
        height: Height,
        (weights, factors): (&Sparse, &[f32]),
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Option<Convolution> {
        if shape.groups != 1 || (weights.rows, weights.columns) != (shape.filters, shape.depth()) {
            return None;
        }
        let planes = shape.planes()?;
        let packed = Packed::of_cells(weights, factors, height);
        let offsets = packed.offsets(shape.offset(&planes));
        let chunk = chunk(isa, shape.depth(), &packed);
        let groups = vec![Group::Panels { weights: packed, offsets, chunk }];
        Some(Convolution::of_groups(isa, shape, Form::Sparse(height), planes, groups, bias, clamp))
    }

    fn of_groups(
        isa: Isa,
        shape: Shape,
        form: Form,
        planes: Planes,
        groups: Vec<Group>,
        bias: Vec<f32>,
        clamp: (f32, f32),
    ) -> Convolution {
        assert_eq!(bias.len(), shape.filters, "a bias for each filter");
        let (pitch, width) = (planes.pitch(), shape.window.width.output);
        let lines = (pitch > width).then(|| Lines::new(isa, pitch, width, planes.positions()));
        Convolution { isa, shape, form, planes, lines, groups, bias, clamp }
    }

    /// Whether [`Form::Tiles`] can be used.
    pub fn suits_tiles(window: &Window) -> bool {
        window.is_countable() && Tiled::suits(window, Planes::new(*window).pitch())
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// `input` and `output` are one image each, `residual` is as the output. `scratch` may be shared with other layers and grows to what is needed.
    ///
    /// # Panics
    /// Where a slice is not as long as the shape says.
    pub fn run(
        &self,
        threads: &Threads,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let Shape { channels, filters, groups, window } = self.shape;
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
                        let part = Part { blocks, positions, chunk: *chunk };
                        // SAFETY: parts do not overlap, `isa` is this processor's, and `output` is borrowed until all parts are done.
                        unsafe { panel::multiply(self.isa, weights, offsets, input, epilogue, output, part) }
                    });
                }
            }
        }
    }

    fn limits(&self) -> Option<(f32, f32)> {
        (self.clamp != (f32::NEG_INFINITY, f32::INFINITY)).then_some(self.clamp)
    }
}

/// Bytes of inputs that stay near beside the weights that stream past them.
const NEAR: usize = 16 << 10;
/// Weights up to so many bytes may be read several times.
const FAR: usize = 512 << 10;

/// Positions to be done for all blocks before the next ones. Long runs of outputs, lest rows far apart be written to in turns.
fn chunk(isa: Isa, depth: usize, packed: &Packed) -> usize {
    if packed.stored() * size_of::<f32>() > FAR {
        return usize::MAX;
    }
    let panel = panel::panel(isa, packed.height());
    (NEAR / (depth.max(1) * size_of::<f32>())).max(panel)
}

/// Blocks and positions of each task: blocks are shared out where there are enough, else positions in whole vectors.
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
