//! The lines that a runner prints. Times are in nanoseconds, memory is in bytes. What a board cannot report is `None`,
//! not zero.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{float, text::Text};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Always first.
    Hello(Hello),
    /// The state of the board before and after the work.
    State(BoardState),
    Loaded(Loaded),
    /// The first inference after loading, with cold caches and untouched memory.
    First {
        ns: u64,
        /// [`digest`] of its outputs. Two invocations of one arm must have the same. Earlier runners do not report it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Text>,
    },
    /// Sent when there was no other line for [`crate::HEARTBEAT_SECONDS`].
    Heartbeat {
        doing: Stage,
        done: u64,
        total: u64,
    },
    /// Times of consecutive inferences, in order. Several such lines add up.
    Timed {
        ns: Vec<u64>,
    },
    Memory(Memory),
    Predictions(Predictions),
    /// The kernel of each layer, sent when the model is loaded. Several such lines add up. Layers without a choice of
    /// kernels are left out.
    Kernels {
        layers: Vec<LayerKernel>,
    },
    /// The time of each layer, in the order in which layers run. Several such lines add up.
    Profile {
        layers: Vec<LayerTime>,
    },
    /// Another ratio of the pack runs from the next inference on.
    Switched(Switched),
    /// The job failed. `finished` still follows.
    Failed {
        stage: Stage,
        message: Text,
    },
    /// Always last.
    Finished,
}

/// What the runner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading its own flags.
    Start,
    /// Reading the prepared inputs.
    Inputs,
    /// Parsing and optimising the model.
    Load,
    WarmUp,
    Time,
    Score,
    Memory,
    Profile,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Start => "start",
            Stage::Inputs => "inputs",
            Stage::Load => "load",
            Stage::WarmUp => "warm-up",
            Stage::Time => "timing",
            Stage::Score => "scoring",
            Stage::Memory => "memory",
            Stage::Profile => "profiling",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The runner's own version.
    pub runner: Text,
    /// The architecture of the runner's target triple, e.g. `aarch64`.
    pub arch: Text,
    pub pid: u32,
    /// The inference engine and its version, e.g. `espalier 0.1.0 (tract 0.23.9)`, or `tract 0.23.9` alone.
    pub engine: Text,
    /// CPU features that the engine's kernels can use on this board, detected at run time.
    pub cpu_features: Vec<Text>,
}

/// A number that could not be read on this board is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoardState {
    pub kernel: Option<Text>,
    /// The processor's name as the board reports it.
    pub cpu: Option<Text>,
    /// Online processors.
    pub cpus: Option<u32>,
    pub governor: Option<Text>,
    /// Current frequency of the first CPU the runner may use, in kHz.
    pub frequency_khz: Option<u64>,
    pub max_frequency_khz: Option<u64>,
    /// The hottest thermal zone, in thousandths of a degree Celsius.
    pub temperature_millicelsius: Option<i64>,
    /// Whether the board reports throttling (thermal trip, active cooling device, under-voltage).
    pub throttled: Option<bool>,
    /// Load average of the last minute, times 100.
    pub load_percent: Option<u64>,
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Pages swapped in since boot.
    pub swap_ins: Option<u64>,
    /// The time that all CPUs were busy since boot, including stolen time but not waiting for disks, in ms and steps of
    /// the kernel's tick (10 ms). With [`BoardState::own_cpu_ms`], two states show the CPU time of other processes.
    #[serde(default)]
    pub busy_ms: Option<u64>,
    /// CPU time of the runner's process so far, in the same steps.
    #[serde(default)]
    pub own_cpu_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputFact {
    pub name: Text,
    pub dtype: Text,
    pub shape: Vec<u64>,
}

/// Multiply-accumulates of one inference of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macs {
    /// Those of a dense engine.
    pub executed: u64,
    /// Those among them whose weight is not zero.
    pub nonzero: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Reading and parsing the file.
    pub parse_ns: u64,
    /// Turning it into an executable plan.
    pub optimise_ns: u64,
    pub inputs: Vec<OutputFact>,
    pub outputs: Vec<OutputFact>,
    /// Only in `score` jobs, because counting costs memory and time.
    pub macs: Option<Macs>,
    /// The loaded ratios of a pack of several, the densest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ratios: Vec<RatioFact>,
}

