//! Operators that take elements by index, or put them there. The gradient of taking adds up at the same places.
//!
//! Negative indices count from the end; one that is out of range is an error, not a clamp.

use super::{Attributes, Backward, Family, Forward, InputGradients, Operator, boxed, strided::View, support::*};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("Gather", |node| boxed(Gather { axis: node.int("axis", 0) })),
    ("GatherElements", |node| boxed(GatherElements { axis: node.int("axis", 0) })),
    ("GatherND", |node| match node.int("batch_dims", 0) {
        0 => boxed(GatherNd),
        _ => Err("`batch_dims` is not supported".into()),
    }),
    ("Scatter", |node| boxed(Scatter { axis: Some(node.int("axis", 0)), adds: adds(node)? })),
    ("ScatterElements", |node| boxed(Scatter { axis: Some(node.int("axis", 0)), adds: adds(node)? })),
    ("ScatterND", |node| boxed(Scatter { axis: None, adds: adds(node)? })),
    ("OneHot", |node| boxed(OneHot { axis: node.int("axis", -1) })),
    ("NonZero", |_| boxed(NonZero)),
    ("Pad", |node| {
        let mode = match node.text("mode").unwrap_or("constant") {
            "constant" => PadMode::Constant,
            "reflect" => PadMode::Reflect,
            "edge" => PadMode::Edge,
            "wrap" => PadMode::Wrap,
            other => return Err(format!("there is no mode `{other}`")),
        };
        // Up to opset 10 pads and value are attributes.
        boxed(Pad { mode, pads: node.list("pads"), value: node.float("value", 0.0) })
    }),
];

/// Whether updates are added to what is there.
fn adds(node: &Attributes) -> Result<bool, String> {
    match node.text("reduction").unwrap_or("none") {
        "none" => Ok(false),
        "add" => Ok(true),
        other => Err(format!("`reduction` = `{other}` is not supported")),
    }
}

/// An index as a position on an axis.
fn place(index: i64, extent: usize) -> Result<usize, String> {
    let wrapped = if index < 0 { index.saturating_add(extent as i64) } else { index };
    usize::try_from(wrapped)
        .ok()
        .filter(|place| *place < extent)
        .ok_or_else(|| format!("index {index} is outside an axis of length {extent}"))
}

/// The number of elements before an axis, and after it.
fn around(shape: &[usize], axis: usize) -> (usize, usize) {
    (shape[..axis].iter().product(), shape[axis + 1..].iter().product())
}

#[derive(Debug)]
struct Gather {
    axis: i64,
}

struct Taken {
    axis: usize,
    places: Vec<usize>,
    shape: Vec<usize>,
}

impl Gather {
    fn taken(&self, inputs: &[Option<&Tensor>]) -> Result<Taken, String> {
        let (shape, indices) = (input(inputs, 0)?.shape(), input(inputs, 1)?.i64()?);
        let axis = axis(self.axis, shape.len())?;
        let places = indices.data().iter().map(|index| place(*index, shape[axis])).collect::<Result<_, _>>()?;
        let shape = [&shape[..axis], indices.shape(), &shape[axis + 1..]].concat();
        elements(&shape)?;
        Ok(Taken { axis, places, shape })
    }
}

impl Operator for Gather {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?;
        let Taken { axis, places, shape } = self.taken(inputs)?;
        fn take<T: Copy>(x: &Array<T>, axis: usize, places: &[usize], shape: Vec<usize>) -> Array<T> {
            if shape.contains(&0) {
                return Array::new(shape, Vec::new());
            }
            let (outer, inner) = around(x.shape(), axis);
            let mut out = Vec::with_capacity(outer * places.len() * inner);
            for block in x.data().chunks_exact(x.shape()[axis] * inner) {
                places.iter().for_each(|place| out.extend_from_slice(&block[place * inner..][..inner]));
            }
            Array::new(shape, out)
        }
        Ok(Forward::one(for_any!(x, x => take(x, axis, &places, shape))))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let x = pass.input(0)?.shape();
        let Taken { axis, places, shape } = self.taken(&pass.inputs)?;
        let g = pass.gradient(0, &shape);
        let mut gradient = Array::zeros(x);
        if !g.is_empty() {
            let (_, inner) = around(x, axis);
            let blocks = gradient.data_mut().chunks_exact_mut(x[axis] * inner);
            for (block, taken) in blocks.zip(g.data().chunks_exact(places.len() * inner)) {
                for (place, row) in places.iter().zip(taken.chunks_exact(inner)) {
                    block[place * inner..][..inner].iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
                }
            }
        }
        pass.only_first(gradient)
    }
}

