//! Pools: over windows (`MaxPool`, `AveragePool`, `LpPool`) and over whole planes (`GlobalMaxPool`, …).

use rayon::prelude::*;

use super::{
    Attributes, Backward, Family, Forward, InputGradients, Operator, boxed, support,
    vector::sum,
    window::{Window, Windows},
};
use crate::{Array, Tensor};

pub const FAMILY: &Family = &[
    ("MaxPool", |node| match node.int("storage_order", 0) {
        0 => boxed(MaxPool { window: window(node)? }),
        _ => Err("indices in column-major order are not supported".into()),
    }),
    ("AveragePool", |node| {
        boxed(SlidingPool { window: window(node)?, by: By::Mean { counts_padding: node.is_set("count_include_pad") } })
    }),
    ("LpPool", |node| boxed(SlidingPool { window: window(node)?, by: By::Norm { p: exponent(node)? } })),
    ("GlobalMaxPool", |_| boxed(GlobalMaxPool)),
    ("GlobalAveragePool", |_| boxed(GlobalPool { by: By::Mean { counts_padding: false } })),
    ("GlobalLpPool", |node| boxed(GlobalPool { by: By::Norm { p: exponent(node)? } })),
];

fn window(node: &Attributes) -> Result<Window, String> {
    let window = Window::parse(node)?;
    window.kernel()?;
    Ok(window)
}

/// The exponent of an Lp norm.
fn exponent(node: &Attributes) -> Result<f32, String> {
    match node.int("p", 2) {
        p @ 1..=64 => Ok(p as f32),
        p => Err(format!("`p` = {p} is not supported")),
    }
}

fn place(window: &Window, x: &Array<f32>) -> Result<Windows, String> {
    let windows = window.place(x.shape(), window.kernel()?)?;
    let sides = [windows.rows, windows.columns];
    let reaches = |side: &super::window::Side| {
        let reach = (side.kernel - 1) * side.dilation + 1;
        side.before < reach && side.after < reach
    };
    if !sides.iter().all(reaches) {
        return Err("the padding is as wide as the window, which would have nothing in it".to_owned());
    }
    Ok(windows)
}

/// Calls `f` for each plane with its index, on all threads where there is enough to do.
fn for_each_plane<T: Send>(target: &mut [T], plane: usize, cost: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if plane > 0 {
        let at_least = (1 << 15) / cost.max(1) + 1;
        let planes = target.par_chunks_mut(plane).enumerate();
        planes.with_min_len(at_least).for_each(|(index, plane)| f(index, plane));
    }
}

#[derive(Debug)]
struct MaxPool {
    window: Window,
}

/// The place in its plane that each output comes from; `usize::MAX` for one without any.
struct Places(Vec<usize>);

