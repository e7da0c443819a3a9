//! Loads an ONNX file, packed or not, and reports the time of each step. Unpacking is part of parsing.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use espalier_accelerate::{LayerChoice, Measured, Options, Weights, accelerate, region::State};
use espalier_kernels::threads::Threads;
use espalier_protocol::{
    CandidateTime, Engine, Job, LayerKernel, Line, Loaded, Macs, Mode, OutputFact, RatioFact, Stage,
};
use espalier_weights::pack::Pack;
use tract_onnx::{
    prelude::*,
    tract_core::ops::{gru_seq::GruSeq, scan::Scan},
    tract_hir::infer::Factoid,
};

use crate::{
    allocated, board,
    inputs::{Declared, Samples},
    macs,
    packed::Unpacking,
    report::Reporter,
    stored::{self, InCommon},
};

const INCONSISTENT: &str = "the model's shapes and types do not work out";

pub struct Ready {
    /// The densest first, where there are several.
    plans: Vec<Plan>,
    current: usize,
    pub samples: Samples,
}

/// The model at one ratio, ready to run.
struct Plan {
    /// `None` for a file with one ratio, which does not name it.
    ratio: Option<f64>,
    state: State,
}

/// Loads the model of a job and reports what was loaded. Open dimensions become concrete first: with symbols tract's
/// plans are slower (6-9 times on MobileNetV2), and it panics on some.
///
/// With `count_macs` the multiply-accumulates are reported too, which costs memory and time.
pub fn load(reporter: &Reporter, job: &Job, count_macs: bool) -> Result<Ready> {
    reporter.enter(Stage::Load, 0);
    let unreadable = || format!("`{}` is not a model this runner can read", job.model);
    let start = Instant::now();
    let pack = stored::pack(&job.model).with_context(unreadable)?;
    let ratios = ratios_to_load(job, pack.as_ref().map(Pack::ratios).unwrap_or_default())?;
    let mut parse_ns = nanoseconds(start);
    let mut loaded =
        Loaded { parse_ns: 0, optimise_ns: 0, inputs: Vec::new(), outputs: Vec::new(), macs: None, ratios: Vec::new() };
    // Plain tract keeps the settings of the C library.
    let ours = job.engine == Engine::Espalier;
    if ours {
        allocated::is_loading(true);
    }
    let threads = Arc::new(Threads::new(job.threads as usize));
    let in_common = InCommon::default();
    let (mut plans, mut samples) = (Vec::new(), None);
    for (index, ratio) in ratios {
        let before = allocated::now();
        let start = Instant::now();
        let mut stored =
            read(job, pack.as_ref().map(|pack| pack.at_ratio(index)), &in_common).with_context(unreadable)?;
        parse_ns += nanoseconds(start);

        reporter.enter(Stage::Inputs, 0);
        let model = &mut stored.graph;
        let prepared = match samples.take() {
            Some(samples) => samples,
            None => Samples::prepare(job, &declared(model)?)?,
        };
        let samples = samples.insert(prepared);
        for (index, (shape, dtype)) in samples.shapes().into_iter().zip(samples.dtypes()).enumerate() {
            model.set_input_fact(index, InferenceFact::dt_shape(dtype, shape))?;
        }
        // Declared output shapes would keep the dimensions open.
        for index in 0..model.outputs.len() {
            model.set_output_fact(index, InferenceFact::default())?;
        }

        reporter.enter(Stage::Load, 0);
        let start = Instant::now();
        let count_macs = count_macs && plans.is_empty();
        let (decluttered, macs, kernels) = optimised(job, stored, &threads, count_macs).context(INCONSISTENT)?;
        if plans.is_empty() {
            (loaded.inputs, loaded.outputs) = (facts(&decluttered, true)?, facts(&decluttered, false)?);
            loaded.macs = macs;
        }
        let state = decluttered.into_optimized()?.into_runnable()?.spawn()?;
        loaded.optimise_ns += nanoseconds(start);
        plans.push(Plan { ratio, state });
        if let Some(ratio) = ratio {
            let bytes = (job.mode == Mode::Memory).then(|| allocated::now().saturating_sub(before));
            loaded.ratios.push(RatioFact { ratio, bytes });
        }
        let kernels: Vec<LayerKernel> = kernels.into_iter().map(|chosen| layer_kernel(chosen, ratio)).collect();
        Line::kernels(&kernels).for_each(|line| reporter.emit(&line));
    }
    if ours {
        allocated::is_loading(false);
    }
    loaded.parse_ns = parse_ns;
    reporter.emit(&Line::Loaded(loaded));
    Ok(Ready { plans, current: 0, samples: samples.context("there is nothing to run")? })
}

