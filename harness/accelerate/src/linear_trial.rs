//! Finds out what a few nodes compute by running them: GELU, layer normalisation and similar functions come in many
//! spellings, but all of them compute the same numbers.
//!
//! A trial sets one outlet to trial values, runs the nodes that depend only on it and on constants with tract's own
//! ops, and compares the results with functions that have a kernel. In: the graph and an outlet. Out: the function, and
//! the outlet where it ends.

use std::collections::{HashMap, HashSet};

use espalier_kernels::elementwise::Activation;
use tract_onnx::{
    prelude::*,
    tract_core::ops::{
        binary::TypedBinOp, cast::Cast, change_axes::AxisOp, element_wise::ElementWiseOp, konst::Const, nn::Reduce,
    },
};

use crate::op::floats;

/// The most nodes of a trial. The longest spelling of a function has about fifteen.
const MOST_NODES: usize = 32;

/// Trial values for activations.
const POINTS: [f32; 12] = [-6.0, -2.5, -1.0, -0.5, -0.1, -0.01, 0.0, 0.02, 0.3, 1.0, 2.2, 5.0];

/// The constant at an outlet, also behind casts and changes of axes. `None` for large ones that would have to be
/// computed.
pub fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    constant_or_scaled(model, outlet, true)
}

fn constant_or_scaled(model: &TypedModel, outlet: OutletId, or_scaled: bool) -> Option<Arc<Tensor>> {
    const MOST_VALUES: usize = 1 << 20;
    let mut through: Vec<&TypedNode> = Vec::new();
    let mut at = outlet;
    let mut tensor = loop {
        let node = model.node(at.node);
        if let Some(konst) = &node.outputs[at.slot].fact.konst {
            break Arc::clone(konst);
        }
        if let Some(konst) = node.op_as::<Const>() {
            break Arc::clone(konst.val());
        }
        let passes = node.op_is::<Cast>() || node.op_is::<AxisOp>();
        if !passes || node.inputs.len() != 1 || through.len() >= MOST_NODES {
            if !or_scaled || !through.is_empty() {
                return None;
            }
            return scaled(model, node);
        }
        through.push(node);
        at = node.inputs[0];
    };
    if !through.is_empty() && tensor.len() > MOST_VALUES {
        return None;
    }
    for node in through.iter().rev() {
        let made = node.op.eval_out_of_plan(tvec!(tensor.into_tvalue())).ok()??;
        tensor = made.into_iter().next()?.into_arc_tensor();
    }
    Some(tensor)
}

/// A product of two constants, such as Gemm's beta and its bias.
fn scaled(model: &TypedModel, node: &TypedNode) -> Option<Arc<Tensor>> {
    node.op_as::<TypedBinOp>()?;
    let inputs = node.inputs.iter().map(|input| {
        let constant = constant_or_scaled(model, *input, false)?;
        (constant.len() <= 1 << 20).then(|| constant.into_tvalue())
    });
    let made = node.op.eval_out_of_plan(inputs.collect::<Option<TVec<TValue>>>()?).ok()??;
    Some(made.into_iter().next()?.into_arc_tensor())
}

/// The value of a constant with one element.
pub fn scalar(model: &TypedModel, outlet: OutletId) -> Option<f32> {
    let tensor = constant(model, outlet)?;
    if tensor.len() != 1 {
        return None;
    }
    let tensor = tensor.cast_to::<f32>().ok()?;
    let plain = tensor.try_as_plain_ram().ok()?;
    plain.as_slice::<f32>().ok()?.first().copied()
}

/// The nodes that depend only on one outlet and constants, with their results for the outlet's trial values.
pub struct Trial<'a> {
    model: &'a TypedModel,
    start: OutletId,
    values: HashMap<OutletId, TValue>,
    /// In the order in which they were run.
    nodes: Vec<usize>,
}

