//! What a device does for the gate: for each case both arms score, then memory and times in blocks of four (ABBA or
//! BAAB), until every criterion is decided. A [`Script`]: records in, the next job out, at the end the comparisons. No
//! clock, and no randomness but the seed's.
//!
//! A block that was disturbed by something other than the arms (throttling, other programs, swapping) is done again, so
//! that both arms lose the same; too many of them make the case inconclusive. A runner that fails is reported as that
//! arm's failure.

use espalier_protocol::{Mode, Predictions, Text, float};
use serde::{Deserialize, Serialize};

use crate::{
    Arm, Comparison, Criterion, Effect, Finding, Judged, Role, Verdict, accuracy,
    judge::{Block, Decision, Judgement, LatencyJudge},
    memory,
    profile::{Profile, Terms},
    random::{Random, splitmix},
    size, validity,
};
use espalier_bench::{
    plan::{self, Effort, MOST_PADDING, PlannedJob, Script},
    record::{Case, Failure, Measurement, Outcome, Record, Trial},
};

/// Blocks of memory invocations: at first, and where those are inconclusive.
const MEMORY_BLOCKS: [usize; 2] = [2, 4];

/// Share of timing invocations that may drift before the case is tagged: the model itself may behave so.
const UNSTEADY_SHARE: f64 = 0.2;

/// Times in a row an arm's runner may fail before it counts as broken.
const FAILURES: u32 = 2;

/// One case to be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CasePlan {
    pub case: Case,
    pub role: Role,
    /// 0 for the first session, from 1 for those that confirm.
    pub session: u32,
    /// Baseline and candidate.
    pub arms: [ArmPlan; 2],
    /// SHA-256 of the prepared inputs.
    pub inputs: Option<String>,
    /// As `NAME=1x128`.
    pub shapes: Vec<String>,
    /// What answers mean and which are right; stored once a model, not here.
    #[serde(skip)]
    pub expected: accuracy::Expected,
    /// Accuracy the candidate may lose at most, observed, as a fraction; `None`: only the test decides.
    #[serde(default, with = "float")]
    pub max_accuracy_drop: Option<f64>,
    pub effort: Effort,
    /// What is judged by measuring; sizes are not.
    pub criteria: Vec<Criterion>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmPlan {
    /// The index of its program among the device's runners.
    pub runner: usize,
    /// SHA-256 of the variant.
    pub model: String,
    /// A drill: see [`PlannedJob::slow_down_percent`].
    #[serde(default, with = "float")]
    pub slow_down_percent: Option<f64>,
}

/// A quantile of an arm's times over its invocations.
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
    cases: Vec<CaseSession>,
    /// The index of the case that is measured now.
    current: usize,
    /// Why the session ended early.
    cut_off: Option<Failure>,
}

impl GateScript {
    /// `terms`: how many comparisons the whole run makes, and whether this session confirms. The same seed gives the
    /// same orders.
    pub fn new(profile: Profile, terms: Terms, seed: u64, plans: Vec<CasePlan>) -> GateScript {
        let mut seed = seed;
        let random = Random::new(splitmix(&mut seed));
        let cases = plans.into_iter().map(|plan| CaseSession::new(plan, profile, terms)).collect();
        GateScript { profile, random, cases, current: 0, cut_off: None }
    }

    /// Takes a stored record of an earlier session as if it were measured now. Records come in their stored order.
    pub fn take_stored(&mut self, record: &Record) {
        let Some(trial) = record.trial else { return };
        let of_record = |case: &&mut CaseSession| case.is_of(&record.case, trial.role);
        let Some(case) = self.cases.iter_mut().find(of_record) else { return };
        if record.mode != Mode::Score && trial.position == 0 {
            // The first arm of a block determines its order.
            let arms = if trial.arm == Arm::A { ABBA } else { BAAB };
            case.open = Some(OpenBlock { mode: record.mode, arms, measured: Vec::new() });
        }
        case.take(record);
    }

