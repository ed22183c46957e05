//! Commands on maps. Keys and values are bytes; their lengths are checked against what the kernel says of the map.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Info, address, address_mut, bpf, command};

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

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let length = size_of::<MapInfo>() as u32;
    let mut attr = Info { fd: map.as_raw_fd() as u32, length, info: address_mut(&mut info) };
    // SAFETY: the kernel writes at most `length` bytes, which `info` has, and any bytes are numbers.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

/// How many bytes the kernel reads or writes for the value of an element: of a per-processor map one for every possible
/// processor, each rounded up to 8 bytes (`bpf_map_value_size`, `kernel/bpf/syscall.c`).
fn value_length(info: &MapInfo, processors: usize) -> usize {
    let one = info.value as usize;
    if processors == 1 { one } else { one.next_multiple_of(8) * processors }
}

/// Checks the length of a key against the map's.
fn fits_key(info: &MapInfo, key: usize) -> io::Result<()> {
    if info.key as usize == key { Ok(()) } else { Err(not_the_sizes()) }
}

/// Checks that a map takes keys and values of these lengths; what the kernel reads and writes follows from its sizes.
fn fits(info: &MapInfo, key: usize, value: usize, processors: usize) -> io::Result<()> {
    fits_key(info, key)?;
    if value_length(info, processors) == value { Ok(()) } else { Err(not_the_sizes()) }
}

fn not_the_sizes() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not the sizes of the map")
}

/// Reads an element into `value`, which has the length of [`value_length`]; `false` when there is none.
pub fn lookup(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    key: &[u8],
    value: &mut [u8],
    processors: usize,
) -> io::Result<bool> {
    fits(info, key.len(), value.len(), processors)?;
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
    fits(info, key.len(), value.len(), processors)?;
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
    fits_key(info, key.len())?;
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
    fits_key(info, key.map_or(next.len(), <[u8]>::len))?;
    fits_key(info, next.len())?;
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
    fits_key(info, size_of::<u32>())?;
    if values.len() != value_length(info, processors) * keys.len() || keys.len() > info.entries as usize {
        return Err(not_the_sizes());
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
    fits_key(info, size_of::<u32>())?;
    if values.len() != value_length(info, 1) * keys.len() {
        return Err(not_the_sizes());
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
