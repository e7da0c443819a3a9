//! Whole sessions against a device that does not exist: it answers every job, and what it answers is known.

use espalier_protocol::{Memory, Predictions};

use super::*;
use crate::{
    accuracy::Expected,
    file::{Entry, FORMAT, GateHeader, GateRun, StoredSession},
    fixture,
    report::{BaselineFacts, GateDevice},
};
use espalier_bench::record::{FailureStage, ModelInfo, Provenance};
use espalier_tasks::Truth;

/// How the device behaves.
struct Device {
    random: Random,
    /// True slow-down of the candidate, and the spread of processes, as logarithms.
    effect: f64,
    spread: f64,
    /// Peak of the candidate over the baseline's, in bytes.
    more_memory: u64,
    /// Answers in a way of its own to the invocation of this number.
    special: fn(u64, &PlannedJob) -> Option<Special>,
    answered: u64,
    slow_downs: Vec<Option<f64>>,
}

enum Special {
    Fails,
    Throttled,
    OtherOutput,
    Lost,
}

fn device(effect: f64, spread: f64) -> Device {
    Device {
        random: Random::new(7),
        effect,
        spread,
        more_memory: 0,
        special: |_, _| None,
        answered: 0,
        slow_downs: Vec::new(),
    }
}

impl Device {
    /// Nothing where the device is lost.
    fn answer(&mut self, job: &PlannedJob) -> Option<Outcome> {
        self.answered += 1;
        self.slow_downs.push(job.slow_down_percent);
        let special = (self.special)(self.answered, job);
        let arm = job.trial.expect("every job of a gate is a trial").arm;
        let base = 1e6 * (self.spread * self.random.normal()).exp();
        let slower = if arm == Arm::B { self.effect.exp() } else { 1.0 };
        let slower = slower * (1.0 + job.slow_down_percent.unwrap_or(0.0) / 100.0);
        let times = (0..40).map(|step| (base * slower * (1.0 + f64::from(step) * 1e-4)) as u64).collect();
        let mut digest = "same";
        let mut throttled = false;
        match special {
            Some(Special::Fails) => {
                let message = "no such operator (while at loading)".to_owned();
                return Some(Outcome::Failed(Failure { stage: FailureStage::Runner, message: message.into() }));
            }
            Some(Special::Lost) => return None,
            Some(Special::Throttled) => throttled = true,
            Some(Special::OtherOutput) => digest = "other",
            None => {}
        }
        let more = if arm == Arm::B { self.more_memory } else { 0 };
        let jitter = self.random.below(4096) as u64;
        let mut measurement = fixture::measurement();
        measurement.after.throttled = Some(throttled);
        measurement.first_digest = Some(digest.into());
        match job.mode {
            Mode::Time => measurement.timed_ns = times,
            Mode::Memory => {
                measurement.memory =
                    Some(Memory { phases: vec![], peak_rss: 9_000_000 + more + jitter, peak_allocated: 700_000 });
            }
            Mode::Score => {
                measurement.predictions =
                    Some(Predictions { classes: vec![1, 2, 3], values: vec![vec![0.5]; 3], ..Predictions::default() });
            }
            Mode::Profile => unreachable!("a gate asks for no profile"),
        }
        Some(Outcome::Measured(Box::new(measurement)))
    }
}

fn plan(criteria: &[Criterion]) -> CasePlan {
    let arm = |runner: usize| ArmPlan { runner, model: format!("model-{runner}"), slow_down_percent: None };
    CasePlan {
        case: Case::new("digits-cnn", 0.5, "local"),
        role: Role::Gate,
        session: 0,
        arms: [arm(0), arm(1)],
        inputs: Some("inputs".into()),
        shapes: vec![],
        expected: Expected { truth: Some(Truth::of_labels(&[1, 2, 3])), ..Expected::default() },
        max_accuracy_drop: None,
        effort: Effort { warmup: 5, iterations: 40, min_time_ms: 100 },
        criteria: criteria.to_vec(),
    }
}

const ALL: [Criterion; 4] = [Criterion::P50, Criterion::PeakRss, Criterion::PeakAllocated, Criterion::Accuracy];

