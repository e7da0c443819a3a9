//! Compares every method of every instruction set of this processor with plain arithmetic.

use super::*;

/// The results of all methods for two vectors.
struct Methods<'a> {
    a: &'a [f32; 32],
    b: &'a [f32; 32],
}

impl Kernel for Methods<'_> {
    type Output = Vec<(&'static str, Vec<f32>)>;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Self::Output {
        let mut results = Vec::new();
        let (a, b) = (S::load(self.a.as_ptr()), S::load(self.b.as_ptr()));
        let c = S::splat(0.75);
        let mut keep = |name, vector| {
            let mut lanes = vec![0.0; S::LANES];
            S::store(lanes.as_mut_ptr(), vector);
            results.push((name, lanes));
        };
        keep("splat", c);
        keep("mul_add", S::mul_add(a, b, c));
        keep("add", S::add(a, b));
        keep("sub", S::sub(a, b));
        keep("mul", S::mul(a, b));
        keep("div", S::div(a, b));
        keep("min", S::min(a, b));
        keep("max", S::max(a, b));
        keep("sqrt", S::sqrt(S::abs(a)));
        keep("abs", S::abs(a));
        keep("round", S::round(a));
        keep("exp2_whole", S::exp2_whole(S::round(a)));
        keep("with_sign_of", S::with_sign_of(S::abs(a), b));
        keep("select_less", S::select_less(a, b, c, a));
        let (even, odd) = S::unzip(a, b);
        keep("halves", S::halves(1.5, -2.0));
        keep("unzip even", even);
        keep("unzip odd", odd);
        for first in 0..=S::LANES {
            for end in first..=S::LANES {
                keep("load_between", S::load_between(self.a.as_ptr(), first, end));
                keep("load_onto", S::load_onto(b, self.a.as_ptr(), first, end));
                let mut to = vec![9.0; S::LANES];
                S::store_between(to.as_mut_ptr(), a, first, end);
                keep("store_between", S::load(to.as_ptr()));
            }
        }
        for kept in [0, 1, 0b1010, 0b1001, 0b0111_0111, 0b1_0110_1111_0010_1101] {
            let kept = kept & ((1 << S::LANES) - 1);
            // Only the front is specified.
            let mut to = vec![9.0; S::LANES];
            S::store_partial(to.as_mut_ptr(), S::compact(a, kept), kept.count_ones() as usize);
            keep("compact", S::load(to.as_ptr()));
        }
        if 2 * S::LANES <= 32 {
            let (even, odd) = S::deinterleave(self.a.as_ptr());
            keep("even", even);
            keep("odd", odd);
        }
        for count in 0..=S::LANES {
            keep("load_partial", S::load_partial(self.a.as_ptr(), count));
            let mut to = vec![9.0; S::LANES];
            S::store_partial(to.as_mut_ptr(), a, count);
            keep("store_partial", S::load(to.as_ptr()));
        }
        results.push(("sum", vec![S::sum(a)]));
        S::prefetch(self.a.as_ptr());
        results
    }
}

