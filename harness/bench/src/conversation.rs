//! Turns the lines of a runner process into a measurement or a failure. A board is untrusted: every line is checked,
//! what is kept of all lines together is bounded by what was asked for, and in the end every number must be possible
//! (`plausible`). Text is clean from here on, because lines hold [`espalier_protocol::Text`].

mod plausible;

use std::time::Duration;

use espalier_protocol::{
    BoardState, Hello, Job, LayerKernel, LayerTime, Line, Loaded, MAX_LINE, Memory, Mode, Predictions, Switched, Text,
    VERSION,
};

use crate::record::{Failure, FailureStage, Measurement};

/// What a job was asked for, as far as its answer is checked against it.
#[derive(Clone, Debug)]
pub struct Requested {
    pub mode: Mode,
    /// The fewest timed inferences, and the time to go on for.
    pub iterations: u32,
    pub min_time_ms: u64,
    /// How many samples there may be: one of these numbers; none where that is not known.
    pub samples: Vec<u64>,
    /// Whether the job asks for an output, of any size, instead of the class.
    pub of_output: bool,
}

impl Requested {
    fn most_times(&self) -> usize {
        self.iterations.max(Job::MOST_TIMES) as usize
    }

    /// Bytes of all lines with predictions.
    fn most_predicted(&self) -> u64 {
        if self.of_output {
            MOST_REQUESTED
        } else {
            self.most_samples().saturating_add(1).saturating_mul(MOST_PREDICTED)
        }
    }

    fn most_samples(&self) -> u64 {
        self.samples.iter().copied().max().unwrap_or(UNKNOWN_SAMPLES)
    }
}

/// More samples than anybody scores without saying how many there are.
const UNKNOWN_SAMPLES: u64 = 2000;
/// The most bytes of lines that describe layers, kernels and ratios, all together.
const MOST_DESCRIBED: usize = 8 << 20;
/// The most bytes of lines with the predictions of one sample, on average: some 20 for each value that is sent.
const MOST_PREDICTED: u64 = 20 * Predictions::MAX_VALUES as u64;

/// The most bytes of lines with what a job asks for: 1 GiB.
const MOST_REQUESTED: u64 = 1 << 30;

/// The lines of one invocation so far.
#[derive(Debug)]
pub struct Conversation {
    requested: Requested,
    parts: Parts,
}

#[derive(Debug, Default)]
struct Parts {
    hello: Option<Hello>,
    states: Vec<BoardState>,
    loaded: Option<Loaded>,
    first_ns: Option<u64>,
    first_digest: Option<Text>,
    timed_ns: Vec<u64>,
    memory: Option<Memory>,
    predictions: Option<Predictions>,
    kernels: Vec<LayerKernel>,
    profile: Vec<LayerTime>,
    switched: Vec<Switched>,
    failed: Option<Failure>,
    finished: bool,
    /// Bytes of lines so far that describe layers, and of those with predictions.
    described: usize,
    predicted: u64,
}

impl Conversation {
    pub fn new(requested: Requested) -> Conversation {
        Conversation { requested, parts: Parts::default() }
    }

