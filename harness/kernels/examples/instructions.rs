//! One kernel, some times over, for who counts instructions: `cargo xtask instructions` runs it under an emulator, once with more and once with fewer
//! times, so that all else cancels out.
//!
//! `instructions KERNEL TIMES`, with a kernel of [`KERNELS`]; without arguments it names them, a line each: name and multiply-accumulates of a dense one.

use espalier_kernels::{
    Isa,
    matvec::{Format, Product, Vectors, Way},
    panel::{self, Epilogue, Height, Output, Packed, Part},
};

/// Of the matrix; small, because an emulator that counts takes its time.
const ROWS: usize = 64;
const COLUMNS: usize = 256;
/// Places of a plane that a pointwise convolution goes over.
const POSITIONS: usize = 56;

enum Kind {
    /// One vector, as in each step of a recurrent layer.
    Vector(Format),
    /// Many, as in a pointwise convolution: rows of a block, and whether zeros are left out.
    Panel(Height, bool),
}

const KERNELS: [(&str, Kind); 9] = [
    ("vector dense", Kind::Vector(Format::Dense)),
    ("vector block-16x1", Kind::Vector(Format::Blocks(16))),
    ("vector block-8x1", Kind::Vector(Format::Blocks(8))),
    ("vector block-4x1", Kind::Vector(Format::Blocks(4))),
    ("vector csr", Kind::Vector(Format::Csr)),
    ("panel dense", Kind::Panel(Height::Four, false)),
    ("panel block-8x1", Kind::Panel(Height::Eight, true)),
    ("panel block-4x1", Kind::Panel(Height::Four, true)),
    ("panel csr", Kind::Panel(Height::One, true)),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, times] = &args[..] else {
        for (name, kind) in &KERNELS {
            let vectors = if matches!(kind, Kind::Vector(_)) { 1 } else { POSITIONS };
            println!("{}\t{}", name, ROWS * COLUMNS * vectors);
        }
        return;
    };
    let (_, kind) = KERNELS.iter().find(|(name, _)| name == kernel).expect("a kernel this program knows");
    let times = times.parse().expect("a number of times");
    let isa = Isa::best();
    match kind {
        Kind::Vector(format) => vector(isa, *format, times),
        Kind::Panel(height, sparse) => planes(isa, *height, *sparse, times),
    }
    println!("{}", isa.name());
}

/// Every tenth block of `height` rows is there, or all.
fn matrix(height: Option<usize>) -> Vec<f32> {
    let mut values = vec![0.0; ROWS * COLUMNS];
    for (place, value) in values.iter_mut().enumerate() {
        let (row, column) = (place / COLUMNS, place % COLUMNS);
        if height.is_none_or(|height| (row / height * 7 + column) % 10 == 0) {
            *value = 0.01 * (place % 17) as f32 + 0.01;
        }
    }
    values
}

fn vector(isa: Isa, format: Format, times: usize) {
    let height = match format {
        Format::Dense => None,
        Format::Blocks(height) => Some(height),
        Format::Csr => Some(1),
    };
    let product = Product::new(isa, format, ROWS, COLUMNS, &matrix(height));
    let x = [0.5; COLUMNS];
    let mut out = [0.0; ROWS];
    for _ in 0..times {
        product.add(Vectors { values: &x, stride: COLUMNS, count: 1 }, &mut out, ROWS, Way::Down);
    }
    assert!(times == 0 || out.iter().all(|value| *value > 0.0));
}

fn planes(isa: Isa, height: Height, sparse: bool, times: usize) {
    let values = matrix(sparse.then_some(height.rows()));
    let packed = if sparse {
        Packed::sparse(ROWS, COLUMNS, &values, height)
    } else {
        Packed::dense(ROWS, COLUMNS, &values, Height::dense(isa))
    };
    let offsets = packed.offsets(|column| column * POSITIONS);
    let x = vec![0.5; COLUMNS * POSITIONS];
    let mut out = vec![0.0; ROWS * POSITIONS];
    for _ in 0..times {
        let part = Part { blocks: 0..packed.blocks(), positions: 0..POSITIONS, chunk: POSITIONS };
        let output = Output::new(&mut out, POSITIONS);
        // SAFETY: `out` is there and nobody else's; `isa` is one of this processor.
        unsafe { panel::multiply(isa, &packed, &offsets, &x, Epilogue::default(), output, part) }
    }
    assert!(times == 0 || out.iter().all(|value| *value > 0.0));
}
