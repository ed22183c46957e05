//! Sets and maps and their elements as nf_tables attributes (`enum nft_set_attributes`, `nft_set_elem_attributes`).

use portway_core::plan::nftables::element::{DataShape, Datatype, MOST_CLIENTS, Shape};
use portway_core::plan::nftables::{Data, Entry, Key};
use portway_netlink::wire::Writer;

use crate::primitive;

use crate::value::{byte_length, bytes, length, type_number};

/// `NFT_DATA_VERDICT`
const VERDICT: u32 = 0xffff_ff00;

/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`, `NFT_SET_CONCAT`
const INTERVAL: u32 = 0x04;
const MAP: u32 = 0x08;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
const CONCAT: u32 = 0x80;

/// The name under which the kernel numbers sets that have none (`NFT_SET_ANONYMOUS | NFT_SET_CONSTANT`).
pub const ANONYMOUS: &str = "__set%d";
const ANONYMOUS_FLAGS: u32 = 0x01 | 0x02;

/// What a set is, behind its table and name. `id` is the set's number in the batch.
pub fn declaration(w: &mut Writer, shape: &Shape, id: u32) {
    w.be32(3, set_flags(shape));
    w.be32(4, type_number(shape.key));
    w.be32(5, byte_length(shape.key));
    match shape.data {
        DataShape::None => {}
        DataShape::Fields(fields) => {
            w.be32(6, type_number(fields));
            w.be32(7, byte_length(fields));
        }
        DataShape::Verdict => {
            w.be32(6, VERDICT);
            w.be32(7, 0);
        }
    }
    w.be32(10, id);
    if shape.dynamic {
        w.nest(9, |w| w.be32(1, MOST_CLIENTS));
    }
    if shape.interval {
        w.nest(9, |w| {
            w.nest(2, |w| {
                for field in shape.key {
                    w.nest(1, |w| w.be32(1, length(*field)));
                }
            });
        });
    }
    w.put(13, &set_user_data(shape));
    if shape.counter {
        w.nest(17, |w| {
            w.text(1, "counter");
            w.nest(2, |_| {});
        });
    }
}

/// An element of a set: all of it, or without its entry as much as names it.
pub fn element(w: &mut Writer, shape: &Shape, key: &Key, entry: Option<&Entry>) {
    w.nest(1, |w| {
        w.nest(1, |w| w.put(1, &bytes(key, false)));
        if shape.interval {
            w.nest(10, |w| w.put(1, &bytes(key, true)));
        }
        let Some(entry) = entry else { return };
        match &entry.data {
            Data::None => {}
            Data::Fields(fields) => w.nest(2, |w| w.put(1, &bytes(fields, false))),
            Data::Jump(chain) => w.nest(2, |w| primitive::verdict(w, primitive::JUMP, Some(*chain))),
        }
        if let Some(text) = &entry.comment {
            w.put(6, &comment(text));
        }
    });
}

/// A comment as nft keeps it in user data (libnftnl `NFTNL_UDATA_*_COMMENT`, type 0).
pub fn comment(text: &str) -> Vec<u8> {
    // Names and the layout's comment are far below the 128 bytes that nft allows.
    let text = &text.as_bytes()[..text.len().min(127)];
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(text);
    data.push(0);
    data
}

fn set_flags(shape: &Shape) -> u32 {
    let data = match shape.data {
        DataShape::None => 0,
        DataShape::Fields(_) | DataShape::Verdict => MAP,
    };
    let interval = if shape.interval { INTERVAL | CONCAT } else { 0 };
    data | interval | if shape.dynamic { TIMEOUT | EVAL } else { 0 }
}

/// The set without a name that the kernel numbers: TCP and UDP, for one rule.
pub fn tcp_and_udp(w: &mut Writer, id: u32) {
    w.text(2, ANONYMOUS);
    w.be32(3, ANONYMOUS_FLAGS);
    w.be32(4, type_number(&[Datatype::Protocol]));
    w.be32(5, byte_length(&[Datatype::Protocol]));
    w.be32(10, id);
    w.nest(9, |w| w.be32(1, 2));
    w.put(13, &order(&[Datatype::Protocol], KEY_ORDER));
}

/// The byte orders of key and data, which nft needs to print marks (libnftnl `NFTNL_UDATA_SET_KEYBYTEORDER`
/// and `_DATABYTEORDER`), and for keys with slots the expressions whose types they have (`_KEY_TYPEOF`, `_DATA_TYPEOF`).
fn set_user_data(shape: &Shape) -> Vec<u8> {
    let mut data = order(shape.key, KEY_ORDER);
    let fields = match shape.data {
        DataShape::Fields(fields) => Some(fields),
        DataShape::Verdict => Some(&[][..]),
        DataShape::None => None,
    };
    data.extend(fields.into_iter().flat_map(|fields| order(fields, DATA_ORDER)));
    if shape.key.contains(&Datatype::Slot) {
        data.extend(user_value(KEY_TYPEOF, &types_of(shape.key)));
        data.extend(fields.into_iter().flat_map(|fields| user_value(DATA_TYPEOF, &types_of(fields))));
    }
    data
}

const KEY_ORDER: u8 = 0;
const DATA_ORDER: u8 = 1;
const KEY_TYPEOF: u8 = 3;
const DATA_TYPEOF: u8 = 4;

/// 1 host, 2 network, 0 for a concatenation and for a verdict.
fn order(fields: &[Datatype], kind: u8) -> Vec<u8> {
    let order: u32 = match fields {
        [Datatype::Mark] => 1,
        [_] => 2,
        _ => 0,
    };
    user_value(kind, &order.to_ne_bytes())
}

/// One value of libnftnl's user data: type, length, value.
fn user_value(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut data = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    data.extend_from_slice(value);
    data
}

/// Fields named by expressions of their types, as nft's `expr_build_udata` writes them (nftables `src/expression.c`).
fn types_of(fields: &[Datatype]) -> Vec<u8> {
    let number = |kind, number: u32| user_value(kind, &number.to_ne_bytes());
    let numbered = |expression: u32, values: &[(u8, u32)]| {
        let values: Vec<u8> = values.iter().flat_map(|(kind, value)| number(*kind, *value)).collect();
        [number(0, expression), user_value(1, &values)].concat()
    };
    // EXPR_PAYLOAD: the header's number (PROTO_DESC_*) and the field's in it; EXPR_CT: NFT_CT_MARK in no direction;
    // EXPR_NUMGEN: NFT_NG_INCREMENTAL, modulus, offset.
    let one = |field: &Datatype| match field {
        Datatype::Ipv4 => numbered(7, &[(0, 12), (1, 12)]),
        Datatype::Ipv6 => numbered(7, &[(0, 13), (1, 9)]),
        Datatype::Service => numbered(7, &[(0, 11), (1, 2)]),
        Datatype::Slot => numbered(23, &[(0, 0), (1, 2), (2, 0)]),
        // No set with slots has fields of other types.
        _ => numbered(12, &[(0, 3), (1, u32::MAX)]),
    };
    match fields {
        [field] => one(field),
        fields => {
            let parts = (0..).zip(fields).flat_map(|(nth, field)| user_value(nth, &one(field)));
            // EXPR_CONCAT
            [number(0, 13), user_value(1, &parts.collect::<Vec<u8>>())].concat()
        }
    }
}
