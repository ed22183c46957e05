//! Where client and backend may be: the gateway itself, the same network, two clients, two servers.

use crate::topology::{LAN4, LAN6, WAN4};
use crate::traffic::{Server, tcp_works, udp_works};
use crate::{Engine, Portway, Topology};

/// The gateway is itself the client: to each of its addresses, and to loopback.
pub fn from_the_gateway(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let rules = engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for address in [LAN4, WAN4, "127.0.0.1", "[fd01::1]"] {
        tcp_works(&net.gateway, &format!("{address}:8000"));
    }
    for address in [LAN4, "127.0.0.1"] {
        udp_works(&net.gateway, &format!("{address}:8000"));
    }
    tcp_works(net.client(), &format!("{LAN4}:8000"));
}

/// The gateway is itself the client, to the loopback address of IPv6.
pub fn from_the_gateway_v6_loopback(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(net.server(), "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("[::]:8000", "[fd02::10]:7000"));
    tcp_works(&net.gateway, "[::1]:8000");
}

/// The client is in the backend's own network (hairpin): answers must come back through the gateway.
pub fn hairpin(engine: Engine) {
    let net = Topology::with(1, 2);
    let _server = Server::tcp_echo(net.server(), "10.2.0.10:7000");
    let _udp = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "10.2.0.10:7000"));
    tcp_works(&net.servers[1], &format!("{WAN4}:8000"));
    udp_works(&net.servers[1], &format!("{WAN4}:8000"));
    // Even the backend itself may be the client.
    tcp_works(net.server(), &format!("{WAN4}:8000"));
}

/// The backend is on the gateway, at one of its addresses.
pub fn backend_on_the_gateway(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::tcp_echo(&net.gateway, "10.2.0.1:7000");
    let _v6 = Server::tcp_echo(&net.gateway, "[fd02::1]:7000");
    let _udp = Server::udp_echo(&net.gateway, "10.2.0.1:7000");
    let rules = engine.forward("tcp+udp/10.1.0.1:8000", "10.2.0.1:7000")
        + &engine.forward("[fd01::1]:8000", "[fd02::1]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    tcp_works(net.client(), &format!("[{LAN6}]:8000"));
    udp_works(net.client(), &format!("{LAN4}:8000"));
    tcp_works(&net.gateway, &format!("{LAN4}:8000"));
}

/// The backend is on the gateway's loopback.
pub fn backend_on_loopback(engine: Engine) {
    let net = Topology::new();
    let _v4 = Server::tcp_echo(&net.gateway, "127.0.0.1:7000");
    let _udp = Server::udp_echo(&net.gateway, "127.0.0.1:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("tcp+udp/0.0.0.0:8000", "127.0.0.1:7000"));
    tcp_works(net.client(), &format!("{LAN4}:8000"));
    udp_works(net.client(), &format!("{LAN4}:8000"));
    tcp_works(&net.gateway, "127.0.0.1:8000");
    tcp_works(&net.gateway, &format!("{LAN4}:8000"));
}

/// The backend is on the gateway's IPv6 loopback.
pub fn backend_on_loopback_v6(engine: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(&net.gateway, "[::1]:7000");
    let _portway = Portway::start(&net.gateway, &engine.forward("[::]:8000", "[::1]:7000"));
    tcp_works(net.client(), &format!("[{LAN6}]:8000"));
    tcp_works(&net.gateway, &format!("[{LAN6}]:8000"));
}

/// Whatever engine `auto` takes for an IPv6 loopback backend, it works.
pub fn auto_and_loopback_v6(_: Engine) {
    let net = Topology::new();
    let _server = Server::tcp_echo(&net.gateway, "[::1]:7000");
    let _portway = Portway::start(&net.gateway, "[[rule]]\nlisten = '[::]:8000'\nforward = '[::1]:7000'\n");
    tcp_works(net.client(), &format!("[{LAN6}]:8000"));
}

/// Two clients and two servers, each pair by its own rule.
pub fn two_clients_two_servers(engine: Engine) {
    let net = Topology::with(2, 2);
    let servers = [("10.2.0.10:7000", 0), ("10.2.0.11:7000", 1)]
        .map(|(address, i)| Server::tcp_echo(&net.servers[i], address));
    let rules =
        engine.forward("0.0.0.0:8000", "10.2.0.10:7000") + &engine.forward("0.0.0.0:8001", "10.2.0.11:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for client in &net.clients {
        tcp_works(client, "10.1.0.1:8000");
        tcp_works(client, "10.1.0.1:8001");
    }
    for server in &servers {
        assert_eq!(server.peers().len(), 2);
    }
}
