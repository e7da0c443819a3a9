//! Checks an operator's gradient against finite differences. For tests only.
//!
//! Each output gets a random seed `s`, each input a direction `d`, and `<s, f(x + hd) - f(x - hd)>` must be `<gradient,
//! 2hd>` within a thousandth. Directions have the signs of the gradient, so that their product does not cancel to
//! noise. Small inputs are also checked element by element, which finds what a direction may miss. Differences are
//! taken at two steps and extrapolated (Richardson), which allows steps large enough for f32. Inputs have to stay away
//! from kinks: see [`apart`].

use std::collections::HashMap;

use espalier_onnx::{AttributeProto, NodeProto, random::SplitMix64};

use super::{Attributes, Backward, Forward, Operator};
use crate::{Array, Tensor};

/// How far an element is moved, at most. Inputs of operators with kinks are further apart than twice this.
const STEP: f32 = 0.03;

/// Inputs with more elements than this are only checked along directions.
const SMALL: usize = 300;

fn sign(random: &mut SplitMix64) -> f32 {
    if random.next() >> 63 == 0 { 1.0 } else { -1.0 }
}

/// Values in `[from, to)`.
pub fn between(seed: u64, shape: &[usize], from: f32, to: f32) -> Tensor {
    let mut random = SplitMix64::new(seed);
    Tensor::F32(Array::new(shape, (0..shape.iter().product()).map(|_| random.between(from, to)).collect()))
}

/// Values in `[-1, 1)`.
pub fn random(seed: u64, shape: &[usize]) -> Tensor {
    between(seed, shape, -1.0, 1.0)
}

/// Values of both signs, at least 0.1 from each other and from zero, in random order.
pub fn apart(seed: u64, shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let value = |index: usize| (index as f32 - (len / 2) as f32 + 0.5) * 0.1 * 2.0;
    Tensor::F32(Array::new(shape, SplitMix64::new(seed).order(len).into_iter().map(value).collect()))
}

pub fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::I64(Array::new(shape, values.to_vec()))
}

pub fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::F32(Array::new(shape, values.to_vec()))
}

/// A node's attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), ..AttributeProto::default() }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), f: Some(value), ..AttributeProto::default() }
}

pub fn int_list(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: values.to_vec(), ..AttributeProto::default() }
}

pub fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: Some(name.into()), s: Some(value.to_owned().into_bytes().into()), ..Default::default() }
}

/// # Errors
/// As the operator's parser.
pub fn try_operator(op_type: &str, opset: i64, attribute: Vec<AttributeProto>) -> Result<Box<dyn Operator>, String> {
    let proto = NodeProto { op_type: Some(op_type.to_owned()), attribute, ..NodeProto::default() };
    super::parse(&Attributes { proto: &proto, opset, types: &HashMap::new() })
        .unwrap_or_else(|| Err(format!("the engine does not know {op_type}")))
}

#[track_caller]
pub fn operator(op_type: &str, opset: i64, attribute: Vec<AttributeProto>) -> Box<dyn Operator> {
    try_operator(op_type, opset, attribute).unwrap_or_else(|why| panic!("{op_type}: {why}"))
}

/// The outputs for inputs that are all there.
#[track_caller]
pub fn forward(operator: &dyn Operator, inputs: &[Tensor], outputs: usize) -> Vec<Tensor> {
    run(operator, &inputs.iter().map(Some).collect::<Vec<_>>(), outputs).outputs
}

/// The one output, of floats, of an operator for inputs that are all there.
#[track_caller]
pub fn output(operator: &dyn Operator, inputs: &[Tensor]) -> Array<f32> {
    forward(operator, inputs, 1)[0].f32().unwrap_or_else(|why| panic!("{why}")).clone()
}

/// Checks the gradients of those `inputs` whose indices are in `differentiable`, through all `outputs` that are floats.
#[track_caller]
pub fn check(operator: &dyn Operator, inputs: &[Tensor], outputs: usize, differentiable: &[usize]) {
    check_optional(operator, &inputs.iter().cloned().map(Some).collect::<Vec<_>>(), outputs, differentiable);
}

