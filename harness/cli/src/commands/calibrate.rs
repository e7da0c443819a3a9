//! `calibrate`: how long a device's processes warm up, how long an invocation must be, which quantiles vary little
//! enough to be judged, and how much times differ between builds. Measured with the dense variants; written to
//! `devices/calibration/NAME.toml`.
//!
//! `espalier_gate::calibration::decide` decides. Nothing is written unless all that was requested was measured.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use espalier_bench::{
    build_plan::Layout,
    exit::ExitStatus,
    plan::{Effort, JobList, MOST_PADDING, PlannedJob},
    record::{Case, ModelInfo, Outcome, Record},
};
use espalier_fleet::{
    cancel::Cancel,
    deploy::BlobFile,
    session::{DeviceWork, Runner},
};
use espalier_gate::{
    Arm,
    calibration::{Calibration, FORMAT, Fit, ModelCalibration, decide, text},
    random::{Random, splitmix},
    validity,
};
use espalier_inventory::Device;
use espalier_protocol::Mode;

use crate::{
    context::{Context, Exit, usage},
    gating::{calibration_file, read_calibration, seed},
    output,
    progress::{Progress, stop_on_signal},
    provenance, run_file,
    runners::{self, Builds},
    selection::Selection,
    sessions::Sessions,
    terminal::{print, say},
    variants,
};

/// Share of invocations that may be invalid.
const MOST_INVALID: f64 = 0.25;
const MOST_LAYOUTS: u32 = 32;

#[derive(Args)]
pub struct Flags {
    /// The device by its file's name in devices/
    #[arg(short, long, value_name = "NAME")]
    device: String,
    /// A model by its file's name in models/; may be repeated
    /// [default: every model in models/, but those with `in-all = false`]
    #[arg(short, long, value_name = "NAME")]
    model: Vec<String>,
    /// Measure as well how much N builds of the same code differ
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "6")]
    layouts: Option<u32>,
    /// Calibrate an emulated device too: whether it works there, not what the device is fit for
    #[arg(long)]
    emulated: bool,
    /// Orders of pairs follow from it [default: from the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Show every command as it is run
    #[arg(short, long)]
    verbose: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(flags: Flags) -> Result<ExitStatus> {
    let layouts = flags.layouts.unwrap_or_default();
    if flags.layouts.is_some() && !(decide::LEAST_LAYOUTS..=MOST_LAYOUTS).contains(&layouts) {
        return Err(usage(format!("{layouts} builds: {} to {MOST_LAYOUTS} can be compared", decide::LEAST_LAYOUTS)));
    }
    let context = Context::open()?;
    let progress = Progress::new(flags.quiet);
    let cancel = stop_on_signal(&progress)?;
    let earlier = read_calibration(&context, &flags.device)
        .map_err(|error| usage(format!("{error:#}; correct the file, or delete it to begin anew")))?;
    let (models, work) = flags.prepare(&context, &progress, &cancel)?;

    let (measured, id) = run_file::now()?;
    let random = Random::new(splitmix(&mut flags.seed.unwrap_or_else(|| seed(&id))));
    let (progress, cancel) = (&progress, &cancel);
    let mut calibrator = Calibrator { progress, cancel, start: Instant::now(), work, random };
    let device = calibrator.work.device.name.clone();
    let runner = calibrator.work.runners.first().context("there is a usual build")?.file.sha256.clone();
    let (mut calibrated, mut layout_sd) = (BTreeMap::new(), None::<f64>);
    for model in &models {
        let calibration = calibrator.model(model, &runner)?;
        if layouts > 0 && calibration.fit == Fit::Unfit {
            // Noise hides the difference between builds, and a spread of 0 would be written that was never seen.
            progress.emit(&format!("{}: builds are not compared where a device is not fit", model.name));
        } else if layouts > 0 {
            // One number a device: of the model that depends most on the place of its code.
            let sd = calibrator.layouts(model, &calibration)?;
            layout_sd = Some(layout_sd.map_or(sd, |known| known.max(sd)));
        }
        calibrated.insert(model.name.clone(), calibration);
    }
    let fit = text::worst(calibrated.values());
    let path = context.root.join(calibration_file(&device));
    let calibration = Calibration { format: FORMAT, device, measured, runner, layout_sd, model: calibrated };
    std::fs::create_dir_all(path.parent().context("it lies in a folder")?)
        .with_context(|| format!("cannot make the folder of `{}`", path.display()))?;
    output::write(&path, &calibration.over(earlier).to_toml())?;
    say(text::layouts(layout_sd, layouts))?;
    say(format_args!("calibration: {} (to be committed)", path.display()))?;
    Ok(match fit {
        Some(Fit::Release | Fit::Nightly) => ExitStatus::Ok,
        Some(Fit::Unfit) | None => ExitStatus::Inconclusive,
    })
}

