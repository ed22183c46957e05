//! Network namespaces and plans for the tests. Needs root and `ip`, and fails without them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; tests may fail loudly")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portway_core::assign::assign;
use portway_core::caps::Caps;
use portway_core::engine::{Changed, Engine, EngineError};
use portway_core::facts::Facts;
use portway_core::plan::ebpf::Plan;
use portway_core::plan::{Plans, World};
use portway_ebpf::EbpfEngine;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace that goes away with the value.
pub struct Namespace(String, PathBuf);

impl Namespace {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let name = format!("pwebpf-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let mut namespace = Self(name, PathBuf::new());
        namespace.ip("link set lo up");
        let cookie = namespace.within(|| portway_ebpf::namespace_cookie().unwrap());
        namespace.1 = PathBuf::from("/sys/fs/bpf/portway").join(cookie.to_string());
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` with these words in the namespace.
    pub fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = ["-n", &self.0].into_iter().chain(words.split_whitespace()).collect();
        run("ip", &words)
    }

    /// Runs a program in the namespace.
    pub fn run(&self, line: &str) -> String {
        self.run_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same, of words with spaces in them.
    pub fn run_words(&self, words: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.0], words].concat())
    }

    /// Runs `f` in this namespace, and how much of a processor's time that took, whoever else had the processors.
    pub fn timed<T: Send>(&self, f: impl FnOnce() -> T + Send) -> (T, Duration) {
        let cpu = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
        };
        self.within(|| {
            let before = cpu();
            let value = f();
            (value, cpu() - before)
        })
    }

    /// Runs `f` on a thread in this namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let fd = std::os::fd::AsFd::as_fd(&file);
                move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)).unwrap();
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What a test that failed has left would hold its memory until the next boot.
        let _ = std::fs::remove_dir_all(&self.1);
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs a program to its end and returns what it printed; panics when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until something is so.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client 10.1.0.2 fd01::2, a gateway 10.1.0.1 10.2.0.1 (interfaces `lan` and `wan`), a server 10.2.0.2 fd02::2. No host has a
/// route beyond its own networks, so only what is forwarded can be answered.
pub struct Lab {
    pub client: Namespace,
    pub gateway: Namespace,
    pub server: Namespace,
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self { client: Namespace::new(), gateway: Namespace::new(), server: Namespace::new() };
        for (host, near, net) in [(&lab.client, "lan", 1), (&lab.server, "wan", 2)] {
            lab.gateway.ip(&format!("link add {near} type veth peer name eth0 netns {}", host.name()));
            for (namespace, device, last) in [(&lab.gateway, near, 1), (host, "eth0", 2)] {
                namespace.ip(&format!("address add 10.{net}.0.{last}/24 dev {device}"));
                namespace.ip(&format!("address add fd0{net}::{last}/64 dev {device} nodad"));
                namespace.ip(&format!("link set {device} up"));
            }
        }
        lab.gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        lab
    }

    /// An engine in the gateway, and what it logs.
    pub fn engine(&self) -> (EbpfEngine, Arc<Mutex<Vec<String>>>) {
        engine_in(&self.gateway)
    }

    /// Has the server answer what it is sent, over TCP and UDP, on a port of all its addresses.
    pub fn serve(&self, port: u16) -> Server {
        let (tcp, udp) = self
            .server
            .within(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()));
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap();
                    let mut bytes = [0; 65_536];
                    let mut first = true;
                    while let Ok(length) = stream.read(&mut bytes) {
                        if length == 0 {
                            return;
                        }
                        let answer =
                            if std::mem::take(&mut first) { format!("{peer} ") } else { String::new() };
                        if stream
                            .write_all(answer.as_bytes())
                            .and_then(|()| stream.write_all(&bytes[..length]))
                            .is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&bytes[..length], peer);
            }
        });
        Server
    }

    /// A UDP socket of the client's.
    pub fn bind(&self, on: &str, to: &str) -> UdpSocket {
        let socket =
            self.client.within(|| UdpSocket::bind(on).and_then(|socket| socket.connect(to).map(|()| socket)));
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub fn connect(&self, to: &str) -> std::io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self.client.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A server whose threads end with the test's process.
pub struct Server;

/// An engine in a namespace, and what it logs.
pub fn engine_in(namespace: &Namespace) -> (EbpfEngine, Arc<Mutex<Vec<String>>>) {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&lines);
    let engine =
        namespace.within(|| EbpfEngine::open(move |line: &str| log.lock().unwrap().push(line.to_owned())));
    (engine.unwrap(), lines)
}

/// Sends a word and returns what comes back until the word has.
pub fn echo(stream: &mut TcpStream, word: &str) -> std::io::Result<String> {
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    let mut bytes = [0; 4096];
    while !answer.ends_with(word) {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    Ok(answer)
}

/// The plan of a file whose rules are all this engine's.
pub fn plan(file: &str) -> Plan {
    let (ruleset, diagnostics) = portway_core::config::load(file).whole();
    let ruleset = ruleset.unwrap_or_else(|| panic!("{diagnostics:?}"));
    let assignment = assign(&ruleset, &Caps::all()).unwrap();
    let world =
        World { ruleset: &ruleset, assignment: &assignment, facts: &Facts::default(), now: Duration::ZERO };
    let plan = Plans::new(world, &Default::default()).ebpf;
    assert_eq!(plan.rules.len(), ruleset.rules.len(), "a rule went to another engine");
    plan
}

/// A rule of a file.
pub fn rule(name: &str, listen: &str, forward: &str) -> String {
    format!("[[rule]]\nname = '{name}'\nengine = 'ebpf'\nlisten = '{listen}'\nforward = '{forward}'\n")
}

/// Brings an engine to a plan, as the controller does.
pub fn apply(namespace: &Namespace, engine: &mut EbpfEngine, plan: &Plan) -> Result<Changed, EngineError> {
    namespace.within(|| {
        engine.prepare(plan)?;
        let changed = engine.commit()?;
        engine.retire()?;
        Ok(changed)
    })
}

/// The same, and how much of a processor's time it took.
pub fn apply_timed(namespace: &Namespace, engine: &mut EbpfEngine, plan: &Plan) -> (Changed, Duration) {
    let (changed, took) = namespace.timed(|| {
        engine.prepare(plan)?;
        let changed = engine.commit()?;
        engine.retire()?;
        Ok::<_, EngineError>(changed)
    });
    (changed.unwrap(), took)
}

/// Where a namespace's maps and links are pinned.
pub fn pins(namespace: &Namespace) -> PathBuf {
    namespace.1.clone()
}

/// The kernel's numbers of the programs at an interface, by tcx.
pub fn attached(namespace: &Namespace, interface: &str) -> Vec<u32> {
    let index = index(namespace, interface);
    namespace.within(|| portway_ebpf::attached(index).unwrap())
}

/// An interface's index.
pub fn index(namespace: &Namespace, interface: &str) -> u32 {
    let line = namespace.ip(&format!("-o link show dev {interface}"));
    line.split(':').next().unwrap().trim().parse().unwrap()
}
