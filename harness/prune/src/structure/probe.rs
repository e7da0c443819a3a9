//! Shapes of all values from one run of the engine, and what the graph computes from shapes alone.
//!
//! What a graph computes from fixed axes is the same for every input: it becomes a constant, so that `Reshape` and its
//! like can be given new lengths. A second run with other lengths shows which axes are fixed; it is needed only where
//! the graph looks at shapes.

use std::collections::{HashMap, HashSet};

use espalier_engine::{Keep, Network, Tensor};

use super::{
    feeds::{self, FALLBACKS, FIRST, SECOND, Sizes},
    graph,
    normalise::result_type,
};
use crate::{
    PruneError,
    onnx::{GraphProto, Model, NodeProto, axis_of, tensor_proto::DataType},
};

/// The most elements of a value that is kept: shapes are short.
const LARGEST_KEPT: usize = 1024;

/// What is known about a value.
#[derive(Clone, Debug)]
pub struct Info {
    pub shape: Vec<usize>,
    /// Of values computed from shapes alone: whether each element is the same for every input.
    pub fixed: Option<Vec<bool>>,
    /// Of small values.
    pub value: Option<Tensor>,
}

impl Info {
    /// Whether all elements are the same for every input.
    fn is_fixed(&self) -> bool {
        self.fixed.as_ref().is_some_and(|fixed| fixed.iter().all(|fixed| *fixed))
    }
}

#[derive(Debug, Default)]
pub struct Probe {
    pub infos: HashMap<String, Info>,
    /// Axes that a `Shape` reads and that are not the same for every input: (value, axis).
    pub looked_at: Vec<(String, usize)>,
    /// The lengths of open axes in the run.
    pub sizes: Sizes,
}

impl Probe {
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.infos.get(name).map(|info| info.shape.as_slice())
    }

    /// The integers of a value, `None` for each that is not the same for every input.
    pub fn elements(&self, name: &str) -> Option<Vec<Option<i64>>> {
        let info = self.infos.get(name)?;
        let values = info.value.as_ref()?.i64().ok()?;
        let fixed = info.fixed.as_ref()?;
        Some(values.data().iter().zip(fixed).map(|(value, fixed)| fixed.then_some(*value)).collect())
    }

    /// The integers of a value, where all are the same for every input.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.elements(name)?.into_iter().collect()
    }
}

/// Runs the model, and turns into constants what depends on fixed axes alone.
///
/// # Errors
/// What the engine does not know or refuses, and inputs that cannot be synthesised.
pub fn probe(model: &mut Model, shapes: &HashMap<String, Vec<usize>>) -> Result<Probe, PruneError> {
    let network = Network::new(model)?;
    let (sizes, first) = run(model.graph(), &network, shapes)?;
    let looks = model.graph().node.iter().any(|node| matches!(node.op(), "Shape" | "Size"));
    let open = model.graph().input.iter().any(|input| feeds::is_open(input) && !shapes.contains_key(input.name()));
    let second = if looks && open {
        let other = if sizes == FIRST { SECOND } else { FIRST };
        // Where no other lengths work, nothing is known to be fixed.
        run_once(model.graph(), &network, shapes, other).ok()
    } else {
        Some(first.clone())
    };
    let compared = second.is_some();
    drop(network);
    let mut probe = gather(model.graph(), first, &second.unwrap_or_default());
    probe.sizes = sizes;
    make_constants(model, &mut probe);
    if compared {
        plain_targets(model, &mut probe);
    }
    graph::sweep(model.graph_mut());
    let used: HashSet<&str> = model.graph().node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    probe.looked_at.retain(|(name, _)| {
        // Only if the `Shape` is still there.
        used.contains(name.as_str())
            && model.graph().node.iter().any(|node| node.op() == "Shape" && node.input_at(0) == Some(name))
    });
    Ok(probe)
}

type Values = HashMap<String, (Vec<usize>, Option<Tensor>)>;

fn run(
    graph: &GraphProto,
    network: &Network,
    shapes: &HashMap<String, Vec<usize>>,
) -> Result<(Sizes, Values), PruneError> {
    let mut error = None;
    for sizes in [FIRST].into_iter().chain(FALLBACKS) {
        match run_once(graph, network, shapes, sizes) {
            Ok(values) => return Ok((sizes, values)),
            // The first error is the most useful one.
            Err(found) => error = error.or(Some(found)),
        }
    }
    Err(error.expect("at least one size was tried"))
}

