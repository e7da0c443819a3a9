//! Which constant tensors of a graph are weights that may be pruned, and why the others are not.
//!
//! Decided by role, never by name or size: the operator that uses a tensor, and at which input, decide whether it is a
//! weight matrix, a bias or an embedding table. A tensor that several nodes share counts once. Everything that holds
//! parameters and is not pruned is listed with its reason, so that no layer is skipped silently. The order is that of
//! the file: initialisers, then `Constant` nodes.

use std::collections::HashSet;

use crate::{
    OnnxError, PruneError,
    layout::Layout,
    onnx::{GraphProto, Model, SparseTensorProto, TensorProto, tensor_proto::DataType},
    tensor::{dtype_name, element_count, may_hold_weights},
};
use uses::{Reached, Uses};

mod reason;
mod uses;

pub use reason::{Reason, Untouched};
pub(crate) use uses::small_integers;

/// The weights of a model, and its other parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    pub weights: Vec<Weight>,
    pub untouched: Vec<Untouched>,
}

impl Survey {
    /// How many single weights may be pruned.
    pub fn prunable(&self) -> u64 {
        // Shapes are untrusted input, not yet checked against the values: they may add up to anything.
        self.weights.iter().map(|weight| weight.count).fold(0, u64::saturating_add)
    }

    /// All parameters: the prunable ones and the others.
    pub fn parameters(&self) -> u64 {
        self.untouched.iter().map(|tensor| tensor.parameters).fold(self.prunable(), u64::saturating_add)
    }
}

/// A tensor whose single weights may be removed: f32, and used as a weight by every node that uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    pub name: String,
    pub place: Place,
    pub shape: Vec<u64>,
    /// Number of elements.
    pub count: u64,
    /// The nodes it is a weight of, directly or through others that only move values.
    pub used_by: Vec<String>,
    /// The same as positions in the graph, each with the input it reaches.
    pub weight_of: Vec<(usize, usize)>,
    /// Which of its axes are outputs, which inputs; `None` where that is unclear.
    pub layout: Option<Layout>,
}

/// Where in the graph a constant tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Initializer(usize),
    Constant { node: usize, attribute: usize },
}

impl Place {
    pub fn tensor(self, graph: &GraphProto) -> &TensorProto {
        match self {
            Place::Initializer(index) => &graph.initializer[index],
            Place::Constant { node, attribute } => {
                graph.node[node].attribute[attribute].t.as_ref().expect("`survey` only notes attributes with a tensor")
            }
        }
    }

    pub fn tensor_mut(self, graph: &mut GraphProto) -> &mut TensorProto {
        match self {
            Place::Initializer(index) => &mut graph.initializer[index],
            Place::Constant { node, attribute } => {
                graph.node[node].attribute[attribute].t.as_mut().expect("`survey` only notes attributes with a tensor")
            }
        }
    }
}

/// # Errors
/// [`OnnxError::Malformed`] for two constants of one name, [`OnnxError::BadTensor`] for an impossible shape.
pub fn survey(model: &Model) -> Result<Survey, PruneError> {
    let graph = model.graph();
    let uses = Uses::of(graph);
    let mut survey = Survey::default();

    let mut names = HashSet::new();
    for (name, place) in constants(graph) {
        if !names.insert(name) {
            return Err(OnnxError::Malformed { why: format!("two constant tensors are called `{name}`") }.into());
        }
        let tensor = place.tensor(graph);
        if !may_hold_weights(tensor.data_type()) {
            continue;
        }
        let count = element_count(name, tensor)?;
        let shape = shape(tensor);
        match accepted(tensor, count, uses.follow(name, shape.len())) {
            Ok(Reached { weight_of, layout, .. }) => {
                let used_by = weight_of.iter().map(|(node, _)| graph.node[*node].label()).collect();
                survey.weights.push(Weight { name: name.to_owned(), place, shape, count, used_by, weight_of, layout });
            }
            Err(reason) => {
                survey.untouched.push(Untouched { name: name.to_owned(), shape, parameters: count, reason });
            }
        }
    }

    list_other_storage(graph, &mut survey.untouched)?;
    for node in &graph.node {
        for subgraph in node.subgraphs() {
            list_all(subgraph, &|| Reason::Subgraph { node: node.label() }, &mut survey.untouched)?;
        }
    }
    for function in &model.proto.functions {
        // Cheap: values are shared with the original.
        let body = GraphProto { node: function.node.clone(), ..GraphProto::default() };
        list_all(&body, &|| Reason::Function { function: function.name().to_owned() }, &mut survey.untouched)?;
    }
    Ok(survey)
}

