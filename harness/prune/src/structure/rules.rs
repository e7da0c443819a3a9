//! What each operator ties together, and what it holds.
//!
//! An operator without a rule pins every axis of its inputs and outputs: that is sound, and it is counted for the
//! report. Removal equals zeroing because whatever sums over an axis does so with constant weights of the same axis
//! class: those are zero, so the rest of the class may be anything.

use std::collections::{BTreeMap, HashSet};

use super::{
    probe::{Probe, axes_of},
    reshape::Regroup,
    units::{Units, Value, pin},
};
use crate::{
    onnx::{NodeProto, axis_of},
    operators::{Axes, axes},
};

pub struct Rules<'a> {
    pub units: &'a mut Units,
    pub probe: &'a Probe,
    pub constants: &'a HashSet<String>,
    pub opset: i64,
    /// Decided at the end: which factor of an axis is followed depends on what else is pinned.
    pub regroups: Vec<Regroup>,
    /// Operators without a rule, and how often each occurs.
    pub unknown: BTreeMap<String, usize>,
}

/// `None` where the rule does not cover a node, whose axes then all stay.
type Applied = Option<()>;

impl Rules<'_> {
    pub fn apply(&mut self, node: &NodeProto) {
        if self.rule(node).is_none() {
            *self.unknown.entry(node.qualified_op()).or_default() += 1;
            let pin = pin(node, "no rule says how it shrinks");
            for name in node.input.iter().chain(&node.output) {
                if let Some(value) = self.units.value(name) {
                    self.units.pin_value(value, &pin);
                }
            }
        }
    }

    fn rule(&mut self, node: &NodeProto) -> Applied {
        match axes(node.op())? {
            Axes::Activation | Axes::Gate | Axes::Elementwise => self.unary(node),
            Axes::Broadcast | Axes::Slopes => self.broadcasting(node),
            Axes::Convolution => self.convolution(node, false),
            Axes::TransposedConvolution => self.convolution(node, true),
            Axes::MatrixProduct => self.matrix_product(node),
            Axes::Gemm => self.general_product(node),
            Axes::ChannelNormalisation { over_places } => self.channel_normalisation(node, over_places),
            Axes::RowNormalisation => self.row_normalisation(node),
            Axes::Softmax => self.softmax(node),
            Axes::Pool | Axes::GlobalPool => self.pool(node),
            Axes::Reduce => self.reduce(node),
            Axes::ReduceToIndex => self.reduce_to_index(node),
            Axes::Recurrent { gates } => self.recurrent(node, gates),
            Axes::Transpose => self.transpose(node),
            Axes::Concat => self.concat(node),
            Axes::Split => self.split(node),
            Axes::Slice => self.slice(node),
            Axes::Gather => self.gather(node),
            Axes::Expand => self.expand(node),
            Axes::ConstantOfShape => self.constant_of_shape(node),
            Axes::Pad => self.pad(node),
            Axes::Reshape | Axes::Flatten | Axes::Squeeze | Axes::Unsqueeze => self.regroup(node),
            // Lengths that matter are constants by now, or pinned.
            Axes::Lengths => Some(()),
            Axes::Range => {
                let y = self.output(node, 0)?;
                self.units.pin_value(y, &pin(node, "its length is computed"));
                Some(())
            }
            Axes::GroupNormalisation | Axes::SameShape(_) | Axes::OtherShape(_) => None,
        }
    }

    pub fn input(&self, node: &NodeProto, slot: usize) -> Option<Value> {
        self.units.value(node.input_at(slot)?)
    }

    pub fn output(&self, node: &NodeProto, slot: usize) -> Option<Value> {
        self.units.value(node.output_at(slot)?)
    }

    pub fn is_constant(&self, node: &NodeProto, slot: usize) -> bool {
        node.input_at(slot).is_some_and(|name| self.constants.contains(name))
    }

    pub fn rank(&self, value: Value) -> usize {
        self.units.shape(value).len()
    }

    fn unary(&mut self, node: &NodeProto) -> Applied {
        let x = self.input(node, 0)?;
        let pin = pin(node, "an axis changes its length");
        for slot in 0..node.output.len() {
            let Some(y) = self.output(node, slot) else { continue };
            (self.rank(x) == self.rank(y)).then_some(())?;
            for axis in 0..self.rank(x) {
                self.units.tie_axes((x, axis), (y, axis), &pin);
            }
        }
        Some(())
    }

    fn broadcasting(&mut self, node: &NodeProto) -> Applied {
        let y = self.output(node, 0)?;
        for slot in 0..node.input.len() {
            let x = self.input(node, slot)?;
            self.broadcast(node, x, y, 0)?;
        }
        Some(())
    }

    /// Ties the axes of `x`, aligned to the right, to those of `y`, without the last `but` of both; repeated axes stay.
    pub fn broadcast(&mut self, node: &NodeProto, x: Value, y: Value, but: usize) -> Applied {
        let pin = pin(node, "an axis of it is repeated");
        let (rank, wide) = (self.rank(x).checked_sub(but)?, self.rank(y).checked_sub(but)?);
        let shift = wide.checked_sub(rank)?;
        for axis in 0..rank {
            if self.units.len(x, axis) == 1 {
                self.units.pin_axis(x, axis, &pin);
            } else {
                self.units.tie_axes((x, axis), (y, axis + shift), &pin);
            }
        }
        Some(())
    }

    /// Ties axis to axis, except those of `except`, which are pinned in both.
    pub fn one_to_one(&mut self, node: &NodeProto, x: Value, y: Value, except: &[usize], why: &'static str) -> Applied {
        (self.rank(x) == self.rank(y)).then_some(())?;
        let pin = pin(node, why);
        for axis in 0..self.rank(x) {
            if except.contains(&axis) {
                self.units.pin_axis(x, axis, &pin);
                self.units.pin_axis(y, axis, &pin);
            } else {
                self.units.tie_axes((x, axis), (y, axis), &pin);
            }
        }
        Some(())
    }

    fn channel_normalisation(&mut self, node: &NodeProto, over_places: bool) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let places: Vec<usize> = if over_places { (2..self.rank(x)).collect() } else { Vec::new() };
        (self.rank(x) >= 2).then_some(())?;
        self.one_to_one(node, x, y, &places, "it is normalised over")?;
        let pin = pin(node, "its parameters do not fit");
        for slot in 1..node.input.len() {
            let parameter = self.input(node, slot)?;
            (self.rank(parameter) == 1).then_some(())?;
            self.units.tie_axes((parameter, 0), (x, 1), &pin);
        }
        Some(())
    }

    fn pool(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        // The second output holds places in the whole input.
        if node.output.len() > 1 && self.output(node, 1).is_some() {
            return None;
        }
        let spatial: Vec<usize> = (2..self.rank(x)).collect();
        self.one_to_one(node, x, y, &spatial, "it is pooled over")
    }

    fn softmax(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        let normalised: Vec<usize> = if self.opset >= 13 {
            vec![axis_of(node.int("axis", -1), rank)?]
        } else {
            (axis_of(node.int("axis", 1), rank)?..rank).collect()
        };
        self.one_to_one(node, x, y, &normalised, "it is normalised over")
    }

    fn row_normalisation(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        let normalised: Vec<usize> = (axis_of(node.int("axis", -1), rank)?..rank).collect();
        self.one_to_one(node, x, y, &normalised, "it is normalised over")?;
        let pin = pin(node, "it is normalised over");
        for value in [self.input(node, 1), self.input(node, 2), self.output(node, 1), self.output(node, 2)] {
            value.into_iter().for_each(|value| self.units.pin_value(value, &pin));
        }
        Some(())
    }

    fn reduce(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        let reduced = match axes_of(node, 1, rank, self.probe)? {
            Some(axes) if !axes.is_empty() => axes,
            _ if node.int("noop_with_empty_axes", 0) == 1 => Vec::new(),
            _ => (0..rank).collect(),
        };
        self.drop_axes(node, x, y, &reduced, node.int("keepdims", 1) == 1)
    }

    fn reduce_to_index(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let reduced = axis_of(node.int("axis", 0), self.rank(x))?;
        self.drop_axes(node, x, y, &[reduced], node.int("keepdims", 1) == 1)
    }

    fn drop_axes(&mut self, node: &NodeProto, x: Value, y: Value, reduced: &[usize], keep: bool) -> Applied {
        let pin = pin(node, "it is summed over");
        let left: Vec<usize> = (0..self.rank(x)).filter(|axis| keep || !reduced.contains(axis)).collect();
        (left.len() == self.rank(y)).then_some(())?;
        for axis in reduced {
            self.units.pin_axis(x, *axis, &pin);
        }
        for (to, from) in left.into_iter().enumerate() {
            if !reduced.contains(&from) {
                self.units.tie_axes((x, from), (y, to), &pin);
            }
        }
        Some(())
    }
}
