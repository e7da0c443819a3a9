//! How long importance takes: prunes half of an ONNX file, or of a fixture, by a method on synthetic samples.
//!
//! ```text
//! cargo run -p espalier-prune --example importance -- FIXTURE|FILE.onnx METHOD [SAMPLES] [BATCH]
//! ```
//! Open axes beside the first are 16 long, integers are 1. Linux only: memory is `VmHWM`.

use std::{env, fs, path::Path, time::Instant};

use espalier_engine::{Array, Tensor};
use espalier_prune::{Axis, Method, Recipe, Samples, Scope, Unit, file, inspect, prune};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, method, rest @ ..] = arguments.as_slice() else { panic!("FIXTURE|FILE.onnx METHOD [SAMPLES] [BATCH]") };
    let method = Method::ALL.into_iter().find(|known| known.name() == method).expect("a method");
    let number = |index: usize, default: usize| rest.get(index).map_or(default, |text| text.parse().expect("a number"));
    let (count, batch) = (number(0, 64), number(1, 8));
    let model = match Path::new(name).is_file() {
        true => file::read(Path::new(name)).expect("a model"),
        false => espalier_fixtures::fixture(name),
    };
    let inspection = inspect(&model).expect("a model");
    let inputs = inspection.inputs.iter().map(|port| {
        let axes = port.axes.as_ref().expect("inputs of known rank");
        let shape: Vec<usize> = axes
            .iter()
            .enumerate()
            .map(|(axis, length)| match length {
                _ if axis == 0 => count,
                Axis::Fixed(length) => *length as usize,
                Axis::Free(_) => 16,
            })
            .collect();
        let len: usize = shape.iter().product();
        if !port.dtype.starts_with("float") {
            return Tensor::I64(Array::new(shape, vec![1; len]));
        }
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as i32 as f32 / (1u32 << 30) as f32
        };
        Tensor::F32(Array::new(shape, (0..len).map(|_| noise()).collect()))
    });
    let samples = Samples { inputs: inputs.collect(), labels: None };
    let recipe = Recipe { batch, ..Recipe::new(method, Scope::Global, Unit::Weight, 0.5) };
    let start = Instant::now();
    let manifest = prune(&model, &recipe, Some(&samples)).unwrap_or_else(|error| panic!("{name}: {error}")).manifest;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    println!(
        "{name} by {} on {count} samples, {batch} at a time: {:.2?}; {} of {} removed, {:?}; {peak}",
        method.name(),
        start.elapsed(),
        manifest.removed,
        manifest.prunable,
        manifest.macs,
    );
    for tensor in &manifest.tensors {
        if tensor.removed == tensor.weights || tensor.removed == 0 {
            println!("  {}: {} of {}", tensor.name, tensor.removed, tensor.weights);
        }
    }
}
