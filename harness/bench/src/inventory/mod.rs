//! Targets, devices and models.

mod types;

pub use types::*;
