//! Synthetic inputs for untrained networks: the same every time, and unlike each other, so that predictions can be
//! compared.

use espalier_onnx::random::SplitMix64;

/// One input of a network, without the axis that counts samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub name: &'static str,
    pub dims: Vec<usize>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Channels, rows, columns: large patterns with finer ones on top, roughly normal.
    Image,
    /// Steps, features: each feature drifts.
    Frames,
    /// Word pieces of a vocabulary of this size; 0 behind the sample's end.
    Tokens(usize),
    /// 1 up to the sample's end.
    Mask,
    /// 0 in the first sentence, 1 in the second.
    Sentence,
}

/// The values of all samples, one after the other; the first axis counts them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub name: &'static str,
    pub dims: Vec<usize>,
    pub values: Values,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

pub fn samples(inputs: &[Input], count: usize) -> Vec<Sampled> {
    let sampled = |input: &Input| {
        let dims = [&[count], input.dims.as_slice()].concat();
        let values = match input.kind {
            Kind::Image | Kind::Frames => Values::Floats((0..count).flat_map(|sample| floats(input, sample)).collect()),
            _ => Values::Ints((0..count).flat_map(|sample| integers(input, sample)).collect()),
        };
        Sampled { name: input.name, dims, values }
    };
    inputs.iter().map(sampled).collect()
}

fn floats(input: &Input, sample: usize) -> Vec<f32> {
    let mut random = SplitMix64::named(&format!("{} {sample}", input.name));
    match (input.kind, input.dims.as_slice()) {
        (Kind::Image, &[channels, rows, columns]) => {
            (0..channels).flat_map(|_| noise(&mut random, rows, columns)).collect()
        }
        (_, &[steps, features]) => {
            let by_feature: Vec<Vec<f32>> = (0..features).map(|_| noise(&mut random, steps, 1)).collect();
            (0..steps).flat_map(|step| by_feature.iter().map(move |feature| feature[step])).collect()
        }
        (_, dims) => (0..dims.iter().product()).map(|_| random.normal_but_zero()).collect(),
    }
}

/// Value noise: random numbers on ever finer grids, interpolated bilinearly; each grid has two thirds of the weight of
/// the one before.
fn noise(random: &mut SplitMix64, rows: usize, columns: usize) -> Vec<f32> {
    let mut sum = vec![random.normal_but_zero() * 0.5; rows * columns];
    let mut weight = 0.8;
    for cells in [1usize, 2, 4, 8, 16, 32, 64] {
        if cells >= rows.max(columns) {
            break;
        }
        let [down, across] = [rows, columns].map(|length| cells.min(length));
        let grid: Vec<f32> = (0..(down + 1) * (across + 1)).map(|_| random.normal_but_zero()).collect();
        for row in 0..rows {
            let (above, low) = place(row, rows, down);
            for column in 0..columns {
                let (left, right) = place(column, columns, across);
                let corner = |row: usize, column: usize| grid[row * (across + 1) + column];
                let upper = corner(above, left) * (1.0 - right) + corner(above, left + 1) * right;
                let lower = corner(above + 1, left) * (1.0 - right) + corner(above + 1, left + 1) * right;
                sum[row * columns + column] += weight * (upper * (1.0 - low) + lower * low);
            }
        }
        weight *= 2.0 / 3.0;
    }
    sum
}

/// The cell that contains a position, and the position within it.
fn place(position: usize, length: usize, cells: usize) -> (usize, f32) {
    let place = position as f32 * cells as f32 / length as f32;
    (place as usize, place - (place as usize) as f32)
}

/// The tokens with which BERT's tokeniser begins, separates and ends sentences.
const BEGIN: i64 = 101;
const END: i64 = 102;

/// The first real word piece; below are signs and single letters.
const WORDS: usize = 1000;

fn integers(input: &Input, sample: usize) -> Vec<i64> {
    let length = input.dims.iter().product::<usize>();
    // All inputs of a sample must agree, whatever their names are.
    let mut random = SplitMix64::named(&format!("sequence {sample}"));
    let end = length - random.below(length / 4 + 1);
    let middle = end / 2;
    let value = |at: usize| match input.kind {
        Kind::Mask => i64::from(at < end),
        Kind::Sentence => i64::from(at > middle && at < end),
        Kind::Tokens(_) if at >= end => 0,
        Kind::Tokens(_) if at == 0 => BEGIN,
        Kind::Tokens(_) if at == middle || at + 1 == end => END,
        Kind::Tokens(vocabulary) => {
            let first = WORDS.min(vocabulary / 2);
            (first + random.below(vocabulary - first)) as i64
        }
        Kind::Image | Kind::Frames => 0,
    };
    (0..length).map(value).collect()
}
