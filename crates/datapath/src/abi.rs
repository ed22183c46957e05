//! Keys and values of the maps, as both sides see them.
//!
//! Every type is `repr(C)`, has no padding that is not named, and its size is asserted. Ports and addresses are in network
//! byte order wherever a field says `be`. Ids are the loader's: small numbers, never used again for something else while
//! a flow may still hold them.
//!
//! Deliberately absent: what the fields are computed from (the loader) and how a packet changes them.

use core::mem::offset_of;

use crate::atomic::{AtomicU32, AtomicU64};

/// The version of everything in this file: maps that another version has pinned are not taken over.
pub const ABI: u32 = 3;

/// An address of either family: IPv6, or IPv4 mapped into it (RFC 4291 2.5.5.2), as two words of memory order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Bytes 0 to 7.
    pub high: u64,
    /// Bytes 8 to 15; of a mapped address `00 00 ff ff` and the four bytes of IPv4.
    pub low: u64,
}

/// What one direction of a flow looks like on arrival; the key of the flow table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The sender's port, be.
    pub source_port: u16,
    /// The port it is sent to, be.
    pub destination_port: u16,
    /// The protocol's number (6 or 17).
    pub protocol: u32,
}

impl Tuple {
    /// Both ports in one word: the sender's in the low half. On a little-endian machine that is the first word of a TCP
    /// or UDP header as it lies there.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> u32 {
        self.source_port as u32 | (self.destination_port as u32) << 16
    }
}

/// What all programs read with every packet: one element, written by the loader only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// [`ABI`].
    pub abi: u32,
    /// Counts up whenever the host's routes, neighbours or links have changed: routes kept in flows are then asked again.
    pub generation: u32,
    /// The secrets of the flow table's hash ([`crate::hash`]): random, and the same for the life of the table.
    pub seeds: [u64; SEEDS],
    /// Records in the flow table.
    pub records: u32,
    /// Buckets of its index.
    pub buckets: u32,
    /// The first and the last port that sources are searched in, in host order. The host's own sockets keep out of them.
    pub first_port: u16,
    /// See `first_port`.
    pub last_port: u16,
    /// The host's own range of ephemeral ports (`ip_local_port_range`): a client's port in it is kept only within
    /// `first_port..=last_port`.
    pub first_ephemeral: u16,
    /// See `first_ephemeral`.
    pub last_ephemeral: u16,
    /// [`config_flags`].
    pub flags: u32,
    /// How long flows live without a packet, in ticks, by [`Clock`].
    pub timeouts: [u32; CLOCKS],
}

/// How many words of secrets the flow table's hash has.
pub const SEEDS: usize = 5;

/// Bits of [`Config::flags`].
pub mod config_flags {
    /// Some listener is a range: ask `ranges` when `listeners` has nothing.
    pub const RANGES: u32 = 1;
    /// Some listener is for an interface or any address: ask `locals` whether the destination is this host's.
    pub const WIDE: u32 = 2;
    /// Some rule persists clients.
    pub const PERSIST: u32 = 4;
    /// Some rule answers by SYN cookies: ask whether what belongs to no flow brings one back.
    pub const COOKIES: u32 = 8;
}

/// A tick: 2^24 ns (16.8 ms) of the kernel's coarse monotonic clock. A `u32` of them lasts two years, and differences
/// wrap.
pub const TICK_SHIFT: u32 = 24;

/// Ticks a second, rounded.
pub const TICKS_PER_SECOND: u32 = 60;

/// The clocks of [`Config::timeouts`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// A TCP connection whose handshake is not over.
    Opening = 0,
    /// An established TCP connection.
    Established = 1,
    /// One side has said that it is done.
    Closing = 2,
    /// Closed, by the backend first: it holds the port in TIME_WAIT, and so must the flow (RFC 9293 3.6.1).
    TimeWait = 3,
    /// Closed, by the client first: the backend holds nothing.
    Closed = 4,
    /// UDP that has not been answered.
    UdpUnanswered = 5,
    /// UDP that has.
    UdpAnswered = 6,
    /// Reset, as it seems: sequence numbers are not looked at, and whoever still sends has not been reset.
    Reset = 7,
}

