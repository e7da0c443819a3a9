//! A recurrent layer in the graph: its node, its inputs, its weights.
//!
//! tract's importer makes a `Scan` and wires its body. The same wiring is repeated here, and a body that is equal node
//! by node is that layer. So there is no pattern that would have to follow changes of tract.

use tract_onnx::{
    ops::rec::{common::WireBody, gru::GRU, lstm::LSTM},
    prelude::*,
    tract_core::{
        internal::*,
        ops::{
            gru_seq::GruSeq,
            konst::Const,
            scan::{InputMapping, Scan},
        },
    },
    tract_hir::ops::{math::tanh, nn::sigmoid},
};

use crate::{Context, region::Region};

/// The most nodes between a constant of the file and a layer's weight.
const MOST_BETWEEN: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    Lstm,
    Gru,
    /// `linear_before_reset`.
    GruLinear,
}

impl CellKind {
    pub fn gates(self) -> usize {
        if self == CellKind::Lstm { 4 } else { 3 }
    }

    pub fn name(self) -> &'static str {
        match self {
            CellKind::Lstm => "lstm",
            CellKind::Gru => "gru",
            CellKind::GruLinear => "gru linear-before-reset",
        }
    }
}

/// An output of the new op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecurrentOutput {
    /// The state after every step, `[steps, batch, hidden]` or `[batch, steps, hidden]`.
    Y {
        steps_first: bool,
    },
    /// The state after the last step, `[batch, 1, hidden]`.
    H,
    C,
}

/// One direction of a layer.
pub struct RecurrentLayer {
    pub kind: CellKind,
    pub input: usize,
    pub hidden: usize,
    pub backwards: bool,
    /// The input is `[steps, batch, input]`, not `[batch, steps, input]`.
    pub steps_first: bool,
    /// Whether the initial states are inputs of the op, after the sequence. Without them they are zero.
    pub initial_h: bool,
    pub initial_c: bool,
    pub outputs: Vec<RecurrentOutput>,
    pub w: Vec<f32>,
    pub r: Vec<f32>,
    pub b: Option<Vec<f32>>,
    pub region: Region,
}

/// The inputs and outputs of tract's op.
struct NodeLayout {
    kind: CellKind,
    backwards: bool,
    b: Option<OutletId>,
    h: OutletId,
    c: Option<OutletId>,
    outputs: Vec<(usize, RecurrentOutput)>,
}

impl RecurrentLayer {
    /// The recurrent layer at `node`, if there is one and its weights are constant.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn at(context: &Context, model: &TypedModel, node: &TypedNode) -> TractResult<Option<RecurrentLayer>> {
        let place = match node.op_as::<Scan>() {
            Some(scan) => NodeLayout::of_scan(node, scan)?,
            None => node.op_as::<GruSeq>().and_then(|gru| NodeLayout::of_gru(node, gru)),
        };
        let Some(place) = place else { return Ok(None) };
        let (x, w, r) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        let facts = [x, w, r].map(|outlet| model.outlet_fact(outlet));
        let [x_fact, w_fact, r_fact] = facts;
        let (x_fact, w_fact, r_fact) = (x_fact?, w_fact?, r_fact?);
        let all_f32 = [x_fact, w_fact, r_fact].iter().all(|fact| fact.datum_type == DatumType::F32);
        let (Some([_, input]), Some([_, hidden])) = (shape(w_fact), shape(r_fact)) else { return Ok(None) };
        if !all_f32 || x_fact.shape.as_concrete().is_none_or(|shape| shape.contains(&0)) || hidden == 0 {
            return Ok(None);
        }
        let (Some(w), Some(r)) = (values(context, model, w)?, values(context, model, r)?) else { return Ok(None) };
        let b = match place.b {
            Some(b) => match values(context, model, b)? {
                Some(b) => Some(b),
                None => return Ok(None),
            },
            None => None,
        };
        let rows = place.kind.gates() * hidden;
        let fit = w.len() == rows * input && r.len() == rows * hidden;
        if !fit || b.as_ref().is_some_and(|b| b.len() != 2 * rows) {
            return Ok(None);
        }

