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

/// From when the times of a load count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// One was due, at a rate: a lane that stalls does not hide it (no coordinated omission).
    Due,
    /// One was sent, which was when another had ended: a lane that stalls is asked less meanwhile, and what would have waited
    /// is in no figure.
    Sent,
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
    /// From when its times count; nothing of a load that is not known here.
    pub since: Option<Since>,
}

/// The load of that name.
pub fn subject(name: &str) -> Subject<'_> {
    let Some(load) = Load::ALL.into_iter().find(|load| load.name() == name) else {
        return Subject { name, title: name, what: "", unit: Unit::Piece, since: None };
    };
    let (title, unit) = match load {
        Load::Connections => ("New connections", Unit::Connection),
        Load::Paced => ("New connections at a rate", Unit::Connection),
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
    let since = if load.rate().is_some() { Since::Due } else { Since::Sent };
    Subject { name, title, what: load.title(), unit, since: Some(since) }
}

/// Where a load stands in a report; what is not known comes last.
pub fn place(name: &str) -> usize {
    Load::ALL.iter().position(|load| load.name() == name).unwrap_or(Load::ALL.len())
}

impl Since {
    /// In words, after `times, `.
    pub fn words(self) -> &'static str {
        match self {
            Self::Due => "from when one was due",
            Self::Sent => "from when one was sent; a lane that stalls is asked less meanwhile",
        }
    }
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
        assert_eq!((subject("quic").unit, subject("quic").since), (Unit::Piece, None));
        assert!(place("quic") > place("article"));
    }

    #[test]
    fn times_count_from_when_one_was_due_where_there_is_a_rate() {
        let since = |wanted| {
            let all = Load::ALL.into_iter().map(Load::name);
            all.filter(|name| subject(name).since == Some(wanted)).collect::<Vec<_>>()
        };
        assert_eq!(since(Since::Due), ["paced", "churn", "flood"]);
        assert_eq!(since(Since::Sent).len(), Load::ALL.len() - 3);
    }

    #[test]
    fn a_microsecond_is_a_thousand_instructions() {
        assert_eq!(Unit::Connection.cost(Mode::Exact), "thousand instructions");
        assert_eq!(Unit::Gigabyte.cost(Mode::Time), "ms");
    }
}