/// The indices of the file's ratios to load, with the ratio, the densest first.
fn ratios_to_load(job: &Job, known: Vec<f64>) -> Result<Vec<(usize, Option<f64>)>> {
    let chosen = !job.ratios.is_empty() || job.budget_ms.is_some();
    if known.is_empty() {
        ensure!(
            !chosen,
            "the model holds one ratio and does not say which: `--ratio` and `--budget-ms` need a pack of several"
        );
        return Ok(vec![(0, None)]);
    }
    if let Some(missing) = job.ratios.iter().find(|ratio| !known.contains(ratio)) {
        bail!("the pack holds the ratios {known:?}, not {missing}");
    }
    let is_loaded = |(index, ratio): &(usize, f64)| match &*job.ratios {
        [] => *index == 0 || job.budget_ms.is_some(),
        ratios => ratios.contains(ratio),
    };
    let loaded = known.into_iter().enumerate().filter(is_loaded);
    Ok(loaded.map(|(index, ratio)| (index, Some(ratio))).collect())
}

/// The decluttered model, its multiply-accumulates if `count_macs`, and the choices of kernels.
fn optimised(
    job: &Job,
    stored: stored::Model,
    threads: &Arc<Threads>,
    count_macs: bool,
) -> Result<(TypedModel, Option<Macs>, Vec<LayerChoice>)> {
    let (mut typed, weights) = stored.into_typed()?;
    forget_between_runs(&mut typed);
    match job.engine {
        Engine::Tract => {
            let decluttered = typed.into_decluttered()?;
            let macs = count_macs.then(|| macs::count(&decluttered)).transpose()?;
            Ok((decluttered, macs, Vec::new()))
        }
        Engine::Espalier => {
            // Counted on the layers of the file: the second number includes what our kernels skip.
            let count = || {
                let mut typed = typed.clone();
                weights.fill(&mut typed)?;
                typed.prop_consts()?;
                macs::count(&typed.into_decluttered()?)
            };
            let macs = count_macs.then(count).transpose()?;
            let (decluttered, chosen) = accelerate(typed, options(job, Arc::clone(threads), weights))?;
            Ok((decluttered, macs, chosen))
        }
    }
}

impl Ready {
    /// Runs the model on the `index`-th inputs.
    pub fn run(&mut self, index: usize) -> Result<TVec<TValue>> {
        let inputs = self.samples.get(index)?;
        self.run_on(inputs)
    }

    pub fn run_on(&mut self, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        self.plans[self.current].state.run(inputs)
    }

    pub fn state(&mut self) -> &mut State {
        &mut self.plans[self.current].state
    }

    /// The loaded ratios, the densest first. One `None` for a file that does not name its ratio.
    pub fn ratios(&self) -> Vec<Option<f64>> {
        self.plans.iter().map(|plan| plan.ratio).collect()
    }

    /// Uses another one of [`Ready::ratios`] from the next inference on. All of them are in memory.
    pub fn switch(&mut self, index: usize) {
        self.current = index;
    }
}

