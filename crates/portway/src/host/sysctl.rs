//! Host settings (sysctls): what the rules need is read first, set when allowed, recorded, and put back.
//!
//! The record is written before the first change and keeps the oldest value it has seen, so that a daemon
//! that was killed and started again still knows what the host looked like before any of it.
//!
//! Turning forwarding on is not one switch. The kernel copies `ip_forward` to every interface and flips
//! `accept_redirects` (`net/ipv4/devinet.c`, `inet_forward_change`), and an interface that forwards IPv6 stops
//! hearing router advertisements unless `accept_ra` is 2 (`Documentation/networking/ip-sysctl.rst`), which
//! would cost the host its default route. Both are handled here.
//!
//! Deliberately absent: anything that the rules, or the listing of their flows, do not need. Portway tunes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portway_core::address::{Family, PortRange};
use portway_core::ruleset::{Conntrack, HostSettings};
use serde::{Deserialize, Serialize};

use super::reserved;
use crate::state_dir;

const FORWARD_V4: &str = "net/ipv4/ip_forward";
const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
/// Safe to set: Portway's table drops 127.0.0.0/8 that comes from outside.
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";
/// Holds for IPv6 as well. Each network namespace has its own (`net/ipv4/sysctl_net_ipv4.c`).
const RESERVED_PORTS: &str = "net/ipv4/ip_local_reserved_ports";
const WHY_RESERVED: &str = "the ebpf engine sends from these ports, and the host's sockets keep out of them";

/// What the rules need of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Packets are forwarded between interfaces, IPv4.
    pub forward_v4: bool,
    /// Packets are forwarded between interfaces, IPv6.
    pub forward_v6: bool,
    /// 127.0.0.0/8 is translated, so the kernel may not treat it as martian.
    pub route_localnet: bool,
    /// Ports that the host's sockets keep out of, besides those that others have reserved.
    pub reserved_ports: Option<PortRange>,
    /// The kernel keeps the age and the bytes of each flow.
    pub accounting: bool,
    /// Conntrack limits that the file asks for.
    pub conntrack: Conntrack,
}

impl Needs {
    /// Sets whether packets of `family` are forwarded.
    pub fn set_forwarding(&mut self, family: Family, needed: bool) {
        match family {
            Family::V4 => self.forward_v4 = needed,
            Family::V6 => self.forward_v6 = needed,
        }
    }

    /// What a plan says of the settings: each with its value and the reason, whatever this host has now. What others
    /// have put in a list stays in it.
    pub fn told(&self) -> Vec<(&'static str, String, &'static str)> {
        let reserved = self.reserved_ports.map(|ports| (RESERVED_PORTS, format!("…,{ports}"), WHY_RESERVED));
        self.settings().into_iter().chain(reserved).collect()
    }

    /// The settings whose value does not depend on what the host has now, with the reason.
    fn settings(&self) -> Vec<(&'static str, String, &'static str)> {
        let switch = |needed: bool, key, why| needed.then(|| (key, "1".to_owned(), why));
        let asked =
            |key, value: Option<String>| value.map(|value| (key, value, "[host.conntrack] asks for it"));
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs().to_string());
        let conntrack = &self.conntrack;
        [
            switch(self.forward_v4, FORWARD_V4, "packets are forwarded to IPv4 backends"),
            switch(self.forward_v6, FORWARD_V6, "packets are forwarded to IPv6 backends"),
            switch(
                self.route_localnet,
                ROUTE_LOCALNET,
                "0.0.0.0 includes 127.0.0.1, or a rule names such an address (none from outside is let in)",
            ),
            switch(
                self.accounting,
                "net/netfilter/nf_conntrack_acct",
                "`portway conns` shows the bytes of flows",
            ),
            switch(
                self.accounting,
                "net/netfilter/nf_conntrack_timestamp",
                "`portway conns` shows the age of flows",
            ),
            asked("net/netfilter/nf_conntrack_max", conntrack.max.map(|max| max.to_string())),
            asked("net/netfilter/nf_conntrack_tcp_timeout_established", seconds(conntrack.tcp_established)),
            asked("net/netfilter/nf_conntrack_udp_timeout", seconds(conntrack.udp)),
            asked("net/netfilter/nf_conntrack_udp_timeout_stream", seconds(conntrack.udp_stream)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// One setting that is not as the rules need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The setting in sysctl(8) notation below /proc/sys: `net/ipv4/ip_forward`.
    pub key: String,
    /// What it is now.
    pub from: String,
    /// What the rules need.
    pub to: String,
    /// Why, in words.
    pub why: &'static str,
}

/// Values to put back, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    originals: BTreeMap<String, String>,
}

/// The host's sysctls and the record of what was changed.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    record_path: PathBuf,
    record: Record,
}