impl Flags {
    /// Prunes the models and builds every runner before anything is measured, because building would disturb it.
    fn prepare(&self, context: &Context, progress: &Progress, cancel: &Cancel) -> Result<(Vec<ModelInfo>, DeviceWork)> {
        let selection = Selection { device: vec![self.device.clone()], all_devices: false, model: self.model.clone() };
        let (mut selected, _) = selection.resolve_to_measure(context, self.emulated)?;
        selected.models.iter_mut().for_each(|model| model.recipe.ratios = vec![0.0]);
        let device = selected.devices.first().context("a device is selected")?.clone();
        let prepared = variants::prepare_all(context, &selected.models, progress)?;
        let (models, files): (Vec<ModelInfo>, Vec<Vec<BlobFile>>) =
            prepared.into_iter().map(|prepared| (prepared.info, prepared.files)).unzip();
        let targets = runners::targets(&selected.inventory, [&device].into_iter())?;
        let target = targets.into_iter().next().context("a device has a target")?;
        let builds = Builds { context, progress, cancel, verbose: self.verbose };
        let layouts = 0..self.layouts.unwrap_or_default().max(1);
        let runners = layouts.map(|number| builds.one(&target, Layout(number))).collect::<Result<Vec<_>>>()?;
        check_distinct(&runners)?;
        Ok((models, DeviceWork { device, runners, target, files: files.concat(), owner: provenance::owner() }))
    }
}

/// Builds that are the same do not differ, and would make the spread between builds look small.
fn check_distinct(runners: &[Runner]) -> Result<()> {
    for (number, runner) in runners.iter().enumerate() {
        if let Some(same) = runners[..number].iter().position(|other| other.file.sha256 == runner.file.sha256) {
            anyhow::bail!("builds {same} and {number} of the runner are the same file: their layouts were not applied");
        }
    }
    Ok(())
}

/// A device, with a session of its own for each question.
struct Calibrator<'a> {
    progress: &'a Progress,
    cancel: &'a Cancel,
    start: Instant,
    /// Its runners are the builds; the first is the usual one.
    work: DeviceWork,
    random: Random,
}

/// A valid invocation: raw times in ns, and its wall time in ms.
type Sample = (Vec<u64>, u64);

/// Nothing is written for a device that is too disturbed.
fn disturbed(message: String) -> anyhow::Error {
    let message = format!("{message}; nothing was written");
    anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message })
}

