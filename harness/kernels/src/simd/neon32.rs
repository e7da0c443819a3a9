//! 4 lanes as two registers of two, for 32-bit ARM processors with NEON, which is detected at run time.
//!
//! Rust's NEON intrinsics are not stable for this target; inline assembly is. A pair of f32 is passed as an f64, the
//! only type that the compiler allows in a `d` register here; there is no arithmetic on that f64. `.fpu neon` is for
//! the assembler, because the target does not guarantee NEON.

use std::{arch::asm, ffi::c_ulong};

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Neon;

pub type V = [f64; 2];

/// Whether the kernel reports NEON for this processor.
pub fn is_there() -> bool {
    unsafe extern "C" {
        fn getauxval(kind: c_ulong) -> c_ulong;
    }
    const AT_HWCAP: c_ulong = 16;
    const HWCAP_NEON: c_ulong = 1 << 12;
    // SAFETY: it has no preconditions; an unknown kind gives 0.
    unsafe { getauxval(AT_HWCAP) & HWCAP_NEON != 0 }
}

/// # Safety
/// The processor has NEON, and the preconditions of `kernel` hold.
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Neon>()
}

/// An instruction with two operands and one result, on each half.
macro_rules! two {
    ($instruction:literal, $a:expr, $b:expr) => {{
        let ([a0, a1], [b0, b1]): (V, V) = ($a, $b);
        let (c0, c1): (f64, f64);
        asm!(
            ".fpu neon",
            concat!($instruction, " {c0}, {a0}, {b0}"),
            concat!($instruction, " {c1}, {a1}, {b1}"),
            a0 = in(dreg_low16) a0, a1 = in(dreg_low16) a1, b0 = in(dreg_low16) b0, b1 = in(dreg_low16) b1,
            c0 = out(dreg_low16) c0, c1 = lateout(dreg_low16) c1,
            options(pure, nomem, nostack, preserves_flags),
        );
        [c0, c1]
    }};
}

/// An instruction with one operand and perhaps an immediate, on each half.
macro_rules! one {
    ($instruction:literal, $a:expr $(, $literal:literal)?) => {{
        let [a0, a1]: V = $a;
        let (c0, c1): (f64, f64);
        asm!(
            ".fpu neon",
            concat!($instruction, " {c0}, {a0}" $(, $literal)?),
            concat!($instruction, " {c1}, {a1}" $(, $literal)?),
            a0 = in(dreg_low16) a0, a1 = in(dreg_low16) a1, c0 = out(dreg_low16) c0, c1 = lateout(dreg_low16) c1,
            options(pure, nomem, nostack, preserves_flags),
        );
        [c0, c1]
    }};
}

/// An instruction whose first operand is also the result, on each half.
macro_rules! into {
    ($instruction:literal, $c:expr, $a:expr, $b:expr) => {{
        let ([mut c0, mut c1], [a0, a1], [b0, b1]): (V, V, V) = ($c, $a, $b);
        asm!(
            ".fpu neon",
            concat!($instruction, " {c0}, {a0}, {b0}"),
            concat!($instruction, " {c1}, {a1}, {b1}"),
            a0 = in(dreg_low16) a0, a1 = in(dreg_low16) a1, b0 = in(dreg_low16) b0, b1 = in(dreg_low16) b1,
            c0 = inout(dreg_low16) c0, c1 = inout(dreg_low16) c1,
            options(pure, nomem, nostack, preserves_flags),
        );
        [c0, c1]
    }};
}

#[inline(always)]
fn lanes(vector: V) -> [f32; 4] {
    // SAFETY: both are 16 bytes, and all bit patterns are valid.
    unsafe { std::mem::transmute(vector) }
}

#[inline(always)]
fn vector(lanes: [f32; 4]) -> V {
    // SAFETY: both are 16 bytes, and all bit patterns are valid.
    unsafe { std::mem::transmute(lanes) }
}

