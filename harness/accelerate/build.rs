//! Gives the crate a digest of the kernels' sources and its own: a choice of kernels made with others is not to be
//! believed.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    for folder in ["src", "../kernels/src"] {
        println!("cargo::rerun-if-changed={folder}");
        let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
        hash.folder(&Path::new(&root).join(folder))?;
    }
    println!("cargo::rustc-env=ESPALIER_KERNELS={:016x}", hash.0);
    Ok(())
}

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.bytes(entry.file_name().as_encoded_bytes());
            if entry.file_type()?.is_dir() {
                self.folder(&entry.path())?;
            } else {
                self.bytes(&fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
