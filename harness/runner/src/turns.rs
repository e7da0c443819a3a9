//! Which ratio of a pack runs next in a `time` job: always the same one, several in turn, or the one for a time budget.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use espalier_protocol::{Job, Switched};
use tract_onnx::prelude::*;

use crate::{budget::Budget, model::Ready, report::Reporter};

/// The fewest warm-up inferences of each ratio with a budget, which needs a first time of each.
const TRIED: u32 = 4;

pub struct Turns {
    policy: Policy,
    /// Reported at the end: writing lines between timed inferences would disturb them.
    pub switched: Vec<Switched>,
}

enum Policy {
    One,
    InTurn,
    Within(Budget),
}

impl Turns {
    /// Runs the job's untimed inferences with each of its ratios, and switches to the ratio that is timed first.
    ///
    /// # Errors
    /// Those of the model.
    pub fn warmed_up(
        reporter: &Reporter,
        job: &Job,
        ready: &mut Ready,
        next: &mut dyn FnMut() -> TVec<TValue>,
    ) -> Result<Turns> {
        let ratios = ready.ratios();
        let least = if job.budget_ms.is_some() { TRIED } else { 0 };
        let mut known = Vec::new();
        for index in 0..ratios.len() {
            ready.switch(index);
            let mut shortest = Duration::MAX;
            let count = job.warmup.max(least);
            for _ in 0..count {
                let inputs = next();
                let start = Instant::now();
                black_box(ready.run_on(inputs)?);
                shortest = shortest.min(start.elapsed());
                reporter.step();
            }
            known.push(shortest.as_nanos() as f64);
        }
        let policy = match job.budget_ms {
            Some(budget_ms) => Policy::Within(Budget::new(budget_ms, known)),
            None if ratios.len() > 1 => Policy::InTurn,
            None => Policy::One,
        };
        let mut turns = Turns { policy, switched: Vec::new() };
        let first = if let Policy::Within(budget) = &turns.policy { budget.current() } else { 0 };
        if ratios.len() > 1 {
            turns.switch(0, first, ready);
        }
        Ok(turns)
    }

    /// Chooses the ratio of the next inference after one that took `took`.
    pub fn after(&mut self, inferences: u64, took: Duration, ready: &mut Ready) {
        match &mut self.policy {
            Policy::One => {}
            Policy::InTurn => {
                let next = (inferences % ready.ratios().len() as u64) as usize;
                self.switch(inferences, next, ready);
            }
            Policy::Within(budget) => {
                if budget.record(took.as_nanos() as f64) {
                    let next = budget.current();
                    self.switch(inferences, next, ready);
                }
            }
        }
    }

    fn switch(&mut self, after: u64, index: usize, ready: &mut Ready) {
        let start = Instant::now();
        ready.switch(index);
        let ns = start.elapsed().as_nanos() as u64;
        if let Some(ratio) = ready.ratios()[index] {
            self.switched.push(Switched { after, ratio, ns });
        }
    }
}
