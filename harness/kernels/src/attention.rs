//! Attention over panels: softmax(scale · K Q + mask) and the sum of values weighted by it, head by head. There is no
//! tensor with the scores of all heads.
//!
//! In and out: panels. A head's queries are vectors as they lie in memory, its keys and values are broadcast: nothing
//! is transposed. A head needs one table of keys by 64 queries at a time. Keys that only fill a vector are left out;
//! queries that only fill a vector are computed and dropped.

use std::{ops::Range, ptr};

use crate::{
    aligned::Aligned,
    linear_dense::{Start, Tiles},
    linear_panels::{Panel, Panels, Target, WIDTH},
    share_out::in_parts,
    simd::{Isa, Kernel, Simd},
    softmax::{Added, Exponents},
    threads::Threads,
};

/// One of the three inputs: panels of `features`. Those from `first` on are queries, keys or values, one head after
/// another.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInput<'a> {
    pub panels: &'a [f32],
    pub features: usize,
    pub first: usize,
}

/// Added to the scores: the value for a sequence, head, query and key lies at the sum of index times stride. A stride
/// of 0 means that the value does not depend on that index.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    pub values: &'a [f32],
    /// Sequence, head, query, key.
    pub strides: [usize; 4],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    pub heads: usize,
    /// Features of a head's queries and keys.
    pub size: usize,
    /// Features of a head's values.
    pub value_size: usize,
    pub scale: f32,
    pub queries: Panels,
    /// Of as many sequences as the queries.
    pub keys: Panels,
}

impl Attention {
    /// The output has `heads * value_size` features.
    ///
    /// # Panics
    /// Unless every length is the one its shape asks for.
    #[expect(clippy::too_many_arguments, reason = "three inputs, a mask, an output, and where it runs")]
    pub fn run(
        &self,
        isa: Isa,
        threads: &Threads,
        q: AttentionInput,
        k: AttentionInput,
        v: AttentionInput,
        mask: Option<Mask>,
        output: &mut [f32],
    ) {
        let of_heads = |size: usize| self.heads.checked_mul(size).expect("more features than can be counted");
        assert_eq!(self.queries.sequences(), self.keys.sequences(), "keys for each sequence of queries");
        for (part, panels, size) in
            [(q, self.queries, self.size), (k, self.keys, self.size), (v, self.keys, self.value_size)]
        {
            assert_eq!(part.panels.len(), panels.values(part.features), "panels of {} features", part.features);
            let end = part.first.checked_add(of_heads(size));
            assert!(end.is_some_and(|end| end <= part.features), "heads that end beyond the features");
        }
        assert_eq!(output.len(), self.queries.values(of_heads(self.value_size)), "panels of all heads' values");
        let (query_tokens, key_tokens) = (self.queries.tokens(), self.keys.tokens());
        let sizes = [self.keys.sequences(), self.heads, query_tokens, key_tokens];
        if let Some(mask) = mask.filter(|_| sizes.iter().all(|size| *size > 0)) {
            let mut strides = sizes.iter().zip(mask.strides);
            let last =
                strides.try_fold(0usize, |last, (size, stride)| last.checked_add((size - 1).checked_mul(stride)?));
            assert!(last.is_some_and(|last| last < mask.values.len()), "a mask with a value for each score");
        }
        if key_tokens == 0 || query_tokens == 0 {
            output.fill(0.0);
            return;
        }
        let turned = mask.is_some_and(|mask| mask.strides[2] != 0);
        let target = Target::of(output);
        in_parts(threads, of_heads(self.queries.count()), &|pairs| {
            let values = key_tokens * WIDTH;
            let (mut table, mut added) = (Aligned::zeros(values), Aligned::zeros(if turned { values } else { 0 }));
            let work = Work {
                attention: self,
                isa,
                q,
                k,
                v,
                mask,
                output: target.pointer(),
                table: table.as_mut_slice().as_mut_ptr(),
                added: added.as_mut_slice().as_mut_ptr(),
            };
            // SAFETY: the processor has `isa`'s instructions; the lengths were checked, and pairs are written once
            // each.
            unsafe { work.pairs(pairs) }
        });
    }
}

