//! Which values of a network are taught: by role, as with pruning. A float32 constant is a parameter if every slot it is used in is one that a
//! layer learns: weights, biases, scales and shifts of normalisations, embeddings. Scalars (a square root of two, an epsilon), clip bounds and
//! masks are none, nor are the running statistics of a BatchNormalization, which stay as they are.

use std::collections::HashMap;

use espalier_engine::{Array, Network, Node, ValueId};

use crate::onnx::{Model, tensor_proto::DataType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub id: ValueId,
    /// Matrices and kernels lose weight by decay, vectors do not.
    pub decays: bool,
}

/// In the order of the file: initialisers, then constants.
pub fn parameters(model: &Model, network: &Network) -> Vec<Parameter> {
    let mut users: HashMap<ValueId, Vec<(&Node, usize)>> = HashMap::new();
    for node in &network.nodes {
        for (slot, input) in node.inputs.iter().enumerate() {
            if let Some(input) = input {
                users.entry(*input).or_default().push((node, slot));
            }
        }
    }
    let graph = model.graph();
    let initializers = graph.initializer.iter().map(|tensor| (tensor.name(), tensor.data_type()));
    let constants = graph.node.iter().filter(|node| node.op_type() == "Constant").filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor.data_type()))
    });
    let given_out: Vec<&str> = graph.output.iter().map(|output| output.name()).collect();
    let floats = initializers.chain(constants).filter(|(_, kind)| *kind == DataType::Float as i32);
    floats
        .filter_map(|(name, _)| {
            let id = network.find(name)?;
            let values = network.constant(id)?.f32().ok()?;
            let learned = !given_out.contains(&name) && is_learned(id, &users, network, values, DEPTH);
            learned.then(|| Parameter { name: name.to_owned(), id, decays: long_axes(values.shape()) > 1 })
        })
        .collect()
}

type Users<'a> = HashMap<ValueId, Vec<(&'a Node, usize)>>;

/// How many nodes may lie between a constant and the layer that uses it.
const DEPTH: usize = 8;

fn is_learned(value: ValueId, users: &Users<'_>, network: &Network, constant: &Array<f32>, depth: usize) -> bool {
    let Some(uses) = users.get(&value).filter(|_| depth > 0) else {
        return false;
    };
    let is_vector = long_axes(constant.shape()) == 1;
    // No layer learns a minus infinity: that is a mask.
    let is_small = constant.data().iter().all(|value| value.abs() < 1e4);
    uses.iter().all(|(node, slot)| match (node.op_type.as_str(), slot) {
        ("Conv" | "ConvTranspose" | "Gemm", 1 | 2) | ("Gemm", 0) | ("MatMul", 0 | 1) => true,
        ("LSTM" | "GRU" | "RNN", 1..=3) | ("LSTM", 7) => true,
        (
            "BatchNormalization"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "RMSNormalization",
            1 | 2,
        )
        | ("PRelu", 1)
        | ("Gather", 0) => true,
        // A bias, or a table of positions.
        ("Add" | "Sub", _) => constant.len() > 1 && is_small && meets_a_variable(node, *slot, network),
        // The scale of a normalisation that an exporter wrote out; a matrix here is rather a mask.
        ("Mul", _) => is_vector && is_small && meets_a_variable(node, *slot, network),
        // On the way to a layer: gradients come back through all of these.
        (
            "Identity" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice" | "Split" | "Expand",
            0,
        )
        | ("Concat", _) => {
            node.outputs.iter().flatten().all(|output| is_learned(*output, users, network, constant, depth - 1))
        }
        _ => false,
    })
}

/// A constant added to a constant is arithmetic on shapes and masks.
fn meets_a_variable(node: &Node, slot: usize, network: &Network) -> bool {
    let mut others = node.inputs.iter().enumerate().filter(|(other, _)| *other != slot);
    others.any(|(_, input)| input.is_some_and(|input| network.constant(input).is_none()))
}

fn long_axes(shape: &[usize]) -> usize {
    shape.iter().filter(|axis| **axis > 1).count()
}
