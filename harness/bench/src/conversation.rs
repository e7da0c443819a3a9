//! Turns the lines of a runner process into a measurement or a failure. A board is untrusted: every line is checked.

use espalier_protocol::{
    BoardState, Hello, LayerKernel, LayerTime, Line, Loaded, MAX_LINE, Memory, Mode, Predictions, Switched, VERSION,
};

use crate::{
    record::{Failure, FailureStage, Measurement},
    sanitise::sanitise,
};

/// The lines of one invocation so far.
#[derive(Debug)]
pub struct Conversation {
    mode: Mode,
    parts: Parts,
}

#[derive(Debug, Default)]
struct Parts {
    hello: Option<Hello>,
    states: Vec<BoardState>,
    loaded: Option<Loaded>,
    first_ns: Option<u64>,
    first_digest: Option<String>,
    timed_ns: Vec<u64>,
    memory: Option<Memory>,
    predictions: Option<Predictions>,
    kernels: Vec<LayerKernel>,
    profile: Vec<LayerTime>,
    switched: Vec<Switched>,
    failed: Option<Failure>,
    finished: bool,
}

impl Conversation {
    pub fn new(mode: Mode) -> Conversation {
        Conversation { mode, parts: Parts::default() }
    }

    /// The runner's process id, once `hello` has named it: the process to kill if the invocation must be stopped.
    pub fn pid(&self) -> Option<u32> {
        self.parts.hello.as_ref().map(|hello| hello.pid)
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// The line violates the protocol: the caller has to stop the invocation.
    pub fn on_line(&mut self, line: &str) -> Result<(), Failure> {
        if line.len() > MAX_LINE {
            return Err(broken(format!("the runner sent a line of {} bytes", line.len())));
        }
        let line: Line = serde_json::from_str(line)
            .map_err(|_| broken(format!("not a line of the runner's protocol: `{}`", excerpt(line))))?;
        let parts = &mut self.parts;
        if parts.finished {
            return Err(broken("the runner went on after `finished`".into()));
        }
        match (&parts.hello, line) {
            (None, Line::Hello(hello)) if hello.protocol == VERSION => parts.hello = Some(hello),
            (None, Line::Hello(hello)) => {
                return Err(broken(format!("the runner speaks protocol {}, this host {VERSION}", hello.protocol)));
            }
            (None, _) => return Err(broken("the runner did not say `hello` first".into())),
            (Some(_), Line::Hello(_)) => return Err(broken("the runner said `hello` twice".into())),
            (_, Line::Heartbeat { .. }) => {}
            (_, Line::State(state)) => parts.states.push(state),
            (_, Line::Loaded(loaded)) => parts.loaded = Some(loaded),
            (_, Line::First { ns, digest }) => (parts.first_ns, parts.first_digest) = (Some(ns), digest),
            (_, Line::Timed { ns }) => parts.timed_ns.extend(ns),
            (_, Line::Memory(memory)) => parts.memory = Some(memory),
            (_, Line::Predictions(more)) => parts.add_predictions(more)?,
            (_, Line::Kernels { layers }) => parts.kernels.extend(layers),
            (_, Line::Profile { layers }) => parts.profile.extend(layers),
            (_, Line::Switched(switched)) => parts.switched.push(switched),
            (_, Line::Failed { stage, message }) => {
                let message = format!("{} (while at {})", sanitise(&message), stage.name());
                parts.failed = Some(Failure { stage: FailureStage::Runner, message });
            }
            (_, Line::Finished) => parts.finished = true,
        }
        Ok(())
    }

    /// The result, once the runner has ended. `ending` is its exit status or signal and the last lines of its stderr.
    ///
    /// # Errors
    /// The runner reported a failure, was cut off, or left something out.
    pub fn close(self, ending: &str) -> Result<Measurement, Failure> {
        let Conversation { mode, parts } = self;
        if let Some(failed) = parts.failed {
            return Err(failed);
        }
        if !parts.finished {
            let how = if parts.hello.is_some() { "was cut off before `finished`" } else { "did not start" };
            return Err(broken(format!("the runner {how}: {}", sanitise(ending))));
        }
        let missing = |what: &str| broken(format!("the runner finished without saying its {what}"));
        let (before, after) = match <[BoardState; 2]>::try_from(parts.states) {
            Ok([before, after]) => (before, after),
            Err(_) => return Err(missing("state before and after")),
        };
        match mode {
            Mode::Time if parts.timed_ns.is_empty() || parts.first_ns.is_none() => return Err(missing("times")),
            Mode::Time if parts.timed_ns.contains(&0) => {
                return Err(broken("the runner measured a time of 0 ns: its clock is too coarse".into()));
            }
            Mode::Memory if parts.memory.is_none() => return Err(missing("memory")),
            Mode::Score if parts.predictions.is_none() => return Err(missing("predictions")),
            Mode::Profile if parts.profile.is_empty() => return Err(missing("times by layer")),
            _ => {}
        }
        Ok(Measurement {
            hello: parts.hello.ok_or_else(|| missing("hello"))?,
            loaded: parts.loaded.ok_or_else(|| missing("loading times"))?,
            first_ns: parts.first_ns,
            first_digest: parts.first_digest,
            timed_ns: parts.timed_ns,
            memory: parts.memory,
            predictions: parts.predictions,
            kernels: parts.kernels,
            profile: parts.profile,
            switched: parts.switched,
            before,
            after,
        })
    }
}

impl Parts {
    fn add_predictions(&mut self, more: Predictions) -> Result<(), Failure> {
        let so_far =
            self.predictions.get_or_insert_with(|| Predictions { start: 0, classes: Vec::new(), values: Vec::new() });
        if more.start != so_far.classes.len() as u64 || more.classes.len() != more.values.len() {
            return Err(broken("the runner's predictions have a gap".into()));
        }
        so_far.classes.extend(more.classes);
        so_far.values.extend(more.values);
        Ok(())
    }
}

fn broken(message: String) -> Failure {
    Failure { stage: FailureStage::Run, message }
}

/// The beginning of an untrusted line, long enough to recognise it.
fn excerpt(line: &str) -> String {
    let short: String = line.chars().take(80).collect();
    sanitise(&short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_protocol::Stage;
    use proptest::prelude::*;

    fn hello() -> Line {
        Line::Hello(Hello {
            protocol: VERSION,
            runner: "0.1.0".into(),
            arch: "aarch64".into(),
            pid: 42,
            engine: "tract".into(),
            cpu_features: vec![],
        })
    }

    fn complete() -> Vec<Line> {
        let state = || Line::State(BoardState::default());
        let loaded =
            Loaded { parse_ns: 1, optimise_ns: 2, inputs: vec![], outputs: vec![], macs: None, ratios: vec![] };
        vec![
            hello(),
            state(),
            Line::Loaded(loaded),
            Line::First { ns: 9, digest: Some("85944171f73967e8".into()) },
            Line::Heartbeat { doing: Stage::Time, done: 1, total: 3 },
            Line::Timed { ns: vec![5, 6] },
            Line::Timed { ns: vec![7] },
            state(),
            Line::Finished,
        ]
    }

    fn measure(lines: &[Line]) -> Result<Measurement, Failure> {
        let mut conversation = Conversation::new(Mode::Time);
        for line in lines {
            conversation.on_line(&serde_json::to_string(line).unwrap())?;
        }
        conversation.close("exit status 0")
    }

    #[track_caller]
    fn check_error(lines: &[Line], expected: &str) {
        assert_eq!(measure(lines).unwrap_err().message, expected);
    }

    #[test]
    fn a_complete_conversation_is_a_measurement() {
        let measurement = measure(&complete()).unwrap();
        assert_eq!((measurement.first_ns, measurement.timed_ns), (Some(9), vec![5, 6, 7]));
        assert_eq!(measurement.first_digest.as_deref(), Some("85944171f73967e8"));
    }

    #[test]
    fn cut_off_anywhere_it_is_not() {
        for end in 0..complete().len() {
            let message = measure(&complete()[..end]).unwrap_err().message;
            let how = if end == 0 { "did not start" } else { "was cut off before `finished`" };
            assert_eq!(message, format!("the runner {how}: exit status 0"));
        }
    }

    #[test]
    fn whatever_is_left_out_is_named() {
        let without = |index: usize| {
            let mut lines = complete();
            lines.remove(index);
            lines
        };
        check_error(&without(0), "the runner did not say `hello` first");
        check_error(&without(1), "the runner finished without saying its state before and after");
        check_error(&without(2), "the runner finished without saying its loading times");
        check_error(&without(3), "the runner finished without saying its times");
    }

    #[test]
    fn the_runners_own_failure_comes_first() {
        let failed = Line::Failed { stage: Stage::Load, message: "no such op \u{1b}[31m`Foo`".into() };
        let lines = [hello(), failed, Line::Finished];
        let failure = measure(&lines).unwrap_err();
        assert_eq!(failure.stage, FailureStage::Runner);
        assert!(failure.message.ends_with("`Foo` (while at load)"), "{}", failure.message);
        assert!(!failure.message.contains('\u{1b}'));
    }

    #[test]
    fn garbage_is_reported_and_shown() {
        let failure = Conversation::new(Mode::Time).on_line("Segmentation fault").unwrap_err();
        assert_eq!(failure.message, "not a line of the runner's protocol: `Segmentation fault`");
        let mut old = complete();
        if let Line::Hello(hello) = &mut old[0] {
            hello.protocol = 0;
        }
        check_error(&old, &format!("the runner speaks protocol 0, this host {VERSION}"));
    }

    #[test]
    fn predictions_with_a_gap_are_refused() {
        let part = |start| Line::Predictions(Predictions { start, classes: vec![1, 2], values: vec![vec![], vec![]] });
        let mut conversation = Conversation::new(Mode::Score);
        let mut send = |line: &Line| conversation.on_line(&serde_json::to_string(line).unwrap());
        send(&hello()).unwrap();
        send(&part(0)).unwrap();
        send(&part(2)).unwrap();
        assert_eq!(send(&part(5)).unwrap_err().message, "the runner's predictions have a gap");
    }

    proptest! {
        #[test]
        fn no_lines_however_odd_panic(lines in proptest::collection::vec(".{0,40}", 0..8), cut in 0usize..9) {
            let mut conversation = Conversation::new(Mode::Memory);
            for line in complete().iter().take(cut) {
                let _ = conversation.on_line(&serde_json::to_string(line).unwrap());
            }
            for line in &lines {
                let _ = conversation.on_line(line);
            }
            let _ = conversation.close("signal 9");
        }
    }
}
