//! The system calls that rustix does not cover: the cookie of a network namespace, datagrams by the train, a TUN device, and a minimal
//! bpf(2) for programs that are not Portway's. The only file of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The cookie of the network namespace that a socket is in (SO_NETNS_COOKIE): a number that no other one ever has, until
/// the next boot.
///
/// # Errors
/// What the kernel says.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: `cookie` and `length` are valid for writes of their size, which `length` says, and live across the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Has what is sent in one call leave as datagrams of so many bytes, and a shorter one at the end (UDP_SEGMENT, udp(7)): to the
/// device they are one packet, which it cuts.
///
/// # Errors
/// What the kernel says.
pub fn send_in_segments(socket: impl AsFd, bytes: u16) -> io::Result<()> {
    let bytes = libc::c_int::from(bytes);
    // SAFETY: `bytes` is valid for reads of the size that is said, and lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct ifreq` as TUNSETIFF reads it (include/uapi/linux/if.h): 40 bytes.
#[repr(C)]
struct TunRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a TUN device in the thread's network namespace: whatever is written to the file arrives on it, and whatever is
/// routed to it is read, an IP packet at a time. It is gone when the file is closed.
///
/// # Errors
/// What the kernel says.
pub fn tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let flags = libc::IFF_TUN as i16 | libc::IFF_NO_PI as i16;
    let mut request = TunRequest { name: [0; 16], flags, rest: [0; 22] };
    request.name.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `request` has the size of; it lives across the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(&mut request)) };
    if result == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

/// bpf(2): PROG_LOAD.
const PROG_LOAD: i32 = 5;
/// bpf(2): LINK_CREATE.
const LINK_CREATE: i32 = 28;

/// The first fields of `union bpf_attr` for PROG_LOAD (include/uapi/linux/bpf.h); the kernel takes what is missing for zeros.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The same for LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program of these instructions.
///
/// # Errors
/// What the kernel says.
pub fn load_program(prog_type: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let attributes = ProgLoad {
        prog_type,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    bpf(PROG_LOAD, &attributes)
}

/// Attaches a program to an interface of the thread's network namespace; it is detached when the link is closed.
///
/// # Errors
/// What the kernel says.
pub fn link(program: impl AsFd, interface: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let prog_fd = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    bpf(LINK_CREATE, &LinkCreate { prog_fd, target: interface, attach_type, flags: 0 })
}

/// What bpf(2) knows by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// PROG_GET_FD_BY_ID
    Program = 13,
    /// MAP_GET_FD_BY_ID
    Map = 14,
    /// LINK_GET_FD_BY_ID
    Link = 30,
}

/// The same for these: the number first, then what concerns none of them.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Opens what has this number. Numbers go up and are used again only when all have been used.
///
/// # Errors
/// What the kernel says: ENOENT when it is no longer there.
pub fn open_by_id(object: Object, id: u32) -> io::Result<OwnedFd> {
    bpf(object as i32, &ById { id, next_id: 0, open_flags: 0 })
}

/// A command of bpf(2) that gives a descriptor.
fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is valid for reads of the size given, and so is the memory that its pointers name, if it has any: the callers
    // hold it across the call. The kernel copies.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as u32)
    };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
