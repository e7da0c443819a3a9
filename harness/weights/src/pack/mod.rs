//! A whole model in packed form.
//!
//! A pack holds the ONNX file with the bytes of its weights cut out, and those weights one by one, each in a form of its own. Unpacking decodes them and
//! puts them back where they were, so that nothing here has to know ONNX, and a pack of lossless forms gives back the very file. Every part is zstd
//! frames with a SHA-256 in the header, and the header has one of itself: nothing is decompressed that was not hashed before.
//!
//! ```text
//! magic 8 | version u32 | header bytes u32 | file bytes u64 | file SHA-256 | the rest's size and SHA-256 | tensors … | SHA-256 of all this
//! zstd frames of the rest | zstd frames of the first tensor | …
//! ```
//!
//! A pack may hold one model at several ratios. Parts that are the same are there once, and of a tensor whose values are those of the first ratio's, only
//! fewer of them, the places are stored and no values: what pruning in one step gives at each ratio.

mod header;
mod spliced;
mod unpack;

#[cfg(feature = "encode")]
mod encode;
#[cfg(feature = "encode")]
mod nested;

pub use header::{PackedTensor, Part};
pub use unpack::{Pack, Pieces};

#[cfg(feature = "encode")]
pub use encode::{Choice, Packed, Span, pack, packed_bytes};
#[cfg(feature = "encode")]
pub use nested::{AtRatio, PackedRatio, PackedRatios, pack_ratios};

/// No ONNX file begins so: its first byte is that of a protobuf field.
pub const MAGIC: [u8; 8] = *b"\x89ESPALI\n";

pub const VERSION: u32 = 1;
/// A pack of several ratios.
pub const VERSION_OF_SEVERAL: u32 = 2;
pub const MOST_RATIOS: u32 = 64;

/// Whether these are the first bytes of a pack, of whatever version.
pub fn is_pack(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The largest file that is believed of a pack of so many bytes. A pruned model is a hundredth of its dense file, hardly ever a thousandth; without a
/// limit a file of a few bytes could fill a board's memory.
pub fn most_file_bytes(pack_bytes: u64) -> u64 {
    (16u64 << 20).saturating_add(pack_bytes.saturating_mul(1024))
}
