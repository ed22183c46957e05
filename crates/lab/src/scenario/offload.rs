//! Large transfers under every setting of what a NIC takes over from the kernel: segmentation, checksums, merging. A packet that
//! is rewritten must stay right in all its states: whole or still to be cut, with its checksum done, half done or to do.

use std::fs;

use crate::topology::{LAN4, LAN6};
use crate::{Engine, Namespace, Portway, Scratch, Topology, peer};

/// The size of a transfer: some hundred trains of 64 KiB each way, so that a rare bad one is met.
const BYTES: usize = 24 << 20;

/// An uploading and a downloading client, IPv4 and IPv6, that insist on the content's hash.
struct Transfers {
    net: Topology,
    files: Scratch,
    sum: String,
    _servers: [crate::Process; 2],
    _portway: Portway,
}

impl Transfers {
    fn new(engine: Engine) -> Self {
        let (net, files) = (Topology::new(), Scratch::new());
        files.dir("up");
        let sum = peer::blob(&files.join("blob"), BYTES);
        let servers = ["10.2.0.10:80", "[fd02::10]:81"].map(|on| peer::nginx(net.server(), on, files.path()));
        let rules =
            engine.forward("0.0.0.0:8888", "10.2.0.10:80") + &engine.forward("[::]:8888", "[fd02::10]:81");
        let portway = Portway::start(&net.gateway, &rules);
        Self { net, files, sum, _servers: servers, _portway: portway }
    }

    /// One transfer each way and family.
    fn arrive(&self, setting: &str) {
        let dir = self.files.path().display();
        for host in [LAN4.to_owned(), format!("[{LAN6}]")] {
            let curl = |words: &str| {
                let line = format!("curl -sSfg --max-time 20 {words}");
                self.net.client().try_run(&line).unwrap_or_else(|e| panic!("{setting}: {e}"));
            };
            curl(&format!("-o {dir}/got http://{host}:8888/blob"));
            assert_eq!(peer::sha256(&self.files.join("got")), self.sum, "download from {host}, {setting}");
            curl(&format!("-T {dir}/blob http://{host}:8888/up/put"));
            assert_eq!(peer::sha256(&self.files.join("up/put")), self.sum, "upload to {host}, {setting}");
            fs::remove_file(self.files.join("up/put")).expect("just uploaded");
        }
    }

    /// Both ends that a packet of the connection starts from.
    fn ends(&self) -> [(&Namespace, &str); 2] {
        [(self.net.client(), "eth0"), (self.net.server(), "eth0")]
    }

    fn gateway(&self) -> [(&Namespace, &str); 2] {
        [(&self.net.gateway, "lan"), (&self.net.gateway, "wan")]
    }
}

fn set(interfaces: &[(&Namespace, &str)], features: &str) {
    for (host, interface) in interfaces {
        host.run(&format!("ethtool -K {interface} {features}"));
    }
}

/// As the interfaces are by default; then without segmentation at the ends, and without any of it.
pub fn segmentation(engine: Engine) {
    let transfers = Transfers::new(engine);
    transfers.arrive("as it is");
    set(&transfers.ends(), "tso off");
    transfers.arrive("no TSO at the ends");
    set(&transfers.ends(), "tso off gso off");
    transfers.arrive("no TSO, no GSO at the ends");
    set(&transfers.gateway(), "tso off gso off");
    transfers.arrive("no TSO, no GSO anywhere");
}

/// Checksums that the ends compute themselves, that the gateway checks itself, and that the gateway must finish itself.
pub fn checksums(engine: Engine) {
    let transfers = Transfers::new(engine);
    set(&transfers.ends(), "tx off");
    transfers.arrive("checksums by the ends");
    set(&transfers.ends(), "rx off");
    set(&transfers.gateway(), "rx off");
    transfers.arrive("checksums by the ends, checked by everybody");
    set(&transfers.gateway(), "tx off");
    transfers.arrive("no checksum is left to a NIC");
    // XDP on veth needs whole checksums from the ends (crate::wire), so there this is no other setting.
    if engine != Engine::Xdp {
        set(&transfers.ends(), "tx on");
        transfers.arrive("checksums left to the NIC by the ends, and finished by the gateway");
    }
}

/// Trains that the gateway and the ends merge themselves (GRO), and no scatter-gather anywhere, so that packets are linear.
pub fn merging(engine: Engine) {
    let transfers = Transfers::new(engine);
    set(&transfers.gateway(), "gro on");
    set(&transfers.ends(), "gro on");
    transfers.arrive("GRO everywhere");
    set(&transfers.gateway(), "gro off");
    set(&transfers.ends(), "tso off gso off sg off");
    transfers.arrive("single linear packets");
}
