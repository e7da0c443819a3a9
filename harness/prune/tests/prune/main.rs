//! Pruning through the public functions: models built here, exports, and the shipped model. The tests that count memory
//! are a program of their own, `hostile`: its allocator must not see other tests.

mod build;
mod counts;
mod exports;
mod fine_tuned;
mod golden;
mod importance;
mod roles;
mod shipped;
mod structure;
mod tune;
mod units;
