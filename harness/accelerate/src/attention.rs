//! Attention between its linear layers: two products of activations, a softmax between them, and the reshapes around
//! them.
//!
//! The search starts at each softmax and follows its inputs and outputs. How heads are laid out in the tensors is not
//! derived from the chain of reshapes and transposes but tested: a tensor of numbered elements goes through tract's own
//! ops and has to come out in the layout of [`Attention`].

use espalier_kernels::{
    attention::{Attention, AttentionInput, Mask},
    linear_panels::Panels,
    simd::Isa,
    threads::Threads,
};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{
            array::Slice,
            binary::TypedBinOp,
            change_axes::AxisOp,
            einsum::EinSum,
            math,
            nn::{Softmax, SoftmaxKind},
        },
    },
};

use crate::{
    context::{does_nothing, only_successor},
    linear_ops::panel_fact,
    linear_trial::scalar,
    op::{Layer, Shared, blank},
    region::concrete_shape,
};

/// The most nodes between a source and the product that uses it.
const MOST_NODES: usize = 16;
/// The most elements of a tensor that are numbered to follow them.
const MOST_ELEMENTS: usize = 1 << 26;

/// Where queries, keys or values come from: a tensor, and their first feature in it.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub outlet: OutletId,
    pub first: usize,
}

/// An attention in the graph.
pub struct AttentionMatch {
    pub attention: Attention,
    pub q: Source,
    pub k: Source,
    pub v: Source,
    /// With the strides of sequence, head, query and key.
    pub mask: Option<(OutletId, [usize; 4])>,
    pub output: OutletId,
}

pub fn find(model: &TypedModel) -> Vec<AttentionMatch> {
    model.nodes().iter().filter_map(|node| find_at(model, node).ok().flatten()).collect()
}

/// The axes of a product of two activations.
struct ProductAxes {
    /// Axes of both inputs and the output, in the output's order: their places in the two inputs.
    batch: Vec<(usize, usize)>,
    /// The axis that is summed over, in the two inputs.
    summed: (usize, usize),
    /// The axis of the first input and the output, and that of the second input and the output.
    rows: usize,
    columns: usize,
}

fn product_axes(node: &TypedNode, first: usize) -> Option<(ProductAxes, Vec<usize>)> {
    let einsum = node.op_as::<EinSum>().filter(|einsum| einsum.q_params.is_none() && node.inputs.len() == 2)?;
    let second = 1 - first;
    let (mut batch, mut summed, mut rows, mut columns) = (Vec::new(), None, None, None);
    for axis in einsum.axes.iter_all_axes() {
        match (&*axis.inputs[first], &*axis.inputs[second], &*axis.outputs[0]) {
            ([a], [b], [out]) => batch.push((*out, (*a, *b))),
            ([a], [b], []) if summed.is_none() => summed = Some((*a, *b)),
            ([a], [], [out]) if rows.is_none() => rows = Some((*a, *out)),
            ([], [b], [out]) if columns.is_none() => columns = Some((*b, *out)),
            _ => return None,
        }
    }
    batch.sort_unstable();
    let ((rows, rows_out), (columns, columns_out)) = (rows?, columns?);
    let mut outputs: Vec<usize> = batch.iter().map(|(out, _)| *out).collect();
    outputs.extend([rows_out, columns_out]);
    let batch = batch.into_iter().map(|(_, places)| places).collect();
    Some((ProductAxes { batch, summed: summed?, rows, columns }, outputs))
}

