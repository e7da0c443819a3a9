//! Dense convolutions of small maps: vectors are of output channels, and the input of a single position is broadcast.
//!
//! A map of 14 x 14 or 7 x 7 outputs does not fill vectors of positions: 49 positions take four vectors of 16 lanes,
//! and more with the columns between rows. Channels, however, come in multiples of 32 and positions in multiples of 7.
//! So a tile here is 14 positions by one or two vectors of channels, and no result is thrown away. A tile is transposed
//! when it is done, which costs little beside a few hundred inputs per output.

use std::{ops::Range, ptr};

use crate::{
    convolution_window::Window,
    share_out::share_out,
    simd::{Isa, Kernel, MOST_LANES, Simd},
    threads::Threads,
};

/// Positions side by side in a row of the input.
const RUN: usize = 7;
/// Runs in a tile.
const RUNS: usize = 2;

/// Dense weights in the order this kernel reads them.
#[derive(Clone, Debug)]
pub struct Tiled {
    isa: Isa,
    filters: usize,
    /// For each of a filter's weights, where the first output finds its input.
    offsets: Vec<u32>,
    /// Groups of `lanes` filters. A group has the weights of all its filters for the first input, then for the second,
    /// …
    weights: Vec<f32>,
    bias: Vec<f32>,
    clamp: (f32, f32),
    /// Columns of the output, and the distance between rows of the input's planes.
    columns: usize,
    pitch: usize,
    positions: usize,
    /// Values of the input that are read.
    reads: usize,
}

impl Tiled {
    /// Whether rows of outputs divide into runs, or all of them are one row.
    pub fn suits(window: &Window, pitch: usize) -> bool {
        let columns = window.width.output;
        columns.is_multiple_of(RUN) || (columns == pitch && window.outputs() >= RUN * RUNS)
    }

    /// `weights` are rows, one for each of `bias`; `offsets` has for each column where the first output finds its
    /// input.
    ///
    /// # Panics
    /// Where the lengths do not match, or the map does not suit.
    pub fn new(
        isa: Isa,
        window: &Window,
        pitch: usize,
        offsets: Vec<u32>,
        weights: &[f32],
        bias: &[f32],
        clamp: (f32, f32),
    ) -> Tiled {
        let (filters, depth) = (bias.len(), offsets.len());
        assert_eq!(weights.len(), filters * depth, "a row of weights for each filter");
        assert!(Tiled::suits(window, pitch), "rows of whole runs");
        let lanes = channels(isa);
        let padded = filters.next_multiple_of(lanes);
        let mut packed = vec![0.0; padded * depth];
        for (filter, row) in weights.chunks_exact(depth.max(1)).enumerate() {
            let group = &mut packed[filter / lanes * lanes * depth..];
            for (column, weight) in row.iter().enumerate() {
                group[column * lanes + filter % lanes] = *weight;
            }
        }
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(padded, 0.0);
        let (rows, columns) = (window.height.output, window.width.output);
        let furthest = offsets.iter().max().map_or(0, |offset| *offset as usize);
        Tiled {
            isa,
            filters,
            offsets,
            weights: packed,
            bias: padded_bias,
            clamp,
            columns,
            pitch,
            positions: rows * columns,
            reads: furthest + (rows - 1) * pitch + columns,
        }
    }

    /// # Panics
    /// Where a slice is too short.
    pub fn run(&self, threads: &Threads, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) {
        assert_eq!(output.len(), self.filters * self.positions, "all of the output");
        assert!(residual.is_none_or(|residual| residual.len() == output.len()), "a residual for each output");
        let group = channels(self.isa) * self.positions;
        share_out(threads, output, group, &|groups, output| {
            let residual = residual.map(|residual| &residual[groups.start * group..][..output.len()]);
            self.run_groups(groups, input, residual, output);
        });
    }

    /// `residual` and `output` are the parts of these groups.
    fn run_groups(&self, groups: Range<usize>, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) {
        let lanes = channels(self.isa);
        assert!(input.len() >= self.reads, "all that is read");
        let filters = self.filters.min(groups.end * lanes) - groups.start * lanes;
        assert_eq!(output.len(), filters * self.positions);
        let residual = residual.map_or(ptr::null(), <[f32]>::as_ptr);
        let task = Task { tiled: self, groups, filters, input: input.as_ptr(), residual, output: output.as_mut_ptr() };
        // SAFETY: `isa` is this processor's; lengths are checked above and by the caller.
        unsafe { self.isa.run(task) }
    }
}

/// Filters in a group: two vectors of them where there are registers for 28 sums.
fn channels(isa: Isa) -> usize {
    if isa.registers() >= 32 { 2 * isa.lanes() } else { isa.lanes() }
}

