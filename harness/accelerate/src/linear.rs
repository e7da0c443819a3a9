//! Products with constant weights and the operations between them: bias, activation, residual sums, layer
//! normalisation, attention.
//!
//! Activations are converted to panels once and stay panels from layer to layer. Each new op uses existing panels or
//! converts rows to panels, and converts its result back to rows for the rest of the graph; conversions without users
//! are dropped. So a transformer works on panels from its embedding to its end. The kernel of a product is chosen by a
//! measurement, in which the conversions count as part of our kernels.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use espalier_kernels::{
    elementwise::Activation,
    linear_dense::WeightMatrix,
    linear_panels::Panels,
    linear_skipping::SkippingWeight,
    matvec::{self, PackedMatrix},
};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{binary::TypedBinOp, change_axes::AxisOp, einsum::EinSum, math},
    },
};

use crate::{
    Context, Pass,
    attention::{self, AttentionMatch, AttentionOp},
    choice::Candidate,
    context::{does_nothing, only_successor},
    linear_ops::{Enter, Leave, Linear, LinearForm, LinearProduct, LinearWeight, Sum},
    linear_skip::{FEWEST_WEIGHTS, LinearSkipping, SkippingLayer},
    linear_trial,
    linear_vectors::{LinearVectors, VectorProduct},
    normalise::{self, LayerNormMatch, Normalise},
    op::{LayerOp, Shared, floats},
    region::{Region, concrete_shape},
};

pub const PASSES: &[Pass] = &[Pass::Model(change)];

/// With fewer tokens most of a panel is padding: panels are not tried.
const FEWEST_TOKENS: usize = 4;

/// With more tokens a product of vectors is slower than panels: it is not tried.
const MOST_VECTORS: usize = 16;

/// With a larger share of stored cells a sparse kernel is slower than a dense one: it is not tried.
const MOST_CELLS: f64 = 0.7;

/// A part of the graph that works on panels.
enum PanelMatch {
    Linear(LinearLayer),
    Norm(LayerNormMatch),
    Attention(AttentionMatch),
    /// The sum of two activations.
    Sum(OutletId),
}

struct LinearLayer {
    input: OutletId,
    weight: OutletId,
    /// The weight has an output a row.
    by_output: bool,
    /// One value for each output, or empty.
    bias: Vec<f32>,
    activation: Activation,
    output: OutletId,
}

impl PanelMatch {
    /// The outlet where it ends.
    fn output(&self) -> OutletId {
        match self {
            PanelMatch::Linear(layer) => layer.output,
            PanelMatch::Norm(norm) => norm.output,
            PanelMatch::Attention(attention) => attention.output,
            PanelMatch::Sum(output) => *output,
        }
    }
}

fn change(context: &mut Context, model: &mut TypedModel) -> TractResult<()> {
    let mut all: Vec<PanelMatch> = normalise::find(model).into_iter().map(PanelMatch::Norm).collect();
    all.extend(attention::find(model).into_iter().map(PanelMatch::Attention));
    for node in model.nodes() {
        match linear_layer(context, model, node) {
            Ok(layer) => all.extend(layer.map(PanelMatch::Linear)),
            Err(error) => context.note(node, format!("{error:#}")),
        }
        all.extend(sum(model, node).map(PanelMatch::Sum));
    }
    // Panels speed up products: without one there is nothing to gain.
    if !all.iter().any(|found| matches!(found, PanelMatch::Linear(_))) {
        return Ok(());
    }
    let order: HashMap<usize, usize> = model.eval_order()?.into_iter().zip(0..).collect();
    all.retain(|found| order.contains_key(&found.output().node));
    all.sort_by_key(|found| order[&found.output().node]);

    let mut rewriter = Rewriter { geometry: HashMap::new(), panels: HashMap::new(), renamed: HashMap::new() };
    for found in &all {
        if let PanelMatch::Attention(found) = found {
            for panels in [found.attention.queries, found.attention.keys] {
                rewriter.geometry.entry(panels.rows()).or_insert(panels);
            }
        }
    }
    for found in all {
        let output = found.output();
        // A match that became part of another has no users any more.
        if model.outlet_successors(output).is_empty() && !model.outputs.contains(&output) {
            continue;
        }
        let name = model.node(output.node).name.clone();
        let done = match found {
            PanelMatch::Linear(layer) => rewriter.linear(context, model, layer),
            PanelMatch::Norm(norm) => rewriter.norm(context, model, norm),
            PanelMatch::Attention(attention) => rewriter.attention(context, model, attention),
            PanelMatch::Sum(output) => rewriter.sum(context, model, output),
        };
        done.with_context(|| format!("putting a kernel in the place of `{name}`"))?;
    }
    model.compact()
}

