//! Rules of the operators that move, cut and repeat values without computing anything.

use super::{
    probe::axes_of,
    reshape::Regroup,
    rules::Rules,
    units::{Value, pin},
};
use crate::onnx::{NodeProto, axis_of};

type Applied = Option<()>;

impl Rules<'_> {
    pub fn transpose(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        let perm: Vec<usize> = match node.ints("perm").filter(|perm| !perm.is_empty()) {
            Some(perm) => perm.iter().map(|axis| axis_of(*axis, rank)).collect::<Option<_>>()?,
            None => (0..rank).rev().collect(),
        };
        (perm.len() == rank && self.rank(y) == rank).then_some(())?;
        let mismatch = pin(node, "its axes do not fit");
        for (to, from) in perm.into_iter().enumerate() {
            self.units.tie_axes((x, from), (y, to), &mismatch);
        }
        Some(())
    }

    pub fn concat(&mut self, node: &NodeProto) -> Applied {
        let y = self.output(node, 0)?;
        let axis = axis_of(node.int("axis", 1), self.rank(y))?;
        self.hold_open(node, node.output_at(0), axis);
        let mut offset = 0;
        for slot in 0..node.input.len() {
            let x = self.input(node, slot)?;
            offset = self.part(node, x, y, axis, offset)?;
        }
        (offset == self.units.len(y, axis)).then_some(())
    }

    pub fn split(&mut self, node: &NodeProto) -> Applied {
        let x = self.input(node, 0)?;
        let axis = axis_of(node.int("axis", 0), self.rank(x))?;
        self.hold_open(node, node.input_at(0), axis);
        let mut offset = 0;
        for slot in 0..node.output.len() {
            let y = self.output(node, slot)?;
            offset = self.part(node, y, x, axis, offset)?;
        }
        (offset == self.units.len(x, axis)).then_some(())
    }

    /// Ties `part` to a stretch of `whole` that begins at `offset`; returns where it ends.
    fn part(&mut self, node: &NodeProto, part: Value, whole: Value, axis: usize, offset: usize) -> Option<usize> {
        (self.rank(part) == self.rank(whole)).then_some(())?;
        let mismatch = pin(node, "its parts do not fit");
        let end = offset.checked_add(self.units.len(part, axis)).filter(|end| *end <= self.units.len(whole, axis))?;
        for other in (0..self.rank(whole)).filter(|other| *other != axis) {
            self.units.tie_axes((part, other), (whole, other), &mismatch);
        }
        for index in offset..end {
            self.units.tie(self.units.unit(part, axis, index - offset), self.units.unit(whole, axis, index));
        }
        Some(end)
    }

    pub fn slice(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let rank = self.rank(x);
        (self.rank(y) == rank).then_some(())?;
        let cut = pin(node, "it is cut at a place that is not constant, or with a step");
        let sliced = match axes_of(node, 3, rank, self.probe)? {
            Some(axes) => axes,
            None => (0..starts_of(node, self)?.len()).collect(),
        };
        for axis in 0..rank {
            let Some(place) = sliced.iter().position(|sliced| *sliced == axis) else {
                self.units.tie_axes((x, axis), (y, axis), &cut);
                continue;
            };
            let (from, to) = (self.units.len(x, axis), self.units.len(y, axis));
            self.hold_open(node, node.input_at(0), axis);
            match stretch(node, self, place, from) {
                Some((start, end)) if end - start == to => {
                    for index in start..end {
                        self.units.tie(self.units.unit(x, axis, index), self.units.unit(y, axis, index - start));
                    }
                }
                _ => {
                    self.units.pin_axis(x, axis, &cut);
                    self.units.pin_axis(y, axis, &cut);
                }
            }
        }
        Some(())
    }

    pub fn gather(&mut self, node: &NodeProto) -> Applied {
        let (data, indices, y) = (self.input(node, 0)?, self.input(node, 1)?, self.output(node, 0)?);
        let axis = axis_of(node.int("axis", 0), self.rank(data))?;
        let within = self.rank(indices);
        (self.rank(y) + 1 == self.rank(data) + within).then_some(())?;
        let looked_up = pin(node, "it is looked up by index");
        self.units.pin_axis(data, axis, &looked_up);
        for before in 0..axis {
            self.units.tie_axes((data, before), (y, before), &looked_up);
        }
        for inner in 0..within {
            self.units.tie_axes((indices, inner), (y, axis + inner), &looked_up);
        }
        for after in axis + 1..self.rank(data) {
            self.units.tie_axes((data, after), (y, after + within - 1), &looked_up);
        }
        Some(())
    }

    /// Along expanded axes the same value is repeated: they may have any length.
    pub fn expand(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        self.broadcast(node, x, y, 0)?;
        self.lengths(node, 1, y)
    }

    pub fn constant_of_shape(&mut self, node: &NodeProto) -> Applied {
        let y = self.output(node, 0)?;
        self.lengths(node, 0, y)
    }

    /// Lengths given by constants can be changed.
    fn lengths(&mut self, node: &NodeProto, slot: usize, y: Value) -> Applied {
        let elements = self.probe.elements(node.input_at(slot)?);
        let shift = elements.as_ref().map_or(0, |elements| self.rank(y).saturating_sub(elements.len()));
        let open = pin(node, "its length is computed");
        for axis in 0..self.rank(y) {
            let fixed = axis < shift
                || elements.as_ref().is_some_and(|elements| elements.get(axis - shift).is_some_and(Option::is_some));
            if !fixed {
                self.units.pin_axis(y, axis, &open);
            }
        }
        Some(())
    }

    pub fn pad(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        (node.input.len() < 4).then_some(())?;
        let pads = match node.ints("pads") {
            Some(pads) => pads.to_vec(),
            None => self.probe.integers(node.input_at(1)?)?,
        };
        let rank = self.rank(x);
        (pads.len() == 2 * rank).then_some(())?;
        let padded: Vec<usize> = (0..rank).filter(|axis| pads[*axis] != 0 || pads[axis + rank] != 0).collect();
        self.one_to_one(node, x, y, &padded, "it is padded")
    }

    pub fn regroup(&mut self, node: &NodeProto) -> Applied {
        let (x, y) = (self.input(node, 0)?, self.output(node, 0)?);
        let target = (node.op() == "Reshape").then(|| node.input_at(1).and_then(|name| self.probe.elements(name)));
        let (from, to) = (self.units.shape(x).to_vec(), self.units.shape(y).to_vec());
        let regroups = Regroup::of(node, (x, &from), (y, &to))?;
        if !self.is_regrouped_alike(node, &regroups, &from) {
            let pin = pin(node, "which axes it becomes depends on the lengths of the inputs");
            [x, y].into_iter().for_each(|value| self.units.pin_value(value, &pin));
            return Some(());
        }
        if let Some(target) = target {
            // Axes of a computed length stay.
            let open = pin(node, "its length is computed");
            for axis in 0..to.len() {
                if !target.as_ref().is_some_and(|target| target.get(axis).is_some_and(Option::is_some)) {
                    self.units.pin_axis(y, axis, &open);
                }
            }
        }
        for regroup in regroups {
            match regroup {
                Regroup::Same { from, to } => self.units.tie_axes(from, to, &pin(node, "its axes do not fit")),
                other => self.regroups.push(other),
            }
        }
        Some(())
    }
}

