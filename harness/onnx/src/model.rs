//! A decoded file, and the bytes it came from.

use bytes::Bytes;
use prost::Message;

use crate::{GraphProto, ModelProto, OnnxError, budget};

/// A decoded file.
#[derive(Clone, Debug)]
pub struct Model {
    pub proto: ModelProto,
    source: Bytes,
}

impl Model {
    /// # Errors
    /// [`OnnxError::NotOnnx`] for anything but a whole ONNX file with a graph, and for one that would take absurd
    /// memory to decode.
    pub fn decode(source: &Bytes) -> Result<Model, OnnxError> {
        let not_onnx = |why: String| OnnxError::NotOnnx { why };
        if source.is_empty() {
            return Err(not_onnx("it is empty".into()));
        }
        budget::check(source).map_err(not_onnx)?;
        let proto = ModelProto::decode(source.clone()).map_err(|error| not_onnx(error.to_string()))?;
        // Protobuf accepts a file that is cut between two fields. Every ONNX file has these three fields, and the
        // operator sets often come last.
        if proto.ir_version.is_none() {
            return Err(not_onnx("it has no `ir_version`".into()));
        }
        if proto.graph.is_none() {
            return Err(not_onnx("it has no graph".into()));
        }
        if proto.opset_import.is_empty() {
            return Err(not_onnx("it imports no operator set; was it cut off?".into()));
        }
        Ok(Model { proto, source: source.clone() })
    }

    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`decode` refuses a file without a graph")
    }

    pub fn graph_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("`decode` refuses a file without a graph")
    }

    /// Version of the standard operator set.
    pub fn opset(&self) -> i64 {
        let standard = self.proto.opset_import.iter().find(|set| matches!(set.domain(), "" | "ai.onnx"));
        standard.map_or(1, |set| set.version())
    }

    /// The bytes it was decoded from.
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// The offset of a `raw_data` of this model in [`Model::source`], in bytes. `None` if it was replaced since.
    pub fn offset(&self, raw_data: &Bytes) -> Option<usize> {
        let offset = (raw_data.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize)?;
        (offset + raw_data.len() <= self.source.len()).then_some(offset)
    }

    /// Byte-identical to the source for files as Google's encoder writes them, as long as nothing was changed.
    pub fn encode(&self) -> Bytes {
        self.proto.encode_to_vec().into()
    }
}
