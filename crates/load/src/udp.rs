//! Datagrams that the other side returns: each slot has one on its way, from a port of its own.
//!
//! Every datagram has a number, so an answer that comes after its time is known as such: it was counted as lost, and is
//! not an answer to the next.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::drive::{Hub, Talk};
use crate::outcome::{ErrorKind, nanoseconds};
use crate::plan::Plan;
use crate::socket::Route;
use crate::stamp::{Stamp, Wish, filler};

const INTEREST: EventFlags = EventFlags::IN.union(EventFlags::ET);

struct Slot {
    socket: Option<OwnedFd>,
    generation: u32,
    /// The number of the datagram on its way.
    waiting: Option<u64>,
    due: u64,
    since: u64,
}

/// The UDP conversations of a thread.
pub(crate) struct Udp {
    slots: Vec<Slot>,
    route: Route,
    fresh: bool,
    message: Vec<u8>,
    next_id: u64,
    timeout: u64,
    scratch: Box<[u8]>,
}

impl Udp {
    /// Of thread `index`.
    pub(crate) fn new(plan: &Plan, size: usize, fresh: bool, index: u32, slots: u32) -> Self {
        let stamp = Stamp { wish: Wish::Echo, close: false, len: size as u64, id: 0 };
        let mut message = filler(size);
        message[..Stamp::LEN].copy_from_slice(&stamp.encode());
        let slot = |_| Slot { socket: None, generation: 0, waiting: None, due: 0, since: 0 };
        Self {
            slots: (0..slots).map(slot).collect(),
            route: Route::new(plan.target, &plan.from, index),
            fresh,
            // One more, so that a longer answer shows.
            scratch: vec![0; size + 1].into_boxed_slice(),
            message,
            next_id: u64::from(index) << 48,
            timeout: nanoseconds(plan.timeout),
        }
    }

    fn stamp(&mut self, id: u64) {
        self.message[16..Stamp::LEN].copy_from_slice(&id.to_be_bytes());
    }

    fn fail(&mut self, key: u32, kind: ErrorKind, hub: &mut Hub<'_>) {
        let slot = &mut self.slots[key as usize];
        slot.waiting = None;
        if self.fresh || kind != ErrorKind::Lost {
            slot.socket = None;
        }
        hub.failed(key, slot.due, kind);
    }

    /// What came for the datagram with number `id`.
    fn judge(&mut self, id: u64, length: usize) -> Judged {
        let answer = &self.scratch[..length];
        let number = Stamp::decode(answer).map(|stamp| stamp.id);
        if number.is_some_and(|number| number < id) {
            return Judged::Late;
        }
        self.message[16..Stamp::LEN].copy_from_slice(&id.to_be_bytes());
        if *answer == *self.message { Judged::Right } else { Judged::Wrong }
    }
}

enum Judged {
    Right,
    Wrong,
    Late,
}

impl Talk for Udp {
    fn begin(&mut self, key: u32, due: u64, hub: &mut Hub<'_>) {
        self.next_id += 1;
        let id = self.next_id;
        self.stamp(id);
        let slot = &mut self.slots[key as usize];
        (slot.due, slot.since, slot.waiting) = (due, hub.context.shared.now(), Some(id));
        if slot.socket.is_none() {
            slot.generation = slot.generation.wrapping_add(1);
            let made = self.route.datagrams().and_then(|socket| {
                hub.context.watch(&socket, key, slot.generation, INTEREST)?;
                Ok(socket)
            });
            match made {
                Ok(socket) => slot.socket = Some(socket),
                Err(error) => return self.fail(key, ErrorKind::of(error), hub),
            }
        }
        let Some(socket) = &slot.socket else { return };
        if let Err(error) = send(socket, &self.message, SendFlags::NOSIGNAL)
            // A full device queue drops it, as the next one on the way may.
            && !matches!(error, Errno::AGAIN | Errno::NOBUFS)
        {
            self.fail(key, ErrorKind::of(error), hub);
        }
    }

    fn ready(&mut self, key: u32, generation: u32, _: EventFlags, hub: &mut Hub<'_>) {
        loop {
            let slot = &mut self.slots[key as usize];
            let Some(socket) = slot.socket.as_ref().filter(|_| slot.generation == generation) else { return };
            let came = recv(socket, &mut *self.scratch, RecvFlags::empty());
            let Some(id) = slot.waiting else {
                // What comes unasked is late; the loop ends when the socket is empty.
                if matches!(came, Err(Errno::AGAIN)) {
                    return;
                }
                continue;
            };
            match came {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => return self.fail(key, ErrorKind::of(error), hub),
                Ok((length, _)) => match self.judge(id, length) {
                    Judged::Late => {}
                    Judged::Wrong => return self.fail(key, ErrorKind::WrongAnswer, hub),
                    Judged::Right => {
                        let slot = &mut self.slots[key as usize];
                        slot.waiting = None;
                        if self.fresh {
                            slot.socket = None;
                        }
                        hub.answered(slot.due, length as u64, length as u64);
                        // Only one can be on its way: the socket is empty, and what is late is an event.
                        return hub.free(key);
                    }
                },
            }
        }
    }

    fn expire(&mut self, now: u64, hub: &mut Hub<'_>) {
        for key in 0..self.slots.len() as u32 {
            let slot = &self.slots[key as usize];
            if slot.waiting.is_some() && now.saturating_sub(slot.since) > self.timeout {
                self.fail(key, ErrorKind::Lost, hub);
            }
        }
    }
}
