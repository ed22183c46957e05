//! The plan's statements as nf_tables expressions (`include/uapi/linux/netfilter/nf_tables.h`). Registers are
//! numbered as nft does it, so that nft lists the rules as the plan prints them.

use portway_core::address::{Family, Protocol};
use portway_core::plan::nftables::table::{Chain, Field, Load, SLOTS, Statement, key_of, nat_of};
use portway_core::plan::nftables::{MARK, MARK_MASK, Set};

use crate::value::nfproto;
use crate::wire::Writer;

/// The index of lo in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;

const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_DIRECTION: u32 = 1;
const CT_MARK: u32 = 3;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Where a TCP header has its flags, and four of them (RFC 9293, 3.1).
const TCP_FLAGS: u32 = 13;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// `NF_DROP`, `NF_ACCEPT`, `NFT_GOTO`, `NFT_RETURN`
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// Writes the expressions of a rule, as the value of `NFTA_RULE_EXPRESSIONS`.
pub fn rule(w: &mut Writer, statements: &[Statement]) {
    for statement in statements {
        self::statement(w, *statement);
    }
}

fn statement(w: &mut Writer, statement: Statement) {
    match statement {
        Statement::Lookup(set) => {
            key(w, set);
            lookup(w, set, false);
        }
        Statement::SetMark(set) => {
            key(w, set);
            lookup(w, set, true);
            expression(w, "ct", |w| {
                w.be32(2, CT_MARK);
                w.be32(4, register(0));
            });
        }
        Statement::AttachHelper => {
            key(w, Set::Helpers);
            expression(w, "objref", |w| {
                w.be32(3, register(0));
                w.text(4, Set::Helpers.shape().name);
            });
        }
        Statement::Nat(set) => nat(w, set),
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
        Statement::Goto(chain) => verdict(w, GOTO, Some(chain)),
        Statement::Return => verdict(w, RETURN, None),
        Statement::Accept => verdict(w, ACCEPT, None),
        Statement::Drop => verdict(w, DROP, None),
    }
}

/// Loads a set's key into the registers from 0 on.
fn key(w: &mut Writer, set: Set) {
    let mut word = 0;
    for (load, datatype) in key_of(set).iter().zip(set.shape().key) {
        match load {
            Load::Destination(family) => {
                only(w, *family, word);
                let offset = address_offset(*family, Field::Destination);
                load_payload(w, NETWORK_HEADER, offset, address_length(*family), word);
            }
            Load::Protocol => load_meta(w, META_L4PROTO, word),
            Load::Port => load_payload(w, TRANSPORT_HEADER, 2, 2, word),
            Load::Interface => load_meta(w, META_IIFNAME, word),
            Load::Family => load_meta(w, META_NFPROTO, word),
            Load::Mark => load_ct(w, CT_MARK, word),
            Load::Direction => load_ct(w, CT_DIRECTION, word),
            Load::Slot(family) => slot(w, *family, word),
        }
        word += crate::value::words(*datatype);
    }
}

/// The hash of the client's address and port, in scratch registers behind the key.
fn slot(w: &mut Writer, family: Family, word: u32) {
    let scratch = 4;
    let length = address_length(family);
    only(w, family, scratch);
    load_payload(w, NETWORK_HEADER, address_offset(family, Field::Source), length, scratch);
    load_payload(w, TRANSPORT_HEADER, 0, 2, scratch + length / 4);
    expression(w, "hash", |w| {
        w.be32(1, register(scratch));
        w.be32(2, register(word));
        w.be32(3, length + 4);
        w.be32(4, SLOTS);
        // NFT_HASH_JENKINS; without a seed the kernel draws one.
        w.be32(8, 0);
    });
}

fn nat(w: &mut Writer, set: Set) {
    let Some((family, field)) = nat_of(set) else { return };
    key(w, set);
    lookup(w, set, true);
    let with_port =
        matches!(set, Set::Backend4 | Set::Backend4Shifted | Set::Backend6 | Set::Backend6Shifted);
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

/// Ends the rule for packets of the other family.
fn only(w: &mut Writer, family: Family, word: u32) {
    load_meta(w, META_NFPROTO, word);
    compare_word(w, EQUAL, &[nfproto(family)], word);
}

const fn address_length(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

const fn address_offset(family: Family, field: Field) -> u32 {
    match (family, field) {
        (Family::V4, Field::Source) => 12,
        (Family::V4, Field::Destination) => 16,
        (Family::V6, Field::Source) => 8,
        (Family::V6, Field::Destination) => 24,
    }
}

/// The register of the n-th 32-bit word, as nft names it: every fourth by its 128-bit register.
const fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { 1 + word / 4 } else { 8 + word }
}

fn expression(w: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    w.nest(1, |w| {
        w.text(1, name);
        w.nest(2, body);
    });
}

fn load_meta(w: &mut Writer, key: u32, word: u32) {
    expression(w, "meta", |w| {
        w.be32(1, register(word));
        w.be32(2, key);
    });
}

fn load_ct(w: &mut Writer, key: u32, word: u32) {
    expression(w, "ct", |w| {
        w.be32(1, register(word));
        w.be32(2, key);
    });
}

fn load_payload(w: &mut Writer, base: u32, offset: u32, length: u32, word: u32) {
    expression(w, "payload", |w| {
        w.be32(1, register(word));
        w.be32(2, base);
        w.be32(3, offset);
        w.be32(4, length);
    });
}

fn lookup(w: &mut Writer, set: Set, map: bool) {
    expression(w, "lookup", |w| {
        w.text(1, set.shape().name);
        w.be32(2, register(0));
        if map {
            w.be32(3, register(0));
        }
    });
}

fn compare(w: &mut Writer, operator: u32, value: &[u8]) {
    compare_word(w, operator, value, 0);
}

fn compare_word(w: &mut Writer, operator: u32, value: &[u8], word: u32) {
    expression(w, "cmp", |w| {
        w.be32(1, register(word));
        w.be32(2, operator);
        w.nest(3, |w| w.put(1, value));
    });
}

/// Keeps the bits of `mask`, which has up to four bytes.
fn mask(w: &mut Writer, mask: &[u8]) {
    let length = mask.len().min(4);
    expression(w, "bitwise", |w| {
        w.be32(1, register(0));
        w.be32(2, register(0));
        w.be32(3, length as u32);
        w.nest(4, |w| w.put(1, &mask[..length]));
        w.nest(5, |w| w.put(1, &[0; 4][..length]));
    });
}

fn verdict(w: &mut Writer, code: i32, chain: Option<Chain>) {
    expression(w, "immediate", |w| {
        // NFT_REG_VERDICT
        w.be32(1, 0);
        w.nest(2, |w| {
            w.nest(2, |w| {
                w.put(1, &code.to_be_bytes());
                if let Some(chain) = chain {
                    w.text(2, chain.name());
                }
            });
        });
    });
}
