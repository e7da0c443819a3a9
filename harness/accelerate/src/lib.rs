//! Puts our kernels into a model of tract's, wherever they are faster on this board.
//!
//! A typed model goes in, as the ONNX file has it, and a decluttered one comes out, in which layers are ops of ours, and with it what was chosen for
//! each. A *pass* looks for one kind of layer; which kernel a layer gets is measured ([`choice`]), with plain tract among the candidates, so that nothing
//! becomes slower. Weights do not have to be in the graph: they may stand there as inputs and be read from a pack or a file when a pass asks ([`weights`]).
//!
//! One file a family of layers: `conv`, `linear`, `recurrent`. What they share is [`context`], [`region`] and [`op`].

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

pub use choice::{Chosen, Measured};
pub use context::Context;
pub use weights::{Stored, Weight, Weights};

pub struct Options {
    pub threads: Arc<Threads>,
    /// Activations of at most this magnitude count as zero, and layers look for such; without it they do not.
    pub skip_below: Option<f32>,
    /// The processor in words, as the board tells it: choices are kept for it.
    pub cpu: String,
    /// Folder where choices are kept; without it they are measured every time.
    pub cache: Option<PathBuf>,
    /// What stands in the model as inputs and is none.
    pub weights: Weights,
}

/// One kind of layer and what to do with it. Passes are carried out in the order of the lists below, each on the whole graph.
pub enum Pass {
    /// Looks at one node after the other, in the order they are carried out; those a patch has done away with are left out, those it has brought too. An
    /// error is noted and leaves that node as it is.
    Node(fn(&mut Context, &TypedModel, &TypedNode) -> TractResult<Option<TypedModelPatch>>),
    /// Does as it likes. An error is the model's.
    Model(fn(&mut Context, &mut TypedModel) -> TractResult<()>),
}

/// On the graph as the ONNX file has it: a convolution is one node yet (tract's declutter makes several of some), biases are behind casts that do nothing,
/// a clip is a maximum and a minimum.
const TYPED: [&[Pass]; 3] = [conv::TYPED, linear::TYPED, recurrent::TYPED];

/// After tract's declutter, with all weights in the graph that nobody took: the bodies of scans are in their final form.
const DECLUTTERED: [&[Pass]; 3] = [conv::DECLUTTERED, linear::DECLUTTERED, recurrent::DECLUTTERED];

/// The decluttered model with our kernels, and what was chosen.
///
/// # Errors
/// Those of tract, and weights that cannot be read.
pub fn accelerate(mut model: TypedModel, options: Options) -> TractResult<(TypedModel, Vec<Chosen>)> {
    let mut context = Context::new(options);
    for pass in TYPED.into_iter().flatten() {
        pass.carry_out(&mut context, &mut model)?;
    }
    context.weights.fill(&mut model)?;
    // What is made of constants alone becomes one before anything else is made of it, as if they had been there from the beginning.
    model.prop_consts()?;
    model.declutter()?;
    for pass in DECLUTTERED.into_iter().flatten() {
        pass.carry_out(&mut context, &mut model)?;
    }
    model.compact()?;
    Ok((model, context.close()))
}

impl Pass {
    fn carry_out(&self, context: &mut Context, model: &mut TypedModel) -> TractResult<()> {
        let look = match self {
            Pass::Node(look) => look,
            Pass::Model(change) => return change(context, model),
        };
        for id in model.eval_order()? {
            // What a patch did away with has no outputs any more.
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
