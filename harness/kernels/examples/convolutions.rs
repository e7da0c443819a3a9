//! Multiply-accumulates a second of every layer of MobileNetV2, ResNet50 and DS-CNN, dense and with 90 % zeros, by
//! kernel, beside the processor's peak: `cargo run --release -p espalier-kernels --example convolutions
//! [mobilenetv2|resnet50|ds-cnn]`.

use std::time::{Duration, Instant};

use espalier_kernels::{
    convolution::{Convolution, ConvolutionForm, ConvolutionShape},
    convolution_window::{Axis, Window},
    depthwise::Depthwise,
    panel::Height,
    random::synthetic,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

struct Layer {
    name: String,
    shape: ConvolutionShape,
    /// How many of them the network has.
    count: usize,
    residual: bool,
}

#[expect(clippy::too_many_arguments, reason = "one line of a table each")]
fn layer(
    name: &str,
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
    size: usize,
    groups: usize,
    count: usize,
) -> Layer {
    let before = kernel / 2;
    let output = (size + 2 * before - kernel) / stride + 1;
    let axis = Axis { input: size, output, kernel, stride, dilation: 1, before };
    let shape = ConvolutionShape { channels, filters, groups, window: Window { height: axis, width: axis } };
    Layer {
        name: format!("{name} {channels}-{filters} {kernel}x{kernel}/{stride} {size}"),
        shape,
        count,
        residual: false,
    }
}

fn mobilenetv2() -> Vec<Layer> {
    let mut layers = vec![layer("stem", 3, 32, 3, 2, 224, 1, 1)];
    let (mut channels, mut size) = (32, 112);
    for (expand, filters, repeat, stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for index in 0..repeat {
            let stride = if index == 0 { stride } else { 1 };
            let hidden = channels * expand;
            if expand > 1 {
                layers.push(layer("expand", channels, hidden, 1, 1, size, 1, 1));
            }
            layers.push(layer("depthwise", hidden, hidden, 3, stride, size, hidden, 1));
            size /= stride;
            let mut project = layer("project", hidden, filters, 1, 1, size, 1, 1);
            project.residual = channels == filters;
            layers.push(project);
            channels = filters;
        }
    }
    layers.push(layer("last", 320, 1280, 1, 1, 7, 1, 1));
    together(layers)
}

fn resnet50() -> Vec<Layer> {
    let mut layers = vec![layer("stem", 3, 64, 7, 2, 224, 1, 1)];
    let (mut channels, mut size) = (64, 56);
    for (width, repeat, stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
        for index in 0..repeat {
            let stride = if index == 0 { stride } else { 1 };
            layers.push(layer("reduce", channels, width, 1, 1, size, 1, 1));
            layers.push(layer("middle", width, width, 3, stride, size, 1, 1));
            if index == 0 {
                layers.push(layer("shortcut", channels, width * 4, 1, stride, size, 1, 1));
            }
            size /= stride;
            let mut expand = layer("expand", width, width * 4, 1, 1, size, 1, 1);
            expand.residual = true;
            layers.push(expand);
            channels = width * 4;
        }
    }
    together(layers)
}

/// Keyword spotting: maps of 25 by 5.
fn ds_cnn() -> Vec<Layer> {
    let axis = |input, output, kernel, stride, before| Axis { input, output, kernel, stride, dilation: 1, before };
    let layer = |name: &str, channels, filters, groups, height, width, count| Layer {
        name: format!("{name} {channels}-{filters} 25x5"),
        shape: ConvolutionShape { channels, filters, groups, window: Window { height, width } },
        count,
        residual: false,
    };
    vec![
        layer("stem", 1, 64, 1, axis(49, 25, 10, 2, 5), axis(10, 5, 4, 2, 1), 1),
        layer("depthwise", 64, 64, 64, axis(25, 25, 3, 1, 1), axis(5, 5, 3, 1, 1), 4),
        layer("pointwise", 64, 64, 1, axis(25, 25, 1, 1, 0), axis(5, 5, 1, 1, 0), 4),
    ]
}

fn together(layers: Vec<Layer>) -> Vec<Layer> {
    let mut together: Vec<Layer> = Vec::new();
    for layer in layers {
        match together.iter_mut().find(|other| other.shape == layer.shape && other.residual == layer.residual) {
            Some(other) => other.count += 1,
            None => together.push(layer),
        }
    }
    together
}

/// Keeps one in ten blocks of `height` rows by one column.
fn pruned(weights: &[f32], depth: usize, height: usize) -> Vec<f32> {
    let draws = synthetic(weights.len(), 99);
    let pruned = weights.iter().enumerate().map(|(index, weight)| {
        let (row, column) = (index / depth, index % depth);
        if draws[row / height * depth + column] > 0.8 { *weight } else { 0.0 }
    });
    pruned.collect()
}

/// The shortest of the runs within 30 milliseconds.
fn time(mut run: impl FnMut()) -> Duration {
    run();
    let start = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 3 || start.elapsed() < Duration::from_millis(30) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

struct Peak(usize);

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: only registers are used.
        unsafe {
            let mut sums = [S::splat(1.0); 12];
            let factor = S::splat(0.999);
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = S::mul_add(*sum, factor, factor);
                }
            }
            sums.into_iter().map(|sum| S::sum(sum)).sum()
        }
    }
}

