//! The plan as text: what `nft -s list table inet portway` of nftables 1.0.6 prints for it, with one element
//! per line and in the order of their keys (nft prints the kernel's order).

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::element::{
    Data, DataShape, Datatype, Direction, Entry, HelperObject, Key, MOST_CLIENTS, Set, Value,
};
use super::ids::RuleId;
use super::pool::OwnChain;
use super::statement::{Field, Hashed, Load, Statement, key_of, nat_of};
use super::table::{Chain, TABLE};
use super::{Elements, MARK, MARK_MASK, Plan};
use crate::address::Family;

/// The table's comment. It names the layout of chains and rules by a hash of their text, so that a daemon
/// takes over a table of its own layout only.
pub fn layout_comment() -> String {
    let mut layout = String::new();
    let samples = (1..).filter_map(RuleId::new).zip(OwnChain::samples());
    let chains = samples.map(|(id, own)| (Chain::Pool(id), own)).collect();
    let plan = Plan { chains, helpers: HelperObject::ALL.into(), ..Plan::empty(true) };
    // Writing to a String cannot fail.
    let _ = write_body(&mut layout, &plan);
    // FNV-1a, 32 bits (RFC 9923).
    let hash =
        layout.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("Portway, layout {hash:08x}")
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{\n\tcomment \"{}\"", layout_comment())?;
        write_body(f, self)?;
        f.write_str("}\n")
    }
}

fn write_body(f: &mut impl fmt::Write, plan: &Plan) -> fmt::Result {
    for object in &plan.helpers {
        let HelperObject { helper, protocol } = object;
        writeln!(f, "\tct helper {} {{\n\t\ttype \"{helper}\" protocol {protocol}", object.name())?;
        writeln!(f, "\t\tl3proto inet\n\t}}\n")?;
    }
    let none = Elements::new();
    for set in Set::ALL {
        write_set(f, set, plan.elements.get(&set).unwrap_or(&none))?;
        f.write_char('\n')?;
    }
    let fixed = Chain::ALL.into_iter().filter(|chain| *chain != Chain::Guard || plan.guard);
    let attach = plan.helpers.iter().map(|object| Chain::Attach(*object));
    let own = plan.chains.iter().map(|(chain, own)| (*chain, chain.own_rules(own)));
    let fixed = fixed.chain(attach).map(|chain| (chain, chain.rules()));
    for (nth, (chain, rules)) in fixed.chain(own).enumerate() {
        if nth > 0 {
            f.write_char('\n')?;
        }
        writeln!(f, "\tchain {} {{", chain.name())?;
        if let Some(hook) = chain.hook() {
            let (kind, name, priority) = (hook.kind, hook.name, hook.priority_text);
            writeln!(f, "\t\ttype {kind} hook {name} priority {priority}; policy accept;")?;
        }
        for rule in rules {
            let rule: Vec<String> = rule.iter().map(Statement::to_string).collect();
            writeln!(f, "\t\t{}", rule.join(" "))?;
        }
        writeln!(f, "\t}}")?;
    }
    Ok(())
}

fn write_set(f: &mut impl fmt::Write, set: Set, elements: &Elements) -> fmt::Result {
    let shape = set.shape();
    let keyword = if shape.data == DataShape::None { "set" } else { "map" };
    // A set with a slot in its key has no type that nft could read: it names expressions of that type.
    let typeof_ = shape.key.contains(&Datatype::Slot);
    let types = |fields: &[Datatype]| match typeof_ {
        true => concat(&fields.iter().map(|field| expression_of(*field)).collect::<Vec<_>>()),
        false => concat(fields),
    };
    let word = if typeof_ { "typeof" } else { "type" };
    write!(f, "\t{keyword} {} {{\n\t\t{word} {}", shape.name, types(shape.key))?;
    match shape.data {
        DataShape::None => {}
        DataShape::Fields(fields) => write!(f, " : {}", types(fields))?,
        DataShape::Verdict => f.write_str(" : verdict")?,
    }
    f.write_char('\n')?;
    if shape.interval {
        f.write_str("\t\tflags interval\n")?;
    }
    if shape.dynamic {
        writeln!(f, "\t\tsize {MOST_CLIENTS}\n\t\tflags dynamic,timeout")?;
    }
    if shape.counter {
        f.write_str("\t\tcounter\n")?;
    }
    for (nth, (key, entry)) in elements.iter().enumerate() {
        f.write_str(if nth == 0 { "\t\telements = { " } else { ",\n\t\t\t     " })?;
        write_element(f, key, entry, shape.counter)?;
    }
    f.write_str(if elements.is_empty() { "\t}\n" } else { " }\n\t}\n" })
}

fn write_element(f: &mut impl fmt::Write, key: &Key, entry: &Entry, counter: bool) -> fmt::Result {
    f.write_str(&concat(key))?;
    if counter {
        f.write_str(" counter")?;
    }
    if let Some(comment) = &entry.comment {
        write!(f, " comment \"{comment}\"")?;
    }
    match &entry.data {
        Data::None => Ok(()),
        Data::Fields(fields) => write!(f, " : {}", concat(fields)),
        Data::Jump(chain) => write!(f, " : jump {}", chain.name()),
    }
}

/// An expression of a type.
const fn expression_of(field: Datatype) -> &'static str {
    match field {
        Datatype::Ipv4 => "ip daddr",
        Datatype::Ipv6 => "ip6 daddr",
        Datatype::Protocol => "meta l4proto",
        Datatype::Service => "th dport",
        Datatype::Interface => "iifname",
        Datatype::Family => "meta nfproto",
        Datatype::Mark => "ct mark",
        Datatype::Direction => "ct direction",
        Datatype::Slot => "numgen inc mod 2",
    }
}