fn carry_out(script: &mut GateScript, device: &mut Device) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = script.next(None);
    while let Some(job) = next {
        let record = |outcome: Outcome, wall_ms: u64| Record {
            case: job.case.clone(),
            mode: job.mode,
            round: job.round,
            sequence: records.len() as u32,
            start_ms: 0,
            wall_ms,
            trial: job.trial,
            outcome,
        };
        let Some(outcome) = device.answer(&job) else {
            let failure = Failure { stage: FailureStage::Run, message: "the board does not answer".into() };
            script.lost(&failure);
            records.push(record(Outcome::Failed(failure), 0));
            break;
        };
        records.push(record(outcome, 500));
        next = script.next(records.last());
    }
    records
}

fn session(plans: Vec<CasePlan>, device: &mut Device) -> (Vec<Comparison>, Vec<Record>) {
    let mut script = GateScript::new(Profile::NIGHTLY, Terms::ALONE, 1, plans);
    let records = carry_out(&mut script, device);
    (script.comparisons(), records)
}

fn verdicts(comparisons: &[Comparison]) -> Vec<Verdict> {
    comparisons.iter().map(|comparison| comparison.verdict).collect()
}

#[test]
fn the_same_in_both_arms_passes_in_eight_blocks() {
    let mut device = device(0.0, 0.005);
    let (comparisons, records) = session(vec![plan(&ALL)], &mut device);
    assert_eq!(verdicts(&comparisons), [Verdict::Pass; 4], "{comparisons:#?}");
    // Two scores, two blocks of memory, eight of times.
    assert_eq!(records.len(), 2 + 8 + 32);
    let orders: Vec<Vec<Arm>> =
        records[10..].chunks(4).map(|block| block.iter().map(|record| record.trial.unwrap().arm).collect()).collect();
    assert!(orders.iter().all(|order| *order == ABBA || *order == BAAB));
    assert!(orders.contains(&ABBA.to_vec()) && orders.contains(&BAAB.to_vec()));
}

#[test]
fn a_slower_candidate_regresses_and_a_larger_one_too() {
    let mut device = device(0.1, 0.005);
    device.more_memory = 1 << 20;
    let (comparisons, _) = session(vec![plan(&ALL)], &mut device);
    use Verdict::{Pass, Regressed};
    assert_eq!(verdicts(&comparisons), [Regressed, Regressed, Pass, Pass], "{comparisons:#?}");
    assert!(comparisons[..2].iter().all(Comparison::needs_confirmation));
    let effect = comparisons[0].finding.effect().unwrap();
    assert!((effect.ratio.ln() - 0.1).abs() < 0.01, "{effect:?}");
}

#[test]
fn noise_is_measured_to_the_last_look_and_left_open() {
    let (comparisons, records) = session(vec![plan(&[Criterion::P50])], &mut device(0.0, 0.3));
    assert_eq!(verdicts(&comparisons), [Verdict::Inconclusive]);
    assert_eq!(records.len(), 4 * 32);
}

#[test]
fn a_control_is_slowed_in_its_second_arm_and_only_while_it_is_timed() {
    let mut control = plan(&ALL);
    control.role = Role::PositiveControl;
    control.arms[1].slow_down_percent = Some(5.0);
    let mut device = device(0.0, 0.005);
    let (comparisons, records) = session(vec![control], &mut device);
    assert_eq!(comparisons[0].verdict, Verdict::Regressed);
    for (record, slow_down) in records.iter().zip(&device.slow_downs) {
        let slowed = record.mode == Mode::Time && record.trial.unwrap().arm == Arm::B;
        assert_eq!(*slow_down, slowed.then_some(5.0));
    }
}

