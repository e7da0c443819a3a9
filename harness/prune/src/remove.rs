//! Writes zeros in place of weights, or other values, and nothing else.
//!
//! The new file is a copy of the old one with four bytes changed for each weight: everything else stays, even what this
//! version of the schema does not know. Only where weights are stored as a list of floats (a rare, older form) is the
//! file encoded anew.

use std::collections::HashMap;

use espalier_onnx::Bytes;

use crate::{
    Mask, PruneError,
    onnx::{Model, TensorProto, tensor_proto::DataType},
    prunable::{Place, Survey, constants},
    tensor::Values,
};

/// The model without the weights of a mask.
///
/// # Errors
/// A mask or a survey of another model.
pub fn apply(model: &Bytes, survey: &Survey, mask: &Mask) -> Result<Bytes, PruneError> {
    let model = Model::decode(model)?;
    let mut patch = Patch::of(&model);
    for (index, weight) in survey.weights.iter().enumerate() {
        let removed = mask.0.get(index).filter(|removed| removed.len() as u64 == weight.count).ok_or_else(|| {
            let why = format!("there are not {} for `{}`", weight.count, weight.name);
            PruneError::Mismatch { what: "removed weights", why }
        })?;
        patch.zero(&weight.name, weight.place, removed)?;
    }
    Ok(patch.finish())
}

/// The model with other values for some of its f32 constants, initialisers or `Constant` nodes, by name.
///
/// # Errors
/// A constant that is missing, of another type or of another size.
pub fn write(model: &Bytes, values: &HashMap<String, Vec<f32>>) -> Result<Bytes, PruneError> {
    let model = Model::decode(model)?;
    let mut patch = Patch::of(&model);
    let mut written = 0;
    for (name, place) in constants(model.graph()) {
        let Some(values) = values.get(name) else { continue };
        written += 1;
        patch.write(name, place, values)?;
    }
    if written < values.len() {
        let known: std::collections::HashSet<&str> = constants(model.graph()).map(|(name, _)| name).collect();
        let missing = values.keys().filter(|name| !known.contains(name.as_str())).min();
        let why = format!("it has no constant `{}`", missing.map_or("", String::as_str));
        return Err(PruneError::Mismatch { what: "values", why });
    }
    Ok(patch.finish())
}

/// How many weights of a tensor are zero, before and after pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zeros {
    pub before: u64,
    /// With the removed ones.
    pub after: u64,
}

/// A copy of a model's file being changed.
pub(crate) struct Patch<'a> {
    model: &'a Model,
    bytes: Vec<u8>,
    lists: Vec<(Place, Vec<f32>)>,
}

impl<'a> Patch<'a> {
    /// `model` has to be as it was decoded: later changes are not in the file that is patched.
    pub fn of(model: &'a Model) -> Patch<'a> {
        Patch { model, bytes: model.source().to_vec(), lists: Vec::new() }
    }

    /// Removes weights.
    pub fn zero(&mut self, name: &str, place: Place, removed: &[bool]) -> Result<Zeros, PruneError> {
        let mut zeros = Zeros::default();
        self.change(name, place, removed.len(), |index, value| {
            let kept = if removed[index] { 0.0 } else { value };
            zeros.before += u64::from(value == 0.0);
            zeros.after += u64::from(kept == 0.0);
            kept
        })?;
        Ok(zeros)
    }

    fn write(&mut self, name: &str, place: Place, values: &[f32]) -> Result<(), PruneError> {
        self.change(name, place, values.len(), |index, _| values[index])
    }

    fn change(
        &mut self,
        name: &str,
        place: Place,
        len: usize,
        mut new: impl FnMut(usize, f32) -> f32,
    ) -> Result<(), PruneError> {
        let mismatch = |why| PruneError::Mismatch { what: "values", why };
        let tensor: &TensorProto = place.tensor(self.model.graph());
        if tensor.data_type() != DataType::Float as i32 {
            return Err(mismatch(format!("`{name}` is not of type float32")));
        }
        let values = Values::of(name, tensor)?;
        if values.len() != len {
            return Err(mismatch(format!("{len} for the {} of `{name}`", values.len())));
        }
        match values {
            Values::Raw(values) => {
                let raw = tensor.raw_data.as_ref().and_then(|raw| self.model.offset(raw));
                let offset = raw.ok_or_else(|| mismatch(format!("`{name}` was changed since the file was read")))?;
                let out = self.bytes[offset..offset + 4 * len].as_chunks_mut().0;
                for (index, (value, out)) in values.iter().zip(out).enumerate() {
                    *out = new(index, f32::from_le_bytes(*value)).to_le_bytes();
                }
            }
            Values::Floats(values) => {
                let kept: Vec<f32> = values.iter().enumerate().map(|(index, value)| new(index, *value)).collect();
                if !kept.is_empty() {
                    self.lists.push((place, kept));
                }
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Bytes {
        let bytes = Bytes::from(self.bytes);
        if self.lists.is_empty() {
            return bytes;
        }
        // The patched bytes are a file of their own, with the old lists.
        let mut model = Model::decode(&bytes).expect("weights are all that differs from a file that could be read");
        for (place, kept) in self.lists {
            place.tensor_mut(model.graph_mut()).float_data = kept;
        }
        model.encode()
    }
}
