//! The lanes: ways to forward, each between a client and a server of its own.
//!
//! Here is which there are, what they are compared with and whether this host can have them. How one is set up is in
//! [`setup`].

pub mod files;
pub mod setup;

use std::fs;
use std::path::Path;

use portway_lab::{Engine, process};

use crate::host;
use crate::options::Peer;
use crate::record::Kind;

/// A way to forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Routes only: the zero line.
    Routing,
    /// Routes only, over wires that are set up as XDP needs them: the zero line of [`Engine::Xdp`].
    RoutingXdpWires,
    /// DNAT and SNAT by iptables.
    Iptables,
    /// DNAT and SNAT by nft.
    Nft,
    /// IPVS with SNAT, which is LVS full NAT.
    Ipvs,
    /// HAProxy, copying.
    Haproxy,
    /// HAProxy with splice switched on.
    HaproxySplice,
    /// The stream module of nginx.
    NginxStream,
    /// realm.
    Realm,
    /// socat, a process for each connection.
    Socat,
    /// One of Portway's engines.
    Portway(Engine),
    /// A program that the user names.
    Peer(Peer),
}

impl Scheme {
    /// All but the user's, in the order in which they are shown.
    pub const ALL: [Self; 14] = [
        Self::Routing,
        Self::RoutingXdpWires,
        Self::Iptables,
        Self::Nft,
        Self::Ipvs,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::NginxStream,
        Self::Realm,
        Self::Socat,
        Self::Portway(Engine::Nftables),
        Self::Portway(Engine::Ebpf),
        Self::Portway(Engine::Xdp),
        Self::Portway(Engine::Proxy),
    ];

    /// The name by which it is known.
    pub fn name(&self) -> String {
        let name = match self {
            Self::Routing => "routing",
            Self::RoutingXdpWires => "routing-xdp-wires",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
            Self::Ipvs => "ipvs",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::NginxStream => "nginx-stream",
            Self::Realm => "realm",
            Self::Socat => "socat",
            Self::Portway(Engine::Nftables) => "portway-nftables",
            Self::Portway(Engine::Ebpf) => "portway-ebpf",
            Self::Portway(Engine::Xdp) => "portway-xdp",
            Self::Portway(Engine::Clsact) => "portway-clsact",
            Self::Portway(Engine::Proxy) => "portway-proxy",
            Self::Peer(peer) => &peer.name,
        };
        name.to_owned()
    }

