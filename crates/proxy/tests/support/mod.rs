//! What the tests of this crate stand on: an engine on loopback, and plain peers from the standard library.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portway_core::address::{PortRange, Protocol};
use portway_core::engine::{Changed, Engine, EngineError};
use portway_core::members::{Meets, Member};
use portway_core::plan::proxy::{Plan, PoolPlan, RulePlan, Settings, Socket, Source};
use portway_core::ruleset::{RuleName, Scope, Timeouts};
use portway_core::snapshot::{EngineSnapshot, MemberCounters, RuleCounters};
use portway_proxy::ProxyEngine;

/// How long anything that must happen may take.
pub const SOON: Duration = Duration::from_secs(10);

/// An engine with the plan it shall have.
pub struct Proxy {
    pub engine: ProxyEngine,
    pub plan: Plan,
    pub messages: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn new() -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let sink = messages.clone();
        let engine = ProxyEngine::new(move |message| {
            eprintln!("{message}");
            sink.lock().unwrap().push(message.to_owned());
        });
        let settings = Settings { workers: NonZeroU32::new(2), ..Settings::default() };
        Self { engine, plan: Plan { settings, ..Plan::default() }, messages }
    }

    /// One rule from a free port of `listen` to `backend`; returns the address to connect to.
    pub fn forwarding(protocol: Protocol, backend: SocketAddr, timeouts: Timeouts) -> (Self, SocketAddr) {
        let mut proxy = Self::new();
        let listen = free(protocol, Ipv4Addr::LOCALHOST.into());
        proxy.set("rule", protocol, listen, backend).timeouts = timeouts;
        proxy.apply().unwrap();
        (proxy, listen)
    }

    pub fn tcp(backend: SocketAddr) -> (Self, SocketAddr) {
        Self::forwarding(Protocol::Tcp, backend, Timeouts::default())
    }

    pub fn udp(backend: SocketAddr) -> (Self, SocketAddr) {
        Self::forwarding(Protocol::Udp, backend, Timeouts::default())
    }

    /// Adds or replaces a rule in the plan.
    pub fn set(
        &mut self,
        name: &str,
        protocol: Protocol,
        listen: SocketAddr,
        backend: SocketAddr,
    ) -> &mut RulePlan {
        let scope = Scope::Address(listen.ip());
        let ports = PortRange::single(listen.port()).unwrap();
        let sockets = [(Socket { protocol, scope, port: listen.port() }, ports)].into();
        let rule = RulePlan {
            sockets,
            pool: PoolPlan::to(backend),
            source: Source::Kernel,
            timeouts: Timeouts::default(),
            max_connections: None,
        };
        self.plan.rules.insert(rule_name(name), rule);
        self.plan.rules.get_mut(&rule_name(name)).unwrap()
    }

    /// A TCP rule with a free port and a pool of these members; returns the address to connect to.
    pub fn pool(
        protocol: Protocol,
        members: Vec<Member>,
        change: impl FnOnce(&mut RulePlan),
    ) -> (Self, SocketAddr) {
        let mut proxy = Self::new();
        let listen = free(protocol, Ipv4Addr::LOCALHOST.into());
        let rule =
            proxy.set("rule", protocol, listen, members[0].target.socket(PortRange::single(1).unwrap(), 1));
        rule.pool.meets = Meets::Members(members);
        change(rule);
        proxy.apply().unwrap();
        (proxy, listen)
    }

    /// The plan of the only rule.
    pub fn rule(&mut self) -> &mut RulePlan {
        self.plan.rules.values_mut().next().unwrap()
    }

    /// What new flows of the only rule meet from now on, as a changed fact has it.
    pub fn adjust(&mut self, meets: Meets) {
        self.rule().pool.meets = meets;
        let change = Plan::diff(self.engine.plan(), &self.plan);
        self.engine.adjust(&change).unwrap();
        assert_eq!(*self.engine.plan(), self.plan);
    }

    /// The numbers of one member of the only rule.
    pub fn member(&mut self, member: &Member) -> MemberCounters {
        self.snapshot().members["rule"][&member.target.to_string()].clone()
    }

    pub fn told(&self, what: &str) -> usize {
        self.messages.lock().unwrap().iter().filter(|message| message.contains(what)).count()
    }

    pub fn apply(&mut self) -> Result<Changed, EngineError> {
        self.engine.prepare(&self.plan)?;
        self.engine.commit()
    }

    pub fn snapshot(&mut self) -> EngineSnapshot {
        self.engine.observer().unwrap().observe().unwrap()
    }

    pub fn counters(&mut self, rule: &str) -> RuleCounters {
        self.snapshot().rules[rule]
    }

    pub fn gauge(&mut self, name: &str) -> u64 {
        self.snapshot().gauges[name]
    }

    /// Waits until the snapshot is as wanted.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&EngineSnapshot) -> bool) {
        let start = Instant::now();
        while !wanted(&self.snapshot()) {
            assert!(start.elapsed() < SOON, "{what}: {:#?}", self.snapshot());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn rule_name(name: &str) -> RuleName {
    RuleName::new(name).unwrap()
}

/// An address whose port nobody holds just now.
pub fn free(protocol: Protocol, ip: IpAddr) -> SocketAddr {
    let any = SocketAddr::new(ip, 0);
    match protocol {
        Protocol::Tcp => TcpListener::bind(any).unwrap().local_addr().unwrap(),
        Protocol::Udp => UdpSocket::bind(any).unwrap().local_addr().unwrap(),
    }
}

/// A TCP server on a free port of `ip` that runs `serve` for each connection in a thread.
pub fn server_on(ip: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    self::serve(listener, serve);
    address
}

/// Runs `each` for each connection in a thread.
pub fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + 'static) {
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, each) = (stream.unwrap(), each.clone());
            thread::spawn(move || each(stream));
        }
    });
}

