//! The loads, and what their figures mean: what one of their units is, and which figures say something about them.
//!
//! A load that is not known here, from a later version say, is shown by its name and its figures by the piece. Deliberately
//! absent: how a load is run ([`crate::load`]).

use crate::load::Load;
use crate::record::Mode;

/// What costs are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A connection, set up, used once and closed.
    Connection,
    /// A request and its answer on a connection that stays.
    Request,
    /// A datagram that was answered.
    Datagram,
    /// 10^9 bytes of payload that arrived.
    Gigabyte,
    /// A connection that is held and does nothing.
    Held,
    /// Whatever the load counts.
    Piece,
}

/// A load as reports present it.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject<'a> {
    /// Its name in records.
    pub name: &'a str,
    /// Its heading.
    pub title: &'a str,
    /// What it does, as a clause; nothing of a load that is not known here.
    pub what: &'static str,
    /// What its costs are divided by.
    pub unit: Unit,
}

/// The load of that name.
pub fn subject(name: &str) -> Subject<'_> {
    let Some(load) = Load::ALL.into_iter().find(|load| load.name() == name) else {
        return Subject { name, title: name, what: "", unit: Unit::Piece };
    };
    let (title, unit) = match load {
        Load::Connections => ("New connections", Unit::Connection),
        Load::Keepalive => ("Requests on connections that stay", Unit::Request),
        Load::BulkUp => ("Bulk towards the server", Unit::Gigabyte),
        Load::BulkDown => ("Bulk towards the client", Unit::Gigabyte),
        Load::UdpSmall => ("Small datagrams", Unit::Datagram),
        Load::UdpLarge => ("Large datagrams", Unit::Datagram),
        Load::Idle => ("Connections held idle", Unit::Held),
        Load::Churn => ("A backend that fails", Unit::Connection),
        Load::Flood => ("A SYN flood", Unit::Connection),
        Load::Article => ("The article's load", Unit::Connection),
    };
    Subject { name, title, what: load.title(), unit }
}

/// Where a load stands in a report; what is not known comes last.
pub fn place(name: &str) -> usize {
    Load::ALL.iter().position(|load| load.name() == name).unwrap_or(Load::ALL.len())
}

impl Unit {
    /// One of them, as a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Datagram => "datagram",
            Self::Gigabyte => "GB",
            Self::Held => "held connection",
            Self::Piece => "piece",
        }
    }

    /// How many of its cost's units a second of CPU time is: microseconds, but milliseconds for a gigabyte.
    pub fn per_second(self) -> f64 {
        if self == Self::Gigabyte { 1e3 } else { 1e6 }
    }

    /// What CPU time for one is counted in. An emulated machine's nanosecond is one instruction.
    pub fn cost(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Self::Gigabyte, Mode::Time) => "ms",
            (_, Mode::Time) => "µs",
            (Self::Gigabyte, Mode::Exact) => "million instructions",
            (_, Mode::Exact) => "thousand instructions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_a_later_version_keeps_its_name() {
        assert_eq!(subject("quic").title, "quic");
        assert_eq!(subject("quic").unit, Unit::Piece);
        assert!(place("quic") > place("article"));
    }

    #[test]
    fn a_microsecond_is_a_thousand_instructions() {
        assert_eq!(Unit::Connection.cost(Mode::Exact), "thousand instructions");
        assert_eq!(Unit::Gigabyte.cost(Mode::Time), "ms");
    }
}
