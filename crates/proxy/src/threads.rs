//! The workers' threads: starting, stopping and telling them what to do.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::command::Command;
use crate::shared::{Shared, wake};
use crate::worker::Worker;

/// How long a worker may take to answer a command. Its loop never blocks, so this only catches defects.
const PATIENCE: Duration = Duration::from_secs(10);

/// The workers and their threads.
#[derive(Default)]
pub struct Threads {
    /// Where they are told what to do.
    pub workers: Workers,
    threads: Vec<JoinHandle<()>>,
}

/// Where workers are told what to do, from any thread.
#[derive(Clone, Default)]
pub struct Workers(Vec<Handle>);

#[derive(Clone)]
struct Handle {
    commands: Sender<Command>,
    waker: Arc<OwnedFd>,
}

impl Workers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends every worker its command.
    pub fn tell(&self, mut command: impl FnMut(usize) -> Command) {
        for (id, worker) in self.0.iter().enumerate() {
            // A worker that has failed is gone already.
            if worker.commands.send(command(id)).is_ok() {
                wake(&worker.waker);
            }
        }
    }

    /// Sends every worker its command, which has a sender to answer with, and returns the answers. Workers that have
    /// failed are left out.
    pub fn ask<T>(&self, mut command: impl FnMut(usize, Sender<T>) -> Command) -> Vec<T> {
        let (sender, receiver) = channel();
        self.tell(|id| command(id, sender.clone()));
        // What is left are the senders in commands: the channel ends when each is answered or gone.
        drop(sender);
        let mut answers = Vec::with_capacity(self.0.len());
        while let Ok(answer) = receiver.recv_timeout(PATIENCE) {
            answers.push(answer);
        }
        answers
    }
}

impl Threads {
    /// Starts workers until there are `count`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(&mut self, count: usize, shared: &Arc<Shared>) -> std::io::Result<()> {
        for id in self.workers.len()..count {
            let (commands, receiver) = channel();
            let (worker, waker) = Worker::new(id, shared.clone(), receiver)?;
            shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("proxy-{id}")).spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                    shared.workers_failed.fetch_add(1, Relaxed);
                    shared.log.always(&format!(
                        "proxy: worker {id} has failed (a defect: please report it); its connections have ended, \
                         the other workers go on"
                    ));
                }
            });
            self.threads.push(thread?);
            self.workers.0.push(Handle { commands, waker });
        }
        Ok(())
    }

    /// Ends all connections and the threads.
    pub fn stop(&mut self, shared: &Shared) {
        self.workers.tell(|_| Command::Stop);
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
        self.workers.0.clear();
        shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
