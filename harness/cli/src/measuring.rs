//! Measuring for `bench` and `nightly`: builds runners, prunes models, measures on every device and prints the table.
//!
//! Boards are measured in parallel; then this host, alone, because emulated boards and builds would disturb it.

mod request;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use espalier_bench::{
    command::{CommandLine, shell_quote},
    exit::ExitStatus,
    message::{Finished, Message},
    plan::{self, JobList, PlannedJob, RunSpec},
    record::{DeviceInfo, Failure, FailureStage, ModelInfo, Outcome, Record, Run, RunHeader, RunnerInfo, Tally},
};
use espalier_fleet::{
    build,
    cancel::Cancel,
    deploy::BlobFile,
    session::{DeviceWork, Ended},
};
use espalier_inventory::{Device, Inventory, LOCAL_DEVICE as LOCAL, Target, Transport};
use espalier_protocol::Mode;

pub use self::request::Request;
use self::request::{MessageFormat, Resolved};
use crate::{
    context::Context,
    output,
    peers::{self, Peer},
    program::Program,
    progress::{Progress, stop_on_signal},
    provenance,
    run_file::{self, RunFile},
    runners::{self, Builds, Runners},
    sessions::Sessions,
    ssh_feature,
    terminal::{print_json, say},
    variants,
};

impl Request {
    /// # Errors
    /// The request is invalid, or nothing can be stored. A device or a job that fails is a record.
    pub fn run(self, context: Context) -> Result<ExitStatus> {
        self.exports.check()?;
        let (earlier, (inventory, resolved)) = match self.resume.as_deref() {
            None => (None, request::resolve(&context, &self.new)?),
            Some(name) => {
                let path = run_file::find(&context.root, Some(name).filter(|name| !name.is_empty()))?;
                let run = run_file::read(&path)?;
                let resolved = request::resolve_again(&context, &run.header)?;
                (Some((run, path)), resolved)
            }
        };
        if !self.dry_run {
            ssh_feature::ensure(&context, &resolved.devices)?;
        }
        let progress = Progress::new(self.quiet);
        let cancel = stop_on_signal(&progress)?;
        Bench { context, inventory, request: self, resolved, progress, cancel }.run(earlier)
    }
}

/// A device's role in a run.
#[derive(Clone, Copy)]
enum Role {
    Measured,
    /// It only predicts: the other devices' predictions are compared with its own.
    Reference,
}

impl Role {
    fn jobs(self, spec: RunSpec<'_>, device: &Device, done: &[Record]) -> Vec<PlannedJob> {
        let mut jobs = spec.jobs(device, done);
        if let Role::Reference = self {
            jobs.retain(|job| job.mode == Mode::Score && job.case.engine.is_default());
        }
        jobs
    }
}

struct Bench {
    context: Context,
    inventory: Inventory,
    request: Request,
    resolved: Resolved,
    progress: Progress,
    cancel: Cancel,
}

