//! Keeps inferences within a time by switching between the ratios of a pack, to the densest one that is fast enough.
//!
//! The time of a ratio is known from its last inferences; the change of the board since then is known from the ratio
//! that runs now. After a few slow inferences in a row a sparser ratio is used. A denser one is used again only after
//! many inferences that left room for it, so that the ratio does not oscillate.

/// Slow inferences in a row before a sparser ratio is used: a single one is an outlier.
const TOO_SLOW: u32 = 3;
/// Inferences in a row that have to leave room for the denser ratio.
const ROOM: u32 = 20;
/// The share of the budget that the denser ratio is expected to take at most.
const EXPECTED: f64 = 0.95;
/// The weight of a new time in the moving average.
const WEIGHT: f64 = 0.2;

pub struct Budget {
    ns: f64,
    /// The time of each ratio in nanoseconds, the densest first.
    known: Vec<f64>,
    /// The same when the current ratio began to run.
    before: Vec<f64>,
    current: usize,
    too_slow: u32,
    room: u32,
}

impl Budget {
    /// `known` has the time of each ratio in nanoseconds, the densest first; there is at least one.
    pub fn new(budget_ms: f64, known: Vec<f64>) -> Budget {
        let ns = budget_ms * 1e6;
        let current = known.iter().position(|known| *known <= ns).unwrap_or(known.len() - 1);
        Budget { ns, before: known.clone(), known, current, too_slow: 0, room: 0 }
    }

    /// The index of the ratio to run.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Takes the time of the last inference in nanoseconds. Returns whether the ratio to run has changed.
    pub fn record(&mut self, ns: f64) -> bool {
        let known = &mut self.known[self.current];
        *known += WEIGHT * (ns - *known);
        self.too_slow = if ns > self.ns { self.too_slow + 1 } else { 0 };
        self.room = if self.leaves_room() { self.room + 1 } else { 0 };
        let next = if self.too_slow >= TOO_SLOW && self.current + 1 < self.known.len() {
            self.current + 1
        } else if self.room >= ROOM {
            self.current - 1
        } else {
            return false;
        };
        // A board that became slower did so for the next ratio as well.
        let drift = self.known[self.current] / self.before[self.current].max(1.0);
        self.known[next] *= drift;
        self.before = self.known.clone();
        (self.current, self.too_slow, self.room) = (next, 0, 0);
        true
    }

    fn leaves_room(&self) -> bool {
        let Some(denser) = self.current.checked_sub(1) else { return false };
        let drift = self.known[self.current] / self.before[self.current].max(1.0);
        self.known[denser] * drift <= EXPECTED * self.ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    /// The ratios that run, inference by inference, on a board where ratio `i` takes `times[i]` milliseconds times
    /// `slower(inference)`.
    fn run(budget: &mut Budget, times: &[f64], inferences: usize, slower: impl Fn(usize) -> f64) -> Vec<usize> {
        let one = |inference: usize| {
            let ran = budget.current();
            budget.record(times[ran] * slower(inference) * MS);
            ran
        };
        (0..inferences).map(one).collect()
    }

    fn budget(ms: f64, times: &[f64]) -> Budget {
        Budget::new(ms, times.iter().map(|time| time * MS).collect())
    }

    const TIMES: [f64; 3] = [10.0, 5.0, 2.0];

    #[test]
    fn the_densest_that_fits_is_taken() {
        for (ms, expected) in [(11.0, 0), (10.0, 0), (9.0, 1), (5.0, 1), (2.5, 2), (1.0, 2)] {
            let mut budget = budget(ms, &TIMES);
            assert_eq!(run(&mut budget, &TIMES, 200, |_| 1.0), [expected; 200], "{ms}");
        }
    }

    #[test]
    fn a_board_that_gets_slow_gets_a_sparser_one_and_back() {
        let mut budget = budget(6.0, &TIMES);
        let ran = run(&mut budget, &TIMES, 300, |inference| if (100..200).contains(&inference) { 2.0 } else { 1.0 });
        assert_eq!(ran[..103], [1; 103]);
        assert_eq!(ran[103..200], [2; 97]);
        let back = ran.iter().rposition(|ran| *ran == 2).unwrap() + 1;
        assert!((220..250).contains(&back), "{back}");
        assert_eq!(ran[back..], vec![1; 300 - back]);
    }

    #[test]
    fn one_slow_inference_changes_nothing() {
        let mut budget = budget(6.0, &TIMES);
        let ran = run(&mut budget, &TIMES, 300, |inference| if inference % 10 < 2 { 2.0 } else { 1.0 });
        assert_eq!(ran, [1; 300]);
    }

    #[test]
    fn at_the_edge_it_does_not_oscillate() {
        let mut budget = budget(5.0, &TIMES);
        let ran = run(&mut budget, &TIMES, 2000, |inference| 1.02 + 0.01 * (inference % 3) as f64);
        let switches = ran.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(switches <= 1, "{switches}");
        assert_eq!(ran.last(), Some(&2));
    }
}
