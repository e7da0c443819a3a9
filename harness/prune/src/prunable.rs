//! Which constant tensors of a graph are weights that may be pruned, and why the others are not.
//!
//! Told by role, never by name or size: the slot of the operator that uses a tensor says whether it is a weight matrix, a bias, an embedding
//! table. A tensor several nodes share is one tensor and counts once. Everything that holds parameters and is not pruned is listed with its
//! reason, so that no layer stays whole without a word. Order is that of the file: initialisers, then `Constant` nodes.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    OnnxError, PruneError,
    onnx::{GraphProto, Model, NodeProto, SparseTensorProto, TensorProto, tensor_proto::DataType},
    tensor::{dtype_name, element_count, may_hold_weights},
};

/// What [`survey`] finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    pub weights: Vec<Weight>,
    pub untouched: Vec<Untouched>,
}

impl Survey {
    /// How many single weights may be pruned.
    pub fn prunable(&self) -> u64 {
        // Shapes are a stranger's: not checked against the values yet, they may add up to anything.
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
    /// The nodes it is a weight of.
    pub used_by: Vec<String>,
}

/// Where in the graph a constant tensor is kept.
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

/// A tensor with parameters that is left as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Untouched {
    pub name: String,
    pub shape: Vec<u64>,
    pub parameters: u64,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Bias,
    Normalisation,
    Embedding,
    Scalar,
    /// Input `input` (from 0) of an operator whose constants are not known to be weights.
    Operator {
        op: String,
        input: u32,
    },
    /// It may be a weight, but reaches the node that uses it through another one.
    Indirect {
        op: String,
    },
    /// A weight, but `op` uses it too and not as one.
    AlsoUsed {
        op: String,
    },
    /// A weight of a type whose pruning is not supported.
    Dtype {
        dtype: String,
    },
    /// Kept as something else than a dense tensor.
    Storage {
        form: String,
    },
    Subgraph {
        node: String,
    },
    Function {
        function: String,
    },
    /// The graph gives it out as a result.
    Output,
    Unused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Bias => write!(f, "bias"),
            Reason::Normalisation => write!(f, "parameter of a normalisation"),
            Reason::Embedding => write!(f, "embedding table"),
            Reason::Scalar => write!(f, "scalar"),
            Reason::Operator { op, input } => write!(f, "input {input} of `{op}`, not known to be a weight"),
            Reason::Indirect { op } => write!(f, "reaches its use through `{op}`"),
            Reason::AlsoUsed { op } => write!(f, "a weight, but also used by `{op}`"),
            Reason::Dtype { dtype } => write!(f, "a weight of type {dtype}, only float32 is pruned"),
            Reason::Storage { form } => write!(f, "kept as {form}"),
            Reason::Subgraph { node } => write!(f, "used in a subgraph of `{node}`"),
            Reason::Function { function } => write!(f, "in the function `{function}`"),
            Reason::Output => write!(f, "is itself an output of the model"),
            Reason::Unused => write!(f, "used by no node"),
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
        match judge(tensor, count, uses.of_tensor(name)) {
            Ok(used_by) => survey.weights.push(Weight { name: name.to_owned(), place, shape, count, used_by }),
            Err(reason) => {
                survey.untouched.push(Untouched { name: name.to_owned(), shape, parameters: count, reason });
            }
        }
    }

    list_other_storage(graph, &mut survey.untouched)?;
    for node in &graph.node {
        for subgraph in subgraphs(node) {
            list_all(subgraph, &|| Reason::Subgraph { node: label(node) }, &mut survey.untouched)?;
        }
    }
    for function in &model.proto.functions {
        // Cheap: values are shared with the original.
        let body = GraphProto { node: function.node.clone(), ..GraphProto::default() };
        list_all(&body, &|| Reason::Function { function: function.name().to_owned() }, &mut survey.untouched)?;
    }
    Ok(survey)
}

/// What one node does with a constant.
enum Role {
    Weight,
    Not(Reason),
}

fn role(node: &NodeProto, input: usize) -> Role {
    let op = node.op_type();
    let unknown = || Role::Not(Reason::Operator { op: qualified_op(node), input: input as u32 });
    if !is_standard(node) {
        return unknown();
    }
    match (op, input) {
        ("Conv" | "ConvTranspose", 1) | ("Gemm" | "MatMul", 0 | 1) | ("LSTM" | "GRU" | "RNN", 1 | 2) => Role::Weight,
        // Integer arithmetic: weights all the same; their type keeps them from being pruned.
        ("ConvInteger" | "MatMulInteger", 1) | ("QLinearConv" | "QLinearMatMul", 3) => Role::Weight,
        ("Conv" | "ConvTranspose" | "Gemm", 2) | ("LSTM" | "GRU" | "RNN", 3) | ("Add" | "Sub", _) => {
            Role::Not(Reason::Bias)
        }
        ("BatchNormalization", 1..=4)
        | ("LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "RMSNormalization", 1 | 2) => {
            Role::Not(Reason::Normalisation)
        }
        ("Gather", 0) => Role::Not(Reason::Embedding),
        ("Identity" | "Transpose" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "DequantizeLinear", 0) => {
            Role::Not(Reason::Indirect { op: op.to_owned() })
        }
        _ => unknown(),
    }
}

