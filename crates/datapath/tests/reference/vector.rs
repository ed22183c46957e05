//! Packets by seed, and what leaves: the same for the programs' code in user space and for the programs in the kernel.

use std::net::SocketAddr;

use super::{Body, Ends, Packet, Random, any_error, any_tcp, any_udp, flags, syn_options};

/// The seeds whose packets both run, with the ends that the gateway in the kernel has flows between.
pub const SEEDS: std::ops::Range<u16> = 0..250;

/// The gateway's listener whose backend is told of the client.
pub const TOLD: u16 = 82;

/// A packet of a flow, and what it leaves as.
#[derive(Clone, Debug)]
pub struct Vector {
    pub ends: Ends,
    pub tcp: bool,
    /// From the client.
    pub forth: bool,
    pub arrives: Packet,
    /// Nothing, if it is not carried.
    pub leaves: Option<Packet>,
}

/// The ends of a flow that is this family's and this protocol's on the client's side, and this family's on the other. `told`: the
/// backend is told of the client.
pub struct Asked {
    pub ipv4: bool,
    pub ipv4_there: bool,
    pub tcp: bool,
    pub told: bool,
}

impl Asked {
    /// Those of the gateway's rules, from a port of the client's.
    pub fn at_gateway(&self, port: u16) -> Ends {
        let listener = match (self.tcp, self.told, self.ipv4 == self.ipv4_there) {
            (true, true, _) => TOLD,
            (true, false, true) => 80,
            (true, false, false) => 81,
            (false, _, true) => 53,
            (false, _, false) => 54,
        };
        between(self.ipv4, self.ipv4_there, (listener, if self.tcp { 8080 } else { 5353 }), port)
    }

    /// Any.
    pub fn anywhere(&self, random: &mut Random) -> Ends {
        let mut end = |ipv4: bool| {
            let bits = u128::from(random.next()) << 64 | u128::from(random.next());
            // No mapped address is an IPv6 one.
            let ip = if ipv4 {
                std::net::Ipv4Addr::from(bits as u32).into()
            } else {
                (bits | 1 << 127).to_be_bytes().into()
            };
            SocketAddr::new(ip, random.next() as u16)
        };
        Ends {
            client: end(self.ipv4),
            listener: end(self.ipv4),
            source: end(self.ipv4_there),
            backend: end(self.ipv4_there),
        }
    }
}

/// The gateway's flow of a client's port to a listener's and a backend's.
pub fn between(ipv4: bool, ipv4_there: bool, (listener, backend): (u16, u16), port: u16) -> Ends {
    let of = |ipv4: bool, net: u8, host: u8, port: u16| {
        let text = if ipv4 { format!("10.{net}.0.{host}") } else { format!("fd0{net}::{host}") };
        SocketAddr::new(text.parse().unwrap(), port)
    };
    Ends {
        client: of(ipv4, 1, 2, port),
        listener: of(ipv4, 1, 1, listener),
        source: of(ipv4_there, 2, 1, port),
        backend: of(ipv4_there, 2, 2, backend),
    }
}

/// Chooses ends.
pub type Choose<'a> = &'a mut dyn FnMut(&Asked, &mut Random) -> Ends;

