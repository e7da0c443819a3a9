//! The program on the board: it loads one ONNX file, warms up, and times, measures memory or scores. It reports in JSON
//! lines on stdout.
//!
//! One invocation is one fresh process that does one [`Job`]. It reads only the model, the prepared inputs and what the
//! kernel reports about the board, and writes only lines (and the file of kernel choices). The first line is `hello`,
//! the last is `finished`, also when the job failed or tract panicked.

#![warn(clippy::undocumented_unsafe_blocks)]

mod allocated;
mod board;
mod budget;
mod inputs;
mod layout;
mod macs;
mod measure;
mod memory;
mod model;
mod packed;
mod profile;
mod report;
mod stored;
mod turns;

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Result;
use espalier_protocol::{Engine, Hello, Job, Line, Mode, Stage};

use crate::report::Reporter;

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;

/// tract does not report its version. A test of `xtask` compares this with Cargo.lock.
const TRACT: &str = "tract 0.23.9";

fn main() -> ExitCode {
    end_with_parent();
    if layout::SIZE != 0 {
        std::hint::black_box(&raw const layout::PADDING);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--version") {
        println!("espalier-runner {} ({TRACT})", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let job = Job::from_args(&args);
    let reporter = Reporter::start();
    report_panics(Arc::clone(&reporter));
    reporter.emit(&Line::Hello(Hello {
        protocol: espalier_protocol::VERSION,
        runner: env!("CARGO_PKG_VERSION").into(),
        arch: std::env::consts::ARCH.into(),
        pid: std::process::id(),
        engine: engine(job.as_ref().map_or(Engine::default(), |job| job.engine)).into(),
        cpu_features: board::cpu_features().into_iter().map(Into::into).collect(),
    }));
    let done = job.map_err(anyhow::Error::msg).and_then(|job| run(&reporter, &job));
    if let Err(error) = &done {
        reporter.emit(&Line::Failed { stage: reporter.stage(), message: format!("{error:#}").into() });
    }
    reporter.emit(&Line::Finished);
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn engine(engine: Engine) -> String {
    match engine {
        Engine::Espalier => format!("espalier {} ({TRACT})", env!("CARGO_PKG_VERSION")),
        Engine::Tract => TRACT.to_owned(),
    }
}

fn run(reporter: &Reporter, job: &Job) -> Result<()> {
    if !job.cpus.is_empty() {
        board::pin(&job.cpus)?;
    }
    let state = || board::state(Path::new("/"), job.cpus.first().copied().unwrap_or(0));
    reporter.emit(&Line::State(state()));
    let after = match job.mode {
        Mode::Time => measure::time(reporter, job, &state)?,
        Mode::Memory => {
            memory::measure(reporter, job)?;
            state()
        }
        Mode::Score => {
            measure::score(reporter, job)?;
            state()
        }
        Mode::Profile => {
            profile::profile(reporter, job)?;
            state()
        }
    };
    reporter.enter(Stage::Start, 0);
    reporter.emit(&Line::State(after));
    Ok(())
}

/// Ends the runner when the SSH session that started it ends, so that no board keeps computing without a host.
fn end_with_parent() {
    // SAFETY: prctl with PR_SET_PDEATHSIG only changes a flag of this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
}

/// A panic inside tract (it unwraps on some graphs) is reported like any other failure of the job.
fn report_panics(reporter: Arc<Reporter>) {
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!("the engine panicked: {panic}").replace('\n', " ");
        reporter.emit(&Line::Failed { stage: reporter.stage(), message: message.into() });
        reporter.emit(&Line::Finished);
        std::process::exit(1);
    }));
}