impl Operator for MaxPool {
    fn forward(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let windows = place(&self.window, x)?;
        let Windows { rows, columns } = windows;
        let shape = windows.output_shape(x.shape()[0], x.shape()[1], x.rank() - 2);
        if windows.input() == 0 && shape.iter().all(|axis| *axis > 0) {
            return Err("nothing is in the windows".to_owned());
        }
        let mut places = vec![0usize; shape.iter().product()];
        let mut y = vec![0.0f32; places.len()];
        let mut both: Vec<_> =
            y.chunks_mut(windows.output().max(1)).zip(places.chunks_mut(windows.output().max(1))).collect();
        let cost = windows.output() * windows.kernel().min(windows.input());
        for_each_plane(&mut both, 1, cost, |index, both| {
            let (y, places) = &mut both[0];
            let plane = &x.data()[index * windows.input()..][..windows.input()];
            let mut at = 0;
            for row in 0..rows.output {
                let row_taps = rows.taps(row);
                for column in 0..columns.output {
                    let column_taps = columns.taps(column);
                    let (mut most, mut place) = (f32::NEG_INFINITY, usize::MAX);
                    for row_tap in row_taps.clone() {
                        let start = (row * rows.stride + row_tap * rows.dilation - rows.before) * columns.input;
                        for column_tap in column_taps.clone() {
                            let here = start + column * columns.stride + column_tap * columns.dilation - columns.before;
                            // A NaN is passed on: it must not vanish here.
                            if plane[here] > most || place == usize::MAX || plane[here].is_nan() {
                                (most, place) = (plane[here], here);
                            }
                        }
                    }
                    // A dilated window may contain nothing but padding.
                    (y[at], places[at]) = (most, place);
                    at += 1;
                }
            }
        });
        drop(both);
        let mut values = vec![Tensor::F32(Array::new(shape.clone(), y))];
        if outputs > 1 {
            let index = |(at, place): (usize, &usize)| match *place {
                usize::MAX => -1,
                place => (at / windows.output() * windows.input() + place) as i64,
            };
            values.push(Tensor::I64(Array::new(shape, places.iter().enumerate().map(index).collect())));
        }
        Ok(Forward { outputs: values, saved: Some(Box::new(Places(places))) })
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let seed = pass.seed()?;
        let x = pass.input(0)?.f32()?;
        let windows = place(&self.window, x)?;
        let Places(places) =
            pass.saved.and_then(|saved| saved.downcast_ref()).ok_or("the forward pass kept nothing")?;
        let mut gradient = vec![0.0f32; x.len()];
        let output = windows.output();
        for_each_plane(&mut gradient, windows.input(), output, |index, gradient| {
            let seeds = &seed.data()[index * output..][..output];
            for (seed, place) in seeds.iter().zip(&places[index * output..]) {
                if *place != usize::MAX {
                    gradient[*place] += seed;
                }
            }
        });
        pass.only_first(Array::new(x.shape(), gradient))
    }
}

/// What is computed from the values of a window.
#[derive(Clone, Copy, Debug)]
enum By {
    Mean {
        counts_padding: bool,
    },
    /// The root of the sum of powers: `(sum |x|^p)^(1/p)`.
    Norm {
        p: f32,
    },
}

impl By {
    fn norm(p: f32, values: impl Iterator<Item = f32>) -> f32 {
        values.map(|x| x.abs().powf(p)).sum::<f32>().powf(1.0 / p)
    }

    /// The derivative of a window's result with respect to one value; `share` is one divided by the number of values.
    fn slope(self, x: f32, y: f32, share: f32) -> f32 {
        match self {
            By::Mean { .. } => share,
            By::Norm { .. } if x == 0.0 => 0.0,
            By::Norm { p } => x.signum() * (x.abs() / y).powf(p - 1.0),
        }
    }
}

/// `AveragePool` and `LpPool`.
#[derive(Debug)]
struct SlidingPool {
    window: Window,
    by: By,
}

impl SlidingPool {
    /// Calls `f` for each window of a plane with its number, its places in the input, and one divided by their count.
    #[inline(always)]
    fn for_each(&self, windows: &Windows, mut f: impl FnMut(usize, &mut dyn Iterator<Item = usize>, f32)) {
        let Windows { rows, columns } = *windows;
        for row in 0..rows.output {
            let row_taps = rows.taps(row);
            for column in 0..columns.output {
                let column_taps = columns.taps(column);
                let count = match self.by {
                    By::Mean { counts_padding: true } => rows.padded_taps(row) * columns.padded_taps(column),
                    _ => row_taps.len() * column_taps.len(),
                };
                let mut places = row_taps.clone().flat_map(|row_tap| {
                    let start = (row * rows.stride + row_tap * rows.dilation - rows.before) * columns.input;
                    let first = column * columns.stride;
                    column_taps.clone().map(move |tap| start + first + tap * columns.dilation - columns.before)
                });
                f(row * columns.output + column, &mut places, 1.0 / count.max(1) as f32);
            }
        }
    }
}

