//! How fast recurrent layers are here: `cargo run --release -p espalier-kernels --example recurrent`.
//!
//! Products of one layer of 512 units (2048 x 512) in each format, with one vector and with a hundred; then an LSTM of
//! two such layers over 100 steps. Times are the shortest of many, on one thread.

use std::time::{Duration, Instant};

use espalier_kernels::{
    Isa,
    matvec::{Format, PackedMatrix, RowOrder, Vectors},
    random::{XorShift, synthetic},
    recurrent::{Lstm, Scratch, Sequence, SequenceShape},
};

const HIDDEN: usize = 512;
const STEPS: usize = 100;
/// Blocks of ten that are not zero.
const KEPT: u32 = 1;

fn main() {
    let only: Option<String> = std::env::args().nth(1);
    for isa in Isa::available() {
        if only.as_ref().is_some_and(|only| only != isa.name()) {
            continue;
        }
        println!("{}: {} lanes", isa.name(), isa.lanes());
        println!("  {:14} {:>9} {:>16} {:>22}", "2048 x 512", "kB", "one vector", "hundred vectors");
        for format in Format::ALL {
            let product = product(isa, format, 1);
            let (one, hundred) = (products(&product, 1), products(&product, STEPS));
            let bytes = product.bytes() as f64;
            let multiplications = 4.0 * (HIDDEN * HIDDEN * STEPS) as f64;
            println!(
                "  {:14} {:>9.0} {:>7.1} us {:>4.0} GB/s {:>7.0} us {:>4.0} GMAC/s",
                format.to_string(),
                bytes / 1e3,
                one.as_secs_f64() * 1e6,
                bytes / one.as_secs_f64() / 1e9,
                hundred.as_secs_f64() * 1e6,
                multiplications / hundred.as_secs_f64() / 1e9,
            );
        }
        println!("  LSTM 2 x 512, {STEPS} steps");
        let mut dense = None;
        for format in Format::ALL {
            let took = lstm(isa, format);
            let dense = *dense.get_or_insert(took);
            let times = dense.as_secs_f64() / took.as_secs_f64();
            println!("  {:14} {:>7.2} ms {times:>6.1} x dense", format.to_string(), took.as_secs_f64() * 1e3);
        }
    }
}

/// A matrix with zeros in the blocks of the format.
fn product(isa: Isa, format: Format, seed: u64) -> PackedMatrix {
    let mut numbers = XorShift::new(seed);
    let (rows, columns) = (4 * HIDDEN, HIDDEN);
    let mut matrix: Vec<f32> = (0..rows * columns).map(|_| numbers.signed() * 0.05).collect();
    let height = match format {
        Format::Dense => None,
        Format::Blocks(height) => Some(height),
        Format::Csr => Some(1),
    };
    for band in 0..height.map_or(0, |height| rows / height) {
        for column in 0..columns {
            if numbers.unit() * 10.0 >= KEPT as f32 {
                let height = height.unwrap_or(1);
                (band * height..(band + 1) * height).for_each(|row| matrix[row * columns + column] = 0.0);
            }
        }
    }
    PackedMatrix::new(isa, format, rows, columns, &matrix)
}

fn shortest(times: u32, mut f: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    (0..times).map(time).min().unwrap_or_default()
}

fn products(product: &PackedMatrix, count: usize) -> Duration {
    let x = vec![0.3; HIDDEN * count];
    let mut out = vec![0.0; 4 * HIDDEN * count];
    let mut order = RowOrder::Down;
    shortest(if count == 1 { 2000 } else { 100 }, || {
        product.add(Vectors { values: &x, stride: HIDDEN, count }, &mut out, 4 * HIDDEN, order);
        order = order.other();
    })
}

fn lstm(isa: Isa, format: Format) -> Duration {
    let layer = |seed| Lstm::new(product(isa, format, seed), product(isa, format, seed + 1), None);
    let layers = [layer(1), layer(3)];
    let x = synthetic(STEPS * HIDDEN, 9);
    let mut y = [vec![0.0; STEPS * HIDDEN], vec![0.0; STEPS * HIDDEN]];
    let mut scratch = Scratch::default();
    let shape = SequenceShape::steps_first(STEPS, 1, HIDDEN);
    shortest(40, || {
        let [between, last] = &mut y;
        run(&layers[0], &x, between, shape, &mut scratch);
        run(&layers[1], between, last, shape, &mut scratch);
    })
}

fn run(layer: &Lstm, x: &[f32], y: &mut [f32], shape: SequenceShape, scratch: &mut Scratch) {
    let (mut h, mut c) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
    layer.run(Sequence { x, x_shape: shape, backwards: false, y: Some((y, shape)) }, &mut h, &mut c, scratch);
}
