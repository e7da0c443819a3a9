//! Models whose weights stay in their ONNX file or pack until a layer uses them.
//!
//! The engine gets only the graph, a few hundred kilobytes, in which weights are inputs with their names. So a weight
//! is in memory once, in the form of its kernel, and a packed one only becomes dense where tract itself uses it.
//! Operators that need the values of their constants get them in the graph.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anyhow::{Context, Result, bail, ensure};
use espalier_accelerate::{ReadWeight, Weight, Weights};
use espalier_weights::{
    Form, Index,
    pack::{MAGIC, Pack, is_pack},
    protobuf::{self, Field, Value},
    source::Source,
};
use tract_onnx::{pb, prelude::*, tract_hir::ops::konst::Const};

/// Smaller weights (in bytes) stay in the graph.
const WORTH_LEAVING: u64 = 4096;

pub struct Model {
    pub graph: InferenceModel,
    /// Weights that are not in the graph.
    pub weights: Weights,
    names: Vec<String>,
}

/// Opens a pack; `None` for any other file.
///
/// # Errors
/// A pack that is damaged.
pub fn pack(path: &str) -> Result<Option<Pack<'static>>> {
    let mut start = [0; MAGIC.len()];
    // The engine reports a folder, or a missing file.
    let Ok(file) = File::open(path) else { return Ok(None) };
    if file.read_at(0, &mut start).is_err() || !is_pack(&start) {
        return Ok(None);
    }
    Ok(Some(Pack::read(Arc::new(file))?))
}

/// Reads an ONNX file and leaves its large weights in it.
///
/// # Errors
/// A file that cannot be read, or is no model.
pub fn file(path: &str) -> Result<Model> {
    // On any error tract reads the whole file, and reports the error itself.
    let left_out = File::open(path).map_err(anyhow::Error::from).and_then(|file| of_onnx(Arc::new(file), path));
    left_out.or_else(|_| by_tract(path))
}

/// Reads an ONNX file with tract, with its weights in the graph.
pub fn by_tract(path: &str) -> Result<Model> {
    Ok(Model::of_graph(onnx().model_for_path(path)?))
}

/// Without the file's value infos: they have open dimensions, which would contradict the concrete ones.
pub fn onnx() -> tract_onnx::Onnx {
    tract_onnx::onnx().with_ignore_value_info(true)
}

impl Model {
    pub fn of_graph(graph: InferenceModel) -> Model {
        Model { graph, weights: Weights::default(), names: Vec::new() }
    }

    /// The typed model, and the weights that are still not in it.
    ///
    /// # Errors
    /// Those of tract, and a weight that cannot be read.
    pub fn into_typed(self) -> Result<(TypedModel, Weights)> {
        if self.names.is_empty() {
            return Ok((self.graph.into_typed()?, self.weights));
        }
        match self.graph.clone().into_typed() {
            Ok(typed) => Ok((typed, self.weights)),
            Err(_) => Ok((self.filled()?.into_typed()?, Weights::default())),
        }
    }

    fn filled(mut self) -> Result<InferenceModel> {
        for name in &self.names {
            let id = self.graph.node_id_by_name(name)?;
            let weight = self.weights.named(name)?.context("a weight is not there")?.into_dense()?;
            let node = self.graph.node_mut(id);
            node.outputs[0].fact = InferenceFact::from(TypedFact::try_from(&weight)?);
            node.op = Box::new(Const::new(weight)?);
        }
        self.weights.forget();
        Ok(self.graph)
    }
}

/// Dense tensors of a pack that several of its ratios share, while any of them uses them.
pub type InCommon = Arc<Mutex<HashMap<u64, Weak<Tensor>>>>;

/// Reads one ratio of a pack and leaves its weights packed.
///
/// # Errors
/// A pack of a file that is no model.
pub fn unpacked(pack: Pack<'static>, in_common: &InCommon) -> Result<Model> {
    let graph = pack.without_tensors()?;
    let pack = Arc::new(pack);
    let stored = pack.tensors().iter().enumerate().map(|(index, tensor)| {
        let shape: Vec<usize> = tensor.shape.iter().map(|axis| *axis as usize).collect();
        let (pack, of_weight, in_common) = (Arc::clone(&pack), shape.clone(), Arc::clone(in_common));
        let read = move || packed_weight(&pack, index, &of_weight, &in_common);
        (tensor.name.clone(), (shape, Box::new(read) as ReadWeight))
    });
    parse(&graph, None, stored.collect())
}