/// [`check`] with inputs left out.
#[track_caller]
pub fn check_optional(operator: &dyn Operator, inputs: &[Option<Tensor>], outputs: usize, differentiable: &[usize]) {
    for round in 0..3 {
        let mut random = SplitMix64::new(1000 + round);
        let references: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        let forward = run(operator, &references, outputs);
        let seeds: Vec<Option<Array<f32>>> = forward.outputs[..outputs]
            .iter()
            .map(|output| {
                let shape = output.f32().ok()?.shape().to_vec();
                let len = shape.iter().product();
                Some(Array::new(shape, (0..len).map(|_| sign(&mut random) * random.between(0.5, 1.0)).collect()))
            })
            .collect();
        let wants: Vec<bool> = (0..inputs.len()).map(|input| differentiable.contains(&input)).collect();
        let gradients = backward(operator, &references, &forward, &seeds, wants);
        for &input in differentiable {
            let x = references[input].and_then(|x| x.f32().ok()).expect("a differentiable input is of floats");
            let zero = Array::zeros(x.shape());
            let gradient = gradients[input].as_ref().unwrap_or(&zero);
            assert_eq!(gradient.shape(), x.shape(), "shape of the gradient of input {input}");
            let moved = |direction: &[f32]| -> (f64, f64) {
                let difference = |step: f32| difference(operator, inputs, input, &seeds, gradient, direction, step);
                let ((found, by_gradient), (found_half, by_gradient_half)) = (difference(STEP), difference(STEP / 2.0));
                // Per step, so that the two are alike.
                let (step, half) = (f64::from(STEP), f64::from(STEP) / 2.0);
                (
                    (4.0 * found_half / half - found / step) / 3.0,
                    (4.0 * by_gradient_half / half - by_gradient / step) / 3.0,
                )
            };
            let direction: Vec<f32> = gradient
                .data()
                .iter()
                .map(|g| random.between(0.5, 1.0) * if *g == 0.0 { sign(&mut random) } else { g.signum() })
                .collect();
            let (found, by_gradient) = moved(&direction);
            let ratio = if found == by_gradient { 1.0 } else { by_gradient / found };
            assert!(
                (ratio - 1.0).abs() <= 1e-3,
                "input {input}: along a direction the gradient says {by_gradient}, differences {found}: ratio {ratio}"
            );
            if round == 0 && x.len() <= SMALL {
                let scale = gradient.data().iter().fold(0f64, |most, g| most.max(f64::from(g.abs())));
                for element in 0..x.len() {
                    let mut direction = vec![0.0; x.len()];
                    direction[element] = 1.0;
                    let (found, by_gradient) = moved(&direction);
                    assert!(
                        (found - by_gradient).abs() <= 2e-3 * (found.abs() + 2.0 * scale).max(1e-3),
                        "input {input}, element {element}: the gradient says {by_gradient}, differences {found}"
                    );
                }
            }
            // The gradient of one input must not depend on whether others are required.
            let alone = (0..inputs.len()).map(|other| other == input).collect();
            let alone = backward(operator, &references, &forward, &seeds, alone);
            let alone = alone[input].as_ref().unwrap_or(&zero);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (a.abs() + b.abs()).max(1.0);
            assert!(alone.data().iter().zip(gradient.data()).all(close), "input {input}: another gradient when alone");
        }
    }
}

