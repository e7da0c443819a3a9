//! Against Otava's answers, and properties that hold for any values.

use proptest::prelude::*;

use super::*;

/// Otava was given the same series: a 64-bit linear congruential generator, and the sum of twelve uniform values for a
/// normal one.
struct Lcg(u64);

impl Lcg {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).fold(0.0, |sum, value| sum + value) - 6.0
    }
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Noise,
    Step,
    Small,
    Steps,
    UpDown,
    Spikes,
    Trend,
    Heavy,
}
use Shape::*;

/// Noise of 1 % with the shape added.
fn series(shape: Shape, length: usize, seed: u64) -> Vec<f64> {
    let mut random = Lcg(seed);
    let n = length as f64;
    let one = |i: usize| {
        let e = 0.01 * random.normal();
        let within = |low: usize, high: usize, height: f64| if (low..high).contains(&i) { height } else { 0.0 };
        match shape {
            Noise => e,
            Step => e + within(length / 2, length, 0.03),
            Small => e + within(length / 3, length, 0.012),
            Steps => {
                let stair = i * 5 / length;
                e + 0.02 * stair as f64 * if stair.is_multiple_of(2) { 1.0 } else { -1.0 }
            }
            UpDown => e + if !(i / 17).is_multiple_of(2) { 0.025 } else { 0.0 },
            Spikes => e + if random.uniform() < 0.05 { 0.15 } else { 0.0 },
            Trend => e + 0.06 * i as f64 / n,
            Heavy => e / (0.1 + random.uniform()) + within(2 * length / 5, 3 * length / 5, 0.04),
        }
    };
    (0..length).map(one).collect()
}

fn indexes(points: &[ChangePoint], weak: bool) -> Vec<usize> {
    points.iter().filter(|point| weak || !point.weak).map(|point| point.index).collect()
}

/// Shape, length, seed; candidates (`split`) and points (`merge`) of apache-otava 0.8.0 with scipy 1.16.3, window 50,
/// p 0.001, no least magnitude.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "rows of a table")]
const OTAVA: &[(Shape, usize, u64, &[usize], &[usize])] = &[
    (Noise, 30, 1, &[], &[]),
    (Noise, 75, 2, &[], &[]),
    (Noise, 120, 3, &[63], &[]),
    (Noise, 200, 4, &[69, 77, 98, 121, 186, 190], &[]),
    (Noise, 365, 5, &[169, 175, 194, 318], &[]),
    (Step, 30, 1, &[16], &[16]),
    (Step, 75, 2, &[37], &[37]),
    (Step, 120, 3, &[60, 106, 110, 111], &[60]),
    (Step, 200, 4, &[69, 77, 100, 170], &[100]),
    (Step, 365, 5, &[169, 182, 194, 318], &[182]),
    (Small, 30, 1, &[9], &[9]),
    (Small, 75, 2, &[25], &[25]),
    (Small, 120, 3, &[40], &[40]),
    (Small, 200, 4, &[77, 186, 190], &[77]),
    (Small, 365, 5, &[123, 169, 175, 194, 318], &[123]),
    (Steps, 30, 1, &[3, 6, 12, 16, 18, 24, 25], &[12, 18, 24, 25]),
    (Steps, 75, 2, &[15, 30, 45, 56, 60], &[15, 30, 45, 60]),
    (Steps, 120, 3, &[24, 48, 63, 72, 96], &[24, 48, 72, 96]),
    (Steps, 200, 4, &[40, 69, 77, 80, 120, 121, 160], &[40, 69, 80, 120, 160]),
    (Steps, 365, 5, &[73, 120, 123, 146, 219, 292, 345], &[73, 120, 146, 219, 292]),
    (UpDown, 30, 1, &[17], &[17]),
    (UpDown, 75, 2, &[17, 33, 53, 67], &[17, 33, 53, 67]),
    (UpDown, 120, 3, &[17, 34, 52, 63, 68, 96, 102, 106, 110, 119], &[17, 34, 52, 106]),
    (UpDown, 200, 4, &[69, 84, 102, 118, 136, 153, 186], &[69, 84, 102, 118, 136, 186]),
    (UpDown, 365, 5,
        &[17, 34, 68, 82, 88, 102, 109, 123, 136, 153, 169, 176, 188, 194, 204, 221, 255, 272, 289, 306, 323, 340, 357],
        &[17, 68, 82, 102, 123, 136, 153, 169, 188, 204, 255, 272, 289, 306, 323, 340, 357]),
    (Spikes, 30, 1, &[28], &[]),
    (Spikes, 75, 2, &[35, 36], &[35]),
    (Spikes, 120, 3, &[117], &[]),
    (Spikes, 200, 4, &[166, 168], &[166, 168]),
    (Spikes, 365, 5, &[147, 148, 194, 196, 315, 340], &[147, 148, 194, 196]),
    (Trend, 30, 1, &[8, 16, 25, 28], &[8, 16]),
    (Trend, 75, 2, &[8, 25, 39, 56], &[8, 25, 39, 56]),
    (Trend, 120, 3, &[26, 63, 74, 110], &[26, 63, 110]),
    (Trend, 200, 4, &[16, 27, 90, 98, 106, 118, 121, 144, 170, 175, 186], &[27, 90, 98, 118, 121, 170]),
    (Trend, 365, 5, &[29, 176, 345], &[29, 176, 345]),
    (Heavy, 30, 1, &[], &[]),
    (Heavy, 75, 2, &[28, 47, 48], &[28, 47, 48]),
    (Heavy, 120, 3, &[49, 72], &[49, 72]),
    (Heavy, 200, 4, &[64, 70, 82, 90, 109, 112, 120], &[64, 70, 82, 90, 109, 112, 120]),
    (Heavy, 365, 5, &[63, 146, 212, 213], &[146, 212, 213]),
];

