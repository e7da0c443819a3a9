//! Structured pruning: the pruned model computes what the dense model computes with all removed units set to zero, in
//! our own engine. `tests/e2e/structured.rs` compares it with onnxruntime.

mod agree;
mod dead;
mod exports;
mod hostile;
mod rules;
mod text;
