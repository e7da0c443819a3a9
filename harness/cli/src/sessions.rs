//! The devices' sessions of one phase, in parallel: each on a thread of its own, every record passed on as it comes.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use espalier_bench::{
    plan::Script,
    record::{Outcome, Record},
};
use espalier_fleet::{
    cancel::Cancel,
    session::{self, DeviceWork, Ended, Event},
};
use tokio::sync::{Semaphore, mpsc};

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
    ///
    /// # Errors
    /// The first one of `on_record`, once all sessions have ended.
    pub fn carry_out<S: Script + 'static>(
        &self,
        phase: Vec<(DeviceWork, S)>,
        on_record: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<Vec<CarriedOut<S>>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(self.in_parallel(phase, on_record))
    }

    async fn in_parallel<S: Script + 'static>(
        &self,
        phase: Vec<(DeviceWork, S)>,
        on_record: &mut dyn FnMut(&Record) -> Result<()>,
    ) -> Result<Vec<CarriedOut<S>>> {
        let places = Arc::new(Semaphore::new(self.jobs.unwrap_or(phase.len()).max(1)));
        let (sender, mut messages) = mpsc::unbounded_channel();
        let tasks: Vec<(String, Task)> = phase
            .iter()
            .map(|(work, script)| {
                let name = work.device.name.clone();
                let task = self.progress.task(&name, Some(script.length()));
                (name, task)
            })
            .collect();
        let mut ends: Vec<Option<Ended>> = vec![None; phase.len()];
        for (index, (work, mut script)) in phase.into_iter().enumerate() {
            let (places, sender, cancel, start) =
                (Arc::clone(&places), sender.clone(), self.cancel.clone(), self.start);
            tokio::spawn(async move {
                let place = places.acquire_owned().await;
                let carried = tokio::task::spawn_blocking(move || {
                    session::carry_out(&work, &mut script, start, &cancel, &mut |event| {
                        // The receiver lives as long as the program.
                        let _ = sender.send(Message::Event(index, Box::new(event)));
                    });
                    let _ = sender.send(Message::Ended(index, script));
                });
                let _ = carried.await;
                drop(place);
            });
        }
        drop(sender);
        let mut carried_out = Vec::new();
        // What cannot be kept is not measured on, and boards get their settings back: sessions end as after Ctrl-C.
        let mut lost = None;
        while let Some(message) = messages.recv().await {
            match message {
                Message::Event(index, event) => {
                    let (name, task) = &tasks[index];
                    self.show(name, task, &event);
                    match *event {
                        Event::Record(record) => {
                            if let (None, Err(error)) = (&lost, on_record(&record)) {
                                self.cancel.request();
                                lost = Some(error);
                            }
                        }
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
        lost.map_or(Ok(carried_out), Err)
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
