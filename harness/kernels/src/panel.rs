//! The product of convolutions and matrices, dense or sparse: rows of weights times vectors at offsets into one input.
//!
//! ```text
//! output[row][p] = bias[row] + Σ weights[row][entry] · input[offsets[entry] + p]        for positions p
//! ```
//! A matrix has one offset for each column. A convolution has one for each channel and place in its window; its input
//! is padded first, so that all positions of a map are neighbours. Weights that are zero have no entry. Rows are packed
//! in blocks of 1, 4 or 8 that share their entries: a vector of inputs is loaded once for the block, and the block's
//! results stay in registers until they are complete.

use std::ops::Range;

use espalier_weights::Sparse;

use crate::simd::{Isa, Kernel, Simd};

/// Rows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Height {
    One,
    Four,
    Eight,
}

impl Height {
    pub fn rows(self) -> usize {
        match self {
            Height::One => 1,
            Height::Four => 4,
            Height::Eight => 8,
        }
    }

    /// The tallest block whose results fit the registers beside the inputs. Dense weights are packed in it.
    pub fn dense(isa: Isa) -> Height {
        if isa.registers() >= 32 { Height::Eight } else { Height::Four }
    }
}

/// Weights by blocks of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRows {
    rows: usize,
    columns: usize,
    height: Height,
    entries: Entries,
    /// For each entry one value for each row of the block; zeros below the last row.
    values: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Entries {
    /// Every block has all columns as entries.
    All,
    /// Block `b` has the columns from `starts[b]` to `starts[b + 1]`.
    Some { starts: Vec<u32>, columns: Vec<u32> },
}

impl PackedRows {
    /// All values of a matrix, row after row.
    ///
    /// # Panics
    /// Unless there are `rows * columns` values.
    pub fn dense(rows: usize, columns: usize, matrix: &[f32], height: Height) -> PackedRows {
        assert_eq!(Some(matrix.len()), rows.checked_mul(columns), "{rows} x {columns} weights");
        let tall = height.rows();
        let mut values = vec![0.0; rows.div_ceil(tall) * columns * tall];
        for (block, values) in values.chunks_exact_mut((columns * tall).max(1)).enumerate() {
            for row in block * tall..rows.min((block + 1) * tall) {
                for (column, value) in matrix[row * columns..][..columns].iter().enumerate() {
                    values[column * tall + row % tall] = *value;
                }
            }
        }
        PackedRows { rows, columns, height, entries: Entries::All, values }
    }

    /// The values of a matrix, row after row, that are not zero. A column is an entry of a block if it is not zero in
    /// one of the block's rows.
    ///
    /// # Panics
    /// Unless there are `rows * columns` values, and 32 bits count them.
    pub fn sparse(rows: usize, columns: usize, matrix: &[f32], height: Height) -> PackedRows {
        assert_eq!(Some(matrix.len()), rows.checked_mul(columns), "{rows} x {columns} weights");
        check_counts(rows, columns);
        let tall = height.rows();
        let (mut starts, mut kept, mut values) = (vec![0], Vec::new(), Vec::new());
        for block in 0..rows.div_ceil(tall) {
            let rows = block * tall..rows.min((block + 1) * tall);
            for column in 0..columns {
                let at = |row: usize| matrix[row * columns + column];
                if rows.clone().any(|row| at(row) != 0.0) {
                    kept.push(column as u32);
                    values.extend(rows.clone().map(at));
                    values.resize(kept.len() * tall, 0.0);
                }
            }
            starts.push(kept.len() as u32);
        }
        PackedRows { rows, columns, height, entries: Entries::Some { starts, columns: kept }, values }
    }

