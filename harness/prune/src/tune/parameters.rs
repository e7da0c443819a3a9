//! Which constants of a network are parameters: by role, as with pruning. A float32 constant is a parameter if every
//! input it is used as is one that layers learn: weights, biases, scales and shifts of normalisations, embeddings.
//! Scalars (a square root of two, an epsilon), clip bounds and masks are not, nor are the running statistics of a
//! BatchNormalization, which stay unchanged.

use std::collections::HashMap;

use espalier_engine::{Array, Network, Node, ValueId};

use crate::onnx::{Model, tensor_proto::DataType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub id: ValueId,
    /// Weight decay applies to matrices and kernels, not to vectors.
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
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name()).collect();
    let floats = initializers.chain(constants).filter(|(_, kind)| *kind == DataType::Float as i32);
    floats
        .filter_map(|(name, _)| {
            let id = network.find(name)?;
            let values = network.constant(id)?.f32().ok()?;
            let learned = !outputs.contains(&name) && is_learned(id, &users, network, values, DEPTH);
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
    // Minus infinity is never learned: it makes a mask.
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
        // The scale of a normalisation that an exporter wrote out; a matrix would rather be a mask.
        ("Mul", _) => is_vector && is_small && meets_a_variable(node, *slot, network),
        // Between the constant and its layer: gradients pass through all of these.
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
