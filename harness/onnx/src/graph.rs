//! Questions to a graph: what it is fed, what the file says of its inputs, in which order its nodes run.

use std::collections::{HashMap, HashSet};

use crate::{GraphProto, OnnxError, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

/// An axis of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    Fixed(u64),
    /// Of any length; by its name, which may be empty.
    Free(String),
}

impl Axis {
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Axis::Fixed(len) => usize::try_from(*len).ok(),
            Axis::Free(_) => None,
        }
    }
}

impl ValueInfoProto {
    /// `None` for what is not a tensor.
    pub fn tensor_type(&self) -> Option<&type_proto::Tensor> {
        match self.r#type.as_ref()?.value.as_ref()? {
            type_proto::Value::TensorType(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// `None` where the file does not say how many axes there are.
    pub fn axes(&self) -> Option<Vec<Axis>> {
        let axis = |value: &Option<dimension::Value>| match value {
            // Some exporters write a free axis as 0 or -1.
            Some(dimension::Value::DimValue(len @ 1..)) => Axis::Fixed(*len as u64),
            Some(dimension::Value::DimParam(name)) => Axis::Free(name.clone()),
            _ => Axis::Free(String::new()),
        };
        Some(self.tensor_type()?.shape.as_ref()?.dim.iter().map(|dim| axis(&dim.value)).collect())
    }
}

impl GraphProto {
    /// What has to be fed: the inputs without those an initialiser gives a value.
    pub fn fed(&self) -> impl Iterator<Item = &ValueInfoProto> {
        let given: HashSet<&str> = self.initializer.iter().map(|tensor| tensor.name()).collect();
        self.input.iter().filter(move |input| !given.contains(input.name()))
    }

    /// The names that its nodes and outputs use, with those in subgraphs.
    pub fn used_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.output.iter().map(|output| output.name()).collect();
        for node in &self.node {
            names.extend(node.input.iter().map(String::as_str));
            names.extend(node.subgraphs().flat_map(GraphProto::used_names));
        }
        names
    }

    /// The indices of the nodes in an order that can be run: each after those whose results it uses, otherwise as in
    /// the file. ONNX asks for that order in the file itself; not every exporter keeps to it.
    ///
    /// # Errors
    /// [`OnnxError::Malformed`]: a node uses what nothing computes before it.
    pub fn node_order(&self) -> Result<Vec<usize>, OnnxError> {
        // Known from the beginning: constants, inputs, and what is left out.
        let mut known: HashSet<&str> = self.initializer.iter().map(|tensor| tensor.name()).collect();
        known.extend(self.input.iter().map(|input| input.name()));
        let constants = self.node.iter().filter(|node| node.op() == "Constant");
        known.extend(constants.flat_map(|node| &node.output).map(String::as_str));
        known.insert("");
        let mut producers: HashMap<&str, usize> = HashMap::new();
        for (index, node) in self.node.iter().enumerate() {
            for output in &node.output {
                producers.entry(output).or_insert(index);
            }
        }
        let inputs = |index: usize| {
            let inputs = self.node[index].input.iter().map(String::as_str);
            inputs.filter(|name| !known.contains(name)).map(|name| (name, producers.get(name).copied()))
        };
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.node.len()];
        let mut missing: Vec<usize> = vec![0; self.node.len()];
        for (index, missing) in missing.iter_mut().enumerate() {
            for (_, producer) in inputs(index) {
                *missing += 1;
                producer.into_iter().for_each(|producer| users[producer].push(index));
            }
        }
        // In which round a node runs, when each round takes the nodes in the order of the file and skips those that
        // have to wait.
        let mut rounds = vec![0usize; self.node.len()];
        let mut ready: Vec<usize> = (0..self.node.len()).filter(|index| missing[*index] == 0).collect();
        let mut order = Vec::with_capacity(self.node.len());
        while let Some(index) = ready.pop() {
            order.push(index);
            for user in &users[index] {
                rounds[*user] = rounds[*user].max(rounds[index] + usize::from(*user < index));
                missing[*user] -= 1;
                if missing[*user] == 0 {
                    ready.push(*user);
                }
            }
        }
        if let Some(stuck) = (0..self.node.len()).find(|index| missing[*index] > 0) {
            let unknown = |producer: Option<usize>| producer.is_none_or(|producer| missing[producer] > 0);
            let name = inputs(stuck).find(|(_, producer)| unknown(*producer)).map_or("", |(name, _)| name);
            let label = self.node[stuck].label();
            let why = format!("node `{label}` uses `{name}`, which nothing computes before it");
            return Err(OnnxError::Malformed { why });
        }
        order.sort_by_key(|index| (rounds[*index], *index));
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeProto;

    /// Nodes as `output` and the inputs it is made of.
    fn graph(nodes: &[(&str, &[&str])]) -> GraphProto {
        let node = |(output, inputs): &(&str, &[&str])| NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![(*output).to_owned()],
            ..NodeProto::default()
        };
        let input = vec![ValueInfoProto { name: Some("x".into()), ..ValueInfoProto::default() }];
        GraphProto { node: nodes.iter().map(node).collect(), input, ..GraphProto::default() }
    }

    #[test]
    fn nodes_come_after_what_they_use() {
        let order = |nodes: &[(&str, &[&str])]| graph(nodes).node_order().unwrap();
        assert_eq!(order(&[("a", &["x"]), ("b", &["a", ""]), ("c", &["x"])]), [0, 1, 2]);
        assert_eq!(order(&[("c", &["b"]), ("a", &["x"]), ("b", &["a"]), ("d", &["x"])]), [1, 2, 3, 0]);
        assert_eq!(order(&[("c", &["b", "b"]), ("b", &["a"]), ("a", &["x"])]), [2, 1, 0]);
    }

    #[test]
    fn a_circle_or_a_missing_value_is_named() {
        let why = |nodes: &[(&str, &[&str])]| graph(nodes).node_order().unwrap_err().to_string();
        let missing = why(&[("a", &["x"]), ("b", &["a", "z"]), ("c", &["b"])]);
        assert!(missing.contains("node `b` uses `z`, which nothing computes before it"), "{missing}");
        assert!(why(&[("a", &["b"]), ("b", &["a"])]).contains("node `a` uses `b`"));
        assert!(why(&[("a", &["a"])]).contains("node `a` uses `a`"));
    }
}
