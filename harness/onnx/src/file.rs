//! Models on disk, and the only file I/O of this crate.
//!
//! A model may keep its weights in files beside it (ONNX's external data). Reading brings them in, so that everything
//! else works on one self-contained file, which can be pushed and named by its hash. Writing moves weights out only
//! where one file cannot hold them: Google's protobuf, and with it most engines, refuses 2 GiB.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    GraphProto, Model, NodeProto, OnnxError, SparseTensorProto, StringStringEntryProto, TensorProto,
    tensor::external_location, tensor_proto::DataLocation,
};

/// Protobuf's limit on one message, in bytes.
const ONE_FILE: u64 = (2 << 30) - 1;

/// Offsets in a data file are multiples of this, so that engines can map tensors into memory.
const ALIGNMENT: usize = 4096;

/// Smaller tensors stay in the model: shapes are needed to load it.
const MIN_EXTERNAL: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {verb} `{}`: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}`: {source}", path.display())]
    Model { path: PathBuf, source: OnnxError },
    #[error("`{}`: the data of tensor `{tensor}`: {why}", path.display())]
    ExternalData { path: PathBuf, tensor: String, why: String },
}

/// Reads a model. Without external data these are the file's own bytes, unchanged; with it, a self-contained model.
///
/// # Errors
/// A file that cannot be read, is no model, or names data that is missing, too short or outside the model's folder.
pub fn read(path: &Path) -> Result<Bytes, FileError> {
    let bytes = read_bytes(path)?;
    let model_error = |source| FileError::Model { path: path.to_owned(), source };
    let mut model = Model::decode(&bytes).map_err(model_error)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = HashMap::new();
    let mut changed = false;
    visit_tensors(&mut model, &mut |tensor| {
        let Some(location) = external_location(tensor).map(str::to_owned) else {
            return Ok(());
        };
        let refused =
            |why: String| FileError::ExternalData { path: path.to_owned(), tensor: tensor.name().to_owned(), why };
        let data = match files.get(&location) {
            Some(data) => data,
            None => {
                let found = inside(folder, &location).map_err(refused)?;
                files.entry(location.clone()).or_insert(read_bytes(&found)?)
            }
        };
        let slice = external_slice(tensor, data).map_err(refused)?;
        tensor.raw_data = Some(slice);
        tensor.external_data.clear();
        tensor.data_location = None;
        changed = true;
        Ok(())
    })?;
    Ok(if changed { model.encode() } else { bytes })
}

/// Writes a model, under a temporary name first, so that no reader sees half of it. A model of 2 GiB or more keeps its
/// weights in `<file name>.data` beside it.
///
/// # Errors
/// Where the disk refuses.
pub fn write(path: &Path, model: &Bytes) -> Result<(), FileError> {
    write_below(path, model, ONE_FILE)
}

fn write_below(path: &Path, bytes: &Bytes, limit: u64) -> Result<(), FileError> {
    if bytes.len() as u64 <= limit {
        return write_bytes(path, bytes);
    }
    let mut model = Model::decode(bytes).map_err(|source| FileError::Model { path: path.to_owned(), source })?;
    let data_path = beside(path, ".data");
    let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Written directly to the disk: a copy in memory would be half of the memory that pruning takes.
    let mut data = Unfinished::create(&data_path)?;
    visit_tensors(&mut model, &mut |tensor| {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= MIN_EXTERNAL) else {
            return Ok(());
        };
        let offset = data.written.next_multiple_of(ALIGNMENT);
        data.write(&vec![0; offset - data.written])?;
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.external_data = vec![
            entry("location", location.clone()),
            entry("offset", offset.to_string()),
            entry("length", raw.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation::External as i32);
        data.write(&raw)
    })?;
    data.finish()?;
    write_bytes(path, &model.encode())
}

/// A file being written under a temporary name, removed again if it is not finished. A device or a pipe
/// (`/dev/null`) is written to directly: renaming would replace it by a file.
struct Unfinished<'a> {
    path: &'a Path,
    part: Option<PathBuf>,
    file: fs::File,
    written: usize,
    finished: bool,
}

impl<'a> Unfinished<'a> {
    fn create(path: &'a Path) -> Result<Unfinished<'a>, FileError> {
        let is_special = fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir());
        let part = (!is_special).then(|| beside(path, ".part"));
        let file = fs::File::create(part.as_deref().unwrap_or(path)).map_err(|source| FileError::Io {
            verb: "write",
            path: path.to_owned(),
            source,
        })?;
        Ok(Unfinished { path, part, file, written: 0, finished: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.written += bytes.len();
        self.file.write_all(bytes).map_err(|source| self.error(source))
    }

    fn finish(mut self) -> Result<(), FileError> {
        if let Some(part) = &self.part {
            fs::rename(part, self.path).map_err(|source| self.error(source))?;
        }
        self.finished = true;
        Ok(())
    }

    fn error(&self, source: io::Error) -> FileError {
        FileError::Io { verb: "write", path: self.path.to_owned(), source }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(part) = self.part.as_ref().filter(|_| !self.finished) {
            // The remains are useless; the error that counts is the first.
            fs::remove_file(part).ok();
        }
    }
}

/// Calls `f` with every tensor of a model, those in attributes and subgraphs included.
fn visit_tensors(
    model: &mut Model,
    f: &mut dyn FnMut(&mut TensorProto) -> Result<(), FileError>,
) -> Result<(), FileError> {
    for function in &mut model.proto.functions {
        visit_nodes(&mut function.node, f)?;
    }
    visit_graph(model.graph_mut(), f)
}

fn visit_graph(
    graph: &mut GraphProto,
    f: &mut dyn FnMut(&mut TensorProto) -> Result<(), FileError>,
) -> Result<(), FileError> {
    graph.initializer.iter_mut().try_for_each(&mut *f)?;
    graph.sparse_initializer.iter_mut().try_for_each(|sparse| visit_sparse(sparse, f))?;
    visit_nodes(&mut graph.node, f)
}

fn visit_sparse(
    sparse: &mut SparseTensorProto,
    f: &mut dyn FnMut(&mut TensorProto) -> Result<(), FileError>,
) -> Result<(), FileError> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(f)
}

fn visit_nodes(
    nodes: &mut [NodeProto],
    f: &mut dyn FnMut(&mut TensorProto) -> Result<(), FileError>,
) -> Result<(), FileError> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *f)?;
        let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        sparse.into_iter().try_for_each(|sparse| visit_sparse(sparse, f))?;
        attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| visit_graph(graph, f))?;
    }
    Ok(())
}

/// The part of a data file that holds a tensor.
fn external_slice(tensor: &TensorProto, data: &Bytes) -> Result<Bytes, String> {
    let number = |key: &str| match tensor.external_data.iter().find(|entry| entry.key() == key) {
        Some(entry) => entry
            .value()
            .parse::<usize>()
            .map(Some)
            .map_err(|_| format!("its {key} is `{}`, not a number", entry.value())),
        None => Ok(None),
    };
    let offset = number("offset")?.unwrap_or(0);
    let end = match number("length")? {
        Some(length) => offset.checked_add(length),
        None => Some(data.len()),
    };
    end.filter(|end| offset <= *end && *end <= data.len())
        .map(|end| data.slice(offset..end))
        .ok_or_else(|| format!("it lies beyond the end of the data file ({} bytes)", data.len()))
}

/// A model is untrusted input: it may name no file outside its folder, neither by `..` nor through a link.
fn inside(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let relative = Path::new(location);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !plain {
        return Err(format!("`{location}` is not a path inside the model's folder"));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let resolve =
        |path: &Path| path.canonicalize().map_err(|error| format!("cannot find `{}`: {error}", path.display()));
    let (folder, found) = (resolve(folder)?, resolve(&folder.join(relative))?);
    if !found.starts_with(folder) || !found.is_file() {
        return Err(format!("`{location}` is not a file inside the model's folder"));
    }
    Ok(found)
}

fn read_bytes(path: &Path) -> Result<Bytes, FileError> {
    let bytes = fs::read(path).map_err(|source| FileError::Io { verb: "read", path: path.to_owned(), source })?;
    Ok(bytes.into())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = Unfinished::create(path)?;
    file.write(bytes)?;
    file.finish()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{ModelProto, OperatorSetIdProto};

    fn model(values: &[f32]) -> Bytes {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = TensorProto {
            name: Some("w".into()),
            dims: vec![values.len() as i64],
            data_type: Some(1),
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        let opset_import = vec![OperatorSetIdProto::default()];
        let proto = ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..ModelProto::default() };
        proto.encode_to_vec().into()
    }

    #[test]
    fn what_one_file_cannot_hold_comes_back_from_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let values: Vec<f32> = (0..2000).map(|index| index as f32).collect();
        let dense = model(&values);
        write_below(&path, &dense, 1000).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 1000);
        assert_eq!(fs::metadata(folder.path().join("model.onnx.data")).unwrap().len(), 8000);
        assert_eq!(read(&path).unwrap(), dense);

        write(&path, &dense).unwrap();
        assert_eq!(fs::read(&path).unwrap(), dense);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    /// A model whose tensor `w` has external data.
    #[track_caller]
    fn check_external(entries: &[(&str, &str)], expected: &str) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("models");
        fs::create_dir(&folder).unwrap();
        fs::write(outer.path().join("secret"), [0; 8]).unwrap();
        fs::write(folder.join("data"), [0; 8]).unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        let mut decoded = Model::decode(&model(&[1.0, 2.0])).unwrap();
        let tensor = &mut decoded.graph_mut().initializer[0];
        tensor.raw_data = None;
        tensor.data_location = Some(DataLocation::External as i32);
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: Some((*key).to_owned()),
            value: Some((*value).to_owned()),
        };
        tensor.external_data = entries.iter().map(entry).collect();
        let path = folder.join("model.onnx");
        fs::write(&path, decoded.encode()).unwrap();
        match read(&path) {
            Ok(bytes) => assert_eq!((bytes, "read"), (model(&[0.0, 0.0]), expected)),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }

    #[test]
    fn external_data_stays_in_the_models_folder_and_within_the_file() {
        check_external(&[("location", "data")], "read");
        check_external(&[("location", "./data"), ("offset", "0"), ("length", "8")], "read");
        check_external(&[("location", "../secret")], "is not a path inside the model's folder");
        check_external(&[("location", "/etc/passwd")], "is not a path inside the model's folder");
        check_external(&[("location", "link")], "is not a file inside the model's folder");
        check_external(&[], "is not a path inside the model's folder");
        check_external(&[("location", "missing")], "cannot find");
        check_external(&[("location", "data"), ("offset", "4"), ("length", "8")], "beyond the end");
        check_external(&[("location", "data"), ("offset", "18446744073709551615"), ("length", "8")], "beyond the end");
        check_external(&[("location", "data"), ("offset", "-1")], "`-1`, not a number");
    }
}