/// A product with a constant matrix, its bias, and the activation after it.
fn linear_layer(context: &Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<LinearLayer>> {
    let Some(einsum) = node.op_as::<EinSum>() else { return Ok(None) };
    if node.inputs.len() != 2 || einsum.q_params.is_some() || node.outputs[0].fact.datum_type != DatumType::F32 {
        return Ok(None);
    }
    let Some((weight, by_output)) =
        (0..2).rev().find_map(|weight| Some((weight, is_linear(model, node, einsum, weight)?)))
    else {
        return Ok(None);
    };
    let (input, weight) = (node.inputs[1 - weight], node.inputs[weight]);
    if model.outlet_fact(input)?.shape.as_concrete().is_none() {
        return Ok(None);
    }
    if !is_constant(context, model, weight)? || is_constant(context, model, input)? {
        return Ok(None);
    }
    let outputs = node.outputs[0].fact.shape.as_concrete().and_then(|shape| shape.last().copied()).context("open")?;
    let bias = bias(context, model, node, outputs)?;
    let (bias, mut output) = bias.unwrap_or((Vec::new(), OutletId::new(node.id, 0)));
    let mut activation = Activation::None;
    if let Some((found, end)) = linear_trial::activation(model, output) {
        (activation, output) = (found, end);
    }
    Ok(Some(LinearLayer { input, weight, by_output, bias, activation, output }))
}

/// Whether the input `weight` is a matrix of weights, and then whether its rows are outputs.
fn is_linear(model: &TypedModel, node: &TypedNode, einsum: &EinSum, weight: usize) -> Option<bool> {
    let x = 1 - weight;
    let (mut summed, mut own, mut others) = (None, None, Vec::new());
    for axis in einsum.axes.iter_all_axes() {
        match (&*axis.inputs[x], &*axis.inputs[weight], &*axis.outputs[0]) {
            ([x], [w], []) if summed.is_none() => summed = Some((*x, *w)),
            ([], [w], [out]) if own.is_none() => own = Some((*w, *out)),
            ([x], [], [out]) => others.push((*x, *out)),
            _ => return None,
        }
    }
    let ((x_place, summed), (own, out_place)) = (summed?, own?);
    let rank = model.outlet_fact(node.inputs[x]).ok()?.rank();
    let last = x_place + 1 == rank && out_place + 1 == node.outputs[0].fact.rank();
    let matrix = model.outlet_fact(node.inputs[weight]).ok()?.rank() == 2;
    (last && matrix && others.iter().all(|(x, out)| x == out)).then_some(own < summed)
}

/// Whether an outlet is a weight of f32.
fn is_constant(context: &Context, model: &TypedModel, outlet: OutletId) -> TractResult<bool> {
    Ok(context.weight(model, outlet)?.is_some_and(|weight| weight.datum_type() == DatumType::F32))
}

/// The bias that the only successor adds, with one value for each output.
fn bias(
    context: &Context,
    model: &TypedModel,
    node: &TypedNode,
    outputs: usize,
) -> TractResult<Option<(Vec<f32>, OutletId)>> {
    let Some(next) = only_successor(model, node.id) else { return Ok(None) };
    if !next.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Add>())
        || next.outputs[0].fact.shape != node.outputs[0].fact.shape
    {
        return Ok(None);
    }
    let other = next.inputs[usize::from(next.inputs[0] == OutletId::new(node.id, 0))];
    let constant = match linear_trial::constant(model, other) {
        Some(constant) => Some(constant),
        None => context.constant(model, other)?,
    };
    let Some(constant) = constant else { return Ok(None) };
    let along = constant.len() == outputs && constant.shape().last() == Some(&outputs);
    let values = floats(&constant).filter(|values| along || values.len() == 1);
    let values = values.map(|values| if along { values } else { vec![values[0]; outputs] });
    Ok(values.map(|values| (values, OutletId::new(next.id, 0))))
}

