//! Sets and maps and their elements as nf_tables attributes (`enum nft_set_attributes`, `nft_set_elem_attributes`).

use portway_core::plan::nftables::element::{DataShape, Datatype, Shape};
use portway_core::plan::nftables::{Data, Entry, Key};

use crate::value::{byte_length, bytes, length, type_number};
use crate::wire::Writer;

/// `NFT_OBJECT_CT_HELPER`
pub const CT_HELPER: u32 = 3;

/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_OBJECT`, `NFT_SET_CONCAT`
const INTERVAL: u32 = 0x04;
const MAP: u32 = 0x08;
const OBJECT: u32 = 0x40;
const CONCAT: u32 = 0x80;

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
        DataShape::Helper => w.be32(15, CT_HELPER),
    }
    w.be32(10, id);
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

/// An element of a set: all of it, or as much as names it.
pub fn element(w: &mut Writer, shape: &Shape, key: &Key, entry: &Entry, whole: bool) {
    w.nest(1, |w| {
        w.nest(1, |w| w.put(1, &bytes(key, false)));
        if shape.interval {
            w.nest(10, |w| w.put(1, &bytes(key, true)));
        }
        if !whole {
            return;
        }
        match &entry.data {
            Data::None => {}
            Data::Fields(fields) => w.nest(2, |w| w.put(1, &bytes(fields, false))),
            Data::Helper(object) => w.text(9, object.name()),
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
        DataShape::Fields(_) => MAP,
        DataShape::Helper => OBJECT,
    };
    data | if shape.interval { INTERVAL | CONCAT } else { 0 }
}

/// The byte orders of key and data, which nft needs to print marks (libnftnl `NFTNL_UDATA_SET_KEYBYTEORDER`
/// and `_DATABYTEORDER`: 1 host, 2 network, 0 for a concatenation).
fn set_user_data(shape: &Shape) -> Vec<u8> {
    let order = |fields: &[Datatype]| -> u32 {
        match fields {
            [Datatype::Mark] => 1,
            [_] => 2,
            _ => 0,
        }
    };
    let mut data = vec![0, 4];
    data.extend(order(shape.key).to_ne_bytes());
    if let DataShape::Fields(fields) = shape.data {
        data.extend([1, 4]);
        data.extend(order(fields).to_ne_bytes());
    }
    data
}
