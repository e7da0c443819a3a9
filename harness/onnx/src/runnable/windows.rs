//! Transposed convolutions that are told their output's shape, and pools by norms, in operators that the runner
//! computes as ONNX says. Lengths that only the run knows are computed in the graph.

use super::{
    build::{Build, float, int},
    refusal::Refusal,
};
use crate::NodeProto;

/// `ConvTranspose` with `output_shape`, or with an `auto_pad` that says it: the convolution without padding, of which a
/// part is cut out. Formulas as in ONNX's documentation: `total = full length - output_shape`, and of an odd total the
/// start gets more, with `SAME_UPPER` the end.
pub(super) fn conv_transpose(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let auto_pad = node.text("auto_pad").unwrap_or("NOTSET").to_owned();
    let given = node.ints("output_shape").filter(|shape| !shape.is_empty());
    let Some(rank) = spatial_rank(node, given) else {
        let why = "the runner computes this only where `kernel_shape`, `strides` or `output_shape` say how many axes \
                   there are; export the model with explicit `pads`";
        return Err(Refusal::of(node, if given.is_some() { "output_shape" } else { "auto_pad" }, why));
    };
    let given = given.map(|shape| shape[shape.len() - rank..].to_vec());
    let mut full = node.clone();
    full.attribute.retain(|attribute| !matches!(attribute.name(), "output_shape" | "auto_pad" | "pads"));
    full.output = vec![build.name("full")];
    let of_full = full.output[0].clone();
    build.nodes.push(full);

    let (first, last) = (2, 2 + rank as i64);
    let lengths = build.lengths(&of_full, first, last);
    let requested = match &given {
        Some(shape) => build.ints(shape),
        None => {
            let x = node.input_at(0).unwrap_or_default();
            let of_x = build.lengths(x, first, last);
            let strides = build.ints(&node.ints("strides").map_or_else(|| vec![1; rank], <[i64]>::to_vec));
            build.node("Mul", &[&of_x, &strides], Vec::new())
        }
    };
    let total = build.node("Sub", &[&lengths, &requested], Vec::new());
    let total = if auto_pad == "SAME_UPPER" {
        total
    } else {
        let one = build.ints(&[1]);
        build.node("Add", &[&total, &one], Vec::new())
    };
    let two = build.ints(&[2]);
    let starts = build.node("Div", &[&total, &two], Vec::new());
    let ends = build.node("Add", &[&starts, &requested], Vec::new());
    let axes = build.ints(&(first..last).collect::<Vec<i64>>());
    let cut = build.node("Slice", &[&of_full, &starts, &ends, &axes], Vec::new());
    // A longer output than there is would be cut short in silence: this fails instead.
    let lead = build.lengths(&of_full, 0, 2);
    let shape = build.node("Concat", &[&lead, &requested], vec![int("axis", 0)]);
    build.named("Reshape", &[&cut, &shape], Vec::new(), &node.output[0]);
    Ok(())
}

fn spatial_rank(node: &NodeProto, output_shape: Option<&[i64]>) -> Option<usize> {
    let known = ["kernel_shape", "strides", "dilations", "output_padding"].iter().find_map(|name| node.ints(name));
    known.or(output_shape).map(<[i64]>::len)
}

/// `(Σ|x|^p)^(1/p)` over the whole plane: a mean, times how many there are.
pub(super) fn global_lp_pool(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let (x, p) = (node.input_at(0).unwrap_or_default(), exponent(node)?);
    let powers = powers(build, x, p);
    let mean = build.node("GlobalAveragePool", &[&powers], Vec::new());
    let lengths = build.lengths(x, 2, i64::MAX);
    let lengths = build.node("Cast", &[&lengths], vec![int("to", 1)]);
    let count = build.node("ReduceProd", &[&lengths], vec![int("keepdims", 0)]);
    let sum = build.node("Mul", &[&mean, &count], Vec::new());
    root(build, &sum, p, &node.output[0]);
    Ok(())
}

/// Likewise over windows: with padding counted, each mean is of as many places as the window has.
pub(super) fn lp_pool(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let (x, p) = (node.input_at(0).unwrap_or_default(), exponent(node)?);
    let kernel = node.ints("kernel_shape").unwrap_or_default();
    let dilated = node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|dilation| *dilation != 1));
    for (attribute, is_set) in [("ceil_mode", node.is_set("ceil_mode")), ("dilations", dilated)] {
        if is_set {
            let why = "the runner has no such pool by norms; export the model without it";
            return Err(Refusal::of(node, attribute, why));
        }
    }
    let powers = powers(build, x, p);
    let mut attributes = node.attribute.clone();
    attributes.retain(|attribute| !matches!(attribute.name(), "p" | "ceil_mode" | "dilations"));
    attributes.push(int("count_include_pad", 1));
    let mean = build.node("AveragePool", &[&powers], attributes);
    let count = build.float(kernel.iter().product::<i64>() as f32);
    let sum = build.node("Mul", &[&mean, &count], Vec::new());
    root(build, &sum, p, &node.output[0]);
    Ok(())
}

fn exponent(node: &NodeProto) -> Result<i64, Refusal> {
    let p = node.int("p", 2);
    if p >= 1 { Ok(p) } else { Err(Refusal::of(node, "p", "a norm has an exponent of at least 1")) }
}

fn powers(build: &mut Build<'_>, x: &str, p: i64) -> String {
    if p == 2 {
        return build.node("Mul", &[x, x], Vec::new());
    }
    let magnitudes = build.node("Abs", &[x], Vec::new());
    if p == 1 {
        return magnitudes;
    }
    let exponent = build.float(p as f32);
    build.node("Pow", &[&magnitudes, &exponent], Vec::new())
}

fn root(build: &mut Build<'_>, x: &str, p: i64, output: &str) {
    match p {
        1 => build.identity(x, output),
        2 => build.named("Sqrt", &[x], Vec::new(), output),
        _ => {
            let exponent = build.float(1.0 / p as f32);
            build.named("Pow", &[x, &exponent], Vec::new(), output);
        }
    }
}

/// `Celu(x) = alpha · Elu(x / alpha)`.
pub(super) fn celu(node: &NodeProto, build: &mut Build<'_>) -> Result<(), Refusal> {
    let (x, alpha) = (node.input_at(0).unwrap_or_default(), node.float("alpha", 1.0));
    if alpha <= 0.0 {
        return Err(Refusal::of(node, "alpha", "the runner computes it above 0 only"));
    }
    let (by, alpha) = (build.float(1.0 / alpha), build.float(alpha));
    let scaled = build.node("Mul", &[x, &by], Vec::new());
    let elu = build.node("Elu", &[&scaled], vec![float("alpha", 1.0)]);
    build.named("Mul", &[&elu, &alpha], Vec::new(), &node.output[0]);
    Ok(())
}