        // The importer transposes sequences; our op accepts both layouts.
        let turned = model.node(x.node);
        let steps_first = turned.op_as::<AxisOp>().is_some_and(|op| *op == AxisOp::Move(1, 0));
        let mut inputs = tvec![if steps_first { turned.inputs[0] } else { x }];
        let is_zero = |outlet: OutletId| -> TractResult<bool> {
            let known = values(context, model, outlet)?;
            Ok(known.is_some_and(|values| values.iter().all(|value| *value == 0.0)))
        };
        let initial_h = !is_zero(place.h)?;
        let initial_c = place.c.map(is_zero).transpose()?.is_some_and(|zero| !zero);
        inputs.extend(initial_h.then_some(place.h));
        inputs.extend(place.c.filter(|_| initial_c));

        let mut region = Region { name: node.name.clone(), inputs, outputs: tvec![] };
        let mut outputs = Vec::new();
        for (slot, output) in place.outputs {
            let outlet = OutletId::new(node.id, slot);
            let used = !node.outputs[slot].successors.is_empty() || model.outputs.contains(&outlet);
            if !used {
                continue;
            }
            let turned = (output == RecurrentOutput::Y { steps_first: false }).then(|| back(model, outlet)).flatten();
            region.outputs.push(turned.unwrap_or(outlet));
            outputs.push(if turned.is_some() { RecurrentOutput::Y { steps_first: true } } else { output });
        }
        if outputs.is_empty() {
            return Ok(None);
        }
        let NodeLayout { kind, backwards, .. } = place;
        Ok(Some(RecurrentLayer {
            kind,
            input,
            hidden,
            backwards,
            steps_first,
            initial_h,
            initial_c,
            outputs,
            w,
            r,
            b,
            region,
        }))
    }
}

/// The outlet of a transpose to `[steps, batch, hidden]` that is the only user of `outlet`.
fn back(model: &TypedModel, outlet: OutletId) -> Option<OutletId> {
    let [successor] = &*model.node(outlet.node).outputs[outlet.slot].successors else { return None };
    let turns = model.node(successor.node).op_as::<AxisOp>().is_some_and(|op| *op == AxisOp::Move(1, 0));
    (turns && !model.outputs.contains(&outlet)).then(|| OutletId::new(successor.node, 0))
}

fn shape<const RANK: usize>(fact: &TypedFact) -> Option<[usize; RANK]> {
    fact.shape.as_concrete()?.try_into().ok()
}

impl NodeLayout {
    fn of_gru(node: &TypedNode, gru: &GruSeq) -> Option<NodeLayout> {
        if gru.projected || !gru.reset_every_turn || node.inputs.len() != 4 + usize::from(gru.has_bias) {
            return None;
        }
        let mut outputs = vec![(1, RecurrentOutput::H)];
        if gru.emit_y {
            outputs.insert(0, (0, RecurrentOutput::Y { steps_first: false }));
        }
        Some(NodeLayout {
            kind: CellKind::GruLinear,
            backwards: gru.chunk < 0,
            b: gru.has_bias.then(|| node.inputs[3]),
            h: *node.inputs.last()?,
            c: None,
            outputs,
        })
    }

    fn of_scan(node: &TypedNode, scan: &Scan) -> TractResult<Option<NodeLayout>> {
        if scan.skip != 0 || !scan.reset_every_turn {
            return Ok(None);
        }
        let names: Vec<&str> = scan.body.inputs.iter().map(|input| &*scan.body.node(input.node).name).collect();
        let has_bias = names.contains(&"b");
        let has_cell = names.contains(&"c_source");
        let mut expected = vec!["x_source", "W", "R", "h_source"];
        if has_bias {
            expected.insert(3, "b");
        }
        if has_cell {
            expected.push("c_source");
        }
        if names != expected {
            return Ok(None);
        }
        let Some(kind) = kind(node, scan, has_cell)? else { return Ok(None) };
        let chunk = match &scan.input_mapping[0] {
            InputMapping::Scan(info) if info.axis == 1 && info.chunk.abs() == 1 => info.chunk,
            _ => return Ok(None),
        };
        let states = 1 + usize::from(has_cell);
        let (full, state) = scan.input_mapping[1..].split_at(names.len() - 1 - states);
        if !full.iter().all(|mapping| *mapping == InputMapping::Full) || !state.iter().all(InputMapping::is_state) {
            return Ok(None);
        }
        let mut outputs = Vec::new();
        for (mapping, last) in scan.output_mapping.iter().zip([RecurrentOutput::H, RecurrentOutput::C]) {
            if let Some((slot, info)) = mapping.scan {
                if last != RecurrentOutput::H || info.axis != 1 || info.chunk != chunk {
                    return Ok(None);
                }
                outputs.push((slot, RecurrentOutput::Y { steps_first: false }));
            }
            outputs.extend(mapping.last_value_slot.map(|slot| (slot, last)));
        }
        outputs.sort_by_key(|(slot, _)| *slot);
        let first_state = node.inputs.len() - states;
        Ok(Some(NodeLayout {
            kind,
            backwards: chunk < 0,
            b: has_bias.then(|| node.inputs[3]),
            h: node.inputs[first_state],
            c: has_cell.then(|| node.inputs[first_state + 1]),
            outputs,
        }))
    }
}

