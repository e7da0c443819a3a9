//! `Softmax`, `LogSoftmax` and `Hardmax`. Up to opset 12 over all axes from the given one on, from 13 over that axis
//! alone.

use super::{Attributes, Backward, Family, Forward, InputGradients, Operator, Parsed, boxed, support};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Softmax", |node| softmax(node, Form::Probabilities)),
    ("LogSoftmax", |node| softmax(node, Form::Logarithms)),
    ("Hardmax", |node| softmax(node, Form::FirstGreatest)),
];

fn softmax(node: &Attributes, form: Form) -> Parsed {
    let flattens = node.opset < 13;
    boxed(Softmax { axis: node.int("axis", if flattens { 1 } else { -1 }), flattens, form })
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Probabilities,
    Logarithms,
    /// 1 for the first of the greatest elements, 0 for all others. Its gradient is 0, as that of rounding is.
    FirstGreatest,
}

#[derive(Debug)]
struct Softmax {
    axis: i64,
    flattens: bool,
    form: Form,
}

impl Softmax {
    /// The length of a normalised row, and the distance of its elements.
    fn measures(&self, shape: &[usize]) -> Result<(usize, usize), String> {
        if self.flattens {
            // The axis behind the last is allowed: each element is then normalised alone.
            let rank = shape.len();
            let axis = if self.axis == rank as i64 { rank } else { support::axis(self.axis, rank)? };
            return Ok((shape[axis..].iter().product(), 1));
        }
        if shape.is_empty() {
            return Ok((1, 1));
        }
        let axis = support::axis(self.axis, shape.len())?;
        Ok((shape[axis], shape[axis + 1..].iter().product()))
    }
}

/// Calls `f` with the index of the first element of each normalised row.
fn for_each(len: usize, length: usize, step: usize, mut f: impl FnMut(usize)) {
    for block in (0..len).step_by((length * step).max(1)) {
        (block..block + step).for_each(&mut f);
    }
}

impl Operator for Softmax {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let (length, step) = self.measures(x.shape())?;
        let mut y = x.data().to_vec();
        for_each(x.len(), length, step, |first| {
            let row = || (0..length).map(|index| first + index * step);
            if let Form::FirstGreatest = self.form {
                let greatest = row().reduce(|best, at| if x.data()[at] > x.data()[best] { at } else { best });
                row().for_each(|at| y[at] = f32::from(u8::from(Some(at) == greatest)));
                return;
            }
            let most = row().fold(f32::NEG_INFINITY, |most, at| most.max(x.data()[at]));
            let mut sum = 0.0f32;
            for at in row() {
                y[at] = (x.data()[at] - most).exp();
                sum += y[at];
            }
            if let Form::Logarithms = self.form {
                let log = sum.ln();
                row().for_each(|at| y[at] = x.data()[at] - most - log);
            } else {
                row().for_each(|at| y[at] /= sum);
            }
        });
        Ok(Forward::floats(Array::new(x.shape(), y)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let y = pass.output(0)?.f32()?;
        let (length, step) = self.measures(y.shape())?;
        let (y_data, seeds) = (y.data(), pass.seed()?.data());
        let mut gradient = vec![0.0; y.len()];
        for_each(y.len(), length, step, |first| {
            let row = || (0..length).map(|index| first + index * step);
            match self.form {
                Form::Probabilities => {
                    let sum: f32 = row().map(|at| seeds[at] * y_data[at]).sum();
                    row().for_each(|at| gradient[at] = y_data[at] * (seeds[at] - sum));
                }
                Form::Logarithms => {
                    let sum: f32 = row().map(|at| seeds[at]).sum();
                    row().for_each(|at| gradient[at] = seeds[at] - y_data[at].exp() * sum);
                }
                Form::FirstGreatest => {}
            }
        });
        pass.only_first(Array::new(y.shape(), gradient))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{apart, between, check, floats, int, operator, output, random};

    #[test]
    fn what_is_normalised_depends_on_the_opset() {
        let x = floats(&[1, 2, 2], &[0.0, 0.0, 1000.0, 1000.0]);
        let softmax =
            |opset, axis| output(&*operator("Softmax", opset, vec![int("axis", axis)]), std::slice::from_ref(&x));
        assert_eq!(softmax(12, 1).data(), [0.0, 0.0, 0.5, 0.5]);
        assert_eq!(softmax(13, 1).data(), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(softmax(13, -1).data(), [0.5; 4]);
        assert_eq!(softmax(13, 0).data(), [1.0; 4]);
        assert_eq!(softmax(12, 3).data(), [1.0; 4]);
    }

    #[test]
    fn softmax_has_gradients() {
        for op in ["Softmax", "LogSoftmax"] {
            for (opset, axis) in [(11, 1), (11, 2), (13, 0), (13, 1), (13, -1)] {
                check(&*operator(op, opset, vec![int("axis", axis)]), &[random(1, &[3, 4, 5])], 1, &[0]);
            }
            check(&*operator(op, 13, vec![]), &[between(1, &[4, 6], -5.0, 5.0)], 1, &[0]);
        }
        check(&*operator("Hardmax", 13, vec![]), &[apart(1, &[4, 6])], 1, &[0]);
    }

    #[test]
    fn hardmax_picks_the_first_greatest() {
        let x = floats(&[2, 3], &[1.0, 4.0, 4.0, 0.0, -1.0, -2.0]);
        assert_eq!(output(&*operator("Hardmax", 13, vec![]), &[x]).data(), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }
}