impl Sysctls {
    /// Opens the record in `state_dir` (none yet is fine); settings are those of /proc/sys.
    ///
    /// # Errors
    /// The record exists and cannot be read: without it nothing could be put back.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Self::open_at(Path::new("/proc/sys"), state_dir)
    }

    fn open_at(root: &Path, state_dir: &Path) -> io::Result<Self> {
        let record_path = state_dir.join("host-settings.json");
        let record = match fs::read(&record_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { root: root.to_owned(), record_path, record })
    }

    /// What would have to change for `needs`. Reads only.
    pub fn missing(&self, needs: &Needs) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut want = |key: &str, to: &str, why| {
            if let Some(from) = self.read(key)
                && from != to
            {
                changes.push(Change { key: key.to_owned(), from, to: to.to_owned(), why });
            }
        };
        if needs.forward_v6 && self.read(FORWARD_V6).as_deref() == Some("0") {
            for interface in self.interfaces("net/ipv6/conf") {
                let key = format!("net/ipv6/conf/{interface}/accept_ra");
                if self.read(&key).as_deref() == Some("1") {
                    want(&key, "2", "an interface that forwards would stop hearing router advertisements");
                }
            }
        }
        for (key, to, why) in needs.settings() {
            want(key, &to, why);
        }
        let reserved =
            needs.reserved_ports.and_then(|ports| reserved::with(&self.read(RESERVED_PORTS)?, ports));
        if let Some(list) = reserved {
            want(RESERVED_PORTS, &list, WHY_RESERVED);
        }
        changes
    }

    /// Brings the host to what `needs` says, or only reports under [`HostSettings::Check`]. The answer is what
    /// was found missing; whether it was set is what `settings` says.
    ///
    /// # Errors
    /// The first setting that could not be recorded or written; what this call had set is put back.
    pub fn apply(&mut self, needs: &Needs, settings: HostSettings) -> io::Result<Vec<Change>> {
        let changes = self.missing(needs);
        if settings == HostSettings::Check || changes.is_empty() {
            return Ok(changes);
        }
        let before = self.record.clone();
        for change in &changes {
            for key in self.touched_by(&change.key) {
                if let Some(value) = self.read(&key) {
                    self.record.originals.entry(key).or_insert(value);
                }
            }
        }
        self.save()?;
        for change in &changes {
            if let Err(error) = self.write(&change.key, &change.to) {
                // The setting that failed is what is reported; the ones before it go back.
                let _ = self.undo(&changes);
                self.record = before;
                self.save()?;
                let message = format!("cannot set {} = {}: {error}", dotted(&change.key), change.to);
                return Err(io::Error::new(error.kind(), message));
            }
        }
        Ok(changes)
    }

    /// Takes back what one [`Self::apply`] set. The record stays: it holds what was there before all of them.
    ///
    /// # Errors
    /// The first setting that could not be written; the others are tried all the same.
    pub fn undo(&self, changes: &[Change]) -> io::Result<()> {
        let undone: Vec<_> = changes.iter().map(|change| self.write(&change.key, &change.from)).collect();
        undone.into_iter().collect()
    }

    /// Puts every recorded setting back and forgets the record. Settings whose interface is gone are skipped.
    ///
    /// # Errors
    /// The first setting that could not be written back; the record stays for another try.
    pub fn restore(&mut self) -> io::Result<usize> {
        // The switches that the kernel copies to interfaces go first, so that the copies do not win.
        let (switches, others): (Vec<_>, Vec<_>) =
            self.record.originals.iter().partition(|(key, _)| is_switch(key));
        let mut restored = 0;
        for (key, value) in switches.into_iter().chain(others) {
            match self.read(key) {
                None => continue,
                Some(now) if now == *value => continue,
                Some(_) => {}
            }
            self.write(key, value).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot put back {} = {value}: {error}", dotted(key)))
            })?;
            restored += 1;
        }
        self.record = Record::default();
        match fs::remove_file(&self.record_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(restored),
        }
    }

    /// The settings that the kernel changes when `key` is written, `key` included.
    fn touched_by(&self, key: &str) -> Vec<String> {
        let mut keys = vec![key.to_owned()];
        let family = match key {
            FORWARD_V4 => "net/ipv4/conf",
            FORWARD_V6 => "net/ipv6/conf",
            _ => return keys,
        };
        keys.push(format!("{family}/all/accept_redirects"));
        keys.extend(self.interfaces(family).into_iter().map(|name| format!("{family}/{name}/forwarding")));
        keys
    }

    fn interfaces(&self, family: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(family)) else { return Vec::new() };
        let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn read(&self, key: &str) -> Option<String> {
        Some(fs::read_to_string(self.root.join(key)).ok()?.trim().to_owned())
    }

    fn write(&self, key: &str, value: &str) -> io::Result<()> {
        // With the end of the line: a list that shall be empty is one, and no bytes at all would be no write.
        fs::write(self.root.join(key), format!("{value}\n"))
    }

    fn save(&self) -> io::Result<()> {
        if self.record.originals.is_empty() {
            return match fs::remove_file(&self.record_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec_pretty(&self.record).map_err(io::Error::other)?;
        state_dir::replace(&self.record_path, &text)
    }
}

fn is_switch(key: &str) -> bool {
    matches!(key, FORWARD_V4 | "net/ipv4/conf/all/forwarding" | FORWARD_V6)
}

/// `net/ipv4/ip_forward` as sysctl(8) writes it. An interface name may contain a dot, so the slashes stay
/// where there is one.
pub fn dotted(key: &str) -> String {
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of settings as /proc/sys has them, without the kernel's side effects.
    /// Removed when dropped.
    struct Host(PathBuf);

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn host(name: &str, settings: &[(&str, &str)]) -> (Host, PathBuf, PathBuf) {
        let base = std::env::temp_dir().join(format!("portway-sysctl-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let (root, state) = (base.join("sys"), base.join("state"));
        let host = Host(base);
        fs::create_dir_all(&state).unwrap();
        for (key, value) in settings {
            let path = root.join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        (host, root, state)
    }

    const FORWARD: Needs = Needs {
        forward_v4: true,
        forward_v6: true,
        route_localnet: false,
        reserved_ports: None,
        accounting: false,
        conntrack: Conntrack {
            max: None,
            tcp_established: None,
            udp: None,
            udp_stream: None,
            accounting: false,
        },
    };

    fn v4_and_v6() -> Vec<(&'static str, &'static str)> {
        vec![
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/all/accept_redirects", "0"),
            ("net/ipv4/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv6/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/eth0/accept_ra", "1"),
            ("net/ipv6/conf/eth1/accept_ra", "0"),
        ]
    }

    #[test]
    fn forwarding_keeps_router_advertisements() {
        let (_host, root, state) = host("ra", &v4_and_v6());
        let mut sysctls = Sysctls::open_at(&root, &state).unwrap();
        let keys: Vec<_> =
            sysctls.apply(&FORWARD, HostSettings::Set).unwrap().into_iter().map(|c| c.key).collect();
        assert_eq!(
            keys,
            ["net/ipv6/conf/eth0/accept_ra", "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        );
        assert!(sysctls.missing(&FORWARD).is_empty());
    }

    #[test]
    fn restore_undoes_what_the_kernel_changed_beside() {
        let (_host, root, state) = host("beside", &v4_and_v6());
        Sysctls::open_at(&root, &state).unwrap().apply(&FORWARD, HostSettings::Set).unwrap();
        // What inet_forward_change does on a real host.
        fs::write(root.join("net/ipv4/conf/all/accept_redirects"), "1").unwrap();
        fs::write(root.join("net/ipv4/conf/eth0/forwarding"), "1").unwrap();
        // Another process, after a crash, knows it all from the record.
        let mut later = Sysctls::open_at(&root, &state).unwrap();
        later.restore().unwrap();
        for (key, value) in v4_and_v6() {
            assert_eq!(later.read(key).unwrap(), value, "{key}");
        }
        assert!(!state.join("host-settings.json").exists());
    }

    #[test]
    fn the_oldest_value_is_what_is_put_back() {
        let (_host, root, state) = host("oldest", &[("net/netfilter/nf_conntrack_max", "100")]);
        let needs = |max| Needs {
            conntrack: Conntrack { max: std::num::NonZeroU32::new(max), ..Conntrack::default() },
            ..Needs::default()
        };
        Sysctls::open_at(&root, &state).unwrap().apply(&needs(200), HostSettings::Set).unwrap();
        let mut second = Sysctls::open_at(&root, &state).unwrap();
        second.apply(&needs(300), HostSettings::Set).unwrap();
        second.restore().unwrap();
        assert_eq!(second.read("net/netfilter/nf_conntrack_max").unwrap(), "100");
    }

    /// What others have reserved stays, before and after.
    #[test]
    fn reserved_ports_are_added_to_a_list_and_taken_out_again() {
        for before in ["", "8080"] {
            let (_host, root, state) = host("reserved", &[(RESERVED_PORTS, before)]);
            let needs = |first| Needs { reserved_ports: PortRange::new(first, 65_535), ..Needs::default() };
            let mut sysctls = Sysctls::open_at(&root, &state).unwrap();
            sysctls.apply(&needs(40_000), HostSettings::Set).unwrap();
            let comma = if before.is_empty() { "" } else { "," };
            let with = |range: &str| format!("{before}{comma}{range}");
            assert_eq!(sysctls.read(RESERVED_PORTS).unwrap(), with("40000-65535"));
            assert!(sysctls.missing(&needs(50_000)).is_empty(), "less than is there already");
            sysctls.apply(&needs(32_768), HostSettings::Set).unwrap();
            assert_eq!(sysctls.read(RESERVED_PORTS).unwrap(), with("32768-65535"));
            sysctls.restore().unwrap();
            assert_eq!(sysctls.read(RESERVED_PORTS).unwrap(), before);
        }
    }

    #[test]
    fn check_only_reports() {
        let (_host, root, state) = host("check", &v4_and_v6());
        let mut sysctls = Sysctls::open_at(&root, &state).unwrap();
        assert_eq!(sysctls.apply(&FORWARD, HostSettings::Check).unwrap().len(), 3);
        assert_eq!(sysctls.read("net/ipv4/ip_forward").unwrap(), "0");
        assert!(!state.join("host-settings.json").exists());
    }

    #[test]
    fn a_setting_that_cannot_be_written_leaves_the_others_as_they_were() {
        let (_host, root, state) = host("fails", &[("net/ipv4/ip_forward", "0")]);
        // A directory in the place of a setting cannot be written, but reads as absent; so make the key exist
        // and the write fail by a dangling link to a missing directory.
        let key = root.join("net/ipv4/conf/all/route_localnet");
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "0").unwrap();
        let mut sysctls = Sysctls::open_at(&root, &state).unwrap();
        let needs = Needs { forward_v4: true, route_localnet: true, ..Needs::default() };
        let changes = sysctls.missing(&needs);
        assert_eq!(changes.len(), 2);
        fs::remove_file(&key).unwrap();
        std::os::unix::fs::symlink("/proc/version", &key).unwrap();
        let error = sysctls.apply(&needs, HostSettings::Set).unwrap_err();
        assert!(error.to_string().contains("net.ipv4.conf.all.route_localnet = 1"), "{error}");
        assert_eq!(sysctls.read("net/ipv4/ip_forward").unwrap(), "0");
        assert!(!state.join("host-settings.json").exists());
    }
}
