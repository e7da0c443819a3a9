//! What decoding a file would cost in memory, found by walking its wire format without decoding it.
//!
//! An empty message takes two bytes in a file, but as much memory as its Rust struct: a hostile megabyte of empty
//! attributes would become a gigabyte. Real files stay far below the limit, as most of them is weights. Malformed
//! messages are left to the decoder to report.

use std::mem::size_of;

use super::*;

/// Bytes of memory that any file may cost, and that each of its bytes may cost.
const FLAT: u64 = 256 << 20;
const PER_BYTE: u64 = 16;

/// The depth to which prost decodes nested messages.
const MAX_DEPTH: u32 = 100;

/// # Errors
/// A sentence fragment that says how the file is over its budget.
pub fn check(file: &[u8]) -> Result<(), String> {
    let limit = FLAT + PER_BYTE * file.len() as u64;
    let mut walk = Walk { cost: 0, limit };
    walk.walk(Message::Model, file, 0)
}

struct Walk {
    cost: u64,
    limit: u64,
}

impl Walk {
    fn walk(&mut self, message: Message, mut bytes: &[u8], depth: u32) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("its messages are nested more than {MAX_DEPTH} deep"));
        }
        while let Some(key) = varint(&mut bytes) {
            let (field, wire) = (key >> 3, key & 7);
            let skipped = match wire {
                0 => varint(&mut bytes).map(|_| 8),
                1 => take(&mut bytes, 8).map(|_| 8),
                5 => take(&mut bytes, 4).map(|_| 8),
                2 => match varint(&mut bytes).and_then(|len| take(&mut bytes, len)) {
                    Some(content) => match child(message, field) {
                        Some(child) => {
                            self.charge(child.size())?;
                            self.walk(child, content, depth + 1)?;
                            Some(0)
                        }
                        None => Some(content_cost(message, field, content.len())),
                    },
                    None => None,
                },
                // Groups: their content is counted as if it stood outside.
                3 | 4 => Some(0),
                _ => None,
            };
            match skipped {
                Some(cost) => self.charge(cost)?,
                None => break,
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.cost += bytes as u64;
        if self.cost > self.limit {
            return Err(format!("decoded it would take more than {} MiB of memory", self.limit >> 20));
        }
        Ok(())
    }
}