fn packed_weight(pack: &Pack, index: usize, shape: &[usize], in_common: &InCommon) -> TractResult<Weight> {
    let identity = pack.identity(index);
    let known = |in_common: &InCommon| {
        let in_common = in_common.lock().unwrap_or_else(PoisonError::into_inner);
        in_common.get(&identity?).and_then(Weak::upgrade)
    };
    if let Some(tensor) = known(in_common) {
        return Ok(Weight::Dense(tensor));
    }
    let tensor = if pack.tensors()[index].form == Form::DENSE {
        // SAFETY: all bytes are valid numbers. They are overwritten below, or this fails and they are dropped.
        let mut tensor = unsafe { Tensor::uninitialized::<f32>(shape)? };
        ensure!(pack.dense_tensor(index, tensor.as_bytes_mut())?, "its size does not match its shape");
        tensor.into_arc_tensor()
    } else {
        let matrix = pack.tensor(index)?;
        if matrix.index != Index::Dense {
            return Ok(Weight::Sparse { matrix: Arc::new(matrix), shape: shape.into() });
        }
        Tensor::from_shape(shape, &matrix.values)?.into_arc_tensor()
    };
    if let Some(identity) = identity {
        in_common.lock().unwrap_or_else(PoisonError::into_inner).insert(identity, Arc::downgrade(&tensor));
    }
    Ok(Weight::Dense(tensor))
}

fn of_onnx(file: Arc<File>, path: &str) -> Result<Model> {
    let tensors = large_tensors(&*file).map_err(anyhow::Error::msg)?;
    let cuts: Vec<Range<u64>> = tensors.iter().map(|tensor| tensor.bytes.clone()).collect();
    let graph = protobuf::without(&*file, &cuts).map_err(anyhow::Error::msg)?;
    let stored = tensors.into_iter().map(|LargeTensor { name, shape, bytes }| {
        let (file, of_weight) = (Arc::clone(&file), shape.clone());
        let read = move || -> TractResult<Weight> {
            // SAFETY: all bytes are valid numbers. They are overwritten below, or this fails and they are dropped.
            let mut tensor = unsafe { Tensor::uninitialized::<f32>(&of_weight)? };
            file.read_at(bytes.start, tensor.as_bytes_mut())?;
            Ok(Weight::Dense(tensor.into_arc_tensor()))
        };
        (name, (shape, Box::new(read) as ReadWeight))
    });
    let folder = Path::new(path).parent().and_then(Path::to_str);
    parse(&graph, folder, stored.collect())
}

struct LargeTensor {
    name: String,
    shape: Vec<usize>,
    bytes: Range<u64>,
}

/// The constants of the graph that can stay in the file, in the order of the file: f32 as raw bytes with more than one
/// axis.
fn large_tensors(file: &dyn Source) -> Result<Vec<LargeTensor>, String> {
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    let mut tensors = Vec::new();
    for graph in messages(file, 0..file.length(), GRAPH)? {
        for tensor in messages(file, graph, INITIALIZER)? {
            tensors.extend(large_tensor(file, tensor)?);
        }
    }
    Ok(tensors)
}

fn large_tensor(file: &dyn Source, message: Range<u64>) -> Result<Option<LargeTensor>, String> {
    const FLOAT: u64 = 1;
    let read = |range: Range<u64>| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_at(range.start, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    };
    let (mut name, mut shape, mut raw, mut dtype, mut complete) = (None, Vec::new(), None, 0, true);
    for field in fields(file, message)? {
        match (field.number, field.value) {
            (1, Value::Number(axis)) => shape.push(axis),
            (1, Value::Bytes(axes)) => {
                // Packed: one number after another. A shape has only a few.
                if axes.end - axes.start > 256 {
                    return Ok(None);
                }
                let bytes = read(axes)?;
                let mut left = &bytes[..];
                while !left.is_empty() {
                    shape.push(protobuf::varint(&mut left)?);
                }
            }
            (2, Value::Number(number)) => dtype = number,
            (8, Value::Bytes(text)) if text.end - text.start <= 4096 => {
                name = String::from_utf8(read(text)?).ok();
            }
            (9, Value::Bytes(bytes)) => raw = Some(bytes),
            (3 | 13, _) => complete = false,
            _ => {}
        }
    }
    let (Some(name), Some(bytes)) = (name, raw) else { return Ok(None) };
    let count = shape.iter().try_fold(4u64, |product, axis| product.checked_mul(*axis));
    let fits = complete && dtype == FLOAT && shape.len() > 1 && count == Some(bytes.end - bytes.start);
    let is_large = fits && bytes.end - bytes.start >= WORTH_LEAVING;
    let shape = shape.into_iter().map(|axis| axis as usize).collect();
    Ok(is_large.then_some(LargeTensor { name, shape, bytes }))
}

fn fields(file: &dyn Source, message: Range<u64>) -> Result<Vec<Field>, String> {
    let (mut fields, mut at) = (Vec::new(), message.start);
    while at < message.end {
        let field = protobuf::field(file, at..message.end)?;
        at = field.whole.end;
        fields.push(field);
    }
    Ok(fields)
}