#[inline(always)]
unsafe fn splat_bits(bits: u32) -> V {
    let half: f64;
    asm!(
        ".fpu neon", "vdup.32 {half}, {bits}",
        half = lateout(dreg_low16) half, bits = in(reg) bits,
        options(pure, nomem, nostack, preserves_flags),
    );
    [half, half]
}

impl Simd for Neon {
    const LANES: usize = 4;
    // The target guarantees 16 of the 32 halves.
    const REGISTERS: usize = 8;
    type V = V;

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        splat_bits(value.to_bits())
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        let (low, high): (f64, f64);
        asm!(
            ".fpu neon", "vld1.32 {{{low}}}, [{from}]!", "vld1.32 {{{high}}}, [{from}]",
            from = inout(reg) from => _, low = out(dreg_low16) low, high = lateout(dreg_low16) high,
            options(pure, readonly, nostack, preserves_flags),
        );
        [low, high]
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, [low, high]: V) {
        asm!(
            ".fpu neon", "vst1.32 {{{low}}}, [{to}]!", "vst1.32 {{{high}}}, [{to}]",
            to = inout(reg) to => _, low = in(dreg_low16) low, high = in(dreg_low16) high,
            options(nostack, preserves_flags),
        );
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> V {
        let mut lanes = [0.0; 4];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
        vector(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: V, count: usize) {
        std::ptr::copy_nonoverlapping(lanes(vector).as_ptr(), to, count)
    }
    methods! {
        /// Rounds twice: the fused instruction came with later processors.
        mul_add(a, b, c) = into!("vmla.f32", c, a, b);
        add(a, b) = two!("vadd.f32", a, b);
        sub(a, b) = two!("vsub.f32", a, b);
        mul(a, b) = two!("vmul.f32", a, b);
        /// NEON only has estimates of quotients.
        div(a, b) = {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (lanes(a), lanes(b));
            vector([a0 / b0, a1 / b1, a2 / b2, a3 / b3])
        };
        min(a, b) = Self::select_less(a, b, a, b);
        max(a, b) = Self::select_less(b, a, a, b);
        sqrt(a) = {
            let [a0, a1, a2, a3] = lanes(a);
            vector([a0.sqrt(), a1.sqrt(), a2.sqrt(), a3.sqrt()])
        };
        abs(a) = one!("vabs.f32", a);
        /// 1.5 * 2^23 plus a value has no bits for a fraction.
        round(a) = {
            let shift = Self::splat(12_582_912.0);
            Self::sub(Self::add(a, shift), shift)
        };
        exp2_whole(n) = {
            let biased = two!("vadd.i32", one!("vcvt.s32.f32", n), splat_bits(127));
            one!("vshl.i32", biased, ", #23")
        };
        with_sign_of(magnitude, sign) = {
            // Takes the bits of the second operand where the third has ones.
            into!("vbit", magnitude, sign, splat_bits(1 << 31))
        };
        select_less(a, b, yes, no) = {
            let is_less = two!("vcgt.f32", b, a);
            into!("vbsl", is_less, yes, no)
        };
    }
    #[inline(always)]
    unsafe fn sum(a: V) -> f32 {
        let [a0, a1, a2, a3] = lanes(a);
        (a0 + a2) + (a1 + a3)
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (V, V) {
        let (even_low, odd_low, even_high, odd_high): (f64, f64, f64, f64);
        // Consecutive registers have to be named.
        asm!(
            ".fpu neon", "vld2.32 {{d0, d1}}, [{from}]!", "vld2.32 {{d2, d3}}, [{from}]",
            from = inout(reg) from => _,
            out("d0") even_low, out("d1") odd_low, out("d2") even_high, out("d3") odd_high,
            options(pure, readonly, nostack, preserves_flags),
        );
        ([even_low, even_high], [odd_low, odd_high])
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        asm!("pld [{}]", in(reg) from, options(nostack, preserves_flags, readonly))
    }
}
