//! A small thread pool for one inference. A job is divided into tasks, and the caller runs tasks as well.
//!
//! A layer takes tens of microseconds, so a job has to start and end within a few. Workers spin for a while before they
//! sleep, a task is claimed by one atomic operation, and nobody waits for a worker that wakes up after the last task
//! was claimed. With one thread there is no pool.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How often a worker looks for work before it sleeps: tens of microseconds, the time between two layers.
const LOOKS: u32 = 4000;
/// How often a thread looks before it yields the processor, perhaps to the thread it waits for.
const LOOKS_BEFORE_YIELD: u32 = 200;

/// No task is left, or there is none yet.
const NONE_LEFT: u32 = u32::MAX;

pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The number of the job in the upper half, its next task or [`NONE_LEFT`] in the lower half.
    claim: AtomicU64,
    /// Of the current job. Written only while `claim` has [`NONE_LEFT`] with the new number, so that a thread that
    /// claims a task has read the values of the same job.
    tasks: AtomicU32,
    job: AtomicPtr<Job<'static>>,
    /// Tasks of the current job that have ended.
    done: AtomicU32,
    /// A job is running.
    busy: AtomicBool,
    quit: AtomicBool,
    asleep: Vec<AtomicBool>,
}

struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Threads {
    /// A pool of `count` threads including the caller. It has fewer where the system refuses to start threads.
    pub fn new(count: usize) -> Threads {
        let helpers = count.saturating_sub(1);
        let shared = Arc::new(Shared {
            claim: AtomicU64::new(u64::from(NONE_LEFT)),
            tasks: AtomicU32::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            done: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("layer-{index}")).spawn(move || shared.work(index)).ok()
        };
        let workers = (0..helpers).map_while(start).collect();
        Threads { shared, workers }
    }

    /// Threads that run tasks, including the caller.
    pub fn count(&self) -> usize {
        1 + self.workers.len()
    }

    /// Calls `task` with 0 to `tasks - 1`, in any order and in parallel, and returns when all calls have ended. If a
    /// task panics, this panics after the others have ended. A job that is started within a job runs on its caller
    /// alone.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = self.workers.is_empty() || tasks < 2 || tasks >= NONE_LEFT as usize;
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..tasks).for_each(task);
            return;
        }
        let shared = &*self.shared;
        let job = Job { task, panic: Mutex::new(None) };
        let number = (shared.claim.load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
        shared.claim.swap(number | u64::from(NONE_LEFT), Ordering::SeqCst);
        shared.done.store(0, Ordering::Release);
        shared.tasks.store(tasks as u32, Ordering::Release);
        // The job is on this stack. Only threads that claimed a task use it, and their tasks are waited for below.
        shared.job.store(ptr::from_ref(&job).cast::<Job<'static>>().cast_mut(), Ordering::Release);
        shared.claim.store(number, Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep).take(tasks - 1) {
            if asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }

        while shared.run_one() {}
        let mut looks = 0;
        while shared.done.load(Ordering::Acquire) < tasks as u32 {
            look_again(&mut looks);
        }
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Workers do not panic: panics of tasks are caught.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut looks = 0;
        while !self.quit.load(Ordering::SeqCst) {
            if self.run_one() {
                looks = 0;
            } else if looks < LOOKS {
                look_again(&mut looks);
            } else {
                self.sleep(index);
                looks = 0;
            }
        }
    }

    fn sleep(&self, index: usize) {
        self.asleep[index].store(true, Ordering::SeqCst);
        // A thread that added work or set `quit` before the store above did not see this worker asleep.
        let claim = self.claim.load(Ordering::SeqCst);
        if (claim as u32) < self.tasks.load(Ordering::SeqCst) || self.quit.load(Ordering::SeqCst) {
            self.asleep[index].store(false, Ordering::SeqCst);
            return;
        }
        while self.asleep[index].load(Ordering::SeqCst) && !self.quit.load(Ordering::SeqCst) {
            thread::park();
        }
    }

    /// Returns whether there was a task.
    fn run_one(&self) -> bool {
        let mut claim = self.claim.load(Ordering::Acquire);
        loop {
            let (tasks, job) = (self.tasks.load(Ordering::Acquire), self.job.load(Ordering::Acquire));
            let index = claim as u32;
            if index >= tasks {
                return false;
            }
            // If `tasks` or `job` were of a later job, `claim` would have changed before them, and this would fail.
            match self.claim.compare_exchange_weak(claim, claim + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: a task of this job was claimed, and `Threads::run` keeps the job until all tasks have
                    // ended.
                    let job = unsafe { &*job };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.task)(index as usize))) {
                        job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                    }
                    self.done.fetch_add(1, Ordering::Release);
                    return true;
                }
                Err(now) => claim = now,
            }
        }
    }
}

fn look_again(looks: &mut u32) {
    *looks += 1;
    if looks.is_multiple_of(LOOKS_BEFORE_YIELD) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use super::*;

    #[test]
    fn every_task_is_run_once() {
        for count in [0, 1, 2, 3, 8] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count.max(1));
            for round in 0..300 {
                let tasks = round % 37;
                let times: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.run(tasks, &|index| {
                    times[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{count} threads, {tasks} tasks");
                if round % 100 == 0 {
                    // Long enough for all workers to fall asleep.
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    #[test]
    fn others_take_part() {
        let threads = Threads::new(2);
        let ids = Mutex::new(Vec::new());
        threads.run(2, &|_| {
            ids.lock().unwrap().push(thread::current().id());
            // The first task waits for the second, which another thread has to run.
            while ids.lock().unwrap().len() < 2 {
                thread::yield_now();
            }
        });
        let ids = ids.into_inner().unwrap();
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn a_panic_is_the_callers_and_the_pool_goes_on() {
        let threads = Threads::new(3);
        for bad in 0..4 {
            let done = AtomicUsize::new(0);
            let run = || {
                threads.run(4, &|index| {
                    assert!(index != bad, "task {bad}");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            };
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), &format!("task {bad}"));
            assert_eq!(done.load(Ordering::Relaxed), 3);
        }
        threads.run(4, &|_| {});
    }

    #[test]
    fn a_job_within_a_job_is_its_callers() {
        let threads = Threads::new(4);
        let sum = AtomicUsize::new(0);
        threads.run(4, &|outer| {
            threads.run(4, &|inner| {
                sum.fetch_add(outer * 4 + inner, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.load(Ordering::Relaxed), (0..16).sum());
    }
}
