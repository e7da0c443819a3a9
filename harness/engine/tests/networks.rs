//! Gradients of whole networks, as PyTorch's exporters write them, compared with differences of their outputs along the
//! gradient.
//!
//! All weights move at once: `(L(w + hd) - L(w - hd)) / 2h` must be `<gradient, d>`, where `L` is the sum of outputs
//! with random signs. Kinks spoil large steps and rounding spoils small ones, so several steps are tried and the median
//! counts.

use espalier_engine::{Array, Keep, Network, Tensor, ValueId};
use espalier_fixtures::{Values, fixture, inputs};
use espalier_onnx::Model;

const STEPS: [f32; 5] = [1.2e-5, 6e-6, 3e-6, 1.5e-6, 7.5e-7];

#[track_caller]
fn check(name: &str) {
    let model = Model::decode(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut network = Network::new(&model).unwrap_or_else(|error| panic!("{name}: {error}"));
    let feeds: Vec<Tensor> = inputs(&model, 1)
        .into_iter()
        .map(|input| match input.values {
            Values::Floats(values) => Tensor::F32(Array::new(input.shape, values)),
            Values::Ints(values) => Tensor::I64(Array::new(input.shape, values)),
        })
        .collect();
    let is_weight = |value: &ValueId| matches!(network.constant(*value), Some(Tensor::F32(array)) if array.rank() > 1);
    let weights: Vec<ValueId> = (0..network.values()).filter(is_weight).collect();
    let run = network.run(&feeds, Keep::All).unwrap_or_else(|error| panic!("{name}: {error}"));
    let sign = |index: usize| if index.wrapping_mul(0x9e37_79b9) >> 7 & 1 == 0 { 1.0f32 } else { -1.0 };
    let seeds: Vec<(ValueId, Array<f32>)> = network
        .outputs
        .iter()
        .map(|output| {
            let shape = run.value(*output).expect("an output").shape().to_vec();
            let signs = (0..shape.iter().product()).map(sign).collect();
            (*output, Array::new(shape, signs))
        })
        .collect();
    let gradients = network.backward(&run, &seeds, &weights).unwrap_or_else(|error| panic!("{name}: {error}"));
    drop(run);
    // Each weight moves along its gradient, in proportion to its size: all parts of the network contribute.
    let norm = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let mut moves = Vec::new();
    for &weight in &weights {
        let Some(gradient) = gradients.of(weight) else { continue };
        let original = network.constant(weight).and_then(|tensor| tensor.f32().ok()).expect("a weight").clone();
        let length = norm(gradient.data());
        if length == 0.0 {
            continue;
        }
        let factor = norm(original.data()) / length;
        let direction = gradient.map(|gradient| (f64::from(*gradient) * factor) as f32);
        moves.push((weight, original, direction, gradient));
    }
    assert!(moves.len() * 2 > weights.len(), "{name}: gradients of {} of {} weights", moves.len(), weights.len());
    let mut loss = |step: f32| -> f64 {
        for (weight, original, direction, _) in &moves {
            let moved = original.data().iter().zip(direction.data()).map(|(w, d)| w + step * d).collect();
            *network.constant_mut(*weight).expect("a weight") = Tensor::F32(Array::new(original.shape(), moved));
        }
        let run = network.run(&feeds, Keep::Outputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        let of = |(output, seed): &(ValueId, Array<f32>)| -> f64 {
            let values = run.value(*output).and_then(|value| value.f32().ok()).expect("an output of floats");
            values.data().iter().zip(seed.data()).map(|(value, seed)| f64::from(*value) * f64::from(*seed)).sum()
        };
        seeds.iter().map(of).sum()
    };
    // The step as it is after rounding, which matters for small steps.
    let by_gradient = |step: f32| -> f64 {
        let of =
            |((w, d), g): ((&f32, &f32), &f32)| f64::from(*g) * (f64::from(w + step * d) - f64::from(w + -step * d));
        let sum = |(_, original, direction, gradient): &(ValueId, Array<f32>, Array<f32>, &Array<f32>)| -> f64 {
            original.data().iter().zip(direction.data()).zip(gradient.data()).map(of).sum()
        };
        moves.iter().map(sum).sum()
    };
    let ratios: Vec<f64> = STEPS.iter().map(|step| (loss(*step) - loss(-step)) / by_gradient(*step)).collect();
    let mut sorted = ratios.clone();
    sorted.sort_by(f64::total_cmp);
    let ratio = sorted[STEPS.len() / 2];
    println!("{name}: ratio {ratio:.5} of {} weights ({ratios:.5?})", moves.len());
    assert!((ratio - 1.0).abs() <= 1e-3, "{name}: differences by gradient are {ratios:?}");
}

#[test]
fn convolutional_networks() {
    for net in ["residual", "residual-bn", "mobile", "mobile-bn", "se", "densenet", "shufflenet"] {
        check(&format!("{net}-script"));
        check(&format!("{net}-dynamo"));
    }
}

#[test]
fn mobilenetv2() {
    check("mobilenetv2-script");
    check("mobilenetv2-dynamo");
}

#[test]
fn resnet50() {
    check("resnet50-script");
    check("resnet50-dynamo");
}

#[test]
fn transformers() {
    for net in ["bert", "transformer"] {
        check(&format!("{net}-script"));
        check(&format!("{net}-dynamo"));
    }
}

#[test]
fn recurrent_networks() {
    for net in ["bilstm", "bilstm-static", "gru"] {
        check(&format!("{net}-script"));
        check(&format!("{net}-dynamo"));
    }
}
