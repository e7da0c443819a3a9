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
    /// The inference engine and its version, e.g. `tract 0.23.9`.
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