fn find_at(model: &TypedModel, softmax: &TypedNode) -> TractResult<Option<AttentionMatch>> {
    let Some(op) = softmax.op_as::<Softmax>() else { return Ok(None) };
    let fact = &softmax.outputs[0].fact;
    let Some(shape) = fact.shape.as_concrete() else { return Ok(None) };
    let rank = shape.len();
    if *op.axes != [rank.wrapping_sub(1)] || op.kind != SoftmaxKind::Softmax || fact.datum_type != DatumType::F32 {
        return Ok(None);
    }
    let Some((scores, mut scale, mask)) = scores(model, softmax.inputs[0])? else { return Ok(None) };
    let Some((qk, outputs)) = product_axes(scores, 0) else { return Ok(None) };
    // The softmax has queries as rows and keys as columns. This shows which input of the product is which.
    let (qk, q_input, k_input) = if outputs.iter().copied().eq(0..rank) {
        (qk, 0, 1)
    } else {
        match product_axes(scores, 1) {
            Some((qk, outputs)) if outputs.iter().copied().eq(0..rank) => (qk, 1, 0),
            _ => return Ok(None),
        }
    };
    let Some(weighted) = only_successor(model, softmax.id) else { return Ok(None) };
    let p_input = usize::from(weighted.inputs[0] != OutletId::new(softmax.id, 0));
    let Some((pv, out_places)) = product_axes(weighted, p_input) else { return Ok(None) };
    let same_batch = pv.batch.iter().map(|(p, _)| *p).eq(0..rank - 2);
    if !same_batch || pv.rows != rank - 2 || pv.summed.0 != rank - 1 {
        return Ok(None);
    }
    let (sequences, heads) = match shape[..rank - 2] {
        [] => (1, 1),
        [heads] => (1, heads),
        [sequences, heads] => (sequences, heads),
        _ => return Ok(None),
    };
    let (queries, keys) = (shape[rank - 2], shape[rank - 1]);
    let v_shape = concrete_shape(model, weighted.inputs[1 - p_input])?;
    let q_shape = concrete_shape(model, scores.inputs[q_input])?;
    let (size, value_size) = (q_shape[qk.summed.0], v_shape[pv.columns]);

    let places = |batch: Vec<usize>, token: usize, feature: usize| {
        let mut places = vec![None; 2 - batch.len()];
        places.extend(batch.into_iter().map(Some));
        places.extend([Some(token), Some(feature)]);
        places
    };
    let q_places = places(qk.batch.iter().map(|(q, _)| *q).collect(), qk.rows, qk.summed.0);
    let k_places = places(qk.batch.iter().map(|(_, k)| *k).collect(), qk.columns, qk.summed.1);
    let v_places = places(pv.batch.iter().map(|(_, v)| *v).collect(), pv.summed.1, pv.columns);
    let Some((q, q_scale)) = source(model, scores.inputs[q_input], &q_places)? else { return Ok(None) };
    let Some((k, k_scale)) = source(model, scores.inputs[k_input], &k_places)? else { return Ok(None) };
    let Some((v, v_scale)) = source(model, weighted.inputs[1 - p_input], &v_places)? else { return Ok(None) };
    if v_scale != 1.0 {
        return Ok(None);
    }
    scale *= q_scale * k_scale;
    let output_places = places(out_places[..rank - 2].to_vec(), out_places[rank - 2], out_places[rank - 1]);
    let Some(output) = end(model, weighted, &output_places, heads * value_size)? else { return Ok(None) };
    let mask = match mask {
        None => None,
        Some(mask) => match mask_strides(model, mask, shape)? {
            Some(strides) => Some((mask, strides)),
            None => return Ok(None),
        },
    };
    let attention = Attention {
        heads,
        size,
        value_size,
        scale,
        queries: Panels::new(sequences, queries),
        keys: Panels::new(sequences, keys),
    };
    Ok(Some(AttentionMatch { attention, q, k, v, mask, output }))
}

/// Follows a softmax's input back to the product of queries and keys, through a factor and an added mask.
fn scores(model: &TypedModel, input: OutletId) -> TractResult<Option<(&TypedNode, f32, Option<OutletId>)>> {
    let (mut at, mut scale, mut mask) = (input, 1.0, None);
    for _ in 0..MOST_NODES {
        let node = model.node(at.node);
        if node.outputs[0].successors.len() != 1 || model.outputs.contains(&at) {
            return Ok(None);
        }
        if node.op_is::<EinSum>() {
            return Ok(Some((node, scale, mask)));
        }
        if does_nothing(model, node)? {
            at = node.inputs[0];
            continue;
        }
        if let Some((input, factor)) = factor(model, node) {
            (at, scale) = (input, scale * factor);
            continue;
        }
        let adds = node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Add>());
        if !adds || mask.is_some() || scale != 1.0 {
            return Ok(None);
        }
        let leads = |outlet: OutletId| leads_to_product(model, outlet);
        let (a, b) = (node.inputs[0], node.inputs[1]);
        (at, mask) = if leads(a) {
            (a, Some(b))
        } else if leads(b) {
            (b, Some(a))
        } else {
            return Ok(None);
        };
    }
    Ok(None)
}

