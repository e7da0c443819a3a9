//! One step of each recurrent cell, forwards and backwards, for a whole batch in one direction.

use super::{
    super::{elementwise::sigmoid, strided::sum},
    Matrix, Sizes, Store, Threads, multiply,
};

#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// Gates in the order input, output, forget, cell.
    Lstm,
    /// Gates in the order update, reset, hidden.
    Gru {
        /// The reset gate is applied after the product with the recurrent weights, not before.
        linear_before_reset: bool,
    },
    Rnn {
        relu: bool,
    },
}

/// What a run of one direction keeps for its gradient. States are those before the first step and after each.
#[derive(Debug)]
pub struct Trace {
    sizes: Sizes,
    hidden: Vec<f32>,
    /// Empty but for LSTM.
    cell: Vec<f32>,
    /// Gates after their activation, by step.
    gates: Vec<f32>,
    /// Of GRU, by step: the recurrent product that the reset gate scales, or, where the reset comes first, the scaled
    /// states that go into the product.
    inner: Vec<f32>,
}

impl Trace {
    pub fn new(sizes: Sizes, kind: Cell, hidden: Option<&[f32]>, cell: Option<&[f32]>) -> Trace {
        let Sizes { steps, batch, hidden: width, gates, .. } = sizes;
        let states = |first: Option<&[f32]>| {
            let mut states = vec![0.0; (steps + 1) * batch * width];
            if let Some(first) = first {
                states[..batch * width].copy_from_slice(first);
            }
            states
        };
        Trace {
            sizes,
            hidden: states(hidden),
            cell: if matches!(kind, Cell::Lstm) { states(cell) } else { Vec::new() },
            gates: vec![0.0; steps * batch * gates],
            inner: if matches!(kind, Cell::Gru { .. }) { vec![0.0; steps * batch * width] } else { Vec::new() },
        }
    }

    fn state_len(&self) -> usize {
        self.sizes.batch * self.sizes.hidden
    }

    pub fn hidden(&self, step: usize) -> &[f32] {
        &self.hidden[step * self.state_len()..][..self.state_len()]
    }

    pub fn cell(&self, step: usize) -> &[f32] {
        if self.cell.is_empty() { &[] } else { &self.cell[step * self.state_len()..][..self.state_len()] }
    }
}

/// Gradients on their way back through one direction.
pub struct Flow {
    sizes: Sizes,
    /// Of the states after the current step; in the end, of the initial ones.
    pub hidden: Vec<f32>,
    pub cell: Vec<f32>,
    /// Of gates before their activation, by step.
    gates: Vec<f32>,
    /// Of the recurrent product of GRU's last gate, by step, where it is not that of the gate itself.
    inner: Vec<f32>,
}

impl Flow {
    pub fn new(sizes: Sizes, kind: Cell, hidden: Vec<f32>, cell: Vec<f32>) -> Flow {
        let rows = sizes.steps * sizes.batch;
        let inner = if matches!(kind, Cell::Gru { linear_before_reset: true }) { rows * sizes.hidden } else { 0 };
        Flow { sizes, hidden, cell, gates: vec![0.0; rows * sizes.gates], inner: vec![0.0; inner] }
    }

    pub fn gates(&self, step: usize) -> &[f32] {
        let len = self.sizes.batch * self.sizes.gates;
        &self.gates[step * len..][..len]
    }
}

