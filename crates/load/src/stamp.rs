//! The first bytes of every message to Portway's own server, over TCP and UDP: what is asked for, and which request it is.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `PWB1` |
//! | 4 | 1 | what is asked for: 1 echo, 2 sink, 3 source |
//! | 5 | 1 | 1: the server ends the connection after the answer |
//! | 6 | 2 | 0 |
//! | 8 | 8 | echo: the length of the message, these 24 bytes included; sink and source: the bytes of the stream, 0 without an end; big-endian |
//! | 16 | 8 | the request's number, of the client's choice |
//!
//! An echo is returned with its stamp, so that any echo server will do (RFC 862), and an answer that was meant for another
//! request is seen. A source writes until the client ends the connection, a sink reads until then (RFC 864 and 863 without
//! the stamp); meanwhile the sink says every so often how many bytes of the stream have come, as 8 bytes, big-endian. What
//! the sender's kernel took says less: it, and every proxy on the way, may hold megabytes that have not arrived. Of a stream
//! with an end a source writes so much and ends the connection, and a sink says once that so much has come. Pure.

/// A stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) wish: Wish,
    pub(crate) close: bool,
    pub(crate) len: u64,
    pub(crate) id: u64,
}

/// A datagram of so many bytes that a [`crate::Server`] returns as it is, for who sends in a way of his own. It is no shorter
/// than what the server must read.
pub fn datagram(size: usize) -> Vec<u8> {
    let size = size.max(Stamp::LEN);
    let mut message = filler(size);
    let stamp = Stamp { wish: Wish::Echo, close: false, len: size as u64, id: 0 };
    message[..Stamp::LEN].copy_from_slice(&stamp.encode());
    message
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Echo,
    Sink,
    Source,
}

impl Stamp {
    /// Bytes.
    pub(crate) const LEN: usize = 24;
    /// How every stamp begins.
    pub(crate) const MAGIC: [u8; 4] = *b"PWB1";

    /// As bytes.
    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&Self::MAGIC);
        bytes[4] = match self.wish {
            Wish::Echo => 1,
            Wish::Sink => 2,
            Wish::Source => 3,
        };
        bytes[5] = u8::from(self.close);
        bytes[8..16].copy_from_slice(&self.len.to_be_bytes());
        bytes[16..].copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    /// From a message's first bytes; `None` when they are no stamp.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        if bytes[..4] != Self::MAGIC || bytes[6..8] != [0, 0] {
            return None;
        }
        let wish = match bytes[4] {
            1 => Wish::Echo,
            2 => Wish::Sink,
            3 => Wish::Source,
            _ => return None,
        };
        let number = |at: usize| bytes[at..].first_chunk().map(|number| u64::from_be_bytes(*number));
        let close = match bytes[5] {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { wish, close, len: number(8)?, id: number(16)? })
    }
}

/// What a sink says: the bytes that have come, its stamp not included.
pub(crate) const REPORT: usize = 8;

/// A message's bytes after its stamp: they repeat after 251 bytes, a prime, so that a shift shows.
pub(crate) fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_nonsense_does_not() {
        for wish in [Wish::Echo, Wish::Sink, Wish::Source] {
            let stamp = Stamp { wish, close: wish == Wish::Echo, len: 0x0102_0304, id: u64::MAX - 7 };
            assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
            for at in 0..8 {
                let mut bytes = stamp.encode();
                bytes[at] ^= 0x80;
                assert_eq!(Stamp::decode(&bytes), None, "byte {at}");
            }
            assert_eq!(Stamp::decode(&stamp.encode()[..23]), None);
        }
    }
}
