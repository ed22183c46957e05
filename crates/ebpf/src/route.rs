//! Routing netlink: what interfaces and addresses this host has, and filters of the clsact queueing discipline
//! (`include/uapi/linux/rtnetlink.h`, `if_link.h`, `if_addr.h`, `pkt_sched.h`, `pkt_cls.h`).
//!
//! Deliberately absent: what follows from it ([`crate::follow`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use portway_netlink::socket::Socket;
use portway_netlink::wire::{Attributes, Message, Writer, flag};

/// Types of messages.
mod kind {
    pub const NEW_LINK: u16 = 16;
    pub const GET_LINK: u16 = 18;
    pub const NEW_ADDRESS: u16 = 20;
    pub const GET_ADDRESS: u16 = 22;
    pub const GET_ROUTE: u16 = 26;
    pub const NEW_QDISC: u16 = 36;
    pub const DELETE_QDISC: u16 = 37;
    pub const GET_QDISC: u16 = 38;
    pub const NEW_FILTER: u16 = 44;
    pub const DELETE_FILTER: u16 = 45;
    pub const GET_FILTER: u16 = 46;
}

/// The groups that tell of links, neighbours, addresses and routes (`RTMGRP_*`).
pub const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// What a message of those groups is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// An interface or an address.
    Interface,
    /// A route.
    Route,
    /// A neighbour.
    Neighbour,
}

/// What a message is about; nothing for types of no interest.
pub fn told(message: &Message<'_>) -> Option<Told> {
    match message.kind {
        16 | 17 | 20 | 21 => Some(Told::Interface),
        24 | 25 => Some(Told::Route),
        28 | 29 => Some(Told::Neighbour),
        _ => None,
    }
}

/// `AF_INET` and `AF_INET6`.
const INET: u8 = 2;
const INET6: u8 = 10;

/// `IFF_UP`
const UP: u32 = 1;
/// `ARPHRD_*` (`include/uapi/linux/if_arp.h`): an Ethernet header, and the kinds whose packets begin with the IP header
/// when they have arrived: PPP, raw IP, tunnels of IP, GRE, and none at all (tun, WireGuard).
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;
const IP: [u16; 8] = [512, 519, 768, 769, 776, 778, 823, 0xfffe];

/// How packets begin that arrive on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// With an Ethernet header.
    Ethernet,
    /// With the IP header.
    Ip,
    /// The loopback device.
    Loopback,
    /// In another way (`ARPHRD_*`).
    Other(u16),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// How its packets begin.
    pub layer: Layer,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// Its link address, zeros without one.
    pub address: [u8; 6],
    /// The index of the interface that it is a port of.
    pub master: Option<u32>,
    /// What made it ("veth", "bridge"); nothing of a device.
    pub made_by: Option<String>,
    /// The bus and the name there of the device that it is on.
    pub device: Option<(String, String)>,
}

/// A socket of routing netlink.
pub struct Route {
    socket: Socket,
}

fn word(attributes: &Attributes<'_>, kind: u16) -> Option<u32> {
    attributes.find(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// An address by its bytes.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
    }
}

fn interface(message: &Message<'_>) -> Option<Interface> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let header: &[u8; 16] = message.payload.first_chunk()?;
    let at = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let attributes = message.attributes(16);
    let text = |kind| attributes.find_text(kind).map(str::to_owned);
    let layer = match u16::from_ne_bytes([header[2], header[3]]) {
        ETHERNET => Layer::Ethernet,
        LOOPBACK => Layer::Loopback,
        kind if IP.contains(&kind) => Layer::Ip,
        other => Layer::Other(other),
    };
    let address = attributes.find(1).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    Some(Interface {
        index: at(4),
        name: text(3)?,
        layer,
        up: at(8) & UP != 0,
        mtu: word(&attributes, 4)?,
        address,
        master: word(&attributes, 10),
        made_by: attributes.inside(18).find_text(1).map(str::to_owned),
        // IFLA_PARENT_DEV_BUS_NAME, IFLA_PARENT_DEV_NAME
        device: text(57).zip(text(56)),
    })
}

