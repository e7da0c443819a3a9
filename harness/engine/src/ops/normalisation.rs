//! Normalisations: `BatchNormalization` with its trained statistics, and those that compute statistics from their input
//! (`LayerNormalization`, `RMSNormalization`, `InstanceNormalization`, `GroupNormalization`).

use rayon::prelude::*;

use super::{Attributes, Backward, Family, Forward, InputGradients, Operator, Parsed, boxed, support, vector::sum};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("BatchNormalization", |node| {
        if node.is_set("training_mode") {
            return Err("it is in training mode; export the model in evaluation mode".into());
        }
        if node.int("spatial", 1) == 0 {
            return Err("statistics for each place are not supported".into());
        }
        boxed(BatchNormalization { epsilon: epsilon(node) })
    }),
    ("LayerNormalization", |node| normalisation(node, Over::From(node.int("axis", -1)))),
    ("RMSNormalization", |node| {
        boxed(Normalisation { epsilon: epsilon(node), over: Over::From(node.int("axis", -1)), centred: false })
    }),
    ("InstanceNormalization", |node| normalisation(node, Over::Channel)),
    ("GroupNormalization", |node| match usize::try_from(node.int("num_groups", 0)) {
        Ok(groups @ 1..) => normalisation(node, Over::Groups { groups, scaled_by_group: node.opset < 21 }),
        _ => Err("`num_groups` must be at least 1".into()),
    }),
];

fn epsilon(node: &Attributes) -> f32 {
    node.float("epsilon", 1e-5)
}

fn normalisation(node: &Attributes, over: Over) -> Parsed {
    boxed(Normalisation { epsilon: epsilon(node), over, centred: true })
}

/// `scale * (x - mean) / sqrt(variance + epsilon) + bias` for each channel. Mean and variance are constants: they have
/// no gradient.
#[derive(Debug)]
struct BatchNormalization {
    epsilon: f32,
}

/// The inputs, checked against each other, and the length of a plane.
struct Statistics<'a> {
    x: &'a Array<f32>,
    scale: &'a [f32],
    bias: &'a [f32],
    mean: &'a [f32],
    /// One divided by the standard deviation.
    inverse: Vec<f32>,
    plane: usize,
}

impl BatchNormalization {
    fn statistics<'a>(&self, inputs: &[Option<&'a Tensor>]) -> Result<Statistics<'a>, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let [_, channels, spatial @ ..] = x.shape() else {
            return Err(format!("an input of shape {:?} has no channels", x.shape()));
        };
        let of_channels = |index: usize| {
            let values = support::input(inputs, index)?.f32()?;
            if values.shape() == [*channels] {
                return Ok(values.data());
            }
            Err(format!("input {index} has shape {:?}, there are {channels} channels", values.shape()))
        };
        let (scale, bias, mean, variance) = (of_channels(1)?, of_channels(2)?, of_channels(3)?, of_channels(4)?);
        let inverse = variance.iter().map(|variance| 1.0 / (variance + self.epsilon).sqrt()).collect();
        Ok(Statistics { x, scale, bias, mean, inverse, plane: spatial.iter().product() })
    }
}

/// The fewest planes that a thread takes.
fn at_least(plane: usize) -> usize {
    (1 << 14) / plane.max(1) + 1
}

