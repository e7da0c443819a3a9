//! Boards of known noise: what they are found fit for, and at which length of an invocation.

use super::*;
use crate::random::Random;

/// How fast a board's invocations are.
struct Board {
    random: Random,
    /// Spread of an invocation's level, and of single inferences, as logarithms.
    between: f64,
    within: f64,
    /// Chance of each inference to be this much slower than the board can: the invocation's own, drawn anew each time.
    second_speed: f64,
}

impl Board {
    const MS: f64 = 0.5;

    fn new(seed: u64, between: f64, within: f64) -> Board {
        Board { random: Random::new(seed), between, within, second_speed: 0.0 }
    }

    fn invocation(&mut self, iterations: u32) -> Vec<u64> {
        let level = self.between * self.random.normal();
        let share = self.random.uniform();
        let inference = |_| {
            let slow = self.second_speed > 0.0 && self.random.chance(share);
            let noise = self.within * self.random.exponential();
            let log = level + noise + if slow { self.second_speed } else { 0.0 };
            (1e6 * Board::MS * log.exp()) as u64
        };
        (0..iterations).map(inference).collect()
    }

    fn length(&mut self, ms: u64) -> Length {
        let iterations = (ms as f64 / Board::MS) as u32;
        let pairs: Vec<[Vec<u64>; 2]> =
            (0..2 * BLOCKS).map(|_| [self.invocation(iterations), self.invocation(iterations)]).collect();
        length(ms, &pairs).unwrap()
    }

    /// As the command goes about it.
    fn lengths(&mut self) -> Vec<Length> {
        let mut lengths: Vec<Length> = Vec::new();
        for ms in LENGTHS_MS {
            lengths.push(self.length(ms));
            if lengths.last().is_some_and(Length::is_enough) {
                break;
            }
        }
        lengths
    }
}

#[test]
fn a_quiet_board_is_judged_by_its_median_at_once() {
    for seed in 0..5 {
        let lengths = Board::new(seed, 0.008, 0.01).lengths();
        let choice = choose(&lengths).unwrap();
        assert_eq!((lengths.len(), choice.length.ms, choice.length.iterations), (1, 200, 400));
        assert_eq!(choice.iterations(), 400);
        assert_eq!((choice.judged, choice.tail, choice.fit), (Criterion::P50, Some(Criterion::P95), Fit::Release));
        // √2 of an invocation's spread; 20 of them know it to within a third, 99 of 100 times.
        let sd = choice.length.pair_sd[&Criterion::P50];
        assert!((sd / (0.008 * 2f64.sqrt()) - 1.0).abs() < 0.5, "{sd}");
    }
}

#[test]
fn a_board_with_two_speeds_is_judged_by_its_fastest() {
    for seed in 0..5 {
        let mut board = Board { second_speed: 0.4, ..Board::new(seed, 0.005, 0.01) };
        let lengths = board.lengths();
        let choice = choose(&lengths).unwrap();
        assert_eq!((lengths.len(), choice.judged, choice.fit), (3, Criterion::Fastest, Fit::Release));
        assert_eq!(choice.length.ms, 200);
        assert_eq!(choice.calibration(5).iterations, 2 * choice.length.iterations, "room for a quiet moment");
        let median = choice.length.pair_sd[&Criterion::P50];
        assert!((0.1..0.4).contains(&median), "{median}");
    }
}

fn made(ms: u64, p50: f64, fastest: f64) -> Length {
    let pair_sd = [(Criterion::P50, p50), (Criterion::Fastest, fastest)].into();
    Length { ms, iterations: ms as u32, pairs: 20, pair_sd }
}

#[test]
fn the_rule() {
    let check = |lengths: &[(f64, f64)], expected: (u64, Criterion, Fit)| {
        let lengths: Vec<Length> =
            lengths.iter().zip(LENGTHS_MS).map(|((p50, fastest), ms)| made(ms, *p50, *fastest)).collect();
        let choice = choose(&lengths).unwrap();
        assert_eq!((choice.length.ms, choice.judged, choice.fit), expected, "{lengths:?}");
    };
    use Criterion::{Fastest, P50};
    check(&[(0.03, 0.001), (0.019, 0.001)], (500, P50, Fit::Release));
    check(&[(0.044, 0.001), (0.021, 0.001), (0.03, 0.001)], (200, P50, Fit::Nightly));
    check(&[(0.05, 0.04), (0.05, 0.02), (0.05, 0.01)], (500, Fastest, Fit::Release));
    check(&[(0.05, 0.05), (0.05, 0.04), (0.05, 0.03)], (500, Fastest, Fit::Nightly));
    check(&[(0.09, 0.05), (0.06, 0.05), (0.07, 0.05)], (500, P50, Fit::Unfit));
    check(&[(0.02, 0.05)], (200, P50, Fit::Release));
    assert_eq!(choose(&[]), None);
}

