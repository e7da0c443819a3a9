//! The devices' sessions of one phase, in parallel: each on a thread of its own, every record passed on as it comes.

use std::{
    sync::{Mutex, mpsc},
    time::Instant,
};

use anyhow::Result;
use espalier_bench::{
    plan::Script,
    record::{Outcome, Record},
};
use espalier_fleet::{
    cancel::Cancel,
    session::{self, DeviceWork, Ended, Event},
};

use crate::progress::{Progress, Task};

pub struct Sessions<'a> {
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
    /// Devices at a time; `None` is all.
    pub jobs: Option<usize>,
    /// The start of the run, which records count their times from.
    pub start: Instant,
}

/// A session that has ended, with its script's final state.
pub struct CarriedOut<S> {
    pub device: String,
    pub script: S,
    pub ended: Ended,
}

/// A message of the session with this index.
enum Message<S> {
    Event(usize, Box<Event>),
    Ended(usize, S),
}

impl Sessions<'_> {
    /// Carries out the scripts. `on_record` gets every record; the result is in the order in which sessions ended.
    pub fn carry_out<S: Script>(
        &self,
        phase: Vec<(DeviceWork, S)>,
        on_record: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<Vec<CarriedOut<S>>> {
        let task = |(work, script): &(DeviceWork, S)| {
            (work.device.name.clone(), self.progress.task(&work.device.name, Some(script.length())))
        };
        let tasks: Vec<(String, Task)> = phase.iter().map(task).collect();
        let mut ends: Vec<Option<Ended>> = vec![None; phase.len()];
        let at_a_time = self.jobs.unwrap_or(phase.len()).clamp(1, phase.len().max(1));
        let waiting = Mutex::new(phase.into_iter().enumerate());
        let next = || waiting.lock().expect("no thread panics with it").next();
        let (sender, messages) = mpsc::channel();
        let sessions = |sender: mpsc::Sender<Message<S>>| {
            while let Some((index, (work, mut script))) = next() {
                session::carry_out(&work, &mut script, self.start, self.cancel, &mut |event| {
                    let _ = sender.send(Message::Event(index, Box::new(event)));
                });
                // After an error nobody receives, and no further session begins.
                if sender.send(Message::Ended(index, script)).is_err() {
                    break;
                }
            }
        };
        std::thread::scope(|scope| {
            for sender in std::iter::repeat_n(sender, at_a_time) {
                scope.spawn(|| sessions(sender));
            }
            let mut carried_out = Vec::new();
            for message in messages {
                match message {
                    Message::Event(index, event) => {
                        let (name, task) = &tasks[index];
                        self.show(name, task, &event);
                        match *event {
                            Event::Record(record) => on_record(&record)?,
                            Event::Ended(ended) => ends[index] = Some(ended),
                            _ => {}
                        }
                    }
                    Message::Ended(index, script) => carried_out.push(CarriedOut {
                        device: tasks[index].0.clone(),
                        script,
                        ended: ends[index].take().unwrap_or_default(),
                    }),
                }
            }
            Ok(carried_out)
        })
    }

    fn show(&self, name: &str, task: &Task, event: &Event) {
        match event {
            Event::Connected => task.now("connected"),
            Event::Pushing { done, total } => {
                task.now(&format!("pushing {:.1} of {:.1} MB", *done as f64 / 1e6, *total as f64 / 1e6));
            }
            Event::Pushed(pushed) => task.milestone(&format!(
                "{} files pushed ({} bytes sent), {} already there",
                pushed.files_sent, pushed.bytes_sent, pushed.files_present
            )),
            Event::Started(job) => {
                let place = job.trial.map_or_else(
                    || format!("round {}", job.round + 1),
                    |trial| format!("block {} ({:?})", trial.block + 1, trial.arm),
                );
                task.now(&format!("{} {} {place}", job.mode.name(), job.case.variant()));
            }
            Event::Record(record) => {
                task.step();
                if let Outcome::Failed(failure) = &record.outcome {
                    let Record { case, mode, .. } = &**record;
                    let what = format!("{} {}", mode.name(), case.variant());
                    self.progress.emit(&format!("{name}: {what}: {}", failure.message));
                }
            }
            Event::Note(note) => self.progress.emit(&format!("{name}: {note}")),
            Event::Ended(ended) => {
                task.done();
                let wall = ended.wall.as_secs_f64();
                let share = 100.0 * ended.in_invocations.as_secs_f64() / wall.max(f64::MIN_POSITIVE);
                self.progress.emit(&format!("{name}: {wall:.1} s, {share:.1} % of it in invocations"));
            }
        }
    }
}
