//! Operators that reduce axes to one value. Axes are an attribute or, in newer operator sets, an input.
//!
//! Of several greatest values the first gets the gradient of `ReduceMax`.

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, Parsed, boxed,
    strided::{View, sum},
    support::*,
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("ReduceSum", |node| reduce(node, Reduction::Sum)),
    ("ReduceMean", |node| reduce(node, Reduction::Mean)),
    ("ReduceMax", |node| reduce(node, Reduction::Max)),
    ("ReduceMin", |node| reduce(node, Reduction::Min)),
    ("ReduceProd", |node| reduce(node, Reduction::Prod)),
    ("ReduceL1", |node| reduce(node, Reduction::L1)),
    ("ReduceL2", |node| reduce(node, Reduction::L2)),
    ("ReduceSumSquare", |node| reduce(node, Reduction::SumSquare)),
    ("ReduceLogSum", |node| reduce(node, Reduction::LogSum)),
    ("ReduceLogSumExp", |node| reduce(node, Reduction::LogSumExp)),
    ("ArgMax", |node| arg_extreme(node, true)),
    ("ArgMin", |node| arg_extreme(node, false)),
    ("CumSum", |node| boxed(CumSum { exclusive: node.is_set("exclusive"), reverse: node.is_set("reverse") })),
];

fn reduce(node: &Attributes, by: Reduction) -> Parsed {
    boxed(Reduce {
        by,
        axes: node.list("axes"),
        keep_axes: node.int("keepdims", 1) != 0,
        noop_without_axes: node.is_set("noop_with_empty_axes"),
    })
}

fn arg_extreme(node: &Attributes, most: bool) -> Parsed {
    boxed(ArgExtreme {
        most,
        axis: node.int("axis", 0),
        keep_axis: node.int("keepdims", 1) != 0,
        last: node.is_set("select_last_index"),
    })
}

#[derive(Clone, Copy, Debug)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

#[derive(Debug)]
struct Reduce {
    by: Reduction,
    axes: Option<Vec<i64>>,
    keep_axes: bool,
    noop_without_axes: bool,
}

/// A tensor as groups of elements that become one each.
struct Groups {
    /// All axes, the reduced ones last.
    view: View,
    len: usize,
    /// With reduced axes of length 1.
    kept: Vec<usize>,
    dropped: Vec<usize>,
}

impl Groups {
    fn new(shape: &[usize], reduced: &[usize]) -> Result<Groups, String> {
        elements(shape)?;
        let rest = || (0..shape.len()).filter(|axis| !reduced.contains(axis));
        let mut inner = reduced.to_vec();
        inner.sort_unstable();
        let order: Vec<usize> = rest().chain(inner.iter().copied()).collect();
        let kept = (0..shape.len()).map(|axis| if reduced.contains(&axis) { 1 } else { shape[axis] }).collect();
        Ok(Groups {
            view: View::whole(shape).transposed(&order),
            len: elements(&inner.iter().map(|axis| shape[*axis]).collect::<Vec<_>>())?,
            kept,
            dropped: rest().map(|axis| shape[axis]).collect(),
        })
    }

    fn reduce<T: Copy, U: Clone>(&self, data: &[T], mut f: impl FnMut(&[T]) -> U) -> Result<Vec<U>, String> {
        let groups = elements(&self.kept)?;
        let sorted = self.view.read(data);
        if self.len == 0 {
            return Ok((0..groups).map(|_| f(&[])).collect());
        }
        Ok(sorted.chunks_exact(self.len).map(f).collect())
    }
}

impl Reduce {
    /// The axes to reduce; none where each element is reduced alone.
    fn axes(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>, String> {
        let rank = input(inputs, 0)?.shape().len();
        let named = match (&self.axes, optional(inputs, 1)) {
            (Some(axes), _) => axes.as_slice(),
            (None, Some(axes)) => list(axes, "its axes")?,
            (None, None) => &[],
        };
        match named {
            [] if self.noop_without_axes => Ok(Vec::new()),
            [] => Ok((0..rank).collect()),
            named => axes(named, rank),
        }
    }
}

impl Reduction {
    fn floats(self, group: &[f32]) -> f32 {
        let extreme = |keeps: fn(f32, f32) -> bool, start| {
            group.iter().fold(start, |most: f32, x| if most.is_nan() || keeps(most, *x) { most } else { *x })
        };
        match self {
            Reduction::Sum => sum(group),
            Reduction::Mean => sum(group) / group.len() as f32,
            Reduction::Max => extreme(|most, x| most >= x, f32::NEG_INFINITY),
            Reduction::Min => extreme(|least, x| least <= x, f32::INFINITY),
            Reduction::Prod => group.iter().product(),
            Reduction::L1 => group.iter().map(|x| x.abs()).sum(),
            Reduction::L2 => group.iter().map(|x| x * x).sum::<f32>().sqrt(),
            Reduction::SumSquare => group.iter().map(|x| x * x).sum(),
            Reduction::LogSum => sum(group).ln(),
            Reduction::LogSumExp => {
                let most = Reduction::Max.floats(group);
                if most.is_infinite() { most } else { most + group.iter().map(|x| (x - most).exp()).sum::<f32>().ln() }
            }
        }
    }