fn nanoseconds(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

fn options(job: &Job, threads: Arc<Threads>, weights: Weights) -> Options {
    Options {
        threads,
        skip_below: job.skip_below.map(|bound| bound as f32),
        cpu: format!("{}, {}", board::cpu().unwrap_or_default(), board::cpu_features().join(" ")),
        cache: job.cache.as_ref().map(PathBuf::from).or_else(beside_runner),
        // A session that compares two arms says so: all its processes choose the same kernels.
        keep_choices: std::env::var_os("ESPALIER_CHOICES").is_some_and(|value| value == "keep"),
        weights,
    }
}

/// The default folder for choices of kernels: beside the folder `blobs` that the runner is in, in the board's working
/// folder or the host's cache. A runner in any other folder stores no choices.
fn beside_runner() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let blobs = program.parent().filter(|folder| folder.ends_with("blobs"))?;
    Some(blobs.parent()?.join("kernels"))
}

fn layer_kernel(chosen: LayerChoice, ratio: Option<f64>) -> LayerKernel {
    let time = |measured: Measured| Some(CandidateTime { kernel: measured.kernel.into(), ns: measured.ns? });
    LayerKernel {
        name: ratio.map_or_else(|| chosen.name.clone(), |ratio| format!("{} @ {ratio}", chosen.name)).into(),
        op: chosen.op.into(),
        kernel: chosen.kernel.into(),
        candidates: chosen.candidates.into_iter().filter_map(time).collect(),
        cached: chosen.cached,
        unsure: chosen.unsure,
        note: chosen.note.map(Into::into),
    }
}

/// Reads the model. Plain tract gets it as tract itself reads it.
fn read(job: &Job, pack: Option<Pack<'static>>, in_common: &InCommon) -> Result<stored::Model> {
    match (job.engine, pack) {
        (Engine::Espalier, Some(pack)) => stored::unpacked(pack, in_common),
        (Engine::Espalier, None) => stored::file(&job.model),
        (Engine::Tract, Some(pack)) => {
            Ok(stored::Model::of_graph(stored::onnx().model_for_read(&mut Unpacking::of(&pack)?)?))
        }
        (Engine::Tract, None) => stored::by_tract(&job.model),
    }
}

/// tract keeps the state of recurrent layers from one run to the next, for streams. Here samples are independent:
/// without this a recurrent layer would begin each sample with the state after the one before.
fn forget_between_runs(model: &mut TypedModel) {
    for node in &mut model.nodes {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
            forget_between_runs(&mut scan.body);
        } else if let Some(gru) = node.op_as_mut::<GruSeq>() {
            gru.reset_every_turn = true;
        }
    }
}

fn declared(model: &InferenceModel) -> Result<Vec<Declared>> {
    let declare = |index: usize| -> Result<Declared> {
        let outlet = model.input_outlets()?[index];
        let fact = model.outlet_fact(outlet)?;
        let axes = fact
            .shape
            .dims()
            .map(|axis| axis.concretize().and_then(|axis| usize::try_from(axis.to_i64().ok()?).ok()))
            .collect();
        let name = model.node(outlet.node).name.clone();
        let dtype = fact.datum_type.concretize().unwrap_or(DatumType::F32);
        Ok(Declared { name, dtype, shape: axes })
    };
    (0..model.input_outlets()?.len()).map(declare).collect()
}

fn facts(model: &TypedModel, inputs: bool) -> Result<Vec<OutputFact>> {
    let outlets = if inputs { model.input_outlets()? } else { model.output_outlets()? };
    let fact = |outlet: &OutletId| -> Result<OutputFact> {
        let fact = model.outlet_fact(*outlet)?;
        let shape = fact.shape.as_concrete().context("a dimension stays open")?;
        Ok(OutputFact {
            name: model.outlet_label(*outlet).unwrap_or(&model.node(outlet.node).name).into(),
            dtype: format!("{:?}", fact.datum_type).to_lowercase().into(),
            shape: shape.iter().map(|axis| *axis as u64).collect(),
        })
    };
    outlets.iter().map(fact).collect()
}