/// The outlet of a sum of two activations of one shape.
fn sum(model: &TypedModel, node: &TypedNode) -> Option<OutletId> {
    let op = node.op_as::<TypedBinOp>()?;
    let fact = &node.outputs[0].fact;
    let fits = op.0.is::<math::Add>() && fact.datum_type == DatumType::F32 && fact.rank() >= 2;
    let same = |input: &OutletId| {
        model.outlet_fact(*input).is_ok_and(|input| input.shape == fact.shape && input.konst.is_none())
    };
    (fits && node.inputs.iter().all(same)).then(|| OutletId::new(node.id, 0))
}

/// Rewrites the graph to work on panels.
struct Rewriter {
    /// How rows are divided, by their number. Attention decides this for all ops.
    geometry: HashMap<usize, Panels>,
    /// Outlets that also exist as panels.
    panels: HashMap<OutletId, (OutletId, Panels)>,
    /// Outlets of matches, and the rows that replaced them.
    renamed: HashMap<OutletId, OutletId>,
}

impl Rewriter {
    /// The outlet that replaced an outlet of a match.
    fn current(&self, outlet: OutletId) -> OutletId {
        self.renamed.get(&outlet).copied().unwrap_or(outlet)
    }

    /// The panels of an outlet, or those that it should be converted to.
    fn panels_of(&mut self, model: &TypedModel, outlet: OutletId) -> TractResult<Panels> {
        if let Some((_, panels)) = self.known(model, outlet)? {
            return Ok(panels);
        }
        let shape = concrete_shape(model, outlet)?;
        let rows = shape[..shape.len() - 1].iter().product();
        let tokens = if shape.len() > 2 { shape[shape.len() - 2] } else { rows };
        // Short sequences do not get vectors of their own, which would be mostly padding.
        let panels = if tokens % 16 == 0 || tokens > 64 {
            Panels::new(rows / tokens.max(1), tokens)
        } else {
            Panels::new(1, rows)
        };
        Ok(*self.geometry.entry(rows).or_insert(panels))
    }

    /// The panels of an outlet, if there are any, also through reshapes that keep each row.
    fn known(&self, model: &TypedModel, outlet: OutletId) -> TractResult<Option<(OutletId, Panels)>> {
        let mut at = outlet;
        let features = model.outlet_fact(outlet)?.shape.as_concrete().and_then(|shape| shape.last().copied());
        loop {
            if let Some(found) = self.panels.get(&at) {
                let same = model.outlet_fact(found.0)?.shape.as_concrete().map(|shape| shape[1]) == features;
                return Ok(same.then_some(*found));
            }
            let node = model.node(at.node);
            let reshapes = node.op_as::<AxisOp>().is_some_and(|op| !matches!(op, AxisOp::Move(..)));
            if !reshapes && !does_nothing(model, node)? {
                return Ok(None);
            }
            at = node.inputs[0];
        }
    }

    /// The outlet as these panels.
    fn enter(
        &mut self,
        context: &Context,
        model: &mut TypedModel,
        outlet: OutletId,
        panels: Panels,
    ) -> TractResult<OutletId> {
        if let Some((known, _)) = self.known(model, outlet)?.filter(|(_, known)| *known == panels) {
            return Ok(known);
        }
        let entered = wire(model, outlet, "panels", LayerOp::boxed(Enter { isa: context.isa, panels }), &[outlet])?;
        self.panels.insert(outlet, (entered, panels));
        Ok(entered)
    }

