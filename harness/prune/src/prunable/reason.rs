//! Why a tensor with parameters is left unchanged.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Unit;

/// A tensor with parameters that is left unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Untouched {
    pub name: String,
    pub shape: Vec<u64>,
    pub parameters: u64,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Bias,
    Normalisation,
    Embedding,
    /// Of an LSTM, GRU or RNN.
    InitialState,
    Scalar,
    /// Input `input` (from 0) of an operator whose constants are not known to be weights.
    Operator {
        op: String,
        input: u32,
    },
    /// It may be a weight, but reaches the node that uses it through another one.
    Indirect {
        op: String,
    },
    /// A weight, but `op` uses it too, as something else.
    AlsoUsed {
        op: String,
    },
    /// A weight of a type whose pruning is not supported.
    Dtype {
        dtype: String,
    },
    /// Stored as something else than a dense tensor.
    Storage {
        form: String,
    },
    Subgraph {
        node: String,
    },
    Function {
        function: String,
    },
    /// An output of the graph.
    Output,
    Unused,
    /// Its axes do not fit the unit: no rows and columns, or rows shorter than a group.
    Unit {
        unit: Unit,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Bias => write!(f, "bias"),
            Reason::Normalisation => write!(f, "parameter of a normalisation"),
            Reason::Embedding => write!(f, "embedding table"),
            Reason::InitialState => write!(f, "initial state"),
            Reason::Scalar => write!(f, "scalar"),
            Reason::Operator { op, input } => write!(f, "input {input} of `{op}`, not known to be a weight"),
            Reason::Indirect { op } => write!(f, "a weight that reaches its use through `{op}`"),
            Reason::AlsoUsed { op } => write!(f, "a weight, but also used by `{op}`"),
            Reason::Dtype { dtype } => write!(f, "a weight of type {dtype}, only float32 is pruned"),
            Reason::Storage { form } => write!(f, "kept as {form}"),
            Reason::Subgraph { node } => write!(f, "used in a subgraph of `{node}`"),
            Reason::Function { function } => write!(f, "in the function `{function}`"),
            Reason::Output => write!(f, "is itself an output of the model"),
            Reason::Unused => write!(f, "used by no node"),
            Reason::Unit { unit } => write!(f, "a weight without rows and columns that `{unit}` fits"),
        }
    }
}
