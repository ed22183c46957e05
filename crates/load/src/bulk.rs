//! Streams without an end, to the target or from it.
//!
//! What counts are bytes that have arrived within the time: down, those that were read here; up, those that the server says
//! to have read (a report every 10 ms, so that both ends of the time are known to that), or, of a server that says nothing,
//! those that the kernel took. Streams end by a reset, which throws away what is still on its way: the next run begins on an
//! idle path. With an end that bytes make ([`Length::Bytes`]) every stream is the same work, whoever forwards it: all that was
//! sent has arrived, and nothing is on its way that nobody counts.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::context::{Context, Shared, Tally};
use crate::outcome::{ErrorKind, nanoseconds};
use crate::plan::{Direction, Length, Plan};
use crate::socket::Route;
use crate::stamp::{REPORT, Stamp, Wish, filler};

/// Bytes per system call, as iperf3 has it, and calls per turn.
const PIECE: usize = 128 << 10;
const CALLS: usize = 8;
/// How often it is looked for what takes too long, and how long a stream rests that failed, in nanoseconds.
const TICK: u64 = 50_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Resting,
    Connecting,
    Flowing,
    /// All of its bytes have arrived, or it failed and is not begun again.
    Over,
}

struct Stream {
    socket: Option<OwnedFd>,
    generation: u32,
    stage: Stage,
    /// When the stage began or, where bytes make the end, the last of them were moved.
    since: u64,
    /// The server's last report, the pieces of the next one, and what was counted by the kernel's word before the first.
    reported: u64,
    report: Vec<u8>,
    taken: u64,
    /// What the kernel has taken, or given, since the connection was made.
    moved: u64,
}

/// The streams of a thread.
struct Bulk<'a> {
    context: Context<'a>,
    direction: Direction,
    streams: Vec<Stream>,
    route: Route,
    stamp: [u8; Stamp::LEN],
    piece: Box<[u8]>,
    /// Bytes of each stream, if these make its end.
    whole: Option<u64>,
    /// What counts, from and to (ns).
    from: u64,
    until: u64,
}

/// Runs thread `index` to the end of the load.
pub(crate) fn drive(
    plan: &Plan,
    direction: Direction,
    shared: &Shared,
    index: u32,
    streams: u32,
) -> Result<Tally, Errno> {
    let wish = if direction == Direction::Up { Wish::Sink } else { Wish::Source };
    let from = nanoseconds(plan.warm_up);
    let (length, whole) = match plan.length {
        Length::Time(time) => (nanoseconds(time), None),
        Length::Bytes(bytes) => (u64::MAX, Some(bytes)),
        Length::Count(_) => (0, None),
    };
    let stream = |_| Stream {
        socket: None,
        generation: 0,
        stage: Stage::Resting,
        since: 0,
        reported: 0,
        report: Vec::with_capacity(REPORT),
        taken: 0,
        moved: 0,
    };
    let mut bulk = Bulk {
        context: Context::new(shared)?,
        direction,
        streams: (0..streams).map(stream).collect(),
        route: Route::new(plan.target, &plan.from, index),
        stamp: Stamp { wish, close: false, len: whole.unwrap_or(0), id: 0 }.encode(),
        piece: filler(PIECE).into_boxed_slice(),
        whole,
        from,
        until: from.saturating_add(length),
    };
    (0..streams).for_each(|key| bulk.connect(key));
    let mut tick = TICK;
    while shared.now() < bulk.until && !shared.stop.load(Relaxed) && !bulk.is_over() {
        bulk.context.wait(tick.min(bulk.until))?;
        while let Some((key, generation, flags)) = bulk.context.event() {
            bulk.ready(key, generation, flags);
        }
        let now = shared.now();
        if now >= tick {
            tick = now + TICK;
            bulk.look(now, nanoseconds(plan.connect_timeout), nanoseconds(plan.timeout));
        }
    }
    Ok(bulk.end())
}

