//! `cargo xtask test`: sets up what the tests need, runs them all, and says what ran, what failed, what was skipped and why, and how long it took.
//!
//! Boards boot and Python packages load (network and waiting) while crates and runners build (CPU). What cannot be had on this host is a skip with its
//! reason in the summary, never a pass.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use espalier_bench::{build_plan::Layout, exit::ExitStatus};
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
use espalier_inventory::Target;

use espalier_cli::{
    context::{Context, usage},
    peers,
    progress::{Progress, stop_on_signal},
    ssh_feature::{self, cargo},
};

#[derive(Args)]
pub struct Flags {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only what needs no boards, no cross-building and no network: seconds
    #[arg(long)]
    fast: bool,
}

/// What the whole may take on two cores, cold; printed beside what it took.
const BUDGET: Duration = Duration::from_secs(90 * 60);

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

/// Tests of the transport that need boards that are up.
const ON_BOARDS: &str = "named::";

/// Targets whose runners are built and run on emulated boards.
pub const TARGETS: [&str; 3] = ["aarch64-gnu", "armv7-gnu", "riscv64-gnu"];

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let mut suite = Suite {
        start: Instant::now(),
        skips: context.cache.folder("tests")?.join(format!("skips-{}", std::process::id())),
        steps: Vec::new(),
        filter: flags.filter,
        context,
    };
    let _ = fs::remove_file(&suite.skips);
    if flags.fast {
        suite.lints(false)?;
        suite.unit_tests(false)?;
    } else {
        suite.everything()?;
    }
    suite.summary()
}

struct Suite {
    context: Context,
    start: Instant,
    /// Where tests that skip write `NAME: reason`, a line each.
    skips: PathBuf,
    steps: Vec<Step>,
    filter: Option<String>,
}

#[derive(Default)]
struct Step {
    name: String,
    passed: u64,
    failed: Vec<String>,
    skipped: Vec<String>,
    took: Duration,
}

impl Suite {
    fn everything(&mut self) -> Result<()> {
        let say = |text: &str| eprintln!("  {text}");
        let cancel = stop_on_signal(&Progress::new(false))?;
        let watch = Watch { cancel: &cancel, progress: &say };
        self.say("system packages");
        apt::ensure_packages(&PACKAGES, watch)?;

        let (cache, asked) = (self.context.cache.clone(), cancel.clone());
        let waiting = std::thread::spawn(move || {
            let python = prepare_python(&cache, &asked);
            let boards: Vec<(BoardKind, Result<Board>)> = BoardKind::ALL
                .iter()
                .map(|kind| {
                    let up = boards::up(&cache, *kind, &Options::default(), &|_| (), &asked);
                    (*kind, up)
                })
                .collect();
            (python, boards)
        });

        self.lints(true)?;
        self.unit_tests(true)?;
        self.build_runners(watch)?;
        self.runner_tests()?;
        self.kernels_elsewhere(watch)?;
        self.say("waiting for emulated boards and Python packages");
        let (python, boards) = waiting.join().map_err(|_| anyhow::anyhow!("the preparation of the boards panicked"))?;
        let mut started = Vec::new();
        for (kind, up) in boards {
            match up {
                Ok(board) => started.extend(board.boot.map(|_| kind)),
                Err(error) => self.steps.push(Step {
                    name: format!("board {kind}"),
                    failed: vec![format!("{error:#}")],
                    ..Step::default()
                }),
            }
        }
        if let Err(error) = &python {
            eprintln!("  no Python packages: {error:#}");
        }
        self.boards_over_ssh()?;
        let done = self.end_to_end(python.ok().as_deref());
        // Boards that were up before are somebody's.
        for kind in started {
            boards::down(&self.context.cache, kind)?;
        }
        done
    }

    /// Formatting and clippy, where the toolchain has them.
    fn lints(&mut self, with_tract: bool) -> Result<()> {
        // The SSH code and the end-to-end tests stand behind features.
        let mut clippy = vec!["clippy", "--quiet", "--workspace", "--all-targets"];
        clippy.extend(["--features", "espalier-fleet/ssh,espalier-tests/e2e"]);
        if !with_tract {
            clippy.extend(WITH_TRACT.iter().flat_map(|package| ["--exclude", package]));
        }
        clippy.extend(["--", "-D", "warnings"]);
        for (name, args) in [("cargo fmt", &["fmt", "--all", "--check"][..]), ("cargo clippy", &clippy)] {
            self.say(name);
            let start = Instant::now();
            let mut step = Step { name: name.to_owned(), ..Step::default() };
            let there = cargo().arg(args[0]).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if there.is_ok_and(|status| status.success()) {
                match cargo().args(args).current_dir(self.context.sources()?).status() {
                    Ok(status) if status.success() => step.passed = 1,
                    _ => step.failed.push(name.to_owned()),
                }
            } else {
                step.skipped.push(format!("{name}: this toolchain does not have it"));
            }
            step.took = start.elapsed();
            self.steps.push(step);
        }
        Ok(())
    }

