//! LSTM and GRU: one op for a whole sequence replaces tract's `Scan`, which runs its body at each step, and its
//! `GruSeq`.
//!
//! The pass runs before declutter, when both are as tract's importer made them (see `layer`). Weights may be constants
//! or computed from constants, as by exporters that reorder gates. Where activations may be skipped, an LSTM with dense
//! recurrent weights leaves out the units whose state hardly changed. A scan that keeps its state from one inference to
//! the next is not replaced.

mod layer;
mod op;

use std::ops::Range;

use espalier_kernels::{
    Isa,
    matvec::{self, Format, PackedMatrix},
    recurrent::{Gru, GruProducts, Lstm},
};
use tract_onnx::prelude::*;

use self::{
    layer::{CellKind, RecurrentLayer},
    op::{Cell, Recurrent, both},
};
use crate::{
    Context, Pass,
    choice::Candidate,
    op::{LayerOp, Shared},
    weights,
};

pub const PASSES: &[Pass] = &[Pass::Node(recurrent)];

fn recurrent(context: &mut Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(layer) = RecurrentLayer::at(context, model, node)? else { return Ok(None) };
    let (isa, skip_below) = (context.isa, context.skip_below.unwrap_or(0.0));
    let w = RecurrentMatrix::new(layer.kind.gates() * layer.hidden, layer.input, &layer.w);
    let r = RecurrentMatrix::new(layer.kind.gates() * layer.hidden, layer.hidden, &layer.r);
    // Every format that suits one of the two weights; the other weight takes the most similar of its own.
    let formats = Format::ALL.into_iter().filter(|format| w.formats.contains(format) || r.formats.contains(format));
    let mut pairs: Vec<(Format, Format)> = formats.map(|format| (w.nearest(format), r.nearest(format))).collect();
    pairs.dedup();
    let build = |(of_inputs, of_state): (Format, Format)| -> TractResult<Box<dyn TypedOp>> {
        let cell = cell(skip_below, &layer, w.product(isa, of_inputs), |rows| r.rows_as(isa, of_state, rows));
        Ok(LayerOp::boxed(Recurrent::new(&layer, Shared::new(cell))))
    };
    let candidates: Vec<Candidate> = pairs
        .iter()
        .map(|pair| Candidate { kernel: format!("{} {}", both(*pair), isa.name()), build: Box::new(|| build(*pair)) })
        .collect();
    let skips = if skip_below > 0.0 { format!(", skips below {skip_below}") } else { String::new() };
    let what = format!("{}, {}, {}{skips}", layer.kind.name(), w.pattern(), r.pattern());
    let op = context.choose(model, &layer.region, layer.kind.name(), &what, &candidates)?;
    op.map(|op| layer.region.replaced(model, op)).transpose()
}

fn cell(
    skip_below: f32,
    layer: &RecurrentLayer,
    inputs: PackedMatrix,
    state: impl Fn(Range<usize>) -> PackedMatrix,
) -> Cell {
    let hidden = layer.hidden;
    let biases = layer.b.as_deref();
    match layer.kind {
        CellKind::Lstm => Cell::Lstm(Lstm::new(inputs, state(0..4 * hidden), biases).skipping(skip_below)),
        CellKind::Gru => {
            let products =
                GruProducts::ResetFirst { gates: state(0..2 * hidden), hidden: state(2 * hidden..3 * hidden) };
            Cell::Gru(Gru::new(inputs, products, biases))
        }
        CellKind::GruLinear => Cell::Gru(Gru::new(inputs, GruProducts::ResetLast(state(0..3 * hidden)), biases)),
    }
}

/// A weight matrix, and the formats worth trying for it.
struct RecurrentMatrix<'a> {
    rows: usize,
    columns: usize,
    values: &'a [f32],
    formats: Vec<Format>,
}

impl<'a> RecurrentMatrix<'a> {
    fn new(rows: usize, columns: usize, values: &'a [f32]) -> RecurrentMatrix<'a> {
        RecurrentMatrix { rows, columns, values, formats: matvec::candidates(rows, columns, values) }
    }

    /// `format`, or the most similar one that is worth trying: larger blocks for smaller ones, then dense.
    fn nearest(&self, format: Format) -> Format {
        let place = |format: &Format| Format::ALL.iter().position(|known| known == format);
        let at = place(&format);
        if at == Some(0) {
            return Format::Dense;
        }
        let last = self.formats.iter().rev().find(|known| place(known) <= at && place(known) > Some(0));
        *last.or(self.formats.get(1)).unwrap_or(&Format::Dense)
    }

    fn product(&self, isa: Isa, format: Format) -> PackedMatrix {
        self.rows_as(isa, format, 0..self.rows)
    }

    fn rows_as(&self, isa: Isa, format: Format, rows: Range<usize>) -> PackedMatrix {
        let values = &self.values[rows.start * self.columns..rows.end * self.columns];
        PackedMatrix::new(isa, format, rows.len(), self.columns, values)
    }

    /// What distinguishes it from other matrices of its size for the choice of a kernel.
    fn pattern(&self) -> String {
        let zeros = self.values.iter().filter(|value| **value == 0.0).count();
        let zeros = weights::zeros_class(zeros as f64 / self.values.len().max(1) as f64);
        let formats: Vec<String> = self.formats.iter().map(Format::to_string).collect();
        format!("{} x {} {} z{zeros}", self.rows, self.columns, formats.join(" "))
    }
}
