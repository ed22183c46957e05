//! The kernel programs of the eBPF engine: what is done with a packet that arrives.
//!
//! Deliberately absent: what the maps hold and why (the loader, `portway-ebpf`), and arithmetic that needs no kernel
//! (`portway-datapath`).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(missing_docs, reason = "the macros of aya add public items of their own")]

mod admit;
mod answer;
mod buffer;
mod careful;
mod carry;
mod clock;
mod cookie;
mod count;
mod crossing;
mod cut;
mod error;
mod family;
mod fast;
mod flood;
mod fragment;
mod header;
mod icmp;
mod listen;
mod maps;
mod memory;
mod opening;
mod packet;
mod parse;
mod parts;
mod quote;
mod rate;
mod replace;
mod rewrite;
mod shift;
mod skb;
mod tc;
mod tell;
mod toa;
mod way;
mod work;
mod xdp;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::skb::Skb;
use crate::xdp::Xdp;

/// The bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// Ingress of an interface whose frames have an Ethernet header.
#[classifier]
pub fn tc_ethernet(context: TcContext) -> i32 {
    tc::enter::<ETHERNET>(Skb(context.skb.skb))
}

/// Ingress of an interface whose packets begin with the IP header (tun, WireGuard).
#[classifier]
pub fn tc_ip(context: TcContext) -> i32 {
    tc::enter::<0>(Skb(context.skb.skb))
}

/// The fast path in front of the kernel's own reception.
#[xdp(frags)]
pub fn xdp_ethernet(context: XdpContext) -> u32 {
    fast::enter::<ETHERNET>(Xdp(context.ctx)) as u32
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
