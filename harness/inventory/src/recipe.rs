//! What is done to a model: `[prune]` of its file, or the same in flags. Names and numbers only: `espalier-prune` gives them their meaning, and a
//! test in `xtask` holds the two sets of names equal, because this crate must not depend on that one.

use std::fmt;

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
    pub distil: Distil,
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
            distil: Distil::Not,
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

/// How the importance of a weight is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Magnitude,
    MagnitudeL2,
    Gradient,
    Taylor,
    Activation,
    Synflow,
    Random,
}

impl Method {
    pub const ALL: [Method; 7] = [
        Method::Magnitude,
        Method::MagnitudeL2,
        Method::Gradient,
        Method::Taylor,
        Method::Activation,
        Method::Synflow,
        Method::Random,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Method::Magnitude => "magnitude",
            Method::MagnitudeL2 => "magnitude-l2",
            Method::Gradient => "gradient",
            Method::Taylor => "taylor",
            Method::Activation => "activation",
            Method::Synflow => "synflow",
            Method::Random => "random",
        }
    }

    pub fn needs_samples(self) -> bool {
        matches!(self, Method::Gradient | Method::Taylor | Method::Activation)
    }
}

/// What units compete with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the model.
    Global,
    /// Those of the same tensor, or of the same dimension.
    Local,
}

impl Scope {
    pub const ALL: [Scope; 2] = [Scope::Global, Scope::Local];

    pub fn name(self) -> &'static str {
        match self {
            Scope::Global => "global",
            Scope::Local => "local",
        }
    }
}

/// What is removed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Weight,
    /// Of each `of` neighbours `keep` stay.
    NOfM {
        keep: u32,
        of: u32,
    },
    Block {
        rows: u32,
        columns: u32,
    },
    /// What is taken out, so that tensors shrink.
    Structure(Structure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    Channel,
    Neuron,
    Head,
    Hidden,
    Layer,
    Any,
}

impl Structure {
    const ALL: [Structure; 6] =
        [Structure::Channel, Structure::Neuron, Structure::Head, Structure::Hidden, Structure::Layer, Structure::Any];

    fn name(self) -> &'static str {
        match self {
            Structure::Channel => "channel",
            Structure::Neuron => "neuron",
            Structure::Head => "head",
            Structure::Hidden => "hidden",
            Structure::Layer => "layer",
            Structure::Any => "structure",
        }
    }
}

impl Unit {
    /// All without numbers in their names, and an example of each kind that has some.
    pub const NAMES: [&'static str; 9] =
        ["weight", "2:4", "block-4x1", "channel", "neuron", "head", "hidden", "layer", "structure"];

    /// Reads what [`fmt::Display`] writes; `None` for what is no unit.
    pub fn parse(text: &str) -> Option<Unit> {
        let numbers = |text: &str, separator: char| {
            let (first, second) = text.split_once(separator)?;
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=64).contains(number));
            Some((number(first)?, number(second)?))
        };
        if text == "weight" {
            return Some(Unit::Weight);
        }
        if let Some(structure) = Structure::ALL.into_iter().find(|structure| structure.name() == text) {
            return Some(Unit::Structure(structure));
        }
        if let Some(block) = text.strip_prefix("block-") {
            return numbers(block, 'x').map(|(rows, columns)| Unit::Block { rows, columns });
        }
        numbers(text, ':').filter(|(keep, of)| keep < of).map(|(keep, of)| Unit::NOfM { keep, of })
    }

    pub fn is_structured(self) -> bool {
        matches!(self, Unit::Structure(_))
    }

    /// Where the unit says the ratio.
    pub fn only_ratio(self) -> Option<f64> {
        match self {
            Unit::NOfM { keep, of } => Some(1.0 - f64::from(keep) / f64::from(of)),
            _ => None,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unit::Weight => write!(f, "weight"),
            Unit::NOfM { keep, of } => write!(f, "{keep}:{of}"),
            Unit::Block { rows, columns } => write!(f, "block-{rows}x{columns}"),
            Unit::Structure(structure) => write!(f, "{}", structure.name()),
        }
    }
}

/// How fast a ratio is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    OneShot,
    Geometric,
    Cubic,
}

impl Schedule {
    pub const ALL: [Schedule; 3] = [Schedule::OneShot, Schedule::Geometric, Schedule::Cubic];

    pub fn name(self) -> &'static str {
        match self {
            Schedule::OneShot => "one-shot",
            Schedule::Geometric => "geometric",
            Schedule::Cubic => "cubic",
        }
    }

    /// Where nothing is said.
    pub fn of(steps: u32) -> Schedule {
        if steps == 1 { Schedule::OneShot } else { Schedule::Geometric }
    }
}

/// What fine-tuning learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distil {
    /// The labels.
    Not,
    /// Labels and the dense model's answers.
    Labels,
    /// The dense model's answers alone.
    Free,
}

impl Distil {
    pub const NAMES: [(&'static str, Distil); 2] = [("labels", Distil::Labels), ("free", Distil::Free)];
}

/// Two things that do not go together. `key` is the one to change, as it is called in the file and, with `--` before it, among the flags.
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
            Distil::Not => {}
            Distil::Labels => words.push("distilled with labels".to_owned()),
            Distil::Free => words.push("distilled without labels".to_owned()),
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
            if self.distil != Distil::Not {
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
            // As written with a few digits: 0.667 for 1:3.
            for ratio in self.ratios.iter().filter(|ratio| **ratio != 0.0 && (**ratio - only).abs() >= 1e-3) {
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
    fn units_are_read_as_they_are_written() {
        for name in Unit::NAMES.into_iter().chain(["1:2", "4:8", "block-1x16", "block-16x1"]) {
            assert_eq!(Unit::parse(name).unwrap().to_string(), name);
        }
        for wrong in ["", "weights", "4:2", "2:2", "0:4", "2:65", "block-4", "block-0x1", "block-4x1x1", "2:4:8"] {
            assert_eq!(Unit::parse(wrong), None, "{wrong}");
        }
    }

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
            distil: Distil::Free,
            pack: Some("bitmap-codebook".into()),
            ..recipe
        };
        assert_eq!(
            recipe.describe(),
            "taylor, global, weight, 3 steps (geometric), 15 epochs, distilled without labels, packed as bitmap-codebook"
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
            Recipe { distil: Distil::Free, rate: Some(0.1), batch: Some(4), ..new() },
            true,
            &["distil", "rate", "batch"],
        );
        check(Recipe { steps: 3, ..new() }, true, &["schedule"]);
        check(Recipe { schedule: Schedule::Cubic, ..new() }, true, &["schedule"]);
        check(Recipe { soft: true, ..new() }, true, &["soft"]);
        let steps = Recipe { steps: 3, schedule: Schedule::Cubic, finetune: 3, soft: true, ..new() };
        check(steps.clone(), true, &[]);
        check(Recipe { unit: Unit::parse("layer").unwrap(), ..steps }, true, &["soft"]);
        check(Recipe { round_to: 8, min_keep: 0.1, ..new() }, true, &["round-to", "min-keep"]);
        check(Recipe { round_to: 8, min_keep: 0.1, unit: Unit::parse("channel").unwrap(), ..new() }, true, &[]);
        let groups = Recipe { unit: Unit::parse("1:3").unwrap(), ..new() };
        check(Recipe { ratios: vec![0.0, 0.667], ..groups.clone() }, false, &[]);
        check(Recipe { ratios: vec![0.5, 0.9], ..groups }, false, &["ratios", "ratios"]);
    }
}
