//! What the runner's engine (tract 0.23.9) does not compute as ONNX says: one table of operators and attributes, each
//! rewritten to what it does compute, or refused by name. ONNX in, ONNX of the same meaning out.
//!
//! The table is the result of a comparison: thousands of generated models of one operator each, over all attributes and
//! operator sets 7 to 22, run by the runner and by onnxruntime (`tests/e2e/single.rs`). Nothing else is known to
//! differ. Where a model needs rewriting and is older than operator set 11, all of it is upgraded to 11 first.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::{GraphProto, Model, NodeProto, OnnxError, TensorProto};

mod around;
mod build;
mod moving;
mod recurrent;
mod refusal;
mod resize;
mod upgrade;
mod windows;

pub use refusal::Refusal;

use around::{Around, constants_of, shapes_of};
use build::{Build, Names};

/// The version of the rewrites in the keys of caches: raised whenever they make other bytes of the same model.
pub const REWRITES: u32 = 1;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotRunnable {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// At least one.
    #[error("{}", lines(.0))]
    Refused(Vec<Refusal>),
}

fn lines(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n")
}

type Applies = fn(&NodeProto, Around<'_>) -> bool;
type Rewrite = fn(&NodeProto, Around<'_>, &mut Build<'_>) -> Result<(), Refusal>;

enum Treatment {
    Rewritten(Rewrite),
    /// With what to do.
    Refused(&'static str),
}

/// A way in which the runner departs from ONNX.
struct Rule {
    operators: &'static [&'static str],
    /// For the message.
    attribute: &'static str,
    applies: Applies,
    treatment: Treatment,
}

const ANEW: &str = "the runner does not honour it; export the model without it";

use Treatment::{Refused, Rewritten};

const RULES: &[Rule] = &[
    Rule {
        operators: &["LSTM", "GRU", "RNN"],
        attribute: "direction",
        applies: |node, _| recurrent::needs_rewriting(node),
        treatment: Rewritten(|node, _, build| recurrent::rewrite(node, build)),
    },
    Rule {
        operators: &["ConvTranspose"],
        attribute: "output_shape",
        applies: |node, _| {
            node.ints("output_shape").is_some_and(|shape| !shape.is_empty())
                || node.text("auto_pad").is_some_and(|how| how.starts_with("SAME"))
        },
        treatment: Rewritten(|node, _, build| windows::conv_transpose(node, build)),
    },
    Rule {
        operators: &["GlobalLpPool"],
        attribute: "p",
        applies: |_, _| true,
        treatment: Rewritten(|node, _, build| windows::global_lp_pool(node, build)),
    },
    Rule {
        operators: &["LpPool"],
        attribute: "p",
        applies: |_, _| true,
        treatment: Rewritten(|node, _, build| windows::lp_pool(node, build)),
    },
    Rule {
        operators: &["AveragePool", "MaxPool"],
        attribute: "dilations",
        applies: |node, _| {
            node.text("auto_pad").is_some_and(|how| how.starts_with("SAME"))
                && node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|dilation| *dilation != 1))
        },
        treatment: Refused("engines differ in what `auto_pad` means with it; export the model with explicit `pads`"),
    },
    Rule {
        operators: &["MaxPool", "AveragePool"],
        attribute: "auto_pad",
        applies: |node, _| node.text("auto_pad") == Some("VALID") && node.is_set("ceil_mode"),
        treatment: Rewritten(|node, _, build| moving::without(node, &["auto_pad"], build)),
    },
    Rule {
        operators: &["MaxPool"],
        attribute: "storage_order",
        applies: |node, around| node.is_set("storage_order") && is_used(node, 1, around),
        treatment: Refused(ANEW),
    },
    Rule {
        operators: &["Celu"],
        attribute: "alpha",
        applies: |node, _| node.float("alpha", 1.0) != 1.0,
        treatment: Rewritten(|node, _, build| windows::celu(node, build)),
    },
    Rule {
        operators: &["MeanVarianceNormalization"],
        attribute: "axes",
        applies: |_, _| true,
        treatment: Rewritten(|node, _, build| moving::mean_variance(node, build)),
    },
    Rule {
        operators: &["Mean"],
        attribute: "",
        applies: |node, _| node.input.len() > 1,
        treatment: Rewritten(|node, _, build| moving::mean(node, build)),
    },
    Rule {
        operators: &["Mod"],
        attribute: "fmod",
        applies: moving::modulo_differs,
        treatment: Refused("the runner divides by one constant number only; export the model without it"),
    },
    Rule {
        operators: &["Pad"],
        attribute: "mode",
        applies: |node, _| node.text("mode") == Some("wrap"),
        treatment: Refused(ANEW),
    },
    Rule { operators: &["Pad"], attribute: "mode", applies: moving::pad_differs, treatment: Rewritten(moving::pad) },
    Rule {
        operators: &["Slice"],
        attribute: "steps",
        applies: |node, around| moving::ends_differ(node, around),
        treatment: Refused("engines differ in these bounds of a negative step; let it end at -9223372036854775808"),
    },
    Rule {
        operators: &["ConstantOfShape"],
        attribute: "value",
        applies: |node, _| node.attr("value").is_none(),
        treatment: Rewritten(|node, _, build| moving::constant_of_shape(node, build)),
    },
    Rule {
        operators: &["Dropout"],
        attribute: "mask",
        applies: |node, around| around.opset < 12 && is_used(node, 1, around),
        treatment: Refused("the runner has another mask than ONNX asks for; export the model without that output"),
    },
    Rule {
        operators: &["Dropout"],
        attribute: "training_mode",
        applies: |node, around| around.opset >= 12 && is_true(node, 2, around),
        treatment: Refused("the runner does not train; export the model for inference"),
    },
    Rule {
        operators: &["BatchNormalization"],
        attribute: "training_mode",
        applies: |node, _| node.is_set("training_mode"),
        treatment: Refused("the runner does not train; export the model for inference"),
    },
    Rule {
        operators: &["QuantizeLinear"],
        attribute: "output_dtype",
        applies: |node, _| node.int("output_dtype", 0) != 0 && node.input_at(2).is_none(),
        treatment: Refused("the runner takes the type from a zero point; export the model with one"),
    },
    Rule {
        operators: &["DFT"],
        attribute: "axis",
        applies: |_, around| around.opset >= 20,
        treatment: Refused("the runner knows it of operator sets 17 to 19; export the model with one of these"),
    },
    Rule {
        operators: &["GridSample"],
        attribute: "padding_mode",
        applies: |node, _| {
            node.text("mode").is_some_and(|mode| mode.ends_with("cubic"))
                && node.text("padding_mode").is_some_and(|mode| mode != "zeros")
        },
        treatment: Refused(ANEW),
    },
    Rule {
        operators: &["Resize"],
        attribute: "coordinate_transformation_mode",
        applies: |node, _| {
            let mode = node.text("coordinate_transformation_mode").unwrap_or_default();
            matches!(mode, "tf_crop_and_resize" | "half_pixel_symmetric")
        },
        treatment: Refused("the runner computes it otherwise; export the model with `half_pixel` or `align_corners`"),
    },
    Rule {
        operators: &["Resize"],
        attribute: "keep_aspect_ratio_policy",
        applies: |node, _| node.text("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch"),
        treatment: Refused("the runner computes it otherwise; export the model with the sizes themselves"),
    },
    Rule {
        operators: &["Resize"],
        attribute: "exclude_outside",
        applies: |node, _| node.is_set("exclude_outside"),
        treatment: Refused(ANEW),
    },
    Rule {
        operators: &["Resize"],
        attribute: "coordinate_transformation_mode",
        applies: resize::one_cubic_place,
        treatment: Refused("engines differ in it for an axis of one place; export the model with `half_pixel`"),
    },
    Rule {
        operators: &["Resize"],
        attribute: "scales",
        applies: resize::length_stays,
        treatment: Refused("the runner leaves an axis as it is where its length stays; export the model without it"),
    },
    Rule {
        operators: &["Resize"],
        attribute: "scales",
        applies: resize::scales_differ,
        treatment: Rewritten(|node, _, build| resize::with_sizes(node, build)),
    },
    Rule {
        operators: &[
            "AffineGrid",
            "Bernoulli",
            "CenterCropPad",
            "Col2Im",
            "Compress",
            "ConcatFromSequence",
            "DeformConv",
            "Det",
            "ImageDecoder",
            "Loop",
            "MaxRoiPool",
            "MaxUnpool",
            "NegativeLogLikelihoodLoss",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "RegexFullMatch",
            "ReverseSequence",
            "RoiAlign",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SoftmaxCrossEntropyLoss",
            "SplitToSequence",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "TfIdfVectorizer",
            "Unique",
        ],
        attribute: "",
        applies: |_, _| true,
        treatment: Refused("the runner has no such operator; export the model up to it, or without it"),
    },
];

