//! Vectors of f32 of each instruction set behind one trait, so that a kernel is written once.
//!
//! A kernel is a value with [`Kernel::run`], generic over [`Simd`]. [`Isa::run`] calls it inside a function that is
//! compiled for the instruction set. Everything on the way is `#[inline(always)]`: a function that is not inlined there
//! is compiled without those instructions. So kernels have no closures in their loops.

/// Methods of [`Simd`] that take vectors and return one.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),+) = $body:expr;)+) => {
        $($(#[$doc])*
        #[inline(always)]
        unsafe fn $name($($argument: Self::V),+) -> Self::V {
            $body
        })+
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
#[path = "simd/neon32.rs"]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod quarter;

pub use isa::Isa;
#[cfg(target_arch = "x86_64")]
pub(crate) use isa::Set;
#[cfg(target_arch = "x86_64")]
pub(crate) use quarter::run_quarter;

/// The most lanes of any instruction set.
pub const MOST_LANES: usize = 16;

/// `LANES` values of f32 and operations on them.
///
/// # Safety
/// Every method needs the instruction set of its implementor, which [`Isa::run`] guarantees. Pointers are to `LANES`
/// values (`count` for the partial methods) and need the alignment of one value.
#[expect(clippy::missing_safety_doc, reason = "one section for all methods, above")]
pub trait Simd: Copy + 'static {
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;
    type V: Copy;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, vector: Self::V);
    /// Loads the first `count` values, at most [`Simd::LANES`]; the other lanes are zero. Memory beyond is not touched.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self::V;
    unsafe fn store_partial(to: *mut f32, vector: Self::V, count: usize);
    /// Loads the lanes `first..end`; the others are zero. Memory of other lanes is not touched and need not exist.
    #[inline(always)]
    unsafe fn load_between(from: *const f32, first: usize, end: usize) -> Self::V {
        if first == 0 && end == Self::LANES {
            return Self::load(from);
        }
        let mut lanes = [0.0; MOST_LANES];
        for lane in first..end {
            lanes[lane] = *from.wrapping_add(lane);
        }
        Self::load(lanes.as_ptr())
    }
    /// As [`Simd::load_between`], with the other lanes of `others`.
    #[inline(always)]
    unsafe fn load_onto(others: Self::V, from: *const f32, first: usize, end: usize) -> Self::V {
        let mut lanes = [0.0; MOST_LANES];
        Self::store(lanes.as_mut_ptr(), others);
        for lane in first..end {
            lanes[lane] = *from.wrapping_add(lane);
        }
        Self::load(lanes.as_ptr())
    }
    /// Stores the lanes `first..end`. Memory of other lanes is not touched and need not exist.
    #[inline(always)]
    unsafe fn store_between(to: *mut f32, vector: Self::V, first: usize, end: usize) {
        let mut lanes = [0.0; MOST_LANES];
        Self::store(lanes.as_mut_ptr(), vector);
        for lane in first..end {
            *to.wrapping_add(lane) = lanes[lane];
        }
    }
    /// One value in the first half of the lanes, another in the second.
    #[inline(always)]
    unsafe fn halves(first: f32, second: f32) -> Self::V {
        let mut lanes = [first; MOST_LANES];
        lanes[Self::LANES / 2..].fill(second);
        Self::load(lanes.as_ptr())
    }
    /// Moves the lanes whose bit is set in `kept` to the front. The other lanes are unspecified.
    #[inline(always)]
    unsafe fn compact(vector: Self::V, kept: u32) -> Self::V {
        let mut lanes = [0.0; MOST_LANES];
        Self::store(lanes.as_mut_ptr(), vector);
        let (mut rest, mut count) = (kept, 0);
        while rest != 0 {
            lanes[count] = lanes[rest.trailing_zeros() as usize];
            (rest, count) = (rest & (rest - 1), count + 1);
        }
        Self::load(lanes.as_ptr())
    }
    /// `a * b + c`, rounded once where the processor can do that.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `b` where one of the two is NaN, as on x86.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    /// Rounds to the nearest integer, ties to even, for magnitudes below 2^22.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `2^n` for integers `n` from -126 to 127.
    unsafe fn exp2_whole(n: Self::V) -> Self::V;
    /// `magnitude` with the sign of `sign`; `magnitude` is not negative.
    unsafe fn with_sign_of(magnitude: Self::V, sign: Self::V) -> Self::V;
    /// `yes` where `a < b`, else `no`.
    unsafe fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    unsafe fn sum(a: Self::V) -> f32;
    /// Even and odd places of `2 * LANES` values, for stride 2.
    unsafe fn deinterleave(from: *const f32) -> (Self::V, Self::V);
    /// Even and odd lanes of two vectors.
    #[inline(always)]
    unsafe fn unzip(a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        let mut lanes = [0.0f32; 2 * MOST_LANES];
        Self::store(lanes.as_mut_ptr(), a);
        Self::store(lanes.as_mut_ptr().add(Self::LANES), b);
        Self::deinterleave(lanes.as_ptr())
    }
    /// Transposes a square of [`Simd::LANES`] rows and columns: `to[c * to_stride + r] = from[r * from_stride + c]`.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
            }
        }
    }
    /// Asks the processor to load a cache line early. The address need not be valid.
    unsafe fn prefetch(from: *const f32);
}

/// A computation that is compiled for each instruction set.
pub trait Kernel {
    type Output;

    /// # Safety
    /// The processor has the instructions of `S`. Implementations are `#[inline(always)]`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(test)]
mod tests;
