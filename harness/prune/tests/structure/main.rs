//! Structured pruning: what is left computes what the dense model does with all that was removed set to zero, in our own engine. Against
//! onnxruntime it is held in `tests/e2e/structured.rs`.

mod agree;
mod exports;
mod hostile;
mod rules;