/// The layer with exactly this body.
fn kind(node: &TypedNode, scan: &Scan, has_cell: bool) -> TractResult<Option<CellKind>> {
    let gru = |linear_before_reset| GRU { f: Box::new(sigmoid()), g: Box::new(tanh()), linear_before_reset };
    let known: Vec<(CellKind, Box<dyn WireBody>)> = if has_cell {
        let lstm = LSTM { f: Box::new(sigmoid()), g: Box::new(tanh()), h: Box::new(tanh()) };
        vec![(CellKind::Lstm, Box::new(lstm))]
    } else {
        vec![(CellKind::Gru, Box::new(gru(false))), (CellKind::GruLinear, Box::new(gru(true)))]
    };
    for (kind, cell) in known {
        let body = body(&node.name, scan, &*cell).context("wiring a recurrent cell")?;
        let equal = |one: &TypedNode, other: &TypedNode| one.inputs == other.inputs && one.op == other.op;
        let same_nodes = body.nodes.len() == scan.body.nodes.len()
            && body.nodes.iter().zip(&scan.body.nodes).all(|(one, other)| equal(one, other));
        if same_nodes && body.outputs == scan.body.outputs {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// The body that the importer makes of `cell` with the sources of the scan's body.
fn body(prefix: &str, scan: &Scan, cell: &dyn WireBody) -> TractResult<TypedModel> {
    let mut body = TypedModel { symbols: scan.body.symbols.clone(), ..TypedModel::default() };
    for source in &scan.body.inputs {
        let node = scan.body.node(source.node);
        let outlet = body.add_source(&*node.name, node.outputs[0].fact.clone())?;
        let without_steps = match &*node.name {
            "x_source" => "Xt",
            "h_source" => "Ht_1",
            "c_source" => "Ct_1",
            _ => continue,
        };
        body.wire_node(without_steps, AxisOp::Rm(1), &[outlet])?;
    }
    cell.wire_body(prefix, &mut body)?;
    Ok(body)
}

/// The values of an outlet that depends on constants and weights only.
fn values(context: &Context, model: &TypedModel, outlet: OutletId) -> TractResult<Option<Vec<f32>>> {
    let Some(tensor) = evaluated(context, model, outlet, MOST_BETWEEN)? else { return Ok(None) };
    if tensor.datum_type() != DatumType::F32 {
        return Ok(None);
    }
    let plain = tensor.try_as_plain_ram()?;
    Ok(Some(plain.as_slice::<f32>()?.to_vec()))
}

fn evaluated(
    context: &Context,
    model: &TypedModel,
    outlet: OutletId,
    depth: usize,
) -> TractResult<Option<Arc<Tensor>>> {
    let node = model.node(outlet.node);
    if let Some(weight) = context.weights.of(node)? {
        return weight.into_dense().map(Some);
    }
    if let Some(constant) = node.op_as::<Const>() {
        return Ok(Some(Arc::clone(constant.val())));
    }
    if let Some(known) = &model.outlet_fact(outlet)?.konst {
        return Ok(Some(Arc::clone(known)));
    }
    if depth == 0 || node.inputs.is_empty() {
        return Ok(None);
    }
    let mut inputs = tvec![];
    for input in &node.inputs {
        let Some(tensor) = evaluated(context, model, *input, depth - 1)? else { return Ok(None) };
        inputs.push(tensor.into_tvalue());
    }
    let outputs = node.op.eval_out_of_plan(inputs)?;
    Ok(outputs.and_then(|outputs| outputs.into_iter().nth(outlet.slot)).map(TValue::into_arc_tensor))
}
