//! Which ratio of a pack runs next in a `time` job: always the same, several in turns, or whichever keeps within a budget.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use espalier_protocol::{Job, Switched};
use tract_onnx::prelude::*;

use crate::{budget::Budget, model::Ready, report::Reporter};

/// Inferences of each ratio at least, by the shortest of which a budget knows what it takes.
const TRIED: u32 = 4;

pub struct Turns {
    way: Way,
    /// To be told at the end: writing lines between timed inferences would disturb them.
    pub switched: Vec<Switched>,
}

enum Way {
    One,
    InTurns,
    Within(Budget),
}

impl Turns {
    /// Runs the job's untimed inferences, of all ratios that will be run, and takes the first of them.
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
        let way = match job.budget_ms {
            Some(budget_ms) => Way::Within(Budget::new(budget_ms, known)),
            None if ratios.len() > 1 => Way::InTurns,
            None => Way::One,
        };
        let mut turns = Turns { way, switched: Vec::new() };
        let first = if let Way::Within(budget) = &turns.way { budget.current() } else { 0 };
        if ratios.len() > 1 {
            turns.switch(0, first, ready);
        }
        Ok(turns)
    }

    /// Hears what the last timed inference took, and takes the ratio for the next.
    pub fn after(&mut self, inferences: u64, took: Duration, ready: &mut Ready) {
        match &mut self.way {
            Way::One => {}
            Way::InTurns => {
                let next = (inferences % ready.ratios().len() as u64) as usize;
                self.switch(inferences, next, ready);
            }
            Way::Within(budget) => {
                if budget.hear(took.as_nanos() as f64) {
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
