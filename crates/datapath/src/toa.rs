//! TCP option 254: the client's address and port, told to a backend that sees only the gateway's.
//!
//! The bytes are those of the LVS toa module: kind 254, length 8, port, IPv4 address; or length 20, port, IPv6 address;
//! both in network byte order. Kind 254 is one of the two for experiments (RFC 4727), so other experiments share it; the
//! lengths tell them apart. What carries any other length is not ours and not touched.
//!
//! Both halves work on the bytes of a TCP header: the gateway removes what a client has written there itself
//! ([`prepare`]: a forged option must not reach a backend that believes this gateway) and appends its own
//! ([`Client::option`]); the backend reads it ([`read`]) and joins what the SYN and the ACK say ([`Claim::agree`]).
//!
//! Deliberately absent: whose word is believed (`portway toa` asks for the networks of the gateways), and how the bytes
//! are reached. The walks pass over every byte and ask whether an option begins there, rather than jump from option to
//! option: so the verifier knows each index, and the ways through the loop soon look the same to it (jumping, it gave up
//! after a million steps).

use core::hint::black_box;

use crate::abi::Address;

/// The option's kind.
pub const KIND: u8 = 254;

/// The option's length with an IPv4 address.
pub const LENGTH_V4: usize = 8;

/// The option's length with an IPv6 address.
pub const LENGTH_V6: usize = 20;

/// Bytes of a TCP header without options (RFC 9293 3.1).
pub const HEADER: usize = 20;

/// The most bytes that a TCP header can have: its length is four bits of 32-bit words.
pub const HEADER_MOST: usize = 60;

/// Room for a TCP header: a power of two, so that a mask keeps every index in it.
pub const ROOM: usize = 64;

/// End of the options.
const END: u8 = 0;

/// One byte of nothing.
const NOP: u8 = 1;

/// A client, as the option names it; the value of socket storage at the backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address, IPv4 mapped into IPv6.
    pub address: Address,
    /// Its port, be.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<Client>() == 24);

/// What headers say about the client. Not an enumeration with the client in one of its variants: the compiler would copy
/// the other variants' undefined bytes, and the verifier refuses every read of what was not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Whether they say one thing.
    pub said: Said,
    /// The client where they do, else zeros.
    pub client: Client,
}

/// Whether headers say who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said {
    /// They say nothing.
    #[default]
    Nothing,
    /// They do.
    Client,
    /// They say two things, or what no client can be: not to be believed.
    Nonsense,
}

impl Client {
    /// Of an IPv4 address's bytes and a port (be).
    #[inline(always)]
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        Self { address: Address::ipv4(u32::from_ne_bytes(address)), port, reserved: [0; 3] }
    }

    /// The address's bytes, IPv4 mapped.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.address.high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.address.low.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether the address is an IPv4 one.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The option in words as they lie in memory, and how many bytes it has; the others are zero.
    #[inline(always)]
    pub const fn option(&self) -> ([u32; LENGTH_V6 / 4], usize) {
        let Address { high, low } = self.address;
        let [p, q] = self.port.to_ne_bytes();
        if self.is_v4() {
            (
                [u32::from_ne_bytes([KIND, LENGTH_V4 as u8, p, q]), self.address.last_word(), 0, 0, 0],
                LENGTH_V4,
            )
        } else {
            let first = u32::from_ne_bytes([KIND, LENGTH_V6 as u8, p, q]);
            ([first, high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32], LENGTH_V6)
        }
    }

    /// Whether somebody with this address can have connected through a gateway: one host's address, not the gateway's own
    /// loopback (servers give 127.0.0.1 more rights than others), and a port.
    #[inline(always)]
    pub const fn is_possible(&self) -> bool {
        if self.port == 0 {
            return false;
        }
        let octets = self.octets();
        if self.is_v4() {
            // 0.0.0.0/8 and 127.0.0.0/8 (RFC 1122 3.2.1.3), 224.0.0.0/4 and 240.0.0.0/4 (RFC 1112).
            octets[12] != 0 && octets[12] != 127 && octets[12] < 224
        } else {
            // :: and ::1 (with all of the long-deprecated ::/96), ff00::/8 (RFC 4291).
            let [a, b, c, d, ..] = self.address.low.to_ne_bytes();
            let short = self.address.high == 0 && u32::from_be_bytes([a, b, c, d]) == 0;
            !short && octets[0] != 0xff
        }
    }
}

