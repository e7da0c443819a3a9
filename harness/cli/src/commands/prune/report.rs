//! What `prune` prints: what was removed, what was not and why, each step's score, and the held-out accuracy.

use std::path::Path;

use espalier_inventory::Recipe;
use espalier_prune::{
    Bytes, Macs, Manifest, PruneError, Samples,
    structure::Report,
    tune::{Evaluation, Stage, TrainableModel},
};

use crate::pruning::{Made, evaluation_text, units};

pub fn text(output: &Path, recipe: &Recipe, made: &Made) -> String {
    let manifest = &made.manifest;
    let mut text = format!("{}: {}\n", output.display(), counts(manifest));
    text += &format!("  pruned by {}\n", recipe.describe());
    text += &manifest.macs.map(macs).unwrap_or_default();
    text += &steps(made);
    for tensor in &manifest.tensors {
        let share = 100.0 * tensor.removed as f64 / tensor.weights.max(1) as f64;
        let units = if tensor.units > 0 && tensor.units != tensor.weights {
            format!("  {} of {} units", tensor.removed_units, tensor.units)
        } else {
            String::new()
        };
        text +=
            &format!("  {:<40} {:>10} of {:>10} ({share:5.1} %){units}\n", tensor.name, tensor.removed, tensor.weights);
    }
    text += &manifest.structure.as_ref().map(structure).unwrap_or_default();
    for untouched in &manifest.untouched {
        text += &format!("  {:<40} not pruned: {}\n", untouched.name, untouched.reason);
    }
    if let Some(note) = &made.note {
        text += &format!("{note}\n");
    }
    text
}

fn counts(manifest: &Manifest) -> String {
    let weights = format!(
        "{} of {} prunable weights removed (ratio {:.6}), {} of {} parameters",
        manifest.removed,
        manifest.prunable,
        manifest.removed as f64 / (manifest.prunable.max(1)) as f64,
        manifest.removed,
        manifest.parameters,
    );
    match &manifest.structure {
        Some(report) => format!(
            "{} of {} units ({}) removed (ratio {:.6}); {} of {} parameters are left",
            manifest.removed_units,
            manifest.units,
            manifest.unit,
            manifest.effective_ratio,
            report.parameters_left,
            report.parameters,
        ),
        None if manifest.units != manifest.prunable => format!(
            "{} of {} units ({}) removed (ratio {:.6}); {weights}",
            manifest.removed_units, manifest.units, manifest.unit, manifest.effective_ratio
        ),
        None => weights,
    }
}

fn macs(macs: Macs) -> String {
    let share = 100.0 * macs.pruned as f64 / macs.dense.max(1) as f64;
    format!(
        "  multiply-accumulates a sample: {} of {} ({share:.1} %), those whose weight is not zero: {} of {}\n",
        macs.pruned, macs.dense, macs.pruned_nonzero, macs.dense_nonzero
    )
}

fn steps(made: &Made) -> String {
    let score_text = |evaluation: Option<Evaluation>| evaluation.map_or("not judged".to_owned(), evaluation_text);
    let mut text = String::new();
    if let Some(dense) = made.dense {
        text += &format!("  dense: {} (validation samples)\n", evaluation_text(dense));
    }
    for (index, (stage, held)) in made.trail.iter().enumerate() {
        let Stage { ratio, removed, pruned, tuned } = stage;
        let verdict = held.map_or("", |held| if held { ": holds" } else { ": does not hold" });
        let after = if tuned == pruned { String::new() } else { format!(" -> {}", score_text(*tuned)) };
        text += &format!(
            "  step {}: ratio {ratio:.4}, {removed} removed: {}{after}{verdict}\n",
            index + 1,
            score_text(*pruned)
        );
    }
    text
}

fn structure(report: &Report) -> String {
    let mut text = String::new();
    for family in &report.groups {
        text += &format!(
            "  {:<40} {:>10} of {:>10}\n",
            family.name,
            family.removed,
            units(family.units as u64, family.kind.name())
        );
    }
    for branch in &report.branches {
        let what = if branch.removed { "removed" } else { "stays" };
        text += &format!("  {:<40} {what}, {} parameters\n", branch.node, branch.parameters);
    }
    for kept in &report.kept {
        text += &format!("  {:<40} axis {} stays: {}\n", kept.tensor, kept.axis, kept.why);
    }
    for note in &report.notes {
        text += &format!("  {note}\n");
    }
    text
}

/// Accuracy before and after on held-out samples; without labels how many get the dense model's class. A search has few
/// validation samples: a note says where held-out ones lose more than `most`, a fraction.
pub fn held_out(dense: &Bytes, pruned: &Bytes, eval: &Samples, most: Option<f64>) -> String {
    match compare(dense, pruned, eval, most) {
        Ok(text) => text,
        Err(error) => format!("the accuracy on the eval set is not known: {error}"),
    }
}

fn compare(dense: &Bytes, pruned: &Bytes, eval: &Samples, most: Option<f64>) -> Result<String, PruneError> {
    // `None` where the answer is NaN: that is right for no label.
    let classes = |model: &Bytes| -> Result<Vec<Option<usize>>, PruneError> {
        let predictions = TrainableModel::new(model)?.predict(eval)?;
        let answers = predictions.classes().into_iter().zip(predictions.are_numbers());
        Ok(answers.map(|(class, is_number)| is_number.then_some(class)).collect())
    };
    let (before, after) = (classes(dense)?, classes(pruned)?);
    let count = before.len();
    let not_numbers = |classes: &[Option<usize>]| classes.iter().filter(|class| class.is_none()).count();
    let nan = match (not_numbers(&before), not_numbers(&after)) {
        (0, 0) => String::new(),
        (dense, pruned) => {
            format!("\nNaN is the answer of the dense model to {dense}, of the pruned one to {pruned} samples")
        }
    };
    let percent = |part: usize| 100.0 * part as f64 / count.max(1) as f64;
    let Some(labels) = &eval.labels else {
        let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
        return Ok(format!(
            "held-out samples: {same} of {count} ({:.2} %) get the same class as by the dense model{nan}",
            percent(same)
        ));
    };
    let right = |classes: &[Option<usize>]| -> Vec<bool> {
        classes.iter().zip(labels).map(|(class, label)| *class == Some(*label)).collect()
    };
    let (before, after) = (right(&before), right(&after));
    let lost = before.iter().zip(&after).filter(|(before, after)| **before && !**after).count();
    let won = before.iter().zip(&after).filter(|(before, after)| !**before && **after).count();
    let of = |right: &[bool]| percent(right.iter().filter(|right| **right).count());
    let mut text = format!(
        "held-out accuracy: dense {:.2} %, pruned {:.2} % ({count} samples: {lost} lost, {won} won){nan}",
        of(&before),
        of(&after)
    );
    let drop = of(&before) - of(&after);
    if let Some(most) = most.filter(|most| drop > 100.0 * most) {
        text += &format!(
            "\nthat is {drop:.2} pp less, more than the allowed {:.2} pp: the ratio was found on validation samples, \
             which are fewer; take a lower `--ratio`, or search with a smaller drop or more samples",
            100.0 * most
        );
    }
    Ok(text)
}