    /// Converts `new` to rows, which replace the outlet `old`.
    fn leave(
        &mut self,
        context: &Context,
        model: &mut TypedModel,
        old: OutletId,
        new: OutletId,
        panels: Panels,
    ) -> TractResult<()> {
        let shape = concrete_shape(model, old)?;
        let rows = wire(model, old, "rows", LayerOp::boxed(Leave { isa: context.isa, panels, shape }), &[new])?;
        self.rename(model, old, rows)?;
        self.panels.insert(rows, (new, panels));
        Ok(())
    }

    /// Replaces the outlet `old` by `rows`.
    fn rename(&mut self, model: &mut TypedModel, old: OutletId, rows: OutletId) -> TractResult<()> {
        for successor in model.outlet_successors(old).to_vec() {
            model.add_edge(rows, successor)?;
        }
        if model.outputs.contains(&old) {
            let label = model.outlet_label(old).map_or_else(|| model.node(old.node).name.clone(), str::to_owned);
            for output in model.outputs.iter_mut().filter(|output| **output == old) {
                *output = rows;
            }
            model.set_outlet_label(rows, label)?;
        }
        self.renamed.insert(old, rows);
        Ok(())
    }

    fn linear(&mut self, context: &mut Context, model: &mut TypedModel, mut layer: LinearLayer) -> TractResult<()> {
        layer.input = self.current(layer.input);
        let panels = self.panels_of(model, layer.input)?;
        let product = match choose(context, model, &layer, panels)? {
            None => return Ok(()),
            Some(LinearKernel::Panels(product)) => product,
            Some(LinearKernel::Vectors(op)) => {
                let rows = wire(model, layer.output, "linear", op, &[layer.input])?;
                return self.rename(model, layer.output, rows);
            }
        };
        let mut inputs = tvec!(self.enter(context, model, layer.input, panels)?);
        // The sums begin with the residual, if it exists already.
        let next = only_successor(model, layer.output.node).and_then(|next| sum(model, next));
        if let Some(next) = next {
            let [a, b] = *model.node(next.node).inputs else { return Ok(()) };
            let other = if a == layer.output { b } else { a };
            if let Some((residual, _)) = self.known(model, other)?.filter(|(_, known)| *known == panels) {
                inputs.push(residual);
                layer.output = next;
            }
        }
        let op = match skipping(context, model, &layer, inputs[0], &product)? {
            Some(skipping) => LayerOp::boxed(LinearSkipping { panels, product, skipping }),
            None => LayerOp::boxed(Linear { panels, product, rows: None }),
        };
        let output = wire(model, layer.output, "linear", op, &inputs)?;
        self.leave(context, model, layer.output, output, panels)
    }

    fn norm(&mut self, context: &mut Context, model: &mut TypedModel, mut found: LayerNormMatch) -> TractResult<()> {
        found.input = self.current(found.input);
        let shape = concrete_shape(model, found.input)?;
        if shape[..shape.len() - 1].iter().product::<usize>() < FEWEST_TOKENS {
            return Ok(());
        }
        let panels = self.panels_of(model, found.input)?;
        let input = self.enter(context, model, found.input, panels)?;
        let (norm, threads) = (Shared::new(found.norm), Shared(Arc::clone(&context.threads)));
        let op = LayerOp::boxed(Normalise { isa: context.isa, panels, norm, threads });
        context.record(&model.node(found.output.node).name, op.as_op());
        let output = wire(model, found.output, "norm", op, &[input])?;
        self.leave(context, model, found.output, output, panels)
    }

