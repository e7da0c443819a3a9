//! `cargo xtask bench`: builds, prunes, measures on every device asked for, and prints the table.
//!
//! Boards are measured in parallel. This host is measured after them and alone: emulated boards and builds would disturb it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use espalier_bench::{
    command::CommandLine,
    exit::ExitStatus,
    inventory::{Budget, Device, Inventory, Model, Recipe, Target, Transport},
    message::{Finished, Message},
    plan,
    record::{
        DeviceInfo, MeasuringProtocol, ModelInfo, Outcome, Provenance, Record, Run, RunHeader, RunnerInfo, Tally,
    },
};
use espalier_fleet::{
    blob,
    build::{self, Artifact},
    cache::Cache,
    cancel::Cancel,
    deploy::BlobFile,
    elf::{self, ElfInfo},
    process::Watch,
    session::{self, DeviceWork, Ended, Event},
};
use espalier_protocol::Mode;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    context::{Context, usage},
    progress::{Progress, Task, stop_on_ctrl_c},
    report::{self, Exports},
    run_file::{self, RunFile},
    ssh_feature, variants,
};

#[derive(Args)]
pub struct Flags {
    /// A device by its file's name in devices/; may be repeated [default: local]
    #[arg(short, long, value_name = "NAME")]
    device: Vec<String>,
    /// Every device in devices/
    #[arg(long, conflicts_with = "device")]
    all_devices: bool,
    /// A model by its file's name in models/, or an ONNX file; may be repeated [default: every model in models/]
    #[arg(short, long, value_name = "NAME|FILE.onnx")]
    model: Vec<String>,
    /// Held-out samples (.npz with x and y) for an ONNX file
    #[arg(long, value_name = "FILE.npz")]
    eval: Option<String>,
    /// Ratios instead of the model's own; the dense variant is always measured too
    #[arg(long, value_name = "R,R,…", value_delimiter = ',')]
    ratios: Vec<f64>,
    /// The shape of an input whose dimensions the model leaves open, where there is no eval set
    #[arg(long, value_name = "NAME=1x128")]
    shape: Vec<String>,
    /// Timing invocations a variant, each a fresh process
    #[arg(short, long, default_value_t = 10)]
    runs: u32,
    /// Untimed inferences at the start of each invocation
    #[arg(long, default_value_t = 10)]
    warmup: u32,
    /// Timed inferences an invocation, at least
    #[arg(long, default_value_t = 50)]
    iterations: u32,
    /// Timed milliseconds an invocation, at least
    #[arg(long, value_name = "MS", default_value_t = 200)]
    min_time: u64,
    /// A runner built elsewhere, for every device asked for, instead of building one
    #[arg(long, value_name = "FILE")]
    runner: Option<PathBuf>,
    /// Devices at a time [default: all]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// Finish an earlier run: only what it lacks is measured [default: the newest]
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "")]
    resume: Option<String>,
    #[command(flatten)]
    exports: Exports,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t = MessageFormat::Human)]
    message_format: MessageFormat,
    /// Print the plan and the exact commands, and do nothing
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

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let context = Context::open()?;
    let wanted = |file: &str| match file.trim_end_matches(".toml").split_once('/') {
        Some(("devices", name)) => flags.all_devices || name == LOCAL || flags.device.iter().any(|asked| asked == name),
        Some((_, name)) => flags.model.is_empty() || flags.model.iter().any(|asked| asked == name),
        None => true,
    };
    let inventory = context.inventory(&wanted)?;
    let earlier = flags.resume.as_deref().map(|wanted| {
        let path = run_file::find(&context.root, Some(wanted).filter(|wanted| !wanted.is_empty()))?;
        anyhow::Ok((run_file::read(&path)?, path))
    });
    let earlier = earlier.transpose()?;
    let devices = devices(&flags, &inventory, earlier.as_ref().map(|(run, _)| &run.header))?;
    let models = models(&flags, &inventory, earlier.as_ref().map(|(run, _)| &run.header))?;
    if devices.iter().any(|device| matches!(device.transport, Transport::Ssh(_)))
        && let Some(status) = ssh_feature::ensure(&context)?
    {
        return Ok(status);
    }
    let progress = Progress::new(flags.quiet);
    let cancel = Cancel::default();
    stop_on_ctrl_c(&cancel, &progress)?;
    Bench { context, inventory, flags, progress, cancel }.whole(devices, &models, earlier)
}

