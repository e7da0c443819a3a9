//! Runs a network, node by node.

use crate::{EngineError, Network, Tensor, ValueId, network::Node, ops::Saved};

/// Called with each node after it ran: the node, its inputs, its outputs.
pub type Observe<'a> = dyn FnMut(&Node, &[Option<&Tensor>], &[Tensor]) + 'a;

/// Which values of a run are kept when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The network's outputs; every other value is dropped after its last use.
    Outputs,
    /// All values, as gradients need them.
    All,
}

/// The values of one run.
#[derive(Debug)]
pub struct Run {
    /// By [`ValueId`]; `None` for what was not kept.
    pub values: Vec<Option<Tensor>>,
    /// By node: what its operator saved for its gradient.
    pub(crate) saved: Vec<Option<Saved>>,
}

impl Run {
    pub fn value(&self, value: ValueId) -> Option<&Tensor> {
        self.values[value].as_ref()
    }
}

impl Network {
    /// Runs on `feeds`, one for each of [`Network::inputs`] in that order.
    ///
    /// # Errors
    /// Another number of feeds than inputs, and whatever an operator refuses.
    pub fn run(&self, feeds: &[Tensor], keep: Keep) -> Result<Run, EngineError> {
        self.run_observed(feeds, keep, &mut |_, _, _| ())
    }

    /// As [`Network::run`]; `observe` is called after each node.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn run_observed(&self, feeds: &[Tensor], keep: Keep, observe: &mut Observe<'_>) -> Result<Run, EngineError> {
        let mut values: Vec<Option<Tensor>> = self.constants().to_vec();
        if feeds.len() != self.inputs.len() {
            let input = self.inputs.get(feeds.len()).map_or("", |input| self.name(*input)).to_owned();
            let why = format!("the network takes {} inputs, {} were given", self.inputs.len(), feeds.len());
            return Err(EngineError::Input { input, why });
        }
        for (input, feed) in self.inputs.iter().zip(feeds) {
            values[*input] = Some(feed.clone());
        }
        let mut uses = self.uses();
        let mut saved = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs: Vec<Option<&Tensor>> =
                node.inputs.iter().map(|input| input.and_then(|input| values[input].as_ref())).collect();
            let failed = |why| EngineError::Node { node: node.name.clone(), op: node.op_type.clone(), why };
            let forward = node.operator.forward(&inputs, node.outputs.len()).map_err(failed)?;
            observe(node, &inputs, &forward.outputs);
            drop(inputs);
            saved.push(if keep == Keep::All { forward.saved } else { None });
            for (output, value) in node.outputs.iter().zip(forward.outputs) {
                if let Some(output) = output {
                    values[*output] = Some(value);
                }
            }
            if keep == Keep::Outputs {
                for input in node.inputs.iter().flatten() {
                    uses[*input] -= 1;
                    if uses[*input] == 0 {
                        values[*input] = None;
                    }
                }
            }
        }
        Ok(Run { values, saved })
    }

    /// How many nodes use each value; an output of the network has one user more.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values()];
        self.nodes.iter().flat_map(|node| node.inputs.iter().flatten()).for_each(|input| uses[*input] += 1);
        self.outputs.iter().for_each(|output| uses[*output] += 1);
        uses
    }
}
