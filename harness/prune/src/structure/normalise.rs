//! A graph made plain: constants where a graph computes constants, one user for each small constant, and no dead nodes.
//!
//! Exporters reorder gates with `Slice` and `Concat` in the graph, share equal parameters through `Identity`, and put
//! values into `Constant` nodes; none of that can be cut. Only structured pruning does this: other pruned files keep
//! every byte that need not change. What a graph computes does not change.

use std::collections::{HashMap, HashSet};

use espalier_engine::{
    Tensor,
    ops::{self, Attributes},
};

use super::graph::{self, Names};
use crate::{
    OnnxError, PruneError,
    onnx::{GraphProto, Model, NodeProto, TensorProto, tensor_proto::DataType},
};

/// The most elements of a folded constant. A graph may ask for any number.
const LARGEST_FOLDED: usize = 1 << 28;

/// Copies with their originals, by name: a copy that is still equal after pruning is joined with its original again.
pub type Copies = Vec<(String, String)>;

/// # Errors
/// A broken constant.
pub fn normalise(model: &mut Model) -> Result<Copies, PruneError> {
    let opset = model.opset();
    if model.proto.ir_version() < 4 {
        // Before version 4 every constant had to be an input too.
        model.proto.ir_version = Some(4);
    }
    let graph = model.graph_mut();
    let given: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
    graph.input.retain(|input| !given.contains(input.name()));
    graph.value_info.clear();
    constants_to_initializers(graph)?;
    let (order, mut nodes) = (graph.node_order()?, std::mem::take(&mut graph.node));
    graph.node = order.into_iter().map(|index| std::mem::take(&mut nodes[index])).collect();
    let mut copies = Vec::new();
    fold(graph, opset, &mut copies)?;
    graph::sweep(graph);
    zero_states(graph, opset);
    graph::sweep(graph);
    separate(graph, &mut copies);
    Ok(copies)
}

fn constants_to_initializers(graph: &mut GraphProto) -> Result<(), PruneError> {
    let mut rest = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if node.op() != "Constant" {
            rest.push(node);
            continue;
        }
        let name = node.output.first().cloned().unwrap_or_default();
        let tensor = node.attribute.iter_mut().find(|attribute| attribute.name() == "value").and_then(|a| a.t.take());
        graph.initializer.push(match tensor {
            Some(tensor) => TensorProto { name: Some(name), ..tensor },
            None => {
                let value = ops::constant(&name, &node)?;
                let data_type = if value.f32().is_ok() { DataType::Float } else { DataType::Int64 };
                let tensor = graph::constant(&name, &value, data_type as i32);
                tensor.ok_or_else(|| OnnxError::Malformed { why: format!("constant `{name}` has no value") })?
            }
        });
    }
    graph.node = rest;
    Ok(())
}

/// Runs every node that needs only constants.
fn fold(graph: &mut GraphProto, opset: i64, copies: &mut Copies) -> Result<(), PruneError> {
    let outputs: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut constants: HashMap<String, TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
    // Decoded when needed: most never are.
    let mut values: HashMap<String, Tensor> = HashMap::new();
    let mut rest = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let constant = node.input.iter().all(|name| name.is_empty() || constants.contains_key(name));
        let foldable =
            constant && node.is_standard() && may_fold(&node) && !node.output.iter().any(|name| outputs.contains(name));
        let folded = if foldable { folded(&node, opset, &constants, &mut values)? } else { None };
        let Some(folded) = folded else {
            rest.push(node);
            continue;
        };
        for (tensor, value) in folded {
            if node.op() == "Identity" {
                copies.push((tensor.name().to_owned(), node.input[0].clone()));
            }
            if let Some(value) = value {
                values.insert(tensor.name().to_owned(), value);
            }
            constants.insert(tensor.name().to_owned(), tensor.clone());
            graph.initializer.push(tensor);
        }
    }
    graph.node = rest;
    Ok(())
}

/// Quantised weights stay as small as they are; random numbers stay random; subgraphs are not looked into.
fn may_fold(node: &NodeProto) -> bool {
    let keeps = matches!(node.op(), "DequantizeLinear" | "QuantizeLinear" | "DynamicQuantizeLinear" | "Bernoulli");
    let random = node.op().starts_with("Random") || node.op() == "Multinomial";
    !keeps && !random && node.subgraphs().next().is_none()
}

type Folded = Vec<(TensorProto, Option<Tensor>)>;

