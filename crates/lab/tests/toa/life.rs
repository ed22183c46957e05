//! How the programs come, stay and go.

use std::fs;
use std::path::Path;

use portway_lab::gateway::{Call, option};
use portway_lab::netns::{PATIENCE, wait_for};
use rustix::process::Signal;

use crate::support::{Host, Toa, toa};

const CLIENT: &str = "198.51.100.7:5001";

fn told(port: u16) -> Call {
    Call::new(&format!("10.3.0.9:{port}"), "10.3.0.1:7000").with(&option(CLIENT))
}

/// Whether anything of this host's control group is pinned.
fn pinned(host: &Host) -> bool {
    let name = host.cgroup.name().replace('.', "%2e");
    Path::new("/sys/fs/bpf/portway-toa").join(format!("%2f{name}")).exists()
}

#[test]
fn the_end_leaves_no_trace() {
    let mut host = Host::new();
    let mut running = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
    assert!(pinned(&host));
    running.process.signal(Signal::INT);
    assert!(running.process.wait(PATIENCE).success(), "{}", running.process.log());
    assert!(
        running.process.log().contains("1 connection: 1 with the client told"),
        "{}",
        running.process.log()
    );
    assert!(!pinned(&host));
    assert_eq!(host.seen(&told(40_001)), "10.3.0.9 40001");
}

#[test]
fn a_kill_takes_nothing_away_and_the_next_start_takes_over() {
    let mut host = Host::new();
    let mut first = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    let call = told(40_000);
    let cgroup = host.cgroup.path();
    let trust_all = ["--cgroup", cgroup.to_str().unwrap(), "--trust", "10.3.0.0/16", "--detach"];
    {
        let mut open = host.gateway.connect(&call).unwrap();
        open.send(b"again").unwrap();
        assert_eq!(open.answer().unwrap(), "198.51.100.7");
        first.process.signal(Signal::KILL);
        first.process.wait(PATIENCE);
        open.send(b"again").unwrap();
        assert_eq!(open.answer().unwrap(), "198.51.100.7", "nobody runs, the programs do");
        toa(&trust_all).unwrap();
        open.send(b"again").unwrap();
        assert_eq!(
            open.answer().unwrap(),
            "198.51.100.7",
            "what was known of open connections is taken over"
        );
        open.send(b"?").unwrap();
        assert_eq!(open.rest().unwrap(), "198.51.100.7 5001 198.51.100.7 5001 198.51.100.7 5001");
    }
    let status = host.status();
    assert_eq!(status["trust"], serde_json::json!(["10.3.0.0/16"]), "the list is the last one's");
    assert_eq!((&status["state"], &status["foreground"]), (&"attached".into(), &false.into()));
    assert_eq!(status["told"], 1, "counters go on");
    let other = Call::new("10.3.0.5:1", "10.3.0.1:7000").with(&option(CLIENT));
    assert_eq!(host.seen(&other), "198.51.100.7 5001");
    assert_eq!(host.count("connections"), 2);
    // A process takes over as well, and takes all away at its end.
    let mut last = host.toa(&["10.3.0.9"]);
    assert_eq!(host.status()["foreground"], true);
    assert_eq!(host.count("connections"), 2);
    last.process.signal(Signal::TERM);
    assert!(last.process.wait(PATIENCE).success());
    assert!(!pinned(&host));
}

#[test]
fn detached_until_cleared() {
    let mut host = Host::new();
    let name = host.cgroup.name().to_owned();
    let said = toa(&["--cgroup", &name, "--trust", "10.3.0.9,fd03::9", "--detach"]).unwrap();
    assert!(said.contains("believing 10.3.0.9/32, fd03::9/128"), "{said}");
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
    let status = toa(&["--status", "--cgroup", &name]).unwrap();
    assert!(status.contains(&format!("/{name}: attached, without a process")), "{status}");
    assert!(status.contains("1 connection: 1 with the client told; 1 listener, 3 answers"), "{status}");
    assert_eq!(toa(&["--clear", "--cgroup", &name]).unwrap(), format!("cleared /{name}\n"));
    assert!(!pinned(&host));
    assert_eq!(host.seen(&told(40_001)), "10.3.0.9 40001");
    let again = toa(&["--clear", "--cgroup", &name]).unwrap_err();
    assert!(again.contains(&format!("nothing is attached to /{name}")), "{again}");
}

