//! Shapes of all values from one run of the engine, and what the graph computes from shapes alone.
//!
//! What a graph computes from fixed axes is the same for every input: it becomes a constant, so that `Reshape` and its
//! like can be given new lengths. A second run with other lengths and values shows which axes are fixed; it is needed
//! only where the graph looks at shapes or regroups axes.

use std::collections::{HashMap, HashSet};

use espalier_engine::{Keep, Network, Tensor};

use super::{
    feeds::{self, FALLBACKS, FIRST, OTHERS, Sizes},
    graph, lengths,
    normalise::result_type,
};
use crate::{
    PruneError,
    onnx::{GraphProto, Model, NodeProto, axis_of, tensor_proto::DataType},
    operators::{Axes, axes},
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
    pub fn is_fixed(&self) -> bool {
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
    pub second: Second,
}

/// What a run with other lengths showed.
#[derive(Debug, Default)]
pub enum Second {
    /// Nothing in the graph depends on lengths.
    #[default]
    NotNeeded,
    /// No other lengths work: no length is known to be fixed.
    None,
    Shapes(Sizes, HashMap<String, Vec<usize>>),
}

impl Probe {
    /// The shape in the second run; `None` where there is none. A value that was made since is as it was in the first.
    pub fn second_shape(&self, name: &str) -> Option<&[usize]> {
        match &self.second {
            Second::NotNeeded => self.shape(name),
            Second::None => None,
            Second::Shapes(_, shapes) => shapes.get(name).map(Vec::as_slice).or_else(|| self.shape(name)),
        }
    }

    /// Whether an axis is as long for every input.
    pub fn has_fixed_length(&self, name: &str, axis: usize) -> bool {
        let len = |shape: Option<&[usize]>| shape.and_then(|shape| shape.get(axis).copied());
        len(self.shape(name)).is_some_and(|first| len(self.second_shape(name)) == Some(first))
    }

    /// All lengths the network was run with.
    pub fn all_sizes(&self) -> Vec<Sizes> {
        match self.second {
            Second::Shapes(sizes, _) => vec![self.sizes, sizes],
            _ => vec![self.sizes],
        }
    }

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
    let second = match needs_second(model.graph(), shapes) {
        false => Second::NotNeeded,
        true => {
            let mut others = OTHERS.into_iter();
            let run = others.find_map(|sizes| Some((sizes, run_once(model.graph(), &network, shapes, sizes).ok()?)));
            run.map_or(Second::None, |(sizes, values)| {
                Second::Shapes(sizes, values.into_iter().map(|(name, (shape, _))| (name, shape)).collect())
            })
        }
    };
    drop(network);
    let mut probe = gather(model.graph(), first, second);
    probe.sizes = sizes;
    make_constants(model, &mut probe);
    lengths::plain_targets(model, &mut probe);
    graph::sweep(model.graph_mut());
    lengths::keep_fixed(model, &mut probe);
    graph::sweep(model.graph_mut());
    let used: HashSet<&str> = model.graph().node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    probe.looked_at.retain(|(name, _)| {
        // Only if the `Shape` is still there.
        used.contains(name.as_str())
            && model.graph().node.iter().any(|node| looks(node) && node.input_at(0) == Some(name))
    });
    Ok(probe)
}

type Values = HashMap<String, (Vec<usize>, Option<Tensor>)>;

/// Whether an operator gives out the lengths of its input.
pub fn looks(node: &NodeProto) -> bool {
    matches!(node.op(), "Shape" | "Size")
}

/// Whether a second run may show more than the first. Where the graph looks at lengths, those of inner values may also
/// depend on what the inputs hold.
fn needs_second(graph: &GraphProto, shapes: &HashMap<String, Vec<usize>>) -> bool {
    let open = graph.input.iter().any(|input| feeds::is_open(input) && !shapes.contains_key(input.name()));
    let regroups = |node: &NodeProto| node.op() == "Reshape" || node.op() == "Flatten" && node.int("axis", 1) != 1;
    graph.node.iter().any(|node| looks(node) || open && regroups(node))
}

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

fn gather(graph: &GraphProto, first: Values, second: Second) -> Probe {
    let mut probe = Probe { second, ..Probe::default() };
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
        let fixed = if looks(node) { looked_at(node, &mut probe) } else { derived(node, &probe) };
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

/// The elements of a `Shape` or a `Size`: fixed where two runs with other lengths agree.
fn looked_at(node: &NodeProto, probe: &mut Probe) -> Option<Vec<bool>> {
    let name = node.input_at(0)?;
    let rank = probe.shape(name)?.len();
    let axes = if node.op() == "Size" { 0..rank } else { lengths::looked_at(node, rank) };
    let fixed: Vec<bool> = axes.clone().map(|axis| probe.has_fixed_length(name, axis)).collect();
    let open = axes.zip(&fixed).filter(|(_, fixed)| !**fixed);
    probe.looked_at.extend(open.map(|(axis, _)| (name.to_owned(), axis)));
    Some(if node.op() == "Size" { vec![fixed.iter().all(|fixed| *fixed)] } else { fixed })
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
        // Vectors and scalars, as most of what is computed from shapes.
        op if by_element(op) && (0..node.input.len()).filter_map(fixed).all(|mask| [1, len].contains(&mask.len())) => {
            let is_fixed = |at: usize| {
                (0..node.input.len()).filter_map(fixed).all(|mask| mask[if mask.len() == 1 { 0 } else { at }])
            };
            Some((0..len).map(is_fixed).collect())
        }
        _ => (len <= LARGEST_KEPT).then(|| vec![all_fixed(0); len]),
    }
}

/// Operators that compute each element from those at its place.
fn by_element(op: &str) -> bool {
    matches!(axes(op), Some(Axes::Broadcast | Axes::Elementwise))
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
