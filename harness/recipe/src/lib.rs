//! The vocabulary of pruning recipes: methods, scopes, units, schedules and ways to distil, each with the name it has
//! in model files (`models/*.toml`), on the command line and in manifests. The inventory reads these names,
//! `espalier-prune` gives them their meaning.

use std::{error, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `ALL`, `name`, [`fmt::Display`] and [`FromStr`] of an enum without data.
macro_rules! names {
    ($type:ident, $what:literal, { $($variant:ident: $name:literal),+ $(,)? }) => {
        impl $type {
            pub const ALL: [$type; [$($name),+].len()] = [$($type::$variant),+];

            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<$type, UnknownName> {
                $type::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| UnknownName {
                    what: $what,
                    name: text.to_owned(),
                    known: &[$($name),+],
                })
            }
        }
    };
}

/// A name that none of a closed list has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// `method`, `unit`, …
    pub what: &'static str,
    pub name: String,
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} `{}`; known are {}", self.what, self.name, self.known.join(", "))
    }
}

impl error::Error for UnknownName {}

/// How the importance of a weight `w` with gradient `g` is computed. The importance of a unit of several weights is the
/// sum over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `|w|` (L1 norm of a unit).
    Magnitude,
    /// `w²` (L2 norm of a unit); the same order as [`Method::Magnitude`] for single weights.
    MagnitudeL2,
    /// `|g|`, mean over calibration batches.
    Gradient,
    /// `|w g|`, mean over calibration batches: first-order Taylor expansion of the loss (Molchanov et al., 2017).
    Taylor,
    /// `|w| ‖x‖₂` with `x` the input that the weight multiplies (Wanda: Sun et al., 2024); mean activation for whole
    /// channels.
    Activation,
    /// Iterative and free of data: `|w ∂R/∂w|`, where R is the sum of the outputs of the net of absolute weights
    /// (Tanaka et al., 2020).
    Synflow,
    /// Drawn from a seed: the baseline every other method has to beat.
    Random,
}

names!(Method, "method", {
    Magnitude: "magnitude",
    MagnitudeL2: "magnitude-l2",
    Gradient: "gradient",
    Taylor: "taylor",
    Activation: "activation",
    Synflow: "synflow",
    Random: "random",
});

impl Method {
    /// Whether importance is computed from samples.
    pub const fn needs_samples(self) -> bool {
        matches!(self, Method::Gradient | Method::Taylor | Method::Activation)
    }
}

/// What units compete with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All units of the model.
    Global,
    /// Units of the same tensor; where tensors shrink, of the same dimension.
    Local,
}

names!(Scope, "scope", { Global: "global", Local: "local" });

/// What is removed together. Written `weight`, `2:4`, `block-4x1`, `channel`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Unit {
    /// Single weights, set to zero.
    Weight,
    /// Of each `of` neighbours along the input axis, `keep` stay: `2:4`. The ratio is then `1 - keep/of`.
    NOfM { keep: u32, of: u32 },
    /// Tiles of `rows` output by `columns` input channels, set to zero: `block-4x1`.
    Block { rows: u32, columns: u32 },
    /// Parts that are cut out, so that tensors shrink.
    Structure(Structure),
}

/// A part that can be cut out of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// Convolution channels (filters), with everything that depends on them.
    Channel,
    /// Units of fully connected layers: FFN width, hidden layers.
    Neuron,
    /// Attention heads.
    Head,
    /// Hidden units of LSTM, GRU and RNN.
    Hidden,
    /// Whole residual branches.
    Layer,
    /// Channels, neurons, heads and hidden units, whichever the model has.
    #[serde(rename = "structure")]
    Any,
}

names!(Structure, "unit", {
    Channel: "channel",
    Neuron: "neuron",
    Head: "head",
    Hidden: "hidden",
    Layer: "layer",
    Any: "structure",
});

impl Unit {
    /// The units that have no numbers in their names, and an example of those that do.
    pub const NAMES: [&'static str; 9] =
        ["weight", "2:4", "block-4x1", "channel", "neuron", "head", "hidden", "layer", "structure"];

    pub const fn is_structured(self) -> bool {
        matches!(self, Unit::Structure(_))
    }

    /// The one ratio other than 0 that the unit can have, where it fixes one: 0.5 of `2:4`.
    pub fn only_ratio(self) -> Option<f64> {
        match self {
            Unit::NOfM { keep, of } => Some(1.0 - f64::from(keep) / f64::from(of)),
            _ => None,
        }
    }

    /// Whether the unit can have this ratio. A ratio written with three digits will do: 0.667 for 1:3.
    pub fn allows(self, ratio: f64) -> bool {
        self.only_ratio().is_none_or(|only| ratio == 0.0 || (ratio - only).abs() < 1e-3)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unit::Weight => f.write_str("weight"),
            Unit::NOfM { keep, of } => write!(f, "{keep}:{of}"),
            Unit::Block { rows, columns } => write!(f, "block-{rows}x{columns}"),
            Unit::Structure(structure) => f.write_str(structure.name()),
        }
    }
}

