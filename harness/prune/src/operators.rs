//! What the pruner knows of each operator of the engine: one list, from which shapes, the rules of structured pruning
//! and SynFlow decide. A test compares it with [`Network::operators`](espalier_engine::Network::operators).

/// How an operator treats the axes of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Computes a nonlinearity element by element, or nothing (dropout).
    Activation,
    /// Likewise, with results between 0 and 1.
    Gate,
    /// Computes element by element what is no nonlinearity of a layer: arithmetic, casts, tests.
    Elementwise,
    /// Broadcasts its inputs to one shape.
    Broadcast,
    /// Broadcasts the slopes of an activation to its input.
    Slopes,
    Convolution,
    TransposedConvolution,
    MatrixProduct,
    Gemm,
    /// Normalises with parameters for each channel (axis 1); over the places of one sample if so.
    ChannelNormalisation {
        over_places: bool,
    },
    /// Normalises over groups of channels. No rule of structured pruning covers it: a group's statistics are those of
    /// all its channels.
    GroupNormalisation,
    /// Normalises over all axes from one on.
    RowNormalisation,
    Softmax,
    Pool,
    /// Pools over all axes but batch and channels.
    GlobalPool,
    Reduce,
    /// Picks an index along one axis.
    ReduceToIndex,
    /// Has this many gates, whose rows follow each other in the weights.
    Recurrent {
        gates: usize,
    },
    Transpose,
    Concat,
    Split,
    Slice,
    Gather,
    Expand,
    ConstantOfShape,
    Pad,
    Reshape,
    Flatten,
    Squeeze,
    Unsqueeze,
    /// Gives out the lengths of axes.
    Lengths,
    Range,
    /// Gives out the shape of its first input, but no rule of structured pruning covers it: why not.
    SameShape(&'static str),
    /// Gives out another shape, and no rule of structured pruning covers it: why not.
    OtherShape(&'static str),
}

const QUANTISED: &str = "quantised layers keep their channels";

const OPERATORS: [(Axes, &str); 41] = [
    (
        Axes::Activation,
        "Relu LeakyRelu ThresholdedRelu Elu Celu Selu Gelu Softplus Softsign Tanh HardSwish Swish Mish Shrink Clip \
         Dropout",
    ),
    (Axes::Gate, "Sigmoid"),
    (
        Axes::Elementwise,
        "Identity Cast CastLike HardSigmoid Erf Exp Log Sqrt Reciprocal Abs Neg Sign Floor Ceil Round Sin Cos Tan Asin \
         Acos Atan Sinh Cosh Asinh Acosh Atanh Not IsNaN IsInf",
    ),
    (
        Axes::Broadcast,
        "Add Sub Mul Div Pow Mod Min Max Sum Mean Where Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor",
    ),
    (Axes::Slopes, "PRelu"),
    (Axes::Convolution, "Conv"),
    (Axes::TransposedConvolution, "ConvTranspose"),
    (Axes::MatrixProduct, "MatMul"),
    (Axes::Gemm, "Gemm"),
    (Axes::ChannelNormalisation { over_places: false }, "BatchNormalization"),
    (Axes::ChannelNormalisation { over_places: true }, "InstanceNormalization"),
    (Axes::GroupNormalisation, "GroupNormalization"),
    (Axes::RowNormalisation, "LayerNormalization RMSNormalization"),
    (Axes::Softmax, "Softmax LogSoftmax Hardmax"),
    (Axes::Pool, "MaxPool AveragePool LpPool"),
    (Axes::GlobalPool, "GlobalMaxPool GlobalAveragePool GlobalLpPool"),
    (
        Axes::Reduce,
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum \
         ReduceLogSumExp",
    ),
    (Axes::ReduceToIndex, "ArgMax ArgMin"),
    (Axes::Recurrent { gates: 4 }, "LSTM"),
    (Axes::Recurrent { gates: 3 }, "GRU"),
    (Axes::Recurrent { gates: 1 }, "RNN"),
    (Axes::Transpose, "Transpose"),
    (Axes::Concat, "Concat"),
    (Axes::Split, "Split"),
    (Axes::Slice, "Slice"),
    (Axes::Gather, "Gather"),
    (Axes::Expand, "Expand"),
    (Axes::ConstantOfShape, "ConstantOfShape"),
    (Axes::Pad, "Pad"),
    (Axes::Reshape, "Reshape"),
    (Axes::Flatten, "Flatten"),
    (Axes::Squeeze, "Squeeze"),
    (Axes::Unsqueeze, "Unsqueeze"),
    (Axes::Lengths, "Shape Size"),
    (Axes::Range, "Range"),
    (Axes::SameShape("it is not the same for all indices of an axis"), "Trilu CumSum EyeLike"),
    (Axes::SameShape("its places are computed"), "Scatter ScatterElements ScatterND"),
    (Axes::SameShape(QUANTISED), "QuantizeLinear DequantizeLinear DynamicQuantizeLinear"),
    (Axes::OtherShape(QUANTISED), "MatMulInteger"),
    (Axes::OtherShape("it moves elements from one axis to another, or repeats them"), "Tile DepthToSpace SpaceToDepth"),
    (Axes::OtherShape("its places are computed"), "GatherElements GatherND OneHot NonZero"),
];

/// `None` for an operator that the engine does not have.
pub fn axes(op: &str) -> Option<Axes> {
    OPERATORS.into_iter().find(|(_, names)| names.split_whitespace().any(|name| name == op)).map(|(axes, _)| axes)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use espalier_engine::{Keep, Network, Tensor};
    use espalier_fixtures::cases::{self, Case};

    use super::*;
    use crate::{
        Method, Samples, importance, macs, onnx::Model, prunable, shapes, structure::DependencyGraph, tune::parameters,
    };

    /// Operators whose first output's shape `shapes` does not infer: it depends on values.
    const BY_VALUES: &str = "Split Slice Expand ConstantOfShape Pad Range Tile GatherND OneHot NonZero";
    /// Likewise, although it could: only multiply-accumulates need these shapes, and a run gives them as well.
    const NOT_INFERRED: &str = "Shape Size DepthToSpace SpaceToDepth GatherElements MatMulInteger";

    fn engine() -> BTreeSet<&'static str> {
        Network::operators().collect()
    }

    #[track_caller]
    fn same<T: Ord + std::fmt::Debug>(one: &BTreeSet<T>, other: &BTreeSet<T>, which: &str) {
        let (first, second): (Vec<_>, Vec<_>) = (one.difference(other).collect(), other.difference(one).collect());
        assert!(first.is_empty() && second.is_empty(), "only {which}: {first:?}, {second:?}");
    }

    /// By operator, whether `check` holds for any of its cases.
    fn any_case(mut check: impl FnMut(&Case, &Model) -> bool) -> BTreeMap<String, bool> {
        let mut found = BTreeMap::new();
        for case in cases::all() {
            let model = Model::decode(&prost::Message::encode_to_vec(&case.model()).into()).unwrap();
            let holds = check(&case, &model);
            *found.entry(case.op.clone()).or_default() |= holds;
        }
        found
    }

    #[test]
    fn the_pruner_and_the_cases_know_the_operators_of_the_engine() {
        let named: Vec<&str> = OPERATORS.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
        same(&named.iter().copied().collect(), &engine(), "in `operators`, in the engine");
        assert_eq!(named.len(), engine().len(), "an operator is named twice");
        let cases = cases::all();
        let cases: BTreeSet<&str> = cases.iter().map(|case| case.op.as_str()).collect();
        same(&cases, &engine(), "in the cases of `espalier-fixtures`, in the engine");
    }

    #[test]
    fn shapes_are_those_of_a_run() {
        let inferred = any_case(|case, model| {
            let network = Network::new(model).unwrap();
            let fed = Tensor::of("fed", case.fed()).unwrap();
            let Ok(run) = network.run(std::slice::from_ref(&fed), Keep::Outputs) else { return false };
            let inputs = HashMap::from([("in0".to_owned(), fed.shape().to_vec())]);
            let inferred = shapes::infer(model.graph(), inputs).remove("out0");
            let shape = run.value(network.outputs[0]).unwrap().shape();
            assert!(inferred.as_deref().is_none_or(|inferred| inferred == shape), "{case}: {inferred:?} of {shape:?}");
            inferred.is_some()
        });
        let without: BTreeSet<&str> =
            inferred.iter().filter(|(_, inferred)| !**inferred).map(|(op, _)| op.as_str()).collect();
        let named = BY_VALUES.split_whitespace().chain(NOT_INFERRED.split_whitespace()).collect();
        same(&without, &named, "without a shape, named so");
    }

    #[test]
    fn rules_cover_what_they_should() {
        let covered = any_case(|case, model| {
            let fed = case.fed().dims.iter().map(|axis| *axis as usize).collect();
            let graph = DependencyGraph::of(model.clone(), &HashMap::from([("in0".to_owned(), fed)]));
            graph.is_ok_and(|graph| !graph.unknown.contains_key(&case.op))
        });
        let held: BTreeSet<&str> =
            covered.iter().filter(|(_, covered)| !**covered).map(|(op, _)| op.as_str()).collect();
        let unruled =
            |op: &&str| matches!(axes(op), Some(Axes::GroupNormalisation | Axes::SameShape(_) | Axes::OtherShape(_)));
        same(&held, &engine().into_iter().filter(unruled).collect(), "without a rule, named so");
    }
    /// Pruning, counting, fine-tuning and importance by activation each decide by themselves what a layer's weights
    /// are: they agree.
    #[test]
    fn the_weights_of_layers_are_known_everywhere() {
        let known = |check: &dyn Fn(&Model, &Network, &prunable::Survey, &Samples) -> bool| -> BTreeSet<String> {
            let known = any_case(|case, model| {
                let (Ok(network), Ok(survey)) = (Network::new(model), prunable::survey(model)) else { return false };
                let Ok(fed) = Tensor::of("fed", case.fed()) else { return false };
                !survey.weights.is_empty()
                    && check(model, &network, &survey, &Samples { inputs: vec![fed], labels: None })
            });
            known.into_iter().filter(|(_, known)| *known).map(|(op, _)| op).collect()
        };
        let layer = |op: &&str| {
            matches!(
                axes(op),
                Some(
                    Axes::Convolution
                        | Axes::TransposedConvolution
                        | Axes::MatrixProduct
                        | Axes::Gemm
                        | Axes::Recurrent { .. }
                )
            )
        };
        let layers: BTreeSet<String> = engine().into_iter().filter(layer).map(str::to_owned).collect();
        same(&known(&|_, _, _, _| true), &layers, "pruned, layers");
        let counted = known(&|model, _, survey, samples| macs::uses(model, survey, Some(samples)).is_some());
        same(&counted, &layers, "counted, layers");
        let learned = known(&|model, network, survey, _| {
            let learned = parameters::parameters(model, network);
            survey.weights.iter().all(|weight| learned.iter().any(|parameter| parameter.name == weight.name))
        });
        same(&learned, &layers, "fine-tuned, layers");
        let weighed = known(&|model, _, survey, samples| {
            importance::scores(model, survey, Method::Activation, Some(samples), 4, 0).is_ok()
        });
        same(&weighed, &layers, "weighed by activation, layers");
    }
}
