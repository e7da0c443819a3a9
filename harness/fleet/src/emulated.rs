//! The kernels on processors this host does not have, under qemu's user emulation: their tests, and how many
//! instructions they take.
//!
//! To count instructions, the emulator logs each one it executes: slow, but exact, the same every time, and without a
//! plugin. A kernel runs three times and once, so that what is around it cancels out. Time under emulation says nothing
//! about a board, and instructions say little about time.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use espalier_bench::{
    build_plan::{Layout, Profile},
    command::CommandLine,
};
use espalier_inventory::{Builder, Target};

use crate::{
    build,
    cache::Cache,
    process::{self, Watch},
};

const PACKAGE: &str = "espalier-kernels";

/// How to build for a target and run here what was built.
#[derive(Clone, Debug)]
pub struct Emulated {
    /// cargo, with its environment.
    cargo: CommandLine,
    triple: String,
    folder: String,
    emulator: CommandLine,
}

/// What one run of a kernel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub kernel: String,
    pub instructions: u64,
    /// Multiply-accumulates of a dense one of that size.
    pub multiplications: u64,
}

impl Emulated {
    /// # Errors
    /// The target is not buildable by cargo as things are, or there is no emulator for it.
    pub fn prepare(cache: &Cache, target: &Target) -> Result<Emulated> {
        let plan = build::prepare(cache, target, Layout::USUAL)?.plan;
        let (Builder::Cargo, Some(compiler)) = (plan.builder, &plan.compiler) else {
            bail!("target `{}` is not built by cargo with the system's linker", target.name);
        };
        let cpu = target.triple.split('-').next().unwrap_or_default();
        let cpu = if cpu.starts_with("arm") { "arm" } else { cpu.trim_end_matches("gc") };
        let program = format!("qemu-{cpu}-static");
        if process::which(&program).is_none() {
            bail!("no `{program}` (`apt install qemu-user-static`)");
        }
        let libraries = format!("/usr/{}", compiler.trim_end_matches("-gcc"));
        if !Path::new(&libraries).join("lib").exists() {
            bail!("no `{libraries}`, which comes with `{compiler}`");
        }
        let cargo = CommandLine { env: plan.command.env, argv: plan.command.argv.into_iter().take(1).collect() };
        let emulator = CommandLine::new(program).args(["-L", &libraries]);
        Ok(Emulated { cargo, triple: target.triple.clone(), folder: plan.target_folder, emulator })
    }

    /// Runs the kernels' own tests there. Returns their output, a line a test.
    ///
    /// # Errors
    /// They cannot be built, or one of them fails.
    pub fn tests(&self, repository: &Path, filter: Option<&str>, watch: Watch) -> Result<String> {
        let program =
            self.build(repository, &["test", "--no-run", "--lib", "--profile", Profile::Quick.name()], watch)?;
        let mut command = self.emulator.clone().arg(program.to_string_lossy()).args(["--format", "pretty"]);
        command = command.args(filter);
        Ok(process::run(&command, Some(repository), watch)?)
    }

    /// # Errors
    /// The program that is counted cannot be built or run.
    pub fn instructions(&self, repository: &Path, watch: Watch) -> Result<Vec<Counted>> {
        let program = self.build(repository, &["build", "--example", "instructions", "--release"], watch)?;
        let list = self.emulator.clone().arg(program.to_string_lossy());
        let list = process::run(&list, None, watch)?;
        let count = |line: &str| -> Result<Counted> {
            let (kernel, multiplications) = line.split_once('\t').with_context(|| format!("no kernel: `{line}`"))?;
            watch.go_on()?;
            let instructions = (self.executed(&program, kernel, 3)? - self.executed(&program, kernel, 1)?) / 2;
            Ok(Counted { kernel: kernel.to_owned(), instructions, multiplications: multiplications.parse()? })
        };
        list.lines().map(count).collect()
    }

    /// Instructions of a whole run, the program's start included.
    fn executed(&self, program: &Path, kernel: &str, times: u32) -> Result<u64> {
        let [emulator, rest @ ..] = &*self.emulator.argv else { bail!("no emulator") };
        let mut child = Command::new(emulator)
            // One instruction at a time, each logged.
            .args(["-singlestep", "-d", "exec,nochain", "-D", "/dev/stderr"])
            .args(rest)
            .arg(program)
            .args([kernel, &times.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{emulator}`"))?;
        let mut count = 0;
        for line in BufReader::new(child.stderr.take().context("stderr is piped")?).split(b'\n') {
            count += u64::from(line?.starts_with(b"Trace"));
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{kernel}` under `{emulator}` ended with {status}");
        }
        if count == 0 {
            bail!("`{emulator}` does not log what it executes");
        }
        Ok(count)
    }

    /// Builds a program of the kernels with these arguments of cargo.
    fn build(&self, repository: &Path, args: &[&str], watch: Watch) -> Result<PathBuf> {
        let common = ["--locked", "--package", PACKAGE, "--target", &self.triple];
        let command = self.cargo.clone().args(args.iter().copied()).args(common);
        let command = command.args(["--target-dir", &self.folder, "--message-format", "json-render-diagnostics"]);
        let output = process::run(&command, Some(repository), watch)?;
        let messages = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let program = messages.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?))).next_back();
        program.with_context(|| format!("cargo built no program: `{command}`"))
    }
}
