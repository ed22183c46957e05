//! A packet at TC: a socket buffer, which may be many segments at once (GSO) and whose checksum may be in any of the kernel's
//! states.
//!
//! Deliberately absent: the kernel's functions that change a buffer ([`crate::buffer`]).

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_pull_data;

use portway_datapath::checksum::Difference;

use crate::packet::Packet;
use crate::rewrite::{self, Summed};

/// `TCX_NEXT` and `TC_ACT_UNSPEC`.
const NEXT: i32 = -1;

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

/// The packet.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

/// Reads a word of the context. Volatile: some change with what is done to the packet.
macro_rules! field {
    ($skb:expr, $name:ident) => {
        // SAFETY: the context of the program, of which the verifier allows this word.
        unsafe { (&raw const (*$skb.0).$name).read_volatile() }
    };
}

impl Packet for Skb {
    const PASS: i32 = NEXT;
    const DROP: i32 = SHOT;

    #[inline(always)]
    fn context(self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn start(self) -> usize {
        field!(self, data) as usize
    }

    #[inline(always)]
    fn end(self) -> usize {
        field!(self, data_end) as usize
    }

    #[inline(always)]
    fn has(self, length: u32) -> bool {
        length <= self.length()
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        field!(self, ifindex)
    }
}

impl Skb {
    /// Whether it came to this host's link address, without a VLAN tag.
    #[inline(always)]
    pub fn is_for_host(self) -> bool {
        field!(self, pkt_type) == 0 && field!(self, vlan_present) == 0
    }

    /// All bytes, those that cannot be reached directly too.
    #[inline(always)]
    pub fn length(self) -> u32 {
        field!(self, len)
    }

    /// The bytes of payload in each of its segments; 0 if it is only one.
    #[inline(always)]
    pub fn segment(self) -> u32 {
        field!(self, gso_size)
    }

    /// What the kernel has noted about the checksum. Programs are not shown the field, but the kernel's own buffer, in which
    /// only its types say where it lies: so the loader puts the call and the load here (`crates/ebpf/src/summed.rs`), and
    /// leaves what stands here where they cannot be had.
    #[inline(always)]
    pub fn summed(self) -> Summed {
        let summed: u64;
        // SAFETY: what comes here reads the buffer and changes the registers that calls change.
        unsafe {
            core::arch::asm!(
                "r0 = 0x3f6d7573", // "sum?"
                "goto +0",
                "goto +0",
                "goto +0",
                lateout("r0") summed,
                inlateout("r1") self.0 => _,
                lateout("r2") _,
                lateout("r3") _,
                lateout("r4") _,
                lateout("r5") _,
                options(readonly, nostack),
            );
        }
        match summed {
            // CHECKSUM_NONE and CHECKSUM_UNNECESSARY.
            0 | 1 => Summed::Nothing,
            2 => Summed::Complete,
            3 => Summed::Partial,
            _ => Summed::Hidden,
        }
    }

    /// Makes the first `length` bytes reachable, if there are as many.
    #[inline(always)]
    pub fn reach(self, length: u32) {
        let total = self.length();
        if self.start() + (length as usize) > self.end() && self.end() - self.start() < total as usize {
            // SAFETY: the context. If it fails, a window is refused.
            unsafe { bpf_skb_pull_data(self.0, length.min(total)) };
        }
    }

    /// [`rewrite::update_checksum`] where it is not for speed.
    #[inline(always)]
    pub fn update_checksum(self, offset: u32, addresses: Difference, rest: Difference, udp: bool) -> bool {
        update_checksum(self.0, offset, addresses.folded(), rest.folded(), u32::from(udp)) != 0
    }
}

/// A length that a TCP header may have.
#[inline(always)]
pub fn header_length(length: u32) -> Option<u32> {
    between(length, 20, 60)
}

/// The length, if it is not less than `least` and not more than `most`. Two comparisons of one register, out of the compiler's
/// sight: it would make them one, of what is left when `least` is taken away, from which Linux before 6.14 does not know
/// what the length itself may be.
#[inline(always)]
pub fn between(length: u32, least: u32, most: u32) -> Option<u32> {
    let length = same(u64::from(length));
    if length < u64::from(least) {
        return None;
    }
    let length = same(length);
    if length > u64::from(most) { None } else { Some(length as u32) }
}

/// The value. An instruction: a place in the source that has none confuses the kernel.
#[inline(always)]
fn same(mut value: u64) -> u64 {
    // SAFETY: the register stays as it is.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// [`rewrite::update_checksum`]: a global function, which the verifier follows once and not wherever it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn update_checksum(
    context: *mut __sk_buff,
    offset: u32,
    addresses: u32,
    rest: u32,
    udp: u32,
) -> u64 {
    let (addresses, rest) = (Difference::NONE.plus(addresses), Difference::NONE.plus(rest));
    u64::from(rewrite::update_checksum(Skb(context), offset, addresses, rest, udp != 0))
}