struct Work<'a> {
    attention: &'a Attention,
    isa: Isa,
    q: AttentionInput<'a>,
    k: AttentionInput<'a>,
    v: AttentionInput<'a>,
    mask: Option<Mask<'a>>,
    output: *mut f32,
    /// The scores: a row of at most 64 queries for each key.
    table: *mut f32,
    /// The mask in the same layout, where it differs by query.
    added: *mut f32,
}

impl Work<'_> {
    /// `pairs` count the heads of the first panel of queries, then those of the second, and so on.
    unsafe fn pairs(&self, pairs: Range<usize>) {
        let Attention { heads, value_size, queries, keys, scale, .. } = *self.attention;
        let mut sums = [0.0f32; WIDTH];
        for pair in pairs.clone() {
            let (queries, head) = (queries.get(pair / heads), pair % heads);
            let place = queries.column * heads * value_size + head * value_size * queries.width;
            self.scores(queries, head);
            let added = self.added_for(queries, head, pair == pairs.start);
            let (rows, columns) = (keys.tokens(), queries.width);
            self.isa.run(Exponents { table: self.table, rows, columns, scale, added, sums: sums.as_mut_ptr() });
            let to = self.output.add(place);
            self.weighted(queries, head, to);
            self.isa.run(Divide { table: to, rows: value_size, columns, by: sums.as_ptr() });
        }
    }

    /// Fills the table: each key times each query.
    unsafe fn scores(&self, queries: Panel, head: usize) {
        let Attention { size, keys, .. } = *self.attention;
        let AttentionInput { panels, features, first } = self.k;
        let at = queries.column * self.q.features + (self.q.first + head * size) * queries.width;
        let right = self.q.panels.as_ptr().add(at);
        for keys in keys.of_sequence(queries.sequence) {
            self.isa.run(Tiles {
                left: panels.as_ptr().add(keys.column * features + (first + head * size) * keys.width),
                left_row: 1,
                left_step: keys.width,
                rows: keys.tokens,
                depth: size,
                right,
                columns: queries.width,
                to: self.table.add(keys.token * queries.width),
                start: Start { bias: ptr::null(), add: ptr::null() },
            });
        }
    }

    /// The sum of the values, each weighted by the table's entry for its key.
    unsafe fn weighted(&self, queries: Panel, head: usize, to: *mut f32) {
        let Attention { value_size, keys, .. } = *self.attention;
        let AttentionInput { panels, features, first } = self.v;
        for keys in keys.of_sequence(queries.sequence) {
            let add = if keys.token == 0 { ptr::null() } else { to.cast_const() };
            self.isa.run(Tiles {
                left: panels.as_ptr().add(keys.column * features + (first + head * value_size) * keys.width),
                left_row: keys.width,
                left_step: 1,
                rows: value_size,
                depth: keys.tokens,
                right: self.table.add(keys.token * queries.width),
                columns: queries.width,
                to,
                start: Start { bias: ptr::null(), add },
            });
        }
    }

    /// The mask for these queries and this head.
    unsafe fn added_for(&self, queries: Panel, head: usize, first: bool) -> Option<Added> {
        let Mask { values, strides: [by_sequence, by_head, by_query, by_key] } = self.mask?;
        let values = values.as_ptr().add(queries.sequence * by_sequence + head * by_head);
        if by_query == 0 {
            return Some(Added { values, row_stride: by_key, column_stride: 0 });
        }
        // A mask that is the same for all heads is transposed once.
        if first || head == 0 || by_head != 0 {
            for key in 0..self.attention.keys.tokens() {
                for column in 0..queries.width {
                    // Queries that only fill the vector take the mask of the last one.
                    let query = queries.token + column.min(queries.tokens - 1);
                    *self.added.add(key * queries.width + column) = *values.add(query * by_query + key * by_key);
                }
            }
        }
        Some(Added { values: self.added, row_stride: queries.width, column_stride: 1 })
    }
}

/// Divides each column of a table by a number of its own.
struct Divide {
    table: *mut f32,
    rows: usize,
    columns: usize,
    by: *const f32,
}