/// A member at `address`, of weight 1.
pub fn member(address: SocketAddr) -> Member {
    match PoolPlan::to(address).meets {
        Meets::Members(mut members) => members.remove(0),
        Meets::Refuse | Meets::Drop => unreachable!("a pool of one address has one member"),
    }
}

pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    server_on("127.0.0.1", serve)
}

/// Sends back what it gets, and the end.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16384];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Members of weight 1 whose servers say their place in the list, one byte, and then echo.
pub fn tellers(count: u8) -> Vec<Member> {
    let teller = |place| {
        member(server(move |mut stream| {
            if stream.write_all(&[place]).is_ok() {
                echo(stream);
            }
        }))
    };
    (0..count).map(teller).collect()
}

/// Which of the [`tellers`] this connection leads to.
pub fn told_by(stream: &mut TcpStream) -> usize {
    let mut place = [0];
    stream.read_exact(&mut place).unwrap();
    place[0].into()
}

/// How many of `count` connections, one after the other, each of the `members` tellers gets.
pub fn spread(address: SocketAddr, count: usize, members: usize) -> Vec<usize> {
    let mut counts = vec![0; members];
    for _ in 0..count {
        let mut stream = connect(address);
        counts[told_by(&mut stream)] += 1;
        reset(stream);
    }
    counts
}

/// Ends a connection by a reset, which leaves no TIME_WAIT behind.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// A connection from this address, with a read timeout.
pub fn connect_from(source: SocketAddr, address: SocketAddr) -> TcpStream {
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &source).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// A connection that waits in the kernel's queue gets no answer.
pub fn waits(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let kind = stream.read(&mut [0]).map_err(|e| e.kind());
    stream.set_read_timeout(Some(SOON)).unwrap();
    kind == Err(ErrorKind::WouldBlock)
}

/// A listener that never accepts and whose queue is full: connect() to it stays unanswered.
pub fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fill.push(stream);
        assert!(fill.len() < 100, "the queue does not fill");
    }
    (listener, fill)
}

/// How much CPU this process takes in one second of doing nothing.
pub fn idle_cpu() -> Duration {
    let before = cpu_time();
    thread::sleep(Duration::from_secs(1));
    cpu_time() - before
}

/// A connection with a read timeout, so that a hang is a failure.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// One question and its answer over a stream that echoes.
pub fn ask(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    stream.write_all(question).unwrap();
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// Bytes that no shift or swap leaves alike.
pub fn noise(length: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect()
}

/// A UDP server that answers every datagram with `reply(datagram)`.
pub fn udp_server_on(ip: &str, reply: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                _ = socket.send_to(&reply(&buffer[..length]), from);
            }
        }
    });
    address
}

pub fn udp_client(address: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// A datagram to `listen`, where rule "rule" has nobody to send it to, is refused by an ICMP message; the refusal counts.
pub fn udp_refused(proxy: &mut Proxy, listen: SocketAddr) {
    let client = udp_client(listen);
    client.send(b"anyone?").unwrap();
    let error = client.recv(&mut [0; 8]).expect_err("needs CAP_NET_RAW");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{listen}: needs CAP_NET_RAW");
    proxy.until("counted", |s| s.rules["rule"].failed == Some(1) && s.gauges["icmp_refusals_sent"] == 1);
}

pub fn udp_ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).unwrap();
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

/// User and system CPU time of this process.
pub fn cpu_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
}

/// A TLS ClientHello (RFC 8446 section 4.1.2) for `name`, as a handshake message without records; `padding` bytes of
/// padding (RFC 7685) make it long.
pub fn client_hello(name: Option<&str>, padding: usize) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        extensions.extend(extension(0, &sized(&entry)));
    }
    // Supported groups, signature algorithms, supported versions: what every client sends.
    extensions.extend(extension(10, &sized(&[0, 29])));
    extensions.extend(extension(13, &sized(&[4, 3, 8, 4])));
    extensions.extend(extension(43, &[2, 3, 4]));
    if padding > 0 {
        extensions.extend(extension(21, &vec![0; padding]));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(sized(&[0x13, 0x01, 0x13, 0x02]));
    body.extend([1, 0]);
    body.extend(sized(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

/// A handshake message in records of at most `length` bytes.
pub fn records(handshake: &[u8], length: usize) -> Vec<u8> {
    let record =
        |part: &[u8]| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    handshake.chunks(length).flat_map(record).collect()
}
