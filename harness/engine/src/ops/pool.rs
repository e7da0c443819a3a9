//! Pools: over windows (`MaxPool`, `AveragePool`) and over all there is (`GlobalMaxPool`, `GlobalAveragePool`).

use rayon::prelude::*;

use super::{
    Attributes, Backward, Forward, InputGradients, Operator, support,
    vector::sum,
    window::{Window, Windows},
};
use crate::{Array, Tensor};

pub fn parse(node: &Attributes) -> Option<Result<Box<dyn Operator>, String>> {
    let window = || Window::parse(node).and_then(|window| window.kernel().map(<[_]>::to_vec).map(|_| window));
    let parsed: Result<Box<dyn Operator>, String> = match node.proto.op_type() {
        "MaxPool" if node.int("storage_order", 0) != 0 => Err("indices in column-major order are not supported".into()),
        "MaxPool" => window().map(|window| Box::new(MaxPool { window }) as Box<dyn Operator>),
        "AveragePool" => {
            let counts_padding = node.int("count_include_pad", 0) != 0;
            window().map(|window| Box::new(AveragePool { window, counts_padding }) as Box<dyn Operator>)
        }
        "GlobalMaxPool" => Ok(Box::new(GlobalMaxPool)),
        "GlobalAveragePool" => Ok(Box::new(GlobalAveragePool)),
        _ => return None,
    };
    Some(parsed)
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

/// Where in its plane each output comes from.
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
                            // A NaN is passed on: it would otherwise vanish here unseen.
                            if plane[here] > most || place == usize::MAX || plane[here].is_nan() {
                                (most, place) = (plane[here], here);
                            }
                        }
                    }
                    // A dilated window may have nothing but padding.
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

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let seed = pass.gradients[0].as_ref()?;
        Some((|| {
            let x = support::input(&pass.inputs, 0)?.f32()?;
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
            Ok(vec![Some(Array::new(x.shape(), gradient))])
        })())
    }
}

#[derive(Debug)]
struct AveragePool {
    window: Window,
    counts_padding: bool,
}

impl AveragePool {
    /// Calls `f` for each window of a plane with its number, the places it has in the input, and one by how many it divides.
    #[inline(always)]
    fn for_each(&self, windows: &Windows, mut f: impl FnMut(usize, &mut dyn Iterator<Item = usize>, f32)) {
        let Windows { rows, columns } = *windows;
        for row in 0..rows.output {
            let row_taps = rows.taps(row);
            for column in 0..columns.output {
                let column_taps = columns.taps(column);
                let count = if self.counts_padding {
                    rows.padded_taps(row) * columns.padded_taps(column)
                } else {
                    row_taps.len() * column_taps.len()
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

impl Operator for AveragePool {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let windows = place(&self.window, x)?;
        let shape = windows.output_shape(x.shape()[0], x.shape()[1], x.rank() - 2);
        let mut y = vec![0.0f32; shape.iter().product()];
        let cost = windows.output() * windows.kernel().min(windows.input());
        for_each_plane(&mut y, windows.output(), cost, |index, y| {
            let plane = &x.data()[index * windows.input()..][..windows.input()];
            self.for_each(&windows, |at, places, share| y[at] = places.map(|place| plane[place]).sum::<f32>() * share);
        });
        Ok(Forward::floats(Array::new(shape, y)))
    }

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let seed = pass.gradients[0].as_ref()?;
        Some((|| {
            let x = support::input(&pass.inputs, 0)?.f32()?;
            let windows = place(&self.window, x)?;
            let mut gradient = vec![0.0f32; x.len()];
            let cost = windows.output() * windows.kernel().min(windows.input());
            for_each_plane(&mut gradient, windows.input(), cost, |index, gradient| {
                let seed = &seed.data()[index * windows.output()..][..windows.output()];
                self.for_each(&windows, |at, places, share| {
                    places.for_each(|place| gradient[place] += seed[at] * share);
                });
            });
            Ok(vec![Some(Array::new(x.shape(), gradient))])
        })())
    }
}

/// The shape of what is left of `[batch, channels, ..]`, and the length of a plane.
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

#[derive(Debug)]
struct GlobalAveragePool;

impl Operator for GlobalAveragePool {
    fn forward(&self, inputs: &[Option<&Tensor>], _: usize) -> Result<Forward, String> {
        let x = support::input(inputs, 0)?.f32()?;
        let (shape, plane) = global(x)?;
        let means = x.data().chunks(plane.max(1)).map(|plane| sum(plane) / plane.len() as f32);
        Ok(Forward::floats(Array::new(shape, means.collect())))
    }

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let seed = pass.gradients[0].as_ref()?;
        Some((|| {
            let x = support::input(&pass.inputs, 0)?.f32()?;
            let (_, plane) = global(x)?;
            let gradient = seed.data().iter().flat_map(|seed| std::iter::repeat_n(seed / plane as f32, plane));
            Ok(vec![Some(Array::new(x.shape(), gradient.collect()))])
        })())
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

    fn backward(&self, pass: &Backward) -> Option<InputGradients> {
        let seed = pass.gradients[0].as_ref()?;
        Some((|| {
            let x = support::input(&pass.inputs, 0)?.f32()?;
            let (_, plane) = global(x)?;
            let mut gradient = vec![0.0; x.len()];
            let planes = gradient.chunks_mut(plane.max(1)).zip(x.data().chunks(plane.max(1)));
            planes.zip(seed.data()).for_each(|((gradient, x), seed)| gradient[largest(x)] = *seed);
            Ok(vec![Some(Array::new(x.shape(), gradient))])
        })())
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
        }
    }
}
