//! Samples for importance and fine-tuning. Where they come from is up to the caller.

pub use espalier_engine::{Array, Tensor};

/// `inputs` are those of the network, in its order; the first axis of each counts samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub inputs: Vec<Tensor>,
    /// The class of each sample, where known.
    pub labels: Option<Vec<usize>>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those at `indices`, in that order.
    ///
    /// # Panics
    /// Where there is no such sample.
    pub fn take(&self, indices: &[usize]) -> Samples {
        Samples {
            inputs: self.inputs.iter().map(|input| rows(input, indices)).collect(),
            labels: self.labels.as_ref().map(|labels| indices.iter().map(|index| labels[*index]).collect()),
        }
    }

    /// All in order, `size` at a time; the last ones may be fewer.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = Samples> {
        let all: Vec<usize> = (0..self.len()).collect();
        all.chunks(size.max(1)).map(|part| self.take(part)).collect::<Vec<_>>().into_iter()
    }
}

fn rows(tensor: &Tensor, indices: &[usize]) -> Tensor {
    match tensor {
        Tensor::F32(array) => Tensor::F32(rows_of(array, indices)),
        Tensor::I64(array) => Tensor::I64(rows_of(array, indices)),
        Tensor::Bool(array) => Tensor::Bool(rows_of(array, indices)),
    }
}

fn rows_of<T: Copy>(array: &Array<T>, indices: &[usize]) -> Array<T> {
    let width: usize = array.shape()[1..].iter().product();
    let data = indices.iter().flat_map(|index| &array.data()[index * width..(index + 1) * width]).copied().collect();
    let shape: Vec<usize> = [indices.len()].into_iter().chain(array.shape()[1..].iter().copied()).collect();
    Array::new(shape, data)
}
