//! How a variant is made from a recipe of files and flags: at once, in steps, or up to an accuracy budget.

use anyhow::Result;
use espalier_inventory::{self as inventory, Distillation};
use espalier_protocol::text::sanitise;
use espalier_prune::{
    Amount, Bytes, Macs, Manifest, PruneError, Recipe, Samples, Unit, structure,
    tune::{self, Evaluation, Event, Options, Plan, Search, Stage, Watch},
};

use crate::{context::usage, progress::Task, terminal::counted};

/// What variants of one model are made of.
pub struct Material {
    pub dense: Bytes,
    /// What importance is judged on, without fine-tuning.
    pub calibration: Option<Samples>,
    /// What is fine-tuned with.
    pub train: Option<Samples>,
    /// What a search is judged by: samples that no model was trained on.
    pub held_out: Option<Samples>,
}

/// Of the limit of the drop that a search allows.
const CONFIDENCE: f64 = 0.95;

/// How much is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    Amount(Amount),
    /// As much as can be, up to `ratio`, while no more accuracy is lost than `max_drop`.
    Until {
        max_drop: f64,
        ratio: f64,
    },
}

pub struct Made {
    pub bytes: Bytes,
    pub manifest: Manifest,
    /// Of the dense model and of every step, where something was judged. In a search each step says whether it held.
    pub dense: Option<Evaluation>,
    pub trail: Vec<(Stage, Option<bool>)>,
    /// What the reader must know, if not all went as requested.
    pub note: Option<String>,
    /// It was stopped; this is the best until then.
    pub stopped: bool,
}

impl Material {
    pub fn has_samples(&self) -> bool {
        self.calibration.is_some() || self.train.is_some()
    }

    /// # Errors
    /// What the pruner refuses, as it says it.
    pub fn make(&self, recipe: &inventory::Recipe, goal: Goal, watch: &mut Watch<'_>) -> Result<Made, PruneError> {
        let mut made = self.made(recipe, goal, watch)?;
        if made.manifest.macs.is_none() {
            made.manifest.macs = self.macs(&made.bytes);
        }
        Ok(made)
    }

    /// Of what came about in several steps, or shrank: both files are looked at.
    fn macs(&self, pruned: &Bytes) -> Option<Macs> {
        let of = |model: &Bytes| {
            let macs = espalier_prune::inspect(model).ok()?.macs?;
            Some(macs.iter().fold((0u64, 0u64), |(all, nonzero), (one, other)| {
                (all.saturating_add(*one), nonzero.saturating_add(*other))
            }))
        };
        let ((dense, dense_nonzero), (pruned, pruned_nonzero)) = (of(&self.dense)?, of(pruned)?);
        Some(Macs { dense, dense_nonzero, pruned, pruned_nonzero })
    }

    fn made(&self, recipe: &inventory::Recipe, goal: Goal, watch: &mut Watch<'_>) -> Result<Made, PruneError> {
        let samples = self.train.as_ref().or(self.calibration.as_ref());
        match (goal, samples) {
            (Goal::Amount(amount), Some(samples)) if recipe.is_tuned() && !amount.is_nothing() => {
                let plan = plan(recipe, amount);
                let made = tune::iterate(&self.dense, &plan, samples, None, watch)?;
                Ok(Made {
                    note: made.note(plan.recipe.ratio),
                    stopped: made.end == tune::End::Stopped,
                    bytes: made.bytes,
                    manifest: made.manifest,
                    dense: made.dense,
                    trail: made.stages.into_iter().map(|stage| (stage, None)).collect(),
                })
            }
            (Goal::Until { max_drop, ratio }, Some(samples)) => {
                let search = Search::new(plan(recipe, Amount::Ratio(ratio)), max_drop);
                let judge = self.held_out.as_ref();
                let judge = judge.map(|samples| tune::HeldOut { samples, confidence: CONFIDENCE });
                let found = tune::until_held_out(&self.dense, &search, samples, None, judge, watch)?;
                let stopped = found.end == tune::End::Stopped;
                Ok(Made {
                    note: stopped.then(|| {
                        format!("the search was stopped; {} is the largest ratio that held so far", found.ratio)
                    }),
                    stopped,
                    bytes: found.bytes,
                    manifest: found.manifest,
                    dense: Some(found.dense),
                    trail: found.stages.into_iter().map(|(stage, held)| (stage, Some(held))).collect(),
                })
            }
            (Goal::Until { .. }, None) => {
                Err(PruneError::Samples { why: "there are none to judge accuracy by".into() })
            }
            (Goal::Amount(amount), _) => self.at_once(recipe, amount),
        }
    }

