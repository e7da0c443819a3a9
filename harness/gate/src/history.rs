//! What the gate's nights say one after another: whether a level changed, when, and whether somebody answers for it.
//!
//! In: the lines of `reports/history.jsonl` ([`night`]) and the acknowledgements of `reports/changes.toml` ([`changes`]). Out: one [`Track`] a case,
//! criterion and baseline, each with two series, and the points of both ([`points`]). The ratio of candidate to baseline is the history of the code:
//! what the device does cancels out. The baseline's own time is the history of the device: its code never changes.
//!
//! This is no gate: it opens a suspect, never fails a run.

pub mod changes;
pub mod data;
#[cfg(test)]
mod fixture;
pub mod night;
pub mod points;
pub mod render;
pub mod series;
pub mod sparkline;

pub use changes::{Acknowledged, Change};
pub use night::Night;
pub use points::{History, Kind, Line, Point, Row, State, Stretch, history};
pub use series::{Subject, Track};
