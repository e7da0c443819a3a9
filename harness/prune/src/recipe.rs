//! What is asked for: the names are those of the model files (`models/*.toml`), of the command line and of the manifest.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PruneError;

/// How the importance of a weight `w` with gradient `g` is judged; of a unit of several weights: the sum over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `|w|` (L1 of a unit).
    Magnitude,
    /// `w²` (L2 of a unit); the same order as `Magnitude` for single weights.
    MagnitudeL2,
    /// `|g|`, mean over calibration batches.
    Gradient,
    /// `|w g|`, mean over calibration batches: first-order Taylor expansion of the loss (Molchanov et al., 2017).
    Taylor,
    /// `|w| ‖x‖₂` with `x` the input that the weight multiplies (Wanda: Sun et al., 2024); mean activation for whole channels.
    Activation,
    /// Iterative and free of data: `|w ∂R/∂w|` with R the sum of outputs of the net of absolute weights (Tanaka et al., 2020).
    Synflow,
    /// From a seed; the yardstick.
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

    /// Whether it looks at samples.
    pub fn needs_samples(self) -> bool {
        matches!(self, Method::Gradient | Method::Taylor | Method::Activation)
    }
}

/// What units compete with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All of the model.
    Global,
    /// Those of the same tensor; of the same dimension where whole channels go.
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
    /// Parts that are taken out, so that tensors shrink.
    Structure(Structure),
}

/// What shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Channels, neurons, heads and hidden units, whatever the model has.
    Any,
}

impl Unit {
    /// The units that have no numbers in their names, and an example of those that do.
    pub const NAMES: [&'static str; 9] =
        ["weight", "2:4", "block-4x1", "channel", "neuron", "head", "hidden", "layer", "structure"];

    /// # Errors
    /// [`PruneError::NOfM`]: of each `of` weights `keep` stay, so there is one ratio and no threshold.
    pub fn check(self, amount: Amount) -> Result<(), PruneError> {
        let Unit::NOfM { keep, of } = self else { return Ok(()) };
        let only = 1.0 - f64::from(keep) / f64::from(of);
        match amount {
            // As written with a few digits: 0.667 for 1:3.
            Amount::Ratio(ratio) if ratio == 0.0 || (ratio - only).abs() < 1e-3 => Ok(()),
            _ => Err(PruneError::NOfM { keep, of, only }),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unit::Weight => write!(f, "weight"),
            Unit::NOfM { keep, of } => write!(f, "{keep}:{of}"),
            Unit::Block { rows, columns } => write!(f, "block-{rows}x{columns}"),
            Unit::Structure(structure) => f.write_str(match structure {
                Structure::Channel => "channel",
                Structure::Neuron => "neuron",
                Structure::Head => "head",
                Structure::Hidden => "hidden",
                Structure::Layer => "layer",
                Structure::Any => "structure",
            }),
        }
    }
}

impl FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Unit, String> {
        let numbers = |text: &str, separator: char| {
            let (first, second) = text.split_once(separator)?;
            let number = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=64).contains(number));
            Some((number(first)?, number(second)?))
        };
        let unknown = || format!("there is no unit `{text}`; known are {}", Unit::NAMES.join(", "));
        Ok(match text {
            "weight" => Unit::Weight,
            "channel" => Unit::Structure(Structure::Channel),
            "neuron" => Unit::Structure(Structure::Neuron),
            "head" => Unit::Structure(Structure::Head),
            "hidden" => Unit::Structure(Structure::Hidden),
            "layer" => Unit::Structure(Structure::Layer),
            "structure" => Unit::Structure(Structure::Any),
            _ => {
                if let Some(block) = text.strip_prefix("block-") {
                    let (rows, columns) = numbers(block, 'x').ok_or_else(unknown)?;
                    Unit::Block { rows, columns }
                } else {
                    let (keep, of) = numbers(text, ':').filter(|(keep, of)| keep < of).ok_or_else(unknown)?;
                    Unit::NOfM { keep, of }
                }
            }
        })
    }
}

impl TryFrom<String> for Unit {
    type Error = String;

    fn try_from(text: String) -> Result<Unit, String> {
        text.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> String {
        unit.to_string()
    }
}

/// How much is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Exactly `round(ratio * n)` of the `n` units of a scope, the least important ones.
    Ratio(f64),
    /// Every unit less important than `threshold * max`, the most important unit of its scope.
    Threshold(f64),
}

impl Amount {
    /// # Errors
    /// A ratio outside [0, 1), a threshold outside [0, 1], or NaN.
    pub fn check(self) -> Result<(), PruneError> {
        match self {
            Amount::Ratio(ratio) if !(0.0..1.0).contains(&ratio) => Err(PruneError::Ratio { ratio }),
            Amount::Threshold(threshold) if !(0.0..=1.0).contains(&threshold) => {
                Err(PruneError::Threshold { threshold })
            }
            _ => Ok(()),
        }
    }

    pub fn is_nothing(self) -> bool {
        matches!(self, Amount::Ratio(amount) | Amount::Threshold(amount) if amount == 0.0)
    }
}

impl From<f64> for Amount {
    fn from(ratio: f64) -> Amount {
        Amount::Ratio(ratio)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub method: Method,
    pub scope: Scope,
    pub unit: Unit,
    /// Fraction of the prunable units to remove, in [0, 1).
    pub ratio: f64,
    /// In place of `ratio`: see [`Amount::Threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Of whatever is drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// How many samples a gradient is taken of at a time: the absolute value is that of the batch's gradient.
    #[serde(default = "default_batch")]
    pub batch: usize,
}

/// All values of a batch are kept for its gradient: 150 MB an image for ResNet50.
fn default_batch() -> usize {
    8
}

impl Recipe {
    /// With whatever else can be said at its default.
    pub fn new(method: Method, scope: Scope, unit: Unit, ratio: f64) -> Recipe {
        Recipe { method, scope, unit, ratio, threshold: None, seed: 0, batch: default_batch() }
    }

    /// Global weight magnitude.
    pub fn magnitude(ratio: f64) -> Recipe {
        Recipe::new(Method::Magnitude, Scope::Global, Unit::Weight, ratio)
    }

    pub fn amount(&self) -> Amount {
        self.threshold.map_or(Amount::Ratio(self.ratio), Amount::Threshold)
    }

    /// # Errors
    /// Those of [`Amount::check`]; a ratio that an N:M unit cannot have.
    pub fn check(&self) -> Result<(), PruneError> {
        self.amount().check()?;
        self.unit.check(self.amount())
    }

    /// How many of `prunable` units are removed: `round(ratio * prunable)`, halves away from zero. A ratio just below 1 may round to all.
    pub fn removed(&self, prunable: u64) -> u64 {
        removed(self.ratio, prunable)
    }
}

/// `round(ratio * n)`, halves away from zero.
pub fn removed(ratio: f64, n: u64) -> u64 {
    (ratio * n as f64).round() as u64
}