impl Bench {
    fn run(self, earlier: Option<(Run, PathBuf)>) -> Result<ExitStatus> {
        let (models, files) = self.prepare_models()?;
        let reference = self.reference();
        let targets = runners::targets(&self.inventory, self.resolved.devices.iter().chain(&reference))?;
        if self.request.dry_run {
            let done = earlier.as_ref().map_or(&[][..], |(run, _)| &run.records);
            return self.print_plan(&reference, &targets, &models, done);
        }
        let builds = Builds {
            context: &self.context,
            progress: &self.progress,
            cancel: &self.cancel,
            verbose: self.request.verbose,
        };
        let runners = builds.all(&targets, self.request.runner.as_deref())?;
        if self.cancel.is_requested() {
            anyhow::bail!("stopped before anything was measured");
        }
        let peer = peers::prepare(&self.context, &self.resolved.engines, &self.progress, &self.cancel)?;
        let header = self.header(reference.as_ref(), models, &targets, &runners, peer.as_ref())?;
        let (mut file, header, done) = match earlier {
            Some((run, path)) => {
                request::check_same(&run.header, &header, &path)?;
                (RunFile::reopen(&path)?, run.header, run.records)
            }
            None => (RunFile::create(&self.context.root, &header)?, header, Vec::new()),
        };
        self.message(&Message::RunStarted { run: &header })?;

        let mut work = |device: &Device, role: Role| -> Result<Option<(DeviceWork, JobList)>> {
            let jobs = role.jobs(RunSpec::of(&header), device, &done);
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
                    Ok(Some((work, JobList::new(jobs))))
                }
                // The other devices are measured all the same.
                (Err(message), Some(job)) => {
                    let record = not_built(job, message);
                    file.record(&record)?;
                    self.message(&Message::Record { record: &record })?;
                    Ok(None)
                }
            }
        };
        let mut all = |devices: Vec<&Device>, role: Role| -> Result<Vec<(DeviceWork, JobList)>> {
            devices.into_iter().filter_map(|device| work(device, role).transpose()).collect()
        };
        let (boards, hosts) = self.resolved.devices.iter().partition(|device| device.is_board());
        let phases = [
            all(reference.iter().collect(), Role::Reference)?,
            all(boards, Role::Measured)?,
            all(hosts, Role::Measured)?,
        ];
        let sessions =
            Sessions { progress: &self.progress, cancel: &self.cancel, jobs: self.request.jobs, start: Instant::now() };
        let mut ended = Vec::new();
        for phase in phases {
            let carried_out = sessions.carry_out(phase, &mut |record| {
                file.record(record)?;
                self.message(&Message::Record { record })
            })?;
            ended.extend(carried_out.into_iter().map(|done| done.ended));
        }
        self.conclude(&file, &header, &ended)
    }

    /// The variants of every model and all their files.
    fn prepare_models(&self) -> Result<(Vec<ModelInfo>, Vec<BlobFile>)> {
        let Resolved { models, engines, nested, .. } = &self.resolved;
        let needs_onnx = engines.iter().any(|engine| !engine.reads_packs());
        let mut prepared = if *nested {
            variants::prepare_nested(&self.context, models, needs_onnx, &self.progress)?
        } else {
            variants::prepare_all(&self.context, models, &self.progress)?
        };
        if needs_onnx && !nested {
            variants::unpack(&self.context.cache, &mut prepared)?;
        }
        let (mut infos, mut files) = (Vec::new(), Vec::new());
        for prepared in prepared {
            infos.push(prepared.info);
            files.extend(prepared.files);
        }
        Ok((infos, files))
    }

    /// This host, to compare the boards' predictions with, unless it is measured anyway.
    fn reference(&self) -> Option<Device> {
        // A given runner is for the selected devices; it may not run here.
        if self.request.runner.is_some() || self.resolved.devices.iter().any(|device| device.name == LOCAL) {
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
            protocol: self.resolved.protocol,
            shapes: self.resolved.shapes.clone(),
            models,
            devices: self.resolved.devices.iter().map(info).collect(),
            engines: self.resolved.engines.clone(),
            skip_below: self.resolved.skip_below,
            nested: self.resolved.nested,
            unit: self.resolved.unit.map(|unit| unit.to_string()),
            peers: peer.map(|peer| peer.info.clone()).into_iter().collect(),
            reference_device: reference.map_or(LOCAL, |device| &device.name).to_owned().into(),
        })
    }

    fn message(&self, message: &Message) -> Result<()> {
        match self.request.message_format {
            MessageFormat::Json => print_json(&message.to_line()),
            MessageFormat::Human => Ok(()),
        }
    }

    fn conclude(&self, file: &RunFile, header: &RunHeader, ended: &[Ended]) -> Result<ExitStatus> {
        let path = &file.path;
        let run = run_file::read(path)?;
        let summaries = espalier_bench::summary::summarise(&run);
        self.request.exports.write(&run, &summaries)?;
        let markdown = self.context.root.join("reports").join(format!("{}.md", header.id));
        output::write(&markdown, &espalier_bench::markdown::render(&run, &summaries))?;
        let resume = self.resume(&header.id);
        let cancelled = ended.iter().any(|ended| ended.cancelled);
        let status = if cancelled { ExitStatus::Failed } else { output::status(&run) };
        self.progress.emit(&format!("records: {}", path.display()));
        if cancelled {
            self.progress.emit(&format!("stopped; `{resume}` measures the rest"));
        } else if status == ExitStatus::Device {
            self.progress.emit(&format!("a device failed; `{resume}` measures what it lacks"));
        }
        if self.request.message_format == MessageFormat::Human {
            output::print_table(&run, &summaries)?;
        }
        for summary in &summaries {
            self.message(&Message::Summary { case: summary })?;
        }
        let Tally { measured, failed, missing } = run.tally();
        self.message(&Message::Finished(Finished {
            run: &header.id,
            success: status == ExitStatus::Ok,
            exit_code: status.code(),
            measured,
            failed,
            missing,
        }))?;
        Ok(status)
    }

    /// The command that measures the rest of a run: a given runner is not remembered.
    fn resume(&self, id: &str) -> String {
        let runner = self.request.runner.as_ref().map(|path| path.to_string_lossy());
        let runner = runner.map_or_else(String::new, |path| format!(" --runner {}", shell_quote(&path)));
        format!("{} bench --resume {id}{runner}", Program::current().call)
    }

    fn print_plan(
        &self,
        reference: &Option<Device>,
        targets: &[Target],
        models: &[ModelInfo],
        done: &[Record],
    ) -> Result<ExitStatus> {
        for target in targets.iter().filter(|_| self.request.runner.is_none()) {
            match build::prepare(&self.context.cache, target, espalier_bench::build_plan::Layout::USUAL) {
                Ok(prepared) => {
                    say(format_args!(
                        "# runner for target `{}` ({}): {}",
                        target.name, target.triple, prepared.plan.reason
                    ))?;
                    say(prepared.plan.command)?;
                }
                Err(error) => {
                    say(format_args!("# runner for target `{}` ({}): {error:#}", target.name, target.triple))?
                }
            }
        }
        let Resolved { devices, protocol, shapes, engines, skip_below, nested, .. } = &self.resolved;
        let spec = RunSpec { models, engines, shapes, skip_below: *skip_below, nested: *nested, protocol };
        let all = devices.iter().map(|device| (device, Role::Measured));
        for (device, role) in all.chain(reference.iter().map(|device| (device, Role::Reference))) {
            let jobs = role.jobs(spec, device, done);
            let of_mode = |mode: Mode| jobs.iter().filter(|job| job.mode == mode).count();
            let modes = [Mode::Score, Mode::Memory, Mode::Time, Mode::Profile].map(|mode| (of_mode(mode), mode.name()));
            let modes: Vec<String> =
                modes.iter().filter(|(count, _)| *count > 0).map(|(count, mode)| format!("{count} {mode}")).collect();
            say(format_args!("# device `{}`: {} invocations ({})", device.name, jobs.len(), modes.join(", ")))?;
            if !self.request.verbose {
                continue;
            }
            let blob = |name: &str| match device.transport {
                Transport::Local => self.context.cache.root.join("blobs").join(name).to_string_lossy().into_owned(),
                _ => format!("{}/blobs/{name}", device.workdir),
            };
            for job in jobs {
                let program = if job.case.engine.is_in_runner() {
                    vec![blob("RUNNER")]
                } else {
                    vec!["PYTHON".to_owned(), peers::PROGRAM.to_owned()]
                };
                let argv = plan::runner_argv(device, &program, &plan::runner_job(&job, device, blob));
                say(CommandLine { env: Vec::new(), argv })?;
            }
        }
        if !self.request.verbose {
            say("# --verbose prints the command of each invocation")?;
        }
        Ok(ExitStatus::Ok)
    }
}

fn not_built(PlannedJob { case, mode, round, .. }: &PlannedJob, message: &str) -> Record {
    let outcome = Outcome::Failed(Failure { stage: FailureStage::Build, message: message.into() });
    let (case, mode, round) = (case.clone(), *mode, *round);
    Record { case, mode, round, sequence: 0, start_ms: 0, wall_ms: 0, trial: None, outcome }
}
