//! Made-up traffic for measuring: gives the packet of a test run (`BPF_PROG_TEST_RUN`) the headers of the next flow of a
//! walk, and hands it to the program that is measured.
//!
//! A test run repeats a program on what it left of its packet, which a program that rewrites addresses finds nothing for
//! the second time; and one packet would be one flow, whose record never leaves the processor's cache. The headers of all
//! steps lie in one array that is read in order, so reading them ahead is easy for the processor, and what is random in
//! memory is the measured program's own.
//!
//! Deliberately absent: anything that Portway runs with. `portway-lab` loads this.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the macros of aya add public items of their own")]

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup as Question, xdp_action,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use portway_datapath::abi::Config;

/// Where the walk is: written by user space before each run.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    /// The next step.
    pub next: u32,
    /// How many there are; after the last comes the first.
    pub steps: u32,
    /// Not 0: every packet counts [`Config::generation`] up, so that the program asks for its route again.
    pub ask: u32,
    /// The interface by which the made-up packets arrive, and the address that they leave to (as it lies in a header), for
    /// targets that only ask for the route.
    pub interface: u32,
    /// See [`Self::interface`].
    pub to: u32,
    /// Zero.
    pub reserved: u32,
    /// The link addresses and the type: the Ethernet header, and two bytes of zero behind it.
    pub link: [u64; 2],
}

/// One packet, TCP over IPv4.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    /// Who sends, and to whom, as they lie in the header.
    pub addresses: u64,
    /// The ports of both, be.
    pub ports: u32,
    /// The flags of TCP, as byte 13 of its header has them.
    pub flags: u32,
}

#[map(name = "walk")]
static WALK: Array<Walk> = Array::with_max_entries(1, 0);
#[map(name = "steps")]
static STEPS: Array<Step> = Array::with_max_entries(1, 0);
#[map(name = "target")]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The engine's own, as it has pinned it.
#[map(name = "config")]
static CONFIG: Array<Config> = Array::with_max_entries(1, aya_ebpf::bindings::BPF_F_MMAPABLE);

/// Bytes of the headers: Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 14 + 20 + 20;
/// Bytes 8 and 9 of IPv4: what a router leaves, and the number of TCP.
const LIVES: u64 = 64 | 6 << 8;
/// The family, as sockets have it.
const AF_INET: u8 = 2;
/// The number of TCP.
const TCP: u8 = 6;
/// A checksum that nobody checks here.
const CHECKSUM: u64 = 0x1234;

/// One store into the packet, of that width and no other: the compiler takes packets for memory that must be aligned, and
/// writes bytes.
macro_rules! put {
    ($width:literal, $packet:expr, $at:literal, $value:expr) => {
        core::arch::asm!(
            concat!("*(", $width, " *)({packet} + {at}) = {value}"),
            value = in(reg) u64::from($value),
            packet = in(reg) $packet,
            at = const $at,
            options(nostack, preserves_flags),
        )
    };
}

/// Writes the next step's headers; `None` when the packet is too short or there are no steps.
#[inline(always)]
fn step(data: usize, end: usize) -> Option<()> {
    let walk = WALK.get_ptr_mut(0)?;
    // SAFETY: a map's element; only one test run at a time uses it.
    let walk = unsafe { &mut *walk };
    let step = STEPS.get(walk.next)?;
    walk.next = if walk.next + 1 >= walk.steps { 0 } else { walk.next + 1 };
    if walk.ask != 0 {
        let config = CONFIG.get_ptr_mut(0)?;
        // SAFETY: a map's element; a mixture of two writes would still be another generation.
        unsafe { (*config).generation = (*config).generation.wrapping_add(1) };
    }
    if data + HEADERS > end {
        return None;
    }
    let packet = data as *mut u8;
    let link = &walk.link;
    // Each store is as wide as what the measured program reads there, or it would wait for several of them to reach the
    // cache: a packet from a wire has been there long before.
    // SAFETY: the packet has `HEADERS` bytes, and every write below is inside of them.
    unsafe {
        put!("u64", packet, 0, link[0]);
        put!("u32", packet, 8, link[1]);
        put!("u16", packet, 12, link[1] >> 32);
        put!("u16", packet, 22, LIVES);
        put!("u16", packet, 24, CHECKSUM);
        put!("u64", packet, 26, step.addresses);
        put!("u32", packet, 34, step.ports);
        put!("u8", packet, 47, step.flags);
        put!("u16", packet, 50, CHECKSUM);
    }
    Some(())
}

/// In front of a program at TC.
#[classifier]
pub fn tc_walk(context: TcContext) -> i32 {
    if step(context.data(), context.data_end()).is_some() {
        // SAFETY: nothing is held that would have to be let go of.
        unsafe { TARGET.tail_call(&context, 0) };
    }
    // There was no target, which no measurement mistakes for one that answered.
    TC_ACT_SHOT
}

/// In front of a program at XDP.
#[xdp(frags)]
pub fn xdp_walk(context: XdpContext) -> u32 {
    if step(context.data(), context.data_end()).is_some() {
        // SAFETY: as above.
        unsafe { TARGET.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// A target that does nothing: what the walk itself costs, and the kernel's part of a test run.
#[classifier]
pub fn tc_nothing(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The same at XDP.
#[xdp(frags)]
pub fn xdp_nothing(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// A target that only asks the kernel for the route and the next hop, as nobody who looks them up for every packet can do
/// without: whether there are such.
#[inline(always)]
fn asks(context: *mut c_void) -> Option<bool> {
    let walk = WALK.get(0)?;
    // SAFETY: a structure of integers.
    let mut question: Question = unsafe { core::mem::zeroed() };
    question.family = AF_INET;
    question.l4_protocol = TCP;
    question.ifindex = walk.interface;
    question.__bindgen_anon_1.tot_len = 1;
    question.__bindgen_anon_4.ipv4_dst = walk.to;
    // SAFETY: the program's context, and a structure of the size that is said.
    Some(unsafe { bpf_fib_lookup(context, &raw mut question, size_of::<Question>() as i32, 0) } == 0)
}

/// [`asks`].
#[classifier]
pub fn tc_asks(context: TcContext) -> i32 {
    if asks(context.as_ptr()) == Some(true) { TC_ACT_REDIRECT } else { TC_ACT_SHOT }
}

/// The same at XDP.
#[xdp(frags)]
pub fn xdp_asks(context: XdpContext) -> u32 {
    if asks(context.as_ptr()) == Some(true) { xdp_action::XDP_REDIRECT } else { xdp_action::XDP_DROP }
}

/// Nothing here panics; the verifier would not take the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The measured programs are under this licence in the kernel's eyes, and a tail call is for its like only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
