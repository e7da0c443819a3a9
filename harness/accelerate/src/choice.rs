//! Chooses the kernel of a layer: the candidate that was the fastest in a trial on this board, with the layer's shapes
//! and zeros.
//!
//! Candidates run in turns, so that a disturbance affects all of them, until the shortest time of each that has a
//! chance was reproduced: then they are apart, or equal. Results are stored in a file, one for each processor and
//! version of the kernels' sources. The next process does not measure again and chooses the same kernels, so that its
//! outputs are the same to the bit.
//!
//! Where other programs were in the way, the result is used, but not believed: the next process measures again. Other
//! programs do not only add noise. A kernel whose threads wait for each other loses far more by them than one of a
//! single thread, however often both run. What the kernel of the board waited for a processor shows that.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use espalier_kernels::{choices::ChoiceFile, random::XorShift};
use tract_onnx::prelude::*;

pub use espalier_kernels::choices::{Measured, Timed};

use crate::region::{State, concrete_shape};

/// The candidate that every layer has: plain tract.
pub const TRACT: &str = "tract";

/// How long a candidate runs in total at least, and how many turns it has at least and at most.
const TIME: Duration = Duration::from_micros(1500);
const FEWEST: usize = 5;
const ENOUGH: usize = 40;
const MOST: usize = 100;
/// The most time for one layer, beyond the fewest turns.
const LONGEST: Duration = Duration::from_millis(400);
/// A candidate that takes less is run several times between two looks at the clock.
const SHORT: Duration = Duration::from_micros(20);
/// A candidate that took this many times as long as the fastest is not run any more.
const TOO_SLOW: u32 = 3;
/// Times within this ratio of the shortest reproduce it, and this many of them are needed.
const REPRODUCED: f64 = 1.05;
const TIMES: usize = 3;
/// Candidates within this ratio of the fastest are equal: the first of them is chosen, whichever was measured faster.
const EQUAL: f64 = 1.02;
/// Part of the time that threads may have waited for a processor in a measurement that is believed.
const WAITED: f64 = 0.03;

/// One way to compute a layer.
pub struct Candidate<'a> {
    /// Unique among the layer's candidates; with the instruction set, where it has several.
    pub kernel: String,
    /// Packs the weights and returns the op. Called again for the candidate that is chosen.
    pub build: Box<dyn Fn() -> TractResult<Box<dyn TypedOp>> + 'a>,
}

/// The kernel chosen for one layer.
#[derive(Clone, Debug)]
pub struct LayerChoice {
    pub name: String,
    pub op: String,
    pub kernel: String,
    pub candidates: Vec<Measured>,
    /// The times were measured by an earlier process.
    pub cached: bool,
    /// Other programs were in the way of the measurement, or its times could not be reproduced.
    pub unsure: bool,
    /// Why candidates failed, or why the layer stays as it is in tract.
    pub note: Option<String>,
}

pub struct Chooser {
    file: ChoiceFile,
    /// Whether what is stored is used even if it is not sure.
    keep: bool,
    /// Layers of this model with the same key share one measurement.
    known: HashMap<String, Timed>,
    fresh: BTreeMap<String, Timed>,
}

impl Chooser {
    /// `cpu` describes the processor. With `keep`, no layer that is stored is measured again.
    pub fn new(cpu: &str, folder: Option<PathBuf>, keep: bool) -> Chooser {
        let file = ChoiceFile::new(folder, &format!("{cpu}, kernels {}", env!("ESPALIER_KERNELS")));
        Chooser { known: file.read(), file, keep, fresh: BTreeMap::new() }
    }

    /// The times of an earlier measurement with exactly these candidates, unless they are in doubt.
    pub fn known(&mut self, key: &str, kernels: &[&str]) -> Option<Timed> {
        if let Some(known) = self.believed(key, kernels) {
            return Some(known.clone());
        }
        // Another process may be measuring: wait for it instead of choosing differently.
        if self.file.lock() {
            for (key, timed) in self.file.read() {
                if !self.fresh.contains_key(&key) {
                    self.known.insert(key, timed);
                }
            }
        }
        self.believed(key, kernels).cloned()
    }