/// How many clocks there are.
pub const CLOCKS: usize = 8;

/// A record is taken for another flow only this long after it has expired: nobody who saw it alive still works with it,
/// for a program runs for microseconds. In ticks.
pub const GRACE: u32 = TICKS_PER_SECOND;

/// What the packets of one direction of a flow look like on arrival, as far as IPv4 needs it, and where they leave.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Side {
    /// The last words of both addresses, the sender's in the low half: of IPv4 all of them. On a little-endian machine that
    /// is what lies in the header, 12 bytes from its beginning.
    pub last_words: AtomicU64,
    /// [`Tuple::ports`].
    pub ports: AtomicU32,
    /// When [`Self::way`] was looked up: the low 16 bits of the tick, and above them of [`Config::generation`].
    pub looked_up: AtomicU32,
    /// The way out, kept from the last look-up of the route: the next hop's link address in the low 48 bits (memory order),
    /// and the number of the port in `ports` to leave by above them. 0: none is kept.
    pub way: AtomicU64,
}

/// The rest of both addresses of a [`Side`]: of IPv4 the prefix of mapped ones.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Rest {
    /// [`Address::high`] of the sender.
    pub source_high: AtomicU64,
    /// [`Address::high`] of the other.
    pub destination_high: AtomicU64,
    /// The low half of [`Address::low`] of the sender.
    pub source_third: AtomicU32,
    /// The same of the other.
    pub destination_third: AtomicU32,
}

/// One flow: both directions, in two cache lines, of which a packet of IPv4 touches only the first. The index of the flow
/// table leads to it from either side. What belongs to the other direction lies 32 bytes further, so that the programs add
/// rather than branch.
///
/// All of it is atomic, because a record is shared with whoever looks it up while it is being filled. What does not
/// change while the flow lives ([`crate::record::Flow`]) is only ever loaded and stored, which are plain instructions in
/// BPF: `record.member.load(Relaxed)`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Record {
    /// Packets from the client to the address that it called, and their way to the backend.
    pub forth: Side,
    /// [`phase`]: who may do what with the record.
    pub phase: AtomicU32,
    /// [`state`]: how far the flow is. Bits are set and cleared by atomic operations only: the two directions may be on
    /// two processors.
    pub state: AtomicU32,
    /// Packets from the backend to the address of this host that it sees, and their way to the client.
    pub back: Side,
    /// The tick of the last packet.
    pub seen: AtomicU32,
    /// The member of the pool: which counters, and whether it still takes new flows.
    pub member: AtomicU32,
    /// The rest of [`Self::forth`].
    pub forth_rest: Rest,
    /// What the engine's own first sequence number is less than the backend's (wrapping); nothing unless a SYN cookie
    /// opened the connection. Before the backend has answered: the cookie.
    pub sequence: AtomicU32,
    /// The client's first sequence number, of a connection that a SYN cookie opened; else of no meaning.
    pub initial: AtomicU32,
    /// The rest of [`Self::back`].
    pub back_rest: Rest,
    /// The tick of the first packet.
    pub begun: AtomicU32,
    /// The rule.
    pub rule: AtomicU32,
}

/// Values of [`Record::phase`].
pub mod phase {
    /// In nobody's hands; its bit in the free map is set.
    pub const FREE: u32 = 0;
    /// Being filled and entered into the index by whoever took its bit. Not yet to be used.
    pub const CLAIMED: u32 = 1;
    /// A flow.
    pub const LIVE: u32 = 2;
    /// Being taken apart by whoever changed it from [`LIVE`].
    pub const LEAVING: u32 = 3;
}

