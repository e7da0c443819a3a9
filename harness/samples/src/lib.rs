//! Samples to run a model on, from a user's files: inputs for the board, and the labels for the score.
//!
//! An `.npz`, a folder of `.npy` files, a CSV file that lists images, recordings or numbers, or a TOML file that says
//! how such a list is to be read. All become named arrays: `x` is the model's first input, other arrays are inputs by
//! name, and `y` holds the labels. The first axis of every array counts samples. A runner takes f32 and i64 only, so
//! everything becomes one of the two: as the model's input declares it, else f32 for floats and bytes (images), i64 for
//! wider integers (indices).

mod audio;
mod description;
mod folder;
mod images;
mod list;
mod model_input;
pub mod npz;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use espalier_protocol::tensor::{DType as WireDType, Tensor, TensorHeader};
use espalier_tasks::Truth;
use half::f16;

pub use model_input::{ModelAxis, ModelInput};

use crate::{
    model_input::input_named,
    npz::{Array, DTypeClass},
};

/// An eval set unpacked, in bytes. One that is larger would not fit a board either.
const MAX_BYTES: u64 = 4 << 30;

#[derive(Clone, Debug, PartialEq)]
pub struct EvalSet {
    /// By their names in the file; `x` is the first input.
    pub inputs: Vec<Tensor>,
    /// The right answer to each sample.
    pub truth: Option<Truth>,
}

impl EvalSet {
    /// How many samples there are; at least one.
    pub fn samples(&self) -> u64 {
        self.inputs[0].header.shape[0]
    }
}

/// Reads samples, and checks them against the model's inputs where they are known; `what` names them, e.g. `eval set`.
///
/// # Errors
/// Names the file, the array, its shape, and what was expected.
pub fn read(what: &str, path: &Path, model: Option<&[ModelInput]>) -> Result<EvalSet> {
    let arrays = || match path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).as_deref() {
        _ if path.is_dir() => folder::read(path),
        Some("csv") => list::read(path, &images::Images::default(), &audio::Audio::default(), model),
        Some("toml") => description::read(path, model),
        _ => npz::read(&std::fs::read(path)?).map_err(anyhow::Error::msg),
    };
    std::fs::metadata(path).with_context(|| format!("cannot read the {what} `{}`", path.display()))?;
    let set = arrays().and_then(|arrays| from_arrays(arrays, model));
    set.with_context(|| format!("the {what} `{}` cannot be used", path.display()))
}

fn from_arrays(mut arrays: Vec<Array>, model: Option<&[ModelInput]>) -> Result<EvalSet> {
    let labels = arrays.iter().position(|array| array.name == "y").map(|index| arrays.remove(index));
    ensure!(!arrays.is_empty(), "it has no `x`, nor any other array to feed the model");

    let first = &arrays[0];
    for array in &arrays {
        let samples =
            array.shape.first().with_context(|| format!("`{}` is a single number, not samples", array.name))?;
        ensure!(*samples > 0, "`{}` has shape {:?}: no samples", array.name, array.shape);
        ensure!(
            *samples == first.shape[0],
            "`{}` has {samples} samples (shape {:?}), `{}` has {}",
            array.name,
            array.shape,
            first.name,
            first.shape[0]
        );
    }
    let truth = labels.map(|labels| parse_truth(&labels, first)).transpose()?;
    if let Some(model) = model {
        check_names(&arrays, model)?;
    }
    let inputs = arrays.iter().map(|array| to_tensor(array, model)).collect::<Result<_>>()?;
    Ok(EvalSet { inputs, truth })
}

