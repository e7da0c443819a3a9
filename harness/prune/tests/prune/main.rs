//! Pruning through the public functions: on models built here, on exports, and on the shipped one. What counts memory
//! is a program of its own, `hostile`: its allocator must not see other tests.

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
