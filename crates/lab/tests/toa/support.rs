//! A host with servers in a control group, the gateway in front of it, and `portway toa` on it.

use portway_lab::gateway::{Call, Gateway};
use portway_lab::toa::nginx;
pub use portway_lab::toa::{Toa, run as toa};
use portway_lab::{Cgroup, Namespace, Process, Scratch};
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

    /// An nginx that says whom it sees.
    pub fn nginx(&self, listen: &[&str]) -> (Process, Scratch) {
        nginx(&self.ns, listen)
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
        Toa::start(&self.cgroup, trust)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What a test leaves attached is not to outlive it, whether or not it passes.
        let _ = toa(&["--clear", "--cgroup", self.cgroup.name()]);
    }
}
