//! What the programs at TC read of a socket buffer that they are not shown: what the kernel has noted about its checksum
//! (`ip_summed`). Known, a checksum is updated where it lies; unknown, by two calls of the kernel's.
//!
//! The kernel hands out its own buffer to programs (`bpf_cast_to_kern_ctx`, Linux 6.2), but which number that function has and
//! where the field lies differs from build to build. So the object has a place of four instructions (`ebpf/src/skb.rs`) that
//! say "not known", and here what this kernel says goes there. Deliberately absent: other fields.

use crate::btf::Types;

/// What the object has there: "sum?" in the register for answers, and three instructions that do nothing.
const PLACE: [[u8; 8]; 4] = [[0xb7, 0, 0, 0, 0x73, 0x75, 0x6d, 0x3f], NOTHING, NOTHING, NOTHING];
/// See [`PLACE`]: on to the next.
const NOTHING: [u8; 8] = [0x05, 0, 0, 0, 0, 0, 0, 0];

/// Where the kernel's types are.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// The instructions that read the field on this kernel; nothing where it does not say.
fn instructions(types: &Types<'_>) -> Option<[[u8; 8]; 4]> {
    let function = types.function("bpf_cast_to_kern_ctx")?;
    let field = types.field("sk_buff", "ip_summed")?;
    let (byte, bit) = (i16::try_from(field.at / 8).ok()?, field.at % 8);
    if field.bits != 2 || bit + field.bits > 8 {
        return None;
    }
    let instruction = |code: u8, registers: u8, offset: i16, immediate: u32| {
        let ([o, p], [a, b, c, d]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
        [code, registers, o, p, a, b, c, d]
    };
    // Of the kernel's own functions (BPF_PSEUDO_KFUNC_CALL, `include/uapi/linux/bpf.h`).
    const KERNEL_FUNCTION: u8 = 2 << 4;
    Some([
        instruction(0x85, KERNEL_FUNCTION, 0, function),
        // r0 = *(u8 *)(r0 + byte)
        instruction(0x71, 0, byte, 0),
        // r0 &= mask
        instruction(0x57, 0, 0, 3 << bit),
        // r0 >>= bit
        instruction(0x77, 0, 0, bit),
    ])
}

/// The object for this kernel; nothing if it is as it stands.
pub fn tailored(object: &[u8]) -> Option<Vec<u8>> {
    let bytes = std::fs::read(TYPES).ok()?;
    put(object, instructions(&Types::read(&bytes)?)?)
}

/// The object with `instructions` in every place for them.
fn put(object: &[u8], instructions: [[u8; 8]; 4]) -> Option<Vec<u8>> {
    let (place, instructions) = (PLACE.concat(), instructions.concat());
    let mut tailored = object.to_vec();
    let mut found = false;
    // Instructions lie at multiples of their size, in sections that do.
    for at in (0..object.len().saturating_sub(place.len() - 1)).step_by(8) {
        if object[at..].starts_with(&place) {
            tailored[at..at + place.len()].copy_from_slice(&instructions);
            found = true;
        }
    }
    found.then_some(tailored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::OBJECT;

    #[test]
    fn the_field_is_read_where_the_kernel_has_it() {
        let bytes = crate::btf::tests::types();
        let [call, load, mask, shift] = instructions(&Types::read(&bytes).unwrap()).unwrap();
        assert_eq!(call, [0x85, 0x20, 0, 0, 5, 0, 0, 0]);
        assert_eq!(load, [0x71, 0, 8, 0, 0, 0, 0, 0]);
        assert_eq!(mask, [0x57, 0, 0, 0, 0x60, 0, 0, 0]);
        assert_eq!(shift, [0x77, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn every_place_of_the_object_is_filled() {
        let count =
            |object: &[u8], wanted: &[u8]| object.chunks_exact(8).filter(|found| *found == wanted).count();
        let places = count(OBJECT, &PLACE[0]);
        // Both families, on both kinds of interface.
        assert_eq!(places, 4);
        let tailored = tailored(OBJECT).unwrap();
        assert_eq!(count(&tailored, &PLACE[0]), 0);
        let different = OBJECT.chunks_exact(8).zip(tailored.chunks_exact(8)).filter(|(a, b)| a != b).count();
        assert_eq!((tailored.len(), different), (OBJECT.len(), 4 * places));
    }

    #[test]
    fn an_object_without_places_stays() {
        assert_eq!(put(&[0; 64], PLACE), None);
        assert_eq!(put(&[0; 8], PLACE), None);
    }
}
