//! A thread that hears from the kernel when interfaces, addresses, routes or neighbours change, and has the engine follow.
//!
//! Deliberately absent: what follows ([`crate::serve`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portway_netlink::socket::Listener;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::config;
use crate::held::Held;
use crate::route::{GROUPS, Told, told};

/// Changes come in crowds (an interface comes with its addresses and routes): after one, so much time is left for the others.
const CROWD: Duration = Duration::from_millis(10);

/// The thread; it ends when this is dropped.
pub struct Follower {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What has changed since the engine last followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    interfaces: bool,
    routes: bool,
    neighbours: bool,
}

impl Follower {
    /// Starts it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(held: Arc<Mutex<Option<Held>>>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let mut listener = Listener::open(None, GROUPS)?;
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("ebpf-follow".to_owned()).spawn(move || {
            while wait(&listener, &stopped) {
                std::thread::sleep(CROWD);
                let changes = heard(&mut listener);
                if changes != Changes::default()
                    && let Some(held) = held.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                {
                    follow(held, changes);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until there is something to hear; `false` when it is time to stop.
fn wait(listener: &Listener, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None::<&Timespec>) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => {
                let [heard, stopped] = fds.map(|fd| !fd.revents().is_empty());
                if stopped || heard {
                    return !stopped;
                }
            }
        }
    }
}

/// All that has been told until now.
fn heard(listener: &mut Listener) -> Changes {
    let mut changes = Changes::default();
    // A host whose neighbours never stop changing must not keep the rest waiting.
    let until = Instant::now() + CROWD;
    while Instant::now() < until {
        match listener.hear() {
            Ok(None) => break,
            Ok(Some(messages)) => {
                for about in messages.filter_map(|message| told(&message)) {
                    match about {
                        Told::Interface => changes.interfaces = true,
                        Told::Route => changes.routes = true,
                        Told::Neighbour => changes.neighbours = true,
                    }
                }
            }
            // Some was lost: it may have been anything.
            Err(_) => changes = Changes { interfaces: true, routes: true, neighbours: true },
        }
    }
    changes
}

fn follow(held: &mut Held, changes: Changes) {
    if changes.interfaces {
        held.serve();
    } else {
        if changes.routes
            && let Err(error) = held.follow_routes()
        {
            (held.log)(&format!("ebpf: {error}"));
        }
        config::next_generation(&held.maps.flows);
    }
}