/// Fields as nft joins them.
fn concat<T: Display>(fields: &[T]) -> String {
    let fields: Vec<String> = fields.iter().map(T::to_string).collect();
    fields.join(" . ")
}

impl Display for Datatype {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Service => "inet_service",
            Self::Interface => "ifname",
            Self::Family => "nf_proto",
            Self::Mark => "mark",
            Self::Direction => "ct_dir",
            // Never written: sets with slots are declared by expressions.
            Self::Slot => "integer",
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Service(ports) => write!(f, "{ports}"),
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Family(Family::V4) => f.write_str("ipv4"),
            Self::Family(Family::V6) => f.write_str("ipv6"),
            Self::Mark(mark) => write!(f, "0x{mark:08x}"),
            Self::Direction(Direction::Original) => f.write_str("original"),
            Self::Direction(Direction::Reply) => f.write_str("reply"),
            Self::Slot(slot) => write!(f, "{slot}"),
        }
    }
}

impl Display for Load {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(family) => write!(f, "{} daddr", header(*family)),
            Self::Source(family) => write!(f, "{} saddr", header(*family)),
            Self::Protocol => f.write_str("meta l4proto"),
            Self::Port => f.write_str("th dport"),
            Self::Interface => f.write_str("iifname"),
            Self::Family => f.write_str("meta nfproto"),
            Self::Mark => f.write_str("ct mark"),
            Self::Direction => f.write_str("ct direction"),
            Self::Turn(slots) => write!(f, "numgen inc mod {slots}"),
            Self::Hash(Hashed { family, port, slots, seed }) => {
                write!(f, "jhash {} saddr", header(*family))?;
                if let Some(port) = port {
                    write!(f, " . {port} sport")?;
                }
                write!(f, " mod {slots}")?;
                seed.map_or(Ok(()), |seed| write!(f, " seed 0x{seed:x}"))
            }
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(set) => write!(f, "{} @{}", concat(key_of(*set)), set.shape().name),
            Self::SetMark(set) => write!(f, "ct mark set {} map @{}", concat(key_of(*set)), set.shape().name),
            Self::Attach(object) => write!(f, "ct helper set \"{}\"", object.name()),
            Self::Nat(set) => write_nat(f, *set, &concat(key_of(*set))),
            Self::Choose { slots, by, protocol } => {
                // nft leaves out what follows from a port that is named by its protocol.
                let implied = matches!(by, Load::Hash(Hashed { port: Some(_), .. }));
                if let Some(protocol) = protocol.filter(|_| !implied) {
                    write!(f, "meta l4proto {protocol} ")?;
                }
                write_nat(f, *slots, &concat(&[Load::Mark, *by]))
            }
            Self::Remember(addressing, timeout) => {
                let map = addressing.persist();
                let key = concat(key_of(map));
                let mut data = Load::Destination(addressing.family).to_string();
                if addressing.port {
                    data = format!("{data} . {}", Load::Port);
                }
                let (map, time) = (map.shape().name, Time(*timeout));
                write!(f, "update @{map} {{ {key} timeout {time} : {data} }}")
            }
            Self::Dispatch(set) => write!(f, "{} vmap @{}", concat(key_of(*set)), set.shape().name),
            Self::TcpOrUdp => f.write_str("meta l4proto { tcp, udp }"),
            Self::ClearMark => f.write_str("ct mark set 0x00000000"),
            Self::RejectTcp => f.write_str("meta l4proto tcp reject with tcp reset"),
            Self::Reject => f.write_str("reject"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::MarkIsOurs(ours) => {
                let operator = if *ours { "" } else { "!= " };
                write!(f, "ct mark {operator}0x{MARK:08x}/{}", MARK_MASK.leading_ones())
            }
            Self::TcpWithoutHandshake => f.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::NotToThisHost => f.write_str("fib daddr type != local"),
            Self::ToLoopback => f.write_str("oif \"lo\""),
            Self::FromLoopback(true) => f.write_str("iif \"lo\""),
            Self::FromLoopback(false) => f.write_str("iif != \"lo\""),
            Self::LoopbackAddress4(Field::Source) => f.write_str("ip saddr 127.0.0.0/8"),
            Self::LoopbackAddress4(Field::Destination) => f.write_str("ip daddr 127.0.0.0/8"),
            Self::ToLoopbackAddress6 => f.write_str("ip6 daddr ::1"),
            Self::Goto(chain) => write!(f, "goto {}", chain.name()),
            Self::Jump(chain) => write!(f, "jump {}", chain.name()),
            Self::Return => f.write_str("return"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

fn write_nat(f: &mut Formatter<'_>, map: Set, key: &str) -> fmt::Result {
    let (verb, family) = match nat_of(map) {
        Some((family, Field::Source)) => ("snat", family),
        Some((family, Field::Destination)) => ("dnat", family),
        None => return Ok(()),
    };
    write!(f, "{verb} {} to {key} map @{}", header(family), map.shape().name)
}

/// Whole seconds as nft prints them.
struct Time(Duration);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [
            ("d", seconds / 86_400),
            ("h", seconds / 3600 % 24),
            ("m", seconds / 60 % 60),
            ("s", seconds % 60),
        ];
        units.iter().filter(|(_, n)| *n > 0).try_for_each(|(unit, n)| write!(f, "{n}{unit}"))
    }
}

fn header(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
