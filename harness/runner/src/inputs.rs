//! The inputs of a model: the samples of a prepared tensor file, or synthetic ones, the same every time.

use anyhow::{Context, Result, bail, ensure};
use espalier_kernels::random::XorShift;
use espalier_protocol::{
    Job,
    tensor::{self, DType},
};
use tract_onnx::prelude::*;

/// Samples for every input of the model, in the model's order; the first axis counts samples.
pub struct Samples {
    inputs: Vec<Tensor>,
    pub count: usize,
    /// Samples of one inference: 1, unless the model fixes its batch and the inputs are synthetic.
    pub batch: usize,
}

/// One input of the model as its file declares it.
pub struct Declared {
    pub name: String,
    pub dtype: DatumType,
    /// `None` for an open dimension.
    pub shape: Vec<Option<usize>>,
}

impl Samples {
    pub fn prepare(job: &Job, declared: &[Declared]) -> Result<Samples> {
        match &job.inputs {
            Some(path) => {
                let file = std::fs::read(path).with_context(|| format!("cannot read the inputs `{path}`"))?;
                let tensors = tensor::decode(&file)
                    .map_err(|error| anyhow::anyhow!("the inputs `{path}` are damaged: {error}"))?;
                from_file(tensors, declared)
            }
            None => synthetic(job, declared),
        }
    }

    /// The shapes of one inference.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.inputs.iter().map(|input| [&[self.batch], &input.shape()[1..]].concat()).collect()
    }

    pub fn dtypes(&self) -> Vec<DatumType> {
        self.inputs.iter().map(Tensor::datum_type).collect()
    }

    /// The inputs of the `index`-th run. After the last sample comes the first one again.
    pub fn get(&self, index: usize) -> Result<TVec<TValue>> {
        let start = (index * self.batch) % self.count;
        self.inputs.iter().map(|input| Ok(input.slice(0, start, start + self.batch)?.into_tvalue())).collect()
    }
}

fn from_file(mut tensors: Vec<tensor::Tensor>, declared: &[Declared]) -> Result<Samples> {
    let mut inputs = Vec::new();
    for (index, input) in declared.iter().enumerate() {
        let position = tensors
            .iter()
            .position(|tensor| tensor.header.name == input.name || (index == 0 && tensor.header.name == "x"))
            .with_context(|| format!("the inputs have no `{}`, which the model needs", input.name))?;
        inputs.push(to_tract(tensors.swap_remove(position), input)?);
    }
    if let Some(extra) = tensors.first() {
        bail!("the inputs hold `{}`, which the model does not take", extra.header.name);
    }
    let count = inputs.first().context("the model has no inputs")?.shape()[0];
    ensure!(count > 0, "the inputs hold no samples");
    ensure!(inputs.iter().all(|input| input.shape()[0] == count), "the inputs differ in their number of samples");
    Ok(Samples { inputs, count, batch: 1 })
}

fn to_tract(tensor: tensor::Tensor, input: &Declared) -> Result<Tensor> {
    let shape: Vec<usize> = tensor.header.shape.iter().map(|axis| *axis as usize).collect();
    let takes = || describe(&input.shape);
    let fits = shape.len() == input.shape.len()
        && input.shape.iter().zip(&shape).skip(1).all(|(declared, given)| declared.is_none_or(|axis| axis == *given));
    ensure!(fits, "input `{}` takes {}, the samples have the shape {shape:?}", input.name, takes());
    if let Some(Some(batch)) = input.shape.first() {
        ensure!(
            *batch == 1,
            "input `{}` takes {}: a fixed batch of {batch}; samples go in one by one, so export the model with a free \
             or single batch",
            input.name,
            takes()
        );
    }
    let dtype = match tensor.header.dtype {
        DType::F32 => DatumType::F32,
        DType::I64 => DatumType::I64,
    };
    // SAFETY: both types are plain numbers, for which all bytes are valid; `tensor::decode` checked the length against
    // the shape.
    let raw = unsafe { Tensor::from_raw_dt(dtype, &shape, &tensor.bytes)? };
    let cast =
        raw.cast_to_dt(input.dtype).with_context(|| format!("input `{}` takes {:?}", input.name, input.dtype))?;
    Ok(cast.into_owned())
}