    /// As [`PackedRows::sparse`] of the same matrix with each row times its factor, without a dense copy of it.
    ///
    /// # Panics
    /// Unless there is a factor for each row, and 32 bits count the cells.
    pub fn of_cells(matrix: &Sparse, factors: &[f32], height: Height) -> PackedRows {
        let (rows, columns, tall) = (matrix.rows, matrix.columns, height.rows());
        assert_eq!(factors.len(), rows, "a factor for each row");
        check_counts(rows, columns);
        // There are many cells, and divisions are slow.
        let block_of = |row: usize| row >> tall.trailing_zeros();
        // A bit for each column of a block that is not all zero.
        let words = columns.div_ceil(64);
        let mut filled = vec![0u64; rows.div_ceil(tall) * words];
        matrix.index.for_each(rows, columns, |place, row, column| {
            if matrix.values[place] != 0.0 {
                filled[block_of(row) * words + column / 64] |= 1 << (column % 64);
            }
        });
        // The number of entries before each word of bits.
        let mut before = Vec::with_capacity(filled.len());
        let (mut starts, mut kept) = (vec![0], Vec::new());
        for block in 0..rows.div_ceil(tall) {
            for (word, bits) in filled[block * words..][..words].iter().enumerate() {
                before.push(kept.len());
                let mut rest = *bits;
                while rest != 0 {
                    kept.push((word * 64) as u32 + rest.trailing_zeros());
                    rest &= rest - 1;
                }
            }
            starts.push(kept.len() as u32);
        }
        let mut values = vec![0.0; kept.len() * tall];
        matrix.index.for_each(rows, columns, |place, row, column| {
            let value = matrix.values[place];
            if value != 0.0 {
                let word = block_of(row) * words + column / 64;
                let entry = before[word] + (filled[word] & ((1 << (column % 64)) - 1)).count_ones() as usize;
                values[entry * tall + (row & (tall - 1))] = value * factors[row];
            }
        });
        PackedRows { rows, columns, height, entries: Entries::Some { starts, columns: kept }, values }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn height(&self) -> Height {
        self.height
    }

    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(self.height.rows())
    }

    /// Stored values, including padding.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// The offset of each entry, which is that of its column. Computed once for a layer whose input has a fixed shape.
    pub fn offsets(&self, of_column: impl Fn(usize) -> usize) -> Offsets {
        let offset = |column: usize| u32::try_from(of_column(column)).expect("an input has fewer than 2^32 values");
        let offsets: Vec<u32> = match &self.entries {
            Entries::All => (0..self.columns).map(offset).collect(),
            Entries::Some { columns, .. } => columns.iter().map(|column| offset(*column as usize)).collect(),
        };
        Offsets { furthest: offsets.iter().copied().max().unwrap_or(0) as usize, offsets }
    }

    /// Index of the first entry, number of entries, index of the first value.
    fn block(&self, block: usize) -> (usize, usize, usize) {
        let tall = self.height.rows();
        match &self.entries {
            Entries::All => (0, self.columns, block * self.columns * tall),
            Entries::Some { starts, .. } => {
                let (start, end) = (starts[block] as usize, starts[block + 1] as usize);
                (start, end - start, start * tall)
            }
        }
    }
}

/// # Panics
/// Where 32 bits do not count the columns, or the weights.
pub(crate) fn check_counts(rows: usize, columns: usize) {
    let fits = rows.checked_mul(columns).is_some_and(|count| u32::try_from(count.max(columns)).is_ok());
    assert!(fits, "{rows} x {columns} weights are more than 32 bits count");
}

/// Where each entry of [`PackedRows`] finds its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Offsets {
    offsets: Vec<u32>,
    furthest: usize,
}

/// What is applied to a sum before it is stored, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value for each row.
    pub bias: Option<&'a [f32]>,
    /// Added. It has the layout and the stride of the output.
    pub residual: Option<&'a [f32]>,
    /// Lower and upper bound.
    pub clamp: Option<(f32, f32)>,
}

/// A portion of a product: some blocks of rows, some positions.
#[derive(Clone, Debug)]
pub struct Portion {
    pub blocks: Range<usize>,
    pub positions: Range<usize>,
    /// Positions that are computed for all blocks before the next ones. Their inputs stay in the cache meanwhile;
    /// weights are read once for each such chunk.
    pub chunk: usize,
}

/// Which positions of a map are stored, where the lines that are computed are longer than those of the output.
#[derive(Clone, Debug, PartialEq)]
pub struct MapLines {
    pitch: usize,
    width: usize,
    /// For each vector of positions the lanes that are stored, a bit each, and their place in the row.
    vectors: Vec<(u32, u32)>,
    lanes: usize,
}

