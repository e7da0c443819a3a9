//! 16 lanes, 32 registers, masks for partial vectors.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Avx512;

/// # Safety
/// The processor has AVX-512 F and DQ.
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    type V = __m512;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m512) {
        _mm512_storeu_ps(to, vector)
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> __m512 {
        _mm512_maskz_loadu_ps(mask(count), from)
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: __m512, count: usize) {
        _mm512_mask_storeu_ps(to, mask(count), vector)
    }
    #[inline(always)]
    unsafe fn load_between(from: *const f32, first: usize, end: usize) -> __m512 {
        _mm512_maskz_loadu_ps(mask(end) & !mask(first), from)
    }
    #[inline(always)]
    unsafe fn load_onto(others: __m512, from: *const f32, first: usize, end: usize) -> __m512 {
        _mm512_mask_loadu_ps(others, mask(end) & !mask(first), from)
    }
    #[inline(always)]
    unsafe fn store_between(to: *mut f32, vector: __m512, first: usize, end: usize) {
        _mm512_mask_storeu_ps(to, mask(end) & !mask(first), vector)
    }
    #[inline(always)]
    unsafe fn halves(first: f32, second: f32) -> __m512 {
        _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(first), _mm512_set1_ps(second))
    }
    #[inline(always)]
    unsafe fn compact(vector: __m512, kept: u32) -> __m512 {
        _mm512_maskz_compress_ps(kept as __mmask16, vector)
    }
    methods! {
        mul_add(a, b, c) = _mm512_fmadd_ps(a, b, c);
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        sqrt(a) = _mm512_sqrt_ps(a);
        abs(a) = _mm512_abs_ps(a);
        round(a) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        exp2_whole(n) = {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        };
        with_sign_of(magnitude, sign) = _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0)));
        select_less(a, b, yes, no) = _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes);
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        _mm512_reduce_add_ps(a)
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (__m512, __m512) {
        Self::unzip(_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)))
    }
    #[inline(always)]
    unsafe fn unzip(a: __m512, b: __m512) -> (__m512, __m512) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let zero = _mm512_setzero_ps();
        let (mut a, mut b) = ([zero; 16], [zero; 16]);
        for row in 0..16 {
            a[row] = _mm512_loadu_ps(from.add(row * from_stride));
        }
        // Pairs of rows, then groups of four: each quarter of a vector has four rows of one column.
        for pair in 0..8 {
            b[2 * pair] = _mm512_unpacklo_ps(a[2 * pair], a[2 * pair + 1]);
            b[2 * pair + 1] = _mm512_unpackhi_ps(a[2 * pair], a[2 * pair + 1]);
        }
        for four in 0..4 {
            let (b0, b1) = (_mm512_castps_pd(b[4 * four]), _mm512_castps_pd(b[4 * four + 1]));
            let (b2, b3) = (_mm512_castps_pd(b[4 * four + 2]), _mm512_castps_pd(b[4 * four + 3]));
            a[4 * four] = _mm512_castpd_ps(_mm512_unpacklo_pd(b0, b2));
            a[4 * four + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(b0, b2));
            a[4 * four + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b1, b3));
            a[4 * four + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b1, b3));
        }
        // Collects the quarters of the four vectors that have this column.
        for column in 0..4 {
            let even_low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a[column], a[4 + column]);
            let odd_low = _mm512_shuffle_f32x4::<0b11_01_11_01>(a[column], a[4 + column]);
            let even_high = _mm512_shuffle_f32x4::<0b10_00_10_00>(a[8 + column], a[12 + column]);
            let odd_high = _mm512_shuffle_f32x4::<0b11_01_11_01>(a[8 + column], a[12 + column]);
            let (to, step) = (to.add(column * to_stride), 4 * to_stride);
            _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0b10_00_10_00>(even_low, even_high));
            _mm512_storeu_ps(to.add(step), _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_low, odd_high));
            _mm512_storeu_ps(to.add(2 * step), _mm512_shuffle_f32x4::<0b11_01_11_01>(even_low, even_high));
            _mm512_storeu_ps(to.add(3 * step), _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_low, odd_high));
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }
}
