//! Nodes, constants and attributes for rewrites. Constants are `Constant` nodes, which work in subgraphs too.

use std::collections::HashSet;

use crate::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

/// Every name that a model uses for a value or a node.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    pub fn of(graph: &GraphProto) -> Names {
        let mut names = Names::default();
        names.add(graph);
        names
    }

    fn add(&mut self, graph: &GraphProto) {
        self.0.extend(graph.input.iter().chain(&graph.output).map(|value| value.name().to_owned()));
        self.0.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
        for node in &graph.node {
            self.0.extend(node.input.iter().chain(&node.output).cloned());
            self.0.insert(node.name().to_owned());
            node.subgraphs().for_each(|graph| self.add(graph));
        }
    }

    fn fresh(&mut self, wish: &str) -> String {
        let candidates = (0..).map(|number| if number == 0 { wish.to_owned() } else { format!("{wish}.{number}") });
        let mut candidates = candidates;
        candidates.find(|name| self.0.insert(name.clone())).expect("numbers do not end")
    }
}

/// The nodes that one node becomes.
pub(super) struct Build<'a> {
    names: &'a mut Names,
    /// Of the node that is replaced: new names begin with it.
    label: String,
    /// At least 11.
    opset: i64,
    pub nodes: Vec<NodeProto>,
}

impl<'a> Build<'a> {
    pub fn instead_of(node: &NodeProto, names: &'a mut Names, opset: i64) -> Build<'a> {
        Build { names, label: node.label(), opset, nodes: Vec::new() }
    }

    /// Nodes for a subgraph.
    pub fn inner(&mut self) -> Build<'_> {
        Build { names: self.names, label: format!("{}/body", self.label), opset: self.opset, nodes: Vec::new() }
    }

    pub fn name(&mut self, wish: &str) -> String {
        let wish = format!("{}/{wish}", self.label);
        self.names.fresh(&wish)
    }

    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Adds a node with one output, and returns the output's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name(op);
        self.named(op, inputs, attributes, &output);
        output
    }

    /// Adds a node whose output has this name.
    pub fn named(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        let name = self.name(&format!("{op}_node"));
        self.nodes.push(NodeProto {
            op_type: Some(op.to_owned()),
            name: Some(name),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(DataType::Int64, vec![values.len() as i64], raw)
    }

    /// A scalar.
    fn int64(&mut self, value: i64) -> String {
        self.constant(DataType::Int64, Vec::new(), value.to_le_bytes().to_vec())
    }

    pub fn floats(&mut self, values: &[f32]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(DataType::Float, vec![values.len() as i64], raw)
    }

    /// A scalar.
    pub fn float(&mut self, value: f32) -> String {
        self.constant(DataType::Float, Vec::new(), value.to_le_bytes().to_vec())
    }

    fn constant(&mut self, dtype: DataType, dims: Vec<i64>, raw: Vec<u8>) -> String {
        let value =
            TensorProto { data_type: Some(dtype as i32), dims, raw_data: Some(raw.into()), ..Default::default() };
        self.node("Constant", &[], vec![AttributeProto { t: Some(value), ..attribute("value", AttributeType::Tensor) }])
    }

    /// `x` between constant bounds along axes.
    pub fn slice(&mut self, x: &str, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> String {
        let [starts, ends, axes, steps] = [starts, ends, axes, steps].map(|values| self.ints(values));
        self.node("Slice", &[x, &starts, &ends, &axes, &steps], Vec::new())
    }

    /// The lengths of axes `from..to` of `x`, as a list.
    pub fn lengths(&mut self, x: &str, from: i64, to: i64) -> String {
        let shape = self.node("Shape", &[x], Vec::new());
        self.slice(&shape, &[from], &[to], &[0], &[1])
    }

    /// `x` without axis `axis`, of length 1.
    pub fn squeezed(&mut self, x: &str, axis: i64) -> String {
        if self.opset >= 13 {
            let axes = self.ints(&[axis]);
            return self.node("Squeeze", &[x, &axes], Vec::new());
        }
        self.node("Squeeze", &[x], vec![ints("axes", &[axis])])
    }

    pub fn unsqueezed(&mut self, x: &str, axis: i64) -> String {
        if self.opset >= 13 {
            let axes = self.ints(&[axis]);
            return self.node("Unsqueeze", &[x, &axes], Vec::new());
        }
        self.node("Unsqueeze", &[x], vec![ints("axes", &[axis])])
    }

    /// `x` backwards along its first axis. A `Slice` with a negative step would fail in the runner beside some
    /// operators.
    pub fn reversed(&mut self, x: &str) -> String {
        let length = self.lengths(x, 0, 1);
        let length = self.squeezed(&length, 0);
        let [zero, one] = [0, 1].map(|value| self.int64(value));
        let last = self.node("Sub", &[&length, &one], Vec::new());
        let forward = self.node("Range", &[&zero, &length, &one], Vec::new());
        let places = self.node("Sub", &[&last, &forward], Vec::new());
        self.node("Gather", &[x, &places], vec![int("axis", 0)])
    }

    pub fn identity(&mut self, x: &str, output: &str) {
        self.named("Identity", &[x], Vec::new(), output);
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec().into()), ..attribute(name, AttributeType::String) }
}

pub(super) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, AttributeType::Graph) }
}

/// `value`: one 0 of the default type.
pub(super) fn attribute_of_zero() -> AttributeProto {
    let value = TensorProto {
        data_type: Some(DataType::Float as i32),
        dims: vec![1],
        raw_data: Some(vec![0; 4].into()),
        ..TensorProto::default()
    };
    AttributeProto { t: Some(value), ..attribute("value", AttributeType::Tensor) }
}