/// The shape and the type of right answers are the task's, which checks them; here they are one for each sample.
fn parse_truth(labels: &Array, first: &Array) -> Result<Truth> {
    let samples = first.shape[0];
    let Some((_, shape)) = labels.shape.split_first().filter(|(count, _)| **count == samples) else {
        bail!(
            "the labels `y` have shape {:?}, expected [{samples}, …]: one right answer for each sample of `{}`",
            labels.shape,
            first.name
        );
    };
    ensure!(!shape.contains(&0), "the labels `y` have shape {:?}: there are none", labels.shape);
    let floats = labels.dtype.class == DTypeClass::Float;
    let values =
        if floats { doubles(labels) } else { integers(labels)?.into_iter().map(|value| value as f64).collect() };
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let width = shape.iter().product::<u64>() as usize;
        bail!("the labels `y` have {} (sample {})", values[at], at / width);
    }
    Ok(Truth { shape: shape.to_vec(), integers: !floats, values })
}

/// Every array belongs to an input, and every input has an array.
fn check_names(arrays: &[Array], model: &[ModelInput]) -> Result<()> {
    let names = || model.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ");
    let mut fed: Vec<&str> = Vec::new();
    for array in arrays {
        let Some(input) = input_of(array, model) else {
            bail!("the model has no input for the array `{}`; it takes {}", array.name, names());
        };
        ensure!(
            !fed.contains(&input.name.as_str()),
            "`x` and `{0}` both are the model's first input, `{0}`",
            input.name
        );
        fed.push(&input.name);
    }
    match model.iter().find(|input| !fed.contains(&input.name.as_str())) {
        Some(input) => bail!("it has no array for the model's input `{}`; the model takes {}", input.name, names()),
        None => Ok(()),
    }
}

fn input_of<'a>(array: &Array, model: &'a [ModelInput]) -> Option<&'a ModelInput> {
    input_named(&array.name, model)
}

fn to_tensor(array: &Array, model: Option<&[ModelInput]>) -> Result<Tensor> {
    let input = model.and_then(|model| input_of(array, model));
    let dtype = match input {
        Some(input) => {
            check_shape(array, input)?;
            wire_dtype(array, input)?
        }
        None if array.dtype.class == DTypeClass::Float
            || array.dtype == (npz::DType { class: DTypeClass::Uint, size: 1 }) =>
        {
            WireDType::F32
        }
        None => WireDType::I64,
    };
    let elements = (array.bytes.len() / array.dtype.size) as u64;
    ensure!(
        elements * dtype.size() as u64 <= MAX_BYTES,
        "`{}` has {elements} values, more than the {} GiB an eval set may take",
        array.name,
        MAX_BYTES >> 30
    );
    let bytes = match dtype {
        WireDType::F32 => {
            let values = floats(array);
            check_floats(array, &values, input)?;
            values.into_iter().flat_map(f32::to_le_bytes).collect()
        }
        WireDType::I64 => {
            let values = integers(array)?;
            input.map_or(Ok(()), |input| check_integers(array, &values, input))?;
            values.into_iter().flat_map(i64::to_le_bytes).collect()
        }
    };
    Ok(Tensor { header: TensorHeader { name: array.name.clone(), dtype, shape: array.shape.clone() }, bytes })
}

