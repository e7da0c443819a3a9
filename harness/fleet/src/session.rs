//! One device, from connecting to hanging up: files onto the board, jobs in turn, everything restored.
//!
//! Events are emitted as they happen; records at once, so that no measurement is lost with the board. A job that the
//! runner reports as failed is a record, and the next one follows. A board that stops answering ends the session.

use std::{
    cell::RefCell,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use espalier_bench::{
    conversation::{Conversation, Requested},
    plan::{self, PlannedJob, Script},
    record::{Failure, FailureStage, Outcome, Record},
};
use espalier_inventory::{Device, Target};
use espalier_protocol::Mode;

use crate::{
    cache::Cache,
    cancel::Cancel,
    conditions::{self, SavedGovernors, Shell},
    deploy::{self, BlobFile, Pushed},
    elf::{self, BoardLibc, ElfInfo},
    file_lock::{self, FileLock},
    lease::Lease,
    process::Watch,
    transport::{Limits, Transport},
};

/// How much longer than one command a lease lasts: it can be renewed between commands only.
const LEASE_MARGIN: Duration = Duration::from_secs(120);

/// The program that runs on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Runner {
    pub file: BlobFile,
    /// `None` for a program that is no ELF file: whether it fits shows when it runs.
    pub elf: Option<ElfInfo>,
    /// Goes before it on the command line: an interpreter and its flags, for a script.
    pub interpreter: Vec<String>,
    /// Builder and compilers, e.g. `cargo, rustc 1.96.0, aarch64-linux-gnu-gcc 12.2.0`.
    pub builder: String,
}

/// What one device needs to carry out a [`Script`].
#[derive(Clone, Debug)]
pub struct DeviceWork {
    pub device: Device,
    /// Jobs name them by their index.
    pub runners: Vec<Runner>,
    /// The target the runners were built for.
    pub target: Target,
    /// Variants and prepared inputs.
    pub files: Vec<BlobFile>,
    /// Who holds the lease, for others who want the board.
    pub owner: String,
}

#[derive(Debug)]
pub enum Event {
    Connected,
    /// Bytes brought onto the board so far, and in all.
    Pushing {
        done: u64,
        total: u64,
    },
    Pushed(Pushed),
    Started(Box<PlannedJob>),
    Record(Box<Record>),
    /// For readers of the results.
    Note(String),
    Ended(Ended),
}

/// How a session went.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Wall time of the session, and the part of it in which the runner ran.
    pub wall: Duration,
    pub in_invocations: Duration,
    pub cancelled: bool,
}

/// Runs all jobs of the script and emits each event. Blocks; run it on a thread of its own.
pub fn carry_out(
    work: &DeviceWork,
    script: &mut dyn Script,
    run_start: Instant,
    cancel: &Cancel,
    emit: &mut dyn FnMut(Event),
) {
    let first = script.next(None);
    let mut session = Session {
        work,
        script,
        current: first,
        run_start,
        cancel,
        emit,
        start: Instant::now(),
        ended: Ended::default(),
        sequence: 0,
    };
    match session.run() {
        Err(failure) if cancel.is_requested() => {
            session.ended.cancelled = true;
            (session.emit)(Event::Note(format!("stopped: {}", failure.message)));
        }
        Err(failure) => session.blame(failure),
        Ok(()) => {}
    }
    session.ended.wall = session.start.elapsed();
    let ended = session.ended.clone();
    (session.emit)(Event::Ended(ended));
}

struct Session<'a> {
    work: &'a DeviceWork,
    script: &'a mut dyn Script,
    /// Under way or next.
    current: Option<PlannedJob>,
    run_start: Instant,
    cancel: &'a Cancel,
    emit: &'a mut dyn FnMut(Event),
    start: Instant,
    ended: Ended,
    sequence: u32,
}

