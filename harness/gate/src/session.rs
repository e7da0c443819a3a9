//! What a device does for the gate: for each case both arms score, then memory and times in blocks of four (ABBA or BAAB), until every criterion is
//! decided. A script for [`espalier_bench::plan::Script`]'s carrier: records in, the next job out, at the end the comparisons. No clock, no chance but the seed's.
//!
//! A block in which anything went wrong that has nothing to do with the arms (throttling, other programs, swapping) is done again whole, so that both
//! arms lose the same; too many of them make the case inconclusive. What is wrong with one arm (its runner fails) is told as that arm's.

use espalier_protocol::{Mode, Predictions};
use serde::{Deserialize, Serialize};

use super::{
    Arm, Comparison, Confirmation, Criterion, Effect, Finding, Role, Verdict, accuracy,
    judge::{Block, Decision, Judgement, LatencyJudge},
    memory,
    profile::{Profile, Terms},
    simulate::{Random, splitmix},
    size, validity,
};
use espalier_bench::{
    plan::{Effort, MOST_PADDING, PlannedJob, Script},
    record::{Case, Failure, Measurement, Outcome, Record, Trial},
};

/// Memory invocations an arm: these blocks at first, and as many as that where they say nothing clear.
const MEMORY_BLOCKS: [usize; 2] = [2, 4];

/// Share of timing invocations that may drift before the case is marked: it may be how the model behaves.
const UNSTEADY_SHARE: f64 = 0.2;

/// Times in a row an arm's runner may fail before it is taken for broken.
const FAILURES: u32 = 2;

/// One case to be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellPlan {
    pub case: Case,
    pub role: Role,
    /// 0 for the first session, 1 for the one that confirms.
    pub session: u32,
    /// Baseline and candidate.
    pub arms: [ArmPlan; 2],
    /// SHA-256 of the prepared inputs.
    pub inputs: Option<String>,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
    /// Of the eval set; stored once a model, not here.
    #[serde(skip)]
    pub labels: Option<Vec<i64>>,
    /// Accuracy the candidate may lose at most, observed, as a fraction; `None`: only the test decides.
    pub max_accuracy_drop: Option<f64>,
    pub effort: Effort,
    /// What is judged by measuring; sizes are not.
    pub criteria: Vec<Criterion>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmPlan {
    /// The place of its program among the device's runners.
    pub runner: usize,
    /// SHA-256 of the variant.
    pub model: String,
    /// A drill: see [`PlannedJob::slow_down_percent`].
    pub slow_down_percent: Option<f64>,
}

/// What an arm's invocations say of a quantile of their times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmMean {
    /// Geometric mean.
    pub ns: f64,
    /// Standard error of its logarithm.
    pub error: f64,
}

/// A device's session for the gate.
#[derive(Debug)]
pub struct GateScript {
    profile: Profile,
    random: Random,
    cells: Vec<Cell>,
    /// The place of the case under way.
    now: usize,
    /// Why the session ended before its time.
    cut_off: Option<Failure>,
}

impl GateScript {
    /// `terms`: how many comparisons the whole run makes, and whether this is a second session. The same seed gives the same orders.
    pub fn new(profile: Profile, terms: Terms, seed: u64, plans: Vec<CellPlan>) -> GateScript {
        let mut seed = seed;
        let random = Random::new(splitmix(&mut seed));
        let cells = plans.into_iter().map(|plan| Cell::new(plan, profile, terms)).collect();
        GateScript { profile, random, cells, now: 0, cut_off: None }
    }

    /// Takes a record of an earlier session, in the order in which they came, as if it were carried out now.
    pub fn hear_stored(&mut self, record: &Record) {
        let Some(trial) = record.trial else { return };
        let of = |cell: &&mut Cell| cell.plan.case == record.case && cell.plan.role == trial.role;
        let Some(cell) = self.cells.iter_mut().find(of) else { return };
        if record.mode != Mode::Score && trial.position == 0 {
            // Its first arm tells the order.
            let arms = if trial.arm == Arm::A { ABBA } else { BAAB };
            cell.open = Some(OpenBlock { mode: record.mode, arms, measured: Vec::new() });
        }
        cell.hear(record);
    }

