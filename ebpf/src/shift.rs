//! Sequence numbers of connections that were opened by a SYN cookie: this host chose the first one that the client saw, the
//! backend another.
//!
//! No selective acknowledgement was negotiated with a cookie, so there are only two numbers to shift.

use portway_datapath::checksum::Difference;
use portway_datapath::cookie::moved;
use portway_datapath::record::Direction;
use portway_datapath::tcp::flags;

use crate::packet::Packet;
use crate::parse::Headers;
use crate::skb::Skb;

/// Shifts by `sequence`, which is what our first number is less than the backend's.
#[inline(never)]
pub fn shift(packet: Skb, headers: &Headers, sequence: u32, direction: Direction) -> bool {
    let Some(tcp) = packet.window::<20>(headers.transport) else { return false };
    let (before, after);
    match direction {
        Direction::Forth => {
            if headers.flags & flags::ACK == 0 {
                // There is none (RFC 9293 3.1).
                return true;
            }
            before = tcp.get::<u32, 8>();
            after = moved(before, sequence);
            tcp.set::<u32, 8>(after);
        }
        Direction::Back => {
            before = tcp.get::<u32, 4>();
            after = moved(before, sequence.wrapping_neg());
            tcp.set::<u32, 4>(after);
        }
    }
    packet.update_rest(headers.transport + 16, Difference::NONE.minus(before).plus(after).folded(), false)
}
