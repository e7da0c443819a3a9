//! `time` and `score` jobs.
//!
//! A slow-down is a drill: the host requests it to see its gate report a regression. It is a busy loop inside each
//! timed inference, so that the processor is as busy and as warm as with a slower program. Without a slow-down the
//! timing loop has one more branch, outside of what is timed.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use espalier_protocol::{BoardState, HEARTBEAT_SECONDS, Job, Line, Predictions, Stage, line};
use tract_onnx::prelude::*;

use crate::{model, report::Reporter, turns::Turns};

/// The most inputs that are prepared before timing begins. More samples would add no variety.
const PREPARED: usize = 64;
/// Times per line.
const CHUNK: usize = 512;
/// Samples per line of predictions.
const SAMPLES: usize = 16;

/// Returns the board's state right after the last timed inference. Reporting the times costs CPU time on this board and
/// on the host; if the state were read afterwards, that would look like the work of other programs.
pub fn time(reporter: &Reporter, job: &Job, state: &dyn Fn() -> BoardState) -> Result<BoardState> {
    let mut ready = model::load(reporter, job, false)?;
    let prepared: Vec<TVec<TValue>> =
        (0..PREPARED.min(ready.samples.count)).map(|index| ready.samples.get(index)).collect::<Result<_>>()?;
    let mut inputs = prepared.iter().cycle();
    let mut next = || inputs.next().cloned().expect("there is at least one sample");

    let slower = job.slow_down_percent.map(|percent| 1.0 + percent / 100.0);

    let first = next();
    let start = Instant::now();
    let outputs = black_box(ready.run_on(first)?);
    let first = start.elapsed();
    reporter.emit(&Line::First { ns: nanoseconds(first), digest: digest(&outputs).map(Into::into) });
    drop(outputs);

    reporter.enter(Stage::WarmUp, u64::from(job.warmup));
    let mut turns = Turns::warmed_up(reporter, job, &mut ready, &mut next)?;

    reporter.enter(Stage::Time, u64::from(job.iterations));
    // A heartbeat between two inferences is enough, unless an inference takes longer than the host waits.
    reporter.set_quiet(first.mul_f64(slower.unwrap_or(1.0)) < Duration::from_secs(HEARTBEAT_SECONDS));
    let mut times = Vec::with_capacity(job.iterations as usize);
    let mut spent = Duration::ZERO;
    let (least, most) = (job.iterations as usize, job.iterations.max(Job::MOST_TIMES) as usize);
    while times.len() < least || (times.len() < most && spent < Duration::from_millis(job.min_time_ms)) {
        let input = next();
        let start = Instant::now();
        let output = ready.run_on(input)?;
        let mut took = start.elapsed();
        if let Some(slower) = slower {
            took = spin(start, took.mul_f64(slower));
        }
        black_box(output);
        times.push(nanoseconds(took));
        spent += took;
        turns.after(times.len() as u64, took, &mut ready);
        reporter.step();
    }
    let after = state();
    reporter.set_quiet(false);
    turns.switched.into_iter().for_each(|switched| reporter.emit(&Line::Switched(switched)));
    for chunk in times.chunks(CHUNK) {
        reporter.emit(&Line::Timed { ns: chunk.to_vec() });
    }
    Ok(after)
}

pub fn score(reporter: &Reporter, job: &Job) -> Result<()> {
    let mut ready = model::load(reporter, job, true)?;
    let runs = ready.samples.count / ready.samples.batch;
    reporter.enter(Stage::Score, runs as u64);
    let mut line = Predictions::default();
    for index in 0..runs {
        let outputs = ready.run(index)?;
        let output = outputs.first().context("the model has no output")?.cast_to::<f32>()?;
        let view = output.to_plain_array_view::<f32>()?;
        let values: Vec<f32> = view.iter().copied().collect();
        // A fixed batch occurs only with synthetic inputs. Then the whole output counts as one sample.
        line.push(argmax(&values), values);
        reporter.step();
        if line.classes.len() == SAMPLES || index + 1 == runs {
            let start = line.start + line.classes.len() as u64;
            let full = std::mem::replace(&mut line, Predictions { start, ..Predictions::default() });
            reporter.emit(&Line::Predictions(full));
        }
    }
    Ok(())
}

/// Keeps the processor busy until `duration` has passed since `start`. Returns the time that has passed.
fn spin(start: Instant, duration: Duration) -> Duration {
    loop {
        let passed = start.elapsed();
        if passed >= duration {
            return passed;
        }
        std::hint::spin_loop();
    }
}

/// The digest of the outputs; `None` where an output is not plain numbers.
fn digest(outputs: &[TValue]) -> Option<String> {
    // The bytes of a string's tensor are addresses.
    let plain = |output: &TValue| output.datum_type().is_copy();
    if !outputs.iter().all(plain) {
        return None;
    }
    let views: Vec<_> = outputs.iter().map(|output| output.try_as_plain_ram().ok()).collect::<Option<_>>()?;
    Some(line::digest(views.iter().map(|view| view.as_bytes())))
}

/// The index of the largest value, the first of equal ones. NaN is never the largest.
fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] || values[best].is_nan() {
            best = index;
        }
    }
    best as u32
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_is_the_first_of_the_largest() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN, -0.5]), 3);
        assert_eq!(argmax(&[f32::NAN]), 0);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn a_spin_takes_its_time() {
        let start = Instant::now();
        let whole = Duration::from_millis(3);
        let passed = spin(start, whole);
        assert!(passed >= whole && passed <= start.elapsed());
    }

    #[test]
    fn digests_of_outputs_differ() {
        let of = |values: &[f32]| digest(&[tensor1(values).into(), tensor1(&[1i64]).into()]);
        assert_eq!(of(&[1.0, 2.0]), of(&[1.0, 2.0]));
        assert_ne!(of(&[1.0, 2.0]), of(&[1.0, 2.0 + f32::EPSILON * 2.0]));
        assert_eq!(digest(&[tensor1(&["word".to_owned()]).into()]), None);
    }
}
