//! Engines that are not the runner: programs that speak its protocol, and their Python. They run on this host only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use espalier_bench::{engine::Engine, record::PeerInfo};
use espalier_fleet::{
    blob,
    cancel::Cancel,
    deploy::BlobFile,
    process::Watch,
    python::{self, Environment},
    session::Runner,
};
use espalier_inventory::Device;

use crate::{
    context::{Context, usage},
    output,
    progress::Progress,
};

/// A fixed release, so that tables compare; to be raised deliberately.
pub const ONNXRUNTIME: &str = "onnxruntime==1.32.0";

const MODULES: &str = "numpy, onnxruntime";

/// The program and its modules, which are part of this program.
const FILES: [(&str, &str); 4] = [
    (PROGRAM, include_str!("../../peers/onnxruntime_peer.py")),
    ("peer_board.py", include_str!("../../peers/peer_board.py")),
    ("peer_protocol.py", include_str!("../../peers/peer_protocol.py")),
    ("peer_samples.py", include_str!("../../peers/peer_samples.py")),
];

pub const PROGRAM: &str = "onnxruntime_peer.py";

const VERSIONS: &str = "import numpy, onnxruntime, platform; print(f'onnxruntime {onnxruntime.__version__}, \
                        numpy {numpy.__version__}, Python {platform.python_version()}')";

/// A peer that is ready to start.
pub struct Peer {
    pub program: Runner,
    pub info: PeerInfo,
}

/// # Errors
/// An engine cannot run on one of the devices.
pub fn check(engines: &[Engine], devices: &[Device]) -> Result<()> {
    let Some(engine) = engines.iter().find(|engine| !engine.is_in_runner()) else { return Ok(()) };
    match devices.iter().find(|device| device.is_board()) {
        Some(board) => Err(usage(format!(
            "`--engine {}` runs on this host only, and `{}` is not this host: measure that board in another run",
            engine.name(),
            board.name
        ))),
        None => Ok(()),
    }
}

/// The program of the engines that need one; `None` where none does.
pub fn prepare(context: &Context, engines: &[Engine], progress: &Progress, cancel: &Cancel) -> Result<Option<Peer>> {
    if engines.iter().all(|engine| engine.is_in_runner()) {
        return Ok(None);
    }
    let task = progress.task("onnxruntime", None);
    let watch = Watch { cancel, progress: &|text| task.milestone(text) };
    let python = interpreter(context, watch)?;
    let versions = python::output_of(&python, VERSIONS)
        .with_context(|| format!("`{}` has onnxruntime, but does not report its version", python.display()))?;
    let file = program(context)?;
    task.done();
    let info = PeerInfo { engine: Engine::Onnxruntime, sha256: file.sha256.clone(), versions: versions.clone() };
    let program = Runner {
        file,
        elf: None,
        interpreter: vec![python.to_string_lossy().into_owned(), "-B".into()],
        builder: versions,
    };
    Ok(Some(Peer { program, info }))
}

/// The program's files, in a folder of the cache that is named by their contents.
fn program(context: &Context) -> Result<BlobFile> {
    let all: String = FILES.iter().map(|(name, text)| format!("{name} {}\n{text}", text.len())).collect();
    let sha256 = blob::sha256_hex(all.as_bytes());
    let folder = context.cache.folder(&format!("peers/{sha256}"))?;
    for (name, text) in FILES {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        output::write(&path, text)?;
    }
    Ok(BlobFile { sha256, path: folder.join(PROGRAM), bytes: all.len() as u64, executable: false })
}

/// The interpreter that `ESPALIER_PYTHON` names, else one in the cache.
fn interpreter(context: &Context, watch: Watch) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ESPALIER_PYTHON").filter(|named| !named.is_empty()) {
        let python = std::path::absolute(Path::new(&named)).context("`ESPALIER_PYTHON` cannot be resolved")?;
        if python::imports(&python, MODULES) {
            return Ok(python);
        }
        return Err(usage(format!(
            "`ESPALIER_PYTHON` names `{}`, which cannot import {MODULES}: install them there, or unset it",
            python.display()
        )));
    }
    let environment =
        Environment { folder: "python/onnxruntime-1.32.0", packages: &[ONNXRUNTIME, "numpy"], modules: MODULES };
    environment.interpreter(&context.cache, watch).context(
        "cannot make the environment of `--engine onnxruntime`; `ESPALIER_PYTHON` can name an interpreter that has \
         onnxruntime",
    )
}
