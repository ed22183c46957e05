//! The system calls of sampling, which neither rustix nor libc has: perf_event_open(2), and the ring that the kernel shares.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// `struct perf_event_attr` (include/uapi/linux/perf_event.h) as it was in Linux 4.8, PERF_ATTR_SIZE_VER5; later kernels take
/// what is missing for zeros.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

/// PERF_TYPE_SOFTWARE
const SOFTWARE: u32 = 1;
/// PERF_COUNT_SW_CPU_CLOCK
const CPU_CLOCK: u64 = 0;
/// PERF_SAMPLE_IP, PERF_SAMPLE_TID, PERF_SAMPLE_CALLCHAIN: what [`super::records`] reads.
const SAMPLE: u64 = 1 | 1 << 1 | 1 << 5;
/// Off until it is enabled; processes that begin are told (`task`); no stacks of programs (`exclude_callchain_user`).
const FLAGS: u64 = 1 | 1 << 13 | 1 << 22;
/// PERF_FLAG_FD_CLOEXEC
const CLOEXEC: libc::c_ulong = 8;
/// PERF_EVENT_IOC_ENABLE: `_IO('$', 0)`
const ENABLE: libc::c_ulong = 0x2400;

/// The clock event of a processor. It ends when it is dropped.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// Opens it, off: a sample every so many nanoseconds with so many callers at most, of whatever runs there.
    pub fn open(processor: i32, period: u64, callers: u16) -> io::Result<Self> {
        let attributes = Attributes {
            kind: SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: CPU_CLOCK,
            sample_period: period,
            sample_type: SAMPLE,
            flags: FLAGS,
            sample_max_stack: callers,
            ..Attributes::default()
        };
        let (any_process, no_group) = (-1, -1);
        // SAFETY: `attributes` is valid for reads of the size that it says and lives across the call. The kernel copies.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                std::ptr::from_ref(&attributes),
                any_process,
                processor,
                no_group,
                CLOEXEC,
            )
        };
        let fd = i32::try_from(result).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Begins.
    pub fn enable(&self) -> io::Result<()> {
        // SAFETY: the command takes a number and no memory of ours.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), ENABLE, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Where `struct perf_event_mmap_page` has data_head, and data_tail behind it.
const HEAD: usize = 1024;
const TAIL: usize = 1032;

/// The records of an event that nobody has read yet: a page that says where they are, and after it a ring of bytes.
#[derive(Debug)]
pub struct Ring {
    event: Event,
    base: NonNull<c_void>,
    /// Bytes of the ring itself, a power of two.
    length: usize,
}

// SAFETY: the mapping is this value's alone on our side, and every access to it goes through `&mut self`.
unsafe impl Send for Ring {}
// SAFETY: what is shared is the event, a descriptor; the mapping is reached by `&mut self` only.
unsafe impl Sync for Ring {}

impl Ring {
    /// The ring of an event, of so many pages, a power of two.
    pub fn map(event: Event, pages: usize) -> io::Result<Self> {
        let length = pages * page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let base = unsafe {
            mmap(std::ptr::null_mut(), page_size() + length, protection, MapFlags::SHARED, &event.0, 0)
        };
        let base = NonNull::new(base?).ok_or_else(|| io::Error::other("mapped at nowhere"))?;
        Ok(Self { event, base, length })
    }

    /// Whose it is.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Takes all whole records that are there.
    pub fn read(&mut self, into: &mut Vec<u8>) {
        let head = self.counter(HEAD).load(Ordering::Acquire);
        let tail = self.counter(TAIL).load(Ordering::Relaxed);
        // Both count on and on. The kernel never runs over what is not read, so there is no more than the ring holds.
        let there = (head.wrapping_sub(tail) as usize).min(self.length);
        let from = tail as usize & (self.length - 1);
        let first = there.min(self.length - from);
        for (at, count) in [(from, first), (0, there - first)] {
            // SAFETY: `at + count` is at most `length`, which is mapped after the first page; between tail and head the kernel does
            // not write until the tail moves, and it has written before the head did (Acquire).
            let bytes = unsafe {
                std::slice::from_raw_parts(self.base.as_ptr().cast::<u8>().add(page_size() + at), count)
            };
            into.extend_from_slice(bytes);
        }
        self.counter(TAIL).store(tail.wrapping_add(there as u64), Ordering::Release);
    }

    /// One of the counters in the first page.
    fn counter(&self, at: usize) -> &AtomicU64 {
        // SAFETY: `at` is a multiple of eight within the first page, which is mapped as long as `self` lives; both sides use it
        // as an atomic.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().cast::<u8>().add(at).cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr(), page_size() + self.length) };
    }
}
