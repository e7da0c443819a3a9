//! From an ONNX file, packed or not, to something that runs, with the time each step took. Unpacking is part of parsing.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use espalier_accelerate::{Chosen, Options, Weights, accelerate};
use espalier_kernels::threads::Threads;
use espalier_protocol::{
    CandidateTime, Engine, Job, LayerKernel, Line, Loaded, Macs, Mode, OutputFact, RatioFact, Stage,
};
use espalier_weights::pack::Pack;
use tract_onnx::{
    prelude::*,
    tract_core::{
        ops::{TypedOp, gru_seq::GruSeq, scan::Scan},
        plan::SimpleState,
    },
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

/// tract spells it with its plan's parameters.
pub type TypedSimpleState = SimpleState<TypedFact, Box<dyn TypedOp>>;

const DO_NOT_WORK_OUT: &str = "the model's shapes and types do not work out";

pub struct Ready {
    /// The densest first, where there are several.
    plans: Vec<Plan>,
    current: usize,
    pub samples: Samples,
}

/// The model at one ratio, ready to run.
struct Plan {
    /// Nothing where the file does not say.
    ratio: Option<f64>,
    state: TypedSimpleState,
}

/// Every open dimension is made concrete first: tract plans worse around symbols (6-9 times slower on MobileNetV2) and panics on some.
///
/// With `count_macs` the multiply-accumulates are told too; that costs memory and time.
pub fn load(reporter: &Reporter, job: &Job, count_macs: bool) -> Result<Ready> {
    reporter.enter(Stage::Load, 0);
    let unreadable = || format!("`{}` is not a model this runner can read", job.model);
    let start = Instant::now();
    let pack = stored::pack(&job.model).with_context(unreadable)?;
    let wanted = wanted(job, pack.as_ref().map(Pack::ratios).unwrap_or_default())?;
    let mut parse_ns = nanoseconds(start);
    let mut loaded =
        Loaded { parse_ns: 0, optimise_ns: 0, inputs: Vec::new(), outputs: Vec::new(), macs: None, ratios: Vec::new() };
    // Plain tract is left as it is.
    let ours = job.engine == Engine::Espalier;
    if ours {
        allocated::is_loading(true);
    }
    let threads = Arc::new(Threads::new(job.threads as usize));
    let in_common = InCommon::default();
    let (mut plans, mut samples) = (Vec::new(), None);
    for (index, ratio) in wanted {
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
        // Declared output shapes would hold the open dimensions fast.
        for index in 0..model.outputs.len() {
            model.set_output_fact(index, InferenceFact::default())?;
        }

        reporter.enter(Stage::Load, 0);
        let start = Instant::now();
        let count_macs = count_macs && plans.is_empty();
        let (decluttered, macs, kernels) = optimised(job, stored, &threads, count_macs).context(DO_NOT_WORK_OUT)?;
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
        Line::kernels(&kernels).for_each(|line| reporter.say(&line));
    }
    if ours {
        allocated::is_loading(false);
    }
    loaded.parse_ns = parse_ns;
    reporter.say(&Line::Loaded(loaded));
    Ok(Ready { plans, current: 0, samples: samples.context("there is nothing to run")? })
}

/// Which of the file's ratios are to be loaded, the densest first: place and ratio.
fn wanted(job: &Job, known: Vec<f64>) -> Result<Vec<(usize, Option<f64>)>> {
    let asked = !job.ratios.is_empty() || job.budget_ms.is_some();
    if known.is_empty() {
        ensure!(
            !asked,
            "the model holds one ratio and does not say which: `--ratio` and `--budget-ms` want a pack of several"
        );
        return Ok(vec![(0, None)]);
    }
    if let Some(missing) = job.ratios.iter().find(|ratio| !known.contains(ratio)) {
        bail!("the pack holds the ratios {known:?}, not {missing}");
    }
    let is_wanted = |(index, ratio): &(usize, f64)| match &*job.ratios {
        [] => *index == 0 || job.budget_ms.is_some(),
        ratios => ratios.contains(ratio),
    };
    let wanted = known.into_iter().enumerate().filter(is_wanted);
    Ok(wanted.map(|(index, ratio)| (index, Some(ratio))).collect())
}

/// The decluttered model, what it multiplies if that is to be counted, and what was chosen.
fn optimised(
    job: &Job,
    stored: stored::Model,
    threads: &Arc<Threads>,
    count_macs: bool,
) -> Result<(TypedModel, Option<Macs>, Vec<Chosen>)> {
    let (mut typed, weights) = stored.into_typed()?;
    forget_between_runs(&mut typed);
    match job.engine {
        Engine::Tract => {
            let decluttered = typed.into_decluttered()?;
            let macs = count_macs.then(|| macs::count(&decluttered)).transpose()?;
            Ok((decluttered, macs, Vec::new()))
        }
        Engine::Espalier => {
            // Of the layers as they are in the file: what our kernels leave out is what the second number is for.
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
    /// Runs on the `index`-th inputs.
    pub fn run(&mut self, index: usize) -> Result<TVec<TValue>> {
        let inputs = self.samples.get(index)?;
        self.run_on(inputs)
    }

    pub fn run_on(&mut self, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        self.plans[self.current].state.run(inputs)
    }

    pub fn state(&mut self) -> &mut TypedSimpleState {
        &mut self.plans[self.current].state
    }

    /// The ratios that can be run, the densest first; one that is nothing where the file does not say.
    pub fn ratios(&self) -> Vec<Option<f64>> {
        self.plans.iter().map(|plan| plan.ratio).collect()
    }

    /// From the next inference on another one of [`Ready::ratios`] is run. All are in memory: nothing is loaded.
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
        weights,
    }
}

/// Where choices are kept unless the job says: beside the folder of files by content that the runner itself lies in, which is the board's working folder
/// or the host's cache. A runner started from elsewhere keeps nothing.
fn beside_runner() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let blobs = program.parent().filter(|folder| folder.ends_with("blobs"))?;
    Some(blobs.parent()?.join("kernels"))
}

fn layer_kernel(chosen: Chosen, ratio: Option<f64>) -> LayerKernel {
    let time =
        |measured: espalier_accelerate::Measured| Some(CandidateTime { kernel: measured.kernel, ns: measured.ns? });
    LayerKernel {
        name: ratio.map_or_else(|| chosen.name.clone(), |ratio| format!("{} @ {ratio}", chosen.name)),
        op: chosen.op,
        kernel: chosen.kernel,
        candidates: chosen.candidates.into_iter().filter_map(time).collect(),
        cached: chosen.cached,
        note: chosen.note,
    }
}

/// With tract alone everything as tract does it.
fn read(job: &Job, pack: Option<Pack<'static>>, in_common: &InCommon) -> Result<stored::Model> {
    match (job.engine, pack) {
        (Engine::Espalier, Some(pack)) => stored::unpacked(pack, in_common),
        (Engine::Espalier, None) => stored::file(&job.model),
        (Engine::Tract, Some(pack)) => {
            Ok(stored::Model::of_whole(stored::onnx().model_for_read(&mut Unpacking::of(&pack)?)?))
        }
        (Engine::Tract, None) => stored::whole(&job.model),
    }
}

/// tract keeps the state of recurrent layers from one run to the next, as a stream wants it. Here every sample stands for itself: without this
/// a recurrent layer begins each sample where it ended the one before, and is right about the first only.
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
            name: model.outlet_label(*outlet).map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned),
            dtype: format!("{:?}", fact.datum_type).to_lowercase(),
            shape: shape.iter().map(|axis| *axis as u64).collect(),
        })
    };
    outlets.iter().map(fact).collect()
}
