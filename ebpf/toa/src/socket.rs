//! Sockets as the kernel shows them to programs: raw pointers and helper calls, all `unsafe` of these programs.
//!
//! aya-ebpf's own `SkStorage` methods take the context of address programs only, and it has no helper for the options of
//! sockops; so these helpers are called here as they are. The verifier follows every pointer below.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::{PerCpuArray, SkStorage};
use aya_ebpf::helpers::{bpf_getsockopt, bpf_setsockopt, bpf_sk_storage_get};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use portway_datapath::toa::{COUNTS, Claim, Client, HEADER_MOST, ROOM, read};

/// Of `setsockopt` (linux/tcp.h).
const IPPROTO_TCP: i32 = 6;
const TCP_SAVE_SYN: i32 = 27;

/// Of `bpf_getsockopt`: the SYN as it was kept, from its TCP header on (linux/bpf.h).
const TCP_BPF_SYN: i32 = 1005;

/// As `sa_family_t`.
const AF_INET: u32 = 2;

/// What kind of addresses a server's socket gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6, and IPv4 mapped into it.
    V6,
}

/// The family of the socket, which for a dual-stack server is IPv6 whoever connects.
#[inline(always)]
pub fn family(context: &SockOpsContext) -> Family {
    if context.family() == AF_INET { Family::V4 } else { Family::V6 }
}

