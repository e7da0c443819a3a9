//! What a program requires of a board, read from its ELF file, and whether a board has it.
//!
//! Checked before anything is pushed: a mismatch would be "not found", "exec format error" or a crash on the board. The
//! file is untrusted input, so reading never panics. [`PROBE`], a shell script, finds out what a board has.

use anyhow::{Context, Result};
use espalier_inventory::{Glibc, Libc, Target};
use object::{
    Endianness,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{Dyn, FileHeader, ProgramHeader},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfInfo {
    pub machine: Machine,
    /// 32 or 64.
    pub bits: u8,
    pub big_endian: bool,
    /// How floats are passed, where the machine has several ways (ARM, RISC-V).
    pub float_abi: Option<FloatAbi>,
    /// The dynamic loader; a static program has none.
    pub interpreter: Option<String>,
    /// Shared libraries, in the file's order.
    pub needed: Vec<String>,
    /// The newest glibc version that a symbol requires.
    pub glibc: Option<Glibc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    X86,
    X86_64,
    Arm,
    Aarch64,
    Riscv,
    /// `e_machine` of any other.
    Other(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatAbi {
    Soft,
    /// ARM: in floating-point registers.
    Hard,
    /// RISC-V: floats up to single precision in floating-point registers.
    Single,
    /// RISC-V: up to double precision.
    Double,
    /// RISC-V: up to quadruple precision.
    Quad,
}

/// Reads the facts of an ELF program or library.
///
/// # Errors
/// It is no ELF file, or a damaged one.
pub fn read(bytes: &[u8]) -> Result<ElfInfo> {
    match object::FileKind::parse(bytes).context("it is not an ELF file")? {
        object::FileKind::Elf32 => read_class::<FileHeader32<Endianness>>(bytes, 32),
        object::FileKind::Elf64 => read_class::<FileHeader64<Endianness>>(bytes, 64),
        other => anyhow::bail!("it is not an ELF file but {other:?}"),
    }
}

/// Every reason why this program cannot run on that board, as a sentence; an unknown fact is no reason.
pub fn check(elf: &ElfInfo, board: &BoardLibc, target: &Target) -> Vec<String> {
    if !runs_on(elf, &target.triple, &board.machine) {
        // Further reasons would only repeat this one.
        let built = built_for(elf, &target.triple);
        return vec![format!("built for `{built}` (target `{}`), but the board says `{}`", target.name, board.machine)];
    }
    let mut mismatches = Vec::new();
    let (glibc, has_loader) = board.for_program(elf);
    if let (Some(interpreter), Some(false)) = (&elf.interpreter, has_loader) {
        mismatches.push(format!(
            "needs the loader `{interpreter}`, which the board does not have ({}): set `static = true` in target `{}`",
            match elf.float_abi {
                Some(FloatAbi::Hard) => "another libc, or another float ABI than hard float",
                Some(FloatAbi::Soft) => "another libc, or another float ABI than soft float",
                _ => "another libc, or none",
            },
            target.name
        ));
    } else if let (Some(needed), Some(present)) = (elf.glibc, glibc)
        && needed > present
    {
        mismatches.push(format!(
            "needs GLIBC_{needed}, the board has {present}: set `glibc = \"{present}\"` with `builder = \"zigbuild\"`, \
             or `static = true`, in target `{}`",
            target.name
        ));
    }
    mismatches
}

/// Why a program cannot be one of this target's, whatever the board; `None` where it can, or that is not known.
pub fn misfit(elf: &ElfInfo, target: &Target) -> Option<String> {
    let machine = match target.triple.split('-').next().unwrap_or_default() {
        arch if arch.starts_with("riscv") => arch.get(..7)?,
        arch if arch.starts_with("armv7") || arch.starts_with("thumbv7") => "armv7l",
        arch if arch.starts_with("arm") => "armv6l",
        arch @ ("aarch64" | "x86_64" | "i586" | "i686") => arch,
        _ => return None,
    };
    // Which ARM it is, only its own triple says.
    let built = built_for(elf, "arm");
    let why = || format!("is built for `{built}`, but target `{}` is `{}`", target.name, target.triple);
    (!runs_on(elf, &target.triple, machine)).then(why)
}

/// Every promise of its target that a built program breaks; no board is needed for that.
pub fn check_target(elf: &ElfInfo, target: &Target) -> Vec<String> {
    let mut mismatches = Vec::new();
    match target.libc {
        Libc::Any => {}
        Libc::Floor(floor) => {
            if let Some(needed) = elf.glibc.filter(|needed| *needed > floor) {
                mismatches.push(format!(
                    "needs GLIBC_{needed}, but target `{}` promises `glibc = \"{floor}\"`: the builder took this \
                     host's newer libc; set `builder = \"zigbuild\"` (`cargo xtask setup` brings it), or \
                     `static = true`",
                    target.name
                ));
            }
        }
        Libc::Static => {
            if let Some(interpreter) = &elf.interpreter {
                mismatches.push(format!(
                    "target `{}` promises `static = true`, but the program needs the loader `{interpreter}`",
                    target.name
                ));
            }
        }
    }
    mismatches
}

/// A script for any POSIX shell that prints what [`BoardLibc::parse`] reads. Works without `ldd`, `getconf` and
/// `strings`; what it does not find it leaves out.
pub const PROBE: &str = r#"LC_ALL=C; export LC_ALL
echo "machine $(uname -m)"
for loader in /lib/ld-*.so.[0-9]* /lib64/ld-*.so.[0-9]* /lib/ld.so.[0-9]*; do
  [ -e "$loader" ] && echo "loader $loader $("$loader" --version 2>/dev/null | head -n 1)"
done
echo "libc $(getconf GNU_LIBC_VERSION 2>/dev/null)"
echo "libc $(ldd --version 2>/dev/null | head -n 1)"
for libc in /lib/libc.so.6 /lib64/libc.so.6 /lib/*/libc.so.6 /usr/lib/libc.so.6; do
  [ -x "$libc" ] && echo "libc $("$libc" 2>/dev/null | head -n 1)"
done
:
"#;

/// Loaders and libc of a board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardLibc {
    pub machine: String,
    /// Path of each loader, one for each ABI, and its own glibc version where it has one (since 2.33).
    pub loaders: Vec<(String, Option<Glibc>)>,
    /// The version of the libc the board's own programs use.
    pub glibc: Option<Glibc>,
}

impl BoardLibc {
    /// Reads the output of [`PROBE`]. Skips unknown lines: a login message may be among them.
    pub fn parse(output: &str) -> BoardLibc {
        let mut board = BoardLibc::default();
        for line in output.lines() {
            match line.split_once(' ') {
                Some(("machine", machine)) if board.machine.is_empty() => board.machine = machine.trim().to_owned(),
                Some(("loader", text)) => {
                    let (path, banner) = text.split_once(' ').unwrap_or((text, ""));
                    if !board.loaders.iter().any(|(known, _)| known == path) {
                        board.loaders.push((path.to_owned(), glibc_in(banner)));
                    }
                }
                Some(("libc", banner)) => board.glibc = board.glibc.or_else(|| glibc_in(banner)),
                _ => {}
            }
        }
        board
    }

    /// The glibc that a program would use, and whether its loader is there, as far as that is known.
    fn for_program(&self, elf: &ElfInfo) -> (Option<Glibc>, Option<bool>) {
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let loader = elf.interpreter.as_deref().map(|interpreter| {
            self.loaders.iter().find(|(path, _)| path == interpreter).or_else(|| {
                // `/lib64` may be a link to `/lib`, and the probe may have listed the other one only.
                self.loaders.iter().find(|(path, _)| name(path) == name(interpreter))
            })
        });
        let glibc = loader.flatten().and_then(|(_, glibc)| *glibc).or(self.glibc);
        // Where the probe found no loader at all, the probe did not work.
        (glibc, loader.filter(|_| !self.loaders.is_empty()).map(|loader| loader.is_some()))
    }
}

/// The version in a banner of glibc, not musl: `glibc 2.36`, `ldd (Debian GLIBC 2.36-9) 2.36`, `… version 2.36.`.
fn glibc_in(banner: &str) -> Option<Glibc> {
    let lower = banner.to_ascii_lowercase();
    if !(lower.contains("glibc") || lower.contains("gnu libc") || lower.contains("gnu c library")) {
        return None;
    }
    let parts = banner.split([' ', '(', ')', ',']).rev();
    parts.filter_map(|part| Glibc::parse(part.trim_end_matches('.'))).next()
}

fn built_for(elf: &ElfInfo, triple: &str) -> String {
    let float = match elf.float_abi {
        Some(FloatAbi::Hard) => ", hard float",
        Some(FloatAbi::Soft) => ", soft float",
        _ => "",
    };
    match elf.machine {
        Machine::X86 => "x86".to_owned(),
        Machine::X86_64 => "x86_64".to_owned(),
        Machine::Aarch64 => "aarch64".to_owned(),
        Machine::Arm => format!("{}{float}", triple.split('-').next().unwrap_or("arm")),
        Machine::Riscv => format!("riscv{}", elf.bits),
        Machine::Other(number) => format!("machine {number}"),
    }
}

/// Whether a kernel that calls itself `machine` can run it. 64-bit kernels run 32-bit programs where the loader is
/// there, which is checked separately.
fn runs_on(elf: &ElfInfo, triple: &str, machine: &str) -> bool {
    match elf.machine {
        Machine::X86_64 => machine == "x86_64",
        Machine::X86 => matches!(machine, "x86_64" | "i386" | "i486" | "i586" | "i686"),
        Machine::Aarch64 => machine == if elf.big_endian { "aarch64_be" } else { "aarch64" },
        Machine::Riscv => machine == format!("riscv{}", elf.bits),
        Machine::Arm => {
            // Code for v7 does not run on a v6 board (the first Raspberry Pi, the Zero).
            let built = if triple.starts_with("armv7") || triple.starts_with("thumbv7") { 7 } else { 0 };
            let generation = machine.strip_prefix("armv").and_then(|rest| rest.chars().next()?.to_digit(10));
            machine == "aarch64" || generation.is_some_and(|generation| generation >= built)
        }
        // Not in this table, which is no reason to refuse.
        Machine::Other(_) => true,
    }
}

fn read_class<Header: FileHeader<Endian = Endianness>>(bytes: &[u8], bits: u8) -> Result<ElfInfo> {
    let damaged = "a damaged ELF file";
    let header = Header::parse(bytes).context(damaged)?;
    let endian = header.endian().context(damaged)?;
    let mut interpreter = None;
    for segment in header.program_headers(endian, bytes).context(damaged)? {
        if let Some(path) = segment.interpreter(endian, bytes).context(damaged)? {
            interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let sections = header.sections(endian, bytes).context(damaged)?;
    let mut needed = Vec::new();
    if let Some((entries, link)) = sections.dynamic(endian, bytes).context(damaged)? {
        let strings = sections.strings(endian, bytes, link).context(damaged)?;
        for entry in entries {
            if entry.tag(endian) == elf::DT_NEEDED {
                let name = entry.string(endian, strings).context(damaged)?;
                needed.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    let mut glibc = None;
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes).context(damaged)? {
        let strings = sections.strings(endian, bytes, link).context(damaged)?;
        while let Some((_, mut versions)) = libraries.next().context(damaged)? {
            while let Some(version) = versions.next().context(damaged)? {
                let name = String::from_utf8_lossy(version.name(endian, strings).context(damaged)?);
                glibc = glibc.max(name.strip_prefix("GLIBC_").and_then(Glibc::parse));
            }
        }
    }
    let machine = header.e_machine(endian);
    let flags = header.e_flags(endian).0;
    Ok(ElfInfo {
        machine: match machine {
            elf::EM_386 => Machine::X86,
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_ARM => Machine::Arm,
            elf::EM_AARCH64 => Machine::Aarch64,
            elf::EM_RISCV => Machine::Riscv,
            other => Machine::Other(other.0),
        },
        bits,
        big_endian: header.is_big_endian(),
        float_abi: match machine {
            elf::EM_ARM if flags & elf::EF_ARM_ABI_FLOAT_HARD != 0 => Some(FloatAbi::Hard),
            elf::EM_ARM if flags & elf::EF_ARM_ABI_FLOAT_SOFT != 0 => Some(FloatAbi::Soft),
            elf::EM_RISCV => Some(match header.e_flags(endian).riscv_float_abi() {
                elf::EF_RISCV_FLOAT_ABI_QUAD => FloatAbi::Quad,
                elf::EF_RISCV_FLOAT_ABI_DOUBLE => FloatAbi::Double,
                elf::EF_RISCV_FLOAT_ABI_SINGLE => FloatAbi::Single,
                _ => FloatAbi::Soft,
            }),
            _ => None,
        },
        interpreter,
        needed,
        glibc,
    })
}

#[cfg(test)]
mod tests;
