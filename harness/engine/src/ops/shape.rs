//! Operators about shapes: reading one, giving the same elements another, and making tensors from a shape alone.

use super::{
    Backward, Family, Forward, InputGradients, Operator, boxed,
    cast::{ElementKind, element_kind},
    support::*,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    // Up to opset 4 the shape is an attribute.
    ("Reshape", |node| boxed(Reshaped::Reshape { shape: node.list("shape"), allow_zero: node.is_set("allowzero") })),
    ("Flatten", |node| boxed(Reshaped::Flatten { axis: node.int("axis", 1) })),
    ("Squeeze", |node| boxed(Reshaped::Squeeze { axes: node.list("axes") })),
    ("Unsqueeze", |node| boxed(Reshaped::Unsqueeze { axes: node.list("axes") })),
    ("Identity", |_| boxed(Reshaped::Identity)),
    ("Dropout", |_| boxed(Dropout)),
    ("Shape", |node| boxed(Shape { start: node.int("start", 0), end: node.optional_int("end") })),
    ("Size", |_| boxed(Size)),
    ("ConstantOfShape", |node| {
        let value = match node.attr("value").and_then(|attribute| attribute.t.as_ref()) {
            Some(value) => Tensor::of("value", value).map_err(|error| error.to_string())?,
            None => Tensor::F32(Array::scalar(0.0)),
        };
        match elements(value.shape())? {
            1 => boxed(ConstantOfShape { value }),
            _ => Err(format!("its value is one number, not a tensor of shape {:?}", value.shape())),
        }
    }),
    ("Range", |_| boxed(Range)),
    ("EyeLike", |node| {
        let kind = node.optional_int("dtype").map(element_kind).transpose()?;
        boxed(EyeLike { kind: kind.map(|(kind, _)| kind), diagonal: node.int("k", 0) })
    }),
    ("Trilu", |node| boxed(Trilu { upper: node.int("upper", 1) != 0 })),
];

/// Another shape for the same elements.
#[derive(Debug)]
enum Reshaped {
    Reshape { shape: Option<Vec<i64>>, allow_zero: bool },
    Flatten { axis: i64 },
    Squeeze { axes: Option<Vec<i64>> },
    Unsqueeze { axes: Option<Vec<i64>> },
    Identity,
}

impl Reshaped {
    fn shape(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>, String> {
        let shape = input(inputs, 0)?.shape();
        // Up to opset 12 axes are an attribute.
        let named = |attribute: &Option<Vec<i64>>| match (attribute, optional(inputs, 1)) {
            (Some(axes), _) => Ok(Some(axes.clone())),
            (None, Some(axes)) => list(axes, "its axes").map(|axes| Some(axes.to_vec())),
            (None, None) => Ok::<_, String>(None),
        };
        match self {
            Reshaped::Identity => Ok(shape.to_vec()),
            Reshaped::Flatten { axis } => {
                // One more than there are axes is allowed: all may be on the left.
                let rank = shape.len() as i64;
                let split = if *axis < 0 { axis + rank } else { *axis };
                if !(0..=rank).contains(&split) {
                    return Err(format!("a tensor of rank {rank} cannot be flattened at axis {axis}"));
                }
                let (left, right) = shape.split_at(split as usize);
                elements(shape)?;
                Ok(vec![elements(left)?, elements(right)?])
            }
            Reshaped::Squeeze { axes: attribute } => {
                let drop = match named(attribute)? {
                    Some(named) => axes(&named, shape.len())?,
                    None => (0..shape.len()).filter(|axis| shape[*axis] == 1).collect(),
                };
                if let Some(axis) = drop.iter().find(|axis| shape[**axis] != 1) {
                    return Err(format!("axis {axis} of shape {shape:?} is not of length 1"));
                }
                Ok((0..shape.len()).filter(|axis| !drop.contains(axis)).map(|axis| shape[axis]).collect())
            }
            Reshaped::Unsqueeze { axes: attribute } => {
                let named = named(attribute)?.ok_or("it has no axes")?;
                let rank = shape.len() + named.len();
                let new = axes(&named, rank)?;
                let mut old = shape.iter();
                Ok((0..rank).map(|axis| if new.contains(&axis) { 1 } else { *old.next().expect("as many") }).collect())
            }
            Reshaped::Reshape { shape: attribute, allow_zero } => {
                let required = match attribute {
                    Some(required) => required.as_slice(),
                    None => list(input(inputs, 1)?, "its shape")?,
                };
                let misfit = || format!("shape {shape:?} cannot become {required:?}");
                let mut found = Vec::with_capacity(required.len());
                let mut open = None;
                for (axis, extent) in required.iter().enumerate() {
                    found.push(match extent {
                        -1 if open.is_none() => {
                            open = Some(axis);
                            1
                        }
                        0 if !allow_zero => *shape.get(axis).ok_or_else(misfit)?,
                        extent => usize::try_from(*extent).map_err(|_| misfit())?,
                    });
                }
                // Both sizes are checked, so that no product below overflows.
                let (count, known) = (elements(shape)?, elements(&found).map_err(|_| misfit())?);
                if let Some(open) = open {
                    if known == 0 || count % known != 0 {
                        return Err(misfit());
                    }
                    found[open] = count / known;
                } else if known != count {
                    return Err(misfit());
                }
                Ok(found)
            }
        }
    }
}

impl Operator for Reshaped {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let shape = self.shape(inputs)?;
        Ok(Forward::one(for_any!(input(inputs, 0)?, x => x.clone().reshaped(shape))))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let shape = pass.input(0)?.shape();
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = pass.gradients[0].clone().map(|gradient| gradient.reshaped(shape));
        Ok(gradients)
    }
}

