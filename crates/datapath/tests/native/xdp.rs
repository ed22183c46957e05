//! A packet at XDP in ordinary memory, with the face of the kernel programs' own (`ebpf/src/xdp.rs`) as far as rewriting
//! needs it.

use crate::packet::Packet;

/// The packet of this thread.
#[derive(Clone, Copy)]
pub struct Xdp;

impl Packet for Xdp {}