struct Bench {
    context: Context,
    inventory: Inventory,
    flags: Flags,
    progress: Progress,
    cancel: Cancel,
}

impl Bench {
    fn whole(self, devices: Vec<Device>, models: &[Model], earlier: Option<(Run, PathBuf)>) -> Result<ExitStatus> {
        let protocol = earlier.as_ref().map_or(self.protocol(), |(run, _)| run.header.protocol);
        let task = self.progress.task("prune", Some(models.iter().map(|model| model.recipe.ratios.len() as u64).sum()));
        let prepared = models
            .iter()
            .map(|model| variants::prepare(&self.context.cache, &self.context.root, model, &task))
            .collect::<Result<Vec<_>>>()?;
        task.done();
        let infos: Vec<_> = prepared.iter().map(|model| model.info.clone()).collect();
        let files: Vec<BlobFile> = prepared.into_iter().flat_map(|model| model.files).collect();
        if let Some((run, path)) = &earlier
            && run.header.models != infos
        {
            return Err(usage(format!(
                "`{}` measured other files: the models or their recipes have changed since, so it cannot be resumed",
                path.display()
            )));
        }
        let reference = self.reference(&devices)?;
        let targets = self.targets(devices.iter().chain(&reference))?;
        if self.flags.dry_run {
            return self.print_plan(&devices, &reference, &targets, &infos, &protocol);
        }
        let runners = self.runners(&targets)?;
        let runner = |device: &Device| &runners.iter().find(|(name, _)| *name == device.target).expect("built").1;

        let done = earlier.as_ref().map_or(&[][..], |(run, _)| &run.records);
        let work = |device: &Device, only: &[Mode]| {
            let mut jobs = plan::jobs(device, &infos, &self.flags.shape, &protocol, done);
            jobs.retain(|job| only.contains(&job.mode));
            let runner = runner(device);
            DeviceWork {
                device: device.clone(),
                runner: runner.file.clone(),
                elf: runner.elf.clone(),
                target: targets.iter().find(|target| target.name == device.target).expect("resolved").clone(),
                files: files.clone(),
                jobs,
                protocol,
                owner: owner(),
            }
        };
        let (boards, hosts): (Vec<&Device>, Vec<&Device>) =
            devices.iter().partition(|device| device.emulated || device.transport != Transport::Local);
        let phases = [
            reference.iter().map(|device| work(device, &[Mode::Score])).collect(),
            boards.iter().map(|device| work(device, &Mode::ALL)).collect(),
            hosts.iter().map(|device| work(device, &Mode::ALL)).collect::<Vec<DeviceWork>>(),
        ];

        let (mut file, header) = match earlier {
            Some((run, path)) => (RunFile::reopen(&path)?, run.header),
            None => {
                let header = self.header(&devices, reference.as_ref(), infos, protocol, &targets, &runners)?;
                (RunFile::create(&self.context.root, &header)?, header)
            }
        };
        self.message(&Message::RunStarted { run: &header });
        let ended = self.carry_out(phases, &mut file)?;
        self.conclude(&file.path, &header, &ended)
    }

    fn protocol(&self) -> MeasuringProtocol {
        let Flags { runs, warmup, iterations, min_time, .. } = self.flags;
        MeasuringProtocol { runs, warmup, iterations, min_time_ms: min_time }
    }

    /// This host, to compare the boards' predictions with, where it is not asked for anyway.
    fn reference(&self, devices: &[Device]) -> Result<Option<Device>> {
        // A runner that was given is for the devices asked for; it may not run here.
        if self.flags.runner.is_some() || devices.iter().any(|device| device.name == LOCAL) {
            return Ok(None);
        }
        Ok(self.inventory.devices.get(LOCAL).cloned())
    }