    /// The runner's process id, once `hello` has named it: the process to kill if the invocation must be stopped.
    pub fn pid(&self) -> Option<u32> {
        self.parts.hello.as_ref().map(|hello| hello.pid)
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// The line violates the protocol: the caller has to stop the invocation.
    pub fn on_line(&mut self, text: &str) -> Result<(), Failure> {
        if text.len() > MAX_LINE {
            return Err(broken(format!("the runner sent a line of {} bytes", text.len())));
        }
        let line: Line = serde_json::from_str(text)
            .map_err(|_| broken(format!("not a line of the runner's protocol: `{}`", excerpt(text))))?;
        let parts = &mut self.parts;
        if parts.finished {
            return Err(broken("the runner went on after `finished`".into()));
        }
        parts.count(&line, text.len(), &self.requested)?;
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
                let message = format!("{message} (while at {})", stage.name()).into();
                parts.failed = Some(Failure { stage: FailureStage::Runner, message });
            }
            (_, Line::Finished) => parts.finished = true,
        }
        Ok(())
    }

    /// The result, once the runner has ended. `ending` is its exit status or signal and the last lines of its stderr;
    /// `wall` how long it ran by this host's clock.
    ///
    /// # Errors
    /// The runner reported a failure, was cut off, left something out, or reported what cannot be.
    pub fn close(self, ending: &str, wall: Duration) -> Result<Measurement, Failure> {
        let Conversation { requested, parts } = self;
        if let Some(failed) = parts.failed {
            return Err(failed);
        }
        if !parts.finished {
            let how = if parts.hello.is_some() { "was cut off before `finished`" } else { "did not start" };
            return Err(broken(format!("the runner {how}: {ending}")));
        }
        let missing = |what: &str| broken(format!("the runner finished without saying its {what}"));
        let (before, after) = match <[BoardState; 2]>::try_from(parts.states) {
            Ok([before, after]) => (before, after),
            Err(_) => return Err(missing("state before and after")),
        };
        match requested.mode {
            Mode::Time if parts.timed_ns.is_empty() || parts.first_ns.is_none() => return Err(missing("times")),
            Mode::Time if parts.timed_ns.contains(&0) => {
                return Err(broken("the runner measured a time of 0 ns: its clock is too coarse".into()));
            }
            Mode::Memory if parts.memory.is_none() => return Err(missing("memory")),
            Mode::Score => match &parts.predictions {
                None => return Err(missing("predictions")),
                Some(given) if given.more => return Err(broken("the last prediction is cut off".into())),
                Some(_) => {}
            },
            Mode::Profile if parts.profile.is_empty() => return Err(missing("times by layer")),
            _ => {}
        }
        let measurement = Measurement {
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
        };
        plausible::check(&measurement, &requested, wall)?;
        Ok(measurement)
    }
}

impl Parts {
    /// # Errors
    /// With this line there are more lines of its kind, or more in them, than any honest answer has.
    fn count(&mut self, line: &Line, bytes: usize, requested: &Requested) -> Result<(), Failure> {
        let once =
            |known: bool, what: &str| if known { Err(broken(format!("the runner said {what}"))) } else { Ok(()) };
        match line {
            Line::State(_) => once(self.states.len() == 2, "`state` a third time"),
            Line::Loaded(_) => once(self.loaded.is_some(), "`loaded` twice"),
            Line::First { .. } => once(self.first_ns.is_some(), "`first` twice"),
            Line::Timed { ns } if self.timed_ns.len() + ns.len() > requested.most_times() => {
                let most = requested.most_times();
                Err(implausible(format!("more than {most} times, where {} were asked for", requested.iterations)))
            }
            Line::Predictions(more) => {
                self.predicted += bytes as u64;
                let (count, most) = (more.start.saturating_add(more.values.len() as u64), requested.most_samples());
                if count > most {
                    return Err(implausible(format!("at least {count} predictions for {most} samples")));
                }
                if self.predicted > requested.most_predicted() {
                    return Err(implausible(format!("more than {} bytes of predictions", self.predicted - 1)));
                }
                Ok(())
            }
            Line::Kernels { .. } | Line::Profile { .. } | Line::Switched(_) => {
                self.described += bytes;
                if self.described > MOST_DESCRIBED {
                    return Err(implausible(format!("more than {MOST_DESCRIBED} bytes about layers and ratios")));
                }
                Ok(())
            }
            // Of these nothing adds up: `memory` is repeated until it is settled.
            Line::Hello(_)
            | Line::Heartbeat { .. }
            | Line::Timed { .. }
            | Line::Memory(_)
            | Line::Failed { .. }
            | Line::Finished => Ok(()),
        }
    }

