//! From the gradients of a run's outputs back to those of any of its values.

use std::collections::HashMap;

use crate::{
    Array, EngineError, Network, Run, Tensor, ValueId,
    ops::{Backward, BackwardError},
};

/// Gradients by value. A value that the seeds do not depend on has none.
#[derive(Clone, Debug, Default)]
pub struct Gradients(HashMap<ValueId, Array<f32>>);

impl Gradients {
    pub fn of(&self, value: ValueId) -> Option<&Array<f32>> {
        self.0.get(&value)
    }

    pub fn take(&mut self, value: ValueId) -> Option<Array<f32>> {
        self.0.remove(&value)
    }
}

impl Network {
    /// The gradient of `sum over seeds of <seed, value>` with respect to each of `required`: reverse mode. `run` must
    /// have kept all values ([`Keep::All`](crate::Keep::All)); a seed has the shape of its value.
    ///
    /// # Errors
    /// [`EngineError::NoGradient`] where the way back leads through an operator that has none.
    pub fn backward(
        &self,
        run: &Run,
        seeds: &[(ValueId, Array<f32>)],
        required: &[ValueId],
    ) -> Result<Gradients, EngineError> {
        let needed = self.depends_on(required);
        let mut gradients: Vec<Option<Array<f32>>> = vec![None; self.values()];
        for (value, seed) in seeds {
            add(&mut gradients[*value], seed.clone());
        }
        let mut is_required = vec![false; self.values()];
        required.iter().for_each(|value| is_required[*value] = true);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            // Integers have no gradient, not even where they become floats again: a length whose root scales attention.
            let is_float = |input: ValueId| matches!(run.values[input], Some(Tensor::F32(_)));
            let required_of = |input: &Option<ValueId>| input.is_some_and(|input| needed[input] && is_float(input));
            let wants: Vec<bool> = node.inputs.iter().map(required_of).collect();
            let outputs: Vec<Option<Array<f32>>> = node
                .outputs
                .iter()
                .map(|output| {
                    let output = (*output)?;
                    if is_required[output] { gradients[output].clone() } else { gradients[output].take() }
                })
                .collect();
            if !wants.contains(&true) || outputs.iter().all(Option::is_none) {
                continue;
            }
            let value = |id: &Option<ValueId>| id.and_then(|id| run.values[id].as_ref());
            let backward = Backward {
                inputs: node.inputs.iter().map(value).collect(),
                outputs: node.outputs.iter().map(value).collect(),
                saved: run.saved.get(index).and_then(Option::as_deref),
                gradients: outputs,
                wants,
            };
            let (name, op) = (|| node.name.clone(), || node.op_type.clone());
            let by_input = node.operator.backward(&backward).map_err(|error| match error {
                BackwardError::NoGradient => EngineError::NoGradient { node: name(), op: op() },
                BackwardError::Failed(why) => {
                    EngineError::Node { node: name(), op: op(), why: format!("its gradient: {why}") }
                }
            })?;
            for ((input, wants), gradient) in node.inputs.iter().zip(&backward.wants).zip(by_input) {
                if let (Some(input), true, Some(gradient)) = (input, wants, gradient) {
                    add(&mut gradients[*input], gradient);
                }
            }
        }
        Ok(Gradients(required.iter().filter_map(|value| Some((*value, gradients[*value].take()?))).collect()))
    }

    /// Which values depend on one of `roots`, or are one.
    fn depends_on(&self, roots: &[ValueId]) -> Vec<bool> {
        let mut depends = vec![false; self.values()];
        roots.iter().for_each(|root| depends[*root] = true);
        for node in &self.nodes {
            if node.inputs.iter().flatten().any(|input| depends[*input]) {
                node.outputs.iter().flatten().for_each(|output| depends[*output] = true);
            }
        }
        depends
    }
}

fn add(sum: &mut Option<Array<f32>>, term: Array<f32>) {
    match sum {
        None => *sum = Some(term),
        Some(sum) => {
            assert_eq!(sum.shape(), term.shape(), "two gradients of one value");
            sum.data_mut().iter_mut().zip(term.data()).for_each(|(sum, term)| *sum += term);
        }
    }
}
