//! A client that never stops asking: what a change must not disturb. Deliberately absent: rates and figures, which are the
//! those of `portway lab`.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Namespace;
use crate::netns::PATIENCE;
use crate::traffic::echo;

/// A client that connects, asks and closes over and over, until it is stopped.
#[derive(Debug)]
pub struct Load {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Load {
    /// Starts it in a namespace, against a server that returns every byte.
    ///
    /// # Panics
    /// When the first connection fails: then there is nothing to watch.
    pub fn start(ns: &Namespace, to: &str) -> Self {
        Self::asking(ns, to, |stream| echo(stream, b"again"))
    }

    /// Starts it with another question; an error of `ask` is a loss.
    ///
    /// # Panics
    /// When the first connection fails.
    pub fn asking(
        ns: &Namespace,
        to: &str,
        ask: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let first = ns.connect(to).and_then(|mut stream| ask(&mut stream));
        first.unwrap_or_else(|e| panic!("a first connection from {} to {to}: {e}", ns.name()));
        let to: SocketAddr = to.parse().expect("checked by the first connection");
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        // The thread outlives the call, so it enters the namespace by itself.
        let file = std::fs::File::open(ns.path()).expect("the namespace lives");
        let thread = thread::spawn({
            let (done, stop) = (done.clone(), stop.clone());
            move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("the namespace can be entered");
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let result = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
                        stream.set_read_timeout(Some(PATIENCE))?;
                        ask(&mut stream)
                    });
                    match result {
                        Ok(()) => done.fetch_add(1, Ordering::Relaxed),
                        Err(e) => {
                            failures.push(e.to_string());
                            done.load(Ordering::Relaxed)
                        }
                    };
                    // A pace that leaves ports and CPU to spare.
                    thread::sleep(Duration::from_millis(1));
                }
                failures
            }
        });
        Self { done, stop, thread }
    }

    /// Waits until so many more connections are done.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn pass(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        crate::netns::wait_for(&format!("{more} more connections"), || {
            self.done.load(Ordering::Relaxed) >= goal
        });
    }

    /// Stops it, and insists that no connection failed.
    ///
    /// # Panics
    /// When one did.
    pub fn stop_without_loss(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().expect("the load does not panic");
        let done = self.done.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {} connections failed: {failures:?}", failures.len(), done);
    }
}