    /// One comparison for each criterion of each case, whatever was measured of it.
    pub fn comparisons(&self) -> Vec<Comparison> {
        self.cells
            .iter()
            .flat_map(|cell| cell.comparisons(self.cut_off.as_ref().map(|failure| &*failure.message)))
            .collect()
    }

    /// Why the session ended before its time, if it did.
    pub fn cut_off(&self) -> Option<&Failure> {
        self.cut_off.as_ref()
    }

    /// The geometric mean of each arm's times by a criterion, in ns, with its standard error as a logarithm. The baseline's is the device's own history.
    pub fn arm_means(&self, case: &Case, role: Role, criterion: Criterion) -> Option<[ArmMean; 2]> {
        let cell = self.cells.iter().find(|cell| cell.plan.case == *case && cell.plan.role == role)?;
        let statistics = cell.statistics(criterion)?;
        let mean = |wanted: Arm| {
            let logs: Vec<f64> =
                statistics.iter().filter(|(arm, _)| *arm == wanted).map(|(_, logarithm)| *logarithm).collect();
            let error = espalier_stats::sd(&logs).ok()? / (logs.len() as f64).sqrt();
            Some(ArmMean { ns: espalier_stats::mean(&logs).ok()?.exp(), error })
        };
        Some([mean(Arm::A)?, mean(Arm::B)?])
    }

    /// Every case of the session, in its order.
    pub fn plans(&self) -> impl Iterator<Item = &CellPlan> {
        self.cells.iter().map(|cell| &cell.plan)
    }

    /// The blocks of times of a case, for an export.
    pub fn blocks(&self, case: &Case, role: Role) -> &[Block] {
        let cell = self.cells.iter().find(|cell| cell.plan.case == *case && cell.plan.role == role);
        cell.map_or(&[], |cell| &cell.times)
    }
}

impl Script for GateScript {
    fn next(&mut self, last: Option<&Record>) -> Option<PlannedJob> {
        if let (Some(record), Some(cell)) = (last, self.cells.get_mut(self.now)) {
            cell.hear(record);
        }
        while let Some(cell) = self.cells.get_mut(self.now) {
            if let Some(job) = cell.next(&mut self.random) {
                return Some(job);
            }
            self.now += 1;
        }
        None
    }

    fn lost(&mut self, failure: &Failure) {
        self.cut_off = Some(failure.clone());
    }

    fn length(&self) -> u64 {
        let blocks = self.profile.looks.first().copied().unwrap_or_default() + MEMORY_BLOCKS[0];
        (self.cells.len() * (2 + 4 * blocks)) as u64
    }

