//! One device, from connecting to letting go: files onto the board, jobs in turn, everything put back.
//!
//! What happens is told as events in the order it happens; records leave at once, so that nothing measured is lost with the board. A job that fails
//! because the runner said so is a record and the next one follows; a board that stops answering ends the session, and what is left is for `--resume`.

use std::{
    cell::RefCell,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use espalier_bench::{
    conversation::Conversation,
    plan::{self, PlannedJob, Script},
    record::{Failure, FailureStage, Outcome, Record},
};
use espalier_inventory::{Device, Target};
use espalier_protocol::Mode;

use crate::{
    cache::Cache,
    cancel::Cancel,
    conditions::{self, Found, Shell},
    deploy::{self, BlobFile, Pushed},
    elf::{self, BoardLibc, ElfInfo},
    file_lock::{self, FileLock},
    lease::{Lease, LeaseError},
    process::Watch,
    transport::{Limits, Transport},
};

/// How much longer than one command a lease lasts: it can be renewed between commands only.
const LEASE_MARGIN: Duration = Duration::from_secs(120);

/// The program that runs on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Runner {
    pub file: BlobFile,
    /// `None` for a program that is no ELF file: whether it fits is then seen when it runs.
    pub elf: Option<ElfInfo>,
    /// What is put before it on the command line: an interpreter and its flags, for a program that is not one of the machine's own.
    pub interpreter: Vec<String>,
    /// What built it, e.g. `cargo, rustc 1.96.0, aarch64-linux-gnu-gcc 12.2.0`.
    pub builder: String,
}

/// What one device needs to carry out a [`Script`].
#[derive(Clone, Debug)]
pub struct DeviceWork {
    pub device: Device,
    /// The programs its jobs name by their place here.
    pub runners: Vec<Runner>,
    /// What the runners were built for.
    pub target: Target,
    /// Variants and prepared inputs.
    pub files: Vec<BlobFile>,
    /// Who holds the board meanwhile, for others who want it.
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
    Started(PlannedJob),
    Record(Box<Record>),
    /// Something a reader of the results should know.
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

/// Carries out everything, telling each event. Blocks; run it on a thread of its own.
pub fn carry_out(
    work: &DeviceWork,
    script: &mut dyn Script,
    run_start: Instant,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) {
    let first = script.next(None);
    let mut session = Session {
        work,
        script,
        current: first,
        run_start,
        cancel,
        tell,
        start: Instant::now(),
        ended: Ended::default(),
        sequence: 0,
    };
    match session.whole() {
        Err(failure) if cancel.is_requested() => {
            session.ended.cancelled = true;
            (session.tell)(Event::Note(format!("stopped: {}", failure.message)));
        }
        Err(failure) => session.blame(failure),
        Ok(()) => {}
    }
    session.ended.wall = session.start.elapsed();
    let ended = session.ended.clone();
    (session.tell)(Event::Ended(ended));
}

struct Session<'a> {
    work: &'a DeviceWork,
    script: &'a mut dyn Script,
    /// Under way or next.
    current: Option<PlannedJob>,
    run_start: Instant,
    cancel: &'a Cancel,
    tell: &'a mut dyn FnMut(Event),
    start: Instant,
    ended: Ended,
    sequence: u32,
}

