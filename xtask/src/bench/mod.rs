//! `cargo xtask bench`: builds, prunes, measures on every device asked for, and prints the table.
//!
//! Boards are measured in parallel. This host is measured after them and alone: emulated boards and builds would disturb it.

mod asked;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use clap::{Args, Parser, ValueEnum};
use espalier_bench::{
    command::CommandLine,
    engine::Engine,
    exit::ExitStatus,
    message::{Finished, Message},
    plan::{self, InOrder, PlannedJob, Wanted},
    record::{Case, DeviceInfo, Failure, FailureStage, ModelInfo, Outcome, Record, Run, RunHeader, RunnerInfo, Tally},
};
use espalier_fleet::{
    build,
    cancel::Cancel,
    deploy::BlobFile,
    session::{DeviceWork, Ended},
};
use espalier_inventory::{Device, Inventory, Target, Transport, Unit};
use espalier_protocol::Mode;

use self::asked::Asked;
use crate::{
    context::{Context, LOCAL, usage},
    peers::{self, Peer},
    progress::{Progress, stop_on_signal},
    provenance,
    recipe_flags::unit,
    report::{self, Exports},
    run_file::{self, RunFile},
    runners::{self, Builds, Runners},
    sessions::Sessions,
    ssh_feature, variants,
};

#[derive(Args)]
pub struct Flags {
    /// A device by its file's name in devices/; may be repeated [default: local]
    #[arg(short, long, value_name = "NAME", conflicts_with = "resume")]
    device: Vec<String>,
    /// Every device in devices/, but those with `in-all = false`
    #[arg(long, conflicts_with_all = ["device", "resume"])]
    all_devices: bool,
    /// A model by its file's name in models/, or an ONNX file; may be repeated [default: every model in models/, but those with `in-all = false`]
    #[arg(short, long, value_name = "NAME|FILE.onnx", conflicts_with = "resume")]
    model: Vec<String>,
    /// Held-out samples (.npz with x and y) for an ONNX file
    #[arg(long, value_name = "FILE.npz", requires = "model")]
    eval: Option<String>,
    /// Ratios instead of the model's own; the dense variant is always measured too
    #[arg(long, value_name = "R,R,…", value_delimiter = ',', conflicts_with = "resume")]
    ratios: Vec<f64>,
    /// What is removed together, instead of what the models say: weight, block-4x1, 2:4, channel, …, as for `prune`
    #[arg(long, value_name = "UNIT", value_parser = unit, conflicts_with = "resume")]
    unit: Option<Unit>,
    /// What runs the models, each a group of rows: espalier (the runner), tract (the runner without kernels of its own), onnxruntime (on this host only)
    #[arg(long, value_name = "E,E,…", value_delimiter = ',', value_parser = Engine::parse, default_value = "espalier", conflicts_with = "resume")]
    engine: Vec<Engine>,
    /// Also show where the time goes, layer by layer, dense against pruned
    #[arg(long, conflicts_with = "resume")]
    profile: bool,
    /// The shape of an input whose dimensions the model leaves open, where there is no eval set
    #[arg(long, value_name = "NAME=1x128", conflicts_with = "resume")]
    shape: Vec<String>,
    /// Timing invocations a variant, each a fresh process
    #[arg(short, long, default_value_t = 10, conflicts_with = "resume")]
    runs: u32,
    /// Untimed inferences at the start of each invocation
    #[arg(long, default_value_t = 10, conflicts_with = "resume")]
    warmup: u32,
    /// Timed inferences an invocation, at least
    #[arg(long, default_value_t = 50, conflicts_with = "resume")]
    iterations: u32,
    /// Timed milliseconds an invocation, at least
    #[arg(long, value_name = "MS", default_value_t = 200, conflicts_with = "resume")]
    min_time: u64,
    /// A runner built elsewhere, for every device asked for, instead of building one
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// Devices at a time [default: all]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Finish an earlier run: only what it lacks is measured, as it was asked for [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "")]
    resume: Option<String>,
    #[command(flatten)]
    exports: Exports,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t = MessageFormat::Human)]
    message_format: MessageFormat,
    /// Print the plan and the exact commands; nothing is built, pushed or measured
    #[arg(long)]
    dry_run: bool,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MessageFormat {
    Human,
    /// One JSON object a line
    Json,
}

