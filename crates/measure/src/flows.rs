//! Flows that are there and do nothing, as many as a series asks for: one datagram each, which the server returns.
//!
//! Sockets would be the limit, not the forwarder: a process has too few descriptors, and the kernel gives a socket any free port,
//! so that a million of them would not be a million flows. Here each flow is a packet whose source is computed, from a network
//! of which the client's host has no address; the answer is routed to that host and ends there, after it was counted on its
//! wire. What was answered is a flow at whoever forwards, and the same again at a next call.
//!
//! And the opposite: a table of conntrack is emptied before a run that is to meet none of what other loads left behind.
//!
//! Deliberately absent: how long a forwarder remembers them, which is its configuration ([`crate::lane::files`]).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use portway_lab::Namespace;
use portway_lab::raw::{Datagram, Raw};
use portway_netlink::socket::Socket;
use rustix::net::netlink::NETFILTER;

use crate::host;
use crate::lane::files;
use crate::load;

/// Bytes of each datagram.
const SIZE: usize = 64;
/// The network that they come from (RFC 2544: never a true client's), as a route.
pub const NETWORK: &str = "198.18.0.0/15";
/// Its first address but one.
const FIRST: [u8; 4] = [198, 18, 0, 1];
/// Flows from one address. Many addresses, since some forwarders choose a source address by the client's.
const FROM_EACH: u64 = 256;
/// Ports from here on.
const FIRST_PORT: u64 = 1024;
const PORTS: u64 = 65_536 - FIRST_PORT;
/// Has the ports of an address lie apart from each other, and different for each. It has no factor in common with [`PORTS`].
const STEP: u64 = 40_507;

/// At most so many on their way: a UDP socket's buffer has room for about twice as many.
const WINDOW: u64 = 128;
/// How many are sent between two looks at what has come back.
const TURN: u64 = 32;
/// What has not come back after this time is lost.
const PATIENCE: Duration = Duration::from_millis(300);

/// Kernel memory that a flow takes, at most, in bytes: an entry of conntrack with its translation, or two of the ebpf engine.
const MEMORY: u64 = 1024;
/// Memory that is left to others.
const RESERVE: u64 = 512 << 20;
/// Connections of the load beside the flows, those that have ended included: a client's ports.
const BESIDE: u64 = 65_536;

/// `IPCTNL_MSG_CT_DELETE` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`); of no tuple, it means all.
const DELETE: u16 = 1 << 8 | 2;

/// Has a host forget the flows that its conntrack knows: a flood leaves thousands that wait for a minute, and hold source ports.
///
/// # Errors
/// What the kernel says.
pub fn forget(host: &Namespace) -> Result<(), String> {
    let asked = host.enter(|| Socket::open(Some(NETFILTER))?.demand(DELETE, |message| message.nfgen(0, 0)));
    asked.map_err(|error| format!("conntrack cannot be emptied: {error}"))
}

/// Where the nth flow comes from.
fn source(nth: u64) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(u32::from_be_bytes(FIRST) + (nth / FROM_EACH) as u32);
    SocketAddrV4::new(address, (FIRST_PORT + nth * STEP % PORTS) as u16)
}

/// Makes so many towards an address, or makes them live on, in the network namespace of the calling thread: how many were
/// answered.
///
/// # Errors
/// What the kernel says.
pub fn make(to: SocketAddrV4, count: u64) -> io::Result<u64> {
    let (raw, payload) = (Raw::open()?, portway_load::datagram(SIZE));
    let before = arrived()?;
    let mut lost = 0;
    for nth in 0..count {
        if nth % TURN == 0 {
            let most = nth.saturating_sub(WINDOW);
            let back = until(before, most.saturating_sub(lost))?;
            // Lost are those whose time is over; the rest may still come.
            lost = lost.max(most.saturating_sub(back));
        }
        // A full queue of the interface loses some, which are not answered.
        let _ = raw.send_datagram(&Datagram { source: source(nth), destination: to, payload: &payload });
    }
    until(before, count).map(|back| back.min(count))
}

/// Waits until so many have come back, or nothing comes any more: how many have.
fn until(before: u64, wanted: u64) -> io::Result<u64> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let back = arrived()?.saturating_sub(before);
        if back >= wanted || since.elapsed() > PATIENCE {
            return Ok(back);
        }
        if back > last {
            (last, since) = (back, Instant::now());
        }
        thread::sleep(Duration::from_micros(50));
    }
}

/// Packets that have arrived on the client's interface.
fn arrived() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.ok_or_else(|| io::Error::other("eth0 has no counter in /proc/net/dev"))
}

/// Gives the gateway the addresses that it sends many flows from: one address has 64,512 ports towards one server.
///
/// # Panics
/// When `ip` refuses.
pub fn give_addresses(gateway: &Namespace) {
    let add = files::sources().map(|own| format!("address add {own}/32 dev wan\n"));
    gateway.ip(&add.collect::<String>());
}

/// Has conntrack remember datagrams for an hour.
///
/// # Panics
/// When there is no conntrack.
pub fn remember(gateway: &Namespace) {
    for key in ["timeout", "timeout_stream"] {
        gateway.sysctl(&format!("net.netfilter.nf_conntrack_udp_{key}"), "3600");
    }
}

/// Whether a forwarder that stands on conntrack can hold so many here, and the load beside them.
///
/// # Errors
/// Why not, as a sentence without a full stop.
pub fn fit_conntrack(count: u64) -> Result<(), String> {
    let most = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    // Without the file conntrack is not loaded yet, and its own default is not known.
    match most.ok().and_then(|most| most.trim().parse::<u64>().ok()) {
        Some(most) if count + BESIDE > most => Err(format!(
            "conntrack holds {most} flows here: nf_conntrack_max is a setting of the machine, which the lab does not touch \
             (sysctl -w net.netfilter.nf_conntrack_max={} before, and back after)",
            count + 4 * BESIDE
        )),
        _ => Ok(()),
    }
}

/// Whether there is memory for so many.
///
/// # Errors
/// Why not, as a sentence without a full stop.
pub fn fit_memory(count: u64) -> Result<(), String> {
    match host::memory(["MemAvailable:"]) {
        // Nothing is said where nothing is known.
        free if free > 0 && count * MEMORY + RESERVE > free => Err(format!(
            "{count} flows may take {} MiB of the kernel's memory, and {} are free (512 are left to others)",
            (count * MEMORY) >> 20,
            free >> 20
        )),
        _ => Ok(()),
    }
}

/// Whether a process that relays has sockets for so many.
///
/// # Errors
/// Why not, as a sentence without a full stop.
pub fn fit_sockets(count: u64) -> Result<(), String> {
    match load::at_a_time() {
        most if count > most => Err(format!(
            "it has a socket for each flow, and no more than {most} in a process here (ulimit -Hn)"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_flows_are_a_million() {
        let all: HashSet<SocketAddrV4> = (0..1_000_000).map(source).collect();
        assert_eq!(all.len(), 1_000_000);
        let in_network =
            |from: &SocketAddrV4| from.ip().octets()[0] == 198 && from.ip().octets()[1] & 0xfe == 18;
        assert!(all.iter().all(|from| in_network(from) && from.port() >= 1024));
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        assert!(fit_memory(u64::MAX >> 12).unwrap_err().contains("MiB"));
        assert!(fit_memory(1).is_ok());
        assert!(fit_sockets(u64::MAX).unwrap_err().contains("ulimit"));
        if let Err(why) = fit_conntrack(1 << 40) {
            assert!(why.contains("nf_conntrack_max"), "{why}");
        }
    }
}
