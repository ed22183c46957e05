//! A packet in front of the kernel's reception: bytes in the driver's memory, whole checksums.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;

use crate::packet::Packet;

/// The packet.
#[derive(Clone, Copy)]
pub struct Xdp(pub *mut xdp_md);

impl Packet for Xdp {
    const PASS: i32 = xdp_action::XDP_PASS as i32;
    const DROP: i32 = xdp_action::XDP_DROP as i32;

    #[inline(always)]
    fn context(self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn start(self) -> usize {
        // SAFETY: the context of the program, of which the verifier allows this word. Volatile: read anew each time.
        unsafe { (&raw const (*self.0).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).data_end).read_volatile() as usize }
    }

    #[inline(always)]
    fn has(self, length: u32) -> bool {
        // A frame of several buffers has more than its first, which is what can be reached directly.
        length as usize <= self.end() - self.start()
            // SAFETY: the context.
            || u64::from(length) <= unsafe { bpf_xdp_get_buff_len(self.0) }
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).ingress_ifindex).read_volatile() }
    }
}
