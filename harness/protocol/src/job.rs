//! One job for one fresh runner process, and its command-line form. Both sides use this file, so they cannot disagree.

/// What one invocation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Load, first inference, warm-up, then timed inferences of single samples.
    Time,
    /// Load and a few inferences, peak memory by phase. A pass of its own: counting allocations disturbs times.
    Memory,
    /// Every sample once; predictions come back.
    Score,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Time, Mode::Memory, Mode::Score];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Time => "time",
            Mode::Memory => "memory",
            Mode::Score => "score",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub mode: Mode,
    /// Path of the ONNX file, on the board.
    pub model: String,
    /// Path of a [`crate::tensor`] file on the board; without it the runner makes inputs of its own, the same every time.
    pub inputs: Option<String>,
    /// Shapes of inputs whose dimensions the model leaves open, as `NAME=1x128`; only without `inputs`.
    pub shapes: Vec<String>,
    /// Untimed inferences after the first.
    pub warmup: u32,
    /// Timed inferences at least.
    pub iterations: u32,
    /// Goes on past `iterations` until that many milliseconds were timed.
    pub min_time_ms: u64,
    /// CPUs to stay on; empty: wherever the kernel likes.
    pub cpus: Vec<u32>,
    /// A drill: each timed inference is made to take that many percent longer, above 0 and at most [`Job::MOST_SLOW_DOWN`]. With it the gate shows that it
    /// would see a slow-down of a known size. A flag only where it is set: runners of earlier releases do not know it.
    pub slow_down_percent: Option<f64>,
}

impl Job {
    /// Eleven times the time; what takes longer than that for a drill is a slip of the pen.
    pub const MOST_SLOW_DOWN: f64 = 1000.0;

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
            // Printed shortest: reads back to the same bits.
            flag("--slow-down", percent.to_string());
        }
        args
    }

    /// # Errors
    /// A sentence fragment that names the flag at fault.
    pub fn from_args(args: &[String]) -> Result<Job, String> {
        let mut args = args.iter();
        let mode = args.next().ok_or("no mode given: time, memory or score")?;
        let mode = Mode::ALL
            .into_iter()
            .find(|known| known.name() == mode)
            .ok_or_else(|| format!("unknown mode `{mode}`: time, memory or score"))?;
        let mut job = Job {
            mode,
            model: String::new(),
            inputs: None,
            shapes: Vec::new(),
            warmup: 0,
            iterations: 1,
            min_time_ms: 0,
            cpus: Vec::new(),
            slow_down_percent: None,
        };
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
                _ => return Err(format!("unknown flag `{flag}`")),
            }
        }
        if job.model.is_empty() {
            return Err("`--model` is missing".into());
        }
        Ok(job)
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{flag}` wants a whole number, not `{value}`"))
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
        for (mode, slow_down_percent) in Mode::ALL.into_iter().zip([None, Some(5.0), Some(0.1 + 0.2)]) {
            let job = Job {
                mode,
                model: "/tmp/a b.onnx".into(),
                inputs: Some("x.tensors".into()),
                shapes: vec!["ids=1x128".into(), "mask=1x128".into()],
                warmup: 3,
                iterations: 40,
                min_time_ms: 500,
                cpus: vec![1, 3],
                slow_down_percent,
            };
            assert_eq!(Job::from_args(&job.to_args()).unwrap(), job);
            // A runner of an earlier release refuses flags it does not know.
            assert_eq!(job.to_args().contains(&"--slow-down".to_owned()), slow_down_percent.is_some());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(Job::from_args(&args).unwrap_err(), expected);
        };
        check(&[], "no mode given: time, memory or score");
        check(&["tune"], "unknown mode `tune`: time, memory or score");
        check(&["time"], "`--model` is missing");
        check(&["time", "--model"], "`--model` has no value");
        check(&["time", "--warmup", "x"], "`--warmup` wants a whole number, not `x`");
        check(&["time", "--speed", "9"], "unknown flag `--speed`");
        for value in ["0", "-5", "1000.5", "nan", "inf", "x"] {
            let expected = format!("`--slow-down` wants percent above 0 and at most 1000, not `{value}`");
            check(&["time", "--slow-down", value], &expected);
        }
    }
}
