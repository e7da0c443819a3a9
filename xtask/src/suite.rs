//! `cargo xtask test`: sets up what the tests need, runs them all, and reports what passed, failed and was skipped.
//!
//! Boards boot and Python packages load in the background while crates compile. Nothing is compiled twice: one call of
//! cargo builds every test program of the crates without tract together with `cargo xtask` itself; the crates with
//! tract share profile and build folder with the runner for this host. What cannot run on this host is a skip with its
//! reason, or a failure with `--deny-skips`, never a pass.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use espalier_bench::{
    build_plan::{Layout, Profile},
    exit::ExitStatus,
};
use espalier_fleet::{
    apt,
    boards::{self, Board, BoardKind, Options},
    build,
    cache::Cache,
    cancel::Cancel,
    emulated::Emulated,
    process::Watch,
    python::Environment,
    toolchain,
};

use espalier_cli::{
    context::{Context, usage},
    peers,
    progress::{Progress, stop_on_signal},
    ssh_feature::cargo,
    terminal::note,
};

mod programs;
mod report;

use programs::{Programs, Run, TestProgram};
use report::{Counts, Report};

#[derive(Args)]
pub struct Flags {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only what needs no boards, no cross-building and no network
    #[arg(long)]
    fast: bool,
    /// Fail when a test is skipped
    #[arg(long)]
    deny_skips: bool,
    /// Models of one operator each that are compared with onnxruntime [default: some of each operator]
    #[arg(long, value_name = "N")]
    single_operators: Option<u32>,
}

/// Debian's packages the tests need beyond Rust and a C compiler.
const PACKAGES: [&str; 15] = [
    "gcc-aarch64-linux-gnu",
    "gcc-arm-linux-gnueabihf",
    "gcc-riscv64-linux-gnu",
    "libc6-arm64-cross",
    "libc6-dev-arm64-cross",
    "libc6-dev-armhf-cross",
    "libc6-dev-riscv64-cross",
    "libgcc-s1-arm64-cross",
    "libssl-dev",
    "openssh-client",
    "openssh-server",
    "pkg-config",
    "python3-venv",
    "qemu-user-static",
    "xz-utils",
];

/// Crates that are compiled with tract, which takes minutes.
const WITH_TRACT: [&str; 2] = ["espalier-runner", "espalier-accelerate"];
/// The kernels are part of the runner, and as expensive: their tests use the runner's build of them.
const KERNELS: &str = "espalier-kernels";

/// The SSH code and the end-to-end tests stand behind features.
const FEATURES: &str = "espalier-fleet/ssh,xtask/ssh,espalier-tests/e2e";

/// Test programs that need boards, runners and the program under test.
const END_TO_END: [&str; 2] = ["e2e", "faults"];
/// The test program of the transport, and its tests that need boards that are up.
const TRANSPORT: &str = "fleet";
const ON_BOARDS: &str = "named::";

/// Targets whose runners are built and run on emulated boards.
pub const TARGETS: [&str; 3] = ["aarch64-gnu", "armv7-gnu", "riscv64-gnu"];

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let mut suite = Suite {
        sources: context.sources()?.to_owned(),
        skips: context.cache.folder("tests")?.join(format!("skips-{}", std::process::id())),
        report: Report::new(flags.deny_skips),
        filter: flags.filter,
        single_operators: flags.single_operators.map(|count| count.to_string()).unwrap_or_default(),
        context,
    };
    let _ = fs::remove_file(&suite.skips);
    if flags.fast {
        suite.fast();
    } else {
        suite.everything()?;
    }
    suite.report.summarise()
}

struct Suite {
    context: Context,
    sources: PathBuf,
    /// Where tests that skip write `NAME: reason`, a line each.
    skips: PathBuf,
    report: Report,
    filter: Option<String>,
    /// Empty for the usual number.
    single_operators: String,
}