    fn add_predictions(&mut self, more: Predictions) -> Result<(), Failure> {
        let so_far = self.predictions.get_or_insert_with(Predictions::default);
        let range = more.start..more.start.saturating_add(more.classes.len() as u64);
        if !more.nan.iter().chain(&more.infinite).all(|index| range.contains(index)) {
            return Err(broken("the runner's predictions name samples of other lines".into()));
        }
        let next = so_far.values.len() as u64 - u64::from(so_far.more);
        let has_classes = !more.classes.is_empty();
        let fits = if has_classes { more.classes.len() == more.values.len() } else { more.values.len() == 1 };
        let as_before = so_far.values.is_empty() || so_far.classes.is_empty() != has_classes;
        if more.start != next || !fits || !as_before {
            return Err(broken("the runner's predictions have a gap".into()));
        }
        if let Some((class, _)) =
            more.classes.iter().zip(&more.values).find(|(class, values)| contradicts(**class, values))
        {
            return Err(broken(format!("the runner predicts class {class}, its own values say another")));
        }
        let mut values = more.values.into_iter();
        if so_far.more {
            let (last, rest) = (so_far.values.last_mut(), values.next());
            last.into_iter().for_each(|last| last.extend(rest.iter().flatten()));
        }
        so_far.classes.extend(more.classes);
        so_far.values.extend(values);
        so_far.nan.extend(more.nan);
        so_far.infinite.extend(more.infinite);
        so_far.more = more.more;
        Ok(())
    }
}

/// Whether the values, where they were sent, are largest elsewhere.
fn contradicts(class: u32, values: &[f32]) -> bool {
    match values.get(class as usize) {
        _ if values.is_empty() => false,
        None => true,
        Some(own) if own.is_nan() => values.iter().any(|value| !value.is_nan()),
        Some(own) => values.iter().any(|value| value > own),
    }
}

fn broken(message: String) -> Failure {
    Failure { stage: FailureStage::Run, message: message.into() }
}

fn implausible(what: String) -> Failure {
    broken(format!("implausible: the runner reported {what}"))
}

