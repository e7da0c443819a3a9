//! LSTM, GRU and RNN, in both directions, over sequences of one length or of several.
//!
//! Everything that does not depend on the step before (the projection of the inputs, its gradient, the gradients of
//! weights) is one product over all steps; only the recurrence is a small product for each step. Steps are numbered in
//! the order of running: a reversed sequence begins at its own end. Peepholes, clipping, other activations and the
//! layout with the batch first are refused by name.

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, boxed,
    product::{Matrix, Store, Threads, multiply},
    support::*,
};
use crate::{Array, Tensor};

mod cell;

use cell::{Cell, Trace};

pub const FAMILY: &Family = &[
    ("LSTM", |node| boxed(Recurrent::new(node, Cell::Lstm)?)),
    ("GRU", |node| {
        let linear_before_reset = node.is_set("linear_before_reset");
        boxed(Recurrent::new(node, Cell::Gru { linear_before_reset })?)
    }),
    ("RNN", |node| boxed(Recurrent::new(node, Cell::Rnn { relu: false })?)),
];

#[derive(Debug)]
struct Recurrent {
    cell: Cell,
    /// Which of the directions run backwards.
    reversed: Vec<bool>,
    hidden: Option<i64>,
}

/// The lengths of all axes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    /// Of all gates together.
    gates: usize,
}

/// The inputs of a node, checked.
struct Parts<'a> {
    sizes: Sizes,
    x: &'a [f32],
    w: &'a [f32],
    r: &'a [f32],
    b: Option<&'a [f32]>,
    lengths: Option<Vec<usize>>,
    hidden: Option<&'a [f32]>,
    cell: Option<&'a [f32]>,
}

impl Recurrent {
    fn new(node: &Attributes, mut cell: Cell) -> Result<Recurrent, String> {
        let reversed = match node.text("direction").unwrap_or("forward") {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("there is no direction `{other}`")),
        };
        for (name, plain) in [("layout", 0), ("input_forget", 0)] {
            if node.int(name, plain) != plain {
                return Err(format!("`{name}` = {} is not known here", node.int(name, plain)));
            }
        }
        if node.attr("clip").is_some() {
            return Err("`clip` is not known here".into());
        }
        if let Some(activations) = node.attr("activations").filter(|attribute| !attribute.strings.is_empty()) {
            let named: Vec<String> =
                activations.strings.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect();
            if matches!(cell, Cell::Rnn { .. }) && named.iter().all(|name| name == "relu") {
                cell = Cell::Rnn { relu: true };
            } else {
                let plain: &[&str] = match cell {
                    Cell::Lstm => &["sigmoid", "tanh", "tanh"],
                    Cell::Gru { .. } => &["sigmoid", "tanh"],
                    Cell::Rnn { .. } => &["tanh"],
                };
                if let Some((name, _)) = named.iter().zip(plain.iter().cycle()).find(|(name, plain)| name != *plain) {
                    return Err(format!("the activation `{name}` in that place is not known here"));
                }
            }
        }
        Ok(Recurrent { cell, reversed, hidden: node.attr("hidden_size").and_then(|attribute| attribute.i) })
    }

    fn parts<'a>(&self, inputs: &[Option<&'a Tensor>]) -> Result<Parts<'a>, String> {
        let array = |index| input(inputs, index)?.f32();
        let (x, w, r) = (array(0)?, array(1)?, array(2)?);
        let [steps, batch, width] = three(x.shape(), "X")?;
        let [directions, gates, _] = three(w.shape(), "W")?;
        let [_, _, hidden] = three(r.shape(), "R")?;
        let of_gates = self.cell.gates();
        let fits = |name: &str, found: &[usize], required: &[usize]| {
            if found == required {
                Ok(())
            } else {
                Err(format!("{name} has shape {found:?}, {required:?} is required"))
            }
        };
        if hidden == 0 || directions != self.reversed.len() {
            return Err(format!("weights of shape {:?} are not of {} directions", w.shape(), self.reversed.len()));
        }
        if self.hidden.is_some_and(|attribute| attribute != hidden as i64) {
            return Err(format!(
                "`hidden_size` = {} does not fit R of shape {:?}",
                self.hidden.unwrap_or(0),
                r.shape()
            ));
        }
        fits("W", w.shape(), &[directions, of_gates.saturating_mul(hidden), width])?;
        fits("R", r.shape(), &[directions, gates, hidden])?;
        let float = |index, name, required: &[usize]| match optional(inputs, index) {
            None => Ok(None),
            Some(tensor) => {
                let array = tensor.f32()?;
                fits(name, array.shape(), required)?;
                Ok::<_, String>(Some(array.data()))
            }
        };
        let lengths = match optional(inputs, 4) {
            None => None,
            Some(lengths) => {
                let lengths = lengths.i64()?;
                fits("sequence_lens", lengths.shape(), &[batch])?;
                let length = |len: &i64| {
                    let len = usize::try_from(*len).ok().filter(|len| *len <= steps);
                    len.ok_or_else(|| format!("a sequence length is not within its {steps} steps"))
                };
                Some(lengths.data().iter().map(length).collect::<Result<_, _>>()?)
            }
        };
        if optional(inputs, 7).is_some() {
            return Err("peepholes (input P) are not known here".into());
        }
        elements(&[steps + 1, batch, gates])?;
        elements(&[steps, batch, width])?;
        elements(&[steps, directions, batch, hidden])?;
        Ok(Parts {
            sizes: Sizes { steps, batch, input: width, hidden, gates },
            x: x.data(),
            w: w.data(),
            r: r.data(),
            b: float(3, "B", &[directions, 2 * gates])?,
            lengths,
            hidden: float(5, "initial_h", &[directions, batch, hidden])?,
            cell: float(6, "initial_c", &[directions, batch, hidden])?,
        })
    }
}

