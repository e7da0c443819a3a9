//! Operators that only move elements, each by a [`View`] of its input: transposing, repeating, cutting. Gradients take
//! the same way back.

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, boxed,
    strided::{View, broadcast_shape},
    support::*,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Transpose", |node| boxed(Viewed::Transpose { order: node.list("perm") })),
    ("Expand", |_| boxed(Viewed::Expand)),
    ("Tile", |_| boxed(Viewed::Tile)),
    ("Slice", |node| match (node.opset, node.list("starts"), node.list("ends")) {
        (10.., _, _) => boxed(Viewed::Slice),
        (_, Some(starts), Some(ends)) => boxed(Viewed::SliceBy { starts, ends, axes: node.list("axes") }),
        _ => Err("it needs `starts` and `ends`".into()),
    }),
    ("DepthToSpace", |node| {
        let column_first = match node.text("mode").unwrap_or("DCR") {
            "DCR" => false,
            "CRD" => true,
            other => return Err(format!("there is no mode `{other}`")),
        };
        boxed(Viewed::DepthToSpace { block: block(node)?, column_first })
    }),
    ("SpaceToDepth", |node| boxed(Viewed::SpaceToDepth { block: block(node)? })),
    ("Split", |node| {
        boxed(Split { axis: node.int("axis", 0), lengths: node.list("split"), count: node.optional_int("num_outputs") })
    }),
    ("Concat", |node| boxed(Concat { axis: node.int("axis", 0) })),
];

fn block(node: &Attributes) -> Result<usize, String> {
    let block = size(node.int("blocksize", 0), "its block size")?;
    if block > 0 { Ok(block) } else { Err("its block size has to be above zero".into()) }
}

#[derive(Debug)]
enum Viewed {
    Transpose { order: Option<Vec<i64>> },
    Expand,
    Tile,
    Slice,
    SliceBy { starts: Vec<i64>, ends: Vec<i64>, axes: Option<Vec<i64>> },
    DepthToSpace { block: usize, column_first: bool },
    SpaceToDepth { block: usize },
}

impl Viewed {
    /// The view of the input, and the shape of the result.
    fn view(&self, inputs: &[Option<&Tensor>]) -> Result<(View, Vec<usize>), String> {
        let shape = input(inputs, 0)?.shape();
        let plain = |view: View| {
            let shape = view.shape.clone();
            (view, shape)
        };
        Ok(match self {
            Viewed::Transpose { order } => {
                let order = match order {
                    None => (0..shape.len()).rev().collect(),
                    Some(order) if order.len() == shape.len() => axes(order, shape.len())?,
                    Some(order) => return Err(format!("it puts {} axes in order, not {}", order.len(), shape.len())),
                };
                plain(View::whole(shape).transposed(&order))
            }
            Viewed::Expand => {
                let required = list(input(inputs, 1)?, "its shape")?;
                let required: Vec<usize> =
                    required.iter().map(|axis| size(*axis, "an axis")).collect::<Result<_, _>>()?;
                plain(View::broadcast(shape, &broadcast_shape([shape, &required])?)?)
            }
            Viewed::Tile => {
                let repeats = list(input(inputs, 1)?, "its repeats")?;
                if repeats.len() != shape.len() {
                    return Err(format!("it has {} repeats for {} axes", repeats.len(), shape.len()));
                }
                let whole = View::whole(shape);
                let mut view = View { shape: Vec::new(), strides: Vec::new(), offset: 0 };
                let mut tiled = Vec::new();
                for ((extent, stride), repeat) in shape.iter().zip(&whole.strides).zip(repeats) {
                    let repeat = size(*repeat, "a repeat")?;
                    view.shape.extend([repeat, *extent]);
                    view.strides.extend([0, *stride]);
                    tiled.push(repeat.checked_mul(*extent).ok_or("an axis is beyond all bounds")?);
                }
                (view, tiled)
            }
            Viewed::Slice => {
                let (starts, ends) = (list(input(inputs, 1)?, "its starts")?, list(input(inputs, 2)?, "its ends")?);
                let named = optional(inputs, 3).map(|axes| list(axes, "its axes")).transpose()?;
                let steps = optional(inputs, 4).map(|steps| list(steps, "its steps")).transpose()?;
                plain(slice(shape, starts, ends, named, steps)?)
            }
            Viewed::SliceBy { starts, ends, axes } => plain(slice(shape, starts, ends, axes.as_deref(), None)?),
            Viewed::DepthToSpace { block, column_first } => {
                let [batch, depth, height, width] = four(shape)?;
                let area = block.checked_mul(*block).filter(|area| depth % area == 0);
                let area = area.ok_or_else(|| format!("{depth} channels are no multiple of its block's area"))?;
                let channels = depth / area;
                let (split, order) = if *column_first {
                    ([batch, channels, *block, *block, height, width], [0, 1, 4, 2, 5, 3])
                } else {
                    ([batch, *block, *block, channels, height, width], [0, 3, 4, 1, 5, 2])
                };
                (View::whole(&split).transposed(&order), vec![batch, channels, height * block, width * block])
            }
            Viewed::SpaceToDepth { block } => {
                let [batch, depth, height, width] = four(shape)?;
                if height % block != 0 || width % block != 0 {
                    return Err(format!("{height} x {width} is no multiple of its block, {block}"));
                }
                let split = [batch, depth, height / block, *block, width / block, *block];
                let shape = vec![batch, depth * block * block, height / block, width / block];
                (View::whole(&split).transposed(&[0, 3, 5, 1, 2, 4]), shape)
            }
        })
    }
}

