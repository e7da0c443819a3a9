//! What passes share: finding constants and successors, the threads, and the choice of a kernel.

use std::sync::Arc;

use espalier_kernels::{simd::Isa, threads::Threads};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::*,
        ops::{cast::Cast, identity::Identity, konst::Const},
    },
};

use crate::{
    Options,
    choice::{Candidate, Chooser, LayerChoice, TRACT, Timed, fastest},
    op,
    region::{self, Region},
    weights::{Weight, Weights},
};

/// The most nodes between a weight and its user.
const MOST_BETWEEN: usize = 16;

pub struct Context {
    pub isa: Isa,
    pub threads: Arc<Threads>,
    pub skip_below: Option<f32>,
    pub weights: Weights,
    chooser: Chooser,
    choices: Vec<LayerChoice>,
}

impl Context {
    pub(crate) fn new(options: Options) -> Context {
        let Options { threads, skip_below, cpu, cache, keep_choices, weights } = options;
        let isa = Isa::best();
        let chooser = Chooser::new(&format!("{cpu}, {}", isa.name()), cache, keep_choices);
        Context { isa, threads, skip_below, weights, chooser, choices: Vec::new() }
    }

    pub(crate) fn close(self) -> Vec<LayerChoice> {
        self.weights.forget();
        self.chooser.close();
        self.choices
    }

    /// The constant at an outlet, as it is stored in the graph or in [`Context::weights`], also behind casts that do
    /// nothing and changes of axes.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn weight(&self, model: &TypedModel, outlet: OutletId) -> TractResult<Option<Weight>> {
        let (mut outlet, mut changes) = (outlet, Vec::new());
        for _ in 0..MOST_BETWEEN {
            let node = model.node(outlet.node);
            let found = match self.weights.of(node)? {
                Some(weight) => Some(weight),
                None => {
                    let of_op = node.op_as::<Const>().map(|constant| constant.val());
                    let constant = of_op.or(model.outlet_fact(outlet)?.konst.as_ref());
                    constant.filter(|tensor| tensor.is_plain_ram()).map(|tensor| Weight::Dense(Arc::clone(tensor)))
                }
            };
            if let Some(found) = found {
                // The change nearest to the weight is applied first.
                return changes.into_iter().rev().try_fold(found, |weight, op| weight.changed(op)).map(Some);
            }
            let [input] = *node.inputs else { return Ok(None) };
            if let Some(op) = node.op_as::<AxisOp>() {
                changes.push(op);
            } else if !does_nothing(model, node)? {
                return Ok(None);
            }
            outlet = input;
        }
        Ok(None)
    }

    /// [`Context::weight`] as a tensor, for biases and other small constants.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn constant(&self, model: &TypedModel, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
        self.weight(model, outlet)?.map(Weight::into_dense).transpose()
    }

    /// A constant with one value of f32, of any rank.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn scalar(&self, model: &TypedModel, outlet: OutletId) -> TractResult<Option<f32>> {
        let tensor = self.constant(model, outlet)?;
        let tensor = tensor.filter(|tensor| tensor.len() == 1 && tensor.datum_type() == DatumType::F32);
        Ok(tensor.and_then(|tensor| tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.first().copied()))
    }

    /// The fastest of the candidates for the region on this board, as an op; `None` where plain tract is the fastest.
    /// `what` distinguishes the layer from others with the same inputs and outputs: sizes of kernels, strides, what is
    /// fused, and the pattern of zeros ([`crate::weights::Filled::pattern`]).
    ///
    /// A candidate that cannot be built for this layer, or fails when it runs, is left out. On a tie the first
    /// candidate wins.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn choose(
        &mut self,
        model: &TypedModel,
        region: &Region,
        op: &str,
        what: &str,
        candidates: &[Candidate],
    ) -> TractResult<Option<Box<dyn TypedOp>>> {
        if candidates.is_empty() {
            return Ok(None);
        }
        let facts = |outlets: &[OutletId]| -> TractResult<String> {
            let facts = outlets.iter().map(|outlet| Ok(format!("{:?}", model.outlet_fact(*outlet)?.without_value())));
            Ok(facts.collect::<TractResult<Vec<String>>>()?.join(" "))
        };
        let (inputs, outputs) = (facts(&region.inputs)?, facts(&region.outputs)?);
        let key = format!("{op}, {what}, {inputs} to {outputs}, {} threads", self.threads.count());
        let names: Vec<&str> = candidates.iter().map(|candidate| &*candidate.kernel).chain([TRACT]).collect();
        let weights = &self.weights;
        let (timed, cached) = match self.chooser.known(&key, &names) {
            Some(timed) => (timed, !self.chooser.is_fresh(&key)),
            None => {
                let runs = candidates
                    .iter()
                    .map(|candidate| {
                        let state = (candidate.build)().and_then(|op| region::runnable(region.with_op(model, op)?));
                        (candidate.kernel.as_str(), state)
                    })
                    .chain([(TRACT, region.alone(model, weights).and_then(region::runnable))]);
                (self.chooser.measure(&key, runs), false)
            }
        };
        weights.forget();
        let Timed { measured, sure, .. } = timed;
        let kernel = fastest(&measured).unwrap_or(TRACT).to_owned();
        let failures =
            measured.iter().filter_map(|measured| Some(format!("{}: {}", measured.kernel, measured.failure.as_ref()?)));
        let note = Some(failures.collect::<Vec<_>>().join("; ")).filter(|note| !note.is_empty());
        let chosen = candidates.iter().find(|candidate| candidate.kernel == kernel);
        let built = chosen.map(|chosen| (chosen.build)()).transpose();
        self.choices.push(LayerChoice {
            name: region.name.clone(),
            op: op.to_owned(),
            kernel,
            candidates: measured,
            cached,
            unsure: !sure,
            note,
        });
        built
    }

    /// Records that the layer `name` became `op` without a measurement.
    pub fn record(&mut self, name: &str, op: &dyn Op) {
        let op_name = op.name();
        self.choices.push(LayerChoice {
            name: name.to_owned(),
            op: op_name.strip_prefix(op::PREFIX).unwrap_or(&op_name).to_owned(),
            kernel: op::kernel(op),
            candidates: Vec::new(),
            cached: false,
            unsure: false,
            note: None,
        });
    }

    /// Records why a node stays as it is in tract.
    pub fn note(&mut self, node: &TypedNode, note: String) {
        self.choices.push(LayerChoice {
            name: node.name.clone(),
            op: node.op().name().into_owned(),
            kernel: TRACT.to_owned(),
            candidates: Vec::new(),
            cached: false,
            unsure: false,
            note: Some(note),
        });
    }
}

/// The only user of a node's only output, where that is no output of the model.
pub fn only_successor(model: &TypedModel, id: usize) -> Option<&TypedNode> {
    let node = model.node(id);
    let [output] = &*node.outputs else { return None };
    let [successor] = *output.successors else { return None };
    let is_output = model.outputs.iter().any(|outlet| outlet.node == id);
    (!is_output).then(|| model.node(successor.node))
}

/// Whether the node is a cast to the type that its input has already, or an identity.
pub fn does_nothing(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    if let Some(cast) = node.op_as::<Cast>() {
        return Ok(model.outlet_fact(node.inputs[0])?.datum_type == cast.to);
    }
    Ok(node.op_is::<Identity>())
}
