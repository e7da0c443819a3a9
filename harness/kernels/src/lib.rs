//! What makes pruning pay at run time: products that skip zeros, and dense ones that keep pace with them. Slices in, slices out; no engine, and no files
//! but the one in which is kept how long kernels took ([`choices`]).
//!
//! Written once over [`simd`], compiled for every instruction set the processor may turn out to have. Weights are packed once, at load.

#![expect(
    clippy::needless_range_loop,
    reason = "loops over registers: constant bounds and plain indices are what the compiler unrolls"
)]

pub mod activations;
pub mod attention;
pub mod choices;
pub mod convolution;
mod convolution_planes;
#[cfg(test)]
mod convolution_tests;
mod convolution_tile;
pub mod convolution_window;
pub mod depthwise;
pub mod elementwise;
pub mod linear_dense;
pub mod linear_panels;
pub mod linear_skipping;
pub mod linear_sparse;
pub mod matvec;
pub mod normalise;
pub mod panel;
pub mod pool;
pub mod pool_sum;
pub mod recurrent;
mod share_out;
pub mod simd;
pub mod softmax;
pub mod threads;

pub use simd::Isa;
