//! Times a forward and a backward pass, and prints how much memory values take at most.
//!
//! ```text
//! cargo run -p espalier-engine --example speed -- FILE.onnx|FIXTURE [BATCH] [ROUNDS]
//! ```
//! The gradient is that of all constants of floats with at least two axes. Prints the seconds of each round; the first
//! one includes warming up.

use std::time::Instant;

use espalier_engine::{Array, Keep, Network, Tensor, ValueId};
use espalier_fixtures::Values;
use espalier_onnx::{Bytes, Model};

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().expect("usage: speed FILE.onnx|FIXTURE [BATCH] [ROUNDS]");
    let number = |text: Option<String>, default: usize| text.map_or(default, |text| text.parse().expect("a number"));
    let (batch, rounds) = (number(args.next(), 2), number(args.next(), 5));
    let bytes = if name.ends_with(".onnx") {
        Bytes::from(std::fs::read(&name).unwrap_or_else(|error| panic!("cannot read `{name}`: {error}")))
    } else {
        espalier_fixtures::fixture(&name)
    };
    let model = Model::decode(&bytes).expect("it is a model");
    let network = Network::new(&model).expect("the engine knows it");
    let feeds: Vec<Tensor> = espalier_fixtures::inputs(&model, batch)
        .into_iter()
        .map(|input| match input.values {
            Values::Floats(values) => Tensor::F32(Array::new(input.shape, values)),
            Values::Ints(values) => Tensor::I64(Array::new(input.shape, values)),
        })
        .collect();
    let is_weight = |value: &ValueId| matches!(network.constant(*value), Some(Tensor::F32(array)) if array.rank() > 1);
    let weights: Vec<ValueId> = (0..network.values()).filter(is_weight).collect();
    for _ in 0..rounds {
        let start = Instant::now();
        let run = network.run(&feeds, Keep::All).expect("it runs");
        let forward = start.elapsed();
        let values = (0..network.values()).filter(|value| network.constant(*value).is_none());
        let live: usize =
            values.filter_map(|value| Some(run.value(value)?.shape().iter().product::<usize>() * 4)).sum();
        let ones = |output: &ValueId| {
            let shape = run.value(*output).expect("it was run").shape();
            (*output, Array::filled(shape, 1.0f32))
        };
        let seeds: Vec<_> = network.outputs.iter().map(ones).collect();
        let start = Instant::now();
        let gradients = network.backward(&run, &seeds, &weights).expect("it has gradients");
        let backward = start.elapsed();
        let reached = weights.iter().filter(|weight| gradients.of(**weight).is_some()).count();
        println!(
            "forward {:.3} s, backward {:.3} s, values {} MB, gradients of {reached} of {} weights",
            forward.as_secs_f64(),
            backward.as_secs_f64(),
            live / 1_000_000,
            weights.len()
        );
    }
}
