//! Commands on programs and on their links to interfaces.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Info, address, address_mut, bpf, bpf_fd, command};

/// What the kernel says of a link of a program to an interface: the program's number, and the interface's index, 0 once the
/// interface is gone (`bpf_link_info`; xdp and tcx have the index at the same place).
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut info = [0u32; 8];
    let length = size_of_val(&info) as u32;
    let mut attr = Info { fd: link.as_raw_fd() as u32, length, info: address_mut(&mut info) };
    // SAFETY: as above.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok((info[2], info[4]))
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    place: u32,
    flags: u32,
    reserved: [u64; 4],
}

/// Attaches a program to an interface, behind what is attached there (tcx), or alone (xdp).
pub fn link_create(program: BorrowedFd<'_>, interface: u32, place: u32, flags: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let mut attr = LinkCreate { program, interface, place, flags, reserved: [0; 4] };
    // SAFETY: no pointers.
    unsafe { bpf_fd(command::LINK_CREATE, &mut attr) }
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Puts another program in the place of a link's, between two packets.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    // SAFETY: no pointers.
    unsafe { bpf(command::LINK_UPDATE, &mut attr).map(drop) }
}

/// Detaches a link's program now. The link itself goes when nobody has it any more.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: no pointers.
    unsafe { bpf(command::LINK_DETACH, &mut attr).map(drop) }
}

#[repr(C)]
#[derive(Default)]
struct Query {
    interface: u32,
    place: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The numbers of the programs that are attached to an interface at a place, in the order in which they run.
pub fn attached(interface: u32, place: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0u32; 64];
    let mut attr = Query {
        interface,
        place,
        programs: address_mut(&mut programs),
        count: programs.len() as u32,
        ..Query::default()
    };
    // SAFETY: there is room for `count` numbers.
    unsafe { bpf(command::PROG_QUERY, &mut attr)? };
    Ok(programs.iter().take(attr.count as usize).copied().collect())
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// Loads a program that returns `result` and does nothing else: who may do that may load others.
pub fn load_trivial(kind: u32, result: i32) -> io::Result<OwnedFd> {
    // mov r0, result; exit
    let instructions = [u64::from(result as u32) << 32 | 0xb7, 0x95];
    let license = c"Apache-2.0";
    let mut attr = Load {
        kind,
        count: instructions.len() as u32,
        instructions: address(&instructions),
        license: address(license.to_bytes_with_nul()),
    };
    // SAFETY: there are `count` instructions of 8 bytes, and the license ends with a zero.
    unsafe { bpf_fd(command::PROG_LOAD, &mut attr) }
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    processor: u32,
    batch: u32,
    reserved: u32,
}

/// What a program did with a packet that was made up for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it returned.
    pub result: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// How long one run took, in ns, on average over the repetitions.
    pub nanoseconds: u32,
}

/// Runs a program on a packet, and as often as asked on what it left. `context` is the beginning of the program's context
/// (`struct __sk_buff`, `struct xdp_md`), as far as it is not zero.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], context: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut out = vec![0; packet.len() + 4096];
    let mut attr = TestRun {
        program: program.as_raw_fd() as u32,
        size_in: packet.len() as u32,
        size_out: out.len() as u32,
        data_in: address(packet),
        data_out: address_mut(out.as_mut_slice()),
        repeat,
        context_size_in: context.len() as u32,
        context_in: if context.is_empty() { 0 } else { address(context) },
        ..TestRun::default()
    };
    // SAFETY: the sizes are those of the slices.
    unsafe { bpf(command::PROG_TEST_RUN, &mut attr)? };
    out.truncate(attr.size_out as usize);
    Ok(Ran { result: attr.result, packet: out, nanoseconds: attr.duration })
}
