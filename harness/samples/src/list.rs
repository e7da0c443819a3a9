//! A CSV file that lists samples: a row each, a column for each input and one for the labels.
//!
//! A column is called as the array of an `.npz` would be: `x` (or `file`) is the model's first input, `y` (or `label`)
//! the labels, others are inputs by name. Cells are numbers, or names of files: images (`.jpg`, `.jpeg`, `.png`),
//! recordings (`.wav`) and arrays (`.npy`), relative to the CSV file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;

use crate::{
    audio::{self, Audio},
    images::{self, Images},
    model_input::{ModelInput, input_named},
    npz::{self, Array, DType, DTypeClass},
};

/// All arrays of a list together, in bytes.
const MAX_BYTES: u64 = 4 << 30;

/// # Errors
/// Names the line and the column at fault.
pub fn read(path: &Path, images: &Images, audio: &Audio, model: Option<&[ModelInput]>) -> Result<Vec<Array>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?;
    let names: Vec<String> = reader.headers()?.iter().map(column_name).collect();
    let mut columns: Vec<Vec<(u64, String)>> = vec![Vec::new(); names.len()];
    for row in reader.records() {
        let row = row?;
        let line = row.position().map_or(0, csv::Position::line);
        for (column, cell) in columns.iter_mut().zip(&row) {
            column.push((line, cell.to_owned()));
        }
    }
    ensure!(columns.first().is_some_and(|column| !column.is_empty()), "it lists no samples");
    let list = List { folder: path.parent().unwrap_or(Path::new(".")), images, audio, model };
    let mut left = MAX_BYTES;
    let mut arrays: Vec<Array> = Vec::new();
    for (name, cells) in names.iter().zip(&columns) {
        ensure!(arrays.iter().all(|array| array.name != *name), "it has two columns `{name}`");
        arrays.push(list.array(name, cells, &mut left).with_context(|| format!("column `{name}`"))?);
    }
    Ok(arrays)
}

fn column_name(header: &str) -> String {
    match header {
        "file" => "x",
        "label" => "y",
        name => name,
    }
    .to_owned()
}

struct List<'a> {
    folder: &'a Path,
    images: &'a Images,
    audio: &'a Audio,
    model: Option<&'a [ModelInput]>,
}

/// What the files of a column are, by their ending.
enum Files {
    Images(images::Decoder),
    Audio(audio::Decoder),
    Arrays,
}

impl List<'_> {
    fn array(&self, name: &str, cells: &[(u64, String)], left: &mut u64) -> Result<Array> {
        let first = &cells[0].1;
        let Some(ending) = Path::new(first).extension().filter(|_| first.parse::<f64>().is_err()) else {
            return numbers(name, cells);
        };
        let input = self.model.and_then(|model| input_named(name, model));
        let files = match ending.to_string_lossy().to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "png" => Files::Images(images::Decoder::new(self.images, input)?),
            "wav" => Files::Audio(audio::Decoder::new(self.audio, input)?),
            "npy" => Files::Arrays,
            other => bail!("files `.{other}` are not read: images are JPEG or PNG, recordings WAV, arrays `.npy`"),
        };
        let read = |(line, cell): &(u64, String)| -> Result<Array> {
            let path = self.folder.join(cell);
            let read = files.read(&path).with_context(|| format!("line {line}: `{}` cannot be used", path.display()));
            read.map(|array| Array { name: name.to_owned(), ..array })
        };
        let sample = read(&cells[0])?;
        let size = (sample.bytes.len() as u64).saturating_mul(cells.len() as u64);
        *left = left.checked_sub(size).ok_or_else(|| too_large(size))?;
        let rest: Vec<Array> = cells[1..].par_iter().map(read).collect::<Result<_>>()?;
        join(sample, rest, cells)
    }
}

fn too_large(size: u64) -> anyhow::Error {
    anyhow!("its samples take {} MiB; all together may take {} MiB", size >> 20, MAX_BYTES >> 20)
}

impl Files {
    fn read(&self, path: &PathBuf) -> Result<Array> {
        let value = match self {
            Files::Images(decoder) => decoder.decode(path)?,
            Files::Audio(decoder) => decoder.decode(path)?,
            Files::Arrays => return npz::parse_npy("", &std::fs::read(path)?).map_err(|why| anyhow!("it {why}")),
        };
        let bytes = value.values.into_iter().flat_map(f32::to_le_bytes).collect();
        let dtype = DType { class: DTypeClass::Float, size: 4 };
        Ok(Array { name: String::new(), dtype, shape: value.shape, bytes })
    }
}

/// The samples one behind the other, along a new first axis.
fn join(mut sample: Array, rest: Vec<Array>, cells: &[(u64, String)]) -> Result<Array> {
    sample.bytes.reserve_exact(sample.bytes.len() * rest.len());
    for (array, (line, cell)) in rest.into_iter().zip(&cells[1..]) {
        ensure!(
            (array.dtype, &array.shape) == (sample.dtype, &sample.shape),
            "line {line}: `{cell}` is {} of shape {:?}, but the first sample is {} of shape {:?}",
            array.dtype,
            array.shape,
            sample.dtype,
            sample.shape
        );
        sample.bytes.extend(array.bytes);
    }
    sample.shape.insert(0, cells.len() as u64);
    Ok(sample)
}

/// Integers if all are, else 64-bit floats.
fn numbers(name: &str, cells: &[(u64, String)]) -> Result<Array> {
    let array = |class, bytes: Vec<u8>| Array {
        name: name.to_owned(),
        dtype: DType { class, size: 8 },
        shape: vec![cells.len() as u64],
        bytes,
    };
    let integers: Option<Vec<i64>> = cells.iter().map(|(_, cell)| cell.parse().ok()).collect();
    if let Some(integers) = integers {
        return Ok(array(DTypeClass::Int, integers.into_iter().flat_map(i64::to_le_bytes).collect()));
    }
    let mut bytes = Vec::new();
    for (line, cell) in cells {
        let number: f64 = cell.parse().map_err(|_| {
            anyhow!(
                "line {line}: `{cell}` is neither a number nor a file with an ending; classes are numbers from 0 on"
            )
        })?;
        bytes.extend(number.to_le_bytes());
    }
    Ok(array(DTypeClass::Float, bytes))
}
