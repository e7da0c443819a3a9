//! Compares layers with the formulas of ONNX's specification, in f64.

use proptest::prelude::*;

use super::*;
use crate::{Isa, matvec::Format, testing::Numbers};

#[derive(Clone, Copy, Debug, PartialEq)]
enum CellKind {
    Lstm,
    GruResetFirst,
    GruResetLast,
}

#[derive(Clone, Debug)]
struct Case {
    kind: CellKind,
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    bias: bool,
    backwards: bool,
    batch_first: bool,
    format: Format,
    skip_below: f32,
    seed: u64,
}

struct Values {
    w: Vec<f32>,
    r: Vec<f32>,
    b: Option<Vec<f32>>,
    x: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
}

impl Case {
    fn gates(&self) -> usize {
        if self.kind == CellKind::Lstm { 4 } else { 3 }
    }

    fn values(&self) -> Values {
        let mut numbers = Numbers::new(self.seed);
        let height = if let Format::Blocks(height) = self.format { height } else { 1 };
        let rows = self.gates() * self.hidden;
        Values {
            w: numbers.matrix(rows, self.input, height, 6),
            r: numbers.matrix(rows, self.hidden, height, 6),
            b: self.bias.then(|| numbers.some(2 * rows)),
            x: numbers.some(self.steps * self.batch * self.input),
            h: numbers.some(self.batch * self.hidden),
            c: numbers.some(self.batch * self.hidden),
        }
    }

    fn shape(&self, width: usize) -> SequenceShape {
        if self.batch_first {
            SequenceShape::batch_first(self.steps, self.batch, width)
        } else {
            SequenceShape::steps_first(self.steps, self.batch, width)
        }
    }

    /// Y, Y_h, Y_c.
    fn found(&self, isa: Isa, values: &Values) -> [Vec<f32>; 3] {
        let (gates, hidden) = (self.gates(), self.hidden);
        let product =
            |rows: usize, columns: usize, values: &[f32]| PackedMatrix::new(isa, self.format, rows, columns, values);
        let inputs = product(gates * hidden, self.input, &values.w);
        let (mut h, mut c) = (values.h.clone(), values.c.clone());
        let mut y = vec![9.0; self.steps * self.batch * hidden];
        let sequence = Sequence {
            x: &values.x,
            x_shape: self.shape(self.input),
            backwards: self.backwards,
            y: Some((&mut y, self.shape(hidden))),
        };
        let biases = values.b.as_deref();
        let mut scratch = Scratch::default();
        match self.kind {
            CellKind::Lstm => {
                let layer = Lstm::new(inputs, product(4 * hidden, hidden, &values.r), biases).skipping(self.skip_below);
                layer.run(sequence, &mut h, &mut c, &mut scratch);
            }
            CellKind::GruResetFirst => {
                let (gates, last) = values.r.split_at(2 * hidden * hidden);
                let recurrence = GruProducts::ResetFirst {
                    gates: product(2 * hidden, hidden, gates),
                    hidden: product(hidden, hidden, last),
                };
                Gru::new(inputs, recurrence, biases).run(sequence, &mut h, &mut scratch);
            }
            CellKind::GruResetLast => {
                let recurrence = GruProducts::ResetLast(product(3 * hidden, hidden, &values.r));
                Gru::new(inputs, recurrence, biases).run(sequence, &mut h, &mut scratch);
            }
        }
        [y, h, c]
    }

