//! Path MTU discovery (RFC 1191, RFC 8201) across the gateway: a wire in the middle that takes 1280 bytes, between the gateway
//! and the server or between the client and the gateway. The router before it complains to the address that it knows, which
//! is the gateway's; only if the gateway passes that on to the true sender does anything arrive.

use std::net::UdpSocket;
use std::time::Duration;

use crate::hops::{FAR_CLIENT4, FAR_SERVER4, FAR_SERVER6};
use crate::netns::wait_for;
use crate::topology::{LAN4, LAN6};
use crate::traffic::Server;
use crate::{Engine, Portway, Topology};

use super::http::there_and_back;

const MTU: u32 = 1280;
/// Enough for a window to grow beyond what the narrow wire takes at once.
const BYTES: usize = 3_000_000;

/// TCP, the narrow wire between the gateway and the server: the client's segments are too large.
pub fn tcp_before_the_server(engine: Engine) {
    let net = Topology::new();
    let far = net.far_server(MTU);
    let rules =
        engine.forward("0.0.0.0:8888", "10.3.0.10:80") + &engine.forward("[::]:8888", "[fd03::10]:81");
    there_and_back(&net, net.client(), &far.host, ["10.3.0.10:80", "[fd03::10]:81"], &rules, BYTES);
}

/// TCP, the narrow wire between the client and the gateway: the server's segments are too large.
pub fn tcp_behind_the_client(engine: Engine) {
    let net = Topology::new();
    let far = net.far_client(MTU);
    let rules =
        engine.forward("0.0.0.0:8888", "10.2.0.10:80") + &engine.forward("[::]:8888", "[fd02::10]:81");
    there_and_back(&net, &far.host, net.server(), ["10.2.0.10:80", "[fd02::10]:81"], &rules, BYTES);
}

/// TCP across families: what a router of one family says is told in the other, with what the headers differ by taken off
/// (RFC 7915, sections 4.2 and 5.2).
pub fn tcp_across_families(engine: Engine) {
    let net = Topology::new();
    let server = net.far_server(MTU);
    let client = net.far_client(MTU);
    let rules =
        engine.forward("0.0.0.0:8888", "[fd03::10]:81") + &engine.forward("[::]:8888", "10.3.0.10:80");
    there_and_back(&net, &client.host, &server.host, ["10.3.0.10:80", "[fd03::10]:81"], &rules, BYTES);
}

/// Asks for an echo of a datagram that is too large for the narrow wire. The first ones are lost; then the sender has been
/// told, and its kernel sends what fits.
fn large_echo(socket: &UdpSocket, what: &str) {
    let message: Vec<u8> = (0..1400).map(|i| (i % 251) as u8).collect();
    let mut answer = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive time");
    for _ in 0..8 {
        // A send may fail with what an ICMP error has left at the socket; the next one does not.
        let _ = socket.send(&message);
        if let Ok(length) = socket.recv(&mut answer) {
            assert!(answer[..length] == message, "{what}: other bytes came back");
            return;
        }
    }
    panic!("{what}: nothing fits through, although the sender should have been told");
}

/// UDP with DF, which Linux sets until it knows better, the narrow wire before the server. The answer comes back too, which is
/// the server's kernel's own discovery.
pub fn udp_before_the_server(engine: Engine) {
    let net = Topology::new();
    let far = net.far_server(MTU);
    let _v4 = Server::udp_echo(&far.host, &format!("{FAR_SERVER4}:7000"));
    let _v6 = Server::udp_echo(&far.host, &format!("[{FAR_SERVER6}]:7000"));
    let rules = engine.forward("udp/0.0.0.0:8000", "10.3.0.10:7000")
        + &engine.forward("udp/[::]:8000", "[fd03::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for to in [format!("{LAN4}:8000"), format!("[{LAN6}]:8000")] {
        large_echo(&net.client().dial(&to), &to);
    }
}

/// UDP with DF, the narrow wire behind the client: the server's datagrams are too large.
pub fn udp_behind_the_client(engine: Engine) {
    let net = Topology::new();
    let far = net.far_client(MTU);
    let _v4 = Server::udp_echo(net.server(), "10.2.0.10:7000");
    let _v6 = Server::udp_echo(net.server(), "[fd02::10]:7000");
    let rules = engine.forward("udp/0.0.0.0:8000", "10.2.0.10:7000")
        + &engine.forward("udp/[::]:8000", "[fd02::10]:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    for to in [format!("{LAN4}:8000"), format!("[{LAN6}]:8000")] {
        large_echo(&far.host.dial(&to), &to);
    }
    let learned = net.server().run("ip route get 10.2.0.1");
    assert!(learned.contains("mtu 1280"), "the server was told about {FAR_CLIENT4}'s path: {learned}");
}

/// UDP with DF across families, the narrow wire before the server: the sender is told how much fits, counted with the header of
/// its own family, and so much is carried.
pub fn udp_across_families(engine: Engine) {
    let net = Topology::new();
    let far = net.far_server(MTU);
    let rules = engine.forward("udp/0.0.0.0:8000", "[fd03::10]:7000")
        + &engine.forward("udp/[::]:8000", "10.3.0.10:7000");
    let _portway = Portway::start(&net.gateway, &rules);
    let _v4 = Server::udp_echo(&far.host, &format!("{FAR_SERVER4}:7000"));
    let _v6 = Server::udp_echo(&far.host, &format!("[{FAR_SERVER6}]:7000"));
    // The headers of IPv6 and of UDP are 48 bytes, those of IPv4 and of UDP 28.
    for (host, listener, fits, headers) in
        [(LAN4, format!("{LAN4}:8000"), MTU - 20, 28), (LAN6, format!("[{LAN6}]:8000"), MTU + 20, 48)]
    {
        let socket = net.client().dial(&listener);
        wait_for(&format!("the sender to {listener} to be told"), || {
            let _ = socket.send(&[b'x'; 1400]);
            net.client().run(&format!("ip route get {host}")).contains(&format!("mtu {fits}"))
        });
        let message = vec![b'f'; (fits - headers) as usize];
        let mut answer = [0; 2048];
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive time");
        let echoed = (0..8).any(|_| {
            // What an error has left at the socket is told first.
            let _ = socket.send(&message);
            socket.recv(&mut answer).is_ok_and(|length| answer[..length] == message)
        });
        assert!(echoed, "what fits is not carried by {listener}");
    }
}