impl Flags {
    /// As they would be written behind `cargo xtask bench`.
    pub fn from_words(words: &[String]) -> Result<Flags> {
        #[derive(Parser)]
        #[command(name = "cargo xtask bench")]
        struct Bench {
            #[command(flatten)]
            flags: Flags,
        }
        let words = ["bench".to_owned()].into_iter().chain(words.iter().cloned());
        Ok(Bench::try_parse_from(words).map_err(|error| usage(error.to_string()))?.flags)
    }
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let earlier = flags.resume.as_deref().map(|wanted| {
        let path = run_file::find(&context.root, Some(wanted).filter(|wanted| !wanted.is_empty()))?;
        anyhow::Ok((run_file::read(&path)?, path))
    });
    let earlier = earlier.transpose()?;
    let (inventory, asked) = match &earlier {
        Some((run, _)) => asked::as_in(&context, &run.header)?,
        None => asked::by_flags(&context, &flags)?,
    };
    if !flags.dry_run && asked.devices.iter().any(|device| matches!(device.transport, Transport::Ssh(_))) {
        ssh_feature::ensure(&context)?;
    }
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    Bench { context, inventory, flags, asked, progress, cancel }.whole(earlier)
}

/// What a device is to do of a run.
#[derive(Clone, Copy)]
enum Part {
    All,
    /// Only what the others' predictions are compared with.
    Reference,
}

impl Part {
    fn jobs(self, wanted: Wanted<'_>, device: &Device, done: &[Record]) -> Vec<PlannedJob> {
        let mut jobs = wanted.jobs(device, done);
        if let Part::Reference = self {
            jobs.retain(|job| job.mode == Mode::Score && job.case.engine.is_usual());
        }
        jobs
    }
}

struct Bench {
    context: Context,
    inventory: Inventory,
    flags: Flags,
    asked: Asked,
    progress: Progress,
    cancel: Cancel,
}

