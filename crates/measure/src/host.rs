//! The machine, as far as figures depend on it; and what time it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use portway_lab::process;

use crate::record::Host;

/// Programs that take part, and what makes each say its version.
const PROGRAMS: [(&str, &str); 8] = [
    ("iptables", "-V"),
    ("nft", "-v"),
    ("ipvsadm", "-v"),
    ("haproxy", "-v"),
    ("nginx", "-v"),
    ("realm", "-v"),
    ("socat", "-V"),
    ("ip", "-V"),
];

/// Settings that are of the whole machine, not of a network namespace.
const SETTINGS: [&str; 7] = [
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/sys/net/ipv4/tcp_mem",
    "/sys/devices/system/cpu/smt/control",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

/// This machine.
pub fn describe() -> Host {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let guest = of_cpu("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let vendor = Some(read("/sys/class/dmi/id/sys_vendor")).filter(|vendor| !vendor.is_empty());
    let settings = SETTINGS.iter().map(|path| ((*path).to_owned(), read(path)));
    Host {
        kernel: read("/proc/sys/kernel/osrelease"),
        cpu: of_cpu("model name").or_else(|| of_cpu("Processor")).unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        memory: memory(["MemTotal:"]),
        hypervisor: guest.then(|| vendor.unwrap_or_else(|| "one that does not say its name".to_owned())),
        programs: PROGRAMS
            .iter()
            .filter_map(|(name, flag)| Some(((*name).to_owned(), version(name, flag)?)))
            .collect(),
        settings: settings.filter(|(_, value)| !value.is_empty()).collect::<BTreeMap<_, _>>(),
    }
}

/// Memory by its names in /proc/meminfo, all of them together, in bytes (Documentation/filesystems/proc.rst).
pub fn memory<const N: usize>(names: [&str; N]) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let named = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    named.filter_map(kib).sum::<u64>() << 10
}

/// Settings of several numbers have tabs between them.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line in which a program says its version: the first with a digit in it.
pub(crate) fn version(name: &str, flag: &str) -> Option<String> {
    let output =
        Command::new(process::locate(Path::new(name))?).arg(flag).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // ipvsadm asks for the kernel's part first, and says what became of that.
    text.lines()
        .filter(|line| !line.contains("FATAL"))
        .find(|line| line.contains(|c: char| c.is_ascii_digit()))
        .map(|line| line.trim().to_owned())
}

/// A time as RFC 3339 has it, in UTC, to the second.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // From days to a date: years begin in March, so that the leap day is a year's last; 400 years are 146,097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