impl MapLines {
    /// For vectors of this instruction set: of every `pitch` positions the first `width` are stored, up to `positions`.
    ///
    /// # Panics
    /// Unless `0 < width <= pitch`, and 32 bits count the values.
    pub fn new(isa: Isa, pitch: usize, width: usize, positions: usize) -> MapLines {
        assert!(0 < width && width <= pitch, "{width} of {pitch} positions");
        let lanes = isa.lanes();
        let vector = |vector: usize| {
            let first = vector * lanes;
            let is_kept = |lane: &usize| (first + lane) % pitch < width && first + lane < positions;
            let kept = (0..lanes).filter(is_kept).fold(0, |kept, lane| kept | 1 << lane);
            (kept, u32::try_from(values(first, pitch, width)).expect("a map has fewer than 2^32 values"))
        };
        MapLines { pitch, width, vectors: (0..positions.div_ceil(lanes)).map(vector).collect(), lanes }
    }
}

/// The number of values that the positions before `end` write.
fn values(end: usize, pitch: usize, width: usize) -> usize {
    end / pitch * width + (end % pitch).min(width)
}

/// Output of a product. Several threads may write different rows or positions of it.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    values: *mut f32,
    len: usize,
    stride: usize,
    lines: Option<&'a MapLines>,
}

// SAFETY: callers of `multiply` on several threads give it portions that do not overlap.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// `stride` is the distance from one row to the next.
    pub fn new(values: &mut [f32], stride: usize) -> Output<'a> {
        Output { values: values.as_mut_ptr(), len: values.len(), stride, lines: None }
    }

    /// Each row is a map, whose lines are stored one after another. The residual has the layout of the output.
    pub fn maps(values: &mut [f32], stride: usize, lines: &'a MapLines) -> Output<'a> {
        Output { values: values.as_mut_ptr(), len: values.len(), stride, lines: Some(lines) }
    }

    fn values(&self, end: usize) -> usize {
        self.lines.map_or(end, |lines| values(end, lines.pitch, lines.width))
    }
}

/// Computes `portion` of a product.
///
/// # Safety
/// The slice of `output` is still borrowed, and no other thread reads or writes the rows and positions of `portion`.
///
/// # Panics
/// Where rows, positions, offsets, bias or residual do not match.
pub unsafe fn multiply(
    isa: Isa,
    weights: &PackedRows,
    offsets: &Offsets,
    input: &[f32],
    epilogue: Epilogue,
    output: Output,
    portion: Portion,
) {
    if portion.blocks.is_empty() || portion.positions.is_empty() {
        return;
    }
    let expected = match &weights.entries {
        Entries::All => weights.columns,
        Entries::Some { columns, .. } => columns.len(),
    };
    assert_eq!(offsets.offsets.len(), expected, "the offsets are another matrix's");
    assert!(portion.blocks.end <= weights.blocks());
    if expected > 0 {
        let end = offsets.furthest.checked_add(portion.positions.end);
        assert!(end.is_some_and(|end| end <= input.len()), "an offset leads beyond the input");
    }
    let last_row = weights.rows.min(portion.blocks.end * weights.height.rows()) - 1;
    let values = output.values(portion.positions.end);
    if let Some(lines) = output.lines {
        let whole = lines.lanes == isa.lanes() && portion.positions.start.is_multiple_of(lines.lanes);
        assert!(
            whole && portion.positions.end <= lines.vectors.len() * lines.lanes,
            "vectors that the lines are not made for"
        );
    }
    let reach = last_row.checked_mul(output.stride).and_then(|last| last.checked_add(values));
    let reach = reach.filter(|reach| *reach <= output.len).expect("rows end beyond the output");
    assert!(last_row == 0 || values <= output.stride, "rows overlap");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == weights.rows));
    assert!(epilogue.residual.is_none_or(|residual| residual.len() >= reach));
    isa.run(Multiply { weights, offsets, input, epilogue, output, portion })
}

struct Multiply<'a> {
    weights: &'a PackedRows,
    offsets: &'a Offsets,
    input: &'a [f32],
    epilogue: Epilogue<'a>,
    output: Output<'a>,
    portion: Portion,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        match (self.weights.height, S::REGISTERS) {
            (Height::One, 32..) => walk::<S, 1, 8>(&self),
            (Height::One, 16..) => walk::<S, 1, 6>(&self),
            (Height::One, _) => walk::<S, 1, 4>(&self),
            (Height::Four, 32..) => walk::<S, 4, 4>(&self),
            (Height::Four, 16..) => walk::<S, 4, 2>(&self),
            (Height::Four, _) => walk::<S, 4, 1>(&self),
            (Height::Eight, 32..) => walk::<S, 8, 2>(&self),
            (Height::Eight, _) => walk::<S, 8, 1>(&self),
        }
    }
}

