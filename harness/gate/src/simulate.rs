//! Sessions of a board that does not exist, with a known slow-down, to measure how often the gate is wrong.
//!
//! In: a seed and the true effect; out: a [`Replay`], the same on every machine but for the last digits of its logarithms. What a board does to a time
//! multiplies, so all of it is added up in logarithms: the process (memory layout), processes gone wrong, a slow walk and a drift of the whole session, a
//! second clock frequency, heat left by the invocation before; inside a process the warm-up, values that follow each other, and a tail to the right.
//! The decision that is not obvious: boards are drawn from those that `calibrate` would admit, since the goals are promised for no others.

use super::{
    Arm, Verdict,
    judge::Decision,
    profile::Profile,
    replay::{BLOCK, Invocation, Replay},
};

const WARMUP: usize = 10;
const TIMED: usize = 20;

/// SD of a pair's difference between processes of the same code, by the share of benchmarks that have less (586 public ones with 10 processes each).
/// Cut where a device is no longer admitted (4.5 %).
const PAIR_SD: [(f64, f64); 4] = [(0.10, 0.003), (0.25, 0.009), (0.50, 0.019), (0.74, 0.045)];

/// How a board disturbs. Logarithms throughout: 0.01 is about one per cent.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    base_ns: f64,
    /// Steps of its clock.
    tick_ns: f64,
    /// SD between processes.
    process: f64,
    /// Share of processes that go wrong, and by how much on average.
    outliers: f64,
    outlier: f64,
    /// SD of a slow walk of the session, and how much of it stays from one invocation to the next.
    walk: f64,
    walk_stays: f64,
    /// From the first invocation to the last.
    drift: f64,
    /// How much slower the second frequency is (0 where there is none), the share of time in it, and how many invocations a state lasts.
    state: f64,
    state_share: f64,
    state_lasts: f64,
    /// The share of an invocation's slowness that the next one inherits as heat.
    carry: f64,
    /// SD inside a process, and how much of it stays from one value to the next.
    within: f64,
    within_stays: f64,
    /// The first value's excess, and how many values it takes to fall to a third.
    warm: f64,
    warm_lasts: f64,
    /// Share of values in the tail, and how far out they are on average.
    tails: f64,
    tail: f64,
}

impl Board {
    pub fn draw(random: &mut Random) -> Board {
        let states = random.chance(0.4);
        Board {
            base_ns: (random.between(0.5f64.ln(), 200f64.ln())).exp() * 1e6,
            tick_ns: [1.0, 1.0, 52.0, 1000.0][random.below(4)],
            process: pair_sd(random.between(PAIR_SD[0].0, PAIR_SD[3].0)) / 2f64.sqrt(),
            outliers: random.between(0.0, 0.04),
            outlier: random.between(0.02, 0.15),
            walk: random.between(0.002, 0.015),
            walk_stays: random.between(0.7, 0.97),
            drift: random.between(-0.02, 0.08),
            state: if states { random.between(0.04, 0.15) } else { 0.0 },
            state_share: random.between(0.05, 0.5),
            state_lasts: random.between(1f64.ln(), 60f64.ln()).exp(),
            carry: if random.chance(0.35) { random.between(0.02, 0.15) } else { 0.0 },
            within: random.between(0.01, 0.05),
            within_stays: random.between(0.3, 0.95),
            warm: random.between(0.05, 0.4),
            warm_lasts: random.between(1.0, 4.0),
            tails: random.between(0.003, 0.03),
            tail: random.between(0.05, 0.5),
        }
    }
}

/// A session of a board drawn from the seed. `effect` is the true slow-down of B as a fraction.
pub fn session(seed: u64, effect: f64, blocks: usize) -> Replay {
    let mut random = Random::new(seed);
    let board = Board::draw(&mut random);
    let count = blocks * BLOCK;
    let (mut walk, mut slow, mut heat) = (board.walk * random.normal(), random.chance(board.state_share), 0.0);
    let mut invocations = Vec::with_capacity(count);
    for block in 0..blocks {
        let baseline_first = random.chance(0.5);
        for place in 0..BLOCK {
            let arm = if baseline_first == matches!(place, 0 | 3) { Arm::A } else { Arm::B };
            walk = board.walk_stays * walk
                + board.walk * (1.0 - board.walk_stays * board.walk_stays).sqrt() * random.normal();
            if random.chance(1.0 / board.state_lasts) {
                slow = random.chance(board.state_share);
            }
            let code = if arm == Arm::B { effect.ln_1p() } else { 0.0 };
            let mut own = board.process * random.normal();
            if random.chance(board.outliers) {
                own += board.outlier * random.exponential();
            }
            let drift = board.drift * (block * BLOCK + place) as f64 / count as f64;
            let level = code + own + walk + drift + heat + if slow { board.state } else { 0.0 };
            heat = board.carry * (code + own);
            invocations.push(Invocation { arm, ns: process(&board, level, &mut random) });
        }
    }
    Replay::new(format!("s{seed:016x}"), WARMUP, invocations).expect("a simulated session is whole")
}