impl Bench {
    fn whole(self, earlier: Option<(Run, PathBuf)>) -> Result<ExitStatus> {
        let (models, files) = self.prepare_models()?;
        let reference = self.reference();
        let targets = runners::targets(&self.inventory, self.asked.devices.iter().chain(&reference))?;
        if self.flags.dry_run {
            let done = earlier.as_ref().map_or(&[][..], |(run, _)| &run.records);
            return self.print_plan(&reference, &targets, &models, done);
        }
        let builds = Builds {
            context: &self.context,
            progress: &self.progress,
            cancel: &self.cancel,
            verbose: self.flags.verbose,
        };
        let runners = builds.all(&targets, self.flags.runner.as_deref())?;
        if self.cancel.is_requested() {
            anyhow::bail!("stopped before anything was measured");
        }
        let peer = peers::prepare(&self.context, &self.asked.engines, &self.progress, &self.cancel)?;
        let header = self.header(reference.as_ref(), models, &targets, &runners, peer.as_ref())?;
        let (mut file, header, done) = match earlier {
            Some((run, path)) => {
                asked::check_same(&run.header, &header, &path)?;
                (RunFile::reopen(&path)?, run.header, run.records)
            }
            None => (RunFile::create(&self.context.root, &header)?, header, Vec::new()),
        };
        self.message(&Message::RunStarted { run: &header });

        let mut work = |device: &Device, wanted: Part| -> Result<Option<(DeviceWork, InOrder)>> {
            let jobs = wanted.jobs(Wanted::of(&header), device, &done);
            let target =
                targets.iter().find(|target| target.name == device.target).expect("every target was looked up");
            match (runners.of(device), jobs.first()) {
                (_, None) => Ok(None),
                (Ok(runner), _) => {
                    let work = DeviceWork {
                        device: device.clone(),
                        runners: [runner].into_iter().chain(peer.as_ref().map(|peer| &peer.program)).cloned().collect(),
                        target: target.clone(),
                        files: files.clone(),
                        owner: provenance::owner(),
                    };
                    Ok(Some((work, InOrder::new(jobs))))
                }
                // The other devices are measured all the same.
                (Err(message), Some(job)) => {
                    let (case, mode, round) = (job.case.clone(), job.mode, job.round);
                    let record = not_built(case, mode, round, message);
                    file.record(&record)?;
                    self.message(&Message::Record { record: &record });
                    Ok(None)
                }
            }
        };
        let mut all = |devices: Vec<&Device>, part: Part| -> Result<Vec<(DeviceWork, InOrder)>> {
            devices.into_iter().filter_map(|device| work(device, part).transpose()).collect()
        };
        let (boards, hosts) = self.asked.devices.iter().partition(|device| device.is_board());
        let phases =
            [all(reference.iter().collect(), Part::Reference)?, all(boards, Part::All)?, all(hosts, Part::All)?];
        let sessions =
            Sessions { progress: &self.progress, cancel: &self.cancel, jobs: self.flags.jobs, start: Instant::now() };
        let mut ended = Vec::new();
        for phase in phases {
            let carried_out = sessions.carry_out(phase, &mut |record| {
                file.record(record)?;
                self.message(&Message::Record { record });
                Ok(())
            })?;
            ended.extend(carried_out.into_iter().map(|done| done.ended));
        }
        self.conclude(&file, &header, &ended)
    }

    /// The variants of every model, and all their files.
    fn prepare_models(&self) -> Result<(Vec<ModelInfo>, Vec<BlobFile>)> {
        let mut prepared = variants::prepare_all(&self.context, &self.asked.models, &self.progress)?;
        if self.asked.engines.iter().any(|engine| !engine.reads_packs()) {
            variants::unpack(&self.context.cache, &mut prepared)?;
        }
        let (mut infos, mut files) = (Vec::new(), Vec::new());
        for prepared in prepared {
            infos.push(prepared.info);
            files.extend(prepared.files);
        }
        Ok((infos, files))
    }

    /// This host, to compare the boards' predictions with, where it is not asked for anyway.
    fn reference(&self) -> Option<Device> {
        // A runner that was given is for the devices asked for; it may not run here.
        if self.flags.runner.is_some() || self.asked.devices.iter().any(|device| device.name == LOCAL) {
            return None;
        }
        self.inventory.devices.get(LOCAL).cloned()
    }

    fn header(
        &self,
        reference: Option<&Device>,
        models: Vec<ModelInfo>,
        targets: &[Target],
        runners: &Runners,
        peer: Option<&Peer>,
    ) -> Result<RunHeader> {
        let (started, id) = run_file::now()?;
        let info = |device: &Device| DeviceInfo {
            name: device.name.clone(),
            target: device.target.clone(),
            triple: targets
                .iter()
                .find(|target| target.name == device.target)
                .map(|target| target.triple.clone())
                .unwrap_or_default(),
            emulated: device.emulated,
            threads: device.threads,
            runner: runners.of(device).ok().map(|runner| RunnerInfo {
                sha256: runner.file.sha256.clone(),
                bytes: runner.file.bytes,
                builder: runner.builder.clone(),
            }),
        };
        Ok(RunHeader {
            format: espalier_bench::record::FORMAT,
            id,
            started,
            provenance: provenance::of_this_run(&self.context),
            protocol: self.asked.protocol,
            shapes: self.asked.shapes.clone(),
            models,
            devices: self.asked.devices.iter().map(info).collect(),
            engines: self.asked.engines.clone(),
            unit: self.asked.unit.map(|unit| unit.to_string()),
            peers: peer.map(|peer| peer.info.clone()).into_iter().collect(),
            reference_device: reference.map_or(LOCAL, |device| &device.name).to_owned().into(),
        })
    }