impl Session<'_> {
    fn whole(&mut self) -> Result<(), Failure> {
        let device = &self.work.device;
        let mut transport = Transport::open(device, self.cancel).map_err(at(FailureStage::Connect))?;
        (self.tell)(Event::Connected);
        self.check_fit(&mut transport)?;
        if transport.is_local() {
            let _turn = self.turn_on_this_host().map_err(at(FailureStage::Push))?;
            return self.with_board(&mut Board::Free(transport));
        }
        let lasts = device.timeouts.command + LEASE_MARGIN;
        let lease = Lease::take(transport, &device.workdir, &self.work.owner, lasts, self.limits(), self.cancel);
        let mut board = Board::Leased(lease.map_err(at(FailureStage::Push))?);
        self.with_board(&mut board)
    }

    /// This host has no lease, but two runs that time on it at once would disturb each other all the same.
    fn turn_on_this_host(&mut self) -> anyhow::Result<Option<FileLock>> {
        let device = &self.work.device;
        let is_timed = self.script.is_timed() || self.current.as_ref().is_some_and(|job| job.mode == Mode::Time);
        if device.emulated || !is_timed {
            return Ok(None);
        }
        let tell = RefCell::new(&mut self.tell);
        let progress = |text: &str| (tell.borrow_mut())(Event::Note(text.to_owned()));
        let watch = Watch { cancel: self.cancel, progress: &progress };
        let lock = Cache::open()?.root.join("this-host.lock");
        file_lock::hold(&lock, "another run measures this host; waiting for it", watch).map(Some)
    }

    fn limits(&self) -> Limits {
        Limits::from(&self.work.device.timeouts)
    }

    /// A binary the board cannot run is found out here, not by a crash there.
    fn check_fit(&mut self, transport: &mut Transport) -> Result<(), Failure> {
        // What is put before the runner decides what can be run.
        if !self.work.device.runner.is_empty() {
            return Ok(());
        }
        let elves: Vec<&ElfInfo> = self.work.runners.iter().filter_map(|runner| runner.elf.as_ref()).collect();
        if elves.is_empty() {
            return Ok(());
        }
        let told = transport.shell(elf::PROBE, self.limits(), self.cancel).map_err(at(FailureStage::Connect))?;
        let board = BoardLibc::parse(&told.stdout);
        for elf in elves {
            let mismatches = elf::check(elf, &board.facts_for(elf), &self.work.target);
            if !mismatches.is_empty() {
                let told: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
                let message = format!("the runner does not fit the board: {}", told.join("; "));
                return Err(Failure { stage: FailureStage::Build, message });
            }
        }
        Ok(())
    }

    fn with_board(&mut self, board: &mut Board) -> Result<(), Failure> {
        let device = &self.work.device;
        let runners = self.work.runners.iter().map(|runner| &runner.file);
        let files: Vec<BlobFile> = runners.chain(&self.work.files).cloned().collect();
        let (limits, tell) = (self.limits(), &mut self.tell);
        let pushed =
            deploy::push(board.transport(), &device.workdir, &files, limits, self.cancel, &mut |done, total| {
                tell(Event::Pushing { done, total });
            });
        let pushed = pushed.map_err(at(FailureStage::Push))?;
        let paths = pushed.paths.clone();
        (self.tell)(Event::Pushed(pushed));
        let mut shell = Shell { transport: board.transport(), limits, cancel: self.cancel };
        let mut found = Found::default();
        let prepared = found.prepare(&mut shell, &device.conditions).map_err(at(FailureStage::Push));
        for note in &found.notes {
            (self.tell)(Event::Note(note.clone()));
        }
        let done = prepared.and_then(|()| self.all_jobs(board, &|sha: &str| paths[sha].clone()));
        // Ctrl-C does not stop this: it is why it is done.
        let mut shell = Shell { transport: board.transport(), limits, cancel: &Cancel::default() };
        if let Err(error) = found.restore(&mut shell) {
            (self.tell)(Event::Note(format!("the board's governor was not put back: {error}")));
        }
        done
    }

    fn all_jobs(&mut self, board: &mut Board, path: &dyn Fn(&str) -> String) -> Result<(), Failure> {
        while let Some(job) = self.current.clone() {
            if self.cancel.is_requested() {
                return Err(Failure { stage: FailureStage::Run, message: "asked to".into() });
            }
            board.renew(self.cancel).map_err(at(FailureStage::Run))?;
            if let (Mode::Time, Some(celsius)) = (job.mode, self.work.device.conditions.max_start_celsius) {
                let mut shell = Shell { transport: board.transport(), limits: self.limits(), cancel: self.cancel };
                let note = conditions::cool_down(&mut shell, celsius).map_err(at(FailureStage::Run))?;
                note.into_iter().for_each(|note| (self.tell)(Event::Note(note)));
            }
            (self.tell)(Event::Started(job.clone()));
            let record = self.one_job(board.transport(), &job, path)?;
            self.current = self.script.next(Some(&record));
        }
        Ok(())
    }

    /// Runs one job and tells its record. An error means that the board is lost (its record is told by the caller).
    fn one_job(
        &mut self,
        transport: &mut Transport,
        job: &PlannedJob,
        path: &dyn Fn(&str) -> String,
    ) -> Result<Record, Failure> {
        let device = &self.work.device;
        let Runner { file, interpreter, .. } = &self.work.runners[job.runner];
        let program: Vec<String> = interpreter.iter().cloned().chain([path(&file.sha256)]).collect();
        let words = plan::runner_argv(device, &program, &plan::runner_job(job, device, path));
        let words = match job.padding {
            Some(bytes) => plan::padded_argv(words, bytes),
            None => words,
        };
        let limits = self.limits();
        let start_ms = self.run_start.elapsed().as_millis() as u64;
        let start = Instant::now();
        let mut conversation = Conversation::new(job.mode);
        let mut refused = None;
        let run = transport.run(&words, &[], limits, self.cancel, &mut |line| match conversation.on_line(line) {
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
            (None, Ok(exit)) => match conversation.close(&exit.describe()) {
                Ok(measurement) => Outcome::Measured(Box::new(measurement)),
                Err(failure) => Outcome::Failed(failure),
            },
            (None, Err(error)) => return Err(at(FailureStage::Run)(error)),
        };
        Ok(self.record(job, start_ms, wall, outcome))
    }

    /// The device's failure, told as the record of the job it kept from being done.
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
        (self.tell)(Event::Record(Box::new(record.clone())));
        record
    }
}

fn at<E: std::fmt::Display>(stage: FailureStage) -> impl Fn(E) -> Failure {
    move |error| Failure { stage, message: error.to_string() }
}

/// The way to a board, and the lease on it. This host needs none.
enum Board {
    Free(Transport),
    Leased(Lease),
}

impl Board {
    fn transport(&mut self) -> &mut Transport {
        match self {
            Board::Free(transport) => transport,
            Board::Leased(lease) => lease.transport(),
        }
    }

    fn renew(&mut self, cancel: &Cancel) -> Result<(), LeaseError> {
        match self {
            Board::Free(_) => Ok(()),
            Board::Leased(lease) => lease.renew(cancel),
        }
    }
}
