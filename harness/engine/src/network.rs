//! A graph made ready to run: values numbered, nodes parsed and sorted.
//!
//! Constants are values like others: initialisers and `Constant` nodes hold theirs from the beginning and may be
//! replaced, which is how a trainer moves weights. An initialiser that is also listed as an input counts as a constant.

use std::collections::HashMap;

use espalier_onnx::{Model, OnnxError};

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
    /// Its name, or that of its first output where it has none.
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
    /// Operators the engine does not know, all at once; values that nothing computes; broken constants.
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
        for proto in graph.node.iter().filter(|proto| proto.op() == "Constant") {
            let name = proto.output.first().map_or("", String::as_str);
            let value = ops::constant(name, proto)?;
            if let Some(tensor) = proto.attribute.iter().find_map(|attribute| attribute.t.as_ref()) {
                types.insert(name.to_owned(), tensor.data_type());
            }
            let id = network.id(name);
            network.constants[id] = Some(value);
        }
        let (opset, order) = (model.opset(), graph.node_order());
        let mut unknown = Vec::new();
        // Unknown operators are named before nodes that cannot be sorted.
        let positions = order.clone().unwrap_or_else(|_| (0..graph.node.len()).collect());
        for (position, proto) in positions.into_iter().map(|position| (position, &graph.node[position])) {
            if proto.op() == "Constant" {
                continue;
            }
            let label = proto.label();
            match ops::parse(&Attributes { proto, opset, types: &types }) {
                None => unknown.push(format!("`{}` (node `{label}`)", proto.qualified_op())),
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
        order?;
        network.outputs = graph.output.iter().map(|output| network.id(output.name())).collect();
        let mut known: Vec<bool> = network.constants.iter().map(Option::is_some).collect();
        let computed = network.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
        network.inputs.iter().chain(computed).for_each(|value| known[*value] = true);
        match network.outputs.iter().find(|output| !known[**output]) {
            Some(output) => {
                let why = format!("nothing computes the output `{}`", network.names[*output]);
                Err(OnnxError::Malformed { why }.into())
            }
            None => Ok(network),
        }
    }

    /// The names of all operators of the standard domain that the engine runs. `Constant`, which is no operator of the
    /// engine but a value, is not among them.
    pub fn operators() -> impl Iterator<Item = &'static str> {
        ops::names()
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
}