impl Kernel for Divide {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut done = 0;
        while done < self.columns {
            let factor = S::div(S::splat(1.0), S::load(self.by.add(done)));
            for row in 0..self.rows {
                let at = self.table.add(row * self.columns + done);
                S::store(at, S::mul(S::load(at), factor));
            }
            done += S::LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{is_close, synthetic};

    struct Case {
        attention: Attention,
        /// Which of sequence, head, query and key the mask depends on; `None` for no mask.
        masked: Option<[bool; 4]>,
        /// Queries, keys and values are in one tensor, side by side.
        together: bool,
    }

    fn check(case: &Case) {
        let Attention { heads, size, value_size, scale, queries, keys } = case.attention;
        let features = heads * (2 * size + value_size);
        let firsts = [0, heads * size, 2 * heads * size];
        let rows = [
            synthetic(queries.rows() * features, 1),
            synthetic(keys.rows() * features, 2),
            synthetic(keys.rows() * features, 3),
        ];
        let rows = if case.together { [rows[0].clone(), rows[0].clone(), rows[0].clone()] } else { rows };
        let sizes = [queries.sequences(), heads, queries.tokens(), keys.tokens()];
        let mut strides = [0; 4];
        let mut length = 1;
        for axis in (0..4).rev() {
            if case.masked.is_some_and(|masked| masked[axis]) {
                strides[axis] = length;
                length *= sizes[axis];
            }
        }
        let mask_values: Vec<f32> =
            synthetic(length, 4).iter().map(|value| if *value < -0.6 { -60.0 } else { *value }).collect();
        let mask = case.masked.map(|_| Mask { values: &mask_values, strides });
        let at =
            |part: usize, tokens: usize, sequence: usize, token: usize, head: usize, size: usize, feature: usize| {
                f64::from(rows[part][(sequence * tokens + token) * features + firsts[part] + head * size + feature])
            };
        for isa in Isa::available() {
            let panels: Vec<Vec<f32>> = (0..3)
                .map(|part| {
                    let geometry = if part == 0 { queries } else { keys };
                    let mut panels = vec![0.0; geometry.columns() * features];
                    geometry.enter(isa, features, &rows[part], &mut panels);
                    panels
                })
                .collect();
            let parts = [0, 1, 2].map(|part| AttentionInput { panels: &panels[part], features, first: firsts[part] });
            for threads in [1, 2] {
                let mut output = vec![f32::NAN; queries.columns() * heads * value_size];
                case.attention.run(isa, &Threads::new(threads), parts[0], parts[1], parts[2], mask, &mut output);
                let mut found = vec![f32::NAN; queries.rows() * heads * value_size];
                queries.leave(isa, heads * value_size, &output, &mut found);
                for sequence in 0..queries.sequences() {
                    for head in 0..heads {
                        for query in 0..queries.tokens() {
                            let scores: Vec<f64> = (0..keys.tokens())
                                .map(|key| {
                                    let products = (0..size).map(|feature| {
                                        at(0, queries.tokens(), sequence, query, head, size, feature)
                                            * at(1, keys.tokens(), sequence, key, head, size, feature)
                                    });
                                    let index: usize =
                                        [sequence, head, query, key].iter().zip(strides).map(|(i, s)| i * s).sum();
                                    let added = if case.masked.is_some() { f64::from(mask_values[index]) } else { 0.0 };
                                    products.sum::<f64>() * f64::from(scale) + added
                                })
                                .collect();
                            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                            let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                            let sum: f64 = powers.iter().sum();
                            for feature in 0..value_size {
                                let values = (0..keys.tokens()).map(|key| {
                                    powers[key] / sum * at(2, keys.tokens(), sequence, key, head, value_size, feature)
                                });
                                let exact = values.sum::<f64>();
                                let row = sequence * queries.tokens() + query;
                                let found = found[(row * heads + head) * value_size + feature];
                                assert!(is_close(found, exact), "{} {query}: {found}, not {exact}", isa.name());
                            }
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn heads_are_weighted_values(
            sequences in 1usize..3,
            tokens in 1usize..90,
            other_tokens in 1usize..90,
            heads in 1usize..4,
            size in 1usize..20,
            value_size in 1usize..20,
            masked in proptest::option::of(any::<[bool; 4]>()),
            together in any::<bool>(),
        ) {
            let queries = Panels::new(sequences, tokens);
            let keys = if together { queries } else { Panels::new(sequences, other_tokens) };
            let attention = Attention { heads, size, value_size, scale: 0.4, queries, keys };
            check(&Case { attention, masked, together });
        }
    }
}