/// The times of one process whose values lie around exp(`level`) of the board's base.
fn process(board: &Board, level: f64, random: &mut Random) -> Vec<f64> {
    let fresh = board.within * (1.0 - board.within_stays * board.within_stays).sqrt();
    let mut within = board.within * random.normal();
    let time = |iteration: usize| {
        within = board.within_stays * within + fresh * random.normal();
        let warm = board.warm * (-(iteration as f64) / board.warm_lasts).exp();
        let mut log = level + within + warm + 0.3 * board.within * random.exponential();
        if random.chance(board.tails) {
            log += board.tail * random.exponential();
        }
        let ticks = (board.base_ns * log.exp() / board.tick_ns).round();
        (ticks * board.tick_ns).max(1.0)
    };
    (0..WARMUP + TIMED).map(time).collect()
}

/// Between the known quantiles the logarithm is taken for linear.
fn pair_sd(share: f64) -> f64 {
    let upper = PAIR_SD.iter().position(|(known, _)| share <= *known).unwrap_or(PAIR_SD.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (PAIR_SD[upper - 1], PAIR_SD[upper]);
    y0 * (y1 / y0).powf((share - x0) / (x1 - x0))
}

/// Outcomes of sessions with the same true effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub effect: f64,
    pub sessions: usize,
    pub passed: usize,
    pub failed: usize,
    blocks: usize,
    squares: f64,
    covered: usize,
    pair_sds: Vec<f64>,
}

impl Tally {
    pub fn of(effect: f64) -> Tally {
        Tally { effect, ..Tally::default() }
    }

    pub fn add(&mut self, decision: &Decision) {
        self.sessions += 1;
        self.passed += usize::from(decision.verdict == Verdict::Pass);
        self.failed += usize::from(decision.verdict == Verdict::Regressed);
        self.blocks += decision.blocks_used;
        // A session without an estimate covers nothing.
        let truth = 1.0 + self.effect;
        if let Some(effect) = &decision.effect {
            self.pair_sds.push(effect.pair_sd);
            self.squares += (effect.ratio / truth - 1.0).powi(2);
            self.covered += usize::from((effect.low..=effect.high).contains(&truth));
        }
    }

    pub fn pass_share(&self) -> f64 {
        self.passed as f64 / self.sessions as f64
    }

    pub fn fail_share(&self) -> f64 {
        self.failed as f64 / self.sessions as f64
    }

    /// Of the SD of a pair's difference over the sessions; `None` without any.
    pub fn pair_sd(&self, q: f64) -> Option<f64> {
        espalier_stats::quantile_r8(&self.pair_sds, q).ok()
    }

    pub fn mean_blocks(&self) -> f64 {
        self.blocks as f64 / self.sessions as f64
    }
}

/// What is promised for sessions like these.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// E.g. `+5 %: FAIL`.
    pub what: String,
    pub got: f64,
    pub wanted: Wanted,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of one.
    Share,
    Blocks,
}

impl Goal {
    /// NaN, where there was no session, meets nothing.
    pub fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(limit) => self.got <= limit,
            Wanted::AtLeast(limit) => self.got >= limit,
        }
    }
}

/// The true effects that [`goals`] speaks of.
pub fn effects(profile: &Profile) -> Vec<f64> {
    let mut effects = vec![0.0, 0.02, 0.03, 0.05, 0.10];
    if !effects.contains(&profile.median.upper) {
        effects.push(profile.median.upper);
    }
    effects
}

/// What the profile promises, and what the tallies say; one tally an effect.
pub fn goals(profile: &Profile, tallies: &[Tally]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |what: String, got: f64, wanted: Wanted, unit: Unit| goals.push(Goal { what, got, wanted, unit });
    for tally in tallies {
        let percent = tally.effect * 100.0;
        let (pass, fail, blocks) = (tally.pass_share(), tally.fail_share(), tally.mean_blocks());
        if tally.effect == 0.0 {
            goal("A/A: false FAIL".into(), fail, Wanted::AtMost(0.005), Unit::Share);
            goal("A/A: PASS".into(), pass, Wanted::AtLeast(0.95), Unit::Share);
        } else if tally.effect == profile.median.upper {
            goal(format!("+{percent:.0} %: PASS"), pass, Wanted::AtMost(0.06), Unit::Share);
        }
        // Only where the effect is far enough from both margins.
        if tally.effect >= 0.05 && tally.effect > profile.median.upper {
            let (least, most) = if tally.effect >= 0.10 { (0.99, 9.0) } else { (0.95, 14.0) };
            goal(format!("+{percent:.0} %: FAIL"), fail, Wanted::AtLeast(least), Unit::Share);
            goal(format!("+{percent:.0} %: PASS"), pass, Wanted::AtMost(0.01), Unit::Share);
            // Promised for the looks of the nightly profile.
            if profile.looks == Profile::NIGHTLY.looks {
                goal(format!("+{percent:.0} %: mean"), blocks, Wanted::AtMost(most), Unit::Blocks);
            }
        }
    }
    let sum = |of: &dyn Fn(&Tally) -> f64| tallies.iter().map(of).sum::<f64>();
    let sessions = sum(&|tally| tally.sessions as f64);
    let error = (sum(&|tally| tally.squares) / sessions).sqrt();
    let covered = sum(&|tally| tally.covered as f64) / sessions;
    goal("ratio: RMSE".into(), error, Wanted::AtMost(0.013), Unit::Share);
    goal("ratio: interval covers".into(), covered, Wanted::AtLeast(0.97), Unit::Share);
    goals
}