/// What a tensor is a weight of, or why it is left unchanged.
fn accepted(tensor: &TensorProto, count: u64, mut reached: Reached) -> Result<Reached, Reason> {
    match reached.other.take() {
        Some((_, Reason::Output)) => Err(Reason::Output),
        Some((op, _)) if !reached.weight_of.is_empty() => Err(Reason::AlsoUsed { op }),
        Some(_) if count == 1 => Err(Reason::Scalar),
        Some((_, reason)) => Err(reason),
        None if reached.weight_of.is_empty() => Err(Reason::Unused),
        None if tensor.data_type() != DataType::Float as i32 => {
            Err(Reason::Dtype { dtype: dtype_name(tensor.data_type()).to_owned() })
        }
        None => Ok(reached),
    }
}

/// Every dense constant of a graph by name, in the order of the file.
pub(crate) fn constants(graph: &GraphProto) -> impl Iterator<Item = (&str, Place)> {
    let initializers = graph.initializer.iter().enumerate();
    let nodes = graph.node.iter().enumerate().filter(|(_, node)| node.op() == "Constant");
    initializers.map(|(index, tensor)| (tensor.name(), Place::Initializer(index))).chain(nodes.filter_map(
        |(node, proto)| {
            let attribute = proto.attribute.iter().position(|attribute| attribute.t.is_some())?;
            Some((proto.output.first()?.as_str(), Place::Constant { node, attribute }))
        },
    ))
}

/// Constants that are not dense tensors: sparse ones, and lists of floats in an attribute.
fn list_other_storage(graph: &GraphProto, untouched: &mut Vec<Untouched>) -> Result<(), PruneError> {
    let mut list = |name: &str, shape: Vec<u64>, parameters: u64, form: &str| {
        let reason = Reason::Storage { form: form.to_owned() };
        untouched.push(Untouched { name: name.to_owned(), shape, parameters, reason });
    };
    let stored = |name: &str, sparse: &SparseTensorProto| match &sparse.values {
        Some(values) => element_count(name, values),
        None => Ok(0),
    };
    for sparse in &graph.sparse_initializer {
        let name = sparse.values.as_ref().map_or("", |values| values.name());
        list(name, axes(&sparse.dims), stored(name, sparse)?, "a sparse tensor");
    }
    for node in graph.node.iter().filter(|node| node.op() == "Constant") {
        let name = node.output.first().map_or("", String::as_str);
        for attribute in &node.attribute {
            if let Some(sparse) = &attribute.sparse_tensor {
                list(name, axes(&sparse.dims), stored(name, sparse)?, "a sparse tensor");
            }
            if !attribute.floats.is_empty() {
                let len = attribute.floats.len() as u64;
                list(name, vec![len], len, "a list of floats in an attribute");
            }
        }
    }
    Ok(())
}

/// Lists everything with parameters in a graph whose constants are not pruned, and in its subgraphs.
fn list_all(graph: &GraphProto, reason: &dyn Fn() -> Reason, untouched: &mut Vec<Untouched>) -> Result<(), PruneError> {
    for (name, place) in constants(graph) {
        let tensor = place.tensor(graph);
        if may_hold_weights(tensor.data_type()) {
            let parameters = element_count(name, tensor)?;
            untouched.push(Untouched { name: name.to_owned(), shape: shape(tensor), parameters, reason: reason() });
        }
    }
    for node in &graph.node {
        for subgraph in node.subgraphs() {
            list_all(subgraph, reason, untouched)?;
        }
    }
    Ok(())
}

fn shape(tensor: &TensorProto) -> Vec<u64> {
    axes(&tensor.dims)
}

fn axes(dims: &[i64]) -> Vec<u64> {
    dims.iter().map(|axis| u64::try_from(*axis).unwrap_or(0)).collect()
}