impl Suite {
    fn fast(&mut self) {
        self.format();
        self.clippy(&without_tract(&[]));
        let mut programs = Programs::default();
        self.report.step("build the unit tests", || {
            programs = programs::build(tests_of(&without_tract(&[])), &self.sources)?;
            Ok(Counts::default())
        });
        self.unit_tests(&programs);
    }

    fn everything(&mut self) -> Result<()> {
        let say = |text: &str| note(format_args!("  {text}"));
        let cancel = stop_on_signal(&Progress::new(false))?;
        let watch = Watch { cancel: &cancel, progress: &say };
        self.report.announce("system packages");
        apt::ensure_packages(&PACKAGES, watch)?;
        let background = Background::start(&self.context.cache, &cancel);

        self.format();
        self.clippy(&["--workspace", "--features", FEATURES]);
        self.documentation();
        let mut programs = Programs::default();
        self.report.step("build the test programs", || {
            let packages = without_tract(&["--exclude", KERNELS, "--features", FEATURES]);
            programs = programs::build(tests_of(&packages), &self.sources)?;
            Ok(Counts::default())
        });
        self.unit_tests(&programs);
        let xtask = self.keep_xtask(&programs)?;
        self.build_runners(&xtask, watch)?;
        self.runner_tests()?;
        self.kernels_elsewhere(watch)?;
        let (python, started) = self.wait_for(background)?;
        self.boards_over_ssh(&programs);
        self.end_to_end(&programs, &xtask, python.as_deref());
        // Boards that were up before stay up.
        for kind in started {
            boards::down(&self.context.cache, kind)?;
        }
        Ok(())
    }

    fn format(&mut self) {
        self.lint("cargo fmt", "fmt", || {
            let mut command = cargo();
            command.args(["fmt", "--all", "--check"]);
            command
        });
    }

    fn clippy(&mut self, packages: &[&str]) {
        self.lint("cargo clippy", "clippy", || {
            let mut command = cargo();
            command.args(["clippy", "--quiet", "--all-targets"]).args(packages).args(["--", "-D", "warnings"]);
            command
        });
    }

