//! Compares convolutions of random shapes with the definition, in f64.

use proptest::prelude::*;

use crate::{
    convolution::{Convolution, ConvolutionForm, ConvolutionShape},
    convolution_window::{Axis, Window},
    depthwise::Depthwise,
    pool::MaxPool,
    simd::Isa,
    testing::synthetic,
    threads::Threads,
};

/// Some weights are zero, and some columns are for all filters.
fn weights(seed: u64, filters: usize, depth: usize, zeros: u32) -> Vec<f32> {
    let mut weights = synthetic(filters * depth, seed);
    let (keep, keep_column) = (synthetic(weights.len(), seed ^ 1), synthetic(depth, seed ^ 2));
    for (index, weight) in weights.iter_mut().enumerate() {
        if (keep[index].min(keep_column[index % depth]) + 1.0) * 5.0 < zeros as f32 {
            *weight = 0.0;
        }
    }
    weights
}

fn reference(
    shape: &ConvolutionShape,
    input: &[f32],
    weights: &[f32],
    bias: &[f32],
    residual: Option<&[f32]>,
    clamp: (f32, f32),
) -> Vec<f64> {
    let Window { height, width } = shape.window;
    let (channels, filters) = (shape.channels / shape.groups, shape.filters / shape.groups);
    let mut output = Vec::new();
    for filter in 0..shape.filters {
        for row in 0..height.output {
            for column in 0..width.output {
                let mut sum = f64::from(bias[filter]);
                for channel in 0..channels {
                    for tap_row in 0..height.kernel {
                        for tap_column in 0..width.kernel {
                            let (y, x) = (height.at(row, tap_row), width.at(column, tap_column));
                            if y < 0 || x < 0 || y >= height.input as isize || x >= width.input as isize {
                                continue;
                            }
                            let plane = filter / filters * channels + channel;
                            let place = (plane * height.input + y as usize) * width.input + x as usize;
                            let tap = (channel * height.kernel + tap_row) * width.kernel + tap_column;
                            sum += f64::from(input[place]) * f64::from(weights[filter * shape.depth() + tap]);
                        }
                    }
                }
                sum += residual.map_or(0.0, |residual| residual[output.len()].into());
                output.push(sum.max(clamp.0.into()).min(clamp.1.into()));
            }
        }
    }
    output
}

prop_compose! {
    fn axis(most: usize)(
        input in 1..=most, kernel in 1usize..=5, stride in 1usize..=3, dilation in 1usize..=2,
        before in 0usize..=3, after in 0usize..=3,
    ) -> Axis {
        let field = (kernel - 1) * dilation + 1;
        let input = input.max(field.saturating_sub(before + after));
        let output = (input + before + after - field) / stride + 1;
        Axis { input, output, kernel, stride, dilation, before }
    }
}

/// With a window of one, rows have no borders.
fn plain() -> impl Strategy<Value = Axis> {
    (1usize..=20).prop_map(|input| Axis { input, output: input, kernel: 1, stride: 1, dilation: 1, before: 0 })
}

/// As in real networks: multiples of seven, windows of three, padding on all sides.
fn usual() -> impl Strategy<Value = Axis> {
    (1usize..=4, 1usize..=2, prop_oneof![Just((1, 0)), Just((3, 1)), Just((5, 2))]).prop_map(
        |(sevens, stride, (kernel, before))| {
            let input = 7 * sevens * stride;
            Axis { input, output: 7 * sevens, kernel, stride, dilation: 1, before }
        },
    )
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        (axis(9), axis(70)).prop_map(|(height, width)| Window { height, width }),
        (plain(), plain()).prop_map(|(height, width)| Window { height, width }),
        usual().prop_map(|axis| Window { height: axis, width: axis }),
    ]
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter()
}

