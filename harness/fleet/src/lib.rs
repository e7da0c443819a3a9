//! Everything with side effects on the way from a plan to records: building runners, reaching boards, bringing files there, running jobs.
//!
//! What is to be done and what results mean is decided in `espalier-bench`; the functions here are meant to be too simple to be wrong.

pub mod apt;
mod base64;
pub mod blob;
pub mod boards;
pub mod build;
pub mod cache;
pub mod cancel;
pub mod conditions;
pub mod deploy;
pub mod elf;
pub mod emulated;
pub mod eval_set;
mod file_lock;
pub mod lease;
pub mod npz;
pub mod process;
pub mod python;
pub mod session;
pub mod store;
pub mod toolchain;
pub mod transport;
mod versions;