    fn unit_tests(&mut self, with_ssh: bool) -> Result<()> {
        let mut args = vec!["test", "--workspace", "--no-fail-fast"];
        args.extend(WITH_TRACT.iter().flat_map(|package| ["--exclude", package]));
        if with_ssh {
            args.extend(["--features", "espalier-fleet/ssh"]);
            return self.cargo_test_but("unit and property tests", &args, &[], &[ON_BOARDS]);
        }
        self.cargo_test("unit and property tests", &args, &[])
    }

    /// tract is built once more for them, unoptimised: a profile that aborts on panic cannot run tests.
    fn runner_tests(&mut self) -> Result<()> {
        let mut args = vec!["test", "--no-fail-fast"];
        args.extend(WITH_TRACT.iter().flat_map(|package| ["--package", package]));
        self.cargo_test("tests of the runner", &args, &[])
    }

    fn build_runners(&mut self, watch: Watch) -> Result<()> {
        let inventory = self.context.inventory(&|_| false)?;
        for name in ["host"].into_iter().chain(TARGETS) {
            self.say(&format!("runner for {name}"));
            let start = Instant::now();
            let target = inventory.target(name).map_err(|error| usage(error.to_string()))?;
            let mut step = Step { name: format!("build the runner for {name}"), ..Step::default() };
            match self.build_runner(target, watch) {
                Ok(()) => step.passed = 1,
                Err(error) => step.failed.push(format!("{error:#}")),
            }
            step.took = start.elapsed();
            self.steps.push(step);
        }
        Ok(())
    }

    fn build_runner(&self, target: &Target, watch: Watch) -> Result<()> {
        toolchain::setup(&self.context.cache, target, None, watch)?;
        // cargo's own lines, one a crate, would bury the rest.
        let quiet = Watch { cancel: watch.cancel, progress: &|_| () };
        let artifact = build::build(&self.context.cache, self.context.sources()?, target, Layout::USUAL, quiet)?;
        (watch.progress)(&format!(
            "{:.1} MB, {}{}",
            artifact.bytes as f64 / 1e6,
            artifact.builder,
            if artifact.cached { ", from the cache" } else { "" }
        ));
        Ok(())
    }

    /// The kernels' tests on processors this host does not have: every kernel against plain arithmetic, with the vectors they have there.
    fn kernels_elsewhere(&mut self, watch: Watch) -> Result<()> {
        let inventory = self.context.inventory(&|_| false)?;
        let quiet = Watch { cancel: watch.cancel, progress: &|_| () };
        for name in TARGETS {
            self.say(&format!("kernels on {name}, emulated"));
            let start = Instant::now();
            let target = inventory.target(name).map_err(|error| usage(error.to_string()))?;
            let mut step = Step { name: format!("kernels on {name}, emulated"), ..Step::default() };
            match Emulated::prepare(&self.context.cache, target) {
                Err(why) => step.skipped.push(format!("{}: {why:#}", step.name)),
                Ok(emulated) => match emulated.tests(self.context.sources()?, self.filter.as_deref(), quiet) {
                    Ok(told) => step.passed = told.lines().filter(|line| line.ends_with(" ... ok")).count() as u64,
                    Err(error) => step.failed.push(format!("{error:#}")),
                },
            }
            step.took = start.elapsed();
            self.steps.push(step);
        }
        Ok(())
    }

    /// The transport alone, against dropbear and busybox.
    fn boards_over_ssh(&mut self) -> Result<()> {
        let boards: Vec<&str> = BoardKind::ALL.iter().map(|kind| kind.name()).collect();
        let config = self.context.cache.root.join("boards/ssh_config");
        let named = format!("{}:{}", config.display(), boards.join(","));
        let args = ["test", "--package", "espalier-fleet", "--features", "ssh", "--test", "fleet", ON_BOARDS];
        self.cargo_test("transport to the boards", &args, &[("ESPALIER_TEST_BOARDS", &named)])
    }