impl Bulk<'_> {
    fn is_over(&self) -> bool {
        self.streams.iter().all(|stream| stream.stage == Stage::Over)
    }

    fn connect(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        stream.generation = stream.generation.wrapping_add(1);
        stream.stage = Stage::Connecting;
        stream.since = self.context.shared.now();
        (stream.reported, stream.taken, stream.moved) = (0, 0, 0);
        stream.report.clear();
        let made = self.route.stream().and_then(|socket| {
            self.context.watch(&socket, key, stream.generation, EventFlags::OUT)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => stream.socket = Some(socket),
            Err(error) => self.fail(key, ErrorKind::of(error)),
        }
    }

    fn fail(&mut self, key: u32, kind: ErrorKind) {
        let stream = &mut self.streams[key as usize];
        stream.socket = None;
        stream.stage = if self.whole.is_some() { Stage::Over } else { Stage::Resting };
        stream.since = self.context.shared.now();
        if (self.from..self.until).contains(&stream.since) {
            self.context.failed(kind);
        }
    }

    fn ready(&mut self, key: u32, generation: u32, flags: EventFlags) {
        let stream = &mut self.streams[key as usize];
        let Some(socket) = stream.socket.as_ref().filter(|_| stream.generation == generation) else { return };
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            let kind = match sockopt::socket_error(socket) {
                Ok(Err(Errno::TIMEDOUT)) if stream.stage == Stage::Connecting => ErrorKind::ConnectTimeout,
                Ok(Err(error)) | Err(error) => ErrorKind::of(error),
                Ok(Ok(())) => ErrorKind::ClosedEarly,
            };
            return self.fail(key, kind);
        }
        if stream.stage == Stage::Connecting {
            let up = self.direction == Direction::Up;
            let interest = if up { EventFlags::OUT | EventFlags::IN } else { EventFlags::IN };
            let begun = send(socket, &self.stamp, SendFlags::NOSIGNAL)
                .and_then(|_| self.context.rewatch(socket, key, generation, interest));
            match begun {
                Ok(()) => stream.stage = Stage::Flowing,
                Err(error) => self.fail(key, ErrorKind::of(error)),
            }
            return;
        }
        if self.direction == Direction::Up && flags.contains(EventFlags::IN) {
            self.reports(key);
        }
        if self.direction == Direction::Down || flags.contains(EventFlags::OUT) {
            self.flow(key, generation);
        }
    }

    /// All of a stream's bytes have arrived.
    fn whole(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        stream.stage = Stage::Over;
        self.context.tally.done += 1;
        if let Some(socket) = stream.socket.take() {
            reset(&socket);
        }
    }

    /// Moves as much as there is, or as there is room for.
    fn flow(&mut self, key: u32, generation: u32) {
        let stream = &mut self.streams[key as usize];
        let Some(socket) = &stream.socket else { return };
        let whole = self.whole.unwrap_or(u64::MAX);
        let mut moved = 0;
        let mut failed = None;
        for _ in 0..CALLS {
            let left = whole - stream.moved - moved;
            if left == 0 {
                break;
            }
            let piece = left.min(self.piece.len() as u64) as usize;
            let result = match self.direction {
                Direction::Up => send(socket, &self.piece[..piece], SendFlags::NOSIGNAL),
                Direction::Down => {
                    recv(socket, &mut self.piece[..piece], RecvFlags::empty()).map(|(length, _)| length)
                }
            };
            match result {
                Ok(0) => failed = Some(ErrorKind::ClosedEarly),
                Ok(length) => {
                    moved += length as u64;
                    if length == piece {
                        continue;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => failed = Some(ErrorKind::of(error)),
            }
            break;
        }
        stream.moved += moved;
        if self.whole.is_some() {
            stream.since = self.context.shared.now();
        }
        if (self.from..self.until).contains(&self.context.shared.now()) {
            match self.direction {
                Direction::Up if stream.reported > 0 => {}
                Direction::Up => {
                    self.context.tally.sent += moved;
                    stream.taken += moved;
                }
                Direction::Down => self.context.tally.received += moved,
            }
        }
        if let Some(kind) = failed {
            return self.fail(key, kind);
        }
        match self.direction {
            _ if stream.moved < whole => {}
            Direction::Down => self.whole(key),
            // There is always room for more, which is no news any longer.
            Direction::Up => {
                if let Err(error) = self.context.rewatch(socket, key, generation, EventFlags::IN) {
                    self.fail(key, ErrorKind::of(error));
                }
            }
        }
    }

    /// Takes the reports of a server that makes some: they count, and the kernel's word no longer does.
    fn reports(&mut self, key: u32) {
        let stream = &mut self.streams[key as usize];
        let Some(socket) = &stream.socket else { return };
        let mut bytes = [0; 64 * REPORT];
        let length = match recv(socket, &mut bytes, RecvFlags::empty()) {
            Ok((0, _)) => return self.fail(key, ErrorKind::ClosedEarly),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(error) => return self.fail(key, ErrorKind::of(error)),
        };
        stream.report.extend_from_slice(&bytes[..length]);
        let Some(last) = stream.report.as_chunks::<REPORT>().0.last() else { return };
        let come = u64::from_be_bytes(*last);
        stream.report.drain(..stream.report.len() / REPORT * REPORT);
        // An echo server's answer is no report, whatever number its bytes make.
        if come < stream.reported || come > stream.moved {
            return self.fail(key, ErrorKind::WrongAnswer);
        }
        self.context.tally.sent -= std::mem::take(&mut stream.taken);
        if (self.from..self.until).contains(&self.context.shared.now()) {
            self.context.tally.sent += come - stream.reported;
        }
        stream.reported = come;
        if self.whole == Some(come) {
            self.whole(key);
        }
    }

    /// Begins again what failed, and ends what is not being connected in time or, where bytes make the end, stands still.
    fn look(&mut self, now: u64, connect_timeout: u64, timeout: u64) {
        for key in 0..self.streams.len() as u32 {
            let Stream { stage, since, .. } = self.streams[key as usize];
            match stage {
                Stage::Resting => self.connect(key),
                Stage::Connecting if now.saturating_sub(since) > connect_timeout => {
                    self.fail(key, ErrorKind::ConnectTimeout);
                }
                Stage::Flowing if self.whole.is_some() && now.saturating_sub(since) > timeout => {
                    self.fail(key, ErrorKind::Timeout);
                }
                _ => {}
            }
        }
    }

    fn end(mut self) -> Tally {
        self.context.tally.last = self.context.shared.now();
        for stream in &self.streams {
            let Some(socket) = &stream.socket else { continue };
            self.context.tally.done += u64::from(stream.stage == Stage::Flowing);
            reset(socket);
        }
        self.context.publish();
        self.context.tally
    }
}

/// Has a connection end by a reset when it is closed.
fn reset(socket: &OwnedFd) {
    // A socket that refuses this is closed all the same.
    _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
