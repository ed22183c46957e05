//! Moving bytes: what follows from the events of a connection's two sockets.

use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{WATCH, Worker};
use crate::tcp::{Connection, Stage, Step};
use crate::token::Token;

/// Events after which a read finds something: bytes, an end or an error.
const READ: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::HUP)
    .union(EventFlags::ERR)
    .union(EventFlags::PRI);
/// Events by which a backend lets go of a connection.
const GONE: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Backend,
}

impl Worker {
    pub(super) fn backend_event(&mut self, key: u32, attempt: u32, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.attempt != attempt {
            return;
        }
        connection.down.readable |= flags.intersects(READ);
        connection.down.ending |= flags.contains(EventFlags::RDHUP);
        connection.down.urgent |= flags.contains(EventFlags::PRI);
        let blocked = connection.up.blocked();
        connection.up.writable |= flags.contains(EventFlags::OUT);
        let connecting = connection.stage == Stage::Connecting;
        let broken = flags.contains(EventFlags::ERR).then_some(End::Backend);
        if connecting && (broken.is_some() || flags.contains(EventFlags::HUP)) {
            let error = match connection.backend.as_ref().map(sockopt::socket_error) {
                Some(Ok(Err(error)) | Err(error)) => error,
                Some(Ok(Ok(()))) | None => Errno::CONNRESET,
            };
            return self.attempt_failed(key, error);
        }
        if flags.intersects(GONE)
            && connection.is_untouched()
            && let Some(how) = self.is_lost(key)
        {
            return match how {
                Ok(()) => self.try_elsewhere(key),
                Err(error) => self.attempt_failed(key, error),
            };
        }
        let connection = &mut self.connections[key as usize];
        if !connecting {
            let up = blocked || broken.is_some();
            return self.relay(key, up, true, broken);
        }
        if !flags.contains(EventFlags::OUT) {
            return;
        }
        connection.stage = Stage::Relaying;
        connection.up.readable = true;
        connection.active = self.context.now;
        if connection.route.idle < connection.route.connect {
            // The timer stands at the connect timeout and would look too late.
            self.wheel.set(key, connection.deadline());
        }
        let down = connection.down.readable;
        self.relay(key, true, down, None);
        if self.connections.get(key as usize).is_some_and(|c| c.attempt == attempt && !c.up.has_sent()) {
            if self.silent.is_empty() {
                self.silent_since = self.context.now;
            }
            self.silent.push((key, attempt));
        }
    }

    /// Sends the handshake's ACK to the backends of connections whose clients have sent nothing for it to ride
    /// on: the backend may be the one that speaks first and must not wait for the delayed ACK (40 ms and more).
    pub(super) fn acknowledge(&mut self) {
        for (key, attempt) in self.silent.drain(..) {
            let connection = self.connections.get(key as usize).filter(|c| c.attempt == attempt);
            let backend = connection.filter(|c| !c.up.has_sent()).and_then(|c| c.backend.as_ref());
            if let Some(backend) = backend {
                _ = sockopt::set_tcp_quickack(backend, true);
            }
        }
    }

    pub(super) fn client_event(&mut self, key: u32, generation: u32, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation {
            return;
        }
        connection.up.readable |= flags.intersects(READ);
        connection.up.ending |= flags.contains(EventFlags::RDHUP);
        connection.up.urgent |= flags.contains(EventFlags::PRI);
        let blocked = connection.down.blocked();
        connection.down.writable |= flags.contains(EventFlags::OUT);
        let broken = flags.contains(EventFlags::ERR).then_some(End::Client);
        match connection.stage {
            Stage::Relaying => self.relay(key, true, blocked || broken.is_some(), broken),
            _ if broken.is_some() => self.close(key, true),
            Stage::Hello => self.hear(key),
            // What the client sends waits in its socket until there is a backend.
            Stage::Waiting | Stage::Connecting => {}
        }
    }