/// `<seeds, f(x + hd) - f(x - hd)>`, and what the gradient says it is. The latter is taken over the step as it came out
/// after rounding.
fn difference(
    operator: &dyn Operator,
    inputs: &[Option<Tensor>],
    input: usize,
    seeds: &[Option<Array<f32>>],
    gradient: &Array<f32>,
    direction: &[f32],
    step: f32,
) -> (f64, f64) {
    let x = inputs[input].as_ref().and_then(|x| x.f32().ok()).expect("checked by the caller");
    let at = |step: f32| -> Array<f32> {
        Array::new(x.shape(), x.data().iter().zip(direction).map(|(x, d)| x + step * d).collect())
    };
    let outputs = |x: &Array<f32>| -> Vec<Tensor> {
        let mut moved = inputs.to_vec();
        moved[input] = Some(Tensor::F32(x.clone()));
        run(operator, &moved.iter().map(Option::as_ref).collect::<Vec<_>>(), seeds.len()).outputs
    };
    let (above, below) = (at(step), at(-step));
    let mut found = 0.0;
    for ((seed, above), below) in seeds.iter().zip(outputs(&above)).zip(outputs(&below)) {
        let Some(seed) = seed else { continue };
        let (above, below) = (above.f32().expect("as before"), below.f32().expect("as before"));
        for ((seed, above), below) in seed.data().iter().zip(above.data()).zip(below.data()) {
            found += f64::from(*seed) * (f64::from(*above) - f64::from(*below));
        }
    }
    let moved = above.data().iter().zip(below.data()).map(|(above, below)| f64::from(*above) - f64::from(*below));
    (found, moved.zip(gradient.data()).map(|(moved, g)| moved * f64::from(*g)).sum())
}

#[track_caller]
fn run(operator: &dyn Operator, inputs: &[Option<&Tensor>], outputs: usize) -> Forward {
    let forward = operator.forward(inputs, outputs).unwrap_or_else(|why| panic!("forward: {why}"));
    assert!(forward.outputs.len() >= outputs, "{} outputs instead of {outputs}", forward.outputs.len());
    forward
}

#[track_caller]
fn backward(
    operator: &dyn Operator,
    inputs: &[Option<&Tensor>],
    forward: &Forward,
    seeds: &[Option<Array<f32>>],
    wants: Vec<bool>,
) -> Vec<Option<Array<f32>>> {
    let pass = Backward {
        inputs: inputs.to_vec(),
        outputs: forward.outputs.iter().map(Some).collect(),
        saved: forward.saved.as_deref(),
        gradients: seeds.to_vec(),
        wants,
    };
    let gradients = operator.backward(&pass).unwrap_or_else(|why| panic!("backward: {why:?}"));
    assert_eq!(gradients.len(), inputs.len(), "one gradient for each input");
    gradients
}

#[test]
fn a_right_gradient_passes() {
    check(&*operator("Relu", 17, vec![]), &[apart(1, &[3, 5])], 1, &[0]);
}

/// A square whose gradient is wrong by `self.0` in one element in ten.
#[derive(Debug)]
struct Wrong(f32);

impl Operator for Wrong {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        Ok(Forward::floats(inputs[0].expect("given").f32()?.map(|x| x * x)))
    }

    fn backward(&self, pass: &Backward) -> super::InputGradients {
        let (x, seed) = (pass.input(0)?.f32()?, pass.seed()?);
        let off = |index: usize| if index % 10 == 3 { 1.0 + self.0 } else { 1.0 };
        let gradient = (0..x.len()).map(|index| 2.0 * x.data()[index] * seed.data()[index] * off(index)).collect();
        pass.only_first(Array::new(x.shape(), gradient))
    }
}

#[test]
fn a_square_passes_where_it_is_right() {
    check(&Wrong(0.0), &[random(1, &[40])], 1, &[0]);
    check(&Wrong(0.0), &[random(1, &[4000])], 1, &[0]);
}

#[test]
#[should_panic(expected = "along a direction")]
fn a_gradient_that_is_slightly_wrong_is_found() {
    check(&Wrong(0.03), &[random(1, &[4000])], 1, &[0]);
}

#[test]
#[should_panic(expected = "element")]
fn a_single_wrong_element_is_found() {
    let values: Vec<f32> = (0..40).map(|index| if index % 10 == 3 { 0.05 } else { 10.0 }).collect();
    check(&Wrong(-1.0), &[floats(&[40], &values)], 1, &[0]);
}