fn leads_to_product(model: &TypedModel, mut at: OutletId) -> bool {
    for _ in 0..MOST_NODES {
        let node = model.node(at.node);
        if node.op_is::<EinSum>() {
            return true;
        }
        match factor(model, node) {
            Some((input, _)) => at = input,
            None if does_nothing(model, node).unwrap_or(false) => at = node.inputs[0],
            None => return false,
        }
    }
    false
}

/// The input and the factor of a multiplication by one constant number, or of a division by it.
fn factor(model: &TypedModel, node: &TypedNode) -> Option<(OutletId, f32)> {
    let op = node.op_as::<TypedBinOp>()?;
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let same = |input: OutletId| model.outlet_fact(input).ok().map(|fact| fact.shape == node.outputs[0].fact.shape);
    if op.0.is::<math::Mul>() {
        let found = scalar(model, b).map(|factor| (a, factor)).or_else(|| scalar(model, a).map(|factor| (b, factor)));
        return found.filter(|(input, _)| same(*input) == Some(true));
    }
    if op.0.is::<math::Div>() {
        return scalar(model, b).map(|divisor| (a, 1.0 / divisor)).filter(|(input, _)| same(*input) == Some(true));
    }
    None
}

/// Whether a node only moves elements around.
fn moves(model: &TypedModel, node: &TypedNode) -> bool {
    node.inputs.len() == 1
        && (node.op_is::<AxisOp>() || node.op_is::<Slice>() || does_nothing(model, node).unwrap_or(false))
}

/// Where the elements of a product's input come from, and the factor on the way. `places` are the axes of sequence,
/// head, token and feature in that input.
fn source(model: &TypedModel, input: OutletId, places: &[Option<usize>]) -> TractResult<Option<(Source, f32)>> {
    let (mut at, mut scale, mut chain) = (input, 1.0, Vec::new());
    for _ in 0..MOST_NODES {
        let node = model.node(at.node);
        if moves(model, node) {
            chain.push(node);
            at = node.inputs[0];
        } else if let Some((input, factor)) = factor(model, node) {
            (at, scale) = (input, scale * factor);
        } else {
            break;
        }
    }
    let fact = model.outlet_fact(at)?;
    let Some(shape) = fact.shape.as_concrete() else { return Ok(None) };
    let count: usize = shape.iter().product();
    if fact.datum_type != DatumType::F32 || shape.len() < 2 || !(1..=MOST_ELEMENTS).contains(&count) {
        return Ok(None);
    }
    let features = shape[shape.len() - 1];
    let numbers: Vec<i32> = (0..count as i32).collect();
    let mut tensor = Tensor::from_shape(shape, &numbers)?;
    for node in chain.iter().rev() {
        let Some(made) = node.op.eval_out_of_plan(tvec!(tensor.into_tvalue()))? else { return Ok(None) };
        tensor = made.into_iter().next().context("no output")?.into_tensor();
    }
    let plain = tensor.try_as_plain_ram()?;
    let numbers = plain.as_slice::<i32>()?;
    let sizes = sizes(tensor.shape(), places);
    let strides = strides(tensor.shape(), places);
    let first = numbers.first().copied().unwrap_or(0) as usize;
    // Each token has to be a row.
    if first + sizes[1] * sizes[3] > features || sizes[0] * sizes[2] * features != count {
        return Ok(None);
    }
    let all = all_elements(
        sizes,
        |index, [sequence, head, token, feature]| {
            let expected = (sequence * sizes[2] + token) * features + first + head * sizes[3] + feature;
            numbers[index] as usize == expected
        },
        strides,
    );
    Ok(all.then_some((Source { outlet: at, first }, scale)))
}