    /// Whether this process measured the layer, or another one with the same key.
    pub fn is_fresh(&self, key: &str) -> bool {
        self.fresh.contains_key(key)
    }

    fn believed(&self, key: &str, kernels: &[&str]) -> Option<&Timed> {
        let settled = |timed: &&Timed| self.keep || self.is_fresh(key) || !timed.is_doubtful();
        self.known.get(key).filter(|timed| timed.is_of(kernels)).filter(settled)
    }

    pub fn measure<'a>(&mut self, key: &str, candidates: impl Iterator<Item = (&'a str, TractResult<State>)>) -> Timed {
        let mut trials: Vec<TimedCandidate> =
            candidates.map(|(kernel, state)| TimedCandidate::of(kernel, state)).collect();
        // The first run touches memory for the first time: it does not count. The second says how many go together.
        for trial in &mut trials {
            trial.run();
            let once = trial.run();
            trial.together = once.map_or(1, |once| (SHORT.as_nanos() / once.as_nanos().max(1)).clamp(1, 1000) as u32);
        }
        let (start, waited) = (Instant::now(), waited());
        let raced = race(trials.len(), &mut |candidate| trials[candidate].run());
        let in_the_way = waited.zip(self::waited()).is_some_and(|(before, after)| {
            after.saturating_sub(before).as_secs_f64() > WAITED * start.elapsed().as_secs_f64()
        });
        let measured = trials.into_iter().zip(&raced.shortest).map(|(trial, shortest)| Measured {
            kernel: trial.kernel,
            ns: shortest.filter(|_| trial.failure.is_none()).map(|shortest| shortest.as_nanos() as u64),
            failure: trial.failure,
        });
        let again = Timed { measured: measured.collect(), sure: raced.reproduced && !in_the_way, looks: 1 };
        let timed = self.known.get(key).map_or(again.clone(), |earlier| earlier.and(again));
        self.known.insert(key.to_owned(), timed.clone());
        self.fresh.insert(key.to_owned(), timed.clone());
        timed
    }

    /// Stores what was measured. If that fails, the next process measures again.
    pub fn close(self) {
        if !self.fresh.is_empty() {
            self.file.write(self.fresh);
        }
    }
}

/// The candidate to use: the first of those that are equal to the fastest.
pub fn fastest(measured: &[Measured]) -> Option<&str> {
    let best = measured.iter().filter_map(|measured| measured.ns).min()? as f64;
    let equal = |measured: &&Measured| measured.ns.is_some_and(|ns| ns as f64 <= best * EQUAL);
    measured.iter().find(equal).map(|measured| measured.kernel.as_str())
}

