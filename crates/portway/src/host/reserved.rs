//! The list of `ip_local_reserved_ports`: ports that the kernel gives to no socket that asks for any port
//! (`Documentation/networking/ip-sysctl.rst`). Others may have reserved some; theirs stay.
//!
//! Deliberately absent: reading and writing it ([`super::sysctl`]).

use portway_core::address::PortRange;

/// The list with `range` in it, as the kernel writes it (`8080,9148,40000-65535`); `None` when all of it is there
/// already. What is not a port or a range is the kernel's business and stays out.
pub fn with(list: &str, range: PortRange) -> Option<String> {
    let mut ranges: Vec<PortRange> = list.split(',').filter_map(parse).collect();
    if ranges.iter().any(|known| known.first() <= range.first() && range.last() <= known.last()) {
        return None;
    }
    ranges.push(range);
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            // Those that touch are one, as the kernel lists them.
            Some(last) if u32::from(range.first()) <= u32::from(last.last()) + 1 => {
                let end = last.last().max(range.last());
                *last = PortRange::new(last.first(), end).unwrap_or(*last);
            }
            _ => merged.push(range),
        }
    }
    Some(merged.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

fn parse(text: &str) -> Option<PortRange> {
    let text = text.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(first.parse().ok()?, last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_ports_stay() {
        let range = PortRange::new(40_000, 65_535).unwrap();
        for (before, after) in [
            ("", Some("40000-65535")),
            ("8080", Some("8080,40000-65535")),
            ("8080,9148-9150,50000", Some("8080,9148-9150,40000-65535")),
            ("39990-39999", Some("39990-65535")),
            ("39000-41000,65535", Some("39000-65535")),
            ("40000-65535", None),
            ("1-65535", None),
            ("40000-49999", Some("40000-65535")),
        ] {
            assert_eq!(with(before, range).as_deref(), after, "{before}");
        }
        // Two that touch hold it together, and are written as one: no harm.
        assert_eq!(with("40000-50000,50001-65535", range).as_deref(), Some("40000-65535"));
    }
}
