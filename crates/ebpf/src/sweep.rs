//! A thread that frees expired flows ahead of need, so that a full table is full of live ones, and that asks backends once more
//! which have not heard of a client that is connected already ([`crate::reopen`]).
//!
//! Without it (the daemon is gone) the kernel's programs free what they find expired when they need a record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use portway_datapath::abi::Record;
use portway_datapath::sweep::{self, Suspect};
use portway_datapath::table::Memory;

use crate::held::Log;
use crate::maps::FlowMemory;
use crate::reopen::{self, Sockets};
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
    pub fn start(flows: Arc<FlowMemory>, log: Log) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("ebpf-sweep".to_owned()).spawn(move || {
            let mut sweep = Sweep { next: 0, suspects: BTreeMap::new(), sockets: None, log };
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

/// Backends that are asked once more in one part at most: one that is gone for good costs little.
const MOST_ASKED: usize = 1000;

/// Where the sweep is.
struct Sweep {
    next: u32,
    /// In somebody's hands when they were last looked at: a kernel program's for microseconds, or those of a daemon that was
    /// killed.
    suspects: BTreeMap<u32, Suspect>,
    /// Opened when it is needed; `Err` where it cannot be had, which is said once.
    sockets: Option<Result<Sockets, ()>>,
    log: Log,
}

impl Sweep {
    fn part(&mut self, flows: &FlowMemory) {
        let (view, records) = (View::new(flows), flows.records.len() as u32);
        let count = records.div_ceil(PARTS).min(MOST);
        let first = if self.next < records { self.next } else { 0 };
        let now = now();
        sweep::sweep(&view, first, count, now);
        let part = first as usize..(first.saturating_add(count).min(records)) as usize;
        let due = flows.records[part].iter().filter(|record| reopen::is_due(record, view.config(), now));
        due.take(MOST_ASKED).for_each(|record| self.ask(record));
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

    /// Asks the backend of a flow once more. What fails is tried again in the next round.
    fn ask(&mut self, record: &Record) {
        let sockets = self.sockets.get_or_insert_with(|| {
            Sockets::open().map_err(|error| {
                (self.log)(&format!("ebpf: no raw socket, so a lost SYN is not sent again: {error}"));
            })
        });
        if let Ok(sockets) = sockets {
            let _ = sockets.send(record);
        }
    }
}