    /// One comparison for each criterion of each case, whatever was measured of it.
    pub fn comparisons(&self) -> Vec<Comparison> {
        let cut_off = self.cut_off.as_ref().map(|failure| &*failure.message);
        let of_case = |case: &'_ CaseSession| -> Vec<Comparison> {
            case.plan.criteria.iter().map(|criterion| case.comparison(*criterion, cut_off)).collect()
        };
        self.cases.iter().flat_map(of_case).collect()
    }

    /// Why the session ended early, if it did.
    pub fn cut_off(&self) -> Option<&Failure> {
        self.cut_off.as_ref()
    }

    /// The geometric mean of each arm's times by a criterion, in ns, with its standard error as a logarithm. The
    /// baseline's is the device's own history.
    pub fn arm_means(&self, case: &Case, role: Role, criterion: Criterion) -> Option<[ArmMean; 2]> {
        let statistics = self.case(case, role)?.statistics(criterion)?;
        let mean = |arm: Arm| {
            let logs: Vec<f64> = statistics.iter().filter(|(of, _)| *of == arm).map(|(_, log)| *log).collect();
            let error = espalier_stats::sd(&logs).ok()? / (logs.len() as f64).sqrt();
            Some(ArmMean { ns: espalier_stats::mean(&logs).ok()?.exp(), error })
        };
        Some([mean(Arm::A)?, mean(Arm::B)?])
    }

    /// Every case of the session, in its order.
    pub fn plans(&self) -> impl Iterator<Item = &CasePlan> {
        self.cases.iter().map(|case| &case.plan)
    }

    /// The blocks of times of a case, for an export.
    pub fn blocks(&self, case: &Case, role: Role) -> &[Block] {
        self.case(case, role).map_or(&[], |case| &case.times)
    }

    /// How long the invocations of a case took, those that failed or were void among them.
    pub fn took_ms(&self, case: &Case, role: Role) -> Option<u64> {
        self.case(case, role).map(|case| case.took_ms)
    }

    fn case(&self, case: &Case, role: Role) -> Option<&CaseSession> {
        self.cases.iter().find(|session| session.is_of(case, role))
    }
}

impl Script for GateScript {
    fn next(&mut self, last: Option<&Record>) -> Option<PlannedJob> {
        if let (Some(record), Some(case)) = (last, self.cases.get_mut(self.current)) {
            case.take(record);
        }
        while let Some(case) = self.cases.get_mut(self.current) {
            if let Some(job) = case.next(&mut self.random) {
                return Some(job);
            }
            self.current += 1;
        }
        None
    }

    fn lost(&mut self, failure: &Failure) {
        self.cut_off = Some(failure.clone());
    }

    fn length(&self) -> u64 {
        let blocks = self.profile.looks.first().copied().unwrap_or_default() + MEMORY_BLOCKS[0];
        (self.cases.len() * (2 + 4 * blocks)) as u64
    }

    fn is_timed(&self) -> bool {
        true
    }
}

/// One case as far as it is measured.
#[derive(Debug)]
struct CaseSession {
    plan: CasePlan,
    profile: Profile,
    terms: Terms,
    latencies: Vec<Latency>,
    scores: [Option<Predictions>; 2],
    /// Peak RSS and peak allocated of each arm, in bytes.
    peaks: [Vec<(u64, u64)>; 2],
    memory_blocks: usize,
    times: Vec<Block>,
    /// The block that is measured now.
    open: Option<OpenBlock>,
    /// Blocks begun, valid or not.
    begun: u32,
    round: u32,
    /// Of all its invocations.
    took_ms: u64,
    /// Why blocks were done again.
    redone: Vec<String>,
    /// Inferences of every timing invocation, from the first one: both arms do the same number.
    iterations: Option<u32>,
    /// In a row, for each arm.
    failures: [u32; 2],
    /// Whether the arm's runner reports what other programs do: an old baseline's may not.
    reports_load: [Option<bool>; 2],
    /// Timing invocations, and those among them that drifted.
    timed: usize,
    unsteady: usize,
    digests: [Option<Text>; 2],
    end: Option<CaseEnd>,
}

/// One criterion of time, and its decision as soon as there is one.
#[derive(Debug)]
struct Latency {
    criterion: Criterion,
    judge: LatencyJudge,
    decision: Option<Decision>,
}

