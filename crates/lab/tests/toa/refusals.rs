//! What is refused, and in which words.

use portway_lab::{Cgroup, portway, process};
use std::process::Command;

use crate::support::toa;

#[test]
fn trust_is_never_assumed() {
    let cgroup = Cgroup::new();
    let refused = toa(&["--cgroup", cgroup.name(), "--detach"]).unwrap_err();
    assert!(refused.contains("--trust is missing: whoever reaches a server can put option 254"), "{refused}");
    assert!(refused.contains("exit status: 2"), "{refused}");
}

#[test]
fn words_that_are_no_networks() {
    for word in ["10.3.0.9:80", "10.3.0.0/33", "gateway.example"] {
        let refused = toa(&["--cgroup", "x", "--trust", word]).unwrap_err();
        assert!(refused.contains("write 192.0.2.10, 192.0.2.0/24 or fd00::/64"), "{refused}");
    }
}

#[test]
fn trusting_everybody_is_warned_of() {
    let cgroup = Cgroup::new();
    let mut command = Command::new(portway::binary());
    command.args(["toa", "--detach", "--trust", "0.0.0.0/0", "--cgroup", cgroup.name()]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let cleared = toa(&["--clear", "--cgroup", cgroup.name()]);
    assert!(output.status.success() && said.contains("believes everybody"), "{said}");
    cleared.unwrap();
}

#[test]
fn what_is_no_cgroup() {
    for (path, reason) in
        [("/proc", "is no directory of a cgroup2 hierarchy"), ("/no/such.slice", "No such file or directory")]
    {
        let refused = toa(&["--cgroup", path, "--trust", "10.3.0.9"]).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn without_rights() {
    let cgroup = Cgroup::new();
    // A copy that an unprivileged user can reach.
    let scratch = portway_lab::Scratch::new();
    let copy = scratch.join("portway");
    process::run(process::program("cp").arg(portway::binary()).arg(&copy));
    let mut command = process::program("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&copy);
    command.args(["toa", "--trust", "10.3.0.9", "--cgroup"]).arg(cgroup.path());
    let refused = process::attempt(&mut command).unwrap_err();
    assert!(refused.contains("run as root, or with CAP_BPF, CAP_NET_ADMIN"), "{refused}");
}