impl Claim {
    /// Of what is not to be believed.
    const NONSENSE: Self = Self {
        said: Said::Nonsense,
        client: Client { address: Address { high: 0, low: 0 }, port: 0, reserved: [0; 3] },
    };

    /// What the headers of the SYN and of the ACK say together. A gateway tells the same in both, so what differs is not
    /// the gateway's word alone: a client has written one of them itself.
    #[inline(always)]
    pub fn agree(self, other: Self) -> Self {
        if other.said == Said::Nothing {
            self
        } else if self.said == Said::Nothing || self == other {
            other
        } else {
            Self::NONSENSE
        }
    }
}

/// What a TCP header says. Of `header` the first `present` bytes are there.
#[inline(always)]
pub fn read(header: &[u8; ROOM], present: usize) -> Claim {
    let end = end(header, present);
    let mut within = 0;
    let mut claim = Claim::default();
    for at in HEADER..HEADER_MOST {
        if at >= end {
            break;
        }
        if within > 0 {
            within = black_box(within - 1);
            continue;
        }
        let Some(size) = option_at(header, at, end) else { break };
        if is_ours(header, at, size) {
            if claim.said != Said::Nothing {
                return Claim::NONSENSE;
            }
            claim = Claim { said: Said::Client, client: client_at(header, at, size) };
        }
        within = size - 1;
    }
    if claim.said == Said::Client && !claim.client.is_possible() { Claim::NONSENSE } else { claim }
}

/// What [`prepare`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Whether bytes have changed: the caller mends the checksum.
    pub changed: bool,
    /// Whether an option can be put behind the others: whoever reads them comes to their end.
    pub open: bool,
}

/// Makes a header ready to be told in: every option of ours is overwritten with NOPs, for a client has forged it; and so is
/// the end of the options and what is behind it, for nobody would read further. The length stays.
#[inline(always)]
pub fn prepare(header: &mut [u8; ROOM], present: usize) -> Prepared {
    let mut walk = Walk::new(header, present);
    for nth in 0..STEPS {
        if !walk.step(header, nth) {
            break;
        }
    }
    walk.prepared()
}

/// How many steps a [`Walk`] has at most.
pub const STEPS: u32 = (HEADER_MOST - HEADER) as u32;

/// [`prepare`] step by step, for who has a loop of his own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    end: u32,
    /// How many bytes of an option are still to come.
    within: u32,
    /// That option is to be overwritten.
    blank: bool,
    /// There has been an end of options.
    ended: bool,
    /// There has been something that is no option.
    lost: bool,
    changed: bool,
}

impl Walk {
    /// At the beginning of the options.
    #[inline(always)]
    #[must_use]
    pub fn new(header: &[u8; ROOM], present: usize) -> Self {
        Self { end: end(header, present) as u32, ..Self::default() }
    }

    /// Passes over one byte of the options; whether there are more.
    #[inline(always)]
    pub fn step(&mut self, header: &mut [u8; ROOM], nth: u32) -> bool {
        let at = HEADER + nth as usize;
        if at >= self.end as usize {
            return false;
        }
        if self.within > 0 {
            self.within -= 1;
        } else if !self.ended {
            self.ended = header[at & (ROOM - 1)] == END;
            if !self.ended {
                let Some(size) = option_at(header, at, self.end as usize) else {
                    self.lost = true;
                    return false;
                };
                self.blank = is_ours(header, at, size);
                self.within = size as u32 - 1;
            }
        }
        if self.blank || self.ended {
            header[at & (ROOM - 1)] = NOP;
            self.changed = true;
        }
        true
    }

