//! The real program with real boards, files and runners. `cargo xtask test` runs this; `src/lib.rs` says what it needs.

mod agreement;
mod configuration;
mod connections;
mod convolutional;
mod engine;
mod gate;
mod host;
mod linear;
mod models;
mod ops;
mod packed;
mod peers;
mod pruning;
mod reports;
mod runners;
mod single;
mod structured;
mod zoo;
