//! 4 lanes, 32 registers. Every aarch64 processor has it.

use std::arch::{aarch64::*, asm};

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Neon;

/// # Safety
/// The preconditions of `kernel` hold.
#[target_feature(enable = "neon")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Neon>()
}

impl Simd for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type V = float32x4_t;

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        vdupq_n_f32(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        vld1q_f32(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: float32x4_t) {
        vst1q_f32(to, vector)
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> float32x4_t {
        let mut lanes = [0.0f32; 4];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
        vld1q_f32(lanes.as_ptr())
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: float32x4_t, count: usize) {
        let mut lanes = [0.0f32; 4];
        vst1q_f32(lanes.as_mut_ptr(), vector);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
    }
    methods! {
        mul_add(a, b, c) = vfmaq_f32(c, a, b);
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        min(a, b) = vbslq_f32(vcltq_f32(a, b), a, b);
        max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
        sqrt(a) = vsqrtq_f32(a);
        abs(a) = vabsq_f32(a);
        round(a) = vrndnq_f32(a);
        exp2_whole(n) = {
            let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        };
        with_sign_of(magnitude, sign) = vbslq_f32(vdupq_n_u32(1 << 31), sign, magnitude);
        select_less(a, b, yes, no) = vbslq_f32(vcltq_f32(a, b), yes, no);
    }
    #[inline(always)]
    unsafe fn sum(a: float32x4_t) -> f32 {
        vaddvq_f32(a)
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (float32x4_t, float32x4_t) {
        let float32x4x2_t(even, odd) = vld2q_f32(from);
        (even, odd)
    }
    #[inline(always)]
    unsafe fn unzip(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        (vuzp1q_f32(a, b), vuzp2q_f32(a, b))
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let (a, b) = (vld1q_f32(from), vld1q_f32(from.add(from_stride)));
        let (c, d) = (vld1q_f32(from.add(2 * from_stride)), vld1q_f32(from.add(3 * from_stride)));
        // Pairs of rows: of their columns 0 and 2, and 1 and 3.
        let (even, odd) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
        let (even_below, odd_below) = (vtrn1q_f32(c, d), vtrn2q_f32(c, d));
        let (a, b) = (vreinterpretq_f64_f32(even), vreinterpretq_f64_f32(odd));
        let (c, d) = (vreinterpretq_f64_f32(even_below), vreinterpretq_f64_f32(odd_below));
        vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(a, c)));
        vst1q_f32(to.add(to_stride), vreinterpretq_f32_f64(vtrn1q_f64(b, d)));
        vst1q_f32(to.add(2 * to_stride), vreinterpretq_f32_f64(vtrn2q_f64(a, c)));
        vst1q_f32(to.add(3 * to_stride), vreinterpretq_f32_f64(vtrn2q_f64(b, d)));
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // The intrinsic is not stable.
        asm!("prfm pldl1keep, [{}]", in(reg) from, options(nostack, preserves_flags, readonly))
    }
}