impl Calibrator<'_> {
    /// Prints the table as well.
    fn model(&mut self, model: &ModelInfo, runner: &str) -> Result<ModelCalibration> {
        let usual = vec![0; decide::WARM_UPS];
        let samples = self.measure(model, "warm-up", decide::WARM_UP_EFFORT, &usual)?;
        let times: Vec<Vec<u64>> = samples.into_iter().flatten().map(|(times, _)| times).collect();
        let warm_up = decide::warm_up(&times).with_context(|| format!("the warm-up of {}", model.name))?;

        let (mut lengths, mut samples) = (Vec::new(), Vec::new());
        for ms in decide::LENGTHS_MS {
            let effort = warm_up.effort(ms);
            if lengths.last().is_some_and(|last: &decide::Length| last.iterations == effort.iterations) {
                // The least number of inferences of a slow model takes longer than that anyway.
                continue;
            }
            let (length, of_length) = self.length(model, ms, effort)?;
            let is_enough = length.is_enough();
            lengths.push(length);
            samples.push(of_length);
            if is_enough {
                break;
            }
        }
        let choice = decide::choose(&lengths).context("a length was tried")?;
        let chosen = lengths.iter().position(|length| *length == choice.length).unwrap_or_default();
        let device = &self.work.device;
        let tried = text::Tried {
            model: &model.name,
            device: &device.name,
            facts: facts(device, runner),
            warm_up: &warm_up,
            lengths: &lengths,
            choice: &choice,
            worth: decide::worth(&samples[chosen]),
        };
        print(text::terminal(&tried, output::look(160)))?;
        Ok(choice.calibration(warm_up.warmup))
    }

    /// Pairs of the same artifact; an invalid invocation invalidates its pair.
    fn length(&mut self, model: &ModelInfo, ms: u64, effort: Effort) -> Result<(decide::Length, Vec<Sample>)> {
        let arms: Vec<[Arm; 2]> = (0..decide::BLOCKS)
            .flat_map(|_| {
                let first = if self.random.chance(0.5) { [Arm::A, Arm::B] } else { [Arm::B, Arm::A] };
                [first, [first[1], first[0]]]
            })
            .collect();
        let usual = vec![0; 2 * arms.len()];
        let measured = self.measure(model, &format!("pairs of {ms} ms"), effort, &usual)?;
        let mut pairs: Vec<[&[u64]; 2]> = Vec::new();
        let mut samples = Vec::new();
        for (order, pair) in arms.iter().zip(measured.chunks_exact(2)) {
            let [Some(first), Some(second)] = pair else { continue };
            samples.extend([first, second].map(Clone::clone));
            let (a, b) = if order[0] == Arm::A { (first, second) } else { (second, first) };
            pairs.push([&a.0, &b.0]);
        }
        let length = decide::length(ms, &pairs).with_context(|| format!("{}, invocations of {ms} ms", model.name))?;
        Ok((length, samples))
    }

    /// The spread between builds; a round with an invalid invocation is left out.
    fn layouts(&mut self, model: &ModelInfo, calibration: &ModelCalibration) -> Result<f64> {
        let ModelCalibration { warmup, iterations, judged, .. } = *calibration;
        let effort = Effort { warmup, iterations, min_time_ms: 0 };
        let builds = self.work.runners.len();
        let there_and_back = |round: usize| -> Vec<usize> {
            if round.is_multiple_of(2) { (0..builds).collect() } else { (0..builds).rev().collect() }
        };
        let order: Vec<usize> = (0..decide::LAYOUT_ROUNDS).flat_map(there_and_back).collect();
        let samples = self.measure(model, &format!("{builds} builds"), effort, &order)?;
        let mut rounds: Vec<Vec<f64>> = Vec::new();
        for (order, samples) in order.chunks_exact(builds).zip(samples.chunks_exact(builds)) {
            let mut round = vec![0.0; builds];
            if samples.iter().any(Option::is_none) {
                continue;
            }
            for (build, (times, _)) in order.iter().zip(samples.iter().flatten()) {
                let statistic = decide::statistic(times, judged);
                round[*build] = statistic.with_context(|| format!("{}, build {build}", model.name))?;
            }
            rounds.push(round);
        }
        if 2 * rounds.len() < decide::LAYOUT_ROUNDS {
            let (name, good, all) = (&model.name, rounds.len(), decide::LAYOUT_ROUNDS);
            return Err(disturbed(format!("{name}: only {good} of {all} rounds of all builds were undisturbed")));
        }
        decide::layout_sd(&rounds).with_context(|| format!("the builds of {}", model.name))
    }

    /// One timing invocation for each of `order`, which names builds. In that order; `None` for an invalid one.
    fn measure(
        &mut self,
        model: &ModelInfo,
        what: &str,
        effort: Effort,
        order: &[usize],
    ) -> Result<Vec<Option<Sample>>> {
        let device = self.work.device.name.clone();
        let variant = model.variants.first().context("the dense variant is there")?;
        let jobs: Vec<PlannedJob> = order
            .iter()
            .enumerate()
            .map(|(round, runner)| PlannedJob {
                case: Case::new(&model.name, variant.ratio, &device),
                mode: Mode::Time,
                round: round as u32,
                runner: *runner,
                model: variant.sha256.clone(),
                inputs: model.inputs.clone(),
                shapes: Vec::new(),
                effort,
                padding: Some(self.random.below(MOST_PADDING)),
                slow_down_percent: None,
                skip_below: None,
                ratio: None,
                request: None,
                trial: None,
            })
            .collect();
        let Effort { warmup, iterations, .. } = effort;
        self.progress.emit(&format!(
            "{device}: {}, {what}: {} invocations of {iterations} inferences at least, {warmup} before them",
            model.name,
            jobs.len()
        ));
        let sessions = Sessions { progress: self.progress, cancel: self.cancel, jobs: None, start: self.start };
        let mut records: Vec<Record> = Vec::new();
        let ends = sessions.carry_out(vec![(self.work.clone(), JobList::new(jobs))], &mut |record| {
            records.push(record.clone());
            Ok(())
        })?;
        if ends.iter().any(|end| end.ended.cancelled) || self.cancel.is_requested() {
            anyhow::bail!("stopped: nothing was written");
        }
        let samples = samples(&device, &model.name, order.len(), &records)?;
        let mut invalid = samples.iter().filter_map(|sample| sample.as_ref().err());
        if let Some(reason) = invalid.next() {
            let (count, all) = (1 + invalid.count(), order.len());
            let note = format!("{count} of {all} invocations are invalid, e.g. {reason}");
            if count as f64 > MOST_INVALID * all as f64 {
                let name = &model.name;
                return Err(disturbed(format!(
                    "`{device}` is too disturbed to be calibrated with {name}: {note}; stop what disturbs it and \
                     calibrate again"
                )));
            }
            self.progress.emit(&format!("{device}: {note}"));
        }
        Ok(samples.into_iter().map(Result::ok).collect())
    }
}

