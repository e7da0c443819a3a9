//! What the files mean once every name is resolved and every rule holds. Nothing downstream checks again.

use std::{collections::BTreeMap, fmt, time::Duration};

use espalier_tasks::Spec;
use serde::{Deserialize, Serialize};

use super::recipe::Recipe;

/// The target of every inventory: this host's.
pub const HOST_TARGET: &str = "host";
/// The device of this host, which is there without a file, too.
pub const LOCAL_DEVICE: &str = "local";

/// Targets, devices and models by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub targets: BTreeMap<String, Target>,
    pub devices: BTreeMap<String, Device>,
    pub models: BTreeMap<String, Model>,
}

/// How a runner is built for one sort of board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    /// As rustc knows it, e.g. `aarch64-unknown-linux-gnu`.
    pub triple: String,
    pub builder: Builder,
    pub libc: Libc,
    /// Passed to rustc as `-C target-cpu`.
    pub cpu: Option<String>,
    /// Passed to rustc as `-C target-feature`, e.g. `+neon`.
    pub features: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// The first of the others that is installed and supports the target's libc.
    Auto,
    /// cargo with the system's (cross) linker.
    Cargo,
    /// `cargo zigbuild`: links against any chosen glibc.
    Zigbuild,
    /// `cross`, in a container of a Docker Engine.
    Cross,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// The one the linker finds.
    Any,
    /// A glibc of at least this version; the ELF file is checked for newer symbols before it is pushed.
    Floor(Glibc),
    /// Statically linked.
    Static,
}

/// A glibc version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Glibc {
    pub major: u32,
    pub minor: u32,
}

impl Glibc {
    /// Reads `2.28`.
    pub fn parse(text: &str) -> Option<Glibc> {
        let (major, minor) = text.split_once('.')?;
        // Patch levels (`2.3.4`) hardly add symbols.
        let minor = minor.split('.').next()?;
        Some(Glibc { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One board.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub name: String,
    /// A key of [`Inventory::targets`].
    pub target: String,
    pub description: Option<String>,
    pub transport: Transport,
    /// Absolute folder on the board for runners, models and inputs.
    pub workdir: String,
    /// Arguments before the runner's own command line, e.g. `qemu-aarch64-static -L /usr/aarch64-linux-gnu`.
    pub runner: Vec<String>,
    /// Its times say nothing about a real board.
    pub emulated: bool,
    /// Whether `--all-devices` includes it.
    pub in_all: bool,
    /// Threads of an inference.
    pub threads: u32,
    /// Absolute folder on the board with the choices of kernels to use as they are. `None`: those in `workdir`, as long
    /// as they are not in doubt.
    pub kernels: Option<String>,
    pub conditions: Conditions,
    pub timeouts: Timeouts,
}

impl Device {
    /// Whether it may be measured beside others. This host is measured alone: builds and emulators disturb it.
    pub fn is_board(&self) -> bool {
        self.emulated || self.transport != Transport::Local
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// This host.
    Local,
    Ssh(SshAddress),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshAddress {
    /// Host name, address, or an alias of the ssh configuration.
    pub host: String,
    pub port: Option<u16>,
    pub user: Option<String>,
    /// Path of a private key.
    pub identity: Option<String>,
    /// `SHA256:…` of the host's public key, as `ssh-keygen -lf` prints it. With it known_hosts is not read.
    pub host_key: Option<String>,
    /// An ssh configuration instead of `~/.ssh/config`.
    pub config: Option<String>,
    /// A known_hosts file instead of `~/.ssh/known_hosts`.
    pub known_hosts: Option<String>,
}

/// The state a board must be in while it is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Set before a session, read back, and restored afterwards.
    pub governor: Option<String>,
    /// The CPUs the runner is pinned to.
    pub cpus: Vec<u32>,
    /// Timing invocations wait up to five minutes for the board to cool down to this. The temperature is recorded.
    pub max_start_celsius: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// A command on the board, from start to end.
    pub command: Duration,
    /// Silence of a running command.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(15),
            command: Duration::from_secs(1800),
            idle: Duration::from_secs(3 * espalier_protocol::HEARTBEAT_SECONDS),
        }
    }
}

/// A trained model, what to prune off it and what it may lose.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: String,
    pub source: Source,
    /// `.npz` with held-out samples (`x`, or one array for each input by its name) and their labels (`y`).
    pub eval: Option<String>,
    /// `.npz` with samples for methods that use activations or gradients.
    pub calibration: Option<String>,
    /// `.npz` with samples for fine-tuning.
    pub train: Option<String>,
    pub recipe: Recipe,
    /// What its answers mean, as far as the file says it.
    pub task: Spec,
    pub budget: Budget,
    /// Whether commands that name no model include it.
    pub in_all: bool,
}

/// Where the dense ONNX file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path from the root, or absolute.
    File(String),
    /// Built on first use, with random weights and so many synthetic samples.
    Build { net: String, samples: u32 },
}

impl Source {
    /// The prefix of a network's name in [`fmt::Display`].
    const BUILD: &'static str = "build:";

    /// The default number of synthetic samples.
    pub const SAMPLES: u32 = 16;

    /// Reads what [`fmt::Display`] writes, which is without the number of samples.
    pub fn parse(text: &str) -> Source {
        match text.strip_prefix(Source::BUILD) {
            Some(net) => Source::Build { net: net.to_owned(), samples: Source::SAMPLES },
            None => Source::File(text.to_owned()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => f.write_str(path),
            Source::Build { net, .. } => write!(f, "{}{net}", Source::BUILD),
        }
    }
}

/// What a release may lose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Accuracy a variant may lose against dense, as a fraction (0.01 is one point).
    pub max_accuracy_drop: Option<f64>,
}
