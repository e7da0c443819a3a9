//! What follows a convolution and can be computed in the same pass, in this order: factors and sums by channel (a batch
//! normalisation), a residual, clamps. Each node has to be the only user of the one before it, so that no other node
//! needs the values between, and no cycle can arise.

use tract_onnx::{
    prelude::*,
    tract_core::ops::{
        binary::TypedBinOp,
        math::{Add, Div, Max, Min, Mul, Sub},
    },
};

use crate::context::{self, Context};

pub struct Chain {
    /// By channel: the factor for the sums, and what is then added.
    scale: Vec<f32>,
    shift: Vec<f32>,
    pub residual: Option<OutletId>,
    low: Option<f32>,
    high: Option<f32>,
    /// The end of the chain.
    pub last: OutletId,
}

impl Chain {
    /// The longest chain after `node`, whose output has `channels` channels on its axis `c_axis`.
    pub fn after(
        context: &Context,
        model: &TypedModel,
        node: &TypedNode,
        c_axis: usize,
        channels: usize,
    ) -> TractResult<Chain> {
        let mut chain = Chain {
            scale: vec![1.0; channels],
            shift: vec![0.0; channels],
            residual: None,
            low: None,
            high: None,
            last: node.id.into(),
        };
        let fact = model.outlet_fact(chain.last)?.clone();
        while let Some(next) = context::only_successor(model, chain.last.node) {
            let same = next.outputs.len() == 1
                && next.outputs[0].fact.shape == fact.shape
                && next.outputs[0].fact.datum_type == DatumType::F32;
            if !same || !(context::does_nothing(model, next)? || chain.take(context, model, next, c_axis)?) {
                break;
            }
            chain.last = next.id.into();
        }
        Ok(chain)
    }

    /// Returns whether `node` became part of the chain.
    fn take(&mut self, context: &Context, model: &TypedModel, node: &TypedNode, c_axis: usize) -> TractResult<bool> {
        let Some(op) = node.op_as::<TypedBinOp>() else { return Ok(false) };
        let [left, right] = *node.inputs else { return Ok(false) };
        let (other, is_left) = if left == self.last { (right, true) } else { (left, false) };
        if other == self.last {
            return Ok(false);
        }
        let op = &op.0;
        if op.is::<Max>() || op.is::<Min>() {
            let Some(bound) = context.scalar(model, other)?.filter(|bound| !bound.is_nan()) else { return Ok(false) };
            return Ok(self.take_clamp(op.is::<Max>(), bound));
        }
        if self.low.is_some() || self.high.is_some() || self.residual.is_some() {
            return Ok(false);
        }
        if let Some(values) = self.by_channel(context, model, other, c_axis)? {
            let each = |to: &mut [f32], f: fn(f32, f32) -> f32| {
                to.iter_mut().zip(&values).for_each(|(to, value)| *to = f(*to, *value));
            };
            if op.is::<Mul>() {
                each(&mut self.scale, |a, b| a * b);
                each(&mut self.shift, |a, b| a * b);
            } else if op.is::<Div>() && is_left {
                each(&mut self.scale, |a, b| a / b);
                each(&mut self.shift, |a, b| a / b);
            } else if op.is::<Add>() {
                each(&mut self.shift, |a, b| a + b);
            } else if op.is::<Sub>() && is_left {
                each(&mut self.shift, |a, b| a - b);
            } else {
                return Ok(false);
            }
            return Ok(true);
        }
        let fact = model.outlet_fact(other)?;
        let alike =
            fact.shape == node.outputs[0].fact.shape && fact.datum_type == DatumType::F32 && fact.konst.is_none();
        if op.is::<Add>() && alike && context.weight(model, other)?.is_none() {
            self.residual = Some(other);
            return Ok(true);
        }
        Ok(false)
    }

    /// A maximum before a minimum. In the other order the result is the same only while the lower bound is below the
    /// upper.
    fn take_clamp(&mut self, is_max: bool, bound: f32) -> bool {
        let (low, high) = (self.low.unwrap_or(f32::NEG_INFINITY), self.high.unwrap_or(f32::INFINITY));
        if is_max {
            if bound > high {
                return false;
            }
            self.low = Some(low.max(bound));
        } else {
            if bound < low {
                return false;
            }
            self.high = Some(high.min(bound));
        }
        true
    }

    /// A constant with one value for all channels or for each of them.
    fn by_channel(
        &self,
        context: &Context,
        model: &TypedModel,
        outlet: OutletId,
        c_axis: usize,
    ) -> TractResult<Option<Vec<f32>>> {
        let fact = model.outlet_fact(outlet)?;
        let channels = self.scale.len();
        let fits = |(axis, dim): (usize, &TDim)| dim.is_one() || (axis == c_axis && *dim == channels.to_dim());
        if fact.datum_type != DatumType::F32 || !fact.shape.iter().enumerate().all(fits) {
            return Ok(None);
        }
        let Some(tensor) = context.constant(model, outlet)? else { return Ok(None) };
        let plain = tensor.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        Ok(Some(if values.len() == channels { values.to_vec() } else { vec![values[0]; channels] }))
    }

    pub fn clamp(&self) -> (f32, f32) {
        (self.low.unwrap_or(f32::NEG_INFINITY), self.high.unwrap_or(f32::INFINITY))
    }

    /// Applies factors and sums to weights, a row for each channel, and to the bias.
    pub fn fold(&self, weights: &mut [f32], bias: &mut [f32]) {
        let depth = weights.len() / self.scale.len().max(1);
        for (row, scale) in weights.chunks_exact_mut(depth.max(1)).zip(&self.scale) {
            if *scale != 1.0 {
                row.iter_mut().for_each(|weight| *weight *= scale);
            }
        }
        for ((bias, scale), shift) in bias.iter_mut().zip(&self.scale).zip(&self.shift) {
            *bias = *bias * scale + shift;
        }
    }

    /// The parts that make a difference to speed.
    pub fn description(&self) -> String {
        let residual = if self.residual.is_some() { " residual" } else { "" };
        let clamp = if self.low.is_some() || self.high.is_some() { " clamp" } else { "" };
        format!("{residual}{clamp}")
    }
}
