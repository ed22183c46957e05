//! The backend's half of TOA: what a gateway says about the client (TCP option 254) is kept with the connection's socket,
//! and given to whoever asks the socket for its peer.
//!
//! - `toa_sockops` runs for the sockets of a cgroup. A server that begins to listen is told to keep the SYNs of its
//!   connections; when one is established, the option is looked for in the SYN and in the ACK that completed the handshake.
//!   A server that listened before has only the ACK.
//! - `toa_peer4` and `toa_peer6` run in accept(), getpeername() and SO_PEERNAME.
//!
//! Deliberately absent: walking the options (`portway_datapath::toa`), loading and attaching (`portway-toa`).
#![no_std]
#![no_main]

mod socket;

use aya_ebpf::bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_LISTEN_CB};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, PerCpuArray, SkStorage};
use aya_ebpf::macros::{btf_map, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use portway_datapath::toa::{COUNTS, Client, Count, Said, TRUSTED};

use socket::Family;

/// Who is at the other end of a connection.
#[btf_map(name = "clients")]
static CLIENTS: SkStorage<Client> = SkStorage::new();

/// What was seen, by [`Count`].
#[btf_map(name = "counts")]
static COUNTERS: PerCpuArray<u64, COUNTS> = PerCpuArray::new();

/// Whose word is taken.
#[btf_map(name = "trusted")]
static GATEWAYS: LpmTrie<[u8; 16], u32, TRUSTED> = LpmTrie::new();

/// Looks for the option. The kernel calls this at many points in the life of every socket of the cgroup.
#[sock_ops]
fn toa_sockops(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => {
            if socket::keep_syns(&context) {
                count(Count::Listeners);
            }
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            count(Count::Connections);
            count(established(&context));
        }
        _ => {}
    }
    // 1: other programs of the cgroup go on; the reply is left as it is.
    1
}

/// Keeps the client of a new connection, if one is told and the source is trusted.
#[inline(always)]
fn established(context: &SockOpsContext) -> Count {
    let claim = socket::syn(context).agree(socket::ack(context));
    let trusted = GATEWAYS.get(&Key::new(128, socket::remote(context))).is_some();
    match claim.said {
        Said::Nothing if trusted => return Count::Silent,
        Said::Nothing => return Count::Direct,
        _ if !trusted => return Count::Untrusted,
        Said::Nonsense => return Count::Malformed,
        Said::Client => {}
    }
    let client = claim.client;
    if socket::family(context) == Family::V4 && !client.is_v4() {
        return Count::Family;
    }
    if socket::keep(&CLIENTS, context, client) { Count::Told } else { Count::NoMemory }
}

/// Answers for IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
fn toa_peer4(context: SockAddrContext) -> i32 {
    if let Some(client) = socket::kept(&CLIENTS, &context) {
        socket::answer_v4(&context, &client);
        count(Count::Answers);
    }
    1
}

/// Answers for IPv6 sockets; the IPv4 peers of dual-stack servers have mapped addresses here.
#[cgroup_sock_addr(getpeername6)]
fn toa_peer6(context: SockAddrContext) -> i32 {
    if let Some(client) = socket::kept(&CLIENTS, &context) {
        socket::answer_v6(&context, &client);
        count(Count::Answers);
    }
    1
}

#[inline(always)]
fn count(what: Count) {
    socket::add_one(&COUNTERS, what as u32);
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
