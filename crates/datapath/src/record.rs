//! Reading and filling a [`Record`]: what is fixed for the life of a flow, its two tuples, and how long it lives.
//!
//! Deliberately absent: who may fill a record and when ([`crate::table`]), and the state of TCP.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Address, Clock, Config, GRACE, Record, Rest, Side, Tuple, state};

/// The number of TCP in IP headers.
const TCP: u32 = 6;

/// The number of UDP in IP headers.
const UDP: u32 = 17;

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the backend.
    Forth,
    /// From the backend to the client.
    Back,
}

impl Direction {
    /// The other.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Forth => Self::Back,
            Self::Back => Self::Forth,
        }
    }
}

/// What is fixed when a flow begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who called.
    pub client: Address,
    /// What it called.
    pub listener: Address,
    /// Which address of this host the backend sees.
    pub source: Address,
    /// Where it leads.
    pub backend: Address,
    /// The client's port, be.
    pub client_port: u16,
    /// The port it called, be.
    pub listener_port: u16,
    /// The port that the backend sees, be.
    pub source_port: u16,
    /// The backend's port, be.
    pub backend_port: u16,
    /// [`Record::member`].
    pub member: u32,
    /// [`Record::rule`].
    pub rule: u32,
}

/// The last word of an address.
#[inline(always)]
const fn last(address: Address) -> u64 {
    address.low >> 32
}

impl Side {
    /// Fills this and its rest.
    #[inline(always)]
    fn fill(&self, rest: &Rest, [source, destination]: [Address; 2], ports: u32) {
        self.last_words.store(last(source) | last(destination) << 32, Relaxed);
        self.ports.store(ports, Relaxed);
        self.looked_up.store(0, Relaxed);
        self.way.store(0, Relaxed);
        rest.source_high.store(source.high, Relaxed);
        rest.destination_high.store(destination.high, Relaxed);
        rest.source_third.store(source.low as u32, Relaxed);
        rest.destination_third.store(destination.low as u32, Relaxed);
    }

    /// Both addresses, of IPv4, of what answers.
    #[inline(always)]
    #[must_use]
    pub fn addresses_of_answer(&self) -> u64 {
        self.last_words.load(Relaxed).rotate_left(32)
    }

    /// Both ports of what answers.
    #[inline(always)]
    #[must_use]
    pub fn ports_of_answer(&self) -> u32 {
        self.ports.load(Relaxed).rotate_left(16)
    }

    /// The sender's address.
    #[inline(always)]
    fn source(&self, rest: &Rest) -> Address {
        let third = u64::from(rest.source_third.load(Relaxed));
        Address { high: rest.source_high.load(Relaxed), low: third | self.last_words.load(Relaxed) << 32 }
    }

    /// To whom it sends.
    #[inline(always)]
    fn destination(&self, rest: &Rest) -> Address {
        let third = u64::from(rest.destination_third.load(Relaxed));
        let last = self.last_words.load(Relaxed) & !0xffff_ffff;
        Address { high: rest.destination_high.load(Relaxed), low: third | last }
    }
}

impl Record {
    /// Fills a record that the caller has claimed. `state` must have [`state::UDP`] if the flow is UDP; what else is of
    /// [`state::FIXED`] comes from the flow. The time goes in last, so that who found the record by an entry of its former
    /// flow sees either an expired record or another tuple.
    #[inline(always)]
    pub fn fill(&self, flow: &Flow, state: u32, now: u32) {
        let forth = pair(flow.client_port, flow.listener_port);
        let back = pair(flow.backend_port, flow.source_port);
        self.forth.fill(&self.forth_rest, [flow.client, flow.listener], forth);
        self.back.fill(&self.back_rest, [flow.backend, flow.source], back);
        self.sequence.store(0, Relaxed);
        self.member.store(flow.member, Relaxed);
        self.rule.store(flow.rule, Relaxed);
        self.begun.store(now, Relaxed);
        let ipv4 = if flow.client.is_ipv4() { state::IPV4 } else { 0 };
        let ipv4_back = if flow.backend.is_ipv4() { state::IPV4_BACK } else { 0 };
        self.state.store(state | ipv4 | ipv4_back, Relaxed);
        self.seen.store(now, Relaxed);
    }

