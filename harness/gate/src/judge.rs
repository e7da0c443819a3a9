//! The verdict on a latency: blocks of interleaved invocations in, pass, regressed or inconclusive out, at the first
//! look that decides.
//!
//! The looks are taken in order as far as there are blocks, and the first decision stands, so that a stored session
//! judged again gives the verdict of the live gate. The unit is the pair of neighbouring invocations: d = ln q(B) − ln
//! q(A), q a quantile of the invocation's times. Where pairs depend on each other (lag-1 autocorrelation above
//! `DEPENDENT`), their spread understates the error of their mean: the blocks' means are the units then, if that widens
//! the limits.
//!
//! A processor shared with other tenants is now and then half as fast for a whole invocation. A few such pairs make the
//! spread so large that the mean proves nothing, while all others agree to a tenth of a per cent. Where pairs are such
//! outliers and the mean is undecided, the sign test of their median decides: it counts how many pairs lie on which
//! side of a margin, not how far. (Wilcoxon's signed ranks are not enough: outliers have the highest ranks.)

use std::{error, fmt};

use espalier_stats::{
    Design, Look, Outcome, Unfit, autocorrelation, median, quantile_interval, quantile_of_sorted, sorted,
};

use crate::{
    Arm, Criterion, Effect, Verdict,
    profile::{Profile, Terms, Tolerance},
};
use espalier_bench::sheet::percent;

/// Autocorrelation of pairs above which they are no longer taken for independent.
const DEPENDENT: f64 = 0.4;
/// With fewer blocks their means are never the units: neither their spread nor the autocorrelation is known well
/// enough.
const LEAST_UNITS: usize = 4;

/// There are outliers where the standard deviation is more than this times what the median absolute deviation stands
/// for. For normal values the quotient is near 1; sixteen of them exceed the limit once in some hundred sessions, which
/// costs nothing but the sign test.
const OUTLIERS: f64 = 2.0;
/// Standard deviations a median absolute deviation stands for with normal values.
const MAD_TO_SD: f64 = 1.4826;

/// Four invocations in order of time; the first two and the last two are pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub arms: [Arm; 4],
    /// Of each invocation after its warm-up, all in one unit (usually ns), in any order.
    pub times: [Vec<f64>; 4],
}

impl Block {
    pub fn from_ns(arms: [Arm; 4], times: [&[u64]; 4]) -> Block {
        Block { arms, times: times.map(|times| times.iter().map(|ns| *ns as f64).collect()) }
    }
}

/// Why a block cannot be judged. Numbers count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// Neighbours of the same arm.
    NoPair {
        block: usize,
        first: usize,
    },
    NoTimes {
        block: usize,
        invocation: usize,
    },
    /// A time that is not finite or not above zero.
    NoTime {
        block: usize,
        invocation: usize,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::NoPair { block, first } => write!(
                f,
                "block {block}: invocations {first} and {} are of the same arm: neighbours are compared, one of each \
                 arm",
                first + 1
            ),
            BlockError::NoTimes { block, invocation } => {
                write!(f, "block {block}: invocation {invocation} has no time after its warm-up")
            }
            BlockError::NoTime { block, invocation } => {
                write!(f, "block {block}: invocation {invocation} has a time that is not finite and above zero")
            }
        }
    }
}

impl error::Error for BlockError {}

#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Measure on, until there are so many blocks in all.
    Undecided {
        next_look: usize,
    },
    Decided(Decision),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    /// `None` where there is no block.
    pub effect: Option<Effect>,
    /// E.g. `proved slower by more than 0.5 %`.
    pub reason: String,
    /// What a reader should know of the numbers; never the reason for the verdict.
    pub tags: Vec<String>,
    /// Blocks the verdict used; later ones change nothing.
    pub blocks_used: usize,
}

/// The test of one criterion, for any number of sessions: making it costs more than using it.
#[derive(Clone, Debug)]
pub struct LatencyJudge {
    quantile: f64,
    tolerance: Tolerance,
    /// In blocks.
    looks: &'static [usize],
    design: Design,
    /// Of the sign test, with errors of its own.
    signs: Design,
}

impl LatencyJudge {
    /// `None` for what is no latency.
    pub fn new(profile: &Profile, criterion: Criterion, terms: Terms) -> Option<LatencyJudge> {
        Some(LatencyJudge {
            quantile: criterion.quantile()?,
            tolerance: profile.tolerance(criterion, terms.other_binary)?,
            looks: profile.looks,
            design: profile.design(criterion, terms)?,
            signs: profile.signs(criterion, terms)?,
        })
    }

