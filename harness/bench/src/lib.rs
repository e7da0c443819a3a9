//! Decisions without side effects: what is to be built and measured, and what the results mean.
//!
//! No files, processes, clock or printing here (`clippy.toml` beside this crate bans them): contents and times come in
//! as parameters, what is to be done goes out as data. The crate that acts is `espalier-fleet`.

pub mod build_plan;
pub mod command;
pub mod conversation;
pub mod engine;
pub mod exit;
pub mod export;
pub mod markdown;
pub mod message;
pub mod metric;
pub mod plan;
pub mod record;
pub mod runner_sources;
pub mod sheet;
pub mod summary;
pub mod table;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
