//! Values as bytes, and maps as memory: what the kernel's programs and this program share, seen as Rust types.
//!
//! Deliberately absent: who may write what when. [`portway_datapath::abi`] says that.
#![allow(unsafe_code)]

use std::io;
use std::mem::{align_of, size_of};
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use portway_datapath::abi::{
    Address, Bucket, Config, Fragment, FragmentKey, Leg, Listener, ListenerKey, Member, Persist, PersistKey,
    Port, RangeKey, Record, Refusals, Rule,
};

use crate::sys::{self, MapInfo};

/// A type that is its bytes.
///
/// # Safety
/// Without padding, and any bytes are a value.
pub unsafe trait Plain: Copy + Default + 'static {}

macro_rules! plain {
    ($($name:ty),*) => {$(
        // SAFETY: `repr(C)` of numbers and arrays of numbers; `abi` asserts the sizes, which leave no padding.
        unsafe impl Plain for $name {}
    )*};
}

plain!(u8, u32, u64, [u64; 3], [u64; 8]);
plain!(
    Address,
    Config,
    Fragment,
    FragmentKey,
    Leg,
    Listener,
    ListenerKey,
    Member,
    Persist,
    PersistKey,
    Port,
    RangeKey,
    Refusals,
    Rule
);

/// The bytes of values.
pub fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, so all of their bytes are initialised; the length is theirs.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of values, to be written.
pub fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// The words of values that are made of words.
pub fn words_mut<T: Plain>(values: &mut [T]) -> &mut [u32] {
    assert!(align_of::<T>() >= align_of::<u32>() && size_of::<T>().is_multiple_of(size_of::<u32>()));
    let count = size_of_val(values) / size_of::<u32>();
    // SAFETY: as above; the alignment and the size are those of words.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), count) }
}

/// A type that the kernel's programs change while it is looked at.
///
/// # Safety
/// Without padding, any bytes are a value, and what changes under a shared reference is atomic, or only read when an
/// atomic says that it does not change.
pub unsafe trait Live: 'static {}

// SAFETY: atomics.
unsafe impl Live for AtomicU32 {}
// SAFETY: atomics.
unsafe impl Live for AtomicU64 {}
// SAFETY: atomics.
unsafe impl Live for Record {}
// SAFETY: atomics.
unsafe impl Live for Bucket {}

/// An array map as memory, as long as this lives.
pub struct Mapped<T: Live> {
    start: NonNull<T>,
    count: usize,
    length: usize,
}

// SAFETY: what is shared is `Live`: safe to look at from any thread.
unsafe impl<T: Live> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Live> Sync for Mapped<T> {}

impl<T: Live> Mapped<T> {
    /// Maps an array that was made for that (`BPF_F_MMAPABLE`); its elements are one `T` or several.
    ///
    /// # Errors
    /// The kernel's, or the map's values are no whole number of `T`.
    pub fn new(map: BorrowedFd<'_>, info: &MapInfo) -> io::Result<Self> {
        // Elements lie at multiples of 8 bytes (`array_map_alloc` in kernel/bpf/arraymap.c).
        let (element, each) = (info.value as usize, size_of::<T>());
        if element % each != 0 || (element % 8 != 0 && info.entries > 1) || align_of::<T>() > 4096 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the sizes of the map"));
        }
        let bytes = element.next_multiple_of(8) * info.entries as usize;
        let length = bytes.next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, count: element * info.entries as usize / each, length })
    }
}

impl<T: Live> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has that many, is aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T: Live> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Reads all elements of an array map by one call, one value for each processor.
///
/// # Errors
/// The kernel's.
pub fn read_per_processor<T: Plain>(
    map: BorrowedFd<'_>,
    info: &MapInfo,
    count: usize,
    processors: usize,
) -> io::Result<Vec<T>> {
    let mut keys = vec![0; count];
    let mut values = vec![T::default(); count * processors];
    if !size_of::<T>().is_multiple_of(8) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a map of processors"));
    }
    let read = sys::lookup_batch(map, info, &mut keys, bytes_mut(&mut values), processors)?;
    values.truncate(read * processors);
    Ok(values)
}
