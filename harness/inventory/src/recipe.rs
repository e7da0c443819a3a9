//! What is done to a model: `[prune]` of its file, or the same in flags. Names and numbers only; `espalier-prune`
//! carries them out.

use espalier_recipe::{Distillation, Method, Schedule, Scope, Structure, Unit};

/// What is done to a model whose file says nothing of pruning, or that has no file, is [`Recipe::default`].
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// Ascending, distinct, each in [0, 1); 0 (the dense variant) is always among them.
    pub ratios: Vec<f64>,
    /// In how many steps a ratio is reached; at least 1.
    pub steps: u32,
    /// One-shot where `steps` is 1, and only there.
    pub schedule: Schedule,
    /// Epochs of fine-tuning, of all steps together; 0 for none.
    pub finetune: u32,
    pub distil: Distillation,
    /// The highest learning rate.
    pub rate: Option<f64>,
    /// Samples a gradient is taken of at a time.
    pub batch: Option<u32>,
    pub seed: Option<u64>,
    /// Kept counts of structured units are rounded up to multiples of it; 1 for not at all.
    pub round_to: u32,
    /// Fraction of each dimension that stays, with structured units.
    pub min_keep: f64,
    /// Whether removed weights may come back between steps.
    pub soft: bool,
    /// The packed form that is pushed to boards in place of the ONNX file, e.g. `bitmap-codebook`.
    pub pack: Option<String>,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            method: Method::Magnitude,
            scope: Scope::Global,
            unit: Unit::Weight,
            ratios: vec![0.0, 0.5, 0.8, 0.9, 0.95],
            steps: 1,
            schedule: Schedule::OneShot,
            finetune: 0,
            distil: Distillation::Not,
            rate: None,
            batch: None,
            seed: None,
            round_to: 1,
            min_keep: 0.0,
            soft: false,
            pack: None,
        }
    }
}

/// Two things that do not go together. `key` is the one to change, as it is called in the file and, with `--` before
/// it, among the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub key: &'static str,
    pub message: String,
}

impl Recipe {
    /// In words, for tables and stored runs, e.g. `magnitude, global, weight`. What is as it is by default is not said.
    pub fn describe(&self) -> String {
        let mut words = vec![self.method.name().to_owned(), self.scope.name().to_owned(), self.unit.to_string()];
        if self.steps > 1 {
            words.push(format!("{} steps ({})", self.steps, self.schedule.name()));
        }
        if self.finetune > 0 {
            words.push(format!("{} epoch{}", self.finetune, if self.finetune == 1 { "" } else { "s" }));
        }
        match self.distil {
            Distillation::Not => {}
            Distillation::Labels => words.push("distilled with labels".to_owned()),
            Distillation::Free => words.push("distilled without labels".to_owned()),
        }
        words.extend(self.rate.map(|rate| format!("rate {rate}")));
        words.extend(self.batch.map(|batch| format!("batch {batch}")));
        words.extend(self.seed.map(|seed| format!("seed {seed}")));
        if self.round_to > 1 {
            words.push(format!("rounded to {}", self.round_to));
        }
        if self.min_keep > 0.0 {
            words.push(format!("at least {} kept", self.min_keep));
        }
        if self.soft {
            words.push("soft".to_owned());
        }
        words.extend(self.pack.as_ref().map(|pack| format!("packed as {pack}")));
        words.join(", ")
    }

    /// Whether anything but removal happens.
    pub fn is_tuned(&self) -> bool {
        self.finetune > 0 || self.steps > 1
    }

    /// Whether it can be carried out without samples.
    pub fn needs_samples(&self) -> bool {
        self.method.needs_samples() || self.is_tuned()
    }

    /// Everything that does not go together. `has_samples`: there is a calibration set or a training set.
    pub fn conflicts(&self, has_samples: bool) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut add = |key, message: String| conflicts.push(Conflict { key, message });
        let none = "and there are none: `calibration` or `train` names an `.npz` of some";
        if self.method.needs_samples() && !has_samples {
            add("method", format!("the method `{}` looks at samples, {none}", self.method.name()));
        }
        if self.finetune > 0 && !has_samples {
            add("finetune", format!("fine-tuning needs samples, {none}"));
        }
        if self.steps > 1 && self.finetune == 0 && !self.method.needs_samples() && !has_samples {
            add("steps", format!("steps are judged on samples, {none}"));
        }
        if self.steps > 1 && self.schedule == Schedule::OneShot {
            add("schedule", format!("one-shot is one step, but `steps` is {}", self.steps));
        }
        if self.steps == 1 && self.schedule != Schedule::OneShot {
            add("schedule", format!("the schedule `{}` needs `steps`, more than one", self.schedule.name()));
        }
        if self.finetune == 0 {
            if self.distil != Distillation::Not {
                add("distil", "distilling is a way of fine-tuning: `finetune` says for how many epochs".to_owned());
            }
            if self.rate.is_some() {
                add("rate", "a learning rate needs fine-tuning: `finetune` says for how many epochs".to_owned());
            }
            if self.batch.is_some() && !matches!(self.method, Method::Gradient | Method::Taylor) {
                add("batch", "nothing here takes gradients: neither the method nor fine-tuning".to_owned());
            }
        }
        if self.soft && (self.steps == 1 || self.finetune == 0) {
            add(
                "soft",
                "weights come back between steps, by fine-tuning: `steps` and `finetune` are needed".to_owned(),
            );
        } else if self.soft && self.unit == Unit::Structure(Structure::Layer) {
            add("soft", "whole layers cannot come back".to_owned());
        }
        if !self.unit.is_structured() {
            let unit = self.unit;
            if self.round_to > 1 {
                add("round-to", format!("with the unit `{unit}` no tensor shrinks whose size could be rounded"));
            }
            if self.min_keep > 0.0 {
                add("min-keep", format!("with the unit `{unit}` nothing is taken out of which a part could be kept"));
            }
        }
        if let Some(only) = self.unit.only_ratio() {
            for ratio in self.ratios.iter().filter(|ratio| !self.unit.allows(**ratio)) {
                add("ratios", format!("with the unit `{}` the ratio is {only}, not {ratio}", self.unit));
            }
        }
        conflicts
    }
}

