//! Writes zeros where weights were, and nothing else.
//!
//! The pruned file is a copy of the dense one with four bytes changed for each removed weight: whatever else is in the file stays as it was,
//! even what this version of the schema does not know. Only where weights are kept as a list of floats (a rare, older form) is the file
//! encoded anew.

use espalier_onnx::Bytes;

use crate::{
    PruneError,
    onnx::Model,
    prunable::{Survey, Weight},
    select::Cut,
    tensor::Values,
};

/// What became of the tensors of a survey, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub removed: u64,
    /// Weights that are zero now, removed or zero before.
    pub zeros: u64,
}

/// # Errors
/// Those of [`Values::of`].
pub fn remove(
    mut model: Model,
    survey: &Survey,
    mut cut: Cut,
    importance: impl Fn(f32) -> u32,
) -> Result<(Bytes, Vec<Count>), PruneError> {
    let mut patched = model.source().to_vec();
    let mut lists = Vec::new();
    let mut counts = Vec::new();
    for weight in &survey.weights {
        let tensor = weight.place.tensor(model.graph());
        let mut count = Count::default();
        let mut goes = |value: f32| {
            let removed = cut.removes(importance(value));
            count.removed += u64::from(removed);
            count.zeros += u64::from(removed || value == 0.0);
            removed
        };
        match Values::of(&weight.name, tensor)? {
            Values::Raw(values) if !values.is_empty() => {
                let offset = raw_offset(&model, weight);
                let out = &mut patched[offset..offset + 4 * values.len()];
                for (value, out) in values.iter().zip(out.as_chunks_mut().0) {
                    if goes(f32::from_le_bytes(*value)) {
                        *out = 0.0f32.to_le_bytes();
                    }
                }
            }
            Values::Raw(_) => {}
            Values::Floats(values) => {
                let kept = values.iter().map(|value| if goes(*value) { 0.0 } else { *value }).collect::<Vec<_>>();
                lists.push((weight, kept));
            }
        }
        counts.push(count);
    }

    let patched = Bytes::from(patched);
    if lists.iter().all(|(_, kept)| kept.is_empty()) {
        return Ok((patched, counts));
    }
    for weight in &survey.weights {
        let raw = &weight.place.tensor(model.graph()).raw_data;
        if let Some(len) = raw.as_ref().map(Bytes::len).filter(|len| *len > 0) {
            let offset = raw_offset(&model, weight);
            weight.place.tensor_mut(model.graph_mut()).raw_data = Some(patched.slice(offset..offset + len));
        }
    }
    for (weight, kept) in lists {
        weight.place.tensor_mut(model.graph_mut()).float_data = kept;
    }
    Ok((model.encode(), counts))
}

fn raw_offset(model: &Model, weight: &Weight) -> usize {
    let raw = weight.place.tensor(model.graph()).raw_data.as_ref();
    raw.and_then(|raw| model.offset(raw)).expect("decoding slices the file, it does not copy weights")
}