#[test]
fn a_listener_from_before_has_the_acks_word_only() {
    let mut host = Host::new();
    let _server = host.who("0.0.0.0", 7000);
    let _toa = host.toa(&["10.3.0.9"]);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
    let syn = Call::new("10.3.0.9:40001", "10.3.0.1:7000").syn(&option(CLIENT));
    assert_eq!(host.seen(&syn), "10.3.0.9 40001", "its SYN was not kept");
    assert_eq!((host.count("listeners"), host.count("told"), host.count("silent")), (0, 1, 1));
}

#[test]
fn a_connection_keeps_the_gateway_when_the_programs_go() {
    let mut host = Host::new();
    let running = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    let call = told(40_000);
    let mut open = host.gateway.connect(&call).unwrap();
    open.send(b"again").unwrap();
    assert_eq!(open.answer().unwrap(), "198.51.100.7");
    drop(running);
    open.send(b"?").unwrap();
    assert_eq!(
        open.rest().unwrap(),
        "198.51.100.7 5001 10.3.0.9 40000 10.3.0.9 40000",
        "accept() was before, getpeername() after"
    );
}

#[test]
fn a_cgroup_made_anew_is_followed() {
    let mut host = Host::new();
    let running = host.toa(&["10.3.0.9"]);
    let server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
    drop(server);
    host.cgroup.remove();
    wait_for("the loss to be noticed", || running.process.log().contains("waiting for the cgroup"));
    host.cgroup.make();
    wait_for("the next cgroup to be found", || running.process.log().contains("which was made anew"));
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_001)), "198.51.100.7 5001");
    assert_eq!((host.count("told"), host.count("listeners")), (2, 2));
    let links = fs::read_dir("/sys/fs/bpf/portway-toa").unwrap().flatten();
    let ours = links
        .map(|entry| entry.path())
        .find(|path| path.to_str().unwrap().contains(&host.cgroup.name().replace('.', "%2e")));
    let numbers =
        fs::read_dir(ours.unwrap()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(numbers, 1, "the links of the first cgroup are gone");
}

#[test]
fn detached_from_a_cgroup_that_goes_says_so_and_a_new_start_mends_it() {
    let mut host = Host::new();
    let name = host.cgroup.name().to_owned();
    let words = ["--cgroup", &name, "--trust", "10.3.0.9", "--detach"];
    toa(&words).unwrap();
    host.cgroup.remove();
    let status = toa(&["--status"]).unwrap();
    assert!(status.contains(&format!("/{name}: not attached, the cgroup was removed")), "{status}");
    host.cgroup.make();
    assert_eq!(host.status()["state"], "not attached, the cgroup was removed");
    toa(&words).unwrap();
    assert_eq!(host.status()["state"], "attached");
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
    host.cgroup.kill();
    host.cgroup.remove();
    assert_eq!(
        toa(&["--clear", "--cgroup", &name]).unwrap(),
        format!("cleared /{name}\n"),
        "a cgroup that is gone"
    );
    host.cgroup.make();
    assert!(!pinned(&host));
}

#[test]
fn one_process_for_a_cgroup() {
    let host = Host::new();
    let running = host.toa(&["10.3.0.9"]);
    for refused in [
        Toa::try_start(&host.cgroup, &["10.3.0.9"]).map(drop).unwrap_err(),
        toa(&["--cgroup", host.cgroup.name(), "--trust", "10.3.0.9", "--detach"]).unwrap_err(),
        toa(&["--clear", "--cgroup", host.cgroup.name()]).unwrap_err(),
    ] {
        assert!(refused.contains("another portway toa serves it"), "{refused}");
    }
    assert_eq!(host.status()["state"], "attached");
    drop(running);
}

#[test]
fn syn_cookies_of_the_backend() {
    // The backend keeps no SYN then, and the ACK tells.
    let mut host = Host::new();
    host.ns.sysctl("net.ipv4.tcp_syncookies", "2");
    let _toa = host.toa(&["10.3.0.9"]);
    let _server = host.who("0.0.0.0", 7000);
    assert_eq!(host.seen(&told(40_000)), "198.51.100.7 5001");
}