impl Rules<'_> {
    /// Whether a run with other lengths regroups axes in the same way. Axes of length 1 in the first run stay anyway.
    fn is_regrouped_alike(&self, node: &NodeProto, regroups: &[Regroup], from: &[usize]) -> bool {
        let second = |name: Option<&str>| self.probe.second_shape(name?);
        let (Some(x), Some(y)) = (self.input(node, 0), self.output(node, 0)) else { return false };
        let (Some(first), Some(to)) = (second(node.input_at(0)), second(node.output_at(0))) else { return false };
        let is_single =
            |regroup: &Regroup| matches!(regroup, Regroup::Same { from: (_, axis), .. } if from[*axis] == 1);
        Regroup::of(node, (x, first), (y, to))
            .is_some_and(|other| other.into_iter().filter(|regroup| !is_single(regroup)).eq(regroups.iter().cloned()))
    }

    /// Holds an axis that is cut or joined at places, where those are not the same for every input.
    fn hold_open(&mut self, node: &NodeProto, name: Option<&str>, axis: usize) {
        let fixed = name.is_some_and(|name| self.probe.has_fixed_length(name, axis));
        if !fixed && let Some(value) = name.and_then(|name| self.units.value(name)) {
            self.units.pin_axis(value, axis, &pin(node, "it is cut or joined at places that depend on the inputs"));
        }
    }
}

fn starts_of(node: &NodeProto, rules: &Rules<'_>) -> Option<Vec<i64>> {
    match node.ints("starts") {
        Some(starts) => Some(starts.to_vec()),
        None => rules.probe.integers(node.input_at(1)?),
    }
}

/// Where the `place`-th axis of a `Slice` begins and ends; `None` for another step than 1.
fn stretch(node: &NodeProto, rules: &Rules<'_>, place: usize, len: usize) -> Option<(usize, usize)> {
    let known = |name: &str, slot: usize| match node.ints(name) {
        Some(values) => values.get(place).copied(),
        None => rules.probe.elements(node.input_at(slot)?)?.get(place).copied().flatten(),
    };
    let step = if node.input_at(4).is_some() { known("steps", 4)? } else { 1 };
    let clamp = |at: i64| (if at < 0 { at.saturating_add(len as i64) } else { at }).clamp(0, len as i64) as usize;
    let (start, end) = (clamp(known("starts", 1)?), clamp(known("ends", 2)?));
    (step == 1 && start <= end).then_some((start, end))
}