/// Whether a text names a packed form: a layout and, behind a hyphen, a kind of values.
pub fn is_pack_form(text: &str) -> bool {
    let layout = |text: &str| match text.strip_prefix("block-csr-") {
        Some(block) => block.split_once('x').is_some_and(|(rows, columns)| {
            let side = |side: &str| side.parse::<u16>().is_ok_and(|side| (1..=256).contains(&side));
            side(rows) && side(columns)
        }),
        None => ["dense", "csr", "bitmap"].contains(&text),
    };
    let values = |text: &str| match text.strip_prefix("codebook-") {
        Some(size) => size.parse::<u16>().is_ok_and(|size| (2..=256).contains(&size)),
        None => ["f32", "f16", "int8", "codebook"].contains(&text),
    };
    let mut splits = text.match_indices('-').map(|(at, _)| (&text[..at], &text[at + 1..]));
    layout(text) || splits.any(|(first, second)| layout(first) && values(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_packs() {
        for form in
            ["bitmap", "csr-f16", "bitmap-codebook", "block-csr-4x1", "block-csr-1x16-int8", "dense-codebook-16"]
        {
            assert!(is_pack_form(form), "{form}");
        }
        for wrong in ["", "f16", "bitmap-", "bitmap-f8", "block-csr", "block-csr-0x1", "csr-codebook-1", "-f16"] {
            assert!(!is_pack_form(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_recipe_in_words() {
        let recipe = Recipe::default();
        assert_eq!(recipe.describe(), "magnitude, global, weight");
        let recipe = Recipe {
            method: Method::Taylor,
            steps: 3,
            schedule: Schedule::Geometric,
            finetune: 15,
            distil: Distillation::Free,
            pack: Some("bitmap-codebook".into()),
            ..recipe
        };
        assert_eq!(
            recipe.describe(),
            "taylor, global, weight, 3 steps (geometric), 15 epochs, \
             distilled without labels, packed as bitmap-codebook"
        );
    }

    /// The keys in conflict.
    #[track_caller]
    fn check(recipe: Recipe, has_samples: bool, expected: &[&str]) {
        let conflicts = recipe.conflicts(has_samples);
        let keys: Vec<&str> = conflicts.iter().map(|conflict| conflict.key).collect();
        assert_eq!(keys, expected, "{conflicts:#?}");
    }

    #[test]
    fn what_does_not_go_together() {
        let new = Recipe::default;
        check(new(), false, &[]);
        check(Recipe { method: Method::Taylor, ..new() }, false, &["method"]);
        check(Recipe { method: Method::Taylor, batch: Some(16), ..new() }, true, &[]);
        check(Recipe { method: Method::Synflow, finetune: 3, ..new() }, false, &["finetune"]);
        check(
            Recipe { distil: Distillation::Free, rate: Some(0.1), batch: Some(4), ..new() },
            true,
            &["distil", "rate", "batch"],
        );
        check(Recipe { steps: 3, ..new() }, true, &["schedule"]);
        check(Recipe { schedule: Schedule::Cubic, ..new() }, true, &["schedule"]);
        check(Recipe { soft: true, ..new() }, true, &["soft"]);
        let steps = Recipe { steps: 3, schedule: Schedule::Cubic, finetune: 3, soft: true, ..new() };
        check(steps.clone(), true, &[]);
        check(Recipe { unit: "layer".parse().unwrap(), ..steps }, true, &["soft"]);
        check(Recipe { round_to: 8, min_keep: 0.1, ..new() }, true, &["round-to", "min-keep"]);
        check(Recipe { round_to: 8, min_keep: 0.1, unit: "channel".parse().unwrap(), ..new() }, true, &[]);
        let groups = Recipe { unit: "1:3".parse().unwrap(), ..new() };
        check(Recipe { ratios: vec![0.0, 0.667], ..groups.clone() }, false, &[]);
        check(Recipe { ratios: vec![0.5, 0.9], ..groups }, false, &["ratios", "ratios"]);
    }
}