#[test]
fn a_tail_takes_values_that_stand_still() {
    let tail = |p95: Option<f64>| {
        let mut length = made(200, 0.01, 0.01);
        length.pair_sd.extend(p95.map(|sd| (Criterion::P95, sd)));
        choose(&[length]).unwrap().tail
    };
    assert_eq!([tail(None), tail(Some(0.07)), tail(Some(0.071))], [None, Some(Criterion::P95), None]);
    // One invocation with 299 values is enough to know nothing of the tail.
    let mut board = Board::new(1, 0.01, 0.01);
    let mut pairs: Vec<[Vec<u64>; 2]> = (0..20).map(|_| [board.invocation(300), board.invocation(300)]).collect();
    assert_eq!(length(200, &pairs).unwrap().pair_sd.len(), 4);
    pairs[7][1].pop();
    let judged: Vec<Criterion> = length(200, &pairs).unwrap().pair_sd.into_keys().collect();
    assert_eq!(judged, [Criterion::Fastest, Criterion::P50]);
}

/// By hand: differences of logarithms ln 1.1, −ln 1.1, ln 1.1, −ln 1.1 have the standard deviation 2 ln 1.1 / √3.
#[test]
fn pair_sd_by_hand() {
    let pair = |a: u64, b: u64| [vec![a; 9], vec![b; 9]];
    let length = length(200, &[pair(100, 110), pair(110, 100), pair(1000, 1100), pair(1100, 1000)]).unwrap();
    let sd = length.pair_sd[&Criterion::P50];
    assert!((sd - 2.0 * 1.1f64.ln() / 3f64.sqrt()).abs() < 1e-12, "{sd}");
    assert_eq!((length.iterations, length.pairs), (9, 4));
}

#[test]
fn what_is_no_time_is_refused() {
    let fine = [vec![1u64; 30], vec![1; 30]];
    assert_eq!(length(200, std::slice::from_ref(&fine)), Err(Unfit::TooFew { needed: 2, given: 1 }));
    assert_eq!(length(200, &[fine.clone(), [vec![0; 30], vec![1; 30]]]), Err(Unfit::NotFinite));
    assert_eq!(length(200, &[fine.clone(), [vec![], vec![1; 30]]]), Err(Unfit::TooFew { needed: 1, given: 0 }));
    assert!(length(200, &[fine.clone(), fine]).is_ok());
    assert_eq!(warm_up::<Vec<u64>>(&[]), Err(Unfit::TooFew { needed: 1, given: 0 }));
    assert_eq!(warm_up(&[vec![0u64; 40]]), Err(Unfit::NotPositive));
    assert_eq!(statistic(&[0, 1], Criterion::Fastest), Err(Unfit::NotPositive));
    assert_eq!(statistic(&[], Criterion::P50), Err(Unfit::TooFew { needed: 1, given: 0 }));
}

/// Half as slow again at the start, going down by a factor of e each `lasts` inferences.
fn warming(random: &mut Random, iterations: usize, lasts: f64) -> Vec<u64> {
    let mut time = |i: usize| 1e6 * (1.0 + 0.5 * (-(i as f64) / lasts).exp() + 0.002 * random.normal());
    (0..iterations).map(|i| time(i) as u64).collect()
}

#[test]
fn warm_up_covers_what_is_slow_at_the_start() {
    let mut random = Random::new(3);
    let slow: Vec<Vec<u64>> = (0..WARM_UPS).map(|_| warming(&mut random, 600, 20.0)).collect();
    let found = warm_up(&slow).unwrap();
    // The excess is 1 % after 20 ln 50 = 78 inferences, of which a window's median sees some five ahead; half as much
    // again.
    assert!((90..=150).contains(&found.warmup) && found.never_steady == 0, "{found:?}");
    assert!((found.median_ns / 1e6 - 1.0).abs() < 0.002, "{found:?}");
    let steady: Vec<Vec<u64>> = (0..WARM_UPS).map(|_| vec![1000; 40]).collect();
    assert_eq!(warm_up(&steady).unwrap().warmup, 1);
}