/// xoshiro256++ seeded by splitmix64 (Blackman and Vigna 2021, Steele et al. 2014): small, the same everywhere, good enough for a simulation.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut seed = seed;
        Random { state: std::array::from_fn(|_| splitmix(&mut seed)) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.uniform() * count as f64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// With mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// With mean 0 and SD 1 (Box and Muller 1958; the second of the two is not kept, so that a value depends on its two draws only).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// The next number of the sequence that starts at `state`; also a way to make independent seeds of 0, 1, 2…
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Criterion, judge::LatencyJudge, profile::Terms};

    /// The first numbers as the generators' authors publish them: splitmix64 from 1234567, xoshiro256++ from the state 1, 2, 3, 4.
    #[test]
    fn generators_are_the_published_ones() {
        let mut seed = 1_234_567;
        let first: [u64; 3] = std::array::from_fn(|_| splitmix(&mut seed));
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut random = Random { state: [1, 2, 3, 4] };
        let first: [u64; 4] = std::array::from_fn(|_| random.bits());
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn draws_have_their_moments() {
        let mut random = Random::new(7);
        let n = 20_000;
        let moments = |mut draw: Box<dyn FnMut() -> f64 + '_>| {
            let values: Vec<f64> = (0..n).map(|_| draw()).collect();
            (espalier_stats::mean(&values).unwrap(), espalier_stats::sd(&values).unwrap())
        };
        let near = |(mean, sd): (f64, f64), expected: (f64, f64)| {
            assert!((mean - expected.0).abs() < 0.03 && (sd - expected.1).abs() < 0.03, "{mean} {sd}");
        };
        near(moments(Box::new(|| random.normal())), (0.0, 1.0));
        near(moments(Box::new(|| random.exponential())), (1.0, 1.0));
        near(moments(Box::new(|| random.uniform())), (0.5, (1.0f64 / 12.0).sqrt()));
        assert!((0..100).all(|_| random.below(4) < 4));
    }

    /// At the published quantiles, and between them.
    #[test]
    fn spread_of_pairs_follows_the_published_quantiles() {
        for (share, sd) in PAIR_SD {
            assert!((pair_sd(share) - sd).abs() < 1e-12);
        }
        assert!((pair_sd(0.375) - (0.009f64 * 0.019).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_seed_is_a_session() {
        assert_eq!(session(3, 0.05, 4), session(3, 0.05, 4));
        assert_ne!(session(3, 0.05, 4).blocks(), session(4, 0.05, 4).blocks());
        assert_eq!(session(3, 0.05, 4).blocks().len(), 4);
        // The effect is B's alone.
        let (plain, slower) = (session(3, 0.0, 4).blocks(), session(3, 1.0, 4).blocks());
        let median = |times: &[f64]| espalier_stats::median(times).unwrap();
        assert_eq!(plain[0].arms, slower[0].arms);
        for i in 0..4 {
            let ratio = median(&slower[0].times[i]) / median(&plain[0].times[i]);
            let expected = if plain[0].arms[i] == Arm::B { 2.0 } else { 1.0 };
            assert!((ratio / expected - 1.0).abs() < 0.15, "{ratio}");
        }
    }

    /// A few sessions of each kind; `cargo xtask selftest gate --simulate 2000` has the figures.
    #[test]
    fn goals_are_met() {
        let profile = Profile::NIGHTLY;
        let latency = LatencyJudge::new(&profile, Criterion::P50, Terms::ALONE).unwrap();
        let mut seed = 1;
        let tallies: Vec<Tally> = [0.0, 0.10]
            .map(|effect| {
                let mut tally = Tally::of(effect);
                for _ in 0..25 {
                    let session = session(splitmix(&mut seed), effect, profile.most_blocks());
                    tally.add(&latency.judge_all(&session.blocks()).unwrap());
                }
                tally
            })
            .into();
        assert_eq!(tallies[0].failed, 0);
        assert!(tallies[0].passed >= 23 && tallies[1].failed >= 24, "{tallies:?}");
        assert!(goals(&profile, &tallies).iter().any(|goal| goal.what == "+10 %: FAIL"));
    }

    #[test]
    fn nothing_simulated_meets_nothing() {
        let goals = goals(&Profile::NIGHTLY, &[Tally::of(0.0), Tally::of(0.05)]);
        assert!(goals.len() > 5 && goals.iter().all(|goal| !goal.is_met()), "{goals:?}");
    }
}
