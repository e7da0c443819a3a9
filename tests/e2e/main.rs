//! The real program against real boards, files and runners. `cargo xtask test` runs this, and what it needs stands in
//! `src/lib.rs`.

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
mod structured;
mod zoo;