fn main() {
    let isa = match std::env::var("ISA") {
        Ok(name) => {
            Isa::available().into_iter().find(|isa| isa.name() == name).expect("an instruction set of this processor")
        }
        Err(_) => Isa::best(),
    };
    let rounds = 100_000;
    // SAFETY: the processor has the instructions.
    let took = time(|| _ = std::hint::black_box(unsafe { isa.run(Peak(rounds)) }));
    let peak = (rounds * 12 * isa.lanes()) as f64 / took.as_nanos() as f64;
    println!("{}: {peak:.1} GFMA/s at best", isa.name());
    let only = std::env::args().nth(1);
    for (name, layers) in [("mobilenetv2", mobilenetv2()), ("resnet50", resnet50()), ("ds-cnn", ds_cnn())] {
        if only.as_ref().is_none_or(|only| only == name) {
            report(name, isa, &layers, peak);
        }
    }
}

fn report(name: &str, isa: Isa, layers: &[Layer], peak: f64) {
    println!("\n{name}: microseconds a layer, and per cent of the peak for what is computed");
    print!("{:34} {:>3}", "", "");
    ConvolutionForm::ALL.iter().for_each(|form| print!(" {:>14}", form.name()));
    println!();
    let threads = Threads::new(1);
    let mut totals = [0.0f64; 3];
    for layer in layers {
        let shape = layer.shape;
        let input = synthetic(shape.channels * shape.window.inputs(), 1);
        let weights = synthetic(shape.filters * shape.depth(), 2);
        let bias = synthetic(shape.filters, 3);
        let residual = layer.residual.then(|| synthetic(shape.filters * shape.window.outputs(), 4));
        let mut output = vec![0.0; shape.filters * shape.window.outputs()];
        let mut scratch = Vec::new();
        print!("{:34} {:>3}", layer.name, layer.count);
        let show = |took: Duration, share: f64| {
            let percent = shape.macs() as f64 * share / took.as_nanos() as f64 / peak * 100.0;
            print!(" {:>8.1} {:>4.0}%", took.as_nanos() as f64 / 1e3, percent);
        };
        if shape.groups > 1 {
            let depthwise = Depthwise::new(isa, shape.window, weights, bias, (0.0, 6.0))
                .expect("a stride that the kernel supports");
            let took = time(|| depthwise.run(&threads, &input, None, &mut output));
            show(took, 1.0);
            println!();
            totals.iter_mut().for_each(|total| *total += took.as_secs_f64() * 1e3 * layer.count as f64);
            continue;
        }
        let mut best = [f64::MAX; 3];
        for form in ConvolutionForm::ALL {
            let (height, total) = match form {
                ConvolutionForm::Sparse(height) => (height.rows(), if height == Height::One { 1 } else { 2 }),
                _ => (0, 0),
            };
            let (weights, share) = if height > 0 && shape.channels > 3 {
                (pruned(&weights, shape.depth(), height), 0.1)
            } else {
                (weights.clone(), 1.0)
            };
            let convolution = Convolution::new(isa, shape, form, &weights, bias.clone(), (0.0, 6.0));
            let Some(convolution) = convolution else {
                print!(" {:>14}", "-");
                continue;
            };
            let took = time(|| convolution.run(&threads, &input, residual.as_deref(), &mut output, &mut scratch));
            show(took, share);
            if form != ConvolutionForm::Sparse(Height::Eight) {
                best[total] = best[total].min(took.as_secs_f64() * 1e3 * layer.count as f64);
            }
        }
        println!();
        for index in 0..3 {
            totals[index] += best[index].min(best[0]);
        }
    }
    println!("all convolutions: dense {:.2} ms, csr {:.2} ms, block-4x1 {:.2} ms", totals[0], totals[1], totals[2]);
}