    /// What was done.
    #[inline(always)]
    #[must_use]
    pub const fn prepared(&self) -> Prepared {
        Prepared { changed: self.changed, open: !self.lost && self.end as usize >= HEADER }
    }
}

/// Where the options end: by the header's own length and by what is there. 0 if that contradicts itself.
#[inline(always)]
fn end(header: &[u8; ROOM], present: usize) -> usize {
    let said = usize::from(header[12] >> 4) * 4;
    if said <= present { said } else { 0 }
}

/// How many bytes the option at `at` takes; nothing at the end of the options or of their sense, where the kernel's own
/// parser ends as well (tcp_parse_options in net/ipv4/tcp_input.c).
#[inline(always)]
fn option_at(header: &[u8; ROOM], at: usize, end: usize) -> Option<usize> {
    let size = match header[at & (ROOM - 1)] {
        END => return None,
        NOP => return Some(1),
        _ => usize::from(header[(at + 1) & (ROOM - 1)]),
    };
    if size < 2 || at + size > end { None } else { Some(size) }
}

#[inline(always)]
fn is_ours(header: &[u8; ROOM], at: usize, size: usize) -> bool {
    header[at & (ROOM - 1)] == KIND && (size == LENGTH_V4 || size == LENGTH_V6)
}

/// The client in the option at `at`, which is one of ours.
#[inline(always)]
fn client_at(header: &[u8; ROOM], at: usize, size: usize) -> Client {
    let byte = |offset: usize| header[(at + offset) & (ROOM - 1)];
    let port = u16::from_ne_bytes([byte(2), byte(3)]);
    let four = |first: usize| [byte(first), byte(first + 1), byte(first + 2), byte(first + 3)];
    if size == LENGTH_V4 {
        return Client::v4(four(4), port);
    }
    let word = |first: usize| {
        let ([a, b, c, d], [e, f, g, h]) = (four(first), four(first + 4));
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    Client { address: Address { high: word(4), low: word(12) }, port, reserved: [0; 3] }
}

/// What the backend's half counts: the index into its counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Connections accepted in the cgroup.
    Connections = 0,
    /// Of these: the client was told by a trusted source.
    Told = 1,
    /// From a trusted source, without the option.
    Silent = 2,
    /// Not from a trusted source, without the option.
    Direct = 3,
    /// Not from a trusted source, with the option, which was ignored.
    Untrusted = 4,
    /// From a trusted source, but two different clients, or what no client can be.
    Malformed = 5,
    /// The client has IPv6, the server's socket only IPv4: it cannot be named there.
    Family = 6,
    /// The kernel had no memory for it.
    NoMemory = 7,
    /// Servers that began to listen while the programs were attached.
    Listeners = 8,
    /// Answers to accept() and getpeername() that named a client.
    Answers = 9,
}

/// How many counters there are.
pub const COUNTS: usize = 10;

/// The most networks that can be trusted.
pub const TRUSTED: usize = 4096;

/// The backend's maps and programs, by their names in the object and under their pins.
pub mod names {
    /// Socket storage of [`super::Client`].
    pub const CLIENTS: &str = "clients";
    /// Per-processor array of `u64` by [`super::Count`].
    pub const COUNTS: &str = "counts";
    /// Trie of networks, IPv4 mapped: the gateways that are believed.
    pub const TRUSTED: &str = "trusted";
    /// The program that reads the option.
    pub const OPERATIONS: &str = "toa_sockops";
    /// The program that answers for IPv4 sockets.
    pub const PEER_V4: &str = "toa_peer4";
    /// The program that answers for IPv6 sockets, IPv4 peers of dual-stack servers included.
    pub const PEER_V6: &str = "toa_peer6";
}
