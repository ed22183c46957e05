//! A host with servers in a control group, the gateway in front of it, and `portway toa` on it.

use std::process::Command;
use std::time::Instant;

use portway_lab::gateway::{Call, Gateway};
use portway_lab::netns::PATIENCE;
use portway_lab::{Cgroup, Namespace, Process, Scratch, peer, portway, process};
use serde_json::Value;

/// The gateway's addresses.
pub const GATEWAY: &str = "10.3.0.9:40000";
pub const GATEWAY6: &str = "[fd03::9]:40000";

/// What each of these servers answers a request with: the addresses of accept(), getpeername() and SO_PEERNAME (28).
const WHO: &str = "
import socket, sys
address, port, backlog = sys.argv[1], int(sys.argv[2]), 100
family = socket.AF_INET6 if ':' in address else socket.AF_INET
server = socket.socket(family)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if family == socket.AF_INET6:
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind((address, port))
server.listen(backlog)
while True:
    client, accepted = server.accept()
    while client.recv(1000) == b'again':
        client.sendall(client.getpeername()[0].encode())
    peer = client.getpeername()
    raw = client.getsockopt(socket.SOL_SOCKET, 28, 16 if family == socket.AF_INET else 28)
    address = raw[4:8] if family == socket.AF_INET else raw[8:24]
    name = socket.inet_ntop(family, address), int.from_bytes(raw[2:4], 'big')
    client.sendall(f'{accepted[0]} {accepted[1]} {peer[0]} {peer[1]} {name[0]} {name[1]}'.encode())
    client.close()
";

/// A host whose servers are in a control group of their own.
pub struct Host {
    pub ns: Namespace,
    pub cgroup: Cgroup,
    pub gateway: Gateway,
}

impl Host {
    pub fn new() -> Self {
        let ns = Namespace::new("backend");
        let cgroup = Cgroup::new();
        let gateway = Gateway::to(&ns);
        ns.put_into(&cgroup);
        Self { ns, cgroup, gateway }
    }

    /// A server that says whom it sees.
    pub fn who(&self, address: &str, port: u16) -> Process {
        let mut command = self.ns.command("python3");
        command.args(["-c", WHO, address, &port.to_string()]);
        Process::start(&mut command).until_tcp(&self.ns, port)
    }

    /// nginx, which writes whom it sees into its log, and into its answers.
    pub fn nginx(&self, listen: &[&str]) -> (Process, Scratch) {
        let logs = Scratch::new();
        let listen: String = listen.iter().map(|address| format!("listen {address};")).collect();
        let contexts = format!(
            "worker_processes 1; events {{ worker_connections 500; }}
             http {{ log_format who '$remote_addr $remote_port'; access_log {} who;
                    server {{ {listen} return 200 '$remote_addr $remote_port'; }} }}",
            logs.join("access.log").display()
        );
        (peer::nginx_raw(&self.ns, &contexts, 80), logs)
    }

    /// What a [`Host::who`] says about a connection.
    pub fn asks(&mut self, call: &Call) -> String {
        self.gateway.call(call, "?").unwrap_or_else(|e| panic!("{call:?}: {e}"))
    }

    /// What it says when all of its ways see the same.
    pub fn seen(&mut self, call: &Call) -> String {
        let answer = self.asks(call);
        let words: Vec<&str> = answer.split(' ').collect();
        assert_eq!(words[..2], words[2..4], "accept() and getpeername() differ");
        assert_eq!(words[..2], words[4..], "accept() and SO_PEERNAME differ");
        words[..2].join(" ")
    }

    /// A counter of this host's control group.
    pub fn count(&self, what: &str) -> u64 {
        let status = self.status();
        status[what].as_u64().unwrap_or_else(|| panic!("no counter {what} in {status:#}"))
    }

    /// The status of this host's control group.
    pub fn status(&self) -> Value {
        let text = toa(&["--status", "--json", "--cgroup", self.cgroup.name()]).unwrap();
        let rows: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows:#}");
        rows[0].clone()
    }

    /// Starts `portway toa` for this host's servers.
    pub fn toa(&self, trust: &[&str]) -> Toa {
        Toa::try_start(&self.cgroup, trust).unwrap_or_else(|said| panic!("portway toa did not start: {said}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What a test leaves attached is not to outlive it, whether or not it passes.
        let _ = toa(&["--clear", "--cgroup", self.cgroup.name()]);
    }
}

/// Runs `portway toa WORDS` to its end.
pub fn toa(words: &[&str]) -> Result<String, String> {
    process::attempt(Command::new(portway::binary()).arg("toa").args(words))
}

/// `portway toa` in the foreground.
pub struct Toa {
    pub process: Process,
    cgroup: String,
}

impl Toa {
    pub fn try_start(cgroup: &Cgroup, trust: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(portway::binary());
        command.args(["toa", "--cgroup"]).arg(cgroup.path());
        for network in trust {
            command.args(["--trust", network]);
        }
        let mut process = Process::start(&mut command);
        let start = Instant::now();
        while !process.log().lines().any(|line| line == "ready") {
            if process.ended().is_some() {
                return Err(process.log());
            }
            assert!(start.elapsed() < PATIENCE, "neither ready nor ended: {}", process.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(Self { process, cgroup: cgroup.name().to_owned() })
    }
}

impl Drop for Toa {
    fn drop(&mut self) {
        // What a test kills or leaves attached is not to outlive it.
        self.process.signal(rustix::process::Signal::KILL);
        self.process.wait(PATIENCE);
        let _ = toa(&["--clear", "--cgroup", &self.cgroup]);
    }
}