    /// Of a session that may go on.
    ///
    /// # Errors
    /// A block without pairs or times, among those that are looked at.
    pub fn judge(&self, blocks: &[Block]) -> Result<Judgement, BlockError> {
        let mut session = Session::default();
        for (k, &look) in self.looks.iter().enumerate() {
            if blocks.len() < look {
                return Ok(Judgement::Undecided { next_look: look });
            }
            session.extend(&blocks[..look], self.quantile)?;
            let Some(numbers) = self.look(k, &session) else { continue };
            let verdict = match numbers.outcome() {
                Outcome::Worse => Verdict::Regressed,
                Outcome::NotWorse => Verdict::Pass,
                Outcome::Undecided if k + 1 < self.looks.len() => continue,
                Outcome::Undecided => Verdict::Inconclusive,
            };
            return Ok(Judgement::Decided(self.decision(verdict, numbers, None)));
        }
        Ok(Judgement::Decided(undecidable(blocks.len())))
    }

    /// Of a session that is over: what is undecided then is inconclusive.
    ///
    /// # Errors
    /// As [`judge`](Self::judge).
    pub fn judge_all(&self, blocks: &[Block]) -> Result<Decision, BlockError> {
        let next_look = match self.judge(blocks)? {
            Judgement::Decided(decision) => return Ok(decision),
            Judgement::Undecided { next_look } => next_look,
        };
        let mut session = Session::default();
        session.extend(blocks, self.quantile)?;
        // At the level of the look that was not reached. Nothing is decided by it; the limits are those of that look.
        let k = self.looks.iter().position(|look| *look == next_look).unwrap_or_default();
        Ok(match self.look(k, &session) {
            Some(numbers) => self.decision(Verdict::Inconclusive, numbers, Some(next_look)),
            None => undecidable(blocks.len()),
        })
    }
}

/// What one look computes.
struct Numbers {
    look: Look,
    /// Where there are outliers and the mean decides nothing.
    middle: Option<Middle>,
    blocks: usize,
    /// Of pairs, whatever the units.
    pair_sd: f64,
    mde: Option<f64>,
    tags: Vec<String>,
}

/// The median with a one-sided limit for each verdict, both order statistics (Conover, Practical Nonparametric
/// Statistics, 3.2). Logarithms of ratios.
#[derive(Clone, Copy)]
struct Middle {
    median: f64,
    low: f64,
    high: f64,
    outcome: Outcome,
}

impl Numbers {
    fn outcome(&self) -> Outcome {
        match (self.look.outcome, self.middle) {
            (Outcome::Undecided, Some(middle)) => middle.outcome,
            (outcome, _) => outcome,
        }
    }
}

