//! Lines to the host, and heartbeats while there are no other lines.
//!
//! A thread sends heartbeats during loading and other long work. While inferences are timed it sleeps, because a
//! wake-up is a disturbance, and the timing loop sends heartbeats between two inferences, unless a single inference
//! takes seconds.

use std::{
    io::Write,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use espalier_protocol::{HEARTBEAT_SECONDS, Line, Stage};

pub struct Reporter {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    stage: Stage,
    done: u64,
    total: u64,
    last_line: Instant,
    quiet: bool,
}

const BEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

impl Reporter {
    pub fn start() -> Arc<Reporter> {
        let state = State { stage: Stage::Start, done: 0, total: 0, last_line: Instant::now(), quiet: false };
        let reporter = Arc::new(Reporter { state: Mutex::new(state), wake: Condvar::new() });
        let beating = Arc::clone(&reporter);
        std::thread::spawn(move || beating.beat());
        reporter
    }

    pub fn emit(&self, line: &Line) {
        self.write(&mut self.lock(), line);
    }

    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Begins a stage of `total` steps, 0 where unknown.
    pub fn enter(&self, stage: Stage, total: u64) {
        let mut state = self.lock();
        (state.stage, state.done, state.total) = (stage, 0, total);
    }

    /// While quiet, only [`Reporter::step`] sends heartbeats.
    pub fn set_quiet(&self, quiet: bool) {
        self.lock().quiet = quiet;
        self.wake.notify_all();
    }

    /// Counts a step, and sends a heartbeat if one is due.
    pub fn step(&self) {
        let mut state = self.lock();
        state.done += 1;
        if state.last_line.elapsed() >= BEAT {
            self.write_beat(&mut state);
        }
    }

    fn beat(&self) {
        let mut state = self.lock();
        loop {
            if state.quiet {
                state = self.wake.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            }
            let silent = state.last_line.elapsed();
            if silent >= BEAT {
                self.write_beat(&mut state);
            } else {
                let waited = self.wake.wait_timeout(state, BEAT - silent);
                state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
        }
    }

    fn write_beat(&self, state: &mut State) {
        let line = Line::Heartbeat { doing: state.stage, done: state.done, total: state.total };
        self.write(state, &line);
    }

    fn write(&self, state: &mut State, line: &Line) {
        let mut text = serde_json::to_string(line).expect("lines always encode");
        text.push('\n');
        let mut out = std::io::stdout().lock();
        // The host does not read any more, so this process has nothing left to do.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
        state.last_line = Instant::now();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
