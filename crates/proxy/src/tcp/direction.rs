//! One direction of a connection: bytes from one socket to the other.
//!
//! It copies through the worker's scratch buffer. Bytes that the receiver does not take at once stay with the
//! direction (bounded by that buffer) and nothing more is read until they are gone: the kernel's window then holds
//! back the sender. A direction that has proved long goes on by splice(2).

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use crate::pipes::{Pipe, Pool};

/// The scratch buffer's length, and so the most that one direction ever holds in user memory.
pub const SCRATCH: usize = 64 << 10;
/// Bytes in a row (see [`SMALL`]) after which a transfer counts as long.
const LONG: u32 = 256 << 10;
/// A read shorter than this belongs to a conversation, not to a transfer.
const SMALL: usize = 4 << 10;
/// Small reads in a row after which a transfer counts as over.
const SMALL_RUN: u8 = 4;
/// Reads, or bytes, in one turn before other connections get theirs.
const TURNS: u32 = 16;
/// See [`TURNS`].
const TURN_BYTES: u64 = 2 << 20;

/// One direction of a connection.
#[derive(Default)]
pub struct Direction {
    /// Bytes read and not yet taken by the receiver, from `start`. No allocation while empty.
    pub(super) held: Vec<u8>,
    start: u32,
    pipe: Option<Pipe>,
    /// Bytes of the present run of large reads.
    run: u32,
    small: u8,
    /// Sends so far, as far as TCP_NODELAY cares: at the second one it is set.
    sends: u8,
    long: bool,
    unspliceable: bool,
    /// The source may have bytes.
    pub readable: bool,
    /// The receiver may take bytes.
    pub writable: bool,
    /// The source's FIN is in its receive queue.
    pub ending: bool,
    /// The source has urgent data somewhere: a short read does not mean an empty queue.
    pub urgent: bool,
    /// The source has ended and all its bytes were read.
    pub ended: bool,
    /// The receiver has got all bytes and the end.
    pub done: bool,
}

/// Why a direction stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for one of the sockets, or is done.
    Wait,
    /// It has had its turn and could go on.
    Again,
    /// The source's connection is broken.
    SourceBroken,
    /// The receiver's connection is broken.
    ReceiverBroken,
}

impl Direction {
    /// The direction towards the client, who can take bytes at once and whose TCP_NODELAY is set.
    pub(super) fn down() -> Self {
        Self { sends: 2, writable: true, ..Self::default() }
    }

    /// Whether bytes wait for the receiver.
    pub fn blocked(&self) -> bool {
        !self.writable && (!self.held.is_empty() || self.pipe.is_some())
    }

    /// Whether anything was ever sent.
    pub fn has_sent(&self) -> bool {
        self.sends > 0
    }

    /// Gives the pipe back, if it holds one.
    pub fn release(&mut self, pipes: &mut Pool) {
        if let Some(pipe) = self.pipe.take() {
            pipes.give(pipe);
        }
    }

    /// Moves bytes until a socket says wait, and says how many the receiver took. `last`: the other direction
    /// is done, so the caller closes both sockets when this one is.
    pub(super) fn pump(
        &mut self,
        source: BorrowedFd<'_>,
        receiver: BorrowedFd<'_>,
        last: bool,
        scratch: &mut [u8],
        pipes: &mut Pool,
    ) -> (u64, Step) {
        let mut moved = 0;
        let mut turns = TURNS;
        let step = loop {
            if self.done {
                break Step::Wait;
            }
            if let Err(step) = self.flush(receiver, pipes, &mut moved) {
                break step;
            }
            if self.ended {
                self.done = true;
                if !last {
                    // ENOTCONN means that the receiver was reset; reading from it will tell.
                    _ = shutdown(receiver, Shutdown::Write);
                }
                break Step::Wait;
            }
            if !self.readable {
                break Step::Wait;
            }
            if turns == 0 || moved >= TURN_BYTES {
                break Step::Again;
            }
            turns -= 1;
            let result =
                if self.long && !self.unspliceable { self.fill_pipe(source, pipes) } else { Ok(false) };
            let result = match result {
                Ok(false) => self.copy(source, receiver, scratch, &mut moved),
                other => other.map(|_| ()),
            };
            if let Err(step) = result {
                break step;
            }
        };
        (moved, step)
    }