    fn expected(&self, values: &Values) -> [Vec<f64>; 3] {
        let (gates, hidden, input) = (self.gates(), self.hidden, self.input);
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
        let (mut h, mut c) = (wide(&values.h), wide(&values.c));
        let mut y = vec![9.0; self.steps * self.batch * hidden];
        let biases = values.b.clone().unwrap_or_else(|| vec![0.0; 2 * gates * hidden]);
        let dot = |row: &[f32], x: &[f64]| row.iter().zip(x).map(|(row, x)| f64::from(*row) * x).sum::<f64>();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for taken in 0..self.steps {
            let step = if self.backwards { self.steps - 1 - taken } else { taken };
            for sample in 0..self.batch {
                let shape = self.shape(input);
                let x = wide(&values.x[step * shape.step_stride + sample * shape.batch_stride..][..input]);
                let state = h[sample * hidden..][..hidden].to_vec();
                // W x + Wb and R h + Rb of one gate and unit.
                let row = |gate: usize, unit: usize| gate * hidden + unit;
                let of_x = |gate, unit| {
                    let row = row(gate, unit);
                    dot(&values.w[row * input..][..input], &x) + f64::from(biases[row])
                };
                let of_h = |gate, unit, h: &[f64]| {
                    let row = row(gate, unit);
                    dot(&values.r[row * hidden..][..hidden], h) + f64::from(biases[gates * hidden + row])
                };
                let both = |gate, unit| of_x(gate, unit) + of_h(gate, unit, &state);
                let reset: Vec<f64> = (0..hidden).map(|unit| sigmoid(both(1, unit))).collect();
                let reset_state: Vec<f64> = state.iter().zip(&reset).map(|(state, reset)| state * reset).collect();
                for unit in 0..hidden {
                    let place = sample * hidden + unit;
                    h[place] = if self.kind == CellKind::Lstm {
                        c[place] = sigmoid(both(2, unit)) * c[place] + sigmoid(both(0, unit)) * both(3, unit).tanh();
                        sigmoid(both(1, unit)) * c[place].tanh()
                    } else {
                        let candidate = if self.kind == CellKind::GruResetFirst {
                            of_x(2, unit) + of_h(2, unit, &reset_state)
                        } else {
                            of_x(2, unit) + reset[unit] * of_h(2, unit, &state)
                        };
                        let update = sigmoid(both(0, unit));
                        (1.0 - update) * candidate.tanh() + update * state[unit]
                    };
                    let shape = self.shape(hidden);
                    y[step * shape.step_stride + sample * shape.batch_stride + unit] = h[place];
                }
            }
        }
        [y, h, c]
    }

    #[track_caller]
    fn check(&self) {
        let values = self.values();
        let expected = self.expected(&values);
        for isa in Isa::available() {
            for (found, expected) in self.found(isa, &values).iter().zip(&expected) {
                for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error <= 1e-5 + f64::from(self.skip_below),
                        "{} {self:?}: {index} is {found}, not {expected}",
                        isa.name()
                    );
                }
            }
        }
    }
}

/// More steps than are multiplied at once, with a batch and without.
#[test]
fn long_sequences() {
    let case = Case {
        kind: CellKind::Lstm,
        steps: 117,
        batch: 1,
        input: 12,
        hidden: 24,
        bias: true,
        backwards: false,
        batch_first: false,
        format: Format::Dense,
        skip_below: 0.0,
        seed: 1,
    };
    case.check();
    for kind in [CellKind::Lstm, CellKind::GruResetFirst, CellKind::GruResetLast] {
        for backwards in [false, true] {
            Case { kind, backwards, batch: 3, batch_first: true, format: Format::Blocks(8), ..case.clone() }.check();
        }
    }
}

/// With a tiny threshold the result is the same, with a small one nearly.
#[test]
fn small_changes_may_be_left_out() {
    for (batch, skip_below) in [(1, 1e-7), (2, 1e-7), (1, 2e-2)] {
        Case {
            kind: CellKind::Lstm,
            steps: 30,
            batch,
            input: 5,
            hidden: 20,
            bias: true,
            backwards: false,
            batch_first: false,
            format: Format::Dense,
            skip_below,
            seed: 2,
        }
        .check();
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let kinds = prop_oneof![Just(CellKind::Lstm), Just(CellKind::GruResetFirst), Just(CellKind::GruResetLast)];
    let formats = proptest::sample::select(Format::ALL.to_vec());
    let sizes = (1usize..8, 1usize..4, 1usize..20, 1usize..40);
    (kinds, sizes, any::<[bool; 3]>(), formats, any::<u64>()).prop_map(|(kind, sizes, switches, format, seed)| {
        let (steps, batch, input, hidden) = sizes;
        let [bias, backwards, batch_first] = switches;
        Case { kind, steps, batch, input, hidden, bias, backwards, batch_first, format, skip_below: 0.0, seed }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn every_layer_is_its_formula(case in cases()) {
        case.check();
    }
}