impl Multiply<'_> {
    /// Prefetches inputs of the next chunk while one block is computed. Each row of the input is a stream of its own,
    /// and there are more of them than a processor keeps track of.
    #[inline(always)]
    fn fetch<S: Simd>(&self, block: usize, first: usize, end: usize) {
        if first >= end || !matches!(self.weights.entries, Entries::All) {
            return;
        }
        let (blocks, columns) = (self.portion.blocks.len(), self.weights.columns);
        let index = block - self.portion.blocks.start;
        for offset in &self.offsets.offsets[columns * index / blocks..columns * (index + 1) / blocks] {
            let mut position = first;
            while position < end {
                // SAFETY: any address will do.
                unsafe { S::prefetch(self.input.as_ptr().wrapping_add(*offset as usize + position)) };
                position += LINE;
            }
        }
    }
}

/// Values in a cache line.
const LINE: usize = 64 / size_of::<f32>();

/// Positions of one panel: as many vectors as leave registers for the inputs and for temporaries of the compiler. With
/// all registers in use, sums are spilled to memory, which halves the speed.
pub fn panel(isa: Isa, height: Height) -> usize {
    let vectors = match (height, isa.registers()) {
        (Height::One, 32..) => 8,
        (Height::One, 16..) => 6,
        (Height::Four, 32..) | (Height::One, _) => 4,
        (Height::Four, 16..) | (Height::Eight, 32..) => 2,
        (Height::Four | Height::Eight, _) => 1,
    };
    vectors * isa.lanes()
}

/// Computes panels of at most `WIDEST` vectors, all of about the same width: a panel of a single vector would use a
/// weight only once.
#[inline(always)]
unsafe fn walk<S: Simd, const H: usize, const WIDEST: usize>(call: &Multiply) {
    let Range { start, end } = call.portion.positions;
    let vectors = (end - start).div_ceil(S::LANES);
    let panels = vectors.div_ceil(WIDEST);
    // At most all of them: a chunk may be `usize::MAX`.
    let together = (call.portion.chunk / (WIDEST * S::LANES)).clamp(1, panels.max(1));
    let mut first = 0;
    while first < panels {
        let last = panels.min(first + together);
        for block in call.portion.blocks.clone() {
            let ahead = start + (vectors * last / panels) * S::LANES;
            call.fetch::<S>(block, ahead, end.min(ahead + together * WIDEST * S::LANES));
            for panel in first..last {
                one_panel::<S, H>(call, block, vectors * panel / panels, vectors * (panel + 1) / panels);
            }
        }
        first = last;
    }
}

/// Computes the vectors `first..end` of positions.
#[inline(always)]
unsafe fn one_panel<S: Simd, const H: usize>(call: &Multiply, block: usize, first: usize, end: usize) {
    let position = call.portion.positions.start + first * S::LANES;
    let left = call.portion.positions.end - position;
    let whole = left >= (end - first) * S::LANES;
    if whole {
        tiles::<S, H, false>(call, block, position, left, end - first);
    } else {
        tiles::<S, H, true>(call, block, position, left, end - first);
    }
}

#[inline(always)]
unsafe fn tiles<S: Simd, const H: usize, const TAIL: bool>(
    call: &Multiply,
    block: usize,
    position: usize,
    left: usize,
    vectors: usize,
) {
    match vectors {
        1 => tile::<S, H, 1, TAIL>(call, block, position, left),
        2 => tile::<S, H, 2, TAIL>(call, block, position, left),
        3 => tile::<S, H, 3, TAIL>(call, block, position, left),
        4 if H <= 4 => tile::<S, H, 4, TAIL>(call, block, position, left),
        5 if H <= 4 => tile::<S, H, 5, TAIL>(call, block, position, left),
        6 if H <= 4 => tile::<S, H, 6, TAIL>(call, block, position, left),
        7 if H == 1 => tile::<S, H, 7, TAIL>(call, block, position, left),
        8 if H == 1 => tile::<S, H, 8, TAIL>(call, block, position, left),
        _ => unreachable!("`walk` has no wider panels"),
    }
}