impl Route {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(None)? })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let dump = self.socket.dump(kind::GET_LINK, |w| w.raw(&[0; 16]))?;
        Ok(dump
            .messages()
            .filter(|message| message.kind == kind::NEW_LINK)
            .filter_map(|m| interface(&m))
            .collect())
    }

    /// All addresses of this host, each with the index of its interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u32)>> {
        let dump = self.socket.dump(kind::GET_ADDRESS, |w| w.raw(&[0; 8]))?;
        let address = |message: Message<'_>| {
            // struct ifaddrmsg: family, prefix, flags, scope, index.
            let header: &[u8; 8] = message.payload.first_chunk()?;
            let attributes = message.attributes(8);
            // IFA_LOCAL is this end's, IFA_ADDRESS the other's of a point-to-point link; IPv6 has the second only.
            let bytes = attributes.find(2).or_else(|| attributes.find(1))?;
            let address = ip(bytes)?;
            let index = [header[4], header[5], header[6], header[7]];
            Some((address, u32::from_ne_bytes(index)))
        };
        let of_addresses = |message: &Message<'_>| message.kind == kind::NEW_ADDRESS;
        Ok(dump.messages().filter(of_addresses).filter_map(address).collect())
    }

    /// The address that the kernel would give a packet of this host to `destination`: the route's preferred one. Nothing when
    /// there is no route, or none that leads anywhere.
    pub fn source(&mut self, destination: IpAddr) -> Option<IpAddr> {
        /// `RTN_UNICAST`, `RTN_LOCAL`
        const LEADING: [u8; 2] = [1, 2];
        // struct rtmsg: family, bits of the destination and of the source, ToS, table, protocol, scope, type, flags.
        let answer = self.socket.get(kind::GET_ROUTE, |w| match destination {
            IpAddr::V4(address) => {
                w.raw(&[INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                w.put(1, &address.octets());
            }
            IpAddr::V6(address) => {
                w.raw(&[INET6, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                w.put(1, &address.octets());
            }
        });
        let answer = answer.ok()?;
        if !LEADING.contains(answer.get(7)?) {
            return None;
        }
        // RTA_PREFSRC
        ip(Attributes::of(answer.get(12..)?).find(7)?)
    }

    /// Whether an interface has the clsact queueing discipline.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_clsact(&mut self, interface: u32) -> io::Result<bool> {
        let dump = self.socket.dump(kind::GET_QDISC, |w| tc(w, interface, 0, 0, 0))?;
        let mut qdiscs = dump.messages().filter(|message| message.kind == kind::NEW_QDISC);
        Ok(qdiscs.any(|message| {
            index_of(&message) == Some(interface) && message.attributes(20).find_text(1) == Some("clsact")
        }))
    }

    /// Gives an interface the clsact queueing discipline.
    ///
    /// # Errors
    /// The kernel's: it has one.
    pub fn add_clsact(&mut self, interface: u32) -> io::Result<()> {
        let flags = flag::REQUEST | flag::ACK | flag::CREATE | flag::EXCL;
        self.socket.demand_with(kind::NEW_QDISC, flags, |w| {
            tc(w, interface, CLSACT, CLSACT_HANDLE, 0);
            w.text(1, "clsact");
        })
    }

    /// Takes it away, with all filters.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_clsact(&mut self, interface: u32) -> io::Result<()> {
        self.socket.demand(kind::DELETE_QDISC, |w| {
            tc(w, interface, CLSACT, CLSACT_HANDLE, 0);
            w.text(1, "clsact");
        })
    }

    /// How many filters an interface's clsact has, in both directions.
    ///
    /// # Errors
    /// The kernel's.
    pub fn filters(&mut self, interface: u32) -> io::Result<usize> {
        let mut count = 0;
        for parent in [INGRESS, EGRESS] {
            let dump = self.socket.dump(kind::GET_FILTER, |w| tc(w, interface, parent, 0, 0))?;
            let filter = |message: &Message<'_>| {
                // Each priority is listed by itself as well, without a handle.
                message.kind == kind::NEW_FILTER && handle_of(message).is_some_and(|handle| handle != 0)
            };
            count += dump.messages().filter(filter).count();
        }
        Ok(count)
    }

    /// Adds our filter, or puts another program in the place of its, between two packets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_filter(&mut self, interface: u32, program: BorrowedFd<'_>) -> io::Result<()> {
        let flags = flag::REQUEST | flag::ACK | flag::CREATE;
        self.socket.demand_with(kind::NEW_FILTER, flags, |w| {
            tc(w, interface, INGRESS, FILTER_HANDLE, FILTER);
            w.text(1, "bpf");
            w.nest(2, |w| {
                w.put(6, &program.as_raw_fd().to_ne_bytes());
                w.text(7, "portway");
                // TCA_BPF_FLAG_ACT_DIRECT
                w.put(8, &1u32.to_ne_bytes());
            });
        })
    }

    /// Removes our filter.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_filter(&mut self, interface: u32) -> io::Result<()> {
        self.socket.demand(kind::DELETE_FILTER, |w| {
            tc(w, interface, INGRESS, FILTER_HANDLE, FILTER);
            w.text(1, "bpf");
        })
    }
}

/// `TC_H_CLSACT`, as a parent.
const CLSACT: u32 = 0xffff_fff1;
/// Its handle, `TC_H_MAKE(TC_H_CLSACT, 0)`.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`
const INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
const EGRESS: u32 = 0xffff_fff3;
/// The priority of our filter, behind those that others choose or are given, in the high half, and `ETH_P_ALL` in network
/// order in the low one.
const FILTER: u32 = 0xc000 << 16 | 0x0003_u16.to_be() as u32;
/// Its handle.
const FILTER_HANDLE: u32 = 1;

/// `struct tcmsg`: family, pads, index, handle, parent, info.
fn tc(w: &mut Writer, interface: u32, parent: u32, handle: u32, info: u32) {
    w.raw(&[0; 4]);
    [interface, handle, parent, info].iter().for_each(|word| w.raw(&word.to_ne_bytes()));
}

fn index_of(message: &Message<'_>) -> Option<u32> {
    message.payload.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)
}

fn handle_of(message: &Message<'_>) -> Option<u32> {
    message.payload.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)
}
