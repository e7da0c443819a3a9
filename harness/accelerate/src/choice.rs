//! Chooses the kernel of a layer: the candidate that was the fastest in a trial on this board, with the layer's shapes
//! and zeros.
//!
//! Candidates run in turn, so that a disturbance affects all of them, and the shortest time of each counts. Results are
//! stored in a file, one for each processor and version of the kernels' sources. The next process does not measure
//! again and chooses the same kernels, so that its outputs are the same to the bit.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use espalier_kernels::{choices::ChoiceFile, random::XorShift};
use tract_onnx::prelude::*;

pub use espalier_kernels::choices::Measured;

use crate::region::{State, concrete_shape};

/// The candidate that every layer has: plain tract.
pub const TRACT: &str = "tract";

/// How long a candidate runs in total, and how often at least and at most.
const TIME: Duration = Duration::from_micros(1500);
const FEWEST: u32 = 3;
const MOST: u32 = 40;
/// A candidate that takes less is run several times between two looks at the clock.
const SHORT: Duration = Duration::from_micros(20);
/// A candidate that took this many times as long as the fastest is not run any more.
const TOO_SLOW: u32 = 3;
/// Times within this ratio count as equal.
const EQUAL: f64 = 1.05;

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
    /// Why candidates failed, or why the layer stays as it is in tract.
    pub note: Option<String>,
}

pub struct Chooser {
    file: ChoiceFile,
    /// Layers of this model with the same key share one measurement.
    known: HashMap<String, Vec<Measured>>,
    fresh: BTreeMap<String, Vec<Measured>>,
}

impl Chooser {
    /// `cpu` describes the processor.
    pub fn new(cpu: &str, folder: Option<PathBuf>) -> Chooser {
        let file = ChoiceFile::new(folder, &format!("{cpu}, kernels {}", env!("ESPALIER_KERNELS")));
        Chooser { known: file.read(), file, fresh: BTreeMap::new() }
    }

    /// The times of an earlier measurement with exactly these candidates.
    pub fn known(&mut self, key: &str, kernels: &[&str]) -> Option<Vec<Measured>> {
        let same = |known: &&Vec<Measured>| known.iter().map(|measured| &*measured.kernel).eq(kernels.iter().copied());
        if let Some(known) = self.known.get(key).filter(same) {
            return Some(known.clone());
        }
        // Another process may be measuring: wait for it instead of choosing differently.
        if self.file.lock() {
            for (key, measured) in self.file.read() {
                self.known.entry(key).or_insert(measured);
            }
        }
        self.known.get(key).filter(same).cloned()
    }

    pub fn measure<'a>(
        &mut self,
        key: &str,
        candidates: impl Iterator<Item = (&'a str, TractResult<State>)>,
    ) -> Vec<Measured> {
        let mut trials: Vec<TimedCandidate> =
            candidates.map(|(kernel, state)| TimedCandidate::of(kernel, state)).collect();
        race(&mut trials);
        let measured: Vec<Measured> = trials.into_iter().map(TimedCandidate::measured).collect();
        self.known.insert(key.to_owned(), measured.clone());
        self.fresh.insert(key.to_owned(), measured.clone());
        measured
    }

    /// Stores what was measured. If that fails, the next process measures again.
    pub fn close(self) {
        if !self.fresh.is_empty() {
            self.file.write(self.fresh);
        }
    }
}

struct TimedCandidate {
    kernel: String,
    state: Option<State>,
    inputs: TVec<TValue>,
    times: Vec<Duration>,
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
        TimedCandidate { kernel: kernel.to_owned(), state, inputs, times: Vec::new(), failure, together: 1 }
    }

    fn run(&mut self) {
        let Some(state) = &mut self.state else { return };
        let start = Instant::now();
        for _ in 0..self.together {
            if let Err(error) = state.run(self.inputs.clone()) {
                self.failure = Some(format!("{error:#}"));
                self.state = None;
                self.times.clear();
                return;
            }
        }
        self.times.push(start.elapsed() / self.together);
    }

    fn best(&self) -> Option<Duration> {
        self.times.iter().min().copied()
    }

    /// Whether the shortest time was measured at least twice.
    fn is_sure(&self) -> bool {
        let Some(best) = self.best() else { return true };
        self.times.iter().filter(|time| **time <= best.mul_f64(EQUAL)).count() > 1
    }

    fn measured(self) -> Measured {
        let ns = self.best().map(|best| best.as_nanos() as u64);
        Measured { kernel: self.kernel, ns, failure: self.failure }
    }
}

fn race(trials: &mut [TimedCandidate]) {
    // The first run touches memory for the first time: it does not count.
    for trial in &mut *trials {
        trial.run();
        trial.times.clear();
    }
    // On a busy board some runs are interrupted, so no candidate is judged by one or two.
    for _ in 0..FEWEST {
        trials.iter_mut().for_each(TimedCandidate::run);
    }
    for trial in &mut *trials {
        if let Some(best) = trial.best() {
            trial.together = (SHORT.as_nanos() / best.as_nanos().max(1)).clamp(1, 1000) as u32;
        }
    }
    let Some(fastest) = trials.iter().filter_map(TimedCandidate::best).min() else { return };
    let rounds = (TIME.as_nanos() / fastest.max(SHORT).as_nanos()) as u32;
    for round in 0..MOST {
        let Some(fastest) = trials.iter().filter_map(TimedCandidate::best).min() else { return };
        let has_a_chance = |trial: &TimedCandidate| trial.best().is_some_and(|best| best <= fastest * TOO_SLOW);
        let is_sure = trials.iter().all(|trial| !has_a_chance(trial) || trial.is_sure());
        if round >= rounds && is_sure {
            break;
        }
        for trial in trials.iter_mut().filter(|trial| has_a_chance(trial)) {
            trial.run();
        }
    }
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