/// The cost of a string, a byte string or packed numbers beyond the struct they are in.
fn content_cost(message: Message, field: u64, len: usize) -> usize {
    match (message, field) {
        // `raw_data` is not copied.
        (Message::Tensor, 9) => 32,
        // Packed varints: a byte in the file becomes up to eight.
        (Message::Tensor, 5) => 4 * len,
        (Message::Tensor, 7 | 11) => 8 * len,
        _ => 32 + len,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Info,
    Type,
    /// The alternatives of a type: with a shape, of one other type (a sequence, an optional), or a map.
    TensorType,
    ElementType,
    MapType,
    Shape,
    Dimension,
    Function,
    Training,
    Annotation,
    Configuration,
    Placement,
    Sharding,
    ShardedDim,
    /// Messages of a few plain fields: at most 64 bytes.
    Small,
}

impl Message {
    fn size(self) -> usize {
        match self {
            Message::Model => size_of::<ModelProto>(),
            Message::Graph => size_of::<GraphProto>(),
            Message::Node => size_of::<NodeProto>(),
            Message::Attribute => size_of::<AttributeProto>(),
            Message::Tensor => size_of::<TensorProto>(),
            Message::Sparse => size_of::<SparseTensorProto>(),
            Message::Info => size_of::<ValueInfoProto>(),
            Message::Type | Message::TensorType | Message::ElementType | Message::MapType => size_of::<TypeProto>(),
            Message::Shape => size_of::<TensorShapeProto>(),
            Message::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Message::Function => size_of::<FunctionProto>(),
            Message::Training => size_of::<TrainingInfoProto>(),
            Message::Annotation => size_of::<TensorAnnotation>(),
            Message::Configuration => size_of::<DeviceConfigurationProto>(),
            Message::Placement => size_of::<NodeDeviceConfigurationProto>(),
            Message::Sharding => size_of::<ShardingSpecProto>(),
            Message::ShardedDim => size_of::<ShardedDimProto>(),
            Message::Small => 64,
        }
    }
}

/// Which message a field holds, by `onnx.proto`; `None` for strings, bytes and numbers.
fn child(message: Message, field: u64) -> Option<Message> {
    Some(match (message, field) {
        (Message::Model, 7) => Message::Graph,
        (Message::Model, 20) => Message::Training,
        (Message::Model, 25) => Message::Function,
        (Message::Model, 26) => Message::Configuration,
        (Message::Model, 8 | 14) => Message::Small,
        (Message::Graph, 1) => Message::Node,
        (Message::Graph, 5) => Message::Tensor,
        (Message::Graph, 15) => Message::Sparse,
        (Message::Graph, 11..=13) => Message::Info,
        (Message::Graph, 14) => Message::Annotation,
        (Message::Graph, 16) => Message::Small,
        (Message::Node, 5) => Message::Attribute,
        (Message::Node, 9) => Message::Small,
        (Message::Node, 10) => Message::Placement,
        (Message::Attribute, 5 | 10) => Message::Tensor,
        (Message::Attribute, 6 | 11) => Message::Graph,
        (Message::Attribute, 22 | 23) => Message::Sparse,
        (Message::Attribute, 14 | 15) => Message::Type,
        (Message::Tensor, 3 | 13 | 16) => Message::Small,
        (Message::Sparse, 1 | 2) => Message::Tensor,
        (Message::Info, 2) => Message::Type,
        (Message::Info, 4) => Message::Small,
        (Message::Type, 1 | 8) => Message::TensorType,
        (Message::Type, 4 | 9) => Message::ElementType,
        (Message::Type, 5) => Message::MapType,
        (Message::Type, 7) => Message::Small,
        (Message::TensorType, 2) => Message::Shape,
        (Message::ElementType, 1) => Message::Type,
        (Message::MapType, 2) => Message::Type,
        (Message::Shape, 1) => Message::Dimension,
        (Message::Function, 7) => Message::Node,
        (Message::Function, 11) => Message::Attribute,
        (Message::Function, 12) => Message::Info,
        (Message::Function, 9 | 14) => Message::Small,
        (Message::Training, 1 | 2) => Message::Graph,
        (Message::Training, 3 | 4) => Message::Small,
        (Message::Annotation, 2) => Message::Small,
        (Message::Placement, 2) => Message::Sharding,
        (Message::Sharding, 3) => Message::Small,
        (Message::Sharding, 4) => Message::ShardedDim,
        (Message::ShardedDim, 2) => Message::Small,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(message: &str) -> Message {
        match message {
            "ModelProto" => Message::Model,
            "GraphProto" => Message::Graph,
            "NodeProto" => Message::Node,
            "AttributeProto" => Message::Attribute,
            "TensorProto" => Message::Tensor,
            "SparseTensorProto" => Message::Sparse,
            "ValueInfoProto" => Message::Info,
            // In Rust the alternatives of a type are fields of the enum `Value`.
            "TypeProto" | "Value" => Message::Type,
            "Tensor" | "SparseTensor" => Message::TensorType,
            "Sequence" | "Optional" => Message::ElementType,
            "Map" => Message::MapType,
            "TensorShapeProto" => Message::Shape,
            "Dimension" => Message::Dimension,
            "FunctionProto" => Message::Function,
            "TrainingInfoProto" => Message::Training,
            "TensorAnnotation" => Message::Annotation,
            "DeviceConfigurationProto" => Message::Configuration,
            "NodeDeviceConfigurationProto" => Message::Placement,
            "ShardingSpecProto" => Message::Sharding,
            "ShardedDimProto" => Message::ShardedDim,
            "StringStringEntryProto" | "OperatorSetIdProto" | "Segment" | "Opaque" | "IntIntListEntryProto" => {
                Message::Small
            }
            "SimpleShardedDimProto" => Message::Small,
            _ => panic!("`{message}` is new in the schema: give it a `Message`"),
        }
    }

    /// Reads the schema back from the generated types. Guards against a new schema with messages the walk would not
    /// see.
    #[test]
    fn every_message_field_of_the_schema_is_walked() {
        let mut parent = "";
        let mut tag = None;
        let mut fields = 0;
        for line in include_str!("generated.rs").lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
                parent = rest.split(' ').next().unwrap();
            } else if line.starts_with("#[prost(message") {
                let number = line.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
                tag = Some(number.parse().unwrap());
            } else if let Some(field) = tag.take() {
                let message = line.trim_end_matches([',', '>', ')']).rsplit([':', '<', '(']).next().unwrap().trim();
                // A oneof is followed through its enum.
                assert_eq!(child(kind(parent), field), Some(kind(message)), "field {field} of {parent}");
                fields += 1;
            }
        }
        assert_eq!(fields, include_str!("generated.rs").matches("prost(message").count(), "all of them were seen");
    }

    #[test]
    fn a_flood_of_empty_messages_is_refused() {
        // graph { node { attribute {} attribute {} … } }
        let flood = [0x2a, 0x00].repeat(1 << 20);
        let wrap = |key: u8, content: Vec<u8>| {
            let mut out = vec![key];
            prost::encoding::encode_varint(content.len() as u64, &mut out);
            out.extend(content);
            out
        };
        let file = wrap(0x3a, wrap(0x0a, flood));
        assert_eq!(check(&file).unwrap_err(), "decoded it would take more than 288 MiB of memory");
    }

    #[test]
    fn nesting_has_an_end() {
        let mut file = Vec::new();
        for depth in 0..199 {
            // attribute { g { node { … } } }, seen from the inside.
            let key = [0x0a, 0x32, 0x2a][depth % 3];
            let mut outer = vec![key];
            prost::encoding::encode_varint(file.len() as u64, &mut outer);
            outer.append(&mut file);
            file = outer;
        }
        let mut model = vec![0x3a];
        prost::encoding::encode_varint(file.len() as u64, &mut model);
        model.append(&mut file);
        assert!(check(&model).unwrap_err().contains("nested"), "{:?}", check(&model));
    }
}
