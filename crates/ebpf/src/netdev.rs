//! What drivers can do with XDP, as the kernel's `netdev` family of generic netlink tells (Linux 6.3,
//! `Documentation/netlink/specs/netdev.yaml`).
//!
//! Deliberately absent: what follows from it ([`crate::choice`]).

use std::collections::BTreeMap;
use std::io;

use portway_netlink::socket::{Listener, Socket};
use portway_netlink::wire::{Attributes, Message};
use rustix::net::netlink::GENERIC;

use crate::sys;

/// A frame of so large a packet lies in one buffer with every driver.
const ONE_BUFFER: u32 = 1500;

/// What a driver can do (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Those of the kernel's word (`enum netdev_xdp_act`, `include/uapi/linux/netdev.h`).
    #[cfg(test)]
    pub fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Runs programs natively, with all verdicts but redirection.
    pub fn runs(self) -> bool {
        self.0 & 1 != 0
    }

    /// Its programs may redirect.
    pub fn redirects(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// Takes frames that were redirected to it, as large as its MTU lets them be. Of a veth device that depends on the other
    /// end, and changes. Where it takes single buffers only, the kernel drops others (`xdp_ok_fwd_dev`), and who sends does
    /// not learn of it.
    pub fn takes(self, mtu: u32) -> bool {
        self.0 & 1 << 2 != 0 && (self.0 & 1 << 6 != 0 || mtu <= ONE_BUFFER)
    }

    /// Its programs may see packets in more than one buffer.
    pub fn fragments(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// `GENL_ID_CTRL`, the family that knows the others' numbers.
const CONTROL: u16 = 16;
/// `CTRL_CMD_GETFAMILY`
const GET_FAMILY: u8 = 3;
/// `NETDEV_CMD_DEV_GET`
const GET_DEVICE: u8 = 1;

/// The family's number, and that of the group that is told of changes.
fn family(socket: &mut Socket) -> io::Result<(u16, Option<u32>)> {
    // struct genlmsghdr: command, version, reserved.
    let answer = socket.get(CONTROL, |w| {
        w.raw(&[GET_FAMILY, 1, 0, 0]);
        w.text(2, "netdev");
    })?;
    let attributes = Attributes::of(answer.get(4..).unwrap_or_default());
    let family = attributes.find(1).and_then(|bytes| bytes.first_chunk().copied()).map(u16::from_ne_bytes);
    // CTRL_ATTR_MCAST_GROUPS: a list of groups, each with its name and its number.
    let group = attributes.inside(7).find_map(|(_, group)| {
        let group = Attributes::of(group);
        let number = group.find(2)?.first_chunk().copied().map(u32::from_ne_bytes)?;
        (group.find_text(1) == Some("mgmt")).then_some(number)
    });
    Ok((family.ok_or(io::ErrorKind::NotFound)?, group))
}

/// The features of all interfaces, by their indices.
///
/// # Errors
/// The kernel's; `NotFound` before Linux 6.3.
pub fn features() -> io::Result<BTreeMap<u32, Features>> {
    let mut socket = Socket::open(Some(GENERIC))?;
    let (family, _) = family(&mut socket)?;
    let dump = socket.dump(family, |w| w.raw(&[GET_DEVICE, 1, 0, 0]))?;
    let device = |message: Message<'_>| {
        let attributes = message.attributes(4);
        let index = attributes.find(1)?.first_chunk().copied().map(u32::from_ne_bytes)?;
        let features = attributes.find(3)?.first_chunk().copied().map(u64::from_ne_bytes)?;
        Some((index, Features(features)))
    };
    Ok(dump.messages().filter(|message| message.kind == family).filter_map(device).collect())
}

/// A socket that is told when features change: those of a veth device do when something happens at its other end, of which
/// routing netlink says nothing.
///
/// # Errors
/// The kernel's; `NotFound` before Linux 6.3.
pub fn listen() -> io::Result<Listener> {
    let (_, group) = family(&mut Socket::open(Some(GENERIC))?)?;
    let listener = Listener::open(Some(GENERIC), 0)?;
    sys::hear_group(&listener, group.ok_or(io::ErrorKind::NotFound)?)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_frames_are_taken_by_who_takes_many_buffers() {
        let (none, single, many) = (Features(0b11), Features(0b111), Features(0b100_0111));
        assert!(!none.takes(1500));
        assert!(single.takes(1280) && single.takes(1500) && !single.takes(1501));
        assert!(many.takes(1500) && many.takes(9000));
    }
}
