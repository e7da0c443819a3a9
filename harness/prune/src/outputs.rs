//! A model's outputs as they are for one sample: names, types, shapes, and whether their values are probabilities.
//!
//! Where the file leaves a dimension open, one run of the engine on a sample says how long it is. An output whose shape
//! stays unknown has none.

use espalier_engine::{Keep, Network};

use crate::{
    Bytes, PruneError, Samples,
    inspect::port,
    onnx::{Axis, Model},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFacts {
    pub name: String,
    /// As NumPy calls it, e.g. `float32`.
    pub dtype: &'static str,
    /// With the batch, which is 1.
    pub shape: Option<Vec<u64>>,
    pub sigmoid: bool,
    pub softmax: bool,
}

/// # Errors
/// A file that is no model. What the engine refuses is no error: the shapes stay unknown.
pub fn outputs(model: &Bytes, sample: Option<&Samples>) -> Result<Vec<OutputFacts>, PruneError> {
    let model = Model::decode(model)?;
    let graph = model.graph();
    let declared = |axes: &[Axis]| -> Option<Vec<u64>> {
        let closed = |(index, axis): (usize, &Axis)| axis.fixed().map(|len| len as u64).or((index == 0).then_some(1));
        axes.iter().enumerate().map(closed).collect()
    };
    let mut facts: Vec<OutputFacts> = graph
        .output
        .iter()
        .map(|info| {
            let port = port(info);
            let made_by = |operators: &[&str]| is_made_by(&model, &port.name, operators);
            OutputFacts {
                shape: port.axes.as_deref().and_then(declared),
                sigmoid: made_by(&["Sigmoid", "HardSigmoid"]),
                softmax: made_by(&["Softmax"]),
                name: port.name,
                dtype: port.dtype,
            }
        })
        .collect();
    let is_known = |facts: &OutputFacts| facts.shape.is_some() && facts.dtype != "unknown";
    if let Some(sample) = sample.filter(|_| !facts.iter().all(is_known)) {
        let found = shapes(&model, sample).unwrap_or_default();
        for (facts, found) in facts.iter_mut().zip(found) {
            let known = facts.shape.take();
            facts.shape = found.or(known);
        }
    }
    Ok(facts)
}

/// The engine's shapes of a run on the first sample.
fn shapes(model: &Model, samples: &Samples) -> Result<Vec<Option<Vec<u64>>>, PruneError> {
    let network = Network::new(model)?;
    let run = network.run(&samples.take(&[0]).inputs, Keep::Outputs)?;
    let shape = |id| run.value(id).map(|value| value.shape().iter().map(|len| *len as u64).collect());
    Ok(network.outputs.iter().map(|id| shape(*id)).collect())
}

/// Whether an output comes from one of the operators, looking through those that only move or select values.
fn is_made_by(model: &Model, output: &str, operators: &[&str]) -> bool {
    const MOVES: [&str; 11] = [
        "Identity",
        "Flatten",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Cast",
        "Dropout",
        "Transpose",
        "Slice",
        "Gather",
        "Concat",
    ];
    let mut name = output.to_owned();
    let nodes = &model.graph().node;
    // Each node is passed at most once.
    for _ in 0..=nodes.len() {
        let Some(node) = nodes.iter().find(|node| node.output.contains(&name)) else { return false };
        if operators.contains(&node.op_type()) {
            return true;
        }
        match node.input.first().filter(|_| MOVES.contains(&node.op_type())) {
            Some(input) => name.clone_from(input),
            None => return false,
        }
    }
    false
}
