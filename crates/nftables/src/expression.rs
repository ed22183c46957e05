//! The plan's statements as nf_tables expressions (`include/uapi/linux/netfilter/nf_tables.h`). Registers are
//! numbered as nft does it, so that nft lists the rules as the plan prints them.

use std::time::Duration;

use portway_core::address::{Family, Protocol};
use portway_core::plan::nftables::element::{DataShape, Datatype};
use portway_core::plan::nftables::pool::Addressing;
use portway_core::plan::nftables::statement::{Field, Hashed, Load, Statement, key_of, nat_of};
use portway_core::plan::nftables::{MARK, MARK_MASK, Set};
use portway_netlink::wire::Writer;

#[allow(clippy::wildcard_imports, reason = "these are the words that rules are made of")]
use crate::primitive::*;
use crate::set::ANONYMOUS;
use crate::value::{nfproto, words};

/// The index of lo in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;

/// Where a TCP header has its flags, and four of them (RFC 9293, 3.1).
const TCP_FLAGS: u32 = 13;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`
const TCP_RESET: u32 = 1;
const ICMPX: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;

/// Writes the expressions of a rule, as the value of `NFTA_RULE_EXPRESSIONS`. `anonymous` is the number in the batch of
/// the set of [`crate::set::tcp_and_udp`] that belongs to the rule.
pub fn rule(w: &mut Writer, statements: &[Statement], anonymous: u32) {
    for statement in statements {
        self::statement(w, *statement, anonymous);
    }
}

fn statement(w: &mut Writer, statement: Statement, anonymous: u32) {
    match statement {
        Statement::Lookup(set) => {
            key(w, set);
            lookup(w, set, false);
        }
        Statement::SetMark(set) => {
            key(w, set);
            lookup(w, set, true);
            set_mark(w);
        }
        Statement::ClearMark => {
            expression(w, "immediate", |w| {
                w.be32(1, register(0));
                w.nest(2, |w| w.put(1, &[0; 4]));
            });
            set_mark(w);
        }
        Statement::Attach(object) => expression(w, "objref", |w| {
            w.be32(1, CT_HELPER);
            w.text(2, object.name());
        }),
        Statement::Nat(set) => nat(w, set, key_of(set)),
        Statement::Choose { slots, by, protocol } => {
            if let Some(protocol) = protocol {
                load_meta(w, META_L4PROTO, 0);
                compare(w, EQUAL, &[protocol.number()]);
            }
            nat(w, slots, &[Load::Mark, by]);
        }
        Statement::Remember(addressing, timeout) => remember(w, addressing, timeout),
        Statement::Dispatch(set) => {
            key(w, set);
            lookup_into(w, set, Some(VERDICT_REGISTER));
        }
        Statement::TcpOrUdp => {
            load_meta(w, META_L4PROTO, 0);
            expression(w, "lookup", |w| {
                w.text(1, ANONYMOUS);
                w.be32(2, register(0));
                w.be32(4, anonymous);
            });
        }
        Statement::RejectTcp => {
            load_meta(w, META_L4PROTO, 0);
            compare(w, EQUAL, &[Protocol::Tcp.number()]);
            reject(w, TCP_RESET, 0);
        }
        Statement::Reject => reject(w, ICMPX, PORT_UNREACHABLE),
        Statement::Masquerade => expression(w, "masq", |_| {}),
        Statement::MarkIsOurs(ours) => {
            load_ct(w, CT_MARK, 0);
            mask(w, &MARK_MASK.to_ne_bytes());
            compare(w, if ours { EQUAL } else { NOT_EQUAL }, &MARK.to_ne_bytes());
        }
        Statement::TcpWithoutHandshake => {
            load_meta(w, META_L4PROTO, 0);
            compare(w, EQUAL, &[Protocol::Tcp.number()]);
            load_payload(w, TRANSPORT_HEADER, TCP_FLAGS, 1, 0);
            mask(w, &[FIN | SYN | RST | ACK]);
            compare(w, NOT_EQUAL, &[SYN]);
        }
        Statement::NotToThisHost => {
            expression(w, "fib", |w| {
                w.be32(1, register(0));
                // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR
                w.be32(2, 3);
                w.be32(3, 2);
            });
            compare(w, NOT_EQUAL, &LOCAL.to_ne_bytes());
        }
        Statement::ToLoopback => {
            load_meta(w, META_OIF, 0);
            compare(w, EQUAL, &LOOPBACK.to_ne_bytes());
        }
        Statement::FromLoopback(from) => {
            load_meta(w, META_IIF, 0);
            compare(w, if from { EQUAL } else { NOT_EQUAL }, &LOOPBACK.to_ne_bytes());
        }
        Statement::LoopbackAddress4(field) => {
            only(w, Family::V4, 0);
            let offset = address_offset(Family::V4, field);
            // 127.0.0.0/8 is the first byte.
            load_payload(w, NETWORK_HEADER, offset, 1, 0);
            compare(w, EQUAL, &[127]);
        }
        Statement::ToLoopbackAddress6 => {
            only(w, Family::V6, 0);
            let offset = address_offset(Family::V6, Field::Destination);
            load_payload(w, NETWORK_HEADER, offset, address_length(Family::V6), 0);
            compare(w, EQUAL, &std::net::Ipv6Addr::LOCALHOST.octets());
        }
        Statement::Goto(chain) => end(w, GOTO, Some(chain)),
        Statement::Jump(chain) => end(w, JUMP, Some(chain)),
        Statement::Return => end(w, RETURN, None),
        Statement::Accept => end(w, ACCEPT, None),
        Statement::Drop => end(w, DROP, None),
    }
}

/// Loads a set's key into the registers from 0 on.
fn key(w: &mut Writer, set: Set) {
    load(w, key_of(set), set.shape().key, 0);
}

/// Loads fields of these types into the registers from `word` on.
fn load(w: &mut Writer, loads: &[Load], types: &[Datatype], mut word: u32) {
    for (load, datatype) in loads.iter().zip(types) {
        match load {
            Load::Destination(family) => load_address(w, *family, Field::Destination, word),
            Load::Source(family) => load_address(w, *family, Field::Source, word),
            Load::Protocol => load_meta(w, META_L4PROTO, word),
            Load::Port => load_payload(w, TRANSPORT_HEADER, 2, 2, word),
            Load::Interface => load_meta(w, META_IIFNAME, word),
            Load::Family => load_meta(w, META_NFPROTO, word),
            Load::Mark => load_ct(w, CT_MARK, word),
            Load::Direction => load_ct(w, CT_DIRECTION, word),
            Load::Turn(slots) => expression(w, "numgen", |w| {
                w.be32(1, register(word));
                w.be32(2, *slots);
                // NFT_NG_INCREMENTAL
                w.be32(3, 0);
                w.be32(4, 0);
            }),
            Load::Hash(hashed) => hash(w, *hashed, word),
        }
        word += words(*datatype);
    }
}

fn load_address(w: &mut Writer, family: Family, field: Field, word: u32) {
    only(w, family, word);
    load_payload(w, NETWORK_HEADER, address_offset(family, field), address_length(family), word);
}

/// The hash of the client's address and port, in scratch registers behind the key.
fn hash(w: &mut Writer, hashed: Hashed, word: u32) {
    let scratch = 4;
    let mut length = address_length(hashed.family);
    load_address(w, hashed.family, Field::Source, scratch);
    if hashed.port.is_some() {
        load_payload(w, TRANSPORT_HEADER, 0, 2, scratch + length / 4);
        length += 4;
    }
    expression(w, "hash", |w| {
        w.be32(1, register(scratch));
        w.be32(2, register(word));
        w.be32(3, length);
        w.be32(4, hashed.slots);
        hashed.seed.into_iter().for_each(|seed| w.be32(5, seed));
        // NFT_HASH_JENKINS
        w.be32(7, 0);
    });
}

/// Rewrites an address and, where the map has ports, the port.
fn nat(w: &mut Writer, set: Set, loads: &[Load]) {
    let Some((family, field)) = nat_of(set) else { return };
    load(w, loads, set.shape().key, 0);
    lookup(w, set, true);
    let with_port = matches!(set.shape().data, DataShape::Fields([_, _]));
    expression(w, "nat", |w| {
        // NFT_NAT_SNAT, NFT_NAT_DNAT
        w.be32(1, if field == Field::Source { 0 } else { 1 });
        w.be32(2, u32::from(nfproto(family)));
        w.be32(3, register(0));
        if with_port {
            w.be32(5, register(address_length(family) / 4));
        }
    });
}

/// Writes the destination into the map of clients, for a time that starts again with every new flow.
fn remember(w: &mut Writer, addressing: Addressing, timeout: Duration) {
    let set = addressing.persist();
    let shape = set.shape();
    let DataShape::Fields(fields) = shape.data else { return };
    key(w, set);
    // Behind the key, at the next register of 128 bits.
    let data = shape.key.iter().map(|field| words(*field)).sum::<u32>().next_multiple_of(4);
    // The family is the key's: asked for twice, nft would show it once more.
    let (family, offset) = (addressing.family, address_offset(addressing.family, Field::Destination));
    load_payload(w, NETWORK_HEADER, offset, address_length(family), data);
    load(w, &[Load::Port], &fields[1..], data + address_length(family) / 4);
    expression(w, "dynset", |w| {
        w.text(1, shape.name);
        // NFT_DYNSET_OP_UPDATE
        w.be32(3, 1);
        w.be32(4, register(0));
        w.be32(5, register(data));
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        w.put(6, &millis.to_be_bytes());
    });
}

fn reject(w: &mut Writer, kind: u32, code: u8) {
    expression(w, "reject", |w| {
        w.be32(1, kind);
        w.put(2, &[code]);
    });
}
