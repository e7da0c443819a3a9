//! The program on the board: loads one ONNX file, warms up, times, measures memory or scores, and says so in JSON lines on stdout.
//!
//! One invocation is one fresh process that does one [`Job`]. It reads nothing but the model, the prepared inputs and what the kernel tells about the
//! board, and writes nothing but lines. The first line is `hello`, the last `finished`, also when the job failed or tract panicked.

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

/// `tract-onnx` is pinned to exactly this version in the workspace; it does not tell its version itself.
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
    reporter.say(&Line::Hello(Hello {
        protocol: espalier_protocol::VERSION,
        runner: env!("CARGO_PKG_VERSION").into(),
        arch: std::env::consts::ARCH.into(),
        pid: std::process::id(),
        engine: engine(job.as_ref().map_or(Engine::default(), |job| job.engine)),
        cpu_features: board::cpu_features(),
    }));
    let done = job.map_err(anyhow::Error::msg).and_then(|job| work(&reporter, &job));
    if let Err(error) = &done {
        reporter.say(&Line::Failed { stage: reporter.stage(), message: format!("{error:#}") });
    }
    reporter.say(&Line::Finished);
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn engine(engine: Engine) -> String {
    match engine {
        Engine::Espalier => format!("espalier {} ({TRACT})", env!("CARGO_PKG_VERSION")),
        Engine::Tract => TRACT.to_owned(),
    }
}

fn work(reporter: &Reporter, job: &Job) -> Result<()> {
    if !job.cpus.is_empty() {
        board::pin(&job.cpus)?;
    }
    let state = || board::state(Path::new("/"), job.cpus.first().copied().unwrap_or(0));
    reporter.say(&Line::State(state()));
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
    reporter.say(&Line::State(after));
    Ok(())
}

/// The runner goes when the SSH session that started it goes: a board is not left computing for nobody.
fn end_with_parent() {
    // SAFETY: prctl with PR_SET_PDEATHSIG only changes a flag of this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
}

/// A panic inside tract (it unwraps on some graphs) is the job's failure and is told like any other.
fn report_panics(reporter: Arc<Reporter>) {
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!("the engine panicked: {panic}").replace('\n', " ");
        reporter.say(&Line::Failed { stage: reporter.stage(), message });
        reporter.say(&Line::Finished);
        std::process::exit(1);
    }));
}
