//! How fast the kernels of linear layers are: `cargo run --release -p espalier-kernels --example linear [TOKENS]`.
//!
//! For the matrices of BERT and each form of a weight: billions of multiplications a second that are not of zeros,
//! their share of what the processor can do (as measured here, by a loop of nothing else), and the speed-up over the
//! dense kernel. The shortest of many runs, one thread.

use std::time::{Duration, Instant};

use espalier_kernels::{
    attention::{Attention, AttentionInput},
    elementwise::Activation,
    linear_dense::{DenseWeight, Epilogue, WeightMatrix},
    linear_panels::Panels,
    linear_skipping::{Active, SkippingWeight},
    linear_sparse::SparseWeight,
    normalise::LayerNorm,
    random::synthetic,
    simd::{Isa, Kernel, Simd},
    threads::Threads,
};

const ZEROS: f64 = 0.9;

fn main() {
    let tokens = std::env::args().nth(1).and_then(|tokens| tokens.parse().ok()).unwrap_or(128);
    let panels = Panels::new(1, tokens);
    let threads = Threads::new(1);
    for isa in Isa::available().into_iter().rev() {
        // SAFETY: the processor has the instructions.
        let peak = fastest(|| unsafe { isa.run(Peak) }).1;
        let peak = PEAK_STEPS as f64 * 12.0 * isa.lanes() as f64 / peak.as_secs_f64() / 1e9;
        println!("{}: at most {peak:.1} GFMA/s, {tokens} tokens", isa.name());
        for (outputs, inputs) in [(768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096)] {
            let dense = product(isa, &threads, panels, outputs, inputs, None, peak, None);
            for height in [1, 4, 8] {
                product(isa, &threads, panels, outputs, inputs, Some(height), peak, Some(dense));
            }
        }
        others(isa, &threads, panels);
    }
}

#[expect(clippy::too_many_arguments, reason = "one line of the table")]
fn product(
    isa: Isa,
    threads: &Threads,
    panels: Panels,
    outputs: usize,
    inputs: usize,
    height: Option<usize>,
    peak: f64,
    dense: Option<Duration>,
) -> Duration {
    let mut values = synthetic(outputs * inputs, 1);
    if let Some(height) = height {
        let goes: Vec<bool> =
            synthetic(outputs.div_ceil(height) * inputs, 1).iter().map(|x| f64::from(*x) < 2.0 * ZEROS - 1.0).collect();
        for (at, value) in values.iter_mut().enumerate() {
            if goes[at / inputs / height * inputs + at % inputs] {
                *value = 0.0;
            }
        }
    }
    let weights = WeightMatrix::by_output(&values, outputs, inputs);
    let input = synthetic(panels.columns() * inputs, 1);
    let mut output = vec![0.0; panels.columns() * outputs];
    let epilogue = Epilogue::default();
    let (cells, took) = match height {
        None => {
            let dense = DenseWeight::pack(weights);
            (outputs * inputs, fastest(|| dense.run(isa, threads, panels, &input, epilogue, &mut output)).1)
        }
        Some(height) => {
            let sparse = SparseWeight::pack(weights, height);
            (sparse.cells(), fastest(|| sparse.run(isa, threads, panels, &input, epilogue, &mut output)).1)
        }
    };
    let speed = (cells * panels.tokens()) as f64 / took.as_secs_f64() / 1e9;
    let form = height
        .map_or("dense".to_owned(), |height| if height == 1 { "csr".into() } else { format!("block-{height}x1") });
    let gain = dense.map_or(String::new(), |dense| format!("  {:.2}x dense", dense.as_secs_f64() / took.as_secs_f64()));
    println!(
        "  {inputs:4} -> {outputs:4} {form:9} {:8.1} us {speed:6.1} GFMA/s {:4.0} %{gain}",
        took.as_secs_f64() * 1e6,
        100.0 * speed / peak
    );
    took
}

/// The operations between the products of a layer of BERT-base.
fn others(isa: Isa, threads: &Threads, panels: Panels) {
    let mut values = synthetic(panels.columns() * 3072, 1);
    let show = |name: &str, took: Duration| println!("  {name:20} {:8.1} us", took.as_secs_f64() * 1e6);
    show("gelu 3072", fastest(|| Activation::Gelu.apply(isa, &mut values)).1);
    let norm = LayerNorm { scale: vec![1.0; 768], shift: vec![0.0; 768], epsilon: 1e-12 };
    let input = synthetic(panels.columns() * 768, 1);
    let mut output = vec![0.0; input.len()];
    show("layer norm 768", fastest(|| norm.run(isa, threads, panels, &input, &mut output)).1);
    let rows = synthetic(panels.rows() * 768, 1);
    show("to panels 768", fastest(|| panels.enter(isa, 768, &rows, &mut output)).1);
    let mut back = rows.clone();
    show("from panels 768", fastest(|| panels.leave(isa, 768, &input, &mut back)).1);
    let attention = Attention { heads: 12, size: 64, value_size: 64, scale: 0.125, queries: panels, keys: panels };
    let part = AttentionInput { panels: &input, features: 768, first: 0 };
    let (_, took) = fastest(|| attention.run(isa, threads, part, part, part, None, &mut output));
    show("attention 12 x 64", took);
    let values = synthetic(768 * 3072, 1);
    let weights = WeightMatrix::by_output(&values, 768, 3072);
    let skipping = SkippingWeight::pack(weights);
    let dense = DenseWeight::pack(weights);
    let mut rows = vec![0.0; panels.rows() * 768];
    for active in [50, 35, 20, 10, 5] {
        // Synthetic numbers are between -1 and 1: `active` per cent of them are beyond this.
        let threshold = 1.0 - active as f32 / 100.0;
        let input = synthetic(panels.columns() * 3072, 1);
        let (_, dense) = fastest(|| dense.run(isa, threads, panels, &input, Epilogue::default(), &mut output));
        let (_, took) = fastest(|| {
            let active = Active::find(isa, panels, 3072, &input, threshold);
            skipping.run(isa, threads, &active, &[], &mut rows);
        });
        let gain = dense.as_secs_f64() / took.as_secs_f64();
        println!("  3072 ->  768, {active} % active {:8.1} us  {gain:.2}x dense", took.as_secs_f64() * 1e6);
    }
}

fn fastest<T>(mut f: impl FnMut() -> T) -> (T, Duration) {
    let start = Instant::now();
    let (mut result, mut best) = (f(), Duration::MAX);
    for run in 0..1000 {
        if run >= 5 && start.elapsed() > Duration::from_millis(150) {
            break;
        }
        let start = Instant::now();
        result = f();
        best = best.min(start.elapsed());
    }
    (result, best)
}

const PEAK_STEPS: usize = 100_000;

/// Multiplications in enough independent sums to keep the processor busy.
struct Peak;

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: only registers are used.
        unsafe {
            let (a, b) = (S::splat(std::hint::black_box(0.999)), S::splat(std::hint::black_box(1e-9)));
            let mut sums = [b; 12];
            for _ in 0..PEAK_STEPS {
                for sum in &mut sums {
                    *sum = S::mul_add(*sum, a, b);
                }
            }
            let mut total = S::splat(0.0);
            for sum in sums {
                total = S::add(total, sum);
            }
            S::sum(total)
        }
    }
}
