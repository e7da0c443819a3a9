//! 8 lanes, 16 registers, fused multiply-add.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Avx2;

/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// A window into it is the mask for any count.
static ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// For each set of lanes the numbers of its lanes, ascending, a byte each.
static KEPT_FIRST: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut kept = 0;
    while kept < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if kept >> lane & 1 == 1 {
                table[kept][count] = lane as u8;
                count += 1;
            }
            lane += 1;
        }
        kept += 1;
    }
    table
};

#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast())
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type V = __m256;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m256) {
        _mm256_storeu_ps(to, vector)
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> __m256 {
        _mm256_maskload_ps(from, mask(count))
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: __m256, count: usize) {
        // In halves: on some AMD processors a masked store takes as long as ten plain ones.
        if count >= 8 {
            return _mm256_storeu_ps(to, vector);
        }
        let (mut rest, mut to) = (_mm256_castps256_ps128(vector), to);
        if count & 4 != 0 {
            _mm_storeu_ps(to, rest);
            (rest, to) = (_mm256_extractf128_ps::<1>(vector), to.add(4));
        }
        if count & 2 != 0 {
            _mm_storel_pd(to.cast(), _mm_castps_pd(rest));
            (rest, to) = (_mm_movehl_ps(rest, rest), to.add(2));
        }
        if count & 1 != 0 {
            _mm_store_ss(to, rest);
        }
    }
    #[inline(always)]
    unsafe fn load_between(from: *const f32, first: usize, end: usize) -> __m256 {
        _mm256_maskload_ps(from, _mm256_andnot_si256(mask(first), mask(end)))
    }
    #[inline(always)]
    unsafe fn compact(vector: __m256, kept: u32) -> __m256 {
        let places = _mm_loadl_epi64(KEPT_FIRST.as_ptr().add((kept & 0xff) as usize).cast());
        _mm256_permutevar8x32_ps(vector, _mm256_cvtepu8_epi32(places))
    }
    methods! {
        mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c);
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        max(a, b) = _mm256_max_ps(a, b);
        sqrt(a) = _mm256_sqrt_ps(a);
        abs(a) = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        exp2_whole(n) = {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        };
        with_sign_of(magnitude, sign) = _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0)));
        select_less(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (__m256, __m256) {
        Self::unzip(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
    }
    #[inline(always)]
    unsafe fn unzip(a: __m256, b: __m256) -> (__m256, __m256) {
        // Each half of a vector is shuffled on its own. The quarters are put in order afterwards.
        let even = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
        let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
        let even = _mm256_permute4x64_pd::<0b11_01_10_00>(even);
        let odd = _mm256_permute4x64_pd::<0b11_01_10_00>(odd);
        (_mm256_castpd_ps(even), _mm256_castpd_ps(odd))
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let zero = _mm256_setzero_ps();
        let (mut a, mut b) = ([zero; 8], [zero; 8]);
        for row in 0..8 {
            a[row] = _mm256_loadu_ps(from.add(row * from_stride));
        }
        for pair in 0..4 {
            b[2 * pair] = _mm256_unpacklo_ps(a[2 * pair], a[2 * pair + 1]);
            b[2 * pair + 1] = _mm256_unpackhi_ps(a[2 * pair], a[2 * pair + 1]);
        }
        for four in 0..2 {
            let (b0, b1) = (_mm256_castps_pd(b[4 * four]), _mm256_castps_pd(b[4 * four + 1]));
            let (b2, b3) = (_mm256_castps_pd(b[4 * four + 2]), _mm256_castps_pd(b[4 * four + 3]));
            a[4 * four] = _mm256_castpd_ps(_mm256_unpacklo_pd(b0, b2));
            a[4 * four + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(b0, b2));
            a[4 * four + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b1, b3));
            a[4 * four + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b1, b3));
        }
        for column in 0..4 {
            let (low, high) = (a[column], a[4 + column]);
            _mm256_storeu_ps(to.add(column * to_stride), _mm256_permute2f128_ps::<0x20>(low, high));
            _mm256_storeu_ps(to.add((4 + column) * to_stride), _mm256_permute2f128_ps::<0x31>(low, high));
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast())
    }
}