    fn at_once(&self, recipe: &inventory::Recipe, amount: Amount) -> Result<Made, PruneError> {
        let samples = self.calibration.as_ref().or(self.train.as_ref());
        let run = one_run(recipe, amount);
        let pruned = match run.unit {
            Unit::Structure(_) => structure::prune(&self.dense, &run, samples, &structure_options(recipe))?,
            _ => espalier_prune::prune(&self.dense, &run, samples)?,
        };
        Ok(Made {
            bytes: pruned.bytes,
            manifest: pruned.manifest,
            dense: None,
            trail: Vec::new(),
            note: None,
            stopped: false,
        })
    }
}

/// What does not go together, as a mistake in flags.
///
/// # Errors
/// All of it, one a line.
pub fn check_flags(recipe: &inventory::Recipe, has_samples: bool) -> Result<()> {
    let conflicts = recipe.conflicts(has_samples);
    if conflicts.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        conflicts.iter().map(|conflict| format!("--{}: {}", conflict.key, conflict.message)).collect();
    Err(usage(lines.join("\n")))
}

/// One run of the pruner, as the recipe says.
pub fn one_run(recipe: &inventory::Recipe, amount: Amount) -> Recipe {
    let (ratio, threshold) = match amount {
        Amount::Ratio(ratio) => (ratio, None),
        Amount::Threshold(threshold) => (0.0, Some(threshold)),
    };
    let default = Recipe::new(recipe.method, recipe.scope, recipe.unit, ratio);
    Recipe {
        threshold,
        seed: recipe.seed.unwrap_or(default.seed),
        batch: recipe.batch.map_or(default.batch, |batch| batch as usize),
        ..default
    }
}

fn structure_options(recipe: &inventory::Recipe) -> structure::Options {
    structure::Options {
        round_to: recipe.round_to as usize,
        keep_at_least: recipe.min_keep,
        ..structure::Options::default()
    }
}

/// As hot as answers of a teacher are made, and how much they weigh beside labels (Hinton, Vinyals and Dean, 2015).
const TEMPERATURE: f32 = 2.0;
const TEACHERS_WEIGHT: f32 = 0.5;

fn plan(recipe: &inventory::Recipe, amount: Amount) -> Plan {
    let default = Options::default();
    let options = Options {
        epochs: recipe.finetune as usize,
        batch: recipe.batch.map_or(default.batch, |batch| batch as usize),
        rate: recipe.rate.map_or(default.rate, |rate| rate as f32),
        seed: recipe.seed.unwrap_or(default.seed),
        distil: match recipe.distil {
            // Without fine-tuning there need be no labels.
            _ if recipe.finetune == 0 => tune::Distil::Free { temperature: TEMPERATURE },
            Distillation::Not => tune::Distil::Not,
            Distillation::Labels => tune::Distil::Labelled { weight: TEACHERS_WEIGHT, temperature: TEMPERATURE },
            Distillation::Free => tune::Distil::Free { temperature: TEMPERATURE },
        },
        ..default
    };
    Plan {
        schedule: recipe.schedule,
        steps: recipe.steps as usize,
        soft: recipe.soft,
        structure: structure_options(recipe),
        options,
        ..Plan::new(one_run(recipe, amount))
    }
}