/// `None` where it has to stay a node: the engine does not know it, refuses it, or computes it less exactly.
fn folded(
    node: &NodeProto,
    opset: i64,
    constants: &HashMap<String, TensorProto>,
    values: &mut HashMap<String, Tensor>,
) -> Result<Option<Folded>, PruneError> {
    let names: Vec<&str> = node.output.iter().map(String::as_str).collect();
    if node.op() == "Identity" {
        let (Some(from), [name]) = (node.input_at(0), names.as_slice()) else { return Ok(None) };
        let copy = TensorProto { name: Some((*name).to_owned()), ..constants[from].clone() };
        return Ok(Some(vec![(copy, None)]));
    }
    for name in node.input.iter().filter(|name| !name.is_empty()) {
        if !values.contains_key(name) {
            // A type the engine does not compute with is no error: the constant may be used unchanged.
            let Ok(value) = Tensor::of(name, &constants[name]) else { return Ok(None) };
            values.insert(name.clone(), value);
        }
    }
    let inputs: Vec<Option<&Tensor>> = node.input.iter().map(|name| values.get(name)).collect();
    if result_len(node.op(), &inputs).is_none_or(|count| count > LARGEST_FOLDED) {
        return Ok(None);
    }
    let named = node.input.iter().filter_map(|name| Some((name.clone(), constants.get(name)?.data_type())));
    let kinds: HashMap<String, i32> = named.collect();
    let Some(Ok(operator)) = ops::parse(&Attributes { proto: node, opset, types: &kinds }) else { return Ok(None) };
    let Ok(forward) = operator.forward(&inputs, names.len()) else { return Ok(None) };
    let types: Vec<i32> = node.input.iter().map(|name| constants.get(name).map_or(0, TensorProto::data_type)).collect();
    let mut folded = Vec::new();
    for (index, (name, value)) in names.iter().zip(forward.outputs).enumerate() {
        if name.is_empty() {
            continue;
        }
        let Some(tensor) = result_type(node, index, &types).and_then(|kind| graph::constant(name, &value, kind)) else {
            return Ok(None);
        };
        folded.push((tensor, Some(value)));
    }
    Ok(Some(folded))
}

/// The number of elements of a result, for operators that make large results of small inputs.
fn result_len(op: &str, inputs: &[Option<&Tensor>]) -> Option<usize> {
    let product = |tensor: &Tensor| {
        let lens = tensor.i64().ok()?.data().to_vec();
        lens.iter().try_fold(1usize, |product, len| product.checked_mul(usize::try_from((*len).max(1)).ok()?))
    };
    let at = |slot: usize| inputs.get(slot).copied().flatten();
    match op {
        "ConstantOfShape" => product(at(0)?),
        "Expand" | "Tile" => at(0)?.shape().iter().product::<usize>().max(1).checked_mul(product(at(1)?)?),
        "Range" => match (at(0)?, at(1)?, at(2)?) {
            (Tensor::I64(start), Tensor::I64(limit), Tensor::I64(delta)) => {
                let (start, limit, delta) = (start.data().first()?, limit.data().first()?, delta.data().first()?);
                usize::try_from(limit.checked_sub(*start)?.checked_div(*delta)?.max(0)).ok()
            }
            _ => None,
        },
        // No real graph makes them of constants, and their cost is hard to tell beforehand.
        "Resize" | "Upsample" | "Pad" | "OneHot" | "EyeLike" | "Einsum" => None,
        _ => Some(0),
    }
}

