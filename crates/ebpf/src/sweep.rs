//! A thread that frees expired flows ahead of need, so that a full table is full of live ones.
//!
//! Without it (the daemon is gone) the kernel's programs free what they find expired when they need a record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use portway_datapath::sweep::{self, Suspect};

use crate::maps::FlowMemory;
use crate::table::{View, now};

/// How often a part of the table is looked at.
const PAUSE: Duration = Duration::from_millis(200);
/// In how many parts.
const PARTS: u32 = 25;
/// Never more at once: a thirtieth of a second of work.
const MOST: u32 = 1 << 20;

/// The thread; it ends when this is dropped.
pub struct Sweeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(flows: Arc<FlowMemory>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("ebpf-sweep".to_owned()).spawn(move || {
            let mut sweep = Sweep::default();
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                sweep.part(&flows);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where the sweep is.
#[derive(Default)]
struct Sweep {
    next: u32,
    /// In somebody's hands when they were last looked at: a kernel program's for microseconds, or those of a daemon that was
    /// killed.
    suspects: BTreeMap<u32, Suspect>,
}

impl Sweep {
    fn part(&mut self, flows: &FlowMemory) {
        let (view, records) = (View::new(flows), flows.records.len() as u32);
        let count = records.div_ceil(PARTS).min(MOST);
        let first = if self.next < records { self.next } else { 0 };
        sweep::sweep(&view, first, count, now());
        for index in first..first.saturating_add(count).min(records) {
            // The last look was a whole round ago: seconds.
            let before = self.suspects.remove(&index);
            let suspect = sweep::suspect(&view, index);
            match (suspect, before) {
                (Some(now), Some(before)) if now == before => _ = sweep::settle(&view, before),
                (Some(now), _) => _ = self.suspects.insert(index, now),
                (None, _) => {}
            }
        }
        self.next = first.saturating_add(count);
    }
}
