//! Weights that are not in the graph: there they are inputs with their names, and they are read from a pack or a file
//! when a pass asks for them.
//!
//! So a packed weight only becomes dense where tract itself uses it, and no weight is in memory twice for longer than
//! it takes to pack it for a kernel. A weight that no pass replaced becomes a constant of the graph at the end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use espalier_weights::{Channels, Layout, Matrix, Sparse};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{konst::Const, source::TypedSource},
    },
};

/// Reads one weight.
pub type ReadWeight = Box<dyn Fn() -> TractResult<Weight> + Send + Sync>;

/// Weights by their names in the graph.
#[derive(Clone, Default)]
pub struct Weights(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stored: HashMap<String, ReadWeight>,
    /// The last weight, because a pass asks for the weight of a layer several times.
    last: Mutex<Option<(String, Weight)>>,
}

/// A constant tensor of f32, as it is stored.
#[derive(Clone, Debug)]
pub enum Weight {
    Dense(Arc<Tensor>),
    /// The rows of the matrix are the leading axes of the shape.
    Sparse {
        matrix: Arc<Sparse>,
        shape: TVec<usize>,
    },
}

/// The shares of a weight's cells and blocks that are not all zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filled {
    pub cells: f64,
    /// Four rows, one column.
    pub four: f64,
    pub eight: f64,
    /// One row, four columns.
    pub across: f64,
}

impl Weights {
    pub fn new(stored: HashMap<String, ReadWeight>) -> Weights {
        Weights(Arc::new(Inner { stored, last: Mutex::new(None) }))
    }

