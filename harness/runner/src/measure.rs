//! `time` and `score` jobs.
//!
//! A slow-down is a drill: the host requests it to see its gate report a regression. It is a busy loop inside each
//! timed inference, so that the processor is as busy and as warm as with a slower program. Without a slow-down the
//! timing loop has one more branch, outside of what is timed.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use espalier_protocol::{BoardState, HEARTBEAT_SECONDS, Job, Line, OutputRequest, Predictions, Stage, line};
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
        if let Some(request) = job.request {
            let values = answer(&outputs, request)?;
            let lines = Predictions::of_sample(index as u64, &values);
            lines.into_iter().for_each(|line| reporter.emit(&Line::Predictions(line)));
            reporter.step();
            continue;
        }
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

/// What a job asks for of a sample's outputs. Whole numbers that an f32 does not hold are refused, not rounded.
fn answer(outputs: &[TValue], request: OutputRequest) -> Result<Vec<f32>> {
    let OutputRequest { output, argmax } = request;
    let tensor = outputs.get(output as usize).with_context(|| format!("the model has no output {output}"))?;
    ensure!(tensor.datum_type().is_copy(), "output {output} has {:?}, which are no numbers", tensor.datum_type());
    if tensor.datum_type().is_integer() {
        let wide = tensor.cast_to::<i64>()?;
        let view = wide.to_plain_array_view::<i64>()?;
        if let Some(large) = view.iter().find(|value| value.unsigned_abs() > EXACT) {
            bail!("output {output} has the whole number {large}, beyond {EXACT}");
        }
    }
    let floats = tensor.cast_to::<f32>()?;
    let view = floats.to_plain_array_view::<f32>()?;
    let values: Vec<f32> = view.iter().copied().collect();
    let Some(axis) = argmax else { return Ok(values) };
    let shape = tensor.shape();
    ensure!((axis as usize) < shape.len(), "output {output} of shape {shape:?} has no axis {axis}");
    let classes = shape[axis as usize];
    let inner: usize = shape[axis as usize + 1..].iter().product();
    let class = |position: usize| {
        let first = position / inner * classes * inner + position % inner;
        let of_position: Vec<f32> = (0..classes).map(|class| values[first + class * inner]).collect();
        crate::measure::argmax(&of_position) as f32
    };
    Ok((0..values.len() / classes.max(1)).map(class).collect())
}

/// The largest whole number up to which an f32 holds all of them.
const EXACT: u64 = 1 << 24;

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
    fn what_is_asked_for_is_sent() {
        let logits: TValue = tensor3(&[[[0.0f32, 5.0, 1.0], [3.0, 1.0, 1.0]]]).into();
        let labels: TValue = tensor1(&[7i64]).into();
        let outputs = [logits, labels];
        let of = |output, argmax| answer(&outputs, OutputRequest { output, argmax });
        assert_eq!(of(0, None).unwrap(), [0.0, 5.0, 1.0, 3.0, 1.0, 1.0]);
        assert_eq!(of(0, Some(2)).unwrap(), [1.0, 0.0]);
        assert_eq!(of(0, Some(1)).unwrap(), [1.0, 0.0, 0.0]);
        assert_eq!(of(1, None).unwrap(), [7.0]);
        assert!(of(0, Some(3)).is_err() && of(2, None).is_err());
        let large = answer(&[tensor1(&[(1i64 << 24) + 1]).into()], OutputRequest { output: 0, argmax: None });
        assert_eq!(large.unwrap_err().to_string(), "output 0 has the whole number 16777217, beyond 16777216");
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
