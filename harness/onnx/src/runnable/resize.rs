//! `Resize` with corners aligned: the runner takes `scale * length` for the output's length, onnxruntime the whole
//! number below. Where these differ, the sizes are computed in the graph and given instead of the scales.

use super::{
    around::Around,
    build::{Build, int},
    refusal::Refusal,
};
use crate::NodeProto;

pub(super) fn scales_differ(node: &NodeProto, around: Around<'_>) -> bool {
    let whole = |scales: Vec<f32>| scales.iter().all(|scale| scale.fract() == 0.0);
    around.opset >= 11
        && node.text("coordinate_transformation_mode") == Some("align_corners")
        && node.input_at(3).is_none()
        && node.input_at(2).is_some()
        && !around.floats(node, 2).is_some_and(whole)
}

/// Whether a scale is not 1, and too little to make an axis longer.
pub(super) fn length_stays(node: &NodeProto, around: Around<'_>) -> bool {
    let scales = around.floats(node, 2).filter(|_| around.opset >= 11).unwrap_or_default();
    let axes = node.ints("axes").map_or_else(|| (0..scales.len() as i64).collect(), <[i64]>::to_vec);
    axes.iter().zip(&scales).any(|(axis, scale)| {
        let length = around.length(node, 0, *axis);
        *scale > 1.0 && length.is_some_and(|length| (length as f32 * scale).floor() == length as f32)
    })
}

/// Whether a cubic `pytorch_half_pixel` has an axis of one place: engines differ in where that is.
pub(super) fn one_cubic_place(node: &NodeProto, around: Around<'_>) -> bool {
    let is_such =
        node.text("coordinate_transformation_mode") == Some("pytorch_half_pixel") && node.text("mode") == Some("cubic");
    let (scales, sizes) = (around.floats(node, 2).unwrap_or_default(), around.ints(node, 3).unwrap_or_default());
    let axes = node.ints("axes").map_or_else(|| (0..scales.len().max(sizes.len()) as i64).collect(), <[i64]>::to_vec);
    let is_one = |(at, axis): (usize, &i64)| {
        let length = around.length(node, 0, *axis).unwrap_or(1);
        let scaled = scales.get(at).map(|scale| (length as f32 * scale).floor() as i64);
        length != 1 && sizes.get(at).copied().or(scaled) == Some(1)
    };
    is_such && axes.iter().enumerate().any(is_one)
}

pub(super) fn with_sizes(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let (x, scales) = (node.input_at(0).unwrap_or_default(), node.input_at(2).unwrap_or_default());
    let mut lengths = build.node("Shape", &[x], Vec::new());
    if let Some(axes) = node.ints("axes") {
        let axes = build.ints(axes);
        lengths = build.node("Gather", &[&lengths, &axes], vec![int("axis", 0)]);
    }
    let lengths = build.node("Cast", &[&lengths], vec![int("to", 1)]);
    let scaled = build.node("Mul", &[&lengths, scales], Vec::new());
    let whole = build.node("Floor", &[&scaled], Vec::new());
    let sizes = build.node("Cast", &[&whole], vec![int("to", 7)]);
    let mut plain = node.clone();
    let roi = node.input_at(1).unwrap_or_default().to_owned();
    // Before operator set 13 scales are there and empty.
    let empty = if build.opset() < 13 { build.floats(&[]) } else { String::new() };
    plain.input = vec![x.to_owned(), roi, empty, sizes];
    build.nodes.push(plain);
    Ok(())
}
