//! The plan as people and tests read it: one line per fact, the same plan giving the same bytes.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::{Plan, PoolPlan, Settings, Socket, Source};
use crate::address::PortRange;
use crate::members::{Meets, Member};
use crate::ruleset::{Listener, Passive};

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = PortRange::single(self.port).ok_or(fmt::Error)?;
        Listener { protocol: self.protocol, scope: self.scope.clone(), ports }.fmt(f)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_host = |value: Option<NonZeroU32>| value.map_or("by host".to_owned(), |v| v.to_string());
        write!(f, "workers {}", or_host(self.workers))?;
        write!(f, ", max-connections {}", or_host(self.max_connections))?;
        write!(f, ", max-flows {}", or_host(self.max_flows))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("masquerade"),
            Self::Pool(pool) => {
                let pool: Vec<_> = pool.iter().map(IpAddr::to_string).collect();
                write!(f, "snat {}", pool.join(", "))
            }
        }
    }
}

impl fmt::Display for PoolPlan {
    /// The settings in one line, then what new flows meet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  balance {}", self.balance)?;
        if self.balance.hashes() {
            write!(f, " by {}, made for {}", self.hash, self.places)?;
        }
        if let Some(persist) = self.persist {
            write!(f, ", persist {persist:?}")?;
        }
        write!(f, ", retries {}", self.retries)?;
        if let Some(Passive { max_fails, fail_timeout, max_ejected }) = self.passive {
            write!(f, ", passive {max_fails} in {fail_timeout:?}, at most {max_ejected} % ejected")?;
        }
        writeln!(f)?;
        let members = match &self.meets {
            Meets::Refuse => return writeln!(f, "  -> refuse"),
            Meets::Drop => return writeln!(f, "  -> drop"),
            Meets::Members(members) => members,
        };
        for Member { target, weight, max_connections, .. } in members {
            write!(f, "  -> {target} weight {weight}")?;
            if let Some(max) = max_connections {
                write!(f, ", max-connections {max}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.settings)?;
        for (name, rule) in &self.rules {
            let t = &rule.timeouts;
            writeln!(f, "rule {name}")?;
            writeln!(f, "  source {}", rule.source)?;
            writeln!(
                f,
                "  timeouts connect {:?}, idle {:?}, half-closed {:?}, udp-idle {:?}",
                t.connect, t.idle, t.half_closed, t.udp_idle
            )?;
            if let Some(max) = rule.max_connections {
                writeln!(f, "  max-connections {max}")?;
            }
            write!(f, "{}", rule.pool)?;
            for socket in rule.sockets.keys() {
                writeln!(f, "  {socket}")?;
            }
        }
        Ok(())
    }
}
