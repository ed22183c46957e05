//! The kernel's types (BTF, `Documentation/bpf/btf.rst`), as far as two questions go: which number a function has, and where
//! in a structure a field of bits lies.
//!
//! Aya reads all of it, for what its programs ask by relocations; a program in Rust has none. Deliberately absent: what the
//! answers are for ([`crate::summed`]).

/// Kinds of types.
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
}

/// How deep structures without a name may lie within each other.
const DEPTH: u32 = 8;

/// All types of a kernel.
pub struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where in `types` each begins; the first has number 1.
    starts: Vec<u32>,
}

/// A type: what all kinds have.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    kind: u32,
    count: usize,
    has_bits: bool,
    /// Where its members begin.
    rest: usize,
}

/// Where a field lies, in bits from the beginning of the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The first.
    pub at: u32,
    /// How many; 0 of a field that is not one of bits.
    pub bits: u32,
}

impl<'a> Types<'a> {
    /// Finds the types in what `/sys/kernel/btf/vmlinux` has; nothing if it is something else, or not for this processor.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: u32 = 0xeb9f;
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let part = |at: usize| {
            let header = word(bytes, 4)? as usize;
            let from = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(from..from.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        let mut all = Self { types, strings, starts: Vec::with_capacity(types.len() / 24) };
        let mut at = 0;
        while at < types.len() {
            all.starts.push(u32::try_from(at).ok()?);
            let head = all.head(at)?;
            at = head.rest + head.extra();
        }
        Some(all)
    }

    /// The number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.named(kind::FUNC, name)
    }

    /// Where a structure has a field, those without a name within it included.
    pub fn field(&self, structure: &str, field: &str) -> Option<Field> {
        self.field_of(self.named(kind::STRUCT, structure)?, field, DEPTH)
    }

    fn named(&self, kind: u32, name: &str) -> Option<u32> {
        let is_it = |start: &u32| {
            self.head(*start as usize).is_some_and(|head| head.kind == kind && self.is_named(head.name, name))
        };
        let nth = self.starts.iter().position(is_it)?;
        u32::try_from(nth + 1).ok()
    }

    fn field_of(&self, structure: u32, name: &str, depth: u32) -> Option<Field> {
        let start = *self.starts.get((structure as usize).checked_sub(1)?)?;
        let head = self.head(start as usize)?;
        if !matches!(head.kind, kind::STRUCT | kind::UNION) || depth == 0 {
            return None;
        }
        (0..head.count).find_map(|nth| {
            let at = head.rest + nth * 12;
            let [named, of, place] = [0, 4, 8].map(|word_at| word(self.types, at + word_at));
            // With fields of bits among them, a member's place has the number of its bits in front.
            let (named, of, place) = (named?, of?, place?);
            let (bits, at) = if head.has_bits { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            if self.is_named(named, name) {
                return Some(Field { at, bits });
            }
            let within = if named == 0 { self.field_of(of, name, depth - 1) } else { None }?;
            Some(Field { at: at + within.at, ..within })
        })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        !name.is_empty() && rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn head(&self, at: usize) -> Option<Head> {
        let (name, info) = (word(self.types, at)?, word(self.types, at + 4)?);
        Some(Head {
            name,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            has_bits: info >> 31 != 0,
            rest: at + 12,
        })
    }
}

impl Head {
    /// The bytes behind what all kinds have.
    const fn extra(self) -> usize {
        match self.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => self.count * 12,
            kind::ENUM | kind::FUNC_PROTO => self.count * 8,
            _ => 0,
        }
    }
}

/// A word of this machine's order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What of a kernel's types the questions are about: a structure without a name, with fields of bits, within a named one.
    pub fn types() -> Vec<u8> {
        let strings = b"\0sk_buff\0ip_summed\0bpf_cast_to_kern_ctx\0other\0";
        let name = |wanted: &str| {
            let is_there = |at: &usize| strings[*at..].starts_with(wanted.as_bytes());
            u32::try_from((1..strings.len()).find(is_there).unwrap()).unwrap()
        };
        let info = |kind: u32, count: u32, bits: bool| kind << 24 | count | u32::from(bits) << 31;
        let types: Vec<u32> = [
            // 1: an integer, 2: the structure within, 3: the one around it, 4: what a function takes, 5: the function.
            vec![name("other"), info(kind::INT, 0, false), 1, 8],
            [
                vec![0, info(kind::STRUCT, 2, true), 2],
                vec![name("other"), 1, 5 << 24, name("ip_summed"), 1, 2 << 24 | 5],
            ]
            .concat(),
            vec![name("sk_buff"), info(kind::STRUCT, 2, false), 10, name("other"), 1, 0, 0, 2, 64],
            vec![0, info(kind::FUNC_PROTO, 1, false), 0, 0, 1],
            vec![name("bpf_cast_to_kern_ctx"), info(kind::FUNC, 0, false), 4],
        ]
        .concat();
        let (types_length, strings_length) = (types.len() as u32 * 4, strings.len() as u32);
        let header = [0x1_eb9f, 24, 0, types_length, types_length, strings_length];
        let words = header.into_iter().chain(types).flat_map(u32::to_ne_bytes);
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn fields_are_found_in_structures_without_a_name() {
        let bytes = types();
        let types = Types::read(&bytes).unwrap();
        assert_eq!(types.field("sk_buff", "ip_summed"), Some(Field { at: 69, bits: 2 }));
        assert_eq!(types.field("sk_buff", "other"), Some(Field { at: 0, bits: 0 }));
        assert_eq!(types.field("sk_buff", "ip_sum"), None);
        assert_eq!(types.field("sk_buf", "ip_summed"), None);
        assert_eq!(types.function("bpf_cast_to_kern_ctx"), Some(5));
        assert_eq!(types.function("sk_buff"), None);
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let bytes = types();
        for length in 0..bytes.len() {
            let cut = Types::read(&bytes[..length]);
            assert!(cut.is_none(), "{length} bytes of {}", bytes.len());
        }
    }

    #[test]
    fn this_kernel_can_be_asked() {
        let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let types = Types::read(&bytes).unwrap();
        assert!(types.function("bpf_cast_to_kern_ctx").is_some());
        assert_eq!(types.field("sk_buff", "ip_summed").map(|field| field.bits), Some(2));
    }
}
