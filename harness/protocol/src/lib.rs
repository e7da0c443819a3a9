//! The messages between a runner on a board and the host, which share nothing else.
//!
//! The host gives the runner one [`Job`] as command-line flags, and prepared inputs as a [`tensor`] file. The runner
//! answers with JSON [`Line`]s on stdout, one per line, `hello` first and `finished` last. A run without `finished` was
//! cut off, whatever its exit status. A baseline's runner may be older than the host, so fields and flags are only ever
//! added, and new ones are optional on both sides. The crate depends on serde alone, so that it costs the runner
//! nothing.

pub mod float;
pub mod job;
pub mod line;
pub mod tensor;
pub mod text;

pub use job::{Engine, Job, Mode, OutputRequest};
pub use line::{
    BoardState, CandidateTime, Hello, LayerKernel, LayerTime, Line, Loaded, Macs, Memory, MemoryPhase, NotFinite,
    OutputFact, Predictions, RatioFact, Stage, Switched,
};
pub use text::Text;

/// Raised whenever the meaning of a line changes. The host refuses a runner with another version.
pub const VERSION: u32 = 1;

/// The longest line that the host accepts, in bytes. The runner splits longer output into several lines.
pub const MAX_LINE: usize = 256 * 1024;

/// Seconds between two heartbeats of a busy runner. The host gives up after three missing heartbeats.
pub const HEARTBEAT_SECONDS: u64 = 5;
