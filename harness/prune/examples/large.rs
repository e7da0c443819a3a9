//! Prunes a synthetic model of a given size as `cargo xtask prune` does (read, prune, write), and prints the time of
//! each step and the memory of all.
//!
//! ```text
//! cargo run -p espalier-prune --example large -- resnet50 | bert-large | MEGABYTES [UNIT] [FOLDER]
//! ```
//! Another process writes the file first, so that the peak is that of pruning alone. Beyond 2 GiB the weights are in a
//! second file. Linux only: memory is `VmHWM`.

use std::{
    env, fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use espalier_prune::{Bytes, Method, Recipe, Scope, Unit, file, onnx::*, prune};
use prost::Message;

/// `[outputs, inputs]` of each layer, one matrix product after the other.
fn layers(size: &str) -> Vec<[usize; 2]> {
    match size {
        "resnet50" => vec![[1024, 1024]; 25],
        // Query, key, value, output; up and down: 24 times. A third of the real file is embeddings and the like; here
        // it is weights.
        "bert-large" => {
            let layer = [[1024, 1024], [1024, 1024], [1024, 1024], [1024, 1024], [4096, 1024], [1024, 4096]];
            let mut layers: Vec<[usize; 2]> = layer.repeat(24);
            layers.extend([[1024, 1024]; 32]);
            layers
        }
        megabytes => {
            let megabytes: usize = megabytes.parse().expect("resnet50, bert-large or a number of megabytes");
            vec![[1024, 1024]; megabytes.div_ceil(4)]
        }
    }
}

fn write_model(layers: &[[usize; 2]], path: &Path) {
    let data_path = path.with_extension("onnx.data");
    let mut data = BufWriter::new(fs::File::create(&data_path).expect("the folder can be written to"));
    let (mut tensors, mut nodes, mut offset) = (Vec::new(), Vec::new(), 0);
    // A linear congruential sequence: no two layers are alike, and all runs are.
    let mut state = 1u32;
    for (index, [outputs, inputs]) in layers.iter().enumerate() {
        for _ in 0..outputs * inputs {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            data.write_all(&(state as i32 as f32 * 1e-10).to_le_bytes()).expect("there is room on the disk");
        }
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        let length = 4 * outputs * inputs;
        tensors.push(TensorProto {
            name: Some(format!("w{index}")),
            dims: vec![*inputs as i64, *outputs as i64],
            data_type: Some(tensor_proto::DataType::Float as i32),
            data_location: Some(tensor_proto::DataLocation::External as i32),
            external_data: vec![
                entry("location", data_path.file_name().unwrap_or_default().to_string_lossy().into_owned()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            ..TensorProto::default()
        });
        offset += length;
        nodes.push(NodeProto {
            op_type: Some("MatMul".into()),
            input: vec![format!("x{index}"), format!("w{index}")],
            output: vec![format!("x{}", index + 1)],
            ..NodeProto::default()
        });
    }
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    let graph = GraphProto { name: Some("large".into()), initializer: tensors, node: nodes, ..GraphProto::default() };
    let model =
        ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    data.flush().expect("there is room on the disk");
    fs::write(path, model.encode_to_vec()).expect("the folder can be written to");
    if offset < 2_000_000_000 {
        // Small enough for one file, as torch would write it.
        let whole = file::read(path).expect("it was just written");
        fs::write(path, whole).expect("there is room on the disk");
        fs::remove_file(data_path).ok();
    }
}

fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let size = arguments.first().map_or("resnet50", String::as_str);
    if let (Some(path), Some(size)) = (env::var_os("ESPALIER_LARGE_WRITE"), arguments.first()) {
        write_model(&layers(size), &PathBuf::from(path));
        return;
    }
    let unit: Unit = arguments.get(1).map_or("weight", String::as_str).parse().expect("a unit");
    let folder = arguments.get(2).map_or_else(env::temp_dir, PathBuf::from).join("espalier-large");
    fs::create_dir_all(&folder).expect("a folder to write to");
    let (dense, output) = (folder.join("dense.onnx"), folder.join("pruned.onnx"));
    let myself = env::current_exe().expect("a program knows where it is");
    let wrote = Command::new(myself).arg(size).env("ESPALIER_LARGE_WRITE", &dense).status();
    assert!(wrote.is_ok_and(|status| status.success()), "the model was not written");
    let data = fs::metadata(folder.join("dense.onnx.data")).map_or(0, |metadata| metadata.len());
    let bytes = fs::metadata(&dense).map_or(0, |metadata| metadata.len()) + data;

    let start = Instant::now();
    let model: Bytes = file::read(&dense).expect("it was just written");
    let read = start.elapsed();
    let ratio = if let Unit::NOfM { keep, of } = unit { 1.0 - f64::from(keep) / f64::from(of) } else { 0.9 };
    let pruned = prune(&model, &Recipe::new(Method::Magnitude, Scope::Global, unit, ratio), None).expect("it can be");
    let removed = start.elapsed();
    file::write(&output, &pruned.bytes).expect("there is room on the disk");
    let all = start.elapsed();
    let manifest = pruned.manifest;
    assert_eq!(manifest.removed_units, (ratio * manifest.units as f64).round() as u64);
    println!(
        "{size}, {unit}: {:.1} MB, {} of {} units removed; read {read:.2?}, prune {:.2?}, write {:.2?}, all {all:.2?}; \
         peak {:.2} x file",
        bytes as f64 / 1e6,
        manifest.removed_units,
        manifest.units,
        removed - read,
        all - removed,
        peak() as f64 / bytes as f64,
    );
    fs::remove_dir_all(&folder).ok();
}