impl<'a> Trial<'a> {
    /// `values` have the rank of `start`.
    pub fn of(model: &'a TypedModel, start: OutletId, values: Tensor) -> Trial<'a> {
        let mut trial = Trial { model, start, values: HashMap::new(), nodes: Vec::new() };
        trial.values.insert(start, values.into_tvalue());
        let mut waiting = vec![start];
        while let Some(outlet) = waiting.pop() {
            for successor in model.outlet_successors(outlet) {
                if trial.nodes.len() < MOST_NODES
                    && !trial.nodes.contains(&successor.node)
                    && trial.run_node(successor.node)
                {
                    waiting.push(OutletId::new(successor.node, 0));
                }
            }
            if trial.nodes.len() >= MOST_NODES {
                break;
            }
        }
        trial
    }

    fn run_node(&mut self, id: usize) -> bool {
        let node = self.model.node(id);
        let known = node.op_is::<TypedBinOp>()
            || node.op_is::<ElementWiseOp>()
            || node.op_is::<Cast>()
            || node.op_is::<Reduce>();
        if !known || node.outputs.len() != 1 {
            return false;
        }
        let inputs = node.inputs.iter().map(|input| match self.values.get(input) {
            Some(value) => Some(value.clone()),
            None => constant(self.model, *input).map(IntoTValue::into_tvalue),
        });
        let Some(inputs) = inputs.collect::<Option<TVec<TValue>>>() else { return false };
        let Ok(Some(made)) = node.op.eval_out_of_plan(inputs) else { return false };
        let Some(made) = made.into_iter().next() else { return false };
        self.values.insert(OutletId::new(id, 0), made);
        self.nodes.push(id);
        true
    }

    /// All results, in the order in which the nodes were run.
    pub fn results(&self) -> impl Iterator<Item = (OutletId, Vec<f32>)> {
        self.nodes.iter().filter_map(|id| {
            let outlet = OutletId::new(*id, 0);
            Some((outlet, floats(self.values.get(&outlet)?)?))
        })
    }

    /// The nodes that `end` depends on, including itself. `None` where a node outside uses one of them, or, if
    /// `closed`, the start.
    pub fn inside(&self, end: OutletId, closed: bool) -> Option<HashSet<usize>> {
        let mut inside = HashSet::new();
        let mut waiting = vec![end.node];
        while let Some(id) = waiting.pop() {
            if self.nodes.contains(&id) && inside.insert(id) {
                let inputs = self.model.node(id).inputs.iter();
                waiting.extend(inputs.filter(|input| **input != self.start).map(|input| input.node));
            }
        }
        let within = |outlet: OutletId| {
            let used = self.model.outlet_successors(outlet).iter().all(|successor| inside.contains(&successor.node));
            used && !self.model.outputs.contains(&outlet)
        };
        let all = inside.iter().filter(|id| **id != end.node).all(|id| within(OutletId::new(*id, 0)));
        (all && (!closed || within(self.start))).then_some(inside)
    }

    /// The constants among the inputs of the nodes inside.
    pub fn constants(&self, inside: &HashSet<usize>) -> Vec<(usize, Arc<Tensor>)> {
        let nodes = self.nodes.iter().filter(|id| inside.contains(id));
        nodes
            .flat_map(|id| self.model.node(*id).inputs.iter().map(move |input| (*id, *input)))
            .filter(|(_, input)| !self.values.contains_key(input))
            .filter_map(|(id, input)| Some((id, constant(self.model, input)?)))
            .collect()
    }
}

/// The activation after `start`, if `start` has no other users, and the outlet where it ends.
pub fn activation(model: &TypedModel, start: OutletId) -> Option<(Activation, OutletId)> {
    const ALL: [Activation; 6] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Silu,
    ];
    let fact = model.outlet_fact(start).ok()?;
    if fact.datum_type != DatumType::F32 || fact.rank() == 0 {
        return None;
    }
    let mut shape = vec![1; fact.rank()];
    *shape.last_mut()? = POINTS.len();
    let trial = Trial::of(model, start, Tensor::from_shape(&shape, &POINTS).ok()?);
    trial.results().find_map(|(outlet, found)| {
        if found.len() != POINTS.len() || model.outlet_fact(outlet).ok()?.shape != fact.shape {
            return None;
        }
        let is = |activation: &Activation| {
            found.iter().zip(POINTS).all(|(found, x)| {
                let exact = activation.exact(f64::from(x));
                (f64::from(*found) - exact).abs() <= 2e-6 * exact.abs().max(1.0)
            })
        };
        let activation = ALL.into_iter().find(is)?;
        trial.inside(outlet, true)?;
        Some((activation, outlet))
    })
}
