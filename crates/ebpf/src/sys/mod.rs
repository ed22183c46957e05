//! The system calls that have no safe wrapper: bpf(2) and two socket options. With its parts and with `view.rs` the only
//! files of this crate with `unsafe`.
//!
//! Each function is one command with its part of the kernel's `union bpf_attr` (`include/uapi/linux/bpf.h`); what is
//! not said is zero. Deliberately absent: what any of it is for.
#![allow(unsafe_code)]

mod link;
mod map;

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use link::{Ran, attached, link_create, link_detach, link_info, link_update, load_trivial, test_run};
pub use map::{MapInfo, delete, lookup, lookup_batch, map_info, next_key, update, update_batch};

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
struct Info {
    fd: u32,
    length: u32,
    info: u64,
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
