//! CPU time and memory, from /proc (proc(5)) and the clocks of processes.
//!
//! The total is the scheduler's count, in nanoseconds. The split between user and kernel is the one of /proc/PID/stat, which on
//! most kernels is sampled at every tick; so it is taken as a share of the total.

use std::fs;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::ground::MACHINE_PROC;
use crate::record::{Cpu, MachineParts};

/// A tick of /proc, in seconds (sysconf(_SC_CLK_TCK), 100 a second on every architecture that Linux has now).
const TICK: f64 = 0.01;

/// CPU time that was spent until now: the total in seconds, and how it divides, in any unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    total: f64,
    user: f64,
    kernel: f64,
}

impl Spent {
    /// By all processes of a process group, and those that they started and that have ended.
    pub fn by_group(group: u32) -> Self {
        members(group).map(|(pid, fields)| Self::by_process(pid, &fields)).sum()
    }

    fn by_process(pid: u32, fields: &[String]) -> Self {
        let ticks = |nth: usize| {
            fields.get(nth - 3).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default() * TICK
        };
        let clock = i32::try_from(pid).ok().and_then(|pid| clock_getcpuclockid(Pid::from_raw(pid)).ok());
        let own = clock.and_then(|clock| clock_gettime(clock).ok()).map(Duration::from);
        // utime, stime, cutime, cstime are the fields 14 to 17.
        let own = own.map_or(ticks(14) + ticks(15), |own| own.as_secs_f64());
        Self {
            total: own + ticks(16) + ticks(17),
            user: ticks(14) + ticks(16),
            kernel: ticks(15) + ticks(17),
        }
    }

    /// By all children of this process that have ended and were waited for, and theirs.
    pub fn by_ended_children() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Self::default() };
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let (user, kernel) = (seconds(usage.user_time()), seconds(usage.system_time()));
        Self { total: user + kernel, user, kernel }
    }

    /// By the kernel for packets and not in the context of a process.
    pub fn by_softirq() -> Self {
        let total = if interrupts_are_apart() {
            machine().interrupts
        } else {
            let files = softirq_threads().iter().filter_map(|path| fs::read_to_string(path).ok());
            files.filter_map(|file| file.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
        };
        Self { total, user: 0.0, kernel: total }
    }

    /// As a difference of two readings divides it.
    pub fn cpu(self) -> Cpu {
        let total = self.total.max(0.0);
        let known = self.user + self.kernel;
        let share = if known > 0.0 { (self.kernel / known).clamp(0.0, 1.0) } else { 1.0 };
        Cpu { user: total * (1.0 - share), kernel: total * share }
    }
}

impl Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            user: self.user + other.user,
            kernel: self.kernel + other.kernel,
        }
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            total: self.total - other.total,
            user: self.user - other.user,
            kernel: self.kernel - other.kernel,
        }
    }
}

impl Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Of several, together.
pub fn sum(all: impl IntoIterator<Item = Cpu>) -> Cpu {
    all.into_iter()
        .fold(Cpu::default(), |sum, cpu| Cpu { user: sum.user + cpu.user, kernel: sum.kernel + cpu.kernel })
}

/// CPU time of the whole machine since it started (/proc/stat: user nice system idle iowait irq softirq steal; guests' time is
/// in the first two).
pub fn machine() -> MachineParts {
    parts(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parts(stat: &str) -> MachineParts {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|tick| tick.parse().ok()).collect();
    let seconds = |nth: usize| ticks.get(nth).copied().unwrap_or_default() * TICK;
    MachineParts {
        user: seconds(0) + seconds(1),
        kernel: seconds(2),
        interrupts: seconds(5) + seconds(6),
        stolen: seconds(7),
    }
}

impl Sub for MachineParts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            user: self.user - other.user,
            kernel: self.kernel - other.kernel,
            interrupts: self.interrupts - other.interrupts,
            stolen: self.stolen - other.stolen,
        }
    }
}

