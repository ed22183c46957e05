//! What a packet is: a SYN, data, a lone acknowledgement, an end, or one of these again. Pure.
//!
//! IPv4 only, which the lab's loads are. Deliberately absent: anything that is no question of one packet and what went before it on
//! the same wire: no connection is followed.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Opens a connection.
    Syn,
    /// Answers that.
    SynAck,
    /// Carries bytes; it may end its direction as well.
    Data,
    /// Acknowledges and nothing more.
    Ack,
    /// Ends its direction and carries nothing.
    Fin,
    /// Ends the connection at once.
    Reset,
    /// Was sent before.
    Again,
    /// A UDP datagram.
    Datagram,
    /// No TCP and no UDP over IPv4: ARP and the like.
    Other,
}

impl Kind {
    /// All, in the order of a report.
    pub const ALL: [Self; 9] = [
        Self::Syn,
        Self::SynAck,
        Self::Ack,
        Self::Data,
        Self::Fin,
        Self::Reset,
        Self::Again,
        Self::Datagram,
        Self::Other,
    ];

    /// As records and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Data => "data",
            Self::Ack => "ACK",
            Self::Fin => "FIN",
            Self::Reset => "RST",
            Self::Again => "again",
            Self::Datagram => "datagram",
            Self::Other => "other",
        }
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// The directions of connections that have been seen, each with the sequence number that is to come next.
#[derive(Debug, Default)]
pub struct Seen(HashMap<(SocketAddrV4, SocketAddrV4), u32>);

impl Seen {
    /// What a packet is and which address it is from, by its first bytes (from the Ethernet header on).
    pub fn kind(&mut self, frame: &[u8]) -> (Kind, Ipv4Addr) {
        self.parse(frame).unwrap_or((Kind::Other, Ipv4Addr::UNSPECIFIED))
    }

    fn parse(&mut self, frame: &[u8]) -> Option<(Kind, Ipv4Addr)> {
        let number = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        if number(frame, 12)? != 0x0800 {
            return None;
        }
        let packet = frame.get(14..)?;
        let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let (source, destination) = (address(12)?, address(16)?);
        let (header, length) = (usize::from(packet.first()? & 15) * 4, usize::from(number(packet, 2)?));
        let segment = packet.get(header..)?;
        match packet.get(9)? {
            6 => {}
            17 => return Some((Kind::Datagram, source)),
            _ => return Some((Kind::Other, source)),
        }
        let ends = (
            SocketAddrV4::new(source, number(segment, 0)?),
            SocketAddrV4::new(destination, number(segment, 2)?),
        );
        let sequence = u32::from_be_bytes(*segment.get(4..)?.first_chunk()?);
        let (offset, flags) = (usize::from(segment.get(12)? >> 4) * 4, *segment.get(13)?);
        // The packet's own length, not the frame's: short frames are padded (and of the segments of a large one that the
        // sender's device is to cut, the kernel writes the length of all).
        let bytes = length.saturating_sub(header + offset) as u32;
        let kind = match flags {
            flags if flags & RST != 0 => return Some((Kind::Reset, source)),
            flags if flags & SYN != 0 => {
                let is_first = self.follows(ends, sequence, 1, flags);
                if !is_first {
                    Kind::Again
                } else if flags & 16 != 0 {
                    Kind::SynAck
                } else {
                    Kind::Syn
                }
            }
            flags => {
                let takes = bytes + u32::from(flags & FIN != 0);
                if takes > 0 && !self.follows(ends, sequence, takes, flags) {
                    Kind::Again
                } else if bytes > 0 {
                    Kind::Data
                } else if flags & FIN != 0 {
                    Kind::Fin
                } else {
                    Kind::Ack
                }
            }
        };
        Some((kind, source))
    }

    /// Whether something of that length is new in its direction. A SYN begins a direction anew unless it is the same.
    fn follows(&mut self, ends: (SocketAddrV4, SocketAddrV4), sequence: u32, length: u32, flags: u8) -> bool {
        let next = sequence.wrapping_add(length);
        let Some(expected) = self.0.insert(ends, next) else { return true };
        if flags & SYN != 0 {
            return expected != next;
        }
        let is_new = next.wrapping_sub(expected) as i32 > 0;
        if !is_new {
            self.0.insert(ends, expected);
        }
        is_new
    }
}

/// How many packets of each kind there were.
pub type Counts = BTreeMap<String, u64>;

/// Counts one.
pub fn count(counts: &mut Counts, kind: Kind) {
    *counts.entry(kind.name().to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a segment with that many bytes.
    fn frame(flags: u8, sequence: u32, bytes: u16) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&(40 + bytes).to_be_bytes());
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[10, 1, 0, 10]);
        frame[30..34].copy_from_slice(&[10, 1, 0, 1]);
        frame[34..38].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[46] = 5 << 4;
        frame[47] = flags;
        frame
    }

    #[test]
    fn a_connection_is_told_apart_from_what_is_sent_again() {
        let mut seen = Seen::default();
        let mut kind = |flags, sequence, bytes| seen.kind(&frame(flags, sequence, bytes)).0;
        // Across the end of the numbers.
        let first = u32::MAX - 50;
        assert_eq!(kind(2, first, 0), Kind::Syn);
        assert_eq!(kind(2, first, 0), Kind::Again);
        assert_eq!(kind(16, first.wrapping_add(1), 0), Kind::Ack);
        assert_eq!(kind(24, first.wrapping_add(1), 100), Kind::Data);
        assert_eq!(kind(24, first.wrapping_add(1), 100), Kind::Again);
        // Whoever sends a part again, and something new behind it, sends something new.
        assert_eq!(kind(24, first.wrapping_add(51), 100), Kind::Data);
        assert_eq!(kind(17, first.wrapping_add(151), 0), Kind::Fin);
        assert_eq!(kind(17, first.wrapping_add(151), 0), Kind::Again);
        assert_eq!(kind(16, first.wrapping_add(152), 0), Kind::Ack);
        assert_eq!(kind(4, 0, 0), Kind::Reset);
        // The same ports again.
        assert_eq!(kind(2, 7, 0), Kind::Syn);
        assert_eq!(kind(18, 99, 0), Kind::SynAck);
    }

    #[test]
    fn what_is_cut_or_no_tcp_is_other() {
        let whole = frame(2, 1, 0);
        for length in 0..48 {
            assert_eq!(Seen::default().kind(&whole[..length]).0, Kind::Other, "{length}");
        }
        let mut datagram = whole.clone();
        datagram[23] = 17;
        assert_eq!(Seen::default().kind(&datagram), (Kind::Datagram, "10.1.0.10".parse().unwrap()));
    }
}