fn three(shape: &[usize], name: &str) -> Result<[usize; 3], String> {
    shape.try_into().map_err(|_| format!("{name} has shape {shape:?}, three axes are required"))
}

impl Parts<'_> {
    /// The time at which a sequence of the batch is at a step; `None` where it is over.
    fn time(&self, step: usize, sequence: usize, reversed: bool) -> Option<usize> {
        let len = self.lengths.as_ref().map_or(self.sizes.steps, |lengths| lengths[sequence]);
        (step < len).then(|| if reversed { len - 1 - step } else { step })
    }
}

/// The part of one direction in a tensor whose first axis is directions.
fn of(all: &[f32], direction: usize, len: usize) -> &[f32] {
    &all[direction * len..][..len]
}

impl Operator for Recurrent {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let parts = self.parts(inputs)?;
        let Sizes { steps, batch, input: width, hidden, gates } = parts.sizes;
        let directions = self.reversed.len();
        let mut y = vec![0.0; steps * directions * batch * hidden];
        let (mut last_hidden, mut last_cell, mut traces) = (Vec::new(), Vec::new(), Vec::new());
        for (direction, reversed) in self.reversed.iter().enumerate() {
            let (w, r) = (of(parts.w, direction, gates * width), of(parts.r, direction, gates * hidden));
            let b = parts.b.map(|b| of(b, direction, 2 * gates));
            let mut projected = vec![0.0; steps * batch * gates];
            let (x, w) = (Matrix::new(parts.x, steps * batch, width), Matrix::new(w, gates, width));
            multiply(&mut projected, gates, x, w.transposed(), 1.0, Store::Overwrite, Threads::All);
            let [first_hidden, first_cell] =
                [parts.hidden, parts.cell].map(|all| all.map(|all| of(all, direction, batch * hidden)));
            let mut trace = Trace::new(parts.sizes, self.cell, first_hidden, first_cell);
            for step in 0..steps {
                let times: Vec<Option<usize>> = (0..batch).map(|at| parts.time(step, at, *reversed)).collect();
                self.cell.advance(&mut trace, step, &times, &projected, r, b);
                let now = trace.hidden(step + 1);
                for (sequence, time) in times.iter().enumerate() {
                    if let Some(time) = time {
                        let row = ((time * directions + direction) * batch + sequence) * hidden;
                        y[row..row + hidden].copy_from_slice(&now[sequence * hidden..][..hidden]);
                    }
                }
            }
            last_hidden.extend_from_slice(trace.hidden(steps));
            last_cell.extend_from_slice(trace.cell(steps));
            traces.push(trace);
        }
        let floats = |shape: &[usize], data| Tensor::F32(Array::new(shape, data));
        let mut outputs =
            vec![floats(&[steps, directions, batch, hidden], y), floats(&[directions, batch, hidden], last_hidden)];
        if matches!(self.cell, Cell::Lstm) {
            outputs.push(floats(&[directions, batch, hidden], last_cell));
        }
        Ok(Forward { outputs, saved: Some(Box::new(traces)) })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        self.gradients(pass)
    }
}

