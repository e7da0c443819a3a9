//! Everything with side effects on the way from a plan to records: building runners, reaching boards, bringing files there, running jobs.
//!
//! What is to be done and what results mean is decided in `espalier-bench`; the functions here are meant to be too simple to be wrong.

pub mod cache;
pub mod cancel;
pub mod eval_set;
pub mod npz;