/// Memory of a process group, in bytes: what is shared counts in parts (Pss_* of /proc/PID/smaps_rollup).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is in no file: heaps, stacks and the like.
    pub own: u64,
    /// Programs and other files. The part of a shared one becomes smaller when somebody else begins to use it.
    pub files: u64,
}

impl Memory {
    /// Of a process group, now.
    pub fn of_group(group: u32) -> Self {
        members(group).filter_map(|(pid, _)| Self::of_process(pid)).sum()
    }

    fn of_process(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Some(Self { own: bytes("Pss_Anon:") + bytes("Pss_Shmem:"), files: bytes("Pss_File:") })
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.own + self.files
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, each| Self { own: sum.own + each.own, files: sum.files + each.files })
    }
}

/// The processes of a group, each with the fields of its /proc/PID/stat from the third on (the second is the name in
/// parentheses and may hold spaces).
pub(super) fn members(group: u32) -> impl Iterator<Item = (u32, Vec<String>)> {
    let group = group.to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<String> = stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect();
        (fields.get(2) == Some(&group)).then_some((pid, fields))
    })
}

/// The figures of the kernel's softirq threads: /proc/PID/schedstat, the first is time on a CPU in nanoseconds
/// (Documentation/scheduler/sched-stats.rst). The threads are there as long as the machine runs.
fn softirq_threads() -> &'static [std::path::PathBuf] {
    static FOUND: OnceLock<Vec<std::path::PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let entries = fs::read_dir(MACHINE_PROC).into_iter().flatten().flatten();
        let named = |path: &Path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
        };
        entries
            .map(|entry| entry.path())
            .filter(|path| named(path))
            .map(|path| path.join("schedstat"))
            .collect()
    })
}

/// Whether the kernel counts the time of interrupts apart from that of the processes they interrupt. Only then is there a
/// figure for hard interrupts: sampling at ticks, which are interrupts themselves, never meets one.
fn interrupts_are_apart() -> bool {
    static APART: OnceLock<bool> = OnceLock::new();
    *APART.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        stat.lines().next().and_then(|line| line.split_whitespace().nth(6)).is_some_and(|irq| irq != "0")
    })
}

#[cfg(test)]
mod tests {
    use nix::time::ClockId;

    use super::*;

    #[test]
    fn a_split_is_a_share_of_the_total() {
        let before = Spent { total: 1.0, user: 0.5, kernel: 0.5 };
        let after = Spent { total: 3.0, user: 1.0, kernel: 2.0 };
        assert_eq!((after - before).cpu(), Cpu { user: 0.5, kernel: 1.5 });
    }

    #[test]
    fn what_is_stolen_or_waited_for_is_not_busy() {
        let stat = "cpu  100 20 300 4000 5000 6 70 800 90 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let parts = parts(stat);
        let rounded = |seconds: f64| (seconds * 100.0).round() as u64;
        assert_eq!(
            [parts.user, parts.kernel, parts.interrupts, parts.stolen].map(rounded),
            [120, 300, 76, 800]
        );
        assert_eq!(rounded(parts.busy()), 496);
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let group = nix::unistd::getpgrp().as_raw().unsigned_abs();
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
        let (before, start) = (Spent::by_group(group), clock());
        while clock() - start < Duration::from_millis(50) {}
        let spent = (Spent::by_group(group) - before).cpu().total();
        assert!(spent >= 0.05, "{spent} s of CPU were seen of 50 ms of work");
    }

    #[test]
    fn memory_is_seen_when_it_is_used() {
        let held = || Memory::of_process(std::process::id()).unwrap();
        let before = held();
        assert!(before.files > 100_000, "{before:?}");
        // So much that what other tests do meanwhile is little.
        let used = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = held();
        assert!(after.own.saturating_sub(before.own) > 48 << 20, "{before:?} {after:?}");
        drop(used);
    }
}
