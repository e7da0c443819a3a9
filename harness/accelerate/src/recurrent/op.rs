//! The op for a whole sequence.

use std::sync::Mutex;

use espalier_kernels::{
    matvec::Format,
    recurrent::{Gru, Lstm, Scratch, Sequence, SequenceShape},
};
use tract_onnx::{prelude::*, tract_core::internal::*};

use super::layer::{RecurrentLayer, RecurrentOutput};
use crate::op::{Layer, Shared};

/// The name of the formats of both weights.
pub fn both((of_inputs, of_state): (Format, Format)) -> String {
    if of_inputs == of_state { of_state.to_string() } else { format!("{of_inputs}/{of_state}") }
}

#[derive(Debug)]
pub enum Cell {
    Lstm(Lstm),
    Gru(Gru),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrent {
    name: &'static str,
    hidden: usize,
    backwards: bool,
    steps_first: bool,
    initial_h: bool,
    initial_c: bool,
    outputs: Vec<RecurrentOutput>,
    cell: Shared<Cell>,
    /// Kept from one inference to the next. An inference that finds it in use makes a new one.
    scratch: Shared<Mutex<Scratch>>,
}

impl Recurrent {
    pub fn new(layer: &RecurrentLayer, cell: Shared<Cell>) -> Recurrent {
        Recurrent {
            name: layer.kind.name(),
            hidden: layer.hidden,
            backwards: layer.backwards,
            steps_first: layer.steps_first,
            initial_h: layer.initial_h,
            initial_c: layer.initial_c,
            outputs: layer.outputs.clone(),
            cell,
            scratch: Shared::new(Mutex::default()),
        }
    }

    /// Steps, batch and width of `[steps, batch, width]` or `[batch, steps, width]`.
    fn sizes<T: Copy>(&self, shape: &[T]) -> TractResult<[T; 3]> {
        let [first, second, width] = *shape else { bail!("an input with {} axes, not 3", shape.len()) };
        Ok(if self.steps_first { [first, second, width] } else { [second, first, width] })
    }
}

impl Layer for Recurrent {
    fn op(&self) -> String {
        self.name.to_owned()
    }

    fn kernel(&self) -> String {
        let products = match &*self.cell {
            Cell::Lstm(lstm) => lstm.products(),
            Cell::Gru(gru) => gru.products(),
        };
        let (inputs, state) = (products[0], products[1]);
        format!("{} {}", both((inputs.format(), state.format())), inputs.isa().name())
    }

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape =
            inputs.first().context("no input")?.shape.as_concrete().context("an input with an open dimension")?;
        let [steps, batch, _] = self.sizes(shape)?;
        let fact = |output: &RecurrentOutput| match output {
            RecurrentOutput::Y { steps_first: true } => f32::fact([steps, batch, self.hidden]),
            RecurrentOutput::Y { steps_first: false } => f32::fact([batch, steps, self.hidden]),
            RecurrentOutput::H | RecurrentOutput::C => f32::fact([batch, 1, self.hidden]),
        };
        Ok(self.outputs.iter().map(fact).collect())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let hidden = self.hidden;
        let [steps, batch, width] = self.sizes(inputs[0].shape())?;
        let x = inputs[0].try_as_plain_ram()?;
        let x_shape =
            if self.steps_first { SequenceShape::steps_first } else { SequenceShape::batch_first }(steps, batch, width);

        let mut states = inputs[1..].iter();
        let mut state = |given: bool| -> TractResult<Tensor> {
            let mut state = Tensor::zero::<f32>(&[batch, 1, hidden])?;
            if given {
                let initial = states.next().context("an initial state is missing")?.try_as_plain_ram()?;
                state.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.copy_from_slice(initial.as_slice::<f32>()?);
            }
            Ok(state)
        };
        let (mut h, mut c) = (state(self.initial_h)?, state(self.initial_c)?);

        let mut y = None;
        for output in &self.outputs {
            if let RecurrentOutput::Y { steps_first } = output {
                let shape = if *steps_first { [steps, batch, hidden] } else { [batch, steps, hidden] };
                y = Some((Tensor::zero::<f32>(&shape)?, *steps_first));
            }
        }
        {
            let mut y_plain = y.as_mut().map(|(y, _)| y.try_as_plain_ram_mut()).transpose()?;
            let y_shape = match &self.outputs[..] {
                outputs if outputs.contains(&RecurrentOutput::Y { steps_first: true }) => {
                    SequenceShape::steps_first(steps, batch, hidden)
                }
                _ => SequenceShape::batch_first(steps, batch, hidden),
            };
            let y_values = y_plain.as_mut().map(|y| y.as_slice_mut::<f32>()).transpose()?;
            let sequence = Sequence {
                x: x.as_slice::<f32>()?,
                x_shape,
                backwards: self.backwards,
                y: y_values.map(|y| (y, y_shape)),
            };
            let (mut h, mut c) = (h.try_as_plain_ram_mut()?, c.try_as_plain_ram_mut()?);
            let mut taken = self.scratch.try_lock();
            let mut fresh = Scratch::default();
            let scratch = taken.as_deref_mut().unwrap_or(&mut fresh);
            match &*self.cell {
                Cell::Lstm(lstm) => lstm.run(sequence, h.as_slice_mut::<f32>()?, c.as_slice_mut::<f32>()?, scratch),
                Cell::Gru(gru) => gru.run(sequence, h.as_slice_mut::<f32>()?, scratch),
            }
        }
        let (mut y, mut h, mut c) = (y.map(|(y, _)| y), Some(h), Some(c));
        let give = |output: &RecurrentOutput| match output {
            RecurrentOutput::Y { .. } => y.take(),
            RecurrentOutput::H => h.take(),
            RecurrentOutput::C => c.take(),
        };
        let outputs = self.outputs.iter().map(give).map(|output| output.map(Tensor::into_tvalue));
        outputs.collect::<Option<TVec<TValue>>>().context("an output is asked for twice")
    }
}