/// One loaded ratio of a pack of several.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioFact {
    #[serde(with = "float")]
    pub ratio: f64,
    /// Memory in addition to the ratios before it, in bytes. Only in `memory` jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerKernel {
    pub name: Text,
    /// What it computes, e.g. `conv 3x3`.
    pub op: Text,
    /// The fastest of the candidates on this board.
    pub kernel: Text,
    pub candidates: Vec<CandidateTime>,
    /// Whether the times are of an earlier invocation.
    pub cached: bool,
    /// Whether the times are in doubt, as other programs were in the way: a later invocation may choose another kernel.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unsure: bool,
    /// Why candidates failed, or why the layer has tract's kernel although there are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateTime {
    pub kernel: Text,
    pub ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTime {
    pub name: Text,
    pub op: Text,
    pub kernel: Text,
    /// How often it runs in one inference.
    pub calls: u64,
    /// Of the sum of its calls in one inference.
    pub median_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switched {
    /// Timed inferences so far.
    pub after: u64,
    #[serde(with = "float")]
    pub ratio: f64,
    /// The time of switching, from the decision until ready for the next inference.
    pub ns: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// In order: `start`, `load`, `infer`. The kernel's high-water mark is reset between them where the kernel allows
    /// that.
    pub phases: Vec<MemoryPhase>,
    /// The highest of the phases: the kernel's `VmHWM`, in bytes.
    pub peak_rss: u64,
    /// The peak of allocated bytes, counted by the program.
    pub peak_allocated: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryPhase {
    pub name: Text,
    pub peak_rss: u64,
    pub allocated: u64,
    /// Whether the high-water mark was reset before this phase. Without that, `peak_rss` includes the phases before.
    pub reset: bool,
}

/// Results of consecutive samples. Several such lines add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// The index of the first sample in this line.
    pub start: u64,
    /// For each sample the argmax of the first output (the first of equal values). Empty where the job asks for an
    /// output ([`crate::OutputRequest`]): then `values` has what was asked for, of any size.
    pub classes: Vec<u32>,
    /// For each sample the first output, flattened, as exact f32 (the shortest decimals that read back to the same
    /// bits). Empty where the output has more than [`Predictions::MAX_VALUES`] values per sample.
    #[serde(with = "float")]
    pub values: Vec<Vec<f32>>,
    /// Indices of the samples whose first output has NaN. Also where values are not sent; earlier runners send none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nan: Vec<u64>,
    /// Indices of the samples whose first output is infinite somewhere and NaN nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infinite: Vec<u64>,
    /// The next line goes on with the last sample of this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl Predictions {
    /// The most output values per sample that are sent to the host without being asked for.
    pub const MAX_VALUES: usize = 1024;

    /// The most values of a line. With the most digits of a float it is shorter than [`crate::MAX_LINE`].
    pub const LINE_VALUES: usize = 8192;

    /// What was asked for of one sample, as many lines as are needed.
    pub fn of_sample(start: u64, values: &[f32]) -> Vec<Predictions> {
        let pieces: Vec<&[f32]> =
            if values.is_empty() { vec![values] } else { values.chunks(Self::LINE_VALUES).collect() };
        let last = pieces.len() - 1;
        let line = |(index, piece): (usize, &&[f32])| Predictions {
            start,
            values: vec![piece.to_vec()],
            more: index < last,
            ..Predictions::default()
        };
        pieces.iter().enumerate().map(line).collect()
    }

    /// The samples whose output is not all finite, as reported and as the values say.
    pub fn not_finite(&self) -> NotFinite {
        let mut samples =
            NotFinite { nan: self.nan.iter().copied().collect(), infinite: self.infinite.iter().copied().collect() };
        for (index, values) in (self.start..).zip(&self.values) {
            match NotFinite::of(values) {
                Some(Value::Nan) => _ = samples.nan.insert(index),
                Some(Value::Infinite) => _ = samples.infinite.insert(index),
                None => {}
            }
        }
        samples
    }

    /// Whether each sample's class is its label. NaN answers nothing, so it is never right.
    pub fn right(&self, labels: &[i64]) -> Vec<bool> {
        let NotFinite { nan, .. } = self.not_finite();
        let pairs = (self.start..).zip(labels.iter().zip(&self.classes));
        pairs.map(|(index, (label, class))| *label == i64::from(*class) && !nan.contains(&index)).collect()
    }

    /// Adds one sample with all values of its output, which are sent unless they are too many.
    pub fn push(&mut self, class: u32, values: Vec<f32>) {
        let index = self.start + self.classes.len() as u64;
        match NotFinite::of(&values) {
            Some(Value::Nan) => self.nan.push(index),
            Some(Value::Infinite) => self.infinite.push(index),
            None => {}
        }
        self.classes.push(class);
        self.values.push(if values.len() <= Predictions::MAX_VALUES { values } else { Vec::new() });
    }
}

/// Indices of samples whose output is not all finite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotFinite {
    pub nan: BTreeSet<u64>,
    /// Infinite and without NaN.
    pub infinite: BTreeSet<u64>,
}

enum Value {
    Nan,
    Infinite,
}

impl NotFinite {
    fn of(values: &[f32]) -> Option<Value> {
        if values.iter().any(|value| value.is_nan()) {
            return Some(Value::Nan);
        }
        values.iter().any(|value| value.is_infinite()).then_some(Value::Infinite)
    }
}