impl LatencyJudge {
    /// `None` where there are too few pairs for any statement.
    fn look(&self, k: usize, session: &Session) -> Option<Numbers> {
        let pairs = session.differences.as_slice();
        let blocks: Vec<f64> = pairs.chunks_exact(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
        let floor = session.clock_floor();
        let mut look = self.design.look(k, pairs, floor).ok()?;
        let mut units = pairs;
        let mut tags = Vec::new();
        let dependence = autocorrelation(pairs, 1).unwrap_or_default();
        if dependence > DEPENDENT && blocks.len() >= LEAST_UNITS {
            let by_block = self.design.look(k, &blocks, floor).ok()?;
            // By chance the blocks' means may lie closer together than dependent pairs: that must not narrow the
            // limits.
            if by_block.high - by_block.low > look.high - look.low {
                (look, units) = (by_block, blocks.as_slice());
                tags.push(format!("pairs depend on each other (r={dependence:.2}): judged by blocks"));
            }
        }
        if look.se <= floor {
            tags.push(format!("coarse clock: one step is {} % of the time", percent(2.0 * floor, 1)));
        }
        let n = look.pairs;
        let mde = self.design.minimum_detectable_effect(look.se * (n as f64).sqrt(), n);
        let pair_sd = espalier_stats::sd(pairs).ok()?;
        let middle = if look.outcome == Outcome::Undecided { self.middle(k, units, floor) } else { None };
        Some(Numbers { look, middle, blocks: blocks.len(), pair_sd, mde: mde.is_finite().then_some(mde), tags })
    }

    /// The same test of the median; `None` without outliers, or with too few units for this look's level.
    fn middle(&self, k: usize, units: &[f64], floor: f64) -> Option<Middle> {
        let centre = median(units).ok()?;
        let away: Vec<f64> = units.iter().map(|unit| (unit - centre).abs()).collect();
        let spread = espalier_stats::sd(units).ok()?;
        if spread <= OUTLIERS * MAD_TO_SD * median(&away).ok()? {
            return None;
        }
        let (alpha, beta) = self.signs.levels().nth(k)?;
        let below = quantile_interval(units, 0.5, 1.0 - 2.0 * alpha).ok()??;
        let above = quantile_interval(units, 0.5, 1.0 - 2.0 * beta).ok()??;
        // A step of the clock between equal times is no difference.
        let (low, high) = (below.low - floor, above.high + floor);
        let margins = self.signs.margins();
        let outcome = if low > margins.fail {
            Outcome::Worse
        } else if high < margins.pass {
            Outcome::NotWorse
        } else {
            Outcome::Undecided
        };
        Some(Middle { median: centre, low, high, outcome })
    }

    /// `next_look`: in blocks, where the session was cut off before it.
    fn decision(&self, verdict: Verdict, numbers: Numbers, next_look: Option<usize>) -> Decision {
        let Numbers { look, middle, blocks, pair_sd, mde, mut tags } = numbers;
        // The numbers shown are those that decided.
        let (mut centre, mut low, mut high) = (look.mean, look.low, look.high);
        if let Some(middle) = middle.filter(|middle| middle.outcome != Outcome::Undecided) {
            let [mean, low_of_mean, high_of_mean] = [look.mean, look.low, look.high].map(|log| log.exp_m1() * 100.0);
            tags.push(format!(
                "judged by the median, which outliers cannot move; \
                 the mean says {mean:+.1} % [{low_of_mean:+.1}, {high_of_mean:+.1}]"
            ));
            (centre, low, high) = (middle.median, middle.low, middle.high);
        }
        let [lower, upper, spread] =
            [self.tolerance.lower, self.tolerance.upper, pair_sd].map(|fraction| percent(fraction, 1));
        let power = match mde {
            Some(mde) => format!(
                "pairs spread by {spread} %, so that only a slow-down of {} % or more shows in 95 of 100 sessions",
                percent(mde, 1)
            ),
            None => "too little for a statement".to_owned(),
        };
        let reason = match (verdict, next_look) {
            (Verdict::Regressed, _) => format!("proved slower by more than {lower} %"),
            (Verdict::Pass, _) => format!("proved not slower by {upper} % or more"),
            (Verdict::Inconclusive, None) => format!(
                "neither proved slower by more than {lower} % nor not slower by {upper} % after {blocks} blocks: \
                 {power}"
            ),
            (Verdict::Inconclusive, Some(next)) => {
                format!("cut off after {blocks} blocks, the next look is at {next}: {power}")
            }
        };
        let effect = Effect {
            ratio: ratio(centre),
            low: ratio(low),
            high: ratio(high),
            pairs: blocks * 2,
            blocks,
            pair_sd,
            se: look.se,
            mde,
        };
        Decision { verdict, effect: Some(effect), reason, tags, blocks_used: blocks }
    }
}

/// Too few blocks for any look.
fn undecidable(blocks: usize) -> Decision {
    let reason = match blocks {
        0 => "no block was measured".to_owned(),
        1 => "1 block is too little for a statement".to_owned(),
        _ => format!("{blocks} blocks are too little for a statement"),
    };
    Decision { verdict: Verdict::Inconclusive, effect: None, reason, tags: Vec::new(), blocks_used: blocks }
}

/// The statistics of the blocks so far.
#[derive(Default)]
struct Session {
    /// d of each pair, in order of time.
    differences: Vec<f64>,
    /// The smallest step between two times of one invocation; `None` while no invocation has two different times.
    step: Option<f64>,
    /// The smallest of the invocations' quantiles.
    smallest: Option<f64>,
}

impl Session {
    /// `blocks`: all so far, the known ones included.
    fn extend(&mut self, blocks: &[Block], quantile: f64) -> Result<(), BlockError> {
        let known = self.differences.len() / 2;
        for (index, Block { arms, times }) in blocks.iter().enumerate().skip(known) {
            let block = index + 1;
            let mut x = [0.0; 4];
            for (i, times) in times.iter().enumerate() {
                x[i] = self.statistic(times, quantile, block, i + 1)?.ln();
            }
            for first in [0, 2] {
                let difference = match (arms[first], arms[first + 1]) {
                    (Arm::A, Arm::B) => x[first + 1] - x[first],
                    (Arm::B, Arm::A) => x[first] - x[first + 1],
                    _ => return Err(BlockError::NoPair { block, first: first + 1 }),
                };
                self.differences.push(difference);
            }
        }
        Ok(())
    }

