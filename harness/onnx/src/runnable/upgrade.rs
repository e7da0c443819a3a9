//! Models of the standard operators in versions 7 to 10 as version 11, which means the same: what was an attribute
//! becomes an input, and what was left open is said.

use std::collections::{HashMap, HashSet};

use super::{
    around::{Around, constants_of},
    build::{Build, Names, text},
    refusal::Refusal,
};
use crate::{GraphProto, NodeProto};

pub(super) const TO: i64 = 11;

/// # Errors
/// What version 11 cannot say.
pub(super) fn upgrade(graph: &mut GraphProto, opset: i64, names: &mut Names) -> Result<(), Vec<Refusal>> {
    let constants = constants_of(graph, &HashMap::new());
    let around = Around { opset, constants: &constants, shapes: &HashMap::new(), used: &HashSet::new() };
    let mut refused = Vec::new();
    let mut nodes = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                if let Err(inner) = upgrade(inner, opset, names) {
                    refused.extend(inner);
                }
            }
        }
        let mut build = Build::instead_of(&node, names, TO);
        match upgraded(&node, around, &mut build) {
            Ok(()) if build.nodes.is_empty() => nodes.push(node),
            Ok(()) => nodes.append(&mut build.nodes),
            Err(refusal) => refused.push(refusal),
        }
    }
    graph.node = nodes;
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Adds no node where the node means the same already.
fn upgraded(node: &NodeProto, around: Around<'_>, build: &mut Build<'_>) -> Result<(), Refusal> {
    let opset = around.opset;
    let input = |slot: usize| node.input_at(slot).unwrap_or_default();
    let mut plain = node.clone();
    let mut changed = |names: &[&str], inputs: Vec<String>| {
        plain.attribute.retain(|attribute| !names.contains(&attribute.name()));
        plain.input = inputs;
    };
    match node.op() {
        "Upsample" | "Resize" if opset < TO => return resize(node, around, build),
        "Slice" if opset < 10 => {
            let [starts, ends] = ["starts", "ends"].map(|name| build.ints(node.ints(name).unwrap_or_default()));
            let mut inputs = vec![input(0).to_owned(), starts, ends];
            inputs.extend(node.ints("axes").map(|axes| build.ints(axes)));
            changed(&["starts", "ends", "axes"], inputs);
        }
        "TopK" if opset < 10 => {
            let k = build.ints(&[node.int("k", 1)]);
            changed(&["k"], vec![input(0).to_owned(), k]);
        }
        "Clip" => {
            let mut bound = |name: &str| node.optional_float(name).map_or(String::new(), |bound| build.float(bound));
            changed(&["min", "max"], vec![input(0).to_owned(), bound("min"), bound("max")]);
        }
        "Pad" => {
            let pads = build.ints(node.ints("pads").unwrap_or_default());
            let value = node.optional_float("value").map(|value| build.float(value));
            changed(&["pads", "value"], [input(0).to_owned(), pads].into_iter().chain(value).collect());
        }
        "Scatter" => plain.op_type = Some("ScatterElements".into()),
        "BatchNormalization" if node.int("spatial", 1) == 0 => {
            let why = "statistics of each place are gone since operator set 9; export the model anew";
            return Err(Refusal::of(node, "spatial", why));
        }
        "BatchNormalization" => changed(&["spatial"], node.input.clone()),
        "Scan" if opset < 9 => {
            return Err(Refusal::of(node, "body", "`Scan` has another meaning since operator set 9; export it anew"));
        }
        _ => return Ok(()),
    }
    build.nodes.push(plain);
    Ok(())
}

/// Before version 11 both ask at `x_output / scale`. Which place is the nearest was not said: onnxruntime takes the one
/// below where it enlarges, the one above where it shrinks.
fn resize(node: &NodeProto, around: Around<'_>, build: &mut Build<'_>) -> Result<(), Refusal> {
    let given = node.attr("scales").map(|scales| scales.floats.clone());
    let known = given.clone().or_else(|| around.floats(node, 1)).unwrap_or_default();
    let (enlarges, shrinks) = (known.iter().any(|scale| *scale > 1.0), known.iter().any(|scale| *scale < 1.0));
    let scales = match given {
        Some(scales) => build.floats(&scales),
        None => node.input_at(1).unwrap_or_default().to_owned(),
    };
    let mode = match node.text("mode").unwrap_or("nearest").to_lowercase().as_str() {
        "bilinear" | "linear" => "linear",
        "nearest" if enlarges && shrinks => {
            return Err(Refusal::of(
                node,
                "scales",
                "they enlarge and shrink at once; export operator set 11 or later",
            ));
        }
        "nearest" => "nearest",
        _ => return Err(Refusal::of(node, "mode", "ONNX knows `nearest` and `linear` here")),
    };
    let roi = build.floats(&[]);
    let mut attributes = vec![text("mode", mode), text("coordinate_transformation_mode", "asymmetric")];
    let nearest = if shrinks { "ceil" } else { "floor" };
    attributes.extend((mode == "nearest").then(|| text("nearest_mode", nearest)));
    build.named("Resize", &[node.input_at(0).unwrap_or_default(), &roi, &scales], attributes, &node.output[0]);
    Ok(())
}