fn run_once(
    graph: &GraphProto,
    network: &Network,
    shapes: &HashMap<String, Vec<usize>>,
    sizes: Sizes,
) -> Result<Values, PruneError> {
    let feeds = feeds::feeds(graph, shapes, sizes)?;
    let mut values = Values::new();
    let mut keep = |name: &str, value: &Tensor| {
        let len: usize = value.shape().iter().product();
        values.insert(name.to_owned(), (value.shape().to_vec(), (len <= LARGEST_KEPT).then(|| value.clone())));
    };
    for (id, feed) in network.inputs.iter().zip(&feeds) {
        keep(network.name(*id), feed);
    }
    for tensor in &graph.initializer {
        if let Some(value) = network.find(tensor.name()).and_then(|id| network.constant(id)) {
            keep(tensor.name(), value);
        }
    }
    network.run_observed(&feeds, Keep::Outputs, &mut |node, _, outputs| {
        for (id, value) in node.outputs.iter().zip(outputs) {
            if let Some(id) = id {
                keep(network.name(*id), value);
            }
        }
    })?;
    Ok(values)
}

fn gather(graph: &GraphProto, first: Values, second: &Values) -> Probe {
    let mut probe = Probe::default();
    for (name, (shape, value)) in first {
        probe.infos.insert(name, Info { shape, fixed: None, value });
    }
    for tensor in &graph.initializer {
        if let Some(info) = probe.infos.get_mut(tensor.name()) {
            let len = info.shape.iter().product();
            info.fixed = (len <= LARGEST_KEPT).then(|| vec![true; len]);
        }
    }
    for node in &graph.node {
        let fixed = if node.op() == "Shape" { looked_at(node, &mut probe, second) } else { derived(node, &probe) };
        let whole = fixed.as_ref().is_some_and(|fixed| fixed.iter().all(|fixed| *fixed));
        for (slot, name) in node.output.iter().enumerate() {
            let Some(info) = probe.infos.get_mut(name) else { continue };
            let len: usize = info.shape.iter().product();
            info.fixed = match &fixed {
                Some(fixed) if slot == 0 && fixed.len() == len => Some(fixed.clone()),
                Some(_) if info.value.is_some() => Some(vec![whole; len]),
                _ => None,
            };
        }
    }
    probe
}

/// The elements of a `Shape`: fixed where two runs with other lengths agree.
fn looked_at(node: &NodeProto, probe: &mut Probe, second: &Values) -> Option<Vec<bool>> {
    let name = node.input_at(0)?;
    let shape = probe.shape(name)?.to_vec();
    let other = second.get(name).map(|(shape, _)| shape.as_slice()).unwrap_or_default();
    let rank = shape.len() as i64;
    let clamp = |axis: i64| (if axis < 0 { axis + rank } else { axis }).clamp(0, rank) as usize;
    let (start, end) = (clamp(node.int("start", 0)), clamp(node.int("end", rank)));
    let fixed: Vec<bool> = (start..end).map(|axis| other.get(axis) == Some(&shape[axis])).collect();
    for (axis, fixed) in (start..end).zip(&fixed) {
        if !fixed {
            probe.looked_at.push((name.to_owned(), axis));
        }
    }
    Some(fixed)
}

/// Which elements of a result are the same for every input; `None` where it does not come from shapes and constants
/// alone.
fn derived(node: &NodeProto, probe: &Probe) -> Option<Vec<bool>> {
    let info = |slot: usize| probe.infos.get(node.input_at(slot)?);
    let fixed = |slot: usize| info(slot)?.fixed.as_ref();
    let is_known = |slot: usize| node.input_at(slot).is_none() || fixed(slot).is_some();
    if node.op().starts_with("Random") || !(0..node.input.len()).all(is_known) {
        return None;
    }
    let len: usize = probe.shape(node.output_at(0)?)?.iter().product();
    let data = fixed(0)?;
    let all_fixed = |first: usize| (first..node.input.len()).all(|slot| info(slot).is_none_or(Info::is_fixed));
    let is_vector = || info(0).is_some_and(|info| info.shape.len() == 1);
    match node.op() {
        "Cast" | "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" | "Neg" | "Abs"
            if data.len() == len && all_fixed(1) =>
        {
            Some(data.clone())
        }
        "Concat" => {
            let all: Vec<bool> = (0..node.input.len()).filter_map(fixed).flatten().copied().collect();
            (all.len() == len).then_some(all)
        }
        "Gather" if is_vector() && all_fixed(1) => {
            let indices = info(1)?.value.as_ref()?.i64().ok()?;
            let count = data.len() as i64;
            indices
                .data()
                .iter()
                .map(|index| data.get(usize::try_from(if *index < 0 { index + count } else { *index }).ok()?).copied())
                .collect()
        }
        "Slice" if is_vector() && node.input.len() > 2 && all_fixed(1) => {
            let at = |slot: usize| probe.integers(node.input_at(slot)?)?.first().copied();
            let (mut start, step) = (at(1)?, if node.input.len() > 4 { at(4)? } else { 1 });
            let count = data.len() as i64;
            start = (if start < 0 { start + count } else { start }).clamp(0, count);
            (step == 1).then(|| data.iter().skip(start as usize).take(len).copied().collect::<Vec<bool>>())
        }
        _ => (len <= LARGEST_KEPT).then(|| vec![all_fixed(0); len]),
    }
}

