//! A whole model in packed form.
//!
//! A pack has the ONNX file without the bytes of its weights, and the weights one by one, each in a form of its own.
//! Unpacking decodes them and puts them back, so that this code needs no knowledge of ONNX, and a pack of lossless
//! forms gives back the file to the byte. Every section is zstd frames with a SHA-256 in the header, and the header has
//! a SHA-256 of itself: nothing is decompressed before its hash was compared.
//!
//! ```text
//! magic 8 | version u32 | header bytes u32 | file bytes u64 | file SHA-256 | the rest's size and SHA-256 | tensors …
//! | SHA-256 of all this
//! zstd frames of the rest | zstd frames of the first tensor | …
//! ```
//!
//! A pack may have one model at several ratios. Equal sections are stored once. Where a tensor has a subset of the
//! values of the first ratio, as after pruning in one step, only the places of its values are stored.

mod header;
mod spliced;
mod unpack;

#[cfg(feature = "encode")]
mod encode;
#[cfg(feature = "encode")]
mod nested;

use crate::WeightsError;

pub use header::{PackedTensor, Section};
pub use unpack::{Pack, Pieces};

#[cfg(feature = "encode")]
pub use encode::{Choice, Packed, Span, pack, packed_bytes};
#[cfg(feature = "encode")]
pub use nested::{AtRatio, PackedRatio, PackedRatios, pack_ratios};

/// No ONNX file begins with these bytes: its first byte is that of a protobuf field.
pub const MAGIC: [u8; 8] = *b"\x89ESPALI\n";

pub const VERSION: u32 = 1;
/// A pack of several ratios.
pub const VERSION_OF_SEVERAL: u32 = 2;
pub const MOST_RATIOS: u32 = 64;

/// Whether these are the first bytes of a pack of any version.
pub fn is_pack(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// # Errors
/// [`WeightsError::Bomb`] for a file that is larger than [`most_file_bytes`] or memory.
fn check_size(pack: u64, file: u64) -> Result<(), WeightsError> {
    let limit = most_file_bytes(pack).min(isize::MAX as u64);
    if file > limit { Err(WeightsError::Bomb { pack, file, limit }) } else { Ok(()) }
}

/// The largest file that a pack of this many bytes may claim to have. The pack of a pruned model is a hundredth of its
/// dense file, hardly ever a thousandth. Without a limit a pack of a few bytes could fill a board's memory.
pub fn most_file_bytes(pack_bytes: u64) -> u64 {
    (16u64 << 20).saturating_add(pack_bytes.saturating_mul(1024))
}