impl Operator for BatchNormalization {
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String> {
        if outputs > 1 {
            return Err("it has the outputs of training; export the model in evaluation mode".into());
        }
        let Statistics { x, scale, bias, mean, inverse, plane } = self.statistics(inputs)?;
        let mut y = vec![0.0f32; x.len()];
        let planes = y.par_chunks_mut(plane.max(1)).zip(x.data().par_chunks(plane.max(1))).enumerate();
        planes.with_min_len(at_least(plane)).for_each(|(index, (y, x))| {
            let channel = index % scale.len();
            let (factor, mean, bias) = (scale[channel] * inverse[channel], mean[channel], bias[channel]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * factor + bias);
        });
        Ok(Forward::floats(Array::new(x.shape(), y)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let seed = pass.seed()?;
        let Statistics { x, scale, mean, inverse, plane, .. } = self.statistics(&pass.inputs)?;
        let channels = scale.len();
        let x_gradient = pass.wants[0].then(|| {
            let mut gradient = vec![0.0f32; x.len()];
            let planes = gradient.par_chunks_mut(plane.max(1)).zip(seed.data().par_chunks(plane.max(1)));
            planes.enumerate().with_min_len(at_least(plane)).for_each(|(index, (gradient, seed))| {
                let factor = scale[index % channels] * inverse[index % channels];
                gradient.iter_mut().zip(seed).for_each(|(gradient, seed)| *gradient = seed * factor);
            });
            Array::new(x.shape(), gradient)
        });
        let planes = || seed.data().chunks(plane.max(1)).zip(x.data().chunks(plane.max(1))).enumerate();
        let scale_gradient = pass.wants[1].then(|| {
            let mut sums = vec![0.0f32; channels];
            for (index, (seed, x)) in planes() {
                let channel = index % channels;
                let sum: f32 = seed.iter().zip(x).map(|(seed, x)| seed * (x - mean[channel])).sum();
                sums[channel] += sum * inverse[channel];
            }
            Array::new([channels], sums)
        });
        let bias_gradient = pass.wants[2].then(|| {
            let mut sums = vec![0.0f32; channels];
            planes().for_each(|(index, (seed, _))| sums[index % channels] += sum(seed));
            Array::new([channels], sums)
        });
        Ok(vec![x_gradient, scale_gradient, bias_gradient, None, None])
    }
}

/// Normalises each of a tensor's rows to mean 0 and variance 1, then scales and shifts. Without `centred`, the mean
/// counts as 0: rows are divided by the root of their mean square.
#[derive(Debug)]
struct Normalisation {
    epsilon: f32,
    over: Over,
    centred: bool,
}

/// What a row is.
#[derive(Debug)]
enum Over {
    /// All axes from this one on; each element of the row has its own scale.
    From(i64),
    /// One channel of one sample; each channel has its own scale.
    Channel,
    /// Several channels of one sample. Up to opset 20 each group has a scale, since then each channel.
    Groups { groups: usize, scaled_by_group: bool },
}

/// How a tensor divides into rows, and which scale an element has.
struct Rows {
    length: usize,
    /// Element `i` has scale `i / repeat % scales`.
    repeat: usize,
    scales: usize,
    /// The shape of means and deviations, one a row.
    statistics: Vec<usize>,
}

impl Normalisation {
    fn rows(&self, shape: &[usize]) -> Result<Rows, String> {
        if let Over::From(axis) = self.over {
            let axis = support::axis(axis, shape.len())?;
            let length = shape[axis..].iter().product();
            let statistics = [shape[..axis].to_vec(), vec![1; shape.len() - axis]].concat();
            return Ok(Rows { length, repeat: 1, scales: length, statistics });
        }
        let [batch, channels, spatial @ ..] = shape else {
            return Err(format!("an input of shape {shape:?} has no channels"));
        };
        let (groups, scaled_by_group) = match self.over {
            Over::Groups { groups, scaled_by_group } => (groups, scaled_by_group),
            _ => (*channels, false),
        };
        if groups == 0 || channels % groups != 0 {
            return Err(format!("{channels} channels do not fall into {groups} groups"));
        }
        let plane: usize = spatial.iter().product();
        let length = channels / groups * plane;
        let (repeat, scales) = if scaled_by_group { (length, groups) } else { (plane, *channels) };
        Ok(Rows { length, repeat, scales, statistics: vec![*batch, groups] })
    }

    /// Scale or bias, where there is one.
    fn affine<'a>(inputs: &[Option<&'a Tensor>], index: usize, rows: &Rows) -> Result<Option<&'a [f32]>, String> {
        let Some(values) = inputs.get(index).copied().flatten() else { return Ok(None) };
        let values = values.f32()?;
        if values.len() != rows.scales {
            return Err(format!("input {index} has shape {:?}, {} values are needed", values.shape(), rows.scales));
        }
        Ok(Some(values.data()))
    }

    fn mean_and_inverse(&self, row: &[f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = if self.centred { sum(row) / count } else { 0.0 };
        let variance = row.iter().map(|x| f64::from(x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        (mean, (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32)
    }
}

impl Operator for Normalisation {
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let rows = self.rows(x.shape())?;
        let (scale, bias) = (Self::affine(inputs, 1, &rows)?, Self::affine(inputs, 2, &rows)?);
        let (mut y, mut means, mut inverses) = (Vec::with_capacity(x.len()), Vec::new(), Vec::new());
        for row in x.data().chunks(rows.length.max(1)) {
            let (mean, inverse) = self.mean_and_inverse(row);
            let start = y.len();
            y.extend(row.iter().map(|x| (x - mean) * inverse));
            let at = |offset: usize| (start + offset) / rows.repeat.max(1) % rows.scales;
            if let Some(scale) = scale {
                y[start..].iter_mut().enumerate().for_each(|(offset, y)| *y *= scale[at(offset)]);
            }
            if let Some(bias) = bias {
                y[start..].iter_mut().enumerate().for_each(|(offset, y)| *y += bias[at(offset)]);
            }
            means.push(mean);
            inverses.push(inverse);
        }
        let mut values = vec![Tensor::F32(Array::new(x.shape(), y))];
        if outputs > 1 {
            if !self.centred {
                return Err("it has one output".into());
            }
            if means.len() != rows.statistics.iter().product() {
                return Err(format!("an input of shape {:?} has no statistics", x.shape()));
            }
            values.push(Tensor::F32(Array::new(rows.statistics.clone(), means)));
            values.push(Tensor::F32(Array::new(rows.statistics, inverses)));
        }
        Ok(Forward { outputs: values, saved: None })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let x = pass.input(0)?.f32()?;
        let rows = self.rows(x.shape())?;
        let scale = Self::affine(&pass.inputs, 1, &rows)?;
        let wants = |index: usize| pass.wants.get(index).copied().unwrap_or(false);
        let seed = |index: usize| pass.gradients.get(index).and_then(Option::as_ref).map(Array::data);
        let mut gradient = vec![0.0f32; x.len()];
        let mut scale_sums = vec![0.0f32; rows.scales];
        let mut bias_sums = vec![0.0f32; rows.scales];
        let length = rows.length.max(1);
        let (mut normal, mut scaled) = (vec![0.0f32; length], vec![0.0f32; length]);
        for (index, (row, gradient)) in x.data().chunks(length).zip(gradient.chunks_mut(length)).enumerate() {
            let (mean, inverse) = self.mean_and_inverse(row);
            normal.iter_mut().zip(row).for_each(|(normal, x)| *normal = (x - mean) * inverse);
            let start = index * length;
            let at = |offset: usize| (start + offset) / rows.repeat.max(1) % rows.scales;
            match seed(0) {
                None => scaled.fill(0.0),
                Some(seed) => {
                    let seed = &seed[start..][..row.len()];
                    for (offset, seed) in seed.iter().enumerate() {
                        let at = at(offset);
                        scaled[offset] = seed * scale.map_or(1.0, |scale| scale[at]);
                        scale_sums[at] += seed * normal[offset];
                        bias_sums[at] += seed;
                    }
                }
            }
            let count = row.len() as f32;
            let shift = if self.centred { sum(&scaled) / count } else { 0.0 };
            let along = super::vector::dot(&scaled, &normal) / count;
            // The statistics are outputs of their own; few use them.
            let of_mean = seed(1).map_or(0.0, |seed| seed[index]) / count;
            let of_inverse = seed(2).map_or(0.0, |seed| seed[index]) * inverse * inverse / count;
            for ((gradient, scaled), normal) in gradient.iter_mut().zip(&scaled).zip(&normal) {
                *gradient = inverse * (scaled - shift - normal * along) + of_mean - of_inverse * normal;
            }
        }
        let shaped = |index: usize, sums: Vec<f32>| {
            let input = pass.inputs.get(index).copied().flatten().filter(|_| wants(index));
            input.map(|input| Array::new(input.shape(), sums))
        };
        let all = [wants(0).then(|| Array::new(x.shape(), gradient)), shaped(1, scale_sums), shaped(2, bias_sums)];
        Ok(all.into_iter().take(pass.inputs.len()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{between, check, float, floats, int, operator, output, random};

    #[test]
    fn a_batch_is_normalised_with_what_was_learnt() {
        let of = |values: &[f32]| floats(&[2], values);
        let norm = operator("BatchNormalization", 15, vec![float("epsilon", 0.0)]);
        let x = floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let inputs = [x, of(&[2.0, 1.0]), of(&[0.5, 0.0]), of(&[1.0, 2.0]), of(&[4.0, 1.0])];
        assert_eq!(output(&*norm, &inputs).data(), [0.5, 1.5, 1.0, 2.0]);
    }

    #[test]
    fn batch_normalisation_has_gradients() {
        let norm = operator("BatchNormalization", 15, vec![]);
        for shape in [&[2, 3, 4, 5][..], &[4, 3], &[2, 3, 7]] {
            let of = |seed| random(seed, &[3]);
            let inputs = [random(1, shape), of(2), of(3), of(4), between(5, &[3], 0.5, 2.0)];
            check(&*norm, &inputs, 1, &[0, 1, 2]);
        }
    }

    #[test]
    fn layers_are_normalised_from_an_axis_on() {
        let x = || between(1, &[2, 3, 8], -3.0, 3.0);
        for axis in [-1, 1] {
            let own = if axis == 1 { &[3, 8][..] } else { &[8] };
            let norm = operator("LayerNormalization", 17, vec![int("axis", axis)]);
            check(&*norm, &[x(), random(2, own), random(3, own)], 1, &[0, 1, 2]);
            check(&*norm, &[x(), random(2, own)], 3, &[0, 1]);
            let norm_of_squares = operator("RMSNormalization", 23, vec![int("axis", axis)]);
            check(&*norm_of_squares, &[x(), random(2, own)], 1, &[0, 1]);
            let ones = floats(own, &vec![1.0; own.iter().product()]);
            let y = output(&*norm, &[x(), ones]);
            let row = &y.data()[..own.iter().product()];
            assert!(sum(row).abs() < 1e-4);
            assert!((row.iter().map(|y| y * y).sum::<f32>() / row.len() as f32 - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn instances_and_groups_have_gradients() {
        let x = || between(1, &[2, 4, 3, 3], -3.0, 3.0);
        let of = |seed, count| random(seed, &[count]);
        check(&*operator("InstanceNormalization", 6, vec![]), &[x(), of(2, 4), of(3, 4)], 1, &[0, 1, 2]);
        for (opset, scales) in [(18, 2), (21, 4)] {
            let norm = operator("GroupNormalization", opset, vec![int("num_groups", 2)]);
            check(&*norm, &[x(), of(2, scales), of(3, scales)], 1, &[0, 1, 2]);
        }
    }
}
