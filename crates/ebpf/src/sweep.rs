//! A thread that frees expired flows ahead of need, so that a full table is full of live ones, and that asks backends once more
//! which have not heard of a client that is connected already ([`crate::reopen`]). It also sees which neighbours the flows use
//! ([`crate::neighbour`]).
//!
//! Without it (the daemon is gone) the kernel's programs free what they find expired when they need a record.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use portway_datapath::abi::{Config, Port, Record};
use portway_datapath::sweep::{self, Suspect};
use portway_datapath::table::Memory;

use crate::held::Log;
use crate::map::Table;
use crate::maps::FlowMemory;
use crate::neighbour::Neighbours;
use crate::reopen::{self, Sockets};
use crate::table::{View, now};

/// How often a part of the table is looked at.
const PAUSE: Duration = Duration::from_millis(200);
/// In how many parts.
const PARTS: u32 = 25;
/// Neighbours are confirmed once in so many parts: once a second.
const CONFIRMED: u32 = 5;
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
    pub fn start(flows: Arc<FlowMemory>, ports: Table<u32, Port>, log: Log) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut sweep = Sweep::new(log)?;
        let thread = std::thread::Builder::new().name("ebpf-sweep".to_owned()).spawn(move || {
            for nth in 1.. {
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                sweep.part(&flows);
                if nth % CONFIRMED == 0 {
                    sweep.confirm(&ports);
                }
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

/// Backends that are sent a SYN once more in one part at most: one that is gone for good costs little.
const MOST_ASKED: usize = 1000;
/// And those that are asked whether a connection is there still: RSTs cost whoever forges them little, and a host whose
/// firewall is stateful keeps an entry of each question for five minutes.
const MOST_DOUBTED: usize = 20;

/// Where the sweep is.
struct Sweep {
    next: u32,
    /// In somebody's hands when they were last looked at: a kernel program's for microseconds, or those of a daemon that was
    /// killed.
    suspects: BTreeMap<u32, Suspect>,
    /// Records whose backend was asked whether the connection is there still, and when each had begun.
    doubted: BTreeMap<u32, u32>,
    /// Opened when it is needed; `Err` where it cannot be had, which is said once.
    sockets: Option<Result<Sockets, ()>>,
    neighbours: Neighbours,
    /// Whether it has been said that they cannot be confirmed.
    complained: bool,
    log: Log,
}

impl Sweep {
    fn new(log: Log) -> io::Result<Self> {
        Ok(Self {
            next: 0,
            suspects: BTreeMap::new(),
            doubted: BTreeMap::new(),
            sockets: None,
            neighbours: Neighbours::open()?,
            complained: false,
            log,
        })
    }

    fn part(&mut self, flows: &FlowMemory) {
        let (view, records) = (View::new(flows), flows.records.len() as u32);
        let count = records.div_ceil(PARTS).min(MOST);
        let first = if self.next < records { self.next } else { 0 };
        if first == 0 {
            self.neighbours.end_round();
        }
        let now = now();
        sweep::sweep(&view, first, count, now);
        let (mut asks, mut doubts) = (MOST_ASKED, MOST_DOUBTED);
        for (index, record) in (first..).zip(flows.records.iter().skip(first as usize).take(count as usize)) {
            self.neighbours.note(record, now);
            if asks > 0 && reopen::is_due(record, view.config(), now) {
                asks -= 1;
                self.send(|sockets| sockets.send_syn(record));
            }
            self.doubt(index, record, view.config(), now, &mut doubts);
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

    /// Has the kernel ask the neighbours that flows use, if it has not heard of them lately.
    fn confirm(&mut self, ports: &Table<u32, Port>) {
        let interface = |number| {
            let port = ports.get(&number).ok()??;
            (port.interface != 0).then_some(port.interface)
        };
        if let Err(error) = self.neighbours.confirm(interface)
            && !std::mem::replace(&mut self.complained, true)
        {
            (self.log)(&format!("ebpf: neighbours that are in use cannot be confirmed: {error}"));
        }
    }

    /// Asks the backend of a flow that seems to have been reset, once for each time that it seems so.
    fn doubt(&mut self, index: u32, record: &Record, config: &Config, now: u32, left: &mut usize) {
        if !reopen::is_reset(record) {
            self.doubted.remove(&index);
            return;
        }
        let begun = record.begun.load(Relaxed);
        if *left > 0 && self.doubted.get(&index) != Some(&begun) && reopen::is_doubted(record, config, now) {
            *left -= 1;
            self.doubted.insert(index, begun);
            self.send(|sockets| sockets.send_question(record));
        }
    }

    /// Sends something to a backend. What fails is tried again in the next round, or nobody waits for it.
    fn send(&mut self, what: impl FnOnce(&Sockets) -> io::Result<()>) {
        let sockets = self.sockets.get_or_insert_with(|| {
            Sockets::open().map_err(|error| {
                (self.log)(&format!(
                    "ebpf: no raw socket, so a lost SYN is not sent again, and a RST is believed: {error}"
                ));
            })
        });
        if let Ok(sockets) = sockets {
            let _ = what(sockets);
        }
    }
}
