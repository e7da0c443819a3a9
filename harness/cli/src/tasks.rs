//! The task of a model: as its file says, and the rest from its outputs and the right answers.

use espalier_inventory::{Source, Spec};
use espalier_prune::{Bytes, Inspection, OutputFacts};
use espalier_samples::EvalSet;
use espalier_tasks::{Kind, Output, Task, Truth, find};

use anyhow::Result;

use crate::{context::usage, samples};

/// `set`: samples with right answers, where there are any.
///
/// # Errors
/// What is said does not fit the model or the right answers.
pub fn resolve(spec: &Spec, dense: &Bytes, model: &Inspection, set: Option<&EvalSet>) -> Result<Task> {
    let sample = set.map(|set| samples::inputs_of(set, model)).transpose()?;
    let outputs = espalier_prune::outputs(dense, sample.as_ref())?;
    let outputs: Vec<Output> = outputs.into_iter().map(output).collect();
    let truth = set.and_then(|set| set.truth.as_ref());
    find(spec, &outputs, truth).map_err(|why| usage(format!("the task (`[task]` of the model's file): {why}")))
}

/// What is built tells classes apart, and has no labels.
pub fn spec(spec: &Spec, source: &Source) -> Spec {
    match source {
        Source::Build { .. } => Spec { kind: spec.kind.or(Some(Kind::Classes)), ..spec.clone() },
        Source::File(_) => spec.clone(),
    }
}

/// Labels of one class each, and right answers of any other form.
pub fn divided(task: &Task, truth: Option<Truth>) -> (Option<Vec<i64>>, Option<Truth>) {
    match truth.filter(|_| task.kind != Kind::Difference) {
        None => (None, None),
        Some(truth) => match truth.labels() {
            Some(labels) => (Some(labels), None),
            None => (None, Some(truth)),
        },
    }
}

fn output(facts: OutputFacts) -> Output {
    let OutputFacts { name, dtype, shape, sigmoid, softmax } = facts;
    Output { name, floats: dtype.starts_with("float") || dtype == "bfloat16", shape, sigmoid, softmax }
}
