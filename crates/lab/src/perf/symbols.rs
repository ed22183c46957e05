//! The names of the kernel's functions by their addresses (/proc/kallsyms), those of modules and BPF programs among them.

use std::fs;

/// The functions that the kernel has now.
#[derive(Debug, Default)]
pub struct Symbols {
    /// By where they begin.
    functions: Vec<(u64, Box<str>)>,
}

const PATH: &str = "/proc/kallsyms";

impl Symbols {
    /// Those of this machine.
    ///
    /// # Errors
    /// They cannot be read, or the kernel hides where they are.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(PATH).map_err(|error| format!("read {PATH}: {error}"))?;
        let symbols = Self::parse(&text);
        match symbols.functions.last() {
            Some((last, _)) if *last > 0 => Ok(symbols),
            _ => {
                Err(format!("the kernel does not say where its functions are ({PATH}, kernel.kptr_restrict)"))
            }
        }
    }

    /// From the text of that file: address, type, name, and of a module's its name.
    pub fn parse(text: &str) -> Self {
        let function = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
            is_code.then_some((address, words.next()?.into()))
        };
        let mut functions: Vec<(u64, Box<str>)> = text.lines().filter_map(function).collect();
        // Of several names of one place the first stays.
        functions.sort_by_key(|(address, _)| *address);
        functions.dedup_by_key(|(address, _)| *address);
        Self { functions }
    }

    /// The function that an address is in, without what the compiler adds to the names of parts and copies (`.isra.0`, `.cold`).
    pub fn function(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(begin, _)| *begin <= address);
        let (_, name) = self.functions.get(after.checked_sub(1)?)?;
        name.split('.').next().filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let symbols = Symbols::parse(
            "ffffffff81000010 T ip_rcv\nffffffff81000000 T _text\nffffffff81000000 T startup\nffffffff81000018 D data\n\
             ffffffff81000020 t ip_rcv_finish.isra.0\nffffffffc0000000 t nf_hook\t[nf_tables]\nno line\n\n\
             ffffffffc0001000 t bpf_prog_6deef7357e7b4530_forward\t[bpf]",
        );
        let name = |address| symbols.function(address);
        assert_eq!(name(0xffff_ffff_8100_0000), Some("_text"));
        assert_eq!(name(0xffff_ffff_8100_001f), Some("ip_rcv"));
        assert_eq!(name(0xffff_ffff_8100_0020), Some("ip_rcv_finish"));
        assert_eq!(name(0xffff_ffff_c000_0004), Some("nf_hook"));
        assert_eq!(name(0xffff_ffff_c000_1004), Some("bpf_prog_6deef7357e7b4530_forward"));
        assert_eq!((name(0x10), Symbols::default().function(7)), (None, None));
    }
}