/// An event in words; `true` for one that is worth a line of a log.
pub fn describe(event: &Event) -> (String, bool) {
    let score_text = |evaluation: &Option<Evaluation>| {
        evaluation.map_or(String::new(), |evaluation| format!(", {}", evaluation_text(evaluation)))
    };
    match event {
        Event::Pruned { step, steps, ratio, removed, evaluation } => (
            format!("step {} of {steps}: ratio {ratio:.4}, {removed} removed{}", step + 1, score_text(evaluation)),
            true,
        ),
        Event::Batch { epoch, epochs, batch, batches, loss } => {
            (format!("epoch {} of {epochs}, batch {} of {batches}: loss {loss:.4}", epoch + 1, batch + 1), false)
        }
        Event::Epoch { epoch, epochs, loss, evaluation } => {
            (format!("epoch {} of {epochs}: loss {loss:.4}{}", epoch + 1, score_text(evaluation)), true)
        }
        Event::Evaluated { done, of } => (format!("{done} of {of} judged"), false),
    }
}

/// Shows an event on a line that is known by `prefix`; with `in_full` the milestones are lines of a log too.
pub fn show(task: &Task, prefix: &str, in_full: bool, event: &Event) {
    let (text, is_milestone) = describe(event);
    let text = if prefix.is_empty() { text } else { format!("{prefix}: {text}") };
    if is_milestone && in_full { task.milestone(&text) } else { task.now(&text) }
}

/// Units of this kind, so many: `96 hidden units`, `1 channel`.
pub fn units(count: u64, kind: &str) -> String {
    counted(count as usize, if kind == "hidden" { "hidden unit" } else { kind })
}

pub fn evaluation_text(evaluation: Evaluation) -> String {
    format!("accuracy {:.4}, loss {:.4}", evaluation.accuracy, evaluation.loss)
}

/// Whether a model is rewritten for the runner, or why it is refused.
pub fn for_the_runner(model: &Bytes) -> Result<bool, String> {
    espalier_prune::runnable::runnable(model).map(|made| made != *model).map_err(|error| error.to_string())
}

pub fn runner_text(runner: &Result<bool, String>) -> String {
    match runner {
        Ok(false) => String::new(),
        Ok(true) => "for the runner some nodes are written in operators that it computes as ONNX says\n".to_owned(),
        Err(why) => why.lines().map(|line| format!("the runner cannot run it: {}\n", sanitise(line))).collect(),
    }
}

/// Whose mistake it is: one in flags, samples or the choice of model, or something that failed.
pub fn refused(error: PruneError) -> anyhow::Error {
    match error {
        PruneError::Ratio { .. }
        | PruneError::Threshold { .. }
        | PruneError::NOfM { .. }
        | PruneError::NothingPrunable { .. }
        | PruneError::Samples { .. }
        | PruneError::Onnx(_) => usage(error.to_string()),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inventory reads forms of packs without `espalier-weights`.
    #[test]
    fn the_inventory_knows_the_forms_of_packs() {
        let forms =
            ["bitmap", "bitmap-codebook", "csr-f16", "block-csr-4x1-int8", "dense-codebook-16", "csr-codebook-257"];
        for text in
            forms.into_iter().chain(["block-csr-257x1", "block-csr-4", "f16", "zip", "", "dense-", "bitmap-f64"])
        {
            let weights = text.parse::<espalier_weights::Form>();
            assert_eq!(inventory::is_pack_form(text), weights.is_ok(), "{text}: {weights:?}");
        }
    }

    #[test]
    fn a_recipe_is_the_same_one_run() {
        let recipe = inventory::Recipe {
            method: inventory::Method::Taylor,
            unit: "2:4".parse().unwrap(),
            batch: Some(16),
            seed: Some(7),
            ..inventory::Recipe::default()
        };
        let pruners = one_run(&recipe, Amount::Ratio(0.5));
        let expected = Recipe {
            batch: 16,
            seed: 7,
            ..Recipe::new(inventory::Method::Taylor, inventory::Scope::Global, Unit::NOfM { keep: 2, of: 4 }, 0.5)
        };
        assert_eq!(pruners, expected);
        let pruners = one_run(&recipe, Amount::Threshold(0.1));
        assert_eq!((pruners.ratio, pruners.threshold), (0.0, Some(0.1)));
    }
}
