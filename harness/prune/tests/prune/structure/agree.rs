//! Runs two models on the same synthetic inputs and compares the outputs.

use espalier_engine::{Array, Keep, Network, Tensor};
use espalier_prune::{
    Bytes, PruneError, Pruned, Recipe,
    onnx::{Model, tensor_shape_proto::dimension, type_proto},
    structure::{self, Options},
};

/// The largest difference of all outputs, relative to the largest value of the first model's.
pub fn difference(first: &Bytes, second: &Bytes) -> Result<f32, PruneError> {
    difference_at(first, second, 2, 6)
}

/// Likewise, for inputs of this batch and, along other open axes, of this length.
pub fn difference_at(first: &Bytes, second: &Bytes, batch: usize, length: usize) -> Result<f32, PruneError> {
    let (first, second) = (outputs(first, batch, length)?, outputs(second, batch, length)?);
    assert_eq!(first.len(), second.len());
    let (mut largest, mut difference) = (0.0f32, 0.0f32);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a.data().iter().zip(b.data()) {
            largest = largest.max(a.abs());
            difference = difference.max((a - b).abs());
        }
    }
    Ok(if difference == 0.0 { 0.0 } else { difference / largest })
}

fn outputs(model: &Bytes, batch: usize, length: usize) -> Result<Vec<Array<f32>>, PruneError> {
    let model = Model::decode(model)?;
    let network = Network::new(&model)?;
    let mut feeds = Vec::new();
    for id in &network.inputs {
        let input = model.graph().input.iter().find(|input| input.name() == network.name(*id)).unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = &input.r#type.as_ref().unwrap().value else { panic!() };
        let shape: Vec<usize> = tensor
            .shape
            .as_ref()
            .unwrap()
            .dim
            .iter()
            .map(|dim| match &dim.value {
                Some(dimension::Value::DimValue(len)) => *len as usize,
                Some(dimension::Value::DimParam(name)) if name == "N" => batch,
                _ => length,
            })
            .collect();
        let len: usize = shape.iter().product();
        feeds.push(if tensor.elem_type() == 1 {
            Tensor::F32(Array::new(shape, (0..len).map(|index| (index as f32 * 0.7).sin()).collect()))
        } else {
            Tensor::I64(Array::new(shape, (0..len).map(|index| (index % 2) as i64).collect()))
        });
    }
    let run = network.run(&feeds, Keep::Outputs)?;
    Ok(network.outputs.iter().map(|output| run.value(*output).unwrap().f32().unwrap().clone()).collect())
}

/// Prunes, and compares with the masked model.
#[track_caller]
pub fn check(name: &str, dense: &Bytes, recipe: &Recipe, options: &Options) -> Pruned {
    let pruned = structure::prune(dense, recipe, None, options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut plan = structure::plan(Model::decode(dense).unwrap(), recipe, None, options).unwrap();
    let masked = plan.masked().unwrap();
    let (same, other) = (difference(&masked, &pruned.bytes).unwrap(), difference(dense, &pruned.bytes).unwrap());
    assert!(same <= 1e-5, "{name}: {same} off");
    assert!(other > 1e-4, "{name}: nothing was removed that matters ({other})");
    pruned
}
