//! A graph, node by node, in the patterns and with the names of PyTorch's exporter: users' models look like that.

use std::collections::HashMap;

use espalier_onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use crate::{
    blueprint::Blueprint,
    weights::{Tensor, Values, deviation},
};

/// The name of a value.
pub type Value = String;

pub struct Graph {
    graph: GraphProto,
    tensors: Vec<Tensor>,
    /// How often each node name was used.
    taken: HashMap<String, usize>,
}

/// A convolution, without its weights.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    pub pads: [usize; 2],
    pub groups: usize,
}

impl Convolution {
    /// 1 by 1.
    pub fn point(inputs: usize, outputs: usize) -> Convolution {
        Convolution { inputs, outputs, kernel: [1, 1], stride: 1, pads: [0, 0], groups: 1 }
    }

    /// Square, and padded so that at stride 1 the size stays.
    pub fn square(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Convolution {
        Convolution { kernel: [kernel; 2], stride, pads: [kernel / 2; 2], ..Convolution::point(inputs, outputs) }
    }

    /// 3 by 3, each channel alone.
    pub fn depthwise(channels: usize, stride: usize) -> Convolution {
        Convolution { groups: channels, ..Convolution::square(channels, channels, 3, stride) }
    }
}

/// How the weights of a layer are drawn. The gain is the variance of the output divided by that of the input.
#[derive(Clone, Copy, Debug)]
pub enum Gain {
    Plain(f64),
    /// Behind a ReLU: each output's weights add up to 0, see [`Values::Level`].
    Centred(f64),
    /// One channel alone, behind a ReLU: all outputs' weights add up to 1, so that no channel dies and the next layer
    /// can leave out what all have in common.
    Blur(f64),
}

impl Gain {
    fn values(self, inputs: usize) -> Values {
        match self {
            Gain::Plain(gain) => Values::Normal { mean: 0.0, deviation: deviation(gain, inputs) },
            Gain::Centred(gain) => Values::Level { mean: 0.0, deviation: deviation(gain, inputs) },
            Gain::Blur(gain) => Values::Level { mean: 1.0 / inputs as f32, deviation: deviation(gain, inputs) },
        }
    }
}

/// The deviation of biases: not zero, so that a missing one is noticed, and small, because they add the same to every
/// input.
const BIAS: f32 = 0.05;

impl Graph {
    pub fn new(name: &'static str) -> Graph {
        Graph {
            graph: GraphProto { name: Some(name.to_owned()), ..GraphProto::default() },
            tensors: Vec::new(),
            taken: HashMap::new(),
        }
    }

    pub fn input(&mut self, name: &str, data_type: DataType, dims: &[usize]) -> Value {
        self.graph.input.push(port(name, data_type, dims));
        name.to_owned()
    }

    /// The finished graph, whose only output is `value` under the name `logits`.
    pub fn finish(mut self, value: &str, dims: &[usize], about: String) -> Blueprint {
        for name in self.graph.node.iter_mut().flat_map(|node| &mut node.output) {
            if name == value {
                *name = "logits".to_owned();
            }
        }
        self.graph.output.push(port("logits", DataType::Float, dims));
        Blueprint::new(self.graph, self.tensors, about)
    }