fn messages(file: &dyn Source, message: Range<u64>, number: u64) -> Result<Vec<Range<u64>>, String> {
    let of_number = fields(file, message)?.into_iter().filter(|field| field.number == number);
    let bytes = |field: Field| match field.value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    };
    Ok(of_number.filter_map(bytes).collect())
}

/// Parses the graph in `file`, which lacks the values of the weights in `stored`. Some of them stay out of the graph,
/// the others are put into it.
fn parse(file: &[u8], folder: Option<&str>, mut stored: HashMap<String, (Vec<usize>, ReadWeight)>) -> Result<Model> {
    let mut proto = onnx().proto_model_for_read(&mut &*file)?;
    let graph = proto.graph.as_mut().context("it holds no graph")?;
    let left_out = can_be_left_out(graph, &stored);
    let mut found = 0;
    // Whether the tensor stays in the graph; then it gets its values.
    let mut keep = |name: &str, tensor: &mut pb::TensorProto| -> Result<bool> {
        let Some((_, read)) = stored.get(name) else { return Ok(true) };
        found += 1;
        if left_out.contains(name) {
            return Ok(false);
        }
        tensor.raw_data = read()?.into_dense()?.as_bytes().to_vec();
        Ok(true)
    };
    let mut initializers = Vec::new();
    for mut tensor in std::mem::take(&mut graph.initializer) {
        let name = tensor.name.clone();
        if keep(&name, &mut tensor)? {
            initializers.push(tensor);
        }
    }
    graph.initializer = initializers;
    let mut nodes = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        let name = node.output.first().filter(|_| node.op_type == "Constant").cloned();
        let kept = match name.zip(constant(&mut node)) {
            Some((name, tensor)) => keep(&name, tensor)?,
            None => true,
        };
        if kept {
            nodes.push(node);
        }
    }
    graph.node = nodes;
    ensure!(found == stored.len(), "it has {} weights, of which the graph has {found}", stored.len());
    stored.retain(|name, _| left_out.contains(name));
    // Older files list constants among the inputs as well.
    graph.input.retain(|input| !stored.contains_key(&input.name));
    let parsed = onnx().parse(&proto, folder)?;
    drop(proto);
    let mut model = parsed.model;
    let mut names = Vec::new();
    for name in parsed.unresolved_inputs {
        let Some((shape, _)) = stored.get(&name) else { bail!("`{name}` is used but defined nowhere") };
        let outlet = parsed.outlets_by_name[&name];
        model.set_outlet_fact(outlet, InferenceFact::dt_shape(DatumType::F32, shape))?;
        model.inputs.retain(|input| *input != outlet);
        names.push(name);
    }
    let weights = Weights::new(stored.into_iter().map(|(name, (_, stored))| (name, stored)).collect());
    Ok(Model { graph: model, weights, names })
}

/// The names of large weights of which only type and shape are needed before a layer is replaced: weights of
/// convolutions and products, perhaps transposed, and lookup tables. Other operators may need the values of constants
/// to infer types.
fn can_be_left_out(graph: &pb::GraphProto, stored: &HashMap<String, (Vec<usize>, ReadWeight)>) -> HashSet<String> {
    // Uses within subgraphs are not found here.
    if graph.node.iter().flat_map(|node| &node.attribute).any(|attribute| attribute.g.is_some()) {
        return HashSet::new();
    }
    let mut uses: HashMap<&str, Vec<(&pb::NodeProto, usize)>> = HashMap::new();
    for node in &graph.node {
        for (place, input) in node.input.iter().enumerate() {
            uses.entry(input).or_default().push((node, place));
        }
    }
    let uses = |name: &str| uses.get(name).map(Vec::as_slice).unwrap_or_default();
    let takes = |(node, place): &(&pb::NodeProto, usize)| {
        matches!((&*node.op_type, place), ("Conv", 1) | ("MatMul" | "Gemm", 0 | 1))
    };
    let fits = |use_: &(&pb::NodeProto, usize)| match (&*use_.0.op_type, use_.1) {
        ("Gather", 0) => true,
        ("Transpose", 0) => use_.0.output.iter().all(|output| uses(output).iter().all(takes)),
        _ => takes(use_),
    };
    let is_output = |name: &str| graph.output.iter().any(|output| output.name == name);
    let is_large = |shape: &[usize]| shape.len() > 1 && 4 * shape.iter().product::<usize>() as u64 >= WORTH_LEAVING;
    let names = stored.iter().filter(|(name, (shape, _))| is_large(shape) && !is_output(name));
    names.map(|(name, _)| name.clone()).filter(|name| uses(name).iter().all(fits)).collect()
}

fn constant(node: &mut pb::NodeProto) -> Option<&mut pb::TensorProto> {
    node.attribute.iter_mut().find(|attribute| attribute.name == "value")?.t.as_mut()
}