    fn is_timed(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Cell {
    plan: CellPlan,
    profile: Profile,
    terms: Terms,
    judges: Vec<(Criterion, LatencyJudge, Option<Decision>)>,
    scores: [Option<Predictions>; 2],
    /// Peak RSS and peak allocated of each arm, in bytes.
    peaks: [Vec<(u64, u64)>; 2],
    memory_blocks: usize,
    times: Vec<Block>,
    /// Under way: its order, and what came of it so far.
    open: Option<OpenBlock>,
    /// Blocks begun, done again or not.
    begun: u32,
    round: u32,
    /// Why blocks were done again.
    redone: Vec<String>,
    /// Inferences of every timing invocation, once the first one has shown how many its time has room for: both arms do the same number.
    iterations: Option<u32>,
    /// In a row.
    failures: [u32; 2],
    /// Whether the arm's runner tells what other programs do: an old baseline's may not.
    tells_load: [Option<bool>; 2],
    /// Timing invocations, and those among them that had not come to rest.
    timed: usize,
    unsteady: usize,
    digests: [Option<String>; 2],
    ended: Option<Ended>,
}

/// Why a case is not measured on.
#[derive(Clone, Debug, PartialEq)]
enum Ended {
    /// The arm's runner does not do its work.
    Broken(Arm, String),
    /// Too much was invalid.
    Unfit(String),
}

#[derive(Debug)]
struct OpenBlock {
    mode: Mode,
    arms: [Arm; 4],
    measured: Vec<Measurement>,
}

const ABBA: [Arm; 4] = [Arm::A, Arm::B, Arm::B, Arm::A];
const BAAB: [Arm; 4] = [Arm::B, Arm::A, Arm::A, Arm::B];

impl Cell {
    fn new(plan: CellPlan, profile: Profile, terms: Terms) -> Cell {
        // Both arms of a control have one program.
        let other_binary = terms.other_binary.filter(|_| plan.role == Role::Gate);
        let terms = Terms { other_binary, ..terms };
        let judges = plan.criteria.iter();
        let judges = judges.filter_map(|of| Some((*of, LatencyJudge::new(&profile, *of, terms)?, None))).collect();
        Cell {
            plan,
            profile,
            terms,
            judges,
            scores: [None, None],
            peaks: [Vec::new(), Vec::new()],
            memory_blocks: 0,
            times: Vec::new(),
            open: None,
            begun: 0,
            round: 0,
            redone: Vec::new(),
            iterations: None,
            failures: [0, 0],
            tells_load: [None, None],
            timed: 0,
            unsteady: 0,
            digests: [None, None],
            ended: None,
        }
    }

    fn judges_memory(&self) -> bool {
        self.plan.criteria.iter().any(|of| matches!(of, Criterion::PeakRss | Criterion::PeakAllocated))
    }

    fn next(&mut self, random: &mut Random) -> Option<PlannedJob> {
        if self.ended.is_some() {
            return None;
        }
        if self.plan.criteria.contains(&Criterion::Accuracy)
            && let Some(arm) = [Arm::A, Arm::B].into_iter().find(|arm| self.scores[*arm as usize].is_none())
        {
            let padding = random.below(MOST_PADDING);
            return Some(self.job(Mode::Score, arm, 0, 0, padding));
        }
        if self.open.is_none() {
            let mode = self.wanted()?;
            let arms = if random.chance(0.5) { ABBA } else { BAAB };
            self.open = Some(OpenBlock { mode, arms, measured: Vec::new() });
            self.begun += 1;
        }
        let open = self.open.as_ref()?;
        let (position, mode) = (open.measured.len(), open.mode);
        let padding = random.below(MOST_PADDING);
        Some(self.job(mode, open.arms[position], self.begun - 1, position as u32, padding))
    }

    /// Which block comes next; nothing when all is decided.
    fn wanted(&self) -> Option<Mode> {
        if self.judges_memory() {
            let clear = self.peak_verdict().is_none_or(|(verdict, ..)| verdict != Verdict::Inconclusive);
            let wanted = MEMORY_BLOCKS[usize::from(!clear)];
            if self.memory_blocks < wanted {
                return Some(Mode::Memory);
            }
        }
        self.judges.iter().any(|(_, _, decision)| decision.is_none()).then_some(Mode::Time)
    }

    fn job(&mut self, mode: Mode, arm: Arm, block: u32, position: u32, padding: usize) -> PlannedJob {
        let plan = &self.plan;
        let ArmPlan { runner, model, slow_down_percent } = plan.arms[arm as usize].clone();
        let effort = match self.iterations {
            Some(iterations) => Effort { iterations, min_time_ms: 0, ..plan.effort },
            None => plan.effort,
        };
        let trial = Trial { role: plan.role, arm, session: plan.session, block, position };
        self.round += 1;
        PlannedJob {
            case: plan.case.clone(),
            mode,
            round: self.round - 1,
            runner,
            model,
            inputs: plan.inputs.clone(),
            shapes: plan.shapes.clone(),
            effort,
            padding: Some(padding),
            // Only what is timed can be made slower.
            slow_down_percent: slow_down_percent.filter(|_| mode == Mode::Time),
            skip_below: None,
            trial: Some(trial),
        }
    }

    fn hear(&mut self, record: &Record) {
        let Some(trial) = record.trial else { return };
        let measurement = match &record.outcome {
            Outcome::Measured(measurement) => measurement,
            Outcome::Failed(failure) => {
                let failures = &mut self.failures[trial.arm as usize];
                *failures += 1;
                if *failures >= FAILURES {
                    self.ended = Some(Ended::Broken(trial.arm, failure.message.clone()));
                }
                self.open = None;
                return;
            }
        };
        self.failures[trial.arm as usize] = 0;
        self.tells_load[trial.arm as usize] = Some(validity::tells_load(measurement));
        match record.mode {
            Mode::Score => self.scores[trial.arm as usize] = measurement.predictions.clone(),
            Mode::Memory | Mode::Time => self.hear_of_block(record.mode, trial, measurement, record.wall_ms),
            Mode::Profile => {}
        }
    }

    fn hear_of_block(&mut self, mode: Mode, trial: Trial, measurement: &Measurement, wall_ms: u64) {
        let known = &mut self.digests[trial.arm as usize];
        let said = measurement.first_digest.as_ref();
        let changed = known.as_ref().zip(said).is_some_and(|(known, said)| known != said);
        if known.is_none() {
            *known = said.cloned();
        }
        let reason = match mode {
            // What disturbs times leaves bytes as they are.
            Mode::Memory => None,
            _ if changed => Some("an arm's output differs from one process to the next".to_owned()),
            // What only one arm tells must not cost that arm alone its invocations.
            _ if self.tells_load.contains(&Some(false)) => validity::held_back(measurement),
            _ => validity::held_back(measurement).or_else(|| validity::disturbed(measurement, wall_ms)),
        };
        if let Some(reason) = reason {
            self.open = None;
            self.redone.push(reason);
            // A quarter of what a whole session has.
            let allowed = self.profile.most_blocks() / 4;
            if self.redone.len() > allowed {
                let reason = most_frequent(&self.redone);
                self.ended = Some(Ended::Unfit(format!("{} blocks had to be done again: {reason}", self.redone.len())));
            }
            return;
        }
        if !measurement.timed_ns.is_empty() {
            self.iterations.get_or_insert(measurement.timed_ns.len() as u32);
        }
        let Some(open) = &mut self.open else { return };
        open.measured.push(measurement.clone());
        if open.measured.len() == open.arms.len()
            && let Some(whole) = self.open.take()
        {
            self.close(whole);
        }
    }

    fn close(&mut self, block: OpenBlock) {
        let OpenBlock { mode, arms, measured } = block;
        if mode == Mode::Memory {
            self.memory_blocks += 1;
            for (arm, said) in arms.into_iter().zip(&measured) {
                if let Some(memory) = &said.memory {
                    self.peaks[arm as usize].push((memory.peak_rss, memory.peak_allocated));
                }
            }
            return;
        }
        for said in &measured {
            let times: Vec<f64> = said.timed_ns.iter().map(|ns| *ns as f64).collect();
            self.timed += 1;
            self.unsteady += usize::from(espalier_stats::batch_drift(&times).is_some_and(|drift| drift.flagged));
        }
        let times: [&[u64]; 4] = std::array::from_fn(|position| measured[position].timed_ns.as_slice());
        self.times.push(Block::from_ns(arms, times));
        for (_, judge, decision) in self.judges.iter_mut().filter(|(_, _, decision)| decision.is_none()) {
            match judge.judge(&self.times) {
                Ok(Judgement::Undecided { .. }) => {}
                Ok(Judgement::Decided(decided)) => *decision = Some(decided),
                Err(error) => self.ended = Some(Ended::Unfit(error.to_string())),
            }
        }
    }

    fn peak_verdict(&self) -> Option<(Verdict, Finding, String)> {
        let peaks = |arm: Arm| self.peaks[arm as usize].iter().map(|(rss, _)| *rss).collect::<Vec<u64>>();
        let (base, candidate) = (peaks(Arm::A), peaks(Arm::B));
        (!base.is_empty() && !candidate.is_empty()).then(|| memory::judge_peaks(&base, &candidate))
    }

    /// The logarithm of each invocation's quantile, in order of time, as far as the verdict went.
    fn statistics(&self, criterion: Criterion) -> Option<Vec<(Arm, f64)>> {
        let quantile = criterion.quantile()?;
        let decision =
            self.judges.iter().find(|(of, ..)| *of == criterion).and_then(|(_, _, decision)| decision.as_ref());
        let used = decision.map_or(self.times.len(), |decision| decision.blocks_used);
        let all = self.times.iter().take(used).flat_map(|block| block.arms.iter().zip(&block.times));
        all.map(|(arm, times)| Some((*arm, espalier_stats::quantile_r8(times, quantile).ok()?.ln()))).collect()
    }

    fn comparisons(&self, cut_off: Option<&str>) -> Vec<Comparison> {
        self.plan.criteria.iter().map(|criterion| self.comparison(*criterion, cut_off)).collect()
    }

    fn comparison(&self, criterion: Criterion, cut_off: Option<&str>) -> Comparison {
        let (verdict, finding, reason, mut tags) = self.judged(criterion);
        // A criterion that was decided before the case ended stays decided.
        let (verdict, reason) = match (&self.ended, verdict) {
            (Some(Ended::Broken(Arm::B, message)), Verdict::Inconclusive) => {
                (Verdict::Regressed, format!("the candidate does not run: {message}"))
            }
            (Some(Ended::Broken(Arm::A, message)), Verdict::Inconclusive) => {
                (verdict, format!("the baseline does not run: {message}"))
            }
            (Some(Ended::Unfit(why)), Verdict::Inconclusive) => (verdict, format!("the device is not fit: {why}")),
            (None, Verdict::Inconclusive) => match cut_off {
                Some(why) => (verdict, format!("the session was cut off: {why}")),
                None => (verdict, reason),
            },
            _ => (verdict, reason),
        };
        if !self.redone.is_empty() && criterion.quantile().is_some() {
            tags.push(format!("{} blocks done again: {}", self.redone.len(), most_frequent(&self.redone)));
        }
        Comparison {
            case: self.plan.case.clone(),
            criterion,
            role: self.plan.role,
            verdict,
            finding,
            reason,
            tags,
            confirmation: None,
            waived: None,
        }
    }

    fn judged(&self, criterion: Criterion) -> (Verdict, Finding, String, Vec<String>) {
        let nothing = |what: &str| (Verdict::Inconclusive, Finding::Nothing, what.to_owned(), Vec::new());
        let untagged = |(verdict, finding, reason)| (verdict, finding, reason, Vec::new());
        match criterion {
            Criterion::Accuracy => match (&self.scores[0], &self.scores[1]) {
                (Some(base), Some(candidate)) => {
                    let (labels, alpha) = (self.plan.labels.as_deref(), self.profile.alpha(self.terms));
                    let margins = accuracy::Margins { max_drop: self.plan.max_accuracy_drop, ..Default::default() };
                    untagged(accuracy::judge_accuracy(labels, base, candidate, alpha, margins))
                }
                _ => nothing("no predictions came back"),
            },
            Criterion::PeakRss => self.peak_verdict().map_or_else(|| nothing("no peak was measured"), untagged),
            Criterion::PeakAllocated => {
                let most = |arm: Arm| self.peaks[arm as usize].iter().map(|(_, allocated)| *allocated).max();
                match (most(Arm::A), most(Arm::B)) {
                    (Some(base), Some(candidate)) => untagged(size::judge_sizes(base, candidate, size::BUDGET)),
                    _ => nothing("no peak was measured"),
                }
            }
            _ => self.latency(criterion),
        }
    }

    fn latency(&self, criterion: Criterion) -> (Verdict, Finding, String, Vec<String>) {
        let Some((_, judge, decided)) = self.judges.iter().find(|(of, ..)| *of == criterion) else {
            return (Verdict::Inconclusive, Finding::Nothing, "it was not measured".to_owned(), Vec::new());
        };
        let decision = match decided {
            Some(decision) => Ok(decision.clone()),
            None => judge.judge_all(&self.times),
        };
        match decision {
            Ok(Decision { verdict, effect, reason, mut tags, .. }) => {
                let statistics = self.statistics(criterion).unwrap_or_default();
                tags.extend(validity::session_tags(&statistics));
                tags.extend(effect.as_ref().and_then(|effect| second_opinion(effect, &statistics)));
                if self.unsteady as f64 > UNSTEADY_SHARE * self.timed as f64 {
                    tags.push(format!("not steady: {} of {} processes drifted while timed", self.unsteady, self.timed));
                }
                (verdict, effect.map_or(Finding::Nothing, Finding::Effect), reason, tags)
            }
            Err(error) => (Verdict::Inconclusive, Finding::Nothing, error.to_string(), Vec::new()),
        }
    }
}

/// A FAIL counts once fresh sessions found it too: all that were carried out, and at least one. The last one's word is shown beside the first's.
pub fn confirm(first: &mut Comparison, others: &[Comparison]) {
    let denied = others.iter().find(|other| other.verdict != Verdict::Regressed);
    let (confirmed, finding, reason) = match denied.or(others.last()) {
        Some(other) => (denied.is_none(), other.finding.clone(), other.reason.clone()),
        None => (false, Finding::Nothing, "the second session was not carried out".to_owned()),
    };
    if !confirmed {
        first.verdict = Verdict::Inconclusive;
        first.reason = format!("{}, but a second session did not confirm it: {reason}", first.reason);
    }
    first.confirmation = Some(Confirmation { confirmed, finding, reason });
}

/// Whether a FAIL is to be confirmed: what was measured is, and a runner that did not run; what was counted is not.
pub fn wants_confirmation(comparison: &Comparison) -> bool {
    let sampled = comparison.criterion.quantile().is_some() || comparison.criterion == Criterion::PeakRss;
    comparison.verdict == Verdict::Regressed && (sampled || comparison.finding == Finding::Nothing)
}

/// What the Hodges-Lehmann estimate says of the pairs, where its interval leaves out the mean's: some pairs are far off. Reported, never judged by.
fn second_opinion(effect: &Effect, statistics: &[(Arm, f64)]) -> Option<String> {
    let sign = |arm: Arm| if arm == Arm::B { 1.0 } else { -1.0 };
    let difference = |pair: &[(Arm, f64)]| pair.iter().map(|(arm, x)| sign(*arm) * x).sum::<f64>();
    let differences: Vec<f64> = statistics.chunks_exact(2).map(difference).collect();
    let robust = espalier_stats::hodges_lehmann(&differences, 0.95).ok()?;
    let percent = |log: f64| log.exp_m1() * 100.0;
    (!robust.contains(effect.ratio.ln())).then(|| {
        let (estimate, low, high) = (percent(robust.estimate), percent(robust.low), percent(robust.high));
        format!("some pairs far off: Hodges-Lehmann says {estimate:+.1} % [{low:+.1}, {high:+.1}]")
    })
}

/// The effect behind a latency's comparison.
pub fn effect(comparison: &Comparison) -> Option<&Effect> {
    match &comparison.finding {
        Finding::Effect(effect) => Some(effect),
        _ => None,
    }
}

fn most_frequent(reasons: &[String]) -> &str {
    let count = |reason: &&String| reasons.iter().filter(|other| other == reason).count();
    reasons.iter().max_by_key(count).map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