fn expected(a: &[f32; 32], b: &[f32; 32], lanes: usize) -> Vec<(&'static str, Vec<f32>)> {
    let each = |f: &dyn Fn(f32, f32) -> f32| (0..lanes).map(|lane| f(a[lane], b[lane])).collect::<Vec<f32>>();
    let both = |odd: usize| {
        let lanes: Vec<f32> = a[..lanes].iter().chain(&b[..lanes]).copied().collect();
        lanes.into_iter().skip(odd).step_by(2).collect::<Vec<f32>>()
    };
    let mut results = vec![
        ("splat", vec![0.75; lanes]),
        ("mul_add", each(&|a, b| a * b + 0.75)),
        ("add", each(&|a, b| a + b)),
        ("sub", each(&|a, b| a - b)),
        ("mul", each(&|a, b| a * b)),
        ("div", each(&|a, b| a / b)),
        ("min", each(&|a, b| a.min(b))),
        ("max", each(&|a, b| a.max(b))),
        ("sqrt", each(&|a, _| a.abs().sqrt())),
        ("abs", each(&|a, _| a.abs())),
        ("round", each(&|a, _| a.round_ties_even())),
        ("exp2_whole", each(&|a, _| a.round_ties_even().exp2())),
        ("with_sign_of", each(&|a, b| a.abs().copysign(b))),
        ("select_less", each(&|a, b| if a < b { 0.75 } else { a })),
        ("halves", (0..lanes).map(|lane| if lane < lanes / 2 { 1.5 } else { -2.0 }).collect()),
        ("unzip even", both(0)),
        ("unzip odd", both(1)),
    ];
    for first in 0..=lanes {
        for end in first..=lanes {
            let between = |others: &dyn Fn(usize) -> f32| {
                (0..lanes).map(|lane| if (first..end).contains(&lane) { a[lane] } else { others(lane) }).collect()
            };
            results.push(("load_between", between(&|_| 0.0)));
            results.push(("load_onto", between(&|lane| b[lane])));
            results.push(("store_between", between(&|_| 9.0)));
        }
    }
    for kept in [0, 1, 0b1010, 0b1001, 0b0111_0111, 0b1_0110_1111_0010_1101] {
        let front = (0..lanes).filter(|lane| kept >> lane & 1 == 1).map(|lane| a[lane]);
        results.push(("compact", front.chain(std::iter::repeat(9.0)).take(lanes).collect()));
    }
    results.push(("even", (0..lanes).map(|lane| a[2 * lane]).collect()));
    results.push(("odd", (0..lanes).map(|lane| a[2 * lane + 1]).collect()));
    for count in 0..=lanes {
        results.push(("load_partial", (0..lanes).map(|lane| if lane < count { a[lane] } else { 0.0 }).collect()));
        results.push(("store_partial", (0..lanes).map(|lane| if lane < count { a[lane] } else { 9.0 }).collect()));
    }
    results.push(("sum", vec![a[..lanes].iter().sum()]));
    results
}

#[test]
fn every_method_is_plain_arithmetic() {
    let a: [f32; 32] = std::array::from_fn(|lane| ((lane * 37 % 32) as f32 - 15.5) * 1.37);
    let b: [f32; 32] = std::array::from_fn(|lane| ((lane * 11 % 32) as f32 - 15.5) * 0.83);
    for isa in Isa::available() {
        // SAFETY: the processor has it; both arrays hold two vectors of any width.
        let found = unsafe { isa.run(Methods { a: &a, b: &b }) };
        let expected = expected(&a, &b, isa.lanes());
        assert_eq!(found.len(), expected.len());
        for ((name, found), (expected_name, expected)) in found.iter().zip(&expected) {
            assert_eq!(name, expected_name);
            for (found, expected) in found.iter().zip(expected) {
                let tolerance = 2e-6 * expected.abs().max(1.0);
                assert!((found - expected).abs() <= tolerance, "{} {name}: {found}, not {expected}", isa.name());
            }
        }
    }
}

struct Transpose<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        S::transpose(self.from.as_ptr(), 19, self.to.as_mut_ptr(), 23)
    }
}

#[test]
fn a_square_is_transposed_and_nothing_else_written() {
    let from: Vec<f32> = (0..16 * 19).map(|value| value as f32).collect();
    for isa in Isa::available() {
        let (lanes, mut to) = (isa.lanes(), vec![-1.0; 16 * 23]);
        // SAFETY: the processor has it; both hold 16 rows.
        unsafe { isa.run(Transpose { from: &from, to: &mut to }) };
        for (place, found) in to.into_iter().enumerate() {
            let (row, column) = (place % 23, place / 23);
            let expected = if row < lanes && column < lanes { from[row * 19 + column] } else { -1.0 };
            assert_eq!(found, expected, "{} at {place}", isa.name());
        }
    }
}

#[test]
fn the_best_is_among_the_available() {
    assert!(Isa::available().contains(&Isa::best()));
    assert_eq!(Isa::available()[0], Isa(super::isa::Set::Portable));
}
