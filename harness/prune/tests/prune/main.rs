//! Pruning through the public functions: on models made here, and on the shipped one.

mod build;
mod counts;
mod exports;
mod importance;
mod roles;
mod shipped;
mod taught;
mod tune;
mod units;
