//! Views, which show elements of an array at the places of another shape: broadcasting, transposing, slicing and tiling
//! are views. The gradient of an element shown at many places is the sum over them.
//!
//! A view is walked row by row. Axes that are contiguous in memory are joined first, so that the inner loop is long and
//! its stride known.

use super::support::elements;

/// Place `i, j, …` of `shape` shows element `offset + i * strides[0] + j * strides[1] + …`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub shape: Vec<usize>,
    pub strides: Vec<isize>,
    pub offset: usize,
}

impl View {
    /// Shows an array of `shape` as it is.
    pub fn whole(shape: &[usize]) -> View {
        let mut strides = vec![0; shape.len()];
        let mut stride: isize = 1;
        for (at, axis) in strides.iter_mut().zip(shape).rev() {
            *at = stride;
            // Strides of an empty array are never used, so they may be anything.
            stride = stride.saturating_mul(*axis as isize);
        }
        View { shape: shape.to_vec(), strides, offset: 0 }
    }

    /// Shows an array of shape `from` repeated to fill `to`, as NumPy broadcasts.
    pub fn broadcast(from: &[usize], to: &[usize]) -> Result<View, String> {
        let misfit = || format!("shape {from:?} cannot be broadcast to {to:?}");
        let missing = to.len().checked_sub(from.len()).ok_or_else(misfit)?;
        let whole = View::whole(from);
        let mut strides = vec![0; to.len()];
        for (axis, (extent, stride)) in from.iter().zip(whole.strides).enumerate() {
            match (*extent, to[missing + axis]) {
                (extent, required) if extent == required => strides[missing + axis] = stride,
                (1, _) => {}
                _ => return Err(misfit()),
            }
        }
        elements(to)?;
        Ok(View { shape: to.to_vec(), strides, offset: 0 })
    }

    /// Axis `i` shows what axis `order[i]` showed. `order` names each axis once.
    pub fn transposed(self, order: &[usize]) -> View {
        View {
            shape: order.iter().map(|axis| self.shape[*axis]).collect(),
            strides: order.iter().map(|axis| self.strides[*axis]).collect(),
            offset: self.offset,
        }
    }

    /// Only `count` places of `axis`: `start`, `start + step`, … All must exist.
    pub fn sliced(mut self, axis: usize, start: usize, step: isize, count: usize) -> View {
        if count > 0 {
            self.offset = self.offset.wrapping_add_signed(self.strides[axis].wrapping_mul(start as isize));
        }
        self.strides[axis] = self.strides[axis].wrapping_mul(step);
        self.shape[axis] = count;
        self
    }

    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.shape.iter().product() }
    }

    /// What the view shows of `data`, in order.
    pub fn read<T: Copy>(&self, data: &[T]) -> Vec<T> {
        let mut out = Vec::with_capacity(self.len());
        walk([self], |[start], [stride], len| match stride {
            1 => out.extend_from_slice(&data[start..start + len]),
            0 => out.extend(std::iter::repeat_n(data[start], len)),
            _ => out.extend((0..len as isize).map(|step| data[start.wrapping_add_signed(step * stride)])),
        });
        out
    }

    /// Writes `values`, in order, to the places that the view shows.
    pub fn write<T: Copy>(&self, values: &[T], into: &mut [T]) {
        let mut rest = values;
        walk([self], |[start], [stride], len| {
            let row;
            (row, rest) = rest.split_at(len);
            if stride == 1 {
                into[start..start + len].copy_from_slice(row);
            } else {
                let places = (0..len as isize).map(|step| start.wrapping_add_signed(step * stride));
                places.zip(row).for_each(|(place, value)| into[place] = *value);
            }
        });
    }

    /// Adds `values`, in order, to the places that the view shows: the gradient of [`View::read`].
    pub fn add(&self, values: &[f32], into: &mut [f32]) {
        let mut rest = values;
        walk([self], |[start], [stride], len| {
            let row;
            (row, rest) = rest.split_at(len);
            match stride {
                1 => into[start..start + len].iter_mut().zip(row).for_each(|(sum, value)| *sum += value),
                0 => into[start] += sum(row),
                _ => {
                    let places = (0..len as isize).map(|step| start.wrapping_add_signed(step * stride));
                    places.zip(row).for_each(|(place, value)| into[place] += value);
                }
            }
        });
    }
}

