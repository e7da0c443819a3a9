//! Samples cut into batches, checked against what the file says of its inputs.

use espalier_engine::{Network, Tensor};

use crate::{
    PruneError, Samples,
    onnx::{Axis, Model, ValueInfoProto},
    tensor::dtype_name,
};

pub struct Batches<'a> {
    samples: &'a Samples,
    size: usize,
    count: usize,
    /// The number of samples in a run, where the file fixes it.
    fixed: Option<usize>,
}

impl<'a> Batches<'a> {
    /// Batches of `size` samples, the last one of what is left; or of as many as the file fixes, without what is left.
    ///
    /// # Errors
    /// [`PruneError::Samples`]: none, or not of the number, types and shapes of the network's inputs.
    pub fn new(
        model: &Model,
        network: &Network,
        samples: Option<&'a Samples>,
        size: usize,
    ) -> Result<Batches<'a>, PruneError> {
        let refused = |why: String| PruneError::Samples { why };
        let samples = samples.filter(|samples| !samples.is_empty()).ok_or_else(|| refused("there are none".into()))?;
        let (required, given) = (network.inputs.len(), samples.inputs.len());
        if required != given {
            return Err(refused(format!("the model has {required} inputs, the samples {given}")));
        }
        let mut fixed = None;
        for (input, tensor) in network.inputs.iter().zip(&samples.inputs) {
            let name = network.name(*input);
            if tensor.shape().first() != Some(&samples.len()) {
                return Err(refused(format!(
                    "those for `{name}` are of shape {:?}, the first input has {}",
                    tensor.shape(),
                    samples.len()
                )));
            }
            if let Some(info) = model.graph().input.iter().find(|info| info.name() == name) {
                check(info, tensor).map_err(refused)?;
                fixed = fixed.or(info.axes().and_then(|axes| axes.first()?.fixed()));
            }
        }
        if let Some(labels) = &samples.labels
            && labels.len() != samples.len()
        {
            return Err(refused(format!("{} samples have {} labels", samples.len(), labels.len())));
        }
        let count = match fixed {
            Some(fixed) if fixed > samples.len() => {
                return Err(refused(format!("the model takes {fixed} at a time, there are {}", samples.len())));
            }
            Some(fixed) => samples.len() / fixed,
            None => samples.len().div_ceil(size.max(1)),
        };
        Ok(Batches { samples, size: fixed.unwrap_or(size.max(1)), count, fixed })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// How many samples all batches have.
    pub fn samples(&self) -> usize {
        self.samples.len().min(self.count * self.size)
    }

    fn indices(&self, batch: usize) -> Vec<usize> {
        (batch * self.size..self.samples.len().min((batch + 1) * self.size)).collect()
    }

    /// Whether part of a batch can be run.
    pub fn may_be_split(&self) -> bool {
        self.fixed.is_none()
    }

    pub fn batch(&self, batch: usize) -> Samples {
        self.samples.take(&self.indices(batch))
    }

    /// As few samples as can be run.
    pub fn smallest(&self) -> Vec<Tensor> {
        let few: Vec<usize> = (0..self.fixed.unwrap_or(1)).collect();
        self.samples.take(&few).inputs
    }
}

/// Checks samples against what the file says of their input, apart from how many there are.
fn check(info: &ValueInfoProto, given: &Tensor) -> Result<(), String> {
    let (Some(tensor), Some(axes)) = (info.tensor_type(), info.axes()) else { return Ok(()) };
    let (name, dtype) = (info.name(), dtype_name(tensor.elem_type()));
    let kind = match dtype {
        "float16" | "float32" | "float64" | "bfloat16" => "float",
        "bool" => "boolean",
        _ => "integer",
    };
    if given.kind() != kind {
        return Err(format!("input `{name}` is of type {dtype}, they are {} ones", given.kind()));
    }
    let axes: Vec<Option<usize>> = axes.iter().map(Axis::fixed).collect();
    let shape = given.shape();
    let fits = |(axis, length): (&Option<usize>, &usize)| axis.is_none_or(|axis| axis == *length);
    if axes.len() == shape.len() && axes.iter().zip(shape).skip(1).all(fits) {
        return Ok(());
    }
    let lengths = axes.iter().skip(1).map(|axis| axis.map_or("?".to_owned(), |axis| axis.to_string()));
    let lengths: Vec<String> = std::iter::once("N".to_owned()).chain(lengths).collect();
    Err(format!("input `{name}` takes shape [{}], they are of shape {shape:?}", lengths.join(", ")))
}
