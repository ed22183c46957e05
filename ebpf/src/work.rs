//! What a packet that is not carried as nearly all are is worked on with.

use portway_datapath::abi::Tuple;
use portway_datapath::tcp::Mss;
use portway_datapath::toa::{LENGTH_V6, ROOM, Walk};

use crate::parse::Headers;

/// One such packet.
pub struct Work {
    /// The packet's headers.
    pub headers: Headers,
    /// Its tuple as it leaves.
    pub new: Tuple,
    /// Its TCP header.
    pub header: [u8; ROOM],
    /// Walks over its options.
    pub walk: Walk,
    /// See [`Self::walk`].
    pub mss: Mss,
    /// The option that is appended to it.
    pub option: [u32; LENGTH_V6 / 4],
}