    /// The weight that a node stands for; `None` for any other node.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn of(&self, node: &TypedNode) -> TractResult<Option<Weight>> {
        if !node.op_is::<TypedSource>() {
            return Ok(None);
        }
        let weight = self.named(&node.name)?;
        if let Some(weight) = &weight {
            let shape = node.outputs[0].fact.shape.as_concrete();
            ensure!(
                shape == Some(weight.shape()),
                "the weight `{}` has the shape {:?}, the graph has {shape:?}",
                node.name,
                weight.shape()
            );
        }
        Ok(weight)
    }

    /// # Errors
    /// A weight that cannot be read.
    pub fn named(&self, name: &str) -> TractResult<Option<Weight>> {
        let Some(stored) = self.0.stored.get(name) else { return Ok(None) };
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, weight)) = last.as_ref().filter(|(known, _)| known == name) {
            return Ok(Some(weight.clone()));
        }
        // Freed before the next one is read.
        *last = None;
        let weight = stored().with_context(|| format!("the weight `{name}` cannot be read"))?;
        *last = Some((name.to_owned(), weight.clone()));
        Ok(Some(weight))
    }

    /// Puts the weights that are still inputs of the graph into it as constants.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn fill(&self, model: &mut TypedModel) -> TractResult<()> {
        for id in 0..model.nodes().len() {
            let node = model.node(id);
            if let Some(weight) = self.of(node)? {
                self.forget();
                let tensor = weight.into_dense()?;
                let node = model.node_mut(id);
                node.outputs[0].fact = TypedFact::try_from(&tensor)?;
                node.op = Box::new(Const::new(tensor)?);
            }
        }
        Ok(())
    }

    /// Frees the weight that is kept in memory.
    pub fn forget(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Weight {
    pub fn shape(&self) -> &[usize] {
        match self {
            Weight::Dense(tensor) => tensor.shape(),
            Weight::Sparse { shape, .. } => shape,
        }
    }

    pub fn datum_type(&self) -> DatumType {
        match self {
            Weight::Dense(tensor) => tensor.datum_type(),
            Weight::Sparse { .. } => DatumType::F32,
        }
    }

    /// The shares of the weight as a matrix with `rows` rows. Blocks end at each `group` of rows, where they may be
    /// smaller.
    ///
    /// # Errors
    /// Rows that do not divide it, or another type than f32.
    pub fn filled(&self, rows: usize, group: usize) -> TractResult<Filled> {
        let count = self.shape().iter().product::<usize>();
        ensure!(
            rows > 0 && group > 0 && rows.is_multiple_of(group) && count.is_multiple_of(rows),
            "no matrix of {rows} rows"
        );
        let (columns, groups) = (count / rows, rows / group);
        let (fours, eights, across) = (group.div_ceil(4), group.div_ceil(8), columns.div_ceil(4));
        // Cells, blocks of four rows, of eight, and of four columns.
        let mut full = [0usize; 4];
        match self {
            Weight::Sparse { matrix, .. } if matrix.rows == rows => {
                // Each block has a bit, because cells come in the order in which they are stored.
                let first = |of_group: usize, height: usize| {
                    let block = move |row: usize| row / group * of_group + row % group / height;
                    (0..rows).map(|row| block(row) * columns).collect::<Vec<usize>>()
                };
                let (first_four, first_eight) = (first(fours, 4), first(eights, 8));
                let bits = |count: usize| vec![0u64; count.div_ceil(64)];
                let (mut four, mut eight) = (bits(fours * groups * columns), bits(eights * groups * columns));
                let mut wide = bits(rows * across);
                let set = |bits: &mut [u64], at: usize| bits[at / 64] |= 1 << (at % 64);
                matrix.index.for_each(rows, columns, |place, row, column| {
                    if matrix.values[place] != 0.0 {
                        full[0] += 1;
                        set(&mut four, first_four[row] + column);
                        set(&mut eight, first_eight[row] + column);
                        set(&mut wide, row * across + column / 4);
                    }
                });
                for (full, bits) in full[1..].iter_mut().zip([four, eight, wide]) {
                    *full = bits.iter().map(|bits| bits.count_ones() as usize).sum();
                }
            }
            _ => {
                let dense = self.dense()?;
                let plain = dense.try_as_plain_ram()?;
                let (mut four, mut eight) = (vec![0u32; columns], vec![0u32; columns]);
                let close = |any: &mut [u32]| {
                    let full = any.iter().filter(|any| **any != 0).count();
                    any.fill(0);
                    full
                };
                for group in plain.as_slice::<f32>()?.chunks_exact((group * columns).max(1)) {
                    for (index, row) in group.chunks_exact(columns.max(1)).enumerate() {
                        if index > 0 && index % 4 == 0 {
                            full[1] += close(&mut four);
                        }
                        if index > 0 && index % 8 == 0 {
                            full[2] += close(&mut eight);
                        }
                        // Without the sign: -0.0 is zero.
                        let bits = |value: &f32| value.to_bits() << 1;
                        for ((value, four), eight) in row.iter().zip(&mut four).zip(&mut eight) {
                            *four |= bits(value);
                            *eight |= bits(value);
                        }
                        full[0] += row.iter().filter(|value| bits(value) != 0).count();
                        let any = |block: &[f32]| block.iter().fold(0, |any, value| any | bits(value)) != 0;
                        full[3] += row.chunks(4).filter(|block| any(block)).count();
                    }
                    full[1] += close(&mut four);
                    full[2] += close(&mut eight);
                }
            }
        }
        let all = [count, fours * groups * columns, eights * groups * columns, rows * across];
        let share = |index: usize| full[index] as f64 / all[index].max(1) as f64;
        Ok(Filled { cells: share(0), four: share(1), eight: share(2), across: share(3) })
    }

    /// # Errors
    /// None in practice: sizes were checked when it was read.
    pub fn dense(&self) -> TractResult<Arc<Tensor>> {
        self.clone().into_dense()
    }

    pub fn into_dense(self) -> TractResult<Arc<Tensor>> {
        match self {
            Weight::Dense(tensor) => Ok(tensor),
            Weight::Sparse { matrix, shape } => {
                let mut tensor = Tensor::zero::<f32>(&shape)?;
                let mut plain = tensor.try_as_plain_ram_mut()?;
                let values = plain.as_slice_mut::<f32>()?;
                matrix.index.for_each(matrix.rows, matrix.columns, |place, row, column| {
                    values[row * matrix.columns + column] = matrix.values[place];
                });
                Ok(tensor.into_arc_tensor())
            }
        }
    }

    /// The weight as a matrix with `rows` rows, which are its leading axes. Dense where it is not stored sparse with
    /// these rows.
    ///
    /// # Errors
    /// Rows that do not divide it, or another type than f32.
    pub fn matrix(&self, rows: usize) -> TractResult<Sparse> {
        if let Weight::Sparse { matrix, .. } = self
            && matrix.rows == rows
        {
            return Ok(Sparse::clone(matrix));
        }
        let tensor = self.dense()?;
        let plain = tensor.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        let columns = values.len().checked_div(rows).unwrap_or(0);
        Ok(Sparse::new(Layout::Dense, &Matrix::new(rows, columns, Channels::Rows, values)?)?)
    }

    /// Applies a change of axes. A sparse matrix stays sparse where it is transposed, or its values keep their order.
    ///
    /// # Errors
    /// Axes it does not have.
    pub fn changed(self, op: &AxisOp) -> TractResult<Weight> {
        if let Weight::Sparse { matrix, shape } = &self {
            let mut changed = shape.clone();
            op.change_shape_array(&mut changed, false)?;
            if matches!(op, AxisOp::Move(0, 1) | AxisOp::Move(1, 0)) && shape.len() == 2 && matrix.rows == shape[0] {
                return Ok(Weight::Sparse { matrix: Arc::new(matrix.transposed()), shape: changed });
            }
            // An axis of one is added or removed: the values keep their order.
            if matches!(op, AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..)) {
                return Ok(Weight::Sparse { matrix: Arc::clone(matrix), shape: changed });
            }
        }
        let mut tensor = Tensor::clone(&*self.into_dense()?);
        op.change_tensor(&mut tensor, false)?;
        Ok(Weight::Dense(tensor.into_arc_tensor()))
    }
}

impl Filled {
    /// A short name for the pattern of zeros: the shares of zeros, of zero blocks of four along the first axis, and of
    /// zero blocks of four along the others. Weights that are similar enough to have the same fastest kernel have the
    /// same name, however they are stored. Stored choices have it in their keys.
    pub fn pattern(&self) -> String {
        if self.cells == 1.0 {
            return "z0".to_owned();
        }
        let [zeros, down, across] = [self.cells, self.four, self.across].map(|filled| zeros_class(1.0 - filled));
        format!("z{zeros} 4x1 z{down} 1x4 z{across}")
    }
}

/// A share of zeros in per cent, rounded to steps that get finer towards 100, because the rest is what is computed.
pub fn zeros_class(zeros: f64) -> u32 {
    let steps = [0, 10, 20, 30, 40, 50, 60, 65, 70, 75, 80, 85, 90, 93, 95, 97, 98, 99, 100];
    let distance = |step: &u32| ((f64::from(*step) - 100.0 * zeros).abs() * 1e6) as u64;
    steps.into_iter().min_by_key(distance).unwrap_or(0)
}