/// Shape, length, seed, window, p, least magnitude, points: the same program, its magnitudes made differences of means.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "rows of a table")]
const OTAVA_OTHERWISE: &[(Shape, usize, u64, usize, f64, f64, &[usize])] = &[
    (UpDown, 200, 11, 30, 0.01, 0.0, &[17, 34, 51, 67, 87, 102, 119, 136, 153, 170, 188]),
    (Trend, 365, 12, 30, 0.001, 0.01, &[170, 327, 339]),
    (Spikes, 365, 13, 50, 0.01, 0.03, &[99, 225, 227, 297, 298]),
    (Steps, 365, 14, 50, 0.001, 0.05, &[219, 292]),
    (Heavy, 365, 15, 100, 0.001, 0.02, &[146, 219]),
    (Noise, 365, 16, 20, 0.05, 0.0,
        &[21, 28, 47, 64, 121, 132, 260, 270, 276, 291, 299, 303, 305, 317, 333, 341, 345]),
    (Small, 120, 17, 50, 0.001, 0.015, &[]),
    (UpDown, 365, 18, 70, 0.001, 0.02,
        &[17, 33, 52, 68, 85, 102, 118, 136, 153, 170, 187, 204, 221, 240, 255, 272, 289, 306, 321, 340, 357]),
];

/// Shape, length, seed, points of the same program, and of its functions where `merge` judges all points anew each
/// time.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "rows of a table")]
const BOTH_NEIGHBOURS: &[(Shape, usize, u64, &[usize], &[usize])] = &[
    (Steps, 90, 1090, &[18, 72], &[72]),
    (Trend, 30, 1030, &[], &[8, 27]),
    (UpDown, 200, 2200, &[17, 34, 119, 123, 136, 142, 153, 170, 187], &[17, 34, 119, 123, 136, 153, 170, 187]),
    (Trend, 200, 2200, &[55, 93, 119, 142], &[55, 93, 142]),
    (Heavy, 200, 2200, &[76], &[]),
    (Trend, 90, 5090, &[27, 41], &[27, 41, 58]),
    (Spikes, 365, 4365, &[98, 99, 195, 196, 266, 268, 360], &[98, 99, 195, 196, 266, 268]),
];

#[test]
fn the_generator_is_the_one_otava_was_given() {
    assert_eq!(series(Steps, 8, 9)[..3], [-0.001615295921210409, 0.0052179938086018484, -0.03222016757052783]);
    assert_eq!(series(Spikes, 8, 9)[..3], [-0.001615295921210409, 0.004648371968345781, -0.01352216494749678]);
    assert_eq!(series(Heavy, 8, 9)[..3], [-0.0021141727864855213, 0.008175204077043486, -0.06811288792941685]);
}