    fn ints(self, group: &[i64]) -> Result<i64, String> {
        let sum = || group.iter().fold(0i64, |sum, x| sum.wrapping_add(*x));
        Ok(match self {
            Reduction::Sum => sum(),
            Reduction::Mean if group.is_empty() => return Err("there is no mean of no integers".into()),
            Reduction::Mean => sum() / group.len() as i64,
            Reduction::Max => group.iter().copied().max().ok_or("there is no greatest of no integers")?,
            Reduction::Min => group.iter().copied().min().ok_or("there is no least of no integers")?,
            Reduction::Prod => group.iter().fold(1i64, |product, x| product.wrapping_mul(*x)),
            Reduction::L1 => group.iter().fold(0i64, |sum, x| sum.wrapping_add(x.wrapping_abs())),
            Reduction::SumSquare => group.iter().fold(0i64, |sum, x| sum.wrapping_add(x.wrapping_mul(*x))),
            Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => {
                return Err("a float tensor is needed, not an integer one".into());
            }
        })
    }

    /// The gradients of a group's elements, from its value and the gradient of that.
    fn gradients(self, group: &[f32], y: f32, g: f32, into: &mut Vec<f32>) {
        match self {
            Reduction::Sum => into.extend(group.iter().map(|_| g)),
            Reduction::Mean => into.extend(group.iter().map(|_| g / group.len() as f32)),
            Reduction::Max | Reduction::Min => {
                let first = group.iter().position(|x| *x == y);
                into.extend((0..group.len()).map(|index| if Some(index) == first { g } else { 0.0 }));
            }
            Reduction::Prod => {
                // The product of all others, without dividing: an element may be zero.
                let from = into.len();
                let mut before = g;
                for x in group {
                    into.push(before);
                    before *= x;
                }
                let mut after = 1.0;
                for (x, slope) in group.iter().zip(&mut into[from..]).rev() {
                    *slope *= after;
                    after *= x;
                }
            }
            Reduction::L1 => into.extend(group.iter().map(|x| if *x == 0.0 { 0.0 } else { g * x.signum() })),
            Reduction::L2 if y == 0.0 => into.extend(group.iter().map(|_| 0.0)),
            Reduction::L2 => into.extend(group.iter().map(|x| g * x / y)),
            Reduction::SumSquare => into.extend(group.iter().map(|x| 2.0 * g * x)),
            Reduction::LogSum => into.extend(group.iter().map(|_| g / y.exp())),
            Reduction::LogSumExp => into.extend(group.iter().map(|x| g * (x - y).exp())),
        }
    }
}

impl Operator for Reduce {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?;
        let groups = Groups::new(x.shape(), &self.axes(inputs)?)?;
        let shape = if self.keep_axes { groups.kept.clone() } else { groups.dropped.clone() };
        Ok(Forward::one(match x {
            Tensor::F32(x) => Tensor::F32(Array::new(shape, groups.reduce(x.data(), |group| self.by.floats(group))?)),
            Tensor::I64(x) => {
                let values = groups.reduce(x.data(), |group| self.by.ints(group))?;
                Tensor::I64(Array::new(shape, values.into_iter().collect::<Result<_, _>>()?))
            }
            Tensor::Bool(x) => Tensor::Bool(Array::new(
                shape,
                match self.by {
                    Reduction::Max => groups.reduce(x.data(), |group| group.contains(&true))?,
                    Reduction::Min => groups.reduce(x.data(), |group| !group.contains(&false))?,
                    _ => return Err("a float tensor is needed, not a boolean one".into()),
                },
            )),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, y) = (pass.input(0)?.f32()?, pass.output(0)?.f32()?);
        let g = pass.gradient(0, y.shape());
        let mut gradients = vec![None; pass.inputs.len()];
        let groups = Groups::new(x.shape(), &self.axes(&pass.inputs)?)?;
        let mut sorted = Vec::with_capacity(x.len());
        let mut values = y.data().iter().zip(g.data());
        groups.reduce(x.data(), |group| {
            let (y, g) = values.next().expect("one for each group");
            self.by.gradients(group, *y, *g, &mut sorted);
        })?;
        let mut gradient = Array::zeros(x.shape());
        groups.view.write(&sorted, gradient.data_mut());
        gradients[0] = Some(gradient);
        Ok(gradients)
    }
}

/// The index of the greatest or least element.
#[derive(Debug)]
struct ArgExtreme {
    most: bool,
    axis: i64,
    keep_axis: bool,
    last: bool,
}

impl ArgExtreme {
    fn of<T: Copy + PartialOrd>(&self, group: &[T]) -> Option<i64> {
        let mut found = 0;
        let mut best = *group.first()?;
        for (index, x) in group.iter().enumerate().skip(1) {
            let better = if self.most { *x > best } else { *x < best };
            if better || self.last && *x == best {
                (found, best) = (index, *x);
            }
        }
        Some(found as i64)
    }
}

impl Operator for ArgExtreme {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?;
        let groups = Groups::new(x.shape(), &[axis(self.axis, x.shape().len())?])?;
        let found = match x {
            Tensor::F32(x) => groups.reduce(x.data(), |group| self.of(group))?,
            Tensor::I64(x) => groups.reduce(x.data(), |group| self.of(group))?,
            Tensor::Bool(_) => return Err("a float tensor is needed, not a boolean one".into()),
        };
        let found = found.into_iter().collect::<Option<Vec<i64>>>().ok_or("its axis is empty")?;
        let shape = if self.keep_axis { groups.kept } else { groups.dropped };
        Ok(Forward::one(Tensor::I64(Array::new(shape, found))))
    }
}

#[derive(Debug)]
struct CumSum {
    exclusive: bool,
    reverse: bool,
}

impl CumSum {
    fn sums<T: Copy + Default>(
        &self,
        x: &Array<T>,
        at: i64,
        reverse: bool,
        add: impl Fn(T, T) -> T,
    ) -> Result<Array<T>, String> {
        let at = axis(at, x.rank())?;
        let groups = Groups::new(x.shape(), &[at])?;
        let mut sums = Vec::with_capacity(x.len());
        groups.reduce(x.data(), |group| {
            let from = sums.len();
            sums.extend_from_slice(group);
            let row = &mut sums[from..];
            if reverse {
                row.reverse();
            }
            let mut sum = T::default();
            for value in row.iter_mut() {
                let with = add(sum, *value);
                *value = if self.exclusive { sum } else { with };
                sum = with;
            }
            if reverse {
                row.reverse();
            }
        })?;
        let mut found = Array::filled(x.shape(), T::default());
        groups.view.write(&sums, found.data_mut());
        Ok(found)
    }

