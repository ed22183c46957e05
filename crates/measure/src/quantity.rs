//! What can be told of a run as one figure: how it is called, what it is counted in, which way is better, how it follows
//! from what was measured.
//!
//! A figure that is not there, or that would be no number (a division by nothing), is absent: `None` rather than NaN, here
//! once for all that comes after.

use crate::record::{Cpu, Latency, Mode, Run};
use crate::subject::{Unit, subject};

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less of it.
    Lower,
    /// More of it.
    Higher,
    /// It says something, but not good or bad.
    Neither,
}

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// What succeeded in a second.
    Rate,
    /// Payload that arrived, in 10^9 bit/s.
    Throughput,
    /// The time that half, 90, 99 or 99.9 of a hundred took at most, in milliseconds.
    Percentile(Percentile),
    /// CPU time of all that the run set in motion, for one of the load's units.
    Cpu(Part),
    /// The same of the whole machine, with what others did meanwhile.
    MachineCpu(Busy),
    /// CPU time of the forwarder's processes for one of the load's units.
    ForwarderCpu,
    /// Memory of the forwarder's processes, in MiB.
    ForwarderMemory,
    /// What the memory of the forwarder's processes grew by, for one of the load's units, in bytes.
    ForwarderMemoryEach,
    /// What the kernel's memory grew by, for one of the load's units, in bytes.
    KernelMemoryEach,
    /// Packets at the gateway for one of the load's units.
    Packets,
    /// TCP segments that were sent again.
    Retransmits,
    /// Entries that the run added to the gateway's conntrack table.
    Conntrack,
    /// Source ports of the gateway that the run took.
    SourcePorts,
    /// SYNs from nobody that went out in a second beside the load.
    Flood,
    /// What failed, in percent of what was tried.
    Failures,
}

/// A point of the distribution of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Percentile {
    /// The median.
    P50,
    /// 90 of 100.
    P90,
    /// 99 of 100.
    P99,
    /// 999 of 1000.
    P999,
}

/// Whose CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Of programs and of the kernel.
    Total,
    /// Of programs.
    User,
    /// Of the kernel, softirq included.
    Kernel,
}

/// Which part of the whole machine's CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Busy {
    /// All that was not idle.
    All,
    /// Of programs.
    Programs,
    /// Of the kernel, softirq and interrupts included.
    Kernel,
    /// Of the kernel in softirq and interrupts.
    Interrupts,
}

impl Quantity {
    /// The figure of a run, if it has one.
    pub fn of(self, run: &Run) -> Option<f64> {
        let figures = &run.figures;
        let unit = subject(&run.load).unit;
        let units = match unit {
            Unit::Gigabyte => figures.bytes as f64 / 1e9,
            _ => figures.done as f64,
        };
        let each = |seconds: f64| seconds * unit.per_second() / units;
        let figure = match self {
            Self::Rate => figures.done as f64 / figures.seconds,
            Self::Throughput => figures.bytes as f64 * 8.0 / 1e9 / figures.seconds,
            Self::Percentile(percentile) => percentile.of(figures.latency.as_ref()?) / 1e3,
            Self::Cpu(part) => each(part.of(figures.cpu?)),
            Self::MachineCpu(Busy::All) => each(figures.machine_cpu?),
            Self::MachineCpu(part) => {
                let parts = figures.machine_parts?;
                each(match part {
                    Busy::All => parts.busy(),
                    Busy::Programs => parts.user,
                    Busy::Kernel => parts.kernel + parts.interrupts,
                    Busy::Interrupts => parts.interrupts,
                })
            }
            Self::ForwarderCpu => each(figures.forwarder_cpu?.total()),
            Self::ForwarderMemory => figures.forwarder_memory? as f64 / f64::from(1 << 20),
            Self::ForwarderMemoryEach => {
                (figures.forwarder_memory? as f64 - figures.forwarder_memory_before? as f64) / units
            }
            Self::KernelMemoryEach => figures.kernel_memory? as f64 / units,
            Self::Packets => figures.packets? as f64 / units,
            Self::Retransmits => figures.retransmits? as f64,
            Self::Conntrack => figures.conntrack? as f64,
            Self::SourcePorts => figures.source_ports? as f64,
            Self::Flood => figures.flood?,
            Self::Failures => {
                let failed =
                    figures.errors.values().fold(0_u64, |all, each| all.saturating_add(*each)) as f64;
                100.0 * failed / (failed + figures.done as f64)
            }
        };
        figure.is_finite().then_some(figure)
    }

