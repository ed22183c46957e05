//! The kernel's functions for programs, on the packet of this thread: what Linux 6.12 and 6.18 do to bytes and to what is known
//! of a checksum (`net/core/filter.c`, `net/core/utils.c`, `include/linux/skbuff.h`), slowly.
//!
//! Deliberately absent: buffers of several pieces or segments, which say nothing else of checksums.

/// By the names that the programs' library gives them.
pub mod generated {
    use std::ffi::c_void;

    use crate::bindings::__sk_buff;
    use crate::packet::{self, Buffer, LINK, Summed, fold, with};

    const EFAULT: i64 = -14;
    const EINVAL: i64 = -22;
    const ENOTSUPP: i64 = -524;

    /// Which sum the buffer has after bytes at an offset have gone or come.
    fn change(buffer: &mut Buffer, offset: usize, gone: &[u8], come: &[u8]) {
        // A sum is of words; what begins at an odd byte of them counts with its bytes exchanged.
        let sum = |bytes: &[u8]| {
            let sum = packet::sum(bytes);
            if offset.is_multiple_of(2) { sum } else { sum.swap_bytes() }
        };
        let (gone, come) = (sum(gone), sum(come));
        if let Summed::Complete(sum) = &mut buffer.summed {
            *sum = u32::from(fold(u64::from(*sum) + u64::from(!gone) + u64::from(come)));
        }
    }

    /// Whether `length` bytes from `offset` are there.
    fn has(buffer: &Buffer, offset: u32, length: u32) -> bool {
        offset as usize + length as usize <= buffer.bytes.len()
    }

    /// `bpf_skb_generic_push`, behind the link header.
    fn push(buffer: &mut Buffer, length: usize) {
        buffer.bytes.splice(LINK..LINK, std::iter::repeat_n(0, length));
        if let Summed::Partial { start, .. } = &mut buffer.summed {
            *start += length;
        }
    }

    /// `bpf_skb_generic_pop`, behind the link header.
    fn pop(buffer: &mut Buffer, length: usize) {
        let gone: Vec<u8> = buffer.bytes.drain(LINK..LINK + length).collect();
        change(buffer, 0, &gone, &[]);
        if let Summed::Partial { start, offset } = buffer.summed {
            // `skb_postpull_rcsum`.
            buffer.summed = match start.checked_sub(length) {
                Some(start) => Summed::Partial { start, offset },
                None => Summed::Nothing,
            };
        }
    }