/// Bits of [`Record::state`].
pub mod state {
    /// The client's SYN has been seen.
    pub const SYN: u32 = 1;
    /// The backend's SYN has been seen.
    pub const SYN_BACK: u32 = 1 << 1;
    /// The client has acknowledged it.
    pub const ESTABLISHED: u32 = 1 << 2;
    /// The client has sent FIN.
    pub const FIN: u32 = 1 << 3;
    /// The backend has sent FIN.
    pub const FIN_BACK: u32 = 1 << 4;
    /// The backend's FIN came before the client's.
    pub const BACKEND_FIRST: u32 = 1 << 5;
    /// One of them has sent RST.
    pub const RST: u32 = 1 << 6;
    /// UDP: the backend has answered.
    pub const ANSWERED: u32 = 1 << 7;
    /// The flow is UDP.
    pub const UDP: u32 = 1 << 8;
    /// The operator or a check has ended it: packets are left to the kernel, which answers TCP by reset, and the client's
    /// next first packet begins anew.
    pub const ENDED: u32 = 1 << 9;
    /// The client's address goes to the backend in TCP option 254, on segments that the backend may see first.
    pub const TOA: u32 = 1 << 10;
    /// A SYN cookie was answered; the backend has not answered its SYN yet.
    pub const COOKIE: u32 = 1 << 11;
    /// [`super::Record::sequence`] is added to what the backend acknowledges and taken from what it sends.
    pub const SHIFTED: u32 = 1 << 12;
    /// The index no longer leads here from the client's side: the same client has begun anew with another backend. What
    /// is left keeps the source port until it expires.
    pub const ORPHAN: u32 = 1 << 13;
    /// The packets from the client are IPv4.
    pub const IPV4: u32 = 1 << 14;
    /// The packets from the backend are IPv4.
    pub const IPV4_BACK: u32 = 1 << 15;
    /// The bits that are fixed for the life of the record.
    pub const FIXED: u32 = UDP | IPV4 | IPV4_BACK;
    /// Where in the word the client's window is, while [`COOKIE`] is set.
    pub const WINDOW_SHIFT: u32 = 16;
}

/// Slots of a bucket.
pub const BUCKET_SLOTS: usize = 8;

/// A bucket of the flow table's index: a cache line. See [`crate::table`] for a slot's bits.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket {
    /// Slots; 0 is an empty one.
    pub slots: [AtomicU64; BUCKET_SLOTS],
}

/// The key of `listeners`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The address; of a listener for an interface or any address all zeros, or for IPv4 the mapped `0.0.0.0`.
    pub address: Address,
    /// The interface's index; 0 for any.
    pub interface: u32,
    /// The port, be.
    pub port: u16,
    /// The protocol's number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// The key of `ranges`, a trie: protocol, interface, address and port, of which the last `prefix` counts. A range is cut
/// into at most 30 prefixes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeKey {
    /// How many of the bits after this word count: 192 - (16 - bits of the port).
    pub prefix: u32,
    /// The protocol's number.
    pub protocol: u32,
    /// The interface's index; 0 for any.
    pub interface: u32,
    /// As in [`ListenerKey`], but as bytes: the trie compares them in order.
    pub address: [u8; 16],
    /// The port, be.
    pub port: u16,
    /// Zero, and never part of a prefix.
    pub reserved: u16,
}

/// Bits of [`RangeKey`] in front of the port.
pub const RANGE_PREFIX: u32 = 32 + 32 + 128;

/// The value of `listeners` and `ranges`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// The rule's id.
    pub rule: u32,
    /// The first port of the listener, host order: where a shifted backend counts from.
    pub first_port: u16,
    /// Zero.
    pub reserved: u16,
}

/// The value of `rules`, by the rule's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// [`rule_flags`].
    pub flags: u32,
    /// [`choose`].
    pub choose: u32,
    /// The first of its slots in `slots`.
    pub first_slot: u32,
    /// How many there are; 0 while it meets nobody ([`rule_flags::REFUSE`] says what then happens).
    pub slots: u32,
    /// The seed of the hash of clients.
    pub seed: u32,
    /// How long a client comes back to its member, in seconds; 0 without persistence.
    pub persist: u32,
    /// New flows a second at most; 0 without a limit.
    pub new_flows: u32,
    /// SYNs a second above which SYNs are answered by cookies.
    pub cookies_above: u32,
}

/// Bits of [`Rule::flags`].
pub mod rule_flags {
    /// An empty pool refuses (reset, port unreachable) rather than stays silent.
    pub const REFUSE: u32 = 1;
    /// The client's address goes to the backend in TCP option 254.
    pub const TOA: u32 = 2;
    /// SYN cookies above [`super::Rule::cookies_above`].
    pub const COOKIES: u32 = 4;
}