    /// Each target once, in the order of the devices.
    fn targets<'a>(&self, devices: impl Iterator<Item = &'a Device>) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        for device in devices {
            if !targets.iter().any(|target| target.name == device.target) {
                targets.push(self.inventory.target(&device.target).map_err(|error| usage(error.to_string()))?.clone());
            }
        }
        Ok(targets)
    }

    /// By the target's name.
    fn runners(&self, targets: &[Target]) -> Result<Vec<(String, Runner)>> {
        let given = self.flags.runner.as_deref().map(|path| given_runner(&self.context.cache, path)).transpose()?;
        let runner = |target: &Target| -> Result<Runner> {
            match &given {
                Some(runner) => Ok(runner.clone()),
                None => self.build(target),
            }
        };
        targets.iter().map(|target| Ok((target.name.clone(), runner(target)?))).collect()
    }

    fn build(&self, target: &Target) -> Result<Runner> {
        let task = self.progress.task(&format!("build {}", target.name), None);
        let say = |text: &str| if self.flags.verbose { self.progress.say(text) } else { task.now(text) };
        let watch = Watch { cancel: &self.cancel, progress: &say };
        let artifact = build::build(&self.context.cache, &self.context.sources, target, watch)?;
        task.done();
        let Artifact { path, sha256, bytes, builder, elf, .. } = artifact;
        Ok(Runner { file: BlobFile { sha256, path, bytes, executable: true }, elf: Some(elf), builder })
    }

    fn header(
        &self,
        devices: &[Device],
        reference: Option<&Device>,
        models: Vec<ModelInfo>,
        protocol: MeasuringProtocol,
        targets: &[Target],
        runners: &[(String, Runner)],
    ) -> Result<RunHeader> {
        let (started, id) = run_file::now()?;
        let info = |device: &Device| {
            let target = targets.iter().find(|target| target.name == device.target);
            let runner = runners.iter().find(|(name, _)| *name == device.target).map(|(_, runner)| runner);
            DeviceInfo {
                name: device.name.clone(),
                target: device.target.clone(),
                triple: target.map(|target| target.triple.clone()).unwrap_or_default(),
                emulated: device.emulated,
                runner: runner.map(|runner| RunnerInfo {
                    sha256: runner.file.sha256.clone(),
                    bytes: runner.file.bytes,
                    builder: runner.builder.clone(),
                }),
            }
        };
        Ok(RunHeader {
            format: espalier_bench::record::FORMAT,
            id,
            started,
            provenance: Provenance {
                espalier: env!("CARGO_PKG_VERSION").into(),
                revision: revision(&self.context.sources),
                host: host_name(),
                command: std::env::args().skip(1).collect(),
            },
            protocol,
            models,
            devices: devices.iter().map(info).collect(),
            reference_device: reference.map(|device| device.name.clone()).or(Some(LOCAL.to_owned())),
        })
    }

    /// Carries out the phases one after the other, the devices of each in parallel; every record goes to the file as it comes.
    fn carry_out(&self, phases: [Vec<DeviceWork>; 3], file: &mut RunFile) -> Result<Vec<(String, Ended)>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let start = Instant::now();
        let mut ended = Vec::new();
        for phase in phases {
            let phase: Vec<DeviceWork> = phase.into_iter().filter(|work| !work.jobs.is_empty()).collect();
            ended.extend(runtime.block_on(self.in_parallel(phase, start, file))?);
        }
        Ok(ended)
    }

    async fn in_parallel(
        &self,
        phase: Vec<DeviceWork>,
        start: Instant,
        file: &mut RunFile,
    ) -> Result<Vec<(String, Ended)>> {
        let places = Arc::new(Semaphore::new(self.flags.jobs.unwrap_or(phase.len()).max(1)));
        let (sender, mut events) = mpsc::unbounded_channel();
        let tasks: Vec<(String, Task)> = phase
            .iter()
            .map(|work| {
                let name = work.device.name.clone();
                let task = self.progress.task(&name, Some(work.jobs.len() as u64));
                (name, task)
            })
            .collect();
        for (index, work) in phase.into_iter().enumerate() {
            let (places, sender, cancel) = (Arc::clone(&places), sender.clone(), self.cancel.clone());
            tokio::spawn(async move {
                let place = places.acquire_owned().await;
                let carried = tokio::task::spawn_blocking(move || {
                    session::carry_out(&work, start, &cancel, &mut |event| {
                        // The other end only goes away with the whole program.
                        let _ = sender.send((index, event));
                    });
                });
                let _ = carried.await;
                drop(place);
            });
        }
        drop(sender);
        let mut ended = Vec::new();
        while let Some((index, event)) = events.recv().await {
            let (name, task) = &tasks[index];
            self.show(name, task, &event);
            match event {
                Event::Record(record) => {
                    file.record(&record)?;
                    self.message(&Message::Record { record: &record });
                }
                Event::Ended(end) => ended.push((name.clone(), end)),
                _ => {}
            }
        }
        Ok(ended)
    }

    fn show(&self, name: &str, task: &Task, event: &Event) {
        match event {
            Event::Connected => task.now("connected"),
            Event::Pushing { done, total } => {
                task.now(&format!("pushing {:.1} of {:.1} MB", *done as f64 / 1e6, *total as f64 / 1e6));
            }
            Event::Pushed(pushed) => task.milestone(&format!(
                "{} files pushed ({} bytes sent), {} already there",
                pushed.files_sent, pushed.bytes_sent, pushed.files_present
            )),
            Event::Started(job) => {
                task.now(&format!("{} {}@{} round {}", job.mode.name(), job.case.model, job.case.ratio, job.round + 1));
            }
            Event::Record(record) => {
                task.step();
                if let Outcome::Failed(failure) = &record.outcome {
                    let Record { case, mode, .. } = &**record;
                    let what = format!("{} {}@{}", mode.name(), case.model, case.ratio);
                    self.progress.say(&format!("{name}: {what}: {}", failure.message));
                }
            }
            Event::Note(note) => self.progress.say(&format!("{name}: {note}")),
            Event::Ended(ended) => {
                task.done();
                let wall = ended.wall.as_secs_f64();
                let share = 100.0 * ended.in_invocations.as_secs_f64() / wall.max(f64::MIN_POSITIVE);
                self.progress.say(&format!("{name}: {wall:.1} s, {share:.1} % of it in invocations"));
            }
        }
    }

    fn message(&self, message: &Message) {
        if self.flags.message_format == MessageFormat::Json {
            print!("{}", message.to_line());
        }
    }

    fn conclude(&self, path: &Path, header: &RunHeader, ended: &[(String, Ended)]) -> Result<ExitStatus> {
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
        let cancelled = ended.iter().any(|(_, ended)| ended.cancelled);
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
        devices: &[Device],
        reference: &Option<Device>,
        targets: &[Target],
        models: &[ModelInfo],
        protocol: &MeasuringProtocol,
    ) -> Result<ExitStatus> {
        for target in targets {
            let plan = build::prepare(&self.context.cache, target)?.plan;
            println!("# runner for target `{}` ({}): {}", target.name, target.triple, plan.reason);
            println!("{}", plan.command);
        }
        for (device, modes) in devices
            .iter()
            .map(|device| (device, &Mode::ALL[..]))
            .chain(reference.iter().map(|device| (device, &[Mode::Score][..])))
        {
            let jobs = plan::jobs(device, models, &self.flags.shape, protocol, &[]);
            let jobs: Vec<_> = jobs.iter().filter(|job| modes.contains(&job.mode)).collect();
            println!("# device `{}`: {} invocations", device.name, jobs.len());
            let blob = |name: &str| match device.transport {
                Transport::Local => self.context.cache.root.join("blobs").join(name).to_string_lossy().into_owned(),
                Transport::Ssh(_) => format!("{}/blobs/{name}", device.workdir),
            };
            for job in jobs {
                let runner_job = plan::runner_job(job, device, protocol, blob);
                println!(
                    "{}",
                    CommandLine { env: vec![], words: plan::runner_words(device, &blob("RUNNER"), &runner_job) }
                );
            }
        }
        Ok(ExitStatus::Ok)
    }
}

