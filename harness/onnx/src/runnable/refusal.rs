//! Why the runner cannot run a node: with its name, operator and attribute, and what to do.

use std::fmt;

use crate::NodeProto;

/// One attribute (or input) of one node that the runner does not honour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub node: String,
    pub operator: String,
    /// Empty where it is the operator as a whole.
    pub attribute: String,
    pub why: String,
}

impl Refusal {
    pub(super) fn of(node: &NodeProto, attribute: &str, why: &str) -> Refusal {
        let operator = node.qualified_op();
        Refusal { node: node.label(), operator, attribute: attribute.to_owned(), why: why.to_owned() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { node, operator, attribute, why } = self;
        match &**attribute {
            "" => write!(f, "node `{node}`: {operator}: {why}"),
            attribute => write!(f, "node `{node}`: {operator} with `{attribute}`: {why}"),
        }
    }
}
