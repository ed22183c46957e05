//! The part of the eBPF data path that is ordinary Rust.
//!
//! The kernel programs (`ebpf/` in the root of the repository) and their loader (`portway-ebpf`) share what is here: the
//! keys and values of the maps ([`abi`]), the arithmetic of headers and checksums, and the flow table. It is written for
//! the verifier (bounded loops, no panics, no allocation) and tested as any other Rust.
//!
//! Deliberately absent: how a packet's bytes and a map's values are reached, which differs between the kernel (pointers
//! that the verifier has followed) and user space (slices), and so all `unsafe` but that of [`atomic`].
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod atomic;
pub mod balance;
pub mod checksum;
pub mod cookie;
pub mod free;
pub mod hash;
pub mod icmp;
pub mod jhash;
pub mod record;
pub mod sweep;
pub mod table;
pub mod tcp;
pub mod toa;