fn check(found: &[f32], expected: &[f64], what: &str) -> Result<(), TestCaseError> {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = 1e-4 * expected.abs().max(1.0);
        prop_assert!((f64::from(*found) - expected).abs() <= bound, "{what} at {index}: {found}, not {expected}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn convolutions_are_the_definition(
        window in window(), (channels, filters, groups) in (1usize..=5, 1usize..=11, 1usize..=3),
        zeros in 0u32..11, seed: u64, more: bool, clamped: bool, threads in 1usize..=2,
    ) {
        let filters = if window.width.output % 7 == 0 { filters * 4 } else { filters };
        let shape = ConvolutionShape { channels: channels * groups, filters: filters * groups, groups, window };
        let input = synthetic(shape.channels * window.inputs(), seed ^ 3);
        let weights = weights(seed, shape.filters, shape.depth(), zeros);
        let bias = synthetic(shape.filters, seed ^ 4);
        let residual = more.then(|| synthetic(shape.filters * window.outputs(), seed ^ 5));
        let clamp = if clamped { (-0.5, 0.75) } else { (f32::NEG_INFINITY, f32::INFINITY) };
        let expected = reference(&shape, &input, &weights, &bias, residual.as_deref(), clamp);
        let threads = Threads::new(threads);
        for isa in isas() {
            for form in ConvolutionForm::ALL {
                let Some(convolution) = Convolution::new(isa, shape, form, &weights, bias.clone(), clamp) else {
                    prop_assert!(form == ConvolutionForm::Tiles && !Convolution::suits_tiles(&window));
                    continue;
                };
                let mut output = vec![f32::NAN; expected.len()];
                // The scratch of another layer.
                let mut scratch = vec![f32::NAN; 1000];
                convolution.run(&threads, &input, residual.as_deref(), &mut output, &mut scratch);
                check(&output, &expected, &format!("{} {}", isa.name(), form.name()))?;
            }
        }
    }

    #[test]
    fn depthwise_convolutions_are_the_definition(
        window in window(), channels in 1usize..=5, seed: u64, more: bool, clamped: bool,
    ) {
        let shape = ConvolutionShape { channels, filters: channels, groups: channels, window };
        let input = synthetic(channels * window.inputs(), seed);
        let weights = synthetic(channels * window.taps(), seed ^ 1);
        let bias = synthetic(channels, seed ^ 2);
        let residual = more.then(|| synthetic(channels * window.outputs(), seed ^ 3));
        let clamp = if clamped { (0.0, 0.75) } else { (f32::NEG_INFINITY, f32::INFINITY) };
        let expected = reference(&shape, &input, &weights, &bias, residual.as_deref(), clamp);
        for isa in isas() {
            let Some(depthwise) = Depthwise::new(isa, window, weights.clone(), bias.clone(), clamp) else {
                prop_assert!(window.width.stride > 2);
                continue;
            };
            let mut output = vec![f32::NAN; expected.len()];
            depthwise.run(&Threads::new(1), &input, residual.as_deref(), &mut output);
            check(&output, &expected, isa.name())?;
        }
    }

    #[test]
    fn pools_take_the_largest(window in window(), channels in 1usize..=3, seed: u64) {
        let Window { height, width } = window;
        let input = synthetic(channels * window.inputs(), seed);
        let mut expected = Vec::new();
        for plane in input.chunks_exact(window.inputs()) {
            for row in 0..height.output {
                for column in 0..width.output {
                    let inside = |at: isize, axis: &Axis| at >= 0 && at < axis.input as isize;
                    let mut largest = f32::NEG_INFINITY;
                    for tap_row in 0..height.kernel {
                        for tap_column in 0..width.kernel {
                            let (y, x) = (height.at(row, tap_row), width.at(column, tap_column));
                            if inside(y, &height) && inside(x, &width) {
                                largest = largest.max(plane[y as usize * width.input + x as usize]);
                            }
                        }
                    }
                    expected.push(largest);
                }
            }
        }
        for isa in isas() {
            let Some(pool) = MaxPool::new(isa, window) else {
                prop_assert!(width.stride > 2);
                continue;
            };
            let mut output = vec![f32::NAN; expected.len()];
            pool.run(&input, &mut output);
            prop_assert_eq!(&output, &expected, "{}", isa.name());
        }
    }
}
