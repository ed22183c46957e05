//! A packet in ordinary memory, with the face of the kernel programs' own (`ebpf/src/packet.rs`): so that their reading and
//! rewriting of headers is compiled as it stands and run here.
//!
//! The programs copy their packet about freely, as a pointer; here it is the one of the thread.

use std::cell::RefCell;

use portway_datapath::abi::Address;

/// What the kernel knows of a socket buffer's checksum (`include/linux/skbuff.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// Nothing, or that it is right: the packet's own is all there is.
    Nothing,
    /// The transport's checksum holds the sum of the pseudo header; a device adds all from `start` on and puts the whole at
    /// `offset` from there.
    Partial { start: usize, offset: usize },
    /// The sum of all bytes from the IP header on.
    Complete(u32),
}

/// The bytes of the link header, which a sum over the packet does not cover.
pub const LINK: usize = 14;

/// The packet of this thread.
pub struct Buffer {
    pub bytes: Vec<u8>,
    /// The family that the kernel takes it for.
    pub ipv4: bool,
    pub summed: Summed,
    /// Whether the kernel shows that.
    pub shown: bool,
}

thread_local! {
    static BUFFER: RefCell<Buffer> =
        const { RefCell::new(Buffer { bytes: Vec::new(), ipv4: false, summed: Summed::Nothing, shown: false }) };
}

/// Works on the packet of this thread.
pub fn with<T>(f: impl FnOnce(&mut Buffer) -> T) -> T {
    BUFFER.with_borrow_mut(f)
}

/// A packet at one of the hooks.
pub trait Packet: Copy {
    /// `N` bytes from `offset`.
    fn window<const N: usize>(self, offset: u32) -> Option<Window<N>> {
        let start = (offset & 0xff) as usize;
        with(|buffer| start + N <= buffer.bytes.len()).then_some(Window { start })
    }

    /// Whether it has `length` bytes.
    fn has(self, length: u32) -> bool {
        with(|buffer| length as usize <= buffer.bytes.len())
    }
}

/// `N` bytes of a packet.
#[derive(Clone, Copy)]
pub struct Window<const N: usize> {
    start: usize,
}

impl<const N: usize> Window<N> {
    pub fn get<T: Plain, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        with(|buffer| T::load(&buffer.bytes[self.start + AT..]))
    }

    pub fn set<T: Plain, const AT: usize>(self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        with(|buffer| value.store(&mut buffer.bytes[self.start + AT..]));
    }

    pub fn address<const AT: usize, const REST: usize>(self) -> Address {
        Address { high: self.get::<u64, AT>(), low: self.get::<u64, REST>() }
    }

    pub fn set_address<const AT: usize, const REST: usize>(self, address: Address) {
        self.set::<u64, AT>(address.high);
        self.set::<u64, REST>(address.low);
    }
}

/// What is read and written at once, as it lies in memory.
pub trait Plain: Copy {
    fn load(bytes: &[u8]) -> Self;
    fn store(self, bytes: &mut [u8]);
}

macro_rules! plain {
    ($($integer:ty),*) => {$(
        impl Plain for $integer {
            fn load(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(std::array::from_fn(|at| bytes[at]))
            }

            fn store(self, bytes: &mut [u8]) {
                bytes[..size_of::<Self>()].copy_from_slice(&self.to_ne_bytes());
            }
        }
    )*};
}

plain!(u8, u16, u32, u64);

/// A one's complement sum in 16 bits.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of bytes as they lie in memory.
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    fold(words.map(u64::from).sum())
}