/// Computes `H` rows of `NV` vectors. With `TAIL` the last vector ends early, with the last of the `left` positions.
#[inline(always)]
unsafe fn tile<S: Simd, const H: usize, const NV: usize, const TAIL: bool>(
    call: &Multiply,
    block: usize,
    position: usize,
    left: usize,
) {
    let weights = call.weights;
    let (first_offset, entries, first_value) = weights.block(block);
    let rows = (weights.rows - block * H).min(H);
    let last = if TAIL { left - (NV - 1) * S::LANES } else { S::LANES };
    let mut sums = [[S::splat(0.0); NV]; H];
    if let Some(bias) = call.epilogue.bias {
        for row in 0..H {
            let start = S::splat(if row < rows { *bias.get_unchecked(block * H + row) } else { 0.0 });
            sums[row] = [start; NV];
        }
    }
    let mut offset = call.offsets.offsets.as_ptr().add(first_offset);
    let mut value = weights.values.as_ptr().add(first_value);
    let input = call.input.as_ptr().add(position);
    for _ in 0..entries {
        let from = input.add(*offset as usize);
        let mut inputs = [S::splat(0.0); NV];
        for vector in 0..NV {
            let from = from.add(vector * S::LANES);
            inputs[vector] = if TAIL && vector == NV - 1 { S::load_partial(from, last) } else { S::load(from) };
        }
        for row in 0..H {
            let weight = S::splat(*value.add(row));
            for vector in 0..NV {
                sums[row][vector] = S::mul_add(weight, inputs[vector], sums[row][vector]);
            }
        }
        offset = offset.add(1);
        value = value.add(H);
    }
    // The bound is constant: a loop over `rows` would force the sums into memory.
    if let Some(lines) = call.output.lines {
        let vectors = &lines.vectors[position / S::LANES..][..NV];
        for row in 0..H {
            if row < rows {
                finish_lines::<S, NV>(call, block * H + row, vectors, last, sums[row]);
            }
        }
        return;
    }
    for row in 0..H {
        if row < rows {
            finish::<S, NV, TAIL>(call, block * H + row, position, last, sums[row]);
        }
    }
}

#[inline(always)]
unsafe fn finish<S: Simd, const NV: usize, const TAIL: bool>(
    call: &Multiply,
    row: usize,
    position: usize,
    last: usize,
    mut sums: [S::V; NV],
) {
    let at = row * call.output.stride + position;
    if let Some(residual) = call.epilogue.residual {
        for vector in 0..NV {
            let from = residual.as_ptr().add(at + vector * S::LANES);
            let more = if TAIL && vector == NV - 1 { S::load_partial(from, last) } else { S::load(from) };
            sums[vector] = S::add(sums[vector], more);
        }
    }
    if let Some((low, high)) = call.epilogue.clamp {
        for vector in 0..NV {
            sums[vector] = S::min(S::max(sums[vector], S::splat(low)), S::splat(high));
        }
    }
    for vector in 0..NV {
        let to = call.output.values.add(at + vector * S::LANES);
        if TAIL && vector == NV - 1 { S::store_partial(to, sums[vector], last) } else { S::store(to, sums[vector]) }
    }
}

/// As [`finish`], for outputs that store some of the lanes.
#[inline(always)]
unsafe fn finish_lines<S: Simd, const NV: usize>(
    call: &Multiply,
    row: usize,
    vectors: &[(u32, u32)],
    last: usize,
    sums: [S::V; NV],
) {
    let (low, high) = call.epilogue.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    for vector in 0..NV {
        let (mut kept, place) = *vectors.get_unchecked(vector);
        if vector == NV - 1 {
            kept &= (1 << last) - 1;
        }
        let at = row * call.output.stride + place as usize;
        let count = kept.count_ones() as usize;
        let mut sum = S::compact(sums[vector], kept);
        if let Some(residual) = call.epilogue.residual {
            sum = S::add(sum, S::load_partial(residual.as_ptr().add(at), count));
        }
        let sum = S::min(S::max(sum, S::splat(low)), S::splat(high));
        S::store_partial(call.output.values.add(at), sum, count);
    }
}

#[cfg(test)]
mod tests;