#[test]
fn a_candidate_that_does_not_run_has_regressed_and_a_baseline_that_does_not_is_no_verdict() {
    let mut broken = device(0.0, 0.005);
    broken.special = |_, job| (job.trial?.arm == Arm::B).then_some(Special::Fails);
    let (comparisons, records) = session(vec![plan(&ALL)], &mut broken);
    assert_eq!(verdicts(&comparisons), [Verdict::Regressed; 4], "{comparisons:#?}");
    assert!(comparisons[0].reason.starts_with("the candidate does not run: no such operator"));
    assert!(comparisons.iter().all(Comparison::needs_confirmation), "a fresh session may find it running");
    assert!(records.len() < 10);
    broken.special = |_, job| (job.trial?.arm == Arm::A).then_some(Special::Fails);
    let (comparisons, _) = session(vec![plan(&ALL)], &mut broken);
    assert_eq!(verdicts(&comparisons), [Verdict::Inconclusive; 4]);
    assert!(comparisons[0].reason.starts_with("the baseline does not run"));
}

#[test]
fn a_block_with_a_throttled_invocation_is_done_again_whole() {
    let mut warm = device(0.0, 0.005);
    warm.special = |number, job| (job.mode == Mode::Time && number % 20 == 0).then_some(Special::Throttled);
    let (comparisons, records) = session(vec![plan(&[Criterion::P50])], &mut warm);
    assert_eq!(comparisons[0].verdict, Verdict::Pass);
    assert!(records.len() > 32);
    assert!(comparisons[0].tags.iter().any(|tag| tag.contains("done again")), "{:?}", comparisons[0].tags);
    warm.special = |_, _| Some(Special::Throttled);
    let (comparisons, records) = session(vec![plan(&[Criterion::P50])], &mut warm);
    assert_eq!(comparisons[0].verdict, Verdict::Inconclusive);
    assert!(comparisons[0].reason.starts_with("the device is not fit: 9 blocks had to be done again"));
    assert_eq!(records.len(), 9, "a quarter of a session's blocks, and one");
}

#[test]
fn an_arm_that_computes_now_this_now_that_is_not_judged() {
    let mut fickle = device(0.0, 0.005);
    fickle.special = |number, _| number.is_multiple_of(2).then_some(Special::OtherOutput);
    let (comparisons, _) = session(vec![plan(&[Criterion::P50])], &mut fickle);
    assert_eq!(comparisons[0].verdict, Verdict::Inconclusive);
    assert!(comparisons[0].reason.contains("output differs"), "{}", comparisons[0].reason);
}

/// Wherever the board is lost: what was decided stays, what was not is open, and nothing passes that was not measured.
#[test]
fn a_lost_board_leaves_open_what_was_not_decided() {
    let plans = || {
        let mut second = plan(&[Criterion::P50]);
        second.case.ratio = 0.9;
        vec![plan(&ALL), second]
    };
    for after in [1, 2, 5, 11, 30, 60] {
        let mut mortal = device(0.0, 0.005);
        mortal.special = match after {
            1 => |number, _| (number > 1).then_some(Special::Lost),
            2 => |number, _| (number > 2).then_some(Special::Lost),
            5 => |number, _| (number > 5).then_some(Special::Lost),
            11 => |number, _| (number > 11).then_some(Special::Lost),
            30 => |number, _| (number > 30).then_some(Special::Lost),
            _ => |number, _| (number > 60).then_some(Special::Lost),
        };
        let (comparisons, _) = session(plans(), &mut mortal);
        assert_eq!(comparisons.len(), 5);
        let last = comparisons.last().unwrap();
        assert_eq!(last.verdict, Verdict::Inconclusive);
        assert_eq!(last.reason, "the session was cut off: the board does not answer");
        if after < 40 {
            assert_eq!(comparisons[0].verdict, Verdict::Inconclusive, "after {after}");
        }
    }
}

#[test]
fn both_arms_do_the_same_number_of_inferences_from_the_second_invocation_on() {
    let mut script = GateScript::new(Profile::NIGHTLY, Terms::ALONE, 1, vec![plan(&[Criterion::P50])]);
    let mut device = device(0.0, 0.005);
    let first = script.next(None).unwrap();
    assert_eq!(first.effort.min_time_ms, 100);
    let outcome = device.answer(&first).unwrap();
    let (case, mode, round, trial) = (first.case.clone(), first.mode, first.round, first.trial);
    let record = Record { case, mode, round, sequence: 0, start_ms: 0, wall_ms: 500, trial, outcome };
    let second = script.next(Some(&record)).unwrap();
    assert_eq!((second.effort.iterations, second.effort.min_time_ms), (40, 0));
}

