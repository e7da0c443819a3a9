//! `calibrate`: how long a device's processes take to warm up, how long an invocation must be, which of its numbers stand still enough to be
//! judged, and how much it matters where the code lies. Measured with the dense variants; written to `devices/calibration/NAME.toml`.
//!
//! What the times come to is decided in `espalier_gate::calibration::decide`. Nothing is written unless all that was asked for was measured.

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
    session::{DeviceWork, Runner},
};
use espalier_gate::{
    Arm, Criterion,
    calibration::{Calibration, FORMAT, Fit, ModelCalibration, decide, words},
    simulate::{Random, splitmix},
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
    ssh_feature, variants,
};

/// Of invocations, as a fraction, that may be invalid.
const MOST_INVALID: f64 = 0.25;
const MOST_LAYOUTS: u32 = 32;

#[derive(Args)]
pub struct Flags {
    /// The device by its file's name in devices/
    #[arg(short, long, value_name = "NAME")]
    device: String,
    /// A model by its file's name in models/; may be repeated [default: every model in models/, but those with `in-all = false`]
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
    let selection = Selection { device: vec![flags.device.clone()], all_devices: false, model: flags.model.clone() };
    let selected = selection.resolve(&context)?;
    let device = selected.devices.first().context("a device is selected")?.clone();
    if device.emulated && !flags.emulated {
        let name = &device.name;
        return Err(usage(format!(
            "`{name}` is emulated: its times say nothing; `--emulated` calibrates it all the same"
        )));
    }
    let file = calibration_file(&device.name);
    let earlier = read_calibration(&context, &device.name)
        .map_err(|error| usage(format!("{error:#}; correct the file, or delete it to begin anew")))?;
    ssh_feature::ensure(&context, [&device])?;

    let mut models = selected.models;
    models.iter_mut().for_each(|model| model.recipe.ratios = vec![0.0]);
    let (mut infos, mut files) = (Vec::new(), Vec::new());
    for prepared in variants::prepare_all(&context, &models, &progress)? {
        infos.push(prepared.info);
        files.extend(prepared.files);
    }
    let target = runners::targets(&selected.inventory, [&device].into_iter())?;
    let target = target.into_iter().next().context("a device has a target")?;
    let builds = Builds { context: &context, progress: &progress, cancel: &cancel, verbose: flags.verbose };
    // All of them before anything is measured: building and timing are not done at once.
    let linked = (0..layouts.max(1)).map(|number| builds.one(&target, Layout(number))).collect::<Result<Vec<_>>>()?;
    distinct(&linked)?;

    let (measured, id) = run_file::now()?;
    let runner = linked.first().context("there is a usual build")?.file.sha256.clone();
    let mut seed = flags.seed.unwrap_or_else(|| seed(&id));
    let work = DeviceWork { device, runners: linked, target, files, owner: provenance::owner() };
    let mut bench = Bench {
        progress: &progress,
        cancel: &cancel,
        start: Instant::now(),
        work,
        random: Random::new(splitmix(&mut seed)),
    };
    let (mut models, mut layout_sd) = (BTreeMap::new(), None::<f64>);
    for model in &infos {
        let (calibrated, effort, told) = bench.model(model, &runner)?;
        print!("{told}");
        if layouts > 0 && calibrated.fit == Fit::Unfit {
            // Noise hides what builds differ by, and a spread of 0 would be written that nobody has seen.
            progress.emit(&format!("{}: builds are not compared where a device is not fit", model.name));
        } else if layouts > 0 {
            // One number a device: the model that minds most where its code lies.
            let found = bench.layouts(model, effort, calibrated.judged)?;
            layout_sd = Some(layout_sd.map_or(found, |known| known.max(found)));
        }
        models.insert(model.name.clone(), calibrated);
    }
    println!("{}", words::layouts(layout_sd, layouts));
    let fit = words::worst(models.values());
    let device = bench.work.device.name.clone();
    let calibration = Calibration { format: FORMAT, device, measured, runner, layout_sd, model: models }.over(earlier);
    let path = context.root.join(&file);
    std::fs::create_dir_all(path.parent().context("it lies in a folder")?)
        .with_context(|| format!("cannot make the folder of `{file}`"))?;
    output::write(&path, &calibration.to_toml())?;
    println!("calibration: {} (to be committed)", path.display());
    Ok(match fit {
        Some(Fit::Release | Fit::Nightly) => ExitStatus::Ok,
        Some(Fit::Unfit) | None => ExitStatus::Inconclusive,
    })
}