/// How long the threads of this process waited for a processor so far; `None` where the system does not say.
fn waited() -> Option<Duration> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?.filter_map(Result::ok);
    let waited = threads.filter_map(|thread| {
        // Nanoseconds on a processor, nanoseconds of waiting, and how often it was given one.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    });
    let waited: Vec<u64> = waited.collect();
    (!waited.is_empty()).then(|| Duration::from_nanos(waited.iter().sum()))
}

struct TimedCandidate {
    kernel: String,
    state: Option<State>,
    inputs: TVec<TValue>,
    failure: Option<String>,
    /// Runs between two looks at the clock.
    together: u32,
}

impl TimedCandidate {
    fn of(kernel: &str, state: TractResult<State>) -> TimedCandidate {
        let with_inputs = state.and_then(|state| Ok((synthetic_inputs(&state)?, state)));
        let (inputs, state, failure) = match with_inputs {
            Ok((inputs, state)) => (inputs, Some(state), None),
            Err(error) => (tvec!(), None, Some(format!("{error:#}"))),
        };
        TimedCandidate { kernel: kernel.to_owned(), state, inputs, failure, together: 1 }
    }

    /// How long one run took; `None` where it fails or failed before.
    fn run(&mut self) -> Option<Duration> {
        let state = self.state.as_mut()?;
        let start = Instant::now();
        for _ in 0..self.together {
            if let Err(error) = state.run(self.inputs.clone()) {
                self.failure = Some(format!("{error:#}"));
                self.state = None;
                return None;
            }
        }
        Some(start.elapsed() / self.together)
    }
}

struct Raced {
    /// By candidate; `None` where it failed.
    shortest: Vec<Option<Duration>>,
    /// Whether the shortest time of each candidate that has a chance occurred several times.
    reproduced: bool,
}

/// Runs candidates in turns until each time is reproduced. `run` runs one and says how long it took: there is no other
/// clock, so that tests can be this one.
fn race(candidates: usize, run: &mut dyn FnMut(usize) -> Option<Duration>) -> Raced {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); candidates];
    let mut running = vec![true; candidates];
    let mut spent = Duration::ZERO;
    let shortest = |times: &[Vec<Duration>]| -> Vec<Option<Duration>> {
        times.iter().map(|times| times.iter().min().copied()).collect()
    };
    let reproduced = |times: &[Duration]| {
        let most = times.iter().min().copied().unwrap_or_default().mul_f64(REPRODUCED);
        times.iter().filter(|time| **time <= most).count() >= TIMES
    };
    for turn in 0.. {
        let Some(fastest) = shortest(&times).into_iter().flatten().min().or((turn == 0).then_some(Duration::ZERO))
        else {
            break;
        };
        let enough = (TIME.as_nanos() / fastest.max(SHORT).as_nanos()) as usize;
        if turn >= FEWEST {
            // On a busy board some runs are interrupted, so no candidate is judged by one or two.
            let has_a_chance = |times: &[Duration]| times.iter().min().is_some_and(|best| *best <= fastest * TOO_SLOW);
            times.iter().zip(&mut running).for_each(|(times, running)| *running &= has_a_chance(times));
            let sure = times.iter().zip(&running).all(|(times, running)| !running || reproduced(times));
            if turn >= MOST || spent >= LONGEST || sure && turn >= enough.clamp(FEWEST, ENOUGH) {
                return Raced { shortest: shortest(&times), reproduced: sure };
            }
        }
        for candidate in (0..candidates).filter(|candidate| running[*candidate]) {
            match run(candidate) {
                Some(time) => {
                    times[candidate].push(time);
                    spent += time;
                }
                None => times[candidate].clear(),
            }
        }
    }
    Raced { shortest: shortest(&times), reproduced: true }
}

