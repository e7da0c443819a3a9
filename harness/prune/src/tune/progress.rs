//! Manifests of models that were pruned in steps, compared with the dense model.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    Amount, Bytes, Macs, Manifest, Mask, PruneError, Recipe, Samples, onnx::Model, prunable::survey, select::Selection,
    structure::Report, tensor::Values,
};

/// Of the dense model itself.
///
/// # Errors
/// A model that cannot be read.
pub fn of_dense(dense: &Bytes, recipe: &Recipe) -> Result<Manifest, PruneError> {
    Ok(crate::prune(dense, &Recipe { ratio: 0.0, threshold: None, ..*recipe }, None)?.manifest)
}

/// Of a model some of whose weights are masked.
///
/// # Errors
/// A mask of another model.
pub fn of_mask(model: &Bytes, recipe: &Recipe, mask: &Mask, samples: &Samples) -> Result<Manifest, PruneError> {
    let model = Model::decode(model)?;
    let survey = survey(&model)?;
    // Removed weights are removed first, whatever the scores: the mask comes out unchanged, with its units counted.
    let zeros = |tensor: usize| Ok(Cow::Owned(vec![0.0; mask.0[tensor].len()]));
    let amount = match recipe.amount() {
        Amount::Ratio(ratio) => Amount::Ratio(ratio),
        Amount::Threshold(_) => Amount::Ratio(mask.removed() as f64 / survey.prunable().max(1) as f64),
    };
    let mut selection = Selection::new(&survey, recipe.scope, recipe.unit, amount, &zeros, Some(mask))?;
    let mut tensors = Vec::new();
    for (index, weight) in survey.weights.iter().enumerate() {
        let values = Values::of(&weight.name, weight.place.tensor(model.graph()))?;
        tensors.push(crate::pruned_tensor(weight, &selection.tensor(index)?, values.zeros()));
    }
    Ok(crate::manifest(recipe, &survey, tensors, Some(samples)))
}

/// Of a model whose tensors shrank `before` and shrank again `now`.
pub fn merged(before: Option<&Manifest>, now: Manifest, recipe: &Recipe) -> Manifest {
    let Some(before) = before else {
        return Manifest { ratio: recipe.ratio, ..now };
    };
    let left: HashMap<&str, u64> =
        now.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.weights - tensor.removed)).collect();
    let mut all = before.clone();
    for tensor in &mut all.tensors {
        tensor.removed = tensor.weights.saturating_sub(left.get(tensor.name.as_str()).copied().unwrap_or(0));
    }
    all.removed = all.tensors.iter().map(|tensor| tensor.removed).sum();
    all.ratio = recipe.ratio;
    all.macs = before.macs.zip(now.macs).map(|(dense, left)| Macs {
        dense: dense.dense,
        dense_nonzero: dense.dense_nonzero,
        ..left
    });
    all.removed_units += now.removed_units;
    all.effective_ratio = if all.units == 0 { 0.0 } else { all.removed_units as f64 / all.units as f64 };
    if let (Some(all), Some(now)) = (&mut all.structure, now.structure) {
        add(all, now);
    }
    all
}

fn add(all: &mut Report, now: Report) {
    for group in &mut all.groups {
        let same = now.groups.iter().find(|other| other.axes == group.axes);
        // A group with a single unit left is no group any more.
        group.removed = same.map_or(group.removed, |now| group.units - (now.units - now.removed));
    }
    let gone = |node: &str| now.branches.iter().any(|branch| branch.node == node && branch.removed);
    all.branches.iter_mut().for_each(|branch| branch.removed |= gone(&branch.node));
    all.parameters_left = now.parameters_left;
    for note in now.notes {
        if !all.notes.contains(&note) {
            all.notes.push(note);
        }
    }
}
