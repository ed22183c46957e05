//! Single nf_tables expressions (`include/uapi/linux/netfilter/nf_tables.h`) and the registers between them.

use portway_core::address::Family;
use portway_core::plan::nftables::Set;
use portway_core::plan::nftables::statement::Field;
use portway_core::plan::nftables::table::Chain;
use portway_netlink::wire::Writer;

use crate::value::nfproto;

/// `NFT_OBJECT_CT_HELPER`
pub const CT_HELPER: u32 = 3;

pub const META_IIF: u32 = 4;
pub const META_OIF: u32 = 5;
pub const META_IIFNAME: u32 = 6;
pub const META_NFPROTO: u32 = 15;
pub const META_L4PROTO: u32 = 16;
pub const CT_DIRECTION: u32 = 1;
pub const CT_MARK: u32 = 3;
pub const NETWORK_HEADER: u32 = 1;
pub const TRANSPORT_HEADER: u32 = 2;

/// `NFT_REG_VERDICT`
pub const VERDICT_REGISTER: u32 = 0;

pub const EQUAL: u32 = 0;
pub const NOT_EQUAL: u32 = 1;

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`
pub const DROP: i32 = 0;
pub const ACCEPT: i32 = 1;
pub const JUMP: i32 = -3;
pub const GOTO: i32 = -4;
pub const RETURN: i32 = -5;

/// Ends the rule for packets of the other family.
pub fn only(w: &mut Writer, family: Family, word: u32) {
    load_meta(w, META_NFPROTO, word);
    compare_word(w, EQUAL, &[nfproto(family)], word);
}

pub const fn address_length(family: Family) -> u32 {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

pub const fn address_offset(family: Family, field: Field) -> u32 {
    match (family, field) {
        (Family::V4, Field::Source) => 12,
        (Family::V4, Field::Destination) => 16,
        (Family::V6, Field::Source) => 8,
        (Family::V6, Field::Destination) => 24,
    }
}

/// The register of the n-th 32-bit word, as nft names it: every fourth by its 128-bit register.
pub const fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { 1 + word / 4 } else { 8 + word }
}

pub fn expression(w: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    w.nest(1, |w| {
        w.text(1, name);
        w.nest(2, body);
    });
}

pub fn load_meta(w: &mut Writer, key: u32, word: u32) {
    expression(w, "meta", |w| {
        w.be32(1, register(word));
        w.be32(2, key);
    });
}

pub fn load_ct(w: &mut Writer, key: u32, word: u32) {
    expression(w, "ct", |w| {
        w.be32(1, register(word));
        w.be32(2, key);
    });
}

/// Writes the conntrack mark.
pub fn set_mark(w: &mut Writer) {
    expression(w, "ct", |w| {
        w.be32(2, CT_MARK);
        w.be32(4, register(0));
    });
}

pub fn load_payload(w: &mut Writer, base: u32, offset: u32, length: u32, word: u32) {
    expression(w, "payload", |w| {
        w.be32(1, register(word));
        w.be32(2, base);
        w.be32(3, offset);
        w.be32(4, length);
    });
}

pub fn lookup(w: &mut Writer, set: Set, map: bool) {
    lookup_into(w, set, map.then(|| register(0)));
}

pub fn lookup_into(w: &mut Writer, set: Set, destination: Option<u32>) {
    expression(w, "lookup", |w| {
        w.text(1, set.shape().name);
        w.be32(2, register(0));
        destination.into_iter().for_each(|register| w.be32(3, register));
    });
}

pub fn compare(w: &mut Writer, operator: u32, value: &[u8]) {
    compare_word(w, operator, value, 0);
}

pub fn compare_word(w: &mut Writer, operator: u32, value: &[u8], word: u32) {
    expression(w, "cmp", |w| {
        w.be32(1, register(word));
        w.be32(2, operator);
        w.nest(3, |w| w.put(1, value));
    });
}

/// Keeps the bits of `mask`, which has up to four bytes.
pub fn mask(w: &mut Writer, mask: &[u8]) {
    let length = mask.len().min(4);
    expression(w, "bitwise", |w| {
        w.be32(1, register(0));
        w.be32(2, register(0));
        w.be32(3, length as u32);
        w.nest(4, |w| w.put(1, &mask[..length]));
        w.nest(5, |w| w.put(1, &[0; 4][..length]));
    });
}

/// A verdict as the value of a data attribute.
pub fn verdict(w: &mut Writer, code: i32, chain: Option<Chain>) {
    w.nest(2, |w| {
        w.put(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            w.text(2, &chain.name());
        }
    });
}

/// Ends the rule with a verdict.
pub fn end(w: &mut Writer, code: i32, chain: Option<Chain>) {
    expression(w, "immediate", |w| {
        w.be32(1, VERDICT_REGISTER);
        w.nest(2, |w| verdict(w, code, chain));
    });
}