/// Makes the packet of a seed.
pub type Generator = fn(u64, Choose<'_>) -> Vector;

/// All generators, by name.
pub const ALL: [(&str, Generator); 5] = [
    ("a packet", carried),
    ("a packet to the other family", crossed),
    ("a segment that tells", told),
    ("an error", error),
    ("an error to the other family", crossed_error),
];

/// The packet of a generator, by its place in [`ALL`], for a seed of [`SEEDS`]: of a flow of its own at the gateway.
pub fn at_gateway(number: usize, seed: u16) -> Vector {
    let port = 20_000 + number as u16 * 1000 + seed;
    ALL[number].1(seed.into(), &mut |asked: &Asked, _: &mut Random| asked.at_gateway(port))
}

fn flow(random: &mut Random, crosses: bool) -> Asked {
    let (ipv4, tcp) = (random.once_in(2), random.once_in(2));
    Asked { ipv4, ipv4_there: ipv4 != crosses, tcp, told: false }
}

/// One that a flow between these ends has in this direction.
fn any(random: &mut Random, asked: &Asked, ends: &Ends, forth: bool) -> Packet {
    let ipv4 = if forth { asked.ipv4 } else { asked.ipv4_there };
    let packet = if !asked.tcp {
        any_udp(random, ipv4)
    } else if random.once_in(4) {
        syn(random, ipv4, if forth { 0 } else { flags::ACK })
    } else {
        let push = if random.once_in(2) { flags::PSH } else { 0 };
        any_tcp(random, ipv4, flags::ACK | push)
    };
    packet.between(ends.arriving(forth))
}

/// A SYN, or what answers it.
pub fn syn(random: &mut Random, ipv4: bool, bits: u8) -> Packet {
    let mut packet = any_tcp(random, ipv4, bits | flags::SYN);
    let Body::Tcp { options, .. } = &mut packet.body else { unreachable!() };
    *options = syn_options(random);
    packet
}

/// Within its family.
pub fn carried(seed: u64, choose: Choose<'_>) -> Vector {
    let random = &mut Random(seed);
    let asked = flow(random, false);
    let (ends, forth) = (choose(&asked, random), random.once_in(2));
    let packet = any(random, &asked, &ends, forth);
    // Where a checksum can be written in two ways, on arrival or as it leaves.
    let arrives = match random.below(3) {
        0 => packet.tuned(),
        1 => {
            let leaves = packet.carried(&ends, forth).tuned();
            Packet { body: leaves.between(ends.arriving(forth)).body, ..packet }
        }
        _ => packet,
    };
    let leaves = Some(arrives.carried(&ends, forth));
    Vector { ends, tcp: asked.tcp, forth, arrives, leaves }
}

/// To the other family; UDP without a checksum does not cross to IPv6.
pub fn crossed(seed: u64, choose: Choose<'_>) -> Vector {
    let random = &mut Random(seed);
    let asked = flow(random, true);
    let (ends, forth) = (choose(&asked, random), random.once_in(2));
    let mut arrives = any(random, &asked, &ends, forth);
    arrives.ip.options.clear();
    let arrives = if random.once_in(4) { arrives.tuned() } else { arrives };
    let crosses = !matches!(arrives.body, Body::Udp { checksum: false, .. });
    let leaves = crosses.then(|| arrives.crossed(&ends, forth));
    Vector { ends, tcp: asked.tcp, forth, arrives, leaves }
}

/// To a backend that is told of the client, perhaps by the client itself before.
pub fn told(seed: u64, choose: Choose<'_>) -> Vector {
    let random = &mut Random(seed);
    let ipv4 = random.once_in(2);
    let asked = Asked { ipv4, ipv4_there: ipv4, tcp: true, told: true };
    let ends = choose(&asked, random);
    let mut arrives =
        if random.once_in(2) { syn(random, ipv4, 0) } else { any_tcp(random, ipv4, flags::ACK) };
    if let Body::Tcp { options, .. } = &mut arrives.body {
        let forged = if random.once_in(2) { 8 } else { 20 };
        if random.once_in(3) && options.len() + forged <= 40 {
            options.extend([254, forged as u8]);
            options.extend(random.bytes(forged - 2));
        }
        if random.once_in(3) && options.len() + 4 <= 40 {
            // What is behind an end is none.
            options.extend([0, 254, 8, 1]);
        }
    }
    let arrives = arrives.between(ends.arriving(true));
    let disarmed = arrives.disarmed();
    let leaves = Some(disarmed.carried(&ends, true).told(ends.client));
    Vector { ends, tcp: true, forth: true, arrives, leaves }
}

/// From the side that an error is sent by, or a router there, about what has left for there.
fn about(random: &mut Random, asked: &Asked, ends: &Ends, forth: bool) -> Packet {
    let mut quoted = any(random, asked, ends, forth).between(ends.leaving(!forth));
    if let (Body::Udp { checksum, .. }, true) = (&mut quoted.body, asked.ipv4 != asked.ipv4_there) {
        *checksum = true;
    }
    let ipv4 = quoted.ip.source.is_ipv4();
    let mut packet = any_error(random, quoted);
    let (from, to) = ends.arriving(forth);
    packet.ip.source = if random.once_in(2) {
        from.ip()
    } else {
        if ipv4 { "10.9.9.9" } else { "fd09::9" }.parse().unwrap()
    };
    packet.ip.destination = to.ip();
    packet
}

/// An error within its family.
pub fn error(seed: u64, choose: Choose<'_>) -> Vector {
    let random = &mut Random(seed);
    let asked = flow(random, false);
    let (ends, forth) = (choose(&asked, random), random.once_in(2));
    let arrives = about(random, &asked, &ends, forth);
    let leaves = Some(arrives.carried(&ends, forth));
    Vector { ends, tcp: asked.tcp, forth, arrives, leaves }
}

/// Errors, and what they say in the other family (RFC 7915, sections 4.2 and 5.2): type, code and second word. Those that
/// say nothing there are dropped.
pub type Said = ((u8, u8, u32), Option<(u8, u8, u32)>);
pub const OF_IPV4: [Said; 9] = [
    ((3, 1, 0), Some((1, 0, 0))),
    ((3, 2, 0), Some((4, 1, 6))),
    ((3, 3, 0), Some((1, 4, 0))),
    ((3, 4, 1400), Some((2, 0, 1420))),
    ((3, 4, 576), Some((2, 0, 1280))),
    ((3, 13, 0), Some((1, 1, 0))),
    ((11, 0, 0), Some((3, 0, 0))),
    ((12, 0, 8 << 24), Some((4, 0, 7))),
    ((12, 1, 0), None),
];
pub const OF_IPV6: [Said; 8] = [
    ((1, 0, 0), Some((3, 1, 0))),
    ((1, 1, 0), Some((3, 10, 0))),
    ((1, 4, 0), Some((3, 3, 0))),
    ((2, 0, 1400), Some((3, 4, 1380))),
    ((2, 0, 1279), None),
    ((3, 1, 0), Some((11, 1, 0))),
    ((4, 0, 7), Some((12, 0, 8 << 24))),
    ((4, 2, 40), None),
];

/// An error to the other family, by a way that takes 1500 bytes.
pub fn crossed_error(seed: u64, choose: Choose<'_>) -> Vector {
    let random = &mut Random(seed);
    let asked = flow(random, true);
    let (ends, forth) = (choose(&asked, random), random.once_in(2));
    let mut arrives = about(random, &asked, &ends, forth);
    let listed: &[Said] = if arrives.ip.destination.is_ipv4() { &OF_IPV4 } else { &OF_IPV6 };
    let (says, said) = listed[random.below(listed.len())];
    let Body::Error { kind, code, rest, .. } = &mut arrives.body else { unreachable!() };
    (*kind, *code, *rest) = says;
    let leaves = said.map(|said| arrives.crossed_error(&ends, forth, said));
    Vector { ends, tcp: asked.tcp, forth, arrives, leaves }
}