/// One a job, in their order; the reason for an invalid one.
fn samples(device: &str, model: &str, jobs: usize, records: &[Record]) -> Result<Vec<Result<Sample, String>>> {
    let mut samples = Vec::new();
    for record in records {
        match &record.outcome {
            Outcome::Measured(measurement) => {
                let invalid = validity::held_back(measurement);
                let invalid = invalid.or_else(|| validity::disturbed(measurement, record.wall_ms));
                samples.push(invalid.map_or_else(|| Ok((measurement.timed_ns.clone(), record.wall_ms)), Err));
            }
            Outcome::Failed(failure) => {
                let status = if failure.stage.is_device() { ExitStatus::Device } else { ExitStatus::Failed };
                let message = format!("{model} on `{device}`: {}; nothing was written", failure.message);
                return Err(anyhow::Error::new(Exit { status, message }));
            }
        }
    }
    if samples.len() != jobs {
        let ended = samples.len();
        anyhow::bail!("{model} on `{device}`: {ended} of {jobs} invocations ended; nothing was written");
    }
    Ok(samples)
}

fn facts(device: &Device, runner: &str) -> Vec<String> {
    let mut facts = vec![format!("runner {}", &runner[..12.min(runner.len())])];
    facts.extend(device.conditions.governor.as_ref().map(|governor| format!("governor {governor}")));
    if !device.conditions.cpus.is_empty() {
        facts.push(format!("CPUs {:?}", device.conditions.cpus));
    }
    if device.emulated {
        facts.push("emulated: its times say nothing about a real board".to_owned());
    }
    facts
}
