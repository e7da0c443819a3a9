//! From an ONNX file, packed or not, to something that runs, with the time each step took. Unpacking is part of parsing.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use espalier_accelerate::{Chosen, Options, Weights, accelerate};
use espalier_kernels::threads::Threads;
use espalier_protocol::{CandidateTime, Engine, Job, LayerKernel, Line, Loaded, OutputFact, Stage};
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
    board,
    inputs::{Declared, Samples},
    macs,
    packed::{self, Unpacking},
    report::Reporter,
    stored,
};

/// tract spells it with its plan's parameters.
pub type TypedSimpleState = SimpleState<TypedFact, Box<dyn TypedOp>>;

const DO_NOT_WORK_OUT: &str = "the model's shapes and types do not work out";

pub struct Ready {
    state: TypedSimpleState,
    pub samples: Samples,
}

/// Every open dimension is made concrete first: tract plans worse around symbols (6-9 times slower on MobileNetV2) and panics on some.
///
/// With `count_macs` the multiply-accumulates are told too; that costs memory and time.
pub fn load(reporter: &Reporter, job: &Job, count_macs: bool) -> Result<Ready> {
    reporter.enter(Stage::Load, 0);
    let start = Instant::now();
    let mut stored = read(job).with_context(|| format!("`{}` is not a model this runner can read", job.model))?;
    let model = &mut stored.graph;
    let parse_ns = start.elapsed().as_nanos() as u64;

    reporter.enter(Stage::Inputs, 0);
    let samples = Samples::prepare(job, &declared(model)?)?;
    for (index, (shape, dtype)) in samples.shapes().into_iter().zip(samples.dtypes()).enumerate() {
        model.set_input_fact(index, InferenceFact::dt_shape(dtype, shape))?;
    }
    // Declared output shapes would hold the open dimensions fast.
    for index in 0..model.outputs.len() {
        model.set_output_fact(index, InferenceFact::default())?;
    }

    reporter.enter(Stage::Load, 0);
    let start = Instant::now();
    let (mut typed, weights) = stored.into_typed().context(DO_NOT_WORK_OUT)?;
    forget_between_runs(&mut typed);
    let (decluttered, macs) = match job.engine {
        Engine::Tract => {
            let decluttered = typed.into_decluttered().context(DO_NOT_WORK_OUT)?;
            let macs = count_macs.then(|| macs::count(&decluttered)).transpose()?;
            (decluttered, macs)
        }
        Engine::Espalier => {
            // Of the layers as they are in the file: what our kernels leave out is what the second number is for.
            let count = || {
                let mut typed = typed.clone();
                weights.fill(&mut typed)?;
                macs::count(&typed.into_decluttered()?)
            };
            let macs = count_macs.then(count).transpose()?;
            let (decluttered, chosen) = accelerate(typed, options(job, weights)).context(DO_NOT_WORK_OUT)?;
            Line::kernels(&chosen.into_iter().map(layer_kernel).collect::<Vec<_>>()).for_each(|line| reporter.say(&line));
            (decluttered, macs)
        }
    };
    let inputs = facts(&decluttered, true)?;
    let outputs = facts(&decluttered, false)?;
    let plan = decluttered.into_optimized()?.into_runnable()?;
    let state = plan.spawn()?;
    let optimise_ns = start.elapsed().as_nanos() as u64;
    reporter.say(&Line::Loaded(Loaded { parse_ns, optimise_ns, inputs, outputs, macs, ratios: Vec::new() }));
    Ok(Ready { state, samples })
}

impl Ready {
    /// Runs on the `index`-th inputs.
    pub fn run(&mut self, index: usize) -> Result<TVec<TValue>> {
        let inputs = self.samples.get(index)?;
        self.run_on(inputs)
    }

    pub fn run_on(&mut self, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        self.state.run(inputs)
    }

    pub fn state(&mut self) -> &mut TypedSimpleState {
        &mut self.state
    }
}

fn options(job: &Job, weights: Weights) -> Options {
    Options {
        threads: Arc::new(Threads::new(job.threads as usize)),
        skip_below: job.skip_below.unwrap_or(0.0) as f32,
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

fn layer_kernel(chosen: Chosen) -> LayerKernel {
    let time = |measured: espalier_accelerate::Measured| Some(CandidateTime { kernel: measured.kernel, ns: measured.ns? });
    LayerKernel {
        name: chosen.name,
        op: chosen.op,
        kernel: chosen.kernel,
        candidates: chosen.candidates.into_iter().filter_map(time).collect(),
        cached: chosen.cached,
        note: chosen.note,
    }
}

/// With tract alone everything as tract does it.
fn read(job: &Job) -> Result<stored::Model> {
    match (job.engine, packed::read(&job.model)?) {
        (Engine::Espalier, _) => stored::read(&job.model),
        (Engine::Tract, None) => stored::whole(&job.model),
        (Engine::Tract, Some(bytes)) => {
            let pack = Pack::open(&bytes)?;
            stored::Model::of_whole(stored::onnx().model_for_read(&mut Unpacking::of(&pack)?)?)
        }
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
