//! A network as a file that is not written yet: its size is known, and its bytes come one tensor at a time.
//!
//! prost would need all of a message in memory. The file is four nested messages, so its frame is put together here:
//! fields in the order of their numbers, as Google's encoder writes them.

use std::io::{self, Write};

use espalier_onnx::{GraphProto, ModelProto, OperatorSetIdProto};
use prost::{Message, encoding::encode_varint};

use crate::weights::Tensor;

/// Numbers of fields in onnx.proto, as keys of length-delimited fields.
const MODEL_GRAPH: u8 = 7 << 3 | 2;
const GRAPH_INITIALIZER: u8 = 5 << 3 | 2;
const TENSOR_RAW_DATA: u8 = 9 << 3 | 2;

/// The version of the operator set: the first with LayerNormalization.
const OPSET: i64 = 17;

/// The version of the file format that goes with it.
const IR_VERSION: i64 = 8;

#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The file before the initialisers, and behind them.
    before: Vec<u8>,
    after: Vec<u8>,
    /// Each with its frame, which ends where its values begin.
    tensors: Vec<(Vec<u8>, Tensor)>,
}

impl Blueprint {
    /// `graph` has no initialisers: those are `tensors`.
    pub fn new(graph: GraphProto, tensors: Vec<Tensor>, about: String) -> Blueprint {
        debug_assert!(graph.initializer.is_empty());
        let framed: Vec<(Vec<u8>, Tensor)> = tensors.into_iter().map(|tensor| (frame(&tensor), tensor)).collect();
        let GraphProto { node, name, input, output, .. } = graph;
        let graph_before = GraphProto { node, name, ..GraphProto::default() }.encode_to_vec();
        let graph_after = GraphProto { input, output, ..GraphProto::default() }.encode_to_vec();
        let values: usize = framed.iter().map(|(frame, tensor)| frame.len() + tensor.bytes()).sum();

        let mut before = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("espalier".to_owned()),
            doc_string: Some(about),
            ..ModelProto::default()
        }
        .encode_to_vec();
        before.push(MODEL_GRAPH);
        encode_varint((graph_before.len() + values + graph_after.len()) as u64, &mut before);
        before.extend(graph_before);
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
        let mut after = graph_after;
        after.extend(ModelProto { opset_import: vec![opset], ..ModelProto::default() }.encode_to_vec());
        Blueprint { before, after, tensors: framed }
    }

    /// Of the file.
    pub fn bytes(&self) -> u64 {
        let tensors: usize = self.tensors.iter().map(|(frame, tensor)| frame.len() + tensor.bytes()).sum();
        (self.before.len() + tensors + self.after.len()) as u64
    }

    /// Weights, biases and all other floats.
    pub fn parameters(&self) -> u64 {
        self.tensors().filter(|tensor| tensor.is_float()).map(|tensor| tensor.elements() as u64).sum()
    }

    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().map(|(_, tensor)| tensor)
    }

    /// # Errors
    /// Where `out` refuses.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.before)?;
        for (frame, tensor) in &self.tensors {
            out.write_all(frame)?;
            tensor.write(out)?;
        }
        out.write_all(&self.after)
    }
}

/// The bytes before a tensor's values.
fn frame(tensor: &Tensor) -> Vec<u8> {
    let mut head = tensor.header().encode_to_vec();
    head.push(TENSOR_RAW_DATA);
    encode_varint(tensor.bytes() as u64, &mut head);
    let mut frame = vec![GRAPH_INITIALIZER];
    encode_varint((head.len() + tensor.bytes()) as u64, &mut frame);
    frame.extend(head);
    frame
}
