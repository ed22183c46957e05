//! The system calls that have no safe wrapper: bpf(2), maps as memory, and a socket option. With `view.rs` the only
//! files of this crate with `unsafe`.
//!
//! Each function is one command with its part of the kernel's `union bpf_attr` (`include/uapi/linux/bpf.h`); what is
//! not said is zero. Deliberately absent: what any of it is for.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands (`enum bpf_cmd`).
mod command {
    pub const MAP_LOOKUP_ELEM: u32 = 1;
    pub const MAP_UPDATE_ELEM: u32 = 2;
    pub const MAP_DELETE_ELEM: u32 = 3;
    pub const MAP_GET_NEXT_KEY: u32 = 4;
    pub const PROG_LOAD: u32 = 5;
    pub const OBJ_PIN: u32 = 6;
    pub const OBJ_GET: u32 = 7;
    pub const PROG_TEST_RUN: u32 = 10;
    pub const OBJ_GET_INFO_BY_FD: u32 = 15;
    pub const PROG_QUERY: u32 = 16;
    pub const MAP_LOOKUP_BATCH: u32 = 24;
    pub const MAP_UPDATE_BATCH: u32 = 26;
    pub const LINK_CREATE: u32 = 28;
    pub const LINK_UPDATE: u32 = 29;
    pub const LINK_DETACH: u32 = 34;
}

/// Types of programs (`enum bpf_prog_type`).
pub mod program {
    /// At TC.
    pub const SCHED_CLS: u32 = 3;
    /// At the driver.
    pub const XDP: u32 = 6;
}

/// Places that programs are attached to (`enum bpf_attach_type`).
pub mod place {
    /// A driver.
    pub const XDP: u32 = 37;
    /// What arrives on an interface.
    pub const TCX_INGRESS: u32 = 46;
}