/// A change of speed late in some invocations is counted, and does not make the warm-up long.
#[test]
fn a_late_change_of_speed_is_no_warm_up() {
    let mut random = Random::new(4);
    let mut all: Vec<Vec<u64>> = (0..WARM_UPS).map(|_| warming(&mut random, 600, 2.0)).collect();
    let calm = warm_up(&all).unwrap();
    for times in &mut all[..5] {
        times[400..].fill(1_300_000);
    }
    let found = warm_up(&all).unwrap();
    assert_eq!((found.never_steady, found.warmup.abs_diff(calm.warmup) <= 3), (5, true), "{found:?} {calm:?}");
    // Most of them: the usual one.
    for times in &mut all[..15] {
        times[400..].fill(1_300_000);
    }
    let found = warm_up(&all).unwrap();
    assert_eq!((found.never_steady, found.warmup), (15, USUAL_WARM_UP));
}

#[test]
fn an_invocation_is_as_long_as_wanted() {
    let warm_up = |median_ns: f64| WarmUp { warmup: 7, invocations: 20, never_steady: 0, median_ns };
    assert_eq!(warm_up(1e6).effort(200), Effort { warmup: 7, iterations: 200, min_time_ms: 0 });
    assert_eq!(warm_up(3e6).effort(500).iterations, 167);
    assert_eq!(warm_up(1e9).effort(1000).iterations, LEAST);
}

/// Where there is nothing but builds and rounds, the spread is that of the builds: of −1, 0, 1 it is 1.
#[test]
fn layout_sd_by_hand() {
    let rounds: Vec<Vec<f64>> =
        [5.0, 9.0, 2.0].iter().map(|round| [-1.0, 0.0, 1.0].map(|x| x + round).to_vec()).collect();
    assert!((layout_sd(&rounds).unwrap() - 1.0).abs() < 1e-12);
    // By hand: build means 2, 3, 4; the rest is ±1 in both corners' rounds: sum of squares 4, 2 degrees of freedom, so
    // T² = 1 − 2/2 = 0.
    let rounds = vec![vec![1.0, 3.0, 5.0], vec![3.0, 3.0, 3.0]];
    assert!(layout_sd(&rounds).unwrap().abs() < 1e-12);
    // Rounds of random length, builds that do not differ: never below zero.
    assert_eq!(layout_sd(&[vec![1.0, 2.0], vec![2.0, 1.0]]), Ok(0.0));
    assert_eq!(layout_sd(&[vec![1.0, 2.0], vec![2.0]]), Err(Unfit::NotPaired { base: 2, other: 1 }));
    assert_eq!(layout_sd(&[vec![1.0, 2.0]]), Err(Unfit::TooFew { needed: 2, given: 1 }));
    assert_eq!(layout_sd(&[]), Err(Unfit::TooFew { needed: 2, given: 0 }));
    assert_eq!(layout_sd(&[vec![1.0, 2.0], vec![f64::NAN, 1.0]]), Err(Unfit::NotFinite));
}

/// 400 devices with 6 builds and 8 rounds that differ by far more: the mean of the variances is the one that went in,
/// within four standard errors (but for those cut off at zero, of which there are next to none here).
#[test]
fn layout_sd_finds_what_went_in() {
    let mut random = Random::new(9);
    let variances: Vec<f64> = (0..400)
        .map(|_| {
            let builds: Vec<f64> = (0..6).map(|_| 0.02 * random.normal()).collect();
            let rounds: Vec<Vec<f64>> = (0..LAYOUT_ROUNDS)
                .map(|_| {
                    let round = 0.3 * random.normal();
                    builds.iter().map(|build| 3.0 + round + build + 0.01 * random.normal()).collect()
                })
                .collect();
            layout_sd(&rounds).unwrap().powi(2)
        })
        .collect();
    let error = sd(&variances).unwrap() / 20.0;
    let got = mean(&variances).unwrap();
    assert!((got - 0.0004).abs() < 4.0 * error, "{got} ± {error}");
}

/// Variances 0.01² within and 0.02² between, a start of 100 inferences' time: √(100 · 0.25) = 5 is best; (3 · 1.25)² ·
/// 0.25 = 3.5 are enough.
#[test]
fn worth_is_that_of_the_variances() {
    let mut random = Random::new(5);
    let invocations: Vec<(Vec<u64>, u64)> = (0..400)
        .map(|_| {
            let level = 0.02 * random.normal();
            let times = (0..100).map(|_| (1e6 * (level + 0.01 * random.normal()).exp()) as u64);
            (times.collect(), 200)
        })
        .collect();
    let found = worth(&invocations).unwrap();
    assert!((5..=6).contains(&found.best) && (3..=4).contains(&found.enough.unwrap()), "{found:?}");
    let same = vec![(vec![1000u64; 10], 1); 4];
    assert_eq!(worth(&same), None);
}