/// Turns values that are the same for every input into constants.
fn make_constants(model: &mut Model, probe: &mut Probe) {
    let outputs: HashSet<String> = model.graph().output.iter().map(|output| output.name().to_owned()).collect();
    let graph = model.graph_mut();
    let mut types: HashMap<String, i32> =
        graph.initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.data_type())).collect();
    let mut rest = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let inputs: Vec<i32> = node.input.iter().map(|name| types.get(name).copied().unwrap_or(0)).collect();
        let mut constants = Vec::new();
        for (slot, name) in node.output.iter().enumerate() {
            let Some(info) = probe.infos.get(name).filter(|info| info.fixed.is_some()) else { continue };
            let Some(kind) = result_type(&node, slot, &inputs) else { continue };
            types.insert(name.clone(), kind);
            if let (true, Some(value), false) = (info.is_fixed(), &info.value, outputs.contains(name)) {
                constants.extend(graph::constant(name, value, kind));
            }
        }
        if constants.len() == node.output.len() {
            graph.initializer.extend(constants);
        } else {
            rest.push(node);
        }
    }
    graph.node = rest;
}

/// Writes targets of `Reshape` that are partly fixed as constants: an open axis is copied from the input, or inferred.
fn plain_targets(model: &mut Model, probe: &mut Probe) {
    let graph = model.graph_mut();
    let mut names = graph::Names::of(graph);
    let constants: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
    let mut made = Vec::new();
    for node in graph.node.iter_mut().filter(|node| node.op() == "Reshape") {
        let (Some(data), Some(target)) = (node.input_at(0), node.input_at(1)) else { continue };
        if constants.contains(target) {
            continue;
        }
        let (Some(elements), Some(from)) = (probe.elements(target), probe.shape(data).map(<[usize]>::to_vec)) else {
            continue;
        };
        let Some(to) = node.output_at(0).and_then(|name| probe.shape(name)).map(<[usize]>::to_vec) else { continue };
        if elements.len() != to.len() || to.contains(&0) || from.contains(&0) {
            continue;
        }
        let mut target = Vec::new();
        let mut left = elements.iter().filter(|element| **element == Some(-1)).count();
        for (axis, element) in elements.iter().enumerate() {
            target.push(match element {
                Some(0) if node.int("allowzero", 0) == 0 => 0,
                Some(len) => *len,
                // An axis with no change before it is the input's axis.
                None if from[..from.len().min(axis + 1)] == to[..=axis] => 0,
                None => {
                    left += 1;
                    -1
                }
            });
        }
        if left > 1 {
            continue;
        }
        let name = names.fresh(&format!("{}/target", node.label()));
        let constant = graph::int64s(&name, &target);
        let value = Tensor::I64(espalier_engine::Array::new([target.len()], target.clone()));
        let info = Info { shape: vec![target.len()], fixed: Some(vec![true; target.len()]), value: Some(value) };
        probe.infos.insert(name.clone(), info);
        made.push(constant);
        node.input[1] = name;
        node.attribute.retain(|attribute| attribute.name() != "allowzero");
    }
    graph.initializer.extend(made);
}

/// The axes that the attribute `axes` or the constant input `slot` names; `None` where they are unknown.
pub fn axes_of(node: &NodeProto, slot: usize, rank: usize, probe: &Probe) -> Option<Option<Vec<usize>>> {
    let given = match (node.ints("axes"), node.input_at(slot)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(name)) => probe.integers(name)?,
        (None, None) => return Some(None),
    };
    let axes: Option<Vec<usize>> = given.iter().map(|axis| axis_of(*axis, rank)).collect();
    axes.map(Some)
}

/// Whether constants of this type shrink: those of floats.
pub fn is_float(data_type: i32) -> bool {
    matches!(
        DataType::try_from(data_type),
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
    )
}