    /// The invocation's quantile.
    fn statistic(&mut self, times: &[f64], quantile: f64, block: usize, invocation: usize) -> Result<f64, BlockError> {
        let sorted = sorted(times).map_err(|unfit| match unfit {
            Unfit::TooFew { .. } => BlockError::NoTimes { block, invocation },
            _ => BlockError::NoTime { block, invocation },
        })?;
        if sorted[0] <= 0.0 {
            return Err(BlockError::NoTime { block, invocation });
        }
        let steps = sorted.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0.0);
        self.step = steps.chain(self.step).reduce(f64::min);
        let value = quantile_of_sorted(&sorted, quantile);
        self.smallest = Some(self.smallest.map_or(value, |smallest| smallest.min(value)));
        Ok(value)
    }

    /// The least standard error to be believed: half a step of the clock, as a logarithm. Equal medians do not show
    /// that nothing varies where the clock could not have shown it. The step is the smallest one in the times, or one
    /// unit where no invocation has two different times: a coarse clock rounds up and down in turn, so that times that
    /// never differ are exact.
    fn clock_floor(&self) -> f64 {
        let step = self.step.unwrap_or(1.0);
        self.smallest.map_or(f64::INFINITY, |smallest| step / (2.0 * smallest))
    }
}

/// Finite and above zero whatever the logarithm: a limit from two pairs can be beyond the range of a number.
fn ratio(log: f64) -> f64 {
    log.exp().clamp(f64::MIN_POSITIVE, f64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::{random::Random, simulate};

    static NIGHTLY: LazyLock<LatencyJudge> =
        LazyLock::new(|| LatencyJudge::new(&Profile::NIGHTLY, Criterion::P50, Terms::ALONE).unwrap());

    const ABBA: [Arm; 4] = [Arm::A, Arm::B, Arm::B, Arm::A];

    /// A block ABBA whose pairs differ by these logarithms.
    fn block(first: f64, second: f64) -> Block {
        Block { arms: ABBA, times: [0.0, first, second, 0.0].map(|log: f64| vec![1e7 * log.exp()]) }
    }

    /// Pairs mean ± spread, alternating, so that the mean is exact and neighbours are not alike.
    fn alternating(blocks: usize, mean: f64, spread: f64) -> Vec<Block> {
        (0..blocks).map(|_| block(mean + spread, mean - spread)).collect()
    }

    fn constant(a: f64, b: f64) -> Vec<Block> {
        (0..32).map(|_| Block { arms: ABBA, times: [a, b, b, a].map(|time| vec![time; 5]) }).collect()
    }

    /// The same with the arms' names exchanged.
    fn swapped(blocks: &[Block]) -> Vec<Block> {
        let other = |arm| if arm == Arm::A { Arm::B } else { Arm::A };
        blocks.iter().map(|block| Block { arms: block.arms.map(other), times: block.times.clone() }).collect()
    }

    fn mapped(blocks: &[Block], change: impl Fn(Arm, f64) -> f64) -> Vec<Block> {
        let mut blocks = blocks.to_vec();
        for Block { arms, times } in &mut blocks {
            for (arm, times) in arms.iter().zip(times) {
                times.iter_mut().for_each(|time| *time = change(*arm, *time));
            }
        }
        blocks
    }

    /// The numbers of look `k` of the nightly profile, whether or not the walk gets there.
    fn look(k: usize, blocks: &[Block]) -> Look {
        let mut session = Session::default();
        session.extend(&blocks[..NIGHTLY.looks[k]], 0.5).unwrap();
        NIGHTLY.look(k, &session).unwrap().look
    }

    #[track_caller]
    fn check(blocks: &[Block], verdict: Verdict, blocks_used: usize, reason: &str) -> Decision {
        let decision = NIGHTLY.judge_all(blocks).unwrap();
        assert_eq!((decision.verdict, decision.blocks_used), (verdict, blocks_used), "{decision:?}");
        assert_eq!(decision.reason, reason);
        decision
    }

    /// 16 pairs of ±2 % around +1 %: s_d = 0.02 √(16/15), and the critical values published with the design, 4.430 and
    /// 2.499, whose levels are known to 3 %.
    #[test]
    fn limits_are_those_of_the_published_constants() {
        let Look { mean, sd, low, high, pairs, .. } = look(0, &alternating(8, 0.01, 0.02));
        let expected = 0.02 * (16.0f64 / 15.0).sqrt();
        assert_eq!(pairs, 16);
        assert!((mean - 0.01).abs() < 1e-12 && (sd - expected).abs() < 1e-12, "{mean} {sd}");
        assert!(((mean - low) / (expected / 4.0) - 4.430).abs() < 0.02, "{low}");
        assert!(((high - mean) / (expected / 4.0) - 2.499).abs() < 0.02, "{high}");
    }

    #[test]
    fn each_verdict_has_its_words() {
        check(&alternating(32, 0.0, 0.01), Verdict::Pass, 8, "proved not slower by 3 % or more");
        check(&alternating(32, 0.1, 0.01), Verdict::Regressed, 8, "proved slower by more than 0.5 %");
        // Later looks have closer limits: +3 % with pairs of ±2.7 % is proved at 12 blocks.
        check(&alternating(32, 0.03, 0.027), Verdict::Regressed, 12, "proved slower by more than 0.5 %");
        let decision = check(
            &alternating(40, 0.02, 0.06),
            Verdict::Inconclusive,
            32,
            "neither proved slower by more than 0.5 % nor not slower by 3 % after 32 blocks: pairs spread by 6 %, so \
             that only a slow-down of 4.5 % or more shows in 95 of 100 sessions",
        );
        let effect = decision.effect.unwrap();
        assert_eq!((effect.blocks, effect.pairs), (32, 64));
        assert!(effect.low < 1.02 && 1.02 < effect.high);
        // By hand: exp(ln 1.005 + (3.550 + 1.669) · 0.06047 / 8) − 1.
        assert!((effect.mde.unwrap() - 0.0454).abs() < 2e-4, "{effect:?}");
    }

    /// A tight interval between the margins is a proved regression, if a small one.
    #[test]
    fn regressed_outranks_pass() {
        check(&alternating(32, 0.015, 0.002), Verdict::Regressed, 8, "proved slower by more than 0.5 %");
    }

    #[test]
    fn a_session_cut_off_is_inconclusive() {
        let blocks = alternating(32, 0.02, 0.06);
        assert_eq!(NIGHTLY.judge(&blocks[..7]), Ok(Judgement::Undecided { next_look: 8 }));
        assert_eq!(NIGHTLY.judge(&blocks[..8]), Ok(Judgement::Undecided { next_look: 12 }));
        assert_eq!(NIGHTLY.judge(&blocks[..31]), Ok(Judgement::Undecided { next_look: 32 }));
        let reason = "cut off after 10 blocks, the next look is at 12: pairs spread by 6.2 %, so that only a \
                      slow-down of 8.8 % or more shows in 95 of 100 sessions";
        let decision = check(&blocks[..10], Verdict::Inconclusive, 10, reason);
        assert_eq!(decision.effect.map(|effect| effect.pairs), Some(20));
        // Even where it looks like a clear case.
        let clear = NIGHTLY.judge_all(&alternating(7, 0.1, 0.01)).unwrap();
        assert_eq!(clear.verdict, Verdict::Inconclusive);
        assert_eq!(check(&blocks[..1], Verdict::Inconclusive, 1, "1 block is too little for a statement").effect, None);
        assert_eq!(check(&[], Verdict::Inconclusive, 0, "no block was measured").effect, None);
    }

    /// Times that never differ are compared as they are; times that only a coarse clock makes equal are not.
    #[test]
    fn equal_times_decide_as_far_as_the_clock_allows() {
        check(&constant(1e6, 1e6), Verdict::Pass, 8, "proved not slower by 3 % or more");
        check(&constant(1e6, 1.1e6), Verdict::Regressed, 8, "proved slower by more than 0.5 %");
        // 1 ms steps at 5.3 ms: mostly 5, sometimes 6, whatever is compared.
        let coarse: Vec<Block> = constant(5e6, 5e6)
            .into_iter()
            .map(|mut block| {
                block.times.iter_mut().for_each(|times| times[2] = 6e6);
                block
            })
            .collect();
        let decision = NIGHTLY.judge_all(&coarse).unwrap();
        assert_eq!(decision.verdict, Verdict::Inconclusive);
        assert_eq!(decision.tags, ["coarse clock: one step is 20 % of the time"]);
    }

    /// Pairs that come in runs: the same mean, but blocks for units and wider limits.
    #[test]
    fn dependent_pairs_are_judged_by_blocks() {
        let runs: Vec<Block> = (0..32)
            .map(|i| {
                let d = 0.01 + if i / 4 % 2 == 0 { 0.02 } else { -0.02 };
                block(d, d)
            })
            .collect();
        let together = look(4, &runs);
        assert_eq!(together.pairs, 32);
        let apart = look(4, &alternating(32, 0.01, 0.02));
        assert!((together.mean - apart.mean).abs() < 1e-12);
        assert!(together.se > 1.4 * apart.se);
        let tags = NIGHTLY.judge_all(&runs).unwrap().tags;
        assert!(tags[0].starts_with("pairs depend on each other (r=0."), "{tags:?}");
    }

    /// A processor that runs half as fast for every seventh invocation, whichever arm: pairs of 0.6 % spread, some of
    /// them 50 % off.
    fn shared_processor(random: &mut Random, effect: f64) -> Vec<Block> {
        let mut time = |arm: Arm| {
            let slow = if random.below(7) == 0 { 1.5f64.ln() } else { 0.0 };
            let slower = if arm == Arm::B { effect.ln_1p() } else { 0.0 };
            vec![1e7 * (slow + slower + 0.004 * random.normal()).exp()]
        };
        (0..32).map(|_| Block { arms: ABBA, times: ABBA.map(&mut time) }).collect()
    }

    /// How many of `sessions` get each verdict: regressed, pass, inconclusive.
    fn tally(effect: f64, sessions: usize) -> [usize; 3] {
        let mut random = Random::new(5);
        let mut tally = [0; 3];
        for _ in 0..sessions {
            match NIGHTLY.judge_all(&shared_processor(&mut random, effect)).unwrap().verdict {
                Verdict::Regressed => tally[0] += 1,
                Verdict::Pass => tally[1] += 1,
                Verdict::Inconclusive => tally[2] += 1,
            }
        }
        tally
    }

    #[test]
    fn a_few_outliers_hide_nothing() {
        let [regressed, pass, _] = tally(0.0, 200);
        assert!(regressed == 0 && pass >= 190, "{regressed} {pass}");
        let [regressed, pass, _] = tally(0.05, 200);
        assert!(regressed >= 195 && pass <= 2, "{regressed} {pass}");
    }

    /// At the margins the errors are those promised: 0.0011 and 0.055.
    #[test]
    fn pairs_far_off_make_no_errors() {
        let [regressed, ..] = tally(NIGHTLY.tolerance.lower, 400);
        assert!(regressed <= 2, "{regressed}");
        let [_, pass, _] = tally(NIGHTLY.tolerance.upper, 400);
        assert!(pass <= 33, "{pass}");
    }

    #[test]
    fn the_median_is_named_where_it_decides() {
        let mut random = Random::new(5);
        let decision = NIGHTLY.judge_all(&shared_processor(&mut random, 0.05)).unwrap();
        assert_eq!(decision.verdict, Verdict::Regressed);
        let effect = decision.effect.unwrap();
        assert!(effect.low < 1.05 && 1.05 < effect.high && effect.high - effect.low < 0.03, "{effect:?}");
        assert!(decision.tags.iter().any(|tag| tag.contains("judged by the median")), "{:?}", decision.tags);
    }

    #[test]
    fn blocks_that_are_none_are_refused() {
        let mut blocks = alternating(9, 0.0, 0.01);
        let refused = |blocks: &[Block]| NIGHTLY.judge(blocks).unwrap_err().to_string();
        // What no look reaches is not looked at.
        blocks[8].times[0].clear();
        assert!(NIGHTLY.judge(&blocks).is_ok());
        blocks[7].times[2].clear();
        assert_eq!(refused(&blocks), "block 8: invocation 3 has no time after its warm-up");
        for bad in [0.0, -1.0, f64::NAN, -f64::NAN, f64::INFINITY] {
            blocks[7].times[2] = vec![1.0, bad, 2.0];
            assert_eq!(refused(&blocks), "block 8: invocation 3 has a time that is not finite and above zero");
        }
        blocks[1].arms = [Arm::A, Arm::B, Arm::A, Arm::A];
        assert_eq!(
            refused(&blocks),
            "block 2: invocations 3 and 4 are of the same arm: neighbours are compared, one of each arm"
        );
    }

    #[test]
    fn only_latencies_have_a_judge() {
        for criterion in Criterion::ALL {
            let judge = LatencyJudge::new(&Profile::COARSE, criterion, Terms::ALONE);
            assert_eq!(judge.is_some(), criterion.quantile().is_some(), "{criterion:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn exchanging_the_arms_exchanges_the_sign(seed: u64) {
            let blocks = simulate::session(seed, 0.02, 32).blocks();
            let (plain, swapped) = (look(4, &blocks), look(4, &swapped(&blocks)));
            prop_assert_eq!(plain.mean, -swapped.mean);
            prop_assert_eq!(plain.se, swapped.se);
        }

        #[test]
        fn the_unit_of_time_does_not_matter(
            seed: u64, effect in -0.05f64..0.1, unit in prop::sample::select(vec![1e-9, 1e-6, 1e-3, 1e3]),
        ) {
            let blocks = simulate::session(seed, effect, 32).blocks();
            let other = mapped(&blocks, |_, time| time * unit);
            let (plain, other) = (NIGHTLY.judge_all(&blocks).unwrap(), NIGHTLY.judge_all(&other).unwrap());
            prop_assert_eq!((plain.verdict, plain.blocks_used), (other.verdict, other.blocks_used));
            let (plain, other) = (plain.effect.unwrap(), other.effect.unwrap());
            prop_assert!((plain.ratio.ln() - other.ratio.ln()).abs() < 1e-12);
            prop_assert!((plain.low.ln() - other.low.ln()).abs() < 1e-9);
        }

        #[test]
        fn a_slower_candidate_shifts_the_mean_by_its_logarithm(seed: u64, factor in 0.5f64..2.0) {
            let blocks = simulate::session(seed, 0.0, 32).blocks();
            let slower = mapped(&blocks, |arm, time| if arm == Arm::B { time * factor } else { time });
            let shift = look(4, &slower).mean - look(4, &blocks).mean;
            prop_assert!((shift - factor.ln()).abs() < 1e-12, "{} {}", shift, factor.ln());
        }

        #[test]
        fn order_inside_an_invocation_does_not_matter(seed: u64, effect in 0.0f64..0.1) {
            let blocks = simulate::session(seed, effect, 32).blocks();
            let mut reversed = blocks.clone();
            reversed.iter_mut().flat_map(|block| &mut block.times).for_each(|times| {
                times.reverse();
                let turns = seed as usize % times.len();
                times.rotate_left(turns);
            });
            prop_assert_eq!(NIGHTLY.judge_all(&reversed), NIGHTLY.judge_all(&blocks));
        }

        /// The autocorrelation does depend on the order, and with it the choice of the units: the mean never does.
        #[test]
        fn order_of_blocks_does_not_change_the_last_look(seed: u64, effect in 0.0f64..0.1) {
            let blocks = simulate::session(seed, effect, 32).blocks();
            let mut shuffled = blocks.clone();
            let mut random = Random::new(seed);
            (1..shuffled.len()).for_each(|i| shuffled.swap(i, random.below(i + 1)));
            let (plain, shuffled) = (look(4, &blocks), look(4, &shuffled));
            prop_assert!((plain.mean - shuffled.mean).abs() < 1e-15);
            if plain.pairs == shuffled.pairs {
                prop_assert!((plain.low - shuffled.low).abs() < 1e-13 && (plain.high - shuffled.high).abs() < 1e-13);
                prop_assert_eq!(plain.outcome, shuffled.outcome);
            }
        }

        /// The live gate sees the blocks come; a replay has them all.
        #[test]
        fn the_first_decision_stands(seed: u64, effect in 0.0f64..0.1) {
            let blocks = simulate::session(seed, effect, 32).blocks();
            let mut live = 0;
            let decision = loop {
                match NIGHTLY.judge(&blocks[..live]).unwrap() {
                    Judgement::Undecided { next_look } => {
                        prop_assert!(next_look > live);
                        live = next_look;
                    }
                    Judgement::Decided(decision) => break decision,
                }
            };
            prop_assert_eq!(decision.blocks_used, live);
            prop_assert_eq!(decision, NIGHTLY.judge_all(&blocks).unwrap());
        }
    }
}