/// Builds that are the same differ by nothing, and would make the spread between builds look small.
fn distinct(linked: &[Runner]) -> Result<()> {
    for (number, runner) in linked.iter().enumerate() {
        if let Some(same) = linked[..number].iter().position(|other| other.file.sha256 == runner.file.sha256) {
            anyhow::bail!("builds {same} and {number} of the runner are the same file: their layouts were not applied");
        }
    }
    Ok(())
}

/// A device, measured in sessions of its own for each question.
struct Bench<'a> {
    progress: &'a Progress,
    cancel: &'a Cancel,
    start: Instant,
    /// Its runners are the builds; the first is the usual one.
    work: DeviceWork,
    random: Random,
}

/// Raw times of an invocation in ns, and its wall time in ms.
type Timed = (Vec<u64>, u64);

/// What one invocation said, if it counts.
#[derive(Clone)]
struct Sample {
    times: Vec<u64>,
    wall_ms: u64,
}

impl Bench<'_> {
    /// The calibration, what an invocation does by it, and the table.
    fn model(&mut self, model: &ModelInfo, runner: &str) -> Result<(ModelCalibration, Effort, String)> {
        let all = vec![0; decide::WARM_UPS];
        let found = self.measure(model, "warm-up", decide::WARM_UP_EFFORT, &all)?;
        let times: Vec<Vec<u64>> = found.into_iter().flatten().map(|sample| sample.times).collect();
        let warm_up = decide::warm_up(&times).with_context(|| format!("the warm-up of {}", model.name))?;

        let (mut lengths, mut samples) = (Vec::new(), Vec::new());
        for ms in decide::LENGTHS_MS {
            let effort = warm_up.effort(ms);
            if lengths.last().is_some_and(|last: &decide::Length| last.iterations == effort.iterations) {
                // Of a slow model the least number of inferences takes longer than that anyway.
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
        let tried = words::Tried {
            model: &model.name,
            device: &device.name,
            facts: facts(device, runner),
            warm_up: &warm_up,
            lengths: &lengths,
            choice: &choice,
            worth: decide::worth(&samples[chosen]),
        };
        let told = words::terminal(&tried, output::look(160));
        let calibrated = choice.calibration(warm_up.warmup);
        let effort = Effort { warmup: calibrated.warmup, iterations: calibrated.iterations, min_time_ms: 0 };
        Ok((calibrated, effort, told))
    }

    /// Pairs of the same artifact; an invocation that does not count takes its pair with it.
    fn length(&mut self, model: &ModelInfo, ms: u64, effort: Effort) -> Result<(decide::Length, Vec<Timed>)> {
        let arms: Vec<[Arm; 2]> = (0..decide::BLOCKS)
            .flat_map(|_| {
                let first = if self.random.chance(0.5) { [Arm::A, Arm::B] } else { [Arm::B, Arm::A] };
                [first, [first[1], first[0]]]
            })
            .collect();
        let all = vec![0; 2 * arms.len()];
        let found = self.measure(model, &format!("pairs of {ms} ms"), effort, &all)?;
        let mut pairs: Vec<[Vec<u64>; 2]> = Vec::new();
        let mut samples = Vec::new();
        for (order, pair) in arms.iter().zip(found.chunks_exact(2)) {
            let [Some(first), Some(second)] = pair else { continue };
            samples.extend([first, second].map(|sample| (sample.times.clone(), sample.wall_ms)));
            let (a, b) = if order[0] == Arm::A { (first, second) } else { (second, first) };
            pairs.push([a.times.clone(), b.times.clone()]);
        }
        let length = decide::length(ms, &pairs).with_context(|| format!("{}, invocations of {ms} ms", model.name))?;
        Ok((length, samples))
    }

    /// The spread between builds; a round in which an invocation does not count is left out whole.
    fn layouts(&mut self, model: &ModelInfo, effort: Effort, judged: Criterion) -> Result<f64> {
        let builds = self.work.runners.len();
        let there_and_back = |round: usize| -> Vec<usize> {
            if round.is_multiple_of(2) { (0..builds).collect() } else { (0..builds).rev().collect() }
        };
        let order: Vec<usize> = (0..decide::LAYOUT_ROUNDS).flat_map(there_and_back).collect();
        let found = self.measure(model, &format!("{builds} builds"), effort, &order)?;
        let mut rounds: Vec<Vec<f64>> = Vec::new();
        for (order, samples) in order.chunks_exact(builds).zip(found.chunks_exact(builds)) {
            let mut round: Vec<(usize, f64)> = Vec::new();
            for (build, sample) in order.iter().zip(samples) {
                if let Some(sample) = sample {
                    let said = decide::statistic(&sample.times, judged);
                    round.push((*build, said.with_context(|| format!("{}, build {build}", model.name))?));
                }
            }
            if round.len() == builds {
                round.sort_by_key(|(build, _)| *build);
                rounds.push(round.into_iter().map(|(_, said)| said).collect());
            }
        }
        if 2 * rounds.len() < decide::LAYOUT_ROUNDS {
            let message = format!(
                "{}: only {} of {} rounds of all builds were undisturbed; nothing was written",
                model.name,
                rounds.len(),
                decide::LAYOUT_ROUNDS
            );
            return Err(anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message }));
        }
        decide::layout_sd(&rounds).with_context(|| format!("the builds of {}", model.name))
    }

    /// One timing invocation for each of `order`, which names builds. In that order; `None` for one that does not count.
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
        let found = samples(&device, &model.name, order.len(), &records)?;
        let notes = found.iter().filter_map(|sample| sample.as_ref().err());
        let reasons: Vec<&String> = notes.collect();
        if let Some(reason) = reasons.first() {
            let told = format!("{} of {} invocations do not count, e.g. {reason}", reasons.len(), order.len());
            if reasons.len() as f64 > MOST_INVALID * order.len() as f64 {
                let message = format!(
                    "`{device}` is too disturbed to be calibrated with {}: {told}; make it quiet and calibrate again; nothing was written",
                    model.name
                );
                return Err(anyhow::Error::new(Exit { status: ExitStatus::Inconclusive, message }));
            }
            self.progress.emit(&format!("{device}: {told}"));
        }
        Ok(found.into_iter().map(Result::ok).collect())
    }
}

/// One a job, in their order; the reason for one that does not count.
fn samples(device: &str, model: &str, jobs: usize, records: &[Record]) -> Result<Vec<Result<Sample, String>>> {
    let mut samples = Vec::new();
    for record in records {
        match &record.outcome {
            Outcome::Measured(measurement) => samples.push(
                match validity::held_back(measurement).or_else(|| validity::disturbed(measurement, record.wall_ms)) {
                    None => Ok(Sample { times: measurement.timed_ns.clone(), wall_ms: record.wall_ms }),
                    Some(reason) => Err(reason),
                },
            ),
            Outcome::Failed(failure) => {
                let status = if failure.stage.is_device() { ExitStatus::Device } else { ExitStatus::Failed };
                let message = format!("{model} on `{device}`: {}; nothing was written", failure.message);
                return Err(anyhow::Error::new(Exit { status, message }));
            }
        }
    }
    if samples.len() != jobs {
        anyhow::bail!(
            "{model} on `{device}`: {} of {jobs} invocations were told of; nothing was written",
            samples.len()
        );
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
