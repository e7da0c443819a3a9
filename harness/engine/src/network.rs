//! A graph made ready to be run: values numbered, nodes parsed and in an order that can be carried out.
//!
//! Constants are values like others: initialisers and `Constant` nodes hold theirs from the beginning and may be replaced, which is how a
//! trainer moves weights. An initialiser that is also listed as an input counts as a constant.

use std::collections::HashMap;

use espalier_onnx::{Model, NodeProto, OnnxError};

use crate::{
    EngineError, Tensor,
    ops::{self, Attributes, Operator},
};

/// Index into the values of a [`Network`].
pub type ValueId = usize;

#[derive(Debug)]
pub struct Network {
    names: Vec<String>,
    constants: Vec<Option<Tensor>>,
    pub nodes: Vec<Node>,
    /// What has to be fed.
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    ids: HashMap<String, ValueId>,
}

#[derive(Debug)]
pub struct Node {
    /// Its name, or the first thing it computes where it has none.
    pub name: String,
    pub op_type: String,
    /// Its place in the graph's list of nodes.
    pub position: usize,
    /// `None` for an optional input that is left out.
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<Option<ValueId>>,
    pub operator: Box<dyn Operator>,
}

impl Network {
    /// # Errors
    /// Operators the engine does not know, all at once; values nobody computes; constants that are broken.
    pub fn new(model: &Model) -> Result<Network, EngineError> {
        let graph = model.graph();
        let mut network = Network {
            names: Vec::new(),
            constants: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            ids: HashMap::new(),
        };
        let mut types: HashMap<String, i32> = HashMap::new();
        for tensor in &graph.initializer {
            types.insert(tensor.name().to_owned(), tensor.data_type());
            let id = network.id(tensor.name());
            network.constants[id] = Some(Tensor::of(tensor.name(), tensor)?);
        }
        for input in &graph.input {
            let id = network.id(input.name());
            if network.constants[id].is_none() {
                network.inputs.push(id);
            }
        }
        let opset = opset(model);
        let mut unknown = Vec::new();
        for (position, proto) in graph.node.iter().enumerate() {
            if is_standard(proto) && proto.op_type() == "Constant" {
                let name = proto.output.first().map_or("", String::as_str);
                let value = ops::constant(name, proto)?;
                if let Some(tensor) = proto.attribute.iter().find_map(|attribute| attribute.t.as_ref()) {
                    types.insert(name.to_owned(), tensor.data_type());
                }
                let id = network.id(name);
                network.constants[id] = Some(value);
                continue;
            }
            let label = label(proto);
            let parsed =
                if is_standard(proto) { ops::parse(&Attributes { proto, opset, types: &types }) } else { None };
            match parsed {
                None => unknown.push(format!("`{}` (node `{label}`)", qualified(proto))),
                Some(Err(why)) => {
                    return Err(EngineError::Node { node: label, op: proto.op_type().to_owned(), why });
                }
                Some(Ok(operator)) => {
                    let mut ids = |names: &[String]| -> Vec<Option<ValueId>> {
                        names.iter().map(|name| (!name.is_empty()).then(|| network.id(name))).collect()
                    };
                    let (inputs, outputs) = (ids(&proto.input), ids(&proto.output));
                    let op_type = proto.op_type().to_owned();
                    network.nodes.push(Node { name: label, op_type, position, inputs, outputs, operator });
                }
            }
        }
        if !unknown.is_empty() {
            return Err(EngineError::UnknownOps { ops: unknown });
        }
        network.outputs = graph.output.iter().map(|output| network.id(output.name())).collect();
        network.sort()?;
        Ok(network)
    }

    pub fn name(&self, value: ValueId) -> &str {
        &self.names[value]
    }

    /// How many values there are: ids are below it.
    pub fn values(&self) -> usize {
        self.names.len()
    }

    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.ids.get(name).copied()
    }

    pub fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.constants[value].as_ref()
    }

    pub fn constant_mut(&mut self, value: ValueId) -> Option<&mut Tensor> {
        self.constants[value].as_mut()
    }

    pub(crate) fn constants(&self) -> &[Option<Tensor>] {
        &self.constants
    }

    fn id(&mut self, name: &str) -> ValueId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.len();
        self.names.push(name.to_owned());
        self.constants.push(None);
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// Nodes so that each comes after what it uses; among those that could come next, the order of the file.
    fn sort(&mut self) -> Result<(), EngineError> {
        let mut known: Vec<bool> = self.constants.iter().map(Option::is_some).collect();
        self.inputs.iter().for_each(|input| known[*input] = true);
        let mut waiting = std::mem::take(&mut self.nodes);
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for node in waiting {
                if node.inputs.iter().flatten().all(|input| known[*input]) {
                    node.outputs.iter().flatten().for_each(|output| known[*output] = true);
                    self.nodes.push(node);
                } else {
                    later.push(node);
                }
            }
            if later.len() == before {
                let node = &later[0];
                let missing = node.inputs.iter().flatten().find(|input| !known[**input]).expect("it waits for one");
                let why =
                    format!("node `{}` uses `{}`, which nothing computes before it", node.name, self.names[*missing]);
                return Err(OnnxError::Malformed { why }.into());
            }
            waiting = later;
        }
        match self.outputs.iter().find(|output| !known[**output]) {
            Some(output) => {
                Err(OnnxError::Malformed { why: format!("nothing computes the output `{}`", self.names[*output]) }
                    .into())
            }
            None => Ok(()),
        }
    }
}

/// Version of the standard operator set.
fn opset(model: &Model) -> i64 {
    let standard = model.proto.opset_import.iter().find(|set| matches!(set.domain(), "" | "ai.onnx"));
    standard.map_or(1, |set| set.version())
}

fn is_standard(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx")
}

fn qualified(node: &NodeProto) -> String {
    if is_standard(node) { node.op_type().to_owned() } else { format!("{}.{}", node.domain(), node.op_type()) }
}

fn label(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    if node.name().is_empty() { output.to_owned() } else { node.name().to_owned() }
}
