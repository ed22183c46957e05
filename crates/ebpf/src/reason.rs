//! Why packets were not carried, in words.

use portway_datapath::abi::{DROPS, Drop, REFUSALS, Refusal};

/// Whether what was not carried would have begun a flow, rather than belonged to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A new flow.
    NewFlow,
    /// Any packet.
    Packet,
}

/// Once a member was known. Two may have the same words: they are counted together then.
pub const DROPPED: [(Drop, Of, &str); DROPS] = [
    (Drop::TableFull, Of::NewFlow, "flow table full"),
    (Drop::NoPort, Of::NewFlow, "no source port"),
    (Drop::Unreachable, Of::NewFlow, "no route"),
    (Drop::NoRoute, Of::Packet, "no route"),
    (Drop::TooBig, Of::Packet, "too big"),
    (Drop::Expired, Of::Packet, "time to live over"),
    (Drop::Fragment, Of::Packet, "fragment"),
    (Drop::Mangled, Of::Packet, "not changed by the kernel"),
    (Drop::IcmpError, Of::Packet, "ICMP error not translated"),
    (Drop::Family, Of::Packet, "not translated between families"),
    (Drop::Race, Of::Packet, "begun twice"),
];

/// Of a rule, before one was.
pub const REFUSED: [(Refusal, Of, &str); REFUSALS] = [
    (Refusal::Empty, Of::NewFlow, "no backend"),
    (Refusal::Rate, Of::NewFlow, "new-flow rate"),
    (Refusal::BadCookie, Of::Packet, "bad SYN cookie"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words() {
        for index in 0..DROPS {
            assert_eq!(DROPPED.iter().filter(|(reason, ..)| *reason as usize == index).count(), 1, "{index}");
        }
        for index in 0..REFUSALS {
            assert_eq!(REFUSED.iter().filter(|(reason, ..)| *reason as usize == index).count(), 1, "{index}");
        }
    }
}
