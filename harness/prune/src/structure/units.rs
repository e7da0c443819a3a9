//! Which indices have to be removed together: union-find over every index of every axis of every value.
//!
//! A unit is one index of one axis. Rules tie units together, or pin them: a pinned unit stays, and so does all that is
//! tied to it. The first reason for a pin is kept for the report.

use std::collections::HashMap;

use crate::{PruneError, onnx::NodeProto};

/// No model has more: BERT-large has half a million.
const MOST_UNITS: usize = 1 << 27;

pub type UnitId = u32;

/// Index of a value in [`Units`].
pub type Value = usize;

/// Why units stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The operator that holds them, and its node; empty where none does.
    pub op: String,
    pub node: String,
    pub why: &'static str,
}

pub fn pin(node: &NodeProto, why: &'static str) -> Pin {
    Pin { op: node.qualified_op(), node: node.label(), why }
}

#[derive(Debug, Default)]
pub struct Units {
    values: HashMap<String, Value>,
    /// By value, the first unit of each axis, and the shape.
    first: Vec<Vec<UnitId>>,
    shapes: Vec<Vec<usize>>,
    parent: Vec<UnitId>,
    /// By root: which of `pins` holds it, from 1; 0 for none.
    pinned: Vec<u32>,
    /// By root: whether it is an axis over which attention runs in parallel.
    head: Vec<bool>,
    pins: Vec<Pin>,
}

impl Units {
    /// Makes units for all axes of a value.
    ///
    /// # Errors
    /// More units than any model has.
    pub fn add(&mut self, name: &str, shape: &[usize]) -> Result<Value, PruneError> {
        let mut first = Vec::with_capacity(shape.len());
        for len in shape {
            if self.parent.len().saturating_add(*len) > MOST_UNITS {
                let why = format!("its tensors have more than {MOST_UNITS} indices in all");
                return Err(PruneError::NothingPrunable { why });
            }
            let start = self.parent.len() as UnitId;
            first.push(start);
            self.parent.extend(start..start + *len as UnitId);
        }
        self.pinned.resize(self.parent.len(), 0);
        self.head.resize(self.parent.len(), false);
        let value = self.first.len();
        self.first.push(first);
        self.shapes.push(shape.to_vec());
        self.values.insert(name.to_owned(), value);
        Ok(value)
    }

    pub fn value(&self, name: &str) -> Option<Value> {
        self.values.get(name).copied()
    }

    /// How many values there are: each [`Value`] is below it.
    pub fn values(&self) -> usize {
        self.shapes.len()
    }

    pub fn shape(&self, value: Value) -> &[usize] {
        &self.shapes[value]
    }

    pub fn len(&self, value: Value, axis: usize) -> usize {
        self.shapes[value][axis]
    }

    pub fn unit(&self, value: Value, axis: usize, index: usize) -> UnitId {
        debug_assert!(index < self.shapes[value][axis], "index {index} of axis {axis} of {:?}", self.shapes[value]);
        self.first[value][axis] + index as UnitId
    }

    pub fn root(&mut self, mut unit: UnitId) -> UnitId {
        while self.parent[unit as usize] != unit {
            let above = self.parent[self.parent[unit as usize] as usize];
            self.parent[unit as usize] = above;
            unit = above;
        }
        unit
    }

    pub fn tie(&mut self, a: UnitId, b: UnitId) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high as usize] = low;
        if self.pinned[low as usize] == 0 {
            self.pinned[low as usize] = self.pinned[high as usize];
        }
        self.head[low as usize] |= self.head[high as usize];
    }

    /// Ties index to index. Where the axes differ in length, one was repeated or cut in an unknown way, and both stay.
    pub fn tie_axes(&mut self, (a, a_axis): (Value, usize), (b, b_axis): (Value, usize), pin: &Pin) {
        let len = self.len(a, a_axis);
        if len != self.len(b, b_axis) {
            self.pin_axis(a, a_axis, pin);
            self.pin_axis(b, b_axis, pin);
            return;
        }
        for index in 0..len {
            self.tie(self.unit(a, a_axis, index), self.unit(b, b_axis, index));
        }
    }

    pub fn pin(&mut self, unit: UnitId, pin: &Pin) {
        let root = self.root(unit);
        if self.pinned[root as usize] == 0 {
            let known = self.pins.last() == Some(pin);
            if !known {
                self.pins.push(pin.clone());
            }
            self.pinned[root as usize] = self.pins.len() as u32;
        }
    }

    pub fn pin_axis(&mut self, value: Value, axis: usize, pin: &Pin) {
        for index in 0..self.len(value, axis) {
            self.pin(self.unit(value, axis, index), pin);
        }
    }

    pub fn pin_value(&mut self, value: Value, pin: &Pin) {
        for axis in 0..self.shapes[value].len() {
            self.pin_axis(value, axis, pin);
        }
    }

    pub fn pinned(&mut self, unit: UnitId) -> Option<&Pin> {
        let root = self.root(unit);
        (self.pinned[root as usize] as usize).checked_sub(1).map(|pin| &self.pins[pin])
    }

    /// Whether at least one index of an axis may be removed.
    pub fn is_open(&mut self, value: Value, axis: usize) -> bool {
        (0..self.len(value, axis)).any(|index| self.pinned(self.unit(value, axis, index)).is_none())
    }

    pub fn mark_heads(&mut self, value: Value, axis: usize) {
        for index in 0..self.len(value, axis) {
            let root = self.root(self.unit(value, axis, index));
            self.head[root as usize] = true;
        }
    }

    pub fn is_head(&mut self, unit: UnitId) -> bool {
        let root = self.root(unit);
        self.head[root as usize]
    }

    pub fn has_heads(&mut self, value: Value, axis: usize) -> bool {
        (0..self.len(value, axis)).any(|index| self.is_head(self.unit(value, axis, index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(why: &'static str) -> Pin {
        Pin { op: String::new(), node: String::new(), why }
    }

    #[test]
    fn a_pin_holds_all_that_is_tied_whenever_it_came() {
        let mut units = Units::default();
        let a = units.add("a", &[2, 3]).unwrap();
        let b = units.add("b", &[3]).unwrap();
        units.pin(units.unit(b, 0, 1), &pin("first"));
        units.tie_axes((a, 1), (b, 0), &pin("tie"));
        units.pin_axis(b, 0, &pin("second"));
        assert_eq!(units.pinned(units.unit(a, 1, 1)).unwrap().why, "first");
        assert_eq!(units.pinned(units.unit(a, 1, 2)).unwrap().why, "second");
        assert_eq!(units.pinned(units.unit(a, 0, 0)), None);
        // Of different lengths: nothing to tie, so both stay.
        units.tie_axes((a, 0), (b, 0), &pin("tie"));
        assert_eq!(units.pinned(units.unit(a, 0, 1)).unwrap().why, "tie");
    }
}
