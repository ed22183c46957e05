//! Keys and data as the kernel's registers hold them: fields one behind the other, each padded to 32 bits;
//! addresses and ports in network order, marks in the host's.

use portway_core::address::{Family, InterfaceName, PortRange, Protocol};
use portway_core::plan::nftables::element::Datatype;
use portway_core::plan::nftables::{Direction, Value};
use portway_netlink::wire;

/// The number of a family in netfilter (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
pub const fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The registers' content for a key or data; `end` takes the last port of a range.
pub fn bytes(values: &[Value], end: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    for value in values {
        match value {
            Value::Ipv4(address) => bytes.extend(address.octets()),
            Value::Ipv6(address) => bytes.extend(address.octets()),
            Value::Protocol(protocol) => bytes.push(protocol.number()),
            Value::Service(ports) => {
                let port = if end { ports.last() } else { ports.first() };
                bytes.extend(port.to_be_bytes());
            }
            Value::Interface(name) => {
                bytes.extend(name.as_str().bytes().chain([0; 16]).take(16));
            }
            Value::Family(family) => bytes.push(nfproto(*family)),
            Value::Mark(number) | Value::Slot(number) => bytes.extend(number.to_ne_bytes()),
            Value::Direction(Direction::Original) => bytes.push(0),
            Value::Direction(Direction::Reply) => bytes.push(1),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Reads what [`bytes`] wrote. `last` is the end of the range, for keys of interval sets.
pub fn values(fields: &[Datatype], first: &[u8], last: Option<&[u8]>) -> Option<Vec<Value>> {
    let mut at = 0;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let size = usize::try_from(length(*field)).ok()?;
        let bytes = first.get(at..at + size)?;
        values.push(match field {
            Datatype::Ipv4 => Value::Ipv4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Datatype::Ipv6 => Value::Ipv6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            Datatype::Protocol => Value::Protocol(match bytes {
                [6] => Protocol::Tcp,
                [17] => Protocol::Udp,
                _ => return None,
            }),
            Datatype::Service => {
                let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
                let end = last.map_or(Some(bytes), |last| last.get(at..at + size))?;
                Value::Service(PortRange::new(port(bytes)?, port(end)?)?)
            }
            Datatype::Interface => Value::Interface(InterfaceName::new(wire::text(bytes)?)?),
            Datatype::Family => Value::Family(match bytes {
                [byte] if *byte == nfproto(Family::V4) => Family::V4,
                [byte] if *byte == nfproto(Family::V6) => Family::V6,
                _ => return None,
            }),
            Datatype::Mark => Value::Mark(u32::from_ne_bytes(bytes.try_into().ok()?)),
            Datatype::Slot => Value::Slot(u32::from_ne_bytes(bytes.try_into().ok()?)),
            Datatype::Direction => Value::Direction(match bytes {
                [0] => Direction::Original,
                [1] => Direction::Reply,
                _ => return None,
            }),
        });
        at += size.next_multiple_of(4);
    }
    Some(values)
}

/// How many 32-bit registers a field takes.
pub const fn words(field: Datatype) -> u32 {
    length(field).div_ceil(4)
}

/// How many bytes a field has.
pub const fn length(field: Datatype) -> u32 {
    match field {
        Datatype::Protocol | Datatype::Family | Datatype::Direction => 1,
        Datatype::Service => 2,
        Datatype::Ipv4 | Datatype::Mark | Datatype::Slot => 4,
        Datatype::Ipv6 | Datatype::Interface => 16,
    }
}

/// How many bytes a key or data has; a field on its own is not padded.
pub fn byte_length(fields: &[Datatype]) -> u32 {
    match fields {
        [one] => length(*one),
        many => many.iter().map(|field| 4 * words(*field)).sum(),
    }
}

/// nft's numbers of its types (nftables `include/datatype.h`), six bits each in a concatenation. The kernel
/// only stores them.
pub fn type_number(fields: &[Datatype]) -> u32 {
    let number = |field: &Datatype| match field {
        Datatype::Family => 2,
        // TYPE_INTEGER
        Datatype::Slot => 4,
        Datatype::Ipv4 => 7,
        Datatype::Ipv6 => 8,
        Datatype::Protocol => 12,
        Datatype::Service => 13,
        Datatype::Mark => 19,
        Datatype::Direction => 27,
        Datatype::Interface => 41,
    };
    fields.iter().fold(0, |all, field| all << 6 | number(field))
}

#[cfg(test)]
mod tests {
    use portway_core::plan::nftables::Set;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_bytes_make_values_that_write_the_same_or_none(
            first in prop::collection::vec(any::<u8>(), 0..40),
            last in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for set in Set::ALL {
                if let Some(values) = values(set.shape().key, &first, Some(&last)) {
                    prop_assert_eq!(super::values(set.shape().key, &bytes(&values, false), Some(&bytes(&values, true))), Some(values));
                }
            }
        }
    }
}
