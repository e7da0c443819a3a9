//! Kernels that make pruning faster at run time: products that skip zeros, and dense products to compare them with.
//! Slices in, slices out. There is no engine here, and no file but the one with measured times of kernels
//! ([`choices`]).
//!
//! Kernels are written once over [`simd`] and compiled for every instruction set that the processor may have. Weights
//! are packed once, at load.
//!
//! # Unsafe code
//! A kernel is a safe function around unsafe ones. The safe function checks that every slice has the length that its
//! sizes require; constructors of packed weights check that indices and offsets are within the matrix. The unsafe
//! functions below it rely on these checks, on an [`Isa`] that the processor has, and on parallel tasks that write
//! disjoint parts of the output. That is the contract of every unsafe function of this crate that states no other, and
//! its body relies on it in nearly every line: so there are no `unsafe` blocks within unsafe functions.

#![expect(
    clippy::needless_range_loop,
    reason = "the compiler unrolls loops over registers with constant bounds and plain indices"
)]
#![expect(unsafe_op_in_unsafe_fn, reason = "one contract holds for whole bodies of kernels, see above")]
#![warn(clippy::undocumented_unsafe_blocks)]

mod aligned;

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
pub mod random;
pub mod recurrent;
mod share_out;
pub mod simd;
mod softmax;
#[cfg(test)]
mod testing;
pub mod threads;

pub use simd::Isa;

#[cfg(doctest)]
#[doc = include_str!("sizes_are_private.md")]
struct SizesArePrivate;