/// The first axis is not compared: it counts samples here and those of one inference there.
fn check_shape(array: &Array, input: &ModelInput) -> Result<()> {
    let Some(axes) = &input.axes else {
        return Ok(());
    };
    let fits = |(len, axis): (&u64, &ModelAxis)| match axis {
        ModelAxis::Fixed(fixed) => len == fixed,
        ModelAxis::Free(_) => true,
    };
    let same = axes.len() == array.shape.len() && array.shape.iter().zip(axes).skip(1).all(fits);
    let declared = axes.iter().map(|axis| match axis {
        ModelAxis::Fixed(len) => len.to_string(),
        ModelAxis::Free(name) if name.is_empty() => "?".to_owned(),
        ModelAxis::Free(name) => name.clone(),
    });
    ensure!(
        same,
        "`{}` has shape {:?}, the model's input `{}` takes [{}]",
        array.name,
        array.shape,
        input.name,
        declared.collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn wire_dtype(array: &Array, input: &ModelInput) -> Result<WireDType> {
    let has = |prefixes: &[&str]| prefixes.iter().any(|prefix| input.dtype.starts_with(prefix));
    if has(&["float", "bfloat"]) {
        return Ok(WireDType::F32);
    }
    ensure!(
        has(&["int", "uint", "bool"]),
        "the model's input `{}` takes {}, which cannot be fed",
        input.name,
        input.dtype
    );
    ensure!(
        array.dtype.class != DTypeClass::Float,
        "`{}` is {}, the model's input `{}` takes {}",
        array.name,
        array.dtype,
        input.name,
        input.dtype
    );
    Ok(WireDType::I64)
}

/// A number too large for the input's type would become infinite there.
fn check_floats(array: &Array, values: &[f32], input: Option<&ModelInput>) -> Result<()> {
    let dtype = input.map_or("float32", |input| &input.dtype);
    // Beyond these a number is rounded to infinity: half a unit above the largest of the type.
    let largest = if dtype == "float16" { 65_520.0 } else { f32::INFINITY };
    // Numbers of f16 and f32, which are as they are in the file, may be infinite on purpose.
    let size = if array.dtype.class == DTypeClass::Float { array.dtype.size } else { 0 };
    let is_infinite = |at: usize| match size {
        2 | 4 => values[at].is_infinite(),
        8 => f64::from_bits(unsigned(&array.bytes[8 * at..8 * at + 8])).is_infinite(),
        _ => false,
    };
    if let Some(at) = values.iter().position(|value| value.is_nan()) {
        bail!("{}, which is no number", element(array, at, "NaN"));
    }
    let overflows = |at: &usize| values[*at].abs() >= largest && !is_infinite(*at);
    match (0..values.len()).find(overflows) {
        Some(at) if size == 8 => {
            let value = f64::from_bits(unsigned(&array.bytes[8 * at..8 * at + 8]));
            bail!("{}, beyond {dtype}", element(array, at, &format!("{value:e}")))
        }
        Some(at) => bail!("{}, beyond {dtype}", element(array, at, &values[at].to_string())),
        None => Ok(()),
    }
}

fn check_integers(array: &Array, values: &[i64], input: &ModelInput) -> Result<()> {
    let Some((least, most)) = range(&input.dtype) else { return Ok(()) };
    match values.iter().position(|value| !(least..=most).contains(value)) {
        Some(at) => bail!(
            "{}, but the model's input `{}` takes {} ({least} to {most}): mend the samples, or scale them as for \
             training",
            element(array, at, &values[at].to_string()),
            input.name,
            input.dtype
        ),
        None => Ok(()),
    }
}

/// The least and the largest number of an integer type, as far as int64 holds them.
fn range(dtype: &str) -> Option<(i64, i64)> {
    if dtype == "bool" {
        return Some((0, 1));
    }
    let (is_signed, bits) = match dtype.strip_prefix("uint") {
        Some(bits) => (false, bits),
        None => (true, dtype.strip_prefix("int")?),
    };
    let bits: u32 = bits.parse().ok().filter(|bits| (1..=64).contains(bits))?;
    Some(match is_signed {
        true => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
        false => (0, i64::MAX >> (63 - bits.min(63))),
    })
}

/// An element of an array, with its place.
fn element(array: &Array, at: usize, value: &str) -> String {
    let mut left = at as u64;
    let mut index: Vec<u64> = array.shape.iter().rev().map(|axis| (left % axis, left /= axis).0).collect();
    index.reverse();
    format!("`{}` is {value} at {index:?}", array.name)
}

/// The values of an array of floats.
fn doubles(array: &Array) -> Vec<f64> {
    match array.dtype.size {
        8 => array.bytes.chunks_exact(8).map(|bytes| f64::from_bits(unsigned(bytes))).collect(),
        _ => floats(array).into_iter().map(f64::from).collect(),
    }
}

/// The values of an array of any type, rounded to f32.
fn floats(array: &Array) -> Vec<f32> {
    let elements = array.bytes.chunks_exact(array.dtype.size);
    match (array.dtype.class, array.dtype.size) {
        (DTypeClass::Float, 2) => elements.map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect(),
        (DTypeClass::Float, 4) => elements.map(|bytes| f32::from_bits(unsigned(bytes) as u32)).collect(),
        (DTypeClass::Float, _) => elements.map(|bytes| f64::from_bits(unsigned(bytes)) as f32).collect(),
        (DTypeClass::Int, _) => elements.map(|bytes| signed(bytes) as f32).collect(),
        (DTypeClass::Uint | DTypeClass::Bool, _) => elements.map(|bytes| unsigned(bytes) as f32).collect(),
    }
}

/// The values of an array of integers or truth values.
fn integers(array: &Array) -> Result<Vec<i64>> {
    let elements = array.bytes.chunks_exact(array.dtype.size);
    let read = |bytes| match array.dtype.class {
        DTypeClass::Int => Ok(signed(bytes)),
        _ => i64::try_from(unsigned(bytes)).with_context(|| format!("`{}` holds a number beyond int64", array.name)),
    };
    elements.map(read).collect()
}

/// Little-endian, of 1 to 8 bytes.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    (unsigned(bytes) << unused) as i64 >> unused
}

#[cfg(test)]
mod array_tests {
    use super::*;
    use crate::npz::tests::npz;

    fn parse(file: &[u8], model: Option<&[ModelInput]>) -> Result<EvalSet> {
        from_arrays(npz::read(file).map_err(anyhow::Error::msg)?, model)
    }

    fn dict(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
    }

    fn input(name: &str, dtype: &str, axes: &[Option<u64>]) -> ModelInput {
        let axis = |axis: &Option<u64>| axis.map_or(ModelAxis::Free("N".into()), ModelAxis::Fixed);
        ModelInput { name: name.into(), dtype: dtype.into(), axes: Some(axes.iter().map(axis).collect()) }
    }

    #[test]
    fn the_shipped_eval_set() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/digits-cnn/eval.npz"));
        let model = [input("input", "float32", &[None, Some(1), Some(8), Some(8)])];
        let set = read("eval set", path, Some(&model)).unwrap();
        assert_eq!((set.samples(), set.inputs.len()), (497, 1));
        assert_eq!(
            set.inputs[0].header,
            TensorHeader { name: "x".into(), dtype: WireDType::F32, shape: vec![497, 1, 8, 8] }
        );
        // Pixels were sixteenths; every class is there as often as stratified.
        let pixels = set.inputs[0].bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        assert!(pixels.map(|pixel| pixel * 16.0).all(|pixel| pixel.fract() == 0.0 && (0.0..=16.0).contains(&pixel)));
        let labels = set.truth.unwrap().labels().unwrap();
        for class in 0..10 {
            let count = labels.iter().filter(|label| **label == class).count();
            assert!((48..=51).contains(&count), "class {class}: {count}");
        }
    }

    #[test]
    fn every_type_becomes_what_the_model_takes() {
        #[track_caller]
        fn check(descr: &str, value: &[u8], takes: Option<&str>, expected: Tensor) {
            let file = npz(&[("x", &dict(descr, "(1,)"), value)]);
            let model = takes.map(|dtype| vec![input("in", dtype, &[None])]);
            assert_eq!(parse(&file, model.as_deref()).unwrap().inputs, [expected]);
        }
        let header = |dtype| TensorHeader { name: "x".into(), dtype, shape: vec![1] };
        let f32 = |value: f32| Tensor { header: header(WireDType::F32), bytes: value.to_le_bytes().to_vec() };
        let i64 = |value: i64| Tensor { header: header(WireDType::I64), bytes: value.to_le_bytes().to_vec() };
        check("<f4", &1.5f32.to_le_bytes(), None, f32(1.5));
        check("<f8", &0.1f64.to_le_bytes(), None, f32(0.1));
        check("<f2", &[0x00, 0xc2], None, f32(-3.0));
        check("|u1", &[200], None, f32(200.0));
        check("|u1", &[200], Some("int64"), i64(200));
        check("|u1", &[200], Some("uint8"), i64(200));
        check("|i1", &[0xff], None, i64(-1));
        check("|i1", &[0xff], Some("float32"), f32(-1.0));
        check("<i4", &(-7i32).to_le_bytes(), None, i64(-7));
        check("<u2", &60_000u16.to_le_bytes(), Some("float16"), f32(60_000.0));
        check("|b1", &[1], None, i64(1));
    }

    /// What is beside the range of a type by one is refused, what is at its ends is fed.
    #[test]
    fn a_value_outside_the_inputs_type_is_named_with_its_place() {
        #[track_caller]
        fn check(descr: &str, takes: &str, values: &[&[u8]], expected: &str) {
            let bytes = [&vec![0; values[0].len()][..], &values.concat(), &vec![0; values[0].len()]].concat();
            let shape = format!("({}, 2)", values.len().div_ceil(2) + 1);
            let bytes = [&bytes[..], &vec![0; values[0].len() * (values.len() % 2)]].concat();
            let file = npz(&[("x", &dict(descr, &shape), &bytes)]);
            let got = parse(&file, Some(&[input("in", takes, &[None, Some(2)])]));
            let got = got.map_or_else(|error| error.to_string(), |_| String::new());
            assert!(if expected.is_empty() { got.is_empty() } else { got.contains(expected) }, "{takes}: {got}");
        }
        let i16 = |value: i16| value.to_le_bytes();
        check("<i2", "uint8", &[&i16(-5), &i16(3)], "`x` is -5 at [0, 1], but the model's input `in` takes uint8 (0");
        check("<i2", "uint8", &[&i16(0), &i16(255), &i16(256)], "`x` is 256 at [1, 1]");
        check("<i2", "uint8", &[&i16(0), &i16(255)], "");
        check("<i2", "int8", &[&i16(127), &i16(-128)], "");
        check("<i2", "int8", &[&i16(127), &i16(-129)], "`x` is -129 at [1, 0], but");
        check("<i2", "uint4", &[&i16(16)], "takes uint4 (0 to 15)");
        check("<i2", "bool", &[&i16(1)], "");
        check("<i2", "bool", &[&i16(2)], "takes bool (0 to 1)");
        check("<i8", "int32", &[&(1i64 << 31).to_le_bytes()], "`x` is 2147483648 at [0, 1]");
        check("<i8", "int64", &[&i64::MIN.to_le_bytes(), &i64::MAX.to_le_bytes()], "");
        check("<i8", "uint64", &[&(-1i64).to_le_bytes()], "`x` is -1 at [0, 1]");
        check("<u4", "uint32", &[&u32::MAX.to_le_bytes()], "");
        check("<f8", "float32", &[&1e39f64.to_le_bytes()], "`x` is 1e39 at [0, 1], beyond float32");
        check("<f8", "float32", &[&f64::INFINITY.to_le_bytes(), &3e38f64.to_le_bytes()], "");
        check("<f4", "float16", &[&65_519f32.to_le_bytes(), &f32::NEG_INFINITY.to_le_bytes()], "");
        check("<f4", "float16", &[&65_520f32.to_le_bytes()], "`x` is 65520 at [0, 1], beyond float16");
        check("<i8", "float16", &[&70_000i64.to_le_bytes()], "`x` is 70000 at [0, 1], beyond float16");
        check("<f4", "uint8", &[&f32::NAN.to_le_bytes()], "`x` is float32, the model's input `in` takes uint8");
    }

    #[test]
    fn a_mismatch_is_named_with_its_shape() {
        #[track_caller]
        fn check(arrays: &[(&str, &str, &str)], model: &[ModelInput], expected: &str) {
            let values = [0; 64];
            let files: Vec<_> = arrays.iter().map(|(name, descr, shape)| (*name, dict(descr, shape))).collect();
            let len = |shape: &str| {
                let axes = shape.trim_matches(['(', ')']).split(',').filter(|axis| !axis.trim().is_empty());
                axes.map(|axis| axis.trim().parse::<usize>().unwrap()).product::<usize>()
            };
            let sizes = arrays.iter().map(|(_, descr, shape)| len(shape) * descr[2..].parse::<usize>().unwrap());
            let entries: Vec<_> =
                files.iter().zip(sizes).map(|((name, dict), size)| (*name, dict.as_str(), &values[..size])).collect();
            let model = (!model.is_empty()).then_some(model);
            assert_eq!(parse(&npz(&entries), model).unwrap_err().to_string(), expected);
        }
        let image = [input("input", "float32", &[None, Some(3), Some(2)])];
        let ids = [input("ids", "int64", &[None])];
        let two = [input("ids", "int64", &[None]), input("mask", "int64", &[None])];
        check(
            &[("x", "<f4", "(2, 1, 2)")],
            &image,
            "`x` has shape [2, 1, 2], the model's input `input` takes [N, 3, 2]",
        );
        check(&[("x", "<f4", "(2, 6)")], &image, "`x` has shape [2, 6], the model's input `input` takes [N, 3, 2]");
        check(&[("x", "<f4", "(2,)")], &ids, "`x` is float32, the model's input `ids` takes int64");
        check(&[("z", "<i8", "(2,)")], &ids, "the model has no input for the array `z`; it takes `ids`");
        check(
            &[("x", "<i8", "(2,)")],
            &two,
            "it has no array for the model's input `mask`; the model takes `ids`, `mask`",
        );
        check(
            &[("x", "<i8", "(2,)"), ("ids", "<i8", "(2,)")],
            &ids,
            "`x` and `ids` both are the model's first input, `ids`",
        );
        check(
            &[("x", "<i8", "(2,)")],
            &[input("s", "string", &[None])],
            "the model's input `s` takes string, which cannot be fed",
        );
        check(&[("a", "<f4", "(2, 3)"), ("b", "<f4", "(3, 2)")], &[], "`b` has 3 samples (shape [3, 2]), `a` has 2");
        check(&[("x", "<f4", "()")], &[], "`x` is a single number, not samples");
        check(&[("x", "<f4", "(0, 8)")], &[], "`x` has shape [0, 8]: no samples");
        check(&[("y", "<i8", "(2,)")], &[], "it has no `x`, nor any other array to feed the model");
        check(
            &[("x", "<f4", "(2,)"), ("y", "<i8", "()")],
            &[],
            "the labels `y` have shape [], expected [2, …]: one right answer for each sample of `x`",
        );
        check(
            &[("x", "<f4", "(2,)"), ("y", "<i8", "(3,)")],
            &[],
            "the labels `y` have shape [3], expected [2, …]: one right answer for each sample of `x`",
        );
        check(&[("x", "<f4", "(2,)"), ("y", "<f4", "(2, 0)")], &[], "the labels `y` have shape [2, 0]: there are none");
    }

    #[test]
    fn labels_of_any_integer_type() {
        for (descr, value, expected) in [("|u1", &[9][..], 9), ("|i1", &[0xfe], -2), ("<u4", &[1, 1, 0, 0], 257)] {
            let file = npz(&[("x", &dict("<f4", "(1,)"), &[0; 4]), ("y", &dict(descr, "(1,)"), value)]);
            assert_eq!(parse(&file, None).unwrap().truth, Some(Truth::of_labels(&[expected])), "{descr}");
        }
        let file = npz(&[("x", &dict("<f4", "(1,)"), &[0; 4]), ("y", &dict("<u8", "(1,)"), &[0xff; 8])]);
        assert_eq!(parse(&file, None).unwrap_err().to_string(), "`y` holds a number beyond int64");
    }

    #[test]
    fn the_file_is_named() {
        let missing = read("eval set", Path::new("no/such.npz"), None).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the eval set `no/such.npz`");
        let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/make_npz.py"));
        let wrong = format!("{:#}", read("eval set", script, None).unwrap_err());
        assert!(
            wrong.ends_with(
                "make_npz.py` cannot be used: it is no `.npz` file, or was cut off: it has no zip directory at its end"
            ),
            "{wrong}"
        );
    }
}