/// Inference only: nothing is dropped.
#[derive(Debug)]
struct Dropout;

impl Operator for Dropout {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        if let Some(Tensor::Bool(training)) = optional(inputs, 2)
            && training.data().contains(&true)
        {
            return Err("it is in training mode; export the model for inference".into());
        }
        let x = input(inputs, 0)?;
        Ok(Forward { outputs: vec![x.clone(), Tensor::Bool(Array::filled(x.shape(), true))], saved: None })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = pass.gradients[0].clone();
        Ok(gradients)
    }
}

#[derive(Debug)]
struct Shape {
    start: i64,
    end: Option<i64>,
}

impl Operator for Shape {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let shape = input(inputs, 0)?.shape();
        let rank = shape.len() as i64;
        let place = |place: i64| (if place < 0 { place.saturating_add(rank) } else { place }).clamp(0, rank) as usize;
        let (start, end) = (place(self.start), self.end.map_or(shape.len(), place));
        let required: Vec<i64> = shape[start.min(end)..end].iter().map(|axis| *axis as i64).collect();
        Ok(Forward::one(Tensor::I64(Array::new([required.len()], required))))
    }
}

#[derive(Debug)]
struct Size;

impl Operator for Size {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let count = elements(input(inputs, 0)?.shape())?;
        Ok(Forward::one(Tensor::I64(Array::scalar(count as i64))))
    }
}

#[derive(Debug)]
struct ConstantOfShape {
    value: Tensor,
}

impl Operator for ConstantOfShape {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let shape = list(input(inputs, 0)?, "its shape")?;
        let shape: Vec<usize> = shape.iter().map(|axis| size(*axis, "an axis")).collect::<Result<_, _>>()?;
        elements(&shape)?;
        Ok(Forward::one(for_any!(&self.value, value => Array::filled(shape, value.data()[0]))))
    }
}

#[derive(Debug)]
struct Range;

impl Operator for Range {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let [start, end, step] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
        let counted = |count: f64| -> Result<usize, String> {
            if count.is_nan() || count > MOST_ELEMENTS as f64 {
                return Err(format!("it has {count} elements, which is beyond what the engine computes"));
            }
            Ok(count.max(0.0) as usize)
        };
        if let Tensor::I64(start) = start {
            let (start, end, step) =
                (single(start, "its start")?, single(end.i64()?, "its end")?, single(step.i64()?, "its step")?);
            if step == 0 {
                return Err("a step of 0 leads nowhere".into());
            }
            let (distance, step_wide) = (i128::from(end) - i128::from(start), i128::from(step));
            // Rounded up, in either direction.
            let count = (distance + step_wide - step_wide.signum()) / step_wide;
            let count = counted(count as f64)?;
            let values = (0..count as i64).map(|index| start.wrapping_add(index.wrapping_mul(step))).collect();
            return Ok(Forward::one(Tensor::I64(Array::new([count], values))));
        }
        let (start, end, step) =
            (single(start.f32()?, "its start")?, single(end.f32()?, "its end")?, single(step.f32()?, "its step")?);
        let count = counted(((f64::from(end) - f64::from(start)) / f64::from(step)).ceil())?;
        // Like onnxruntime: not a sum of rounded steps.
        let values = (0..count).map(|index| start + index as f32 * step).collect();
        Ok(Forward::floats(Array::new([count], values)))
    }
}

#[derive(Debug)]
struct EyeLike {
    kind: Option<ElementKind>,
    diagonal: i64,
}

impl Operator for EyeLike {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let like = input(inputs, 0)?;
        let [rows, columns] = <[usize; 2]>::try_from(like.shape())
            .map_err(|_| format!("a matrix is needed, not a tensor of shape {:?}", like.shape()))?;
        elements(like.shape())?;
        let on = (0..rows as i64).flat_map(|row| (0..columns as i64).map(move |column| (row, column)));
        let eye = Array::new(
            [rows, columns],
            on.map(|(row, column)| column.checked_sub(row) == Some(self.diagonal)).collect::<Vec<bool>>(),
        );
        Ok(Forward::one(match self.kind.unwrap_or(ElementKind::of(like)) {
            ElementKind::Float => Tensor::F32(eye.map(|one| f32::from(u8::from(*one)))),
            ElementKind::Int => Tensor::I64(eye.map(|one| i64::from(*one))),
            ElementKind::Bool => Tensor::Bool(eye),
        }))
    }
}

/// The upper or lower triangle of each matrix.
#[derive(Debug)]
struct Trilu {
    upper: bool,
}