#[test]
fn indexes_are_otavas() {
    for &(shape, length, seed, weak, firm) in OTAVA {
        let points = ChangePoints::otava().detect(&series(shape, length, seed)).unwrap();
        assert_eq!(indexes(&points, true), weak, "candidates of {shape:?} {length} {seed}");
        assert_eq!(indexes(&points, false), firm, "{shape:?} {length} {seed}");
    }
    for &(shape, length, seed, window, p_max, min_magnitude, firm) in OTAVA_OTHERWISE {
        let otherwise = ChangePoints { window, p_max, min_magnitude, ..ChangePoints::otava() };
        let points = otherwise.detect(&series(shape, length, seed)).unwrap();
        assert_eq!(indexes(&points, false), firm, "{shape:?} {length} {seed}");
    }
    for &(shape, length, seed, otava, both) in BOTH_NEIGHBOURS {
        let values = series(shape, length, seed);
        assert_eq!(indexes(&ChangePoints::otava().detect(&values).unwrap(), false), otava, "{shape:?} {length} {seed}");
        let anew = ChangePoints { both_neighbours: true, ..ChangePoints::otava() };
        assert_eq!(indexes(&anew.detect(&values).unwrap(), false), both, "{shape:?} {length} {seed}");
    }
}

/// Its numbers for the one point of that series, and of `scipy.stats.t.interval` for its first level.
#[test]
fn levels_and_p_value_are_the_published_ones() {
    let found = ChangePoints::otava().detect(&series(Step, 75, 2)).unwrap();
    let [point] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(point.index, 37);
    assert!((point.before.mean - 0.001_622_902_216_338_176_2).abs() < 1e-15);
    assert!((point.after.mean - 0.030_719_779_328_215_405).abs() < 1e-15);
    assert!((point.p_value / 1.586_055_571_778_592_7e-20 - 1.0).abs() < 1e-6, "{}", point.p_value);
    let interval = point.before.interval.unwrap();
    assert!((interval.low + 0.001_981_586_632_140_292).abs() < 1e-7, "{interval:?}");
    assert!((interval.high - 0.005_227_391_064_816_644).abs() < 1e-7, "{interval:?}");
    assert_eq!((point.before.start, point.before.end, point.after.start, point.after.end), (0, 37, 37, 75));
}

/// Single outliers: Otava takes some for a change, here they are none; a change among them is still detected.
#[test]
fn single_outliers_are_no_change() {
    let alarms = |settings: ChangePoints, step: f64| -> (usize, usize) {
        let (mut other, mut right) = (0, 0);
        for seed in 1..=60 {
            let mut values = series(Spikes, 60, seed);
            values[40..].iter_mut().for_each(|value| *value += step);
            for index in indexes(&settings.detect(&values).unwrap(), false) {
                if index.abs_diff(40) <= 2 { right += 1 } else { other += 1 }
            }
        }
        (other, right)
    };
    let (otava, ours) = (ChangePoints::otava(), ChangePoints::nightly(0.01));
    let (otavas_other, _) = alarms(otava, 0.0);
    let (other, _) = alarms(ours, 0.0);
    assert!(otavas_other >= 12 && other <= 4, "{otavas_other} and {other} false alarms in 60 series");
    let ((_, otavas_right), (other, right)) = (alarms(otava, 0.05), alarms(ours, 0.05));
    assert!(
        right >= 57 && right > otavas_right && other <= 5,
        "{right} (Otava: {otavas_right}) of 60 found, {other} besides"
    );
}

/// Sizes are exact: the same for weeks, then another.
#[test]
fn values_without_any_spread() {
    let nightly = ChangePoints::nightly(0.01);
    let mut sizes = vec![0.0; 60];
    assert_eq!(nightly.detect(&sizes).unwrap(), []);
    sizes[30] = 0.5;
    assert_eq!(indexes(&nightly.detect(&sizes).unwrap(), false), [], "one outlier");
    sizes[57..].fill(0.02);
    let found: Vec<ChangePoint> = nightly.detect(&sizes).unwrap().into_iter().filter(|point| !point.weak).collect();
    assert_eq!(indexes(&found, false), [57]);
    assert_eq!((found[0].before.mean, found[0].after.mean), (0.0, 0.02));
}

