//! Hosts that are further away: behind two routers with a narrow wire between them.
//!
//! ```text
//! gateway ── the first client or server, now a router ══ narrow ══ router ── host 10.N.0.10 fd0N::10
//! ```
//!
//! Two routers, because only a wire between routers is a surprise to both ends: neither the host nor the gateway can know
//! from its own interfaces how much fits.

use crate::topology::{CLIENT4, CLIENT6, SERVER4, SERVER6};
use crate::wire::connect;
use crate::{Namespace, Topology};

/// The server behind the narrow wire.
pub const FAR_SERVER4: &str = "10.3.0.10";
/// The same, IPv6.
pub const FAR_SERVER6: &str = "fd03::10";
/// The client behind the narrow wire.
pub const FAR_CLIENT4: &str = "10.4.0.10";
/// The same, IPv6.
pub const FAR_CLIENT6: &str = "fd04::10";
/// The address of the router on the gateway's side of the narrow wire, which the gateway knows as its next hop.
pub const NEAR_ROUTER4: &str = SERVER4;

/// A host behind a narrow wire.
#[derive(Debug)]
pub struct Far {
    /// The host itself.
    pub host: Namespace,
    _router: Namespace,
}

impl Topology {
    /// A server behind the first one, which becomes a router; between them `mtu` bytes fit.
    ///
    /// # Panics
    /// Without root or iproute2.
    pub fn far_server(&self, mtu: u32) -> Far {
        far(self, self.server(), [SERVER4, SERVER6], 3, mtu)
    }

    /// A client behind the first one, likewise.
    ///
    /// # Panics
    /// Without root or iproute2.
    pub fn far_client(&self, mtu: u32) -> Far {
        far(self, self.client(), [CLIENT4, CLIENT6], 4, mtu)
    }
}

fn far(net: &Topology, near: &Namespace, near_address: [&str; 2], number: u8, mtu: u32) -> Far {
    let (router, host) = (Namespace::new("router"), Namespace::new("far"));
    connect(near, "narrow", &router, "narrow");
    connect(&router, "far", &host, "eth0");
    let (v4, v6) = (format!("10.{number}"), format!("fd0{number}:"));
    for (end, nth) in [(near, 1), (&router, 2)] {
        end.sysctl("net.ipv4.ip_forward", "1");
        end.sysctl("net.ipv6.conf.all.forwarding", "1");
        end.ip(&format!(
            "link set narrow mtu {mtu}
             address add {v4}.1.{nth}/24 dev narrow
             address add {v6}1::{nth}/64 dev narrow nodad"
        ));
    }
    router.ip(&format!(
        "address add {v4}.0.1/24 dev far
         address add {v6}:1/64 dev far nodad
         route add default via {v4}.1.1
         route add ::/0 via {v6}1::1"
    ));
    near.ip(&format!("route add {v4}.0.0/24 via {v4}.1.2\nroute add {v6}:/64 via {v6}1::2"));
    host.ip(&format!(
        "address add {v4}.0.10/24 dev eth0
         address add {v6}:10/64 dev eth0 nodad
         route add default via {v4}.0.1
         route add ::/0 via {v6}:1"
    ));
    let [near4, near6] = near_address;
    net.gateway.ip(&format!(
        "route add {v4}.0.0/16 via {near4}
         route add {v6}:/64 via {near6}
         route add {v6}1::/64 via {near6}"
    ));
    Far { host, _router: router }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fits, fits; what does not is answered by the router before the narrow wire.
    #[test]
    fn the_wire_is_narrow() {
        let net = Topology::new();
        let _server = net.far_server(1280);
        let _client = net.far_client(1280);
        for to in [FAR_SERVER4, FAR_SERVER6, FAR_CLIENT4, FAR_CLIENT6] {
            let header = if to.contains(':') { 48 } else { 28 };
            net.gateway.run(&format!("ping -c 1 -W 5 -M do -s {} {to}", 1280 - header));
            let refused = net.gateway.try_run(&format!("ping -c 1 -W 1 -M do -s {} {to}", 1281 - header));
            let said = refused.expect_err("one byte more is too much").to_lowercase();
            assert!(said.contains("mtu") || said.contains("too long") || said.contains("too big"), "{said}");
        }
    }
}