    /// Sends what is held; `Err` when some of it must stay.
    fn flush(&mut self, receiver: BorrowedFd<'_>, pipes: &mut Pool, moved: &mut u64) -> Result<(), Step> {
        while let Some(pipe) = &mut self.pipe {
            if pipe.level == 0 {
                self.release(pipes);
                break;
            }
            if !self.writable {
                return Err(Step::Wait);
            }
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            match splice(&pipe.out, None, receiver, None, pipe.level, flags) {
                Ok(sent) => {
                    pipe.level -= sent;
                    *moved += sent as u64;
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Step::ReceiverBroken),
            }
        }
        while !self.held.is_empty() {
            if !self.writable {
                return Err(Step::Wait);
            }
            let rest = &self.held[self.start as usize..];
            let length = rest.len();
            let more = if self.ended { SendFlags::MORE } else { SendFlags::empty() };
            match send(receiver, rest, SendFlags::NOSIGNAL | more) {
                Ok(sent) => {
                    *moved += sent as u64;
                    self.start += sent as u32;
                    if sent == length {
                        self.held = Vec::new();
                        self.start = 0;
                    }
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Step::ReceiverBroken),
            }
        }
        Ok(())
    }

    /// Reads once into the scratch buffer and sends; what the receiver does not take is held. Called with
    /// nothing held.
    fn copy(
        &mut self,
        source: BorrowedFd<'_>,
        receiver: BorrowedFd<'_>,
        scratch: &mut [u8],
        moved: &mut u64,
    ) -> Result<(), Step> {
        let room = scratch.len();
        let length = match recv(source, &mut *scratch, RecvFlags::empty()) {
            Ok((0, _)) => {
                self.readable = false;
                self.ended = true;
                return Ok(());
            }
            Ok((length, _)) => length,
            Err(Errno::AGAIN) => {
                self.readable = false;
                return Ok(());
            }
            Err(Errno::INTR) => return Ok(()),
            Err(_) => return Err(Step::SourceBroken),
        };
        if length < room && !self.urgent {
            // The queue is empty. EPOLLRDHUP came with an event before this read, so everything in front of
            // the FIN was in the queue; bytes that come later come with an event of their own.
            self.readable = false;
            self.ended = self.ending;
        }
        if length < SMALL {
            self.run = 0;
        } else {
            self.run = self.run.saturating_add(length as u32);
            self.long = self.run >= LONG;
            self.small = 0;
        }
        if self.sends == 1 {
            _ = sockopt::set_tcp_nodelay(receiver, true);
        }
        self.sends = self.sends.saturating_add(1);
        let data = &scratch[..length];
        // With the end known, the bytes and the FIN leave in one segment: the shutdown or close that follows
        // at once pushes what MSG_MORE holds back.
        let more = if self.ended { SendFlags::MORE } else { SendFlags::empty() };
        let sent = match send(receiver, data, SendFlags::NOSIGNAL | more) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                if self.sends == 1 {
                    // The backend took nothing of it: another one may.
                    self.held = data.to_vec();
                }
                return Err(Step::ReceiverBroken);
            }
        };
        *moved += sent as u64;
        if sent < length {
            // Not necessarily full (a signal): flush() asks once more and then knows.
            self.held = data[sent..].to_vec();
        }
        Ok(())
    }

    /// Moves bytes from the source into a pipe; `Ok(false)` when splice cannot serve. Called with nothing held.
    fn fill_pipe(&mut self, source: BorrowedFd<'_>, pipes: &mut Pool) -> Result<bool, Step> {
        let Some(mut pipe) = pipes.take() else { return Ok(false) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let result = splice(source, None, &pipe.into, None, pipe.capacity, flags);
        match result {
            Ok(0) => {
                self.readable = false;
                self.ended = true;
            }
            Ok(length) => {
                pipe.level = length;
                self.small = if length < SMALL { self.small + 1 } else { 0 };
                if self.small >= SMALL_RUN {
                    (self.long, self.run, self.small) = (false, 0, 0);
                }
                self.pipe = Some(pipe);
                return Ok(true);
            }
            // The pipe is empty, so it is the socket that has nothing.
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) => {
                self.unspliceable = true;
                pipes.give(pipe);
                return Ok(false);
            }
            Err(_) => {
                pipes.give(pipe);
                return Err(Step::SourceBroken);
            }
        }
        pipes.give(pipe);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::shared::{Log, Shared};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn what_a_dead_backend_did_not_take_goes_to_the_next() {
        let (mut client, source) = pair();
        client.write_all(b"a request").unwrap();
        let (dead, peer) = pair();
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        let mut pipes = Pool::new(Arc::new(Shared::new(Log::new(|_| {}))));
        let mut scratch = [0; 1024];
        let mut up = Direction { readable: true, writable: true, ..Direction::default() };
        let pumped = up.pump(source.as_fd(), dead.as_fd(), false, &mut scratch, &mut pipes);
        assert_eq!(pumped, (0, Step::ReceiverBroken));
        let (next, mut backend) = pair();
        let pumped = up.pump(source.as_fd(), next.as_fd(), false, &mut scratch, &mut pipes);
        assert_eq!(pumped, (9, Step::Wait));
        let mut request = [0; 9];
        backend.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"a request");
    }
}
