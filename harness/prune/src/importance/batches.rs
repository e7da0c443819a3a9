//! Samples cut into what the network is fed at a time, held against what the file says of its inputs first.

use espalier_engine::{Network, Tensor};

use crate::{
    PruneError, Samples,
    onnx::{Model, ValueInfoProto},
    probe,
    tensor::dtype_name,
};

pub struct Batches<'a> {
    samples: &'a Samples,
    size: usize,
    count: usize,
    /// The file wants just that many samples.
    fixed: Option<usize>,
}

impl<'a> Batches<'a> {
    /// Of `size` samples, the last one of what is left; or of as many as the file fixes, and what is left over is left out.
    ///
    /// # Errors
    /// [`PruneError::Samples`]: none at all, or not of the network's number, types and shapes.
    pub fn new(
        model: &Model,
        network: &Network,
        samples: Option<&'a Samples>,
        size: usize,
    ) -> Result<Batches<'a>, PruneError> {
        let refused = |why: String| PruneError::Samples { why };
        let samples = samples.filter(|samples| !samples.is_empty()).ok_or_else(|| refused("there are none".into()))?;
        let (wanted, given) = (network.inputs.len(), samples.inputs.len());
        if wanted != given {
            return Err(refused(format!("the model has {wanted} inputs, the samples {given}")));
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
            let Some(declared) = model.graph().input.iter().find(|info| info.name() == name).and_then(Declared::of)
            else {
                continue;
            };
            declared.check(name, tensor).map_err(refused)?;
            fixed = fixed.or(declared.axes.first().copied().flatten());
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

    /// How many samples are looked at.
    pub fn samples(&self) -> usize {
        self.samples.len().min(self.count * self.size)
    }

    fn indices(&self, batch: usize) -> Vec<usize> {
        (batch * self.size..self.samples.len().min((batch + 1) * self.size)).collect()
    }

    /// Whether less than a batch can be run.
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

/// What the file says of an input.
struct Declared {
    dtype: &'static str,
    /// `None` for an axis of any length.
    axes: Vec<Option<usize>>,
}

impl Declared {
    fn of(info: &ValueInfoProto) -> Option<Declared> {
        let (dtype, axes) = probe::declared(info)?;
        Some(Declared { dtype: dtype_name(dtype), axes })
    }

    fn check(&self, name: &str, given: &Tensor) -> Result<(), String> {
        let kind = match self.dtype {
            "float16" | "float32" | "float64" | "bfloat16" => "float",
            "bool" => "boolean",
            _ => "integer",
        };
        if given.kind() != kind {
            return Err(format!("input `{name}` is of type {}, they are {} ones", self.dtype, given.kind()));
        }
        // How many there are is nobody's shape.
        let (wanted, shape) = (&self.axes, given.shape());
        let fits = wanted.len() == shape.len()
            && wanted.iter().zip(shape).skip(1).all(|(wanted, length)| wanted.is_none_or(|wanted| wanted == *length));
        if fits {
            return Ok(());
        }
        let axes = wanted.iter().skip(1).map(|axis| axis.map_or("?".to_owned(), |axis| axis.to_string()));
        let wanted: Vec<String> = std::iter::once("N".to_owned()).chain(axes).collect();
        Err(format!("input `{name}` takes shape [{}], they are of shape {shape:?}", wanted.join(", ")))
    }
}