/// Why a case is measured no further.
#[derive(Clone, Debug, PartialEq)]
enum CaseEnd {
    /// The arm's runner fails.
    Broken(Arm, Text),
    /// Too many blocks were invalid.
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

impl CaseSession {
    fn new(plan: CasePlan, profile: Profile, terms: Terms) -> CaseSession {
        // Both arms of a control have one program.
        let other_binary = terms.other_binary.filter(|_| plan.role == Role::Gate);
        let terms = Terms { other_binary, ..terms };
        let latency = |criterion: &Criterion| {
            let judge = LatencyJudge::new(&profile, *criterion, terms)?;
            Some(Latency { criterion: *criterion, judge, decision: None })
        };
        CaseSession {
            latencies: plan.criteria.iter().filter_map(latency).collect(),
            plan,
            profile,
            terms,
            scores: [None, None],
            peaks: [Vec::new(), Vec::new()],
            memory_blocks: 0,
            times: Vec::new(),
            open: None,
            begun: 0,
            round: 0,
            took_ms: 0,
            redone: Vec::new(),
            iterations: None,
            failures: [0, 0],
            reports_load: [None, None],
            timed: 0,
            unsteady: 0,
            digests: [None, None],
            end: None,
        }
    }

    fn is_of(&self, case: &Case, role: Role) -> bool {
        self.plan.case == *case && self.plan.role == role
    }

    fn next(&mut self, random: &mut Random) -> Option<PlannedJob> {
        if self.end.is_some() {
            return None;
        }
        if self.plan.criteria.contains(&Criterion::Accuracy)
            && let Some(arm) = [Arm::A, Arm::B].into_iter().find(|arm| self.scores[*arm as usize].is_none())
        {
            let padding = random.below(MOST_PADDING);
            return Some(self.job(Mode::Score, arm, 0, 0, padding));
        }
        if self.open.is_none() {
            let mode = self.next_mode()?;
            let arms = if random.chance(0.5) { ABBA } else { BAAB };
            self.open = Some(OpenBlock { mode, arms, measured: Vec::new() });
            self.begun += 1;
        }
        let open = self.open.as_ref()?;
        let (position, mode) = (open.measured.len(), open.mode);
        let padding = random.below(MOST_PADDING);
        Some(self.job(mode, open.arms[position], self.begun - 1, position as u32, padding))
    }

    /// Of the next block; `None` when all is decided.
    fn next_mode(&self) -> Option<Mode> {
        if self.plan.criteria.iter().any(|of| matches!(of, Criterion::PeakRss | Criterion::PeakAllocated)) {
            let clear = self.peak_verdict().is_none_or(|(verdict, ..)| verdict != Verdict::Inconclusive);
            if self.memory_blocks < MEMORY_BLOCKS[usize::from(!clear)] {
                return Some(Mode::Memory);
            }
        }
        self.latencies.iter().any(|latency| latency.decision.is_none()).then_some(Mode::Time)
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
            ratio: None,
            request: plan::request(&self.plan.expected.task()),
            trial: Some(trial),
        }
    }

    fn take(&mut self, record: &Record) {
        let Some(trial) = record.trial else { return };
        self.took_ms = self.took_ms.saturating_add(record.wall_ms);
        let arm = trial.arm as usize;
        let measurement = match &record.outcome {
            Outcome::Measured(measurement) => measurement,
            Outcome::Failed(failure) => {
                self.failures[arm] += 1;
                if self.failures[arm] >= FAILURES {
                    self.end = Some(CaseEnd::Broken(trial.arm, failure.message.clone()));
                }
                self.open = None;
                return;
            }
        };
        self.failures[arm] = 0;
        self.reports_load[arm] = Some(validity::reports_load(measurement));
        match record.mode {
            Mode::Score => self.scores[arm] = measurement.predictions.clone(),
            Mode::Memory | Mode::Time => self.take_in_block(record.mode, trial, measurement, record.wall_ms),
            Mode::Profile => {}
        }
    }

    fn take_in_block(&mut self, mode: Mode, trial: Trial, measurement: &Measurement, wall_ms: u64) {
        if let Some(reason) = self.invalid(mode, trial.arm, measurement, wall_ms) {
            self.open = None;
            self.redone.push(reason);
            // A quarter of a full session's.
            if self.redone.len() > self.profile.most_blocks() / 4 {
                let reason = most_frequent(&self.redone);
                let count = self.redone.len();
                self.end = Some(CaseEnd::Unfit(format!("{count} blocks had to be done again: {reason}")));
            }
            return;
        }
        if !measurement.timed_ns.is_empty() {
            self.iterations.get_or_insert(measurement.timed_ns.len() as u32);
        }
        if let Some(mut open) = self.open.take() {
            open.measured.push(measurement.clone());
            if open.measured.len() < open.arms.len() {
                self.open = Some(open);
            } else {
                self.close(open);
            }
        }
    }

