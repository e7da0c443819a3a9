//! `profile` jobs: the time of each layer in an inference, with its kernel.
//!
//! tract's plan runs node by node as usual, and each node is timed. The time of a node in one inference is the sum of
//! its calls; the median of these sums over the inferences is reported. The body of a scan counts as the scan.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use espalier_accelerate::op;
use espalier_protocol::{Job, LayerTime, Line, Stage};
use tract_onnx::tract_core::plan;

use crate::{model, report::Reporter};

/// The most inferences. More would not change a median.
const MOST: usize = 10_000;

pub fn profile(reporter: &Reporter, job: &Job) -> Result<()> {
    let mut ready = model::load(reporter, job, false)?;
    reporter.enter(Stage::WarmUp, u64::from(job.warmup) + 1);
    for index in 0..=job.warmup as usize {
        black_box(ready.run(index)?);
        reporter.step();
    }
    reporter.enter(Stage::Profile, u64::from(job.iterations));
    let mut layers = Layers::default();
    let mut spent = Duration::ZERO;
    let mut done = 0;
    while done < MOST && (done < job.iterations as usize || spent < Duration::from_millis(job.min_time_ms)) {
        let inputs = ready.samples.get(done)?;
        let start = Instant::now();
        let outputs = ready.state().run_plan_with_eval(inputs, |context, state, node, inputs| {
            let start = Instant::now();
            let outputs = plan::eval(context, state, node, inputs);
            layers.add(node.id, start.elapsed());
            outputs
        })?;
        spent += start.elapsed();
        black_box(outputs);
        layers.end_inference();
        done += 1;
        reporter.step();
    }
    let model = ready.state().model();
    let times = layers.order.iter().map(|id| {
        let node = model.node(*id);
        let layer = &layers.by_node[id];
        LayerTime {
            name: node.name.as_str().into(),
            op: node.op().name().trim_start_matches(op::PREFIX).into(),
            kernel: op::kernel(node.op()).into(),
            calls: layer.calls / layer.sums.len().max(1) as u64,
            median_ns: median(&layer.sums),
        }
    });
    Line::profile(&times.collect::<Vec<_>>()).for_each(|line| reporter.emit(&line));
    Ok(())
}

#[derive(Default)]
struct Layers {
    by_node: HashMap<usize, Layer>,
    /// The order in which nodes first ran.
    order: Vec<usize>,
}

#[derive(Default)]
struct Layer {
    calls: u64,
    now: Duration,
    /// One for each inference.
    sums: Vec<Duration>,
}

impl Layers {
    fn add(&mut self, node: usize, took: Duration) {
        let order = &mut self.order;
        let layer = self.by_node.entry(node).or_insert_with(|| {
            order.push(node);
            Layer::default()
        });
        layer.calls += 1;
        layer.now += took;
    }

    fn end_inference(&mut self) {
        for layer in self.by_node.values_mut() {
            layer.sums.push(std::mem::take(&mut layer.now));
        }
    }
}

fn median(times: &[Duration]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or(0, |median| median.as_nanos() as u64)
}
