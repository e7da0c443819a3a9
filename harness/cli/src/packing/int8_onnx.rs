//! Weight-only int8 in plain ONNX: each weight becomes an int8 initialiser, with one scale for each output channel, and
//! a DequantizeLinear that gives out what the weight was called. Any engine loads that; it is a quarter of the size and
//! computes in f32 as before.

use std::collections::HashSet;

use anyhow::{Result, bail, ensure};
use espalier_prune::{
    Bytes,
    layout::Direction,
    onnx::{
        AttributeProto, GraphProto, Model, NodeProto, TensorProto, attribute_proto::AttributeType,
        tensor_proto::DataType,
    },
    prunable::{Place, Weight},
    survey,
    tensor::Values,
};
use espalier_weights::int8_value;

/// The first with a scale for each channel in DequantizeLinear.
const OPSET: i64 = 13;

pub struct Quantised {
    pub file: Bytes,
    /// How many weights are int8 now.
    pub weights: usize,
    /// Those that are not, and why.
    pub left: Vec<(String, &'static str)>,
}

pub fn quantise(file: &Bytes) -> Result<Quantised> {
    let mut model = Model::decode(file)?;
    let opset = model.proto.opset_import.iter().find(|set| matches!(set.domain(), "" | "ai.onnx"));
    let opset = opset.map_or(0, |set| set.version());
    ensure!(
        opset >= OPSET,
        "weights of int8 with a scale for each channel need operator set {OPSET}, the model has {opset}; export it \
         anew, or pack it"
    );
    let survey = survey(&model)?;
    let mut names = names(model.graph());
    let (mut nodes, mut left, mut scales) = (Vec::new(), Vec::new(), Vec::new());
    for weight in &survey.weights {
        match replaced(&model, weight, &mut names)? {
            Ok(replaced) => {
                scales.push(replaced.scales);
                nodes.push(replaced.node);
                *weight.place.tensor_mut(model.graph_mut()) = replaced.codes;
            }
            Err(why) => left.push((weight.name.clone(), why)),
        }
    }
    let count = nodes.len();
    let graph = model.graph_mut();
    graph.initializer.append(&mut scales);
    // Older files list their initialisers as inputs too; what a node computes is none.
    let computed: HashSet<&str> = nodes.iter().flat_map(|node: &NodeProto| &node.output).map(String::as_str).collect();
    graph.input.retain(|input| !computed.contains(input.name()));
    nodes.append(&mut graph.node);
    graph.node = nodes;
    Ok(Quantised { file: if count == 0 { file.clone() } else { model.encode() }, weights: count, left })
}

struct Replaced {
    codes: TensorProto,
    scales: TensorProto,
    node: NodeProto,
}

/// Or why the weight stays as it is.
fn replaced(model: &Model, weight: &Weight, names: &mut HashSet<String>) -> Result<Result<Replaced, &'static str>> {
    if !matches!(weight.place, Place::Initializer(_)) {
        return Ok(Err("it is the constant of a node, not an initialiser"));
    }
    let Some(axis) = weight.layout.as_ref().and_then(|layout| layout.axis(Direction::Output)) else {
        return Ok(Err("it has no axis of output channels"));
    };
    if weight.count == 0 {
        return Ok(Err("it is empty"));
    }
    let tensor = weight.place.tensor(model.graph());
    let mut values = Vec::with_capacity(weight.count as usize);
    Values::of(&weight.name, tensor)?.for_each(|value| values.push(value));
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        bail!("tensor `{}`: value {index} is {}, which int8 cannot hold", weight.name, values[index]);
    }
    let channels = weight.shape[axis] as usize;
    let inner: usize = weight.shape[axis + 1..].iter().map(|length| *length as usize).product();
    let channel = |cell: usize| cell / inner % channels;
    let mut scales = vec![0.0f32; channels];
    for (cell, value) in values.iter().enumerate() {
        scales[channel(cell)] = scales[channel(cell)].max(value.abs());
    }
    scales.iter_mut().for_each(|scale| *scale /= 127.0);
    let codes: Vec<u8> =
        values.iter().enumerate().map(|(cell, value)| int8_value(*value, scales[channel(cell)]) as u8).collect();

    let (codes_name, scales_name) = (fresh(names, &weight.name, "int8"), fresh(names, &weight.name, "scale"));
    // An engine may divide by it; a channel of zeros stays zero with any scale.
    scales.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
    let raw: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let node = NodeProto {
        input: vec![codes_name.clone(), scales_name.clone()],
        output: vec![weight.name.clone()],
        name: Some(fresh(names, &weight.name, "dequantise")),
        op_type: Some("DequantizeLinear".to_owned()),
        attribute: vec![AttributeProto {
            name: Some("axis".to_owned()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(axis as i64),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    };
    let initializer = |name: String, dims: Vec<i64>, dtype: DataType, raw: Vec<u8>| TensorProto {
        name: Some(name),
        dims,
        data_type: Some(dtype as i32),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    };
    Ok(Ok(Replaced {
        codes: initializer(codes_name, tensor.dims.clone(), DataType::Int8, codes),
        scales: initializer(scales_name, vec![channels as i64], DataType::Float, raw),
        node,
    }))
}

/// Every name a value or a node of the graph has.
fn names(graph: &GraphProto) -> HashSet<String> {
    let nodes = graph.node.iter().flat_map(|node| node.output.iter().chain(&node.name));
    let tensors = graph.initializer.iter().map(|tensor| tensor.name());
    let inputs = graph.input.iter().map(|input| input.name());
    nodes.map(String::as_str).chain(tensors).chain(inputs).map(str::to_owned).collect()
}

fn fresh(names: &mut HashSet<String>, name: &str, what: &str) -> String {
    let mut fresh = format!("{name}.{what}");
    while !names.insert(fresh.clone()) {
        fresh.push('_');
    }
    fresh
}