impl Session<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let device = &self.work.device;
        let mut transport = Transport::open(device, self.cancel).map_err(at(FailureStage::Connect))?;
        (self.emit)(Event::Connected);
        self.check_fit(&mut transport)?;
        let _turn;
        let mut board = if transport.is_local() {
            _turn = self.turn_on_this_host().map_err(at(FailureStage::Push))?;
            Lease::unneeded(transport)
        } else {
            let lasts = device.timeouts.command + LEASE_MARGIN;
            let lease = Lease::take(transport, &device.workdir, &self.work.owner, lasts, self.limits(), self.cancel);
            lease.map_err(at(FailureStage::Push))?
        };
        self.with_board(&mut board)
    }

    /// This host has no lease, but two runs that time on it at once would disturb each other too.
    fn turn_on_this_host(&mut self) -> anyhow::Result<Option<FileLock>> {
        let device = &self.work.device;
        let is_timed = self.script.is_timed() || self.current.as_ref().is_some_and(|job| job.mode == Mode::Time);
        if device.emulated || !is_timed {
            return Ok(None);
        }
        let emit = RefCell::new(&mut self.emit);
        let progress = |text: &str| (emit.borrow_mut())(Event::Note(text.to_owned()));
        let watch = Watch { cancel: self.cancel, progress: &progress };
        let lock = Cache::open()?.root.join("this-host.lock");
        file_lock::hold(&lock, "another run measures this host; waiting for it", watch).map(Some)
    }

    fn limits(&self) -> Limits {
        Limits::from(&self.work.device.timeouts)
    }

    /// A binary that the board cannot run is an error here, not a crash there.
    fn check_fit(&mut self, transport: &mut Transport) -> Result<(), Failure> {
        // An emulator before the runner decides what can be run.
        if !self.work.device.runner.is_empty() {
            return Ok(());
        }
        let elves: Vec<&ElfInfo> = self.work.runners.iter().filter_map(|runner| runner.elf.as_ref()).collect();
        if elves.is_empty() {
            return Ok(());
        }
        let probe = transport.shell(elf::PROBE, self.limits(), self.cancel).map_err(at(FailureStage::Connect))?;
        let board = BoardLibc::parse(&probe.stdout);
        for elf in elves {
            let mismatches = elf::check(elf, &board, &self.work.target);
            if !mismatches.is_empty() {
                let message = format!("the runner does not fit the board: {}", mismatches.join("; "));
                return Err(Failure { stage: FailureStage::Build, message: message.into() });
            }
        }
        Ok(())
    }

    fn with_board(&mut self, board: &mut Lease) -> Result<(), Failure> {
        let device = &self.work.device;
        let runners = self.work.runners.iter().map(|runner| &runner.file);
        let files: Vec<BlobFile> = runners.chain(&self.work.files).cloned().collect();
        let (limits, emit) = (self.limits(), &mut self.emit);
        let pushed =
            deploy::push(&mut board.transport, &device.workdir, &files, limits, self.cancel, &mut |done, total| {
                emit(Event::Pushing { done, total });
            });
        let pushed = pushed.map_err(at(FailureStage::Push))?;
        let paths = pushed.paths.clone();
        (self.emit)(Event::Pushed(pushed));
        let mut shell = Shell { transport: &mut board.transport, limits, cancel: self.cancel };
        let mut saved = SavedGovernors::new(&device.workdir);
        let prepared = saved.set(&mut shell, &device.conditions).map_err(at(FailureStage::Push));
        for note in &saved.notes {
            (self.emit)(Event::Note(note.clone()));
        }
        let done = prepared.and_then(|()| self.all_jobs(board, &|sha: &str| paths[sha].clone()));
        // Not stopped by Ctrl-C, after which it matters most.
        let mut shell = Shell { transport: &mut board.transport, limits, cancel: &Cancel::default() };
        if let Err(error) = saved.restore(&mut shell) {
            (self.emit)(Event::Note(format!("the board's governor was not put back: {error}")));
        }
        done
    }

    fn all_jobs(&mut self, board: &mut Lease, path: &dyn Fn(&str) -> String) -> Result<(), Failure> {
        while let Some(job) = self.current.clone() {
            if self.cancel.is_requested() {
                return Err(Failure { stage: FailureStage::Run, message: "on request".into() });
            }
            board.renew(self.cancel).map_err(at(FailureStage::Run))?;
            if let (Mode::Time, Some(celsius)) = (job.mode, self.work.device.conditions.max_start_celsius) {
                let mut shell = Shell { transport: &mut board.transport, limits: self.limits(), cancel: self.cancel };
                let note = conditions::cool_down(&mut shell, celsius).map_err(at(FailureStage::Run))?;
                note.into_iter().for_each(|note| (self.emit)(Event::Note(note)));
            }
            (self.emit)(Event::Started(Box::new(job.clone())));
            let record = self.one_job(&mut board.transport, &job, path)?;
            self.current = self.script.next(Some(&record));
        }
        Ok(())
    }

    /// Runs one job and emits its record. An error means that the board is lost; the caller emits that record.
    fn one_job(
        &mut self,
        transport: &mut Transport,
        job: &PlannedJob,
        path: &dyn Fn(&str) -> String,
    ) -> Result<Record, Failure> {
        let device = &self.work.device;
        let Runner { file, interpreter, .. } = &self.work.runners[job.runner];
        let program: Vec<String> = interpreter.iter().cloned().chain([path(&file.sha256)]).collect();
        let argv = plan::runner_argv(device, &program, &plan::runner_job(job, device, path));
        // Processes that are compared choose the same kernels, and so do those of a device that pins them.
        let keeps = job.padding.is_some() || device.kernels.is_some();
        let argv = if keeps { plan::keeping_choices(argv) } else { argv };
        let argv = match job.padding {
            Some(bytes) => plan::padded_argv(argv, bytes),
            None => argv,
        };
        let limits = self.limits();
        let start_ms = self.run_start.elapsed().as_millis() as u64;
        let start = Instant::now();
        let mut conversation = Conversation::new(self.requested(job));
        let mut refused = None;
        let run = transport.run(&argv, limits, self.cancel, &mut |line| match conversation.on_line(line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                refused = Some(failure);
                ControlFlow::Break(())
            }
        });
        let wall = start.elapsed();
        self.ended.in_invocations += wall;
        let outcome = match (refused, run) {
            (Some(failure), _) => Outcome::Failed(failure),
            (None, Ok(exit)) => match conversation.close(&exit.describe(), wall) {
                Ok(measurement) => Outcome::Measured(Box::new(measurement)),
                Err(failure) => Outcome::Failed(failure),
            },
            (None, Err(error)) => return Err(at(FailureStage::Run)(error)),
        };
        Ok(self.record(job, start_ms, wall, outcome))
    }

    /// What the answer to a job is checked against.
    fn requested(&self, job: &PlannedJob) -> Requested {
        let inputs = job.inputs.as_ref().and_then(|sha| self.work.files.iter().find(|file| file.sha256 == *sha));
        // Synthetic inputs are one run.
        let samples = inputs.map_or(vec![1], |inputs| deploy::samples(&inputs.path));
        Requested {
            mode: job.mode,
            iterations: job.effort.iterations,
            min_time_ms: job.effort.min_time_ms,
            samples,
            of_output: job.request.is_some(),
        }
    }

    /// The device's failure, as the record of the job that it prevented.
    fn blame(&mut self, failure: Failure) {
        if let Some(job) = self.current.clone() {
            let now = self.run_start.elapsed().as_millis() as u64;
            self.script.lost(&failure);
            self.record(&job, now, Duration::ZERO, Outcome::Failed(failure));
        }
    }

    fn record(&mut self, job: &PlannedJob, start_ms: u64, wall: Duration, outcome: Outcome) -> Record {
        let record = Record {
            case: job.case.clone(),
            mode: job.mode,
            round: job.round,
            sequence: self.sequence,
            start_ms,
            wall_ms: wall.as_millis() as u64,
            trial: job.trial,
            outcome,
        };
        self.sequence += 1;
        (self.emit)(Event::Record(Box::new(record.clone())));
        record
    }
}

fn at<E: std::fmt::Display>(stage: FailureStage) -> impl Fn(E) -> Failure {
    move |error| Failure { stage, message: error.to_string().into() }
}
