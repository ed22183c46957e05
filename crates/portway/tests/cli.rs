//! The command as a person meets it, without root's engine: proxy rules on loopback, and the commands that
//! only read. What needs namespaces is in the lab's conformance suite.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails where it stands.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// An unprivileged user, so that the tests see what a person without root sees even when CI is root.
const NOBODY: u32 = 65534;

/// A directory of the test's own, open to the unprivileged user, with a copy of the binary in it (the build
/// directory may be closed to that user). Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("portway-cli-{}-{unique}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        // By a process of its own: a file that this one has open for writing would be busy for the children
        // that other tests start at the same moment.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_portway")).arg(dir.join("portway")).status();
        assert!(copied.unwrap().success());
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn state(&self) -> String {
        self.0.join("state").to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("portway"));
        command.args(args).current_dir(&self.0);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts a daemon and waits for its `ready`; the lines before it come back.
    fn start(&self, args: &[&str]) -> (Daemon, Vec<String>) {
        let state = self.state();
        let mut args = args.to_vec();
        args.extend(["--state-dir", &state]);
        let mut child = self.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "ready" {
                return (Daemon(child), lines);
            }
            lines.push(line);
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        panic!("ended before it was ready: {}\n{said}", child.wait().unwrap());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn interrupt(mut self) {
        self.signal("INT");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that answers each connection with one line and closes; its port.
fn greeter(line: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(line.as_bytes()));
        }
    });
    port
}

fn greeting(port: u16) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn rule(name: &str, listen: u16, forward: u16) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{listen}\"\nforward = \"127.0.0.1:{forward}\"\nengine = \"proxy\"\n"
    )
}

#[test]
fn forward_without_root_says_what_it_does_and_leaves_nothing() {
    let scratch = Scratch::new();
    let (server, port) = (greeter("hello"), free_port());
    let pair = [format!("127.0.0.1:{port}"), format!("127.0.0.1:{server}")];
    let (daemon, said) = scratch.start(&["forward", &pair[0], &pair[1]]);
    assert_eq!(greeting(port), "hello");
    let line = &said[0];
    for part in [format!("tcp/{} -> {}", pair[0], pair[1]), "by proxy: ".to_owned(), "root".to_owned()] {
        assert!(line.contains(&part), "{part} in {line}");
    }
    daemon.interrupt();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!Path::new(&scratch.state()).exists());
}

#[test]
fn forward_takes_several_pairs_and_the_form_of_docker() {
    let scratch = Scratch::new();
    let (one, two) = (greeter("one"), greeter("two"));
    let (first, second) = (free_port(), free_port());
    let words = [format!("127.0.0.1:{first}:127.0.0.1:{one}"), format!("{second}:127.0.0.1:{two}")];
    let (daemon, said) = scratch.start(&["forward", &words[0], &words[1]]);
    assert_eq!((greeting(first), greeting(second)), ("one".to_owned(), "two".to_owned()));
    assert_eq!(said.len(), 2);
    daemon.interrupt();
}

