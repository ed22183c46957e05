//! ICMP "port unreachable" (RFC 792, RFC 4443 section 3.1): a UDP backend's refusal passed on to the client, so
//! that it fails at once as it would without a proxy between. Needs CAP_NET_RAW; without it refusals are only
//! counted.
//!
//! The quoted datagram is built anew from its addresses and ports, which is all that a client's kernel looks
//! at: the relay does not keep datagrams after they were sent.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::sys::{self, Datagram};

const UDP: u8 = 17;
const HOPS: u8 = 64;
/// Messages a second of one worker; further ones are left out, as the kernel does with its own
/// (`net.ipv4.icmp_msgs_per_sec`).
const MOST_A_SECOND: u32 = 1000;

/// The raw sockets, opened when first needed.
#[derive(Default)]
pub struct Icmp {
    v4: Option<Option<OwnedFd>>,
    v6: Option<Option<OwnedFd>>,
    budget: Budget,
}

/// What may be sent in the present second.
#[derive(Default)]
struct Budget {
    second: u64,
    sent: u32,
}

impl Budget {
    /// Whether one more message may be sent at `now` (ms).
    fn take(&mut self, now: u64) -> bool {
        if self.second != now / 1000 {
            *self = Self { second: now / 1000, sent: 0 };
        }
        let fits = self.sent < MOST_A_SECOND;
        self.sent += u32::from(fits);
        fits
    }
}

impl Icmp {
    /// Tells `client` that nobody answers at `local`:`port`; whether that was possible. `now` is in ms.
    pub fn port_unreachable(
        &mut self,
        client: SocketAddr,
        local: IpAddr,
        port: u16,
        interface: u32,
        now: u64,
    ) -> bool {
        if !self.budget.take(now) {
            return false;
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, message) = match (client, local) {
            (SocketAddr::V4(from), IpAddr::V4(to)) => {
                let open =
                    || socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP)).ok();
                let quote = quote_v4(from.ip().octets(), from.port(), to.octets(), port);
                (self.v4.get_or_insert_with(open), quote)
            }
            (SocketAddr::V6(from), IpAddr::V6(to)) => {
                let open =
                    || socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6)).ok();
                let quote = quote_v6(from.ip().octets(), from.port(), to.octets(), port);
                (self.v6.get_or_insert_with(open), quote)
            }
            _ => return false,
        };
        let Some(socket) = socket else { return false };
        let mut to = client;
        to.set_port(0);
        let datagram =
            Datagram { data: &message, to: Some(to), from: Some((local, interface)), segment: None };
        sys::send(socket, &[datagram]).is_ok()
    }
}

fn udp_header(from: u16, to: u16) -> [u8; 8] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d, 0, 8, 0, 0]
}

/// Type 3, code 3, with the header of a datagram `from` → `to`.
fn quote_v4(from: [u8; 4], from_port: u16, to: [u8; 4], to_port: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, HOPS, UDP, 0, 0];
    header.extend(from);
    header.extend(to);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(header);
    message.extend(udp_header(from_port, to_port));
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// Type 1, code 4; the kernel fills in the checksum.
fn quote_v6(from: [u8; 16], from_port: u16, to: [u8; 16], to_port: u16) -> Vec<u8> {
    let mut message = vec![1, 4, 0, 0, 0, 0, 0, 0];
    message.extend([0x60, 0, 0, 0, 0, 8, UDP, HOPS]);
    message.extend(from);
    message.extend(to);
    message.extend(udp_header(from_port, to_port));
    message
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_messages_a_second() {
        let mut budget = Budget::default();
        let mut taken = |now| (0..5000).filter(|_| budget.take(now)).count();
        assert_eq!((taken(0), taken(999), taken(1000), taken(5500)), (1000, 0, 1000, 1000));
    }

    #[test]
    fn checksums_verify() {
        let message = quote_v4([127, 0, 0, 1], 4000, [127, 0, 0, 2], 53);
        assert_eq!(message.len(), 36);
        assert_eq!(checksum(&message), [0, 0], "a correct checksum sums to zero");
        assert_eq!(checksum(&message[8..28]), [0, 0]);
        // The example of RFC 1071 section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), (!0xddf2u16).to_be_bytes());
    }

    #[test]
    fn ipv6_quote_has_the_ports() {
        let message = quote_v6([1; 16], 4000, [2; 16], 53);
        assert_eq!(message.len(), 56);
        assert_eq!(message[48..52], [0x0f, 0xa0, 0, 53]);
    }
}
