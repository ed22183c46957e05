//! Clients that ask which backend they met: once, ten thousand times, from many addresses, on a connection that stays.
//!
//! The servers are those that say their name ([`Server::tcp_named`](crate::traffic::Server::tcp_named) and its like).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::Namespace;
use crate::netns::PATIENCE;
use crate::topology::{CROWD4, CROWD6};
use crate::traffic::echo;

/// How many connections met which backend.
pub type Tally = BTreeMap<String, usize>;

/// The name that a server says: one line, and not a byte beyond it. A server that hangs up without a newline has said
/// its name too.
///
/// # Errors
/// What the kernel says; or the end without a word.
pub fn name_from(stream: &mut impl Read) -> io::Result<String> {
    let (mut name, mut byte) = (String::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => break,
            read => match (read?, byte[0]) {
                (_, b'\n') => break,
                (_, byte) => name.push(char::from(byte)),
            },
        }
    }
    if name.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(name) }
}

/// Which backend a new connection meets.
///
/// # Errors
/// What the kernel says.
pub fn who(ns: &Namespace, to: &str) -> io::Result<String> {
    ns.connect(to).and_then(|mut stream| name_from(&mut stream))
}

/// Which backends so many new connections meet, one after the other.
///
/// # Panics
/// When one of them meets none.
pub fn tally(ns: &Namespace, to: &str, count: usize) -> Tally {
    let to: SocketAddr = to.parse().expect("a socket address");
    ns.enter(|| {
        let mut tally = Tally::new();
        for nth in 0..count {
            let met = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                name_from(&mut stream)
            });
            let met = met.unwrap_or_else(|e| panic!("connection {nth} of {count} to {to}: {e}"));
            *tally.entry(met).or_default() += 1;
        }
        tally
    })
}

/// How often each backend was met.
pub fn count(met: &[String]) -> Tally {
    let mut tally = Tally::new();
    for name in met {
        *tally.entry(name.clone()).or_default() += 1;
    }
    tally
}

/// The backends of a tally, in their order ("abc").
pub fn names(tally: &Tally) -> String {
    tally.keys().map(String::as_str).collect()
}

/// The share of one backend, 0 to 1.
pub fn share(tally: &Tally, backend: &str) -> f64 {
    let total: usize = tally.values().sum();
    tally.get(backend).copied().unwrap_or(0) as f64 / total.max(1) as f64
}

/// The n-th address of [`Topology::crowd`](crate::Topology::crowd), IPv4. Neighbours, as in a real network.
///
/// # Panics
/// Beyond the 65,000 that there are.
pub fn crowd4(nth: u32) -> IpAddr {
    assert!(nth < 65_000, "the crowd has 65,000 addresses");
    Ipv4Addr::from_bits(CROWD4.to_bits() + 256 + nth).into()
}

/// The same, IPv6.
pub fn crowd6(nth: u32) -> IpAddr {
    Ipv6Addr::from_bits(CROWD6.to_bits() + 256 + u128::from(nth)).into()
}

/// So many clients of the crowd, any port.
pub fn crowd(count: u32, address: fn(u32) -> IpAddr) -> Vec<SocketAddr> {
    (0..count).map(|nth| (address(nth), 0).into()).collect()
}

/// Which backend each of these clients meets by a new TCP connection, in their order. Port 0 is any port.
///
/// # Panics
/// When one of them meets none.
pub fn who_each(ns: &Namespace, clients: &[SocketAddr], to: &str) -> Vec<String> {
    let to: SocketAddr = to.parse().expect("a socket address");
    ns.enter(|| {
        let met = clients.iter().map(|client| {
            let met = connect_from(*client, to).and_then(|mut stream| name_from(&mut stream));
            met.unwrap_or_else(|e| panic!("a connection from {client} to {to}: {e}"))
        });
        met.collect()
    })
}

/// Which backend a connection from this address and port meets, to its end: the server hangs up, then the client does, and
/// the server keeps the pair of ports in TIME_WAIT.
///
/// # Errors
/// What the kernel says.
pub fn who_until_the_end(ns: &Namespace, client: SocketAddr, to: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().expect("a socket address");
    ns.enter(|| {
        let mut stream = connect_from(client, to)?;
        sockopt::set_socket_linger(stream.as_fd(), None)?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said.trim_end().to_owned())
    })
}

/// Connects from an address. Its end is a reset, so that the same port may be used again at once. Where the last connection
/// with the same ends is still being taken apart, for a moment, it tries again.
fn connect_from(client: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match try_connect_from(client, to) {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && start.elapsed() < PATIENCE => {
                thread::yield_now();
            }
            other => return other,
        }
    }
}

fn try_connect_from(client: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if client.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    for direction in [Timeout::Send, Timeout::Recv] {
        sockopt::set_socket_timeout(socket.as_fd(), direction, Some(PATIENCE))?;
    }
    sockopt::set_socket_reuseaddr(socket.as_fd(), true)?;
    sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO))?;
    bind(&socket, &client)?;
    rustix::io::retry_on_intr(|| connect(&socket, &to))?;
    Ok(TcpStream::from(socket))
}