/// Layers per line. With the bounds below a line is shorter than [`crate::MAX_LINE`].
const LAYERS: usize = 16;
/// The most bytes of a name, which comes from the model's file.
const MAX_TEXT: usize = 160;
/// The most bytes of a kernel's name.
const MAX_KERNEL: usize = 64;
/// The most candidates of a layer.
const MAX_CANDIDATES: usize = 24;

impl Line {
    /// As many lines as are needed.
    pub fn kernels(layers: &[LayerKernel]) -> impl Iterator<Item = Line> {
        layers.chunks(LAYERS).map(|layers| {
            let short = |layer: &LayerKernel| LayerKernel {
                name: bounded(&layer.name, MAX_TEXT),
                op: bounded(&layer.op, MAX_TEXT),
                kernel: bounded(&layer.kernel, MAX_KERNEL),
                candidates: layer
                    .candidates
                    .iter()
                    .take(MAX_CANDIDATES)
                    .map(|candidate| CandidateTime { kernel: bounded(&candidate.kernel, MAX_KERNEL), ns: candidate.ns })
                    .collect(),
                cached: layer.cached,
                unsure: layer.unsure,
                note: layer.note.as_deref().map(|note| bounded(note, MAX_TEXT)),
            };
            Line::Kernels { layers: layers.iter().map(short).collect() }
        })
    }

    /// As many lines as are needed.
    pub fn profile(layers: &[LayerTime]) -> impl Iterator<Item = Line> {
        layers.chunks(LAYERS).map(|layers| {
            let short = |layer: &LayerTime| LayerTime {
                name: bounded(&layer.name, MAX_TEXT),
                op: bounded(&layer.op, MAX_TEXT),
                kernel: bounded(&layer.kernel, MAX_KERNEL),
                ..*layer
            };
            Line::Profile { layers: layers.iter().map(short).collect() }
        })
    }
}

/// The beginning of a text, at most `most` bytes.
fn bounded(text: &str, most: usize) -> Text {
    Text::from(&text[..text.floor_char_boundary(most)])
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo; RFC 9923) of concatenated pieces, as 16 lower-case hexadecimal digits. It
/// detects accidental differences, not forgeries.
pub fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in pieces.into_iter().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the FNV authors' reference code.
    #[test]
    fn the_digest_is_fnv_1a() {
        for (text, expected) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(digest([text.as_bytes()]), expected);
        }
        assert_eq!(digest(["foo".as_bytes(), "bar".as_bytes()]), "85944171f73967e8");
    }

    /// Names are untrusted.
    #[test]
    fn lines_about_layers_are_bounded() {
        let text = Text::from("\u{1}".repeat(10_000));
        let candidate = CandidateTime { kernel: text.clone(), ns: u64::MAX };
        let (name, op, kernel) = (text.clone(), text.clone(), text.clone());
        let layer = LayerKernel {
            name: name.clone(),
            op: op.clone(),
            kernel: kernel.clone(),
            candidates: vec![candidate; 100],
            cached: false,
            unsure: true,
            note: Some(text),
        };
        let time = LayerTime { name, op, kernel, calls: u64::MAX, median_ns: u64::MAX };
        let (kernels, times) = (vec![layer; 100], vec![time; 100]);
        let mut sent = (0, 0);
        for line in Line::kernels(&kernels).chain(Line::profile(&times)) {
            assert!(serde_json::to_string(&line).unwrap().len() < crate::MAX_LINE);
            match line {
                Line::Kernels { layers } => sent.0 += layers.len(),
                Line::Profile { layers } => sent.1 += layers.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sent, (100, 100));
    }

    /// Lines without digests and CPU times: a baseline's runner may be that old.
    #[test]
    fn lines_of_an_earlier_runner_are_read() {
        let read = |line: &str| serde_json::from_str::<Line>(line).unwrap();
        assert_eq!(read(r#"{"line":"first","ns":9}"#), Line::First { ns: 9, digest: None });
        let state = r#"{"line":"state","kernel":"6.1.0","cpu":null,"cpus":4,"governor":null,"frequency_khz":null,
            "max_frequency_khz":null,"temperature_millicelsius":51000,"throttled":false,"load_percent":3,
            "memory_total":1,
            "memory_available":1,"swap_ins":0}"#;
        let Line::State(state) = read(state) else { panic!("not a state") };
        assert_eq!((state.swap_ins, state.busy_ms, state.own_cpu_ms), (Some(0), None, None));
    }

    /// An earlier host ignores new fields.
    #[test]
    fn an_unknown_field_is_ignored() {
        let line = r#"{"line":"first","ns":9,"digest":"00","of_tomorrow":1}"#;
        assert_eq!(serde_json::from_str::<Line>(line).unwrap(), Line::First { ns: 9, digest: Some("00".into()) });
    }
}