    /// What is fixed for the life of the flow.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let (forth, back) = (self.tuple(Direction::Forth), self.tuple(Direction::Back));
        Flow {
            client: forth.source,
            listener: forth.destination,
            source: back.destination,
            backend: back.source,
            client_port: forth.source_port,
            listener_port: forth.destination_port,
            source_port: back.destination_port,
            backend_port: back.source_port,
            member: self.member.load(Relaxed),
            rule: self.rule.load(Relaxed),
        }
    }

    /// What belongs to one direction.
    #[inline(always)]
    #[must_use]
    pub const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Forth => &self.forth,
            Direction::Back => &self.back,
        }
    }

    /// The rest of [`Self::side`].
    #[inline(always)]
    const fn rest(&self, direction: Direction) -> &Rest {
        match direction {
            Direction::Forth => &self.forth_rest,
            Direction::Back => &self.back_rest,
        }
    }

    /// The client's port, be.
    #[inline(always)]
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.forth.ports.load(Relaxed) as u16
    }

    /// Whether packets of a direction are IPv4 on arrival.
    #[inline(always)]
    #[must_use]
    pub fn is_ipv4(&self, direction: Direction) -> bool {
        self.state.load(Relaxed) & ipv4(direction) != 0
    }

    /// The protocol's number.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u32 {
        if self.state.load(Relaxed) & state::UDP != 0 { UDP } else { TCP }
    }

    /// What its packets look like on arrival.
    #[inline(always)]
    #[must_use]
    pub fn tuple(&self, direction: Direction) -> Tuple {
        let (side, rest) = (self.side(direction), self.rest(direction));
        let ports = side.ports.load(Relaxed);
        Tuple {
            source: side.source(rest),
            destination: side.destination(rest),
            source_port: ports as u16,
            destination_port: (ports >> 16) as u16,
            protocol: self.protocol(),
        }
    }

    /// Whether [`Self::tuple`] is `tuple`.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, direction: Direction, tuple: &Tuple) -> bool {
        let (side, rest) = (self.side(direction), self.rest(direction));
        let Tuple { source, destination, .. } = tuple;
        side.ports.load(Relaxed) == tuple.ports()
            && side.last_words.load(Relaxed) == last(*source) | last(*destination) << 32
            && rest.source_high.load(Relaxed) == source.high
            && rest.destination_high.load(Relaxed) == destination.high
            && rest.source_third.load(Relaxed) == source.low as u32
            && rest.destination_third.load(Relaxed) == destination.low as u32
            && self.protocol() == tuple.protocol
    }

    /// [`Self::has`] for packets of IPv4: both addresses as [`Side::last_words`] has them, both ports as [`Tuple::ports`]
    /// has them, and the protocol.
    #[inline(always)]
    #[must_use]
    pub fn has_ipv4(&self, direction: Direction, addresses: u64, ports: u32, protocol: u32) -> bool {
        let side = self.side(direction);
        let wanted = ipv4(direction) | if protocol == UDP { state::UDP } else { 0 };
        side.last_words.load(Relaxed) == addresses
            && side.ports.load(Relaxed) == ports
            && self.state.load(Relaxed) & (ipv4(direction) | state::UDP) == wanted
    }

    /// Whether the flow carries packets: it has neither been ended nor expired.
    #[inline(always)]
    #[must_use]
    pub fn is_usable(&self, config: &Config, now: u32) -> bool {
        self.state.load(Relaxed) & state::ENDED == 0 && !self.is_expired(config, now)
    }

    /// Whether the flow has had no packet for as long as its state allows.
    #[inline(always)]
    #[must_use]
    pub fn is_expired(&self, config: &Config, now: u32) -> bool {
        idle(self.seen.load(Relaxed), now) > timeout_of(self.state.load(Relaxed), config)
    }

    /// Whether it has been so for [`GRACE`], so that nobody still works with what was found before.
    #[inline(always)]
    #[must_use]
    pub fn is_reclaimable(&self, config: &Config, now: u32) -> bool {
        let timeout = timeout_of(self.state.load(Relaxed), config);
        idle(self.seen.load(Relaxed), now) > timeout.saturating_add(GRACE)
    }
}

/// The bit of the state that says that packets of a direction are IPv4.
#[inline(always)]
const fn ipv4(direction: Direction) -> u32 {
    match direction {
        Direction::Forth => state::IPV4,
        Direction::Back => state::IPV4_BACK,
    }
}

/// Two ports as [`Tuple::ports`] has them.
#[inline(always)]
const fn pair(source: u16, destination: u16) -> u32 {
    source as u32 | (destination as u32) << 16
}

/// Ticks from `seen` to `now`; none if another processor's clock is ahead of this one's. Half the range of ticks is more
/// than a year.
#[inline(always)]
const fn idle(seen: u32, now: u32) -> u32 {
    let ticks = now.wrapping_sub(seen);
    if ticks >> 31 == 0 { ticks } else { 0 }
}

/// How long a flow in this state lives without a packet, in ticks.
#[inline(always)]
#[must_use]
pub const fn timeout_of(bits: u32, config: &Config) -> u32 {
    // Constant indices: nothing for the verifier to ask about.
    if bits & (state::ENDED | state::RST) != 0 {
        // Of an ended flow no packet is carried, so that all it holds is the source port; and a connection that was refused is
        // not worth asking about.
        let over = bits & (state::ENDED | state::ESTABLISHED) != state::ESTABLISHED
            || bits & (state::FIN | state::FIN_BACK) == state::FIN | state::FIN_BACK;
        return config.timeouts[if over { Clock::Closed as usize } else { Clock::Reset as usize }];
    }
    if bits & state::UDP != 0 {
        return if bits & state::ANSWERED != 0 {
            config.timeouts[Clock::UdpAnswered as usize]
        } else {
            config.timeouts[Clock::UdpUnanswered as usize]
        };
    }
    match bits & (state::FIN | state::FIN_BACK) {
        0 if bits & state::ESTABLISHED != 0 => config.timeouts[Clock::Established as usize],
        0 => config.timeouts[Clock::Opening as usize],
        state::FIN | state::FIN_BACK => config.timeouts[Clock::Closing as usize],
        _ if bits & state::BACKEND_FIRST != 0 => config.timeouts[Clock::TimeWait as usize],
        _ => config.timeouts[Clock::Closed as usize],
    }
}
