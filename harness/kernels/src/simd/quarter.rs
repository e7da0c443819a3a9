//! 4 lanes on x86-64, with FMA, for blocks of four rows, which do not fill a wider register.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Quarter;

/// Runs `kernel` with vectors of four.
///
/// # Safety
/// The processor has AVX2 and FMA, and the preconditions of `kernel` hold.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run_quarter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Quarter>()
}

/// A window into it is the mask for any count.
static ONES_THEN_ZEROS: [i32; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

#[inline(always)]
unsafe fn mask(count: usize) -> __m128i {
    debug_assert!(count <= 4);
    _mm_loadu_si128(ONES_THEN_ZEROS.as_ptr().add(4 - count).cast())
}

impl Simd for Quarter {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    type V = __m128;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m128 {
        _mm_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m128 {
        _mm_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m128) {
        _mm_storeu_ps(to, vector)
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> __m128 {
        _mm_maskload_ps(from, mask(count))
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: __m128, count: usize) {
        _mm_maskstore_ps(to, mask(count), vector)
    }
    methods! {
        mul_add(a, b, c) = _mm_fmadd_ps(a, b, c);
        add(a, b) = _mm_add_ps(a, b);
        sub(a, b) = _mm_sub_ps(a, b);
        mul(a, b) = _mm_mul_ps(a, b);
        div(a, b) = _mm_div_ps(a, b);
        min(a, b) = _mm_min_ps(a, b);
        max(a, b) = _mm_max_ps(a, b);
        sqrt(a) = _mm_sqrt_ps(a);
        abs(a) = _mm_andnot_ps(_mm_set1_ps(-0.0), a);
        round(a) = _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        exp2_whole(n) = {
            let biased = _mm_add_epi32(_mm_cvtps_epi32(n), _mm_set1_epi32(127));
            _mm_castsi128_ps(_mm_slli_epi32::<23>(biased))
        };
        with_sign_of(magnitude, sign) = _mm_or_ps(magnitude, _mm_and_ps(sign, _mm_set1_ps(-0.0)));
        select_less(a, b, yes, no) = _mm_blendv_ps(no, yes, _mm_cmplt_ps(a, b));
    }
    #[inline(always)]
    unsafe fn sum(a: __m128) -> f32 {
        let half = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)))
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (__m128, __m128) {
        let (a, b) = (_mm_loadu_ps(from), _mm_loadu_ps(from.add(4)));
        (_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b))
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }
}