impl Operator for SlidingPool {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let windows = place(&self.window, x)?;
        let shape = windows.output_shape(x.shape()[0], x.shape()[1], x.rank() - 2);
        let mut y = vec![0.0f32; shape.iter().product()];
        let cost = windows.output() * windows.kernel().min(windows.input());
        for_each_plane(&mut y, windows.output(), cost, |index, y| {
            let plane = &x.data()[index * windows.input()..][..windows.input()];
            self.for_each(&windows, |at, places, share| {
                let values = places.map(|place| plane[place]);
                y[at] = match self.by {
                    By::Mean { .. } => values.sum::<f32>() * share,
                    By::Norm { p } => By::norm(p, values),
                };
            });
        });
        Ok(Forward::floats(Array::new(shape, y)))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, y, seed) = (pass.input(0)?.f32()?, pass.output(0)?.f32()?, pass.seed()?);
        let windows = place(&self.window, x)?;
        let mut gradient = vec![0.0f32; x.len()];
        let cost = windows.output() * windows.kernel().min(windows.input());
        for_each_plane(&mut gradient, windows.input(), cost, |index, gradient| {
            let of_outputs = index * windows.output()..(index + 1) * windows.output();
            let (seed, y) = (&seed.data()[of_outputs.clone()], &y.data()[of_outputs]);
            let x = &x.data()[index * windows.input()..][..windows.input()];
            self.for_each(&windows, |at, places, share| {
                places.for_each(|place| gradient[place] += seed[at] * self.by.slope(x[place], y[at], share));
            });
        });
        pass.only_first(Array::new(x.shape(), gradient))
    }
}

/// The shape of the result for `[batch, channels, ..]`, and the length of a plane.
fn global(x: &Array<f32>) -> Result<(Vec<usize>, usize), String> {
    let [batch, channels, spatial @ ..] = x.shape() else {
        return Err(format!("an input of shape {:?} has no channels", x.shape()));
    };
    let shape = [vec![*batch, *channels], vec![1; spatial.len()]].concat();
    match spatial.iter().product() {
        0 if batch * channels > 0 => Err(format!("planes of shape {spatial:?} are empty")),
        plane => Ok((shape, plane)),
    }
}

/// `GlobalAveragePool` and `GlobalLpPool`.
#[derive(Debug)]
struct GlobalPool {
    by: By,
}

impl Operator for GlobalPool {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let (shape, plane) = global(x)?;
        let pooled = x.data().chunks(plane.max(1)).map(|plane| match self.by {
            By::Mean { .. } => sum(plane) / plane.len() as f32,
            By::Norm { p } => By::norm(p, plane.iter().copied()),
        });
        Ok(Forward::floats(Array::new(shape, pooled.collect())))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let (x, y, seed) = (pass.input(0)?.f32()?, pass.output(0)?.f32()?, pass.seed()?);
        let (_, plane) = global(x)?;
        let planes = x.data().chunks(plane.max(1)).zip(y.data().iter().zip(seed.data()));
        let gradient = planes.flat_map(|(x, (y, seed))| {
            x.iter().map(move |x| match self.by {
                By::Mean { .. } => seed / plane as f32,
                by @ By::Norm { .. } => seed * by.slope(*x, *y, 1.0),
            })
        });
        pass.only_first(Array::new(x.shape(), gradient.collect()))
    }
}

#[derive(Debug)]
struct GlobalMaxPool;

/// The first place of the largest value; a NaN counts as that.
fn largest(plane: &[f32]) -> usize {
    (1..plane.len()).fold(0, |most, place| {
        if plane[place] > plane[most] || plane[place].is_nan() && !plane[most].is_nan() { place } else { most }
    })
}

