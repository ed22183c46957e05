//! Makes a packet as nearly all are ([`crate::header`]) what leaves: its addresses, its ports, its time to live, and the checksums
//! of both headers by what has changed.
//!
//! Deliberately absent: all other packets, and packets of another family ([`crate::rewrite`], `family.rs`).

use portway_datapath::abi::Record;
use portway_datapath::checksum::Difference;
use portway_datapath::record::Direction;

use crate::header::Header;
use crate::packet::Packet;
use crate::parse::TCP;
use crate::rewrite::{Summed, update_checksum};
use crate::skb::Skb;

/// Makes a packet in a driver's memory, where the bytes are all there is, what leaves.
#[inline(always)]
pub fn replace<P: Packet, H: Header, const LINK: u32>(
    packet: P,
    header: H,
    record: &Record,
    direction: Direction,
) -> bool {
    let new = H::leaving(record, direction);
    let ports = record.side(direction.other()).ports_of_answer();
    let addresses = header.difference(new);
    let change = addresses.minus(header.ports()).plus(ports);
    header.set_ports(ports);
    if header.protocol() == TCP {
        let Some(tcp) = packet.window::<20>(LINK + H::LENGTH) else { return false };
        tcp.set::<u16, 16>(change.apply(tcp.get::<u16, 16>()));
    } else {
        let Some(udp) = packet.window::<8>(LINK + H::LENGTH) else { return false };
        udp.set::<u16, 6>(change.apply_udp(udp.get::<u16, 6>()));
    }
    header.replace(new, addresses);
    true
}

/// The same in a socket buffer, in which the checksum may be unfinished, or another beside it. (Functions of the kernel do this
/// as well, whatever there is: [`update_checksum`]. They take a third of the time of all that is done with a packet.)
#[inline(always)]
pub fn replace_in<H: Header, const LINK: u32>(
    packet: Skb,
    header: H,
    record: &Record,
    direction: Direction,
) -> bool {
    let summed = packet.summed();
    if matches!(summed, Summed::Hidden) {
        return replace_by_calls::<H, LINK>(packet, header, record, direction);
    }
    if matches!(summed, Summed::Partial) {
        return replace_unfinished::<H, LINK>(packet, header, record, direction);
    }
    if matches!(summed, Summed::Complete) {
        let addresses = header.difference(H::leaving(record, direction));
        packet.update_complete(header.of_whole(addresses).folded());
    }
    replace::<Skb, H, LINK>(packet, header, record, direction)
}

/// [`replace_in`] where a device is to finish the checksum, which so far has the pseudo header's sum and no ports.
#[inline(always)]
fn replace_unfinished<H: Header, const LINK: u32>(
    packet: Skb,
    header: H,
    record: &Record,
    direction: Direction,
) -> bool {
    let new = H::leaving(record, direction);
    let addresses = header.difference(new);
    header.set_ports(record.side(direction.other()).ports_of_answer());
    if header.protocol() == TCP {
        let Some(tcp) = packet.window::<20>(LINK + H::LENGTH) else { return false };
        tcp.set::<u16, 16>(addresses.plus(u32::from(tcp.get::<u16, 16>())).short());
    } else {
        let Some(udp) = packet.window::<8>(LINK + H::LENGTH) else { return false };
        let check = udp.get::<u16, 6>();
        // Without a checksum there is none to finish: what is unfinished belongs to a packet inside.
        if check != 0 {
            udp.set::<u16, 6>(addresses.plus(u32::from(check)).short());
        }
    }
    header.replace(new, addresses);
    true
}

/// [`replace_in`] where nobody knows.
#[inline(always)]
fn replace_by_calls<H: Header, const LINK: u32>(
    packet: Skb,
    header: H,
    record: &Record,
    direction: Direction,
) -> bool {
    let new = H::leaving(record, direction);
    let ports = record.side(direction.other()).ports_of_answer();
    let addresses = header.difference(new);
    let rest = Difference::NONE.minus(header.ports()).plus(ports);
    let udp = header.protocol() != TCP;
    header.set_ports(ports);
    let check = LINK + H::LENGTH + if udp { 6 } else { 16 };
    header.replace_in(packet, LINK, new, addresses) && update_checksum(packet, check, addresses, rest, udp)
}
