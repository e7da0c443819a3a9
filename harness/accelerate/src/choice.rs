//! Which kernel a layer gets: whichever was the fastest when it was tried on this board, with this layer's shapes and zeros.
//!
//! Candidates are run in turns, so that a disturbance meets all of them, and the shortest time of each counts. What came of it is kept in a file, one for
//! each processor and state of the kernels' sources: the next process does not measure again, and what is more, it chooses the same, so that its outputs
//! are the same to the bit.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use espalier_kernels::choices::Store;
use tract_onnx::{prelude::*, tract_core::internal::*};

pub use espalier_kernels::choices::Measured;

use crate::region::State;

/// The candidate that is always there: the layer as tract has it.
pub const TRACT: &str = "tract";

/// How long a candidate is run in all, and how often at least and at most.
const TIME: Duration = Duration::from_micros(1500);
const FEWEST: u32 = 3;
const MOST: u32 = 40;
/// What takes less than that is run several times between two looks at the clock.
const SHORT: Duration = Duration::from_micros(20);
/// A candidate that took so many times as long as the fastest is not tried any further.
const HOPELESS: u32 = 3;
/// Times that differ by less are the same.
const ABOUT: f64 = 1.05;

/// One way to compute a layer.
pub struct Candidate<'a> {
    /// Unique among the layer's candidates; with the instruction set, where it has several.
    pub kernel: String,
    /// Packs the weights and gives the op. Called again for the one that is chosen.
    pub build: Box<dyn Fn() -> TractResult<Box<dyn TypedOp>> + 'a>,
}

/// What became of one layer.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub name: String,
    pub op: String,
    pub kernel: String,
    pub candidates: Vec<Measured>,
    /// An earlier process measured.
    pub cached: bool,
    /// Why something is not as it might be.
    pub note: Option<String>,
}

pub struct Chooser {
    store: Store,
    /// Layers of this model with the same key share one measurement.
    known: HashMap<String, Vec<Measured>>,
    fresh: BTreeMap<String, Vec<Measured>>,
}

impl Chooser {
    /// `cpu` is the processor in words.
    pub fn new(cpu: &str, folder: Option<PathBuf>) -> Chooser {
        let store = Store::new(folder, &format!("{cpu}, kernels {}", env!("ESPALIER_KERNELS")));
        Chooser { known: store.read(), store, fresh: BTreeMap::new() }
    }

    /// What an earlier measurement of just these candidates said.
    pub fn known(&mut self, key: &str, kernels: &[&str]) -> Option<Vec<Measured>> {
        let same = |known: &&Vec<Measured>| known.iter().map(|measured| &*measured.kernel).eq(kernels.iter().copied());
        if let Some(known) = self.known.get(key).filter(same) {
            return Some(known.clone());
        }
        // Another process may be measuring just now: wait for it rather than choose differently.
        if self.store.lock() {
            for (key, measured) in self.store.read() {
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
        let mut trials: Vec<Trial> = candidates.map(|(kernel, state)| Trial::of(kernel, state)).collect();
        race(&mut trials);
        let measured: Vec<Measured> = trials.into_iter().map(Trial::measured).collect();
        self.known.insert(key.to_owned(), measured.clone());
        self.fresh.insert(key.to_owned(), measured.clone());
        measured
    }

    /// Keeps what was measured. That it cannot is no failure of the model's: the next process measures again.
    pub fn close(self) {
        if !self.fresh.is_empty() {
            self.store.write(self.fresh);
        }
    }
}

struct Trial {
    kernel: String,
    state: Option<State>,
    inputs: TVec<TValue>,
    times: Vec<Duration>,
    failure: Option<String>,
    /// Runs between two looks at the clock.
    together: u32,
}

impl Trial {
    fn of(kernel: &str, state: TractResult<State>) -> Trial {
        let with_inputs = state.and_then(|state| Ok((made_up(&state)?, state)));
        let (inputs, state, failure) = match with_inputs {
            Ok((inputs, state)) => (inputs, Some(state), None),
            Err(error) => (tvec!(), None, Some(format!("{error:#}"))),
        };
        Trial { kernel: kernel.to_owned(), state, inputs, times: Vec::new(), failure, together: 1 }
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

    /// Whether the shortest time was seen twice, about.
    fn is_sure(&self) -> bool {
        let Some(best) = self.best() else { return true };
        self.times.iter().filter(|time| **time <= best.mul_f64(ABOUT)).count() > 1
    }

    fn measured(self) -> Measured {
        let ns = self.best().map(|best| best.as_nanos() as u64);
        Measured { kernel: self.kernel, ns, failure: self.failure }
    }
}

fn race(trials: &mut [Trial]) {
    // The first run touches memory for the first time and does not count.
    for trial in &mut *trials {
        trial.run();
        trial.times.clear();
    }
    // On a busy board one run in some is interrupted: nobody is judged by one or two.
    for _ in 0..FEWEST {
        trials.iter_mut().for_each(Trial::run);
    }
    for trial in &mut *trials {
        if let Some(best) = trial.best() {
            trial.together = (SHORT.as_nanos() / best.as_nanos().max(1)).clamp(1, 1000) as u32;
        }
    }
    let Some(fastest) = trials.iter().filter_map(Trial::best).min() else { return };
    let rounds = (TIME.as_nanos() / fastest.max(SHORT).as_nanos()) as u32;
    for round in 0..MOST {
        let Some(fastest) = trials.iter().filter_map(Trial::best).min() else { return };
        let has_a_chance = |trial: &Trial| trial.best().is_some_and(|best| best <= fastest * HOPELESS);
        let is_sure = trials.iter().all(|trial| !has_a_chance(trial) || trial.is_sure());
        if round >= rounds && is_sure {
            break;
        }
        for trial in trials.iter_mut().filter(|trial| has_a_chance(trial)) {
            trial.run();
        }
    }
}

/// Numbers between -1 and 1, the same every time; whole numbers 0 or 1, which are indices into anything.
fn made_up(state: &State) -> TractResult<TVec<TValue>> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let model = state.model();
    let make = |outlet: &OutletId| -> TractResult<TValue> {
        let fact = model.outlet_fact(*outlet)?;
        let shape = fact.shape.as_concrete().context("a dimension is open")?;
        let float = fact.datum_type.is_float();
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| if float { next() } else { next().abs().round() }).collect();
        Ok(Tensor::from_shape(shape, &values)?.cast_to_dt(fact.datum_type)?.into_owned().into_tvalue())
    };
    model.input_outlets()?.iter().map(make).collect()
}
