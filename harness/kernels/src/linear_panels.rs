//! Activations of linear layers with the tokens side by side: feature `f` of a panel's tokens is one row of up to 64
//! values.
//!
//! Matrix products, layer normalisation, attention and element-wise functions then work on whole vectors of tokens: a
//! weight, a mean or a key is one number for all of them. Nothing is transposed between two layers. In: rows of
//! features, a token a row, as in ONNX. Out: panels, and back. Each sequence begins a panel of its own, so that
//! attention finds its tokens in whole vectors. Columns that only fill the last vector may hold any value.

use crate::simd::{Isa, Kernel, Simd};

/// The most tokens of a panel: with 768 features it takes 192 KiB, which a second-level cache holds.
pub const WIDTH: usize = 64;

/// Widths are whole vectors of every instruction set.
const VECTOR: usize = 16;

/// Output of several tasks, each of which writes to a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct Target(*mut f32);

// SAFETY: tasks write to parts that do not overlap.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub fn of(values: &mut [f32]) -> Target {
        Target(values.as_mut_ptr())
    }

    /// A method, so that closures capture the whole struct, not the pointer inside.
    pub fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// Which tokens are in which panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Panels {
    sequences: usize,
    tokens: usize,
}

/// Its values begin at `column * features`. Each feature is a row of `width` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub sequence: usize,
    /// Columns before it.
    pub column: usize,
    pub width: usize,
    /// The first of its tokens within the sequence.
    pub token: usize,
    /// At most `width`.
    pub tokens: usize,
}

impl Panels {
    /// For as many sequences of `tokens` each.
    ///
    /// # Panics
    /// Where columns of 64 features would not fit into memory.
    pub fn new(sequences: usize, tokens: usize) -> Panels {
        const MOST_COLUMNS: usize = isize::MAX as usize / (WIDTH * size_of::<f32>());
        let columns = tokens.checked_next_multiple_of(VECTOR).and_then(|each| each.checked_mul(sequences));
        let fits = columns.is_some_and(|columns| columns <= MOST_COLUMNS) && tokens <= MOST_COLUMNS;
        assert!(fits, "{sequences} sequences of {tokens} tokens are more than memory holds");
        Panels { sequences, tokens }
    }

    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Of one sequence.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Of one sequence, including those that fill its last vector.
    fn columns_each(&self) -> usize {
        self.tokens.next_multiple_of(VECTOR)
    }

    /// Of all panels.
    pub fn columns(&self) -> usize {
        self.sequences * self.columns_each()
    }

    /// Values of a buffer for `features`.
    ///
    /// # Panics
    /// Where they are more than can be counted.
    pub fn values(&self, features: usize) -> usize {
        self.columns().checked_mul(features).expect("a buffer of panels is larger than memory")
    }

    pub fn rows(&self) -> usize {
        self.sequences * self.tokens
    }

    fn panels_each(&self) -> usize {
        self.columns_each().div_ceil(WIDTH)
    }

    /// Of all sequences.
    pub fn count(&self) -> usize {
        self.sequences * self.panels_each()
    }

    /// The `index`-th panel. Widths within a sequence differ by one vector at most: a narrow last panel would be slow.
    pub fn get(&self, index: usize) -> Panel {
        let panels = self.panels_each();
        let (sequence, index) = (index / panels, index % panels);
        let vectors = self.columns_each() / VECTOR;
        let (each, wider) = (vectors / panels, vectors % panels);
        let token = (each * index + wider.min(index)) * VECTOR;
        let width = (each + usize::from(index < wider)) * VECTOR;
        Panel {
            sequence,
            column: sequence * self.columns_each() + token,
            width,
            token,
            tokens: width.min(self.tokens - token),
        }
    }

    /// The panels of one sequence.
    pub fn of_sequence(&self, sequence: usize) -> impl Iterator<Item = Panel> + use<> {
        let (panels, each) = (*self, self.panels_each());
        (sequence * each..(sequence + 1) * each).map(move |index| panels.get(index))
    }

    /// Converts rows of features to panels. Columns that fill the last vectors become zero.
    ///
    /// # Panics
    /// Unless `rows` has `features` values for each token, and `panels` for each column.
    pub fn enter(&self, isa: Isa, features: usize, rows: &[f32], panels: &mut [f32]) {
        self.check_rows(features, rows, panels);
        // SAFETY: the processor has `isa`'s instructions, and the lengths are checked.
        unsafe { isa.run(Enter { panels: *self, features, rows: rows.as_ptr(), to: panels.as_mut_ptr() }) }
    }