/// For each element of `indices`, in order, where in a tensor of `shape` it points along `axis`.
fn pointed(shape: &[usize], indices: &Array<i64>, at: i64) -> Result<Vec<usize>, String> {
    let axis = axis(at, shape.len())?;
    let inside = indices.rank() == shape.len()
        && (0..shape.len()).all(|other| other == axis || indices.shape()[other] <= shape[other]);
    if !inside {
        return Err(format!("indices of shape {:?} do not fit shape {shape:?}", indices.shape()));
    }
    elements(shape)?;
    // Where each element would be with index 0,
    let mut view = View::whole(shape);
    let stride = view.strides[axis] as usize;
    view.strides[axis] = 0;
    view.shape = indices.shape().to_vec();
    let mut places = Vec::with_capacity(indices.len());
    super::strided::walk([&view], |[start], [step], len| {
        places.extend((0..len).map(|index| start + index * step as usize));
    });
    // moved on by its index.
    for (at, index) in places.iter_mut().zip(indices.data()) {
        *at += place(*index, shape[axis])? * stride;
    }
    Ok(places)
}

#[derive(Debug)]
struct GatherElements {
    axis: i64,
}

impl Operator for GatherElements {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (x, indices) = (input(inputs, 0)?, input(inputs, 1)?.i64()?);
        let places = pointed(x.shape(), indices, self.axis)?;
        let shape = indices.shape();
        Ok(Forward::one(for_any!(x, x => Array::new(shape, places.iter().map(|at| x.data()[*at]).collect()))))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, indices) = (pass.input(0)?.shape(), pass.input(1)?.i64()?);
        let g = pass.gradient(0, indices.shape());
        let mut gradient = Array::zeros(x);
        let sums = gradient.data_mut();
        pointed(x, indices, self.axis)?.into_iter().zip(g.data()).for_each(|(at, g)| sums[at] += g);
        pass.only_first(gradient)
    }
}

/// Rows of a tensor of `shape`, each given by an index along the first axes: where they start, and their length.
fn rows(shape: &[usize], indices: &Array<i64>) -> Result<(Vec<usize>, usize), String> {
    let depth = indices.shape().last().copied().ok_or("its indices are a scalar")?;
    if depth == 0 || depth > shape.len() {
        return Err(format!("indices of {depth} axes do not fit shape {shape:?}"));
    }
    elements(shape)?;
    let strides = View::whole(shape).strides;
    let start = |tuple: &[i64]| -> Result<usize, String> {
        tuple
            .iter()
            .enumerate()
            .try_fold(0, |sum, (axis, index)| Ok(sum + place(*index, shape[axis])? * strides[axis] as usize))
    };
    Ok((indices.data().chunks_exact(depth).map(start).collect::<Result<_, _>>()?, elements(&shape[depth..])?))
}

#[derive(Debug)]
struct GatherNd;

impl GatherNd {
    fn shape(x: &[usize], indices: &Array<i64>) -> Result<Vec<usize>, String> {
        let [outer @ .., depth] = indices.shape() else { return Err("its indices are a scalar".into()) };
        let shape = [outer, x.get(*depth..).ok_or("its indices have too many axes")?].concat();
        elements(&shape)?;
        Ok(shape)
    }
}

impl Operator for GatherNd {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let (x, indices) = (input(inputs, 0)?, input(inputs, 1)?.i64()?);
        let shape = GatherNd::shape(x.shape(), indices)?;
        let (starts, len) = rows(x.shape(), indices)?;
        Ok(Forward::one(for_any!(x, x => {
            Array::new(shape, starts.iter().flat_map(|start| x.data()[*start..start + len].iter().copied()).collect())
        })))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, indices) = (pass.input(0)?.shape(), pass.input(1)?.i64()?);
        let g = pass.gradient(0, &GatherNd::shape(x, indices)?);
        let (starts, len) = rows(x, indices)?;
        let mut gradient = Array::zeros(x);
        for (start, row) in starts.iter().zip(g.data().chunks_exact(len.max(1))) {
            gradient.data_mut()[*start..start + len].iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
        pass.only_first(gradient)
    }
}

/// Puts elements along an axis, or (`ScatterND`) rows.
#[derive(Debug)]
struct Scatter {
    axis: Option<i64>,
    adds: bool,
}

