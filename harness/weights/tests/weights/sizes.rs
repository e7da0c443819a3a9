//! The documented sizes, for a matrix of gaussian weights of which 90 % were pruned by magnitude.

use espalier_weights::{Channels, Form, Matrix, pack::packed_bytes};

use super::{gaussian, magnitude_pruned};

#[test]
fn a_pruned_matrix_is_as_small_as_promised() {
    let (rows, columns) = (1024, 2304);
    let values = magnitude_pruned(gaussian(rows * columns, 1), 0.9);
    let matrix = Matrix::new(rows, columns, Channels::Rows, &values).unwrap();
    for (name, most) in [
        ("bitmap-codebook", 2.7),
        ("bitmap-codebook-16", 2.55),
        ("bitmap-int8", 3.8),
        ("bitmap-f16", 5.2),
        ("bitmap-f32", 9.5),
        ("csr-f32", 12.0),
    ] {
        let (encoded, packed) = packed_bytes(&matrix, name.parse::<Form>().unwrap()).unwrap();
        let share = |bytes: u64| 100.0 * bytes as f64 / (4 * values.len()) as f64;
        println!("{name:20} {:6.2} % {:6.3} %", share(encoded), share(packed));
        assert!(share(packed) <= most, "{name}: {} %", share(packed));
    }
}