fn is_used(node: &NodeProto, slot: usize, around: Around<'_>) -> bool {
    node.output_at(slot).is_some_and(|name| around.used.contains(name))
}

fn is_true(node: &NodeProto, slot: usize, around: Around<'_>) -> bool {
    around.ints(node, slot).is_some_and(|values| values.iter().any(|value| *value != 0))
}

/// The model as the runner computes it rightly: the same bytes, where it does so already.
///
/// # Errors
/// Everything that the runner would compute otherwise than ONNX says, and that has no rewrite.
pub fn runnable(source: &Bytes) -> Result<Bytes, NotRunnable> {
    let mut model = Model::decode(source)?;
    let mut opset = model.opset();
    // Whatever is of an older operator set than is known here, the runner refuses itself.
    if !needs_a_change(model.graph(), opset) {
        return Ok(source.clone());
    }
    let mut names = Names::of(model.graph());
    if (7..upgrade::TO).contains(&opset) {
        upgrade::upgrade(model.graph_mut(), opset, &mut names).map_err(NotRunnable::Refused)?;
        opset = upgrade::TO;
        for set in model.proto.opset_import.iter_mut().filter(|set| matches!(set.domain(), "" | "ai.onnx")) {
            set.version = Some(opset);
        }
    }
    let mut refused = Vec::new();
    changed(model.graph_mut(), opset, &HashMap::new(), &mut names, &mut refused);
    if refused.is_empty() { Ok(model.encode()) } else { Err(NotRunnable::Refused(refused)) }
}