    pub unsafe fn bpf_skb_load_bytes(_: *const c_void, offset: u32, to: *mut c_void, length: u32) -> i64 {
        with(|buffer| {
            // SAFETY: the caller has as many bytes.
            let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), length as usize) };
            to.fill(0);
            if !has(buffer, offset, length) {
                return EFAULT;
            }
            to.copy_from_slice(&buffer.bytes[offset as usize..][..length as usize]);
            0
        })
    }

    pub unsafe fn bpf_skb_store_bytes(
        _: *mut __sk_buff,
        offset: u32,
        from: *const c_void,
        length: u32,
        flags: u64,
    ) -> i64 {
        with(|buffer| {
            if flags & !1 != 0 {
                return EINVAL;
            }
            if !has(buffer, offset, length) {
                return EFAULT;
            }
            // SAFETY: the caller has as many bytes.
            let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length as usize) };
            let place = offset as usize..offset as usize + from.len();
            let before = buffer.bytes[place.clone()].to_vec();
            buffer.bytes[place].copy_from_slice(from);
            if flags == 1 {
                change(buffer, offset as usize, &before, from);
            }
            0
        })
    }

    /// Of a difference, which is what `from` 0 and no width say.
    pub unsafe fn bpf_l4_csum_replace(_: *mut __sk_buff, offset: u32, from: u64, to: u64, flags: u64) -> i64 {
        let (pseudo_header, zero_is_none) = (flags & 0x10 != 0, flags & 0x20 != 0);
        with(|buffer| {
            if flags & !0x30 != 0 || from != 0 {
                return EINVAL;
            }
            if offset & 1 != 0 || !has(buffer, offset, 2) {
                return EFAULT;
            }
            let place = &mut buffer.bytes[offset as usize..offset as usize + 2];
            let check = u16::from_ne_bytes([place[0], place[1]]);
            if zero_is_none && check == 0 {
                return 0;
            }
            let difference = u64::from(to as u32);
            let plus = |check: u16| fold(u64::from(check) + difference);
            let mut after = match buffer.summed {
                Summed::Partial { .. } if pseudo_header => plus(check),
                Summed::Partial { .. } => check,
                _ => !plus(!check),
            };
            if let (Summed::Complete(sum), true) = (&mut buffer.summed, pseudo_header) {
                *sum = u32::from(fold(u64::from(*sum) + u64::from(!(to as u32))));
            }
            if zero_is_none && after == 0 {
                after = 0xffff;
            }
            place.copy_from_slice(&after.to_ne_bytes());
            0
        })
    }

    pub unsafe fn bpf_csum_update(_: *mut __sk_buff, change: u32) -> i64 {
        with(|buffer| match &mut buffer.summed {
            Summed::Complete(sum) => {
                *sum = u32::from(fold(u64::from(*sum) + u64::from(change)));
                i64::from(*sum)
            }
            _ => ENOTSUPP,
        })
    }

    pub unsafe fn bpf_csum_diff(
        from: *mut u32,
        from_size: u32,
        to: *mut u32,
        to_size: u32,
        seed: u32,
    ) -> i64 {
        if (from_size | to_size) & 3 != 0 || from_size + to_size > 512 {
            return EINVAL;
        }
        let words = |at: *mut u32, size: u32| {
            // SAFETY: the caller has as many bytes, not aligned.
            (0..size as usize / 4).map(move |nth| unsafe { at.add(nth).read_unaligned() })
        };
        let gone = words(from, from_size).map(|word| u64::from(!word)).sum::<u64>();
        let come = words(to, to_size).map(u64::from).sum::<u64>();
        i64::from(fold(u64::from(seed) + gone + come))
    }

    /// A sum over the packet is forgotten where the length changes (`__skb_trim_rcsum`, `__skb_grow_rcsum`), and only there.
    pub unsafe fn bpf_skb_change_tail(_: *mut __sk_buff, length: u32, flags: u64) -> i64 {
        with(|buffer| {
            let least = match buffer.summed {
                Summed::Partial { start, offset } => start + offset + 2,
                _ => LINK,
            };
            if flags != 0 || (length as usize) < least || length > 16_000 {
                return EINVAL;
            }
            if length as usize != buffer.bytes.len() && matches!(buffer.summed, Summed::Complete(_)) {
                buffer.summed = Summed::Nothing;
            }
            buffer.bytes.resize(length as usize, 0);
            0
        })
    }

    pub unsafe fn bpf_skb_change_head(_: *mut __sk_buff, length: u32, flags: u64) -> i64 {
        with(|buffer| {
            if flags != 0 {
                return EINVAL;
            }
            buffer.bytes.splice(0..0, std::iter::repeat_n(0, length as usize));
            if let Summed::Partial { start, .. } = &mut buffer.summed {
                *start += length as usize;
            }
            0
        })
    }

    pub unsafe fn bpf_skb_change_proto(_: *mut __sk_buff, kind: u16, flags: u64) -> i64 {
        with(|buffer| {
            match (buffer.ipv4, u16::from_be(kind)) {
                _ if flags != 0 => return EINVAL,
                (true, 0x86dd) => push(buffer, 20),
                (false, 0x0800) => pop(buffer, 20),
                _ => return ENOTSUPP,
            }
            buffer.ipv4 = !buffer.ipv4;
            0
        })
    }

    /// Behind the link header (BPF_ADJ_ROOM_MAC).
    pub unsafe fn bpf_skb_adjust_room(_: *mut __sk_buff, length: i32, mode: u32, flags: u64) -> i64 {
        with(|buffer| {
            let least = if buffer.ipv4 { 20 } else { 40 };
            let size = length.unsigned_abs() as usize;
            if flags != 0 || size > 0xfff {
                return EINVAL;
            }
            if mode != 1 || length < 0 && buffer.bytes.len() - LINK < size + least {
                return ENOTSUPP;
            }
            if length < 0 {
                pop(buffer, size)
            } else {
                push(buffer, size)
            }
            0
        })
    }

    /// Calls a function until it says 1.
    pub unsafe fn bpf_loop(times: u32, body: *mut c_void, context: *mut c_void, _: u64) -> i64 {
        // SAFETY: a function of this type, as the kernel's verifier makes sure.
        let body: unsafe extern "C" fn(u32, *mut c_void) -> i64 = unsafe { std::mem::transmute(body) };
        // SAFETY: what the caller wants called.
        let done = (0..times).take_while(|nth| unsafe { body(*nth, context) } == 0).count();
        done as i64
    }
}
