//! Pipes for splice(2): made when a transfer has proved long, lent only while bytes are in them, kept for the
//! next transfer. Bounded over all workers; without a pipe a transfer goes on by copying.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::shared::Shared;

/// The wished capacity in bytes. Larger did not measure better; at this size as many pipes as may be open
/// (128) just fit in what the kernel allows a user without privilege (`fs.pipe-user-pages-soft`, 64 MiB).
const CAPACITY: usize = 512 << 10;

/// A pipe and what is in it.
pub struct Pipe {
    /// The end to take bytes out of.
    pub out: OwnedFd,
    /// The end to put bytes into.
    pub into: OwnedFd,
    /// How many bytes it can hold.
    pub capacity: usize,
    /// How many bytes are in it.
    pub level: usize,
}

/// The empty pipes of one worker.
pub struct Pool {
    shared: Arc<Shared>,
    empty: Vec<Pipe>,
}

impl Pool {
    /// A pool that opens pipes when asked.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, empty: Vec::new() }
    }

    /// An empty pipe, or `None` when there are as many as may be.
    pub fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.empty.pop() {
            return Some(pipe);
        }
        if !self.shared.pipes.enter() {
            return None;
        }
        let Ok((out, into)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) else {
            self.shared.pipes.leave();
            return None;
        };
        // Without privilege the kernel refuses once a user holds fs.pipe-user-pages-soft pages: the default
        // size serves as well.
        let capacity =
            fcntl_setpipe_size(&into, CAPACITY).or_else(|_| fcntl_getpipe_size(&into)).unwrap_or(4096);
        Some(Pipe { out, into, capacity, level: 0 })
    }

    /// Takes a pipe back; one with bytes left in it is closed.
    pub fn give(&mut self, pipe: Pipe) {
        if pipe.level == 0 {
            self.empty.push(pipe);
        } else {
            self.shared.pipes.leave();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.empty.iter().for_each(|_| self.shared.pipes.leave());
    }
}
