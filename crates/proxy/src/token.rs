//! What an epoll event is about, in the 64 bits that epoll keeps for us.
//!
//! The generation tells a socket from an earlier one in the same slab slot, whose events may still be in the
//! batch that is being worked off.

use rustix::event::epoll::EventData;

/// What an event is about. Packed in the 64 bits that epoll keeps: kind, generation, slab index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Wake,
    Listener(u32),
    Client(u32, u32),
    Backend(u32, u32),
    UdpListener(u32),
    UdpFlow(u32, u32),
}

/// Generations have 24 bits.
pub(crate) const GENERATION: u32 = (1 << 24) - 1;

impl Token {
    pub(crate) fn pack(self) -> EventData {
        let (kind, generation, index) = match self {
            Self::Wake => (0u64, 0, 0),
            Self::Listener(index) => (1, 0, index),
            Self::Client(index, generation) => (2, generation, index),
            Self::Backend(index, generation) => (3, generation, index),
            Self::UdpListener(index) => (4, 0, index),
            Self::UdpFlow(index, generation) => (5, generation, index),
        };
        EventData::new_u64(kind << 56 | u64::from(generation & GENERATION) << 32 | u64::from(index))
    }

    pub(crate) fn unpack(data: EventData) -> Self {
        let bits = data.u64();
        let (index, generation) = (bits as u32, (bits >> 32) as u32 & GENERATION);
        match bits >> 56 {
            1 => Self::Listener(index),
            2 => Self::Client(index, generation),
            3 => Self::Backend(index, generation),
            4 => Self::UdpListener(index),
            5 => Self::UdpFlow(index, generation),
            _ => Self::Wake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_epoll() {
        for token in [
            Token::Wake,
            Token::Listener(7),
            Token::Client(u32::MAX, GENERATION),
            Token::Backend(0, 1),
            Token::UdpListener(3),
            Token::UdpFlow(9, 2),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