    fn message(&self, message: &Message) {
        if self.flags.message_format == MessageFormat::Json {
            print!("{}", message.to_line());
        }
    }

    fn conclude(&self, file: &RunFile, header: &RunHeader, ended: &[Ended]) -> Result<ExitStatus> {
        let path = &file.path;
        let run = run_file::read(path)?;
        let summaries = espalier_bench::summary::summarise(&run);
        if self.flags.message_format == MessageFormat::Human {
            print!("{}", report::table(&run, &summaries));
        } else {
            for summary in &summaries {
                self.message(&Message::Summary { case: summary });
            }
        }
        self.flags.exports.write(&run, &summaries)?;
        let markdown = self.context.root.join("reports").join(format!("{}.md", header.id));
        report::write(&markdown, &espalier_bench::markdown::render(&run, &summaries))?;
        let cancelled = ended.iter().any(|ended| ended.cancelled);
        let status = if cancelled { ExitStatus::Failed } else { report::status(&run) };
        self.progress.say(&format!("records: {}", path.display()));
        if cancelled {
            self.progress.say(&format!("stopped; `cargo xtask bench --resume {}` measures the rest", header.id));
        } else if status == ExitStatus::Device {
            self.progress
                .say(&format!("a device failed; `cargo xtask bench --resume {}` measures what it lacks", header.id));
        }
        let Tally { measured, failed, missing } = run.tally();
        self.message(&Message::Finished(Finished {
            run: &header.id,
            success: status == ExitStatus::Ok,
            exit_code: status.code(),
            measured,
            failed,
            missing,
        }));
        Ok(status)
    }

    fn print_plan(
        &self,
        reference: &Option<Device>,
        targets: &[Target],
        models: &[ModelInfo],
        done: &[Record],
    ) -> Result<ExitStatus> {
        for target in targets.iter().filter(|_| self.flags.runner.is_none()) {
            match build::prepare(&self.context.cache, target, espalier_bench::build_plan::Layout::USUAL) {
                Ok(prepared) => {
                    println!("# runner for target `{}` ({}): {}", target.name, target.triple, prepared.plan.reason);
                    println!("{}", prepared.plan.command);
                }
                Err(error) => println!("# runner for target `{}` ({}): {error:#}", target.name, target.triple),
            }
        }
        let Asked { devices, protocol, shapes, engines, .. } = &self.asked;
        let wanted = Wanted { models, engines, shapes, protocol };
        let all = devices.iter().map(|device| (device, Part::All));
        for (device, part) in all.chain(reference.iter().map(|device| (device, Part::Reference))) {
            let jobs = part.jobs(wanted, device, done);
            println!("# device `{}`: {} invocations", device.name, jobs.len());
            let blob = |name: &str| match device.transport {
                Transport::Local => self.context.cache.root.join("blobs").join(name).to_string_lossy().into_owned(),
                Transport::Ssh(_) => format!("{}/blobs/{name}", device.workdir),
            };
            for job in jobs {
                let program = if job.case.engine.is_in_runner() {
                    vec![blob("RUNNER")]
                } else {
                    vec!["PYTHON".to_owned(), peers::PROGRAM.to_owned()]
                };
                let words = plan::runner_words(device, &program, &plan::runner_job(&job, device, blob));
                println!("{}", CommandLine { env: Vec::new(), words });
            }
        }
        Ok(ExitStatus::Ok)
    }
}

fn not_built(case: Case, mode: Mode, round: u32, message: &str) -> Record {
    let failure = Failure { stage: FailureStage::Build, message: message.to_owned() };
    Record { case, mode, round, sequence: 0, start_ms: 0, wall_ms: 0, trial: None, outcome: Outcome::Failed(failure) }
}
