//! What decoding a file would cost in memory, found by walking its wire format without decoding it.
//!
//! An empty message takes two bytes in a file and, decoded, as much as its Rust struct: a hostile megabyte of empty
//! attributes would become a gigabyte. Real files stay far below the limit, as theirs is weights. What is malformed
//! here is left to the decoder to name.

use std::mem::size_of;

use super::*;

/// Bytes any file may cost, and bytes it may cost for each of its own.
const FLAT: u64 = 256 << 20;
const PER_BYTE: u64 = 16;

/// As deep as prost follows messages within messages.
const MAX_DEPTH: u32 = 100;

/// # Errors
/// A sentence fragment that says how the file is over its budget.
pub fn check(file: &[u8]) -> Result<(), String> {
    let limit = FLAT + PER_BYTE * file.len() as u64;
    let mut walk = Walk { cost: 0, limit };
    walk.message(Kind::Model, file, 0)
}

struct Walk {
    cost: u64,
    limit: u64,
}

impl Walk {
    fn message(&mut self, kind: Kind, mut bytes: &[u8], depth: u32) -> Result<(), String> {
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
                    Some(content) => match child(kind, field) {
                        Some(child) => {
                            self.charge(child.size())?;
                            self.message(child, content, depth + 1)?;
                            Some(0)
                        }
                        None => Some(content_cost(kind, field, content.len())),
                    },
                    None => None,
                },
                // Groups: what is within counts as if it were not.
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

/// What a string, a byte string or packed numbers cost beyond the struct they are in.
fn content_cost(kind: Kind, field: u64, len: usize) -> usize {
    match (kind, field) {
        // `raw_data` is not copied.
        (Kind::Tensor, 9) => 32,
        // Packed varints: a byte in the file becomes up to eight.
        (Kind::Tensor, 5) => 4 * len,
        (Kind::Tensor, 7 | 11) => 8 * len,
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
enum Kind {
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

impl Kind {
    fn size(self) -> usize {
        match self {
            Kind::Model => size_of::<ModelProto>(),
            Kind::Graph => size_of::<GraphProto>(),
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Sparse => size_of::<SparseTensorProto>(),
            Kind::Info => size_of::<ValueInfoProto>(),
            Kind::Type | Kind::TensorType | Kind::ElementType | Kind::MapType => size_of::<TypeProto>(),
            Kind::Shape => size_of::<TensorShapeProto>(),
            Kind::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Kind::Function => size_of::<FunctionProto>(),
            Kind::Training => size_of::<TrainingInfoProto>(),
            Kind::Annotation => size_of::<TensorAnnotation>(),
            Kind::Configuration => size_of::<DeviceConfigurationProto>(),
            Kind::Placement => size_of::<NodeDeviceConfigurationProto>(),
            Kind::Sharding => size_of::<ShardingSpecProto>(),
            Kind::ShardedDim => size_of::<ShardedDimProto>(),
            Kind::Small => 64,
        }
    }
}

/// Which message a field holds, by `onnx.proto`; `None` for strings, bytes and numbers.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) => Kind::Graph,
        (Kind::Model, 20) => Kind::Training,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Model, 26) => Kind::Configuration,
        (Kind::Model, 8 | 14) => Kind::Small,
        (Kind::Graph, 1) => Kind::Node,
        (Kind::Graph, 5) => Kind::Tensor,
        (Kind::Graph, 15) => Kind::Sparse,
        (Kind::Graph, 11..=13) => Kind::Info,
        (Kind::Graph, 14) => Kind::Annotation,
        (Kind::Graph, 16) => Kind::Small,
        (Kind::Node, 5) => Kind::Attribute,
        (Kind::Node, 9) => Kind::Small,
        (Kind::Node, 10) => Kind::Placement,
        (Kind::Attribute, 5 | 10) => Kind::Tensor,
        (Kind::Attribute, 6 | 11) => Kind::Graph,
        (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Attribute, 14 | 15) => Kind::Type,
        (Kind::Tensor, 3 | 13 | 16) => Kind::Small,
        (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Info, 2) => Kind::Type,
        (Kind::Info, 4) => Kind::Small,
        (Kind::Type, 1 | 8) => Kind::TensorType,
        (Kind::Type, 4 | 9) => Kind::ElementType,
        (Kind::Type, 5) => Kind::MapType,
        (Kind::Type, 7) => Kind::Small,
        (Kind::TensorType, 2) => Kind::Shape,
        (Kind::ElementType, 1) => Kind::Type,
        (Kind::MapType, 2) => Kind::Type,
        (Kind::Shape, 1) => Kind::Dimension,
        (Kind::Function, 7) => Kind::Node,
        (Kind::Function, 11) => Kind::Attribute,
        (Kind::Function, 12) => Kind::Info,
        (Kind::Function, 9 | 14) => Kind::Small,
        (Kind::Training, 1 | 2) => Kind::Graph,
        (Kind::Training, 3 | 4) => Kind::Small,
        (Kind::Annotation, 2) => Kind::Small,
        (Kind::Placement, 2) => Kind::Sharding,
        (Kind::Sharding, 3) => Kind::Small,
        (Kind::Sharding, 4) => Kind::ShardedDim,
        (Kind::ShardedDim, 2) => Kind::Small,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(message: &str) -> Kind {
        match message {
            "ModelProto" => Kind::Model,
            "GraphProto" => Kind::Graph,
            "NodeProto" => Kind::Node,
            "AttributeProto" => Kind::Attribute,
            "TensorProto" => Kind::Tensor,
            "SparseTensorProto" => Kind::Sparse,
            "ValueInfoProto" => Kind::Info,
            // In Rust the alternatives of a type are fields of the enum `Value`.
            "TypeProto" | "Value" => Kind::Type,
            "Tensor" | "SparseTensor" => Kind::TensorType,
            "Sequence" | "Optional" => Kind::ElementType,
            "Map" => Kind::MapType,
            "TensorShapeProto" => Kind::Shape,
            "Dimension" => Kind::Dimension,
            "FunctionProto" => Kind::Function,
            "TrainingInfoProto" => Kind::Training,
            "TensorAnnotation" => Kind::Annotation,
            "DeviceConfigurationProto" => Kind::Configuration,
            "NodeDeviceConfigurationProto" => Kind::Placement,
            "ShardingSpecProto" => Kind::Sharding,
            "ShardedDimProto" => Kind::ShardedDim,
            "StringStringEntryProto" | "OperatorSetIdProto" | "Segment" | "Opaque" | "IntIntListEntryProto" => {
                Kind::Small
            }
            "SimpleShardedDimProto" => Kind::Small,
            _ => panic!("`{message}` is new in the schema: give it a `Kind`"),
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
