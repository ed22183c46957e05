//! The kernel programs of the eBPF engine: what is done with a packet that arrives.
//!
//! Deliberately absent: what the maps hold and why (the loader, `portway-ebpf`), and arithmetic that needs no kernel
//! (`portway-datapath`).
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros of aya add public items of their own")]

mod maps;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Ingress of an interface whose frames have an Ethernet header.
#[classifier]
pub fn tc_ethernet(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Ingress of an interface whose packets begin with the IP header (tun, WireGuard).
#[classifier]
pub fn tc_ip(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The fast path in front of the kernel's own reception.
#[xdp(frags)]
pub fn xdp_ethernet(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Nothing here panics; the verifier would not take the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are for programs under this licence only; the source is also under those of the project.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
