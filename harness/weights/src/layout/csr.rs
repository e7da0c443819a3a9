//! Compressed sparse rows of single cells or of blocks: where each row's entries start, and the column of each entry.

use crate::{
    Matrix, WeightsError,
    bytes::{Reader, Streams, is_zero},
};

/// Column indices, as narrow as the matrix allows, because kernels wait for what they read.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Columns {
    /// For a matrix of `count` columns.
    fn new(columns: Vec<u32>, count: usize) -> Columns {
        match index_width(count as u64) {
            2 => Columns::U16(columns.into_iter().map(|column| column as u16).collect()),
            _ => Columns::U32(columns),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Columns::U16(columns) => columns.len(),
            Columns::U32(columns) => columns.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, entry: usize) -> usize {
        match self {
            Columns::U16(columns) => columns[entry].into(),
            Columns::U32(columns) => columns[entry] as usize,
        }
    }
}

/// Bytes of one column index.
pub fn index_width(columns: u64) -> u64 {
    if columns <= 1 << 16 { 2 } else { 4 }
}

/// Row starts, columns, and the values of whole blocks, each block row by row.
pub fn find(matrix: &Matrix, height: usize, width: usize) -> Result<(Vec<u32>, Columns, Vec<f32>), WeightsError> {
    let block_rows = matrix.rows.div_ceil(height);
    let mut row_starts = Vec::with_capacity(block_rows + 1);
    row_starts.push(0);
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    let mut stored = vec![false; matrix.columns.div_ceil(width)];
    for block_row in 0..block_rows {
        let first_row = block_row * height;
        stored.fill(false);
        for row in first_row..matrix.rows.min(first_row + height) {
            let cells = matrix.values[row * matrix.columns..][..matrix.columns].chunks(width);
            for (stored, cells) in stored.iter_mut().zip(cells) {
                *stored |= !cells.iter().all(|value| is_zero(*value));
            }
        }
        for (block_column, _) in stored.iter().enumerate().filter(|(_, stored)| **stored) {
            columns.push(block_column as u32);
            for row in first_row..first_row + height {
                for column in block_column * width..(block_column + 1) * width {
                    let inside = row < matrix.rows && column < matrix.columns;
                    values.push(if inside { matrix.values[row * matrix.columns + column] } else { 0.0 });
                }
            }
        }
        row_starts.push(u32::try_from(columns.len()).map_err(|_| WeightsError::TooManyValues)?);
    }
    Ok((row_starts, Columns::new(columns, stored.len()), values))
}

pub fn for_each(row_starts: &[u32], columns: &Columns, mut f: impl FnMut(usize, usize, usize)) {
    for (row, ends) in row_starts.windows(2).enumerate() {
        for entry in ends[0] as usize..ends[1] as usize {
            f(entry, row, columns.get(entry));
        }
    }
}

/// Swaps rows and columns: row starts, columns and the old index of each entry, for a matrix that has `rows` and
/// `columns` afterwards.
pub fn transpose(row_starts: &[u32], places: &Columns, rows: usize, columns: usize) -> (Vec<u32>, Columns, Vec<u32>) {
    let mut starts = vec![0u32; rows + 1];
    for entry in 0..places.len() {
        starts[places.get(entry) + 1] += 1;
    }
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    // Entries come in the order of their old rows, so that columns ascend.
    let mut next = starts.clone();
    let (mut order, mut turned) = (vec![0; places.len()], vec![0; places.len()]);
    for_each(row_starts, places, |entry, row, column| {
        let place = next[column] as usize;
        next[column] += 1;
        order[place] = entry as u32;
        turned[place] = row as u32;
    });
    (starts, Columns::new(turned, columns), order)
}

pub fn write(row_starts: &[u32], columns: &Columns, out: &mut Streams) {
    out.put_planes(row_starts.iter().map(|start| start.to_le_bytes()));
    match columns {
        Columns::U16(columns) => out.put_planes(columns.iter().map(|column| column.to_le_bytes())),
        Columns::U32(columns) => out.put_planes(columns.iter().map(|column| column.to_le_bytes())),
    }
}

pub fn read(rows: usize, columns: usize, reader: &mut Reader) -> Result<(Vec<u32>, Columns), String> {
    let starts = reader.planes::<4>(rows.checked_add(1).ok_or("it has too many rows")?)?;
    let row_starts: Vec<u32> = starts.iter().map(u32::from_le_bytes).collect();
    if row_starts[0] != 0 || !row_starts.is_sorted() {
        return Err("its row starts do not ascend from 0".into());
    }
    let entries = row_starts[rows] as usize;
    let places = match index_width(columns as u64) {
        2 => Columns::U16(reader.planes::<2>(entries)?.iter().map(u16::from_le_bytes).collect()),
        _ => Columns::U32(reader.planes::<4>(entries)?.iter().map(u32::from_le_bytes).collect()),
    };
    let mut least = 0;
    let mut row_before = 0;
    let mut wrong = false;
    for_each(&row_starts, &places, |_, row, column| {
        if row != row_before {
            (least, row_before) = (0, row);
        }
        wrong |= column < least || column >= columns;
        least = column + 1;
    });
    if wrong {
        return Err("its column indices do not ascend within the matrix".into());
    }
    Ok((row_starts, places))
}
