//! Operators that move, fill or combine elements, where the runner departs from ONNX in a corner.

use super::{
    around::Around,
    build::{Build, attribute_of_zero, int, ints},
    refusal::Refusal,
};
use crate::NodeProto;

/// The node without these attributes, whose defaults mean the same.
pub(super) fn without(node: &NodeProto, attributes: &[&str], build: &mut Build<'_>) -> Result<(), Refusal> {
    let mut plain = node.clone();
    plain.attribute.retain(|attribute| !attributes.contains(&attribute.name()));
    build.nodes.push(plain);
    Ok(())
}

/// As ONNX defines it. The runner computes the variance as a difference of squares, which may be below 0.
pub(super) fn mean_variance(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let x = node.input_at(0).unwrap_or_default();
    let axes = node.ints("axes").map_or_else(|| vec![0, 2, 3], <[i64]>::to_vec);
    let mean = build.mean(x, &axes);
    let centred = build.node("Sub", &[x, &mean], Vec::new());
    let squares = build.node("Mul", &[&centred, &centred], Vec::new());
    let variance = build.mean(&squares, &axes);
    let deviation = build.node("Sqrt", &[&variance], Vec::new());
    let epsilon = build.float(1e-9);
    let deviation = build.node("Add", &[&deviation, &epsilon], Vec::new());
    build.named("Div", &[&centred, &deviation], Vec::new(), &node.output[0]);
    Ok(())
}

/// The sum, over how many: the runner refuses inputs of different rank here, and not there.
pub(super) fn mean(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let sum = build.node("Sum", &inputs, Vec::new());
    let by = build.float(1.0 / inputs.len() as f32);
    build.named("Mul", &[&sum, &by], Vec::new(), &node.output[0]);
    Ok(())
}

/// The runner takes the divisor for the dividend where it broadcasts, except a divisor of one element.
pub(super) fn modulo_differs(node: &NodeProto, around: Around<'_>) -> bool {
    let elements = |slot: usize| Some(around.constants.get(node.input_at(slot)?)?.dims.iter().product::<i64>());
    elements(1) != Some(1)
}

/// Negative pads, or a value beside a mode that has none, which the runner would fill in all the same.
pub(super) fn pad_differs(node: &NodeProto, around: Around<'_>) -> bool {
    let is_constant = node.text("mode").is_none_or(|mode| mode == "constant");
    let negative = around.ints(node, 1).is_some_and(|pads| pads.iter().any(|pad| *pad < 0));
    around.opset >= 11 && (negative || !is_constant && node.input_at(2).is_some())
}

/// Negative pads are cut off first, as onnxruntime does.
pub(super) fn pad(node: &NodeProto, around: Around<'_>, build: &mut Build<'_>) -> Result<(), Refusal> {
    let mut plain = node.clone();
    if node.text("mode").is_some_and(|mode| mode != "constant") && plain.input.len() > 2 {
        plain.input[2] = String::new();
    }
    let pads = around.ints(node, 1).unwrap_or_default();
    if pads.iter().any(|pad| *pad < 0) {
        let rank = pads.len() / 2;
        let axes = match node.input_at(3) {
            None => (0..rank as i64).collect(),
            Some(_) => match around.ints(node, 3) {
                Some(axes) => axes,
                None => return Err(Refusal::of(node, "pads", "negative ones need constant `axes`")),
            },
        };
        let starts: Vec<i64> = pads[..rank].iter().map(|pad| -pad.min(&0)).collect();
        let ends: Vec<i64> = pads[rank..].iter().map(|pad| if *pad < 0 { *pad } else { i64::MAX }).collect();
        plain.input[0] = build.slice(&node.input[0], &starts, &ends, &axes, &vec![1; rank]);
        plain.input[1] = build.ints(&pads.iter().map(|pad| *pad.max(&0)).collect::<Vec<i64>>());
    }
    while plain.input.last().is_some_and(String::is_empty) {
        plain.input.pop();
    }
    build.nodes.push(plain);
    Ok(())
}

/// Bounds of a negative step that lie beyond the end they run to, or begin before the start.
pub(super) fn ends_differ(node: &NodeProto, around: Around<'_>) -> bool {
    const FAR: i64 = i32::MAX as i64;
    let constant = |slot: usize| around.ints(node, slot).unwrap_or_default();
    let (starts, ends, steps) = (constant(1), constant(2), constant(4));
    let axes = around.ints(node, 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let differs = |at: usize| {
        let (Some(start), Some(end), Some(step)) = (starts.get(at), ends.get(at), steps.get(at)) else { return false };
        let length = axes.get(at).and_then(|axis| around.length(node, 0, *axis)).unwrap_or(FAR);
        *step < 0 && (*end >= FAR || *start < -length)
    };
    (0..steps.len()).any(differs)
}

/// The default value, said: the runner takes it for a wide float.
pub(super) fn constant_of_shape(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let mut plain = node.clone();
    plain.attribute.push(attribute_of_zero());
    build.nodes.push(plain);
    Ok(())
}

impl Build<'_> {
    fn mean(&mut self, x: &str, axes: &[i64]) -> String {
        let keep = int("keepdims", 1);
        if self.opset() >= 18 {
            let axes = self.ints(axes);
            return self.node("ReduceMean", &[x, &axes], vec![keep]);
        }
        self.node("ReduceMean", &[x], vec![keep, ints("axes", axes)])
    }
}
