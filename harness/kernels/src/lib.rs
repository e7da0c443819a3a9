//! What makes pruning pay at run time: products that skip zeros, and dense ones that keep pace with them. Slices in, slices out; no engine, and no files
//! but the one in which is kept how long kernels took ([`choices`]).
//!
//! Written once over [`simd`], compiled for every instruction set the processor may turn out to have. Weights are packed once, at load.

#![expect(
    clippy::needless_range_loop,
    reason = "loops over registers: constant bounds and plain indices are what the compiler unrolls"
)]

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
pub mod recurrent;
mod share_out;
pub mod simd;
pub mod softmax;
pub mod threads;

pub use simd::Isa;

/// Sizes beside packed data decide how much of it is read, so only the constructors that check them set them:
///
/// ```
/// use espalier_kernels::{linear_dense::*, linear_panels::Panels, linear_skipping::*, linear_sparse::*};
/// let matrix = WeightMatrix::by_output(&[1.0; 6], 2, 3);
/// assert_eq!((matrix.outputs(), matrix.inputs()), (2, 3));
/// assert_eq!(DenseWeight::pack(matrix).outputs(), 2);
/// assert_eq!(SparseWeight::pack(matrix, 4).height(), 4);
/// assert_eq!(SkippingWeight::pack(matrix).inputs(), 3);
/// assert_eq!(Panels::new(1, 5).tokens(), 5);
/// ```
/// ```compile_fail,E0616
/// use espalier_kernels::linear_dense::WeightMatrix;
/// let mut matrix = WeightMatrix::by_output(&[1.0; 6], 2, 3);
/// matrix.outputs = 1000;
/// ```
/// ```compile_fail,E0616
/// use espalier_kernels::linear_dense::{DenseWeight, WeightMatrix};
/// let mut weight = DenseWeight::pack(WeightMatrix::by_output(&[1.0; 6], 2, 3));
/// weight.outputs = 1000;
/// ```
/// ```compile_fail,E0616
/// use espalier_kernels::{linear_dense::WeightMatrix, linear_sparse::SparseWeight};
/// let mut weight = SparseWeight::pack(WeightMatrix::by_output(&[1.0; 6], 2, 3), 4);
/// weight.height = 8;
/// ```
/// ```compile_fail,E0616
/// use espalier_kernels::{linear_dense::WeightMatrix, linear_skipping::SkippingWeight};
/// let mut weight = SkippingWeight::pack(WeightMatrix::by_output(&[1.0; 6], 2, 3));
/// weight.inputs = 1000;
/// ```
/// ```compile_fail,E0451
/// let panels = espalier_kernels::linear_panels::Panels { sequences: usize::MAX, tokens: 16 };
/// ```
#[cfg(doctest)]
struct SizesArePrivate;
