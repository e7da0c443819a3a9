//! One kernel, some times over, for who counts instructions: `cargo xtask instructions` runs it under an emulator, once
//! with more and once with fewer times, so that all else cancels out.
//!
//! `instructions KERNEL TIMES`, with a kernel of [`KERNELS`]; without arguments it names them, a line each: name and
//! multiply-accumulates of a dense one.

use espalier_kernels::{
    Isa,
    matvec::{Format, PackedMatrix, RowOrder, Vectors},
    panel::{self, Epilogue, Height, Output, PackedRows, Portion},
};

/// Of the matrix. Small, because an emulator that counts instructions is slow.
const ROWS: usize = 64;
const COLUMNS: usize = 256;
/// Positions of a plane, for a pointwise convolution.
const POSITIONS: usize = 56;

enum Case {
    /// One vector, as in each step of a recurrent layer.
    Vector(Format),
    /// Many vectors, as in a pointwise convolution: rows of a block, and whether zeros are left out.
    Panel(Height, bool),
}

const KERNELS: [(&str, Case); 9] = [
    ("vector dense", Case::Vector(Format::Dense)),
    ("vector block-16x1", Case::Vector(Format::Blocks(16))),
    ("vector block-8x1", Case::Vector(Format::Blocks(8))),
    ("vector block-4x1", Case::Vector(Format::Blocks(4))),
    ("vector csr", Case::Vector(Format::Csr)),
    ("panel dense", Case::Panel(Height::Four, false)),
    ("panel block-8x1", Case::Panel(Height::Eight, true)),
    ("panel block-4x1", Case::Panel(Height::Four, true)),
    ("panel csr", Case::Panel(Height::One, true)),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, kernel, times] = &args[..] else {
        for (name, case) in &KERNELS {
            let vectors = if matches!(case, Case::Vector(_)) { 1 } else { POSITIONS };
            println!("{}\t{}", name, ROWS * COLUMNS * vectors);
        }
        return;
    };
    let (_, case) = KERNELS.iter().find(|(name, _)| name == kernel).expect("a kernel this program knows");
    let times = times.parse().expect("a number of times");
    let isa = Isa::best();
    match case {
        Case::Vector(format) => vector(isa, *format, times),
        Case::Panel(height, sparse) => planes(isa, *height, *sparse, times),
    }
    println!("{}", isa.name());
}

/// Every tenth block of `height` rows is not zero, or (`None`) all of them.
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
    let product = PackedMatrix::new(isa, format, ROWS, COLUMNS, &matrix(height));
    let x = [0.5; COLUMNS];
    let mut out = [0.0; ROWS];
    for _ in 0..times {
        product.add(Vectors { values: &x, stride: COLUMNS, count: 1 }, &mut out, ROWS, RowOrder::Down);
    }
    assert!(times == 0 || out.iter().all(|value| *value > 0.0));
}

fn planes(isa: Isa, height: Height, sparse: bool, times: usize) {
    let values = matrix(sparse.then_some(height.rows()));
    let packed = if sparse {
        PackedRows::sparse(ROWS, COLUMNS, &values, height)
    } else {
        PackedRows::dense(ROWS, COLUMNS, &values, Height::dense(isa))
    };
    let offsets = packed.offsets(|column| column * POSITIONS);
    let x = vec![0.5; COLUMNS * POSITIONS];
    let mut out = vec![0.0; ROWS * POSITIONS];
    for _ in 0..times {
        let portion = Portion { blocks: 0..packed.blocks(), positions: 0..POSITIONS, chunk: POSITIONS };
        let output = Output::new(&mut out, POSITIONS);
        // SAFETY: `out` is borrowed, and there is no other thread.
        unsafe { panel::multiply(isa, &packed, &offsets, &x, Epilogue::default(), output, portion) }
    }
    assert!(times == 0 || out.iter().all(|value| *value > 0.0));
}
