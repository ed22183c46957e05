//! The kernel programs' own code that reads and changes packets, compiled for this machine, against the reference: over every
//! state that the kernel may have a checksum in, of which BPF_PROG_TEST_RUN knows one only. What the kernel's functions do to
//! that state is in `helpers.rs`.
//!
//! The packets are those of `reference/vector.rs`: of seeds that proptest chooses, and of those seeds that the programs are run
//! on in the kernel as well (`crates/ebpf/tests/vectors`).
//!
//! Deliberately absent: what the programs do besides (there).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]
#![allow(unsafe_code, dead_code, reason = "the programs', of which not all is run here")]

// What the programs use of their library.
extern crate self as aya_ebpf;
mod bindings;
mod helpers;

// The programs.
#[path = "../../../../ebpf/src/answer.rs"]
mod answer;
#[path = "../../../../ebpf/src/buffer.rs"]
mod buffer;
#[path = "../../../../ebpf/src/crossing.rs"]
mod crossing;
#[path = "../../../../ebpf/src/cut.rs"]
mod cut;
#[path = "../../../../ebpf/src/error.rs"]
mod error;
#[path = "../../../../ebpf/src/family.rs"]
mod family;
#[path = "../../../../ebpf/src/header.rs"]
mod header;
#[path = "../../../../ebpf/src/parse.rs"]
mod parse;
#[path = "../../../../ebpf/src/quote.rs"]
mod quote;
#[path = "../../../../ebpf/src/replace.rs"]
mod replace;
#[path = "../../../../ebpf/src/rewrite.rs"]
mod rewrite;
#[path = "../../../../ebpf/src/shift.rs"]
mod shift;
#[path = "../../../../ebpf/src/toa.rs"]
mod toa;
#[path = "../../../../ebpf/src/work.rs"]
mod work;

// Theirs, as far as it is reached in another way here.
mod careful;
mod packet;
mod skb;
mod xdp;

#[path = "../reference/mod.rs"]
mod reference;

mod answers;
mod bench;
mod errors;
mod families;
mod parts;
mod rewriting;
mod segments;
