//! What each operator ties together, and what it holds.
//!
//! An operator without a rule pins every axis of all it takes and gives: that is sound, and it is counted for the report. Removal is the same as
//! zeroing because whatever sums over an axis does it with constant weights of the same class: those are zero, so the rest of the class may be
//! anything.

use std::collections::{BTreeMap, HashSet};

use super::{
    graph::{input, int, label, op, op_name, output},
    probe::{Probe, axes, axis_of},
    reshape::Regroup,
    units::{Pin, Units, Value},
};
use crate::onnx::NodeProto;

pub struct Rules<'a> {
    pub units: &'a mut Units,
    pub probe: &'a Probe,
    pub constants: &'a HashSet<String>,
    pub opset: i64,
    /// Left to the end: which factor of an axis is followed depends on what else is pinned.
    pub regroups: Vec<Regroup>,
    /// Operators without a rule, and how often each is in the graph.
    pub unknown: BTreeMap<String, usize>,
}

/// `None` where the rule does not hold for a node: then all stays.
type Applied = Option<()>;

impl Rules<'_> {
    pub fn apply(&mut self, node: &NodeProto) {
        if self.rule(node).is_none() {
            *self.unknown.entry(op_name(node)).or_default() += 1;
            let pin = pin(node, "no rule says how it shrinks");
            for name in node.input.iter().chain(&node.output) {
                if let Some(value) = self.units.value(name) {
                    self.units.pin_value(value, &pin);
                }
            }
        }
    }

    fn rule(&mut self, node: &NodeProto) -> Applied {
        match op(node) {
            "Identity" | "Cast" | "CastLike" | "Relu" | "LeakyRelu" | "Elu" | "Selu" | "Celu" | "ThresholdedRelu"
            | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Mish" | "Swish" | "Gelu" | "Sigmoid"
            | "Tanh" | "Erf" | "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Abs" | "Neg" | "Sign" | "Floor" | "Ceil"
            | "Round" | "Not" | "Sin" | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "IsNaN"
            | "IsInf" | "Dropout" | "Clip" | "Shrink" => self.unary(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Sum" | "Mean" | "Where" | "PRelu"
            | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" => {
                self.elementwise(node)
            }
            "Conv" => self.convolution(node),
            "ConvTranspose" => self.transposed_convolution(node),
            "MatMul" => self.matrix_product(node),
            "Gemm" => self.general_product(node),
            "BatchNormalization" | "InstanceNormalization" => self.normalisation(node),
            "MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                self.pool(node)
            }
            "Softmax" | "LogSoftmax" | "Hardmax" => self.softmax(node),
            "LayerNormalization" | "RMSNormalization" => self.layer_normalisation(node),
            name if name.starts_with("Reduce") => self.reduce(node),
            "ArgMax" | "ArgMin" => self.arg_reduce(node),
            "LSTM" => self.recurrent(node, 4),
            "GRU" => self.recurrent(node, 3),
            "RNN" => self.recurrent(node, 1),
            "Transpose" => self.transpose(node),
            "Concat" => self.concat(node),
            "Split" => self.split(node),
            "Slice" => self.slice(node),
            "Gather" => self.gather(node),
            "Expand" => self.expand(node),
            "ConstantOfShape" => self.constant_of_shape(node),
            "Pad" => self.pad(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.regroup(node),
            "Resize" | "Upsample" => self.resize(node),
            // Only reads lengths; those that matter are constants by now, or pinned.
            "Shape" | "Size" => Some(()),
            "Range" => {
                let y = self.output(node, 0)?;
                self.units.pin_value(y, &pin(node, "its length is computed"));
                Some(())
            }
            _ => None,
        }
    }

    pub fn input(&self, node: &NodeProto, slot: usize) -> Option<Value> {
        self.units.value(input(node, slot)?)
    }

    pub fn output(&self, node: &NodeProto, slot: usize) -> Option<Value> {
        self.units.value(output(node, slot)?)
    }

    pub fn is_constant(&self, node: &NodeProto, slot: usize) -> bool {
        input(node, slot).is_some_and(|name| self.constants.contains(name))
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

    fn elementwise(&mut self, node: &NodeProto) -> Applied {
        let y = self.output(node, 0)?;
        for slot in 0..node.input.len() {
            let x = self.input(node, slot)?;
            self.broadcast(node, x, y, 0)?;
        }
        Some(())
    }

    /// Ties the axes of `x`, aligned to the right, to those of `y` without its last `but`; what is repeated stays.
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

    /// Ties axis to axis but for those of `except`, which are pinned in both.
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

    fn normalisation(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let spatial: Vec<usize> =
            if op(node) == "InstanceNormalization" { (2..self.rank(x)).collect() } else { Vec::new() };
        (self.rank(x) >= 2).then_some(())?;
        self.one_to_one(node, x, y, &spatial, "it is normalised over")?;
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
        // The second output tells places in the whole of the input.
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
            vec![axis_of(int(node, "axis", -1), rank)?]
        } else {
            (axis_of(int(node, "axis", 1), rank)?..rank).collect()
        };
        self.one_to_one(node, x, y, &normalised, "it is normalised over")
    }

    fn layer_normalisation(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        let normalised: Vec<usize> = (axis_of(int(node, "axis", -1), rank)?..rank).collect();
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
        let reduced = match axes(node, 1, rank, self.probe)? {
            Some(axes) if !axes.is_empty() => axes,
            _ if int(node, "noop_with_empty_axes", 0) == 1 => Vec::new(),
            _ => (0..rank).collect(),
        };
        self.drop_axes(node, x, y, &reduced, int(node, "keepdims", 1) == 1)
    }

    fn arg_reduce(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let reduced = axis_of(int(node, "axis", 0), self.rank(x))?;
        self.drop_axes(node, x, y, &[reduced], int(node, "keepdims", 1) == 1)
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

pub fn pin(node: &NodeProto, why: &'static str) -> Pin {
    Pin { op: op_name(node), node: label(node), why }
}
