//! Rules of the operators with weights: convolutions, matrix products, recurrent layers.

use super::{
    rules::Rules,
    units::{Value, pin},
};
use crate::onnx::NodeProto;

type Applied = Option<()>;

impl Rules<'_> {
    /// Of the weight the first axis is that of the outputs, or of the inputs where the convolution is transposed; the
    /// second one has the other channels of one group.
    pub fn convolution(&mut self, node: &NodeProto, transposed: bool) -> Applied {
        let (x, weight, y) = (self.input(node, 0)?, self.input(node, 1)?, self.output(node, 0)?);
        let (inputs, outputs) = (self.channels(x)?, self.channels(y)?);
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|groups| *groups > 0)?;
        let [(first, firsts), (second, seconds)] =
            if transposed { [(x, inputs), (y, outputs)] } else { [(y, outputs), (x, inputs)] };
        let shape = self.units.shape(weight).to_vec();
        let fits = shape.len() >= 2 && shape[0] == firsts && shape[1].checked_mul(groups)? == seconds;
        (fits && firsts.is_multiple_of(groups)).then_some(())?;
        self.frame(node, x, weight, y)?;
        let mismatch = pin(node, "its bias does not fit");
        self.units.tie_axes((weight, 0), (first, 1), &mismatch);
        if let Some(bias) = self.input(node, 2) {
            (self.rank(bias) == 1).then_some(())?;
            self.units.tie_axes((bias, 0), (y, 1), &mismatch);
        }
        if inputs == groups && groups > 1 {
            // Depthwise: an input channel is tied to all its output channels.
            for channel in 0..outputs {
                self.units.tie(self.units.unit(x, 1, channel / (outputs / groups)), self.units.unit(y, 1, channel));
            }
            if transposed {
                self.units.pin_axis(weight, 1, &pin(node, "each input channel makes as many output channels"));
            }
            return Some(());
        }
        // The number of groups stays, and groups stay alike: the same channel of each is removed.
        for channel in 0..seconds {
            self.units.tie(self.units.unit(second, 1, channel), self.units.unit(weight, 1, channel % shape[1]));
        }
        let each = firsts / groups;
        for channel in each..firsts {
            self.units.tie(self.units.unit(first, 1, channel), self.units.unit(first, 1, channel % each));
        }
        self.dynamic_weight(node, 1, x, 1);
        Some(())
    }

    /// Ties batch to batch; places and kernel stay.
    fn frame(&mut self, node: &NodeProto, x: Value, weight: Value, y: Value) -> Applied {
        (self.rank(x) == self.rank(y) && self.rank(x) == self.rank(weight)).then_some(())?;
        let spatial = pin(node, "it is a place in the image");
        self.units.tie_axes((x, 0), (y, 0), &spatial);
        for axis in 2..self.rank(x) {
            [x, weight, y].into_iter().for_each(|value| self.units.pin_axis(value, axis, &spatial));
        }
        Some(())
    }

    fn channels(&self, value: Value) -> Option<usize> {
        self.units.shape(value).get(1).copied()
    }

    /// An axis that is summed over without constant weights cannot be zeroed from outside.
    fn dynamic_weight(&mut self, node: &NodeProto, slot: usize, x: Value, axis: usize) {
        if !self.is_constant(node, slot) {
            self.units.pin_axis(x, axis, &pin(node, "two computed values are summed over it"));
        }
    }

    pub fn matrix_product(&mut self, node: &NodeProto) -> Applied {
        let (a, b, y) = (self.input(node, 0)?, self.input(node, 1)?, self.output(node, 0)?);
        let (a_rank, b_rank, rank) = (self.rank(a), self.rank(b), self.rank(y));
        (a_rank > 0 && b_rank > 0).then_some(())?;
        let mismatch = pin(node, "its factors do not fit");
        let summed = (b, b_rank.saturating_sub(2));
        self.units.tie_axes((a, a_rank - 1), summed, &mismatch);
        let constant = self.is_constant(node, 0) || self.is_constant(node, 1);
        if !constant {
            self.units.pin_axis(a, a_rank - 1, &pin(node, "two computed values are summed over it"));
        }
        if a_rank > 1 {
            let rows = if b_rank > 1 { rank.checked_sub(2)? } else { rank.checked_sub(1)? };
            self.units.tie_axes((a, a_rank - 2), (y, rows), &mismatch);
        }
        if b_rank > 1 {
            self.units.tie_axes((b, b_rank - 1), (y, rank.checked_sub(1)?), &mismatch);
        }
        if a_rank > 2 || b_rank > 2 {
            if a_rank < 2 || b_rank < 2 {
                return None;
            }
            self.broadcast(node, a, y, 2)?;
            self.broadcast(node, b, y, 2)?;
        }
        if !constant && a_rank > 2 && b_rank > 2 {
            (0..rank - 2).for_each(|axis| self.units.mark_heads(y, axis));
        }
        Some(())
    }

    pub fn general_product(&mut self, node: &NodeProto) -> Applied {
        let (a, b, y) = (self.input(node, 0)?, self.input(node, 1)?, self.output(node, 0)?);
        (self.rank(a) == 2 && self.rank(b) == 2 && self.rank(y) == 2).then_some(())?;
        let mismatch = pin(node, "its factors do not fit");
        let (rows, summed) = if node.int("transA", 0) == 0 { (0, 1) } else { (1, 0) };
        let (columns, summed_too) = if node.int("transB", 0) == 0 { (1, 0) } else { (0, 1) };
        self.units.tie_axes((a, summed), (b, summed_too), &mismatch);
        self.units.tie_axes((a, rows), (y, 0), &mismatch);
        self.units.tie_axes((b, columns), (y, 1), &mismatch);
        if !self.is_constant(node, 0) && !self.is_constant(node, 1) {
            self.units.pin_axis(a, summed, &pin(node, "two computed values are summed over it"));
        }
        if let Some(c) = self.input(node, 2) {
            self.broadcast(node, c, y, 0)?;
        }
        Some(())
    }

    /// A hidden unit is a row in each gate of W and R, a column of R, and an index of every state. Both directions of a
    /// bidirectional layer share tensors, so the same unit of both is removed.
    pub fn recurrent(&mut self, node: &NodeProto, gates: usize) -> Applied {
        let (x, w, r) = (self.input(node, 0)?, self.input(node, 1)?, self.input(node, 2)?);
        let [directions, rows, hidden] = self.units.shape(r).try_into().ok()?;
        let fits = self.rank(x) == 3
            && self.rank(w) == 3
            && rows == gates.checked_mul(hidden)?
            && self.units.len(w, 1) == rows;
        fits.then_some(())?;
        let mismatch = pin(node, "its tensors do not fit");
        let fixed = pin(node, "each direction has its own");
        for value in [w, r] {
            self.units.pin_axis(value, 0, &fixed);
        }
        self.units.tie_axes((x, 2), (w, 2), &mismatch);
        self.dynamic_weight(node, 1, x, 2);
        if !self.is_constant(node, 2) {
            self.units.pin_axis(r, 2, &pin(node, "its weights are computed"));
        }
        for unit in 0..hidden {
            for gate in 0..gates {
                for value in [w, r] {
                    self.units.tie(self.units.unit(value, 1, gate * hidden + unit), self.units.unit(r, 2, unit));
                }
            }
        }
        // Biases of W and R, then the peepholes of an LSTM.
        for (slot, parts) in [(3, 2 * gates), (7, 3)] {
            let Some(vector) = self.input(node, slot).filter(|_| slot == 3 || node.op() == "LSTM") else { continue };
            (self.units.shape(vector) == [directions, parts.checked_mul(hidden)?]).then_some(())?;
            self.units.pin_axis(vector, 0, &fixed);
            for index in 0..parts * hidden {
                self.units.tie(self.units.unit(vector, 1, index), self.units.unit(r, 2, index % hidden));
            }
        }
        if let Some(lens) = self.input(node, 4) {
            self.units.pin_value(lens, &mismatch);
        }
        let batch_first = node.int("layout", 0) == 1;
        let (time, batch) = if batch_first { (1, 0) } else { (0, 1) };
        for state in [self.input(node, 5), self.input(node, 6), self.output(node, 1), self.output(node, 2)] {
            let Some(state) = state else { continue };
            (self.rank(state) == 3).then_some(())?;
            self.units.tie_axes((state, 2), (r, 2), &mismatch);
            self.units.tie_axes((state, if batch_first { 0 } else { 1 }), (x, batch), &mismatch);
            self.units.pin_axis(state, if batch_first { 1 } else { 0 }, &fixed);
        }
        if let Some(y) = self.output(node, 0) {
            (self.rank(y) == 4).then_some(())?;
            self.units.tie_axes((y, 3), (r, 2), &mismatch);
            self.units.tie_axes((y, time), (x, time), &mismatch);
            self.units.tie_axes((y, if batch_first { 0 } else { 2 }), (x, batch), &mismatch);
            self.units.pin_axis(y, if batch_first { 2 } else { 1 }, &fixed);
        }
        Some(())
    }
}
