//! The ebpf engine as a person without root meets it: what is missing is said, and what would be is shown. What needs
//! namespaces and privileges is in the lab's conformance suite.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// An unprivileged user, so that the tests see what a person without root sees even when CI is root.
const NOBODY: u32 = 65534;

/// A directory with a copy of the binary in it that the unprivileged user can run. Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("portway-ebpf-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_portway")).arg(dir.join("portway")).status();
        assert!(copied.unwrap().success());
        Self(dir)
    }

    fn file(&self, text: &str) -> String {
        let path = self.0.join("portway.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.0.join("portway"));
        command.args(args).current_dir(&self.0);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const RULE: &str = "[[rule]]
name = 'web'
listen = '0.0.0.0:8443'
forward = ['10.0.0.1:443', '10.0.0.2:443']
client-address = 'toa'
syn-cookies = 500
";

const MISSING: &str = "needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)";

#[test]
fn a_rule_for_it_is_refused_with_what_is_missing() {
    let scratch = Scratch::new("refused");
    let file = scratch.file(RULE);
    for args in [
        &["check", "-c", &file][..],
        &["plan", "-c", &file],
        &["forward", "8443:10.0.0.1:443", "--engine", "ebpf"],
    ] {
        let output = scratch.run(args);
        assert!(!output.status.success(), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains(&format!("eBPF cannot be used here: {MISSING}")), "{args:?}: {said}");
    }
}

#[test]
fn probe_says_what_each_engine_and_interface_can_do() {
    let scratch = Scratch::new("probe");
    let output = scratch.run(&["probe"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        said.contains(&format!("ebpf: no, {MISSING}")) && said.contains("nftables: no, needs root"),
        "{said}"
    );
    let loopback = said.lines().find(|line| line.trim_start().starts_with("lo ")).unwrap_or_default();
    assert!(loopback.contains("no") && loopback.contains("the loopback device"), "{said}");
    let output = scratch.run(&["probe", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ebpf"]["available"], false);
    assert_eq!(json["ebpf"]["what"], MISSING);
    let interfaces = json["interfaces"].as_array().unwrap();
    let loopback = interfaces.iter().find(|interface| interface["name"] == "lo").unwrap();
    assert_eq!((&loopback["served"], &loopback["xdp"]), (&false.into(), &false.into()));
}

#[test]
fn plan_shows_what_the_programs_would_hold_and_what_the_host_must_do() {
    let scratch = Scratch::new("plan");
    let file = scratch.file(RULE);
    let said = text(&scratch.run(&["plan", "--offline", "-c", &file]).stdout);
    for part in [
        "ebpf: client-address = \"toa\" writes into segments",
        "    client-address = toa",
        "    syn-cookies = 500",
        "net.ipv4.ip_forward = 1",
        "net.ipv4.ip_local_reserved_ports = …,40000-65535  # the ebpf engine sends from these ports",
        "# ebpf\nattach auto, interfaces all, max-flows 262144",
        "choose in turn of 2 slots",
        "-> 10.0.0.2:443 slots 1",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("# nftables") && !said.contains("conntrack"), "{said}");
    let json: serde_json::Value =
        serde_json::from_slice(&scratch.run(&["plan", "--offline", "--json", "-c", &file]).stdout).unwrap();
    assert!(json["ebpf"].as_str().unwrap().starts_with("attach auto"));
    assert_eq!(json["nftables"], "");
}