#[test]
fn check_reports_every_mistake_at_its_place() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.toml",
        "[[rule]]\nlisten = \"0.0.0.0:80000\"\nforward = \"10.0.0.1:80\"\n\n[[rule]]\nlistn = \"0.0.0.0:81\"\nforward = \"10.0.0.1\"\n",
    );
    let output = scratch.run(&["check", "--offline", "-c", &file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for part in ["bad.toml:2:", "80000", "bad.toml:6:", "listn", "listen", "^^"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let output = scratch.run(&["check", "--offline", "--json", "-c", &file]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json.as_array().unwrap().iter().any(|d| d["line"] == 2 && d["severity"] == "error"), "{json}");
}

/// What no engine can do is told beside the mistakes of the text, in its order; a rule that was not built is not assigned.
#[test]
fn check_reports_what_no_engine_can_do_in_the_same_run() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.toml",
        "[[rule]]
name = 'counting'
listen = '80'
forward = '10.0.0.1'
engine = 'nftables'
pool = { balance = 'least-connections', wieght = 3 }

[[rule]]
name = 'unbuilt'
listen = '81'
forward = '10.0.0.1:0'
engine = 'nftables'
max-connections = 3

[[rule]]
name = 'counting-too'
listen = '82'
forward = '10.0.0.1'
engine = 'nftables'
max-connections = 3
",
    );
    let output = scratch.run(&["check", "--offline", "--json", "-c", &file]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<_> =
        found.as_array().unwrap().iter().map(|found| found["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [5, 6, 11, 19], "{found:#}");
    let message = |nth: usize| found[nth]["message"].as_str().unwrap();
    assert!(message(0).contains("counting: the nftables engine cannot serve it"), "{found:#}");
    assert!(message(1).contains("wieght") && message(3).contains("counting-too"), "{found:#}");
}

/// The same for a command line: nothing is forwarded, and everything is said.
#[test]
fn forward_reports_what_no_engine_can_do_in_the_same_run() {
    let scratch = Scratch::new();
    let pairs = ["8888", "10.0.0.1:0", "0.0.0.0:8889", "[fd00::1]:80"];
    let output = scratch.run(&[&["forward", "--engine", "nftables"], &pairs[..]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("10.0.0.1:0") && said.contains("NAT cannot translate between families"), "{said}");
}

#[test]
fn check_names_the_process_that_holds_a_port() {
    let scratch = Scratch::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let file = scratch.file("held.toml", &rule("web", port, 1));
    // As the test's own user: an unprivileged one may not see who holds the port.
    let output = Command::new(env!("CARGO_BIN_EXE_portway")).args(["check", "-c", &file]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
}

#[test]
fn plan_is_the_same_every_time_and_gives_reasons() {
    let scratch = Scratch::new();
    let file = scratch.file("plan.toml", "[[rule]]\nlisten = \"[::]:443\"\nforward = \"10.0.0.1:443\"\n\n[[rule]]\nlisten = \"0.0.0.0:80\"\nforward = \"10.0.0.1:80\"\n");
    let first = scratch.run(&["plan", "--offline", "-c", &file]);
    let again = scratch.run(&["plan", "--offline", "-c", &file]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(first.stdout, again.stdout);
    let said = text(&first.stdout);
    for part in ["proxy: ", "families", "nftables: ", "table inet portway", "net.ipv4.ip_forward = 1"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn plan_shows_the_settings_of_pools() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "pool.toml",
        "[[rule]]
name = 'web'
listen = '0.0.0.0:80'
[rule.pool]
backends = [{ address = '10.0.0.1:80', name = 'a', weight = 3 }, { address = '10.0.0.2:80', backup = true }]
persist = '10m'
on-down = 'reset'
check = 'tcp'

[[rule]]
listen = '0.0.0.0:81'
forward = '10.0.0.1:80'
",
    );
    let said = text(&scratch.run(&["plan", "--offline", "-c", &file]).stdout);
    let backends = "10.0.0.1:80 (called a, weight 3), 10.0.0.2:80 (backup)";
    let lines = [
        &format!("    backends = {backends}"),
        "    check = tcp, every ",
        "    on-down = reset",
        "    persist = 10m",
    ];
    for line in lines {
        assert!(said.contains(line), "{line} in\n{said}");
    }
    let output = scratch.run(&["plan", "--offline", "--json", "-c", &file]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = |nth: usize| {
        json["rules"][nth]["settings"].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(keys(0), ["backends", "check", "on-down", "persist"], "{json:#}");
    assert_eq!(keys(1), [""; 0], "{json:#}");
    assert_eq!(json["rules"][0]["settings"]["backends"], backends);
}

#[test]
fn diff_shows_rules_added_removed_and_changed() {
    let scratch = Scratch::new();
    let old = scratch.file("old.toml", &(rule("a", 1001, 1) + &rule("b", 1002, 1)));
    let new = scratch.file("new.toml", &(rule("b", 1002, 2) + &rule("c", 1003, 1)));
    let output = scratch.run(&["diff", "-c", &new, "--against", &old]);
    let said = text(&output.stdout);
    // Ports below 1024 may need privilege; then the comparison is refused, which is not what is tested here.
    let said = if output.status.success() {
        said
    } else {
        text(
            &Command::new(env!("CARGO_BIN_EXE_portway"))
                .args(["diff", "-c", &new, "--against", &old])
                .output()
                .unwrap()
                .stdout,
        )
    };
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("- a:") && lines[1].starts_with("~ b:") && lines[2].starts_with("+ c:"),
        "{said}"
    );
    assert!(lines[1].contains("127.0.0.1:1 => 127.0.0.1:2"), "{said}");
}

#[test]
fn status_reload_and_a_bad_file() {
    let scratch = Scratch::new();
    let (one, two, port) = (greeter("one"), greeter("two"), free_port());
    let file = scratch.file("portway.toml", &rule("web", port, one));
    let (daemon, _) = scratch.start(&["run", "-c", &file]);
    let state = scratch.state();
    assert_eq!(greeting(port), "one");

    let status = scratch.run(&["status", "--json", "--state-dir", &state]);
    let json: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let web = &json["rules"][0];
    assert_eq!((&web["name"], &web["state"]), (&"web".into(), &"forwarding".into()), "{json}");
    assert_eq!((web["flows"].as_u64(), web["bytes_out"].as_u64()), (Some(1), Some(3)), "{json}");

    scratch.file("portway.toml", "[[rule]]\nlisten = \"nonsense\"\n");
    let refused = scratch.run(&["reload", "--state-dir", &state]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("nothing was changed"), "{}", text(&refused.stderr));
    assert_eq!(greeting(port), "one");

    scratch.file("portway.toml", &rule("web", port, two));
    let shown = scratch.run(&["diff", "-c", &file, "--state-dir", &state]);
    assert!(text(&shown.stdout).starts_with("~ web:"), "{}", text(&shown.stdout));
    daemon.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(5);
    while greeting(port) != "two" {
        assert!(Instant::now() < deadline, "SIGHUP was not followed");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(text(&scratch.run(&["reload", "--state-dir", &state]).stdout).contains("no rule changed"));
    daemon.interrupt();
}

#[test]
fn the_control_socket_is_its_owners_alone() {
    let scratch = Scratch::new();
    let file = scratch.file("portway.toml", &rule("web", free_port(), greeter("x")));
    let (daemon, _) = scratch.start(&["run", "-c", &file]);
    let mode = fs::metadata(Path::new(&scratch.state()).join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if is_root() {
        let state = scratch.state();
        let mut stranger = Command::new(scratch.0.join("portway"));
        let output = stranger
            .args(["status", "--state-dir", &state])
            .uid(NOBODY - 1)
            .gid(NOBODY - 1)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("ermission denied"), "{}", text(&output.stderr));
    }
    daemon.interrupt();
}

#[test]
fn a_second_daemon_is_refused_and_clear_waits_for_the_end_of_the_first() {
    let scratch = Scratch::new();
    let file = scratch.file("portway.toml", &rule("web", free_port(), greeter("x")));
    let (daemon, _) = scratch.start(&["run", "-c", &file]);
    let state = scratch.state();
    for args in [vec!["run", "-c", &file, "--state-dir", &state], vec!["clear", "--state-dir", &state]] {
        let output = scratch.run(&args);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(&daemon.0.id().to_string()), "{}", text(&output.stderr));
    }
    drop(daemon);
    assert!(scratch.run(&["clear", "--state-dir", &state]).status.success());
    assert!(!Path::new(&state).exists());
}

#[test]
fn hostile_bytes_on_the_control_socket_are_refused() {
    let scratch = Scratch::new();
    let file = scratch.file("portway.toml", &rule("web", free_port(), greeter("x")));
    let (daemon, _) = scratch.start(&["run", "-c", &file]);
    let socket = Path::new(&scratch.state()).join("control.sock");
    for bytes in [&b"\xff\xfe\n"[..], b"{}\n", b"\"statu\"\n", &[b'['; 100_000]] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        // The daemon stops reading at its bound and may close first.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || text(&answer).contains("refused"), "{}", text(&answer));
    }
    assert!(scratch.run(&["status", "--state-dir", &scratch.state()]).status.success());
    daemon.interrupt();
}

/// The generator against its own server, both as a user without privilege.
#[test]
fn bench_says_what_became_of_a_load() {
    let scratch = Scratch::new();
    let mut server = scratch.command(&["bench", "serve", "127.0.0.1:0", "--page", "500"]);
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address =
        line.strip_prefix("serving on ").and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    let json = |args: &[&str]| -> serde_json::Value {
        let output = scratch.run(&[&["bench"], args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let brief = ["-n", "50", "--warm-up", "0s"];
    for load in
        [vec!["http", &address], vec!["tcp", &address, "--keepalive"], vec!["udp", &address, "--size", "100"]]
    {
        let found = json(&[&load[..], &brief].concat());
        assert_eq!((&found["done"], &found["errors"]), (&50.into(), &serde_json::json!({})), "{load:?}");
        assert!(found["latency_us"]["p99.9"].as_f64().unwrap() > 0.0, "{load:?}");
    }
    let found = json(&["bulk", &address, "--up", "-d", "300ms", "--warm-up", "100ms"]);
    assert!(found["gbit_per_second"].as_f64().unwrap() > 0.0);
    let text = scratch.run(&["bench", "idle", &address, "-n", "20", "-d", "100ms"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("held       20 for 0.1 s"));
    server.kill().unwrap();
    server.wait().unwrap();
    let refused = scratch.run(&["bench", "tcp", &address, "-n", "3", "--warm-up", "0s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("errors     3 refused"));
}

#[test]
fn the_lab_needs_root_and_says_so_in_a_line() {
    let scratch = Scratch::new();
    let output = scratch.run(&["lab"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "portway: error: the lab makes network namespaces, which needs root: sudo portway lab\n"
    );
    assert!(scratch.run(&["lab", "--list"]).status.success());
    let output = scratch.run(&["lab", "--only", "nfs"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("no lane or load is called \"nfs\""));
}
