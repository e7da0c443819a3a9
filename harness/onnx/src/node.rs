//! Questions to a node: its operator, its inputs, its attributes by name.

use crate::{AttributeProto, GraphProto, NodeProto};

impl NodeProto {
    /// Whether its operator is of the standard domain.
    pub fn is_standard(&self) -> bool {
        matches!(self.domain(), "" | "ai.onnx")
    }

    /// The operator of a node of the standard domain; empty for other domains, which no operator of ours matches.
    pub fn op(&self) -> &str {
        if self.is_standard() { self.op_type() } else { "" }
    }

    /// The operator as messages call it: with its domain where that is not the standard one.
    pub fn qualified_op(&self) -> String {
        if self.is_standard() { self.op_type().to_owned() } else { format!("{}.{}", self.domain(), self.op_type()) }
    }

    /// The node's name; of a node without one, the name of its first output.
    pub fn label(&self) -> String {
        let output = self.output.first().map_or("", String::as_str);
        if self.name().is_empty() { output.to_owned() } else { self.name().to_owned() }
    }

    /// The name of input `slot`; `None` where it is left out.
    pub fn input_at(&self, slot: usize) -> Option<&str> {
        self.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of output `slot`; `None` where it is left out.
    pub fn output_at(&self, slot: usize) -> Option<&str> {
        self.output.get(slot).map(String::as_str).filter(|name| !name.is_empty())
    }

    pub fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    pub fn optional_int(&self, name: &str) -> Option<i64> {
        self.attr(name)?.i
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.optional_int(name).unwrap_or(default)
    }

    /// Whether an integer attribute is there and not 0.
    pub fn is_set(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    pub fn optional_float(&self, name: &str) -> Option<f32> {
        self.attr(name)?.f
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.optional_float(name).unwrap_or(default)
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|attribute| attribute.ints.as_slice())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attr(name)?.s.as_deref()?).ok()
    }

    /// The graphs of an `If`, `Loop` or `Scan`. The decoder bounds their depth.
    pub fn subgraphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }
}

/// An axis as a position below `rank`; a negative one counts from the end.
pub fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank)
}