    fn attention(&mut self, context: &mut Context, model: &mut TypedModel, found: AttentionMatch) -> TractResult<()> {
        let AttentionMatch { attention, q, k, v, mask, output } = found;
        let mut inputs = tvec!();
        for (source, panels) in [(q, attention.queries), (k, attention.keys), (v, attention.keys)] {
            inputs.push(self.enter(context, model, self.current(source.outlet), panels)?);
        }
        inputs.extend(mask.map(|(mask, _)| self.current(mask)));
        let panels = attention.queries;
        let op = LayerOp::boxed(AttentionOp {
            isa: context.isa,
            attention: Shared::new(attention),
            first: [q.first, k.first, v.first],
            mask: mask.map(|(_, strides)| strides),
            threads: Shared(Arc::clone(&context.threads)),
        });
        context.record(&model.node(output.node).name, op.as_op());
        let wired = wire(model, output, "attention", op, &inputs)?;
        self.leave(context, model, output, wired, panels)
    }

    fn sum(&mut self, context: &mut Context, model: &mut TypedModel, output: OutletId) -> TractResult<()> {
        let [a, b] = *model.node(output.node).inputs else { return Ok(()) };
        // Only where one of the two is panels already.
        let Some((_, panels)) = self.known(model, a)?.or(self.known(model, b)?) else { return Ok(()) };
        let inputs = [self.enter(context, model, a, panels)?, self.enter(context, model, b, panels)?];
        let wired = wire(model, output, "sum", LayerOp::boxed(Sum { isa: context.isa }), &inputs)?;
        self.leave(context, model, output, wired, panels)
    }
}

/// Adds a node whose name is that of the node of `at` with a suffix.
fn wire(
    model: &mut TypedModel,
    at: OutletId,
    suffix: &str,
    op: Box<dyn TypedOp>,
    inputs: &[OutletId],
) -> TractResult<OutletId> {
    let name = model.unique_name(format!("{}.{suffix}", model.node(at.node).name)).into_owned();
    Ok(model.wire_node(name, op, inputs)?[0])
}

/// How a layer is computed.
enum LinearKernel {
    Panels(Shared<LinearProduct>),
    /// By an op on rows.
    Vectors(Box<dyn TypedOp>),
}

/// The fastest kernel; `None` where that is plain tract.
fn choose(
    context: &mut Context,
    model: &TypedModel,
    layer: &LinearLayer,
    panels: Panels,
) -> TractResult<Option<LinearKernel>> {
    let weight = context.weight(model, layer.weight)?.context("the weight is gone")?;
    let shape = weight.shape().to_vec();
    let [rows, columns] = *shape else { return Ok(None) };
    let (outputs, inputs) = if layer.by_output { (rows, columns) } else { (columns, rows) };
    let pattern = weight.filled(rows, rows)?.pattern();
    let tensor = weight.into_dense()?;
    let plain = tensor.try_as_plain_ram()?;
    let values = plain.as_slice::<f32>()?;
    let matrix = matrix(values, outputs, inputs, layer.by_output);
    let region = Region {
        name: model.node(layer.output.node).name.clone(),
        inputs: tvec!(layer.input),
        outputs: tvec!(layer.output),
    };
    let shape = concrete_shape(model, layer.output)?;
    let (isa, threads) = (context.isa, Arc::clone(&context.threads));
    let built = |form: LinearForm| -> Shared<LinearProduct> {
        Shared::new(LinearProduct {
            isa,
            threads: Arc::clone(&threads),
            weight: form.pack(matrix),
            bias: layer.bias.clone(),
            activation: layer.activation,
        })
    };
    let tokens = panels.rows();
    let few = tokens <= MOST_VECTORS;
    let by_output = if few { matrix.rows_of_outputs() } else { Cow::Borrowed(&[][..]) };
    let forms = if tokens >= FEWEST_TOKENS { forms(matrix) } else { Vec::new() };
    let mut candidates: Vec<Candidate> = forms
        .iter()
        .map(|form| Candidate {
            kernel: format!("{} {}", form.name(), isa.name()),
            build: Box::new(|| Ok(LayerOp::boxed(Linear { panels, product: built(*form), rows: Some(shape.clone()) }))),
        })
        .collect();
    let formats = if few { matvec::candidates(outputs, inputs, &by_output) } else { Vec::new() };
    candidates.extend(formats.into_iter().map(|format| Candidate {
        kernel: format!("vectors {format} {}", isa.name()),
        build: Box::new({
            let (by_output, shape) = (&by_output, &shape);
            move || {
                let product = VectorProduct {
                    matrix: PackedMatrix::new(isa, format, outputs, inputs, by_output),
                    bias: layer.bias.clone(),
                    activation: layer.activation,
                };
                Ok(LayerOp::boxed(LinearVectors { shape: shape.clone(), product: Shared::new(product) }))
            }
        }),
    }));
    let what = format!("{} {pattern}", layer.activation.name());
    let op = context.choose(model, &region, &format!("linear {inputs}x{outputs}"), &what, &candidates)?;
    Ok(op.map(|op| match op.downcast_ref::<LayerOp<Linear>>() {
        Some(linear) => LinearKernel::Panels(linear.0.product.clone()),
        None => LinearKernel::Vectors(op),
    }))
}