    /// Why the block of this invocation must be done again.
    fn invalid(&mut self, mode: Mode, arm: Arm, measurement: &Measurement, wall_ms: u64) -> Option<String> {
        let known = &mut self.digests[arm as usize];
        let digest = measurement.first_digest.as_ref();
        let changed = known.as_ref().zip(digest).is_some_and(|(known, digest)| known != digest);
        if known.is_none() {
            *known = digest.cloned();
        }
        match mode {
            // What disturbs times leaves bytes as they are.
            Mode::Memory => None,
            _ if changed => Some("an arm's output differs from one process to the next".to_owned()),
            // Load that only one arm reports must not cost that arm alone its invocations.
            _ if self.reports_load.contains(&Some(false)) => validity::held_back(measurement),
            _ => validity::held_back(measurement).or_else(|| validity::disturbed(measurement, wall_ms)),
        }
    }

    fn close(&mut self, block: OpenBlock) {
        let OpenBlock { mode, arms, measured } = block;
        if mode == Mode::Memory {
            self.memory_blocks += 1;
            for (arm, measurement) in arms.into_iter().zip(&measured) {
                if let Some(memory) = &measurement.memory {
                    self.peaks[arm as usize].push((memory.peak_rss, memory.peak_allocated));
                }
            }
            return;
        }
        for measurement in &measured {
            let times: Vec<f64> = measurement.timed_ns.iter().map(|ns| *ns as f64).collect();
            self.timed += 1;
            self.unsteady += usize::from(espalier_stats::batch_drift(&times).is_some_and(|drift| drift.flagged));
        }
        let times: [&[u64]; 4] = std::array::from_fn(|position| measured[position].timed_ns.as_slice());
        self.times.push(Block::from_ns(arms, times));
        for latency in self.latencies.iter_mut().filter(|latency| latency.decision.is_none()) {
            match latency.judge.judge(&self.times) {
                Ok(Judgement::Undecided { .. }) => {}
                Ok(Judgement::Decided(decision)) => latency.decision = Some(decision),
                Err(error) => self.end = Some(CaseEnd::Unfit(error.to_string())),
            }
        }
    }

    fn peak_verdict(&self) -> Option<Judged> {
        let peaks = |arm: Arm| self.peaks[arm as usize].iter().map(|(rss, _)| *rss).collect::<Vec<u64>>();
        let (base, candidate) = (peaks(Arm::A), peaks(Arm::B));
        (!base.is_empty() && !candidate.is_empty()).then(|| memory::judge_peaks(&base, &candidate))
    }

    /// The logarithm of each invocation's quantile in order of time, of those blocks the verdict used.
    fn statistics(&self, criterion: Criterion) -> Option<Vec<(Arm, f64)>> {
        let quantile = criterion.quantile()?;
        let latency = self.latencies.iter().find(|latency| latency.criterion == criterion);
        let decision = latency.and_then(|latency| latency.decision.as_ref());
        let used = decision.map_or(self.times.len(), |decision| decision.blocks_used);
        let all = self.times.iter().take(used).flat_map(|block| block.arms.iter().zip(&block.times));
        all.map(|(arm, times)| Some((*arm, espalier_stats::quantile_r8(times, quantile).ok()?.ln()))).collect()
    }

