//! A model's inputs and outputs, and what of it can be pruned.

use espalier_onnx::Bytes;

use crate::{
    PruneError, macs,
    manifest::PrunedTensor,
    onnx::{Axis, Model, ValueInfoProto},
    prunable::{Untouched, survey},
    tensor::{Values, dtype_name},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    pub ir_version: i64,
    /// Operator sets by domain; the standard one is `""`.
    pub opsets: Vec<(String, i64)>,
    pub producer: String,
    /// What has to be fed: the graph's inputs without those an initialiser gives a value.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// All parameters, prunable or not.
    pub parameters: u64,
    /// Single weights that could be removed.
    pub prunable: u64,
    /// `removed` is 0.
    pub tensors: Vec<PrunedTensor>,
    /// Multiply-accumulates of one sample, by tensor of `tensors`: of all weights, and of those that are not zero.
    /// `None` where the file does not give shapes.
    pub macs: Option<Vec<(u64, u64)>>,
    pub untouched: Vec<Untouched>,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    /// As NumPy calls it, e.g. `float32`, `int64`; `unknown` for what is not a tensor.
    pub dtype: &'static str,
    /// `None` where the file does not say how many axes there are.
    pub axes: Option<Vec<Axis>>,
}

/// # Errors
/// Those of reading the model: see [`PruneError`].
pub fn inspect(model: &Bytes) -> Result<Inspection, PruneError> {
    let model = Model::decode(model)?;
    let graph = model.graph();
    let survey = survey(&model)?;
    let mut tensors = Vec::new();
    for weight in &survey.weights {
        let values = Values::of(&weight.name, weight.place.tensor(graph))?;
        tensors.push(PrunedTensor {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
            weights: weight.count,
            removed: 0,
            zeros: values.zeros(),
            units: weight.count,
            removed_units: 0,
        });
    }
    let by_tensor = |uses: Vec<u64>| -> Vec<(u64, u64)> {
        let counts = tensors.iter().zip(uses);
        let of = |(tensor, uses): (&PrunedTensor, u64)| {
            (tensor.weights.saturating_mul(uses), (tensor.weights - tensor.zeros).saturating_mul(uses))
        };
        counts.map(of).collect()
    };
    let macs = macs::uses(&model, &survey, None).map(by_tensor);
    Ok(Inspection {
        ir_version: model.proto.ir_version(),
        opsets: model.proto.opset_import.iter().map(|set| (set.domain().to_owned(), set.version())).collect(),
        producer: model.proto.producer_name().to_owned(),
        inputs: graph.fed().map(port).collect(),
        outputs: graph.output.iter().map(port).collect(),
        parameters: survey.parameters(),
        prunable: survey.prunable(),
        macs,
        tensors,
        untouched: survey.untouched,
    })
}

pub(crate) fn port(info: &ValueInfoProto) -> Port {
    let dtype = info.tensor_type().map_or("unknown", |tensor| dtype_name(tensor.elem_type()));
    Port { name: info.name().to_owned(), dtype, axes: info.axes() }
}
