//! A part of the graph that one of our ops may replace, with its inputs and outputs.

use tract_onnx::{
    prelude::*,
    tract_core::{internal::*, ops::konst::Const, plan::SimpleState},
};

use crate::weights::Weights;

/// tract's name has the parameters of the plan.
pub type State = SimpleState<TypedFact, Box<dyn TypedOp>>;

#[derive(Clone, Debug)]
pub struct Region {
    /// The layer's name, which becomes the name of the new node.
    pub name: String,
    /// Inputs from the rest of the graph, in the order of the new op's inputs, without constants that the op holds
    /// itself.
    pub inputs: TVec<OutletId>,
    /// Outputs that the rest of the graph uses, including outlets inside the region.
    pub outputs: TVec<OutletId>,
}

impl Region {
    /// The region of one node, with its first `inputs` inputs.
    pub fn of_node(node: &TypedNode, inputs: usize) -> Region {
        let outputs = (0..node.outputs.len()).map(|slot| OutletId::new(node.id, slot)).collect();
        Region { name: node.name.clone(), inputs: node.inputs[..inputs].into(), outputs }
    }

    /// The patch that replaces the region by `op`.
    ///
    /// # Errors
    /// An op whose facts are not those of the region.
    pub fn replaced(&self, model: &TypedModel, op: Box<dyn TypedOp>) -> TractResult<TypedModelPatch> {
        let mut patch = TypedModelPatch::default();
        let inputs = patch.taps(model, &self.inputs)?;
        let outputs = patch.wire_node(&*self.name, op, &inputs)?;
        ensure!(
            outputs.len() == self.outputs.len(),
            "the op has {} outputs, not {}",
            outputs.len(),
            self.outputs.len()
        );
        for (old, new) in self.outputs.iter().zip(outputs) {
            patch.shunt_outside(model, *old, new)?;
        }
        Ok(patch)
    }

    /// A model of the region alone, as it is in the graph.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn alone(&self, model: &TypedModel, weights: &Weights) -> TractResult<TypedModel> {
        let mut alone = TypedModel { symbols: model.symbols.clone(), ..TypedModel::default() };
        let mut known: HashMap<OutletId, OutletId> = HashMap::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let fact = model.outlet_fact(*input)?.without_value();
            known.insert(*input, alone.add_source(format!("region-input.{index}"), fact)?);
        }
        for output in &self.outputs {
            copy(model, weights, output.node, &mut alone, &mut known)?;
        }
        let outputs: TVec<OutletId> = self.outputs.iter().map(|output| known[output]).collect();
        alone.select_output_outlets(&outputs)?;
        Ok(alone)
    }

    /// A model of `op` alone, with the inputs of the region.
    ///
    /// # Errors
    /// An op that does not accept the inputs.
    pub fn with_op(&self, model: &TypedModel, op: Box<dyn TypedOp>) -> TractResult<TypedModel> {
        let mut alone = TypedModel { symbols: model.symbols.clone(), ..TypedModel::default() };
        let facts = self.inputs.iter().map(|input| Ok(model.outlet_fact(*input)?.without_value()));
        let facts = facts.collect::<TractResult<Vec<TypedFact>>>()?;
        let inputs =
            facts.into_iter().enumerate().map(|(index, fact)| alone.add_source(format!("region-input.{index}"), fact));
        let inputs = inputs.collect::<TractResult<TVec<OutletId>>>()?;
        let outputs = alone.wire_node(&*self.name, op, &inputs)?;
        alone.select_output_outlets(&outputs)?;
        Ok(alone)
    }
}

/// Copies a node and all nodes before it, up to what is known. Not recursive, because a model may have a chain that is
/// too long for the stack. A region has a few nodes; a walk of thousands of steps is refused.
fn copy(
    model: &TypedModel,
    weights: &Weights,
    last: usize,
    alone: &mut TypedModel,
    known: &mut HashMap<OutletId, OutletId>,
) -> TractResult<()> {
    const MOST: usize = 4096;
    let mut waiting = vec![last];
    let mut steps = 0;
    while let Some(id) = waiting.pop() {
        steps += 1;
        ensure!(steps <= MOST, "the region does not end at its inputs");
        let node = model.node(id);
        if known.contains_key(&OutletId::new(id, 0)) {
            continue;
        }
        let missing: Vec<usize> =
            node.inputs.iter().filter(|input| !known.contains_key(input)).map(|input| input.node).collect();
        if !missing.is_empty() {
            waiting.push(id);
            waiting.extend(missing);
            continue;
        }
        if let Some(weight) = weights.of(node)? {
            let outlet = alone.wire_node(&*node.name, Const::new(weight.into_dense()?)?, &[])?[0];
            known.insert(OutletId::new(id, 0), outlet);
            continue;
        }
        ensure!(!TypedModel::is_source(&node.op), "the region reaches `{}`, an input of the model", node.name);
        let inputs: TVec<OutletId> = node.inputs.iter().map(|input| known[input]).collect();
        for (slot, outlet) in alone.wire_node(&*node.name, node.op.clone(), &inputs)?.into_iter().enumerate() {
            known.insert(OutletId::new(id, slot), outlet);
        }
    }
    Ok(())
}

/// A small model, optimised by tract and ready to run.
///
/// # Errors
/// Those of tract.
pub fn runnable(model: TypedModel) -> TractResult<State> {
    model.into_optimized()?.into_runnable()?.spawn()
}

/// The shape of an outlet.
///
/// # Errors
/// An open dimension.
pub fn concrete_shape(model: &TypedModel, outlet: OutletId) -> TractResult<TVec<usize>> {
    Ok(model.outlet_fact(outlet)?.shape.as_concrete().context("a dimension is open")?.into())
}
