//! Ops of ours as tract wants them: write [`Layer`] for a type, and [`LayerOp`] is the op.

use std::{fmt, ops::Deref, sync::Arc};

use tract_onnx::{prelude::*, tract_core::internal::*};

/// What an op of ours has to say. It is cloned often and compared with others, so what is large goes into [`Shared`]; derive the rest.
pub trait Layer: Clone + fmt::Debug + PartialEq + Eq + Send + Sync + 'static {
    /// What it computes, e.g. `conv 3x3`.
    fn op(&self) -> String;

    /// The kernel that does, as [`crate::choice::Candidate`] calls it.
    fn kernel(&self) -> String;

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>>;

    /// Inputs are what the facts said, contiguous, and may be shared with others.
    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>>;

    /// Multiply-accumulates of one call, for who wants to know.
    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        Ok(tvec!())
    }
}

/// All ops of ours begin with this; what follows is [`Layer::op`].
pub const PREFIX: &str = "Espalier ";

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

    /// The kernel, and nothing else.
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

/// The kernel of a node, by what its op says: that of ours, or `tract`.
pub fn kernel(op: &dyn Op) -> String {
    let of_ours = op.name().starts_with(PREFIX).then(|| op.info().ok()).flatten();
    of_ours.and_then(|info| info.into_iter().next()).unwrap_or_else(|| "tract".to_owned())
}

/// Something large that ops hold together: the same only if it is the very same, and not printed.
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
