//! Layer normalisation in every spelling: tract splits LayerNormalization into a dozen nodes, and so do older exports.

use std::collections::HashSet;

use espalier_kernels::{linear_panels::Panels, normalise::LayerNorm, random::XorShift, simd::Isa, threads::Threads};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{binary::TypedBinOp, math, nn::Reduce},
    },
};

use crate::{
    linear_ops::panel_fact,
    linear_trial::Trial,
    op::{Layer, Shared, blank, floats},
};

/// Rows of a trial.
const ROWS: usize = 4;

/// A layer normalisation in the graph.
pub struct LayerNormMatch {
    pub input: OutletId,
    pub output: OutletId,
    pub norm: LayerNorm,
}

/// All layer normalisations of the graph along the last axis.
pub fn find(model: &TypedModel) -> Vec<LayerNormMatch> {
    let mut tried = HashSet::new();
    let mut all = Vec::new();
    for node in model.nodes() {
        let Some(reduce) = node.op_as::<Reduce>() else { continue };
        let [start] = *node.inputs else { continue };
        let Ok(fact) = model.outlet_fact(start) else { continue };
        let rank = fact.rank();
        let along_last = rank >= 2 && *reduce.axes == [rank - 1] && fact.datum_type == DatumType::F32;
        if along_last && tried.insert(start) {
            all.extend(find_at(model, start));
        }
    }
    all
}

fn find_at(model: &TypedModel, start: OutletId) -> Option<LayerNormMatch> {
    let shape = model.outlet_fact(start).ok()?.shape.as_concrete()?.to_vec();
    let features = *shape.last().filter(|features| **features >= 2)?;
    let rows = trial_rows(features);
    let mut trial_shape = vec![1; shape.len()];
    trial_shape[shape.len() - 2] = ROWS;
    trial_shape[shape.len() - 1] = features;
    let trial = Trial::of(model, start, Tensor::from_shape(&trial_shape, &rows).ok()?);
    let mut best: Option<(usize, LayerNormMatch)> = None;
    for (outlet, found) in trial.results() {
        if found.len() != rows.len() || model.outlet_fact(outlet).ok()?.shape.as_concrete() != Some(&*shape) {
            continue;
        }
        let Some(inside) = trial.inside(outlet, false) else { continue };
        let Some(norm) = explain(model, &trial, &inside, features, &rows, &found) else { continue };
        if best.as_ref().is_none_or(|(size, _)| *size < inside.len()) {
            best = Some((inside.len(), LayerNormMatch { input: start, output: outlet, norm }));
        }
    }
    best.map(|(_, found)| found)
}

/// Rows of different means and spreads. The values of the last are so close that a usual epsilon makes a difference.
fn trial_rows(features: usize) -> Vec<f32> {
    let mut random = XorShift::new(2);
    let rows = [(0.0, 1.0), (0.5, 2.0), (-2.0, 3.0), (0.0, 2e-3)];
    let mut row = |(mean, spread)| (0..features).map(|_| mean + spread * random.signed()).collect::<Vec<f32>>();
    rows.into_iter().flat_map(&mut row).collect()
}

/// The normalisation that computes `found`, with constants of the nodes inside.
fn explain(
    model: &TypedModel,
    trial: &Trial,
    inside: &HashSet<usize>,
    features: usize,
    rows: &[f32],
    found: &[f32],
) -> Option<LayerNorm> {
    let (mut scale, mut shift, mut epsilons) = (vec![1.0; features], vec![0.0; features], vec![0.0]);
    for (id, constant) in trial.constants(inside) {
        let Some(op) = model.node(id).op_as::<TypedBinOp>() else { continue };
        let Some(values) = floats(&constant) else { continue };
        if values.len() == features && constant.shape().last() == Some(&features) {
            if op.0.is::<math::Mul>() {
                scale = values;
            } else if op.0.is::<math::Add>() {
                shift = values;
            }
        } else if values.len() == 1 && op.0.is::<math::Add>() && (0.0..0.1).contains(&values[0]) {
            epsilons.push(values[0]);
        }
    }
    epsilons.into_iter().rev().find_map(|epsilon| {
        let norm = LayerNorm { scale: scale.clone(), shift: shift.clone(), epsilon };
        computes(&norm, rows, found).then_some(norm)
    })
}

fn computes(norm: &LayerNorm, rows: &[f32], found: &[f32]) -> bool {
    let features = norm.scale.len();
    rows.chunks_exact(features).zip(found.chunks_exact(features)).all(|(row, found)| {
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / features as f64;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / features as f64;
        let factor = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        row.iter().zip(found).enumerate().all(|(feature, (x, found))| {
            let exact = (f64::from(*x) - mean) * factor * f64::from(norm.scale[feature]);
            let size = exact.abs() + f64::from(norm.shift[feature].abs());
            (exact + f64::from(norm.shift[feature]) - f64::from(*found)).abs() <= 2e-4 * size.max(1e-2)
        })
    })
}

/// Layer normalisation of panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalise {
    pub isa: Isa,
    pub panels: Panels,
    pub norm: Shared<LayerNorm>,
    pub threads: Shared<Threads>,
}

impl Layer for Normalise {
    fn op(&self) -> String {
        "layer norm".to_owned()
    }

    fn kernel(&self) -> String {
        self.isa.name().to_owned()
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let features = self.norm.scale.len();
        ensure!(inputs[0].shape.as_concrete() == Some(&[self.panels.columns(), features][..]));
        Ok(panel_fact(self.panels, features))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = blank(inputs[0].shape())?;
        let (from, mut to) = (inputs[0].try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        self.norm.run(self.isa, &self.threads, self.panels, from.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}