/// Who the other end is by its packets: the gateway. IPv4 mapped.
#[inline(always)]
pub fn remote(context: &SockOpsContext) -> [u8; 16] {
    // Volatile: both are read, one is chosen. Otherwise the compiler chooses the place and reads once, and the verifier
    // wants to know every place in the context beforehand.
    // SAFETY: a read of the context's field, which is there for every family.
    let v4 = unsafe { (&raw const (*context.ops).remote_ip4).read_volatile() };
    // SAFETY: as above, four times.
    let v6 = [0, 1, 2, 3].map(|at| unsafe { (&raw const (*context.ops).remote_ip6[at]).read_volatile() });
    let words = match family(context) {
        Family::V4 => [0, 0, u32::from_be(0xffff), v4],
        Family::V6 => v6,
    };
    let mut octets = [0; 16];
    for (at, word) in words.iter().enumerate() {
        octets[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    octets
}

/// Has a server that begins to listen keep the SYNs of its connections, unless it does so already (in one of two forms
/// that it may rely on): whether they are kept now.
#[inline(always)]
pub fn keep_syns(context: &SockOpsContext) -> bool {
    let mut on = 0_i32;
    let pointer = (&raw mut on).cast();
    // SAFETY: the helper writes the four bytes of `on`, which outlives the call.
    let known = unsafe { bpf_getsockopt(context.as_ptr(), IPPROTO_TCP, TCP_SAVE_SYN, pointer, 4) } == 0;
    if known && on != 0 {
        return true;
    }
    on = 1;
    // SAFETY: the helper reads the four bytes of `on`, which outlives the call.
    unsafe { bpf_setsockopt(context.as_ptr(), IPPROTO_TCP, TCP_SAVE_SYN, (&raw mut on).cast(), 4) == 0 }
}

/// A TCP header, and room after it.
pub struct Header([u8; ROOM]);

/// Reads a header. A function of its own for the verifier, which checks a global function once for every value that its
/// arguments could have: in line, it would walk the ACK's options anew for every way through the SYN's (half a million
/// steps). Whether there was anything to read.
///
/// # Safety
/// The pointers are null or lead to what their types say.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn toa_read(header: *const Header, present: u64, claim: *mut Claim) -> u32 {
    if header.is_null() || claim.is_null() {
        return 0;
    }
    // SAFETY: not null, so as the caller says; the verifier holds the callers to it.
    let (header, claim) = unsafe { (&(*header).0, &mut *claim) };
    *claim = read(header, present as usize);
    1
}

/// What the connection's SYN said, if it was kept.
#[inline(always)]
pub fn syn(context: &SockOpsContext) -> Claim {
    let mut header = Header([0; ROOM]);
    let most = HEADER_MOST as i32;
    let buffer = header.0.as_mut_ptr().cast();
    // SAFETY: the helper writes at most `most` bytes to `header`, which is larger and outlives the call.
    let size = unsafe { bpf_getsockopt(context.as_ptr(), IPPROTO_TCP, TCP_BPF_SYN, buffer, most) };
    if size > 0 && size <= i64::from(most) { claim(&header, size as u64) } else { Claim::default() }
}

/// What the segment that completed the handshake says.
#[inline(always)]
pub fn ack(context: &SockOpsContext) -> Claim {
    // SAFETY: a read of the context, which the verifier turns into one of the kernel's structure.
    let start = unsafe { (*context.ops).__bindgen_anon_3.skb_data } as usize;
    // SAFETY: as above.
    let end = unsafe { (*context.ops).__bindgen_anon_4.skb_data_end } as usize;
    let mut header = Header([0; ROOM]);
    let mut present = 0;
    // A header is a whole number of 32-bit words; the kernel shows it from its first byte to its last.
    for word in 0..HEADER_MOST / 4 {
        let at = word * 4;
        if start + at + 4 > end {
            break;
        }
        // SAFETY: these four bytes are before `end`, as was just checked (and as the verifier demands).
        let bytes = unsafe { ptr::read_unaligned((start + at) as *const [u8; 4]) };
        header.0[at..at + 4].copy_from_slice(&bytes);
        present = at + 4;
    }
    claim(&header, present as u64)
}

/// What a header says.
#[inline(always)]
fn claim(header: &Header, present: u64) -> Claim {
    let mut claim = Claim::default();
    // SAFETY: both are references.
    unsafe { toa_read(header, present, &raw mut claim) };
    claim
}

/// Keeps the client with the connection's socket: whether there was memory for it.
#[inline(always)]
pub fn keep(clients: &'static SkStorage<Client>, context: &SockOpsContext, client: Client) -> bool {
    // SAFETY: a read of the context. The pointer is kept in a local variable: the verifier knows of this one that it has
    // been compared with null, not of another read.
    let socket: *mut bpf_sock = unsafe { (*context.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    let mut client = client;
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a map of `Client`s and a socket that is held while the program runs; the helper copies the value.
    !unsafe { bpf_sk_storage_get(map(clients), socket.cast(), (&raw mut client).cast(), flags) }.is_null()
}

/// The client that is kept with the socket, if there is one.
#[inline(always)]
pub fn kept(clients: &'static SkStorage<Client>, context: &SockAddrContext) -> Option<Client> {
    // SAFETY: a read of the context; address programs always have a socket.
    let socket: *mut bpf_sock = unsafe { (*context.sock_addr).__bindgen_anon_1.sk };
    // SAFETY: a map of `Client`s and a socket that is held while the program runs; nothing is created.
    let place = unsafe { bpf_sk_storage_get(map(clients), socket.cast(), ptr::null_mut(), 0) };
    let place = place.cast::<Client>();
    if place.is_null() {
        return None;
    }
    // SAFETY: not null, so a value of this map; it was written before the connection could be accepted.
    Some(unsafe { *place })
}

/// Gives the client's address to whoever asked. A client with an IPv6 address is never kept with an IPv4 socket.
#[inline(always)]
pub fn answer_v4(context: &SockAddrContext, client: &Client) {
    let octets = client.octets();
    let address = u32::from_ne_bytes([octets[12], octets[13], octets[14], octets[15]]);
    // SAFETY: writes to fields of the context that the verifier lets this kind of program write.
    unsafe {
        (*context.sock_addr).user_ip4 = address;
        (*context.sock_addr).user_port = u32::from(client.port);
    }
}

/// Gives the client's address, IPv4 mapped, to whoever asked.
#[inline(always)]
pub fn answer_v6(context: &SockAddrContext, client: &Client) {
    let octets = client.octets();
    let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    // SAFETY: as in `answer_v4`.
    unsafe {
        (*context.sock_addr).user_ip6 = [word(0), word(4), word(8), word(12)];
        (*context.sock_addr).user_port = u32::from(client.port);
    }
}

/// Counts on this processor.
#[inline(always)]
pub fn add_one(counts: &'static PerCpuArray<u64, COUNTS>, at: u32) {
    if let Some(place) = counts.get_ptr_mut(at) {
        // SAFETY: a value of this processor's. Another program may interrupt between read and write, and one count be
        // lost; none can be torn.
        unsafe { *place += 1 };
    }
}

/// The map as helpers want it: the address of its definition, which the loader replaces by the map.
#[inline(always)]
fn map(clients: &'static SkStorage<Client>) -> *mut core::ffi::c_void {
    ptr::from_ref(clients).cast_mut().cast()
}
