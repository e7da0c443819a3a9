//! Puts our kernels into a model of tract, wherever they are faster on this board.
//!
//! In: a typed model, as it is in the ONNX file. Out: a decluttered model in which layers are our ops, and the choice
//! for each layer. A *pass* looks for one kind of layer. The kernel of a layer is chosen by a measurement ([`choice`])
//! with plain tract among the candidates, so that no layer becomes slower. Weights need not be in the graph: they may
//! be inputs that are read from a pack or a file when a pass asks for them ([`weights`]).
//!
//! There is one file for each family of layers: `conv`, `linear`, `recurrent`. They share [`context`], [`region`] and
//! [`op`].

#![warn(clippy::undocumented_unsafe_blocks)]

pub mod choice;
pub mod context;
pub mod op;
pub mod region;
pub mod weights;

mod attention;
mod conv;
mod conv_chain;
mod linear;
mod linear_ops;
mod linear_skip;
mod linear_trial;
mod linear_vectors;
mod normalise;
mod recurrent;

use std::{path::PathBuf, sync::Arc};

use espalier_kernels::threads::Threads;
use tract_onnx::{prelude::*, tract_core::internal::*};

pub use choice::{LayerChoice, Measured};
pub use context::Context;
pub use weights::{ReadWeight, Weight, Weights};

pub struct Options {
    pub threads: Arc<Threads>,
    /// Layers skip activations of at most this magnitude. `None`: they skip no activations.
    pub skip_below: Option<f32>,
    /// The processor's name and features. Choices are stored by it.
    pub cpu: String,
    /// The folder for stored choices. `None`: kernels are measured every time.
    pub cache: Option<PathBuf>,
    /// Whether stored choices are used as they are. Otherwise those that are not sure are measured again.
    pub keep_choices: bool,
    /// The weights that are inputs of the model.
    pub weights: Weights,
}

/// A change of one kind of layer. Passes run one after another, each on the whole graph.
pub enum Pass {
    /// Is called for one node after another, in order of evaluation, without nodes that a patch removed or added. An
    /// error is recorded, and the node stays as it is.
    Node(fn(&mut Context, &TypedModel, &TypedNode) -> TractResult<Option<TypedModelPatch>>),
    /// Changes the whole model. An error is an error of the model.
    Model(fn(&mut Context, &mut TypedModel) -> TractResult<()>),
}

/// They run on the graph as it is in the ONNX file, before tract's declutter: a convolution is one node (declutter
/// splits some), biases are behind casts that do nothing, a clip is a maximum and a minimum.
const PASSES: [&[Pass]; 3] = [conv::PASSES, linear::PASSES, recurrent::PASSES];

/// The decluttered model with our kernels, and the choice for each layer.
///
/// # Errors
/// Those of tract, and weights that cannot be read.
pub fn accelerate(mut model: TypedModel, options: Options) -> TractResult<(TypedModel, Vec<LayerChoice>)> {
    let mut context = Context::new(options);
    for pass in PASSES.into_iter().flatten() {
        pass.run(&mut context, &mut model)?;
    }
    context.weights.fill(&mut model)?;
    // Constants are propagated as if the weights had been in the graph from the beginning.
    model.prop_consts()?;
    model.declutter()?;
    model.compact()?;
    Ok((model, context.close()))
}

impl Pass {
    fn run(&self, context: &mut Context, model: &mut TypedModel) -> TractResult<()> {
        let look = match self {
            Pass::Node(look) => look,
            Pass::Model(change) => return change(context, model),
        };
        for id in model.eval_order()? {
            // A node that a patch removed has no outputs any more.
            if model.node(id).outputs.is_empty() {
                continue;
            }
            match look(context, model, model.node(id)) {
                Ok(None) => {}
                Ok(Some(patch)) => {
                    let name = model.node(id).name.clone();
                    patch.apply(model).with_context(|| format!("putting a kernel in the place of `{name}`"))?;
                }
                Err(error) => context.note(model.node(id), format!("{error:#}")),
            }
        }
        Ok(())
    }
}