impl Recurrent {
    fn gradients(&self, pass: &Backward) -> InputGradients {
        let parts = self.parts(&pass.inputs)?;
        let traces = pass.saved.and_then(|saved| saved.downcast_ref::<Vec<Trace>>()).ok_or("its run was not kept")?;
        let Sizes { steps, batch, input: width, hidden, gates } = parts.sizes;
        let directions = self.reversed.len();
        let seed = |index: usize| pass.gradients.get(index).and_then(Option::as_ref).map(Array::data);
        let (by_y, by_hidden, by_cell) = (seed(0), seed(1), seed(2));
        let mut x_gradient = vec![0.0; parts.x.len()];
        let (mut w_gradient, mut r_gradient) = (vec![0.0; parts.w.len()], vec![0.0; parts.r.len()]);
        let mut b_gradient = Vec::new();
        let (mut hidden_gradient, mut cell_gradient) = (Vec::new(), Vec::new());
        for (direction, reversed) in self.reversed.iter().enumerate() {
            let trace = &traces[direction];
            let (w, r) = (of(parts.w, direction, gates * width), of(parts.r, direction, gates * hidden));
            let state = |all: Option<&[f32]>| match all {
                Some(all) => of(all, direction, batch * hidden).to_vec(),
                None => vec![0.0; batch * hidden],
            };
            let mut flow = cell::Flow::new(parts.sizes, self.cell, state(by_hidden), state(by_cell));
            // By time, for the product with the inputs.
            let mut by_time = vec![0.0; steps * batch * gates];
            for step in (0..steps).rev() {
                let times: Vec<Option<usize>> = (0..batch).map(|at| parts.time(step, at, *reversed)).collect();
                for (sequence, time) in times.iter().enumerate() {
                    if let (Some(time), Some(by_y)) = (time, by_y) {
                        let row = ((time * directions + direction) * batch + sequence) * hidden;
                        let sums = &mut flow.hidden[sequence * hidden..][..hidden];
                        sums.iter_mut().zip(&by_y[row..row + hidden]).for_each(|(sum, g)| *sum += g);
                    }
                }
                self.cell.retreat(&mut flow, trace, step, &times, r);
                for (sequence, time) in times.iter().enumerate() {
                    if let Some(time) = time {
                        let found = &flow.gates(step)[sequence * gates..][..gates];
                        by_time[(time * batch + sequence) * gates..][..gates].copy_from_slice(found);
                    }
                }
            }
            let rows = steps * batch;
            let grads = Matrix::new(&by_time, rows, gates);
            if pass.wants[0] {
                let w = Matrix::new(w, gates, width);
                multiply(&mut x_gradient, width, grads, w, 1.0, Store::Add, Threads::All);
            }
            if pass.wants[1] {
                let into = &mut w_gradient[direction * gates * width..][..gates * width];
                let x = Matrix::new(parts.x, rows, width);
                multiply(into, width, grads.transposed(), x, 1.0, Store::Overwrite, Threads::All);
            }
            if pass.wants[2] {
                self.cell.by_recurrent_weights(
                    &flow,
                    trace,
                    &mut r_gradient[direction * gates * hidden..][..gates * hidden],
                );
            }
            b_gradient.extend(self.cell.by_biases(&flow));
            hidden_gradient.extend(flow.hidden);
            cell_gradient.extend(flow.cell);
        }
        let found = [
            Some(x_gradient),
            Some(w_gradient),
            Some(r_gradient),
            Some(b_gradient),
            None,
            Some(hidden_gradient),
            Some(cell_gradient),
        ];
        let each = pass.inputs.iter().zip(&pass.wants).zip(found.into_iter().chain(std::iter::repeat(None)));
        Ok(each
            .map(|((input, required), found)| {
                let shape = input.filter(|_| *required)?.shape();
                Some(Array::new(shape, found?))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::*, *};

    const STEPS: usize = 3;
    const BATCH: usize = 2;
    const INPUT: usize = 4;
    const HIDDEN: usize = 3;

    fn inputs(gates: usize, directions: usize, lengths: Option<&[i64]>, cell: bool) -> Vec<Option<Tensor>> {
        let (h, d) = (HIDDEN, directions);
        let mut all = vec![
            Some(random(1, &[STEPS, BATCH, INPUT])),
            Some(random(2, &[d, gates * h, INPUT])),
            Some(random(3, &[d, gates * h, h])),
            Some(random(4, &[d, 2 * gates * h])),
            lengths.map(|lengths| ints(&[BATCH], lengths)),
            Some(random(5, &[d, BATCH, h])),
        ];
        if cell {
            all.push(Some(random(6, &[d, BATCH, h])));
        }
        all
    }

    fn texts(name: &str, values: &[&str]) -> espalier_onnx::AttributeProto {
        let strings = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
        espalier_onnx::AttributeProto { name: Some(name.into()), strings, ..Default::default() }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for direction in ["forward", "reverse", "bidirectional"] {
            let directions = if direction == "bidirectional" { 2 } else { 1 };
            for lengths in [None, Some(&[3, 2][..]), Some(&[0, 1][..])] {
                let of = |op_type, more: Vec<_>| {
                    operator(op_type, 14, [vec![string("direction", direction), int("hidden_size", 3)], more].concat())
                };
                let lstm = inputs(4, directions, lengths, true);
                check_optional(&*of("LSTM", vec![]), &lstm, 3, &[0, 1, 2, 3, 5, 6]);
                for linear in [0, 1] {
                    let gru = of("GRU", vec![int("linear_before_reset", linear)]);
                    check_optional(&*gru, &inputs(3, directions, lengths, false), 2, &[0, 1, 2, 3, 5]);
                }
                check_optional(&*of("RNN", vec![]), &inputs(1, directions, lengths, false), 2, &[0, 1, 2, 3, 5]);
            }
        }
        // Without anything optional.
        check_optional(&*operator("LSTM", 14, vec![]), &inputs(4, 1, None, true)[..3], 3, &[0, 1, 2]);
        // Away from the kink: every sum is positive.
        let positive = [
            between(1, &[2, 1, 2], 0.5, 1.0),
            between(2, &[1, 3, 2], 0.5, 1.0),
            between(3, &[1, 3, 3], 0.2, 0.5),
            between(4, &[1, 6], 0.5, 1.0),
        ];
        check(&*operator("RNN", 14, vec![texts("activations", &["Relu"])]), &positive, 2, &[0, 1, 2, 3]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refused = |attributes| try_operator("LSTM", 14, attributes).expect_err("an error");
        assert!(refused(vec![int("layout", 1)]).contains("layout"));
        assert!(refused(vec![float("clip", 1.0)]).contains("clip"));
        assert!(refused(vec![texts("activations", &["Sigmoid", "Relu", "Tanh"])]).contains("relu"));
        let mut with_peepholes = inputs(4, 1, None, true);
        with_peepholes.push(Some(random(7, &[1, 9])));
        let references: Vec<_> = with_peepholes.iter().map(Option::as_ref).collect();
        let why = operator("LSTM", 14, vec![]).forward(&references, 1).err().expect("an error");
        assert!(why.contains("peepholes"), "{why}");
    }

    #[test]
    fn misfits_are_refused_and_nothing_is_a_sequence() {
        let lstm = operator("LSTM", 14, vec![]);
        let all = inputs(4, 1, None, true);
        for index in [0, 1, 2, 3, 5, 6] {
            for shape in [&[][..], &[2, 2], &[7, 7, 7], &[0, 0, 0]] {
                let mut wrong = all.clone();
                wrong[index] = Some(random(1, shape));
                let references: Vec<_> = wrong.iter().map(Option::as_ref).collect();
                assert!(lstm.forward(&references, 1).is_err(), "input {index} of shape {shape:?}");
            }
        }
        let empty = [random(1, &[0, 2, 4]), random(2, &[1, 12, 4]), random(3, &[1, 12, 3])];
        assert_eq!(forward(&*lstm, &empty, 3)[0].shape(), [0, 1, 2, 3]);
        for (op, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
            for linear in [0, 1] {
                let cell = operator(op, 14, vec![int("linear_before_reset", linear)]);
                let nobody = [random(1, &[2, 0, 4]), random(2, &[1, gates * 3, 4]), random(3, &[1, gates * 3, 3])];
                assert_eq!(forward(&*cell, &nobody, 2)[0].shape(), [2, 1, 0, 3]);
                check(&*cell, &nobody, 2, &[0, 1, 2]);
            }
        }
    }
}