fn four(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("an image of four axes is needed, not of shape {shape:?}"))
}

fn slice(
    shape: &[usize],
    starts: &[i64],
    ends: &[i64],
    named: Option<&[i64]>,
    steps: Option<&[i64]>,
) -> Result<View, String> {
    let misfit = || "its starts, ends, axes and steps are not equally many".to_owned();
    let sliced = match named {
        Some(named) => axes(named, shape.len())?,
        None if starts.len() <= shape.len() => (0..starts.len()).collect(),
        None => return Err(format!("it cuts {} axes of {}", starts.len(), shape.len())),
    };
    if starts.len() != ends.len() || sliced.len() != starts.len() || steps.is_some_and(|s| s.len() != starts.len()) {
        return Err(misfit());
    }
    let mut view = View::whole(shape);
    for (index, axis) in sliced.into_iter().enumerate() {
        let (extent, step) = (shape[axis] as i64, steps.map_or(1, |steps| steps[index]));
        if step == 0 {
            return Err("a step of 0 leads nowhere".into());
        }
        if extent == 0 {
            continue;
        }
        // Negative positions count from the end; then both are clamped to where a walk in that direction may begin and
        // end.
        let place =
            |place: i64, least, most| (if place < 0 { place.saturating_add(extent) } else { place }).clamp(least, most);
        let distance = if step > 0 {
            place(ends[index], 0, extent) - place(starts[index], 0, extent)
        } else {
            place(starts[index], 0, extent - 1) - place(ends[index], -1, extent - 1)
        };
        let start = place(starts[index], 0, if step > 0 { extent } else { extent - 1 });
        let count = if distance <= 0 { 0 } else { (distance as u64).div_ceil(step.unsigned_abs()) as usize };
        let step = isize::try_from(step).unwrap_or(isize::MAX);
        view = view.sliced(axis, start as usize, if count > 1 { step } else { 1 }, count);
    }
    Ok(view)
}

impl Operator for Viewed {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (view, shape) = self.view(inputs)?;
        elements(&shape)?;
        Ok(Forward::one(for_any!(input(inputs, 0)?, x => Array::new(shape, view.read(x.data())))))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (view, shape) = self.view(&pass.inputs)?;
        let mut gradient = Array::zeros(pass.input(0)?.shape());
        view.add(pass.gradient(0, &shape).data(), gradient.data_mut());
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = Some(gradient);
        Ok(gradients)
    }
}