fn synthetic(job: &Job, declared: &[Declared]) -> Result<Samples> {
    let mut given = job.shapes.iter().map(|text| parse_shape(text)).collect::<Result<Vec<_>>>()?;
    let mut inputs = Vec::new();
    let mut random = XorShift::new(1);
    for input in declared {
        let shape = match given.iter().position(|(name, _)| *name == input.name) {
            Some(position) => given.swap_remove(position).1,
            None => closed(input)?,
        };
        let count = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let count = count.filter(|count| *count <= 1 << 30).context("that many inputs do not fit into memory")?;
        // Real numbers are in [0, 1). Integers are 0 or 1, which are tokens of any vocabulary and values of any mask.
        let values: Vec<f32> = (0..count)
            .map(|_| {
                let value = random.unit();
                if input.dtype.is_float() { value } else { value.round() }
            })
            .collect();
        inputs.push(Tensor::from_shape(&shape, &values)?.cast_to_dt(input.dtype)?.into_owned());
    }
    if let Some((name, _)) = given.first() {
        bail!("there is no input `{name}` to give a shape");
    }
    let batch = inputs.first().context("the model has no inputs")?.shape().first().copied().unwrap_or(1);
    ensure!(batch > 0, "a batch of no samples cannot be run");
    Ok(Samples { inputs, count: batch, batch })
}

/// The declared shape, with a batch of one for an open first axis.
fn closed(input: &Declared) -> Result<Vec<usize>> {
    let close = |(index, axis): (usize, &Option<usize>)| {
        axis.or((index == 0).then_some(1)).with_context(|| {
            format!(
                "input `{}` takes {}: say what the open dimensions are, e.g. `--shape {}={}`",
                input.name,
                describe(&input.shape),
                input.name,
                input.shape.iter().map(|axis| axis.unwrap_or(1).to_string()).collect::<Vec<_>>().join("x")
            )
        })
    };
    input.shape.iter().enumerate().map(close).collect()
}

fn parse_shape(text: &str) -> Result<(String, Vec<usize>)> {
    let parse = || {
        let (name, axes) = text.rsplit_once('=')?;
        let axes: Option<Vec<usize>> = axes.split('x').map(|axis| axis.parse().ok().filter(|axis| *axis > 0)).collect();
        Some((name.to_owned(), axes?))
    };
    parse().with_context(|| format!("`{text}` is not a shape: write `NAME=1x128`"))
}

fn describe(shape: &[Option<usize>]) -> String {
    let axes: Vec<String> = shape.iter().map(|axis| axis.map_or("?".into(), |axis| axis.to_string())).collect();
    format!("[{}]", axes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Declared {
        Declared { name: "input".into(), dtype: DatumType::F32, shape: vec![None, Some(1), Some(2), Some(2)] }
    }

    fn file(name: &str, shape: &[u64]) -> Vec<tensor::Tensor> {
        let count: u64 = shape.iter().product();
        let bytes = (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect();
        vec![tensor::Tensor {
            header: tensor::TensorHeader { name: name.into(), dtype: DType::F32, shape: shape.into() },
            bytes,
        }]
    }

    #[test]
    fn samples_go_in_one_by_one_and_round() {
        let samples = from_file(file("x", &[3, 1, 2, 2]), &[image()]).unwrap();
        assert_eq!((samples.count, samples.shapes()), (3, vec![vec![1, 1, 2, 2]]));
        let first = |index| {
            let input = samples.get(index).unwrap().remove(0);
            input.to_plain_array_view::<f32>().unwrap()[[0, 0, 0, 0]]
        };
        assert_eq!([first(0), first(1), first(2), first(3)], [0.0, 4.0, 8.0, 0.0]);
    }

    #[test]
    fn an_error_has_both_shapes() {
        let error = from_file(file("x", &[3, 3, 2, 2]), &[image()]).err().unwrap().to_string();
        assert_eq!(error, "input `input` takes [?, 1, 2, 2], the samples have the shape [3, 3, 2, 2]");
        let error = from_file(file("y", &[3, 1, 2, 2]), &[image()]).err().unwrap().to_string();
        assert_eq!(error, "the inputs have no `input`, which the model needs");
    }

    #[test]
    fn open_dimensions_must_be_given() {
        let ids = || Declared { name: "ids".into(), dtype: DatumType::I64, shape: vec![None, None] };
        let job = |shapes: &[&str]| {
            let args = ["time", "--model", "m.onnx"].map(str::to_owned).to_vec();
            let mut job = Job::from_args(&args).unwrap();
            job.shapes = shapes.iter().map(|shape| (*shape).to_owned()).collect();
            job
        };
        let error = synthetic(&job(&[]), &[ids()]).err().unwrap().to_string();
        assert_eq!(error, "input `ids` takes [?, ?]: say what the open dimensions are, e.g. `--shape ids=1x1`");
        assert_eq!(synthetic(&job(&["ids=1x16"]), &[ids()]).unwrap().shapes(), vec![vec![1, 16]]);
        let error = synthetic(&job(&["ids=1x16", "mask=1x16"]), &[ids()]).err().unwrap().to_string();
        assert_eq!(error, "there is no input `mask` to give a shape");
    }
}