/// Numbers between -1 and 1, the same every time; integers are 0 or 1, which are valid indices.
fn synthetic_inputs(state: &State) -> TractResult<TVec<TValue>> {
    let mut random = XorShift::new(1);
    let model = state.model();
    let make = |outlet: &OutletId| -> TractResult<TValue> {
        let (shape, datum_type) = (concrete_shape(model, *outlet)?, model.outlet_fact(*outlet)?.datum_type);
        let (float, count) = (datum_type.is_float(), shape.iter().product::<usize>());
        let value = |_| if float { random.signed() } else { random.signed().abs().round() };
        let values: Vec<f32> = (0..count).map(value).collect();
        Ok(Tensor::from_shape(&shape, &values)?.cast_to_dt(datum_type)?.into_owned().into_tvalue())
    };
    model.input_outlets()?.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Candidates that take `own` microseconds, plus what `late` says of the `n`-th run of all; returns the outcome,
    /// and the number of runs of each.
    fn raced(own: &[u32], late: impl Fn(u32) -> u32) -> (Raced, Vec<u32>) {
        let (mut runs, mut all) = (vec![0; own.len()], 0);
        let raced = race(own.len(), &mut |candidate| {
            runs[candidate] += 1;
            all += 1;
            Some(US * (own[candidate] + late(all)))
        });
        (raced, runs)
    }

    fn micros(raced: &Raced) -> Vec<u128> {
        raced.shortest.iter().map(|time| time.unwrap().as_micros()).collect()
    }

    #[test]
    fn a_quiet_board_is_soon_sure() {
        let (outcome, runs) = raced(&[2000, 2600, 9000], |_| 0);
        assert!(outcome.reproduced);
        assert_eq!(micros(&outcome), [2000, 2600, 9000]);
        assert_eq!(runs, [FEWEST as u32; 3]);
        // Short ones run more often, and what is far slower does not.
        let (outcome, runs) = raced(&[50, 60, 900], |_| 0);
        assert!(outcome.reproduced);
        assert_eq!(runs, [30, 30, FEWEST as u32]);
    }

    #[test]
    fn turns_go_on_until_the_shortest_times_are_reproduced() {
        // Three of four runs are interrupted, by different lengths of time.
        let interrupted = |run: u32| if run % 8 < 6 { 400 + run * 977 % 5000 } else { 0 };
        let (outcome, runs) = raced(&[1000, 1300, 1100], interrupted);
        assert!(outcome.reproduced);
        assert_eq!(micros(&outcome), [1000, 1300, 1100]);
        assert!(runs[0] > FEWEST as u32, "{runs:?}");
    }

    #[test]
    fn what_is_never_reproduced_is_not_sure_and_ends() {
        let (outcome, runs) = raced(&[1000, 1300], |run| 150 * (4000 - run).min(run * 7919 % 4000));
        assert!(!outcome.reproduced && runs.iter().all(|runs| *runs <= MOST as u32), "{runs:?}");
        // Long layers end by time.
        let (_, runs) = raced(&[50_000, 51_000], |run| run * run * 5000);
        assert!(runs.iter().all(|runs| *runs <= FEWEST as u32), "{runs:?}");
    }

    #[test]
    fn candidates_that_fail_are_left_out() {
        let outcome = race(2, &mut |candidate| (candidate == 1).then_some(US * 40));
        assert_eq!(outcome.shortest, [None, Some(US * 40)]);
        assert!(outcome.reproduced);
        assert_eq!(race(1, &mut |_| None).shortest, [None]);
        assert_eq!(race(0, &mut |_| None).shortest, []);
    }

    #[test]
    fn of_equal_candidates_the_first_is_chosen() {
        let of = |kernel: &str, ns| Measured { kernel: kernel.into(), ns, failure: None };
        let all = |first, second| [of("broken", None), of("dense", first), of("tract", second)];
        assert_eq!(fastest(&all(Some(1010), Some(1000))), Some("dense"));
        assert_eq!(fastest(&all(Some(1030), Some(1000))), Some("tract"));
        assert_eq!(fastest(&all(None, None)), None);
    }

    #[test]
    fn what_is_in_doubt_is_measured_again_unless_it_is_to_be_kept() {
        let folder = std::env::temp_dir().join(format!("espalier-doubt-{}", std::process::id()));
        let measured = vec![Measured { kernel: TRACT.into(), ns: Some(7), failure: None }];
        let known = |keep| Chooser::new("cpu", Some(folder.clone()), keep).known("gemm", &[TRACT]);
        let store = |sure, looks| {
            let mut chooser = Chooser::new("cpu", Some(folder.clone()), false);
            chooser.known("gemm", &["another"]);
            let timed = Timed { measured: measured.clone(), sure, looks };
            chooser.fresh.insert("gemm".into(), timed.clone());
            chooser.close();
            timed
        };
        assert_eq!(known(true), None);
        let unsure = store(false, 1);
        assert_eq!((known(false), known(true)), (None, Some(unsure)));
        let looked = store(false, Timed::MOST_LOOKS);
        assert_eq!(known(false), Some(looked));
        let sure = store(true, 9);
        assert_eq!(known(false), Some(sure));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
