//! Which emulated boards there are, and what each is made of.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BoardKind {
    Aarch64,
    Armv7,
    Riscv64,
}

impl BoardKind {
    pub const ALL: [BoardKind; 3] = [BoardKind::Aarch64, BoardKind::Armv7, BoardKind::Riscv64];

    /// Also the name of the device file, the ssh host and the folder of state.
    pub fn name(self) -> &'static str {
        match self {
            BoardKind::Aarch64 => "virt-aarch64",
            BoardKind::Armv7 => "virt-armv7",
            BoardKind::Riscv64 => "virt-riscv64",
        }
    }

    pub(super) fn recipe(self) -> Recipe {
        match self {
            BoardKind::Aarch64 => Recipe {
                architecture: "arm64",
                kernel: "linux-image-arm64",
                further_suites: &[],
                qemu: "qemu-system-aarch64",
                machine: "virt",
                cpu: "cortex-a72",
                console: "ttyAMA0",
            },
            BoardKind::Armv7 => Recipe {
                architecture: "armhf",
                kernel: "linux-image-armmp",
                further_suites: &[],
                qemu: "qemu-system-arm",
                // With `highmem` the PCI window is where this kernel does not look for it, and there is no network.
                machine: "virt,highmem=off",
                cpu: "cortex-a15",
                console: "ttyAMA0",
            },
            BoardKind::Riscv64 => Recipe {
                architecture: "riscv64",
                kernel: "linux-image-riscv64",
                // Debian 12 does not have the architecture; released ones go first.
                further_suites: &["trixie", "sid"],
                qemu: "qemu-system-riscv64",
                machine: "virt",
                cpu: "rv64,v=true,vlen=128",
                console: "ttyS0",
            },
        }
    }
}

impl fmt::Display for BoardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BoardKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<BoardKind> {
        BoardKind::ALL.into_iter().find(|kind| kind.name() == text).with_context(|| {
            let names: Vec<String> = BoardKind::ALL.iter().map(|kind| format!("`{kind}`")).collect();
            format!("there is no emulated board `{text}`, only {}", names.join(", "))
        })
    }
}

/// What a board is made of.
pub(super) struct Recipe {
    /// dpkg's name.
    pub architecture: &'static str,
    /// The kernel's metapackage.
    pub kernel: &'static str,
    /// Suites to try when the host's own lacks a package.
    pub further_suites: &'static [&'static str],
    pub qemu: &'static str,
    pub machine: &'static str,
    pub cpu: &'static str,
    /// The kernel's name of the serial line.
    pub console: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in BoardKind::ALL {
            assert_eq!(kind.name().parse::<BoardKind>().unwrap(), kind);
        }
        let message = "virt-arm".parse::<BoardKind>().unwrap_err().to_string();
        assert_eq!(message, "there is no emulated board `virt-arm`, only `virt-aarch64`, `virt-armv7`, `virt-riscv64`");
    }
}