/// What is stored gives the verdicts again, second sessions and all.
#[test]
fn a_stored_gate_is_judged_again_as_it_was() {
    let mut device = device(0.06, 0.01);
    device.special = |number, job| (job.mode == Mode::Time && number == 14).then_some(Special::Throttled);
    let mut first = GateScript::new(Profile::NIGHTLY, Terms::ALONE, 1, vec![plan(&ALL)]);
    let mut entries = vec![Entry::Gate(Box::new(header()))];
    let stored =
        |session: u32, cases: Vec<CasePlan>| Entry::Session(StoredSession { device: "local".into(), session, cases });
    entries.push(stored(0, vec![plan(&ALL)]));
    let record = |record: Record| Entry::Record(Box::new(record));
    entries.extend(carry_out(&mut first, &mut device).into_iter().map(record));
    let mut comparisons = first.comparisons();
    assert!(comparisons[0].needs_confirmation(), "{:?}", comparisons[0]);
    let again = CasePlan { session: 1, ..plan(&[Criterion::P50]) };
    let terms = Terms { confirming: true, ..Terms::ALONE };
    let mut second = GateScript::new(Profile::NIGHTLY, terms, 2, vec![again.clone()]);
    entries.push(stored(1, vec![again]));
    entries.extend(carry_out(&mut second, &mut device).into_iter().map(record));
    comparisons[0].confirm(&second.comparisons());
    assert!(comparisons[0].confirmation.as_ref().unwrap().confirmed);
    let text: String = entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
    let run = GateRun::parse(&text).unwrap();
    assert_eq!(run.judge_again().unwrap(), comparisons);
    // Cut off anywhere, it still reads, and gives no verdict that was not given.
    let length = text.trim_end().len();
    for end in [length - 1, length / 2, length / 3] {
        let again = GateRun::parse(&text[..end]).unwrap().judge_again().unwrap();
        assert!(again.iter().all(|made| made.verdict != Verdict::Regressed), "cut at {end}");
    }
}

#[test]
fn a_second_session_that_finds_nothing_leaves_it_open() {
    let (mut comparisons, _) = session(vec![plan(&ALL)], &mut device(0.1, 0.005));
    let (denied, _) = session(vec![plan(&ALL)], &mut device(0.0, 0.005));
    let mut first = comparisons.remove(0);
    first.confirm(&denied[..1]);
    assert_eq!(first.verdict, Verdict::Inconclusive);
    assert!(first.reason.contains("a second session did not confirm it"));
    let mut unconfirmed = first.clone();
    unconfirmed.verdict = Verdict::Regressed;
    unconfirmed.confirm(&[]);
    assert_eq!(unconfirmed.verdict, Verdict::Inconclusive);
}

fn header() -> GateHeader {
    GateHeader {
        format: FORMAT,
        id: "20261123T191500Z-3f9a".into(),
        started: "2026-11-23T19:15:00Z".into(),
        provenance: Provenance { espalier: "0.1.0".into(), revision: None, host: "h".into(), command: vec![] },
        baseline: BaselineFacts {
            name: "main".into(),
            accepted: "2026-11-20T19:15:00Z".into(),
            by: "jo".into(),
            espalier: "0.1.0".into(),
            revision: None,
        },
        profile: "nightly".into(),
        seed: 1,
        comparisons: 1,
        models: vec![ModelInfo {
            name: "digits-cnn".into(),
            source: "x.onnx".into(),
            eval: None,
            recipe: "magnitude, global, weight".into(),
            labels: Some(vec![1, 2, 3]),
            truth: None,
            task: None,
            samples: None,
            inputs: None,
            variants: vec![],
            max_accuracy_drop: None,
        }],
        devices: vec![GateDevice {
            name: "local".into(),
            target: "host".into(),
            triple: "x86_64-unknown-linux-gnu".into(),
            emulated: false,
            base_runner: None,
            candidate_runner: None,
            other_binary: None,
        }],
        planned: vec![],
    }
}
