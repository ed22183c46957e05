//! What a thread of the generator has beside its connections: the clock, the epoll instance, the figures, and what the
//! threads share.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::outcome::{ErrorKind, Errors, Times, nanoseconds};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// What the timer's events carry; connections have smaller numbers.
const TIMER: u64 = u64::MAX;

/// What all threads of a run see.
pub(crate) struct Shared {
    /// The start: what the schedule and the latencies count from.
    pub(crate) origin: Instant,
    /// Whether to stop.
    pub(crate) stop: std::sync::Arc<AtomicBool>,
    /// What may still begin, where a count ends the load.
    pub(crate) left: AtomicU64,
    /// Figures so far, for the progress: done, failed, bytes.
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Shared {
    /// Now, in nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }
}

/// The figures of one thread.
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) errors: Errors,
    pub(crate) times: Times,
    /// When the last that counts ended, and CPU time of the thread, both in nanoseconds.
    pub(crate) last: u64,
    pub(crate) cpu: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            done: 0,
            sent: 0,
            received: 0,
            errors: Errors::default(),
            times: Times::new(),
            last: 0,
            cpu: 0,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.done += other.done;
        self.sent += other.sent;
        self.received += other.received;
        self.errors.merge(&other.errors);
        self.times.merge(&other.times);
        self.last = self.last.max(other.last);
        self.cpu += other.cpu;
    }
}

fn token(slot: u32, generation: u32) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | u64::from(slot))
}

/// What a thread has.
pub(crate) struct Context<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) tally: Tally,
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
    /// What has been published: done, failed, bytes.
    published: (u64, u64, u64),
}

impl<'a> Context<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let data = EventData::new_u64(TIMER);
        // Edge-triggered, so that it need not be read.
        epoll::add(&epoll, &timer, data, EventFlags::IN | EventFlags::ET)?;
        let events = Vec::with_capacity(EVENTS);
        Ok(Self { shared, tally: Tally::new(), epoll, timer, events, published: (0, 0, 0) })
    }

    /// Has events of `socket` come with its slot and generation.
    pub(crate) fn watch(
        &self,
        socket: impl AsFd,
        slot: u32,
        generation: u32,
        interest: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, socket, token(slot, generation), interest)
    }

    /// Changes what is watched of a socket.
    pub(crate) fn rewatch(
        &self,
        socket: impl AsFd,
        slot: u32,
        generation: u32,
        interest: EventFlags,
    ) -> Result<(), Errno> {
        epoll::modify(&self.epoll, socket, token(slot, generation), interest)
    }

    /// Waits for events, at most until `until` (ns). An event is slot, generation and flags.
    pub(crate) fn wait(&mut self, until: u64) -> Result<(), Errno> {
        self.publish();
        self.events.clear();
        let wait = Duration::from_nanos(until.saturating_sub(self.shared.now()));
        // epoll_wait knows milliseconds; what is due earlier or in between wakes by the timer.
        let timeout = if wait.is_zero() {
            Timespec { tv_sec: 0, tv_nsec: 0 }
        } else {
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            Timespec { tv_sec: 1, tv_nsec: 0 }
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next event of the last wait: slot, generation, flags.
    pub(crate) fn event(&mut self) -> Option<(u32, u32, EventFlags)> {
        loop {
            let event = self.events.pop()?;
            let data = event.data.u64();
            if data != TIMER {
                return Some((data as u32, (data >> 32) as u32, event.flags));
            }
        }
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, kind: ErrorKind) {
        self.tally.errors.add(kind, 1);
    }

    /// Tells what has come together since the last time.
    pub(crate) fn publish(&mut self) {
        let tally = &self.tally;
        let now = (tally.done, tally.errors.total(), tally.sent + tally.received);
        if now == self.published {
            return;
        }
        // Wrapping: connections that were held may be lost again.
        self.shared.done.fetch_add(now.0.wrapping_sub(self.published.0), Relaxed);
        self.shared.failed.fetch_add(now.1.wrapping_sub(self.published.1), Relaxed);
        self.shared.bytes.fetch_add(now.2.wrapping_sub(self.published.2), Relaxed);
        self.published = now;
    }
}