impl Scatter {
    /// Where each element of the updates goes.
    fn places(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>, String> {
        let (shape, indices, updates) =
            (input(inputs, 0)?.shape(), input(inputs, 1)?.i64()?, input(inputs, 2)?.shape());
        let (places, required) = match self.axis {
            Some(axis) => (pointed(shape, indices, axis)?, indices.shape().to_vec()),
            None => {
                let required = GatherNd::shape(shape, indices)?;
                let (starts, len) = rows(shape, indices)?;
                (starts.into_iter().flat_map(|start| start..start + len).collect(), required)
            }
        };
        if updates != required {
            return Err(format!("updates of shape {updates:?} do not fit; {required:?} is required"));
        }
        Ok(places)
    }

    fn put<T: Copy>(&self, x: &Array<T>, places: &[usize], updates: &Array<T>, add: impl Fn(T, T) -> T) -> Array<T> {
        let mut put = x.clone();
        let into = put.data_mut();
        for (at, update) in places.iter().zip(updates.data()) {
            into[*at] = if self.adds { add(into[*at], *update) } else { *update };
        }
        put
    }
}

impl Operator for Scatter {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let places = self.places(inputs)?;
        Ok(Forward::one(match (input(inputs, 0)?, input(inputs, 2)?) {
            (Tensor::F32(x), Tensor::F32(updates)) => Tensor::F32(self.put(x, &places, updates, |a, b| a + b)),
            (Tensor::I64(x), Tensor::I64(updates)) => Tensor::I64(self.put(x, &places, updates, i64::wrapping_add)),
            (Tensor::Bool(x), Tensor::Bool(updates)) => Tensor::Bool(self.put(x, &places, updates, |a, b| a || b)),
            (x, updates) => return Err(format!("updates of kind {} for {} values", updates.kind(), x.kind())),
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let g = pass.gradient(0, pass.input(0)?.shape());
        let places = self.places(&pass.inputs)?;
        let mut updates: Vec<f32> = places.iter().map(|at| g.data()[*at]).collect();
        let mut kept = g;
        if !self.adds {
            // Of several updates at one place only the last one stayed.
            let mut seen = vec![false; kept.len()];
            for (at, update) in places.iter().zip(&mut updates).rev() {
                if std::mem::replace(&mut seen[*at], true) {
                    *update = 0.0;
                }
            }
            kept.data_mut().iter_mut().zip(seen).for_each(|(g, seen)| {
                if seen {
                    *g = 0.0;
                }
            });
        }
        let updates = Array::new(pass.input(2)?.shape(), updates);
        Ok(vec![Some(kept), None, Some(updates)])
    }
}

#[derive(Debug)]
struct OneHot {
    axis: i64,
}

impl Operator for OneHot {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let whole = |tensor: &Tensor| match tensor {
            Tensor::F32(array) => Ok(array.map(|x| *x as i64)),
            other => other.i64().cloned(),
        };
        let indices = whole(input(inputs, 0)?)?;
        let depth = size(single(&whole(input(inputs, 1)?)?, "its depth")?, "its depth")?;
        let axis = axis(self.axis, indices.rank() + 1)?;
        let mut shape = indices.shape().to_vec();
        shape.insert(axis, depth);
        let count = elements(&shape)?;
        let inner: usize = indices.shape()[axis..].iter().product();
        let extent = depth as i64;
        let place_of = |index: &i64| if *index < 0 { index.saturating_add(extent) } else { *index };
        fn fill<T: Copy>(
            values: &Array<T>,
            hot: impl Iterator<Item = usize>,
            count: usize,
            shape: Vec<usize>,
        ) -> Result<Array<T>, String> {
            let [off, on] = values.data() else { return Err("its values are two, off and on".into()) };
            let mut all = Array::filled(shape, *off);
            let into = all.data_mut();
            debug_assert_eq!(into.len(), count);
            hot.for_each(|at| into[at] = *on);
            Ok(all)
        }
        let hot = indices.data().iter().enumerate().filter_map(|(at, index)| {
            // An index out of range is off everywhere.
            let index = usize::try_from(place_of(index)).ok().filter(|index| *index < depth)?;
            Some((at / inner * depth + index) * inner + at % inner)
        });
        Ok(Forward::one(for_any!(input(inputs, 2)?, values => fill(values, hot, count, shape)?)))
    }
}

#[derive(Debug)]
struct NonZero;

impl Operator for NonZero {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = input(inputs, 0)?;
        let hit: Vec<bool> = match x {
            Tensor::F32(x) => x.data().iter().map(|x| *x != 0.0).collect(),
            Tensor::I64(x) => x.data().iter().map(|x| *x != 0).collect(),
            Tensor::Bool(x) => x.data().to_vec(),
        };
        let hits: Vec<usize> = (0..hit.len()).filter(|at| hit[*at]).collect();
        let strides = View::whole(x.shape()).strides;
        let along = x.shape().iter().zip(&strides);
        let places: Vec<i64> = along
            .flat_map(|(extent, stride)| hits.iter().map(move |at| (at / *stride as usize % extent) as i64))
            .collect();
        Ok(Forward::one(Tensor::I64(Array::new([x.shape().len(), hits.len()], places))))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

#[derive(Debug)]
struct Pad {
    mode: PadMode,
    pads: Option<Vec<i64>>,
    value: f32,
}

/// Stands for the constant in a list of places.
const OUTSIDE: usize = usize::MAX;

impl Pad {
    /// The output's shape, and by axis which place of the input each place of the output shows; no places where it is
    /// empty.
    fn places(&self, inputs: &[Option<&Tensor>]) -> Result<(Vec<usize>, Vec<Vec<usize>>), String> {
        let shape = input(inputs, 0)?.shape();
        let pads = match &self.pads {
            Some(pads) => pads.as_slice(),
            None => list(input(inputs, 1)?, "its pads")?,
        };
        let padded = match optional(inputs, 3) {
            Some(named) => axes(list(named, "its axes")?, shape.len())?,
            None => (0..shape.len()).collect(),
        };
        if pads.len() != 2 * padded.len() {
            return Err(format!("it has {} pads for {} axes", pads.len(), padded.len()));
        }
        let mut spans: Vec<(i64, i64)> = shape.iter().map(|extent| (0, *extent as i64)).collect();
        for (index, axis) in padded.iter().enumerate() {
            let (before, after) = (pads[index], pads[index + padded.len()]);
            let beyond = || format!("pads {before} and {after} do not fit an axis of length {}", shape[*axis]);
            let start = before.checked_neg().ok_or_else(beyond)?;
            let end = after.checked_add(shape[*axis] as i64).ok_or_else(beyond)?;
            if start > end {
                return Err(beyond());
            }
            spans[*axis] = (start, end);
        }
        let lengths: Vec<usize> = spans
            .iter()
            .map(|(start, end)| end.checked_sub(*start).map(|len| len as usize))
            .collect::<Option<_>>()
            .ok_or("an axis is beyond all bounds")?;
        elements(&lengths)?;
        if elements(shape)? == 0 && self.mode != PadMode::Constant && elements(&lengths)? > 0 {
            return Err("there is nothing to fill it with".into());
        }
        // An empty output needs no places, however long its other axes are.
        if lengths.contains(&0) {
            return Ok((lengths, Vec::new()));
        }
        let along = |((start, end), extent): ((i64, i64), &usize)| {
            let extent = *extent as i64;
            let shows = move |at: i64| match self.mode {
                _ if (0..extent).contains(&at) => at as usize,
                PadMode::Constant => OUTSIDE,
                PadMode::Edge => at.clamp(0, extent - 1) as usize,
                PadMode::Wrap => at.rem_euclid(extent) as usize,
                PadMode::Reflect if extent == 1 => 0,
                PadMode::Reflect => {
                    let round = at.rem_euclid(2 * (extent - 1));
                    round.min(2 * (extent - 1) - round) as usize
                }
            };
            (start..end).map(shows).collect()
        };
        Ok((lengths, spans.into_iter().zip(shape).map(along).collect()))
    }
}

fn padded<T: Copy>(x: &Array<T>, (lengths, places): &(Vec<usize>, Vec<Vec<usize>>), fill: T) -> Array<T> {
    if lengths.contains(&0) {
        return Array::new(lengths.clone(), Vec::new());
    }
    let mut found = x.clone();
    for (axis, places) in places.iter().enumerate() {
        let mut shape = found.shape().to_vec();
        if places.iter().copied().eq(0..shape[axis]) {
            continue;
        }
        let (outer, inner) = around(&shape, axis);
        let extent = std::mem::replace(&mut shape[axis], places.len());
        let mut out = Vec::with_capacity(outer * places.len() * inner);
        for block in 0..outer {
            let block = &found.data()[block * extent * inner..][..extent * inner];
            for place in places {
                match *place {
                    OUTSIDE => out.extend(std::iter::repeat_n(fill, inner)),
                    place => out.extend_from_slice(&block[place * inner..][..inner]),
                }
            }
        }
        found = Array::new(shape, out);
    }
    found
}

impl Operator for Pad {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let places = self.places(inputs)?;
        let value = optional(inputs, 2);
        Ok(Forward::one(match input(inputs, 0)? {
            Tensor::F32(x) => {
                let value = value.map_or(Ok(self.value), |value| single(value.f32()?, "its value"))?;
                Tensor::F32(padded(x, &places, value))
            }
            Tensor::I64(x) => {
                Tensor::I64(padded(x, &places, value.map_or(Ok(0), |value| single(value.i64()?, "its value"))?))
            }
            Tensor::Bool(x) => {
                Tensor::Bool(padded(x, &places, value.map_or(Ok(false), |value| single(value.bool()?, "its value"))?))
            }
        }))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let shape = pass.input(0)?.shape();
        let (lengths, places) = self.places(&pass.inputs)?;
        if lengths.contains(&0) {
            return pass.only_first(Array::zeros(shape));
        }
        let mut gradient = pass.gradient(0, &lengths);
        for (axis, places) in places.iter().enumerate().rev() {
            let extent = shape[axis];
            let mut folded_shape = gradient.shape().to_vec();
            let (outer, inner) = around(&folded_shape, axis);
            folded_shape[axis] = extent;
            let mut folded = Array::zeros(folded_shape);
            let sums = folded.data_mut();
            for block in 0..outer {
                for (index, place) in places.iter().enumerate().filter(|(_, place)| **place != OUTSIDE) {
                    let row = &gradient.data()[(block * places.len() + index) * inner..][..inner];
                    let sums = &mut sums[(block * extent + place) * inner..][..inner];
                    sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
                }
            }
            gradient = folded;
        }
        pass.only_first(gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;

    #[test]
    fn gradients_are_finite_differences() {
        let x = random(1, &[3, 4]);
        check(&*operator("Gather", 13, vec![]), &[x.clone(), ints(&[2, 2], &[0, 2, 2, -1])], 1, &[0]);
        check(&*operator("Gather", 13, vec![int("axis", -1)]), &[x.clone(), ints(&[], &[1])], 1, &[0]);
        let indices = ints(&[2, 3], &[0, 1, 2, -1, 0, 0]);
        check(&*operator("GatherElements", 13, vec![]), &[x.clone(), indices.clone()], 1, &[0]);
        check(&*operator("GatherElements", 13, vec![int("axis", 1)]), &[x.clone(), indices.clone()], 1, &[0]);
        check(&*operator("GatherND", 13, vec![]), &[x.clone(), ints(&[3, 1], &[0, 2, 0])], 1, &[0]);
        check(&*operator("GatherND", 13, vec![]), &[x.clone(), ints(&[2, 2], &[0, 2, 1, 1])], 1, &[0]);
        for reduction in ["none", "add"] {
            let scatter = |op_type| operator(op_type, 16, vec![string("reduction", reduction)]);
            let updates = random(2, &[2, 3]);
            check(&*scatter("ScatterElements"), &[x.clone(), indices.clone(), updates], 1, &[0, 2]);
            check(&*scatter("ScatterND"), &[x.clone(), ints(&[3, 1], &[0, 2, 0]), random(2, &[3, 4])], 1, &[0, 2]);
        }
        for mode in ["constant", "reflect", "edge", "wrap"] {
            let pads = ints(&[4], &[1, 2, 1, 3]);
            check(&*operator("Pad", 19, vec![string("mode", mode)]), &[x.clone(), pads], 1, &[0]);
        }
        check(&*operator("Pad", 13, vec![]), &[x.clone(), ints(&[4], &[-1, 1, 0, -2]), floats(&[], &[3.0])], 1, &[0]);
        let named = [Some(x), Some(ints(&[2], &[1, 1])), None, Some(ints(&[1], &[-1]))];
        check_optional(&*operator("Pad", 18, vec![]), &named, 1, &[0]);
    }

    #[test]
    fn what_is_outside_is_refused() {
        let x = random(1, &[3, 4]);
        let gather = |index| {
            let index = ints(&[1], &[index]);
            operator("Gather", 13, vec![]).forward(&[Some(&x), Some(&index)], 1).err()
        };
        assert!(gather(3).unwrap().contains("index 3"));
        assert!(gather(-4).is_some() && gather(i64::MIN).is_some());
        let pads = ints(&[4], &[i64::MIN, 0, i64::MAX, 0]);
        operator("Pad", 13, vec![]).forward(&[Some(&x), Some(&pads)], 1).err().unwrap();
    }

    #[test]
    fn one_hot_and_nonzero() {
        let all = [ints(&[3], &[0, -1, 5]), ints(&[], &[3]), floats(&[2], &[0.0, 1.0])];
        let y = output(&*operator("OneHot", 11, vec![]), &all);
        assert_eq!((y.shape(), y.data()), (&[3, 3][..], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0][..]));
        let y = forward(&*operator("NonZero", 13, vec![]), &[ints(&[2, 2], &[0, 1, 1, 1])], 1);
        assert_eq!(y, [ints(&[2, 3], &[0, 1, 1, 1, 0, 1])]);
    }
}
