//! One job for one fresh runner process, and its command-line form. Host and runner both use this file.

use std::ops::RangeInclusive;

/// What one invocation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Load, first inference, warm-up, then timed inferences of single samples.
    Time,
    /// Load and a few inferences, peak memory by phase. Separate from `Time`, because counting allocations disturbs
    /// times.
    Memory,
    /// Every sample once, for its predictions.
    Score,
    /// Load, warm-up, then inferences with the time of each layer. Separate from `Time`, because timing layers takes
    /// time.
    Profile,
}

impl Mode {
    pub const ALL: [Mode; 4] = [Mode::Time, Mode::Memory, Mode::Score, Mode::Profile];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Time => "time",
            Mode::Memory => "memory",
            Mode::Score => "score",
            Mode::Profile => "profile",
        }
    }
}

/// The engine that runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// tract with our kernels where they are faster on this board.
    #[default]
    Espalier,
    /// Plain tract, for comparison.
    Tract,
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Espalier, Engine::Tract];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Espalier => "espalier",
            Engine::Tract => "tract",
        }
    }
}

/// Fields that are newer than the first release become flags only where they differ from their default, because runners
/// of earlier releases do not know these flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub mode: Mode,
    /// Path of the ONNX file or pack, on the board.
    pub model: String,
    /// Path of a [`crate::tensor`] file on the board. `None`: synthetic inputs, the same every time.
    pub inputs: Option<String>,
    /// Shapes of inputs with open dimensions, as `NAME=1x128`. Only without `inputs`.
    pub shapes: Vec<String>,
    /// Untimed inferences after the first.
    pub warmup: u32,
    /// The fewest timed inferences.
    pub iterations: u32,
    /// Continues after `iterations` until this many milliseconds were timed, up to [`Job::MOST_TIMES`] inferences.
    pub min_time_ms: u64,
    /// CPUs to stay on. Empty: all CPUs.
    pub cpus: Vec<u32>,
    /// A drill: each timed inference takes this many percent longer, above 0 and at most [`Job::MOST_SLOW_DOWN`]. It
    /// shows that the gate detects a slow-down of a known size.
    pub slow_down_percent: Option<f64>,
    pub engine: Engine,
    /// Threads of one inference, including the main thread.
    pub threads: u32,
    /// Folder on the board that stores choices of kernels between invocations. `None`: a folder beside the runner.
    pub cache: Option<String>,
    /// The ratio of a pack to run, or several to run in turn, inference by inference. Empty: the first one.
    pub ratios: Vec<f64>,
    /// Runs the densest ratio of a pack that takes at most this many milliseconds, as measured while it runs.
    pub budget_ms: Option<f64>,
    /// Kernels skip activations of at most this magnitude. `None`: they skip no activations.
    pub skip_below: Option<f64>,
    /// What a `score` job sends. `None`: the class and the values of the first output.
    pub request: Option<OutputRequest>,
}

/// What a `score` job sends of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    /// All values of this output, by its place in the model.
    pub output: u32,
    /// Or where they are largest along this axis of it.
    pub argmax: Option<u32>,
}

impl Job {
    /// One inference with default flags.
    pub fn new(mode: Mode, model: impl Into<String>) -> Job {
        Job {
            mode,
            model: model.into(),
            inputs: None,
            shapes: Vec::new(),
            warmup: 0,
            iterations: 1,
            min_time_ms: 0,
            cpus: Vec::new(),
            slow_down_percent: None,
            engine: Engine::Espalier,
            threads: 1,
            cache: None,
            ratios: Vec::new(),
            budget_ms: None,
            skip_below: None,
            request: None,
        }
    }

    /// Eleven times as long. A larger number is a mistake.
    pub const MOST_SLOW_DOWN: f64 = 1000.0;
    /// The most times of one invocation, unless more iterations are asked for: the host holds them all.
    pub const MOST_TIMES: u32 = 1_000_000;
    /// More threads than any board has processors are a mistake.
    pub const MOST_THREADS: u32 = 1024;