impl FromStr for Unit {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Unit, UnknownName> {
        let numbers = |text: &str, separator: char| {
            let (first, second) = text.split_once(separator)?;
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=64).contains(number));
            Some((number(first)?, number(second)?))
        };
        let unit = if text == "weight" {
            Some(Unit::Weight)
        } else if let Ok(structure) = text.parse() {
            Some(Unit::Structure(structure))
        } else if let Some(block) = text.strip_prefix("block-") {
            numbers(block, 'x').map(|(rows, columns)| Unit::Block { rows, columns })
        } else {
            numbers(text, ':').filter(|(keep, of)| keep < of).map(|(keep, of)| Unit::NOfM { keep, of })
        };
        unit.ok_or_else(|| UnknownName { what: "unit", name: text.to_owned(), known: &Unit::NAMES })
    }
}

impl TryFrom<String> for Unit {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Unit, UnknownName> {
        text.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> String {
        unit.to_string()
    }
}

/// How fast a ratio is reached. Ratios are always of the dense model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// All at once.
    OneShot,
    /// Each step removes the same share of what is left: `1 - (1 - ratio)^(s/S)`.
    Geometric,
    /// Much at first, where weights are plenty, less and less later: `ratio (1 - (1 - s/S)^3)` (Zhu and Gupta, 2017).
    Cubic,
}

names!(Schedule, "schedule", { OneShot: "one-shot", Geometric: "geometric", Cubic: "cubic" });

impl Schedule {
    /// The default for a number of steps.
    pub const fn of(steps: u32) -> Schedule {
        if steps == 1 { Schedule::OneShot } else { Schedule::Geometric }
    }

    /// The ratio after each step. The last is `ratio` itself, without a rounding error.
    pub fn ratios(self, ratio: f64, steps: usize) -> Vec<f64> {
        let steps = if self == Schedule::OneShot { 1 } else { steps.max(1) };
        let at = |step: usize| {
            let along = step as f64 / steps as f64;
            match self {
                Schedule::Geometric => 1.0 - (1.0 - ratio).powf(along),
                Schedule::OneShot | Schedule::Cubic => ratio * (1.0 - (1.0 - along).powi(3)),
            }
        };
        (1..steps).map(at).chain([ratio]).collect()
    }
}

/// What fine-tuning learns from beside labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distillation {
    /// Labels alone.
    Not,
    /// Labels and the dense model's answers.
    Labels,
    /// The dense model's answers alone.
    Free,
}

impl Distillation {
    /// Those that a recipe can name; [`Distillation::Not`] is said by leaving the key out.
    pub const NAMES: [(&'static str, Distillation); 2] =
        [("labels", Distillation::Labels), ("free", Distillation::Free)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_they_are_written() {
        for name in Unit::NAMES.into_iter().chain(["1:2", "4:8", "block-1x16", "block-16x1"]) {
            assert_eq!(name.parse::<Unit>().unwrap().to_string(), name);
        }
        let wrong = ["", "weights", "4:2", "2:2", "0:4", "2:65", "block-4", "block-0x1", "block-65x1", "block-4x1x1"];
        for wrong in wrong.into_iter().chain(["2:4:8", "blocks"]) {
            assert_eq!(wrong.parse::<Unit>().unwrap_err().known, Unit::NAMES, "{wrong}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert!(Method::ALL.into_iter().all(|method| method.to_string().parse() == Ok(method)));
        assert!(Scope::ALL.into_iter().all(|scope| scope.to_string().parse() == Ok(scope)));
        assert!(Schedule::ALL.into_iter().all(|schedule| schedule.to_string().parse() == Ok(schedule)));
        let error = "cube".parse::<Schedule>().unwrap_err();
        assert_eq!(error.to_string(), "there is no schedule `cube`; known are one-shot, geometric, cubic");
    }

    #[test]
    fn ratios_that_a_unit_allows() {
        let unit: Unit = "1:3".parse().unwrap();
        assert!(unit.allows(0.0) && unit.allows(0.667) && !unit.allows(0.5) && Unit::Weight.allows(0.5));
    }
}
