//! Programs: found, run to their end, or kept running and killed on drop.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, setrlimit,
};

use crate::netns::PATIENCE;
use crate::{Namespace, Scratch};

/// Where the programs come from: the Debian package, where its name differs from the program's.
const PACKAGES: [(&str, &str); 30] = [
    ("ab", "apache2-utils"),
    ("busybox", "busybox-static"),
    ("conntrack", "conntrack"),
    ("depmod", "kmod"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("dpkg-deb", "dpkg"),
    ("gtlsclient", "ngtcp2-client"),
    ("gtlsserver", "ngtcp2-server"),
    ("in.tftpd", "tftpd-hpa"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("modprobe", "kmod"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("prlimit", "util-linux"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("redis-benchmark", "redis-tools"),
    ("scp", "openssh-client"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("sysctl", "procps"),
    ("tftp", "tftp-hpa"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
];

/// The full path of a program: from PATH, or the sbin directories that a user's PATH lacks.
///
/// # Panics
/// When it is not installed, naming the Debian package.
pub fn find(program: &Path) -> PathBuf {
    locate(program).unwrap_or_else(|| panic!("{}", advice(&program.display().to_string())))
}

/// The same, where not being installed is an outcome.
pub fn locate(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The same, with what to say where it is not.
///
/// # Errors
/// [`advice`]
pub fn installed(program: &str) -> Result<PathBuf, String> {
    locate(Path::new(program)).ok_or_else(|| advice(program))
}

/// What to say of a program that is not installed: the Debian package that has it.
pub fn advice(program: &str) -> String {
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    format!("{program} is not installed: apt-get install {package}")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |each: char| each.is_ascii_alphanumeric() || "-_./:=,@%+".contains(each);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command for an installed program.
///
/// # Panics
/// When it is not installed.
pub fn program(name: &str) -> Command {
    Command::new(find(Path::new(name)))
}

/// Runs to the end and returns standard output.
///
/// # Panics
/// When it fails; the message has all that it printed.
pub fn run(command: &mut Command) -> String {
    attempt(command).unwrap_or_else(|complaint| panic!("{complaint}"))
}

/// Runs to the end: standard output, or why it failed.
///
/// # Errors
/// The command, its status and all that it printed.
pub fn attempt(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("start {command:?}: {e}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Runs to the end with `input` on standard input.
///
/// # Panics
/// When it fails.
pub fn feed(command: &mut Command, input: &str) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A program that stops reading early says why on stderr, which is better than our broken pipe.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("our own child");
    let said = String::from_utf8_lossy(&output.stderr);
    let shown: String = input.chars().take(2000).collect();
    assert!(output.status.success(), "{command:?}: {}\n{said}\nits input:\n{shown}", output.status);
}

/// A running program, killed with its whole process group on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    kept: Vec<Scratch>,
}

impl Process {
    /// Starts a program in a process group of its own; what it prints goes to a log.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let scratch = Scratch::new();
        let log = scratch.join("log");
        let file = File::create(&log).expect("a fresh directory of our own");
        let errors = file.try_clone().expect("a descriptor is free");
        command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        Self { child, log, kept: vec![scratch] }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Keeps a directory as long as the process.
    #[must_use]
    pub fn keep(mut self, directory: Scratch) -> Self {
        self.kept.push(directory);
        self
    }

    /// Waits until it listens on a TCP port of a namespace, without touching it.
    ///
    /// # Panics
    /// When it ends or takes too long; the message has all that it printed.
    #[must_use]
    pub fn until_tcp(self, ns: &Namespace, port: u16) -> Self {
        self.until("tcp", ns, port, || ns.has_tcp(port))
    }

    /// Waits until it has bound a UDP port of a namespace.
    ///
    /// # Panics
    /// When it ends or takes too long; the message has all that it printed.
    #[must_use]
    pub fn until_udp(self, ns: &Namespace, port: u16) -> Self {
        self.until("udp", ns, port, || ns.has_udp(port))
    }

    fn until(mut self, protocol: &str, ns: &Namespace, port: u16, ready: impl Fn() -> bool) -> Self {
        let start = Instant::now();
        while !ready() {
            let ended = self.ended();
            let waiting = ended.is_none() && start.elapsed() < PATIENCE;
            assert!(waiting, "no {protocol} port {port} in {}: {ended:?}\n{}", ns.name(), self.log());
            thread::sleep(Duration::from_millis(5));
        }
        self
    }

    /// All that it printed until now.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Sends a signal to the process and all that it started: STOP freezes a server so that it accepts (the kernel
    /// does) and never answers, CONT lets it go on.
    pub fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < limit, "the process did not end within {limit:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A figure of /proc/PID/status in KiB ("VmRSS", "RssAnon").
    ///
    /// # Panics
    /// When there is no such line.
    pub fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("our own child lives");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("/proc/PID/status has no {field}"))
    }

    /// CPU time used until now by all its threads, user and system.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.id())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Raises this process's own limit of descriptors as far as it goes: hundreds of connections with both ends and a
/// server in one test process.
pub fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

/// CPU time of a process until now, user and system (proc(5): stat fields 14 and 15, in ticks of 10 ms).
pub fn cpu_time(pid: u32) -> Duration {
    let ticks: u64 = stat_fields(pid).skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The fields of /proc/PID/stat from the third on; none when the process is gone. The second is the name in
/// parentheses and may hold spaces.
fn stat_fields(pid: u32) -> impl Iterator<Item = String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_be_typed_again() {
        assert_eq!(quoted("--rounds=5"), "--rounds=5");
        assert_eq!(quoted("x=socat {listen} it's"), r"'x=socat {listen} it'\''s'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