/// The weight for a product that skips zeros of the activation before it, if that is requested and the weight is dense.
fn skipping(
    context: &Context,
    model: &TypedModel,
    layer: &LinearLayer,
    input: OutletId,
    product: &Shared<LinearProduct>,
) -> TractResult<Option<Shared<SkippingLayer>>> {
    let Some(threshold) = context.skip_below else { return Ok(None) };
    let before = model.node(input.node).op_as::<LayerOp<Linear>>();
    let activated = before.is_some_and(|before| before.0.product.activation != Activation::None);
    let large = product.weight.inputs() * product.weight.outputs() >= FEWEST_WEIGHTS;
    if !activated || !large || !matches!(product.weight, LinearWeight::Dense(_)) {
        return Ok(None);
    }
    let weight = context.weight(model, layer.weight)?.context("the weight is gone")?.into_dense()?;
    let plain = weight.try_as_plain_ram()?;
    let matrix = matrix(plain.as_slice::<f32>()?, product.weight.outputs(), product.weight.inputs(), layer.by_output);
    Ok(Some(Shared::new(SkippingLayer { weight: SkippingWeight::pack(matrix), threshold })))
}

fn matrix(values: &[f32], outputs: usize, inputs: usize, by_output: bool) -> WeightMatrix<'_> {
    if by_output {
        WeightMatrix::by_output(values, outputs, inputs)
    } else {
        WeightMatrix::by_input(values, outputs, inputs)
    }
}

/// The forms worth trying, by the share of cells that each would store.
fn forms(matrix: WeightMatrix) -> Vec<LinearForm> {
    const HEIGHTS: [usize; 3] = [8, 4, 1];
    let mut forms = vec![LinearForm::Dense];
    // Blocks store at least the values that are not zero.
    let values = matrix.values();
    let nonzero = values.iter().filter(|value| **value != 0.0).count();
    // Sparse weights are counted in 32 bits.
    if nonzero as f64 > MOST_CELLS * values.len() as f64 || u32::try_from(values.len()).is_err() {
        return forms;
    }
    let all = values.len().max(1) as f64;
    // Blocks that are not all zero, of all heights in one pass, because there are many weights.
    let mut blocks = [0usize; 3];
    for first in (0..matrix.outputs()).step_by(8) {
        let rows = matrix.outputs().min(first + 8) - first;
        for input in 0..matrix.inputs() {
            let stored =
                (0..rows).fold(0u32, |bits, row| bits | u32::from(matrix.at(first + row, input) != 0.0) << row);
            blocks[0] += usize::from(stored != 0);
            blocks[1] += usize::from(stored & 15 != 0) + usize::from(stored >> 4 != 0);
            blocks[2] += stored.count_ones() as usize;
        }
    }
    for (height, blocks) in HEIGHTS.into_iter().zip(blocks) {
        if (blocks * height) as f64 <= MOST_CELLS * all {
            forms.push(LinearForm::Blocks(height));
        }
    }
    forms
}