/// The beginning of an untrusted line, long enough to recognise it.
fn excerpt(line: &str) -> Text {
    line.chars().take(80).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_protocol::Stage;
    use proptest::prelude::*;

    const WALL: Duration = Duration::from_millis(800);

    /// Three times, or five predictions.
    fn requested(mode: Mode) -> Requested {
        Requested { mode, iterations: 3, min_time_ms: 0, samples: vec![5], of_output: false }
    }

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
            Line::First { ns: 900, digest: Some("85944171f73967e8".into()) },
            Line::Heartbeat { doing: Stage::Time, done: 1, total: 3 },
            Line::Timed { ns: vec![500, 600] },
            Line::Timed { ns: vec![700] },
            state(),
            Line::Finished,
        ]
    }

    fn measure(lines: &[Line]) -> Result<Measurement, Failure> {
        let mut conversation = Conversation::new(requested(Mode::Time));
        for line in lines {
            conversation.on_line(&serde_json::to_string(line).unwrap())?;
        }
        conversation.close("exit status 0", WALL)
    }

    #[track_caller]
    fn check_error(lines: &[Line], expected: &str) {
        assert_eq!(measure(lines).unwrap_err().message, expected);
    }

    #[test]
    fn a_complete_conversation_is_a_measurement() {
        let measurement = measure(&complete()).unwrap();
        assert_eq!((measurement.first_ns, measurement.timed_ns), (Some(900), vec![500, 600, 700]));
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
        let failure = Conversation::new(requested(Mode::Time)).on_line("Segmentation fault").unwrap_err();
        assert_eq!(failure.message, "not a line of the runner's protocol: `Segmentation fault`");
        let mut old = complete();
        if let Line::Hello(hello) = &mut old[0] {
            hello.protocol = 0;
        }
        check_error(&old, &format!("the runner speaks protocol 0, this host {VERSION}"));
    }

    /// A line of JSON in place of each line of its kind; the result of the invocation.
    fn answer(mode: Mode, instead: &[&str]) -> Result<Measurement, Failure> {
        let kind = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].clone();
        let mut lines: Vec<String> = complete().iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        lines.retain(|line| !instead.iter().any(|other| kind(line) == kind(other)));
        // Before the second state and `finished`.
        let end = lines.len() - if instead.iter().any(|line| line.contains(r#""line":"state""#)) { 1 } else { 2 };
        lines.splice(end..end, instead.iter().map(|line| (*line).to_owned()));
        let mut conversation = Conversation::new(requested(mode));
        lines.iter().try_for_each(|line| conversation.on_line(line))?;
        conversation.close("exit status 0", WALL)
    }

    #[track_caller]
    fn check_implausible(mode: Mode, instead: &[&str], expected: &str) {
        let failure = answer(mode, instead).unwrap_err();
        assert_eq!(failure.message, format!("implausible: the runner reported {expected}"));
        assert_eq!(failure.stage, FailureStage::Run);
    }

    #[test]
    fn impossible_times_are_refused() {
        let check = |line: &str, expected: &str| check_implausible(Mode::Time, &[line], expected);
        check(r#"{"line":"timed","ns":[500]}"#, "1 times, where at least 3 were asked for");
        check(r#"{"line":"timed","ns":[500,500,500,500]}"#, "4 times, where 3 in at least 0 ms were asked for");
        let short = "an inference of 1 ns, and 100 ns is less than reading the clock and a call take";
        check(r#"{"line":"timed","ns":[500,1,500]}"#, short);
        let max = u64::MAX;
        check(
            &format!(r#"{{"line":"timed","ns":[500,{max},{max}]}}"#),
            "times of 36893488147419104633 ns, and the whole invocation took 800 ms here",
        );
        check(
            &format!(r#"{{"line":"first","ns":{max}}}"#),
            "times of 18446744073709553418 ns, and the whole invocation took 800 ms here",
        );
        let switched =
            |after: u64, ratio: &str| format!(r#"{{"line":"switched","after":{after},"ratio":{ratio},"ns":5}}"#);
        check(&switched(4, "0.5"), "a switch after 4 of 3 inferences");
        check(&switched(3, "1.5"), "a ratio of 1.5, and ratios are from 0 to 1");
        check(&switched(3, "\"NaN\""), "a ratio of NaN, and ratios are from 0 to 1");
        answer(Mode::Time, &[&switched(3, "0.5")]).unwrap();
        // It goes on until the time is up, and no longer.
        let times = |count: usize| format!(r#"{{"line":"timed","ns":{:?}}}"#, vec![400_000; count]);
        let with_time = |count: usize| {
            let mut conversation = Conversation::new(Requested { min_time_ms: 2, ..requested(Mode::Time) });
            for line in complete().iter().filter(|line| !matches!(line, Line::Timed { .. } | Line::Finished)) {
                conversation.on_line(&serde_json::to_string(line).unwrap()).unwrap();
            }
            conversation.on_line(&times(count)).unwrap();
            conversation.on_line(r#"{"line":"finished"}"#).unwrap();
            conversation.close("exit status 0", WALL).is_ok()
        };
        assert!(with_time(5) && !with_time(6));
    }

    #[test]
    fn impossible_sizes_and_counts_are_refused() {
        let memory = |peak: u64| format!(r#"{{"line":"memory","phases":[],"peak_rss":{peak},"peak_allocated":9}}"#);
        let state = |total: u64| {
            let state = BoardState { memory_total: Some(total), ..BoardState::default() };
            serde_json::to_string(&Line::State(state)).unwrap()
        };
        let check = |total: u64, peak: u64, expected: &str| {
            check_implausible(Mode::Memory, &[&state(total), &memory(peak), &state(total)], expected);
        };
        check(4096, 0, "a peak RSS of 0 bytes, and every process has some");
        check(4096, 8192, "a peak RSS of 8192 bytes, and the board says it has 4096");
        let silly = "a peak RSS of 18691697672192 bytes, and no board has more than 17592186044416";
        check(u64::MAX, 17 << 40, silly);
        check(0, 17 << 40, silly);
        answer(Mode::Memory, &[&state(4096), &memory(4096), &state(4096)]).unwrap();

        let loaded = |executed: u64, nonzero: u64| {
            format!(
                r#"{{"line":"loaded","parse_ns":1,"optimise_ns":1,"inputs":[],"outputs":[],
                    "macs":{{"executed":{executed},"nonzero":{nonzero}}}}}"#
            )
        };
        let answers = r#"{"line":"predictions","start":0,"classes":[1,1,1,1,1],"values":[[],[],[],[],[]]}"#;
        answer(Mode::Score, &[&loaded(1_000_000, 500_000), answers]).unwrap();
        check_implausible(Mode::Score, &[&loaded(5, 6), answers], "6 multiply-accumulates without zeros of 5 in all");
        let failure = answer(Mode::Score, &[&loaded(u64::MAX, 6), answers]).unwrap_err();
        assert!(failure.message.contains("18446744073709551615 multiply-accumulates in an"), "{}", failure.message);
        let few = r#"{"line":"predictions","start":0,"classes":[1,1],"values":[[],[]]}"#;
        check_implausible(Mode::Score, &[few], "2 predictions for 5 samples");
        let many = r#"{"line":"predictions","start":0,"classes":[1,1,1,1,1,1],"values":[[],[],[],[],[],[]]}"#;
        check_implausible(Mode::Score, &[many], "at least 6 predictions for 5 samples");
    }

    /// Whatever a hostile runner repeats for ever, it is stopped long before it has used much memory.
    #[test]
    fn what_adds_up_is_bounded() {
        let text = "x".repeat(1000);
        let layer = format!(r#"{{"name":"{text}","op":"","kernel":"","candidates":[],"cached":false}}"#);
        let time = format!(r#"{{"name":"{text}","op":"","kernel":"","calls":1,"median_ns":1}}"#);
        let loaded = r#"{"line":"loaded","parse_ns":1,"optimise_ns":1,"inputs":[],"outputs":[],"macs":null}"#;
        for line in [
            serde_json::to_string(&Line::State(BoardState::default())).unwrap(),
            loaded.to_owned(),
            r#"{"line":"first","ns":9}"#.to_owned(),
            format!(r#"{{"line":"timed","ns":{:?}}}"#, vec![500; 512]),
            r#"{"line":"predictions","start":0,"classes":[1],"values":[[0.5]]}"#.to_owned(),
            r#"{"line":"predictions","start":0,"classes":[],"values":[]}"#.to_owned(),
            format!(r#"{{"line":"kernels","layers":[{layer}]}}"#),
            format!(r#"{{"line":"profile","layers":[{time}]}}"#),
            r#"{"line":"switched","after":1,"ratio":0.5,"ns":9}"#.to_owned(),
        ] {
            let mut conversation = Conversation::new(requested(Mode::Score));
            conversation.on_line(&serde_json::to_string(&hello()).unwrap()).unwrap();
            let stopped = (0..200_000).find(|_| conversation.on_line(&line).is_err());
            assert!(stopped.is_some(), "{line}");
        }
    }

    /// A masked logit is -inf, and a model may well answer NaN: neither breaks the protocol, nor a run's file.
    #[test]
    fn values_that_are_not_finite_are_counted() {
        let line = r#"{"line":"predictions","start":0,"classes":[1,0,0,0,0],
            "values":[["-inf",0.5],["NaN",null],[1e39,1.0],[2.0,1.0],[]],"nan":[4]}"#;
        let measurement = answer(Mode::Score, &[line]).unwrap();
        let predictions = measurement.predictions.unwrap();
        let found = predictions.not_finite();
        assert_eq!((found.nan, found.infinite), ([1, 4].into(), [0, 2].into()));
        assert_eq!(predictions.right(&[1, 0, 0, 0, 0]), [true, false, true, true, false]);
        let wrong = r#"{"line":"predictions","start":0,"classes":[1],"values":[[]],"nan":[1]}"#;
        let failure = answer(Mode::Score, &[wrong]).unwrap_err();
        assert_eq!(failure.message, "the runner's predictions name samples of other lines");
    }

    #[test]
    fn text_is_clean_wherever_it_is() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}b";
        let mut lines = complete();
        if let Line::Hello(hello) = &mut lines[0] {
            hello.engine = hostile.into();
        }
        let lines: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap().replace("aarch64", hostile)).collect();
        let mut conversation = Conversation::new(requested(Mode::Time));
        // A control character has to be escaped in JSON.
        lines.iter().for_each(|line| conversation.on_line(&line.replace('\u{1b}', r"\u001b")).unwrap());
        let stored = serde_json::to_string(&conversation.close("", WALL).unwrap()).unwrap();
        assert!(stored.contains(r"\\u{9b}31m") && !stored.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{stored}");
    }

    #[test]
    fn predictions_with_a_gap_are_refused() {
        let part = |start| {
            Line::Predictions(Predictions {
                start,
                classes: vec![1, 2],
                values: vec![vec![], vec![]],
                ..Predictions::default()
            })
        };
        let mut conversation = Conversation::new(Requested { samples: vec![7], ..requested(Mode::Score) });
        let mut send = |line: &Line| conversation.on_line(&serde_json::to_string(line).unwrap());
        send(&hello()).unwrap();
        send(&part(0)).unwrap();
        send(&part(2)).unwrap();
        assert_eq!(send(&part(5)).unwrap_err().message, "the runner's predictions have a gap");
    }

    fn scored(samples: u64, predictions: &[Predictions]) -> Result<Predictions, String> {
        let mut lines = complete();
        lines.splice(3..7, predictions.iter().cloned().map(Line::Predictions));
        let mut conversation =
            Conversation::new(Requested { samples: vec![samples], of_output: true, ..requested(Mode::Score) });
        for line in lines {
            conversation.on_line(&serde_json::to_string(&line).unwrap()).map_err(|end| end.message.to_string())?;
        }
        let measured = conversation.close("exit status 0", WALL).map_err(|end| end.message.to_string())?;
        Ok(measured.predictions.unwrap())
    }

    #[test]
    fn a_prediction_may_take_several_lines() {
        let values: Vec<f32> = (0..20_000u16).map(f32::from).collect();
        let lines = [Predictions::of_sample(0, &values), Predictions::of_sample(1, &[7.0])].concat();
        assert_eq!(lines.len(), 4);
        let all = scored(2, &lines).unwrap();
        assert!(all.values == [values, vec![7.0]] && all.classes.is_empty() && !all.more);
        assert_eq!(scored(1, &lines[..2]).unwrap_err(), "the last prediction is cut off");
        assert_eq!(scored(2, &lines[..3]).unwrap_err(), "implausible: the runner reported 1 predictions for 2 samples");
        assert_eq!(scored(2, &lines[3..]).unwrap_err(), "the runner's predictions have a gap");
    }

    /// 16 or 513 predictions for 497 samples, and a class that the values beside it deny.
    #[test]
    fn a_board_cannot_make_up_predictions() {
        let line = |class: u32, values: &[f32]| {
            let (classes, values) = (vec![class], vec![values.to_vec()]);
            [Predictions { classes, values, ..Predictions::default() }]
        };
        assert!(scored(1, &line(1, &[0.0, 2.0])).is_ok() && scored(1, &line(3, &[])).is_ok());
        assert_eq!(
            scored(2, &line(1, &[0.0, 2.0])).unwrap_err(),
            "implausible: the runner reported 1 predictions for 2 samples"
        );
        for (class, values) in [(0, [0.0, 2.0]), (2, [0.0, 2.0]), (1, [0.0, f32::NAN])] {
            let expected = format!("the runner predicts class {class}, its own values say another");
            assert_eq!(scored(1, &line(class, &values)).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_lines_however_odd_panic(lines in proptest::collection::vec(".{0,40}", 0..8), cut in 0usize..9) {
            let mut conversation = Conversation::new(requested(Mode::Memory));
            for line in complete().iter().take(cut) {
                let _ = conversation.on_line(&serde_json::to_string(line).unwrap());
            }
            for line in &lines {
                let _ = conversation.on_line(line);
            }
            let _ = conversation.close("signal 9", WALL);
        }
    }
}