/// `XDP_FLAGS_DRV_MODE` (`include/uapi/linux/if_link.h`).
pub const XDP_NATIVE: u32 = 1 << 2;

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`, Linux 5.14).
const SO_NETNS_COOKIE: i32 = 71;

/// Asks the kernel one thing. `A` is the part of `union bpf_attr` that belongs to `command`.
///
/// # Safety
/// Every pointer in `attr` is valid for what the command reads and writes there.
unsafe fn bpf<A>(command: u32, attr: &mut A) -> io::Result<i32> {
    loop {
        // SAFETY: `attr` is valid for its size; what it points to is the caller's promise.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>() as libc::c_uint)
        };
        if result >= 0 {
            return i32::try_from(result).map_err(io::Error::other);
        }
        let error = io::Error::last_os_error();
        // The verifier was interrupted by a signal, or a map is being changed.
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

/// As [`bpf`], of commands that return a descriptor.
///
/// # Safety
/// As of [`bpf`].
unsafe fn bpf_fd<A>(command: u32, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; a successful command of this kind returns a new descriptor, which nobody else owns.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>() as u64
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The kernel's sizes of a map: what its keys and values must have for the functions below.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// The kernel's number for it.
    pub id: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// How many elements it may have.
    pub entries: u32,
    /// How it was made (`BPF_F_*`).
    pub flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let length = size_of::<MapInfo>() as u32;
    let mut attr = Info { fd: map.as_raw_fd() as u32, length, info: address_mut(&mut info) };
    // SAFETY: the kernel writes at most `length` bytes, which `info` has, and any bytes are numbers.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

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

/// Checks that a map takes keys and values of these lengths; what the kernel reads and writes follows from its sizes.
fn fits(info: &MapInfo, key: usize, value: usize) -> io::Result<()> {
    let same = info.key as usize == key && info.value as usize == value;
    if same { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not the sizes of the map")) }
}

/// Reads an element into `value`; `false` when there is none. `value` has the map's size of a value, of a per-processor map
/// that many for every possible processor, each rounded up to 8 bytes.
pub fn lookup(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    key: &[u8],
    value: &mut [u8],
    processors: usize,
) -> io::Result<bool> {
    fits(info, key.len(), if processors == 1 { value.len() } else { info.value as usize })?;
    if processors != 1 && value.len() != (info.value as usize).next_multiple_of(8) * processors {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = Element {
        map: map.as_raw_fd() as u32,
        key: address(key),
        value: address_mut(value),
        ..Element::default()
    };
    // SAFETY: the lengths are what the kernel reads and writes for this map, as just checked.
    match unsafe { bpf(command::MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets an element. `value` as in [`lookup`].
pub fn update(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    key: &[u8],
    value: &[u8],
    processors: usize,
) -> io::Result<()> {
    fits(info, key.len(), if processors == 1 { value.len() } else { info.value as usize })?;
    if processors != 1 && value.len() != (info.value as usize).next_multiple_of(8) * processors {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = Element {
        map: map.as_raw_fd() as u32,
        key: address(key),
        value: address(value),
        ..Element::default()
    };
    // SAFETY: as above.
    unsafe { bpf(command::MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// Removes an element; `false` when there was none.
pub fn delete(map: BorrowedFd<'_>, info: &MapInfo, key: &[u8]) -> io::Result<bool> {
    fits(info, key.len(), info.value as usize)?;
    let mut attr = Element { map: map.as_raw_fd() as u32, key: address(key), ..Element::default() };
    // SAFETY: the key has the map's size.
    match unsafe { bpf(command::MAP_DELETE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key behind `key`, or the first; `false` behind the last.
pub fn next_key(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    fits(info, key.map_or(next.len(), <[u8]>::len), info.value as usize)?;
    fits(info, next.len(), info.value as usize)?;
    let mut attr = Element {
        map: map.as_raw_fd() as u32,
        key: key.map_or(0, address),
        value: address_mut(next),
        ..Element::default()
    };
    // SAFETY: both have the size of a key; a null pointer asks for the first.
    match unsafe { bpf(command::MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Reads the first elements of an array by one call: as many as `keys` has room for, and the map has. `values` has room for
/// as many, each as in [`lookup`]. How many were read.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    keys: &mut [u32],
    values: &mut [u8],
    processors: usize,
) -> io::Result<usize> {
    let each = if processors == 1 {
        info.value as usize
    } else {
        (info.value as usize).next_multiple_of(8) * processors
    };
    fits(info, size_of::<u32>(), info.value as usize)?;
    if values.len() != each * keys.len() || keys.len() > info.entries as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut position = 0u64;
    let mut attr = Batch {
        to: address_mut(&mut position),
        keys: address_mut(keys),
        values: address_mut(values),
        count: keys.len() as u32,
        map: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    // SAFETY: there is room for `count` keys and values of the map's sizes, and for a position, which has a key's size.
    match unsafe { bpf(command::MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(_) => Ok(attr.count as usize),
        // The end of the map: what was read is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(attr.count as usize),
        Err(error) => Err(error),
    }
}

/// Sets the elements with these keys of an array, not one of processors.
pub fn update_batch(map: BorrowedFd<'_>, info: &MapInfo, keys: &[u32], values: &[u8]) -> io::Result<()> {
    fits(info, size_of::<u32>(), values.len().checked_div(keys.len()).unwrap_or(info.value as usize))?;
    if values.len() != info.value as usize * keys.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = Batch {
        keys: address(keys),
        values: address(values),
        count: keys.len() as u32,
        map: map.as_raw_fd() as u32,
        ..Batch::default()
    };
    // SAFETY: there are `count` keys and values of the map's sizes.
    unsafe { bpf(command::MAP_UPDATE_BATCH, &mut attr).map(drop) }
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a map, a program or a link a name in a BPF file system.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attr = Object {
        path: address(path.as_bytes_with_nul()),
        fd: object.as_raw_fd() as u32,
        ..Object::default()
    };
    // SAFETY: the path ends with a zero.
    unsafe { bpf(command::OBJ_PIN, &mut attr).map(drop) }
}

/// Opens what has a name in a BPF file system.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attr = Object { path: address(path.as_bytes_with_nul()), ..Object::default() };
    // SAFETY: the path ends with a zero.
    unsafe { bpf_fd(command::OBJ_GET, &mut attr) }
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

/// Has a netlink socket hear a group by its number (NETLINK_ADD_MEMBERSHIP).
pub fn hear_group(socket: impl AsFd, group: u32) -> io::Result<()> {
    // SAFETY: `group` is valid for reads of its size, and the kernel copies it before it returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            std::ptr::from_ref(&group).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number of the network namespace that a socket is in; no other ever has it while the host runs.
pub fn namespace_cookie(socket: impl AsFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: there is room for `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
