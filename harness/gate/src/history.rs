//! The gate's history: whether a level changed, when, and whether the change is acknowledged.
//!
//! In: the lines of `reports/history.jsonl` ([`entry`]) and the acknowledgements of `reports/changes.toml`
//! ([`changes`]). Out: one [`Track`] a case, criterion and baseline, each with two series, and the points of both
//! ([`points`]). The ratio of candidate to baseline is the history of the code: changes of the device cancel out. The
//! baseline's own time is the history of the device: its code never changes.
//!
//! The history reports suspects and never fails a run.

pub mod changes;
pub mod data;
pub mod entry;
#[cfg(test)]
mod fixture;
pub mod points;
pub mod render;
pub mod series;
pub mod sparkline;

pub use changes::{Acknowledged, Change};
pub use entry::HistoryEntry;
pub use points::{History, Line, Point, PointKind, Row, State, Stretch, history};
pub use series::{Subject, Track};