    /// What it is, in a few words.
    pub fn title(&self) -> String {
        let title = match self {
            Self::Routing => "plain routing, nothing is forwarded",
            Self::RoutingXdpWires => "plain routing over wires set up for XDP",
            Self::Iptables => "iptables, DNAT and SNAT written by hand",
            Self::Nft => "nft, DNAT and masquerade written by hand",
            Self::Ipvs => "IPVS with SNAT (LVS full NAT)",
            Self::Haproxy => "HAProxy, TCP mode",
            Self::HaproxySplice => "HAProxy, TCP mode, splicing",
            Self::NginxStream => "nginx, stream module",
            Self::Realm => "realm",
            Self::Socat => "socat, a process for each connection",
            Self::Portway(Engine::Nftables) => "Portway, engine nftables",
            Self::Portway(Engine::Ebpf) => "Portway, engine ebpf at TC",
            Self::Portway(Engine::Xdp) => "Portway, engine ebpf at XDP",
            Self::Portway(Engine::Clsact) => "Portway, engine ebpf at TC by clsact",
            Self::Portway(Engine::Proxy) => "Portway, engine proxy",
            Self::Peer(peer) => &peer.command,
        };
        title.to_owned()
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Routing | Self::RoutingXdpWires => Kind::Routing,
            Self::Iptables | Self::Nft | Self::Ipvs => Kind::Kernel,
            Self::Portway(_) => Kind::Portway,
            _ => Kind::Program,
        }
    }

    /// The lane that tells what this one adds: the same hosts and wires without a forwarder. A zero line is its own.
    pub fn base(&self) -> Self {
        match self {
            Self::RoutingXdpWires | Self::Portway(Engine::Xdp) => Self::RoutingXdpWires,
            _ => Self::Routing,
        }
    }

    /// Whether a quick run has it: the zero lines, the kernel's, and Portway.
    pub fn is_usual(&self) -> bool {
        !matches!(self.kind(), Kind::Program)
    }

    /// Whether a process at the gateway touches what is forwarded.
    pub fn is_relay(&self) -> bool {
        matches!(self.kind(), Kind::Program) || *self == Self::Portway(Engine::Proxy)
    }

    /// Whether its flows are the kernel's connection tracking's.
    pub fn has_conntrack(&self) -> bool {
        matches!(self.kind(), Kind::Kernel) || *self == Self::Portway(Engine::Nftables)
    }

    /// Whether it forwards UDP.
    pub fn takes_udp(&self) -> bool {
        !matches!(self, Self::Haproxy | Self::HaproxySplice | Self::Socat | Self::Peer(_))
    }

    /// Whether this host can have it.
    ///
    /// # Errors
    /// Why not, as a sentence without a full stop.
    pub fn available(&self) -> Result<(), String> {
        let programs: &[&str] = match self {
            Self::RoutingXdpWires | Self::Portway(Engine::Xdp) => &["ethtool"],
            Self::Routing | Self::Portway(_) => &[],
            Self::Iptables => &["iptables-restore"],
            Self::Nft => &["nft"],
            Self::Ipvs => &["ipvsadm", "iptables-restore"],
            Self::Haproxy | Self::HaproxySplice => &["haproxy"],
            Self::NginxStream => &["nginx"],
            Self::Realm => &["realm"],
            Self::Socat => &["socat"],
            Self::Peer(peer) => {
                let program = peer.command.split_whitespace().next().unwrap_or_default();
                return process::locate(Path::new(program))
                    .map(drop)
                    .ok_or(format!("there is no program {program}"));
            }
        };
        if *self == Self::Ipvs && !kernel_has("ip_vs") {
            return Err("this kernel has no IPVS (CONFIG_IP_VS)".to_owned());
        }
        match programs.iter().find(|program| process::locate(Path::new(program)).is_none()) {
            Some(&"realm") => Err(NO_REALM.to_owned()),
            Some(program) => Err(process::advice(program)),
            None if *self == Self::Realm
                && !host::version("realm", "-v").is_some_and(|said| said.starts_with("Realm ")) =>
            {
                Err(format!("the realm on PATH is another program; {NO_REALM}"))
            }
            None if *self == Self::NginxStream && !Path::new(setup::STREAM_MODULE).exists() => {
                Err("nginx has no stream module: apt-get install libnginx-mod-stream".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// Debian's `realm` (realmd) joins domains, and the crate of that name is a web framework.
const NO_REALM: &str =
    "the relay realm is not on PATH (https://github.com/zhboner/realm: its releases, or cargo install --git)";

/// Whether a part of the kernel is built in, loaded, or there to be loaded.
fn kernel_has(module: &str) -> bool {
    if Path::new("/sys/module").join(module).exists() {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        let list =
            fs::read_to_string(Path::new("/lib/modules").join(release.trim()).join(list)).unwrap_or_default();
        list.lines()
            .any(|line| line.split(':').next().is_some_and(|path| path.contains(&format!("/{module}.ko"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_lines_are_their_own_base_and_names_differ() {
        let mut names: Vec<String> = Scheme::ALL.iter().map(Scheme::name).collect();
        for scheme in Scheme::ALL {
            assert_eq!(scheme.base().kind(), Kind::Routing);
            assert_eq!(scheme.kind() == Kind::Routing, scheme.base() == scheme);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Scheme::ALL.len());
    }
}
