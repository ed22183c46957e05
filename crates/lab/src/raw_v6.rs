//! A segment of a TCP connection that does not exist, over IPv6, and whether it is reset. The rest of such packets is IPv4's
//! ([`crate::raw`]): what is asked here is whether the other family's path differs.

use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use crate::Namespace;
use crate::raw::{checksum, flags};

/// The acknowledgement number that a reset then has as its own (RFC 9293, section 3.10.7.1).
const ACKNOWLEDGED: u32 = 2_000_000;

/// The whole packet: ACK, out of the middle of a connection.
fn packet(source: SocketAddrV6, destination: SocketAddrV6) -> Vec<u8> {
    let ends = [source.ip().octets(), destination.ip().octets()].concat();
    let mut tcp = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    tcp.extend(1_000_000_u32.to_be_bytes());
    tcp.extend(ACKNOWLEDGED.to_be_bytes());
    tcp.extend([5 << 4, flags::ACK, 0xff, 0xff, 0, 0, 0, 0]);
    // RFC 8200, section 8.1: addresses, length and protocol count as well.
    let sum = checksum(&[&ends, &[0, 0, 0, 20, 0, 0, 0, 6], &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &ends, &tcp].concat()
}

/// Sends such a segment from a host, and waits two seconds for the reset.
///
/// # Panics
/// When raw sockets cannot be had.
pub fn is_reset(host: &Namespace, source: SocketAddrV6, destination: SocketAddrV6) -> bool {
    let open = |protocol: Protocol| {
        socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
    };
    // A socket of IPPROTO_RAW sends packets with their headers (raw(7)); one of TCP sees segments without.
    let made = host.enter(|| Ok::<_, rustix::io::Errno>((open(ipproto::RAW)?, open(ipproto::TCP)?)));
    let (sends, sees) = made.unwrap_or_else(|e| panic!("raw sockets in {}: {e}", host.name()));
    sockopt::set_socket_timeout(&sees, Timeout::Recv, Some(Duration::from_millis(100))).expect("a socket");
    // There the port is the protocol's, or nothing.
    let to = SocketAddrV6::new(*destination.ip(), 0, 0, 0);
    sendto(&sends, &packet(source, destination), SendFlags::empty(), &to).expect("sent");
    let (start, mut segment) = (Instant::now(), [0_u8; 2048]);
    let ports = [destination.port().to_be_bytes(), source.port().to_be_bytes()].concat();
    while start.elapsed() < Duration::from_secs(2) {
        if let Ok((length, _)) = recv(&sees, &mut segment, RecvFlags::empty())
            && length >= 20
            && segment[..4] == ports
            && segment[4..8] == ACKNOWLEDGED.to_be_bytes()
            && segment[13] & flags::RST != 0
        {
            return true;
        }
    }
    false
}
