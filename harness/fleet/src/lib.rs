//! Everything with side effects between a plan and its records: building, reaching boards, pushing files, running jobs.
//!
//! `espalier-bench` decides what to do and what results mean; the functions here should be too simple to be wrong.

pub mod apt;
mod base64;
pub mod blob;
pub mod boards;
pub mod build;
pub mod cache;
pub mod cancel;
mod child;
pub mod conditions;
pub mod deploy;
pub mod elf;
pub mod emulated;
mod file_lock;
pub mod lease;
pub mod process;
pub mod python;
pub mod regular;
pub mod session;
pub mod store;
pub mod toolchain;
pub mod transport;
mod versions;