/// The last outlet after the second product at which each token is a row with the features of all heads.
fn end(
    model: &TypedModel,
    weighted: &TypedNode,
    places: &[Option<usize>],
    features: usize,
) -> TractResult<Option<OutletId>> {
    let Some(shape) = weighted.outputs[0].fact.shape.as_concrete() else { return Ok(None) };
    let count: usize = shape.iter().product();
    if !(1..=MOST_ELEMENTS).contains(&count) {
        return Ok(None);
    }
    let (sizes, strides) = (sizes(shape, places), strides(shape, places));
    let mut numbers = vec![0i32; count];
    all_elements(
        sizes,
        |index, [sequence, head, token, feature]| {
            numbers[index] = ((sequence * sizes[2] + token) * features + head * sizes[3] + feature) as i32;
            true
        },
        strides,
    );
    let mut tensor = Tensor::from_shape(shape, &numbers)?;
    let (mut node, mut found) = (weighted, None);
    for _ in 0..MOST_NODES {
        let in_order = tensor.try_as_plain_ram()?.as_slice::<i32>()?.iter().copied().eq(0..count as i32);
        if in_order && tensor.shape().last() == Some(&features) {
            found = Some(OutletId::new(node.id, 0));
        }
        let Some(next) = only_successor(model, node.id).filter(|next| moves(model, next)) else { break };
        let Some(made) = next.op.eval_out_of_plan(tvec!(tensor.into_tvalue()))? else { break };
        tensor = made.into_iter().next().context("no output")?.into_tensor();
        // A slice of the result is not the result.
        if tensor.len() != count {
            break;
        }
        node = next;
    }
    Ok(found)
}

fn sizes(shape: &[usize], places: &[Option<usize>]) -> [usize; 4] {
    std::array::from_fn(|axis| places[axis].map_or(1, |place| shape[place]))
}

fn strides(shape: &[usize], places: &[Option<usize>]) -> [usize; 4] {
    std::array::from_fn(|axis| places[axis].map_or(0, |place| shape[place + 1..].iter().product()))
}

/// Whether `f` holds for every element. `f` gets its place in memory and the four indices.
fn all_elements(sizes: [usize; 4], mut f: impl FnMut(usize, [usize; 4]) -> bool, strides: [usize; 4]) -> bool {
    for sequence in 0..sizes[0] {
        for head in 0..sizes[1] {
            for token in 0..sizes[2] {
                for feature in 0..sizes[3] {
                    let index = [sequence, head, token, feature];
                    let place = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
                    if !f(place, index) {
                        return false;
                    }
                }
            }
        }
    }
    true
}

/// The strides of a mask. An axis of 1 means that the mask does not depend on that index.
fn mask_strides(model: &TypedModel, mask: OutletId, shape: &[usize]) -> TractResult<Option<[usize; 4]>> {
    let fact = model.outlet_fact(mask)?;
    let Some(own) = fact.shape.as_concrete().filter(|_| fact.datum_type == DatumType::F32) else { return Ok(None) };
    if own.len() != shape.len() || own.iter().zip(shape).any(|(own, all)| *own != 1 && own != all) {
        return Ok(None);
    }
    let mut strides = [0; 4];
    let mut stride = 1;
    for axis in (0..own.len()).rev() {
        if own[axis] != 1 {
            strides[4 - own.len() + axis] = stride;
        }
        stride *= own[axis];
    }
    Ok(Some(strides))
}

/// Attention of panels. A mask has the layout of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionOp {
    pub isa: Isa,
    pub attention: Shared<Attention>,
    /// The first feature of queries, keys and values.
    pub first: [usize; 3],
    pub mask: Option<[usize; 4]>,
    pub threads: Shared<Threads>,
}

impl Layer for AttentionOp {
    fn op(&self) -> String {
        format!("attention {} heads", self.attention.heads)
    }

    fn kernel(&self) -> String {
        self.isa.name().to_owned()
    }

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let Attention { heads, value_size, queries, .. } = *self.attention;
        Ok(panel_fact(queries, heads * value_size))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Attention { heads, value_size, queries, .. } = *self.attention;
        let mut output = blank(&[queries.columns(), heads * value_size])?;
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        let part = |index: usize| -> TractResult<AttentionInput> {
            let features = inputs[index].shape()[1];
            Ok(AttentionInput { panels: plain[index].as_slice::<f32>()?, features, first: self.first[index] })
        };
        let mask = match self.mask {
            Some(strides) => Some(Mask { values: plain[3].as_slice::<f32>()?, strides }),
            None => None,
        };
        let mut to = output.try_as_plain_ram_mut()?;
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        self.attention.run(self.isa, &self.threads, q, k, v, mask, to.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let Attention { heads, size, value_size, queries, keys, .. } = *self.attention;
        let products = queries.rows() * keys.tokens() * heads * (size + value_size);
        Ok(tvec!((Cost::FMA(DatumType::F32), products.to_dim())))
    }
}