struct Task<'a> {
    tiled: &'a Tiled,
    groups: Range<usize>,
    filters: usize,
    input: *const f32,
    /// Null without one.
    residual: *const f32,
    output: *mut f32,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::REGISTERS >= 32 {
            self.groups::<S, 2>();
        } else {
            self.groups::<S, 1>();
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    unsafe fn groups<S: Simd, const VECTORS: usize>(&self) {
        let tiled = self.tiled;
        let lanes = VECTORS * S::LANES;
        let depth = tiled.offsets.len();
        // The next group's weights are prefetched in steps while this group's are used: else its first tile would wait.
        let step = lanes.div_ceil(tiled.positions.div_ceil(RUN * RUNS));
        for group in self.groups.clone() {
            let mut position = 0;
            let mut ahead = tiled.weights.as_ptr().wrapping_add((group + 1) * lanes * depth);
            while position < tiled.positions {
                // The rest of one long row is computed together with some positions that are done already.
                let left = tiled.positions - position;
                let end = tiled.positions.min(position + RUN * RUNS);
                let weights = tiled.weights.as_ptr().add(group * lanes * depth);
                let bias = tiled.bias.as_ptr().add(group * lanes);
                let filter = (group - self.groups.start) * lanes;
                if left > RUN {
                    let first = end - RUN * RUNS;
                    let bases = [self.input.add(self.place(first)), self.input.add(self.place(first + RUN))];
                    let mut sums = tile::<S, VECTORS, RUNS>(weights, &tiled.offsets, bias, bases, (ahead, step));
                    self.finish::<S, VECTORS, RUNS>(&mut sums, filter, first);
                } else {
                    let first = end - RUN;
                    let bases = [self.input.add(self.place(first))];
                    let mut sums = tile::<S, VECTORS, 1>(weights, &tiled.offsets, bias, bases, (ahead, step));
                    self.finish::<S, VECTORS, 1>(&mut sums, filter, first);
                }
                position += RUN * RUNS;
                ahead = ahead.wrapping_add(step * depth);
            }
        }
    }

    /// Where in the input's planes an output begins.
    #[inline(always)]
    fn place(&self, position: usize) -> usize {
        position / self.tiled.columns * self.tiled.pitch + position % self.tiled.columns
    }

    /// Transposes vectors of channels into vectors of positions and stores them.
    #[inline(always)]
    unsafe fn finish<S: Simd, const VECTORS: usize, const TILE_RUNS: usize>(
        &self,
        sums: &mut [[[S::V; VECTORS]; RUN]; TILE_RUNS],
        filter: usize,
        position: usize,
    ) {
        let count = RUN * TILE_RUNS;
        let (low, high) = (S::splat(self.tiled.clamp.0), S::splat(self.tiled.clamp.1));
        for vector in 0..VECTORS {
            let filter = filter + vector * S::LANES;
            let mut from = 0;
            while from < count {
                let mut square = [low; MOST_LANES];
                for lane in 0..S::LANES {
                    let index = from + lane;
                    if index < count {
                        square[lane] = sums[index / RUN][index % RUN][vector];
                    }
                }
                transpose::<S>(&mut square);
                let some = S::LANES.min(count - from);
                for lane in 0..S::LANES {
                    if filter + lane < self.filters {
                        let at = (filter + lane) * self.tiled.positions + position + from;
                        let mut value = square[lane];
                        if !self.residual.is_null() {
                            value = S::add(value, S::load_partial(self.residual.add(at), some));
                        }
                        S::store_partial(self.output.add(at), S::min(S::max(value, low), high), some);
                    }
                }
                from += S::LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const VECTORS: usize, const TILE_RUNS: usize>(
    weights: *const f32,
    offsets: &[u32],
    bias: *const f32,
    bases: [*const f32; TILE_RUNS],
    (mut ahead, step): (*const f32, usize),
) -> [[[S::V; VECTORS]; RUN]; TILE_RUNS] {
    let mut first = [S::splat(0.0); VECTORS];
    for (vector, first) in first.iter_mut().enumerate() {
        *first = S::load(bias.add(vector * S::LANES));
    }
    let mut sums = [[first; RUN]; TILE_RUNS];
    let mut weights = weights;
    for offset in offsets {
        let mut weight = first;
        for vector in 0..VECTORS {
            weight[vector] = S::load(weights.add(vector * S::LANES));
        }
        weights = weights.add(VECTORS * S::LANES);
        S::prefetch(ahead);
        ahead = ahead.wrapping_add(step);
        for run in 0..TILE_RUNS {
            let inputs = bases[run].add(*offset as usize);
            for place in 0..RUN {
                let input = S::splat(*inputs.add(place));
                for vector in 0..VECTORS {
                    sums[run][place][vector] = S::mul_add(weight[vector], input, sums[run][place][vector]);
                }
            }
        }
    }
    sums
}

/// Transposes a square by unzipping pairs of rows: each step halves the distance between values that belong side by
/// side.
#[inline(always)]
unsafe fn transpose<S: Simd>(square: &mut [S::V; MOST_LANES]) {
    let half = S::LANES / 2;
    let mut size = 1;
    while size < S::LANES {
        let before = *square;
        for pair in 0..half {
            let (even, odd) = S::unzip(before[2 * pair], before[2 * pair + 1]);
            square[pair] = even;
            square[pair + half] = odd;
        }
        size *= 2;
    }
}