    /// What it is called, for a load with that unit.
    pub fn title(self, unit: Unit) -> String {
        let each = unit.word();
        match self {
            Self::Rate if unit == Unit::Held => "connections/s while opening".to_owned(),
            Self::Rate => format!("{each}s/s"),
            Self::Throughput => "throughput".to_owned(),
            Self::Percentile(percentile) => percentile.name().to_owned(),
            Self::Cpu(Part::Total) => format!("CPU per {each}"),
            Self::Cpu(Part::User) => format!("CPU of programs per {each}"),
            Self::Cpu(Part::Kernel) => format!("CPU of the kernel per {each}"),
            Self::MachineCpu(part) => {
                let of = match part {
                    Busy::All => "the whole machine",
                    Busy::Programs => "the whole machine's programs",
                    Busy::Kernel => "the whole machine's kernel",
                    Busy::Interrupts => "the whole machine's softirq and interrupts",
                };
                format!("CPU of {of} per {each}")
            }
            Self::ForwarderCpu => format!("CPU of the forwarder per {each}"),
            Self::ForwarderMemory => "memory of the forwarder".to_owned(),
            Self::ForwarderMemoryEach => format!("memory of the forwarder per {each}"),
            Self::KernelMemoryEach => format!("memory of the kernel per {each}"),
            Self::Packets => format!("packets per {each}"),
            Self::Retransmits => "segments sent again".to_owned(),
            Self::Conntrack => "conntrack entries added".to_owned(),
            Self::SourcePorts => "source ports taken".to_owned(),
            Self::Flood => "SYNs of nobody's/s beside it".to_owned(),
            Self::Failures => "failed".to_owned(),
        }
    }

    /// What it is counted in; nothing for plain numbers.
    pub fn counted_in(self, unit: Unit, mode: Mode) -> &'static str {
        match self {
            Self::Rate
            | Self::Packets
            | Self::Retransmits
            | Self::Conntrack
            | Self::SourcePorts
            | Self::Flood => "",
            Self::Throughput => "Gbit/s",
            Self::Percentile(_) => "ms",
            Self::Cpu(_) | Self::MachineCpu(_) | Self::ForwarderCpu => unit.cost(mode),
            Self::ForwarderMemory => "MiB",
            Self::ForwarderMemoryEach | Self::KernelMemoryEach => "bytes",
            Self::Failures => "%",
        }
    }

    /// Which way is better.
    pub fn better(self) -> Better {
        match self {
            Self::Rate | Self::Throughput => Better::Higher,
            Self::Packets | Self::Conntrack | Self::SourcePorts | Self::Flood => Better::Neither,
            // What others did meanwhile is in it: that alone makes nothing worse.
            Self::MachineCpu(_) => Better::Neither,
            _ => Better::Lower,
        }
    }
}

impl Percentile {
    /// All of them, growing.
    pub const ALL: [Self; 4] = [Self::P50, Self::P90, Self::P99, Self::P999];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }

    /// Of how many of all it speaks.
    pub fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }

    /// In microseconds.
    pub fn of(self, latency: &Latency) -> f64 {
        match self {
            Self::P50 => latency.p50,
            Self::P90 => latency.p90,
            Self::P99 => latency.p99,
            Self::P999 => latency.p999,
        }
    }
}

impl Part {
    fn of(self, cpu: Cpu) -> f64 {
        match self {
            Self::Total => cpu.total(),
            Self::User => cpu.user,
            Self::Kernel => cpu.kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Figures, MachineParts};

    fn run(load: &str, figures: Figures) -> Run {
        Run { lane: "a".into(), load: load.into(), round: 0, at: None, figures, moments: Vec::new() }
    }

    #[test]
    fn cost_is_by_connection_or_by_gigabyte() {
        let figures = Figures {
            seconds: 2.0,
            done: 1000,
            bytes: 500_000_000,
            cpu: Some(Cpu { user: 0.1, kernel: 0.3 }),
            ..Figures::default()
        };
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        close(Quantity::Cpu(Part::Total).of(&run("connections", figures.clone())), 400.0);
        close(Quantity::Cpu(Part::User).of(&run("connections", figures.clone())), 100.0);
        close(Quantity::Cpu(Part::Total).of(&run("bulk-up", figures.clone())), 800.0);
        close(Quantity::Throughput.of(&run("bulk-up", figures)), 2.0);
    }

    #[test]
    fn the_machines_parts_add_up_and_older_records_have_none() {
        let parts = MachineParts { user: 0.1, kernel: 0.25, interrupts: 0.15, stolen: 7.0 };
        let figures = Figures {
            done: 1000,
            machine_cpu: Some(parts.busy()),
            machine_parts: Some(parts),
            ..Figures::default()
        };
        let each = |figures: &Figures, part| {
            let figure = Quantity::MachineCpu(part).of(&run("connections", figures.clone()));
            figure.map(f64::round)
        };
        let all = [Busy::All, Busy::Programs, Busy::Kernel, Busy::Interrupts];
        assert_eq!(all.map(|part| each(&figures, part)), [500.0, 100.0, 400.0, 150.0].map(Some));
        let older = Figures { machine_parts: None, ..figures };
        assert_eq!(all.map(|part| each(&older, part)), [Some(500.0), None, None, None]);
    }

    #[test]
    fn what_is_not_there_or_no_number_is_absent() {
        let nothing = run("connections", Figures { cpu: Some(Cpu::default()), ..Figures::default() });
        for quantity in [Quantity::Rate, Quantity::Cpu(Part::Total), Quantity::Failures, Quantity::Conntrack]
        {
            assert_eq!(quantity.of(&nothing), None, "{quantity:?}");
        }
    }
}