/// Which backend answers a datagram of this connected socket. Sent again when it is lost, as every UDP client does.
///
/// # Errors
/// What the kernel says; a timeout when none of three is answered.
pub fn who_udp(socket: &UdpSocket) -> io::Result<String> {
    let mut answer = [0; 64];
    let mut outcome = Err(io::ErrorKind::TimedOut.into());
    for _ in 0..3 {
        socket.send(b"who?")?;
        match socket.recv(&mut answer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            Err(e) => outcome = Err(e),
        }
    }
    outcome
}

/// A connection that stays open, to a server that said its name and returns every byte.
#[derive(Debug)]
pub struct Held {
    /// Whom it met.
    pub backend: String,
    /// The client's end.
    pub client: SocketAddr,
    stream: TcpStream,
}

impl Held {
    /// Opens one.
    ///
    /// # Panics
    /// When nobody says a name.
    pub fn open(ns: &Namespace, to: &str) -> Self {
        let opened = ns.connect(to).and_then(|mut stream| {
            let backend = name_from(&mut stream)?;
            Ok(Self { backend, client: stream.local_addr()?, stream })
        });
        opened.unwrap_or_else(|e| panic!("a connection from {} to {to}: {e}", ns.name()))
    }

    /// Opens one from this address and port. When it is dropped it is reset, so that the port is free at once.
    ///
    /// # Panics
    /// When the address cannot be had, or nobody says a name.
    pub fn open_from(ns: &Namespace, client: SocketAddr, to: &str) -> Self {
        let address: SocketAddr = to.parse().expect("a socket address");
        let opened = ns.enter(|| connect_from(client, address)).and_then(|mut stream| {
            let backend = name_from(&mut stream)?;
            Ok(Self { backend, client, stream })
        });
        opened.unwrap_or_else(|e| panic!("a connection from {client} to {to}: {e}"))
    }

    /// Opens so many.
    pub fn open_many(ns: &Namespace, to: &str, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::open(ns, to)).collect()
    }

    /// Asks for an echo.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&mut self) -> io::Result<()> {
        echo(&mut self.stream, b"still there?")
    }

    /// Insists that it lives.
    ///
    /// # Panics
    /// When it does not.
    pub fn lives(&mut self, when: &str) {
        let Self { backend, client, .. } = self;
        let (backend, client) = (backend.clone(), *client);
        self.ask().unwrap_or_else(|e| panic!("the connection of {client} with {backend}, {when}: {e}"));
    }

    /// Insists that it ends by a reset within `limit`, and says when. A client that is silent is told when it next
    /// speaks, so this one speaks all the time.
    ///
    /// # Panics
    /// When it lives on, or ends in another way.
    pub fn is_reset(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        loop {
            match self.ask() {
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return start.elapsed(),
                Err(e) => {
                    panic!("the connection of {} with {} should be reset: {e}", self.client, self.backend)
                }
                Ok(()) => thread::sleep(Duration::from_millis(5)),
            }
            assert!(
                start.elapsed() < limit,
                "the connection of {} with {} lives after {limit:?}",
                self.client,
                self.backend
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;
    use crate::traffic::Server;

    #[test]
    fn a_name_is_a_line_and_not_a_byte_more() {
        let mut stream: &[u8] = b"a\nrest";
        assert_eq!(name_from(&mut stream).unwrap(), "a");
        assert_eq!(stream, b"rest");
        assert_eq!(name_from(&mut &b"b"[..]).unwrap(), "b");
        assert_eq!(name_from(&mut &b""[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Every member of the crowd is itself: its own address, of both families, and the port that it wants, twice.
    #[test]
    fn the_crowd_is_many() {
        let net = Topology::new();
        net.crowd();
        let clients = [(crowd4(0), 20_000), (crowd4(5000), 20_000), (crowd6(1), 0)].map(SocketAddr::from);
        let v4 = Server::tcp_sign(&net.gateway, "10.1.0.1:8000", "a");
        let v6 = Server::tcp_sign(&net.gateway, "[fd01::1]:8000", "b");
        for _ in 0..2 {
            assert_eq!(who_each(net.client(), &clients[..2], "10.1.0.1:8000"), ["a", "a"]);
            assert_eq!(who_each(net.client(), &clients[2..], "[fd01::1]:8000"), ["b"]);
        }
        assert_eq!(v4.peers(), [crowd4(0), crowd4(5000), crowd4(0), crowd4(5000)]);
        assert_eq!(v6.peers(), [crowd6(1); 2]);
    }

    #[test]
    fn a_held_connection_lives_until_it_is_reset() {
        let net = Topology::new();
        let _kind = Server::tcp_named(&net.gateway, "10.1.0.1:8000", "kind");
        let rude = net.gateway.listen("10.1.0.1:8001");
        let mut kind = Held::open(net.client(), "10.1.0.1:8000");
        assert_eq!(kind.backend, "kind");
        kind.lives("at first");
        let server = thread::spawn(move || {
            let (mut stream, _) = rude.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"rude\n").unwrap();
            // Closing with unread data resets (RFC 2525, section 2.17).
            stream.peek(&mut [0]).unwrap();
        });
        let mut held = Held::open(net.client(), "10.1.0.1:8001");
        held.is_reset(Duration::from_secs(1));
        server.join().unwrap();
        kind.lives("when another was reset");
    }

    #[test]
    fn shares() {
        let tally = Tally::from([("a".to_owned(), 3), ("b".to_owned(), 1)]);
        assert_eq!((share(&tally, "a"), share(&tally, "c")), (0.75, 0.0));
    }
}
