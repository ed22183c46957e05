//! Requests over TCP: a connection each, or one after the other over connections that stay.
//!
//! A socket is registered once, edge-triggered, when it is being connected. A request is sent in the turn that finds the
//! connection made; an answer that comes with the end of the connection is read once.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::answer::{Answer, Took};
use crate::drive::{Hub, Talk};
use crate::outcome::{ErrorKind, nanoseconds};
use crate::plan::{Close, Exchange, Plan};
use crate::socket::Route;
use crate::stamp::{Stamp, Wish, filler};

/// Bytes read at a time.
const SCRATCH: usize = 64 << 10;
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// What says that nothing follows what can be read now.
const ENDED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// Where a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a request; the connection, if there is one, stays for the next.
    Idle,
    /// The connection is being made.
    Connecting,
    /// The request is being sent, or its answer awaited.
    Asking,
    /// Answered; the server is to end the connection.
    Ending,
}

struct Slot {
    socket: Option<OwnedFd>,
    /// Tells this connection's events from those of earlier ones.
    generation: u32,
    stage: Stage,
    /// When the request was due, and when its present stage began (ns).
    due: u64,
    since: u64,
    /// Bytes of the request that are sent, of the answer that have come, and the request's number.
    sent: usize,
    received: u64,
    id: u64,
    answer: Answer,
    /// A head that came in pieces.
    held: Vec<u8>,
}

/// The TCP conversations of a thread.
pub(crate) struct Tcp {
    slots: Vec<Slot>,
    route: Route,
    /// Whether connections stay.
    keep: bool,
    close: Close,
    /// The request, which is the expected answer as well where `echo` says so.
    message: Vec<u8>,
    echo: bool,
    next_id: u64,
    connect_timeout: u64,
    timeout: u64,
    scratch: Box<[u8]>,
}

