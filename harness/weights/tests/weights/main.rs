//! Tests of formats and packs. `cargo test -p espalier-weights --all-features`.

mod forms;
mod hostile;
mod sizes;

use espalier_weights::{Channels, Form, Layout, Values};

/// Layouts, with blocks that divide matrices and blocks that do not.
fn layouts() -> Vec<Layout> {
    let blocks = [(4, 1), (8, 1), (16, 1), (1, 4), (2, 3), (1, 256)].into_iter();
    let blocks = blocks.map(|(rows, columns)| Layout::BlockCsr { rows, columns });
    [Layout::Dense, Layout::Csr, Layout::Bitmap].into_iter().chain(blocks).collect()
}

fn types() -> [Values; 6] {
    let codebook = |size| Values::Codebook { size };
    [Values::F32, Values::F16, Values::Int8, codebook(2), codebook(16), codebook(256)]
}

fn forms() -> Vec<Form> {
    layouts().into_iter().flat_map(|layout| types().map(|values| Form { layout, values })).collect()
}

const CHANNELS: [Channels; 2] = [Channels::Rows, Channels::Columns];

/// Deterministic numbers of a normal distribution.
fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..count).map(|_| (0.02 * normal()) as f32).collect()
}

/// Sets the smallest magnitudes to zero, exactly `round(ratio * n)` of them.
fn magnitude_pruned(mut values: Vec<f32>, ratio: f64) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
    let removed = (ratio * values.len() as f64).round() as usize;
    order[..removed].iter().for_each(|index| values[*index] = 0.0);
    values
}
