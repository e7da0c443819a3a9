//! The units of one tensor: which of its weights are removed together, and how important each unit is.
//!
//! A block is a tile of `rows` outputs by `columns` inputs, however the tensor is stored; tiles at the edges may be
//! smaller. Its importance is the sum over its weights. Tiles are numbered by row of tiles, single weights by flat
//! index.

use super::cut::key;
use crate::{Unit, layout::Matrices, prunable::Weight};

/// Below every score: what is removed already is removed first, and so stays removed.
pub const REMOVED: u32 = 0;

pub enum Units {
    Weights(usize),
    Blocks {
        matrices: Matrices,
        rows: usize,
        columns: usize,
    },
    /// Groups of `of` neighbours along the inputs of one output, of which `keep` stay. A unit is a single weight;
    /// weights at the end of a row that do not fill a group stay, and are no units.
    Groups {
        matrices: Matrices,
        keep: usize,
        of: usize,
    },
    /// The tensor has no rows and columns that the unit fits.
    None,
}

impl Units {
    /// `weight`'s values must be known to fit its shape: endless shapes would cost memory.
    pub fn of(weight: &Weight, unit: Unit) -> Units {
        let matrices = || weight.layout.as_ref().map(|layout| layout.matrices(&weight.shape));
        match unit {
            Unit::Weight => Units::Weights(weight.count as usize),
            Unit::Block { rows, columns } => match matrices() {
                Some(matrices) => Units::Blocks { matrices, rows: rows as usize, columns: columns as usize },
                None => Units::None,
            },
            Unit::NOfM { keep, of } => match matrices().filter(|matrices| matrices.columns.len() >= of as usize) {
                Some(matrices) => Units::Groups { matrices, keep: keep as usize, of: of as usize },
                None => Units::None,
            },
            Unit::Structure(_) => Units::None,
        }
    }

    pub fn count(&self) -> u64 {
        (match self {
            Units::Weights(count) => *count,
            Units::Blocks { matrices, rows, columns } => {
                let tiles = matrices.rows.len().div_ceil(*rows) * matrices.columns.len().div_ceil(*columns);
                matrices.batches.len() * tiles
            }
            Units::Groups { matrices, of, .. } => {
                matrices.batches.len() * matrices.rows.len() * (matrices.columns.len() / of * of)
            }
            Units::None => 0,
        }) as u64
    }

    /// Calls `show` with the key of every unit that competes with others, in order. Groups decide within themselves and
    /// show none.
    pub fn keys(&self, scores: &[f32], already: Option<&[bool]>, mut show: impl FnMut(u32)) {
        match (self, already) {
            (Units::Weights(_), None) => scores.iter().for_each(|score| show(key(*score))),
            (Units::Weights(_), Some(already)) => {
                let key = |(score, removed): (&f32, &bool)| if *removed { REMOVED } else { key(*score) };
                scores.iter().zip(already).for_each(|weight| show(key(weight)));
            }
            (Units::Blocks { .. }, _) => {
                self.blocks(|elements| {
                    let (mut sum, mut stays) = (0.0f64, already.is_none());
                    for element in elements {
                        sum += f64::from(scores[element]);
                        stays = stays || already.is_some_and(|already| !already[element]);
                    }
                    show(if stays { key(sum as f32) } else { REMOVED });
                });
            }
            (Units::Groups { .. } | Units::None, _) => {}
        }
    }

    /// Marks in `removed` every weight of the removed units; `goes` is by unit. Returns how many units are removed.
    pub fn mark(&self, removed: &mut Vec<bool>, goes: Vec<bool>) -> u64 {
        let count = goes.iter().map(|goes| u64::from(*goes)).sum();
        match self {
            // Weights removed before have the lowest key, and are removed again.
            Units::Weights(_) => *removed = goes,
            Units::Blocks { .. } => {
                let mut goes = goes.into_iter();
                self.blocks(|elements| {
                    if goes.next().unwrap_or(false) {
                        elements.for_each(|element| removed[element] = true);
                    }
                });
            }
            Units::Groups { .. } | Units::None => {}
        }
        count
    }

    fn blocks(&self, mut f: impl FnMut(&mut dyn Iterator<Item = usize>)) {
        let Units::Blocks { matrices, rows, columns } = self else { return };
        for batch in &matrices.batches {
            for rows in matrices.rows.chunks(*rows) {
                for columns in matrices.columns.chunks(*columns) {
                    let row = |row: &usize| {
                        let start = batch + row;
                        columns.iter().map(move |column| start + column)
                    };
                    f(&mut rows.iter().flat_map(row));
                }
            }
        }
    }

    /// Removes all but the `keep` most important of each group; those removed already first, then the less important,
    /// then the earlier. Returns how many weights of groups are removed.
    pub fn mark_groups(&self, scores: &[f32], removed: &mut [bool]) -> u64 {
        let Units::Groups { matrices, keep, of } = self else { return 0 };
        let mut group: Vec<(bool, u32, usize)> = Vec::with_capacity(*of);
        let mut units = 0;
        for batch in &matrices.batches {
            for row in &matrices.rows {
                for columns in matrices.columns.chunks_exact(*of) {
                    group.clear();
                    group.extend(columns.iter().map(|column| {
                        let element = batch + row + column;
                        (!removed[element], key(scores[element]), element)
                    }));
                    // Stable: of equals the earlier come first.
                    group.sort_by_key(|(stays, key, _)| (*stays, *key));
                    group[..of - keep].iter().for_each(|(_, _, element)| removed[*element] = true);
                    units += group.iter().filter(|(_, _, element)| removed[*element]).count() as u64;
                }
            }
        }
        units
    }
}
