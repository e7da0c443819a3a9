//! Multiply-accumulates of one inference, by tract's cost of each op: all that a dense engine executes, and those with
//! a weight that is not zero. Without the second number a masked model looks as costly as the dense one; with the
//! second alone it looks as if every engine skipped zeros.

use anyhow::Result;
use espalier_protocol::Macs;
use tract_onnx::{
    prelude::*,
    tract_core::ops::{Cost, scan::Scan},
};

/// The model is decluttered and has no open dimensions.
pub fn count(model: &TypedModel) -> Result<Macs> {
    let mut macs = Macs { executed: 0, nonzero: 0 };
    for node in &model.nodes {
        let inputs: TVec<&TypedFact> = model.node_input_facts(node.id)?;
        if let Some(scan) = node.op_as::<Scan>() {
            let inner = count(&scan.body)?;
            let times = scan.iteration_count(&inputs).and_then(|times| integer(&times)).unwrap_or(1);
            macs.executed += inner.executed * times;
            macs.nonzero += inner.nonzero * times;
            continue;
        }
        // Only sums of products are counted here. tract has another cost for element-wise products.
        let sums_products = ["Conv", "EinSum", "DeconvSum", "Deconv", "MatMul"];
        if !sums_products.iter().any(|name| node.op().name().starts_with(name)) {
            continue;
        }
        for (cost, times) in node.op.cost(&inputs)? {
            if let Cost::FMA(_) = cost {
                let times = integer(&times).unwrap_or(0);
                macs.executed += times;
                macs.nonzero += (times as f64 * density(&inputs)).round() as u64;
            }
        }
    }
    Ok(macs)
}

fn integer(number: &TDim) -> Option<u64> {
    u64::try_from(number.to_i64().ok()?).ok()
}

/// The share of weights that are not zero. The weight is the largest constant among the inputs; a product of two
/// activations has none.
fn density(inputs: &[&TypedFact]) -> f64 {
    let weight = inputs.iter().filter_map(|fact| fact.konst.as_ref()).max_by_key(|tensor| tensor.len());
    let Some(values) = weight.and_then(|tensor| tensor.cast_to::<f32>().ok()) else { return 1.0 };
    let Ok(view) = values.to_plain_array_view::<f32>() else { return 1.0 };
    view.iter().filter(|value| **value != 0.0).count() as f64 / (view.len().max(1)) as f64
}