    /// Converts panels to rows of features. Columns that fill the last vectors are dropped.
    ///
    /// # Panics
    /// As [`Panels::enter`].
    pub fn leave(&self, isa: Isa, features: usize, panels: &[f32], rows: &mut [f32]) {
        self.check_rows(features, rows, panels);
        // SAFETY: as above.
        unsafe { isa.run(Leave { panels: *self, features, from: panels.as_ptr(), rows: rows.as_mut_ptr() }) }
    }

    fn check_rows(&self, features: usize, rows: &[f32], panels: &[f32]) {
        assert_eq!(panels.len(), self.values(features), "panels of {features} features");
        // There are at most as many rows as columns, so this does not overflow.
        assert_eq!(rows.len(), self.rows() * features, "rows of {features} features");
    }
}

struct Enter {
    panels: Panels,
    features: usize,
    rows: *const f32,
    to: *mut f32,
}

impl Kernel for Enter {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let features = self.features;
        for index in 0..self.panels.count() {
            let panel = self.panels.get(index);
            let rows = self.rows.add((panel.sequence * self.panels.tokens + panel.token) * features);
            let to = self.to.add(panel.column * features);
            transpose::<S>(rows, features, to, panel.width, panel.tokens, features);
            for feature in 0..features {
                for column in panel.tokens..panel.width {
                    *to.add(feature * panel.width + column) = 0.0;
                }
            }
        }
    }
}

struct Leave {
    panels: Panels,
    features: usize,
    from: *const f32,
    rows: *mut f32,
}

impl Kernel for Leave {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let features = self.features;
        for index in 0..self.panels.count() {
            let panel = self.panels.get(index);
            let rows = self.rows.add((panel.sequence * self.panels.tokens + panel.token) * features);
            let from = self.from.add(panel.column * features);
            transpose::<S>(from, panel.width, rows, features, features, panel.tokens);
        }
    }
}

/// `to[column][row] = from[row][column]`.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    rows: usize,
    columns: usize,
) {
    let (whole_rows, whole_columns) = (rows - rows % S::LANES, columns - columns % S::LANES);
    // Down the rows first: cache lines of the source are used up at once, those of the target are written within a few
    // steps.
    let mut column = 0;
    while column < whole_columns {
        let mut row = 0;
        while row < whole_rows {
            let from = from.add(row * from_stride + column);
            S::transpose(from, from_stride, to.add(column * to_stride + row), to_stride);
            row += S::LANES;
        }
        column += S::LANES;
    }
    for row in 0..rows {
        let first = if row < whole_rows { whole_columns } else { 0 };
        for column in first..columns {
            *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Before the sizes were checked, columns wrapped around to 0, a buffer of none fitted, and reads went beyond it.
    #[test]
    fn sizes_that_wrap_around_are_refused() {
        let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
        assert!(refused(&|| _ = Panels::new(usize::MAX / 16 + 1, 1)));
        assert!(refused(&|| _ = Panels::new(1, usize::MAX)));
        assert!(refused(&|| _ = Panels::new(0, usize::MAX / 2)));
        assert!(refused(&|| Panels::new(1, 16).enter(Isa::best(), usize::MAX / 16 + 1, &[], &mut [])));
    }

    #[test]
    fn every_token_is_in_one_panel() {
        for (sequences, tokens) in [(1, 1), (2, 16), (1, 65), (3, 80), (1, 128), (2, 130), (1, 512)] {
            let panels = Panels::new(sequences, tokens);
            let (mut column, mut row) = (0, 0);
            for index in 0..panels.count() {
                let panel = panels.get(index);
                assert_eq!((panel.column, panel.sequence * tokens + panel.token), (column, row));
                assert!((1..=panel.width).contains(&panel.tokens) && panel.width <= WIDTH);
                assert_eq!(panel.width % VECTOR, 0);
                (column, row) = (column + panel.width, row + panel.tokens);
            }
            assert_eq!((column, row), (panels.columns(), panels.rows()));
        }
    }

    proptest! {
        #[test]
        fn panels_give_the_rows_back(sequences in 1usize..3, tokens in 1usize..150, features in 1usize..50) {
            let panels = Panels::new(sequences, tokens);
            let rows: Vec<f32> = (0..panels.rows() * features).map(|value| value as f32).collect();
            for isa in Isa::available() {
                let mut there = vec![f32::NAN; panels.columns() * features];
                panels.enter(isa, features, &rows, &mut there);
                for index in 0..panels.count() {
                    let panel = panels.get(index);
                    for feature in 0..features {
                        for column in 0..panel.width {
                            let row = panel.sequence * tokens + panel.token + column;
                            let expected = if column < panel.tokens { rows[row * features + feature] } else { 0.0 };
                            prop_assert_eq!(there[panel.column * features + feature * panel.width + column], expected);
                        }
                    }
                }
                let mut back = vec![f32::NAN; rows.len()];
                panels.leave(isa, features, &there, &mut back);
                prop_assert_eq!(&back, &rows);
            }
        }
    }
}
