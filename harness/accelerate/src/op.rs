//! Our ops for tract: a type implements [`Layer`], and [`LayerOp`] makes it an op of tract.

use std::{fmt, ops::Deref, sync::Arc};

use tract_onnx::{prelude::*, tract_core::internal::*};

/// What one of our ops has to implement. Ops are cloned and compared often, so what is large goes into [`Shared`].
pub trait Layer: Clone + fmt::Debug + PartialEq + Eq + Send + Sync + 'static {
    /// What it computes, e.g. `conv 3x3`.
    fn op(&self) -> String;

    /// The name of its kernel, as in [`crate::choice::Candidate`].
    fn kernel(&self) -> String;

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>>;

    /// Inputs have the facts given before, are contiguous, and may be shared with other ops.
    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>>;

    /// Multiply-accumulates of one call.
    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        Ok(tvec!())
    }
}

/// The names of our ops begin with this, followed by [`Layer::op`].
pub const PREFIX: &str = "Espalier ";

/// A tensor of f32, to be filled.
pub fn blank(shape: &[usize]) -> TractResult<Tensor> {
    // SAFETY: every bit pattern is a number, and our ops write all values before they return the tensor.
    unsafe { Tensor::uninitialized::<f32>(shape) }
}

/// The values of a tensor of f32.
pub fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    (tensor.datum_type() == DatumType::F32).then_some(())?;
    let plain = tensor.try_as_plain_ram().ok()?;
    Some(plain.as_slice::<f32>().ok()?.to_vec())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOp<L>(pub L);

impl<L: Layer> LayerOp<L> {
    pub fn boxed(layer: L) -> Box<dyn TypedOp> {
        Box::new(LayerOp(layer))
    }
}

impl<L: Layer> Op for LayerOp<L> {
    fn name(&self) -> StaticName {
        format!("{PREFIX}{}", self.0.op()).into()
    }

    /// The name of the kernel.
    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![self.0.kernel()])
    }

    op_as_typed_op!();
}

impl<L: Layer> EvalOp for LayerOp<L> {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.run(inputs)
    }
}

impl<L: Layer> TypedOp for LayerOp<L> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        self.0.cost(inputs)
    }

    as_op!();
}

/// The name of a node's kernel: `tract` for an op that is not ours.
pub fn kernel(op: &dyn Op) -> String {
    let own = op.name().starts_with(PREFIX).then(|| op.info().ok()).flatten();
    own.and_then(|info| info.into_iter().next()).unwrap_or_else(|| "tract".to_owned())
}

/// Something large that ops share. It is compared by address and not printed.
pub struct Shared<T: ?Sized>(pub Arc<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: ?Sized> Eq for Shared<T> {}

impl<T: ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}", Arc::as_ptr(&self.0))
    }
}