    fn documentation(&mut self) {
        self.lint("cargo doc", "rustdoc", || {
            let mut command = cargo();
            command.args(["doc", "--quiet", "--no-deps", "--keep-going", "--workspace", "--features", FEATURES]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            command
        });
    }

    /// A command that has to succeed, of a part of cargo that not every toolchain has.
    fn lint(&mut self, name: &str, part: &str, command: impl FnOnce() -> Command) {
        let sources = &self.sources;
        self.report.step(name, || {
            // rustdoc is a program beside cargo, the others are cargo's own.
            let mut version = if part == "rustdoc" { Command::new(part) } else { cargo() };
            version.args((part != "rustdoc").then_some(part)).arg("--version");
            let there = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !there.is_ok_and(|status| status.success()) {
                return Ok(Counts::skipped(format!("{name}: this toolchain does not have it")));
            }
            let status = command().current_dir(sources).status().context("cannot run `cargo`")?;
            Ok(if status.success() { Counts::passed() } else { Counts::failed(format!("it ended with {status}")) })
        });
    }

    fn unit_tests(&mut self, programs: &Programs) {
        let programs: Vec<_> = programs.tests.iter().filter(|program| !END_TO_END.contains(&&*program.name)).collect();
        self.tests("unit and property tests", &programs, |run| Run { without: Some(ON_BOARDS), ..run });
    }

    /// The program under test, beside the build folder: building other features of it meanwhile would replace it.
    fn keep_xtask(&self, programs: &Programs) -> Result<PathBuf> {
        let program = programs.xtask.as_deref().context("cargo built no `xtask`")?;
        let copy = self.context.cache.folder("tests")?.join("xtask");
        fs::copy(program, &copy).with_context(|| format!("cannot write `{}`", copy.display()))?;
        Ok(copy)
    }

    fn build_runners(&mut self, xtask: &Path, watch: Watch) -> Result<()> {
        let inventory = self.context.inventory(&|_| false)?;
        for name in ["host"].into_iter().chain(TARGETS) {
            let target = inventory.target(name).map_err(|error| usage(error.to_string()))?;
            self.report.step(&format!("build the runner for {name}"), || {
                toolchain::setup(&self.context.cache, target, None, watch)?;
                let mut build = Command::new(xtask);
                build.args(["build", "--target", name]).env(Profile::VARIABLE, Profile::Quick.name());
                let status = build.current_dir(&self.sources).status().context("cannot run `xtask`")?;
                Ok(if status.success() { Counts::passed() } else { Counts::failed(format!("it ended with {status}")) })
            });
        }
        Ok(())
    }

    /// Unit tests of the crates a runner is made of. They share all other crates with the runner for this host: its
    /// profile, folder and flags.
    fn runner_tests(&mut self) -> Result<()> {
        let inventory = self.context.inventory(&|_| false)?;
        let host = inventory.target("host").map_err(|error| usage(error.to_string()))?;
        let mut programs = Programs::default();
        let plan = build::prepare(&self.context.cache, host, Layout::USUAL)?.plan;
        let shared = |cargo: &mut Command| {
            cargo.args(["--profile", Profile::Quick.name(), "--target", &host.triple]);
            cargo.args(["--target-dir", &plan.target_folder]).envs(plan.command.env.iter().cloned());
        };
        self.report.step("build the tests of the runner", || {
            let mut cargo = tests_of(&packages_named(&[&WITH_TRACT[..], &[KERNELS]].concat()));
            shared(&mut cargo);
            programs = programs::build(cargo, &self.sources)?;
            Ok(Counts::default())
        });
        self.tests("tests of the runner", &programs.tests.iter().collect::<Vec<_>>(), |run| run);
        self.report.step("documentation tests", || {
            let mut cargo = cargo();
            cargo.args(["test", "--doc", "--quiet", "--package", KERNELS]);
            shared(&mut cargo);
            cargo.arg("--").args(&self.filter).args(["--format", "pretty"]).current_dir(&self.sources);
            programs::run(cargo, KERNELS)
        });
        Ok(())
    }

    /// The kernels' tests under emulation: every kernel against plain arithmetic, with that processor's vectors.
    fn kernels_elsewhere(&mut self, watch: Watch) -> Result<()> {
        let inventory = self.context.inventory(&|_| false)?;
        let quiet = Watch { cancel: watch.cancel, progress: &|_| () };
        for name in TARGETS {
            let target = inventory.target(name).map_err(|error| usage(error.to_string()))?;
            let step = format!("kernels on {name}, emulated");
            self.report.step(&step, || {
                let emulated = match Emulated::prepare(&self.context.cache, target) {
                    Ok(emulated) => emulated,
                    Err(why) => return Ok(Counts::skipped(format!("{step}: {why:#}"))),
                };
                let output = emulated.tests(&self.sources, self.filter.as_deref(), quiet)?;
                let mut counts = Counts::default();
                for line in output.lines() {
                    programs::count_line(line, &mut counts);
                }
                Ok(counts)
            });
        }
        Ok(())
    }

    /// The interpreter of the Python environment, and the boards that were started.
    fn wait_for(&mut self, background: Background) -> Result<(Option<PathBuf>, Vec<BoardKind>)> {
        self.report.announce("waiting for emulated boards and Python packages");
        let (python, boards) = background.wait()?;
        let mut started = Vec::new();
        for (kind, up) in boards {
            match up {
                Ok(board) => started.extend(board.boot.map(|_| kind)),
                Err(error) => {
                    self.report.add(&format!("board {kind}"), Counts::failed(format!("{error:#}")), Duration::ZERO);
                }
            }
        }
        if let Err(error) = &python {
            note(format_args!("  no Python packages: {error:#}"));
        }
        Ok((python.ok(), started))
    }

    /// The transport alone, against dropbear and busybox.
    fn boards_over_ssh(&mut self, programs: &Programs) {
        let boards: Vec<&str> = BoardKind::ALL.iter().map(|kind| kind.name()).collect();
        let config = self.context.cache.root.join("boards/ssh_config");
        let value = format!("{}:{}", config.display(), boards.join(","));
        let programs: Vec<_> = programs.tests.iter().filter(|program| program.name == TRANSPORT).collect();
        let filter = self.filter.clone().unwrap_or_else(|| ON_BOARDS.to_owned());
        let environment = [("ESPALIER_TEST_BOARDS", &*value)];
        self.tests("transport to the boards", &programs, |run| Run {
            filter: Some(&filter),
            environment: &environment,
            ..run
        });
    }

    /// Real boards, a real sshd, real faults, through the real program.
    fn end_to_end(&mut self, programs: &Programs, xtask: &Path, python: Option<&Path>) {
        let (xtask, python) = (xtask.to_string_lossy(), python.map(Path::to_string_lossy).unwrap_or_default());
        let single_operators = self.single_operators.clone();
        let environment = [
            ("ESPALIER_XTASK", &*xtask),
            ("ESPALIER_PYTHON", &*python),
            ("ESPALIER_SINGLE_OPERATORS", &*single_operators),
            // Speed is not what these tests look at.
            (Profile::VARIABLE, Profile::Quick.name()),
        ];
        // One program after the other: what the second does to the boards would disturb the first.
        let programs = END_TO_END.iter().filter_map(|name| programs.tests.iter().find(|program| program.name == *name));
        let programs: Vec<_> = programs.collect();
        self.tests("end-to-end tests", &programs, |run| Run { environment: &environment, ..run });
    }

    fn tests<'a>(&'a mut self, name: &str, programs: &[&TestProgram], how: impl FnOnce(Run<'a>) -> Run<'a>) {
        let run = Run { filter: self.filter.as_deref(), without: None, environment: &[], skips: &self.skips };
        self.report.step(name, || how(run).all(programs));
    }
}

/// Emulated boards and Python packages: network and waiting.
struct Background(thread::JoinHandle<(Result<PathBuf>, BoardResults)>);

type BoardResults = Vec<(BoardKind, Result<Board>)>;

impl Background {
    fn start(cache: &Cache, cancel: &Cancel) -> Background {
        let (cache, cancel) = (cache.clone(), cancel.clone());
        Background(thread::spawn(move || {
            let python = prepare_python(&cache, &cancel);
            let up = |kind: &BoardKind| boards::up(&cache, *kind, &Options::default(), &|_| (), &cancel);
            (python, BoardKind::ALL.iter().map(|kind| (*kind, up(kind))).collect())
        }))
    }

    fn wait(self) -> Result<(Result<PathBuf>, BoardResults)> {
        self.0.join().map_err(|_| anyhow!("the preparation of the boards panicked"))
    }
}

/// All packages but those with tract, and these arguments.
fn without_tract<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let excluded = WITH_TRACT.iter().flat_map(|package| ["--exclude", package]);
    ["--workspace"].into_iter().chain(excluded).chain(more.iter().copied()).collect()
}

fn packages_named<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--package", name]).collect()
}

/// Builds test programs of packages; examples are compiled by clippy.
fn tests_of(packages: &[&str]) -> Command {
    let mut cargo = cargo();
    cargo.args(["test", "--tests"]).args(packages);
    cargo
}

/// The interpreter of an environment with onnxruntime, the independent engine that accuracies are compared with.
fn prepare_python(cache: &Cache, cancel: &Cancel) -> Result<PathBuf> {
    let environment = Environment {
        folder: "tests/python",
        packages: &["onnx", peers::ONNXRUNTIME, "numpy"],
        modules: "onnx, onnxruntime, numpy",
    };
    environment.interpreter(cache, Watch { cancel, progress: &|_| () })
}
