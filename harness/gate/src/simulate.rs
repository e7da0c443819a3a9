//! Simulated sessions with a known slow-down, to measure how often the gate is wrong.
//!
//! In: a seed and the true effect; out: a [`Replay`], the same on every machine but for the last digits of its
//! logarithms. Disturbances multiply, so their logarithms are added: the process (memory layout), outlier processes, a
//! random walk and a drift of the whole session, a second clock frequency, heat left by the invocation before; inside a
//! process the warm-up, autocorrelated values, and a tail to the right. Boards are drawn from those that `calibrate`
//! would admit: the goals are promised for no others.

use crate::{
    Arm, Verdict,
    judge::Decision,
    profile::Profile,
    random::Random,
    replay::{BLOCK, Invocation, Replay},
};

const WARMUP: usize = 10;
const TIMED: usize = 20;

/// SD of a pair's difference between processes of the same code, by the share of benchmarks that have less (586 public
/// ones with 10 processes each). Cut where a device is no longer admitted (4.5 %).
const PAIR_SD: [(f64, f64); 4] = [(0.10, 0.003), (0.25, 0.009), (0.50, 0.019), (0.74, 0.045)];

/// How a board disturbs. Logarithms throughout: 0.01 is about one per cent.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    base_ns: f64,
    /// Steps of its clock.
    tick_ns: f64,
    /// SD between processes.
    process: f64,
    /// Share of processes that are outliers, and by how much on average.
    outliers: f64,
    outlier: f64,
    /// SD of a random walk of the session, and how much of it stays from one invocation to the next.
    walk: f64,
    walk_stays: f64,
    /// From the first invocation to the last.
    drift: f64,
    /// How much slower the second frequency is (0 where there is none), the share of time in it, and how many
    /// invocations a state lasts.
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
    Replay::new(format!("s{seed:016x}"), WARMUP, invocations).expect("a simulated session has whole blocks")
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

/// Linear in the logarithm between the known quantiles.
fn pair_sd(share: f64) -> f64 {
    let upper = PAIR_SD.iter().position(|(known, _)| share <= *known).unwrap_or(PAIR_SD.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (PAIR_SD[upper - 1], PAIR_SD[upper]);
    y0 * (y1 / y0).powf((share - x0) / (x1 - x0))
}

/// Outcomes of sessions with the same true effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionTally {
    pub effect: f64,
    pub sessions: usize,
    pub passed: usize,
    pub regressed: usize,
    blocks: usize,
    squares: f64,
    covered: usize,
    pair_sds: Vec<f64>,
}

impl SessionTally {
    pub fn of(effect: f64) -> SessionTally {
        SessionTally { effect, ..SessionTally::default() }
    }

    pub fn add(&mut self, decision: &Decision) {
        self.sessions += 1;
        self.passed += usize::from(decision.verdict == Verdict::Pass);
        self.regressed += usize::from(decision.verdict == Verdict::Regressed);
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

    pub fn regressed_share(&self) -> f64 {
        self.regressed as f64 / self.sessions as f64
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
    /// E.g. `+5 %: regressed`.
    pub name: String,
    pub value: f64,
    pub limit: Limit,
    pub unit: GoalUnit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoalUnit {
    /// Of one.
    Share,
    Blocks,
}

impl Goal {
    /// NaN, where there was no session, meets nothing.
    pub fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.value <= limit,
            Limit::AtLeast(limit) => self.value >= limit,
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

/// What the profile promises beside what the tallies have; one tally an effect.
pub fn goals(profile: &Profile, tallies: &[SessionTally]) -> Vec<Goal> {
    use GoalUnit::{Blocks, Share};
    use Limit::{AtLeast, AtMost};
    let mut goals = Vec::new();
    let mut goal = |name: String, value, limit, unit| goals.push(Goal { name, value, limit, unit });
    for tally in tallies {
        let percent = tally.effect * 100.0;
        let (pass, regressed, blocks) = (tally.pass_share(), tally.regressed_share(), tally.mean_blocks());
        if tally.effect == 0.0 {
            goal("A/A: regressed".into(), regressed, AtMost(0.005), Share);
            goal("A/A: pass".into(), pass, AtLeast(0.95), Share);
        } else if tally.effect == profile.median.upper {
            goal(format!("+{percent:.0} %: pass"), pass, AtMost(0.06), Share);
        }
        // Only where the effect is far enough from both margins.
        if tally.effect >= 0.05 && tally.effect > profile.median.upper {
            let (least, most) = if tally.effect >= 0.10 { (0.99, 9.0) } else { (0.95, 14.0) };
            goal(format!("+{percent:.0} %: regressed"), regressed, AtLeast(least), Share);
            goal(format!("+{percent:.0} %: pass"), pass, AtMost(0.01), Share);
            // Promised for the looks of the nightly profile.
            if profile.looks == Profile::NIGHTLY.looks {
                goal(format!("+{percent:.0} %: mean"), blocks, AtMost(most), Blocks);
            }
        }
    }
    let sum = |of: &dyn Fn(&SessionTally) -> f64| tallies.iter().map(of).sum::<f64>();
    let sessions = sum(&|tally| tally.sessions as f64);
    let error = (sum(&|tally| tally.squares) / sessions).sqrt();
    let covered = sum(&|tally| tally.covered as f64) / sessions;
    goal("ratio: RMSE".into(), error, AtMost(0.013), Share);
    goal("ratio: interval covers".into(), covered, AtLeast(0.97), Share);
    goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Criterion, judge::LatencyJudge, profile::Terms, random::splitmix};

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
        let tallies: Vec<SessionTally> = [0.0, 0.10]
            .map(|effect| {
                let mut tally = SessionTally::of(effect);
                for _ in 0..25 {
                    let session = session(splitmix(&mut seed), effect, profile.most_blocks());
                    tally.add(&latency.judge_all(&session.blocks()).unwrap());
                }
                tally
            })
            .into();
        assert_eq!(tallies[0].regressed, 0);
        assert!(tallies[0].passed >= 23 && tallies[1].regressed >= 24, "{tallies:?}");
        assert!(goals(&profile, &tallies).iter().any(|goal| goal.name == "+10 %: regressed"));
    }

    #[test]
    fn nothing_simulated_meets_nothing() {
        let goals = goals(&Profile::NIGHTLY, &[SessionTally::of(0.0), SessionTally::of(0.05)]);
        assert!(goals.len() > 5 && goals.iter().all(|goal| !goal.is_met()), "{goals:?}");
    }
}
