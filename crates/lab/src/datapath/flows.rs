//! The flows of a measurement: which connections there are, and the packets of each as a walk has them.
//!
//! A million of them from one client need many listeners, for there are not as many ports: each of 64 rules has a
//! backend of its own. Every flow keeps its client's port, so the packets that come back are known beforehand.

use std::net::Ipv4Addr;

use portway_lab::Engine;

/// How many rules there are, each with a listener and a backend of its own.
pub const RULES: u32 = 64;
/// The first listener's port.
const LISTENERS: u16 = 5000;
/// The backends' port.
const BACKENDS: u16 = 7000;
/// The first client's port: the first that the engine takes sources from, so every one is kept.
const CLIENTS: u16 = 40_000;

/// Who begins all flows.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const LISTENER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// Flags of TCP (RFC 9293 3.1).
pub const SYN: u32 = 0x02;
/// A SYN that is acknowledged with it.
pub const SYN_ACK: u32 = 0x12;
/// Any later segment.
pub const ACK: u32 = 0x10;

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Forth,
    /// From the backend.
    Back,
}

/// A packet of a walk, as `ebpf/src/bin/walk.rs` has it: who sends, to whom, both ports (all in the memory order of the
/// packet), and the flags of TCP.
pub type Step = [u32; 4];

/// The address of a rule's backend.
pub fn backend(rule: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 10).to_bits() + rule)
}

/// The file with all rules.
pub fn rules(engine: Engine) -> String {
    let rule = |rule: u32| {
        let listen = format!("tcp/{LISTENER}:{}", u32::from(LISTENERS) + rule);
        engine
            .rule(&format!("name = 'r{rule}'\nlisten = '{listen}'\nforward = '{}:{BACKENDS}'", backend(rule)))
    };
    (0..RULES).map(rule).collect()
}

/// The packet of one flow.
///
/// # Panics
/// Beyond the flows that there are ports for (1.6 million).
pub fn step(flow: u32, direction: Direction, flags: u32) -> Step {
    let rule = flow % RULES;
    let narrow = |port: u32| u16::try_from(port).expect("a flow that there is a port for");
    let client = narrow(u32::from(CLIENTS) + flow / RULES);
    let listener = narrow(u32::from(LISTENERS) + rule);
    match direction {
        Direction::Forth => packet((CLIENT, client), (LISTENER, listener), flags),
        Direction::Back => packet((backend(rule), BACKENDS), (SOURCE, client), flags),
    }
}

fn packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u32) -> Step {
    let [a, b] = [from.1.to_be_bytes(), to.1.to_be_bytes()];
    let ports = u32::from_ne_bytes([a[0], a[1], b[0], b[1]]);
    [u32::from_ne_bytes(from.0.octets()), u32::from_ne_bytes(to.0.octets()), ports, flags]
}

/// The numbers below `count` in an order without one (Fisher and Yates 1938, xorshift64 of Marsaglia 2003), the same
/// in every run.
pub fn shuffled(count: u32) -> Vec<u32> {
    let (mut order, mut state): (Vec<u32>, u64) = ((0..count).collect(), 0x9e37_79b9_7f4a_7c15);
    for last in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_in_memory_order() {
        let [source, destination, ports, flags] = step(65, Direction::Forth, SYN);
        assert_eq!(source.to_ne_bytes(), [10, 1, 0, 10]);
        assert_eq!(destination.to_ne_bytes(), [10, 1, 0, 1]);
        // Port 40001 is 0x9c41, 5001 0x1389.
        assert_eq!(ports.to_ne_bytes(), [0x9c, 0x41, 0x13, 0x89]);
        assert_eq!(flags, 2);
        let [source, destination, ports, _] = step(65, Direction::Back, ACK);
        assert_eq!(source.to_ne_bytes(), [10, 2, 0, 11]);
        assert_eq!(destination.to_ne_bytes(), [10, 2, 0, 1]);
        assert_eq!(ports.to_ne_bytes(), [0x1b, 0x58, 0x9c, 0x41]);
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let order = shuffled(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_ne!(order, sorted);
    }
}