/// The program that runs on a device.
#[derive(Clone)]
struct Runner {
    file: BlobFile,
    elf: Option<ElfInfo>,
    builder: String,
}

fn given_runner(cache: &Cache, path: &Path) -> Result<Runner> {
    let content = std::fs::read(path).map_err(|error| usage(format!("runner `{}`: {error}", path.display())))?;
    let blob = blob::put_file(cache, path)?;
    Ok(Runner {
        file: BlobFile { sha256: blob.sha256, path: blob.path, bytes: blob.bytes, executable: true },
        elf: elf::read(&content).ok(),
        builder: format!("given as `{}`", path.display()),
    })
}

/// The device file of this host.
const LOCAL: &str = "local";

fn devices(flags: &Flags, inventory: &Inventory, earlier: Option<&RunHeader>) -> Result<Vec<Device>> {
    if flags.all_devices {
        return Ok(inventory.devices.values().filter(|device| device.in_all).cloned().collect());
    }
    let mut names = flags.device.clone();
    if names.is_empty() {
        names = match earlier {
            Some(header) => header.devices.iter().map(|device| device.name.clone()).collect(),
            None => vec![LOCAL.into()],
        };
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in &names {
        let device = inventory.device(name).map_err(|error| usage(error.to_string()))?;
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

fn models(flags: &Flags, inventory: &Inventory, earlier: Option<&RunHeader>) -> Result<Vec<Model>> {
    let mut names = flags.model.clone();
    if let (true, Some(header)) = (names.is_empty(), earlier) {
        names = header.models.iter().map(|model| model.name.clone()).collect();
    }
    let mut models = if names.is_empty() {
        inventory.models.values().cloned().collect()
    } else {
        names.iter().map(|name| model(name, flags, inventory)).collect::<Result<Vec<_>>>()?
    };
    if models.is_empty() {
        return Err(usage("there is no model in `models/`: give one with `--model FILE.onnx`"));
    }
    if let Some(bad) = flags.ratios.iter().find(|ratio| !(0.0..1.0).contains(*ratio)) {
        return Err(usage(format!("ratio {bad} is not in [0, 1): it is the fraction of the weights that is removed")));
    }
    let ratios = match earlier {
        Some(header) => header.models.first().map(|model| model.variants.iter().map(|variant| variant.ratio).collect()),
        None => None,
    };
    let mut ratios = ratios.unwrap_or_else(|| flags.ratios.clone());
    if !ratios.is_empty() {
        ratios.push(0.0);
        ratios.sort_by(f64::total_cmp);
        ratios.dedup();
        models.iter_mut().for_each(|model| model.recipe.ratios.clone_from(&ratios));
    }
    Ok(models)
}

/// By name, or made up around a file.
fn model(name: &str, flags: &Flags, inventory: &Inventory) -> Result<Model> {
    let is_file = name.ends_with(".onnx") || name.contains(std::path::MAIN_SEPARATOR);
    if !is_file {
        return inventory.model(name).cloned().map_err(|error| usage(error.to_string()));
    }
    let absolute = |path: &str| -> Result<String> {
        let path = std::path::absolute(path)?;
        if !path.is_file() {
            return Err(usage(format!("there is no file `{}`", path.display())));
        }
        Ok(path.to_string_lossy().into_owned())
    };
    let stem = Path::new(name).file_stem().context("the file has no name")?.to_string_lossy().into_owned();
    Ok(Model {
        name: stem,
        source: absolute(name)?,
        eval: flags.eval.as_deref().map(absolute).transpose()?,
        calibration: None,
        recipe: Recipe::default(),
        budget: Budget::default(),
    })
}

fn owner() -> String {
    format!(
        "{}@{}, process {}",
        std::env::var("USER").unwrap_or_else(|_| "somebody".into()),
        host_name(),
        std::process::id()
    )
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// The commit, with `+` behind it where the tree has changes; `None` outside git.
fn revision(root: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|status| !status.is_empty());
    Some(if changed { format!("{commit}+") } else { commit })
}