/// Values of [`Rule::choose`]: how a slot is found.
pub mod choose {
    /// The next one (`turns`).
    pub const IN_TURN: u32 = 0;
    /// By the hash of the client's address.
    pub const SOURCE: u32 = 1;
    /// By the hash of the client's address and port.
    pub const SOURCE_PORT: u32 = 2;
    /// The first.
    pub const FIRST: u32 = 3;
}

/// The value of `members`, by the member's id: one address of one rule's pool.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: Address,
    /// The rule's id.
    pub rule: u32,
    /// The first of the addresses in `sources` that it may see.
    pub first_source: u32,
    /// How many there are; 0 while this host has no route to it.
    pub sources: u32,
    /// The port, host order: the one port, or the first of a shifted range.
    pub port: u16,
    /// [`member_flags`].
    pub flags: u16,
}

/// Bits of [`Member::flags`].
pub mod member_flags {
    /// The member has the port that the client called.
    pub const SAME_PORT: u16 = 1;
    /// Its port is [`super::Member::port`] and how far the called port is from the listener's first.
    pub const SHIFTED: u16 = 2;
    /// It takes new flows; without, flows that begin anew choose again.
    pub const LIVE: u16 = 4;
}

/// The value of `ports`, by a port's number (not its interface's index, which may be large): an interface of this host
/// that the engine serves. Port 0 is none. Aligned for the programs, which read the link address as one word.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The interface's index; 0 for a port that is gone.
    pub interface: u32,
    /// Its MTU.
    pub mtu: u32,
    /// Its link address.
    pub link: [u8; 6],
    /// [`port_flags`].
    pub flags: u16,
}

/// Bits of [`Port::flags`].
pub mod port_flags {
    /// Frames have an Ethernet header.
    pub const ETHERNET: u16 = 1;
    /// Frames may be sent there from XDP.
    pub const XDP: u16 = 2;
    /// Frames that go back where they came from are sent by `XDP_TX`.
    pub const XDP_TX: u16 = 4;
}

/// The value of `legs`, by the member's id, one for each processor. A rule's figures are the sums of its members'. What is
/// counted for every packet lies in front, in one line of the cache. Member 0 is nobody: packets of which it is not known
/// whose they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// New flows.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, with IP headers.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, with IP headers.
    pub bytes_out: u64,
    /// Packets that were not carried, by [`Drop`].
    pub drops: [u64; DROPS],
}

/// Why a packet was not carried once its member was known: the index into [`Leg::drops`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// A new flow: the flow table is full.
    TableFull = 0,
    /// A new flow: every source port that was tried is taken.
    NoPort = 1,
    /// A new flow: this host has no address on the way to the member.
    Unreachable = 2,
    /// No route or no neighbour to the backend or the client.
    NoRoute = 3,
    /// Larger than the way out takes, and not to be fragmented.
    TooBig = 4,
    /// Its time to live is over.
    Expired = 5,
    /// A fragment whose first part was not seen, or of a flow that cannot be translated in parts.
    Fragment = 6,
    /// The kernel would not change the packet.
    Mangled = 7,
    /// An ICMP error that could not be translated.
    IcmpError = 8,
    /// A header that cannot be translated to the other family.
    Family = 9,
    /// Two packets tried to begin the same flow at the same time.
    Race = 10,
}

/// How many reasons there are.
pub const DROPS: usize = 11;

/// Why a packet that could have begun a flow of a rule met no member: the index into [`Refusals::by_reason`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The pool is empty.
    Empty = 0,
    /// More new flows than the rule takes.
    Rate = 1,
    /// A cookie that is not ours, or too old.
    BadCookie = 2,
}

/// How many reasons there are.
pub const REFUSALS: usize = 3;

/// The value of `refusals`, by the rule's id, one for each processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// By [`Refusal`].
    pub by_reason: [u64; REFUSALS],
    /// SYNs that were answered by a cookie.
    pub cookies: u64,
}

