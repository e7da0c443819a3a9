//! The lines a runner prints. Times are nanoseconds, memory is bytes; what a board cannot tell is `None`, never zero.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Always first.
    Hello(Hello),
    /// The board before and after the work.
    State(BoardState),
    Loaded(Loaded),
    /// The first inference after loading, on its own: caches are cold and memory is touched for the first time.
    First {
        ns: u64,
        /// [`digest`] of its outputs: two invocations of one arm compute the same, or something is wrong with them. An earlier runner does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
    /// "Still alive", while nothing else is said for [`crate::HEARTBEAT_SECONDS`].
    Heartbeat {
        doing: Stage,
        done: u64,
        total: u64,
    },
    /// Raw times of consecutive inferences, in order; several such lines add up.
    Timed {
        ns: Vec<u64>,
    },
    Memory(Memory),
    Predictions(Predictions),
    /// Which kernel each layer got, said once the model is loaded; several such lines add up. Layers that stay as tract has them are left out where
    /// there was nothing to choose.
    Kernels {
        layers: Vec<LayerKernel>,
    },
    /// Where the time of an inference goes, in the order the layers are carried out; several such lines add up.
    Profile {
        layers: Vec<LayerTime>,
    },
    /// From the next inference on another ratio of the pack is run.
    Switched(Switched),
    /// The job cannot go on. `finished` still follows.
    Failed {
        stage: Stage,
        message: String,
    },
    /// Always last.
    Finished,
}

/// What the runner was doing.
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
    pub runner: String,
    /// The triple's architecture the runner was built for, e.g. `aarch64`.
    pub arch: String,
    pub pid: u32,
    /// The inference engine and its version, e.g. `espalier 0.1.0 (tract 0.23.9)`, or `tract 0.23.9` alone.
    pub engine: String,
    /// CPU features the engine's kernels can use on this board, as detected at run time.
    pub cpu_features: Vec<String>,
}

/// Where a number could not be read on this board it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoardState {
    pub kernel: Option<String>,
    /// The processor's name as the board tells it.
    pub cpu: Option<String>,
    /// Online processors.
    pub cpus: Option<u32>,
    pub governor: Option<String>,
    /// Current frequency of the first CPU the runner may use, in kHz.
    pub frequency_khz: Option<u64>,
    pub max_frequency_khz: Option<u64>,
    /// The hottest thermal zone, in thousandths of a degree Celsius.
    pub temperature_millicelsius: Option<i64>,
    /// Whether the board said that it is held back now (thermal trip, cooling device active, under-voltage).
    pub throttled: Option<bool>,
    /// Load average of the last minute, times 100.
    pub load_percent: Option<u64>,
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Pages swapped in since boot.
    pub swap_ins: Option<u64>,
    /// Time all CPUs together were busy since boot, whosever work it was (stolen time counts, waiting for disks does not), in ms and steps of the kernel's
    /// tick (10 ms). Two states with [`BoardState::own_cpu_ms`] tell what others computed meanwhile.
    #[serde(default)]
    pub busy_ms: Option<u64>,
    /// CPU time of the runner's own process so far, in the same steps.
    #[serde(default)]
    pub own_cpu_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputFact {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
}

/// Multiply-accumulates of one inference of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macs {
    /// What a dense engine executes.
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
    /// Counted in `score` jobs only: counting costs memory and time.
    pub macs: Option<Macs>,
    /// Those ratios of a pack of several that are loaded, the densest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ratios: Vec<RatioFact>,
}

