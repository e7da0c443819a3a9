//! The devices' sessions: in phases, in parallel within a phase, every record into the run's file as it comes.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use espalier_bench::{
    message::Message,
    record::{Outcome, Record},
};
use espalier_fleet::session::{self, DeviceWork, Ended, Event};
use tokio::sync::{Semaphore, mpsc};

use super::Bench;
use crate::{progress::Task, run_file::RunFile};

impl Bench {
    /// Carries out the phases one after the other, the devices of each in parallel; every record goes to the file as it comes.
    pub fn carry_out(&self, phases: [Vec<DeviceWork>; 3], file: &mut RunFile) -> Result<Vec<(String, Ended)>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let start = Instant::now();
        let mut ended = Vec::new();
        for phase in phases {
            ended.extend(runtime.block_on(self.in_parallel(phase, start, file))?);
        }
        Ok(ended)
    }

    async fn in_parallel(
        &self,
        phase: Vec<DeviceWork>,
        start: Instant,
        file: &mut RunFile,
    ) -> Result<Vec<(String, Ended)>> {
        let places = Arc::new(Semaphore::new(self.flags.jobs.unwrap_or(phase.len()).max(1)));
        let (sender, mut events) = mpsc::unbounded_channel();
        let tasks: Vec<(String, Task)> = phase
            .iter()
            .map(|work| {
                let name = work.device.name.clone();
                let task = self.progress.task(&name, Some(work.jobs.len() as u64));
                (name, task)
            })
            .collect();
        for (index, work) in phase.into_iter().enumerate() {
            let (places, sender, cancel) = (Arc::clone(&places), sender.clone(), self.cancel.clone());
            tokio::spawn(async move {
                let place = places.acquire_owned().await;
                let carried = tokio::task::spawn_blocking(move || {
                    session::carry_out(&work, start, &cancel, &mut |event| {
                        // The other end only goes away with the whole program.
                        let _ = sender.send((index, event));
                    });
                });
                let _ = carried.await;
                drop(place);
            });
        }
        drop(sender);
        let mut ended = Vec::new();
        while let Some((index, event)) = events.recv().await {
            let (name, task) = &tasks[index];
            self.show(name, task, &event);
            match event {
                Event::Record(record) => {
                    file.record(&record)?;
                    self.message(&Message::Record { record: &record });
                }
                Event::Ended(end) => ended.push((name.clone(), end)),
                _ => {}
            }
        }
        Ok(ended)
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
                task.now(&format!("{} {}@{} round {}", job.mode.name(), job.case.model, job.case.ratio, job.round + 1));
            }
            Event::Record(record) => {
                task.step();
                if let Outcome::Failed(failure) = &record.outcome {
                    let Record { case, mode, .. } = &**record;
                    let what = format!("{} {}@{}", mode.name(), case.model, case.ratio);
                    self.progress.say(&format!("{name}: {what}: {}", failure.message));
                }
            }
            Event::Note(note) => self.progress.say(&format!("{name}: {note}")),
            Event::Ended(ended) => {
                task.done();
                let wall = ended.wall.as_secs_f64();
                let share = 100.0 * ended.in_invocations.as_secs_f64() / wall.max(f64::MIN_POSITIVE);
                self.progress.say(&format!("{name}: {wall:.1} s, {share:.1} % of it in invocations"));
            }
        }
    }
}
