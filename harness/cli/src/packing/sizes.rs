//! The size of a model's weights in every form, and the table of them.

use anyhow::{Context as _, Result};
use espalier_bench::sheet::{Cell, Column, Sheet, Tone};
use espalier_prune::Bytes;
use espalier_weights::{
    Channels, Form, Layout, Matrix, Values, WeightsError,
    pack::{Packed, Span, packed_bytes},
};
use rayon::prelude::*;

use super::spans::Spans;

/// The size of all weights in one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormSize {
    pub form: Form,
    /// `None` where a value does not fit the form: infinity does not fit int8.
    pub bytes: Option<FormBytes>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormBytes {
    /// In memory, as a kernel uses it.
    pub encoded: u64,
    /// In a pack, compressed.
    pub packed: u64,
}

/// Every layout with every form of values. `block` is for block CSR, in outputs x inputs.
pub fn forms(block: (u16, u16)) -> Vec<Form> {
    let block = Layout::BlockCsr { rows: block.0, columns: block.1 };
    let codebook = |size| Values::Codebook { size };
    let values = [Values::F32, Values::F16, Values::Int8, codebook(32), codebook(16)];
    let layouts = [Layout::Dense, Layout::Csr, block, Layout::Bitmap];
    layouts.iter().flat_map(|layout| values.map(|values| Form { layout: *layout, values })).collect()
}

/// The sizes of a file's weights in each form, and as dense f32. Takes seconds for tens of megabytes.
pub fn sizes(file: &Bytes, forms: &[Form]) -> Result<(Vec<FormSize>, u64)> {
    let spans = Spans::of(file)?.weights;
    let none = || vec![Some(FormBytes::default()); forms.len()];
    let sum = |one: FormBytes, other: FormBytes| FormBytes {
        encoded: one.encoded + other.encoded,
        packed: one.packed + other.packed,
    };
    let sums = |one: Vec<Option<FormBytes>>, other: Vec<Option<FormBytes>>| {
        Ok(one.into_iter().zip(other).map(|(one, other)| one.zip(other).map(|(one, other)| sum(one, other))).collect())
    };
    let totals = spans.par_iter().map(|span| sizes_of(file, span, forms)).try_reduce(none, sums)?;
    let sizes = forms.iter().zip(totals).map(|(form, bytes)| FormSize { form: *form, bytes });
    Ok((sizes.collect(), spans.iter().map(dense_bytes).sum()))
}

/// Of one weight, in each form.
fn sizes_of(file: &[u8], span: &Span, forms: &[Form]) -> Result<Vec<Option<FormBytes>>> {
    let bytes = &file[span.offset as usize..][..dense_bytes(span) as usize];
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let (rows, columns) = (span.rows as usize, values.len() / span.rows.max(1) as usize);
    let failed = || format!("tensor `{}`", span.name);
    let matrix = Matrix::new(rows, columns, span.channels, &values).with_context(failed)?;
    let size = |form: &Form| match packed_bytes(&matrix, turned(*form, span.channels)) {
        Ok((encoded, packed)) => Ok(Some(FormBytes { encoded, packed })),
        Err(WeightsError::Unfit { .. }) => Ok(None),
        Err(error) => Err(error).with_context(failed),
    };
    forms.iter().map(size).collect()
}

/// Turns the blocks of a form, which are outputs x inputs, where the matrix has inputs as rows.
pub fn turned(form: Form, channels: Channels) -> Form {
    match (form.layout, channels) {
        (Layout::BlockCsr { rows, columns }, Channels::Columns) => {
            Form { layout: Layout::BlockCsr { rows: columns, columns: rows }, ..form }
        }
        _ => form,
    }
}

pub fn dense_bytes(span: &Span) -> u64 {
    4 * span.shape.iter().product::<u64>()
}

/// One row a form, with the smallest of each form of values marked, and a note on the chosen forms.
pub fn sheet(title: &str, sizes: &[FormSize], dense: u64, packed: &Packed, weights: usize) -> Sheet {
    let share = |bytes: u64| format!("{:.2}", 100.0 * bytes as f64 / dense.max(1) as f64);
    let smallest = |size: &FormSize| {
        let same = sizes.iter().filter(|other| other.form.values == size.form.values);
        same.filter_map(|other| other.bytes).map(|bytes| bytes.packed).min() == size.bytes.map(|bytes| bytes.packed)
    };
    let column = |name: &'static str, unit: &str, legend: &'static str, cell: &dyn Fn(&FormSize) -> Option<String>| {
        let cells = sizes.iter().map(|size| Cell {
            text: cell(size).unwrap_or_else(|| "—".to_owned()),
            tone: if smallest(size) { Tone::Good } else { Tone::Plain },
        });
        Column { name, unit: unit.to_owned(), rank: 0, cells: cells.collect(), legend }
    };
    let columns = vec![
        column("form", "", "", &|size| Some(size.form.to_string())),
        column("in memory", "bytes", "in memory: encoded, before zstd", &|size| Some(size.bytes?.encoded.to_string())),
        column("in memory", "% of dense f32", "", &|size| Some(share(size.bytes?.encoded))),
        column("packed", "bytes", "packed: after zstd", &|size| Some(size.bytes?.packed.to_string())),
        column("packed", "% of dense f32", "", &|size| Some(share(size.bytes?.packed))),
    ];
    let mut counts: Vec<(String, usize)> = Vec::new();
    for tensor in &packed.tensors {
        let form = tensor.form.to_string();
        match counts.iter_mut().find(|(known, _)| *known == form) {
            Some((_, count)) => *count += 1,
            None => counts.push((form, 1)),
        }
    }
    let chosen: Vec<String> = counts.iter().map(|(form, count)| format!("{count} as {form}")).collect();
    let others = packed.tensors.len() - weights;
    let mut notes =
        vec![format!("packed: {}", if chosen.is_empty() { "nothing".to_owned() } else { chosen.join(", ") })];
    if others > 0 {
        notes.push(format!("{others} of these are large tensors without prunable weights, packed without loss"));
    }
    Sheet {
        title: title.to_owned(),
        facts: vec![format!("{weights} weight tensors, {dense} bytes as dense f32")],
        columns,
        notes,
    }
}