/// Adds to GRU's candidate gates what passes the reset gate, for a whole batch. `weights` are the last gate's; `bias`
/// is added before the reset gate.
fn candidates(
    sizes: Sizes,
    linear_before_reset: bool,
    gates: &mut [f32],
    inner: &mut [f32],
    before: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
) {
    let Sizes { batch, hidden: width, gates: all, .. } = sizes;
    let direct = 2 * width;
    for row in gates.chunks_exact_mut(all) {
        row[..direct].iter_mut().for_each(|gate| *gate = sigmoid(*gate));
    }
    let weights = Matrix::new(weights, width, width).transposed();
    if linear_before_reset {
        for row in inner.chunks_exact_mut(width) {
            match bias {
                Some(bias) => row.copy_from_slice(bias),
                None => row.fill(0.0),
            }
        }
        multiply(inner, width, Matrix::new(before, batch, width), weights, 1.0, Store::Add, Threads::All);
        for (at, inner) in inner.iter().enumerate() {
            let row = at / width * all + at % width;
            gates[row + direct] += gates[row + width] * inner;
        }
    } else {
        for (at, inner) in inner.iter_mut().enumerate() {
            *inner = gates[at / width * all + width + at % width] * before[at];
        }
        let inner = Matrix::new(inner, batch, width);
        multiply(&mut gates[direct..], all, inner, weights, 1.0, Store::Add, Threads::All);
    }
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn { .. } => 1,
        }
    }

    /// How many gates take a product with the states as they are; GRU's last one comes after the reset gate.
    fn direct(self) -> usize {
        if matches!(self, Cell::Gru { .. }) { 2 } else { self.gates() }
    }

    /// One step: `projected` are the products of all inputs with their weights, by time. `times` say at which time each
    /// sequence of the batch is; `None` for one that is over, whose state stays.
    pub fn advance(
        self,
        trace: &mut Trace,
        step: usize,
        times: &[Option<usize>],
        projected: &[f32],
        r: &[f32],
        b: Option<&[f32]>,
    ) {
        let Sizes { batch, hidden: width, gates: all, .. } = trace.sizes;
        if batch == 0 {
            return;
        }
        let state = batch * width;
        let direct = self.direct() * width;
        let (before, after) = trace.hidden.split_at_mut((step + 1) * state);
        let (before, after) = (&before[step * state..], &mut after[..state]);
        let gates = &mut trace.gates[step * batch * all..][..batch * all];
        let linear = matches!(self, Cell::Gru { linear_before_reset: true });
        for (sequence, time) in times.iter().enumerate() {
            let row = &mut gates[sequence * all..][..all];
            if let Some(time) = time {
                row.copy_from_slice(&projected[(time * batch + sequence) * all..][..all]);
                if let Some(b) = b {
                    row.iter_mut().zip(&b[..all]).for_each(|(gate, b)| *gate += b);
                    // Behind the reset gate the recurrent bias is added with the product.
                    let with_bias = if linear { direct } else { all };
                    row[..with_bias].iter_mut().zip(&b[all..]).for_each(|(gate, b)| *gate += b);
                }
            }
        }
        let states = Matrix::new(before, batch, width);
        let weights = Matrix::new(&r[..direct * width], direct, width);
        multiply(gates, all, states, weights.transposed(), 1.0, Store::Add, Threads::All);
        if let Cell::Gru { .. } = self {
            let inner = &mut trace.inner[step * state..][..state];
            let bias = b.filter(|_| linear).map(|b| &b[all + direct..]);
            candidates(trace.sizes, linear, gates, inner, before, &r[direct * width..], bias);
        }
        let (old, new) = match self {
            Cell::Lstm => {
                let (old, new) = trace.cell.split_at_mut((step + 1) * state);
                (&old[step * state..], &mut new[..state])
            }
            _ => (&[][..], &mut [][..]),
        };
        let rows = gates.chunks_exact_mut(all).zip(before.chunks_exact(width)).zip(after.chunks_exact_mut(width));
        for (sequence, ((row, before), after)) in rows.enumerate() {
            let span = if self.gates() == 4 { sequence * width..(sequence + 1) * width } else { 0..0 };
            let (old, new) = (&old[span.clone()], &mut new[span]);
            if times[sequence].is_some() {
                self.close(row, (before, after), (old, new));
            } else {
                after.copy_from_slice(before);
                new.copy_from_slice(old);
            }
        }
    }

    /// Activates the gates of one sequence, and makes the states after the step of them: hidden states, and of an LSTM
    /// the cell's.
    fn close(self, row: &mut [f32], (before, after): (&[f32], &mut [f32]), (old, new): (&[f32], &mut [f32])) {
        let width = before.len();
        match self {
            Cell::Lstm => {
                row[..3 * width].iter_mut().for_each(|gate| *gate = sigmoid(*gate));
                row[3 * width..].iter_mut().for_each(|gate| *gate = gate.tanh());
                for unit in 0..width {
                    let [input, output, forget, candidate] = [0, 1, 2, 3].map(|gate| row[gate * width + unit]);
                    new[unit] = forget * old[unit] + input * candidate;
                    after[unit] = output * new[unit].tanh();
                }
            }
            Cell::Gru { .. } => {
                for unit in 0..width {
                    let (update, candidate) = (row[unit], row[2 * width + unit].tanh());
                    row[2 * width + unit] = candidate;
                    after[unit] = (1.0 - update) * candidate + update * before[unit];
                }
            }
            Cell::Rnn { relu } => {
                row.iter_mut().for_each(|gate| *gate = if relu { gate.max(0.0) } else { gate.tanh() });
                after.copy_from_slice(row);
            }
        }
    }

    /// One step back: from the gradients of the states after a step to those before it. Those of the gates are kept.
    pub fn retreat(self, flow: &mut Flow, trace: &Trace, step: usize, times: &[Option<usize>], r: &[f32]) {
        let Sizes { batch, hidden: width, gates: all, .. } = trace.sizes;
        if batch == 0 {
            return;
        }
        let state = batch * width;
        let before = trace.hidden(step);
        let gates = &trace.gates[step * batch * all..][..batch * all];
        let by_gates = &mut flow.gates[step * batch * all..][..batch * all];
        let mut earlier = vec![0.0; state];
        let running = |sequence: &usize| times[*sequence].is_some();
        for sequence in (0..batch).filter(|sequence| !running(sequence)) {
            earlier[sequence * width..][..width].copy_from_slice(&flow.hidden[sequence * width..][..width]);
        }
        for sequence in (0..batch).filter(running) {
            let (row, by_row) = (&gates[sequence * all..][..all], &mut by_gates[sequence * all..][..all]);
            for unit in 0..width {
                let at = sequence * width + unit;
                let g = flow.hidden[at];
                match self {
                    Cell::Lstm => {
                        let [input, output, forget, candidate] = [0, 1, 2, 3].map(|gate| row[gate * width + unit]);
                        let (old, squashed) = (trace.cell(step)[at], trace.cell(step + 1)[at].tanh());
                        let by_cell = flow.cell[at] + g * output * (1.0 - squashed * squashed);
                        by_row[unit] = by_cell * candidate * input * (1.0 - input);
                        by_row[width + unit] = g * squashed * output * (1.0 - output);
                        by_row[2 * width + unit] = by_cell * old * forget * (1.0 - forget);
                        by_row[3 * width + unit] = by_cell * input * (1.0 - candidate * candidate);
                        flow.cell[at] = by_cell * forget;
                    }
                    Cell::Gru { .. } => {
                        let (update, candidate) = (row[unit], row[2 * width + unit]);
                        by_row[unit] = g * (before[at] - candidate) * update * (1.0 - update);
                        by_row[2 * width + unit] = g * (1.0 - update) * (1.0 - candidate * candidate);
                        earlier[at] = g * update;
                    }
                    Cell::Rnn { relu: false } => by_row[unit] = g * (1.0 - row[unit] * row[unit]),
                    Cell::Rnn { relu: true } => by_row[unit] = if row[unit] > 0.0 { g } else { 0.0 },
                }
            }
        }
        let direct = self.direct() * width;
        if let Cell::Gru { linear_before_reset } = self {
            let weights = Matrix::new(&r[direct * width..], width, width);
            let inner = &trace.inner[step * state..][..state];
            let at_gate = |at: usize, gate: usize| at / width * all + gate * width + at % width;
            if linear_before_reset {
                let by_inner = &mut flow.inner[step * state..][..state];
                for at in 0..state {
                    let (reset, by_candidate) = (gates[at_gate(at, 1)], by_gates[at_gate(at, 2)]);
                    by_gates[at_gate(at, 1)] = by_candidate * inner[at] * reset * (1.0 - reset);
                    by_inner[at] = by_candidate * reset;
                }
                let by_inner = Matrix::new(by_inner, batch, width);
                multiply(&mut earlier, width, by_inner, weights, 1.0, Store::Add, Threads::All);
            } else {
                let mut by_inner = vec![0.0; state];
                let by_candidates = Matrix::strided(&by_gates[direct..], batch, width, all);
                multiply(&mut by_inner, width, by_candidates, weights, 1.0, Store::Overwrite, Threads::All);
                for at in 0..state {
                    let reset = gates[at_gate(at, 1)];
                    by_gates[at_gate(at, 1)] = by_inner[at] * before[at] * reset * (1.0 - reset);
                    earlier[at] += by_inner[at] * reset;
                }
            }
        }
        let weights = Matrix::new(&r[..direct * width], direct, width);
        let by_direct = Matrix::strided(by_gates, batch, direct, all);
        multiply(&mut earlier, width, by_direct, weights, 1.0, Store::Add, Threads::All);
        flow.hidden = earlier;
    }

    /// The gradient of R, one product over all steps.
    pub fn by_recurrent_weights(self, flow: &Flow, trace: &Trace, into: &mut [f32]) {
        let Sizes { steps, batch, hidden: width, gates: all, .. } = trace.sizes;
        let rows = steps * batch;
        let direct = self.direct() * width;
        let states = Matrix::new(&trace.hidden, rows, width);
        let (into_direct, into_inner) = into.split_at_mut(direct * width);
        if rows == 0 {
            return;
        }
        let by_direct = Matrix::strided(&flow.gates, rows, direct, all);
        multiply(into_direct, width, by_direct.transposed(), states, 1.0, Store::Overwrite, Threads::All);
        if let Cell::Gru { linear_before_reset } = self {
            let (grads, factor) = if linear_before_reset {
                (Matrix::new(&flow.inner, rows, width), states)
            } else {
                (Matrix::strided(&flow.gates[direct..], rows, width, all), Matrix::new(&trace.inner, rows, width))
            };
            multiply(into_inner, width, grads.transposed(), factor, 1.0, Store::Overwrite, Threads::All);
        }
    }

    /// The gradient of one direction's B: of the inputs' biases, then of the recurrent ones.
    pub fn by_biases(self, flow: &Flow) -> Vec<f32> {
        let Sizes { steps, batch, hidden: width, gates: all, .. } = flow.sizes;
        let column = |values: &[f32], width: usize, column: usize| {
            sum(&(0..steps * batch).map(|row| values[row * width + column]).collect::<Vec<f32>>())
        };
        let mut sums: Vec<f32> = (0..all).map(|gate| column(&flow.gates, all, gate)).collect();
        let mut recurrent = sums.clone();
        if let Cell::Gru { linear_before_reset: true } = self {
            (0..width).for_each(|unit| recurrent[2 * width + unit] = column(&flow.inner, width, unit));
        }
        sums.extend(recurrent);
        sums
    }
}