/// One ratio of a pack that has several, as it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioFact {
    pub ratio: f64,
    /// What it takes beside those before it. Counted in `memory` jobs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerKernel {
    pub name: String,
    /// What it computes, e.g. `conv 3x3`.
    pub op: String,
    /// The fastest of the candidates on this board.
    pub kernel: String,
    pub candidates: Vec<CandidateTime>,
    /// Whether the times are those of an earlier invocation.
    pub cached: bool,
    /// Why the layer stays as tract has it although there are kernels for it, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateTime {
    pub kernel: String,
    pub ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTime {
    pub name: String,
    pub op: String,
    pub kernel: String,
    /// How often it is carried out in one inference.
    pub calls: u64,
    /// Of all its calls in one inference together.
    pub median_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switched {
    /// Timed inferences so far.
    pub after: u64,
    pub ratio: f64,
    /// What switching took, from the decision to being ready for the next inference.
    pub ns: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// In order: `start`, `load`, `infer`. The kernel's high-water mark is reset between them where it lets us.
    pub phases: Vec<MemoryPhase>,
    /// The highest of the phases: the kernel's `VmHWM`, in bytes.
    pub peak_rss: u64,
    /// Most bytes the program had allocated at once, by its own count.
    pub peak_allocated: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryPhase {
    pub name: String,
    pub peak_rss: u64,
    pub allocated: u64,
    /// Whether the high-water mark was reset before this phase; if not, `peak_rss` includes the phases before.
    pub reset: bool,
}

/// Results of consecutive samples of the inputs; several such lines add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Index of the first sample in this line.
    pub start: u64,
    /// Class with the largest value in the first output, a sample each (the first of equals).
    pub classes: Vec<u32>,
    /// The first output, flattened, a sample each: exact f32 values (printed shortest, read back to the same bits). Empty where the output
    /// is larger than [`Predictions::MAX_VALUES`] a sample.
    pub values: Vec<Vec<f32>>,
}

impl Predictions {
    /// Output values a sample that still travel to the host.
    pub const MAX_VALUES: usize = 1024;
}

/// Of layers in one line; with the bounds below it stays well below [`crate::MAX_LINE`].
const LAYERS: usize = 16;
/// Bytes of a name that is said. Names come from the model's file.
const MAX_TEXT: usize = 160;
/// Bytes of a kernel's name that are said.
const MAX_KERNEL: usize = 64;
/// Candidates of a layer that are said.
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

/// The beginning of a text that is too long.
fn bounded(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923), of pieces one behind another, as 16 lower-case hexadecimal digits. Tells accidents apart, not forgeries.
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

    /// Names are a stranger's, and six bytes of JSON for one of theirs is the worst there is.
    #[test]
    fn lines_about_layers_are_bounded() {
        let text = "\u{1}".repeat(10_000);
        let candidate = CandidateTime { kernel: text.clone(), ns: u64::MAX };
        let (name, op, kernel) = (text.clone(), text.clone(), text.clone());
        let layer = LayerKernel {
            name: name.clone(),
            op: op.clone(),
            kernel: kernel.clone(),
            candidates: vec![candidate; 100],
            cached: false,
            note: Some(text),
        };
        let time = LayerTime { name, op, kernel, calls: u64::MAX, median_ns: u64::MAX };
        let (kernels, times) = (vec![layer; 100], vec![time; 100]);
        let mut said = (0, 0);
        for line in Line::kernels(&kernels).chain(Line::profile(&times)) {
            assert!(serde_json::to_string(&line).unwrap().len() < crate::MAX_LINE);
            match line {
                Line::Kernels { layers } => said.0 += layers.len(),
                Line::Profile { layers } => said.1 += layers.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(said, (100, 100));
    }

    /// Lines as they were before digests and CPU times: a baseline's runner may be that old.
    #[test]
    fn lines_of_an_earlier_runner_are_read() {
        let read = |line: &str| serde_json::from_str::<Line>(line).unwrap();
        assert_eq!(read(r#"{"line":"first","ns":9}"#), Line::First { ns: 9, digest: None });
        let state = r#"{"line":"state","kernel":"6.1.0","cpu":null,"cpus":4,"governor":null,"frequency_khz":null,
            "max_frequency_khz":null,"temperature_millicelsius":51000,"throttled":false,"load_percent":3,"memory_total":1,
            "memory_available":1,"swap_ins":0}"#;
        let Line::State(state) = read(state) else { panic!("not a state") };
        assert_eq!((state.swap_ins, state.busy_ms, state.own_cpu_ms), (Some(0), None, None));
    }

    /// The other way around: an earlier host reads what it knows.
    #[test]
    fn an_unknown_field_is_passed_over() {
        let line = r#"{"line":"first","ns":9,"digest":"00","of_tomorrow":1}"#;
        assert_eq!(serde_json::from_str::<Line>(line).unwrap(), Line::First { ns: 9, digest: Some("00".into()) });
    }
}
