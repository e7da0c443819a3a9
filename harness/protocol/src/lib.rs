//! What a runner on a board and the host say to each other: nothing else is shared between them.
//!
//! The host gives the runner one [`Job`] as command-line flags and prepared inputs as a [`tensor`] file; the runner answers with JSON
//! [`Line`]s on stdout, one a line, `hello` first and `finished` last. A run without `finished` was cut off, whatever its exit status.
//! A baseline's runner may be older than the host, so fields and flags are only ever
//! added, and what is new is optional on both sides. Depends on serde alone, so that it costs the runner nothing.

pub mod job;
pub mod line;
pub mod tensor;

pub use job::{Engine, Job, Mode};
pub use line::{
    BoardState, CandidateTime, Hello, LayerKernel, LayerTime, Line, Loaded, Macs, Memory, MemoryPhase, OutputFact,
    Predictions, RatioFact, Stage, Switched,
};

/// Raised whenever a line changes its meaning; the host refuses a runner that speaks another version.
pub const VERSION: u32 = 1;

/// The longest line the host accepts, in bytes. Longer output is cut into several lines by the runner; a board that sends more is broken.
pub const MAX_LINE: usize = 256 * 1024;

/// Seconds between two heartbeats of a busy runner. The host gives up on a silent one after three.
pub const HEARTBEAT_SECONDS: u64 = 5;