/// The element type of a node's output, from those of its inputs.
pub fn result_type(node: &NodeProto, output: usize, inputs: &[i32]) -> Option<i32> {
    let at = |slot: usize| inputs.get(slot).copied().filter(|kind| *kind != 0);
    match node.op() {
        "Cast" => Some(node.int("to", 0) as i32),
        "CastLike" => at(1),
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(DataType::Int64 as i32),
        "ConstantOfShape" => {
            let value = node.attr("value").and_then(|attribute| attribute.t.as_ref());
            Some(value.map_or(DataType::Float as i32, TensorProto::data_type))
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN"
        | "IsInf" => Some(DataType::Bool as i32),
        "Where" => at(1),
        "TopK" if output == 1 => Some(DataType::Int64 as i32),
        "Dropout" | "MaxPool" if output == 1 => None,
        "DequantizeLinear" => at(1),
        _ => at(0),
    }
}

/// Initial states of recurrent layers that are always zero become one per layer, so that they can shrink with it. They
/// are not left out, because tract fails without them on a batch of open size.
fn zero_states(graph: &mut GraphProto, opset: i64) {
    let mut names = Names::of(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut rewritten: Vec<(usize, Vec<NodeProto>)> = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        let slots: &[usize] = match node.op() {
            "LSTM" => &[5, 6],
            "GRU" | "RNN" => &[5],
            _ => continue,
        };
        let zero: Vec<usize> = slots
            .iter()
            .copied()
            .filter(|slot| node.input_at(*slot).is_some_and(|name| is_zero(graph, name, 0)))
            .collect();
        if zero.is_empty() {
            continue;
        }
        let constants = graph::initializers(graph);
        let fixed = zero.iter().all(|slot| constants.contains_key(node.input[*slot].as_str()));
        let mut changed = node.clone();
        let mut made = Vec::new();
        if fixed || opset < 9 {
            zero.iter().for_each(|slot| changed.input[*slot].clear());
            while changed.input.last().is_some_and(String::is_empty) {
                changed.input.pop();
            }
        } else if let Some(state) = zero_state(node, &constants, graph, &mut names, &mut made) {
            zero.iter().for_each(|slot| changed.input[*slot].clone_from(&state.0));
            rewritten.push((index, made));
            nodes.push((index, changed, state.1));
            continue;
        }
        nodes.push((index, changed, Vec::new()));
    }
    for (index, node, tensors) in nodes {
        graph.node[index] = node;
        graph.initializer.extend(tensors);
    }
    for (index, made) in rewritten.into_iter().rev() {
        graph.node.splice(index..index, made);
    }
}

/// `ConstantOfShape(Concat([directions], batch of X, [hidden]))`: returns its name and constants; its nodes go into
/// `made`.
fn zero_state(
    node: &NodeProto,
    constants: &HashMap<&str, usize>,
    graph: &GraphProto,
    names: &mut Names,
    made: &mut Vec<NodeProto>,
) -> Option<(String, Vec<TensorProto>)> {
    let recurrence = &graph.initializer[*constants.get(node.input_at(2)?)?];
    let (directions, hidden) = (*recurrence.dims.first()?, *recurrence.dims.get(2)?);
    let batch_first = node.int("layout", 0) == 1;
    let wish = |part: &str| format!("{}/zero_state/{part}", node.label());
    let [shape, index, batch, first, last, lens, state] =
        ["shape", "batch_axis", "batch", "directions", "hidden", "lens", "state"].map(|part| names.fresh(&wish(part)));
    made.push(graph::node("Shape", &shape, &[node.input_at(0)?], &shape));
    made.push(graph::node("Gather", &batch, &[&shape, &index], &batch));
    let parts = if batch_first { [&batch, &first, &last] } else { [&first, &batch, &last] };
    let mut concat = graph::node("Concat", &lens, &parts.map(String::as_str), &lens);
    graph::set_int(&mut concat, "axis", 0);
    made.push(concat);
    let mut zeros = graph::node("ConstantOfShape", &state, &[&lens], &state);
    // Said, though it is the default: not every engine takes the default's type from the standard.
    graph::set_tensor(&mut zeros, "value", graph::raw("", &[1], DataType::Float, vec![0; 4]));
    made.push(zeros);
    let tensors = vec![
        graph::int64s(&index, &[i64::from(!batch_first)]),
        graph::int64s(&first, &[directions]),
        graph::int64s(&last, &[hidden]),
    ];
    Some((state, tensors))
}

/// Whether a value is zero everywhere, for all inputs.
fn is_zero(graph: &GraphProto, name: &str, depth: usize) -> bool {
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name() == name) {
        return Tensor::of(name, tensor).is_ok_and(|value| match value {
            Tensor::F32(array) => array.data().iter().all(|value| *value == 0.0),
            _ => false,
        });
    }
    let Some(node) = graph.node.iter().find(|node| node.output.iter().any(|output| output == name)) else {
        return false;
    };
    let zero = |slot: usize| node.input_at(slot).is_some_and(|name| depth < 16 && is_zero(graph, name, depth + 1));
    match node.op() {
        "ConstantOfShape" => node.attr("value").and_then(|attribute| attribute.t.as_ref()).is_none_or(|tensor| {
            Tensor::of(name, tensor).is_ok_and(|value| value.f32().is_ok_and(|value| value.data() == [0.0]))
        }),
        "Slice" | "Expand" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Gather" | "Tile" => {
            zero(0)
        }
        "Concat" => !node.input.is_empty() && (0..node.input.len()).all(zero),
        _ => false,
    }
}

/// Each use of a small constant gets its own copy: a bias of zeros that two layers share must not tie their channels
/// together. Matrices stay shared: those are tied on purpose.
fn separate(graph: &mut GraphProto, copies: &mut Copies) {
    let small: HashMap<String, TensorProto> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.len() == 1 && tensor.dims[0] > 1 && tensor.data_type() == DataType::Float as i32)
        .map(|tensor| (tensor.name().to_owned(), tensor.clone()))
        .collect();
    let mut seen: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut names = Names::of(graph);
    for node in &mut graph.node {
        for name in &mut node.input {
            let Some(tensor) = small.get(name.as_str()) else { continue };
            if seen.insert(name.clone()) {
                continue;
            }
            let fresh = names.fresh(&format!("{name}_copy"));
            graph.initializer.push(TensorProto { name: Some(fresh.clone()), ..tensor.clone() });
            copies.push((fresh.clone(), name.clone()));
            *name = fresh;
        }
    }
}
