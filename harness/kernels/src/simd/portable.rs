//! Arrays of four values, in loops that the compiler can vectorise where its target has vectors.

use super::Simd;

#[derive(Clone, Copy)]
pub struct Portable;

const LANES: usize = 4;

type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    zip(a, a, |a, _| f(a))
}

impl Simd for Portable {
    const LANES: usize = LANES;
    // A processor without vectors has registers for 32 single values. More would be spilled to memory.
    const REGISTERS: usize = 8;
    type V = V;

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        from.cast::<V>().read()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: V) {
        to.cast::<V>().write(vector)
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> V {
        let mut out = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), count);
        out
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, vector: V, count: usize) {
        std::ptr::copy_nonoverlapping(vector.as_ptr(), to, count)
    }
    methods! {
        /// Without a fused instruction `f32::mul_add` is a library call.
        mul_add(a, b, c) = {
            let mut out = [0.0; LANES];
            for lane in 0..LANES {
                let fused = cfg!(any(target_arch = "riscv64", target_arch = "aarch64"));
                out[lane] = if fused { a[lane].mul_add(b[lane], c[lane]) } else { a[lane] * b[lane] + c[lane] };
            }
            out
        };
        add(a, b) = zip(a, b, |a, b| a + b);
        sub(a, b) = zip(a, b, |a, b| a - b);
        mul(a, b) = zip(a, b, |a, b| a * b);
        div(a, b) = zip(a, b, |a, b| a / b);
        min(a, b) = zip(a, b, |a, b| if a < b { a } else { b });
        max(a, b) = zip(a, b, |a, b| if a > b { a } else { b });
        sqrt(a) = map(a, f32::sqrt);
        abs(a) = map(a, f32::abs);
        /// 1.5 * 2^23 plus a value has no bits for a fraction.
        round(a) = {
            const SHIFT: f32 = 12_582_912.0;
            map(a, |a| (a + SHIFT) - SHIFT)
        };
        exp2_whole(n) = map(n, |n| f32::from_bits(((n as i32 + 127) as u32) << 23));
        with_sign_of(magnitude, sign) = zip(magnitude, sign, f32::copysign);
        select_less(a, b, yes, no) = {
            let mut out = [0.0; LANES];
            for lane in 0..LANES {
                out[lane] = if a[lane] < b[lane] { yes[lane] } else { no[lane] };
            }
            out
        };
    }
    #[inline(always)]
    unsafe fn sum(a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn deinterleave(from: *const f32) -> (V, V) {
        let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            even[lane] = *from.add(2 * lane);
            odd[lane] = *from.add(2 * lane + 1);
        }
        (even, odd)
    }
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}
}