/// The nodes a tensor is a weight of, or why it is left alone.
fn judge(tensor: &TensorProto, count: u64, uses: &[Use<'_>]) -> Result<Vec<String>, Reason> {
    let mut used_by = Vec::new();
    let mut other = None;
    for usage in uses {
        match usage {
            Use::Node { node, input } => match role(node, *input) {
                Role::Weight => used_by.push(label(node)),
                Role::Not(reason) => other = other.or(Some((qualified_op(node), reason))),
            },
            Use::Subgraph { node } => {
                other = other.or(Some((qualified_op(node), Reason::Subgraph { node: label(node) })));
            }
            Use::Output => other = other.or(Some((String::new(), Reason::Output))),
        }
    }
    match other {
        Some((_, Reason::Output)) => Err(Reason::Output),
        Some((op, _)) if !used_by.is_empty() => Err(Reason::AlsoUsed { op }),
        Some(_) if count == 1 => Err(Reason::Scalar),
        Some((_, reason)) => Err(reason),
        None if used_by.is_empty() => Err(Reason::Unused),
        None if tensor.data_type() != DataType::Float as i32 => {
            Err(Reason::Dtype { dtype: dtype_name(tensor.data_type()).to_owned() })
        }
        None => Ok(used_by),
    }
}

enum Use<'a> {
    Node { node: &'a NodeProto, input: usize },
    Subgraph { node: &'a NodeProto },
    Output,
}

struct Uses<'a>(HashMap<&'a str, Vec<Use<'a>>>);

impl<'a> Uses<'a> {
    fn of(graph: &'a GraphProto) -> Uses<'a> {
        let mut uses: HashMap<&str, Vec<Use<'_>>> = HashMap::new();
        for node in &graph.node {
            for (input, name) in node.input.iter().enumerate() {
                uses.entry(name).or_default().push(Use::Node { node, input });
            }
            // Names within that are defined within too are noted in vain: that only makes us more careful.
            let mut within = Vec::new();
            subgraphs(node).for_each(|subgraph| names_used(subgraph, &mut within));
            for name in within {
                uses.entry(name).or_default().push(Use::Subgraph { node });
            }
        }
        for output in &graph.output {
            uses.entry(output.name()).or_default().push(Use::Output);
        }
        Uses(uses)
    }

    fn of_tensor(&self, name: &str) -> &[Use<'a>] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

fn names_used<'a>(graph: &'a GraphProto, names: &mut Vec<&'a str>) {
    names.extend(graph.output.iter().map(|output| output.name()));
    for node in &graph.node {
        names.extend(node.input.iter().map(String::as_str));
        subgraphs(node).for_each(|subgraph| names_used(subgraph, names));
    }
}

/// The graphs of an `If`, `Loop` or `Scan`. Their depth is bounded by the decoder.
fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// Every dense constant of a graph by its name, in the order of the file.
fn constants(graph: &GraphProto) -> impl Iterator<Item = (&str, Place)> {
    let initializers = graph.initializer.iter().enumerate();
    let nodes = graph.node.iter().enumerate().filter(|(_, node)| is_constant(node));
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
    for node in graph.node.iter().filter(|node| is_constant(node)) {
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

/// Everything with parameters in a graph whose constants are none of ours to change, and in those below it.
fn list_all(graph: &GraphProto, reason: &dyn Fn() -> Reason, untouched: &mut Vec<Untouched>) -> Result<(), PruneError> {
    for (name, place) in constants(graph) {
        let tensor = place.tensor(graph);
        if may_hold_weights(tensor.data_type()) {
            let parameters = element_count(name, tensor)?;
            untouched.push(Untouched { name: name.to_owned(), shape: shape(tensor), parameters, reason: reason() });
        }
    }
    for node in &graph.node {
        for subgraph in subgraphs(node) {
            list_all(subgraph, reason, untouched)?;
        }
    }
    Ok(())
}

fn is_standard(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx")
}

fn is_constant(node: &NodeProto) -> bool {
    is_standard(node) && node.op_type() == "Constant"
}

fn qualified_op(node: &NodeProto) -> String {
    if is_standard(node) { node.op_type().to_owned() } else { format!("{}.{}", node.domain(), node.op_type()) }
}

/// A node's name, or the first thing it computes where it has none.
fn label(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    if node.name().is_empty() { output.to_owned() } else { node.name().to_owned() }
}

fn shape(tensor: &TensorProto) -> Vec<u64> {
    axes(&tensor.dims)
}

fn axes(dims: &[i64]) -> Vec<u64> {
    dims.iter().map(|axis| u64::try_from(*axis).unwrap_or(0)).collect()
}