    fn axis(inputs: &[Option<&Tensor>]) -> Result<i64, String> {
        single(input(inputs, 1)?.i64()?, "its axis")
    }
}

impl Operator for CumSum {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let axis = CumSum::axis(inputs)?;
        Ok(Forward::one(match input(inputs, 0)? {
            Tensor::I64(x) => Tensor::I64(self.sums(x, axis, self.reverse, i64::wrapping_add)?),
            x => Tensor::F32(self.sums(x.f32()?, axis, self.reverse, |a, b| a + b)?),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let g = pass.gradient(0, pass.input(0)?.shape());
        // The other way round.
        Ok(vec![Some(self.sums(&g, CumSum::axis(&pass.inputs)?, !self.reverse, |a, b| a + b)?), None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;

    #[test]
    fn gradients_are_finite_differences() {
        let all = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"];
        for name in all {
            let op_type = format!("Reduce{name}");
            let x = if name == "LogSum" { between(1, &[2, 3, 4], 0.5, 2.0) } else { apart(1, &[2, 3, 4]) };
            // Products of two dozen values are steep; three are enough.
            let axes: &[i64] = if name == "Prod" { &[1] } else { &[0, -1] };
            let attributes = vec![int_list("axes", axes), int("keepdims", 0)];
            check(&*operator(&op_type, 11, attributes), std::slice::from_ref(&x), 1, &[0]);
            check(&*operator(&op_type, 18, vec![]), &[x.clone(), ints(&[1], &[-2])], 1, &[0]);
            if name != "Prod" {
                check(&*operator(&op_type, 18, vec![]), std::slice::from_ref(&x), 1, &[0]);
            }
            check(&*operator(&op_type, 18, vec![int("noop_with_empty_axes", 1)]), &[x], 1, &[0]);
        }
        let zero = floats(&[3], &[0.0, 2.0, 3.0]);
        check(&*operator("ReduceProd", 13, vec![]), &[zero], 1, &[0]);
        for flags in 0..4 {
            let attributes = vec![int("exclusive", flags & 1), int("reverse", flags >> 1)];
            check(&*operator("CumSum", 14, attributes), &[random(1, &[3, 4]), ints(&[], &[-1])], 1, &[0]);
        }
    }

    #[test]
    fn nothing_has_a_sum_and_scalars_are_reduced_too() {
        let sum = operator("ReduceSum", 13, vec![int("keepdims", 0)]);
        assert_eq!(output(&*sum, &[floats(&[2, 0], &[]), ints(&[1], &[1])]).data(), [0.0, 0.0]);
        assert_eq!(output(&*sum, &[floats(&[0, 2], &[]), ints(&[1], &[1])]).shape(), [0]);
        assert_eq!(output(&*sum, &[floats(&[], &[3.0])]).data(), [3.0]);
        let arg = operator("ArgMax", 13, vec![int("keepdims", 0), int("axis", -1)]);
        assert_eq!(forward(&*arg, &[floats(&[2, 2], &[1.0, 1.0, 0.0, 1.0])], 1), [ints(&[2], &[0, 1])]);
        let empty = floats(&[2, 0], &[]);
        arg.forward(&[Some(&empty)], 1).err().unwrap();
    }
}