    fn comparison(&self, criterion: Criterion, cut_off: Option<&str>) -> Comparison {
        let ((mut verdict, finding, mut reason), mut tags) = self.judged(criterion);
        // A criterion that was decided before the case ended stays decided.
        if verdict == Verdict::Inconclusive {
            match (&self.end, cut_off) {
                (Some(CaseEnd::Broken(Arm::B, message)), _) => {
                    (verdict, reason) = (Verdict::Regressed, format!("the candidate does not run: {message}"));
                }
                (Some(CaseEnd::Broken(Arm::A, message)), _) => reason = format!("the baseline does not run: {message}"),
                (Some(CaseEnd::Unfit(why)), _) => reason = format!("the device is not fit: {why}"),
                (None, Some(why)) => reason = format!("the session was cut off: {why}"),
                (None, None) => {}
            }
        }
        if !self.redone.is_empty() && criterion.quantile().is_some() {
            tags.push(format!("{} blocks done again: {}", self.redone.len(), most_frequent(&self.redone)));
        }
        let judged = (verdict, finding, reason);
        Comparison { tags, ..Comparison::new(self.plan.case.clone(), criterion, self.plan.role, judged) }
    }

    /// With tags.
    fn judged(&self, criterion: Criterion) -> (Judged, Vec<String>) {
        let nothing = |what: &str| (Verdict::Inconclusive, Finding::Nothing, what.to_owned());
        let judged = match criterion {
            Criterion::Accuracy => match &self.scores {
                [Some(base), Some(candidate)] => {
                    let (expected, alpha) = (&self.plan.expected, self.profile.alpha(self.terms));
                    let margins = accuracy::Margins { max_drop: self.plan.max_accuracy_drop, ..Default::default() };
                    accuracy::judge_accuracy(expected, base, candidate, alpha, margins)
                }
                _ => nothing("no predictions came back"),
            },
            Criterion::PeakRss => self.peak_verdict().unwrap_or_else(|| nothing("no peak was measured")),
            Criterion::PeakAllocated => {
                let most = |arm: Arm| self.peaks[arm as usize].iter().map(|(_, allocated)| *allocated).max();
                match (most(Arm::A), most(Arm::B)) {
                    (Some(base), Some(candidate)) => size::judge_sizes(base, candidate, size::BUDGET),
                    _ => nothing("no peak was measured"),
                }
            }
            _ => match self.latencies.iter().find(|latency| latency.criterion == criterion) {
                Some(latency) => return self.latency(latency),
                None => nothing("it was not measured"),
            },
        };
        (judged, Vec::new())
    }

    /// With tags.
    fn latency(&self, latency: &Latency) -> (Judged, Vec<String>) {
        let decision = match &latency.decision {
            Some(decision) => decision.clone(),
            None => match latency.judge.judge_all(&self.times) {
                Ok(decision) => decision,
                Err(error) => {
                    return ((Verdict::Inconclusive, Finding::Nothing, error.to_string()), Vec::new());
                }
            },
        };
        let Decision { verdict, effect, reason, mut tags, .. } = decision;
        let statistics = self.statistics(latency.criterion).unwrap_or_default();
        tags.extend(validity::session_tags(&statistics));
        tags.extend(effect.as_ref().and_then(|effect| robust_estimate(effect, &statistics)));
        if self.unsteady as f64 > UNSTEADY_SHARE * self.timed as f64 {
            tags.push(format!("not steady: {} of {} processes drifted while timed", self.unsteady, self.timed));
        }
        ((verdict, effect.map_or(Finding::Nothing, Finding::Effect), reason), tags)
    }
}

/// The Hodges-Lehmann estimate of the pairs, where its interval leaves out the estimate that decided: some pairs are
/// outliers. Reported, never judged by; what decides beside outliers is the median, in [`crate::judge`].
fn robust_estimate(effect: &Effect, statistics: &[(Arm, f64)]) -> Option<String> {
    let sign = |arm: Arm| if arm == Arm::B { 1.0 } else { -1.0 };
    let difference = |pair: &[(Arm, f64)]| pair.iter().map(|(arm, x)| sign(*arm) * x).sum::<f64>();
    let differences: Vec<f64> = statistics.chunks_exact(2).map(difference).collect();
    let robust = espalier_stats::hodges_lehmann(&differences, 0.95).ok()?;
    (!robust.contains(effect.ratio.ln())).then(|| {
        let [estimate, low, high] = [robust.estimate, robust.low, robust.high].map(|log| log.exp_m1() * 100.0);
        format!("outliers: Hodges-Lehmann estimates {estimate:+.1} % [{low:+.1}, {high:+.1}]")
    })
}

fn most_frequent(reasons: &[String]) -> &str {
    let count = |reason: &&String| reasons.iter().filter(|other| other == reason).count();
    reasons.iter().max_by_key(count).map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
