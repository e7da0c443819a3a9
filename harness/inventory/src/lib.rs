//! Targets, devices and models: the files a person writes, checked and resolved.
//!
//! [`load`] takes the contents of `targets.toml`, `devices/*.toml` and `models/*.toml` and returns an [`Inventory`] in
//! which every name is resolved and every rule holds, or a [`Problem`] for every mistake in all of them.

mod device;
pub mod document;
mod load;
mod model;
pub mod names;
mod problem;
mod recipe;
mod task;
#[cfg(test)]
mod tests;
mod types;
mod values;

pub use device::DEFAULT_WORKDIR;
pub use espalier_recipe::{Distillation, Method, Schedule, Scope, Structure, Unit};
pub use espalier_tasks::Spec;
pub use load::{SourceFiles, Surroundings, load};
pub use model::BUILT;
pub use names::{UnknownName, is_name, suggest};
pub use problem::{Problem, SourceFile};
pub use recipe::{Conflict, Recipe, is_pack_form};
pub use types::*;
