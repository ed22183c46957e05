//! A thread that hears from the kernel when interfaces, addresses, routes or neighbours change, and has the engine follow.
//!
//! Deliberately absent: what follows ([`crate::serve`]).

use std::collections::BTreeSet;
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
use crate::host::{self, Host};
use crate::neighbour::Links;
use crate::netdev;
use crate::route::{GROUPS, Route, Told, told};

/// Changes come in crowds (an interface comes with its addresses and routes): after one, so much time is left for the others.
const CROWD: Duration = Duration::from_millis(10);
/// On a host whose routes never stop changing, following takes at most this part of a processor: one in so many.
const SHARE: u32 = 10;
/// And never waits longer.
const LONGEST: Duration = Duration::from_secs(2);

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

impl Changes {
    /// Some was lost: it may have been anything.
    const ALL: Self = Self { interfaces: true, routes: true, neighbours: true };
}

/// What is listened to.
struct Ears {
    routing: Listener,
    links: Links,
    /// Nothing before Linux 6.3.
    drivers: Option<Listener>,
    stop: Arc<OwnedFd>,
}

impl Follower {
    /// Starts it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(held: Arc<Mutex<Option<Held>>>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let routing = Listener::open(None, GROUPS)?;
        let mut ears = Ears {
            routing,
            links: Links::default(),
            drivers: netdev::listen().ok(),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("ebpf-follow".to_owned()).spawn(move || {
            // What has changed since the engine looked, and before there was anybody to hear it.
            let mut changes = Changes::ALL;
            loop {
                let start = Instant::now();
                if changes != Changes::default() {
                    follow(&held, changes);
                }
                let rest = (start.elapsed() * (SHARE - 1)).clamp(CROWD, LONGEST);
                if !ears.wait(None) || !ears.pause(rest) {
                    return;
                }
                changes = ears.hear();
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

impl Ears {
    /// Waits until there is something to hear; `false` when it is time to stop.
    fn wait(&self, timeout: Option<&Timespec>) -> bool {
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        // Without a time there is nothing else to wait for.
        if timeout.is_none() {
            fds.push(PollFd::from_borrowed_fd(self.routing.as_fd(), PollFlags::IN));
            let drivers = self.drivers.iter();
            fds.extend(drivers.map(|drivers| PollFd::from_borrowed_fd(drivers.as_fd(), PollFlags::IN)));
        }
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => return fds.first().is_some_and(|stop| stop.revents().is_empty()),
            }
        }
    }

    /// Lets others come; `false` when it is time to stop.
    fn pause(&self, rest: Duration) -> bool {
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        self.wait(Some(&rest))
    }

    /// All that has been told until now.
    fn hear(&mut self) -> Changes {
        let mut changes = Changes::default();
        // A host whose neighbours never stop changing must not keep the rest waiting.
        let until = Instant::now() + CROWD;
        while Instant::now() < until {
            match self.routing.hear() {
                Ok(None) => break,
                Ok(Some(messages)) => {
                    for message in messages {
                        match told(&message) {
                            Some(Told::Interface) => changes.interfaces = true,
                            Some(Told::Route) => changes.routes = true,
                            Some(Told::Neighbour) => changes.neighbours |= self.links.hear(&message),
                            None => {}
                        }
                    }
                }
                Err(_) => {
                    self.links.forget();
                    changes = Changes::ALL;
                }
            }
        }
        if let Some(drivers) = &mut self.drivers {
            while !matches!(drivers.hear(), Ok(None)) {
                changes.interfaces = true;
            }
        }
        changes
    }
}

/// Has the engine follow. What takes long, asking the kernel, is done while the engine is free for others.
fn follow(shared: &Mutex<Option<Held>>, changes: Changes) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (looks, destinations) = match lock().as_ref() {
            None => return,
            Some(held) if changes.interfaces || changes.routes => (held.looks, held.destinations()),
            Some(held) => (held.looks, BTreeSet::new()),
        };
        let mut route = match Route::open() {
            Ok(route) => route,
            Err(error) => {
                if let Some(held) = lock().as_ref() {
                    (held.log)(&format!("ebpf: open a netlink socket: {error}"));
                }
                return;
            }
        };
        let host = changes.interfaces.then(|| Host::look(&mut route));
        let sources = host::preferred_sources(&mut route, destinations);
        let mut held = lock();
        let Some(held) = held.as_mut() else { return };
        if held.looks != looks {
            // A plan has come meanwhile and has seen more than was seen here.
            continue;
        }
        match host {
            Some(Ok(host)) => held.follow_host(host),
            Some(Err(error)) => (held.log)(&format!("ebpf: list the interfaces: {error}")),
            None => {}
        }
        if (changes.interfaces || changes.routes)
            && let Err(error) = held.follow_routes(sources)
        {
            (held.log)(&format!("ebpf: {error}"));
        }
        config::next_generation(&held.maps.flows);
        return;
    }
}
