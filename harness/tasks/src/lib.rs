//! What a model's answers mean, and how good they are: a [`Task`] says which output answers and what is right, a
//! [`Scored`] holds the numbers of each sample that a metric is made of.
//!
//! Numbers in, numbers out. Nothing here guesses: where shapes and types do not say what the task is, it is
//! [`Kind::Difference`], and answers are only compared with those of the dense model.

mod check;
mod find;
mod formula;
mod scored;

use serde::{Deserialize, Serialize};

pub use check::check;
pub use find::{Output, find};
pub use formula::{Measure, Unit};
pub use scored::{Answers, Scored, same_answers};

/// Makes [`Kind`] of rows: variant and its name in files.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $name)] $kind),+
        }

        impl Kind {
            pub const ALL: [Kind; [$($name),+].len()] = [$(Kind::$kind),+];

            /// As model files spell it.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name),+ }
            }
        }
    };
}

kinds! {
    /// One of several classes: the largest value of an output is the answer.
    Classes, "classes";
    /// The output is the class already: one a sample, or one a position.
    Label, "label";
    /// Yes or no, from one number.
    Binary, "binary";
    /// Yes or no for each of several labels.
    MultiLabel, "multi-label";
    /// Numbers.
    Regression, "regression";
    /// A class for each position of a sequence.
    Tokens, "tokens";
    /// A class for each position of a plane or a volume.
    Segments, "segments";
    /// A vector, of which the direction counts.
    Embedding, "embedding";
    /// Not known, or not to be judged: answers are compared with the dense model's, as numbers.
    Difference, "difference";
}

impl Kind {
    /// Whether an answer is made of classes, so that two answers are the same or not.
    pub fn is_decided(self) -> bool {
        !matches!(self, Kind::Regression | Kind::Embedding | Kind::Difference)
    }
}

/// How an output says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Above 0.5.
    Probability,
    /// Above 0: a sigmoid would follow.
    Logit,
}

impl Scale {
    pub const ALL: [Scale; 2] = [Scale::Probability, Scale::Logit];

    pub fn name(self) -> &'static str {
        match self {
            Scale::Probability => "probability",
            Scale::Logit => "logit",
        }
    }

    /// What a yes is above of.
    pub fn threshold(self) -> f64 {
        match self {
            Scale::Probability => 0.5,
            Scale::Logit => 0.0,
        }
    }
}

/// An output of a model, by name or by its place from 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OutputName {
    Index(u32),
    Name(String),
}

/// What a person says of a task; what is not said is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub kind: Option<Kind>,
    pub output: Option<OutputName>,
    /// Of the classes, in the output's own shape; from its end if negative.
    pub axis: Option<i32>,
    /// The label may be among so many of the largest values.
    pub top: Option<u32>,
    pub scale: Option<Scale>,
    /// Positions with this label do not count.
    pub ignore: Option<i64>,
}

/// A task that is known in full: nothing is left to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub kind: Kind,
    /// The output that answers, by its place and its name.
    pub output: u32,
    pub name: String,
    /// Of the classes, in the output's own shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<u32>,
    /// The number of classes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<u64>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub top: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<i64>,
    /// What it was found from, in words.
    pub from: String,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Task {
    /// What a run without a task was judged by: the largest value of the first output is the class.
    pub fn classes_of_first() -> Task {
        let from = "a run of an earlier release".to_owned();
        Task {
            kind: Kind::Classes,
            output: 0,
            name: String::new(),
            axis: None,
            classes: None,
            top: 1,
            scale: None,
            ignore: None,
            from,
        }
    }

    /// Its kind and what else decides about an answer, in words.
    pub fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if self.kind == Kind::Classes && self.top > 1 {
            text.push_str(&format!(", right among the {} largest", self.top));
        }
        if let Some(scale) = self.scale {
            text.push_str(&format!(", {} above {}", scale.name(), scale.threshold()));
        }
        if !self.name.is_empty() {
            text.push_str(&format!(", output `{}`", self.name));
        }
        text
    }
}

/// The right answers of some samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Of one sample.
    pub shape: Vec<u64>,
    pub integers: bool,
    /// Of all samples, one after the other.
    pub values: Vec<f64>,
}

impl Truth {
    /// Of one class a sample.
    pub fn of_labels(labels: &[i64]) -> Truth {
        Truth { shape: Vec::new(), integers: true, values: labels.iter().map(|label| *label as f64).collect() }
    }

    /// Numbers of one sample; at least 1.
    pub fn width(&self) -> usize {
        self.shape.iter().product::<u64>().max(1) as usize
    }

    pub fn samples(&self) -> usize {
        self.values.len() / self.width()
    }

    pub fn of_sample(&self, index: usize) -> &[f64] {
        &self.values[index * self.width()..(index + 1) * self.width()]
    }

    /// One integer a sample.
    pub fn labels(&self) -> Option<Vec<i64>> {
        let is_one = self.integers && self.width() == 1;
        is_one.then(|| self.values.iter().map(|value| *value as i64).collect())
    }
}