    /// Moves what can be moved in the directions asked for and does what follows from it. `broken`: the socket at
    /// this end has an error; what can still be delivered is, then both are reset.
    pub(super) fn relay(&mut self, key: u32, up: bool, down: bool, mut broken: Option<End>) {
        let relaying = |c: &&mut Connection| c.stage == Stage::Relaying;
        let Some(connection) = self.connections.get_mut(key as usize).filter(relaying) else { return };
        let half_closed = connection.up.ended || connection.down.ended;
        let answered = connection.bytes_out > 0;
        let (mut bytes_in, mut bytes_out, mut again) = (0, 0, false);
        if down {
            let (moved, step) = connection.pump_down(&mut self.scratch, &mut self.pipes);
            bytes_out += moved;
            connection.bytes_out += moved;
            again |= step == Step::Again;
            broken = broken.or(end_of(step, End::Backend));
        }
        if up {
            let (moved, step) = connection.pump_up(&mut self.scratch, &mut self.pipes);
            bytes_in += moved;
            connection.bytes_in += moved;
            again |= step == Step::Again;
            if let Some(end) = end_of(step, End::Client) {
                if broken.is_none() {
                    if end == End::Backend && connection.is_untouched() && self.is_lost(key).is_some() {
                        return self.attempt_failed(key, Errno::CONNRESET);
                    }
                    // A backend that resets may have answered first ("413 Content Too Large").
                    let connection = &mut self.connections[key as usize];
                    connection.down.readable = true;
                    let (moved, _) = connection.pump_down(&mut self.scratch, &mut self.pipes);
                    bytes_out += moved;
                    connection.bytes_out += moved;
                }
                broken = broken.or(Some(end));
            }
        }
        let connection = &mut self.connections[key as usize];
        let counters = self.context.counters(&connection.route);
        if bytes_in > 0 {
            counters.bytes_in.fetch_add(bytes_in, Relaxed);
        }
        if bytes_out > 0 {
            counters.bytes_out.fetch_add(bytes_out, Relaxed);
        }
        if bytes_in + bytes_out > 0 {
            connection.active = self.context.now;
        }
        if let Some(lease) = &connection.lease {
            lease.member().carried(bytes_in, bytes_out);
            if !answered && bytes_out > 0 {
                self.context.member_answered(&connection.route, lease.member());
            } else if broken == Some(End::Backend) && connection.bytes_out == 0 {
                self.context.member_failed(&connection.route, lease.member(), true);
            }
        }
        if broken.is_some() || connection.up.done && connection.down.done {
            return self.close(key, broken.is_some());
        }
        if again && !connection.queued {
            connection.queued = true;
            self.queue.push((key, connection.generation));
        }
        if !half_closed && (connection.up.ended || connection.down.ended) {
            connection.active = self.context.now;
            self.wheel.set(key, connection.deadline());
        }
        if self.watch_client(key).is_err() {
            self.close(key, true);
        }
    }

    /// Registers the client's socket once it has been read empty, and for EPOLLOUT once it has been full.
    fn watch_client(&mut self, key: u32) -> Result<(), Errno> {
        let connection = &mut self.connections[key as usize];
        let out = connection.down.blocked();
        let token = Token::Client(key, connection.generation).pack();
        if !connection.client_watched && connection.stage == Stage::Relaying && (out || !connection.up.ended)
        {
            let flags = if out { WATCH | EventFlags::OUT } else { WATCH };
            epoll::add(&self.context.epoll, &connection.client, token, flags)?;
        } else if out && !connection.client_watched_out {
            epoll::modify(&self.context.epoll, &connection.client, token, WATCH | EventFlags::OUT)?;
        } else {
            return Ok(());
        }
        connection.client_watched = true;
        connection.client_watched_out |= out;
        Ok(())
    }
}

/// The end that a step found broken, for the direction that comes from `source`.
fn end_of(step: Step, source: End) -> Option<End> {
    match (step, source) {
        (Step::Wait | Step::Again, _) => None,
        (Step::SourceBroken, end) => Some(end),
        (Step::ReceiverBroken, End::Client) => Some(End::Backend),
        (Step::ReceiverBroken, End::Backend) => Some(End::Client),
    }
}