#[derive(Debug)]
struct Split {
    axis: i64,
    lengths: Option<Vec<i64>>,
    count: Option<i64>,
}

impl Split {
    /// A view of the input for each output.
    fn views(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<View>, String> {
        let shape = input(inputs, 0)?.shape();
        let axis = axis(self.axis, shape.len())?;
        let given = match (&self.lengths, optional(inputs, 1)) {
            (Some(lengths), _) => Some(lengths.as_slice()),
            (None, Some(lengths)) => Some(list(lengths, "its lengths")?),
            (None, None) => None,
        };
        let lengths = match given {
            Some(lengths) => lengths.iter().map(|len| size(*len, "a length")).collect::<Result<Vec<_>, _>>()?,
            None => {
                let count = match self.count {
                    Some(count) => size(count, "the number of outputs")?,
                    None => outputs,
                };
                if count == 0 || count > shape[axis].max(outputs) {
                    return Err(format!("axis {axis} of shape {shape:?} cannot be split into {count}"));
                }
                // Rounded up; the last part takes what is left.
                let len = shape[axis].div_ceil(count);
                (0..count).map(|part| len.min(shape[axis].saturating_sub(part * len))).collect()
            }
        };
        if lengths.len() < outputs {
            return Err(format!("it is split into {} parts for {outputs} outputs", lengths.len()));
        }
        if lengths.iter().try_fold(0usize, |sum, len| sum.checked_add(*len)) != Some(shape[axis]) {
            return Err(format!("the lengths of its parts, {lengths:?}, do not fit axis {axis} of shape {shape:?}"));
        }
        let mut start = 0;
        let views = lengths.into_iter().map(|len| {
            let view = View::whole(shape).sliced(axis, start, 1, len);
            start += len;
            view
        });
        Ok(views.collect())
    }
}

impl Operator for Split {
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String> {
        let views = self.views(inputs, outputs)?;
        let x = input(inputs, 0)?;
        let parts = views.iter().map(|view| for_any!(x, x => Array::new(view.shape.clone(), view.read(x.data()))));
        Ok(Forward { outputs: parts.collect(), saved: None })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let mut gradient = Array::zeros(pass.input(0)?.shape());
        let views = self.views(&pass.inputs, pass.gradients.len())?;
        for (view, part) in views.iter().zip(&pass.gradients) {
            if let Some(part) = part {
                view.add(part.data(), gradient.data_mut());
            }
        }
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = Some(gradient);
        Ok(gradients)
    }
}

#[derive(Debug)]
struct Concat {
    axis: i64,
}

impl Concat {
    /// The shape of the result, and the view of it that each input is.
    fn views(&self, inputs: &[Option<&Tensor>]) -> Result<(Vec<usize>, Vec<View>), String> {
        let mut shape = input(inputs, 0)?.shape().to_vec();
        let axis = axis(self.axis, shape.len())?;
        let mut spans = Vec::new();
        shape[axis] = 0;
        for index in 0..inputs.len() {
            let part = input(inputs, index)?.shape();
            let alike = part.len() == shape.len() && (0..part.len()).all(|at| at == axis || part[at] == shape[at]);
            if !alike {
                return Err(format!("input {index} of shape {part:?} does not fit the first along axis {axis}"));
            }
            spans.push((shape[axis], part[axis]));
            shape[axis] = shape[axis].checked_add(part[axis]).ok_or("an axis is beyond all bounds")?;
        }
        elements(&shape)?;
        let views = spans.into_iter().map(|(start, len)| View::whole(&shape).sliced(axis, start, 1, len));
        let views = views.collect();
        Ok((shape, views))
    }
}

fn joined<T: Copy + Default>(shape: Vec<usize>, parts: Vec<&Array<T>>, views: &[View]) -> Array<T> {
    let mut whole = Array::filled(shape, T::default());
    views.iter().zip(parts).for_each(|(view, part)| view.write(part.data(), whole.data_mut()));
    whole
}

impl Operator for Concat {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (shape, views) = self.views(inputs)?;
        let all = inputs.iter().flatten();
        Ok(Forward::one(match input(inputs, 0)? {
            Tensor::F32(_) => Tensor::F32(joined(shape, all.map(|x| x.f32()).collect::<Result<_, _>>()?, &views)),
            Tensor::I64(_) => Tensor::I64(joined(shape, all.map(|x| x.i64()).collect::<Result<_, _>>()?, &views)),
            Tensor::Bool(_) => Tensor::Bool(joined(shape, all.map(|x| x.bool()).collect::<Result<_, _>>()?, &views)),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (shape, views) = self.views(&pass.inputs)?;
        let whole = pass.gradient(0, &shape);
        let part =
            |(view, required): (View, &bool)| required.then(|| Array::new(view.shape.clone(), view.read(whole.data())));
        Ok(views.into_iter().zip(&pass.wants).map(part).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;

    #[test]
    fn gradients_are_finite_differences() {
        check(&*operator("Transpose", 13, vec![int_list("perm", &[2, 0, 1])]), &[random(1, &[2, 3, 4])], 1, &[0]);
        check(&*operator("Transpose", 13, vec![]), &[random(1, &[2, 3])], 1, &[0]);
        check(&*operator("Expand", 13, vec![]), &[random(1, &[3, 1]), ints(&[3], &[2, 1, 4])], 1, &[0]);
        check(&*operator("Tile", 13, vec![]), &[random(1, &[2, 3]), ints(&[2], &[3, 2])], 1, &[0]);
        let cut = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
            let of = |values: &[i64]| ints(&[values.len()], values);
            [random(1, &[4, 5]), of(starts), of(ends), of(axes), of(steps)]
        };
        check(&*operator("Slice", 13, vec![]), &cut(&[1, -4], &[i64::MAX, -1], &[0, 1], &[2, 1]), 1, &[0]);
        check(&*operator("Slice", 13, vec![]), &cut(&[-1], &[i64::MIN], &[-1], &[-2]), 1, &[0]);
        let attributes = vec![int_list("starts", &[1]), int_list("ends", &[3]), int_list("axes", &[1])];
        check(&*operator("Slice", 9, attributes), &[random(1, &[2, 4])], 1, &[0]);
        for mode in ["DCR", "CRD"] {
            let attributes = vec![int("blocksize", 2), string("mode", mode)];
            check(&*operator("DepthToSpace", 13, attributes), &[random(1, &[1, 8, 2, 3])], 1, &[0]);
        }
        check(&*operator("SpaceToDepth", 13, vec![int("blocksize", 2)]), &[random(1, &[1, 2, 4, 6])], 1, &[0]);
        check(&*operator("Split", 13, vec![int("axis", -1)]), &[random(1, &[2, 6]), ints(&[2], &[2, 4])], 2, &[0]);
        check(&*operator("Split", 18, vec![int("num_outputs", 3)]), &[random(1, &[7, 2])], 3, &[0]);
        let parts = [random(1, &[2, 3]), random(2, &[2, 1]), random(3, &[2, 0])];
        check(&*operator("Concat", 13, vec![int("axis", 1)]), &parts, 1, &[0, 1, 2]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |op_type: &str, attributes, inputs: &[crate::Tensor]| {
            let inputs: Vec<_> = inputs.iter().map(Some).collect();
            operator(op_type, 13, attributes).forward(&inputs, 2).err().expect("an error")
        };
        let x = random(1, &[2, 3]);
        refused("Transpose", vec![int_list("perm", &[0, 0])], std::slice::from_ref(&x));
        refused("Expand", vec![], &[x.clone(), ints(&[3], &[1 << 40, 2, 3])]);
        refused("Tile", vec![], &[x.clone(), ints(&[2], &[i64::MAX, i64::MAX])]);
        refused("Slice", vec![], &[x.clone(), ints(&[1], &[0]), ints(&[1], &[1]), ints(&[1], &[0]), ints(&[1], &[0])]);
        refused("Split", vec![], &[x.clone(), ints(&[2], &[1, 2])]);
        refused("Concat", vec![int("axis", 2)], &[x.clone(), x]);
    }
}