#[test]
fn a_change_has_its_least_size_and_its_least_length() {
    let values = series(Step, 60, 3);
    let found = |min_magnitude| indexes(&ChangePoints::nightly(min_magnitude).detect(&values).unwrap(), false);
    assert_eq!((found(0.01), found(0.05)), (vec![30], vec![]));
    for (count, expected) in [(2, vec![]), (3, vec![57]), (4, vec![56])] {
        let mut values = series(Noise, 60, 8);
        values[60 - count..].iter_mut().for_each(|value| *value += 0.1);
        assert_eq!(indexes(&ChangePoints::nightly(0.01).detect(&values).unwrap(), false), expected, "{count} values");
    }
}

#[test]
fn what_cannot_be_judged() {
    for settings in [ChangePoints::otava(), ChangePoints::nightly(0.01)] {
        for length in 0..4 {
            assert_eq!(settings.detect(&series(Noise, length, 1)), Ok(vec![]), "{length}");
        }
        assert_eq!(settings.detect(&[0.0, f64::NAN]), Err(Unfit::NotFinite));
        // Settings without use must not panic.
        let odd = ChangePoints { window: 0, min_segment: 0, p_max: 1.0, ..settings };
        odd.detect(&series(Noise, 30, 1)).unwrap();
    }
}

/// Knowing one of the points changes nothing about it and nothing about the others.
#[test]
fn a_known_point_stays_and_moves_no_other() {
    let nightly = ChangePoints::nightly(0.01);
    for seed in 1..20 {
        let values = series(UpDown, 100, seed);
        let found = nightly.detect(&values).unwrap();
        for point in found.iter().filter(|point| !point.weak) {
            for index in [point.index - 2, point.index, point.index + 2] {
                assert_eq!(nightly.detect_beside(&values, &[index]).unwrap(), found, "seed {seed}, {index}");
            }
        }
    }
    let noise = series(Noise, 60, 1);
    let found = nightly.detect_beside(&noise, &[0, 20, 60, 90]).unwrap();
    assert_eq!(indexes(&found, false), [20], "not found, but known");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn neither_sign_nor_unit_nor_offset_matters(
        seed in any::<u64>(), factor in 0.01..100.0f64, offset in -1.0..1.0f64,
    ) {
        let values = series(UpDown, 70, seed);
        let of = |values: Vec<f64>, least: f64| indexes(&ChangePoints::nightly(least).detect(&values).unwrap(), false);
        let plain = of(values.clone(), 0.01);
        prop_assert_eq!(&of(values.iter().map(|value| -value).collect(), 0.01), &plain);
        prop_assert_eq!(&of(values.iter().map(|value| value * factor).collect(), 0.01 * factor), &plain);
        prop_assert_eq!(&of(values.iter().map(|value| value + offset).collect(), 0.01), &plain);
    }

    #[test]
    fn points_lie_apart_and_levels_join(
        values in proptest::collection::vec(prop_oneof![-1.0..1.0f64, Just(0.0), Just(1e6), Just(-1e300)], 0..90),
        known in proptest::collection::vec(0..95usize, 0..3),
    ) {
        let found = ChangePoints::nightly(0.0).detect_beside(&values, &known).unwrap();
        let firm: Vec<&ChangePoint> = found.iter().filter(|point| !point.weak).collect();
        prop_assert!(found.is_sorted_by_key(|point| point.index));
        for pair in firm.windows(2) {
            prop_assert_eq!((pair[0].index, pair[0].after.end), (pair[1].before.start, pair[1].index));
        }
        if known.is_empty() {
            let holds = |point: &&ChangePoint| {
                point.p_value < 0.001 && point.after.end - point.index >= 3 && point.index >= 3
            };
            prop_assert!(firm.iter().all(holds));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A change of five times the noise is detected where it is, and stays there as the series grows.
    #[test]
    fn a_clear_change_does_not_move(
        noise in proptest::collection::vec(-0.01..0.01f64, 45..70), at in 15..40usize, height in 0.05..0.5f64,
    ) {
        let mut values = noise;
        values[at..].iter_mut().for_each(|value| *value += height);
        for length in at + 5..values.len() {
            let found = indexes(&ChangePoints::nightly(0.02).detect(&values[..length]).unwrap(), false);
            prop_assert_eq!(&found, &[at], "{} values", length);
        }
    }
}