    /// Real boards, a real sshd, real faults, through the real program.
    fn end_to_end(&mut self, python: Option<&Path>) -> Result<()> {
        self.say("cargo xtask with SSH, for the end-to-end tests");
        let program = ssh_feature::build(&self.context, "ssh")?;
        // A copy: building other features of xtask meanwhile would replace it.
        let copy = self.context.cache.folder("tests")?.join("xtask");
        fs::copy(&program, &copy).with_context(|| format!("cannot write `{}`", copy.display()))?;
        let python = python.map(|python| python.to_string_lossy().into_owned()).unwrap_or_default();
        let environment = [("ESPALIER_XTASK", &*copy.to_string_lossy()), ("ESPALIER_PYTHON", &python)];
        let args = ["test", "--package", "espalier-tests", "--features", "e2e", "--no-fail-fast"];
        self.cargo_test("end-to-end tests", &args, &environment)
    }

    /// Runs cargo's test programs and counts what they say, a line a test.
    fn cargo_test(&mut self, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        self.cargo_test_but(name, args, environment, &[])
    }

    /// Without the tests whose name contains one of `others`: those are a step of their own.
    fn cargo_test_but(
        &mut self,
        name: &str,
        args: &[&str],
        environment: &[(&str, &str)],
        others: &[&str],
    ) -> Result<()> {
        self.say(name);
        let start = Instant::now();
        let mut child = cargo()
            .args(args)
            .args(["--quiet", "--"])
            .args(&self.filter)
            // Ignored tests need what the suite has brought: an OpenSSH server, boards that are up.
            .args(["--format", "pretty", "--include-ignored"])
            .args(others.iter().flat_map(|other| ["--skip", other]))
            .current_dir(self.context.sources()?)
            .env("ESPALIER_SKIPS", &self.skips)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run `cargo`")?;
        let mut step = Step { name: name.to_owned(), ..Step::default() };
        for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
            let line = line?;
            match line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
                Some((_, "ok")) => step.passed += 1,
                Some((test, "FAILED")) => {
                    println!("{line}");
                    step.failed.push(test.to_owned());
                }
                Some((test, outcome)) if outcome.starts_with("ignored") => {
                    step.skipped
                        .push(format!("{test}: {}", outcome.trim_start_matches("ignored").trim_start_matches(", ")));
                }
                _ if is_noise(&line) => {}
                _ => println!("{line}"),
            }
        }
        let status = child.wait()?;
        if !status.success() && step.failed.is_empty() {
            step.failed.push(format!("`cargo {}` ended with {status}", args.join(" ")));
        }
        let told = fs::read_to_string(&self.skips).unwrap_or_default();
        let _ = fs::remove_file(&self.skips);
        for skip in told.lines() {
            // A test that skipped has passed as far as its program knows.
            step.passed = step.passed.saturating_sub(1);
            step.skipped.push(skip.to_owned());
        }
        step.took = start.elapsed();
        self.steps.push(step);
        Ok(())
    }

    fn say(&self, what: &str) {
        let since = self.start.elapsed().as_secs();
        eprintln!("[{:>2}:{:02}] {what}", since / 60, since % 60);
    }

    fn summary(self) -> Result<ExitStatus> {
        println!("\n{:<34} {:>7} {:>7} {:>8} {:>9}", "step", "passed", "failed", "skipped", "time");
        for step in &self.steps {
            println!(
                "{:<34} {:>7} {:>7} {:>8} {:>7.1} s",
                step.name,
                step.passed,
                step.failed.len(),
                step.skipped.len(),
                step.took.as_secs_f64()
            );
        }
        for step in &self.steps {
            for skipped in &step.skipped {
                println!("skipped: {skipped}");
            }
        }
        for step in &self.steps {
            for failed in &step.failed {
                println!("failed: {}: {failed}", step.name);
            }
        }
        let sum = |of: &dyn Fn(&Step) -> u64| self.steps.iter().map(of).sum::<u64>();
        let (passed, failed) = (sum(&|step| step.passed), sum(&|step| step.failed.len() as u64));
        let skipped = sum(&|step| step.skipped.len() as u64);
        let took = self.start.elapsed();
        println!(
            "took {} min {} s of a budget of {} min",
            took.as_secs() / 60,
            took.as_secs() % 60,
            BUDGET.as_secs() / 60
        );
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if passed == 0 {
            bail!("no test ran");
        }
        Ok(if failed == 0 { ExitStatus::Ok } else { ExitStatus::Failed })
    }
}

/// Lines of the test programs that say nothing about a single test.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok")
}

/// An environment with onnxruntime in it, the independent engine that accuracies are compared with; the path of its interpreter.
fn prepare_python(cache: &Cache, cancel: &Cancel) -> Result<PathBuf> {
    let environment = Environment {
        folder: "tests/python",
        packages: &["onnx", peers::ONNXRUNTIME, "numpy"],
        modules: "onnx, onnxruntime, numpy",
    };
    environment.interpreter(cache, Watch { cancel, progress: &|_| () })
}