impl Trilu {
    fn cut<T: Copy + Default>(&self, x: &Array<T>, diagonal: i64) -> Result<Array<T>, String> {
        let [.., rows, columns] = *x.shape() else {
            return Err(format!("matrices are needed, not a tensor of shape {:?}", x.shape()));
        };
        let mut cut = x.clone();
        if x.is_empty() {
            return Ok(cut);
        }
        for (index, value) in cut.data_mut().iter_mut().enumerate() {
            let (row, column) = ((index / columns % rows) as i64, (index % columns) as i64);
            let kept = if self.upper { column - row >= diagonal } else { column - row <= diagonal };
            if !kept {
                *value = T::default();
            }
        }
        Ok(cut)
    }

    fn diagonal(inputs: &[Option<&Tensor>]) -> Result<i64, String> {
        optional(inputs, 1).map_or(Ok(0), |k| single(k.i64()?, "its diagonal"))
    }
}

impl Operator for Trilu {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let diagonal = Trilu::diagonal(inputs)?;
        Ok(Forward::one(for_any!(input(inputs, 0)?, x => self.cut(x, diagonal)?)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let gradient = pass.gradient(0, pass.input(0)?.shape());
        let mut gradients = vec![None; pass.inputs.len()];
        gradients[0] = Some(self.cut(&gradient, Trilu::diagonal(&pass.inputs)?)?);
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;

    #[track_caller]
    fn reshaped(from: &[usize], to: &[i64], allow_zero: i64) -> Result<Vec<usize>, String> {
        let reshape = operator("Reshape", 14, vec![int("allowzero", allow_zero)]);
        let (x, to) = (random(1, from), ints(&[to.len()], to));
        reshape.forward(&[Some(&x), Some(&to)], 1).map(|forward| forward.outputs[0].shape().to_vec())
    }

    #[test]
    fn reshape_knows_zero_and_minus_one() {
        assert_eq!(reshaped(&[2, 3, 4], &[0, -1], 0), Ok(vec![2, 12]));
        assert_eq!(reshaped(&[0, 3], &[3, 0], 1), Ok(vec![3, 0]));
        assert!(reshaped(&[0, 3], &[0, -1], 0).is_err());
        assert_eq!(reshaped(&[1], &[], 0), Ok(vec![]));
        assert_eq!(reshaped(&[], &[1, -1], 0), Ok(vec![1, 1]));
        for required in [&[-1i64, -1][..], &[5], &[-2], &[i64::MAX, i64::MAX], &[0, 0, 0, 0]] {
            reshaped(&[2, 3], required, 0).unwrap_err();
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        let x = random(1, &[2, 1, 3]);
        check(&*operator("Reshape", 14, vec![]), &[x.clone(), ints(&[1], &[-1])], 1, &[0]);
        check(&*operator("Flatten", 13, vec![int("axis", -1)]), std::slice::from_ref(&x), 1, &[0]);
        check(&*operator("Squeeze", 13, vec![]), &[x.clone(), ints(&[1], &[-2])], 1, &[0]);
        check(&*operator("Squeeze", 11, vec![]), std::slice::from_ref(&x), 1, &[0]);
        check(&*operator("Unsqueeze", 13, vec![]), &[x.clone(), ints(&[2], &[0, -1])], 1, &[0]);
        check(&*operator("Unsqueeze", 11, vec![int_list("axes", &[1])]), std::slice::from_ref(&x), 1, &[0]);
        check(&*operator("Identity", 14, vec![]), std::slice::from_ref(&x), 1, &[0]);
        check(&*operator("Dropout", 13, vec![]), &[x], 1, &[0]);
        check(&*operator("Trilu", 14, vec![int("upper", 0)]), &[random(1, &[2, 3, 4]), ints(&[], &[1])], 1, &[0]);
    }

    #[test]
    fn ranges_end_before_their_end() {
        let range = |start, end, step| {
            let all = [ints(&[], &[start]), ints(&[], &[end]), ints(&[], &[step])];
            forward(&*operator("Range", 11, vec![]), &all, 1)[0].i64().unwrap().data().to_vec()
        };
        assert_eq!(range(0, 5, 2), [0, 2, 4]);
        assert_eq!(range(5, 0, -2), [5, 3, 1]);
        assert_eq!(range(3, 3, 1), [0i64; 0]);
        assert_eq!(range(3, 0, 1), [0i64; 0]);
        let wide = [ints(&[], &[i64::MIN]), ints(&[], &[i64::MAX]), ints(&[], &[1])];
        operator("Range", 11, vec![]).forward(&wide.iter().map(Some).collect::<Vec<_>>(), 1).err().unwrap();
    }

    #[test]
    fn shapes_in_part() {
        let part = |attributes| forward(&*operator("Shape", 15, attributes), &[random(1, &[2, 3, 4])], 1);
        assert_eq!(part(vec![]), [ints(&[3], &[2, 3, 4])]);
        assert_eq!(part(vec![int("start", -2)]), [ints(&[2], &[3, 4])]);
        assert_eq!(part(vec![int("start", 2), int("end", -2)]), [ints(&[0], &[])]);
    }
}