/// The value of `rates`, by the rule's id: a bucket of tokens and the rate of SYNs, for all processors.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Rate {
    /// The second (of the coarse clock, low 32 bits) in the high half, new flows admitted in it in the low half.
    pub flows: AtomicU64,
    /// The same of SYNs.
    pub syns: AtomicU64,
    /// The second of the last SYN that was answered by a cookie, and 1 in the high half; 0 before there was one.
    pub cookies: AtomicU64,
}

/// The key of `persist`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PersistKey {
    /// The client.
    pub client: Address,
    /// The rule.
    pub rule: u32,
    /// Zero.
    pub reserved: u32,
}

/// The value of `persist`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// The member.
    pub member: u32,
    /// The tick until which it holds.
    pub until: u32,
}

/// The key of `fragments`: one datagram on its way (RFC 791, RFC 8200 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Who sends.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The datagram's identification.
    pub id: u32,
    /// The protocol's number.
    pub protocol: u32,
}

/// The value of `fragments`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The record, and in bit 31 the direction (as the flow table's index has it).
    pub record: u32,
    /// The tick of the first part.
    pub seen: u32,
}

/// The maps, by the names that they are pinned under.
pub mod maps {
    /// Array of one [`super::Config`], mapped.
    pub const CONFIG: &str = "config";
    /// Array of [`super::Record`], mapped.
    pub const RECORDS: &str = "records";
    /// Array of [`super::Bucket`], mapped.
    pub const BUCKETS: &str = "buckets";
    /// Array of `u64`, mapped: a bit for each record, set while it is free; then the summaries ([`crate::table`]).
    pub const FREE: &str = "free";
    /// Hash from [`super::ListenerKey`] to [`super::Listener`].
    pub const LISTENERS: &str = "listeners";
    /// Trie from [`super::RangeKey`] to [`super::Listener`].
    pub const RANGES: &str = "ranges";
    /// Hash from id to [`super::Rule`].
    pub const RULES: &str = "rules";
    /// Array of `u32`, the ids of members.
    pub const SLOTS: &str = "slots";
    /// Hash from id to [`super::Member`].
    pub const MEMBERS: &str = "members";
    /// Array of [`super::Address`].
    pub const SOURCES: &str = "sources";
    /// Array of `u64` by the rule's id: whose turn it is.
    pub const TURNS: &str = "turns";
    /// Array of [`super::Rate`] by the rule's id.
    pub const RATES: &str = "rates";
    /// LRU hash from [`super::PersistKey`] to [`super::Persist`].
    pub const PERSIST: &str = "persist";
    /// LRU hash from [`super::FragmentKey`] to [`super::Fragment`].
    pub const FRAGMENTS: &str = "fragments";
    /// Array of [`super::Port`].
    pub const PORTS: &str = "ports";
    /// Hash from an interface's index to its port's number (`u32`).
    pub const INTERFACES: &str = "interfaces";
    /// Hash from [`super::Address`] to `u32` (the interface's index): the addresses of this host.
    pub const LOCALS: &str = "locals";
    /// Per-processor array of [`super::Leg`] by the member's id.
    pub const LEGS: &str = "legs";
    /// Per-processor array of [`super::Refusals`] by the rule's id.
    pub const REFUSALS: &str = "refusals";
    /// Hash from the rule's id to its name: 64 bytes, zeros behind; for a daemon that takes the maps over.
    pub const NAMES: &str = "names";
}

const _: () = {
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Config>() == 104);
    assert!(size_of::<Record>() == 128);
    // One direction is 32 bytes from the other, and the first line is all that IPv4 needs.
    assert!(offset_of!(Record, back) == offset_of!(Record, forth) + 32);
    assert!(offset_of!(Record, back_rest) == offset_of!(Record, forth_rest) + 32);
    assert!(offset_of!(Record, forth_rest) == 64);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<ListenerKey>() == 24);
    assert!(size_of::<RangeKey>() == 32);
    assert!(size_of::<Listener>() == 8);
    assert!(size_of::<Rule>() == 32);
    assert!(size_of::<Member>() == 32);
    assert!(size_of::<Port>() == 16);
    assert!(size_of::<Leg>() == 128);
    assert!(size_of::<Refusals>() == 32);
    assert!(size_of::<Rate>() == 24);
    assert!(size_of::<PersistKey>() == 24);
    assert!(size_of::<FragmentKey>() == 40);
};