    /// A node with one output; `""` among the inputs stands for one that is left out.
    pub fn node(&mut self, scope: &str, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Value {
        let name = self.free_name(scope, op);
        let output = format!("{name}_output_0");
        self.graph.node.push(NodeProto {
            name: Some(name),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attributes,
            ..NodeProto::default()
        });
        output
    }

    /// Another output of the last node.
    pub fn second_output(&mut self) {
        if let Some(node) = self.graph.node.last_mut() {
            let name = format!("{}_output_{}", node.name(), node.output.len());
            node.output.push(name);
        }
    }

    /// Scalars and shapes are in `Constant` nodes, as the exporter writes them.
    pub fn floats(&mut self, scope: &str, dims: &[i64], values: &[f32]) -> Value {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(scope, DataType::Float, dims, raw)
    }

    pub fn ints(&mut self, scope: &str, dims: &[i64], values: &[i64]) -> Value {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(scope, DataType::Int64, dims, raw)
    }

    pub fn tensor(&mut self, name: &str, dims: &[usize], values: Values) -> Value {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), values });
        name.to_owned()
    }

    /// A convolution with the batch normalisation behind it folded in, which leaves a bias.
    pub fn convolution(&mut self, x: &str, scope: &str, of: Convolution, gain: Gain) -> Value {
        let [rows, columns] = of.kernel;
        let inputs = of.inputs / of.groups;
        let dims = [of.outputs, inputs, rows, columns];
        let weight = self.tensor(&format!("{scope}.weight"), &dims, gain.values(inputs * rows * columns));
        let bias = self.bias(&format!("{scope}.bias"), of.outputs);
        let [top, left] = of.pads;
        let attributes = vec![
            ints("dilations", &[1, 1]),
            int("group", of.groups),
            ints("kernel_shape", &of.kernel),
            ints("pads", &[top, left, top, left]),
            ints("strides", &[of.stride, of.stride]),
        ];
        self.node(scope, "Conv", &[x, &weight, &bias], attributes)
    }

    /// A layer on one vector a sample.
    pub fn gemm(&mut self, x: &str, scope: &str, inputs: usize, outputs: usize, gain: Gain) -> Value {
        let weight = self.tensor(&format!("{scope}.weight"), &[outputs, inputs], gain.values(inputs));
        let bias = self.bias(&format!("{scope}.bias"), outputs);
        let attributes = vec![float("alpha", 1.0), float("beta", 1.0), int("transB", 1)];
        self.node(scope, "Gemm", &[x, &weight, &bias], attributes)
    }

    /// A layer on many vectors a sample: the exporter transposes the weight, and adds the bias by a node of its own.
    pub fn linear(&mut self, x: &str, scope: &str, inputs: usize, outputs: usize, gain: Gain) -> Value {
        let values = match gain {
            Gain::Centred(gain) => Values::LevelColumns { deviation: deviation(gain, inputs) },
            _ => gain.values(inputs),
        };
        let weight = self.tensor(&format!("{scope}.weight"), &[inputs, outputs], values);
        let bias = self.bias(&format!("{scope}.bias"), outputs);
        let product = self.node(scope, "MatMul", &[x, &weight], vec![]);
        self.node(scope, "Add", &[&bias, &product], vec![])
    }

    pub fn layer_norm(&mut self, x: &str, scope: &str, width: usize) -> Value {
        let near_one = Values::Normal { mean: 1.0, deviation: BIAS };
        let scale = self.tensor(&format!("{scope}.weight"), &[width], near_one);
        let bias = self.bias(&format!("{scope}.bias"), width);
        let attributes = vec![signed("axis", -1), float("epsilon", 1e-12)];
        self.node(scope, "LayerNormalization", &[x, &scale, &bias], attributes)
    }

    /// A vector of parameters that multiplies nothing.
    pub fn bias(&mut self, name: &str, width: usize) -> Value {
        self.tensor(name, &[width], Values::Normal { mean: 0.0, deviation: BIAS })
    }

    /// The mean of each channel, as a vector a sample.
    pub fn pooled(&mut self, x: &str, scope: &str) -> Value {
        let pooled = self.node(scope, "GlobalAveragePool", &[x], vec![]);
        self.node("", "Flatten", &[&pooled], vec![int("axis", 1)])
    }

    fn constant(&mut self, scope: &str, data_type: DataType, dims: &[i64], raw: Vec<u8>) -> Value {
        let tensor = TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type as i32),
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        };
        let value = AttributeProto { t: Some(tensor), ..attribute("value", AttributeType::Tensor) };
        self.node(scope, "Constant", &[], vec![value])
    }

    /// `/layer1.0/conv1/Conv`, and `_1` behind it for the second of that name.
    fn free_name(&mut self, scope: &str, op: &str) -> String {
        let path = if scope.is_empty() { format!("/{op}") } else { format!("/{scope}/{op}") };
        let taken = self.taken.entry(path.clone()).or_default();
        *taken += 1;
        if *taken == 1 { path } else { format!("{path}_{}", *taken - 1) }
    }
}

pub fn int(name: &str, value: usize) -> AttributeProto {
    signed(name, value as i64)
}

pub fn signed(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: values.iter().map(|value| *value as i64).collect(), ..attribute(name, AttributeType::Ints) }
}

fn attribute(name: &str, of: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(of as i32), ..AttributeProto::default() }
}

fn port(name: &str, data_type: DataType, dims: &[usize]) -> ValueInfoProto {
    let axis =
        |length: &usize| Dimension { value: Some(dimension::Value::DimValue(*length as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(axis).collect() };
    let of = type_proto::Tensor { elem_type: Some(data_type as i32), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(of)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
