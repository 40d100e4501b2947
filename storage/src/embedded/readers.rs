//! The threads that read from disk, so that no shard ever waits for one.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use super::threads::{StoreThread, ThreadHook, begin};
use crate::promise::{Promise, promise};

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    closing: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    jobs_max: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small pool with a bounded queue.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why a read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many wait as may.
    Busy,
    /// The pool was closed.
    Closed,
}

impl Readers {
    /// Starts the threads. At most `jobs_max` reads wait for one of them.
    pub(super) fn start(
        threads: usize,
        jobs_max: usize,
        hook: Option<ThreadHook>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                closing: false,
            }),
            ready: Condvar::new(),
            jobs_max,
        });
        let readers = Self {
            shared,
            threads: Mutex::default(),
        };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&readers.shared);
            let thread = std::thread::Builder::new()
                .name(format!("rialto-read-{number}"))
                .spawn(move || {
                    begin(hook, StoreThread::Reader);
                    run(&shared);
                });
            match thread {
                Ok(thread) => readers
                    .threads
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(thread),
                Err(error) => {
                    readers.close();
                    return Err(error);
                }
            }
        }
        Ok(readers)
    }

    /// Has a thread run `read`; the promise yields `None` when the pool is closed before.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Promise<T>, Refused> {
        let (resolver, answer) = promise();
        let mut queue = self.shared.lock();
        if queue.closing {
            return Err(Refused::Closed);
        }
        if queue.jobs.len() >= self.shared.jobs_max {
            return Err(Refused::Busy);
        }
        queue
            .jobs
            .push_back(Box::new(move || resolver.resolve(read())));
        drop(queue);
        self.shared.ready.notify_one();
        Ok(answer)
    }

    /// Ends the threads after the reads that they are at; what waits is dropped.
    pub(super) fn close(&self) {
        let waiting = {
            let mut queue = self.shared.lock();
            queue.closing = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(waiting);
        self.shared.ready.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The last handle may go away on a reader's own thread, in the value that a read leaves behind.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn run(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            // A read that panics is answered as one of a closed pool, and the next finds a thread.
            if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a read has panicked");
            }
            queue = shared.lock();
        } else if queue.closing {
            return;
        } else {
            queue = shared
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::promise::wait;

    #[test]
    fn a_read_that_panics_takes_no_thread_along() {
        let readers = Readers::start(1, 1, None).unwrap();
        let panicking = readers.read(|| -> u8 { panic!("a read") }).unwrap();
        assert_eq!(wait(panicking), None);
        assert_eq!(wait(readers.read(|| 1).unwrap()), Some(1));
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_pool_answers_nobody() {
        let readers = Readers::start(1, 1, None).unwrap();
        let (started, has_started) = channel();
        let (go, may_go) = channel::<()>();
        let first = readers
            .read(move || {
                started.send(()).unwrap();
                may_go.recv().unwrap();
                1
            })
            .unwrap();
        has_started.recv().unwrap();
        let second = readers.read(|| 2).unwrap();
        assert_eq!(readers.read(|| 3).err(), Some(Refused::Busy));
        go.send(()).unwrap();
        assert_eq!((wait(first), wait(second)), (Some(1), Some(2)));
        readers.close();
        assert_eq!(readers.read(|| 4).err(), Some(Refused::Closed));
    }
}
