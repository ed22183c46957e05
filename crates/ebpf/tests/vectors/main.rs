//! The programs in the kernel against the reference: each packet goes through BPF_PROG_TEST_RUN, at TC and at XDP, and must
//! come out byte for byte as the slow and obvious code writes it. What is not ours comes out as it went in, and no bytes,
//! whatever they are, change where they must not.
//!
//! Deliberately absent: socket buffers of many segments (the lab's scenarios have them), and those of whose checksum the kernel
//! knows something: a packet made up here never is one. What the programs make of these is compared in user space, over packets
//! of the same seeds (`crates/datapath/tests/native`, [`shared`]).
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../../../datapath/tests/reference/mod.rs"]
mod reference;
#[path = "../support/mod.rs"]
mod support;

mod bench;
mod carried;
mod counted;
mod drops;
mod errors;
mod families;
mod fragments;
mod hostile;
mod options;
mod refused;
mod shared;
mod told;
mod untouched;
