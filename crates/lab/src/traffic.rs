//! Simple traffic in Rust: servers on threads, and questions to them.
//!
//! Only what a real program would not do better; real programs are in [`crate::peer`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::Namespace;

/// The receive buffer of a UDP server, in bytes as socket(7) counts them, which is what frames take and not what they carry:
/// 9 KB in seven parts count 14.7 KB as they left their sender, and 21.5 KB once frames were redirected from XDP, of which
/// the kernel's own 208 KiB hold nine. A burst then waits for the server's thread rather than be lost there, where no
/// gateway is to blame.
const UDP_BUFFER: usize = 4 << 20;

/// A server on a thread, ended on drop. It remembers who came.
#[derive(Debug)]
pub struct Server {
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    open: Open,
    thread: Option<JoinHandle<()>>,
}

/// The socket that a server is reached by.
#[derive(Debug)]
enum Open {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Server {
    /// A TCP server that runs `serve` on a thread for every connection.
    pub fn tcp(ns: &Namespace, on: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = ns.listen(on);
        let accepting = listener.try_clone().expect("a descriptor is free");
        Self::run(Open::Tcp(listener), move |peers, stop| {
            while let Ok((stream, peer)) = accepting.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                peers.lock().expect("no holder panics").push(peer);
                let serve = serve.clone();
                let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
                thread::spawn(move || serve(stream));
            }
        })
    }

    /// A TCP server that returns every byte.
    pub fn tcp_echo(ns: &Namespace, on: &str) -> Self {
        Self::tcp(ns, on, |mut stream| {
            let mut back = stream.try_clone().expect("a descriptor is free");
            let _ = io::copy(&mut stream, &mut back);
        })
    }

    /// A TCP server that sends its greeting first, then returns every byte.
    pub fn tcp_greeting(ns: &Namespace, on: &str, greeting: impl Into<String>) -> Self {
        let greeting: Arc<str> = greeting.into().into();
        Self::tcp(ns, on, move |mut stream| {
            if stream.write_all(greeting.as_bytes()).is_ok() {
                let mut back = stream.try_clone().expect("a descriptor is free");
                let _ = io::copy(&mut stream, &mut back);
            }
        })
    }

    /// A TCP server that says its name, a line, and then returns every byte. [`crate::client`] asks for names.
    pub fn tcp_named(ns: &Namespace, on: &str, name: &str) -> Self {
        Self::tcp_greeting(ns, on, format!("{name}\n"))
    }

    /// A TCP server that says its name and hangs up, on one thread: for connections by the ten thousand.
    pub fn tcp_sign(ns: &Namespace, on: &str, name: &str) -> Self {
        let listener = ns.listen(on);
        let accepting = listener.try_clone().expect("a descriptor is free");
        let line = format!("{name}\n");
        Self::run(Open::Tcp(listener), move |peers, stop| {
            while let Ok((mut stream, peer)) = accepting.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                peers.lock().expect("no holder panics").push(peer);
                let _ = stream.write_all(line.as_bytes());
            }
        })
    }

    /// A UDP server that returns every datagram.
    pub fn udp_echo(ns: &Namespace, on: &str) -> Self {
        Self::udp(ns.bind(on), None)
    }

    /// A UDP server that answers every datagram by its name.
    pub fn udp_named(ns: &Namespace, on: &str, name: &str) -> Self {
        Self::udp(ns.bind(on), Some(name.to_owned()))
    }

    fn udp(socket: UdpSocket, name: Option<String>) -> Self {
        set_socket_recv_buffer_size_force(&socket, UDP_BUFFER).expect("root may have any buffer");
        let serving = socket.try_clone().expect("a descriptor is free");
        Self::run(Open::Udp(socket), move |peers, stop| serve_udp(&serving, name.as_deref(), &peers, &stop))
    }

    fn run(
        open: Open,
        serve: impl FnOnce(Arc<Mutex<Vec<SocketAddr>>>, Arc<AtomicBool>) + Send + 'static,
    ) -> Self {
        let (peers, stop) = (Arc::<Mutex<Vec<SocketAddr>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (peers, stop) = (peers.clone(), stop.clone());
            move || serve(peers, stop)
        });
        Self { peers, stop, open, thread: Some(thread) }
    }

    /// The addresses that traffic came from, oldest first.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.peers.lock().expect("no holder panics").iter().map(SocketAddr::ip).collect()
    }
}

/// Answers every datagram, by `name` or else by itself.
fn serve_udp(socket: &UdpSocket, name: Option<&str>, peers: &Mutex<Vec<SocketAddr>>, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a positive time");
    let mut datagram = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let received = socket.recv_from(&mut datagram);
        if let (Ok((length, peer)), false) = (received, stop.load(Ordering::Relaxed)) {
            peers.lock().expect("no holder panics").push(peer);
            let _ = socket.send_to(name.map_or(&datagram[..length], str::as_bytes), peer);
        }
    }
}

/// Has nothing reach a UDP socket any more, so that from now on its host refuses what is sent there. Closing it is not
/// enough for that: when another test of this process is starting a program, the program has the descriptor too until it
/// is executed, and what comes meanwhile is taken in silence. So the socket is connected to itself. Where its own address
/// has gone, nothing reaches it anyway.
pub fn hang_up(socket: &UdpSocket) {
    let _ = socket.local_addr().and_then(|own| socket.connect(own));
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        match &self.open {
            // Wakes accept(), which then fails with EINVAL (Linux).
            Open::Tcp(listener) => _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both),
            Open::Udp(socket) => {
                hang_up(socket);
                // Wakes recv_from(), which would else notice within 50 ms: many servers are many times that.
                let _ = socket.send(&[]);
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `message` and reads as many bytes back.
///
/// # Errors
/// What the kernel says, or that other bytes came back.
pub fn echo(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    if answer == message { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// Connects and echoes once.
///
/// # Panics
/// When that fails.
pub fn tcp_works(ns: &Namespace, to: &str) {
    let result = ns.connect(to).and_then(|mut stream| echo(&mut stream, b"is anybody there?"));
    result.unwrap_or_else(|e| panic!("tcp echo from {} by {to}: {e}", ns.name()));
}

/// Sends a datagram and waits for its echo; sends again, as every UDP client does, for five tries.
///
/// # Panics
/// When none comes back, or another one.
pub fn udp_works(ns: &Namespace, to: &str) {
    let socket = ns.dial(to);
    let mut answer = [0; 64];
    for attempt in 0..5 {
        let message = format!("datagram {attempt}");
        match socket.send(message.as_bytes()).and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => return assert_eq!(&answer[..length], message.as_bytes()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => panic!("udp echo from {} by {to}: {e}", ns.name()),
        }
    }
    panic!("udp echo from {} by {to}: no answer", ns.name());
}

/// Whether a TCP connection ends in a refusal (at connect, or by reset before any byte) rather than in
/// silence; and how long that took.
///
/// # Panics
/// When bytes come back or the connection ends cleanly.
pub fn refusal(ns: &Namespace, to: &str) -> Duration {
    let start = Instant::now();
    let result = ns.connect(to).and_then(|mut stream| stream.read(&mut [0; 1]));
    match result {
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
            start.elapsed()
        }
        other => panic!("{to} should have refused: {other:?}"),
    }
}