impl Tcp {
    /// Of thread `index`.
    pub(crate) fn new(plan: &Plan, exchange: &Exchange, keep: bool, index: u32, slots: u32) -> Self {
        let ask_to_close = !keep && plan.close == Close::Wait;
        let echo = matches!(exchange, Exchange::Echo { .. });
        let message = match exchange {
            Exchange::Http { host, path } => {
                let end = if ask_to_close { "Connection: close\r\n" } else { "" };
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portway-bench\r\nAccept: */*\r\n"
                );
                format!("{head}{end}\r\n").into_bytes()
            }
            Exchange::Echo { size } => {
                let stamp = Stamp { wish: Wish::Echo, close: ask_to_close, len: *size as u64, id: 0 };
                let mut message = filler(*size);
                message[..Stamp::LEN].copy_from_slice(&stamp.encode());
                message
            }
        };
        let slot = |_| Slot {
            socket: None,
            generation: 0,
            stage: Stage::Idle,
            due: 0,
            since: 0,
            sent: 0,
            received: 0,
            id: 0,
            answer: Answer::Head,
            held: Vec::new(),
        };
        Self {
            slots: (0..slots).map(slot).collect(),
            route: Route::new(plan.target, &plan.from, index),
            keep,
            close: plan.close,
            message,
            echo,
            next_id: u64::from(index) << 48,
            connect_timeout: nanoseconds(plan.connect_timeout),
            timeout: nanoseconds(plan.timeout),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    /// Sends what is left of the request.
    fn ask(&mut self, key: u32, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        let Some(socket) = &slot.socket else { return };
        if self.echo {
            self.message[16..Stamp::LEN].copy_from_slice(&slot.id.to_be_bytes());
        }
        match send(socket, &self.message[slot.sent..], SendFlags::NOSIGNAL) {
            // What did not fit goes when there is room again, which is an event.
            Ok(sent) => slot.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.fail(key, ErrorKind::of(error), hub),
        }
    }

    /// The connection is made, or was before: the request goes.
    fn connected(&mut self, key: u32, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        slot.stage = Stage::Asking;
        slot.since = hub.context.shared.now();
        slot.sent = 0;
        slot.received = 0;
        slot.held.clear();
        slot.answer = if self.echo { Answer::Echo { come: 0 } } else { Answer::Head };
        self.next_id += 1;
        slot.id = self.next_id;
        self.ask(key, hub);
    }

    fn read(&mut self, key: u32, flags: EventFlags, hub: &mut Hub<'_>) {
        loop {
            let slot = &mut self.slots[key as usize];
            let Some(socket) = &slot.socket else { return };
            let length = match recv(socket, &mut *self.scratch, RecvFlags::empty()) {
                Ok((0, _)) => return self.ended(key, hub),
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(_) if slot.stage != Stage::Asking => return self.drop_connection(key, hub),
                Err(error) => return self.fail(key, ErrorKind::of(error), hub),
            };
            if slot.stage != Stage::Asking {
                // Nobody asked for this. The answer before it was whole.
                return self.drop_connection(key, hub);
            }
            slot.received += length as u64;
            let piece = &self.scratch[..length];
            let took = if self.echo {
                self.message[16..Stamp::LEN].copy_from_slice(&slot.id.to_be_bytes());
                slot.answer.take_echo(piece, &self.message[..slot.sent])
            } else {
                slot.answer.take(piece, &mut slot.held)
            };
            match took {
                Took::Whole { .. } if self.echo && slot.sent < self.message.len() => {}
                Took::Whole { keep } => return self.whole(key, keep && !flags.intersects(ENDED), flags, hub),
                Took::Wrong => return self.fail(key, ErrorKind::WrongAnswer, hub),
                Took::More => {}
            }
            // A short read has emptied the socket; what comes later is an event of its own.
            if length < self.scratch.len() && !flags.intersects(ENDED) {
                return;
            }
        }
    }

    /// The answer is whole.
    fn whole(&mut self, key: u32, stays: bool, flags: EventFlags, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        hub.answered(slot.due, self.message.len() as u64, slot.received);
        if self.keep {
            slot.stage = Stage::Idle;
            if !stays {
                slot.socket = None;
            }
            return hub.free(key);
        }
        if self.close == Close::Wait && !flags.intersects(ENDED) {
            slot.stage = Stage::Ending;
            slot.since = hub.context.shared.now();
            return;
        }
        slot.stage = Stage::Ending;
        self.drop_connection(key, hub);
    }

    /// The other side has ended the connection.
    fn ended(&mut self, key: u32, hub: &mut Hub<'_>) {
        let slot = &self.slots[key as usize];
        match slot.stage {
            Stage::Asking if slot.answer.ends_with_connection() => {
                self.whole(key, false, EventFlags::RDHUP, hub);
            }
            Stage::Asking | Stage::Connecting => self.fail(key, ErrorKind::ClosedEarly, hub),
            Stage::Ending | Stage::Idle => self.drop_connection(key, hub),
        }
    }

    /// Ends a connection whose answer is there.
    fn drop_connection(&mut self, key: u32, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        if let Some(socket) = slot.socket.take()
            && self.close == Close::Reset
        {
            // A socket that refuses this is closed all the same.
            _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
        if slot.stage == Stage::Ending {
            slot.stage = Stage::Idle;
            hub.free(key);
        }
    }

    fn fail(&mut self, key: u32, kind: ErrorKind, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        slot.socket = None;
        slot.stage = Stage::Idle;
        hub.failed(key, slot.due, kind);
    }
}

impl Talk for Tcp {
    fn begin(&mut self, key: u32, due: u64, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        slot.due = due;
        if slot.socket.is_some() {
            return self.connected(key, hub);
        }
        slot.generation = slot.generation.wrapping_add(1);
        slot.stage = Stage::Connecting;
        slot.since = hub.context.shared.now();
        let made = self.route.stream().and_then(|socket| {
            hub.context.watch(&socket, key, slot.generation, INTEREST)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => slot.socket = Some(socket),
            Err(error) => self.fail(key, ErrorKind::of(error), hub),
        }
    }

    fn ready(&mut self, key: u32, generation: u32, flags: EventFlags, hub: &mut Hub<'_>) {
        let slot = &self.slots[key as usize];
        let Some(socket) = slot.socket.as_ref().filter(|_| slot.generation == generation) else { return };
        if slot.stage == Stage::Connecting {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                let kind = match sockopt::socket_error(socket) {
                    Ok(Err(Errno::TIMEDOUT)) => ErrorKind::ConnectTimeout,
                    Ok(Err(error)) | Err(error) => ErrorKind::of(error),
                    Ok(Ok(())) => ErrorKind::Reset,
                };
                return self.fail(key, kind, hub);
            }
            if flags.contains(EventFlags::OUT) {
                self.connected(key, hub);
            }
        } else if flags.contains(EventFlags::OUT)
            && slot.stage == Stage::Asking
            && slot.sent < self.message.len()
        {
            self.ask(key, hub);
        }
        if flags.intersects(EventFlags::IN | ENDED) {
            self.read(key, flags, hub);
        }
    }

    fn expire(&mut self, now: u64, hub: &mut Hub<'_>) {
        for key in 0..self.slots.len() as u32 {
            let slot = &self.slots[key as usize];
            let age = now.saturating_sub(slot.since);
            match slot.stage {
                Stage::Connecting if age > self.connect_timeout => {
                    self.fail(key, ErrorKind::ConnectTimeout, hub);
                }
                Stage::Asking if age > self.timeout => self.fail(key, ErrorKind::Timeout, hub),
                Stage::Ending if age > self.timeout => self.drop_connection(key, hub),
                _ => {}
            }
        }
    }
}