/// The shape that all `shapes` broadcast to.
pub(crate) fn broadcast_shape<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<Vec<usize>, String> {
    let mut common: Vec<usize> = Vec::new();
    for shape in shapes {
        if shape.len() > common.len() {
            common.splice(0..0, std::iter::repeat_n(1, shape.len() - common.len()));
        }
        let missing = common.len() - shape.len();
        for (extent, axis) in common[missing..].iter_mut().zip(shape) {
            match (*extent, *axis) {
                (extent, axis) if extent == axis => {}
                (1, axis) => *extent = axis,
                (_, 1) => {}
                _ => return Err(format!("shape {shape:?} does not fit the others, {common:?}")),
            }
        }
    }
    elements(&common)?;
    Ok(common)
}

/// Calls `row(starts, strides, len)` for each row of views of one shape, in order.
pub(crate) fn walk<const N: usize>(views: [&View; N], mut row: impl FnMut([usize; N], [isize; N], usize)) {
    if views[0].is_empty() {
        return;
    }
    // Axes from the innermost outwards, joined where all views continue from one to the next in even steps.
    let mut axes: Vec<(usize, [isize; N])> = Vec::new();
    for (axis, extent) in views[0].shape.iter().enumerate().rev() {
        let strides = views.map(|view| view.strides[axis]);
        match axes.last_mut() {
            _ if *extent == 1 => {}
            Some((inner, steps)) if (0..N).all(|view| strides[view] == steps[view] * *inner as isize) => {
                *inner *= extent;
            }
            _ => axes.push((*extent, strides)),
        }
    }
    let (len, strides) = if axes.is_empty() { (1, [1; N]) } else { axes.remove(0) };
    let mut starts = views.map(|view| view.offset);
    let mut counters = vec![0; axes.len()];
    loop {
        row(starts, strides, len);
        let mut axis = 0;
        loop {
            let Some((extent, steps)) = axes.get(axis) else { return };
            counters[axis] += 1;
            let back = if counters[axis] == *extent { *extent as isize - 1 } else { -1 };
            for (start, step) in starts.iter_mut().zip(steps) {
                *start = start.wrapping_add_signed(if back < 0 { *step } else { -step * back });
            }
            if back < 0 {
                break;
            }
            counters[axis] = 0;
            axis += 1;
        }
    }
}

/// In eight lanes: faster than one by one, and it loses fewer small terms beside a large sum.
pub(crate) fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_show_what_numpy_shows() {
        let data: Vec<i64> = (0..6).collect();
        let whole = View::whole(&[2, 3]);
        assert_eq!(whole.read(&data), data);
        assert_eq!(whole.clone().transposed(&[1, 0]).read(&data), [0, 3, 1, 4, 2, 5]);
        assert_eq!(whole.clone().sliced(1, 2, -2, 2).read(&data), [2, 0, 5, 3]);
        assert_eq!(View::broadcast(&[2, 1], &[2, 2, 2]).unwrap().read(&data), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(View::broadcast(&[], &[3]).unwrap().read(&[7]), [7, 7, 7]);
        assert_eq!(View::broadcast(&[1], &[2, 0]).unwrap().read(&[7]), []);
        View::broadcast(&[2], &[3]).unwrap_err();
        View::broadcast(&[2, 2], &[2]).unwrap_err();
    }

    #[test]
    fn what_is_shown_often_gets_a_sum() {
        let mut sums = [0.0; 2];
        View::broadcast(&[2, 1], &[3, 2, 2]).unwrap().add(&(0..12).map(|x| x as f32).collect::<Vec<_>>(), &mut sums);
        assert_eq!(sums, [(1 + 4 + 5 + 8 + 9) as f32, (2 + 3 + 6 + 7 + 10 + 11) as f32]);
    }

    #[test]
    fn sizes_are_bounded() {
        broadcast_shape([&[1 << 20, 1][..], &[1, 1 << 20]]).unwrap_err();
        assert_eq!(broadcast_shape([&[3, 1][..], &[0]]), Ok(vec![3, 0]));
    }
}