impl Operator for GlobalMaxPool {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let (shape, plane) = global(x)?;
        let most = x.data().chunks(plane.max(1)).map(|plane| plane[largest(plane)]);
        Ok(Forward::floats(Array::new(shape, most.collect())))
    }

    fn backward(&self, pass: &Backward) -> InputGradients {
        let seed = pass.seed()?;
        let x = pass.input(0)?.f32()?;
        let (_, plane) = global(x)?;
        let mut gradient = vec![0.0; x.len()];
        let planes = gradient.chunks_mut(plane.max(1)).zip(x.data().chunks(plane.max(1)));
        planes.zip(seed.data()).for_each(|((gradient, x), seed)| gradient[largest(x)] = *seed);
        pass.only_first(Array::new(x.shape(), gradient))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{apart, check, floats, forward, int, int_list, operator, output, random, string};

    #[test]
    fn the_largest_of_windows_that_stick_out() {
        let ceil = operator(
            "MaxPool",
            12,
            vec![int_list("kernel_shape", &[2]), int_list("strides", &[2]), int("ceil_mode", 1)],
        );
        let x = floats(&[1, 2, 5], &[1.0, 3.0, 2.0, 0.0, -7.0, -1.0, -3.0, f32::NAN, -5.0, -6.0]);
        let [y, indices] = &forward(&*ceil, &[x], 2)[..] else { panic!("two outputs") };
        assert_eq!(y.shape(), [1, 2, 3]);
        let y = y.f32().expect("floats").data();
        assert_eq!(y[..4], [3.0, 2.0, -7.0, -1.0]);
        assert!(y[4].is_nan() && y[5] == -6.0);
        assert_eq!(indices.i64().expect("integers").data(), [1, 2, 4, 5, 7, 9]);
    }

    #[test]
    fn averages_with_and_without_padding() {
        let x = floats(&[1, 1, 3], &[3.0, 6.0, 12.0]);
        for (count, expected) in [(0, [4.5, 9.0]), (1, [3.0, 6.0])] {
            let attributes = vec![
                int_list("kernel_shape", &[3]),
                int_list("strides", &[2]),
                int_list("pads", &[1, 1]),
                int("count_include_pad", count),
            ];
            let pool = operator("AveragePool", 11, attributes);
            assert_eq!(output(&*pool, std::slice::from_ref(&x)).data(), expected);
        }
    }

    #[test]
    fn pools_have_gradients() {
        let forms = [
            vec![int_list("kernel_shape", &[2, 2]), int_list("strides", &[2, 2])],
            vec![int_list("kernel_shape", &[3, 3]), int_list("strides", &[2, 2]), int_list("pads", &[1, 1, 1, 1])],
            vec![int_list("kernel_shape", &[3, 2]), int("ceil_mode", 1), int_list("strides", &[2, 3])],
            vec![int_list("kernel_shape", &[2, 3]), int_list("dilations", &[2, 2])],
            vec![int_list("kernel_shape", &[3, 3]), int_list("strides", &[2, 2]), string("auto_pad", "SAME_UPPER")],
            vec![int_list("kernel_shape", &[2, 2]), string("auto_pad", "SAME_LOWER")],
        ];
        for attributes in forms {
            let max = operator("MaxPool", 19, attributes.clone());
            check(&*max, &[apart(1, &[2, 2, 7, 6])], 1, &[0]);
            for count in [0, 1] {
                let attributes = [attributes.clone(), vec![int("count_include_pad", count)]].concat();
                check(&*operator("AveragePool", 19, attributes), &[random(1, &[2, 2, 7, 6])], 1, &[0]);
            }
            for p in 1..4 {
                let attributes = [attributes.clone(), vec![int("p", p)]].concat();
                check(&*operator("LpPool", 18, attributes), &[apart(1, &[2, 2, 7, 6])], 1, &[0]);
            }
        }
        let one_axis = vec![int_list("kernel_shape", &[3]), int_list("strides", &[2]), int_list("pads", &[1, 1])];
        check(&*operator("MaxPool", 12, one_axis.clone()), &[apart(1, &[2, 3, 9])], 1, &[0]);
        check(&*operator("AveragePool", 12, one_axis), &[random(1, &[2, 3, 9])], 1, &[0]);
    }

    #[test]
    fn global_pools_have_gradients() {
        for shape in [&[2, 3, 5][..], &[2, 3, 4, 5], &[1, 2, 2, 3, 2]] {
            check(&*operator("GlobalAveragePool", 1, vec![]), &[random(1, shape)], 1, &[0]);
            check(&*operator("GlobalMaxPool", 1, vec![]), &[apart(1, shape)], 1, &[0]);
            check(&*operator("GlobalLpPool", 2, vec![int("p", 3)]), &[apart(1, shape)], 1, &[0]);
        }
    }
}