fn needs_a_change(graph: &GraphProto, opset: i64) -> bool {
    // Versions of these operators that tract does not have, or reads as later ones.
    let is_old = |node: &NodeProto| match node.op() {
        "Upsample" => opset < upgrade::TO,
        "Resize" => opset < upgrade::TO,
        "TopK" | "Slice" => opset < 10,
        "Pad" => opset < upgrade::TO && node.ints("pads").is_some_and(|pads| pads.iter().any(|pad| *pad < 0)),
        _ => false,
    };
    let constants = constants_of(graph, &HashMap::new());
    let used = graph.used_names().into_iter().map(str::to_owned).collect();
    let shapes = shapes_of(graph, &constants);
    let around = Around { opset, constants: &constants, shapes: &shapes, used: &used };
    graph.node.iter().any(|node| {
        is_old(node) || rule(node, around).is_some() || node.subgraphs().any(|inner| needs_a_change(inner, opset))
    })
}

fn rule(node: &NodeProto, around: Around<'_>) -> Option<&'static Rule> {
    let operator = node.op();
    RULES.iter().find(|rule| rule.operators.contains(&operator) && (rule.applies)(node, around))
}

/// Applies the rules until none applies, in subgraphs too.
fn changed(
    graph: &mut GraphProto,
    opset: i64,
    outer: &HashMap<String, TensorProto>,
    names: &mut Names,
    refused: &mut Vec<Refusal>,
) {
    let constants = constants_of(graph, outer);
    let used = graph.used_names().into_iter().map(str::to_owned).collect();
    let shapes = shapes_of(graph, &constants);
    let around = Around { opset, constants: &constants, shapes: &shapes, used: &used };
    let mut nodes = Vec::new();
    let mut queue: VecDeque<NodeProto> = std::mem::take(&mut graph.node).into();
    while let Some(mut node) = queue.pop_front() {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                changed(inner, opset, &constants, names, refused);
            }
        }
        match rule(&node, around) {
            None => nodes.push(node),
            Some(Rule { treatment: Treatment::Refused(why), attribute, .. }) => {
                refused.push(Refusal::of(&node, attribute, why));
            }
            Some(Rule { treatment: Treatment::Rewritten(rewrite), .. }) => {
                let mut build = Build::instead_of(&node, names, opset);
                match rewrite(&node, around, &mut build) {
                    Ok(()) => nodes.append(&mut build.nodes),
                    Err(refusal) => refused.push(refusal),
                }
            }
        }
    }
    graph.node = nodes;
}

#[cfg(test)]
mod tests;