    /// The flags after the program's name. Without shell quoting.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = vec![self.mode.name().to_owned(), "--model".into(), self.model.clone()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        if let Some(inputs) = &self.inputs {
            flag("--inputs", inputs.clone());
        }
        for shape in &self.shapes {
            flag("--shape", shape.clone());
        }
        flag("--warmup", self.warmup.to_string());
        flag("--iterations", self.iterations.to_string());
        flag("--min-time-ms", self.min_time_ms.to_string());
        if !self.cpus.is_empty() {
            flag("--cpus", self.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        if let Some(percent) = self.slow_down_percent {
            // The shortest decimal that reads back to the same bits.
            flag("--slow-down", percent.to_string());
        }
        if self.engine != Engine::default() {
            flag("--engine", self.engine.name().to_owned());
        }
        if self.threads > 1 {
            flag("--threads", self.threads.to_string());
        }
        if let Some(cache) = &self.cache {
            flag("--cache", cache.clone());
        }
        if !self.ratios.is_empty() {
            flag("--ratio", self.ratios.iter().map(f64::to_string).collect::<Vec<_>>().join(","));
        }
        for (name, number) in [("--budget-ms", self.budget_ms), ("--skip-below", self.skip_below)] {
            if let Some(number) = number {
                flag(name, number.to_string());
            }
        }
        if let Some(OutputRequest { output, argmax }) = self.request {
            flag("--output", output.to_string());
            argmax.into_iter().for_each(|axis| flag("--argmax", axis.to_string()));
        }
        args
    }

    /// # Errors
    /// A message that names the wrong flag.
    pub fn from_args(args: &[String]) -> Result<Job, String> {
        let mut args = args.iter();
        let mode = args.next().ok_or("no mode given: time, memory, score or profile")?;
        let mode = Mode::ALL
            .into_iter()
            .find(|known| known.name() == mode)
            .ok_or_else(|| format!("unknown mode `{mode}`: time, memory, score or profile"))?;
        let mut job = Job::new(mode, "");
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("`{flag}` has no value"))?;
            match flag.as_str() {
                "--model" => job.model = value.clone(),
                "--inputs" => job.inputs = Some(value.clone()),
                "--shape" => job.shapes.push(value.clone()),
                "--warmup" => job.warmup = number(flag, value)?,
                "--iterations" => job.iterations = number(flag, value)?,
                "--min-time-ms" => job.min_time_ms = number(flag, value)?,
                "--cpus" => {
                    job.cpus = value.split(',').map(|cpu| number(flag, cpu)).collect::<Result<_, _>>()?;
                }
                "--slow-down" => job.slow_down_percent = Some(slow_down(flag, value)?),
                "--engine" => job.engine = engine(value)?,
                "--threads" => job.threads = number(flag, value)?,
                "--cache" => job.cache = Some(value.clone()),
                "--ratio" => {
                    job.ratios =
                        value.split(',').map(|ratio| real(flag, ratio, 0.0..=1.0)).collect::<Result<_, _>>()?;
                }
                "--budget-ms" => job.budget_ms = Some(real(flag, value, 0.001..=1e9)?),
                "--skip-below" => job.skip_below = Some(real(flag, value, 0.0..=1e9)?),
                "--output" => job.request = Some(OutputRequest { output: number(flag, value)?, argmax: None }),
                "--argmax" => {
                    let request = job.request.as_mut().ok_or("`--argmax` comes after `--output`")?;
                    request.argmax = Some(number(flag, value)?);
                }
                _ => return Err(format!("unknown flag `{flag}`")),
            }
        }
        if job.model.is_empty() {
            return Err("`--model` is missing".into());
        }
        if !(1..=Job::MOST_THREADS).contains(&job.threads) {
            return Err(format!("`--threads` wants 1 to {}, not `{}`", Job::MOST_THREADS, job.threads));
        }
        if !job.ratios.is_empty() && job.budget_ms.is_some() {
            return Err("`--ratio` and `--budget-ms` exclude each other: the budget chooses the ratio".into());
        }
        Ok(job)
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{flag}` wants a whole number, not `{value}`"))
}

fn engine(value: &str) -> Result<Engine, String> {
    let known = Engine::ALL.into_iter().find(|engine| engine.name() == value);
    known.ok_or_else(|| format!("unknown engine `{value}`: espalier or tract"))
}

fn real(flag: &str, value: &str, range: RangeInclusive<f64>) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("`{flag}` wants a number from {} to {}, not `{value}`", range.start(), range.end()))
}

fn slow_down(flag: &str, value: &str) -> Result<f64, String> {
    let percent = value.parse().ok().filter(|percent| *percent > 0.0 && *percent <= Job::MOST_SLOW_DOWN);
    percent.ok_or_else(|| format!("`{flag}` wants percent above 0 and at most {}, not `{value}`", Job::MOST_SLOW_DOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_round_trip() {
        for (mode, slow_down_percent) in Mode::ALL.into_iter().zip([None, Some(5.0), Some(0.1 + 0.2), None]) {
            let job = Job {
                inputs: Some("x.tensors".into()),
                shapes: vec!["ids=1x128".into(), "mask=1x128".into()],
                warmup: 3,
                iterations: 40,
                min_time_ms: 500,
                cpus: vec![1, 3],
                slow_down_percent,
                ..Job::new(mode, "/tmp/a b.onnx")
            };
            assert_eq!(Job::from_args(&job.to_args()).unwrap(), job);
            assert_eq!(job.to_args().contains(&"--slow-down".to_owned()), slow_down_percent.is_some());
        }
    }

    /// A runner of an earlier release refuses unknown flags.
    #[test]
    fn new_flags_are_written_only_where_they_are_used() {
        let usual = Job::new(Mode::Time, "m.onnx");
        assert_eq!(usual.to_args().join(" "), "time --model m.onnx --warmup 0 --iterations 1 --min-time-ms 0");
        let check = |job: Job, flags: &str| {
            let args = job.to_args();
            assert_eq!(args[usual.to_args().len()..].join(" "), flags);
            assert_eq!(Job::from_args(&args).unwrap(), job);
        };
        check(Job { engine: Engine::Tract, ..usual.clone() }, "--engine tract");
        check(Job { threads: 4, cache: Some("c d".into()), ..usual.clone() }, "--threads 4 --cache c d");
        check(Job { ratios: vec![0.9, 0.0], ..usual.clone() }, "--ratio 0.9,0");
        check(
            Job { budget_ms: Some(2.5), skip_below: Some(0.001), ..usual.clone() },
            "--budget-ms 2.5 --skip-below 0.001",
        );
        check(Job { request: Some(OutputRequest { output: 1, argmax: None }), ..usual.clone() }, "--output 1");
        check(
            Job { request: Some(OutputRequest { output: 0, argmax: Some(2) }), ..usual.clone() },
            "--output 0 --argmax 2",
        );
    }

    #[test]
    fn errors_name_the_flag() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(Job::from_args(&args).unwrap_err(), expected);
        };
        check(&[], "no mode given: time, memory, score or profile");
        check(&["tune"], "unknown mode `tune`: time, memory, score or profile");
        check(&["time"], "`--model` is missing");
        check(&["time", "--model"], "`--model` has no value");
        check(&["time", "--warmup", "x"], "`--warmup` wants a whole number, not `x`");
        check(&["time", "--speed", "9"], "unknown flag `--speed`");
        check(&["time", "--engine", "x"], "unknown engine `x`: espalier or tract");
        check(&["time", "--model", "m", "--threads", "0"], "`--threads` wants 1 to 1024, not `0`");
        check(&["score", "--argmax", "1"], "`--argmax` comes after `--output`");
        check(&["time", "--ratio", "1.5"], "`--ratio` wants a number from 0 to 1, not `1.5`");
        check(
            &["time", "--model", "m", "--ratio", "0.5", "--budget-ms", "2"],
            "`--ratio` and `--budget-ms` exclude each other: the budget chooses the ratio",
        );
        for value in ["0", "-5", "1000.5", "nan", "inf", "x"] {
            let expected = format!("`--slow-down` wants percent above 0 and at most 1000, not `{value}`");
            check(&["time", "--slow-down", value], &expected);
        }
    }
}
