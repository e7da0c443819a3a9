//! Engines compared on one device in the same rounds: how much faster one is, and whether both compute the same.

use serde::{Deserialize, Serialize};

use super::{Agreement, Times, agreement, predictions, speed_up};
use crate::{
    engine::Engine,
    metric::Estimate,
    record::{Case, ModelInfo, Run},
};

/// Times of one engine over those of a case of another, by paired invocations: above 1 the case is faster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    pub engine: Engine,
    /// Of that engine's dense variant.
    pub dense: Option<Estimate<f64>>,
    /// Of the same variant.
    pub same: Option<Estimate<f64>>,
}

/// The largest difference of two outputs, relative to the largest of them, that another order of additions explains.
pub const SAME_OUTPUT: f32 = 1e-3;
/// A difference that is nothing, however small the outputs are.
const NOTHING: f32 = 1e-6;

/// Compares with every other engine of the run, in its order.
pub(super) fn against(run: &Run, case: &Case, times: &Times) -> Vec<Against> {
    let others = run.header.engines.iter().filter(|engine| **engine != case.engine);
    let over = |other: Case| speed_up(&Times::of(run, &other), times);
    let one = |engine: &Engine| Against {
        engine: *engine,
        dense: over(Case { ratio: 0.0, engine: *engine, ..case.clone() }),
        same: over(Case { engine: *engine, ..case.clone() }),
    };
    others.map(one).collect()
}

/// Compares with the same variant by the default engine; `None` for that engine itself.
pub(super) fn same_as_espalier(run: &Run, model: &ModelInfo, case: &Case) -> Option<Agreement> {
    let by_default = Case { engine: Engine::default(), ..case.clone() };
    if by_default == *case {
        return None;
    }
    agreement(model, predictions(run, &by_default)?, predictions(run, case)?)
}

impl Agreement {
    /// Whether all classes are equal and no output differs by more than [`SAME_OUTPUT`].
    pub fn is_same(&self) -> bool {
        let is_nothing = self.largest_difference.is_some_and(|difference| difference <= NOTHING);
        let is_close = self.relative_difference().is_none_or(|difference| difference <= SAME_OUTPUT);
        self.equal == self.total && (is_nothing || is_close)
    }

    /// The largest difference relative to the reference's largest output.
    pub fn relative_difference(&self) -> Option<f32> {
        match (self.largest_difference?, self.largest_value?) {
            (0.0, _) => Some(0.0),
            (difference, value) => Some(difference / value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        summary::{CaseSummary, summarise},
    };

    fn of(run: &Run, engine: Engine, ratio: f64) -> CaseSummary {
        let mut summaries = summarise(run).into_iter();
        let found = summaries.find(|summary| {
            (summary.case.engine, summary.case.ratio, summary.case.device.as_str()) == (engine, ratio, "local")
        });
        found.unwrap()
    }

    #[track_caller]
    fn near(estimate: Option<Estimate<f64>>, expected: f64) {
        let estimate = estimate.unwrap();
        let bounds = estimate.bounds.unwrap();
        assert!((estimate.value / expected - 1.0).abs() < 1e-5, "{estimate:?} is not {expected}");
        // The fixture's engines differ by a factor alone, which has no spread.
        assert!(bounds.low <= estimate.value && estimate.value <= bounds.high, "{estimate:?}");
    }

    #[test]
    fn ratios_to_the_other_engines() {
        let run = fixture::run_with_peers();
        let half = of(&run, Engine::Espalier, 0.5);
        assert_eq!(
            half.against.iter().map(|against| against.engine).collect::<Vec<_>>(),
            [Engine::Tract, Engine::Onnxruntime]
        );
        near(half.speed_up, 1.25);
        near(half.against[0].dense, 2.0 / 0.8);
        near(half.against[0].same, 2.0);
        near(half.against[1].dense, 1.5 / 0.8);
        // The same variant of another engine is compared with its own dense one.
        near(of(&run, Engine::Onnxruntime, 0.5).speed_up, 1.25);
        near(of(&run, Engine::Onnxruntime, 0.0).against[0].dense, 1.0 / 1.5);
        let alone = of(&fixture::run(), Engine::Espalier, 0.5);
        assert_eq!((alone.against, alone.same_as_espalier), (vec![], None));
    }

    #[test]
    fn a_wrong_peer_shows() {
        let run = fixture::run_with_peers();
        let same = |ratio| of(&run, Engine::Onnxruntime, ratio).same_as_espalier.unwrap();
        assert!(same(0.0).is_same() && same(0.0).largest_difference == Some(f32::EPSILON));
        // The fixture's onnxruntime has another opinion on one sample of ratio 0.5.
        let other = same(0.5);
        assert_eq!((other.equal, other.total, other.is_same()), (199, 200, false));
        assert_eq!(of(&run, Engine::Espalier, 0.5).same_as_espalier, None);
        let difference = |largest_difference, largest_value| Agreement {
            equal: 1,
            total: 1,
            largest_difference: Some(largest_difference),
            largest_value: Some(largest_value),
        };
        assert!(difference(0.009, 10.0).is_same() && !difference(0.011, 10.0).is_same());
        assert!(difference(0.0, 0.0).is_same() && difference(4e-7, 1e-5).is_same() && !difference(1e-5, 0.0).is_same());
        assert!(!difference(f32::INFINITY, 1.0).is_same());
    }
}
