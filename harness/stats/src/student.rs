//! Student's t to about ten digits: tail, quantile, and the p-value of a mean against a margin.
//!
//! The sequential tests use levels of 1e-5, where a quantile good to four digits would be the largest error of the
//! whole gate. Everything is computed in the lower tail, where a small probability keeps its digits, and by Newton's
//! method on its logarithm, which is nearly a straight line there.

use std::f64::consts::PI;

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::{beta::beta_reg, gamma::ln_gamma};

/// P(T ≤ `t`) of Student's t with `freedom` degrees of freedom. With none the distribution has no scale: one half.
fn t_cdf(t: f64, freedom: usize) -> f64 {
    if t.is_nan() {
        return f64::NAN;
    }
    if freedom == 0 {
        return 0.5;
    }
    let tail = lower_tail(-t.abs(), freedom as f64);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The value that Student's t stays below with probability `p`: `t_quantile(0.025, 9)` is -2.262. Infinite at 0 and 1
/// and without any degree of freedom. Pass a small `p` rather than `1 - p`, which has lost its digits by then.
pub(crate) fn t_quantile(p: f64, freedom: usize) -> f64 {
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p > 0.5 {
        return -t_quantile(1.0 - p, freedom);
    }
    if p == 0.5 {
        return 0.0;
    }
    if p < NEGLIGIBLE || freedom == 0 {
        return f64::NEG_INFINITY;
    }
    match freedom {
        // Closed forms, whose values may be too large to be squared.
        1 => -1.0 / (PI * p).tan(),
        2 => (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt(),
        _ if p > CENTRE => central_quantile(p, freedom as f64),
        _ => tail_quantile(p, freedom as f64),
    }
}

/// One-sided p-value of "the mean is above `margin`": P(T ≥ (mean − margin) / se). All in one unit. With a standard
/// error of zero it is 0 above the margin, else 1.
pub fn t_p_value(mean: f64, se: f64, freedom: usize, margin: f64) -> f64 {
    if se == 0.0 {
        return if mean > margin { 0.0 } else { 1.0 };
    }
    // From the lower tail, whose small values keep their digits.
    t_cdf((margin - mean) / se, freedom)
}

/// A smaller probability counts as zero: the tail would soon underflow.
const NEGLIGIBLE: f64 = 1e-200;
/// Above this probability the curve itself is solved, below it its logarithm.
const CENTRE: f64 = 0.25;
/// Newton doubles the digits each time and needs about five steps; the rest is slack for rounding.
const STEPS: usize = 40;

/// Between `CENTRE` and one half the curve is convex, so Newton's method comes down to the solution from the middle.
fn central_quantile(p: f64, v: f64) -> f64 {
    let mut t = 0.0;
    for _ in 0..STEPS {
        let step = (lower_tail(t, v) - p) / density(t, v);
        t -= step;
        if step.abs() <= 1e-15 * t.abs() {
            break;
        }
    }
    t
}

/// In y = ln |t| the logarithm of the tail is concave and in the end a straight line of slope −v: Newton's method from
/// anywhere overshoots once and then converges.
fn tail_quantile(p: f64, v: f64) -> f64 {
    let mut t = Normal::standard().inverse_cdf(p);
    for _ in 0..STEPS {
        let tail = lower_tail(t, v);
        // Far out the tail is a power of t, and the density may underflow.
        let slope = if -t > FAR { 1.0 / v } else { tail / (-t * density(t, v)) };
        let step = (tail / p).ln() * slope;
        t *= step.exp();
        if step.abs() <= 1e-15 {
            break;
        }
    }
    t
}

/// From here on v / t² is negligible beside 1, for all degrees of freedom whose tail does not underflow there.
const FAR: f64 = 1e100;

/// P(T ≤ t) for t ≤ 0: ½ I(v/2, ½; v / (v + t²)) (Abramowitz & Stegun 26.7.1 with 26.5.27). Near the middle its
/// complement, whose argument is exact.
fn lower_tail(t: f64, v: f64) -> f64 {
    if -t > FAR {
        // The first term of the series, because t² may overflow: ½ (√v / |t|)^v / (½ v B(½ v, ½)).
        let beta = ln_gamma(0.5 * v) + ln_gamma(0.5) - ln_gamma(0.5 * (v + 1.0));
        return 0.5 * (v * (0.5 * v.ln() - (-t).ln()) - (0.5 * v).ln() - beta).exp();
    }
    let square = t * t;
    if square < 1.0 {
        0.5 - 0.5 * beta_reg(0.5, 0.5 * v, square / (v + square))
    } else {
        0.5 * beta_reg(0.5 * v, 0.5, v / (v + square))
    }
}

fn density(t: f64, v: f64) -> f64 {
    let scale = ln_gamma(0.5 * (v + 1.0)) - ln_gamma(0.5 * v) - 0.5 * (v * PI).ln();
    (scale - 0.5 * (v + 1.0) * (t * t / v).ln_1p()).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "{got} is not {expected}");
    }

    /// Solved with 40 digits from the regularised incomplete beta function of `mpmath`.
    #[test]
    fn quantiles_of_forty_digit_arithmetic() {
        for (p, freedom, expected) in [
            (0.4, 1, -0.324_919_696_232_906),
            (0.025, 1, -12.706_204_736_174_7),
            (1.18e-4, 1, -2_697.541_284_767_9),
            (4.89e-5, 1, -6_509.404_574_227_43),
            (1e-12, 1, -318_309_886_183.791),
            (0.4, 2, -0.288_675_134_594_813),
            (0.025, 2, -4.302_652_729_749_46),
            (1.18e-4, 2, -65.082_933_205_258_8),
            (4.89e-5, 2, -101.111_072_092_56),
            (1e-12, 2, -707_106.781_185_487),
            (0.4, 3, -0.276_670_662_332_69),
            (0.025, 3, -3.182_446_305_283_71),
            (1.18e-4, 3, -21.005_946_998_585_3),
            (4.89e-5, 3, -28.209_163_601_756_6),
            (1e-12, 3, -10_331.108_244_292_5),
            (0.4, 7, -0.263_166_861_352_023),
            (0.025, 7, -2.364_624_251_592_79),
            (1.18e-4, 7, -6.877_780_205_259_87),
            (4.89e-5, 7, -7.912_163_474_019_65),
            (1e-12, 7, -104.021_829_262_647),
            (0.4, 15, -0.257_885_300_937_261),
            (0.025, 15, -2.131_449_545_559_78),
            (1.18e-4, 15, -4.795_414_817_904_75),
            (4.89e-5, 15, -5.250_751_955_094_76),
            (1e-12, 15, -20.638_607_310_216_1),
            (0.4, 31, -0.255_532_168_317_528),
            (0.025, 31, -2.039_513_446_396_41),
            (1.18e-4, 31, -4.156_519_598_608_45),
            (4.89e-5, 31, -4.468_832_609_865_21),
            (1e-12, 31, -11.200_207_192_884_8),
            (0.4, 63, -0.254_419_631_247_703),
            (0.025, 63, -1.998_340_542_520_74),
            (1.18e-4, 63, -3.900_235_663_911_56),
            (4.89e-5, 63, -4.161_038_979_227_88),
            (1e-12, 63, -8.717_510_437_562_67),
            (0.4, 127, -0.253_878_485_587_869),
            (0.025, 127, -1.978_819_534_702_85),
            (1.18e-4, 127, -3.784_836_700_703_68),
            (4.89e-5, 127, -4.023_658_066_196_47),
            (1e-12, 127, -7.796_637_309_856_37),
            (0.4, 200, -0.253_684_379_190_148),
            (0.025, 200, -1.971_896_223_633_91),
            (1.18e-4, 200, -3.744_829_759_576_24),
            (4.89e-5, 200, -3.976_213_682_051_78),
            (1e-12, 200, -7.503_247_657_072_68),
            (0.4, 100_000, -0.253_347_777_157_18),
            (0.025, 100_000, -1.959_987_707_534_61),
            (1.18e-4, 100_000, -3.677_125_956_231_12),
            (4.89e-5, 100_000, -3.896_143_680_493_14),
            (1e-12, 100_000, -7.035_371_742_393_58),
            (1e-100, 5, -1.568_392_559_099_34e20),
            (1e-100, 200, -41.604_283_576_931_7),
        ] {
            close(t_quantile(p, freedom), expected, if freedom > 1000 { 1e-9 } else { 2e-11 });
        }
    }

    /// The critical values of the gate's design, printed to three digits for levels printed to three.
    #[test]
    fn critical_values_of_the_design() {
        for (level, pairs, expected) in [
            (2.43e-4, 16, 4.430),
            (3.68e-4, 64, 3.550),
            (4.89e-5, 16, 5.251),
            (6.78e-5, 64, 4.065),
            (1.23e-2, 16, 2.499),
            (1.18e-4, 16, 4.795),
            (3.73e-4, 128, 3.456),
            (2.64e-2, 128, 1.954),
        ] {
            close(-t_quantile(level, pairs - 1), expected, 1e-3);
        }
    }

    /// With four degrees of freedom the quantile is algebraic (Shaw, Journal of Computational Finance 9, 2006).
    #[test]
    fn closed_form_of_four_degrees() {
        for p in [1e-200, 1e-100, 1e-9, 1e-4, 0.01, 0.1, 0.249, 0.251, 0.4, 0.45] {
            let root = f64::sqrt(4.0 * p * (1.0 - p));
            let q = (root.acos() / 3.0).cos() / root;
            close(t_quantile(p, 4), -2.0 * (q - 1.0).sqrt(), 1e-11);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(t_quantile(0.5, 3), 0.0);
        assert_eq!((t_quantile(0.0, 3), t_quantile(1e-300, 3)), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        assert_eq!(t_quantile(1.0, 3), f64::INFINITY);
        assert_eq!(t_quantile(0.1, 0), f64::NEG_INFINITY);
        assert!(t_quantile(f64::NAN, 3).is_nan() && t_quantile(1.1, 3).is_nan() && t_cdf(f64::NAN, 3).is_nan());
        assert_eq!((t_cdf(f64::NEG_INFINITY, 3), t_cdf(0.0, 3), t_cdf(f64::INFINITY, 3)), (0.0, 0.5, 1.0));
        assert_eq!((t_p_value(1.0, 0.0, 5, 0.0), t_p_value(0.0, 0.0, 5, 0.0)), (0.0, 1.0));
    }

    /// `scipy.stats.ttest_1samp(d, popmean=margin, alternative="greater")` of Student's sleep data.
    #[test]
    fn p_values_of_a_mean_against_a_margin() {
        let (mean, se) = (1.58, 0.388_958_723_888_395_14);
        for (margin, expected) in [
            (0.0, 0.001_416_445_098_692_136_4),
            (0.5, 0.010_759_243_378_387_268),
            (1.0, 0.085_055_885_448_711_45),
            (2.0, 0.845_842_764_330_902_8),
            (-5.0, 1.976_583_006_501_859_2e-8),
        ] {
            close(t_p_value(mean, se, 9, margin), expected, 1e-10);
        }
    }

    /// With one degree of freedom T is Cauchy's: P(T ≤ t) is 1 / (π |t|) far out.
    #[test]
    fn the_farthest_tails_have_values() {
        for p in [1e-99, 1e-101, 4.276e-188, 1e-199] {
            close(t_quantile(p, 1), -1.0 / (PI * p), 1e-9);
            close(t_cdf(-1.0 / (PI * p), 1), p, 1e-9);
        }
    }

    proptest! {
        #[test]
        fn the_quantile_inverts_the_tail(exponent in -199.0..-0.302f64, freedom in 1..2000usize) {
            let p = 10f64.powf(exponent);
            let back = t_cdf(t_quantile(p, freedom), freedom);
            prop_assert!((back / p - 1.0).abs() < 1e-9, "{p} came back as {back}");
        }

        #[test]
        fn both_tails_are_alike(p in 0.001..0.5f64, freedom in 1..300usize) {
            let (low, high) = (t_quantile(p, freedom), t_quantile(1.0 - p, freedom));
            prop_assert!((low + high).abs() <= 1e-9 * low.abs().max(1.0), "{low} {high}");
        }
    }
}
