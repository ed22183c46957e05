//! The plan as people and tests read it: one line per fact, the same plan giving the same bytes.

use std::fmt;
use std::net::IpAddr;

use super::{Choose, Empty, Plan, RulePlan, Source};
use crate::config::value::format_duration;
use crate::ruleset::EbpfSettings;

impl fmt::Display for EbpfSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attach, interfaces, max_flows, source_ports, timeouts } = self;
        write!(f, "attach {attach}, interfaces ")?;
        match interfaces.as_slice() {
            [] => f.write_str("all")?,
            some => f.write_str(&some.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "))?,
        }
        let clocks = [
            ("opening", timeouts.opening),
            ("established", timeouts.established),
            ("closing", timeouts.closing),
            ("time-wait", timeouts.time_wait),
            ("udp", timeouts.udp),
            ("udp-stream", timeouts.udp_stream),
        ]
        .map(|(name, time)| format!("{name} {}", format_duration(time)));
        write!(f, ", max-flows {max_flows}, source-ports {source_ports}, timeouts {}", clocks.join(" "))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("masquerade"),
            Self::Pool(pool) => {
                let pool: Vec<_> = pool.iter().map(IpAddr::to_string).collect();
                write!(f, "snat {}", pool.join(", "))
            }
        }
    }
}

impl fmt::Display for Choose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InTurn => "in turn",
            Self::Source => "by hash of the address",
            Self::SourcePort => "by hash of address and port",
            Self::First => "the first",
        })
    }
}

impl fmt::Display for RulePlan {
    /// The settings, then what new flows meet, then where they come in. Of slots only how many each member has is said,
    /// and a number that tells two orders apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  source {}", self.source)?;
        write!(f, "  choose {} of {} slots", self.choose, self.slots.len())?;
        if self.slots.len() > 1 {
            let bytes: Vec<u8> = self.slots.iter().flat_map(|slot| slot.to_be_bytes()).collect();
            write!(f, " (order {:08x})", crate::balance::jhash(&bytes, 0))?;
        }
        if let Some(persist) = self.persist {
            write!(f, ", persist {}", format_duration(persist))?;
        }
        if self.toa {
            f.write_str(", client-address toa")?;
        }
        if let Some(rate) = self.new_flow_rate {
            write!(f, ", new-flow-rate {rate}")?;
        }
        if let Some(above) = self.cookies_above {
            write!(f, ", syn-cookies {above}")?;
        }
        writeln!(f)?;
        for (nth, target) in self.members.iter().enumerate() {
            let share = self.slots.iter().filter(|slot| usize::from(**slot) == nth).count();
            writeln!(f, "  -> {target} slots {share}")?;
        }
        for target in self.targets.iter().filter(|target| !self.members.contains(target)) {
            writeln!(f, "  counted {target}")?;
        }
        let empty = match self.empty {
            Empty::Refuse => "refuse",
            Empty::Drop => "drop",
        };
        writeln!(f, "  {} {empty}", if self.members.is_empty() { "->" } else { "when empty" })?;
        let families: Vec<String> = self.families.iter().map(ToString::to_string).collect();
        writeln!(f, "  forwarding {}", families.join(", "))?;
        for listener in &self.listeners {
            writeln!(f, "  {listener}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.settings)?;
        for (name, rule) in &self.rules {
            write!(f, "rule {name}\n{rule}")?;
        }
        Ok(())
    }
}
