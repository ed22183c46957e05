//! Reading and filling a [`Record`]: what is fixed for the life of a flow, its two tuples, and how long it lives.
//!
//! Deliberately absent: who may fill a record and when ([`crate::table`]), and the state of TCP.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Address, AtomicAddress, Clock, Config, GRACE, Record, Tuple, state};

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

/// What is fixed when a flow begins. The fields are those of [`Record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// [`Record::client`].
    pub client: Address,
    /// [`Record::listener`].
    pub listener: Address,
    /// [`Record::source`].
    pub source: Address,
    /// [`Record::backend`].
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

impl AtomicAddress {
    /// The address.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> Address {
        Address { high: self.high.load(Relaxed), low: self.low.load(Relaxed) }
    }

    /// Makes it `address`.
    #[inline(always)]
    pub fn store(&self, address: Address) {
        self.high.store(address.high, Relaxed);
        self.low.store(address.low, Relaxed);
    }

    /// Whether it is `address`.
    #[inline(always)]
    fn is(&self, address: &Address) -> bool {
        self.low.load(Relaxed) == address.low && self.high.load(Relaxed) == address.high
    }
}

impl Record {
    /// Fills a record that the caller has claimed. `state` must have [`state::UDP`] if the flow is UDP. The time goes in
    /// last, so that who found the record by an entry of its former flow sees either an expired record or another tuple.
    #[inline(always)]
    pub fn fill(&self, flow: &Flow, state: u32, now: u32) {
        self.client.store(flow.client);
        self.listener.store(flow.listener);
        self.source.store(flow.source);
        self.backend.store(flow.backend);
        self.forth_ports.store(pair(flow.client_port, flow.listener_port), Relaxed);
        self.back_ports.store(pair(flow.backend_port, flow.source_port), Relaxed);
        self.forth.store(0, Relaxed);
        self.back.store(0, Relaxed);
        self.forth_looked_up.store(0, Relaxed);
        self.back_looked_up.store(0, Relaxed);
        self.sequence.store(0, Relaxed);
        self.member.store(flow.member, Relaxed);
        self.rule.store(flow.rule, Relaxed);
        self.begun.store(now, Relaxed);
        self.state.store(state, Relaxed);
        self.seen.store(now, Relaxed);
    }

    /// What is fixed for the life of the flow.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow {
            client: self.client.load(),
            listener: self.listener.load(),
            source: self.source.load(),
            backend: self.backend.load(),
            client_port: self.client_port(),
            listener_port: self.listener_port(),
            source_port: self.source_port(),
            backend_port: self.backend_port(),
            member: self.member.load(Relaxed),
            rule: self.rule.load(Relaxed),
        }
    }

    /// The client's port, be.
    #[inline(always)]
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.forth_ports.load(Relaxed) as u16
    }

    /// The port it called, be.
    #[inline(always)]
    #[must_use]
    pub fn listener_port(&self) -> u16 {
        (self.forth_ports.load(Relaxed) >> 16) as u16
    }

    /// The port that the backend sees, be.
    #[inline(always)]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        (self.back_ports.load(Relaxed) >> 16) as u16
    }

    /// The backend's port, be.
    #[inline(always)]
    #[must_use]
    pub fn backend_port(&self) -> u16 {
        self.back_ports.load(Relaxed) as u16
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
        match direction {
            Direction::Forth => Tuple {
                source: self.client.load(),
                destination: self.listener.load(),
                source_port: self.client_port(),
                destination_port: self.listener_port(),
                protocol: self.protocol(),
            },
            Direction::Back => Tuple {
                source: self.backend.load(),
                destination: self.source.load(),
                source_port: self.backend_port(),
                destination_port: self.source_port(),
                protocol: self.protocol(),
            },
        }
    }

    /// Whether [`Self::tuple`] is `tuple`.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, direction: Direction, tuple: &Tuple) -> bool {
        let ends = match direction {
            Direction::Forth => {
                self.forth_ports.load(Relaxed) == tuple.ports()
                    && self.client.is(&tuple.source)
                    && self.listener.is(&tuple.destination)
            }
            Direction::Back => {
                self.back_ports.load(Relaxed) == tuple.ports()
                    && self.backend.is(&tuple.source)
                    && self.source.is(&tuple.destination)
            }
        };
        ends && self.protocol() == tuple.protocol
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
        // Of an ended flow no packet is carried, so that all it holds is the source port.
        return config.timeouts[Clock::Closed as usize];
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
